# SPDX-License-Identifier: Apache-2.0
"""Figures of a trace, fit for a paper: each function takes a `Trace` and returns a `Figure`.

A figure computes nothing: the numbers come from `pmlkit.workingset`. It carries them
(`Figure.data`) and a sentence on how to read it (`Figure.caption`); `save` writes both. All take
``columns``, 1 or 2: the columns of a paper that the figure spans (3.33 and 7.0 inches); `start` and
`end` limit what is looked at. They use no pyplot: nothing is global, and nothing has to be closed.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from pmlkit.errors import NeedsError, UnknownName
from pmlkit.figures.heat import heat_map
from pmlkit.figures.mrc import compare_curves, miss_ratio, miss_ratio_over_time
from pmlkit.figures.reads import harvest_costs, hotness, mechanism, reads_errors, reads_over_time
from pmlkit.figures.style import Figure, save
from pmlkit.figures.tables import table
from pmlkit.figures.time import pml_against_all, wss_by_kind, wss_over_time
from pmlkit.figures.window import reuse_histogram, surface, wss_against_window

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.trace.reader import Trace


__all__ = [
    "FIGURES",
    "Figure",
    "about",
    "compare_curves",
    "draw",
    "harvest_costs",
    "heat_map",
    "hotness",
    "mechanism",
    "miss_ratio",
    "miss_ratio_over_time",
    "pml_against_all",
    "reads_errors",
    "reads_over_time",
    "reuse_histogram",
    "save",
    "surface",
    "table",
    "wss_against_window",
    "wss_by_kind",
    "wss_over_time",
]

FIGURES = {
    "wss": wss_over_time,
    "kinds": wss_by_kind,
    "heat": heat_map,
    "surface": surface,
    "window": wss_against_window,
    "reuse": reuse_histogram,
    "pml": pml_against_all,
    "mrc": miss_ratio,
    "mrc-time": miss_ratio_over_time,
}


def about(name: str) -> str:
    """Say in a line what the figure `name` of `FIGURES` shows."""
    return inspect.getdoc(FIGURES[name]).split("\n", 1)[0]  # type: ignore[union-attr]


def draw(trace: Trace, name: str, window: str | int | None = None, **how: Any) -> Figure:
    """Draw a figure by its name.

    Parameters
    ----------
    trace : Trace
    name : str
        One of `FIGURES`.
    window : str or Window, optional
        For the figures that have one.
    **how
        ``columns``, ``start``, ``end``.

    Returns
    -------
    Figure

    Raises
    ------
    UnknownName
        If there is no such figure.
    NeedsError
        If the trace has no rounds.
    """
    if name not in FIGURES:
        raise UnknownName("figure", name, FIGURES)
    if not trace.n_rounds:
        raise NeedsError(trace, "rounds", "record it for longer")
    if window is not None and "window" in inspect.signature(FIGURES[name]).parameters:
        how["window"] = window
    return FIGURES[name](trace, **how)
