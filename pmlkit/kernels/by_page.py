# SPDX-License-Identifier: Apache-2.0
"""Working-set kernels: arrays in, arrays out, nothing known of traces or hypervisors.

All of them stand on one idea. Sort the uses by page, once, so that the uses of a page are
neighbours. The page is in the working set of k rounds and threshold m at the end of round t if and
only if the m-th latest of its uses up to t is later than t - k. Use i, in round o[i], decides this
until the page's next use, so it puts the page into the set

    from round o[i]  up to, and without, round  min(o[i+1], o[i-m+1] + k).

Adding these intervals up gives W(t, k) at every round t at once; adding up their lengths, which
are piecewise linear in k, gives the mean of W for every k at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.kernels.loops import compiled
from pmlkit.timeline import Windows
from pmlkit.units import check_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pmlkit.types import Array, Bools, Floats, Gfns, Ints

__all__ = [
    "Occurrences",
    "cumulative_distinct",
    "gap_counts",
    "gaps",
    "mean_sizes",
    "miss_counts",
    "occurrences",
    "plateau",
    "slide_pages",
    "sliding",
    "stable_order",
    "sum_pages",
    "tumbling",
]


@dataclass(frozen=True)
class Occurrences:
    """The uses of pages, sorted by page and, within a page, by round.

    Attributes
    ----------
    gfn : ndarray of uint64, shape (uses,)
    round : ndarray of int64, shape (uses,)
        From 0 to ``n_rounds - 1``; equal neighbours are two uses in one round.
    n_rounds : int
        Rounds observed, those without any use included.
    """

    gfn: np.ndarray
    round: np.ndarray
    n_rounds: int

    def __len__(self) -> int:
        return len(self.round)

    @cached_property
    def hold(self) -> Ints:
        """Rounds from each use to the page's next one, or to the end (int64, shape (uses,))."""
        following = np.full(len(self), self.n_rounds)
        same = np.flatnonzero(_same_page(self.gfn, 1))
        following[same] = self.round[same + 1]
        return following - self.round

    def select(self, mask: Bools) -> Occurrences:
        """Return the uses where `mask` (bool, shape (uses,)) is true."""
        return Occurrences(self.gfn[mask], self.round[mask], self.n_rounds)

    def between(self, first: int, stop: int) -> Occurrences:
        """Return the uses in rounds `first` (its new round 0) to `stop`, which is left out."""
        keep = (self.round >= first) & (self.round < stop)
        return Occurrences(self.gfn[keep], self.round[keep] - first, stop - first)


def occurrences(
    rounds: Ints | Sequence[int], gfns: Gfns, n_rounds: int, distinct: bool = False
) -> Occurrences:
    """Sort uses by page.

    Parameters
    ----------
    rounds : array of int, shape (entries,)
        The round of each entry, never decreasing, counted from 0.
    gfns : array of int, shape (entries,)
    n_rounds : int
        Rounds observed.
    distinct : bool
        Count a page once per round (an access trace says the same use once per kind).

    Returns
    -------
    Occurrences
    """
    rounds = np.asarray(rounds, np.int64)
    gfns = np.asarray(gfns, np.uint64)
    order = stable_order(gfns)
    found = Occurrences(gfns[order], rounds[order], int(n_rounds))
    if not distinct or len(found) == 0:
        return found
    again = _same_page(found.gfn, 1) & (found.round[1:] == found.round[:-1])
    return found.select(np.concatenate(([True], ~again)))


def stable_order(keys: NDArray[np.uint64]) -> Ints:
    """Return what ``np.argsort(keys, kind="stable")`` does, several times faster if it can.

    Numpy sorts 64-bit values with vector instructions, but neither stably nor by index. With the
    index in the low bits of the value, the plain sort is both; keys that leave no room for it
    take the slow way.
    """
    if len(keys) < 2:
        return np.arange(len(keys))
    bits = int(len(keys) - 1).bit_length()
    if int(keys.max()).bit_length() + bits > 64:
        return np.argsort(keys, kind="stable")
    packed = (keys << np.uint64(bits)) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    return (packed & np.uint64((1 << bits) - 1)).astype(np.int64)


def sliding(occ: Occurrences, k: int | Windows, min_count: int = 1) -> Ints:
    """Return W(t, k) at the end of every round: the pages used `min_count` times in `k` rounds.

    Parameters
    ----------
    occ : Occurrences
    k : int or timeline.Windows
        Window in rounds; or windows, which may tumble, too.
    min_count : int
        The threshold m.

    Returns
    -------
    ndarray of int64, shape (n_rounds,) or (windows,)
        Pages. The first ``k - 1`` windows are shorter: they reach back to round 0.
    """
    if isinstance(k, Windows):
        return _in_windows(occ, k, min_count)
    check_count("k", k, "rounds")
    span = _spans(occ, min_count)
    # A use that does not count stays for no time, and what it adds cancels out.
    length = np.clip(min(k, occ.n_rounds) - span, 0, occ.hold)
    size = occ.n_rounds + 1
    steps = np.bincount(occ.round, minlength=size) - np.bincount(occ.round + length, minlength=size)
    return np.cumsum(steps)[: occ.n_rounds]


