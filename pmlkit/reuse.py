# SPDX-License-Identifier: Apache-2.0
"""The times between the uses of a page, in one pass: the mean of W(T) at every T, and misses.

The formulas are those of `pmlkit.occurrences`; here a log is taken as it comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.pageindex import grown
from pmlkit.units import check_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from pmlkit.timeline import Axis
    from pmlkit.types import Array, Floats, Ints


__all__ = ["Reuse", "Rings", "Sizes", "means"]

TABLE_BITS = 17  # of the table of `Sizes`, which is to stay in the cache


class Rings:
    """The rounds of each page's last uses, and how many uses it had."""

    def __init__(self, most: int) -> None:
        self.ring = np.empty((0, 1 << (most - 1).bit_length()), np.int32)
        self.uses = np.empty(0, np.int32)

    def grow(self, pages: int) -> None:
        self.ring, self.uses = grown(self.ring, pages, 0), grown(self.uses, pages, 0)

    def last(self) -> NDArray[np.int32]:
        """Return the round of the last use of each page that has one."""
        used = np.flatnonzero(self.uses)
        return self.ring[used, (self.uses[used] - 1) % self.ring.shape[1]]


class Sizes:
    """Sorted lengths of windows, to find those that are less than some time (`kernels.shorter`).

    Attributes
    ----------
    sizes : ndarray of int64
    arguments : tuple
        What the kernels take: sizes, table, shift.
    """

    def __init__(self, sizes: Ints) -> None:
        self.sizes = np.asarray(sizes, np.int64)
        longest = int(self.sizes[-1]) if len(self.sizes) else 0
        shift = max(longest.bit_length() - TABLE_BITS, 0)
        first = np.arange((longest >> shift) + 1, dtype=np.int64) << shift
        both = [np.searchsorted(self.sizes, x) for x in (first, first + ((1 << shift) - 1))]
        self.arguments = self.sizes, np.stack(both, axis=1).astype(np.int32), shift


class Reuse:
    """All that follows from the times between the uses of a page.

    Parameters
    ----------
    batches : iterable of (rounds, ids, pages)
        From `pageindex.numbered` or `Stream.numbered`.
    axis : timeline.Axis
        Where the rounds end.
    sizes : array of int64
        The windows T that are looked at, as long as that; ascending from 0.
    min_counts : sequence of int
        The thresholds m whose working sets are wanted.

    Attributes
    ----------
    uses : int
    gap_counts : ndarray of int64, shape (sizes + 1,)
        The uses whose page had its previous one no longer before than that size, and longer than
        the size before; at the end those longer than all.
    gap_sums : ndarray of float, shape (sizes + 1,)
        The sum of those times, between the ends of the two rounds.
    uses_of_pages : ndarray of int32, shape (pages,)
    """

    def __init__(
        self, batches: Iterator[Any], axis: Axis, sizes: Ints, min_counts: Sequence[int] = (1,)
    ) -> None:
        from pmlkit.kernels import reuse, reuse_ends

        for min_count in min_counts:
            check_count("min_count", min_count, "uses")
        more = [m for m in dict.fromkeys(min_counts) if m > 1]
        self.axis, bins = axis, Sizes(sizes)
        self.sizes, counts = bins.sizes, np.asarray(more, np.int64)
        n_bins, n_rounds = len(self.sizes) + 1, len(axis)
        self.gap_counts, self.gap_sums = np.zeros(n_bins, np.int64), np.zeros(n_bins)
        # Sums of times may be more than 64 bits hold; those of rounds are exact as floats, too.
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
        """Return where the sum of W of threshold 1 bends: a use counts for as long as it holds."""
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
        """Return the integral of W(t, T) over t, at each size, and that over full windows only."""
        bends, sums = (np.cumsum(part)[:-1].astype(float) for part in self._bends[min_count])
        total = self.sizes * bends - sums
        return total, total - self._since_start(min_count)

    def _since_start(self, min_count: int) -> Floats:
        """Return the integral up to the first full window of each size.

        A window that is cut short by the start holds what was counted since the start.
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
            From the end of the first round on, windows included that the start cuts short.
        full : ndarray of float, shape (sizes,)
            From the end of the first full window on; NaN for 0, and where there is none.
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
        """Return the misses of every window, as `occurrences.miss_counts`."""
        return self.uses - np.cumsum(self.gap_counts)[:-1]


def means(totals: tuple[Ints, Ints], n_rounds: int) -> tuple[Floats, Floats]:
    """Return the means of W(t, k) over rounds, as `occurrences.mean_sizes`, out of their sums."""
    everywhere, full = totals
    k = np.arange(1, n_rounds + 1)
    return everywhere / max(n_rounds, 1), np.concatenate(([np.nan], full / (n_rounds - k + 1)))
