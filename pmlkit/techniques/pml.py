# SPDX-License-Identifier: Apache-2.0
"""PML, plain and with a threshold m; and PRL, a log of all references that no processor has."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View
    from pmlkit.types import Ints

_SDM = "Intel SDM 29.3.6"


@dataclass(frozen=True)
class Pml(Technique):
    """The distinct pages that PML logs in a round of length T: the pages written (m = 1).

    What is only read or executed is not seen.
    """

    name = "pml"
    title = "PML, m = 1 per round"
    source = f"{_SDM}; Bitchebe et al., VEE'21"
    needs = frozenset({Need.PML})

    def observe(self, view: View) -> None:
        for _ in view.every(view.window_ns):
            view.report(len(view.pml.drain()))


@dataclass(frozen=True)
class PmlThreshold(Technique):
    """The pages that were logged `m` times within T, re-armed `rounds` times in it.

    PML logs a page once until it is armed again: re-armed often, the log counts uses, to the
    resolution of a round. It finds the pages that are written again and again.

    Attributes
    ----------
    m : int
    rounds : int
        Per window T.
    """

    name = "pml-threshold"
    title = "PML, threshold m, re-armed"
    source = f"{_SDM}; the threshold m: this project's founding note"
    needs = frozenset({Need.PML})
    m: int = 2
    rounds: int = 10

    def observe(self, view: View) -> None:
        period, rounds = view.parts(self.rounds)
        recent: deque[Ints] = deque(maxlen=rounds)
        for _ in view.every(period):
            recent.append(view.pml.drain())
            if len(recent) == rounds:
                _, times = np.unique(np.concatenate(recent), return_counts=True)
                view.report(np.count_nonzero(times >= self.m))


@dataclass(frozen=True)
class Prl(Technique):
    """The distinct pages referenced in a round of length T: what a log of reads would add.

    The paper's own estimator is `pmlkit.techniques.plateau.PrlPlateau`. This one forgets. Its only
    error is that a round lasts T.
    """

    name = "prl"
    title = "PRL, all references per round"
    source = "Bitchebe et al., arXiv 2001.09991, VEE'21"
    needs = frozenset({Need.REFERENCES})

    def observe(self, view: View) -> None:
        for _ in view.every(view.window_ns):
            view.report(len(view.references.drain()))
