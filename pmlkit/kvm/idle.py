# SPDX-License-Identifier: Apache-2.0
"""A sample of the frames that a guest touches, from the idle flags of the host's pages.

The kernel's idle page tracking (``/sys/kernel/mm/page_idle/bitmap``) asks KVM, so it includes a
guest's accesses, even reads. One frame of each group is flagged idle when a round begins, and
examined when it ends. The rule is that of the patched Xen (``public/pml.h``, `pmlkit.reads.draws`),
so that the same estimators apply.

Two limits. The kernel does not flush translations when it sets a flag, so an access through a
cached translation is not seen. If the host uses huge pages, 512 frames have one flag.
"""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING

from pmlkit.errors import PmlkitError, UsageError
from pmlkit.kvm.find import NoRight
from pmlkit.kvm.frames import SET_HEAD, Frame, words
from pmlkit.kvm.guest_memory import PAGE, VmmGone, memory_slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from pmlkit.kvm.host import Host
    from pmlkit.kvm.rounds import Slot
    from pmlkit.spool import SpoolWriter
    from pmlkit.types import Tell


__all__ = ["IdlePages", "Sampler", "place"]

_GOLDEN, _WORD = 0x9E3779B97F4A7C15, (1 << 64) - 1
_PRESENT, _PFN = 1 << 63, (1 << 55) - 1  # bits of a word of pagemap
_TAIL = 1 << 16  # a bit of a word of kpageflags: a later part of a compound page
_HUGETLB = 1 << 17
_HUGE = 512
_MOST = 1 << 18  # most frames of a sample
_PIECE = 1 << 16  # pages whose words are read at once


def place(group: int, one_in: int, draw: int) -> int:
    """Return the position of the drawn frame in each group, like `pmlkit.reads.draws.places`."""
    mixed = group
    if draw:
        mixed = (group + (draw << 40)) * _GOLDEN & _WORD
        mixed ^= mixed >> 32
    return (mixed * _GOLDEN & _WORD) >> 40 & (one_in - 1)


