# SPDX-License-Identifier: Apache-2.0
"""zballoond: remove memory until the guest begins to swap or to read its cache again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View


@dataclass(frozen=True)
class Zballoond(Technique):
    """The size at which swap-ins and refaults are nearly zero.

    According to Nitu et al., a guest that has its working set swaps nothing in and refaults
    nothing. Its memory shrinks step by step during this time. Otherwise it grows by the missing
    pages immediately. The steps are not published: the values here are ours.

    Attributes
    ----------
    interval : str
    step : float
        Share of its memory that a guest without pressure loses per interval.
    quiet : float
        Pages per interval, as a share of its memory, that do not count as pressure.
    grow : float
        Pages given per page that was missing.
    """

    name = "zballoond"
    title = "zballoond"
    source = "zballoond, as in Nitu et al., SIGMETRICS'18 (steps ours)"
    needs = frozenset({Need.MEMORY})
    intrusive = True
    active = True
    interval: str = "1s"
    step: float = 0.05
    quiet: float = 0.001
    grow: float = 1.5

    def observe(self, view: View) -> None:
        size = float(view.memory_pages)
        for _ in view.every(view.published(self.interval)):
            counters = view.memory.counters()
            missing = counters.new_swap_ins
            if missing > self.quiet * size:
                size = min(size + self.grow * missing, view.memory_pages)
            else:
                size -= self.step * size
            view.memory.resize(size)
            size = float(view.memory.limit())
            view.report(size)
