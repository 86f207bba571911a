# SPDX-License-Identifier: Apache-2.0
"""Figures for choosing T and the threshold m: windows, re-use of pages, costs of a period."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.patheffects import withStroke

from pmlkit import workingset
from pmlkit.figures.axes import (
    color_bar,
    panel_letter,
    plain_log,
    root_figure,
    timeline_between,
    write_empty,
)
from pmlkit.figures.several import finish_several, name_lines, styles, titles
from pmlkit.figures.style import COLORS, finish, new_figure, paper_figure
from pmlkit.several import labelled
from pmlkit.timeline import timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.path import Path

    from pmlkit.figures.style import Figure, Time
    from pmlkit.period.advice import Advice
    from pmlkit.selection import Selection
    from pmlkit.timeline import Timeline
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Floats, Ints, PathLike


__all__ = ["period_trade_off", "reuse_histogram", "surface", "wss_against_window"]

MIB = 1 << 20


@paper_figure
def surface(
    trace: Trace, columns: int = 1, start: Time = None, end: Time = None, kinds: str | int = "rwx"
) -> Figure:
    """Draw the mean working set over the window T and the threshold m."""
    part = timeline_between(trace, start, end)
    longest = int(part.grid()[0][-1])
    windows = _spaced(max(longest // 2, 1), 40)
    counts = _spaced(min(max(longest // 4, 1), 64), 18)
    sizes = workingset.surface(
        trace, [_usual(part, k) for k in windows], counts, start=start, end=end, kinds=kinds
    )
    figure = new_figure(columns, 2.4 if columns == 1 else 2.8, {"surface": sizes})
    _draw_surface(figure, sizes, _round_ns(trace) / 1e6, 1 / trace.meta.mib_pages)
    return finish(
        figure,
        trace,
        "the mean working set in MiB over the window T and the threshold m. A page counts if it "
        "was used in at least m rounds of T. Lines join equal sizes; where they are close "
        "together, the choice of T and m matters. White: no page was used that often.",
    )


@paper_figure
def wss_against_window(
    trace: Trace | Mapping[str, Trace | PathLike],
    columns: int = 1,
    start: Time = None,
    end: Time = None,
    kinds: str | int = "rwx",
) -> Figure:
    """Draw the mean of W(T) against T, and its derivative, which is the miss rate.

    Parameters
    ----------
    trace : Trace, or dict of str to Trace
        One recording, or several by their labels: then a line each, and the slopes alone.
    """
    if isinstance(trace, Mapping):
        return _windows_of_several(labelled(trace), columns, start, end, kinds)
    curve = workingset.curve(trace, start=start, end=end, kinds=kinds)
    half = _first_half(curve)
    figure = new_figure(columns, 2.9 if columns == 1 else 2.0, {"curve": half})
    upper, lower = figure.subplots(*_stacked(columns), sharex=True)
    round_ns = _round_ns(trace)
    t_ms = half["rounds"] * round_ns / 1e6
    upper.plot(t_ms, half["bytes"] / MIB, color=COLORS["black"])
    upper.set_ylim(bottom=0)
    upper.set(xlabel="" if columns == 1 else "window T (ms)", ylabel="mean W(T) (MiB)")
    _slope_panel(lower, t_ms, half, 1e9 / round_ns / trace.meta.mib_pages)
    _letter(upper, lower)
    return finish(
        figure,
        trace,
        "(a) The mean working set against the window T. Where it is flat, T covers the pages that "
        "the guest uses repeatedly. (b) The slope of (a) (black), and the miss rate counted in the "
        "trace (blue). Denning and Schwartz proved that they are equal. Where they differ, the "
        "trace is too short for that T.",
    )


def _first_half(curve: pd.DataFrame) -> pd.DataFrame:
    """Return a curve up to half the part: if T is longer, most windows begin before it."""
    return curve[curve["rounds"] <= max(int(curve["rounds"].max()) // 2, 1)]


def _windows_of_several(
    traces: Mapping[str, Trace], columns: int, start: Time, end: Time, kinds: str | int
) -> Figure:
    """Draw W(T) and the miss rates of recordings, a line each."""
    of_each, curves = styles(traces), {}
    for label, trace in traces.items():
        curve = workingset.curve(trace, start=start, end=end, kinds=kinds)
        curves[label] = _first_half(curve)
    data = pd.concat([curve.assign(trace=label) for label, curve in curves.items()])
    figure = new_figure(columns, 3.1 if columns == 1 else 2.2, {"curves": data})
    upper, lower = figure.subplots(*_stacked(columns), sharex=True)
    for label, title in titles(traces, kinds).items():
        curve, round_ns = curves[label], _round_ns(traces[label])
        t_ms = curve["rounds"] * round_ns / 1e6
        upper.plot(t_ms, curve["bytes"] / MIB, label=title, **of_each[label])
        rate = curve["miss_rate"] / traces[label].meta.mib_pages * 1e9 / round_ns
        lower.plot(t_ms, rate.where(rate > 0), **of_each[label])
    upper.set(xlabel="" if columns == 1 else "window T (ms)", ylabel="mean W(T) (MiB)")
    upper.set_ylim(bottom=0)
    name_lines(upper, titles(traces, kinds).values())
    lower.set(xlabel="window T (ms)", ylabel="misses (MiB/s)", xscale="log")
    lower.set_yscale("log", nonpositive="mask")
    plain_log(lower.xaxis, lower.yaxis)
    _letter(upper, lower)
    return finish_several(
        figure,
        traces,
        "(a) The mean working set of each recording against the window T. (b) The miss rate, "
        "counted: uses of pages that are not in the working set of that T.",
        kinds,
    )


def _stacked(columns: int) -> tuple[int, int]:
    return (2, 1) if columns == 1 else (1, 2)


def _letter(*panels: Axes) -> None:
    for axes, letter in zip(panels, "ab", strict=True):
        panel_letter(axes, letter)
        axes.grid(True, which="major")


def _slope_panel(
    axes: Axes, t_ms: pd.Series[float], curve: pd.DataFrame, mib_per_second: float
) -> None:
    axes.set_xlabel("window T (ms)")
    axes.set_ylabel("misses (MiB/s)")
    axes.set_xscale("log")
    plain_log(axes.xaxis)
    if not (curve["miss_rate"] > 0).any():
        return write_empty(axes, "no page is missing")
    misses, slope = (curve[name] * mib_per_second for name in ("miss_rate", "derivative"))
    axes.plot(t_ms, misses, color=COLORS["sky"], lw=2.6, label="misses, counted")
    axes.plot(t_ms, slope, color=COLORS["black"], lw=0.9, label="slope of (a)")
    axes.legend(loc="best", handlelength=1.5)
    axes.set_yscale("log", nonpositive="mask")
    plain_log(axes.yaxis)


@paper_figure
def reuse_histogram(
    trace: Trace, columns: int = 1, start: Time = None, end: Time = None, kinds: str | int = "rwx"
) -> Figure:
    """Draw the gaps between two uses of a page, and how often pages are used."""
    chosen: Selection = {"start": start, "end": end, "kinds": kinds}
    gaps, uses = workingset.reuse(trace, **chosen), workingset.uses_per_page(trace, **chosen)
    figure = new_figure(columns, 2.9 if columns == 1 else 2.0, {"gaps": gaps, "uses": uses})
    first, second = figure.subplots(*_stacked(columns))
    _gap_panel(first, gaps, _round_ns(trace) / 1e6)
    _uses_panel(second, uses)
    _letter(first, second)
    return finish(
        figure,
        trace,
        "(a) The time from a use of a page to its next use. (b) The share of pages that were used "
        "in at least a given number of rounds. Pages far to the right are hot; pages that leave "
        "the curve on the left were used once or twice.",
    )


def _gap_panel(axes: Axes, gaps: pd.DataFrame, round_ms: float) -> None:
    """Draw shares of re-uses in logarithmic bins, whose edges lie between rounds."""
    axes.set(xlabel="gap to the next use (ms)", ylabel="re-uses (%)")
    if gaps.empty:
        return write_empty(axes, "no page is used again")
    longest = int(gaps["gap_rounds"].max())
    edges = np.append(_spaced(longest, 24), longest + 1) - 0.5
    counts, _ = np.histogram(gaps["gap_rounds"], edges, weights=gaps["uses"])
    share = counts / counts.sum() * 100
    axes.stairs(share, edges * round_ms, fill=True, color=COLORS["sky"])
    axes.stairs(share, edges * round_ms, color=COLORS["blue"], lw=0.7)
    axes.set(xscale="log", yscale="log", ylim=(share[share > 0].min() / 2, None))
    plain_log(axes.xaxis, axes.yaxis)


def _uses_panel(axes: Axes, uses: pd.DataFrame) -> None:
    """Draw the complementary cumulative distribution of the uses per page."""
    axes.set(xlabel="least number of rounds with a use", ylabel="pages (%)")
    if uses.empty:
        return write_empty(axes, "no page is used")
    share = uses["pages"][::-1].cumsum()[::-1] / uses["pages"].sum() * 100
    axes.step(uses["uses"], share, where="pre", color=COLORS["black"])
    axes.set(xscale="log", yscale="log")
    plain_log(axes.xaxis, axes.yaxis)


@paper_figure
def period_trade_off(trace: Trace, advice: Advice, columns: int = 2) -> Figure:
    """Draw a period's cost, the working set of that T, and its growth if T doubles."""
    table = advice.table
    figure = new_figure(columns, 2.3 if columns == 2 else 5.4, {"periods": table})
    shape = (1, 3) if columns == 2 else (3, 1)
    panels = figure.subplots(*shape, sharex=True)
    t_ms = table["period_ns"] / 1e6
    cost, size, change = panels
    cost.plot(t_ms, 100 * table["guest_overhead"], color=COLORS["black"], label="guest")
    cost.plot(t_ms, 100 * table["host_overhead"], color=COLORS["black"], ls=":", label="host")
    asked = {"color": COLORS["black"], "lw": 0.5}
    cost.axhline(100 * advice.target, label="limit for the guest", **asked)
    cost.set(yscale="log", ylabel="overhead (%)")
    plain_log(cost.yaxis)
    cost.legend()
    size.plot(t_ms, table["bytes"] / MIB, color=COLORS["black"])
    size.set(ylabel="mean W(T) (MiB)")
    size.set_ylim(bottom=0)
    change.plot(t_ms, 100 * table["sensitivity"], color=COLORS["black"])
    change.axhline(100 * advice.accuracy, **asked)
    change.set(ylabel="growth if T doubles (%)")
    for letter, panel in zip("abc", panels, strict=True):
        panel.axvline(advice.period_ns / 1e6, color=COLORS["black"], ls="--", lw=0.7)
        panel.set_xscale("log")
        plain_log(panel.xaxis)
        panel_letter(panel, letter)
    panels[-1 if columns == 1 else 1].set_xlabel("period T (ms)")
    return finish(
        figure,
        trace,
        "how to choose the period T. (a) The cost of logging for the guest and the host. (b) The "
        "mean working set. (c) Its growth if T is doubled. Horizontal lines: the requested limits "
        "of the guest's overhead (the host's has none) and of the growth. Dashed: the chosen "
        f"period. Clock of T: {advice.time.text}. Constants: {', '.join(advice.constants.kinds)}.",
    )


