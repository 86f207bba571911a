# SPDX-License-Identifier: Apache-2.0
"""The BPF program that captures entries, and the assembler that creates it.

It has fewer than fifty instructions and is assembled here: the host needs no compiler, and no
binary is shipped. The kernel's ``Documentation/bpf/standardization/instruction-set.rst`` has the
encoding. Positions (of the argument, of an event's field) are looked up on the host, not compiled
in.

The program runs at the entry of ``mark_page_dirty_in_slot``. It ignores other processes, takes the
ring of its CPU, and writes the time, the frame and the thread. If the ring is full it counts a
loss. Rings are values of an array that the collector maps (`pmlkit.kvm.rings`). The kernel's own
BPF ring buffer costs more: it takes a lock shared by all CPUs, and adds a head to each entry. Two
similar programs write VM entries and page faults, at events, to other rings. No program starts
while another is running on its CPU: the kernel skips it and counts this (`recursion_misses`; for a
kprobe from Linux 6.7 on, but there preemption is off anyway).

The clock is the most expensive part of the program, and a drain is at one time: the guest wrote all
of it before the exit. So the ring of a CPU keeps the time of its last entry. The next entry has the
same time if it comes from the same exit of the same vCPU, and no call of the VMM's began meanwhile:

- a VM entry arms the CPU: the next entry reads the clock, and those after it need not;
- a page fault arms it anew: KVM may wait for a re-arm, and then logs the page;
- the vCPU's thread disarms it when it leaves the CPU, and when it returns to the VMM
  (``kvm_arch_vcpu_put``): until the next VM entry each entry reads the clock;
- a call of the VMM's (``kvm_vm_ioctl``), such as a re-arm, raises the floor: older times are not
  used again. An entry is thus before or after a re-arm as it would be by its own time.

If the kernel refuses one of these programs, all are detached. No CPU is armed then, and each entry
reads the clock.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pmlkit.kvm.rings import (
    ARMED,
    DATA_AT,
    DISARMED,
    ENTRY_BYTES,
    HEAD_AT,
    LIMIT_AT,
    LOST_AT,
    THREAD_BITS,
    TIME_AT,
    VCPU_BITS,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["Assembler", "call_program", "entry_program", "leave_program", "mark_program",
           "nothing"]  # fmt: skip

R0, R1, R2, R3, R6, R7, R10 = 0, 1, 2, 3, 6, 7, 10
MAP_LOOKUP_ELEM, KTIME_GET_NS, SMP_PROCESSOR_ID, CURRENT_PID_TGID = 1, 5, 8, 14
_INSTRUCTION = struct.Struct("<BBhi")
# In the place of a source register: the number is a map's descriptor; or the address of its value.
_OF_MAP, _OF_VALUE = 1, 2
_CALL, _EXIT, _LOAD_64 = 0x85, 0x95, 0x18
# 64-bit operations with a number; with a register, the code is 8 higher.
_OPERATIONS = {"mov": 0xB7, "add": 0x07, "sub": 0x17, "or": 0x47, "and": 0x57, "lsh": 0x67,
               "rsh": 0x77}  # fmt: skip
_MOVE_32 = 0xBC
_ATOMIC_ADD = 0xDB  # 64 bits; the kind of atomic operation, 0, is in the place of the number
_JUMPS = {"always": 0x05, "==": 0x15, ">": 0x25, ">=": 0x35, "!=": 0x55}
_LOADS, _STORES = {4: 0x61, 8: 0x79}, {4: 0x63, 8: 0x7B}
_REGISTER = 0x08


class Assembler:
    """Builds a BPF program, instruction by instruction; labels are names."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int, int]] = []
        self._jumps: dict[int, str] = {}
        self._labels: dict[str, int] = {}

    def _put(
        self, code: int, target: int = 0, source: int = 0, at: int = 0, number: int = 0
    ) -> None:
        self._code.append((code, target, source, at, number))

    def set(self, operation: str, target: int, number: int) -> None:
        """Change a register by a number: ``set("add", R2, -4)``."""
        self._put(_OPERATIONS[operation], target, number=number)

    def by(self, operation: str, target: int, source: int) -> None:
        """Change a register by another register: ``by("mov", R2, R10)``."""
        self._put(_OPERATIONS[operation] | _REGISTER, target, source)

    def lower(self, target: int, source: int) -> None:
        """Set a register to the lower half of another."""
        self._put(_MOVE_32, target, source)

    def load(self, target: int, source: int, at: int, size: int = 8) -> None:
        """Read memory: ``target = *(source + at)``."""
        self._put(_LOADS[size], target, source, at)

    def store(self, target: int, at: int, source: int, size: int = 8) -> None:
        """Write memory: ``*(target + at) = source``."""
        self._put(_STORES[size], target, source, at)

    def add_atomically(self, target: int, at: int, source: int) -> None:
        """Add to memory, at once for all CPUs: ``*(target + at) += source``."""
        self._put(_ATOMIC_ADD, target, source, at)

    def take_map(self, target: int, descriptor: int) -> None:
        """Set a register to a map; it takes two instructions."""
        self._put(_LOAD_64, target, _OF_MAP, number=descriptor)
        self._put(0)

    def take_value(self, target: int, descriptor: int) -> None:
        """Set a register to the address of the only value of an array."""
        self._put(_LOAD_64, target, _OF_VALUE, number=descriptor)
        self._put(0)

    def call(self, helper: int) -> None:
        """Call a helper of the kernel's; registers 1 to 5 are undefined then."""
        self._put(_CALL, number=helper)

    def jump(self, condition: str, register: int, number: int, label: str) -> None:
        """Jump forward to a label if a register meets the `condition`: always, ==, !=, >, >=."""
        self._jumps[len(self._code)] = label
        self._put(_JUMPS[condition], register, number=number)

    def jump_by(self, condition: str, register: int, other: int, label: str) -> None:
        """Jump forward to a label if two registers meet the `condition`."""
        self._jumps[len(self._code)] = label
        self._put(_JUMPS[condition] | _REGISTER, register, other)

    def label(self, name: str) -> None:
        """Name the position of the next instruction."""
        self._labels[name] = len(self._code)

    def leave(self) -> None:
        """Return from the program."""
        self._put(_EXIT)

    def code(self) -> bytes:
        """Return the program, 8 bytes an instruction."""
        return b"".join(self._encoded())

    def _encoded(self) -> Iterator[bytes]:
        for place, (code, target, source, at, number) in enumerate(self._code):
            if place in self._jumps:
                at = self._labels[self._jumps[place]] - place - 1
            yield _INSTRUCTION.pack(code, source << 4 | target, at, number)


