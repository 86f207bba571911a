# SPDX-License-Identifier: Apache-2.0
"""Limits: how much of the working set can be forecast, by the time ahead?

Three deciders of the same kind (`Analogs`, decided by price) have increasing knowledge. The first
knows the log's past. The second also knows the rest of the log (hindsight, which represents an
endless past). The third also knows the coming phase of the workload. A decider that knew everything
would waste nothing. The difference between the second and the third is due to the order of the
work. These workloads draw it at random, so no log of earlier writes contains it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.forecast import backtest
from pmlkit.forecast.analogs import Analogs, states
from pmlkit.forecast.forecaster import targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.forecast.forecaster import Sample
    from pmlkit.types import Floats

__all__ = ["DECIDERS", "HORIZONS", "limits", "phase_ahead"]

HORIZONS = (1, 2, 4, 8, 16)
DECIDERS = ("own past", "hindsight", "told the phase")
NEAR = 16  # windows around the one that is forecast, which hindsight leaves out
APART = 3.0  # distance of states of different phases: far, for a bandwidth below 1
BANDWIDTH = 0.6


def limits(
    samples: list[Sample], horizons: Sequence[int] = HORIZONS, rate: float = 0.05
) -> pd.DataFrame:
    """Compare the slack of deciders of increasing knowledge, at equal violations.

    Parameters
    ----------
    samples : list of Sample
        Recordings with phases that the workloads marked.
    horizons : sequence of int
        Windows.
    rate : float
        Allowed violations.

    Returns
    -------
    DataFrame
        One row per horizon: ``horizon`` (windows), ``ahead_s``, ``rule`` (the best one), and its
        ``rule_slack`` over use. The slack relative to the rule's for ``own past``, ``hindsight``
        and ``told the phase`` (geometric means over programs). ``autocorrelation``: of log(1 + W)
        at that lag (mean over the logs).
    """
    rows = []
    for horizon in horizons:
        mean = _mean_log_slack(samples, horizon, rate)
        rules = mean.drop(columns=list(DECIDERS)).dropna(axis=1).mean()
        best = str(rules.idxmin())
        rows.append(
            {
                "horizon": horizon,
                "ahead_s": horizon * samples[0].window_s,
                "rule": best,
                "rule_slack": float(np.exp(rules[best])),
                **{name: float(np.exp((mean[name] - mean[best]).mean())) for name in DECIDERS},
                "autocorrelation": _autocorrelation(samples, horizon),
            }
        )
    return pd.DataFrame(rows)


def _mean_log_slack(samples: list[Sample], horizon: int, rate: float) -> pd.DataFrame:
    """Return the mean log of slack over use: programs down, rules and deciders across."""
    outcomes = backtest.rule_outcomes(samples, None, horizon, "at")
    outcomes += [outcome for sample in samples for outcome in _decider_outcomes(sample, horizon)]
    rows = [(o.program, o.model, backtest.relative_slack(o, rate)) for o in outcomes]
    table = pd.DataFrame(rows, columns=["program", "model", "slack"])
    table["log"] = np.log(table["slack"].clip(lower=1e-6))
    return table.groupby(["program", "model"])["log"].mean().unstack("model")


def _decider_outcomes(sample: Sample, horizon: int) -> list[backtest.Outcome]:
    y = np.log1p(targets(sample.table, horizon))
    state = states(sample.table)
    state_and_phase = np.column_stack([state, phase_ahead(sample, horizon)])
    past = Analogs(bandwidth=BANDWIDTH)
    ever = Analogs(bandwidth=BANDWIDTH, half_life=np.inf)
    forecasts = (
        past.predict_rolling(state, np.log1p(sample.seen(horizon)), horizon),
        ever.predict_in_hindsight(state, y, NEAR),
        ever.predict_in_hindsight(state_and_phase, y, NEAR),
    )
    outcomes = []
    for name, quantiles in zip(DECIDERS, forecasts, strict=True):
        allocations = backtest.allocations_by_price(sample, _pages(quantiles, sample))
        outcomes.append(backtest.judged_outcome(name, sample, horizon, "at", allocations))
    return outcomes


def _pages(quantiles: Floats, sample: Sample) -> Floats:
    """Return quantiles in pages; where nothing was known yet, the present use."""
    now = np.log1p(sample.table["pages"].to_numpy(float))[:, None]
    return np.maximum(np.expm1(np.where(np.isnan(quantiles), now, quantiles)), 0)


def phase_ahead(sample: Sample, horizon: int) -> Floats:
    """Return whether the workload is in each phase `horizon` windows later.

    Shape (windows, phases), scaled so that two phases are `APART` from each other. The last windows
    repeat the last phase.
    """
    later = sample.table["phase"].shift(-horizon).ffill()
    names = sorted(set(later))
    return np.array([[name == n for n in names] for name in later]) * APART / np.sqrt(2)


def _autocorrelation(samples: list[Sample], lag: int) -> float:
    series = [np.log1p(sample.table["pages"]) for sample in samples]
    return float(np.nanmean([values.autocorr(lag) for values in series]))
