# SPDX-License-Identifier: Apache-2.0
"""The score of a forecaster: its cost on each recording, next to that of the simple rules.

A forecaster is a user's quantile regressor (`pmlkit.forecast.models.Quantiles`).
`pmlkit.forecast.trial` judges it like pmlkit's own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.forecast import trial, verdict
from pmlkit.units import format_share

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from typing import Any

    import pandas as pd

    from pmlkit.types import PathLike

__all__ = ["forecast_lines", "score_forecaster"]


def score_forecaster(
    name: str,
    traces: Sequence[PathLike],
    training: Sequence[PathLike],
    plan: trial.Plan | None = None,
) -> pd.DataFrame:
    """Judge a quantile regressor and the simple rules on recordings.

    Parameters
    ----------
    name : str
        ``module:Class``, as `pmlkit.forecast.analogs.make` takes it.
    training : sequence of path-like
        Recordings that it is fitted to, and that knobs are set on. A program that is judged is left
        out of its own training.

    Returns
    -------
    DataFrame
        As returned by `pmlkit.forecast.trial.judge`.
    """
    plan = replace(plan or trial.Plan(), learners=(name,))
    judged = trial.samples_of(traces, plan)
    same = [Path(path) for path in traces] == [Path(path) for path in training]
    known = judged if same else trial.samples_of(training, plan)
    return trial.judge(judged, known, plan)


def forecast_lines(table: pd.DataFrame, name: str) -> list[str]:
    """Return the answer of a forecaster's score: how it compares with the best simple rule."""
    plan = trial.Plan()
    cases = verdict.choose(table, plan).to_dict("records")
    better, worse = (sum(test(case) for case in cases) for test in (_below, _above))
    return [
        f"{name} is better than the best simple rule in {better} of {len(cases)} cases, and worse "
        f"in {worse}, with violations allowed in {format_share(plan.main)} of the windows.",
        *(_case_line(case) for case in cases),
    ]


def _below(case: dict[Hashable, Any]) -> bool:
    return bool(case["high"] < 1)


def _above(case: dict[Hashable, Any]) -> bool:
    return bool(case["low"] > 1)


def _case_line(case: dict[Hashable, Any]) -> str:
    ahead = f"{case['horizon']} window{'s' * (case['horizon'] != 1)} ahead"
    return (
        f"- {case['inputs']}, {ahead}: {case['ratio']:.3g} times the cost of the best rule, "
        f"`{case['rule']}` (95 % interval {case['low']:.3g} to {case['high']:.3g}), and less on "
        f"{case['lower']} of {case['programs']} programs."
    )