def _in_windows(occ: Occurrences, windows: Windows, min_count: int) -> Ints:
    """Return the working set of each window: a use counts from the first that has it on."""
    check_count("min_count", min_count, "uses")
    following = np.full(len(occ), len(windows))
    same = np.flatnonzero(_same_page(occ.gfn, 1))
    following[same] = windows.enter[occ.round[same + 1]]
    back = min_count - 1
    left = np.zeros(len(occ), np.int64)  # no window has a use that does not count
    left[back:] = windows.leave[occ.round[: max(len(occ) - back, 0)]]
    left[back:][~_same_page(occ.gfn, back)] = 0
    begin = windows.enter[occ.round].astype(np.int64)
    end = np.maximum(np.minimum(following, left), begin)
    size = len(windows) + 1
    return np.cumsum(np.bincount(begin, minlength=size) - np.bincount(end, minlength=size))[:-1]


def tumbling(occ: Occurrences, k: int, min_count: int = 1) -> Ints:
    """Return the working set of each of the consecutive windows of `k` rounds.

    Returns
    -------
    ndarray of int64, shape (ceil(n_rounds / k),)
        Pages. If `k` does not divide `n_rounds`, the last window is the shorter rest.
    """
    check_count("k", k, "rounds")
    sizes = sliding(occ, k, min_count)[k - 1 :: k]
    rest = occ.n_rounds % k
    if rest == 0:
        return sizes
    tail = occ.between(occ.n_rounds - rest, occ.n_rounds)
    return np.append(sizes, sliding(tail, rest, min_count)[-1])


def mean_sizes(occ: Occurrences, min_count: int = 1) -> tuple[Floats, Floats]:
    """Return the mean of W(t, k) for every k at once.

    Returns
    -------
    all_rounds : ndarray of float, shape (n_rounds + 1,)
        At index k the mean over every round t, the first ``k - 1`` shorter windows included.
        This is the mean of Denning and Schwartz, whose difference over k counts misses.
    full : ndarray of float, shape (n_rounds + 1,)
        At index k the mean over the rounds whose window has all of its k rounds; NaN at k = 0.
    """
    n = occ.n_rounds
    span = _spans(occ, min_count)
    # A use adds 0 up to k = span, then one more per round of k, up to hold in all.
    ends = np.minimum(span + occ.hold, n)
    bends = np.bincount(span, minlength=n + 1) - np.bincount(ends, minlength=n + 1)
    total = np.concatenate(([0], np.cumsum(np.cumsum(bends))[:n]))
    # A window that is cut short by the start holds what was counted since the start.
    since_start = np.cumsum(sliding(occ, n, min_count)) if n else np.zeros(0, np.int64)
    k = np.arange(1, n + 1)
    short = np.concatenate(([0], since_start))[:n]
    full = np.concatenate(([np.nan], (total[1:] - short) / (n - k + 1)))
    return total / max(n, 1), full


def miss_counts(occ: Occurrences) -> Ints:
    """Return, for every window k, how many uses found their page outside of the working set.

    Use i of a page misses if it is the page's first, or if more than k rounds have passed since
    the one before.

    Returns
    -------
    ndarray of int64, shape (n_rounds + 1,)
        Misses at index k; at k = 0 every use misses but repetitions within one round.
    """
    return len(occ) - np.cumsum(gap_counts(occ))


def gaps(occ: Occurrences) -> tuple[Ints, Ints]:
    """Return the pairs of successive uses of one page.

    Returns
    -------
    earlier, later : ndarrays of int64, shape (pairs,)
        Their rounds.
    """
    same = np.flatnonzero(_same_page(occ.gfn, 1))
    return occ.round[same], occ.round[same + 1]


def gap_counts(occ: Occurrences) -> Ints:
    """Return the re-use histogram: at index g, the uses that come g rounds after the page's
    previous use. int64, shape (n_rounds + 1,); index 0 counts repetitions in one round.
    """
    earlier, later = gaps(occ)
    return np.bincount(later - earlier, minlength=occ.n_rounds + 1)


def cumulative_distinct(occ: Occurrences) -> Ints:
    """Return the distinct pages used since the start, at the end of every round (int64)."""
    firsts = occ.round[_starts(occ.gfn)]
    return np.cumsum(np.bincount(firsts, minlength=occ.n_rounds))[: occ.n_rounds]