def _draw_surface(
    figure: Figure, sizes: pd.DataFrame, round_ms: float, smallest_mib: float
) -> None:
    grid = sizes.pivot(index="min_count", columns="rounds", values="bytes") / MIB
    t_ms, counts = grid.columns.to_numpy() * round_ms, grid.index.to_numpy()
    values = np.ma.masked_invalid(np.ma.masked_less(grid.to_numpy(), smallest_mib))
    axes = figure.subplots()
    if not values.count():
        axes.set(xlabel="window T (ms)", ylabel="threshold m (rounds)")
        return write_empty(axes, "less than a page")
    low, high = max(values.min(), values.max() / 1000), values.max()
    mesh = axes.pcolormesh(
        _edges(t_ms),
        _edges(counts),
        values,
        cmap="viridis",
        norm=LogNorm(low, high),
        rasterized=True,
    )
    axes.set(xscale="log", yscale="log", xlabel="window T (ms)", ylabel="threshold m (rounds)")
    if min(values.shape) > 1:
        _contours(axes, t_ms, counts, values, low, high)
    bar = color_bar(axes, mesh, "mean working set (MiB)")
    plain_log(axes.xaxis, axes.yaxis, bar.ax.yaxis)


def _contours(
    axes: Axes, t_ms: Floats, counts: Ints, values: Floats, low: float, high: float
) -> None:
    """Draw lines of equal size at 1, 2, 5, 10, ... MiB, each labelled halfway.

    A line without room for its label is left out: nobody could tell its size, and such lines lie
    on each other at a cliff. The colour bar shows these sizes.
    """
    levels = [m * 10.0**e for e in range(-3, 7) for m in (1, 2, 5)]
    levels = [level for level in levels if low < level < high]
    if not levels:
        return
    all_lines = axes.contour(t_ms, counts, values, levels)
    places = _label_places(axes, levels, all_lines.get_paths())
    all_lines.remove()
    if not places:
        return
    outlined = [withStroke(linewidth=1.6, foreground="#303030")]
    lines = axes.contour(
        t_ms, counts, values, list(places), colors="white", linewidths=0.7, path_effects=outlined
    )
    texts = axes.clabel(
        lines,
        fmt=lambda v: f"{v:g} MiB",
        fontsize=6,
        inline_spacing=2,
        manual=list(places.values()),
    )
    for text in texts:
        text.set_path_effects(outlined)  # type: ignore[arg-type]


