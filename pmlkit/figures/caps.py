# SPDX-License-Identifier: Apache-2.0
"""Guests that are capped at the techniques' estimates; and the effect of the guest's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.figures.axes import name_points, panel_letter, plain_log, write_empty
from pmlkit.figures.style import COLORS, new_figure, paper_figure
from pmlkit.trace.schema import MIB_PAGES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pmlkit.figures.style import Figure, Style
    from pmlkit.types import Array


__all__ = ["capped_guests", "clock_sensitivity"]

_TRUTH: Style = {"marker": "*", "ms": 7, "color": COLORS["vermilion"], "zorder": 4}
_TECHNIQUE: Style = {"marker": "o", "ms": 3, "color": COLORS["blue"], "zorder": 3}
_WORK: Style = {"marker": "o", "ms": 3, "mfc": "white", "color": COLORS["grey"], "zorder": 2}
_FEW = 1.0  # swap-ins a second: the axis is linear below
_WIDE = 3  # most panels side by side whose points have two names of techniques; else one


@paper_figure
def capped_guests(table: pd.DataFrame, columns: int = 2) -> Figure:
    """Draw the results of guests with a technique's amount of memory, against the memory saved.

    Parameters
    ----------
    table : DataFrame
        ``caps.csv`` of ``experiments/caps.py``: a row for each program and technique, real guests
        only.
    """
    programs = list(dict.fromkeys(table["program"]))
    height = 3.9 if columns == 2 else 0.8 + 1.5 * max(len(programs), 1)
    figure = new_figure(columns, height, {"caps": table})
    if not programs:
        write_empty(figure.subplots(), "no guest was capped")
        return figure
    pairs = _pairs(figure, len(programs), columns)
    most_named = 2 if columns == 2 and len(programs) <= _WIDE else 1
    for (above, below), program in zip(pairs, programs, strict=True):
        points = _merged(table[table["program"] == program], most_named)
        _points(above, points, "swap_ins_per_s")
        above.set_yscale("symlog", linthresh=_FEW, linscale=0.4)
        above.set_ylim(-0.3, max(points["swap_ins_per_s"].max() * 4, 10))
        below.plot(points["saved"] * 100, points["work"], ls="none", **_WORK)
        _points(below, points, "slowdown")
        below.set_yscale("log")
        below.set_ylim(0.9, max(points[["slowdown", "work"]].max().max() * 1.5, 1.5))
        plain_log(below.yaxis)
        above.set_title(program)
        for axes in (above, below):
            axes.axvline(0, color=COLORS["grey"], lw=0.5, ls=(0, (2, 2)), zorder=0)
            axes.locator_params(axis="x", nbins=2 + columns)
    for above, below in pairs if columns == 1 else pairs[:1]:
        above.set_ylabel("pages swapped per second")
        below.set_ylabel("slow-down (times)")
    figure.supxlabel("memory saved (% of the guest's peak)", fontsize=7.5)
    for (above, _), program in zip(pairs, programs, strict=True):
        _names(above, _merged(table[table["program"] == program], most_named))
    figure.caption = (
        "guests in QEMU with a swap disk, whose memory is capped at a technique's estimate. The "
        "cap is the 95th percentile of the estimate at T = 1 s, plus the kernel's needs. Each "
        "point is one cap. Above or left: pages that return from the disk, per second of the "
        "program's run time with enough memory. Below or right, grey: instructions of the work "
        "(without waiting), relative to those with enough memory, as measured. Blue: the run time"
        " with these instructions and an assumed 0.1 ms per returning page. Bars: 95 % intervals "
        "of the repeats. Star: the cap from the true W(t, T). Other caps are named if they caused"
        " swapping. Left of the dashed line, the cap exceeds the guest's peak."
    )
    return figure


def _pairs(figure: Figure, programs: int, columns: int) -> Array:
    """Return each program's two panels: one above the other, or in one column side by side."""
    if columns == 2:
        return figure.subplots(2, programs, squeeze=False, sharex="col").T
    return figure.subplots(programs, 2, squeeze=False, sharex="row")


def _merged(of: pd.DataFrame, most_named: int) -> pd.DataFrame:
    """Return a row for each cap, with some names of its techniques: the truth's first."""
    first = of.drop_duplicates("cap_mib").set_index("cap_mib")
    names = of.groupby("cap_mib")["technique"].agg(list)
    first["truth"] = names.map(lambda listed: "truth" in listed)
    first["names"] = names.map(lambda listed: _named(listed, most_named))
    return first.sort_values("saved")


def _named(names: list[str], most: int) -> str:
    left = len(names) - most
    more = f" +{left}" if left > 0 else ""
    return ", ".join(names[:most]) + more


def _points(axes: Axes, points: pd.DataFrame, column: str) -> None:
    for truth, style in ((False, _TECHNIQUE), (True, _TRUTH)):
        of = points[points["truth"] == truth]
        axes.errorbar(
            of["saved"] * 100, of[column], _bars(of, column), ls="none",
            elinewidth=0.7, capsize=1.5, **style,
        )  # fmt: skip


