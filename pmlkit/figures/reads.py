# SPDX-License-Identifier: Apache-2.0
"""Figures of reads through page tables: mechanism, estimates against truth, costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from pmlkit.errors import UsageError
from pmlkit.figures.axes import (
    label_ends,
    mark_phases,
    panel_letter,
    plain_log,
    seconds_axis,
    time_limits,
    write_empty,
)
from pmlkit.figures.style import COLORS, finish, new_figure, paper_figure
from pmlkit.reads import mechanism as reads_mechanism
from pmlkit.reads.judge import NAMES
from pmlkit.selection import rounds_of
from pmlkit.trace.schema import MIB_PAGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes

    from pmlkit.figures.style import Figure, Style, Time
    from pmlkit.reads.hotness import Score
    from pmlkit.reads.mechanism import LeafHistory
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Ints


__all__ = ["draw_walk", "harvest_costs", "hotness", "mechanism", "reads_errors", "reads_over_time"]


STYLES: dict[str, Style] = {
    "truth": {"color": COLORS["black"], "ls": "-", "lw": 1.6},
    "written": {"color": COLORS["vermilion"], "ls": (0, (4, 1))},
    "leaves": {"color": COLORS["purple"], "ls": (0, (1, 1))},
    "present": {"color": COLORS["sky"], "ls": (0, (6, 1.5))},
    "accessed": {"color": COLORS["blue"], "ls": (0, (3, 1, 1, 1))},
    "cleared": {"color": COLORS["orange"], "ls": (0, (5, 1, 1, 1))},
    "density": {"color": COLORS["green"], "ls": "-"},
    "sample": {"color": COLORS["grey"], "ls": (0, (2, 1))},
}
MARKS = {
    "written": "x",
    "leaves": "s",
    "present": "D",
    "accessed": "o",
    "cleared": "v",
    "density": "^",
    "sample": "+",
}
LEAST_DRAWN = 0.1  # percent
STATES = ("not touched", "read", "written")


@paper_figure
def reads_over_time(
    trace: Trace,
    compared: pd.DataFrame,
    band: str = "density",
    columns: int = 2,
    start: Time = None,
    end: Time = None,
) -> Figure:
    """Draw the estimates of each round against the truth.

    Parameters
    ----------
    compared : DataFrame
        From `pmlkit.reads.judge.compare`, of this trace.
    band : str
        The method whose interval is shaded, if present.
    """
    limits = time_limits(trace, start, end)
    first, stop = trace.rounds_between(*limits)
    compared = compared[compared["round"].between(first, stop - 1)]
    if compared.empty:
        raise UsageError("no round of the comparison is in this part: choose another one")
    figure = new_figure(columns, 2.3, {"reads": compared})
    axes = figure.subplots()
    t_s = trace.rounds["t_end_ns"].to_numpy() / 1e9
    ends = []
    for name, rows in _lines(compared):
        style = STYLES.get(name, {"color": COLORS["grey"]})
        axes.plot(t_s[rows["round"]], rows["pages"] / MIB_PAGES, **style)
        ends.append((rows["pages"].iloc[-1] / MIB_PAGES, NAMES.get(name, "truth: harvest"), style))
        if name == band:
            low, high = rows["low"] / MIB_PAGES, rows["high"] / MIB_PAGES
            axes.fill_between(t_s[rows["round"]], low, high, color="#CFE8DD", lw=0)
    axes.set_ylim(0, max(compared["pages"].max(), compared["truth"].max()) / MIB_PAGES * 1.08)
    axes.set_ylabel("pages used in a round (MiB)")
    seconds_axis(axes, *limits, trace)
    mark_phases(axes, trace, shade=True)
    label_ends(axes, ends)
    return finish(
        figure,
        trace,
        "pages used in each round. Black: the truth, a harvest of accessed flags. PML alone sees "
        "the written pages; the page tables in the same log add the others. Shaded: the interval "
        "of the density of a sample.",
    )


def _lines(compared: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    truth = compared.drop_duplicates("round").sort_values("round")
    yield "truth", truth.assign(pages=truth["truth"])
    yield from compared.groupby("method", sort=False)  # type: ignore[misc]


@paper_figure
def reads_errors(table: pd.DataFrame, columns: int = 2, by: str = "guest") -> Figure:
    """Draw each method's mean error on several guests.

    Parameters
    ----------
    table : DataFrame
        A row per guest and method: `by`, ``method``, ``mape`` (mean absolute error, percent) and,
        if known, ``from`` and ``to`` (its interval), as `pmlkit.notebook.reads_tables.errors`
        makes it.
    by : str
        The column that names the guests.
    """
    guests = list(dict.fromkeys(table[by]))
    figure = new_figure(columns, 1.1 - 0.2 * columns + 0.2 * max(len(guests), 1), {"errors": table})
    axes = figure.subplots()
    places = {guest: -place for place, guest in enumerate(guests)}
    methods = [m for m in MARKS if m in set(table["method"])]
    for method in methods:
        rows = table[table["method"] == method]
        y = rows[by].map(places) + _offset(methods, method)
        style = {"color": STYLES[method]["color"], "marker": MARKS[method], "ms": 3.5, "ls": "none"}
        axes.plot(rows["mape"].clip(lower=LEAST_DRAWN), y, label=NAMES[method], **style)
        if "from" in rows:
            low, high = (rows[end].clip(lower=LEAST_DRAWN) for end in ("from", "to"))
            bars: Style = {"color": style["color"], "lw": 0.6, "zorder": 0}
            axes.hlines(y.to_numpy(), low.to_numpy(), high.to_numpy(), **bars)
    axes.axvline(10, color=COLORS["grey"], lw=0.6, ls=(0, (2, 2)))
    of_what = " of a round's estimate (% of the truth)" if columns == 2 else " (% of the truth)"
    axes.set(xscale="log", xlabel=f"mean absolute error{of_what}")
    axes.set_yticks(list(places.values()), guests)
    axes.set_ylim(-len(guests) + 0.4, 0.6)
    plain_log(axes.xaxis)
    axes.grid(True, axis="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=1 + columns)
    figure.caption = (
        "the mean absolute error of each method, over the rounds in which guests of the lab work. "
        "Bars, if single rounds are stored: 95 % intervals of these means, by a bootstrap over the "
        "rounds. Consecutive rounds resemble each other, so these intervals are too short. Dashed: "
        f"10 percent. Errors below {LEAST_DRAWN} percent are drawn at {LEAST_DRAWN}."
    )
    return figure


def _offset(methods: Sequence[str], method: str) -> float:
    return (len(methods) - 1) * 0.06 - 0.12 * methods.index(method)


@paper_figure
def mechanism(
    trace: Trace,
    table: int | None = None,
    columns: int = 2,
    start: Time = None,
    end: Time = None,
) -> Figure:
    """Draw how a log of writes shows reads: the page walk, and one leaf table over time.

    Parameters
    ----------
    trace : Trace
        An access trace of harvests, with marks and snapshots in its log.
    table : int, optional
        The leaf table; default: the one whose pages changed most between read and written.
    """
    leaf = reads_mechanism.leaf_history(trace, table)
    limits = time_limits(trace, start, end)
    rounds = np.arange(*rounds_of(trace, *limits))
    data = pd.DataFrame(leaf.states[rounds].T, columns=[f"round_{r}" for r in rounds])
    if columns == 2:
        figure = new_figure(columns, 2.5, {"leaf": data})
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.7])
    else:
        figure = new_figure(columns, 4.6, {"leaf": data})
        left, right = figure.subplots(2, 1)
    draw_walk(left)
    _draw_history(right, trace, leaf, rounds)
    seconds_axis(right, *limits, trace)
    mark_phases(right, trace, labels=True)
    panel_letter(left, "a")
    right.text(-0.16, 1.02, "(b)", transform=right.transAxes, fontsize=7.5)
    return finish(
        figure,
        trace,
        "(a) After a re-arm, the first access to a page walks the page tables, even if it is a "
        "read. The walk counts as a write to each table, so the tables are logged (red). The page "
        "that is only read is not logged. (b) One leaf table: each column is a round, each row one "
        "of its 512 entries. Blue pages were only read: PML alone contains none of them. The marks "
        "below show the rounds in which the table was logged: those in which a page below it was "
        "used.",
    )


def _draw_history(axes: Axes, trace: Trace, leaf: LeafHistory, rounds: Ints) -> None:
    colors = ListedColormap(["#F2F2F2", COLORS["sky"], COLORS["vermilion"]])
    edges = np.concatenate(([0], trace.rounds["t_end_ns"].to_numpy())) / 1e9
    states = leaf.states[rounds].T
    axes.pcolormesh(
        edges[[*rounds, rounds[-1] + 1]], np.arange(len(states) + 1), states, cmap=colors,
        norm=BoundaryNorm([-0.5, 0.5, 1.5, 2.5], 3), rasterized=True,
    )  # fmt: skip
    axes.set_ylabel("entry of a leaf table")
    centres = (edges[1:] + edges[:-1]) / 2
    logged = centres[rounds[leaf.logged[rounds]]]
    size = len(states)
    axes.plot(
        logged, np.full(len(logged), -0.045 * size), "^", ms=3, color=COLORS["vermilion"],
        clip_on=False,
    )  # fmt: skip
    axes.tick_params(axis="x", pad=9)
    for state, color in zip(STATES, ["#F2F2F2", COLORS["sky"], COLORS["vermilion"]], strict=True):
        axes.plot([], [], "s", color=color, mec="#808080", mew=0.3, ms=5, label=state)
    axes.plot([], [], "^", color=COLORS["vermilion"], ms=3, label="table in the log")
    axes.figure.legend(loc="outside lower right", ncols=4, handletextpad=0.2, columnspacing=1)


@paper_figure
def harvest_costs(measured: pd.DataFrame, modelled: pd.DataFrame, columns: int = 1) -> Figure:
    """Draw the cost of a round's harvest against the guest's memory.

    Parameters
    ----------
    measured : DataFrame
        ``memory_bytes``, and instructions a round: ``scan``, ``guided``, ``pruned``, ``sampled``;
        if known, also ``NAME_least`` and ``NAME_most`` of them.
    modelled : DataFrame
        The same for larger memories (`pmlkit.reads.guided.model_costs`).
    """
    figure = new_figure(columns, 2.4, {"measured": measured, "modelled": modelled})
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", xlabel="memory of the guest (GiB)")
    axes.set_ylabel("instructions a round (million)")
    for name, (text, style, mark) in _COSTS.items():
        x, y = measured["memory_bytes"] / 2**30, measured[name] / 1e6
        axes.plot(x, y, marker=mark, ms=3.5, ls="none", color=style["color"], label=text)
        if f"{name}_least" in measured:
            low, high = (measured[f"{name}_{end}"] / 1e6 for end in ("least", "most"))
            bars: Style = {"color": style["color"], "lw": 0.8}
            axes.vlines(x.to_numpy(), low.to_numpy(), high.to_numpy(), **bars)
        axes.plot(modelled["memory_bytes"] / 2**30, modelled[name] / 1e6, lw=0.9, **style)
    plain_log(axes.xaxis, axes.yaxis)
    axes.grid(True, which="major")
    axes.legend(loc="upper left")
    figure.caption = (
        "cost of a round's harvest for one working set, in guests with different amounts of "
        "memory. Marks: medians over the rounds measured in the lab, in instructions, without the "
        "first round after logging was enabled. Bars, if visible: from the least to the most. "
        "Lines: the model through the medians, which extends them to 1 TiB."
    )
    return figure


_COSTS: dict[str, tuple[str, Style, str]] = {
    "scan": ("scan of all memory", {"color": COLORS["blue"], "ls": (0, (4, 1))}, "s"),
    "guided": ("guided, tables found", {"color": COLORS["green"], "ls": "-"}, "o"),
    "pruned": ("pruned", {"color": COLORS["vermilion"], "ls": (0, (5, 1, 1, 1))}, "^"),
    "sampled": ("sample, redrawn", {"color": COLORS["purple"], "ls": (0, (1, 1))}, "D"),
}


@paper_figure
def hotness(
    ranking: pd.DataFrame, truth: pd.Series[float], score: Score, columns: int = 1
) -> Figure:
    """Draw the position of a table's first entry in the log against the pages touched below it.

    Parameters
    ----------
    ranking : DataFrame
        From `pmlkit.reads.hotness.rank`.
    truth : Series
        From `pmlkit.reads.hotness.touches`.
    """
    both = ranking.assign(touched=truth.reindex(ranking["table"]).fillna(0).to_numpy())
    figure = new_figure(columns, 2.2, {"hotness": both})
    axes = figure.subplots()
    if both.empty:
        write_empty(axes, "no leaf table")
        return figure
    axes.plot(both["place"], both["touched"], "o", ms=3, color=COLORS["blue"], mew=0, alpha=0.7)
    axes.set(xlabel="place of the first log in a window (0: first)", xlim=(0, 1))
    axes.set_ylabel("share of rounds with a use")
    axes.set_ylim(bottom=0)
    words = f"rank correlation {score.correlation:.2f}"
    axes.set_title(f"{words}, precision at {score.k}: {score.precision:.2f}", loc="right")
    figure.caption = (
        "each point is a leaf table: its first position in a round's log after a re-arm, and the "
        "number of pages touched below it. If the earliest tables were the hottest, the points "
        "would fall from left to right."
    )
    return figure


# ------------------------------------------------------------------------------
# The diagram of a page walk.


def draw_walk(axes: Axes) -> None:
    """Draw a walk to a page that is written and one that is read; red is in the log."""
    axes.set(xlim=(0, 10), ylim=(0, 10))
    axes.axis("off")
    names = ["root", "directory", "leaf table"]
    for place, name in enumerate(names):
        _box(axes, 1.2 + 0.9 * place, 8.6 - 2.2 * place, name, COLORS["vermilion"])
    for place in range(2):
        x, y = 3.2 + 0.9 * place, 8.0 - 2.2 * place
        _arrow(axes, (x, y), (x + 0.6, y - 0.8))
    _box(axes, 0.9, 2.0, "page, written", COLORS["vermilion"])
    _box(axes, 5.9, 2.0, "page, read", COLORS["blue"])
    _arrow(axes, (4.2, 3.6), (3.0, 2.8))
    _arrow(axes, (5.6, 3.6), (7.2, 2.8))
    axes.text(5, 0.6, "red: logged    blue: not logged", ha="center", fontsize=6.5, color="#404040")


def _box(axes: Axes, x: float, y: float, text: str, color: str) -> None:
    width = 3.6
    shape = FancyBboxPatch(
        (x, y - 0.5), width, 1.2, boxstyle="round,pad=0.1", fc="white", ec=color, lw=1.2
    )
    axes.add_patch(shape)
    axes.text(x + width / 2, y + 0.1, text, ha="center", va="center", fontsize=6.5, color=color)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style: Style = {"arrowstyle": "-|>", "mutation_scale": 7, "lw": 0.8, "color": "black"}
    axes.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, **style))
