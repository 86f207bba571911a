# SPDX-License-Identifier: Apache-2.0
"""DAMON: one random page represents a region; regions split and merge as they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from collections.abc import Callable

    from pmlkit.techniques.view import View
    from pmlkit.types import Bools, Ints


@dataclass(frozen=True)
class Damon(Technique):
    """The total size of the regions in which an access was seen within the aggregation interval.

    Each sampling interval checks one random page of each region. At the end of an aggregation,
    neighbours are merged if their counts differ by at most a tenth of the highest count. A merged
    region does not exceed an even share of `fewest` regions. The estimate is then the size of the
    regions in use. Regions are split in two at random while twice as many are allowed. They are
    split in three if there are fewer than a third of `watched` and their number has not changed.
    The rules are those of Linux 5.15, including integer arithmetic: a region with less than one
    access left per page counts as unused.

    The sampling interval is as published if the recording's rounds are 5 ms or shorter
    (``pmlkit record --window 5ms``), because an accessed flag cannot be read twice within a round.
    With the default rounds of 10 ms, the interval is 10 ms, and a note of the run reports this.

    One rule differs: Linux does not split a region of two pages.

    Two simplifications favour it. The model treats every use as a walk, although Linux clears the
    flags without a flush of the TLB. Only reading the flags is priced: the wake-ups of its thread
    and its own computations are not.

    Attributes
    ----------
    looks : int, optional
        Samplings per window T, which then equals the aggregation interval. The default intervals
        are as published.
    watched : int
        Largest number of regions.
    sampling, aggregation : str
        As published; an interval shorter than the recording's resolution becomes the resolution.
    fewest : int
        Smallest number of regions.
    """

    name = "damon"
    title = "DAMON"
    source = "Park et al., HPDC'22; Linux 5.15 mm/damon, its defaults"
    needs = frozenset({Need.ACCESSED})
    random = True
    looks: int | None = None
    watched: int = 1000
    sampling: str = "5ms"
    aggregation: str = "100ms"
    fewest: int = 10

    def observe(self, view: View) -> None:
        if self.looks is None:
            sampling = view.published(self.sampling, scaled=False)
            per = max(round(view.published(self.aggregation, scaled=False) / sampling), 1)
        else:
            sampling, per = view.parts(self.looks)
        edges = self.first_edges(view.memory_pages)
        counts, before = np.zeros(len(edges) - 1, np.int64), 0
        check = self._pick(view, edges)
        for turn, _ in enumerate(view.every(sampling), start=1):
            counts += check()
            if turn % per == 0:
                edges, counts = self._merge(edges, counts)
                view.report(np.diff(edges)[counts > 0].sum())
                unchanged, before = before == len(counts), len(counts)
                parts = 3 if unchanged and 3 * before < self.watched else 2
                edges = self._split(view, edges, parts)
                counts = np.zeros(len(edges) - 1, np.int64)
            check = self._pick(view, edges)

    def first_edges(self, memory_pages: int) -> Ints:
        """Return the edges of the first regions: `fewest` even ones, each of a page or more."""
        return np.linspace(0, memory_pages, min(self.fewest, memory_pages) + 1).astype(np.int64)

    def _pick(self, view: View, edges: Ints) -> Callable[[], Bools]:
        """Clear the flag of a page of each region; return a function that reads the flags."""
        pages = view.random.integers(edges[:-1], edges[1:])
        view.accessed.harvest(pages, alone=True)
        return lambda: view.accessed.harvest(pages, alone=True)

    def _merge(self, edges: Ints, counts: Ints) -> tuple[Ints, Ints]:
        """Merge similar regions; return the edges and counts of the remaining ones."""
        threshold, largest = int(counts.max()) // 10, int(edges[-1]) // self.fewest
        regions: list[tuple[int, int, int]] = []  # start, pages, count
        for count, low, size in zip(
            counts.tolist(), edges[:-1].tolist(), np.diff(edges).tolist(), strict=True
        ):
            if regions:
                start, pages, mean = regions[-1]
                if abs(mean - count) <= threshold and pages + size <= largest:
                    both = pages + size
                    regions[-1] = (start, both, (mean * pages + count * size) // both)
                    continue
            regions.append((low, size, count))
        starts, _, merged = zip(*regions, strict=True)
        return np.array([*starts, edges[-1]]), np.array(merged)

    def _split(self, view: View, edges: Ints, parts: int) -> Ints:
        if 2 * (len(edges) - 1) > self.watched:
            return edges
        sizes, cuts = np.diff(edges), [edges]
        for _ in range(parts - 1):
            sizes = sizes * view.random.integers(1, 10, len(sizes)) // 10
            cuts.append((edges[:-1] + sizes)[sizes > 0])
        return np.unique(np.concatenate(cuts))