def _bars(of: pd.DataFrame, column: str) -> np.ndarray:
    """Return the bars of an interval, down and up; down to a twentieth for a logarithmic axis."""
    half = of[f"{column}_pm"].to_numpy(float)
    return np.vstack([np.minimum(half, of[column].to_numpy(float) * 0.95), half])


def _names(axes: Axes, points: pd.DataFrame) -> None:
    known = points[(points["swap_ins_per_s"] > 0) | points["truth"]]
    x, y = known["saved"].to_numpy(float) * 100, known["swap_ins_per_s"].to_numpy(float)
    name_points(axes, x, y, known["names"].tolist(), 4.6)


# ------------------------------------------------------------------------------
# The guest's clock.

# Patterns are of clocks, so programs have colours that differ in grey, too.
_PROGRAMS = (COLORS["black"], COLORS["vermilion"], COLORS["sky"], COLORS["green"])
_CLOCKS: tuple[Style, ...] = (
    {"ls": "-", "marker": "o"},
    {"ls": "--", "marker": "s"},
    {"ls": ":", "marker": "^"},
)


@paper_figure
def clock_sensitivity(sizes: pd.DataFrame, ranks: pd.DataFrame, columns: int = 2) -> Figure:
    """Draw W against T as time and as instructions, and errors at each clock against the first.

    Parameters
    ----------
    sizes, ranks : DataFrame
        ``sizes.csv`` and ``ranks.csv`` of ``experiments/clock_sensitivity.py``.
    """
    height, shape = (2.7, (1, 3)) if columns == 2 else (6.0, (3, 1))
    figure = new_figure(columns, height, {"sizes": sizes, "ranks": ranks})
    by_time, by_insn, errors = figure.subplots(*shape)
    programs = list(dict.fromkeys(sizes["program"]))
    clocks = sorted(sizes["ns_per_insn"].unique(), reverse=True)
    for program, color in zip(programs, _PROGRAMS, strict=False):
        for ns, style in zip(clocks, _CLOCKS, strict=False):
            of = sizes[(sizes["program"] == program) & (sizes["ns_per_insn"] == ns)]
            of = of.drop_duplicates("t_ns").sort_values("t_ns")
            how = {**style, "color": color, "ms": 2.5, "lw": 0.8}
            by_time.plot(of["t_ns"] / 1e9, of["p95"] / MIB_PAGES, **how)
            by_insn.plot(of["t_insn"] / 1e6, of["p95"] / MIB_PAGES, **how)
    for axes in (by_time, by_insn):
        axes.set_xscale("log")
        axes.set_ylim(0)
        plain_log(axes.xaxis)
        axes.set_ylabel("W, 95th percentile (MiB)")
    by_time.set_xlabel("T (s of the guest's time)")
    by_insn.set_xlabel("T (million instructions)")
    _legends(by_time, by_insn, programs, clocks)
    _errors(errors, ranks, programs, clocks)
    for axes, letter in zip((by_time, by_insn, errors), "abc", strict=True):
        panel_letter(axes, letter)
    figure.caption = (
        "programs recorded at three clocks. (a) and (b): the 95th percentile of W(t, T) against "
        "T, as time and as instructions. (c) The least error of each technique within an overhead "
        "of 0.5 %, against that at the slowest clock. T has the same number of "
        "instructions at each clock. Points on the line do not depend on the clock. There is one "
        "run per program and clock, because two such runs are identical."
    )
    return figure


def _legends(left: Axes, right: Axes, programs: list[str], clocks: list[float]) -> None:
    for program, color in zip(programs, _PROGRAMS, strict=False):
        left.plot([], [], color=color, label=program)
    for ns, style in zip(clocks, _CLOCKS, strict=False):
        right.plot([], [], color=COLORS["grey"], ms=2.5, label=f"{1000 / ns:,.0f} MIPS", **style)
    left.legend(loc="upper left", fontsize=6)
    right.legend(loc="upper left", fontsize=6)


def _errors(axes: Axes, ranks: pd.DataFrame, programs: list[str], clocks: list[float]) -> None:
    of = ranks[(ranks["kind"] == "instructions") & (ranks["budget"] == _BUDGET)]
    wide = of.pivot_table(index=["program", "technique"], columns="ns_per_insn", values="error")
    wide = wide[(wide > 0).all(axis=1)]
    if wide.empty:
        write_empty(axes, "no technique is within the budget")
        return
    for program, color in zip(programs, _PROGRAMS, strict=False):
        rows = wide[wide.index.get_level_values("program") == program] * 100
        for ns, style in zip(clocks[1:], _CLOCKS[1:], strict=False):
            how = {**style, "ls": "none", "color": color, "ms": 3, "mfc": "none", "mew": 0.8}
            axes.plot(rows[clocks[0]], rows[ns], **how)
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = wide.min().min() * 80, wide.max().max() * 125
    axes.plot([low, high], [low, high], color=COLORS["grey"], lw=0.7, zorder=0)
    plain_log(axes.xaxis, axes.yaxis)
    axes.set_xlabel(f"error at {1000 / clocks[0]:,.0f} MIPS (%)")
    axes.set_ylabel("error at the other clocks (%)")


_BUDGET = 0.005
