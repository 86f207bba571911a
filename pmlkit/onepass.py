# SPDX-License-Identifier: Apache-2.0
"""Working-set kernels in one pass over uses in log order, in memory that the pages decide.

`pmlkit.occurrences` has the same quantities of uses that are in memory, sorted by page, which can
be cut and restricted again and again; these take a log as it comes, from an array or from a stream
(`pmlkit.streams`), and are tested against it. Nothing here sorts.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from pmlkit.blocks import BlockTable, grown
from pmlkit.pageindex import PageIndex, in_batches
from pmlkit.reuse import Rings
from pmlkit.units import check_count

__all__ = [
    "Windows",
    "distinct",
    "sliding",
    "sweep",
    "thresholds",
    "turnover",
    "windows",
]

WORKERS = 2
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
    def came(self):
        """How many were not in the window before (int64, shape (windows,))."""
        return self.pages - self.stayed

    @property
    def left(self):
        """How many of the window before are not in this one (int64, shape (windows,))."""
        return np.concatenate(([0], self.pages))[: len(self.pages)] - self.stayed


def distinct(rounds, gfns, n_rounds, k=1):
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


def windows(rounds, gfns, n_rounds, k=1):
    """Return the distinct pages of consecutive windows, and their turnover: a `Windows`.

    The parameters are those of `distinct`.
    """
    check_count("k", k, "rounds")
    return Windows(*_by_time(_tumble, rounds, gfns, n_rounds, k))


def turnover(batches, n_rounds, k):
    """Do the same of a stream.

    Parameters
    ----------
    batches : iterable of (rounds, ids, pages)
        From `pageindex.numbered` or `Stream.numbered`.
    n_rounds, k : int

    Returns
    -------
    Windows
    """
    from pmlkit.kernels import tumble

    check_count("k", k, "rounds")
    found, stamps = np.zeros((2, -(-n_rounds // k)), np.int64), np.empty(0, np.int32)
    for rounds, ids, pages in batches:
        stamps = grown(stamps, pages, -2)
        tumble(ids, rounds, k, stamps, *found)
    return Windows(*found)


def thresholds(rounds, gfns, n_rounds, k=1, most=8):
    """Return the pages of consecutive windows that were used at least m times, for m up to `most`.

    The parameters are those of `distinct`.

    Returns
    -------
    ndarray of int64, shape (ceil(n_rounds / k), most)
        In column m - 1 the pages used at least m times in the window.
    """
    check_count("k", k, "rounds")
    check_count("most", most, "uses")
    return _by_time(partial(_tumble_counts, most=most), rounds, gfns, n_rounds, k)[0]


def _by_time(work, rounds, gfns, n_rounds, k):
    """Do `work` for the windows of each worker, which sees the window before them too."""
    rounds, gfns = np.asarray(rounds), np.asarray(gfns, np.uint64)
    count, workers = -(-n_rounds // k), WORKERS if len(rounds) > SMALL else 1
    cuts = [int(rounds[len(rounds) * i // workers]) // k for i in range(1, workers)]
    cuts = [0, *cuts, count]

    def part(first, stop):
        ends = np.searchsorted(rounds, (max(first - 1, 0) * k, stop * k))
        span = slice(*ends.tolist())
        return [a[first:stop] for a in work(rounds[span], gfns[span], k, count)]

    with ThreadPoolExecutor(workers) as pool:
        done = list(pool.map(part, cuts[:-1], cuts[1:]))
    return [np.concatenate(arrays) for arrays in zip(*done, strict=True)]


def _tumble(rounds, gfns, k, count):
    from pmlkit.kernels import tumble_frames

    found, table = np.zeros((2, count), np.int64), BlockTable()
    for part, some in in_batches(rounds, gfns):
        part, done = part.astype(np.int32), 0
        while (done := tumble_frames(some, part, done, k, *table.arguments, *found)) < len(some):
            table.grow()
    return found


def _tumble_counts(rounds, gfns, k, count, most):
    from pmlkit.kernels import tumble_counts

    reached, index = np.zeros((count, most), np.int64), PageIndex()
    stamps, counts = np.empty(0, np.int32), np.empty(0, np.int32)
    for part, some in in_batches(rounds, gfns):
        ids = index.ids(some)
        stamps, counts = (grown(a, len(index), 0) for a in (stamps, counts))
        tumble_counts(ids, part.astype(np.int32), k, stamps, counts, reached)
    return [reached]


def sweep(batches, n_rounds, ks):
    """Return W(t, k) at the end of every round for several windows k, in one pass.

    Parameters
    ----------
    batches : iterable of (rounds, ids, pages)
        From `pageindex.numbered` or `Stream.numbered`.
    n_rounds : int
    ks : sequence of int
        Windows in rounds.

    Returns
    -------
    ndarray of int64, shape (len(ks), n_rounds)
        As `occurrences.sliding` has each.
    """
    from pmlkit.kernels import sweep as compiled

    for k in ks:
        check_count("k", k, "rounds")
    by_size = np.minimum(np.sort(np.asarray(ks, np.int64)), n_rounds)
    longer = np.searchsorted(by_size, np.arange(n_rounds + 1)).astype(np.int32)
    longer = np.append(longer, np.int32(len(ks)))
    entered, left = np.zeros((2, n_rounds, len(ks) + 1), np.int32)
    last = np.empty(0, np.int32)
    for rounds, ids, pages in batches:
        last = grown(last, pages, -1)
        compiled(ids, rounds, last[:pages], longer, entered, left)
    used = last[last >= 0]
    left[:, len(ks)] += np.bincount(used, minlength=n_rounds).astype(np.int32)
    found = [_swept(entered, left, j, k) for j, k in enumerate(by_size)]
    place = np.searchsorted(by_size, np.minimum(ks, n_rounds))
    return np.array(found, np.int64).reshape(len(ks), n_rounds)[place]


def _swept(entered, left, window, k):
    """Return W(t, k): the uses after a gap longer than k enter; those before one leave k later."""
    steps = entered[:, window + 1 :].sum(axis=1, dtype=np.int64)
    steps[k:] -= left[: len(left) - k, window + 1 :].sum(axis=1, dtype=np.int64)
    return np.cumsum(steps)


def sliding(batches, n_rounds, k, min_count=1, marks=None, n_marks=0):
    """Return W(t, k) of threshold m at the end of every round.

    Parameters
    ----------
    batches : iterable of (rounds, ids, pages)
        From `pageindex.numbered` or `Stream.numbered`.
    n_rounds, k, min_count : int
    marks : callable, optional
        Of (first, pages): the marks of the pages from number `first` on, uint64, a bit each.
    n_marks : int
        Bits of the marks.

    Returns
    -------
    ndarray of int64, shape (n_marks + 1, n_rounds)
        First of all pages, then of those with each mark.
    """
    from pmlkit.kernels import slide

    check_count("k", k, "rounds")
    check_count("min_count", min_count, "uses")
    steps = np.zeros((n_marks + 1, n_rounds + 1), np.int64)
    rings, marked, pages = Rings(min_count), np.empty(0, np.uint64), 0
    k = min(k, n_rounds)
    for rounds, ids, known in batches:
        rings.grow(known)
        marked = grown(marked, known, 0)
        if marks is not None and known > pages:
            marked[pages:known] = marks(pages, known)
        pages = known
        slide(ids, rounds, k, min_count, rings.ring, rings.uses, marked, steps)
    everything = np.arange(pages, dtype=np.int32), np.full(pages, n_rounds, np.int32)
    slide(*everything, k, min_count, rings.ring, rings.uses, marked, steps)
    return np.cumsum(steps, axis=1)[:, :n_rounds]