def plateau(distinct: Ints | Sequence[int], stable: int, at: Ints | None = None) -> Floats:
    """Follow the plateau estimator of Bitchebe et al. (VEE'21).

    The estimate is ``distinct[t]``, the number of distinct pages logged since the start, once it
    has not changed for the stability time w.

    Parameters
    ----------
    distinct : array of int, shape (n_rounds,)
        From `cumulative_distinct`.
    stable : int
        The stability time w in rounds, 1 or more: rounds in a row without a new page.
    at : array of int64, shape (n_rounds,), optional
        Where rounds end (`timeline.Axis`): w is as long as that, then.

    Returns
    -------
    ndarray of float, shape (n_rounds,)
        What the estimator says at the end of each round: the latest plateau, and NaN before the
        first. Its first number is the published estimate.
    """
    check_count("stable", stable, "rounds")
    distinct = np.asarray(distinct)
    at = np.arange(len(distinct)) if at is None else at
    before = np.searchsorted(at, at - stable, "right") - 1
    reached = np.flatnonzero((before >= 0) & (distinct == distinct[before]))
    latest = np.full(len(distinct), -1)
    latest[reached] = reached
    latest = np.maximum.accumulate(latest)
    return np.where(latest >= 0, distinct[latest], np.nan)


def _spans(occ: Occurrences, min_count: int) -> Ints:
    """Return how far back, in rounds, the m-th latest use of its page lies from each use.

    Those with fewer uses up to then get ``n_rounds``, for which no window is long enough.
    """
    check_count("min_count", min_count, "uses")
    if min_count == 1:
        return np.zeros_like(occ.round)
    back = min_count - 1
    span = np.full_like(occ.round, occ.n_rounds)
    np.subtract(
        occ.round[back:], occ.round[:-back], out=span[back:], where=_same_page(occ.gfn, back)
    )
    return span


def _same_page(gfn: Gfns, distance: int) -> Bools:
    """Say for each use but the last `distance` whether the one `distance` later is of its page."""
    return gfn[distance:] == gfn[: max(len(gfn) - distance, 0)]


def _starts(gfn: Gfns) -> Ints:
    """Return the index of each page's first use."""
    return np.flatnonzero(np.concatenate(([True], ~_same_page(gfn, 1)))[: len(gfn)])


# ------------------------------------------------------------------------------
# Compiled loops over uses sorted by page: one window, or the means of several, of any part.
#
# `pmlkit.kernels.by_page` has the formulas. Here nothing is copied to look at other rounds, other
# pages or another threshold: `starts` says where each page's uses begin, `chosen` which pages
# count, and rounds from `first` to before `stop` are looked at as if there were no others.


@compiled
def slide_pages(
    starts: Array,
    rounds: Array,
    chosen: Array,
    pages: tuple[int, int],
    span: tuple[int, int],
    enter: Array,
    leave: Array,
    min_count: int,
    steps: Array,
) -> None:
    """Add to `steps` where the pages from ``pages[0]`` to ``pages[1]`` enter windows and leave.

    `enter` and `leave` are those of `pmlkit.timeline.Windows` over the rounds of `span`. `steps`,
    int32, shape (windows + 1,): its running sum is the working set of each window.
    """
    first, stop = span
    back = min_count - 1
    for page in range(pages[0], pages[1]):
        a, b = starts[page], starts[page + 1]
        if not chosen[page]:
            continue
        while a < b and rounds[a] < first:
            a += 1
        while a < b and rounds[b - 1] >= stop:
            b -= 1
        for i in range(a + back, b):
            at = enter[rounds[i] - first]
            until = enter[(rounds[i + 1] if i + 1 < b else stop) - first]
            last = min(leave[rounds[i - back] - first], until)
            if last > at:
                steps[at] += 1
                steps[last] -= 1


@compiled
def sum_pages(
    starts: Array,
    rounds: Array,
    chosen: Array,
    pages: tuple[int, int],
    span: tuple[int, int],
    at: Array,
    sizes: Array,
    min_count: int,
    sums: Array,
) -> None:
    """Add to `sums` the integral of W(t, T) over the time of full windows, for each T of `sizes`.

    `at` says where the rounds of `span` end and, at last, where all does: windows are full from T
    on. A page is in W from its use on, until T after the `min_count`-th last one, if it is not
    used again by then. `sizes` is ascending, `sums` are floats.
    """
    first, stop = span
    back = min_count - 1
    for page in range(pages[0], pages[1]):
        a, b = starts[page], starts[page + 1]
        if not chosen[page]:
            continue
        while a < b and rounds[a] < first:
            a += 1
        while a < b and rounds[b - 1] >= stop:
            b -= 1
        for i in range(a + back, b):
            since, used = at[rounds[i - back] - first], at[rounds[i] - first]
            until = at[(rounds[i + 1] if i + 1 < b else stop) - first]
            for j in range(len(sizes)):
                if sizes[j] >= until:  # all that is left of longer windows is cut short
                    break
                held = min(since + sizes[j], until) - max(used, sizes[j])
                sums[j] += max(held, 0)
