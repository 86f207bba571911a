# SPDX-License-Identifier: Apache-2.0
"""The working set of references in the order of the log, in one pass.

Memory grows with the pages, not with the log. `pmlkit.kernels.by_page` computes the same working
sets for references in memory, sorted by page. The functions here process a log in its order, from
an array or a stream (`pmlkit.selection`). Tests compare them with those functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.kernels.pages import BlockTable, ahead, grown
from pmlkit.units import check_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pmlkit.kernels.pages import Numbered
    from pmlkit.timeline import Axis, Windows
    from pmlkit.types import Array, Floats, Gfns, Ids, Ints

    # A function of (first, pages) that returns the marks of the pages from number `first` on,
    # uint64, one bit per mark.
    Marks = Callable[[int, int], Gfns]

__all__ = [
    "Reuse",
    "Rings",
    "Sizes",
    "Turnover",
    "by_round",
    "sliding",
    "sweep",
    "turnover",
]


@dataclass(frozen=True)
class Turnover:
    """The working sets of consecutive windows, and their overlap with the previous one.

    Attributes
    ----------
    pages : ndarray of int64, shape (windows,)
        Distinct pages.
    stayed : ndarray of int64, shape (windows,)
        Number of these pages that were also in the previous window.
    """

    pages: np.ndarray
    stayed: np.ndarray

    @property
    def came(self) -> Ints:
        """Number of pages that were not in the previous window (int64, shape (windows,))."""
        return self.pages - self.stayed

    @property
    def left(self) -> Ints:
        """Number of pages in the previous window only (int64, shape (windows,))."""
        return np.concatenate(([0], self.pages))[: len(self.pages)] - self.stayed


def turnover(batches: Iterable[tuple[Ints, Gfns]], windows: Windows) -> Turnover:
    """Return the distinct pages and the turnover of tumbling windows, from a stream.

    Parameters
    ----------
    batches : iterable of (rounds, gfns)
        Two arrays each, as yielded by a `pmlkit.selection.Stream`.
    windows : timeline.Windows
        Consecutive ones.
    """
    from pmlkit.kernels.frames import window_ends

    table, (pages, stayed) = BlockTable(), np.zeros((2, len(windows)), np.int64)
    ends, untils = np.zeros(len(windows), np.int64), windows.until
    for rounds, gfns in ahead(batches):
        if len(rounds):
            first, last = int(windows.enter[rounds[0]]), int(windows.enter[rounds[-1]])
            window_ends(rounds, untils[first : last + 1], ends[first : last + 1])
            _count_distinct(table, gfns, ends[: last + 1], pages, stayed, first)
    return Turnover(pages, stayed)


def _count_distinct(
    table: BlockTable, gfns: Gfns, ends: Ints, pages: Ints, stayed: Ints, first: int = 0
) -> None:
    """Count the pages of the windows from `first` on, and grow the table when it is full."""
    from pmlkit.kernels.frames import distinct

    done, window = 0, first
    while (done := distinct(gfns, ends, window, done, *table.arguments, pages, stayed)) < len(gfns):
        table.grow()
        window = first + int(np.searchsorted(ends[first:], done, "right"))


def sweep(batches: Iterable[Numbered], at: Ints, sizes: Sequence[int]) -> Ints:
    """Return the working set at the end of every round for several windows, in one pass.

    Parameters
    ----------
    batches : iterable of (rounds, ids, pages)
        From `pages.numbered` or `Stream.numbered`.
    at : array of int64, shape (n_rounds,)
        Ends of rounds (`timeline.Axis`): their numbers, or times.
    sizes : sequence of int
        The windows T, in the same unit.

    Returns
    -------
    ndarray of int64, shape (len(sizes), n_rounds)
        As `sliding` for each size. If several rounds end at one instant, the last one has the
        count.
    """
    from pmlkit.kernels.loops import sweep as compiled

    for size in sizes:
        check_count("k", size, "rounds")
    n_rounds, length = len(at), int(at[-1] - at[0]) + 1 if len(at) else 1
    by_size = Sizes(np.minimum(np.sort(np.asarray(sizes, np.int64)), length))
    entered, left = (np.zeros((n, len(sizes) + 1), np.int32) for n in (n_rounds, n_rounds + 1))
    last = np.empty(0, np.int32)
    for rounds, ids, pages in batches:
        last = grown(last, pages, -1)
        compiled(ids, rounds, at, last[:pages], *by_size.arguments, entered, left)
    used = last[last >= 0]
    left[:-1, len(sizes)] += np.bincount(used, minlength=n_rounds).astype(np.int32)
    by_window = [_swept(entered, left, at, j, size) for j, size in enumerate(by_size.sizes)]
    place = np.searchsorted(by_size.sizes, np.minimum(np.asarray(sizes, np.int64), length))
    return np.array(by_window, np.int64).reshape(len(sizes), n_rounds)[place]


def _swept(entered: Ids, left: Ids, at: Ints, window: int, size: int) -> Ints:
    """Return W(t): pages enter at a use after a gap longer than T, and leave T after a use."""
    came, went = (
        np.cumsum(a[:, window + 1 :].sum(axis=1, dtype=np.int64)) for a in (entered, left)
    )
    gone = np.searchsorted(at, at - size, "right")
    return came - np.concatenate(([0], went))[gone]


def by_round(
    batches: Iterable[Numbered], n_rounds: int, marks: Marks | None = None, n_marks: int = 0
) -> Ints:
    """Return the distinct pages of every round: the result of `sliding` for a window of one round.

    `n_rounds` is the number of rounds; the other parameters and the result are those of `sliding`.
    """
    from pmlkit.kernels.loops import by_round as compiled

    counts, stamps = np.zeros((n_marks + 1, n_rounds), np.int64), np.empty(0, np.uint32)
    for (rounds, ids, pages), marked in _marked(batches, marks):
        stamps = grown(stamps, pages, 0)
        compiled(ids, rounds, stamps, marked, counts)
    return counts


def _marked(batches: Iterable[Numbered], marks: Marks | None) -> Iterator[tuple[Numbered, Gfns]]:
    """Yield each batch with the marks of all pages so far."""
    marked, known = np.empty(0, np.uint64), 0
    for batch in batches:
        pages = batch[2]
        marked = grown(marked, pages, 0)
        if marks is not None and pages > known:
            marked[known:pages] = marks(known, pages)
        known = pages
        yield batch, marked


def sliding(
    batches: Iterable[Numbered],
    windows: Windows,
    min_count: int = 1,
    marks: Marks | None = None,
    n_marks: int = 0,
) -> Ints:
    """Return the working set of each window: the pages referenced `min_count` times in it.

    Parameters
    ----------
    batches : iterable of (rounds, ids, pages)
        From `pages.numbered` or `Stream.numbered`.
    min_count : int
        The threshold m.
    marks : callable, optional
        A function of (first, pages) that returns the marks of the pages from number `first` on,
        uint64, one bit per mark.
    n_marks : int
        Bits of the marks.

    Returns
    -------
    ndarray of int64, shape (n_marks + 1, windows)
        First for all pages, then for those with each mark.
    """
    from pmlkit.kernels.loops import slide

    check_count("min_count", min_count, "uses")
    steps = np.zeros((n_marks + 1, len(windows) + 1), np.int64)
    rings, marked, pages = Rings(min_count), np.empty(0, np.uint64), 0
    how = windows.enter, windows.leave, min_count
    for (rounds, ids, pages), marked in _marked(batches, marks):
        rings.grow(pages)
        slide(ids, rounds, *how, rings.ring, rings.uses, marked, steps)
    # Each page gets one more use after the last round, which closes its previous use.
    ids, rounds = np.arange(pages, dtype=np.int32), np.full(pages, len(windows.enter) - 1, np.int32)
    slide(ids, rounds, *how, rings.ring, rings.uses, marked, steps)
    return np.cumsum(steps, axis=1)[:, :-1]


# ------------------------------------------------------------------------------
# The times between the uses of a page, in one pass: the mean of W(T) at every T, and misses.
#
# With the intervals of `pmlkit.kernels.by_page`: their lengths are piecewise linear in T, so adding
# them up gives the mean of W for every T at once.


TABLE_BITS = 17  # size of the table of `Sizes`, which must stay in the cache


class Rings:
    """The rounds of each page's last uses in a ring, and its number of uses."""

    def __init__(self, most: int) -> None:
        self.ring = np.empty((0, 1 << (most - 1).bit_length()), np.int32)
        self.uses = np.empty(0, np.int32)

    def grow(self, pages: int) -> None:
        self.ring, self.uses = grown(self.ring, pages, 0), grown(self.uses, pages, 0)

    def last(self) -> Ids:
        """Return the round of the last use of each used page."""
        used = np.flatnonzero(self.uses)
        return self.ring[used, (self.uses[used] - 1) % self.ring.shape[1]]


