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

    from pmlkit.types import Array, Floats, Ints


__all__ = ["Reuse", "Rings", "means"]


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


class Reuse:
    """All that follows from the times between the uses of a page.

    Parameters
    ----------
    batches : iterable of (rounds, ids, pages)
        From `pageindex.numbered` or `Stream.numbered`.
    n_rounds : int
    min_counts : sequence of int
        The thresholds m whose working sets are wanted.
    t_ns : array of int64, shape (n_rounds + 1,), optional
        The times between rounds.

    Attributes
    ----------
    uses : int
    gap_counts : ndarray of int64, shape (n_rounds + 1,)
        At index g, the uses g rounds after the page's previous one.
    gap_ns : ndarray of int64, shape (n_rounds + 1,)
        The sum of those times, between the ends of the two rounds; 0 without `t_ns`.
    uses_of_pages : ndarray of int32, shape (pages,)
    """

    def __init__(
        self,
        batches: Iterator[Any],
        n_rounds: int,
        min_counts: Sequence[int] = (1,),
        t_ns: Ints | None = None,
    ) -> None:
        from pmlkit.kernels import reuse, reuse_ends

        for min_count in min_counts:
            check_count("min_count", min_count, "uses")
        self.n_rounds, more = n_rounds, [m for m in dict.fromkeys(min_counts) if m > 1]
        counts = np.asarray(more, np.int64)
        t_end = np.zeros(0, np.int64) if t_ns is None else np.asarray(t_ns[1:], np.int64)
        self.gap_counts, self.gap_ns = np.zeros((2, n_rounds + 1), np.int64)
        bends = np.zeros((len(more), n_rounds + 1), np.int64)
        firsts, reached = np.zeros(n_rounds, np.int64), np.zeros((len(more), n_rounds), np.int64)
        gaps = self.gap_counts, self.gap_ns, t_end
        rings, known = Rings(max(more, default=1)), 0
        for rounds, ids, known in batches:
            rings.grow(known)
            kept = rings.ring, rings.uses, counts
            reuse(ids, rounds, n_rounds, *kept, *gaps, bends, firsts, reached)
        self.uses_of_pages = rings.uses[:known]
        reuse_ends(n_rounds, rings.ring, self.uses_of_pages, counts, bends)
        self.uses = int(self.uses_of_pages.sum(dtype=np.int64))
        self._reached = {1: firsts, **dict(zip(more, reached, strict=True))}
        self._bends = {1: self._bends_of_all(rings.last()), **dict(zip(more, bends, strict=True))}

    def _bends_of_all(self, last: Array) -> Ints:
        """Return where the sum of W of threshold 1 bends: a use counts for as long as it holds."""
        holds = self.gap_counts + np.bincount(self.n_rounds - last, minlength=self.n_rounds + 1)
        bends = -holds
        bends[0] += holds.sum()
        return bends

    def distinct(self, min_count: int = 1) -> Ints:
        """Return the pages used `min_count` times since the start, at the end of every round."""
        return np.cumsum(self._reached[min_count])

    def totals(self, min_count: int = 1) -> tuple[Ints, Ints]:
        """Return the sums of W(t, k) over t: see `means`."""
        n = self.n_rounds
        total = np.concatenate(([0], np.cumsum(np.cumsum(self._bends[min_count]))[:n]))
        # A window that is cut short by the start holds what was counted since the start.
        short = np.concatenate(([0], np.cumsum(self.distinct(min_count))))[:n]
        return total, total[1:] - short

    def miss_counts(self) -> Ints:
        """Return the misses of every window k, as `occurrences.miss_counts`."""
        return self.uses - np.cumsum(self.gap_counts)


def means(totals: tuple[Ints, Ints], n_rounds: int) -> tuple[Floats, Floats]:
    """Return the means of W(t, k) over t, as `occurrences.mean_sizes` does, out of their sums."""
    everywhere, full = totals
    k = np.arange(1, n_rounds + 1)
    return everywhere / max(n_rounds, 1), np.concatenate(([np.nan], full / (n_rounds - k + 1)))
