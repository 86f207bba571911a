# SPDX-License-Identifier: Apache-2.0
"""Settings that some recordings choose within a budget, and their errors on others.

At a budget, one setting stands for all recordings: the one of least mean error whose mean cost is
within the budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.frontier import grids
from pmlkit.frontier.grids import SETTING
from pmlkit.resampling import bootstrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pmlkit.frontier.grids import Grid
    from pmlkit.types import Floats, Json

__all__ = ["BUDGETS", "at_settings", "choose", "mean_error"]

BUDGETS = (0.0001, 0.001, 0.01)  # shares of the instructions


def choose(
    error: Floats, cost: Floats, budgets: Sequence[float]
) -> Iterator[tuple[float, int, float]]:
    """Choose a setting for each budget.

    Parameters
    ----------
    error, cost : ndarray of float64, shape (settings, recordings)

    Yields
    ------
    budget : float
        A budget that no setting meets is left out.
    setting : int
        The number of the setting.
    error : float
        Its mean error over these recordings.
    """
    whole = grids.whole(error.shape[1])
    means = error @ whole, cost @ whole
    for budget in budgets:
        (least,), (setting,) = grids.least(*means, budget)
        if np.isfinite(least):
            yield budget, int(setting), float(least)


def mean_error(errors: Floats) -> tuple[float, float, float]:
    """Return the mean over recordings, and the ends of its 95 % interval by a bootstrap.

    NaN without recordings: two scores may have no program in common.
    """
    return float(errors.mean()) if len(errors) else float("nan"), *bootstrap(errors)


def at_settings(
    points: pd.DataFrame, training: pd.DataFrame, budgets: Sequence[float] = BUDGETS
) -> pd.DataFrame:
    """Return each technique's error at the settings that other recordings choose beforehand.

    Parameters
    ----------
    points : DataFrame
        As of `sweep`, on the recordings that are scored.
    training : DataFrame
        As of `sweep`, on the recordings that choose.

    Returns
    -------
    DataFrame
        ``window_ns``, ``budget``, ``technique``, ``error`` (mean over the scored recordings),
        ``low``, ``high`` (95 %, bootstrap), ``expected`` (the error on the recordings that chose),
        ``looks``, ``watched``, ``says``, ``cost`` (on the scored recordings; it may be above the
        budget), ``recordings``. Sorted by error. A technique without a setting within the budget
        has no row. Neither has one whose chosen setting was not run on the scored recordings.
    """
    scored = {(grid.window_ns, grid.technique): grid for grid in grids.of(points)}
    rows: list[Json] = []
    for chooser in grids.of(training):
        grid = scored.get((chooser.window_ns, chooser.technique))
        if grid is None:
            continue
        for budget, setting, expected in choose(chooser.error, chooser.cost, budgets):
            same = grid.number_of(chooser.settings.iloc[setting])
            if same is not None:
                labels = {"window_ns": grid.window_ns, "budget": budget}
                rows.append(labels | {"expected": expected} | _scored(grid, same))
    columns = ["window_ns", "budget", "technique", "error", "low", "high", "expected"]
    columns += [*SETTING, "says", "cost", "recordings"]
    table = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(SETTING, "Int64"))
    return table.sort_values(["window_ns", "budget", "error"], kind="stable", ignore_index=True)


def _scored(grid: Grid, setting: int) -> Json:
    """Return the error and the cost of a technique at one setting."""
    row: Json = dict(zip(("error", "low", "high"), mean_error(grid.error[setting]), strict=True))
    knobs = {str(name): value for name, value in grid.settings.iloc[setting].items()}
    cost = {"cost": grid.cost[setting].mean(), "recordings": grid.recordings}
    return {"technique": grid.technique} | row | knobs | cost
