# SPDX-License-Identifier: Apache-2.0
"""Back-test: the forecasts at each time in the past, and the coverage of their quantiles.

*Leave one program out*: the models that forecast a program are fitted to the others only. Logs of
one program, recorded or composed, are left out together. *Rolling origin*: a forecast is made at
the end of every window, from the information available there; the online calibration learns from
the outcomes as they become known. Every rule and model is judged on the same windows.
`pmlkit.forecast.trial` computes the cost of decisions with knobs set in advance; `relative_slack`
sets them with hindsight, for bounds.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import progress
from pmlkit.errors import UsageError
from pmlkit.forecast import baselines, metrics
from pmlkit.forecast.analogs import Pooled
from pmlkit.forecast.forecaster import MODELS, Forecaster, outcome
from pmlkit.trace.schema import MIB_PAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pmlkit.forecast.forecaster import Sample
    from pmlkit.types import Array, Floats

__all__ = [
    "BY_PRICE",
    "Outcome",
    "allocations_by_price",
    "allocations_by_quantile",
    "leave_one_out",
    "relative_slack",
    "rule_outcomes",
    "scores",
]

BY_PRICE = " by price"  # suffix of a model's name where `metrics.cheapest` decides
TAUS = np.array([0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99])


@dataclass(frozen=True)
class Outcome:
    """The allocations of a rule or model for a log, and the pages used.

    Attributes
    ----------
    model, sample, program : str
    composed : bool
    window_s : float
    t_ns : ndarray of int64, shape (n,)
        The end of the window in which each forecast was made.
    y : ndarray of float, shape (n,)
        Pages used h windows later.
    allocations : ndarray of float, shape (n, knobs)
        Pages, in ascending order from left to right.
    taus : ndarray of float or None
        The quantiles that a model forecasts; None for a rule.
    quantiles : ndarray of float, shape (n, taus) or None
        Pages.
    seen : ndarray of float, shape (n,) or None
        `y` according to the inputs, `horizon` windows after the forecast; NaN if the inputs do not
        show it.
    horizon : int
        Windows.
    """

    model: str
    sample: str
    program: str
    composed: bool
    window_s: float
    t_ns: Array
    y: Floats
    allocations: Floats
    taus: Floats | None = None
    quantiles: Floats | None = None
    seen: Floats | None = None
    horizon: int = 1


def leave_one_out(
    samples: list[Sample],
    forecasters: Mapping[str, Forecaster | Pooled] | None = None,
    rules: Sequence[str] | None = None,
    programs: Sequence[str] | None = None,
) -> list[Outcome]:
    """Back-test over programs.

    Parameters
    ----------
    samples : list of Sample
        Samples of at least two programs.
    forecasters : dict of str to Forecaster, optional
        Default: `default_forecasters`.
    rules : sequence of str, optional
        One of `baselines.BASELINES`; default all.
    programs : sequence of str, optional
        The models forecast only these programs; default: all.

    Raises
    ------
    UsageError
        If there is only one program.
    """
    forecasters = default_forecasters() if forecasters is None else forecasters
    horizon, target = _horizon_and_target(forecasters)
    all_programs = list(dict.fromkeys(sample.program for sample in samples))
    if len(all_programs) < 2:
        raise UsageError("one program cannot be held out of one: give traces of two or more")
    outcomes = rule_outcomes(samples, rules, horizon, target)
    # One list for all forecasters: `Pooled` does not fit its base again on the same samples.
    others = {p: [s for s in samples if s.program != p] for p in programs or all_programs}
    fits = list(itertools.product(others, forecasters.items()))
    for program, (name, forecaster) in progress.over(fits, "models", _shown):
        forecaster.fit(others[program])
        for sample in (sample for sample in samples if sample.program == program):
            outcomes += _model_outcomes(name, sample, forecaster)
    return outcomes


def _shown(fit: tuple[str, tuple[str, object]]) -> str:
    return f"{fit[1][0]}, without {fit[0]}"


def default_forecasters(horizon: int = 4, target: str = "at") -> dict[str, Forecaster | Pooled]:
    """Return one of each of `LEARNERS`; the pooled one shares the trees of the boosted."""
    forecasters = {name: Forecaster(kind(), horizon, target) for name, kind in MODELS.items()}
    return {**forecasters, "pooled": Pooled(forecasters["boosted"])}


def _horizon_and_target(forecasters: Mapping[str, Forecaster | Pooled]) -> tuple[int, str]:
    settings = {(forecaster.horizon, forecaster.target) for forecaster in forecasters.values()}
    if len(settings) != 1:
        raise UsageError("the forecasters differ in horizon or target: give all of them the same")
    return settings.pop()


def rule_outcomes(
    samples: list[Sample],
    rules: Sequence[str] | None,
    horizon: int,
    target: str,
    ahead: bool = False,
) -> list[Outcome]:
    """Return the outcomes of rules (default: all), which need no fit; `ahead` as below."""
    outcomes = []
    for sample in samples:
        for rule in rules or baselines.BASELINES:
            allocations = baselines.forecast(rule, sample.table["pages"].to_numpy(), horizon)
            outcomes.append(judged_outcome(rule, sample, horizon, target, allocations, ahead=ahead))
    return outcomes


def _model_outcomes(
    name: str, sample: Sample, forecaster: Forecaster | Pooled
) -> tuple[Outcome, Outcome]:
    """Return the outcomes of a model by its quantiles, and by price.

    Online calibration makes the quantiles cover their level, but lets them jump after each miss. A
    price needs no exact coverage, and steady forecasts have less slack: it takes those.
    """
    settings = (sample, forecaster.horizon, forecaster.target)
    quantiles, taus = forecaster.predict(sample), forecaster.taus_
    by_price = allocations_by_price(sample, forecaster.scenarios(sample))
    by_quantile = allocations_by_quantile(taus, quantiles)
    return (
        judged_outcome(name, *settings, by_quantile, taus, quantiles),
        judged_outcome(name + BY_PRICE, *settings, by_price),
    )


def judged_outcome(
    model: str,
    sample: Sample,
    horizon: int,
    target: str,
    allocations: Floats,
    taus: Floats | None = None,
    quantiles: Floats | None = None,
    ahead: bool = False,
) -> Outcome:
    """Return the outcome of allocations in the windows that are judged.

    With `ahead`, include the last windows, whose use is unknown: `y` is NaN there.
    """
    y, keep = outcome(sample, horizon, target)
    if ahead:
        keep |= np.isnan(y)
    return Outcome(
        model,
        sample.name,
        sample.program,
        sample.composed,
        sample.window_s,
        sample.table["t_ns"].to_numpy()[keep],
        y[keep],
        allocations[keep],
        taus,
        None if quantiles is None else quantiles[keep],
        sample.seen(horizon, target)[keep],
        horizon,
    )


def allocations_by_price(sample: Sample, values: Floats) -> Floats:
    """Return `metrics.cheapest` of equally likely values, and margins beyond the last price."""
    size = sample.table["pages"].expanding().mean().to_numpy()
    return baselines.extend(metrics.cheapest(values, size))


def allocations_by_quantile(taus: Floats, quantiles: Floats) -> Floats:
    """Return allocations at the levels `TAUS`, and margins below and beyond them."""
    grid = metrics.at_levels(taus, quantiles, TAUS)
    low = grid[:, :1] * baselines.MARGINS[baselines.MARGINS < 1]
    return baselines.extend(np.column_stack([low, grid]))


# ------------------------------------------------------------------------------
# Judge a back-test: losses and coverage.


def scores(outcomes: list[Outcome]) -> pd.DataFrame:
    """Return the losses of the quantiles: a row per model, log and quantile.

    Returns
    -------
    DataFrame
        ``model``, ``sample``, ``program``, ``composed``, ``windows``, ``tau``, ``coverage`` (0 to
        1), ``pinball`` (MiB), ``mape`` (percent; this quantile used as a forecast). A rule is
        judged as one forecast without a margin: its ``tau`` is NaN, and its pinball loss is that of
        the median.
    """
    rows = []
    for o in (o for o in outcomes if not o.model.endswith(BY_PRICE)):
        for tau, forecast in _forecasts(o):
            loss = metrics.pinball(o.y, forecast, 0.5 if np.isnan(tau) else tau)
            rows.append(
                {
                    **_labels(o),
                    "windows": len(o.y),
                    "tau": tau,
                    "coverage": metrics.coverage(o.y, forecast),
                    "pinball": loss / MIB_PAGES,
                    "mape": metrics.mape(o.y, forecast),
                }
            )
    return pd.DataFrame(rows)


def _forecasts(o: Outcome) -> list[tuple[float, Floats]]:
    """Return a model's quantiles by level, or a rule's forecast without a margin (level NaN)."""
    if o.taus is not None and o.quantiles is not None:
        return list(zip(o.taus, o.quantiles.T, strict=True))
    median = 0  # knob of the percentile rule
    knob = median if "percentile" in o.model else int(np.argmin(np.abs(baselines.MARGINS - 1)))
    return [(np.nan, o.allocations[:, knob])]


def _labels(o: Outcome) -> dict[str, str | bool]:
    return {"model": o.model, "sample": o.sample, "program": o.program, "composed": o.composed}


def relative_slack(o: Outcome, rate: float) -> float:
    """Return slack over use at a given rate of violations; NaN if no knob has so few.

    The knob with that rate is chosen with hindsight: the result is a bound, not a forecast. It is
    interpolated linearly between the two knobs around the rate.
    """
    y = o.y[:, None]
    missed = (y > o.allocations).mean(axis=0)
    slack = np.maximum(o.allocations - y, 0).sum(axis=0) / o.y.sum()
    keeps = missed <= rate
    if not keeps.any():
        return np.nan
    # Violations never rise with the knob: the first knob that satisfies the rate is the cheapest.
    right = int(keeps.argmax())
    if right == 0:  # there is nothing to interpolate with
        return float(slack[0])
    left = int((missed == missed[right - 1]).argmax())
    share = (rate - missed[right]) / (missed[left] - missed[right])
    return float(slack[right] + share * (slack[left] - slack[right]))
