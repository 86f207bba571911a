# SPDX-License-Identifier: Apache-2.0
"""Figures of a comparison: estimates over time, error against overhead, responses to a step."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm
from matplotlib.patches import Patch

from pmlkit.compare import SIMULATED, pareto
from pmlkit.figures.axes import name_points, plain_log, root_figure, write_empty
from pmlkit.figures.style import COLORS, new_figure, pad, paper_figure, save
from pmlkit.techniques.scores import WITHIN, resampled
from pmlkit.trace.schema import MIB_PAGES, PAGE_SIZE
from pmlkit.units import format_bytes, format_share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from pmlkit.compare import Comparison
    from pmlkit.figures.style import Figure, Style


__all__ = ["all_of", "error_against_overhead", "errors", "over_time", "save", "step_response"]


PANELS_ACROSS = 4
TOP = 2.0  # times the largest truth: estimates above are cut off, with a mark
MAX_POINTS = 600
TITLE_LETTERS = 14  # letters per inch of a panel
FIRST_SEED: Style = {"color": COLORS["blue"], "lw": 0.7, "zorder": 2}
OTHER_SEEDS: Style = {"color": COLORS["sky"], "lw": 0.3, "alpha": 0.5, "zorder": 1.5}
PASSIVE: Style = {"marker": "o", "color": COLORS["blue"]}
ACTIVE: Style = {"marker": "s", "color": COLORS["vermilion"]}


def all_of(comparison: Comparison) -> Iterator[tuple[str, Figure]]:
    """Yield the names of files and their figures, one at a time: they are large."""
    if len(comparison.traces) > 1:
        yield "overview", errors(comparison)
        yield "pareto", error_against_overhead(comparison)
    for trace in comparison.traces:
        yield f"time-{trace}", over_time(comparison, trace)
        yield f"pareto-{trace}", error_against_overhead(comparison, trace)
        yield f"steps-{trace}", step_response(comparison, trace)


@paper_figure
def over_time(comparison: Comparison, trace: str, columns: int = 2) -> Figure:
    """Draw each technique's estimates over time, against the truth."""
    truth = _of(comparison.truth, trace)
    estimates = _of(comparison.estimates, trace)
    names = list(dict.fromkeys(estimates["technique"]))
    across = PANELS_ACROSS if columns == 2 else 2
    down = max(-(-len(names) // across), 1)
    figure = new_figure(columns, 0.5 + 0.95 * down, {"estimates": estimates, "truth": truth})
    grid = figure.subplots(down, across, sharex=True, squeeze=False)
    top = max(truth["pages"].max() / MIB_PAGES, 1 / MIB_PAGES) * TOP
    for axes, name in zip(grid.flat, names, strict=False):
        _panel(
            axes, truth, estimates[estimates["technique"] == name],
            _title(comparison, trace, name), top, across,
        )  # fmt: skip
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for axes in grid.flat[max(len(names) - across, 0) : len(names)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    for axes in grid[:, 1:].flat:
        if axes.get_ylim()[1] == top:
            axes.tick_params(axis="y", labelleft=False)
    figure.supxlabel("guest time (s)", fontsize=7.5)
    figure.supylabel("memory (MiB)", fontsize=7.5)
    figure.caption = (
        f"{trace}: the estimate of each technique (line) against W(t, T) with T = "
        f"{comparison.plan.window} (grey). Techniques that draw random numbers have one line per "
        f"seed, the first one dark. The axis ends at {TOP:g} times the largest W; triangles mark "
        "estimates above it. A red axis has a scale of its own, because most of the technique's "
        "estimates exceed the common axis."
    )
    return figure


def _panel(
    axes: Axes,
    truth: pd.DataFrame,
    estimates: pd.DataFrame,
    title: str,
    top: float,
    across: int,
) -> None:
    thin = truth.iloc[:: max(len(truth) // MAX_POINTS, 1)]
    axes.fill_between(thin["t_ns"] / 1e9, thin["pages"] / MIB_PAGES, color="#CFCFCF", lw=0)
    for place, (_, run) in enumerate(estimates.groupby("seed")):
        run = run.iloc[:: max(len(run) // MAX_POINTS, 1)]
        style = FIRST_SEED if place == 0 else OTHER_SEEDS
        axes.step(run["t_ns"] / 1e9, run["pages"] / MIB_PAGES, where="post", **style)
    axes.set_ylim(0, top)
    if estimates["pages"].median() / MIB_PAGES > top:
        axes.set_ylim(0, estimates["pages"].max() / MIB_PAGES * 1.1)
        axes.tick_params(axis="y", colors=COLORS["vermilion"], labelsize=6)
    elif (estimates["pages"] / MIB_PAGES > top).any():
        axes.plot(
            [0.97], [0.93], marker="^", ms=3.5, color=COLORS["vermilion"], transform=axes.transAxes
        )
    if estimates["pages"].isna().all():
        axes.text(0.5, 0.6, "no estimate", transform=axes.transAxes, ha="center", fontsize=6)
    letters = int(root_figure(axes).get_size_inches()[0] / across * TITLE_LETTERS)
    axes.set_title(textwrap.fill(title, letters, break_on_hyphens=False), fontsize=6.3, pad=2)


@paper_figure
def error_against_overhead(
    comparison: Comparison, trace: str | None = None, columns: int = 1
) -> Figure:
    """Draw error against overhead, with the front that no technique beats in both.

    The error is the mean absolute error over the mean working set. Bars are 95 % intervals: of one
    trace over the seeds, of several over the traces (`scores.resampled`).

    Parameters
    ----------
    trace : str, optional
        One trace; without it the medians over those on which a technique has an estimate.
    """
    if trace is None and len(comparison.traces) == 1:
        trace = comparison.traces[0]
    points = _points(comparison, trace)
    figure = new_figure(columns, 3.0, {"points": points})
    axes = figure.subplots()
    points = points[points["mae"] > 0].reset_index(drop=True)
    if points.empty or not (points["overhead"] > 0).any():
        write_empty(axes, "no technique has both an estimate and an error")
        return figure
    front = pareto(points, "mae")
    least = points.loc[points["overhead"] > 0, "overhead"].min()
    x, y = points["overhead"].clip(lower=least / 2) * 100, points["mae"] * 100
    axes.set_xscale("log")
    axes.set_yscale("log")
    for active, style in ((False, PASSIVE), (True, ACTIVE)):
        chosen = points["active"] == active
        axes.plot(x[chosen], y[chosen], ls="", ms=3.5, **style)
    _bars(axes, points, x, y)
    axes.step(x[front.index], y[front.index], where="post", color=COLORS["grey"], lw=0.8, zorder=0)
    axes.set_xlim(x.min() / 10, x.max() * 14)  # space for names
    axes.set_ylim(y.min() / 1.8, y.max() * 1.8)
    axes.set_xlabel("overhead (% of guest time)")
    axes.set_ylabel("mean error (% of the mean W)")
    plain_log(axes.xaxis, axes.yaxis)
    name_points(axes, x.to_numpy(), y.to_numpy(), points["technique"].tolist())
    several = f"median of {len(comparison.traces)} recordings, or of those with an estimate"
    of = trace or several
    bars = "over seeds" if trace else "of the medians, by a bootstrap over the recordings"
    edge = " The left-most techniques cost nothing." if (points["overhead"] == 0).any() else ""
    figure.caption = (
        f"{of}: mean error against overhead (events times the cost model), T = "
        f"{comparison.plan.window} on {comparison.machines}. Bars: 95 % intervals {bars}; those "
        "that leave the axes are cut off. Squares: techniques that change the VM's memory to "
        "measure. The line joins the techniques that no other one beats in both error and "
        f"overhead.{edge}"
    )
    return figure


_POINTS = ["technique", "active", "overhead", "mae", "mae_low", "mae_high"]
_POINTS += ["overhead_low", "overhead_high"]


def _points(comparison: Comparison, trace: str | None) -> pd.DataFrame:
    """Return a row for each technique with an estimate: `_POINTS`, shares."""
    rows = comparison.scores if trace is None else _of(comparison.scores, trace)
    if "mae" not in rows:
        return pd.DataFrame(columns=_POINTS)
    made = [
        (
            f"{name}{SIMULATED * bool(simulated)}",
            of["active"].iloc[0],
            *(_over_seeds(of) if trace else _over_traces(of)),
        )
        for (name, simulated), of in rows.groupby(["technique", "simulated"], sort=False)
    ]
    return pd.DataFrame(made, columns=_POINTS).dropna(subset=["mae"]).reset_index(drop=True)


def _over_seeds(rows: pd.DataFrame) -> tuple[float, ...]:
    """Return the numbers of `_POINTS` of one trace; the overhead of seeds is a mean alone."""
    overhead, mae, half = rows[["overhead", "mae", "mae_ci"]].iloc[0].astype(float)
    return overhead, mae, mae - half, mae + half, overhead, overhead


def _over_traces(rows: pd.DataFrame) -> tuple[float, ...]:
    mae, overhead = resampled(rows["mae"]), resampled(rows["overhead"])
    return overhead[0], *mae, *overhead[1:]


def _bars(axes: Axes, points: pd.DataFrame, x: pd.Series[float], y: pd.Series[float]) -> None:
    """Draw the intervals of the errors and of the overheads."""
    style: Style = {"color": COLORS["grey"], "lw": 0.5, "zorder": 0}
    low, high = ((points[f"mae_{end}"] * 100).to_numpy() for end in ("low", "high"))
    left, right = ((points[f"overhead_{end}"] * 100).to_numpy() for end in ("low", "high"))
    axes.vlines(x.to_numpy(), low, high, **style)
    axes.hlines(y.to_numpy(), left, right, **style)


BEFORE, AFTER = 1, 6  # windows shown around a step
_SHADES = ("#2166AC", "#92C5DE", "#F7F7F7", "#FDB863", "#B35806")
_NONE = "#BBBBBB"
_NAMES = ("below half", "too low", f"within {format_share(WITHIN)}", "too high", "above 1.5 times")
_LEVELS = {**dict(zip(_NAMES, _SHADES, strict=True)), "no estimate": _NONE}


@paper_figure
def step_response(comparison: Comparison, trace: str, columns: int = 2) -> Figure:
    """Draw how each technique follows the largest step up and the largest step down."""
    steps, estimates = _of(comparison.steps, trace), _of(comparison.estimates, trace)
    estimates = estimates[estimates["seed"] == 0]
    names = list(dict.fromkeys(estimates["technique"]))
    kinds = [up for up in (True, False) if (steps["up"] == up).any()]
    figure = new_figure(columns, 1.15 + 0.14 * max(len(names), 1), {"steps": steps})
    if not kinds:
        write_empty(figure.subplots(), "the working set has no step between phases")
        return figure
    pad(figure, w_pad=0.06)  # labels are a little wider in print
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, up in zip(panels, kinds, strict=True):
        _responses(
            axes, comparison, steps[steps["up"] == up], estimates, names, "up" if up else "down"
        )
    panels[0].set_yticks(range(len(names)), [_title(comparison, trace, name) for name in names])
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    panels[0].tick_params(axis="y", length=0, labelsize=6)
    patches = [
        Patch(fc=color, ec="#808080", lw=0.3, label=label) for label, color in _LEVELS.items()
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=3 * columns, fontsize=6)
    figure.caption = (
        f"{trace}: estimates around the largest steps of the working set, up and down. White: "
        f"within {format_share(WITHIN)} of the new level. Blue: below it (dark if less than half "
        "of it). Brown: above it. Grey: no estimate. The line marks the step. A cross marks the "
        "time at which the technique has followed it."
    )
    return figure


def _responses(
    axes: Axes,
    comparison: Comparison,
    steps: pd.DataFrame,
    estimates: pd.DataFrame,
    names: Sequence[str],
    which: str,
) -> None:
    size = (steps["after"] - steps["before"]).abs()
    step = steps.iloc[int(size.to_numpy().argmax())]
    from pmlkit.techniques.scores import at
    from pmlkit.units import parse_duration_ns

    window = parse_duration_ns(comparison.plan.window)
    after = min((step["end_ns"] - step["t_ns"]) / window, AFTER)
    edges = np.linspace(-BEFORE, after, 281)
    times = step["t_ns"] + (edges[1:] + edges[:-1]) / 2 * window
    rows = np.array([at(estimates[estimates["technique"] == n], times) for n in names])
    relative = np.ma.masked_invalid(rows / step["after"] - 1)
    colors = ListedColormap(_SHADES).with_extremes(bad=_NONE)
    axes.pcolormesh(
        edges, np.arange(len(names) + 1) - 0.5, relative, cmap=colors,
        norm=BoundaryNorm([-10, -0.5, -WITHIN, WITHIN, 0.5, 10], 5, clip=True), rasterized=True,
    )  # fmt: skip
    axes.axvline(0, color="black", lw=0.8)
    mine = steps[steps["t_ns"] == step["t_ns"]].set_index("technique")["windows"]
    for row, name in enumerate(names):
        if name in mine and mine[name] <= after:
            axes.plot([mine[name]], [row], marker="x", ms=3, color="black", mew=0.7)
    for row in range(1, len(names)):
        axes.axhline(row - 0.5, color="white", lw=0.6)
    sizes = " to ".join(format_bytes(step[edge] * PAGE_SIZE) for edge in ("before", "after"))
    axes.set_title(f"step {which}, {sizes}")
    axes.set_xlabel("windows T since the step")


def _of(table: pd.DataFrame, trace: str) -> pd.DataFrame:
    return table[table["trace"] == trace].reset_index(drop=True)


def _title(comparison: Comparison, trace: str, name: str) -> str:
    return _of(comparison.scores, trace).set_index("technique")["title"][name]


# ------------------------------------------------------------------------------
# Every technique on every recording: one number and one colour each.


LEAST, MOST = 0.02, 10.0  # shares of the working set at which the colours end
DARK = 1.0  # larger errors have white letters


@paper_figure
def errors(comparison: Comparison, column: str = "mae", columns: int = 2) -> Figure:
    """Draw a score of every technique on every recording: white is good, dark is bad.

    Techniques are sorted by their median, whose 95 % interval (`scores.resampled`) stands beside
    it; those that could not run are grey.

    Parameters
    ----------
    column : str
        A column of `Comparison.scores` that is a share of the working set.
    """
    table = _table(comparison, column)
    height = 1.1 + 0.155 * len(table)
    figure = new_figure(columns, height, {"errors": table.reset_index()})
    pad(figure, w_pad=0.07, h_pad=0.05)  # labels are a little wider in print
    axes = figure.subplots()
    values = np.ma.masked_invalid(table.to_numpy(float))
    shades = "YlGnBu"
    axes.pcolormesh(
        np.arange(table.shape[1] + 1) - 0.5, np.arange(len(table) + 1) - 0.5,
        np.clip(values, LEAST, MOST), cmap=shades, norm=LogNorm(LEAST, MOST),
        edgecolors="white", linewidth=0.4, rasterized=True,
    )  # fmt: skip
    axes.set_facecolor("#DDDDDD")
    for (row, place), value in np.ndenumerate(values.filled(np.nan)):
        if np.isfinite(value):
            shade = "white" if value >= DARK else "black"
            axes.text(place, row, _short(value), ha="center", va="center", size=4.6, color=shade)
    axes.axvline(table.shape[1] - len(comparison.traces) - 0.5, color="black", lw=0.8)
    axes.set_xticks(range(table.shape[1]), table.columns, rotation=60, ha="right", size=6)
    axes.set_yticks(range(len(table)), table.index, size=6)
    axes.tick_params(length=0)
    axes.set_ylim(len(table) - 0.5, -0.5)
    figure.caption = (
        f"Errors ({column.upper()}) in percent of the working set, T = {comparison.plan.window}, "
        "with their medians, by which the techniques are sorted. From, to: the 95 % interval of "
        "the median, by a bootstrap over the recordings. Colours end at 2 and 1,000 percent. Grey: "
        "no estimate."
    )
    return figure


def _table(comparison: Comparison, column: str) -> pd.DataFrame:
    """Return techniques against recordings, sorted by the median; those without estimates last."""
    wide = comparison.scores.pivot(index="title", columns="trace", values=column)
    wide = wide.reindex(columns=comparison.traces).astype(float)
    ends = [resampled(row) for row in wide.to_numpy()]
    for place, name in enumerate(
        ("median", "from", "to") if len(wide.columns) > 1 else ("median",)
    ):
        wide.insert(place, name, [end[place] for end in ends])
    return wide.sort_values("median", kind="stable")


def _short(share: float) -> str:
    percent = share * 100
    return f"{percent:.1f}" if percent < 9.95 else f"{percent:.0f}" if percent < 999.5 else ">999"
