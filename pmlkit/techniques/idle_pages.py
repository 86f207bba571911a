# SPDX-License-Identifier: Apache-2.0
"""Accessed-flag scanning: kstaled, idle page tracking; ages, and cold after T."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recent import Recent
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View


@dataclass(frozen=True)
class IdlePages(Technique):
    """Scan all accessed flags `looks` times per T; a page's age counts scans since its last use.

    The working set is the pages younger than T; the histogram of ages gives it for every T. With
    one scan per T, as in Google's far memory, the youngest age equals the threshold.

    Attributes
    ----------
    looks : int
        Scans per window T. The published scanner scans once per 120 s, which is also its shortest
        T.
    oldest : int
        The largest age (8 bits per page, as published).
    """

    name = "idle-pages"
    title = "Accessed-flag scan (kstaled)"
    source = "Lagar-Cavilla et al., ASPLOS'19; Linux idle page tracking"
    needs = frozenset({Need.ACCESSED})
    looks: int = 2
    oldest: int = 255

    def observe(self, view: View) -> None:
        period, looks = view.parts(self.looks)
        recent = Recent(looks)  # of these the age is less than `looks`
        for _ in view.every(period):
            young = recent.add(view.accessed.scan())
            if recent.full:
                view.report(young if looks <= self.oldest else view.memory_pages)
