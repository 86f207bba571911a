# SPDX-License-Identifier: Apache-2.0
"""Working-set kernels in one pass over uses in log order, in memory that the pages decide.

`pmlkit.occurrences` has the same quantities of uses that are in memory, sorted by page, which can
be cut and restricted again and again; these take a log as it comes, from an array or from a stream
(`pmlkit.streams`), and are tested against it. Nothing here sorts.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.blocks import BlockTable, grown
from pmlkit.pageindex import ahead
from pmlkit.reuse import Rings, Sizes
from pmlkit.timeline import Windows as Span
from pmlkit.units import check_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from pmlkit.types import Gfns, Ints

    Work = Callable[..., Any]
    Batches = Iterable[Any]


__all__ = [
    "Windows",
    "by_round",
    "distinct",
    "sliding",
    "sweep",
    "thresholds",
    "turnover",
    "windows",
]

WORKERS = 2
CELL_BITS = 32  # of `blocks.BlockTable`
SMALL = 1 << 16  # uses below which a second thread costs more than it saves


@dataclass(frozen=True)
class Windows:
    """The working sets of consecutive windows.

    Attributes
    ----------
    pages : ndarray of int64, shape (windows,)
        Distinct pages.
    stayed : ndarray of int64, shape (windows,)
        How many of them were in the window before, too.
    """

    pages: np.ndarray
    stayed: np.ndarray

    @property
    def came(self) -> Ints:
        """How many were not in the window before (int64, shape (windows,))."""
        return self.pages - self.stayed

    @property
    def left(self) -> Ints:
        """How many of the window before are not in this one (int64, shape (windows,))."""
        return np.concatenate(([0], self.pages))[: len(self.pages)] - self.stayed


def distinct(rounds: Ints, gfns: Gfns, n_rounds: int, k: int = 1) -> Ints:
    """Return the distinct pages of each of the consecutive windows of `k` rounds.

    Parameters
    ----------
    rounds : array of int, shape (uses,)
        Never falling, from 0.
    gfns : array of int, shape (uses,)
    n_rounds, k : int

    Returns
    -------
    ndarray of int64, shape (ceil(n_rounds / k),)
        If `k` does not divide `n_rounds`, the last window is the shorter rest.
    """
    return windows(rounds, gfns, n_rounds, k).pages


def windows(rounds: Ints, gfns: Gfns, n_rounds: int, k: int = 1) -> Windows:
    """Return the distinct pages of consecutive windows, and their turnover: a `Windows`.

    The parameters are those of `distinct`.
    """
    check_count("k", k, "rounds")
    return Windows(*_by_time(_distinct, rounds, gfns, n_rounds, k))


def turnover(batches: Batches, n_rounds: int, k: int | Span) -> Windows:
    """Do the same of a stream.

    Parameters
    ----------
    batches : iterable of (rounds, gfns)
        Two arrays each, such as a `streams.Stream` gives.
    n_rounds : int
    k : int or timeline.Windows
        Rounds; or windows that tumble.

    Returns
    -------
    Windows
    """
    from pmlkit.kernels_window import distinct, window_ends

    span = _span(n_rounds, k, tumbling=True)
    found, table = np.zeros((2, len(span)), np.int64), BlockTable()
    ends, untils = np.zeros(len(span), np.int64), span.until
    for rounds, gfns in ahead(batches):
        if len(rounds):
            first, last = int(span.enter[rounds[0]]), int(span.enter[rounds[-1]])
            window_ends(rounds, untils[first : last + 1], ends[first : last + 1])
            _until_done(distinct, table, gfns, ends[: last + 1], *found, first=first)
    return Windows(*found)


def thresholds(rounds: Ints, gfns: Gfns, n_rounds: int, k: int = 1, most: int = 8) -> Ints:
    """Return the pages of consecutive windows that were used at least m times, for m up to `most`.

    The parameters are those of `distinct`.

    Returns
    -------
    ndarray of int64, shape (ceil(n_rounds / k), most)
        In column m - 1 the pages used at least m times in the window.
    """
    check_count("k", k, "rounds")
    check_count("most", most, "uses")
    return _by_time(partial(_counts, most=most), rounds, gfns, n_rounds, k)[0]


def _by_time(work: Work, rounds: Ints, gfns: Gfns, n_rounds: int, k: int) -> list[Ints]:
    """Do `work` for the windows of each worker, which sees the window before them too."""
    from pmlkit.kernels_window import window_ends

    gfns, ends = np.asarray(gfns, np.uint64), np.empty(-(-n_rounds // k), np.int64)
    window_ends(np.asarray(rounds), np.arange(1, len(ends) + 1) * k, ends)
    workers = WORKERS if len(gfns) > SMALL else 1
    shares = np.arange(1, workers) * len(gfns) // workers
    cuts = [0, *np.searchsorted(ends, shares).tolist(), len(ends)]

    def part(first: int, stop: int) -> list[Ints]:
        seen = max(first - 1, 0)
        begin = ends[seen - 1] if seen else 0
        found = work(gfns[begin : ends[stop - 1] if stop else 0], ends[seen:stop] - begin)
        return [array[first - seen :] for array in found]

    with ThreadPoolExecutor(workers) as pool:
        done = list(pool.map(part, cuts[:-1], cuts[1:]))
    return [np.concatenate(arrays) for arrays in zip(*done, strict=True)]


def _distinct(gfns: Gfns, ends: Ints) -> Ints:
    from pmlkit.kernels_window import distinct

    found = np.zeros((2, len(ends)), np.int64)
    _until_done(distinct, BlockTable(), gfns, ends, *found)
    return found


def _counts(gfns: Gfns, ends: Ints, most: int) -> list[Ints]:
    from pmlkit.kernels_window import counts

    reached = np.zeros((len(ends), most + 1), np.int64)
    # As many windows as fit into a cell, beside the counts.
    step, begin = (1 << CELL_BITS - most.bit_length()) - 1, 0
    for first in range(0, len(ends), step):
        part = slice(first, first + step)
        stop = ends[part][-1]
        _until_done(counts, BlockTable(), gfns[begin:stop], ends[part] - begin, reached[part])
        begin = stop
    return [reached[:, :most]]


def _until_done(
    kernel: Work, table: BlockTable, gfns: Gfns, ends: Ints, *found: Ints, first: int = 0
) -> None:
    """Call a kernel of `kernels_window` until it has seen all, with a table that has room."""
    done, window = 0, first
    while (done := kernel(gfns, ends, window, done, *table.arguments, *found)) < len(gfns):
        table.grow()
        window = first + int(np.searchsorted(ends[first:], done, "right"))


def _span(n_rounds: int, k: int | Span, tumbling: bool = False) -> Span:
    if isinstance(k, Span):
        return k
    check_count("k", k, "rounds")
    return Span.of_rounds(n_rounds, k, k if tumbling else 1)


def sweep(batches: Batches, at: Ints, sizes: Sequence[int]) -> Ints:
    """Return the working set at the end of every round for several windows, in one pass.

    Parameters
    ----------
    batches : iterable of (rounds, ids, pages)
        From `pageindex.numbered` or `Stream.numbered`.
    at : array of int64, shape (n_rounds,)
        Where rounds end (`timeline.Axis`): their numbers, or times.
    sizes : sequence of int
        Windows, as long as that.

    Returns
    -------
    ndarray of int64, shape (len(sizes), n_rounds)
        As `occurrences.sliding` has each. Of rounds that end at one place the last has the number.
    """
    from pmlkit.kernels import sweep as compiled

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
    found = [_swept(entered, left, at, j, size) for j, size in enumerate(by_size.sizes)]
    place = np.searchsorted(by_size.sizes, np.minimum(np.asarray(sizes, np.int64), length))
    return np.array(found, np.int64).reshape(len(sizes), n_rounds)[place]


def _swept(
    entered: NDArray[np.int32], left: NDArray[np.int32], at: Ints, window: int, size: int
) -> Ints:
    """Return W(t): the uses after a gap longer than the window enter; those before one leave it."""
    came, went = (
        np.cumsum(a[:, window + 1 :].sum(axis=1, dtype=np.int64)) for a in (entered, left)
    )
    gone = np.searchsorted(at, at - size, "right")
    return came - np.concatenate(([0], went))[gone]


def by_round(batches: Batches, n_rounds: int, marks: Work | None = None, n_marks: int = 0) -> Ints:
    """Return the distinct pages of every round: what `sliding` gives for a window of one round.

    The parameters are those of `sliding`, and so is what is returned.
    """
    from pmlkit.kernels import by_round as compiled

    found = np.zeros((n_marks + 1, n_rounds), np.int64)
    stamps, marked, known = np.empty(0, np.uint32), np.empty(0, np.uint64), 0
    for rounds, ids, pages in batches:
        stamps, marked = grown(stamps, pages, 0), grown(marked, pages, 0)
        if marks is not None and pages > known:
            marked[known:pages] = marks(known, pages)
        known = pages
        compiled(ids, rounds, stamps, marked, found)
    return found


def sliding(
    batches: Batches,
    n_rounds: int,
    k: int | Span,
    min_count: int = 1,
    marks: Work | None = None,
    n_marks: int = 0,
) -> Ints:
    """Return W(t, k) of threshold m at the end of every round, or of given windows.

    Parameters
    ----------
    batches : iterable of (rounds, ids, pages)
        From `pageindex.numbered` or `Stream.numbered`.
    n_rounds : int
    k : int or timeline.Windows
        Rounds, or the windows.
    min_count : int
    marks : callable, optional
        Of (first, pages): the marks of the pages from number `first` on, uint64, a bit each.
    n_marks : int
        Bits of the marks.

    Returns
    -------
    ndarray of int64, shape (n_marks + 1, n_rounds or windows)
        First of all pages, then of those with each mark.
    """
    from pmlkit.kernels import slide

    span = _span(n_rounds, k)
    check_count("min_count", min_count, "uses")
    steps = np.zeros((n_marks + 1, len(span) + 1), np.int64)
    rings, marked, pages = Rings(min_count), np.empty(0, np.uint64), 0
    how = span.enter, span.leave, min_count
    for rounds, ids, known in batches:
        rings.grow(known)
        marked = grown(marked, known, 0)
        if marks is not None and known > pages:
            marked[pages:known] = marks(pages, known)
        pages = known
        slide(ids, rounds, *how, rings.ring, rings.uses, marked, steps)
    everything = np.arange(pages, dtype=np.int32), np.full(pages, n_rounds, np.int32)
    slide(*everything, *how, rings.ring, rings.uses, marked, steps)
    return np.cumsum(steps, axis=1)[:, :-1]