def _label_places(
    axes: Axes, levels: Sequence[float], contours: Iterable[Path]
) -> dict[float, tuple[float, float]]:
    """Choose places for labels: near a contour's middle, off the edges, apart from others.

    Returns
    -------
    dict of float to (float, float)
        By level; a level without such a place is missing.
    """
    inches = root_figure(axes).get_size_inches() * (0.64, 0.78)  # about those of the axes
    to_axes = axes.transData + axes.transAxes.inverted()
    places, taken = {}, np.zeros((0, 2))
    lines = {
        level: max((np.asarray(piece) for piece in contour.to_polygons(closed_only=False)), key=len)
        for level, contour in zip(levels, contours, strict=True)
        if len(np.asarray(contour.vertices))
    }
    on_paper = {level: to_axes.transform(line) * inches for level, line in lines.items()}
    for level, at in on_paper.items():
        others = np.vstack([np.zeros((0, 2)), *(on_paper[o] for o in lines if o != level)])
        middle = np.argsort(np.abs(np.arange(len(at)) - len(at) / 2), kind="stable")
        inside = np.all((at > (0.2, 0.12)) & (at < inches - (0.2, 0.12)), axis=1)
        apart = np.array([np.hypot(*(taken - point).T).min(initial=9) > 0.36 for point in at])
        clear = np.array([np.hypot(*(others - point).T).min(initial=9) > _CLEAR for point in at])
        good = middle[(inside & apart & clear)[middle]]
        if len(good):
            places[level] = tuple(lines[level][good[0]])
            taken = np.vstack((taken, at[good[0]]))
    return places


_CLEAR = 0.09  # inches from a contour's label to other contours


def _edges(values: Floats) -> Floats:
    """Return the edges between values on a logarithmic axis, one more than the values."""
    logs = np.log(values)
    if len(logs) == 1:
        return np.exp([logs[0] - 0.5, logs[0] + 0.5])
    middle = (logs[1:] + logs[:-1]) / 2
    return np.exp(np.concatenate(([2 * logs[0] - middle[0]], middle, [2 * logs[-1] - middle[-1]])))


def _spaced(last: int, count: int) -> list[int]:
    """Return up to `count` integers from 1 to `last`, evenly spaced by their logarithms."""
    return np.unique(np.rint(np.geomspace(1, last, count)).astype(int)).tolist()


def _usual(part: Timeline, k: int) -> str | int:
    """Return a window of `k` usual rounds; of `k` rounds if the trace has no times."""
    return f"{k}r" if part.resolution_ns is None else k * part.resolution_ns


def _round_ns(trace: Trace) -> float:
    return timeline(trace).resolution_ns or 1e6
