# SPDX-License-Identifier: Apache-2.0
"""How the entries of a VM are captured.

`Ftrace` works with every kernel: kprobes write to separate ring buffers. `Bpf` captures the entries
with a BPF program, in fewer instructions. The VMM's calls, which are rare, use ftrace.

`mark_page_dirty_in_slot` sees each page that KVM logs, with rings and bitmaps, by PML or write
faults. `kvm_vm_ioctl` sees the VMM's requests to KVM: re-arms and memory slots. The three streams
have separate buffers. A lost entry is then an entry of the log and nothing else, and a full buffer
loses no re-arm.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING, Protocol

from pmlkit.errors import PmlkitError
from pmlkit.ftrace import Layout, PageDamaged, format_of, layout_of, numbers
from pmlkit.kvm import bpf, rounds
from pmlkit.kvm.frames import CALLS, LOG, MARKS, STREAMS, Frame
from pmlkit.kvm.program import call_program, entry_program, leave_program, mark_program
from pmlkit.kvm.rings import ENTRY_BYTES, Rings, entries_of, ring_bytes
from pmlkit.kvm.tracefs import (
    Guardian,
    Instance,
    Probes,
    TracingRefused,
    clean,
    owner_name,
    read,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from pmlkit.kvm.bpf import Place
    from pmlkit.kvm.find import Vm
    from pmlkit.kvm.host import Host
    from pmlkit.kvm.job import KvmOptions
    from pmlkit.types import Json


__all__ = ["Bpf", "Capture", "Ftrace", "of"]

# The registers of the second and third argument of a function.
_REGISTERS = {"x86_64": ("%si", "%dx"), "aarch64": ("%x1", "%x2")}
_CALLS_KIB = 256
_FEWEST = 1 << 10  # least entries of a ring
_MARKS = ("kvm/kvm_entry", "kvm/kvm_page_fault")


class Capture(Protocol):
    """A way to capture the log of a VM; a context manager.

    Attributes
    ----------
    messages : list of str
        The method of capture, and the leftovers of dead collections, which are removed now.
    forms : dict of int to Frame
        The kind of frame for the data of a stream, if not `Frame.PAGES`.
    """

    messages: list[str]
    forms: dict[int, Frame]

    def start(self, threads: list[int]) -> None:
        """Begin; record only these threads and their children."""

    def stop(self) -> None:
        """Stop recording; recorded events can still be drained."""

    def drain(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield the stream, the CPU, and a page of its ring buffer, or the stream's own form."""

    def logged(self, data: bytes) -> tuple[int, list[int]]:
        """Return a time before all entries of a part of the log, and their frames."""

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the kernel's counts, by stream."""

    def facts(self) -> Json:
        """Return the facts needed to read the pages."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def of(host: Host, options: KvmOptions, vm: Vm) -> Capture:
    """Return the requested method of capture; "auto": BPF, if available.

    Raises
    ------
    BpfRefused, NoRight, UsageError
        If BPF is requested but unavailable.
    """
    if options.capture == "ftrace":
        return Ftrace(host, options)
    try:
        return Bpf(host, options, vm)
    except PmlkitError as error:
        if options.capture == "bpf":
            raise
        capture = Ftrace(host, options)
        capture.messages.append(f"the log is captured by ftrace, not by BPF: {error.problem}")
        return capture


class Ftrace:
    """Capture by kprobes and ftrace.

    Parameters
    ----------
    log : bool
        False: another object captures the log.
    marks : bool, optional
        Whether to capture marks; default: as in the options.
    """

    def __init__(
        self, host: Host, options: KvmOptions, log: bool = True, marks: bool | None = None
    ) -> None:
        self.host, self._log = host, log
        self.marks = options.marks if marks is None else marks
        self.forms: dict[int, Frame] = {}
        self._kib = options.buffer_kib
        self._instances: dict[int, Instance] = {}
        self._formats: dict[str, str] = {}
        self._exits = contextlib.ExitStack()
        self.messages = list(clean(host))
        self._registers()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            owner = owner_name(self.host)
            text = read(self.host, self.host.tracing / "events/header_page")
            self.header_page, layout = text, layout_of(text)
            if layout is None:
                what = "the kernel's ring buffer has an unknown layout"
                raise TracingRefused(self.host.tracing, what, "report its events/header_page")
            self._check_switch()
            stack.enter_context(Guardian(self.host, owner))
            self._set_up(stack, owner, layout)
            self.layout = layout
            form = format_of(self._formats.get("dirty", ""))
            self._frame_at = form.fields["gfn"] if form else (0, 8)
            self._exits = stack.pop_all()
        return self

    def _check_switch(self) -> None:
        """Refuse a kernel whose kprobes are switched off: they would be silent."""
        path = self.host.debug / "kprobes/enabled"
        with contextlib.suppress(OSError):
            if path.read_text().strip() == "0":
                raise TracingRefused(path, "kprobes are switched off", f"echo 1 > {path}")

    def _set_up(self, stack: contextlib.ExitStack, owner: str, layout: Layout) -> None:
        # Entered first, so that it exits last: an event that is in use cannot be removed.
        probes = stack.enter_context(Probes(self.host, owner))
        events: dict[int, list[tuple[str, str]]] = {stream: [] for stream in range(len(STREAMS))}
        second, third = self._registers()
        if self._log:
            frame = (second, third)[self.host.frame_argument - 1]
            where = f"{bpf.FUNCTION} gfn={frame}:u64"
            events[LOG].append((probes.add("p", "dirty", where), ""))
        where = f"kvm_vm_ioctl nr={second}:u32 " + " ".join(
            f"{name}=+u{at}({third}):u{8 * size}" for name, at, size in rounds.ARGUMENTS
        )
        condition = " || ".join(f"nr == {number}" for number in rounds.CALLS_OF_INTEREST)
        events[CALLS].append((probes.add("p", "call", where), condition))
        events[CALLS].append((probes.add("r", "done", "kvm_vm_ioctl ret=$retval:s64"), ""))
        if self.marks:
            known = [e for e in _MARKS if (self.host.tracing / "events" / e).exists()]
            events[MARKS] += [(event, "") for event in known]
        for stream, of in events.items():
            if not of:
                continue
            kib = _CALLS_KIB if stream == CALLS else self._kib
            name = f"{owner}-{STREAMS[stream]}"
            instance = stack.enter_context(Instance(self.host, name, kib, layout))
            self._instances[stream] = instance
            for event, condition in of:
                path = self.host.tracing / "events" / event / "format"
                self._formats[event.rpartition("/")[2]] = read(self.host, path)
                instance.enable(event, condition)

    def _registers(self) -> tuple[str, str]:
        machine = os.uname().machine
        if machine not in _REGISTERS:
            known = " or ".join(_REGISTERS)
            raise PmlkitError(
                f"the log of KVM cannot be captured on {machine}", f"use a host of {known}"
            )
        return _REGISTERS[machine]

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def start(self, threads: list[int]) -> None:
        """Begin; record only these threads and their children."""
        for instance in self._instances.values():
            instance.follow(threads)
        for instance in self._instances.values():
            instance.start()

    def stop(self) -> None:
        """Stop recording; recorded events can still be drained."""
        for instance in self._instances.values():
            instance.stop()

    def drain(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield the stream, the CPU, and a page of its ring buffer."""
        for stream, instance in self._instances.items():
            for cpu, page in instance.drain():
                yield stream, cpu, page

    def logged(self, data: bytes) -> tuple[int, list[int]]:
        """Return a time before all entries of a page of the log, and their frames."""
        try:
            return numbers(data, self.layout, *self._frame_at)
        except PageDamaged:  # the import of the spool reports the damage
            return 0, []

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the kernel's counts, by stream."""
        return {STREAMS[stream]: of.counts() for stream, of in self._instances.items()}

    def facts(self) -> Json:
        """Return the facts needed to read the pages."""
        return {"kind": "ftrace", "clock": "mono", "header_page": self.header_page,
                "formats": self._formats, "buffer_kib": self._kib,
                "marks": "ftrace" if self.marks else "none"}  # fmt: skip


