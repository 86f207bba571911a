# SPDX-License-Identifier: Apache-2.0
"""senpai: shrink the memory until the guest waits for its swap device as long as allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need
from pmlkit.units import parse_duration_ns

if TYPE_CHECKING:
    from pmlkit.techniques.view import View


@dataclass(frozen=True)
class Senpai(Technique):
    """The limit at which the guest waits for memory 10 ms in 6 s: the control loop of senpai.py.

    Each tick adds the time that the guest waited (PSI ``some``). Above the target the limit grows
    immediately, by (stall / target / 20)^2 of itself, at most doubled. If an interval stays below
    it, the limit shrinks by (target / stall / 10)^2 of 1 %, at most 1 %. TMO, its successor in
    Meta's fleet, reclaims without a limit, 0.05 % of the memory in 6 s; recordings are too short
    for it.

    There, the limit is ``memory.high`` of a control group. Here, it is the size of a guest that
    swaps. The guest waits for the device's latency per page that is read again
    (`pmlkit.techniques.memory`). The model has no other stalls. Times are scaled together, so the
    target stays the published share of time, 0.17 %. The published minimum, 100 MiB, exceeds the
    memory of some recorded guests. The only minimum here is what the guest cannot give up.

    Attributes
    ----------
    latency_us : float
        The device's latency, real time: an SSD's 100, a hard disk's 8,000, compressed memory's 10.
    tick : str
    interval : int
        Ticks.
    pressure_ms : float
        Target stall of an interval, as published; scaled like the tick.
    max_probe, max_backoff : float
        Largest relative change of the limit, down or up.
    coeff_probe, coeff_backoff : float
    """

    name = "senpai"
    title = "senpai (PSI)"
    source = "facebookincubator/senpai, senpai.py; Weiner et al. (TMO), ASPLOS'22"
    needs = frozenset({Need.MEMORY})
    intrusive = True
    active = True
    latency_us: float = 100
    tick: str = "1s"
    interval: int = 6
    pressure_ms: float = 10
    max_probe: float = 0.01
    max_backoff: float = 1.0
    coeff_probe: float = 10
    coeff_backoff: float = 20

    def observe(self, view: View) -> None:
        tick = view.published(self.tick)
        target = 1e6 * self.pressure_ms * tick / parse_duration_ns(self.tick)
        limit = float(view.memory.counters().resident)  # the initial limit is the used memory
        stalled, grace = 0, self.interval
        for _ in view.every(tick):
            stalled += view.memory.stalled(self.latency_us)
            if stalled <= target and grace:
                grace -= 1
            else:
                view.memory.resize(limit * (1 + self._change(stalled, target)))
                limit = float(view.memory.limit())
                stalled, grace = 0, self.interval - 1
            view.report(limit)

    def _change(self, stalled: float, target: float) -> float:
        """Return the relative change of the limit."""
        if stalled > target:
            error = stalled / target / self.coeff_backoff
            return min(error**2 * self.max_backoff, self.max_backoff)
        error = target / max(stalled, 1) / self.coeff_probe
        return -min(error**2 * self.max_probe, self.max_probe)
