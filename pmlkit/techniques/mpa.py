# SPDX-License-Identifier: Apache-2.0
"""MPA ballooning: the memory that a guest keeps depends on the pressure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View


@dataclass(frozen=True)
class Mpa(Technique):
    """The memory that the guest uses, limited by the host's memory; the page cache shrinks first.

    Three regimes. Low pressure: the memory in use of all guests fits. Each guest gets that and a
    cushion, so that a sudden demand finds room. Mild: the programs' own pages fit, but not together
    with the page cache; the cache shrinks. Heavy: even those do not fit, and the guest must swap. A
    guest that reads pages again gets the same number of pages immediately. Only the abstract of the
    paper (doi 10.1145/2818950.2818967) was available. It states that the pressure's regime
    determines the memory, sudden demands are met in advance, and neither hardware support nor minor
    faults are needed. The formulas are ours. The model's host gives this guest a fixed share of the
    memory that the guest has booked.

    Attributes
    ----------
    interval : str
    host : float
        The host's memory for this guest, as a share of its booking.
    cushion : float
        As a share of the memory in use.
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
            # Under mild and under heavy pressure, the host gives all that it has: the guest's
            # kernel drops its cache before it swaps.
            wanted = min(used * (1 + self.cushion), host)
            view.memory.resize(wanted)
            view.report(view.memory.limit())
