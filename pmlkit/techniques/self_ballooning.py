# SPDX-License-Identifier: Apache-2.0
"""Self-ballooning: the guest balloons towards its committed memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need
from pmlkit.trace.schema import PAGE_SIZE

if TYPE_CHECKING:
    from pmlkit.techniques.view import View


@dataclass(frozen=True)
class SelfBallooning(Technique):
    """The target of Xen's selfballoon driver: Committed_AS and a reserve, with hysteresis.

    Committed_AS is the memory promised to the guest's programs, used or not; it ignores the page
    cache. In each interval the memory moves towards the target: all of the way up, an eighth of the
    way down.

    Attributes
    ----------
    interval : str
    up, down : int
        The driver's hysteresis.
    reserve : float
        Share of the memory that is added (the driver's later versions add 10 % of all RAM).
    """

    name = "self-ballooning"
    title = "Self-ballooning (Committed_AS)"
    source = "Linux drivers/xen/xen-selfballoon.c; Nitu et al., SIGMETRICS'18"
    needs = frozenset({Need.GUEST, Need.MEMORY})
    intrusive = True
    active = True
    interval: str = "5s"
    up: int = 1
    down: int = 8
    reserve: float = 0.1

    def observe(self, view: View) -> None:
        target = float(view.memory_pages)
        for _ in view.every(view.published(self.interval)):
            sample = view.guest.ask()
            if sample is None:
                continue
            kernel = view.memory_pages - sample["total_bytes"] // PAGE_SIZE
            committed = sample["committed_bytes"] // PAGE_SIZE
            goal = committed + kernel + self.reserve * view.memory_pages
            goal = min(goal, view.memory_pages)
            target += (goal - target) / (self.up if goal > target else self.down)
            view.memory.resize(target)
            view.memory.counters()  # charges the faults that this costs
            view.report(target)
