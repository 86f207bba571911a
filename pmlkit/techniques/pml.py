# SPDX-License-Identifier: Apache-2.0
"""PML, plain and with a threshold m; and PRL, a log of all references that no processor has."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recent import report_recent
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View
    from pmlkit.types import Ints

_SDM = "Intel SDM 29.3.6"


@dataclass(frozen=True)
class Pml(Technique):
    """The distinct pages that PML logs within T: the pages written (m = 1).

    Pages that are only read or executed are not seen.

    Attributes
    ----------
    looks : int
        Rounds per window T; PML is re-armed at the end of each.
    """

    name = "pml"
    title = "PML, m = 1 per round"
    source = f"{_SDM}; Bitchebe et al., VEE'21"
    needs = frozenset({Need.PML})
    looks: int = 1

    def observe(self, view: View) -> None:
        report_recent(view, self.looks, view.pml.drain)


@dataclass(frozen=True)
class PmlThreshold(Technique):
    """The pages that were logged at least `m` times within T, with `looks` re-arms in it.

    PML logs a page once per re-arm. With frequent re-arms, the log counts uses, to the resolution
    of a round. It finds the pages that are written repeatedly.

    Attributes
    ----------
    m : int
    looks : int
        Rounds per window T. With fewer than `m` rounds, nothing is found.
    """

    name = "pml-threshold"
    title = "PML, threshold m, re-armed"
    source = f"{_SDM}; the threshold m: this project's founding note"
    needs = frozenset({Need.PML})
    m: int = 2
    looks: int = 10

    def observe(self, view: View) -> None:
        period, looks = view.parts(self.looks)
        recent: deque[Ints] = deque(maxlen=looks)
        for _ in view.every(period):
            recent.append(view.pml.drain())
            if len(recent) == looks:
                _, times = np.unique(np.concatenate(recent), return_counts=True)
                view.report(np.count_nonzero(times >= self.m))


@dataclass(frozen=True)
class Prl(Technique):
    """The distinct pages referenced within T: what a log that includes reads would report.

    The paper's own estimator is `pmlkit.techniques.plateau.PrlPlateau`. This technique forgets
    pages. Its only error is that an estimate is valid until the next round ends.

    Attributes
    ----------
    looks : int
        Rounds per window T.
    """

    name = "prl"
    title = "PRL, all references per round"
    source = "Bitchebe et al., arXiv 2001.09991, VEE'21"
    needs = frozenset({Need.REFERENCES})
    looks: int = 1

    def observe(self, view: View) -> None:
        report_recent(view, self.looks, view.references.drain)
