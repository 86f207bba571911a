# SPDX-License-Identifier: Apache-2.0
"""Figures of forecasts: idle memory and runs of violations, calibration, and what is possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from pmlkit.figures.axes import label_ends, plain_log
from pmlkit.figures.style import COLORS, new_figure, paper_figure
from pmlkit.forecast.limits import DECIDERS
from pmlkit.trace.schema import MIB_PAGES
from pmlkit.units import format_share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from pmlkit.figures.style import Figure, Style
    from pmlkit.forecast.analogs import Pooled
    from pmlkit.forecast.forecaster import Forecaster, Sample
    from pmlkit.types import Array, Ints

__all__ = ["calibration", "forecast", "limits", "runs", "use"]

MODEL_STYLES: dict[str, Style] = {
    "pooled": {"color": COLORS["black"], "ls": "-", "lw": 1.4},
    "pooled by price": {"color": COLORS["black"], "ls": (0, (3, 1)), "lw": 1.4},
    "boosted": {"color": COLORS["vermilion"], "ls": "-", "lw": 1.4},
    "linear": {"color": COLORS["blue"], "ls": "-", "lw": 1.4},
    "boosted by price": {"color": COLORS["vermilion"], "ls": (0, (3, 1)), "lw": 1.4},
    "linear by price": {"color": COLORS["blue"], "ls": (0, (3, 1)), "lw": 1.4},
}
# Deciders that a trial's figures name, by their role.
PARTS: dict[str, tuple[str, Style]] = {
    "rule": ("best rule", {"color": COLORS["blue"], "marker": "s"}),
    "model": ("best model", {"color": COLORS["vermilion"], "marker": "D"}),
    "recommended": ("recommended", {"color": COLORS["black"], "marker": "o"}),
    "VPA 60, as is": ("VPA as published", {"color": COLORS["sky"], "marker": "^"}),
    "last value, others": ("last value + margin", {"color": COLORS["orange"], "marker": "v"}),
}


def _named(chosen: pd.DataFrame, inputs: str, horizon: int) -> dict[str, tuple[str, Style]]:
    """Return the name and style of the deciders that a panel shows apart, by decider."""
    is_here = (chosen["inputs"] == inputs) & (chosen["horizon"] == horizon)
    row = chosen[is_here].iloc[0]
    names = {"rule": str(row["rule"]), "model": str(row["model"])}
    return {names.get(part, part): label for part, label in reversed(PARTS.items())}


@paper_figure
def use(summary: pd.DataFrame, chosen: pd.DataFrame, columns: int = 2) -> Figure:
    """Draw idle memory against violations, in absolute terms, with intervals.

    Parameters
    ----------
    summary : DataFrame
        As returned by `verdict.summary`.
    chosen : DataFrame
        As returned by `verdict.choose`: the rule and the model that are drawn apart.
    """
    asked = chosen.attrs.get("asked", 0.05)
    table = summary[np.isclose(summary["asked"], asked)]
    inputs, horizons = table["inputs"].unique(), table["horizon"].unique()
    figure, grid = _grid(columns, len(inputs), len(horizons), {"use": table})
    for row, horizon in zip(grid, horizons, strict=True):
        for axes, name in zip(row, inputs, strict=True):
            part = table[(table["inputs"] == name) & (table["horizon"] == horizon)]
            _draw_use(axes, part, _named(chosen, name, horizon), asked)
            axes.set_title(f"{name}, {_ahead(horizon)}", loc="left")
    _outer_labels(figure, "windows with too little (%)", "idle over used (%)")
    figure.legend(
        handles=[
            Line2D([], [], ls="", ms=4, label=label, **style) for label, style in PARTS.values()
        ]
        + [Line2D([], [], ls="", ms=2, marker=".", color=COLORS["grey"], label="other rules")],
        loc="outside upper center",
        ncols=3 * columns,
        fontsize=6,
    )
    programs = int(table["programs"].max())
    figure.caption = (
        "Unused allocated memory, relative to the used memory, against the share of windows with "
        f"too little memory. Points are means over {programs} programs; bars are 95 % intervals of "
        "a bootstrap over programs. Every margin and quantile was set in advance, for "
        f"{format_share(asked)} of the windows (dotted). Truth: all accesses. Lower is better, at "
        "or left of the dotted line."
    )
    return figure


def _grid(
    columns: int, inputs: int, horizons: int, data: Mapping[str, pd.DataFrame]
) -> tuple[Figure, Array]:
    """Return a figure with a panel for each input and horizon: panels of shape (horizons, inputs).

    In one column of a paper the inputs are one below the other.
    """
    down, across = (horizons, inputs) if columns == 2 else (inputs, horizons)
    figure = new_figure(columns, 0.6 + (1.7 if columns == 2 else 1.45) * down, data)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    return figure, grid if columns == 2 else grid.T


def _outer_labels(figure: Figure, x: str, y: str) -> None:
    figure.supxlabel(x, fontsize=7.5)
    figure.supylabel(y, fontsize=7.5)


def _ahead(horizon: int, window_s: float = 0.5) -> str:
    return f"{horizon * window_s:g} s ahead"


def _draw_use(
    axes: Axes, part: pd.DataFrame, named: dict[str, tuple[str, Style]], asked: float
) -> None:
    axes.axvline(100 * asked, color="black", lw=0.6, ls=(0, (1, 2)))
    least = 0.3  # percent: smaller values are drawn at this one
    for row in part.sort_values("decider").to_dict("records"):
        x, y = (max(100 * row[name], least) for name in ("violations", "idle"))
        style = named.get(row["decider"], ("", {"color": COLORS["grey"], "marker": "."}))[1]
        apart = row["decider"] in named
        spread = [
            [[max(at - max(100 * row[f"{name}_low"], least), 0)],
             [max(100 * row[f"{name}_high"] - at, 0)]]
            for name, at in (("violations", x), ("idle", y))
        ]  # fmt: skip
        axes.errorbar(
            x, y, xerr=spread[0] if apart else None, yerr=spread[1] if apart else None,
            ms=4 if apart else 2, lw=0.8, ls="", zorder=3 if apart else 2, **style,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log")
    plain_log(axes.xaxis, axes.yaxis)


@paper_figure
def runs(judged: pd.DataFrame, chosen: pd.DataFrame, columns: int = 2) -> Figure:
    """Draw how violations follow one another: each program, compared with chance.

    Parameters
    ----------
    judged : DataFrame
        As returned by `trial.judge`.
    chosen : DataFrame
        As returned by `verdict.choose`.
    """
    table = judged[np.isclose(judged["asked"], chosen.attrs.get("asked", 0.05))]
    inputs, horizons = table["inputs"].unique(), table["horizon"].unique()
    figure, grid = _grid(columns, len(inputs), len(horizons), {"runs": table})
    for row, horizon in zip(grid, horizons, strict=True):
        for axes, name in zip(row, inputs, strict=True):
            part = table[(table["inputs"] == name) & (table["horizon"] == horizon)]
            for decider, (_, style) in _named(chosen, name, horizon).items():
                of_one = part[part["decider"] == decider]
                means = of_one.groupby("program")[["violations", "again"]].mean()
                axes.plot(100 * means["violations"], 100 * means["again"], ls="", ms=3, **style)
            axes.plot([0, 50], [0, 50], color="black", lw=0.6, ls=(0, (1, 2)))
            axes.set_title(f"{name}, {_ahead(horizon)}", loc="left")
            axes.set(xlim=(0, None), ylim=(-2, 102))
    _outer_labels(figure, "windows with too little (%)", "too little again, after one (%)")
    figure.legend(
        handles=[
            Line2D([], [], ls="", ms=3, label=label, **style) for label, style in PARTS.values()
        ],
        loc="outside upper center",
        ncols=5 if columns == 2 else 3,
        fontsize=6,
    )
    figure.caption = (
        "The probability of too little memory in a window after such a window, against the share "
        "of such windows. Each point is a program. Dotted: independent windows. Programs far above "
        "the line fail in runs."
    )
    return figure


@paper_figure
def calibration(coverage: pd.DataFrame, columns: int = 1) -> Figure:
    """Draw how far the coverage of each quantile is from its level, in points.

    Parameters
    ----------
    coverage : DataFrame
        `Study.coverage`.
    """
    figure = new_figure(columns, 2.0, {"coverage": coverage})
    axes = figure.subplots()
    axes.axhspan(-2, 2, color="#EFEFEF", lw=0)
    axes.axhline(0, color="black", lw=0.6)
    ends: list[tuple[float, str, Style]] = []
    taus = sorted(coverage["tau"].unique())
    for (model, composed), rows in coverage.groupby(["model", "composed"]):
        style = dict(MODEL_STYLES[str(model)], ls=(0, (3, 1.5)) if composed else "-")
        rows = rows.sort_values("tau")
        axes.plot(range(len(rows)), rows["points"], marker="o", ms=2.5, **style)
        name = f"{model},\ncomposed" if composed else str(model)
        ends.append((rows["points"].iloc[-1], name, style))
    reach = max(3.0, 1.1 * coverage["points"].abs().max())
    axes.set(ylim=(-reach, reach), xlabel="quantile", ylabel="coverage less quantile (points)")
    axes.set_xticks(range(len(taus)), [f"{tau:g}" for tau in taus])
    label_ends(axes, ends)
    figure.caption = (
        "Held-out programs: the share of windows at or below each calibrated quantile, minus the "
        "quantile. Values are means over the logs. Grey: within 2 points."
    )
    return figure


@paper_figure
def forecast(
    forecaster: Forecaster | Pooled,
    sample: Sample,
    changes: Ints | None = None,
    columns: int = 2,
) -> Figure:
    """Draw a log's working set and the forecasts for it, with the change points.

    Parameters
    ----------
    forecaster : Forecaster or Pooled
        Fitted.
    changes : array of int, optional
        Windows in which a new phase begins.
    """
    quantiles = forecaster.predict(sample) / MIB_PAGES
    h = forecaster.horizon
    t = sample.table["t_ns"].to_numpy() / 1e9
    known = "used" if "used" in sample.table else "pages"
    mib = sample.table[known].to_numpy() / MIB_PAGES
    seen = sample.table["pages"].to_numpy() / MIB_PAGES
    later = t + h * sample.window_s
    used_table = pd.DataFrame({"t_s": t, "mib": mib, "seen_mib": seen})
    forecast_table = pd.DataFrame({"made_at_s": t, "for_s": later})
    for tau, column in zip(forecaster.taus_, quantiles.T, strict=True):
        forecast_table[f"q{tau:g}"] = column
    figure = new_figure(columns, 2.1, {"used": used_table, "forecast": forecast_table})
    axes = figure.subplots()
    low, high = (int(np.argmin(np.abs(forecaster.taus_ - q))) for q in (0.5, 0.95))
    upper = quantiles[:, high]
    axes.fill_between(later, quantiles[:, low], upper, color="#F3D3BE", lw=0, step="mid")
    forecast_style: Style = {"color": COLORS["vermilion"], "ls": "-", "lw": 0.8}
    axes.step(later, upper, where="mid", **forecast_style)
    used_style: Style = {"color": COLORS["black"], "ls": "-", "lw": 0.8}
    axes.step(t, mib, where="mid", **used_style)
    ends = [(mib[-1], sample.measures, used_style)]
    if known == "used":
        seen_style: Style = {"color": COLORS["sky"], "ls": "-", "lw": 0.6}
        axes.step(t, seen, where="mid", **seen_style)
        ends.append((seen[-1], "seen", seen_style))
    for change in [] if changes is None else changes:
        axes.axvline(t[change] - sample.window_s, ymin=0.97, color=COLORS["black"], lw=0.5)
    axes.set_xlim(0, later[-1])
    axes.set_ylim(0, 1.1 * max(mib.max(), np.quantile(upper, 0.98)))
    axes.set(xlabel="guest time (s)", ylabel="memory (MiB)")
    forecast_label = f"q{forecaster.taus_[high]:g}"
    label_ends(axes, [*ends, (upper[-1], forecast_label, forecast_style)])
    composed = "composed, " if sample.composed else ""
    figure.caption = (
        f"{sample.name} ({composed}windows of {sample.window_s:g} s): what was {sample.measures}, "
        + (f"what {sample.inputs} shows, " if known == "used" else "")
        + f"and the range from the median to the 0.95 quantile of the forecast made {h} windows "
        "earlier. The model had not seen this program. Marks on top: change points, determined "
        "afterwards."
    )
    return figure


@paper_figure
def limits(table: pd.DataFrame, columns: int = 1) -> Figure:
    """Draw the least possible slack, by how far ahead the working set has to be known.

    Parameters
    ----------
    table : DataFrame
        As returned by `limits.limits`.
    """
    figure = new_figure(columns, 2.2, {"limits": table})
    axes = figure.subplots()
    colors = (COLORS["black"], COLORS["blue"], COLORS["vermilion"])
    names = ("its own past", "hindsight", "hindsight,\nphase known")
    ends = []
    for (column, name), color in zip(zip(DECIDERS, names, strict=True), colors, strict=True):
        style: Style = {"color": color, "ls": "-", "lw": 1.2}
        axes.plot(table["ahead_s"], 100 * table[column], marker="o", ms=2.5, **style)
        ends.append((100 * table[column].iloc[-1], name, style))
    axes.axhline(100, color="black", lw=0.6)
    axes.axhline(80, color=COLORS["grey"], lw=0.6, ls=(0, (1, 2)))
    axes.set(xscale="log", xlabel="known ahead (s)", ylabel="slack over the best rule's (%)")
    axes.set_xticks(table["ahead_s"], [f"{s:g}" for s in table["ahead_s"]])
    axes.minorticks_off()
    axes.set_ylim(0, max(115, 105 * table[list(DECIDERS)].to_numpy().max()))
    label_ends(axes, ends)
    figure.caption = (
        "Unused allocated memory, relative to that of the best rule, at equal violations (5 % of "
        "the windows). The forecasters have increasing knowledge: the log's past; all of the log "
        "except near the forecast window; and the workload's coming phase. Dotted: 20 % saved."
    )
    return figure