class Sizes:
    """Sorted lengths of windows, to find those shorter than a given time (`loops.shorter`).

    Attributes
    ----------
    sizes : ndarray of int64
    arguments : tuple
        Arguments of the kernels: sizes, table, shift.
    """

    def __init__(self, sizes: Ints) -> None:
        self.sizes = np.asarray(sizes, np.int64)
        longest = int(self.sizes[-1]) if len(self.sizes) else 0
        shift = max(longest.bit_length() - TABLE_BITS, 0)
        first = np.arange((longest >> shift) + 1, dtype=np.int64) << shift
        both = [np.searchsorted(self.sizes, x) for x in (first, first + ((1 << shift) - 1))]
        self.arguments = self.sizes, np.stack(both, axis=1).astype(np.int32), shift


class Reuse:
    """Statistics of the times between the uses of a page: means of W(t, T), misses, gaps.

    Parameters
    ----------
    batches : iterable of (rounds, ids, pages)
        From `pages.numbered` or `Stream.numbered`.
    axis : timeline.Axis
        Ends of the rounds.
    sizes : array of int64
        The windows T, in the axis's unit; ascending from 0.
    min_counts : sequence of int
        The thresholds m whose working sets are requested.

    Attributes
    ----------
    uses : int
    gap_counts : ndarray of int64, shape (sizes + 1,)
        The uses by the gap since the page's previous use: longer than the previous size, up to this
        size. The last element counts those longer than all sizes.
    gap_sums : ndarray of float, shape (sizes + 1,)
        The sum of those times, between the ends of the two rounds.
    uses_of_pages : ndarray of int32, shape (pages,)
    """

    def __init__(
        self, batches: Iterable[Numbered], axis: Axis, sizes: Ints, min_counts: Sequence[int] = (1,)
    ) -> None:
        from pmlkit.kernels.loops import reuse, reuse_ends

        for min_count in min_counts:
            check_count("min_count", min_count, "uses")
        more = [m for m in dict.fromkeys(min_counts) if m > 1]
        self.axis, bins = axis, Sizes(sizes)
        self.sizes, counts = bins.sizes, np.asarray(more, np.int64)
        n_bins, n_rounds = len(self.sizes) + 1, len(axis)
        self.gap_counts, self.gap_sums = np.zeros(n_bins, np.int64), np.zeros(n_bins)
        # Sums of times may exceed 64 bits; sums of rounds are exact as floats, too.
        bends = np.zeros((len(more), n_bins), np.int64), np.zeros((len(more), n_bins))
        firsts, reached = np.zeros(n_rounds, np.int64), np.zeros((len(more), n_rounds), np.int64)
        rings, known = Rings(max(more, default=1)), 0
        gaps = self.gap_counts, self.gap_sums
        for rounds, ids, known in batches:
            rings.grow(known)
            kept = rings.ring, rings.uses, counts, *bins.arguments
            reuse(ids, rounds, axis.at, *kept, *gaps, *bends, firsts, reached)
        self.uses_of_pages = rings.uses[:known]
        ends = rings.ring, self.uses_of_pages, counts, *bins.arguments
        reuse_ends(axis.end, axis.at, *ends, *bends)
        self.uses = int(self.uses_of_pages.sum(dtype=np.int64))
        self._reached = {1: firsts, **dict(zip(more, reached, strict=True))}
        self._bends = dict(zip(more, zip(*bends, strict=True), strict=True))
        self._bends[1] = self._bends_of_all(rings.last())

    def _bends_of_all(self, last: Array) -> tuple[Ints, Floats]:
        """Return the bends of the sum of W for threshold 1: each use counts until the next."""
        holds = self.axis.end - self.axis.at[last]
        places = np.searchsorted(self.sizes, holds)
        size = len(self.gap_counts)
        bends = -(self.gap_counts + np.bincount(places, minlength=size))
        sums = self.gap_sums + np.bincount(places, holds, minlength=size)
        bends[0] += self.uses
        return bends, -sums

    def distinct(self, min_count: int = 1) -> Ints:
        """Return the pages used `min_count` times since the start, at the end of every round."""
        return np.cumsum(self._reached[min_count])

    def totals(self, min_count: int = 1) -> tuple[Floats, Floats]:
        """Return the integral of W(t, T) over t, for each size, and that over full windows only."""
        bends, sums = (np.cumsum(part)[:-1].astype(float) for part in self._bends[min_count])
        total = self.sizes * bends - sums
        return total, total - self._since_start(min_count)

    def _since_start(self, min_count: int) -> Floats:
        """Return the integral up to the first full window of each size.

        A window that the start cuts short contains the uses since the start.
        """
        at, distinct = self.axis.at, self.distinct(min_count)
        if not len(at):
            return np.zeros(len(self.sizes))
        held = distinct * np.diff(np.append(at, self.axis.end)).astype(float)
        before = np.searchsorted(at, self.sizes, "right") - 1
        so_far = np.concatenate(([0.0], np.cumsum(held)))[np.maximum(before, 0)]
        rest = distinct[before] * (self.sizes - at[before]).astype(float)
        return np.where(before < 0, 0.0, so_far + rest)

    def means(self, min_count: int = 1) -> tuple[Floats, Floats]:
        """Return the mean of W(t, T) over time for each size.

        Returns
        -------
        everywhere : ndarray of float, shape (sizes,)
            From the end of the first round on, including windows that the start cuts short.
        full : ndarray of float, shape (sizes,)
            From the end of the first full window on; NaN for 0, and if there is none.
        """
        total, full = self.totals(min_count)
        if not len(self.axis):
            return total, np.full(len(total), np.nan)
        end, first = self.axis.end, int(self.axis.at[0])
        span = (end - np.maximum(self.sizes, first)).astype(float)
        nothing = (self.sizes == 0) | (self.sizes > self.axis.length)
        return total / float(end - first), np.where(nothing, np.nan, full) / np.where(
            nothing, 1.0, span
        )

    def miss_counts(self) -> Ints:
        """Return the number of uses of pages outside of the working set, for each size (int64).

        Use i of a page misses if it is the page's first, or if more than T has passed since the
        previous one.
        """
        return self.uses - np.cumsum(self.gap_counts)[:-1]
