# SPDX-License-Identifier: Apache-2.0
"""DAMON's snapshots, from any kind of file, as rounds of pages.

A snapshot contains how often each region was seen accessed. Each page of an accessed region counts
as read once, as ``damo report wss`` counts its bytes. A region may claim more memory than a machine
has, so pages are counted before they are created.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.interop.reading import ForeignFileError
from pmlkit.interop.rounds import Imported
from pmlkit.trace.kinds import Kind
from pmlkit.trace.schema import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import NoReturn

    from pmlkit.interop.rounds import Chunk
    from pmlkit.types import Array, Ints, PathLike


__all__ = ["Snapshots"]

PAGES_LIMIT = 1 << 24  # distinct pages of a file: 64 GiB
ROWS_LIMIT = 1 << 28  # pages of all snapshots together
REGIONS_LIMIT = 1 << 24
ADDRESS_LIMIT = 1 << 64
TIME_LIMIT_NS = 1 << 62
EPOCH_NS = 10**18  # a clock that is beyond September 2001 does not count from a boot
_VIRTUAL = 1 << 46  # physical memory ends below it; stacks and libraries of x86-64 are above
_ROUNDED_NS = 1000  # tolerated overlap of a snapshot with the one before
_CHUNK = 1 << 20  # pages that are created at once
NOTES = (
    "every access counts as a read; order within a snapshot is not known",
    "a page counts as accessed if its region does: DAMON examines one page of a region at a time",
)


class Snapshots:
    """Snapshots in the order of a file, which may be arbitrary."""

    def __init__(self, path: PathLike) -> None:
        self.path = path
        self._times = array("q")  # start, end
        # Indices of regions: the first one of each snapshot, and the end.
        self._bounds = array("Q", [0])
        self._pages = array("Q")  # first, stop

    def __len__(self) -> int:
        return len(self._times) // 2

    def add(self, where: str, start_ns: int, end_ns: int) -> None:
        """Add a snapshot of the regions that were added since the last one."""
        if not 0 <= start_ns <= end_ns < TIME_LIMIT_NS:
            self._refuse(where, f"lasts from {start_ns} to {end_ns} ns, which is impossible")
        self._times.extend((start_ns, end_ns))
        self._bounds.append(len(self._pages) // 2)

    def add_region(self, where: str, start: int, end: int, accesses: float) -> None:
        """Add a region of bytes to the next snapshot."""
        if not 0 <= start <= end <= ADDRESS_LIMIT:
            self._refuse(where, f"has a region from {start} to {end}, which is impossible")
        if not accesses >= 0:  # NaN, too
            self._refuse(where, f"has a region with {accesses} accesses")
        if accesses > 0 and end > start:
            self._pages.extend((start // PAGE_SIZE, -(-end // PAGE_SIZE)))
        if len(self._pages) > 2 * REGIONS_LIMIT:
            self._refuse(where, f"exceeds the limit of {REGIONS_LIMIT:,} accessed regions")

    def _refuse(self, where: str, why: str, hint: str = "check the file") -> NoReturn:
        raise ForeignFileError(self.path, where, why, hint)

    def imported(self, notes: Sequence[str] = ()) -> Imported:
        """Convert the snapshots to rounds.

        Raises
        ------
        ForeignFileError
            If there are none, two overlap, or they claim more pages than allowed.
        """
        if not len(self):
            self._refuse("", "holds no snapshot")
        times = np.frombuffer(self._times, np.int64).reshape(-1, 2)
        order = np.argsort(times[:, 0], kind="stable")
        times = times[order]
        early = times[:-1, 1] - times[1:, 0]
        if (early > _ROUNDED_NS).any():
            first = int((early > _ROUNDED_NS).argmax())
            self._refuse("", f"has snapshots that overlap: one starts at {times[first + 1, 0]} ns")
        times[1:, 0] = np.maximum(times[1:, 0], times[:-1, 1])
        times[:, 1] = np.maximum(times[:, 1], times[:, 0])
        zero = int(times[0, 0])
        pages, bounds = np.frombuffer(self._pages, np.uint64), np.frombuffer(self._bounds, "u8")
        self._refuse_many(pages.reshape(-1, 2))
        highest = int(pages.max()) * PAGE_SIZE if len(pages) else 0
        return Imported(
            _rounds(times - zero, pages.reshape(-1, 2), bounds.astype(np.int64), order),
            notes=(*NOTES, *notes, *_clock_notes(zero)),
            ordered=False,
            distinct=True,
            base_ns=zero if zero >= EPOCH_NS else None,
            address="virtual" if highest > _VIRTUAL else "guest-physical",
            complete=None,
        )

    def _refuse_many(self, pages: Array) -> None:
        """Refuse too many pages, in total or distinct, before any are created."""
        rows = int((pages[:, 1] - pages[:, 0]).sum(dtype=np.float64))
        distinct = _covered(pages)
        if distinct > PAGES_LIMIT:
            why = f"claims {distinct:,} accessed pages, and the limit is {PAGES_LIMIT:,}"
        elif rows > ROWS_LIMIT:
            why = f"claims {rows:,} pages in its snapshots, and the limit is {ROWS_LIMIT:,}"
        else:
            return
        self._refuse("", why, "record less memory (`damo record --regions`), or a shorter time")


def _distinct(pages: Array) -> Array:
    """Sort runs of pages, and cut the overlaps."""
    if not len(pages):
        return pages
    runs = pages[np.argsort(pages[:, 0], kind="stable")]
    reach = np.append(np.uint64(0), np.maximum.accumulate(runs[:, 1])[:-1])
    return np.maximum(runs, reach[:, None])


def _covered(pages: Array) -> int:
    """Count the distinct pages of runs of pages."""
    runs = _distinct(pages)
    return int((runs[:, 1] - runs[:, 0]).sum(dtype=np.float64))


def _clock_notes(zero: int) -> tuple[str, ...]:
    if not zero or zero >= EPOCH_NS:
        return ()
    return (f"times are those of the recorder's clock, and 0 is its {zero / 1e9:.6f} s",)


def _rounds(times: Ints, pages: Array, bounds: Ints, order: Ints) -> Iterator[Chunk]:
    """Yield the pages of each snapshot, in chunks of limited size.

    Snapshots of no length at the same time are one, as they share an interval.
    """
    changes = np.flatnonzero((np.diff(times, axis=0) != 0).any(axis=1)) + 1
    for (start, end), numbers in zip(
        times[np.append(0, changes)].tolist(), np.split(order, changes), strict=True
    ):
        parts = [pages[bounds[number] : bounds[number + 1]] for number in numbers]
        runs = _distinct(parts[0] if len(parts) == 1 else np.concatenate(parts))
        if not len(runs):
            yield start, end, 0, np.empty(0, np.uint64), int(Kind.READ)
        for gfn in _pages_of(runs):
            yield start, end, 0, gfn, int(Kind.READ)


def _pages_of(runs: Array) -> Iterator[Array]:
    for first, stop in _pieces(runs):
        lengths = (stop - first).astype(np.int64)
        offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        yield np.repeat(first, lengths) + offsets.astype(np.uint64)


def _pieces(runs: Array) -> Iterator[tuple[Array, Array]]:
    """Cut runs of pages into groups of at most a chunk of pages."""
    group: list[tuple[int, int]] = []
    room = _CHUNK
    for first, stop in runs.tolist():
        while first < stop:
            end = min(stop, first + room)
            group.append((first, end))
            room, first = room - (end - first), end
            if not room:
                yield _columns(group)
                group, room = [], _CHUNK
    if group:
        yield _columns(group)


def _columns(group: Sequence[tuple[int, int]]) -> tuple[Array, Array]:
    runs = np.array(group, np.uint64)
    return runs[:, 0], runs[:, 1]
