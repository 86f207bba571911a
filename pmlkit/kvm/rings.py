# SPDX-License-Identifier: Apache-2.0
"""Rings of entries in memory: the kernel's BPF program writes them and the collector reads them.

Each CPU has one ring. It contains the number of entries ever written (head), the number lost
because the ring was full, and the limit that the head must not pass, followed by the entries. An
entry has 16 bytes: the time, ns, and the frame above the thread. Once they run, the programs alone
read and write a ring's time: that of the last entry, for the next one (`pmlkit.kvm.program`), or
`ARMED` or `DISARMED`, which are before all times. Only the program writes head and lost; only the
reader, which knows how many entries it has read (tail), writes the limit. There is therefore no
lock, and the reader copies whole pieces. Each side must see the other's writes in order, which x86
guarantees without barriers. Capture by BPF is only offered on x86.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator


__all__ = ["ARMED", "BLOCK_HEAD", "DISARMED", "ENTRY_BYTES", "THREAD_BITS", "VCPU_BITS", "Rings",
           "entries_of", "ring_bytes"]  # fmt: skip

ENTRY_BYTES = 16
THREAD_BITS = 22  # the kernel's ids of threads are below 2**22; the frame is above them
VCPU_BITS = 20  # a mark has its kind above the vCPU in the place of a frame
# The reader's and the writer's numbers are in cache lines of their own.
HEAD_AT, LOST_AT, TIME_AT, LIMIT_AT, DATA_AT = 0, 8, 16, 64, 128
DISARMED, ARMED = 0, 1
# Before the entries in a spool: how many were lost before them; how many there are.
BLOCK_HEAD = struct.Struct("<QQ")
_PIECE = 1 << 16  # entries that are copied at once


def ring_bytes(entries: int) -> int:
    """Return the size of a ring."""
    return DATA_AT + entries * ENTRY_BYTES


def entries_of(block: bytes) -> tuple[int, list[int]]:
    """Return the time of the first entry of a block (0 if empty), and the frames of all entries."""
    words = memoryview(block)[BLOCK_HEAD.size :].cast("Q")
    return words[0] if len(words) else 0, [word >> THREAD_BITS for word in words[1::2]]


class Rings:
    """Reads consecutive rings.

    Parameters
    ----------
    memory : mmap or bytearray
        Writable, zero at the start.
    count : int
        Number of rings: one for each CPU.
    entries : int
        Entries of a ring; a power of 2.
    """

    def __init__(self, memory: mmap.mmap | bytearray, count: int, entries: int) -> None:
        self.count, self.entries = count, entries
        self._bytes = memoryview(memory)
        self._words = self._bytes.cast("Q")
        self._tails = [0] * count
        self._lost = [0] * count
        self._owed = [0] * count  # lost after the last entry that was read
        self._skipped = 0, 0  # entries; losses
        for cpu in range(count):
            self._words[(cpu * ring_bytes(entries) + LIMIT_AT) // 8] = entries

    def disarm(self) -> None:
        """Disarm all CPUs; no program runs."""
        for cpu in range(self.count):
            self._words[(cpu * ring_bytes(self.entries) + TIME_AT) // 8] = DISARMED

    def skip(self) -> None:
        """Skip all entries that were written or lost before now."""
        for _ in self.drain():
            pass
        self._owed = [0] * self.count
        self._skipped = sum(self._tails), sum(self._lost)

    def drain(self) -> Iterator[tuple[int, bytes]]:
        """Yield the CPU and a block: `BLOCK_HEAD`, then entries."""
        for cpu in range(self.count):
            yield from self._ring(cpu)

    def _ring(self, cpu: int) -> Iterator[tuple[int, bytes]]:
        at, tail = cpu * ring_bytes(self.entries) // 8, self._tails[cpu]
        # Read before the head, so that no loss is later than the head.
        lost = self._words[at + LOST_AT // 8]
        head = self._words[at + HEAD_AT // 8]
        before, new = self._owed[cpu], lost - self._lost[cpu]
        self._lost[cpu] = lost
        # The program loses entries while the ring is full, which it stays until we move the limit:
        # they come after all that is in it. If it is not full, that was before our last pass ended.
        if head - tail == self.entries:
            self._owed[cpu] = new
        else:
            before, self._owed[cpu] = before + new, 0
        while tail != head:
            place = tail % self.entries
            count = min(head - tail, _PIECE, self.entries - place)
            begin = 8 * at + DATA_AT + place * ENTRY_BYTES
            end = begin + count * ENTRY_BYTES
            block = b"".join((BLOCK_HEAD.pack(before, count), self._bytes[begin:end]))
            tail, before = tail + count, 0
            self._tails[cpu] = tail
            self._words[at + LIMIT_AT // 8] = tail + self.entries
            yield cpu, block
        if before:  # losses without later entries
            self._owed[cpu] += before

    def owed(self) -> Iterator[tuple[int, bytes]]:
        """Yield blocks without entries, for losses after the last entries."""
        for cpu, lost in enumerate(self._owed):
            if lost:
                self._owed[cpu] = 0
                yield cpu, BLOCK_HEAD.pack(lost, 0)

    def lost(self) -> int:
        """Return the number of entries that the program has lost."""
        step = ring_bytes(self.entries) // 8
        lost = sum(self._words[cpu * step + LOST_AT // 8] for cpu in range(self.count))
        return lost - self._skipped[1]

    def read(self) -> int:
        """Return the number of entries that were read."""
        return sum(self._tails) - self._skipped[0]

    def close(self) -> None:
        """Release the memory; idempotent."""
        self._words.release()
        self._bytes.release()
