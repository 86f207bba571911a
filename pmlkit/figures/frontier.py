# SPDX-License-Identifier: Apache-2.0
"""Figures of a frontier: the error that each technique reaches at each cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D

from pmlkit import frontier
from pmlkit.figures.axes import plain_log, write_empty
from pmlkit.figures.style import COLORS, new_figure, paper_figure
from pmlkit.techniques import TECHNIQUES
from pmlkit.units import exact_ns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from pmlkit.figures.style import Figure, Style

__all__ = ["STYLES", "error_against_cost", "leading"]

# In grey, a line is one of four patterns and dark or light.
STYLES: tuple[Style, ...] = (
    {"color": COLORS["blue"], "ls": "-"},
    {"color": COLORS["vermilion"], "ls": (0, (4, 1.5))},
    {"color": COLORS["green"], "ls": (0, (1, 1))},
    {"color": COLORS["black"], "ls": (0, (5, 1, 1, 1))},
    {"color": COLORS["orange"], "ls": "-"},
    {"color": COLORS["sky"], "ls": (0, (4, 1.5))},
    {"color": COLORS["purple"], "ls": (0, (1, 1))},
    {"color": COLORS["sky"], "ls": (0, (5, 1, 1, 1))},
)
OTHERS: Style = {"color": "#B5B5B5", "lw": 0.6, "zorder": 1}
# Percent: the widest limits of the axes. Settings that cost more than the machine has are not
# drawn.
LEAST_ERROR, MOST_ERROR, LEAST_COST = 0.1, 1000.0, 1e-3


@paper_figure
def error_against_cost(
    points: pd.DataFrame,
    window_ns: int | None = None,
    names: Sequence[str] = (),
    columns: int = 2,
) -> Figure:
    """Draw the curve of each technique, and its published setting as a point.

    Parameters
    ----------
    points : DataFrame
        Of `pmlkit.frontier.sweep` or `read`.
    window_ns : int, optional
        T; default: a panel for each, or with one column the middle one.
    names : sequence of str, optional
        The techniques in colour, at most as many as `STYLES`; default: `leading`.
    """
    windows = sorted(points["window_ns"].unique().tolist())
    if window_ns is not None or columns == 1:
        windows = [window_ns or windows[len(windows) // 2]]
    points = points[points["window_ns"].isin(windows)]
    curves, marked = frontier.curves(points), frontier.published(points)
    figure = new_figure(columns, 3.1 if columns == 2 else 3.6, {"curves": curves, "points": marked})
    names = list(names) or leading(curves)
    styles = dict(zip(names, STYLES, strict=False))
    panels = figure.subplots(1, len(windows), sharex=True, sharey=True, squeeze=False)[0]
    if curves.empty:
        write_empty(panels[0], "no technique has an estimate for every recording")
        return figure
    for axes, window in zip(panels, windows, strict=True):
        mine, at = (table[table["window_ns"] == window] for table in (curves, marked))
        _panel(axes, mine, at, styles)
        axes.set_title(f"T = {exact_ns(window)}")
        axes.set_xlabel("cost (% of instructions)")
    panels[0].set_ylabel("error (% of W)")
    _limits(panels, curves, marked)
    _legend(figure, styles, columns)
    figure.caption = (
        "The least mean error of a technique's settings at each mean cost (line), with its 95 % "
        "interval (band). The band is missing where some resamples have no setting that cheap. "
        "Marks: the technique as published (a circle, or a square if it cannot be swept). "
        f"{frontier.caption(points)}."
    )
    return figure


def leading(curves: pd.DataFrame) -> list[str]:
    """Return the techniques to draw in colour: those among the first three at some cost.

    They are in the order of at how many costs, at any T, they are the first; at most as many as
    `STYLES`. An error of all of W is no estimate, and does not count.
    """
    costs = np.geomspace(1e-7, 1, 141)
    ranks: dict[str, list[int]] = {str(name): [0] * 3 for name in curves["technique"].unique()}
    for _, of_window in curves.groupby("window_ns"):
        by_name = {str(n): curve for n, curve in of_window.groupby("technique", sort=False)}
        for cost in costs:
            now = {name: _at(curve, cost) for name, curve in by_name.items()}
            known = sorted((n for n in now if now[n] < 1), key=lambda n: now[n])
            for place, name in enumerate(known[:3]):
                ranks[name][place] += 1
    order = sorted(ranks, key=lambda name: ranks[name], reverse=True)
    return [name for name in order if any(ranks[name])][: len(STYLES)]


def _at(curve: pd.DataFrame, cost: float) -> float:
    """Return the error of a curve at a cost; infinite below its cheapest setting."""
    place = int(np.searchsorted(curve["cost"].to_numpy(), cost, "right")) - 1
    return float(curve["error"].iloc[place]) if place >= 0 else np.inf


def _panel(
    axes: Axes, curves: pd.DataFrame, marked: pd.DataFrame, styles: Mapping[str, Style]
) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for name, curve in curves.groupby("technique", sort=False):
        cost, error = curve["cost"] * 100, curve["error"] * 100
        style = styles.get(str(name))
        axes.step(cost, error, where="post", **(style or OTHERS))
        if style:
            band: Style = {"color": style["color"], "alpha": 0.13, "lw": 0, "zorder": 0}
            # No band at costs at which some resamples have no setting that is so cheap.
            some = np.isfinite(curve["high"])
            low, high = (curve[end] * 100 for end in ("low", "high"))
            axes.fill_between(cost, low, high, where=some, step="post", **band)
    for row in marked.to_dict("records"):
        style = styles.get(row["technique"])
        marker = "o" if row["swept"] else "s"
        color = style["color"] if style else OTHERS["color"]
        axes.plot(
            [row["cost"] * 100], [row["error"] * 100], marker=marker, ms=3.4 if style else 2.4,
            color=color, mec="white", mew=0.4, ls="", zorder=3 if style else 2,
        )  # fmt: skip


def _limits(panels: Sequence[Axes], curves: pd.DataFrame, marked: pd.DataFrame) -> None:
    costs = np.concatenate([table["cost"][table["cost"] > 0] for table in (curves, marked)]) * 100
    errors = np.concatenate([t["error"][t["error"] > 0] for t in (curves, marked)]) * 100
    for axes in panels:
        axes.set_xlim(max(costs.min() / 1.5, LEAST_COST), min(costs.max() * 1.5, 100))
        axes.set_ylim(max(errors.min() / 1.3, LEAST_ERROR), min(errors.max() * 1.3, MOST_ERROR))
        plain_log(axes.xaxis, axes.yaxis)
        axes.grid(True, which="major")


def _legend(figure: Figure, styles: Mapping[str, Style], columns: int) -> None:
    handles = [
        Line2D([], [], label=TECHNIQUES[name].title, **style) for name, style in styles.items()
    ]
    handles.append(Line2D([], [], label="other techniques", **OTHERS))
    dot: Style = {"ls": "", "color": COLORS["grey"], "ms": 3.4}
    handles.append(Line2D([], [], marker="o", label="as published", **dot))
    handles.append(Line2D([], [], marker="s", label="as published, cannot be swept", **dot))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=4 if columns == 2 else 2, fontsize=6,
        handlelength=2.2, columnspacing=1.2,
    )  # fmt: skip