def nothing() -> bytes:
    """Return a program that does nothing, to test whether programs may run."""
    a = Assembler()
    a.set("mov", R0, 0)
    a.leave()
    return a.code()


def entry_program(frame_at: int, process: int, rings: int, entries: int, floor: int) -> bytes:
    """Return the program that writes an entry for each logged page.

    Parameters
    ----------
    frame_at : int
        Offset of the frame in the program's context, bytes.
    process, rings, entries
        As for `mark_program`.
    floor : int
        Descriptor of an array whose only value is a time: older times are not used again.
    """
    a = Assembler()
    a.load(R6, R1, frame_at)
    _begin(a, process, rings)
    a.load(R0, R7, TIME_AT)
    a.take_value(R1, floor)
    a.load(R1, R1, 0)
    a.jump_by(">", R0, R1, "timed")
    a.call(KTIME_GET_NS)
    a.load(R1, R7, TIME_AT)
    a.jump("==", R1, DISARMED, "timed")
    a.store(R7, TIME_AT, R0)
    a.label("timed")
    return _written(a, entries)


def mark_program(
    kind: int, vcpu_at: int, process: int, rings: int, entries: int, log: int | None = None
) -> bytes:
    """Return the program that writes an entry for each event of a vCPU.

    Parameters
    ----------
    kind : int
        Kind of the event; it is stored above the vCPU in the place of the frame.
    vcpu_at : int
        Offset of the vCPU's number in the event, bytes; 0: the event has none.
    process : int
        Process of the VMM: pages of other processes are ignored.
    rings : int
        Descriptor of the array of rings.
    entries : int
        Entries of a ring; a power of 2.
    log : int, optional
        Descriptor of the array of the log's rings, of which the CPU's is armed.
    """
    a = Assembler()
    if vcpu_at:
        a.load(R6, R1, vcpu_at, size=4)
    else:
        a.set("mov", R6, 0)
    a.set("or", R6, kind << VCPU_BITS)
    _begin(a, process, rings)
    if log is not None:
        _take_ring(a, log)
        a.set("mov", R1, ARMED)
        a.store(R0, TIME_AT, R1)
    a.call(KTIME_GET_NS)
    return _written(a, entries)


