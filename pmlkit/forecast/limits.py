# SPDX-License-Identifier: Apache-2.0
"""How much of the working set can be forecast at all, by how far ahead it is?

Four deciders of the same kind (`analogs`, decided by price) that know more and more: the past of
the log; the rest of the log, later windows too (hindsight: what a past without end would teach);
that, and the phase that the workload will be in; and all, who wastes nothing. What lies between the
second and the third is in the order of the work, which these workloads draw at random: no log of
what was written before says it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.forecast import analogs, backtest
from pmlkit.forecast import backtest as judge
from pmlkit.forecast.backtest import made

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.forecast.forecaster import Sample
    from pmlkit.types import Array, Floats

__all__ = ["HORIZONS", "KNOWERS", "limits", "phase_ahead"]

HORIZONS = (1, 2, 4, 8, 16)
KNOWERS = ("own past", "hindsight", "told the phase")
NEAR = 16  # windows around the one that is forecast, which hindsight must not look at
APART = 3.0  # distance of two states whose phases differ: far, for a bandwidth below 1
BANDWIDTH = 0.6


def limits(
    samples: list[Sample], horizons: Sequence[int] = HORIZONS, rate: float = 0.05
) -> pd.DataFrame:
    """Compare what deciders who know more and more would waste, at equal violations.

    Parameters
    ----------
    samples : list of Sample
        Recorded, with phases that the workloads marked.
    horizons : sequence of int
        Windows.
    rate : float
        Violations that are allowed.

    Returns
    -------
    DataFrame
        A row per horizon: ``horizon`` (windows), ``ahead_s``, ``rule`` (the best one), its
        ``rule_slack`` over use, the slack over the rule's of ``own past``, ``hindsight`` and
        ``told the phase`` (geometric means over programs), and ``autocorrelation`` of log(1 + W)
        at that lag (mean over the logs).
    """
    rows = []
    for horizon in horizons:
        found = backtest.by_rule(samples, None, horizon, "at")
        found += [outcome for sample in samples for outcome in _knowing(sample, horizon)]
        slack = pd.DataFrame(
            {
                "model": [o.model for o in found],
                "program": [o.program for o in found],
                "slack": [float(judge.relative(o, rate)[0]) for o in found],
            }
        )
        slack["log"] = np.log(slack["slack"].clip(lower=1e-6))
        mean = slack.groupby(["program", "model"])["log"].mean().unstack("model")
        rules = mean.drop(columns=list(KNOWERS)).dropna(axis=1).mean()
        best = str(rules.idxmin())
        row: dict[str, object] = {"horizon": horizon, "ahead_s": horizon * samples[0].window_s}
        row |= {"rule": best, "rule_slack": float(np.exp(rules[best]))}
        row |= {name: float(np.exp((mean[name] - mean[best]).mean())) for name in KNOWERS}
        rows.append(row | {"autocorrelation": _autocorrelation(samples, horizon)})
    return pd.DataFrame(rows)


def _knowing(sample: Sample, horizon: int) -> list[backtest.Outcome]:
    y, keep = backtest.judged(sample, horizon, "at")
    logs, state = np.log1p(y), analogs.state(sample.table)
    told = np.column_stack([state, phase_ahead(sample, horizon)])
    past = analogs.Analogs(bandwidth=BANDWIDTH)
    ever = analogs.Analogs(bandwidth=BANDWIDTH, half_life=np.inf)
    values = (
        past.follow(state, logs, horizon),
        ever.hindsight(state, logs, NEAR),
        ever.hindsight(told, logs, NEAR),
    )
    return [
        made(name, sample, y, keep, backtest.by_price(sample, _pages(drawn, sample)))
        for name, drawn in zip(KNOWERS, values, strict=True)
    ]


def _pages(drawn: Floats, sample: Sample) -> Floats:
    """Return pages; where nothing was known yet, what is used now."""
    now = np.log1p(sample.table["pages"].to_numpy(float))[:, None]
    return np.maximum(np.expm1(np.where(np.isnan(drawn), now, drawn)), 0)


def phase_ahead(sample: Sample, horizon: int) -> Array:
    """Return a column per phase: whether the workload is in it, `horizon` windows later.

    Parameters
    ----------
    sample : Sample
    horizon : int

    Returns
    -------
    ndarray of float, shape (windows, phases)
        Scaled so that two phases are `APART`; the last windows repeat the last phase.
    """
    later = sample.table["phase"].shift(-horizon).ffill()
    names = sorted(set(later))
    return np.array([[name == n for n in names] for name in later]) * APART / np.sqrt(2)


def _autocorrelation(samples: list[Sample], lag: int) -> float:
    series = [np.log1p(sample.table["pages"].astype(float)) for sample in samples]
    return float(np.nanmean([one.autocorr(lag) for one in series]))  # type: ignore[attr-defined]
