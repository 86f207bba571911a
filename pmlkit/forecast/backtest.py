# SPDX-License-Identifier: Apache-2.0
"""Back-test: what each forecast would have said, and what deciding by it would have cost.

*Leave one program out*: whatever is forecast of a program is forecast by models that saw only the
others (logs of one program, recorded or composed, are held out together). *Rolling origin*: a
forecast is made at the end of every window, from what is known there; the online calibration learns
from the outcomes as they come in. Every rule and model is judged on the same windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import UsageError
from pmlkit.forecast import baselines, decide, design
from pmlkit.forecast.forecaster import MODELS, WARM_UP, Forecaster
from pmlkit.forecast.pooled import LEARNERS, Pooled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pmlkit.forecast.forecaster import Calibrated, Sample
    from pmlkit.types import Array, Bools, Floats, Tell

__all__ = [
    "BY_PRICE",
    "DECIDERS",
    "Outcome",
    "by_price",
    "by_rule",
    "judged",
    "leave_one_out",
    "made",
]

BY_PRICE = " by price"  # what is added to a model's name where `decide.by_price` decides
DECIDERS = tuple(name + how for name in LEARNERS for how in ("", BY_PRICE))
TAUS = np.array([0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99])


@dataclass(frozen=True)
class Outcome:
    """What one rule or model gave one log, and what came.

    Attributes
    ----------
    model, sample, program : str
    composed : bool
    window_s : float
    t_ns : ndarray of int64, shape (n,)
        The end of the window in which each forecast was made.
    y : ndarray of float, shape (n,)
        What came h windows later, pages.
    given : ndarray of float, shape (n, knobs)
        Allocations, pages, the more careful to the right.
    taus : ndarray of float or None
        The quantiles that a model forecast; a rule has none.
    quantiles : ndarray of float, shape (n, taus) or None
        Pages.
    """

    model: str
    sample: str
    program: str
    composed: bool
    window_s: float
    t_ns: Array
    y: Floats
    given: Floats
    taus: Floats | None = None
    quantiles: Floats | None = None


def leave_one_out(
    samples: list[Sample],
    forecasters: Mapping[str, Calibrated] | None = None,
    rules: Sequence[str] | None = None,
    programs: Sequence[str] | None = None,
    progress: Tell | None = None,
) -> list[Outcome]:
    """Back-test over programs.

    Parameters
    ----------
    samples : list of Sample
        Of at least two programs.
    forecasters : dict of str to Forecaster, optional
        Default: `default_forecasters`.
    rules : sequence of str, optional
        Of `baselines.BASELINES`; default all.
    programs : sequence of str, optional
        The models forecast only these; default all.
    progress : callable, optional
        Called with a text before each fit.

    Returns
    -------
    list of Outcome

    Raises
    ------
    UsageError
        If there is only one program.
    """
    forecasters = default_forecasters() if forecasters is None else forecasters
    horizon, target = _common(forecasters)
    there = list(dict.fromkeys(sample.program for sample in samples))
    if len(there) < 2:
        raise UsageError("one program cannot be held out of one: give traces of two or more")
    found = by_rule(samples, rules, horizon, target)
    for program in programs or there:
        held = [sample for sample in samples if sample.program == program]
        others = [sample for sample in samples if sample.program != program]
        for name, forecaster in forecasters.items():
            if progress:
                progress(f"{name}, without {program}")
            forecaster.fit(others)  # type: ignore[attr-defined]
            for sample in held:
                found += _outcomes(name, sample, forecaster)
    return found


def default_forecasters(horizon: int = 4, target: str = "at") -> dict[str, Calibrated]:
    """Return one of each of `pooled.LEARNERS`; the pooled one shares the trees of the boosted."""
    found: dict[str, Calibrated] = {
        name: Forecaster(kind(), horizon, target) for name, kind in MODELS.items()
    }
    found["pooled"] = Pooled(found["boosted"])  # type: ignore[arg-type]
    return found


def _common(forecasters: Mapping[str, Calibrated]) -> tuple[int, str]:
    asked = {(forecaster.horizon, forecaster.target) for forecaster in forecasters.values()}
    if len(asked) != 1:
        raise UsageError("the forecasters differ in horizon or target: give all of them the same")
    return asked.pop()


def judged(sample: Sample, horizon: int, target: str) -> tuple[Floats, Bools]:
    """Return what came, pages, and in which windows everyone is judged by it."""
    y = design.ahead(sample.table, horizon, target)
    keep = np.isfinite(y)
    keep[: min(WARM_UP, len(y) // 2)] = False
    return y, keep


def by_rule(
    samples: list[Sample], rules: Sequence[str] | None, horizon: int, target: str
) -> list[Outcome]:
    """Return what the rules (default: all) give each log; they learn nothing."""
    found = []
    for sample in samples:
        known = judged(sample, horizon, target)
        for rule in rules or baselines.BASELINES:
            given = baselines.forecast(rule, sample.table["pages"].to_numpy(), horizon)
            found.append(made(rule, sample, *known, given))
    return found


def _outcomes(name: str, sample: Sample, forecaster: Calibrated) -> list[Outcome]:
    """Return what a model gives by its quantiles, and by price.

    Online calibration makes the quantiles cover what they say, and jump after each miss. A price
    needs no exact coverage, and steady forecasts have less slack: it is given those.
    """
    quantiles, taus = forecaster.predict(sample), forecaster.taus_
    known = judged(sample, forecaster.horizon, forecaster.target)
    priced = by_price(sample, forecaster.scenarios(sample))
    return [
        made(name, sample, *known, knobs(taus, quantiles), taus, quantiles),
        made(name + BY_PRICE, sample, *known, priced),
    ]


def by_price(sample: Sample, values: Floats) -> Floats:
    """Return `decide.by_price` of equally likely values, and margins beyond the last price."""
    size = sample.table["pages"].expanding().mean().to_numpy()
    priced = decide.by_price(values, size)
    return np.column_stack([priced, priced[:, -1:] * baselines.MARGINS[baselines.MARGINS > 1]])


def made(
    name: str,
    sample: Sample,
    y: Floats,
    keep: Bools,
    given: Floats,
    taus: Floats | None = None,
    quantiles: Floats | None = None,
) -> Outcome:
    """Return what one gave in the windows that are judged."""
    return Outcome(
        name, sample.name, sample.program, sample.composed, sample.window_s,
        sample.table["t_ns"].to_numpy()[keep], y[keep], given[keep], taus,
        None if quantiles is None else quantiles[keep],
    )  # fmt: skip


def knobs(taus: Floats, quantiles: Floats) -> Floats:
    """Turn quantiles into allocations over a fine grid of levels, and margins beyond the last.

    Parameters
    ----------
    taus : array of float, shape (quantiles,)
    quantiles : array of float, shape (n, quantiles)
        Pages.

    Returns
    -------
    ndarray of float, shape (n, knobs)
        The grid is `decide.at_levels`.
    """
    grid = decide.at_levels(taus, quantiles, TAUS)
    low = grid[:, :1] * baselines.MARGINS[baselines.MARGINS < 1]
    return np.column_stack([low, grid, grid[:, -1:] * baselines.MARGINS[baselines.MARGINS > 1]])
