# SPDX-License-Identifier: Apache-2.0
"""Known answers: what a workload says that it touched, held against what the trace shows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import NeedsError, UsageError
from pmlkit.trace.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json


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
        Where it was measured: all the rounds of the phases of that name, the region's frames.
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

    An access trace answers all three kinds. A PML trace sees writes only: what it cannot answer
    is left out. So is a phase that a shortened recording has not reached, or not finished.

    Parameters
    ----------
    trace : Trace

    Returns
    -------
    list of KnownAnswer
        Empty if the trace has none.
    """
    phases = trace.phase_of_rounds()
    return [
        KnownAnswer(known["phase"], known["region"], known["kind"], int(known["pages"]), pages)
        for known in trace.meta.known
        if (pages := _pages(trace, phases, known)) is not None
    ]


def _pages(trace: Trace, phases: NDArray[Any], known: Mapping[str, int | str]) -> int | None:
    """Count the distinct pages that a known answer is about; None if the trace cannot say."""
    if known["kind"] not in KINDS:
        raise UsageError(f"{known['kind']!r} is no kind of known answer: {', '.join(KINDS)}")
    rounds = phases == known["phase"]
    cut_off = not trace.meta.complete and rounds.size and rounds[-1]
    unseen = trace.meta.kind == "pml" and known["kind"] != "written"
    if not rounds.any() or cut_off or unseen:
        return None
    if known["region"] not in set(trace.regions["name"]):
        raise NeedsError(trace, f"region {known['region']!r}, of which a known answer speaks")
    wanted: dict[str, Any] = {"kinds": KINDS[known["kind"]], "region": known["region"]}
    table = trace.entries(columns=["round", "gfn"], **wanted)
    inside = rounds[table["round"].to_numpy()]
    return len(np.unique(table["gfn"].to_numpy()[inside]))