class Bpf:
    """Capture of the log by a BPF program, and of the marks if the kernel's types allow it.

    The VMM's calls, and otherwise the marks, use ftrace.

    Raises
    ------
    BpfRefused, NoRight
        If the kernel refuses the program.
    """

    def __init__(self, host: Host, options: KvmOptions, vm: Vm) -> None:
        if why := bpf.why_not(host):
            raise bpf.BpfRefused(why)
        self._entries = 1 << ((options.buffer_kib << 10) // ENTRY_BYTES).bit_length() - 1
        self._cpus, self._pid = cpu_count(host), vm.pid
        self._rings: dict[int, Rings] = {}
        self._programs: dict[int, list[int]] = {}
        self._stopped = self._shared = False
        self._exits = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self._kernel = stack.enter_context(bpf.Kernel())
            self._log, self._floor = self._make(stack, LOG), self._make_floor()
            why_not = self._take_marks(stack, host) if options.marks else ""
            if not self._shared:  # a program that was detached may have armed a CPU
                self._rings[LOG].disarm()
            self.place = self._take_log(host)  # last: its program relies on those of the marks
            marks = options.marks and MARKS not in self._rings
            self._rest = Ftrace(host, options, log=False, marks=marks)
            self._exits = stack.pop_all()
        self.forms = dict.fromkeys(self._rings, Frame.ENTRIES)
        self.messages = [*self._rest.messages, f"the log is captured by BPF ({self.place.how})"]
        if why_not:
            self.messages.append(f"VM entries and page faults by ftrace: {why_not}")

    def _make_floor(self) -> int:
        """Make the floor of times; return its descriptor."""
        descriptor, floor = self._kernel.array("floor", 8, 1)
        with floor:
            floor[:8] = time.monotonic_ns().to_bytes(8, "little")  # of the programs' clock
        return descriptor

    def _take_log(self, host: Host) -> Place:
        entries = self._rings[LOG].entries
        why: PmlkitError | None = None
        for place in bpf.entry_places(host):
            code = entry_program(place.frame_at, self._pid, self._log, entries, self._floor)
            try:
                program = self._kernel.load(f"pmlkit_{STREAMS[LOG]}", code, place)
                self._kernel.attach_all([(program, place)])
            except PmlkitError as error:
                why = error
            else:
                self._programs[LOG] = [program]
                return place
        assert why is not None
        raise why

    def _take_marks(self, stack: contextlib.ExitStack, host: Host) -> str:
        """Capture the marks, too, and let entries share times if possible.

        If the marks cannot be captured, return the reason; none of their programs runs then.
        """
        try:
            places = bpf.mark_places(host)
            rings = self._make(stack, MARKS)
        except PmlkitError as error:
            return str(error)
        why = ""
        for shared in (True, False):
            try:
                self._attach_marks(host, places, rings, shared)
            except PmlkitError as error:
                why = str(error)
            else:
                self._shared = shared
                return ""
        del self._rings[MARKS]
        return why

    def _attach_marks(self, host: Host, places: list[Place], rings: int, shared: bool) -> None:
        """Attach the programs of the marks, and what the sharing of times needs: all or none."""
        # All are loaded before the first one runs: what is refused must cost nothing.
        ends = self._load_ends(host) if shared else []
        log = self._log if shared else None
        name, marks = f"pmlkit_{STREAMS[MARKS]}", []
        for kind, place in enumerate(places, 1):
            code = mark_program(kind, place.frame_at, self._pid, rings, self._entries, log)
            marks.append((self._kernel.load(name, code, place), place))
        self._kernel.attach_all([*ends, *marks])
        self._programs[MARKS] = [program for program, _ in marks]

    def _load_ends(self, host: Host) -> list[tuple[int, Place]]:
        """Load what ends the validity of an entry's time; return the programs and their places."""
        needed = {bpf.LEAVE: leave_program(self._log), bpf.CALL: call_program(self._floor)}
        places = [bpf.entry_of(host, function) for function in needed]
        codes = zip(needed.values(), places)  # noqa: B905 (Python 3.9)
        return [(self._kernel.load("pmlkit_times", code, place), place) for code, place in codes]

    def _make(self, stack: contextlib.ExitStack, stream: int) -> int:
        """Make rings for a stream; return their descriptor."""
        while True:
            try:
                size = ring_bytes(self._entries)
                rings, memory = self._kernel.array(STREAMS[stream], size, self._cpus)
                break
            except bpf.BpfRefused as error:  # older kernels allow at most 4 MiB
                if error.errno != errno.E2BIG or self._entries < _FEWEST:
                    raise
                self._entries //= 2
        self._rings[stream] = Rings(memory, self._cpus, self._entries)
        stack.callback(self._rings[stream].close)  # unmaps the memory at the end
        return rings

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._exits)
            stack.enter_context(self._rest)
            self._exits = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def start(self, threads: list[int]) -> None:
        """Begin; record only the VMM."""
        for rings in self._rings.values():
            rings.skip()
        self._rest.start(threads)

    def stop(self) -> None:
        """Stop recording; recorded events can still be drained."""
        self._kernel.detach()
        self._rest.stop()
        self._stopped = True

    def drain(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield the stream, the CPU, and a page or a block of entries."""
        for stream, rings in self._rings.items():
            for cpu, block in rings.drain():
                yield stream, cpu, block
            if self._stopped:
                for cpu, block in rings.owed():
                    yield stream, cpu, block
        yield from self._rest.drain()

    def logged(self, data: bytes) -> tuple[int, list[int]]:
        """Return a time before all entries of a block of the log, and their frames."""
        return entries_of(data)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the counts of the programs and the kernel, by stream."""
        counts = self._rest.counts()
        for stream, rings in self._rings.items():
            missed = sum(map(self._kernel.missed, self._programs[stream]))
            of = {"overrun": rings.lost(), "dropped": missed, "read": rings.read()}
            counts[STREAMS[stream]] = of
        return counts

    def facts(self) -> Json:
        """Return the facts needed to read the pages."""
        facts = {**self._rest.facts(), "kind": "bpf", "place": self.place.how}
        facts["times"] = "exit" if self._shared else "entry"
        if MARKS in self._rings:
            facts["marks"] = "bpf"
        return {**facts, "buffer_kib": ring_bytes(self._entries) >> 10}


def cpu_count(host: Host) -> int:
    """Return the maximum number of CPUs."""
    try:
        text = (host.root / "sys/devices/system/cpu/possible").read_text()
        return 1 + int(text.strip().rpartition(",")[2].rpartition("-")[2])
    except (OSError, ValueError):
        return os.cpu_count() or 1
