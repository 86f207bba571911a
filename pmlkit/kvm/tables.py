# SPDX-License-Identifier: Apache-2.0
"""The content of logged frames, which identifies page tables.

After each round its logged frames are read, and possible page tables are written to the spool.
`pmlkit.sources.kvm.tables` identifies the page tables among them. No CR3 is needed: the tables on
the path of any access are logged, from the root down, because nothing is cached after a re-arm
(`pmlkit.pagetables`).

Many pages of data look like a page table: a small odd number is an entry that is present. Of a
candidate only the present entries are written, so that these pages take few bytes of a slow
connection, and little of the guest's data leaves the host.

An examination is bounded: in frames, and by the end of the next round. Known candidates come first,
and omitted frames are counted. The guest continues to run meanwhile, so a table may have changed
since its round's end.
"""

from __future__ import annotations

import struct
from itertools import compress
from typing import TYPE_CHECKING

from pmlkit.errors import PmlkitError
from pmlkit.kvm import frames
from pmlkit.kvm.frames import CANDIDATE, EMPTY, HOLE, LOOK_HEAD, OTHER, Frame
from pmlkit.kvm.guest_memory import VmmGone, memory_slots

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterable, Sequence

    from pmlkit.kvm.guest_memory import GuestMemory
    from pmlkit.kvm.rounds import Slot
    from pmlkit.spool import SpoolWriter
    from pmlkit.types import Tell


__all__ = ["MOST_FRAMES", "Looks", "present_of", "state_of"]

MOST_FRAMES = 1 << 14  # frames that are examined after a round
AT_ONCE = 512  # frames that are examined between two passes over the log's buffers
_MOST_CANDIDATES = 1 << 12  # possible page tables that are written to the spool after a round
_MOST_HELD = 1 << 20  # logged frames of a round that are remembered
_MOST_KNOWN = 1 << 16
_TOGETHER = 64  # frames that are read before they are examined, few enough for the CPU's cache
_ONES = int.from_bytes(b"\1" * 512, "little")
_PAGE = struct.Struct("<512Q")
_ODD = bytes(n & 1 for n in range(256))
_BLIND = ("page tables are not distinguished: the VMM set its memory up before the collection "
          "began. "
          "Switch its logging on after the start")  # fmt: skip


def state_of(page: bytes) -> int:
    """Return whether a page can be a page table of 64-bit entries.

    Bits 48 to 51 of a present entry must be 0, as in Xen's side.

    Returns
    -------
    {OTHER, EMPTY, CANDIDATE}
        EMPTY: no entry is present.
    """
    # All 512 entries at once, as long integers of one byte for each.
    present = int.from_bytes(page[::8], "little") & _ONES
    if not present:
        return EMPTY
    beyond = int.from_bytes(page[6::8], "little") & ((present << 4) - present)
    return OTHER if beyond else CANDIDATE


def present_of(page: bytes) -> tuple[list[int], list[int]]:
    """Return the numbers of the present entries of a page, and these entries."""
    present = page[::8].translate(_ODD)
    return list(compress(range(512), present)), list(compress(_PAGE.unpack(page), present))


