# SPDX-License-Identifier: Apache-2.0
"""DAMON: one random page speaks for a region; regions are split and merged as they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.techniques.view import View
    from pmlkit.types import Ints


__all__ = ["Damon"]


@dataclass(frozen=True)
class Damon(Technique):
    """The sizes of the regions in which an access was seen within the aggregation interval.

    Each sampling interval one random page of each region is looked at. At the end of an
    aggregation, neighbours whose counts differ by a tenth of the most or less are merged (not
    beyond the size of an even share of `fewest` regions), what is then seen as used is told, and
    regions are cut in two at random as long as there may be twice as many; in three if they are
    less than a third of that and their number stood still. The rules are those of Linux 5.15, whole
    numbers included: a region of which less than one access per page is left counts as unused.

    The sampling interval is as published if the recording's rounds are 5 ms or shorter (``pmlkit
    record --window 5ms``): within a round an accessed flag cannot be read twice. The default rounds
    of 10 ms make it 10 ms, a note of the run says so.

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

    def observe(self, view: View) -> None:
        sampling = view.published(self.sampling, scaled=False)
        per = max(round(view.published(self.aggregation, scaled=False) / sampling), 1)
        edges = np.linspace(0, view.memory_pages, self.fewest + 1).astype(np.int64)
        counts, before = np.zeros(self.fewest, np.int64), 0
        picked = self._pick(view, edges)
        for turn, _ in enumerate(view.every(sampling), start=1):
            counts += view.accessed.harvest(picked)
            if turn % per == 0:
                edges, counts = self._merge(edges, counts)
                view.report(np.diff(edges)[counts > 0].sum())
                still, before = before == len(counts), len(counts)
                edges = self._split(view, edges, 3 if still and 3 * before < self.most else 2)
                counts = np.zeros(len(edges) - 1, np.int64)
            picked = self._pick(view, edges)

    def _pick(self, view: View, edges: Ints) -> Ints:
        """Choose a page of each region, and clear its flag."""
        picked = view.random.integers(edges[:-1], edges[1:])
        view.accessed.harvest(picked)
        return picked

    def _merge(self, edges: Ints, counts: Ints) -> Any:
        """Return the edges and counts of the regions that are left."""
        threshold, largest = int(counts.max()) // 10, int(edges[-1]) // self.fewest
        regions: list[Any] = []  # start, pages, count
        for count, low, size in zip(counts.tolist(), edges.tolist(), np.diff(edges), strict=False):
            if regions:
                start, pages, mean = regions[-1]
                if abs(mean - count) <= threshold and pages + size <= largest:
                    both = pages + size
                    regions[-1] = (start, both, (mean * pages + count * size) // both)
                    continue
            regions.append((low, size, count))
        starts, _, left = zip(*regions, strict=True)
        return np.array([*starts, edges[-1]]), np.array(left)

    def _split(self, view: View, edges: Ints, parts: int) -> Any:
        if 2 * (len(edges) - 1) > self.most:
            return edges
        sizes, cuts = np.diff(edges), [edges]
        for _ in range(parts - 1):
            sizes = sizes * view.random.integers(1, 10, len(sizes)) // 10
            cuts.append((edges[:-1] + sizes)[sizes > 0])
        return np.unique(np.concatenate(cuts))
