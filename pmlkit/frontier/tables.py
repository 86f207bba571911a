# SPDX-License-Identifier: Apache-2.0
"""The tables of a sweep: errors at equal cost, costs at equal error, curves, published settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import techniques
from pmlkit.errors import UsageError
from pmlkit.frontier import grids
from pmlkit.frontier.chosen import BUDGETS
from pmlkit.frontier.grids import RESAMPLES, SETTING
from pmlkit.resampling import FEW
from pmlkit.units import exact_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.types import Floats, Ints, Json

__all__ = [
    "STEPS_PER_DECADE",
    "TARGETS",
    "at_cost",
    "at_error",
    "caption",
    "curves",
    "differences",
    "left_out",
    "published",
]

TARGETS = (0.05, 0.1, 0.2)  # shares of the mean W
STEPS_PER_DECADE = 20  # costs at which a curve is evaluated


def at_cost(points: pd.DataFrame, budgets: Sequence[float] = BUDGETS) -> pd.DataFrame:
    """Return each technique's error at equal cost.

    Returns
    -------
    DataFrame
        ``window_ns``, ``budget``, ``technique``, ``error``, ``low``, ``high`` (95 %; infinite: no
        setting is cheap enough), ``held_out``. ``first``: share of the resamples in which no
        technique is better. ``looks``, ``watched``, ``says``, ``cost``, ``recordings``. Sorted by
        error.
    """
    return _table(points, "budget", budgets, least="error")


def at_error(points: pd.DataFrame, targets: Sequence[float] = TARGETS) -> pd.DataFrame:
    """Return the cost of each technique at equal error.

    Returns
    -------
    DataFrame
        As for `at_cost`, with ``target`` instead of ``budget``; ``cost``, ``low``, ``high`` and
        ``held_out`` refer to the cost, and ``error`` to the setting.
    """
    return _table(points, "target", targets, least="cost")


def _table(points: pd.DataFrame, bound: str, bounds: Sequence[float], least: str) -> pd.DataFrame:
    """Return the rows of `at_cost` or `at_error`; `least` is "error" or "cost"."""
    rows, samples = [], []
    bounded = "cost" if least == "error" else "error"
    for grid in grids.of(points):
        weights = [make(grid.recordings) for make in (grids.whole, grids.resampled, grids.but_one)]
        whole, resamples, others = (
            (grid.mean(least, each), grid.mean(bounded, each)) for each in weights
        )
        for limit in bounds:
            (best,), (setting,) = grids.least(*whole, limit)
            resampled, _ = grids.least(*resamples, limit)
            low, high = grids.interval(resampled)
            row: Json = {"window_ns": grid.window_ns, bound: limit, "technique": grid.technique}
            row |= {least: best, "low": low, "high": high}
            row["held_out"] = _held_out(getattr(grid, least), *grids.least(*others, limit))
            if np.isfinite(best):
                row |= grid.settings.iloc[setting].to_dict() | {bounded: whole[1][setting, 0]}
            rows.append(row | {"recordings": grid.recordings})
            samples.append(resampled)
    columns = ["window_ns", bound, "technique", least, "low", "high", "held_out", "first"]
    columns += [*SETTING, "says", bounded, "recordings"]
    table = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(SETTING, "Int64"))
    table["first"] = _first(table, bound, samples)
    return table.sort_values(["window_ns", bound, least], kind="stable", ignore_index=True)


def _held_out(values: Floats, least: Floats, setting: Ints) -> float:
    """Return the mean over recordings of each one's error with the setting chosen on the others.

    NaN where the others have no setting within the bound, or where there are no others.
    """
    recordings = np.arange(values.shape[1])
    if len(recordings) == 1 or np.isinf(least).any():
        return float("nan")
    return float(values[setting, recordings].mean())


def _first(table: pd.DataFrame, bound: str, samples: Sequence[Floats]) -> Floats:
    """Return the share of the resamples in which the row is the least of its T and bound."""
    first = np.zeros(len(table))
    for rows in table.groupby(["window_ns", bound]).indices.values():
        values = np.array([samples[row] for row in rows])
        least = values.min(axis=0)
        first[rows] = ((values <= least + 1e-12) & np.isfinite(values)).mean(axis=1)
    return first


def differences(
    points: pd.DataFrame, ours: str, theirs: str, budgets: Sequence[float] = BUDGETS
) -> pd.DataFrame:
    """Return the difference between two techniques' errors at equal cost, on the same resamples.

    Each technique uses its own best setting within the budget, chosen again in each resample.

    Returns
    -------
    DataFrame
        ``window_ns``, ``budget``, ``difference`` (shares of W), ``low``, ``high`` (95 %). Infinite
        if only the other one is cheap enough; NaN if neither is.

    Raises
    ------
    UsageError
        If a technique has no setting with an estimate of every recording.
    """
    by_technique = {(grid.window_ns, grid.technique): grid for grid in grids.of(points)}
    rows = []
    for window_ns in points["window_ns"].unique().tolist():
        for name in (ours, theirs):
            if (window_ns, name) not in by_technique:
                window = exact_ns(window_ns)
                why = f"{name} has no setting that all recordings share at T = {window}"
                raise UsageError(f"{why}: sweep it, or leave that T out")
        pair = [by_technique[window_ns, name] for name in (ours, theirs)]
        for budget in budgets:
            (whole, resampled) = (
                np.subtract(
                    *(grids.least(g.mean("error", w), g.mean("cost", w), budget)[0] for g in pair)
                )
                for w in (grids.whole(pair[0].recordings), grids.resampled(pair[0].recordings))
            )
            rows.append((window_ns, budget, whole[0], *grids.interval(resampled)))
    return pd.DataFrame(rows, columns=["window_ns", "budget", "difference", "low", "high"])


def curves(points: pd.DataFrame) -> pd.DataFrame:
    """Return the curve of each technique that can be swept, with its interval.

    Returns
    -------
    DataFrame
        ``window_ns``, ``technique``, ``cost``, ``error``, ``low``, ``high`` (95 %). Costs run from
        the technique's cheapest setting to the most expensive one on the curve, `STEPS_PER_DECADE`
        per decade.
    """
    rows = []
    for grid in grids.of(points[points["technique"].isin(_with_knobs())]):
        whole, resamples = grids.whole(grid.recordings), grids.resampled(grid.recordings)
        error, cost = grid.mean("error", whole), grid.mean("cost", whole)
        sampled = grid.mean("error", resamples), grid.mean("cost", resamples)
        for limit in _between(float(cost.min()), float(cost[error[:, 0].argmin(), 0])):
            (best,), _ = grids.least(error, cost, limit)
            low, high = grids.interval(grids.least(*sampled, limit)[0])
            rows.append((grid.window_ns, grid.technique, limit, best, low, high))
    return pd.DataFrame(rows, columns=["window_ns", "technique", "cost", "error", "low", "high"])


def _between(low: float, high: float) -> Floats:
    """Return costs between two, at equal distances of their logarithm, and both of them."""
    if low <= 0 or high <= low:
        return np.unique([low, max(high, low)])
    count = int(np.ceil(np.log10(high / low) * STEPS_PER_DECADE)) + 1
    costs = np.geomspace(low, high, max(count, 2))
    costs[[0, -1]] = low, high  # so that rounding adds no cost next to a setting's own
    return costs


def _with_knobs() -> list[str]:
    return [name for name, one in techniques.TECHNIQUES.items() if one.knobs()]


def published(points: pd.DataFrame) -> pd.DataFrame:
    """Return the techniques as published: means over recordings.

    Returns
    -------
    DataFrame
        ``window_ns``, ``technique``, ``cost``, ``error``, ``low``, ``high`` (95 % of the error),
        ``says``. ``swept``: whether it also has a curve. ``notes``: what was scaled or rounded, on
        the first recording.
    """
    rows = []
    for grid in grids.of(points, published=True):
        whole, resamples = grids.whole(grid.recordings), grids.resampled(grid.recordings)
        low, high = grids.interval(grid.mean("error", resamples)[0])
        mine = (points["technique"] == grid.technique) & (points["window_ns"] == grid.window_ns)
        rows.append(
            {
                "window_ns": grid.window_ns,
                "technique": grid.technique,
                "cost": grid.mean("cost", whole)[0, 0],
                "error": grid.mean("error", whole)[0, 0],
                "low": low,
                "high": high,
                "says": grid.settings["says"].iloc[0],
                "swept": grid.technique in _with_knobs(),
                "notes": points.loc[mine & points["published"], "notes"].iloc[0],
            }
        )
    columns = ["window_ns", "technique", "cost", "error", "low", "high", "says", "swept", "notes"]
    return pd.DataFrame(rows, columns=columns)


def left_out(points: pd.DataFrame) -> pd.DataFrame:
    """Return the techniques without a curve, and the reasons.

    No setting estimates every recording, or page tables are real on some and simulated on others.

    Returns
    -------
    DataFrame
        ``window_ns``, ``technique``, ``recordings`` (without any estimate, or with simulated page
        tables), ``of``, ``why``.
    """
    present = {(grid.window_ns, grid.technique) for grid in grids.of(points)}
    rows = []
    for window_ns, technique, part in grids.by_technique(points):
        if (window_ns, technique) not in present:
            recordings, why = _reason(part)
            rows.append((window_ns, technique, recordings, part["trace"].nunique(), why))
    return pd.DataFrame(rows, columns=["window_ns", "technique", "recordings", "of", "why"])


def _reason(part: pd.DataFrame) -> tuple[int, str]:
    """Return on how many recordings a technique has no part in a mean, and why."""
    lacks = sorted({what for what in part["missing"] if what})
    if not lacks and grids.mixes_tables(part):
        simulated = part.loc[part["simulated"], "trace"].nunique()
        return simulated, "simulated page tables, real ones on the others: sweep them apart"
    silent = part.groupby("trace")["mae"].apply(lambda errors: errors.isna().all())
    return int(silent.sum()), f"no {', '.join(lacks)}" if lacks else "no estimate"


def caption(points: pd.DataFrame) -> str:
    """Return a description of the points behind a table or a figure."""
    names = points["trace"].unique()
    fast = sorted({f"{1e3 / ns:,.4g}" for ns in points["ns_per_insn"].dropna()})
    windows = ", ".join(exact_ns(int(ns)) for ns in points["window_ns"].unique())
    many = f"{len(names)} recording{'s' * (len(names) != 1)}"
    few = f" (too narrow for fewer than {FEW} recordings)" * (len(names) < FEW)
    return (
        f"{many}, T = {windows} on machines of {' or '.join(fast)} M instructions a second. No "
        f"interval of a technique is scaled. The 95 % intervals come from {RESAMPLES:,} bootstrap "
        f"samples of the recordings, with the setting chosen again in each{few}"
        f"{_with_simulated(points)}"
    )


def _with_simulated(points: pd.DataFrame) -> str:
    """Return the end of a caption that names the techniques with simulated page tables."""
    names = points.loc[points["simulated"], "technique"].unique()
    return f"; page tables are simulated for {', '.join(names)}" if len(names) else ""
