# SPDX-License-Identifier: Apache-2.0
"""Known answers: the pages that a workload declares to touch, compared with its trace.

This module is separate from `pmlkit.trace.summary`, which reads no entries.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import NeedsError, UsageError
from pmlkit.trace import arrow
from pmlkit.trace.kinds import Kind

if TYPE_CHECKING:
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Json


__all__ = ["KINDS", "KnownAnswer", "measure"]

KINDS = {
    "read": Kind.READ,
    "written": Kind.WRITE,
    "touched": Kind.READ | Kind.WRITE | Kind.EXEC,
}


@dataclass(frozen=True)
class KnownAnswer:
    """One known answer of a trace.

    Attributes
    ----------
    phase, region : str
        The place of the measurement: all rounds of the phases of that name, the region's frames.
    kind : {"read", "written", "touched"}
    expected, measured : int
        Distinct pages.
    """

    phase: str
    region: str
    kind: str
    expected: int
    measured: int

    @property
    def met(self) -> bool:
        return self.expected == self.measured

    def as_dict(self) -> Json:
        """Return the fields and `met`, for JSON."""
        return {**asdict(self), "met": self.met}


def measure(trace: Trace) -> list[KnownAnswer]:
    """Measure the known answers of a trace.

    Answers that the trace cannot give are omitted. A PML log contains only writes. An incomplete
    recording gives no answer for its unfinished phase.
    """
    phases = trace.phase_of_rounds(recorded=True)
    return [
        KnownAnswer(known["phase"], known["region"], known["kind"], int(known["pages"]), pages)
        for known in trace.meta.known
        if (pages := _pages(trace, phases, known)) is not None
    ]


def _pages(trace: Trace, phases: Array, known: Json) -> int | None:
    """Count the distinct pages of a known answer; None if the trace does not contain the answer."""
    if known["kind"] not in KINDS:
        raise UsageError(f"{known['kind']!r} is not a kind of known answer: {', '.join(KINDS)}")
    rounds = phases == known["phase"]
    cut_off = not trace.meta.complete and rounds.size and rounds[-1]
    unseen = trace.meta.kind == "pml" and known["kind"] != "written"
    if not rounds.any() or cut_off or unseen:
        return None
    if known["region"] not in trace.region_names:
        raise NeedsError(trace, f"region {known['region']!r}, which a known answer names")
    kinds, region = KINDS[known["kind"]], known["region"]
    table = trace.entries(columns=["round", "gfn"], kinds=kinds, region=region)
    inside = rounds[arrow.values(table["round"])]
    return len(np.unique(arrow.values(table["gfn"])[inside]))
