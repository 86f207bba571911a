# SPDX-License-Identifier: Apache-2.0
"""Convert requests for objects, as in cache and block traces, to uses of pages.

An object is a number and a size. There are two kinds of numbers:

- A place counts units of bytes, such as sectors of 512. A request then covers bytes, and uses the
  pages that contain them. Requests may overlap.
- A name is arbitrary, perhaps a hash. An object has its own pages: one, or several if it is larger
  than a page. If no object is larger, and the numbers have at most 52 bits, they are the frame
  numbers. Otherwise objects get frames in order of their first use, which changes neither working
  sets nor miss ratios.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pmlkit.errors import UsageError, argument
from pmlkit.interop.reading import ForeignFileError
from pmlkit.interop.rounds import Imported
from pmlkit.kernels.pages import PageIndex, grown
from pmlkit.trace.description import PAGE_SIZE, PAGE_SIZES
from pmlkit.trace.kinds import Kind
from pmlkit.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pmlkit.interop.reading import records
    from pmlkit.interop.rounds import Chunk, Column, Late
    from pmlkit.types import Array, Ints, PathLike


__all__ = ["Clock", "Learned", "Requests", "imported", "ticked"]

PIECE = 1 << 18  # pages that are created at once
# Limits of the pages that a file may claim: in total, plus a number per request. A line of text
# that claims 10^12 bytes is refused, not expanded.
CLAIM, CLAIM_OF_REQUEST = 1 << 21, 64
FRAME_BITS = 52  # a frame number with more bits is beyond 64-bit addresses


class Requests(NamedTuple):
    """A batch of requests in order: arrays of one length, or an int for all of them.

    Attributes
    ----------
    first : int
        The number of the first one in the file, for messages.
    start, end : ndarray of int64 or int
        The interval that contains each request, ns.
    obj : ndarray of uint64
    size : ndarray of int64 or int
        Bytes. Requests of 0 bytes are omitted, and counted.
    kind : ndarray of uint8 or int
    vcpu : ndarray of uint16 or int
    """

    first: int
    start: Column
    end: Column
    obj: Array
    size: Column
    kind: Column = int(Kind.READ)
    vcpu: Column = 0


class Learned(NamedTuple):
    """The facts about a file after the first pass.

    Attributes
    ----------
    base_ns : int, optional
        As for `Imported`.
    notes : tuple of str
    of_blocks : bool
        Whether numbers are places on a disk, not frames.
    """

    base_ns: int | None = None
    notes: tuple[str, ...] = ()
    of_blocks: bool = False


def _page_bytes(size: int | None) -> int:
    """Return the size of a page, bytes (0: an object is a page); UsageError if it is not one."""
    size = PAGE_SIZE if size is None else size
    if size and size not in PAGE_SIZES:
        raise UsageError(
            f"a page of {size} bytes is not supported: give a power of two from 512 to 1G"
        )
    return size


def imported(
    path: PathLike,
    read: Callable[[], Iterator[Requests]],
    *,
    page_size: int | None = None,
    unit: int | None = None,
    where: Callable[[int], str] = "request {}".format,
    kinds_known: bool = False,
    learned: Callable[[], Learned] = Learned,
) -> Imported:
    """Convert requests to uses of pages.

    Parameters
    ----------
    path : path-like
        The file, for messages.
    read : callable
        Returns an iterator over all requests at each call.
    page_size : int, optional
        Bytes; default: 4096. 0: an object is one page, regardless of its size.
    unit : int, optional
        Number of bytes in a unit of the numbers; None: numbers are names.
    where : callable
        Names the request with a number, for messages.
    kinds_known : bool
        Whether the file states which requests write.
    learned : callable
        Called after the first pass.

    Raises
    ------
    ForeignFileError
    """
    pages = _Pages(path, _page_bytes(page_size), unit, where)
    for batch in read():
        pages.survey(batch)
    base_ns, notes, of_blocks = learned()
    pages.settle(read)

    def late() -> Late:
        unknown = () if kinds_known else ("kinds are not known: every request counts as a read",)
        return {"notes": (*notes, *unknown, *pages.notes()), "counts": pages.counts()}

    return Imported(
        pages.rows(read()),
        each_a_use=True,
        notes=notes,
        late=late,
        page_size=pages.page or PAGE_SIZE,
        address="guest-physical" if pages.named_frames and not of_blocks else "block",
        base_ns=base_ns,
    )


def ticked(
    file: records,
    tick_ns: int,
    ticks: Callable[[int, Array], Ints],
    columns: Callable[[Array], tuple[Array, ...]],
    *,
    page_size: int | None = None,
    unit: int | None = None,
    kinds_known: bool = False,
    of_blocks: bool = False,
) -> Imported:
    """Convert records with times in ticks of a clock that starts at the first record.

    Parameters
    ----------
    ticks : callable
        Function that is called with the number of the first record of a batch, and the batch;
        returns their ticks (int64).
    columns : callable
        Function that is called with a batch of records; returns the fields of `Requests` after the
        times.
    page_size, unit, kinds_known
        As for `imported`.
    of_blocks
        As for `Learned`.
    """
    where = f"{file.what} {{}}".format
    zero = next((int(ticks(first, batch[:1])[0]) for first, batch in file), 0)

    def read() -> Iterator[Requests]:
        clock = Clock(file.path, tick_ns, where, zero)
        for first, batch in file:
            times = clock.times(first, ticks(first, batch))
            yield Requests(first, *times, *columns(batch))

    return imported(
        file.path,
        read,
        page_size=page_size,
        unit=unit,
        where=where,
        kinds_known=kinds_known,
        learned=lambda: Learned(zero * tick_ns, of_blocks=of_blocks),
    )


class _Pages:
    """The pages of requests: known after `survey` of all of them, and `settle`."""

    def __init__(
        self, path: PathLike, page: int, unit: int | None, where: Callable[[int], str]
    ) -> None:
        self._where = where
        self.path, self.page, self.unit = path, page, unit if page else None
        self.requests = self.empty = self.long = self._claimed = 0
        self._highest = 0
        self._index: PageIndex | None = None
        self._frame = np.empty(0, np.int64)  # the first frame of each object

    @property
    def named_frames(self) -> bool:
        """Whether the objects' numbers are frame numbers."""
        return self.unit is None and not self.long and self._highest < 1 << FRAME_BITS

    def survey(self, batch: Requests) -> None:
        """Record the sizes and the highest number of a batch."""
        if not len(batch.obj):
            return
        size = np.broadcast_to(batch.size, len(batch.obj))
        negative = np.flatnonzero(size < 0)
        if len(negative):
            self._refuse(batch, negative[0], f"has the size {size[negative[0]]}")
        self.requests += len(batch.obj)
        self.empty += int((size == 0).sum())
        many = self._page_counts(batch, size)
        self._refuse_claim(batch, many)
        self.long += int((many > 1).sum())
        self._highest = max(self._highest, int(batch.obj.max()))

    def _refuse_claim(self, batch: Requests, many: Ints) -> None:
        """Add up the pages of requests; refuse the request that exceeds the limit."""
        claimed = self._claimed + np.cumsum(many, dtype=np.float64)
        before = self.requests - len(many)
        allowed = CLAIM + CLAIM_OF_REQUEST * (before + np.arange(1, len(many) + 1))
        if (claimed > allowed).any():
            at = int((claimed > allowed).argmax())
            why = f"claims {int(many[at]):,} pages, and {int(claimed[at]):,} with those before"
            hint = f"use larger pages, by {argument('page_size')}"
            raise ForeignFileError(self.path, self._where(batch.first + at), why, hint)
        self._claimed = int(claimed[-1])

    def _page_counts(self, batch: Requests, size: Ints) -> Ints:
        """Return how many pages each request uses."""
        if self.unit is None:
            return (size - 1) // self.page + 1 if self.page else np.sign(size)
        first, last = self._blocks(batch, size)
        return last - first + 1

    def _refuse(self, batch: Requests, at: int, why: str) -> None:
        raise ForeignFileError(self.path, self._where(batch.first + int(at)), why)

    def _blocks(self, batch: Requests, size: Ints) -> tuple[Ints, Ints]:
        """Return the first and the last page of each request."""
        unit = self.unit or 1
        obj, limit = batch.obj, ((1 << 63) - 1) // unit
        size = np.minimum(size, np.int64(1) << 62)
        beyond = np.flatnonzero((obj > limit) | (obj.astype(np.float64) * unit + size >= 2.0**63))
        if len(beyond):
            self._refuse(batch, beyond[0], f"is at {int(obj[beyond[0]])}, beyond 2^63 bytes")
        start = obj.astype(np.int64) * unit
        return start // self.page, (start + np.maximum(size, 1) - 1) // self.page

    def settle(self, read: Callable[[], Iterator[Requests]]) -> None:
        """Assign frames to objects whose numbers are not frames: as many as the largest request."""
        if self.unit is not None or self.named_frames:
            return
        self._index = PageIndex()
        most = np.empty(0, np.int64)
        for batch in read():
            size = np.broadcast_to(batch.size, len(batch.obj))
            ids = self._index.ids(batch.obj[size > 0])
            most = grown(most, len(self._index), 0)
            np.maximum.at(most, ids, self._page_counts(batch, size)[size > 0])
        most = most[: len(self._index)]
        self._frame = np.cumsum(most) - most

    def rows(self, requests: Iterator[Requests]) -> Iterator[Chunk]:
        """Yield the chunks of `Imported.rounds`."""
        for batch in requests:
            length = len(batch.obj)
            columns = [np.broadcast_to(column, length) for column in batch[1:]]
            size = columns[3]
            if not length:
                continue
            if (size == 0).any():
                columns = [column[size > 0] for column in columns]
            start, end, obj, size, kind, vcpu = columns
            if len(obj):
                yield from self._paged(batch, (start, end, vcpu, kind), obj, size)

    def _paged(
        self, batch: Requests, columns: tuple[Array, ...], obj: Array, size: Ints
    ) -> Iterator[Chunk]:
        start, end, vcpu, kind = columns
        if self.named_frames:
            yield start, end, vcpu, obj, kind
            return
        if self._index is None:
            first, last = self._blocks(batch._replace(obj=obj), size)
            many = last - first + 1
        else:
            first, many = self._frame[self._index.ids(obj)], self._page_counts(batch, size)
        for request, pages in _expanded(first, many):
            yield start[request], end[request], vcpu[request], pages, kind[request]

    def notes(self) -> list[str]:
        notes = []
        if self._index is not None:
            notes.append(
                "objects have frames in the order of their first use: their numbers are lost"
            )
        if not self.page:
            notes.append("an object counts as one page, regardless of its size")
        if self.unit is not None:
            notes.append(f"requests cover bytes: the unit of a number is {self.unit} bytes")
        return notes

    def counts(self) -> dict[str, int]:
        size = format_bytes(self.page or PAGE_SIZE)
        return {
            "requests read": self.requests,
            "requests of size 0 were omitted, as in libCacheSim": self.empty,
            f"requests use several pages of {size} and count as one use of each": self.long,
        }


