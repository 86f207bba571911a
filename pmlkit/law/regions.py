# SPDX-License-Identifier: Apache-2.0
"""DAMON and Telescope: what their regions report, for as many equal regions as their rules keep.

One random address stands for a region of s pages. If the share q_k of the region's addresses is in
use in sampling interval k, the region counts with the probability ``P = 1 - prod (1 - q_k)``, and
then as a whole. So the report is ``sum s P`` in the mean, with the variance ``sum s^2 P (1 - P)``:
blindness and sampling at once. The more intervals there are in T, the larger is P, and so is the
excess.

Real regions follow the pattern of use. Where they lie depends on all draws before, so the law has
equal ones instead. Their number follows from the rules: neighbours merge if their counts differ by
at most a tenth of the highest, and regions split in two while twice as many are allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.law.looks import Rule
from pmlkit.techniques.telescope import LEVELS, Telescope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.law.looks import Looks
    from pmlkit.techniques.recorded import Recorded
    from pmlkit.techniques.view import View
    from pmlkit.types import Array, Floats, Ints

    Events = dict[str, float]

__all__ = ["Regions"]


class Regions(Rule):
    """The report of regions of which one random address is sampled."""

    phases = 2  # each takes a pass over the recording

    def pace(self, view: View) -> tuple[int, int]:
        if self.technique.looks is not None:
            return view.parts(self.technique.looks)
        sampling, aggregation = self.technique.sampling, self.technique.aggregation
        period = view.published(sampling, scaled=False)
        return period, max(round(view.published(aggregation, scaled=False) / period), 1)

    def events(self, of: Looks) -> Events:
        return {"flags_read": 2 * self.regions(of)}  # cleared, and read an interval later

    def seen(self, of: Looks) -> tuple[Floats, Floats]:
        return self.between(of)

    def reports(self, of: Looks, ends: Ints, case: int) -> tuple[Floats, Floats]:
        reported, sd = np.full(len(ends), np.nan), np.zeros(len(ends))
        for turn, pages, scatter, _ in self._turns(of, ends):
            reported[turn - 1], sd[turn - 1] = pages, scatter
        return reported, sd

    def regions(self, of: Looks) -> float:
        """Return how many regions there are, a mean over looks."""
        return float(np.mean([count for *_, count in self._turns(of, of.ends(0))] or [1]))

    def _turns(self, of: Looks, ends: Ints) -> list[tuple[int, float, float, int]]:
        """Return for each aggregation its last look, the report, its scatter, and the regions."""
        recorded, found = of.curves.recorded, []
        edges = self.technique.first_edges(recorded.known_memory_pages)
        times = recorded.t_ns[1:] - recorded.t_ns[0]
        rounds = np.append(0, np.searchsorted(times, of.curves.t_ns[ends], "right"))
        for turn in range(of.looks, len(ends) + 1, of.looks):
            looks = zip(rounds[turn - of.looks : turn], rounds[turn - of.looks + 1 :], strict=False)
            counts = _counts(np.array([self._hit(recorded, *look, edges) for look in looks]))
            sizes, sure = np.diff(edges), self._counted(counts)
            scatter = float(np.sqrt(np.sum(sizes**2 * sure * (1 - sure))))
            found.append((turn, float(sizes @ sure), scatter, len(sizes)))
            edges = self._split(_merged(edges, _apart(counts), self.technique.fewest))
        return found

    def _split(self, edges: Ints) -> Ints:
        """Split each region in the middle, which is the mean of where it is split."""
        if 2 * (len(edges) - 1) > self.technique.watched:
            return edges
        return np.unique(np.append(edges, edges[:-1] + np.diff(edges) // 2))

    def _hit(self, recorded: Recorded, first: int, stop: int, edges: Ints) -> Floats:
        """Return the share of each region's addresses that shows a use in some rounds."""
        memory = int(edges[-1])
        frames = recorded.accesses.between(first, stop)
        used = np.zeros(memory, bool)
        used[frames[(frames >= 0) & (frames < memory)]] = True
        every = LEVELS if isinstance(self.technique, Telescope) else (0,)
        levels = [bits for bits in every if 1 << bits <= memory]
        return _covered(used, levels, edges[:-1], edges[1:]) / np.diff(edges)

    def _counted(self, counts: Floats) -> Floats:
        """Return the probability that each region's count is above 0 after merging."""
        some = 1 - counts[0]
        if not _threshold(counts):
            return some
        # A count of 1 merges with a neighbour's 0 into less than one, which counts as 0.
        beside = np.append(some[0], some[:-1]) * np.append(some[1:], some[-1])
        return some - counts[1] * (1 - beside)


def _covered(used: Array, levels: Sequence[int], first: Ints, stop: Ints) -> Floats:
    """Return how many addresses from `first` to `stop` lie under an entry that shows a use.

    An address is asked for at the highest level whose entry lies within the region.
    """
    bits, lower = levels[0], levels[1:]
    entries = -(-len(used) >> bits)
    padded = np.append(used, np.zeros((entries << bits) - len(used), bool))
    shown = np.append(0, np.cumsum(padded.reshape(entries, -1).any(axis=1)))
    low, high = -(-first >> bits), stop >> bits
    if not lower:
        return (shown[high] - shown[low]).astype(float)
    inside = high > low
    low, high = (np.where(inside, edge, 0) for edge in (low, high))
    total = (shown[high] - shown[low]).astype(float) * (1 << bits)
    left = np.where(inside, low << bits, stop)
    right = np.where(inside, high << bits, stop)
    return total + _covered(used, lower, first, left) + _covered(used, lower, right, stop)


def _counts(hits: Floats) -> Floats:
    """Return the distribution of each region's count, by the shares of each interval.

    Parameters
    ----------
    hits : ndarray of float64, shape (intervals, regions)

    Returns
    -------
    ndarray of float64, shape (intervals + 1, regions)
    """
    found = np.zeros((len(hits) + 1, hits.shape[1]))
    found[0] = 1
    for share in hits:
        found[1:] = found[1:] * (1 - share) + found[:-1] * share
        found[0] *= 1 - share
    return found


def _threshold(counts: Floats) -> int:
    """Return by how much the counts of neighbours that merge may differ: a tenth of the highest."""
    below = np.cumsum(counts, axis=0)  # P(count <= c)
    highest = np.sum(1 - np.prod(below[:-1], axis=1))
    return int(highest + 0.5) // 10


def _apart(counts: Floats) -> Floats:
    """Return the probability that the counts of neighbours are too different to merge."""
    one, other, threshold = counts[:, :-1], counts[:, 1:], _threshold(counts)
    close = np.sum(one * other, axis=0)
    for apart in range(1, threshold + 1):
        close += np.sum(one[apart:] * other[:-apart] + one[:-apart] * other[apart:], axis=0)
    return 1 - close


def _merged(edges: Ints, apart: Floats, fewest: int) -> Ints:
    """Return the edges that are left: as many as are expected, where they are expected.

    An edge is kept whenever the sum of the probabilities of being kept passes a whole number, and
    if the region would else be larger than an even share of `fewest`.
    """
    largest, kept, total = int(edges[-1]) // fewest, [int(edges[0])], 0.5
    for edge, after, probability in zip(edges[1:-1], edges[2:], apart, strict=True):
        before, total = int(total), total + float(probability)
        if int(total) > before or int(after) - kept[-1] > largest:
            kept.append(int(edge))
    return np.array([*kept, int(edges[-1])])