class Looks:
    """Examines the frames of one round after another.

    Parameters
    ----------
    now_ns : callable
        Function that returns the time.
    report : callable
        Function that is called with a message if no frames can be examined.
    """

    def __init__(self, memory: GuestMemory, now_ns: Callable[[], int], report: Tell) -> None:
        self._memory, self._now_ns, self._report = memory, now_ns, report
        self._logged: list[tuple[int, int, Sequence[int]]] = []
        self._held = self._unheld = 0
        self._known: dict[int, None] = {}
        self._look: _Look | None = None
        self._off = False

    def add(self, cpu: int, since_ns: int, logged: array[int] | Sequence[int]) -> None:
        """Add logged frames, in their order; none of them was logged before `since_ns`."""
        if self._off:
            return
        if self._held < _MOST_HELD:
            self._logged.append((cpu, since_ns, logged))
            self._held += len(logged)
        else:
            self._unheld += len(logged)

    def cut(self, writer: SpoolWriter) -> None:
        """End the present examination; called before the next ROUND frame is written."""
        look, self._look = self._look, None
        if look is not None:
            look.close(writer, self._now_ns())

    def round_closed(self, number: int, end_ns: int, slots: dict[int, Slot]) -> None:
        """Select the frames of a round as next for `step`; its ROUND frame was written.

        If several rounds are closed at once because of a delay, only the last is examined.
        """
        if self._off:
            return
        mine = [part for part in self._logged if part[1] <= end_ns]
        last = {cpu: (cpu, since, logged) for cpu, since, logged in mine}
        # A part that begins before the round's end may continue after it.
        self._logged = [*last.values(), *(part for part in self._logged if part[1] > end_ns)]
        self._held = sum(len(part[2]) for part in self._logged)
        unheld, self._unheld = self._unheld, 0
        memory = memory_slots(slots)
        if not memory:
            self._give_up(_BLIND)
            return
        logged = dict.fromkeys(gfn for part in mine for gfn in part[2])
        first = [gfn for gfn in self._known if gfn in logged]
        known = self._known.keys()
        order = first + [gfn for gfn in logged if gfn not in known]
        self._look = _Look(number, order[:MOST_FRAMES], len(order) + unheld, memory)

    def step(self, writer: SpoolWriter) -> bool:
        """Examine the next frames; return whether some are left."""
        look = self._look
        if look is None:
            return False
        try:
            states = look.step(self._memory, writer)
        except VmmGone:
            self.cut(writer)
            return False
        except PmlkitError as error:
            self.cut(writer)
            self._give_up(f"page tables are not distinguished: {error}")
            return False
        for gfn, state in states:
            if state == CANDIDATE:
                self._known[gfn] = None
            else:
                self._known.pop(gfn, None)
        while len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        if look.over:
            self.cut(writer)
        return self._look is not None

    def finish(self, writer: SpoolWriter) -> None:
        """Examine the remaining frames of the last round."""
        while self.step(writer):
            pass

    def _give_up(self, text: str) -> None:
        self._off = True
        self._logged.clear()
        self._report(text)


class _Look:
    """The examination of the frames of one round."""

    def __init__(self, number: int, order: list[int], logged: int, slots: list[Slot]) -> None:
        self.number, self.logged, self.slots = number, logged, slots
        self._order, self._at = order, 0
        self._candidates = self._holes = 0

    @property
    def over(self) -> bool:
        """Whether there are no more frames to examine."""
        return self._at >= len(self._order) or self._candidates >= _MOST_CANDIDATES

    def step(self, memory: GuestMemory, writer: SpoolWriter) -> Iterable[tuple[int, int]]:
        """Examine some frames and write their types; return each frame and its state."""
        some = self._order[self._at : self._at + AT_ONCE]
        read = bytearray()
        counts: list[int] = []
        places: list[int] = []
        entries: list[int] = []
        for first in range(0, len(some), _TOGETHER):
            for page in memory.read(some[first : first + _TOGETHER], self.slots):
                read.append(HOLE if page is None else state_of(page))
                if page is not None and read[-1] == CANDIDATE:
                    places_of, entries_of = present_of(page)
                    counts.append(len(places_of))
                    places += places_of
                    entries += entries_of
        states = bytes(read)
        self._at += len(some)
        self._candidates += len(counts)
        self._holes += states.count(HOLE)
        if some:
            head = LOOK_HEAD.pack(self.number, len(some))
            kept = (frames.words(counts, "H"), frames.words(places, "H"), frames.words(entries))
            writer.append(Frame.LOOK, head, frames.words(some), states, *kept)
        return list(zip(some, states))  # noqa: B905 (Python 3.9)

    def close(self, writer: SpoolWriter, now_ns: int) -> None:
        """Write the result of the examination."""
        slots = [[slot.gfn, slot.pages] for slot in self.slots]
        writer.append(Frame.LOOKED, frames.pack_json(
            round=self.number, logged=self.logged, left=self.logged - self._at, holes=self._holes,
            ns=now_ns, slots=slots))  # fmt: skip
