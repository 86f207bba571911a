# SPDX-License-Identifier: Apache-2.0
"""The working set of references in memory, sorted by page.

References are sorted by page once, so that the references of a page are neighbours. Consider the
working set of k rounds and threshold m at the end of round t. The page belongs to it if and only if
the m-th latest of its references up to t is later than t - k. Reference i, in round o[i], decides
this until the page's next reference. It therefore adds the page to the set

    from round o[i] up to, but excluding, round min(o[i+1], o[i-m+1] + k).

The sum of these intervals is W(t, k) at every round t. `pmlkit.timeline.Windows` gives the same for
windows that end anywhere: the window that a round enters, and the one that it leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.timeline import Windows
from pmlkit.units import check_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.types import Bools, Floats, Gfns, Ids, Ints

__all__ = [
    "Intervals", "References", "last_uses", "plateau", "references", "sliding", "stable_order"
]  # fmt: skip


@dataclass(frozen=True)
class References:
    """References to pages, sorted by page and, within a page, by round.

    Attributes
    ----------
    gfn : ndarray of uint64, shape (references,)
    round : ndarray of int64, shape (references,)
        From 0 to ``n_rounds - 1``; equal neighbours are two references in one round.
    n_rounds : int
        Number of observed rounds, including those without any reference.
    """

    gfn: Gfns
    round: Ints
    n_rounds: int

    def __len__(self) -> int:
        return len(self.round)

    @cached_property
    def starts(self) -> Ints:
        """Start of each page's references, and the end (int64, shape (pages + 1,))."""
        first = np.flatnonzero(self.gfn[1:] != self.gfn[:-1]) + 1
        return np.concatenate(([0] * bool(len(self)), first, [len(self)])).astype(np.int64)

    def select(self, mask: Bools) -> References:
        """Return the references where `mask` (bool, shape (references,)) is true."""
        return References(self.gfn[mask], self.round[mask], self.n_rounds)

    @cached_property
    def intervals(self) -> Intervals:
        """The intervals from each reference to the next one of its page."""
        until = np.append(self.round[1:], self.n_rounds)[: len(self)]
        until[self.starts[1:] - 1] = self.n_rounds
        pairs, count = np.unique(self.round * (self.n_rounds + 1) + until, return_counts=True)
        return Intervals(*np.divmod(pairs, self.n_rounds + 1), count)


@dataclass(frozen=True)
class Intervals:
    """References without their pages: the different intervals between them, and their numbers.

    For m = 1 the working sets depend on these alone. There are often a hundred times fewer of them
    than references, which pays if the windows are many.

    Attributes
    ----------
    start : ndarray of int64, shape (intervals,)
        The round of a reference.
    until : ndarray of int64, shape (intervals,)
        The round of the next reference to its page; ``n_rounds`` if there is none.
    count : ndarray of int64, shape (intervals,)
        The number of references with these rounds.
    """

    start: Ints
    until: Ints
    count: Ints

    def sliding(self, windows: Windows) -> Ints:
        """Return the working set of each window, as `sliding` does (int64, shape (windows,))."""
        enter = windows.enter[self.start]
        until = np.minimum(windows.enter[self.until], windows.leave[self.start])
        inside, size = until > enter, len(windows) + 1
        came, went = (np.bincount(at[inside], self.count[inside], size) for at in (enter, until))
        return np.cumsum(came - went)[:-1].astype(np.int64)


def references(
    rounds: Ints | Sequence[int], gfns: Gfns, n_rounds: int, distinct: bool = False
) -> References:
    """Sort references by page.

    Parameters
    ----------
    rounds : array of int, shape (entries,)
        The round of each entry, never decreasing, from 0.
    gfns : array of int, shape (entries,)
    n_rounds : int
        Rounds observed.
    distinct : bool
        Count a page once per round (an access trace lists the same use once per kind).
    """
    rounds = np.asarray(rounds, np.int64)
    gfns = np.asarray(gfns, np.uint64)
    order = _order(rounds, gfns, distinct)
    return References(gfns[order], rounds[order], int(n_rounds))


