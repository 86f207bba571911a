# SPDX-License-Identifier: Apache-2.0
"""VMware ESX's statistical sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmlkit.techniques.view import View
    from pmlkit.types import Ints

ESTIMATES = 4  # estimates per period (our choice)


@dataclass(frozen=True)
class Vmware(Technique):
    """Trap `watched` random pages for a period; estimate the touched share, times the memory.

    The estimate is the largest of three values: a slow moving average of that share over periods, a
    fast one, and the fast one with the share of the running period so far. It therefore follows a
    growing working set quickly and a shrinking one gradually. The weights are not published: the
    values here are ours.

    Attributes
    ----------
    watched : int
        n.
    looks : int, optional
        Estimates per window T, which then equals the period. Default as published: the period is
        `period`, with `ESTIMATES` in each.
    period : str
        VM time.
    slow, fast : float
        Weight of the newest period in the two averages; 1: no average.
    """

    name = "vmware"
    title = "VMware sampling"
    source = "Waldspurger, OSDI'02 (weights of the averages ours)"
    needs = frozenset({Need.TRAPS})
    random = True
    watched: int = 100
    looks: int | None = None
    period: str = "30s"
    slow: float = 0.2
    fast: float = 0.5

    def observe(self, view: View) -> None:
        for pages in self.estimates(view):
            view.report(pages)

    def estimates(self, view: View) -> Iterator[float]:
        """Yield the estimate in pages, several times a period."""
        if self.looks is None:
            period = view.published(self.period)
            look = max(period // ESTIMATES, 1)
        else:
            look, parts = view.parts(self.looks)
            period = look * parts
        slow = fast = np.nan
        sample, ends = self._draw(view), period
        for now in view.every(look):
            share = np.count_nonzero(view.traps.caught(sample)) / len(sample)
            if now >= ends:
                slow = share if np.isnan(slow) else slow + self.slow * (share - slow)
                fast = share if np.isnan(fast) else fast + self.fast * (share - fast)
                sample, ends = self._draw(view), now + period
                share = fast  # the next period has no counts yet
            if not np.isnan(fast):
                running = fast + self.fast * (share - fast)
                yield max(slow, fast, running) * view.memory_pages

    def _draw(self, view: View) -> Ints:
        count = min(self.watched, view.memory_pages)
        sample = view.random.choice(view.memory_pages, count, replace=False)
        view.traps.protect(sample)
        return sample
