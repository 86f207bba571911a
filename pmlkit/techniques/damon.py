# SPDX-License-Identifier: Apache-2.0
"""DAMON: one random page speaks for a region; regions are split and merged as they differ."""

from dataclasses import dataclass

import numpy as np

from pmlkit.techniques.protocol import Need, Technique

__all__ = ["Damon"]


@dataclass(frozen=True)
class Damon(Technique):
    """The sizes of the regions in which an access was seen within the aggregation interval.

    Each sampling interval one random page of each region is looked at. At the end of an
    aggregation, neighbours whose counts differ by less than a tenth of the most are merged, then
    regions are cut in two at random as long as there may be twice as many.

    Attributes
    ----------
    sampling, aggregation : str
        As published; an interval below the recording's resolution becomes that.
    fewest, most : int
        Regions.
    """

    name = "damon"
    title = "DAMON"
    source = "Park et al., HPDC'22; Linux 5.15 mm/damon, its defaults"
    needs = frozenset({Need.ACCESSED})
    random = True
    sampling: str = "5ms"
    aggregation: str = "100ms"
    fewest: int = 10
    most: int = 1000

    def observe(self, view):
        sampling = view.published(self.sampling, scaled=False)
        per = max(round(view.published(self.aggregation, scaled=False) / sampling), 1)
        edges = np.linspace(0, view.memory_pages, self.fewest + 1).astype(np.int64)
        counts = np.zeros(self.fewest, np.int64)
        picked = self._pick(view, edges)
        for turn, _ in enumerate(view.every(sampling), start=1):
            counts += view.accessed.harvest(picked)
            if turn % per == 0:
                view.report(np.diff(edges)[counts > 0].sum())
                edges = self._split(view, self._merge(edges, counts))
                counts = np.zeros(len(edges) - 1, np.int64)
            picked = self._pick(view, edges)

    def _pick(self, view, edges):
        """Choose a page of each region, and clear its flag."""
        picked = view.random.integers(edges[:-1], edges[1:])
        view.accessed.harvest(picked)
        return picked

    def _merge(self, edges, counts):
        threshold = max(int(counts.max()) // 10, 1)
        largest = edges[-1] // self.fewest
        kept, start, weighted, size = [edges[0]], edges[0], 0.0, 0
        for count, low, high in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
            mean = weighted / size if size else count
            if size and (abs(mean - count) > threshold or high - start > largest):
                kept.append(low)
                start, weighted, size = low, 0.0, 0
            weighted, size = weighted + count * (high - low), size + high - low
        return np.array([*kept, edges[-1]])

    def _split(self, view, edges):
        if 2 * (len(edges) - 1) > self.most:
            return edges
        sizes = np.diff(edges)
        cut = edges[:-1] + np.maximum(sizes * view.random.integers(1, 10, len(sizes)) // 10, 1)
        return np.unique(np.concatenate((edges, cut[sizes > 1])))