def stable_order(keys: Gfns) -> Ints:
    """Return ``np.argsort(keys, kind="stable")``, faster: numpy sorts keys of 16 bits by counting.

    The higher bits are sorted after the lower ones, as far as there are any.
    """
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    for shift in range(16, int(keys.max(initial=0)).bit_length(), 16):
        digits = (keys >> np.uint64(shift)).astype(np.uint16)
        order = order[np.argsort(digits[order], kind="stable")]
    return order


def last_uses(rounds: Ints, gfns: Gfns, distinct: bool = False) -> Ids:
    """Return for each use the index of its page's previous use, -1 for a first use.

    Parameters
    ----------
    rounds, gfns, distinct
        As in `references`. Uses that do not count have no index, and are left out.

    Returns
    -------
    ndarray of int32, shape (uses,)
        In the order in which they were made.
    """
    order = _order(rounds, gfns, distinct)
    counted = np.zeros(len(gfns), bool)
    counted[order] = True
    uses = (np.cumsum(counted, dtype=np.int32) - 1)[order]
    pages = gfns[order]
    last = np.full(len(uses), -1, np.int32)
    last[uses[1:]] = np.where(pages[1:] == pages[:-1], uses[:-1], -1)
    return last


def _order(rounds: Ints, gfns: Gfns, distinct: bool) -> Ints:
    """Return the entries in order of page, then of time; one for each page and round if `distinct`.

    Of several entries, the first one stands for the use.
    """
    order = stable_order(gfns)
    if not distinct or not len(order):
        return order
    is_first = np.zeros(len(order), bool)
    is_first[0] = True
    for column in (gfns, rounds):  # one after the other, as they take memory
        in_order = column[order]
        is_first[1:] |= in_order[1:] != in_order[:-1]
    return order[is_first]


def sliding(refs: References, windows: int | Windows, min_count: int = 1) -> Ints:
    """Return the working set of each window: the pages referenced `min_count` times in it.

    Parameters
    ----------
    windows : timeline.Windows or int
        The windows; or k, for windows of k rounds with one ending at each round. The first
        ``k - 1`` of these are shorter: they begin at round 0.
    min_count : int
        The threshold m.

    Returns
    -------
    ndarray of int64, shape (windows,)
        Pages.
    """
    if not isinstance(windows, Windows):
        check_count("k", windows, "rounds")
        windows = Windows.of_rounds(refs.n_rounds, windows)
    check_count("min_count", min_count, "uses")
    enter, leave = windows.enter[refs.round], windows.leave[refs.round]
    until = np.append(enter[1:], np.int32(len(windows)))[: len(refs)]
    until[refs.starts[1:] - 1] = len(windows)  # the last reference of a page is valid to the end
    if min_count > 1:
        enter, until, leave = _with_threshold(refs, min_count - 1, enter, until, leave)
    until = np.minimum(until, leave)
    inside, size = until > enter, len(windows) + 1
    came, went = (np.bincount(at[inside], minlength=size) for at in (enter, until))
    return np.cumsum(came - went)[:-1]


def _with_threshold(refs: References, back: int, enter: Ids, until: Ids, leave: Ids) -> list[Ids]:
    """Keep the references with `back` earlier ones of their page; they leave with the first."""
    earlier = np.arange(len(refs)) - np.repeat(refs.starts[:-1], np.diff(refs.starts))
    kept = np.flatnonzero(earlier >= back)
    return [enter[kept], until[kept], leave[kept - back]]


def plateau(distinct: Ints | Sequence[int], stable: int, at: Ints | None = None) -> Floats:
    """Apply the plateau estimator of Bitchebe et al. (VEE'21).

    The estimate is ``distinct[t]``, the number of distinct pages logged since the start, when it
    has not changed for the stability time w.

    Parameters
    ----------
    distinct : array of int, shape (n_rounds,)
        Distinct pages since the start, at the end of each round.
    stable : int
        The stability time w in rounds, 1 or more: consecutive rounds without a new page.
    at : array of int64, shape (n_rounds,), optional
        Ends of rounds (`timeline.Axis`): w then has this unit.

    Returns
    -------
    ndarray of float, shape (n_rounds,)
        The estimate at the end of each round: the latest plateau, and NaN before the first. Its
        first number is the published estimate.
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
