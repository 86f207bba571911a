# SPDX-License-Identifier: Apache-2.0
"""The figures by name: a new one is a function in a module of this folder, and a line here.

The table stands alone: listing the figures must not import matplotlib.

A figure's function takes a `Trace` (or tables) and returns a `Figure`. It computes nothing: the
numbers come from `pmlkit.workingset` and its like. The figure carries them (`Figure.data`) and a
sentence on how to read it (`Figure.caption`); `save` writes both. Figures use no pyplot: nothing is
global, and nothing has to be closed.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from pmlkit.errors import NeedsError, UnknownName, UsageError
from pmlkit.recordings import opened
from pmlkit.several import labelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from pmlkit.figures.style import Figure
    from pmlkit.trace.reader import Trace
    from pmlkit.types import PathLike


__all__ = ["FIGURES", "HOMES", "SEVERAL", "about", "draw"]

# The figures of `pmlkit plot`: name, module and function.
FIGURES = {
    "wss": "time:wss_over_time",
    "kinds": "time:wss_by_kind",
    "heat": "heat:heat_map",
    "surface": "window:surface",
    "window": "window:wss_against_window",
    "percentiles": "percentiles:wss_percentiles",
    "reuse": "window:reuse_histogram",
    "pml": "time:pml_against_all",
    "turnover": "time:turnover",
    "drift": "law:drift",
    "mrc": "mrc:miss_ratio",
    "mrc-time": "mrc:miss_ratio_over_time",
}
# Figures that also take several recordings, by label.
SEVERAL = ("wss", "window", "percentiles", "mrc")
# Figures that need more than a trace.
_OTHERS = (
    "frontier:error_against_cost",
    "caps:capped_guests",
    "caps:clock_sensitivity",
    "law:predicted_against_measured",
    "mrc:compare_curves",
    "reads:harvest_costs",
    "reads:hotness",
    "reads:mechanism",
    "reads:reads_errors",
    "reads:reads_over_time",
    "visible:host_sees",
    "window:period_trade_off",
)
# The module of each function, as `pmlkit.lazy` takes them.
HOMES = {
    function: f"figures.{module}"
    for module, function in (place.split(":") for place in (*FIGURES.values(), *_OTHERS))
}


def about(name: str) -> str:
    """Return a line on what the figure `name` of `FIGURES` shows."""
    return (inspect.getdoc(_function(name)) or "").partition("\n")[0]


def draw(
    trace: Trace | PathLike | Mapping[str, Trace | PathLike],
    name: str,
    window: str | int | None = None,
    **how: str | int | tuple[str, str] | None,
) -> Figure:
    """Draw a figure by its name.

    Parameters
    ----------
    trace : Trace or path-like, or dict of str to these
        One recording, or several by their labels, for the figures in `SEVERAL`.
    name : str
        One of `FIGURES`.
    window : str or Window, optional
        For the figures that have one.
    **how
        ``columns``, ``venue``, ``width``, ``height``, ``start``, ``end``, ``phase``,
        ``between``; None: the default.

    Raises
    ------
    UnknownName
        If there is no such figure.
    NeedsError
        If the trace has no rounds.
    """
    if name not in FIGURES:
        raise UnknownName("figure", name, FIGURES)
    if isinstance(trace, Mapping) and name not in SEVERAL:
        known = ", ".join(SEVERAL)
        raise UsageError(f"the figure {name} takes one recording; {known} take several")
    traces = labelled(trace) if isinstance(trace, Mapping) else {"": opened(trace)}
    for one in traces.values():
        if not one.n_rounds:
            raise NeedsError(one, "rounds", "record it for longer")
    function = _function(name)
    if window is not None and "window" in inspect.signature(function).parameters:
        how["window"] = window
    drawn = traces if isinstance(trace, Mapping) else traces[""]
    return function(drawn, **{name: value for name, value in how.items() if value is not None})


def _function(name: str) -> Callable[..., Figure]:
    module, _, function = FIGURES[name].partition(":")
    return getattr(import_module(f"pmlkit.figures.{module}"), function)
