# SPDX-License-Identifier: Apache-2.0
"""PRL, a log of all references: no processor has it, it shows what such a log would give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View


@dataclass(frozen=True)
class Prl(Technique):
    """The distinct pages referenced in a round of length T.

    The paper's own estimator is `pmlkit.techniques.plateau.PrlPlateau`. This one forgets; its only
    error is that a round lasts T.
    """

    name = "prl"
    title = "PRL, all references per round"
    source = "Bitchebe et al., arXiv 2001.09991, VEE'21"
    needs = frozenset({Need.REFERENCES})

    def observe(self, view: View) -> None:
        for _ in view.every(view.window_ns):
            view.report(len(view.references.drain()))
