# SPDX-License-Identifier: Apache-2.0
"""Figures of miss-ratio curves: methods against each other, and one curve over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import missratio
from pmlkit.figures.axes import (
    color_bar,
    mark_phases,
    plain_log,
    seconds_axis,
    time_limits,
    write_empty,
)
from pmlkit.figures.several import finish_several, name_lines, styles, titles
from pmlkit.figures.style import finish, new_figure, paper_figure
from pmlkit.several import labelled
from pmlkit.units import format_bytes, format_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pmlkit.figures.style import Figure, Style, Time
    from pmlkit.missratio.curve import MissRatioCurve
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json, PathLike


__all__ = ["compare_curves", "miss_ratio", "miss_ratio_over_time"]

POINTS = 1024
ALL_MISS = 0.95  # miss ratio
FEWEST = 100  # sampled pages of SHARDS


@paper_figure
def miss_ratio(
    trace: Trace | Mapping[str, Trace | PathLike],
    columns: int = 1,
    start: Time = None,
    end: Time = None,
    kinds: str | int = "rwx",
    rate: float = 0.1,
) -> Figure:
    """Draw the miss ratio of an LRU cache against its size: exact, SHARDS and AET.

    Parameters
    ----------
    trace : Trace, or dict of str to Trace
        One recording, or several by their labels: then the exact curve of each.
    rate : float
        Share of the pages that SHARDS samples; at least `FEWEST` pages.
    """
    chosen: Json = {"start": start, "end": end, "kinds": kinds}
    if isinstance(trace, Mapping):
        traces = labelled(trace)
        of_each = {label: missratio.of_trace(one, **chosen) for label, one in traces.items()}
        return compare_curves(of_each, traces, columns)
    sampled = missratio.of_trace(trace, "shards", rate=rate, min_pages=FEWEST, **chosen)
    curves = {
        "exact": missratio.of_trace(trace, **chosen),
        f"SHARDS, {format_share(rate)} or more": sampled,
        "AET": missratio.of_trace(trace, "aet", **chosen),
    }
    return compare_curves(curves, trace, columns)


NAMES = {"shards": "SHARDS", "aet": "AET"}  # of methods, as their authors write them


@paper_figure
def compare_curves(
    curves: Mapping[str, MissRatioCurve], trace: Trace | Mapping[str, Trace], columns: int = 1
) -> Figure:
    """Draw several miss-ratio curves, with the error bands of those that have one.

    Parameters
    ----------
    curves : dict of str to MissRatioCurve
        By name; up to 6.
    trace : Trace, or dict of str to Trace
        The trace of all curves, or that of each.
    """
    traces, of_each = trace if isinstance(trace, Mapping) else None, styles(curves)
    owners = trace if isinstance(trace, Mapping) else dict.fromkeys(curves, trace)
    mib_pages = {name: owner.meta.mib_pages for name, owner in owners.items()}
    shown = (
        {name: NAMES.get(name, name) for name in curves}
        if traces is None
        else titles(traces, counts=True)
    )
    thin = {name: curve.thinned(POINTS) for name, curve in curves.items()}
    frames = [curve.to_frame().assign(curve=name) for name, curve in thin.items()]
    figure = new_figure(columns, 2.2, {"curves": pd.concat(frames, ignore_index=True)})
    axes = figure.subplots()
    axes.set(xlabel="memory (MiB)", ylabel="miss ratio")
    if not any(curve.uses for curve in curves.values()):
        write_empty(axes, "no page is used")
        return _finished(figure, trace, "miss ratio against memory: no page is used.")
    for name, curve in thin.items():
        _draw_curve(axes, shown[name], curve, of_each[name], mib_pages[name])
    first = next(iter(curves))
    for name in [first] if traces is None else traces:
        knee = curves[name].knee()
        at = knee / mib_pages[name], curves[name].at(knee)
        axes.plot(*at, "o", ms=3.5, color=of_each[name]["color"])
    left = min(_left(curve) / mib_pages[name] for name, curve in curves.items())
    axes.set(xscale="log", ylim=(0, 1.02), xlim=(left, None))
    plain_log(axes.xaxis)
    axes.grid(True, which="major")
    name_lines(axes, shown.values())
    size = format_bytes(curves[first].knee() / mib_pages[first] * (1 << 20))
    at_knee = f"The dot is the knee of the first curve, {size}"
    dots = at_knee if traces is None else "Dots are the knees of the curves"
    return _finished(
        figure,
        trace,
        "the share of uses that miss in an LRU cache, against its size. First uses are included. "
        f"{dots}: more memory gains little. Bands contain the true ratio in 95 of 100 samples.",
    )


def _finished(figure: Figure, trace: Trace | Mapping[str, Trace], caption: str) -> Figure:
    if isinstance(trace, Mapping):
        return finish_several(figure, trace, caption)
    return finish(figure, trace, caption)


def _draw_curve(
    axes: Axes, name: str, curve: MissRatioCurve, style: Style, mib_pages: float
) -> None:
    size = np.maximum(curve.sizes_pages, 0.5) / mib_pages
    axes.step(size, curve.miss_ratio, where="post", label=name, lw=1.0, **style)
    if curve.low is not None and curve.high is not None:
        band: Style = {"color": style["color"], "alpha": 0.2, "lw": 0, "step": "post"}
        axes.fill_between(size, curve.low, curve.high, **band)


def _left(curve: MissRatioCurve) -> float:
    """Return the size in pages at which a curve has fallen by a hundredth."""
    fallen = curve.miss_ratio < 1 - 0.01 * (1 - curve.cold)
    first = int(curve.sizes_pages[np.argmax(fallen)]) if fallen.any() else 1
    return max(min(first, curve.pages / 20), 1) / 2


@paper_figure
def miss_ratio_over_time(
    trace: Trace,
    window: str | int | None = None,
    columns: int = 1,
    start: Time = None,
    end: Time = None,
    kinds: str | int = "rwx",
    region: str | None = None,
    page_tables: str = "drop",
) -> Figure:
    """Draw the miss ratio over time and cache size.

    Parameters
    ----------
    window : str or Window, optional
        Length of the windows that ratios are taken over; by default a second, or the nearest T that
        the trace has. A last one that is cut short is not drawn.
    kinds, region, page_tables
        The uses that count: see `pmlkit.selection`.
    """
    table = missratio.over_time(
        trace, window, start=start, end=end, kinds=kinds, region=region, page_tables=page_tables
    )
    figure = new_figure(columns, 2.2, {"over_time": table})
    limits = time_limits(trace, start, end)
    axes = figure.subplots()
    axes.set_ylabel("memory (MiB)")
    seconds_axis(axes, limits[0], limits[1], trace)
    part = f", for the pages of the region {region}" if region else ""
    table = table[table["full"]]
    grid = table.pivot(index="pages", columns="t_ns", values="miss_ratio")
    if grid.empty or not grid.notna().to_numpy().any():
        write_empty(axes, "no page is used")
        return finish(figure, trace, f"miss ratio over time{part}: no page is used.")
    _draw_grid(axes, grid, limits[0] / 1e9, trace.meta.mib_pages)
    mark_phases(axes, trace)
    return finish(
        figure,
        trace,
        f"the miss ratio of LRU caches that are never emptied{part}, by size and time of the miss. "
        "Dark: misses. White: no uses.",
    )


def _draw_grid(axes: Axes, grid: pd.DataFrame, start_s: float, mib_pages: float) -> None:
    pages = grid.index.to_numpy()
    edges = np.sqrt(pages[1:] * pages[:-1])
    edges = np.concatenate(([pages[0] / 1.2], edges, [pages[-1] * 1.05])) / mib_pages
    times = np.concatenate(([start_s], grid.columns.to_numpy() / 1e9))
    values = np.ma.masked_invalid(grid.to_numpy())
    mesh = axes.pcolormesh(times, edges, values, cmap="viridis_r", vmin=0, vmax=1, rasterized=True)
    # Sizes at which nearly every use misses look all the same: most of them are left out.
    full = np.flatnonzero(np.ma.min(values, axis=1).filled(1) > ALL_MISS)
    first = max(len(edges) // 4, int(full.max()) - 2 if len(full) else 0)
    axes.set(yscale="log", ylim=(edges[max(min(first, len(edges) - 3), 0)], edges[-1]))
    plain_log(axes.yaxis)
    color_bar(axes, mesh, "miss ratio")
