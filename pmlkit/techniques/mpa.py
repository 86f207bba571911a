# SPDX-License-Identifier: Apache-2.0
"""MPA ballooning: how much a guest keeps depends on the pressure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View


@dataclass(frozen=True)
class Mpa(Technique):
    """What the guest has in use, as far as the host's memory goes; the page cache gives way first.

    Three regimes. Low pressure: what all guests use fits; each gets that, and a cushion, so that a
    sudden demand finds room. Mild: programs' own pages fit, but not the page cache with them; the
    cache is cut. Heavy: not even those fit, and the guest has to swap. A guest that reads pages
    again gets as many at once. Of the paper (doi 10.1145/2818950.2818967) the abstract could be
    read, no more: memory is dealt out by the pressure's regime, sudden demands are met ahead, and
    neither hardware nor minor faults are needed. The formulas are ours, and the host is one whose
    memory for this guest is a share of what the guest has booked.

    Attributes
    ----------
    interval : str
    host : float
        The host's memory for this guest, as a share of what it has booked.
    cushion : float
        Of the memory in use.
    """

    name = "mpa"
    title = "MPA ballooning"
    source = "Kim et al., Dynamic Memory Pressure Aware Ballooning, MEMSYS'15 (formulas ours)"
    needs = frozenset({Need.MEMORY})
    intrusive = True
    active = True
    interval: str = "1s"
    host: float = 0.5
    cushion: float = 0.05

    def observe(self, view: View) -> None:
        host = self.host * view.memory_pages
        for _ in view.every(view.published(self.interval)):
            counters = view.memory.counters()
            used = counters.resident + counters.new_swap_ins
            # Under mild and under heavy pressure alike the host gives what it has: the guest's
            # kernel drops its cache before it swaps.
            wanted = min(used * (1 + self.cushion), host)
            view.memory.resize(wanted)
            view.report(view.memory.limit())