def _expanded(first: Ints, many: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield at most `PIECE` pages at a time: the request of each, and its number."""
    ends = np.cumsum(many)
    begins = ends - many
    for at in range(0, int(ends[-1]), PIECE):
        page = np.arange(at, min(at + PIECE, int(ends[-1])))
        request = np.searchsorted(ends, page, "right")
        yield request, (first[request] + page - begins[request]).astype(np.uint64)


class Clock:
    """Converts ticks that never decrease to times; the first one is the time 0.

    Parameters
    ----------
    where : callable
        Names the request with a number, for messages.
    zero : int, optional
        The tick at the time 0; default: the first one.
    """

    def __init__(
        self,
        path: PathLike,
        tick_ns: int,
        where: Callable[[int], str] = "request {}".format,
        zero: int | None = None,
    ) -> None:
        if tick_ns < 1:
            raise UsageError(
                f"an interval of {tick_ns} ns is too short: give a longer {argument('window')}"
            )
        self.path, self.tick_ns, self.where = path, tick_ns, where
        self.zero = self._last = zero

    def times(self, first: int, clock: Ints) -> tuple[Ints, Ints]:
        """Return the start and end (ns) of ticks; `first` is the number of the first request.

        Raises
        ------
        ForeignFileError
            If they decrease, or exceed a clock of 64 bits.
        """
        if not len(clock):
            return clock, clock
        self.zero = int(clock[0]) if self.zero is None else self.zero
        before = self.zero if self._last is None else self._last
        falls = np.flatnonzero(clock < np.append(before, clock[:-1]))
        if len(falls):
            where = self.where(first + int(falls[0]))
            raise ForeignFileError(self.path, where, "goes back in time", "sort it by time")
        self._last = int(clock[-1])
        beyond = max(abs(self.zero), self._last + 1, self._last + 1 - self.zero)
        if beyond * self.tick_ns >= 1 << 63:
            why = (
                f"is at tick {self._last:,}, which exceeds 64 bits if each tick has "
                f"{self.tick_ns:,} ns"
            )
            where = self.where(first + len(clock) - 1)
            raise ForeignFileError(self.path, where, why, f"give a shorter {argument('window')}")
        start = (clock - self.zero) * self.tick_ns
        return start, start + self.tick_ns
