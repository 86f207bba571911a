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

__all__ = ["References", "last_uses", "plateau", "references", "sliding", "stable_order"]


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
    return References(*_sorted_pairs(gfns, rounds, distinct), int(n_rounds))


def stable_order(keys: Gfns) -> Ints:
    """Return the result of ``np.argsort(keys, kind="stable")``, faster if possible."""
    return _sorted_pairs(keys, np.arange(len(keys)))[1]


def last_uses(rounds: Ints, gfns: Gfns, distinct: bool = False) -> Ints:
    """Return for each use the index of its page's previous use, -1 for a first use.

    Parameters
    ----------
    rounds, gfns, distinct
        As in `references`. Uses that do not count have no index, and are left out.

    Returns
    -------
    ndarray of int64, shape (uses,)
        In the order in which they were made.
    """
    pages, places = _sorted_pairs(gfns, np.arange(len(gfns)))
    if distinct and len(pages):
        again = (pages[1:] == pages[:-1]) & (rounds[places[1:]] == rounds[places[:-1]])
        first = np.append(True, ~again)
        pages, places = pages[first], places[first]
    counts = np.zeros(len(gfns), np.int64)
    counts[places] = 1
    numbers = (np.cumsum(counts) - 1)[places]
    last, same = np.full(len(numbers), -1), pages[1:] == pages[:-1]
    last[numbers[1:][same]] = numbers[:-1][same]
    return last


def _sorted_pairs(keys: Gfns, rising: Ints, distinct: bool = False) -> tuple[Gfns, Ints]:
    """Sort pairs by key and then by `rising` (0 or more); each pair once if `distinct`.

    Numpy sorts 64-bit values with vector instructions, but neither stably nor by index. With the
    second value in the low bits of the first one, the plain sort is both. Keys that leave no room
    for it take the slow way.
    """
    if len(keys) < 2:
        return keys, rising
    bits = int(rising[-1]).bit_length()
    if int(keys.max()).bit_length() + bits > 64:
        order = np.argsort(keys, kind="stable")
        keys, rising = keys[order], rising[order]
        repeated = (keys[1:] == keys[:-1]) & (rising[1:] == rising[:-1]) & distinct
        kept = np.append(True, ~repeated)
        return keys[kept], rising[kept]
    packed = keys << np.uint64(bits)
    packed |= rising.view(np.uint64)
    packed.sort()
    if distinct:
        packed = packed[np.append(True, packed[1:] != packed[:-1])]
    keys = packed >> np.uint64(bits)
    packed &= np.uint64((1 << bits) - 1)
    return keys, packed.view(np.int64)


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
