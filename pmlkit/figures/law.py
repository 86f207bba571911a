# SPDX-License-Identifier: Apache-2.0
"""The law of errors: predicted against measured errors, and the curve behind the prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit import workingset
from pmlkit.figures.axes import name_points, plain_log, timeline_between, write_empty
from pmlkit.figures.style import COLORS, finish, new_figure, paper_figure
from pmlkit.law.curves import drifts
from pmlkit.law.parts import RULED
from pmlkit.units import exact_ns, parse_window

if TYPE_CHECKING:
    import pandas as pd

    from pmlkit.figures.style import Figure, Length, Style, Time
    from pmlkit.trace.reader import Trace


__all__ = ["drift", "predicted_against_measured"]

BLIND = 0.01  # share of W: a technique with a larger error counts as blind
_KINDS: dict[str, Style] = {
    "counts all uses": {"color": COLORS["blue"], "marker": "o", "ms": 2.6},
    "draws a sample": {"color": COLORS["vermilion"], "marker": "^", "ms": 2.6},
    "misses some uses": {"color": COLORS["green"], "marker": "s", "ms": 2.2},
    "reports by a rule": {"color": COLORS["purple"], "marker": "D", "ms": 2.2},
}
_NONE: Style = {"color": COLORS["grey"], "marker": "|", "ms": 6, "mew": 0.7}
LOOKS = (1, 2, 4, 10)


@paper_figure
def predicted_against_measured(points: pd.DataFrame, columns: int = 1) -> Figure:
    """Draw the predicted error against the measured one, a point for each setting.

    Parameters
    ----------
    points : DataFrame
        As ``data/law/points.csv``: a row for each recording, T, technique and setting, with shares
        of W: ``predicted`` (NaN if the law does not cover it), ``measured``, ``missed``, ``extra``;
        ``watched`` is -1 for all.
    """
    measured = points[points["measured"] > 0]
    some, none = measured[measured["predicted"] > 0], measured[measured["predicted"].isna()]
    drawn = {"points": some} | ({"not covered": none} if len(none) else {})
    figure = new_figure(columns, 3.3 if columns == 1 else 4.4, drawn)
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", aspect="equal")
    x, y = 100 * some["measured"], 100 * some["predicted"]
    most = max(x.max(), y.max(), 100 * none["measured"].max() if len(none) else 0)
    ends = np.array([min(x.min(), y.min()) / 2, most * 1.5])
    axes.plot(ends, ends, color=COLORS["black"], lw=0.7)
    for factor in (2, 1 / 2):
        axes.plot(ends, ends * factor, color=COLORS["grey"], lw=0.5, ls=":")
    kinds = _kind(some)
    for kind, style in _KINDS.items():
        chosen = kinds == kind
        if not chosen.any():
            continue
        label = f"{kind} ({int(chosen.sum()):,})"
        axes.plot(x[chosen], y[chosen], ls="", alpha=0.5, mec="none", label=label, **style)
    if len(none):
        label = f"not covered: measured only ({len(none):,})"
        axes.plot(100 * none["measured"], np.full(len(none), 1.25 * ends[0]), ls="", label=label,
                  **_NONE)  # fmt: skip
    axes.set(xlim=ends, ylim=ends, xlabel="measured error (% of W)")
    axes.set_ylabel("predicted error (% of W)")
    plain_log(axes.xaxis, axes.yaxis)
    axes.legend(loc="upper left", handletextpad=0.1)
    half, most = _spread(some)
    words = f"half within a factor of {half:.3g},\nnine of ten within {most:.3g}"
    axes.text(0.97, 0.03, words, transform=axes.transAxes, ha="right", va="bottom", fontsize=6.5)
    figure.caption = (
        "predicted mean absolute error of techniques against the measured one. The law predicts it "
        "from each recording's own curves, without fitting. Each point is one recording, T, "
        f"technique, number of looks and number of watched pages. Of {len(some):,} points, half "
        f"are within a factor of {half:.3g}, nine of ten within {most:.3g}. The line is equality; "
        "between the dotted lines, the two differ by less than a factor of 2."
    )
    if len(none):
        names = none["technique"].nunique()
        figure.caption += (
            f" Strokes at the lower edge: measured errors of {names} technique{'s' * (names > 1)} "
            "that the law does not cover."
        )
    return figure


def _kind(points: pd.DataFrame) -> pd.Series[str]:
    kinds = points["technique"].map(lambda _: "counts all uses")
    kinds[(points["missed"] > BLIND) | (points["extra"] > BLIND)] = "misses some uses"
    kinds[points["watched"] >= 0] = "draws a sample"
    kinds[points["technique"].isin(list(RULED))] = "reports by a rule"
    return kinds


def _spread(points: pd.DataFrame) -> tuple[float, float]:
    """Return the factors within which half of the points are, and nine of ten."""
    off = np.exp(np.abs(np.log(points["predicted"] / points["measured"])))
    half, most = np.quantile(off, [0.5, 0.9])
    return float(half), float(most)


@paper_figure
def drift(
    trace: Trace, columns: int = 1, start: Time = None, end: Time = None, window: Length = None
) -> Figure:
    """Draw how much W changes with time, and the staleness of looks that follows from it."""
    part = timeline_between(trace, start, end)
    window_ns = part.size("1s" if window is None else window)
    sizes = workingset.sweep(trace, [parse_window(window_ns)], start=start, end=end)
    t_ns = (sizes["t_ns"] - part.t_ns[0]).to_numpy()
    table = drifts(t_ns, sizes["pages"].to_numpy(float), window_ns, part.resolution_ns or 1)
    figure = new_figure(columns, 2.3, {"drift": table})
    axes = figure.subplots()
    if table["drift"].isna().all():
        write_empty(axes, "the recording is not longer than T")
        return figure
    ages = table["age_ns"] / 1e6
    axes.plot(ages, 100 * table["drift"], color=COLORS["black"], label="mean change of W")
    axes.plot(
        ages, 100 * table["staleness"], color=COLORS["blue"], ls="--", label="staleness of looks"
    )
    every = np.array([window_ns / looks / 1e6 for looks in LOOKS])
    at = np.array([100 * _at(table, ms * 1e6) for ms in every])
    known = np.isfinite(at)
    axes.plot(every, at, ls="", marker="o", ms=3, color=COLORS["blue"])
    axes.set(xlabel="age, or time between looks (ms)", ylabel="% of the mean W", xlim=(0, None))
    axes.set_ylim(bottom=0)
    axes.legend()
    names = [str(looks) for looks, is_known in zip(LOOKS, known, strict=True) if is_known]
    name_points(axes, every[known], at[known], names, 6)
    return finish(
        figure,
        trace,
        f"the mean change of W(t, T), T = {exact_ns(window_ns)}, over a time (line), and the mean "
        "of this change over all shorter times (dashed). The latter is the error of a technique "
        "that counts all uses and looks once in that time. Marks: looks per T.",
    )


def _at(table: pd.DataFrame, age_ns: float) -> float:
    return float(np.interp(age_ns, table["age_ns"], table["staleness"]))
