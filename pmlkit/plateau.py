# SPDX-License-Identifier: Apache-2.0
"""The plateau of Bitchebe et al. (VEE'21): distinct pages since the start, once stable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import occurrences as kernels
from pmlkit import reuse
from pmlkit.streams import stream
from pmlkit.units import format_ns

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.trace import Trace


__all__ = ["Plateau", "plateau"]


@dataclass(frozen=True)
class Plateau:
    """What the plateau estimator says.

    Attributes
    ----------
    pages, bytes, t_ns : int or None
        The estimate and when it was reached; None if the count was never stable.
    stable_rounds : int
        The stability time w, in (usual) rounds.
    series : DataFrame
        Per round ``t_ns``, ``distinct`` (pages since the start) and ``pages`` (the latest
        plateau, NaN before the first), by which the estimate can be followed past its first value.
    """

    pages: int | None
    bytes: int | None
    t_ns: int | None
    stable_rounds: int
    series: pd.DataFrame

    def __str__(self) -> str:
        if self.pages is None:
            return f"no estimate: never {self.stable_rounds} rounds without a new page"
        reached = f"after {self.stable_rounds} rounds without a new page"
        return f"{self.pages} pages, {reached}, at {format_ns(self.t_ns)}"  # type: ignore[arg-type]


def plateau(trace: Trace, stable: str = "1s", **selection: Any) -> Plateau:
    """Return the published plateau estimate (Bitchebe et al., VEE'21).

    It is the number of distinct pages since the start, once unchanged for the stability time.
    As published it does not forget; nor does it wait for a first page.

    Parameters
    ----------
    trace : Trace
    stable : str, int or Window
        The stability time w.
    **selection
        `kinds`, `start`, `end`, `region`, `page_tables`: see `pmlkit.selection`.

    Returns
    -------
    Plateau
    """
    source = stream(trace, **selection)
    rounds = source.timeline
    w, axis = rounds.size(stable, longest=False), rounds.axis_of(stable)
    distinct = reuse.Reuse(source.numbered(), axis, np.zeros(1, np.int64)).distinct()
    follows = kernels.plateau(distinct, w, axis.at)
    t_ns = source.t_ns[1:]
    series = pd.DataFrame({"t_ns": t_ns, "distinct": distinct, "pages": follows})
    reached = np.flatnonzero(~np.isnan(follows))
    if len(reached) == 0:
        return Plateau(None, None, None, rounds.in_rounds(stable), series)
    at = reached[0]
    return Plateau(
        int(distinct[at]),
        int(distinct[at]) * trace.meta.domain["page_size"],
        int(t_ns[at]),
        rounds.in_rounds(stable),
        series,
    )
