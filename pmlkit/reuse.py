# SPDX-License-Identifier: Apache-2.0
"""The times between the uses of a page, in one pass: the mean of W(T) at every T, and misses.

The formulas are those of `pmlkit.occurrences`; here a log is taken as it comes.
"""

import numpy as np

from pmlkit.pageindex import grown
from pmlkit.units import check_count

__all__ = ["Reuse", "Rings", "means"]


class Rings:
    """The rounds of each page's last uses, and how many uses it had."""

    def __init__(self, most):
        self.ring = np.empty((0, 1 << (most - 1).bit_length()), np.int32)
        self.uses = np.empty(0, np.int32)

    def grow(self, pages):
        self.ring, self.uses = grown(self.ring, pages, 0), grown(self.uses, pages, 0)


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

    def __init__(self, batches, n_rounds, min_counts=(1,), t_ns=None):
        from pmlkit.kernels import reuse, reuse_ends

        for min_count in min_counts:
            check_count("min_count", min_count, "uses")
        self.n_rounds, self.min_counts = n_rounds, list(min_counts)
        counts = np.asarray(self.min_counts, np.int64)
        t_end = np.zeros(n_rounds, np.int64) if t_ns is None else np.asarray(t_ns[1:], np.int64)
        self.gap_counts, self.gap_ns = np.zeros((2, n_rounds + 1), np.int64)
        self._bends = np.zeros((len(counts), n_rounds + 1), np.int64)
        self._reached = np.zeros((len(counts), n_rounds), np.int64)
        gaps = self.gap_counts, self.gap_ns, t_end
        rings, known = Rings(max(self.min_counts, default=1)), 0
        for rounds, ids, known in batches:
            rings.grow(known)
            kept = rings.ring, rings.uses, counts
            reuse(ids, rounds, n_rounds, *kept, *gaps, self._bends, self._reached)
        self.uses_of_pages = rings.uses[:known]
        reuse_ends(n_rounds, rings.ring, self.uses_of_pages, counts, self._bends)
        self.uses = int(self.uses_of_pages.sum(dtype=np.int64))

    def distinct(self, min_count=1):
        """Return the pages used `min_count` times since the start, at the end of every round."""
        return np.cumsum(self._reached[self.min_counts.index(min_count)])

    def totals(self, min_count=1):
        """Return the sums of W(t, k) over t: see `means`."""
        n, row = self.n_rounds, self.min_counts.index(min_count)
        total = np.concatenate(([0], np.cumsum(np.cumsum(self._bends[row]))[:n]))
        # A window that is cut short by the start holds what was counted since the start.
        short = np.concatenate(([0], np.cumsum(self.distinct(min_count))))[:n]
        return total, total[1:] - short

    def miss_counts(self):
        """Return the misses of every window k, as `occurrences.miss_counts`."""
        return self.uses - np.cumsum(self.gap_counts)


def means(totals, n_rounds):
    """Return the means of W(t, k) over t, as `occurrences.mean_sizes` does, out of their sums."""
    everywhere, full = totals
    k = np.arange(1, n_rounds + 1)
    return everywhere / max(n_rounds, 1), np.concatenate(([np.nan], full / (n_rounds - k + 1)))
