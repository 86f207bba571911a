# SPDX-License-Identifier: Apache-2.0
"""The kernel's side of a capture by BPF: rings in memory that a test writes as the program does."""

import mmap
from types import MappingProxyType

from pmlkit.kvm import bpf
from pmlkit.kvm.rings import DATA_AT, ENTRY_BYTES, HEAD_AT, LIMIT_AT, LOST_AT, ring_bytes


class Writer:
    """Writes into rings what `pmlkit.kvm.program` would."""

    def __init__(self, memory, entries):
        self.words, self.entries = memoryview(memory).cast("Q"), entries
        self.step = ring_bytes(entries) // 8

    def write(self, cpu, time_ns, gfn, thread):
        """Write an entry; returns whether there was room."""
        at = cpu * self.step
        head = self.words[at + HEAD_AT // 8]
        if head >= self.words[at + LIMIT_AT // 8]:
            self.words[at + LOST_AT // 8] += 1
            return False
        place = at + DATA_AT // 8 + head % self.entries * ENTRY_BYTES // 8
        self.words[place], self.words[place + 1] = time_ns, gfn << 22 | thread
        self.words[at + HEAD_AT // 8] = head + 1
        return True

    def burst(self, cpu, time_ns, gfns, thread):
        """Write entries before anybody reads; returns how many there was no room for."""
        at = cpu * self.step
        head, limit = self.words[at + HEAD_AT // 8], self.words[at + LIMIT_AT // 8]
        room = min(limit - head, len(gfns))
        for n, gfn in enumerate(gfns[:room]):
            place = at + DATA_AT // 8 + (head + n) % self.entries * ENTRY_BYTES // 8
            self.words[place], self.words[place + 1] = time_ns + n, gfn << 22 | thread
        self.words[at + HEAD_AT // 8] = head + room
        self.words[at + LOST_AT // 8] += len(gfns) - room
        return len(gfns) - room


class FakeKernel:
    """In place of `pmlkit.kvm.bpf.Kernel`.

    Attributes
    ----------
    refuse, refuse_at : dict of str to error
        What is refused: to load a program for a kind of place; to attach one at a place.
    places : list of str
        The kinds of places for which programs were loaded.
    attached : list of (str, bytes)
        The places that have programs, and these.
    """

    made = None  # the last one
    most_bytes = 1 << 30
    refuse = refuse_at = MappingProxyType({})
    misses = 0
    attach_all = bpf.Kernel.attach_all

    def __init__(self):
        type(self).made = self
        self.places, self.writers, self._attached = [], {}, []
        self._loaded, self.arrays, self._number = {}, {}, 2

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.detach()

    def array(self, name, value_bytes, count):
        if value_bytes > self.most_bytes:
            raise bpf.BpfRefused("too big", 7)
        memory = mmap.mmap(-1, value_bytes * count)
        if name != "floor":
            self.writers[name] = Writer(memory, (value_bytes - DATA_AT) // ENTRY_BYTES)
        self.arrays[name] = self._number = self._number + 1
        return self._number, memory

    @property
    def writer(self):
        return self.writers["log"]

    @property
    def attached(self):
        return [self._loaded[program] for program in self._attached]

    def mark(self, cpu, time_ns, kind, vcpu, thread):
        """Write a mark, if marks are captured by BPF."""
        self.writers["marks"].write(cpu, time_ns, kind << 20 | vcpu, thread)

    def load(self, name, code, place):
        self.places.append(place.how)
        if place.how in self.refuse:
            raise self.refuse[place.how]
        program = 100 + len(self._loaded)
        self._loaded[program] = place.where, code
        return program

    def attach(self, program, place):
        if place.where in self.refuse_at:
            raise self.refuse_at[place.where]
        self._attached.append(program)

    def detach(self, keep=0):
        del self._attached[keep:]

    def missed(self, program):
        """Return `misses` for the programs of the log."""
        where, _ = self._loaded[program]
        return self.misses if where == bpf.FUNCTION else 0


def install(patch, kvm, marks=False, **attributes):
    """Let the host of a test have BPF; returns the class, whose `made` is the kernel."""
    kind = type("Kernel", (FakeKernel,), attributes)
    for name in ("sys/kernel/btf/vmlinux", "sys/devices/system/cpu/possible"):
        path = kvm.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("0-1\n")
    places = [bpf.Place("fentry", bpf.FUNCTION, 16), bpf.Place("kprobe", bpf.FUNCTION, 96)]
    patch(bpf, "Kernel", kind)
    patch(bpf, "entry_places", lambda host: iter(places))
    patch(bpf, "mark_places", lambda host: _mark_places(marks))
    patch(bpf, "entry_of", lambda host, function: bpf.Place("fentry", function, 0))
    return kind


def _mark_places(there):
    if not there:
        raise bpf.BpfRefused("no events")
    return [bpf.Place("event", name, 8) for name in bpf.MARKS]