def leave_program(log: int) -> bytes:
    """Return the program that disarms a CPU: a vCPU's thread leaves it."""
    a = Assembler()
    _take_ring(a, log)
    a.set("mov", R1, DISARMED)
    a.store(R0, TIME_AT, R1)
    return _left(a)


def call_program(floor: int) -> bytes:
    """Return the program that raises the floor to the present at least: a call of the VMM's begins.

    It adds the difference. Several threads may call at once: then the floor gets above the present,
    and until it has passed each entry reads the clock. The floor never falls.
    """
    a = Assembler()
    a.call(KTIME_GET_NS)
    a.take_value(R1, floor)
    a.load(R2, R1, 0)
    a.jump_by(">=", R2, R0, "out")
    a.by("sub", R0, R2)
    a.add_atomically(R1, 0, R0)
    return _left(a)


def _take_ring(a: Assembler, rings: int) -> None:
    """Set register 0 to the ring of this CPU."""
    a.call(SMP_PROCESSOR_ID)
    a.store(R10, -4, R0, size=4)
    a.take_map(R1, rings)
    a.by("mov", R2, R10)
    a.set("add", R2, -4)
    a.call(MAP_LOOKUP_ELEM)
    a.jump("==", R0, 0, "out")  # never: there is a ring for each CPU that can be


def _begin(a: Assembler, process: int, rings: int) -> None:
    """Leave other processes out; set register 7 to the ring, and put the thread into register 6."""
    a.call(CURRENT_PID_TGID)
    a.by("mov", R1, R0)
    a.set("rsh", R1, 32)
    a.jump("!=", R1, process, "out")
    a.lower(R0, R0)
    a.set("lsh", R6, THREAD_BITS)
    a.by("or", R6, R0)
    _take_ring(a, rings)
    a.by("mov", R7, R0)


def _written(a: Assembler, entries: int) -> bytes:
    """Return a program that ends with writing an entry: the time and register 6."""
    a.load(R1, R7, HEAD_AT)
    a.load(R2, R7, LIMIT_AT)
    a.jump_by(">=", R1, R2, "full")
    a.by("mov", R2, R1)
    a.set("and", R2, entries - 1)
    a.set("lsh", R2, ENTRY_BYTES.bit_length() - 1)
    a.by("add", R2, R7)
    a.store(R2, DATA_AT, R0)
    a.store(R2, DATA_AT + 8, R6)
    a.set("add", R1, 1)
    a.store(R7, HEAD_AT, R1)  # last: the reader takes what is before the head
    a.jump("always", 0, 0, "out")
    a.label("full")
    a.load(R1, R7, LOST_AT)
    a.set("add", R1, 1)
    a.store(R7, LOST_AT, R1)
    return _left(a)


def _left(a: Assembler) -> bytes:
    """Return a program that ends here."""
    a.label("out")
    a.set("mov", R0, 0)
    a.leave()
    return a.code()