class IdlePages:
    """Sets and reads the idle flags of a sample, round by round.

    Parameters
    ----------
    pid : int
        Process id of the VMM.
    one_in : int
        One frame in this number is examined: a power of 2.
    draw : {"fixed", "round"}
        The same frames in all rounds, or new ones in each.

    Attributes
    ----------
    huge : int
        Frames of the last sample that are in huge pages of the host.

    Raises
    ------
    PmlkitError
        If the kernel has no idle page tracking.
    """

    def __init__(self, host: Host, pid: int, one_in: int, draw: str) -> None:
        self._bitmap = host.root / "sys/kernel/mm/page_idle/bitmap"
        if not self._bitmap.exists():
            what = "this kernel has no idle page tracking (CONFIG_IDLE_PAGE_TRACKING)"
            if (host.root / "sys/kernel/mm/damon").exists():
                # It looks at one page of each region, and moves the regions' limits as it likes.
                what += ", and its DAMON samples regions, not frames"
            raise PmlkitError(what, "boot a kernel with it, or leave --harvest out")
        self._pagemap = host.proc / str(pid) / "pagemap"
        self._flags = host.proc / "kpageflags"
        self.pid, self._one_in, self._anew = pid, one_in, draw == "round"
        self.huge = 0
        self._places: dict[int, tuple[int, bool]] = {}  # by frame: address, whether it has a page

    def begin(self, number: int, slots: Iterable[Slot]) -> None:
        """Flag the sample of a round idle.

        Raises
        ------
        NoRight, UsageError, VmmGone
        """
        slots = list(slots)
        if sum(slot.pages for slot in slots) // self._one_in > _MOST:
            raise UsageError(f"a sample of more than {_MOST} frames", "give a larger --one-in")
        draw = number + 1 if self._anew else 0
        addresses = {frame: slot.address + (frame - slot.gfn) * PAGE
                     for slot in slots for frame in _drawn(slot, self._one_in, draw)}  # fmt: skip
        pages = self._pages(addresses.values())
        self._places = {frame: (address, bool(page)) for (frame, address), page
                        in zip(addresses.items(), pages)}  # noqa: B905  # fmt: skip
        heads = self._heads(pages)
        self.huge = sum(head != page for page, head in heads.items())
        self._set(heads.values())

    def end(self) -> array[int]:
        """Return the frames of the sample that were touched since `begin`, in order.

        The kernel may have moved a page meanwhile, with its flag: each page is located again. A
        frame whose page the kernel took meanwhile does not count, because its flag is gone.

        Raises
        ------
        NoRight, VmmGone
        """
        places, self._places = self._places, {}
        pages = self._pages(address for address, _ in places.values())
        heads = self._heads(pages)
        idle = self._idle(heads.values())
        return array("Q", sorted(
            frame for (frame, (_, had_page)), page in zip(places.items(), pages)  # noqa: B905
            if page and not (had_page and heads[page] in idle)))  # fmt: skip

    def _pages(self, addresses: Iterable[int]) -> list[int]:
        """Return the host's page at each address; 0 if there is none."""
        pages: list[int] = []
        try:
            file = os.open(self._pagemap, os.O_RDONLY)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise VmmGone(self.pid) from error
        except OSError as error:
            raise NoRight(f"to read {self._pagemap}", "CAP_SYS_ADMIN") from error
        try:
            first, piece = 0, array("Q")
            for address in addresses:
                at = address // PAGE
                if not first <= at < first + len(piece):
                    first, piece = at, array("Q", _whole(os.pread(file, 8 * _PIECE, 8 * at)))
                    if not piece:  # not an error: the memory does not exist any more
                        raise VmmGone(self.pid)
                pages.append(self._page(piece[at - first]))
        finally:
            os.close(file)
        return pages

    def _page(self, word: int) -> int:
        if not word & _PRESENT:
            return 0
        if not word & _PFN:
            raise NoRight("to locate the VMM's memory", "CAP_SYS_ADMIN")
        return word & _PFN

    def _heads(self, pages: Iterable[int]) -> dict[int, int]:
        """Return the page that has the flag of each page but 0: the first one of a huge page."""
        heads = {}
        try:
            file = os.open(self._flags, os.O_RDONLY)
        except OSError as error:
            raise NoRight(f"to read {self._flags}", "CAP_SYS_ADMIN") from error
        try:
            for page in {*pages} - {0}:
                word = int.from_bytes(os.pread(file, 8, 8 * page), "little")
                if word & _HUGETLB:
                    what = (
                        "the VM's memory is in hugetlbfs, which idle page tracking does not cover"
                    )
                    raise PmlkitError(what, "leave --harvest out")
                heads[page] = page // _HUGE * _HUGE if word & _TAIL else page
        finally:
            os.close(file)
        return heads

    def _set(self, pages: Iterable[int]) -> None:
        masks: dict[int, int] = {}
        for page in pages:
            masks[page // 64] = masks.get(page // 64, 0) | 1 << page % 64
        file = _open(self._bitmap, os.O_WRONLY)
        try:
            for at, mask in sorted(masks.items()):
                # Writing a 0 bit changes nothing.
                os.pwrite(file, mask.to_bytes(8, "little"), 8 * at)
        finally:
            os.close(file)

    def _idle(self, pages: Iterable[int]) -> set[int]:
        """Return which of the pages are still idle."""
        pages = {*pages}
        flags: dict[int, int] = {}
        file = _open(self._bitmap, os.O_RDONLY)
        try:
            for at in sorted({page // 64 for page in pages}):
                flags[at] = int.from_bytes(os.pread(file, 8, 8 * at), "little")
        finally:
            os.close(file)
        return {page for page in pages if flags[page // 64] >> page % 64 & 1}


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags)
    except OSError as error:
        raise NoRight(f"to use {path}", "CAP_SYS_ADMIN") from error


def _whole(data: bytes) -> bytes:
    return data[: len(data) // 8 * 8]


def _drawn(slot: Slot, one_in: int, draw: int) -> Iterator[int]:
    """Yield the frames of a slot that are in a draw."""
    for group in range(slot.gfn // one_in, -(-(slot.gfn + slot.pages) // one_in)):
        frame = group * one_in + place(group, one_in, draw)
        if slot.gfn <= frame < slot.gfn + slot.pages:
            yield frame


class Sampler:
    """Takes the sample of one round after another.

    Parameters
    ----------
    now_ns : callable
        Function that returns the time.
    report : callable
        Function that is called with a message if sampling stops.
    """

    def __init__(self, pages: IdlePages, now_ns: Callable[[], int], report: Tell) -> None:
        self._idle, self._now_ns, self._report = pages, now_ns, report
        self._began_ns: int | None = None
        self._off = False

    def armed(self, number: int, since_ns: int, slots: dict[int, Slot]) -> None:
        """Begin the sample of a round that began at `since_ns`, unless it has begun.

        Between the VMM's measurements there is no round: one that began there begins anew.
        """
        if (self._began_ns is None or self._began_ns < since_ns) and not self._off:
            self._attempt(lambda: self._begin(number, slots))

    def round_closed(
        self, number: int, end_ns: int, slots: dict[int, Slot], writer: SpoolWriter
    ) -> None:
        """Write the sample of a round, and begin that of the next."""
        began, self._began_ns = self._began_ns, None
        # A sample that began after the round's end is not of this round: rounds can be too short.
        if began is not None and began < end_ns and not self._off:
            self._attempt(lambda: writer.append(
                Frame.SAMPLE, SET_HEAD.pack(number, 0), words(self._idle.end())))  # fmt: skip
        self.armed(number + 1, end_ns, slots)

    def _begin(self, number: int, slots: dict[int, Slot]) -> None:
        memory = memory_slots(slots)
        if not memory:
            raise PmlkitError("the VMM set its memory up before the collection began",
                              "switch its logging on after the start")  # fmt: skip
        self._idle.begin(number, memory)
        self._began_ns = self._now_ns()

    def _attempt(self, do: Callable[[], object]) -> None:
        try:
            do()
        except VmmGone:
            self._off = True
        except PmlkitError as error:
            self._off = True
            self._report(f"no sample: {error}")
