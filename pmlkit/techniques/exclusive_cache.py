# SPDX-License-Identifier: Apache-2.0
"""The hypervisor's exclusive cache: it replaces part of the VM's memory, and sees its misses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlkit.techniques.ghosts import GhostList
from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View


@dataclass(frozen=True)
class ExclusiveCache(Technique):
    """The memory that would avoid all but a share `tolerated` of the VM's misses.

    The VM keeps a share of its memory. Evicted pages go to the hypervisor's cache; missed pages are
    copied from there instead of read from the disk. The cache is in LRU order, so a hit's position
    is the additional memory that would have avoided it. The hits together give the miss-ratio
    curve. The paper predicts the misses at a size; here the estimate is the size that avoids all
    but `tolerated` of the last interval's hits. While nothing is missed, the VM gets less memory
    (by `step`), because its working set would otherwise be invisible.

    Attributes
    ----------
    interval : str
    share : float
        Share of its memory that the VM keeps at first.
    tolerated : float
        As a share of the hits.
    step : float
    """

    name = "exclusive-cache"
    title = "Hypervisor exclusive cache"
    source = "Lu and Shen, USENIX ATC'07 (steps ours)"
    needs = frozenset({Need.MEMORY})
    intrusive = True
    active = True
    interval: str = "1s"
    share: float = 0.5
    tolerated: float = 0.05
    step: float = 0.1

    def observe(self, view: View) -> None:
        view.memory.resize(self.share * view.memory_pages)
        cache = GhostList()
        for _ in view.every(view.published(self.interval)):
            frames, back = view.memory.evictions()
            distances = cache.follow(frames, back)
            size, distances = view.memory.limit(), distances[distances >= 0]
            if len(distances) > self.tolerated * size * self.step:
                distances.sort()
                more = int(distances[int((1 - self.tolerated) * (len(distances) - 1))]) + 1
                view.report(size + more)
            else:
                view.report(size)
                view.memory.resize(size - self.step * size)
