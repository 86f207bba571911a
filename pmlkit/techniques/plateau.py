# SPDX-License-Identifier: Apache-2.0
"""The plateau estimator, for PML's log (published) and for a log of all references (PRL)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from typing import ClassVar

    from pmlkit.techniques.channels import LogChannel
    from pmlkit.techniques.view import View


class _Plateau:
    """Count the distinct pages since the start; report the count once it stays the same."""

    needs: ClassVar[frozenset[Need]]
    looks: int
    stable: int

    def observe(self, view: View) -> None:
        log: LogChannel = getattr(view, next(iter(self.needs)).value)
        seen: set[int] = set()
        unchanged, estimate = 0, np.nan
        period, _ = view.parts(self.looks)
        for _ in view.every(period):
            before = len(seen)
            seen.update(log.drain().tolist())
            unchanged = unchanged + 1 if len(seen) == before else 0
            if unchanged >= self.stable:
                estimate = float(before)
            view.report(estimate)


@dataclass(frozen=True)
class PmlPlateau(_Plateau, Technique):
    """dist[t], the distinct pages logged since the start, once unchanged for `stable` samples.

    As published, it never forgets a page, so it cannot detect a shrinking working set. The guest's
    own kernel occasionally writes a new page, which may prevent the count from settling.

    Attributes
    ----------
    looks : int
        Samples per window T (the published experiment samples every 30 s).
    stable : int
        The stability time w, in samples.
    """

    name = "pml-plateau"
    title = "PML, plateau"
    source = "Bitchebe et al., arXiv 2001.09991, VEE'21"
    needs = frozenset({Need.PML})
    looks: int = 10
    stable: int = 3


@dataclass(frozen=True)
class PrlPlateau(_Plateau, Technique):
    """As `PmlPlateau` for Page Reference Logging, a proposed extension that also logs reads.

    Attributes
    ----------
    looks, stable : int
        As for `PmlPlateau`.
    """

    name = "prl-plateau"
    title = "PRL, plateau"
    source = "Bitchebe et al., arXiv 2001.09991, VEE'21"
    needs = frozenset({Need.REFERENCES})
    looks: int = 10
    stable: int = 3
