# SPDX-License-Identifier: Apache-2.0
"""Back-test: what each forecast would have said, and what deciding by it would have cost.

*Leave one program out*: whatever is forecast of a program is forecast by models that saw only the
others (logs of one program, recorded or composed, are held out together). *Rolling origin*: a
forecast is made at the end of every window, from what is known there; the online calibration learns
from the outcomes as they come in. Every rule and model is judged on the same windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pmlkit.errors import UsageError
from pmlkit.forecast import baselines, metrics
from pmlkit.forecast import forecaster as design
from pmlkit.forecast import metrics as decide
from pmlkit.forecast.analogs import LEARNERS, Pooled
from pmlkit.forecast.forecaster import MODELS, WARM_UP, Forecaster

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pmlkit.forecast.forecaster import Calibrated, Sample
    from pmlkit.types import Array, Bools, Floats, Tell


__all__ = [
    "BY_PRICE",
    "DECIDERS",
    "Outcome",
    "RATES",
    "by_price",
    "by_rule",
    "compare",
    "curves",
    "deployed",
    "interval",
    "judged",
    "leave_one_out",
    "made",
    "relative",
    "scores",
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


# ------------------------------------------------------------------------------
# Judge a back-test: losses, what decisions cost at equal violations, and whether it is chance.


RATES = (0.02, 0.05, 0.1)  # violations that somebody may allow


def scores(outcomes: list[Outcome]) -> pd.DataFrame:
    """Return the losses of the quantiles: a row per model, log and quantile.

    Returns
    -------
    DataFrame
        ``model``, ``sample``, ``program``, ``composed``, ``windows``, ``tau``, ``coverage`` (0 to
        1), ``pinball`` (MiB), ``mape`` (percent; of this quantile as a forecast). Rules are judged
        as what they are, one forecast without a margin: their ``tau`` is NaN.
    """
    rows = []
    for o in (o for o in outcomes if not o.model.endswith(BY_PRICE)):
        head = _head(o) | {"windows": len(o.y)}
        if o.taus is None:
            plain = _plain(o)
            rows.append(head | {"tau": np.nan, "coverage": metrics.coverage(o.y, plain),
                                "pinball": metrics.pinball(o.y, plain, 0.5) / 256,
                                "mape": metrics.mape(o.y, plain)})  # fmt: skip
            continue
        for tau, forecast in zip(o.taus, o.quantiles.T, strict=True):  # type: ignore[union-attr]
            rows.append(head | {"tau": tau, "coverage": metrics.coverage(o.y, forecast),
                                "pinball": metrics.pinball(o.y, forecast, tau) / 256,
                                "mape": metrics.mape(o.y, forecast)})  # fmt: skip
    return pd.DataFrame(rows)


def _plain(o: Outcome) -> Floats:
    """Return a rule's forecast without a margin (for the percentile rule: its median)."""
    at = 0 if "percentile" in o.model else int(np.argmin(np.abs(baselines.MARGINS - 1)))
    return o.given[:, at]


def _head(o: Outcome) -> dict[str, Any]:
    return {"model": o.model, "sample": o.sample, "program": o.program, "composed": o.composed}


def curves(outcomes: list[Outcome]) -> pd.DataFrame:
    """Return the trade-off of violations against slack: a row per model, log and knob.

    Returns
    -------
    DataFrame
        ``model``, ``sample``, ``program``, ``composed``, ``knob``, and as in `metrics.decision`.
    """
    tables = []
    for o in outcomes:
        table = metrics.decision(o.y, o.given, o.window_s)
        table.insert(0, "knob", np.arange(len(table)))
        for name, value in reversed(_head(o).items()):
            table.insert(0, name, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def at_rate(curve: pd.DataFrame, rate: float) -> pd.DataFrame:
    """Return the slack of each model and log at a rate of violations, relative to what was used.

    Parameters
    ----------
    curve : DataFrame
        Of `curves`.
    rate : float

    Returns
    -------
    DataFrame
        Logs down, models across; slack over use, each of its own knob.
    """
    grouped = curve.groupby(["sample", "model"], sort=False)
    found = grouped.apply(lambda c: metrics.matched(c, rate) / c["used"].iloc[0])
    return found.unstack("model")


def compare(
    outcomes: list[Outcome],
    rates: Sequence[float] = RATES,
    models: Sequence[str] = DECIDERS,
    curve: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Compare each model with the best rule, at the same rate of violations on every log.

    Parameters
    ----------
    outcomes : list of Outcome
    rates : sequence of float
    models : sequence of str
    curve : DataFrame, optional
        Of `curves`, if it is there already.

    Returns
    -------
    DataFrame
        ``rate``, ``model``, ``best_rule`` (the lowest geometric mean of slack over the programs:
        chosen with hindsight, in its favour), ``programs``, ``lower`` (on how many of them the
        model has less slack), ``slack`` (model over rule, geometric mean), ``low`` and ``high``
        (95 % interval of that, `interval`) and ``p`` (Wilcoxon's signed ranks over programs). Logs
        of one program are averaged first: they are not independent.
    """
    curve = curves(outcomes) if curve is None else curve
    program = curve.drop_duplicates("sample").set_index("sample")["program"]
    rows = []
    for rate in rates:
        logs = np.log(at_rate(curve, rate).clip(lower=1e-6))
        mean = logs.groupby(program).mean()  # type: ignore[attr-defined]
        rules = mean[[name for name in mean if name in baselines.BASELINES]].dropna(axis=1)
        if rules.empty:
            continue  # no rule keeps to this rate on every program
        best = rules.mean().idxmin()
        for model in (name for name in models if name in mean):
            test = metrics.paired(np.exp(mean[model]), np.exp(mean[best]))
            low, high = interval(outcomes, model, best, rate)
            rows.append(
                {"rate": rate, "model": model, "best_rule": best, "programs": test["pairs"],
                 "lower": test["lower"], "slack": test["ratio"], "low": low, "high": high,
                 "p": test["p"]}
            )  # fmt: skip
    columns = ["rate", "model", "best_rule", "programs", "lower", "slack", "low", "high", "p"]
    return pd.DataFrame(rows, columns=columns)


def interval(
    outcomes: list[Outcome],
    model: str,
    rule: str,
    rate: float,
    block: int = 32,
    draws: int = 400,
    seed: int = 0,
) -> tuple[float, float]:
    """Return a 95 % interval of a model's slack over a rule's, by a paired bootstrap.

    Programs are drawn with replacement, and within each of their logs blocks of neighbouring
    windows (Kuensch 1989, Annals of Statistics 17), the same ones for both.

    Parameters
    ----------
    outcomes : list of Outcome
    model, rule : str
    rate : float
        Of violations, kept to by both in every draw.
    block : int
        Windows.
    draws, seed : int

    Returns
    -------
    (float, float)
    """
    random = np.random.default_rng(seed)
    given = {(o.sample, o.model): o for o in outcomes if o.model in (model, rule)}
    ratios: dict[str, list[Floats]] = {}
    for ours in (o for o in given.values() if o.model == model):
        blocks = -(-len(ours.y) // block)
        drawn = random.multinomial(blocks, np.full(blocks, 1 / blocks), draws)
        both = (ours, given[ours.sample, rule])
        mine, theirs = (np.log(np.maximum(relative(o, rate, drawn, block), 1e-6)) for o in both)
        ratios.setdefault(ours.program, []).append(mine - theirs)
    each = np.array([np.mean(logs, axis=0) for logs in ratios.values()])
    chosen = random.integers(0, len(each), (len(each), draws))
    found = np.nanmean(np.take_along_axis(each, chosen, axis=0), axis=0)
    low, high = np.exp(np.nanquantile(found, [0.025, 0.975]))
    return float(low), float(high)


def relative(o: Outcome, rate: float, drawn: Any = None, block: int = 32) -> Floats:
    """Return an outcome's slack over use at a rate of violations, for each draw of its blocks.

    Parameters
    ----------
    o : Outcome
    rate : float
    drawn : array of int, shape (draws, blocks), optional
        How often each block counts; default: each once.
    block : int
        Windows.

    Returns
    -------
    ndarray of float, shape (draws,)
        As `metrics.matched`; NaN where no knob has so few violations.
    """
    edges = np.arange(0, len(o.y), block)
    drawn = np.ones((1, len(edges))) if drawn is None else drawn
    y = o.y[:, None]
    missed = drawn @ np.add.reduceat((y > o.given).astype(float), edges)
    slack = drawn @ np.add.reduceat(np.maximum(o.given - y, 0), edges)
    windows, used = (drawn @ np.add.reduceat(x, edges) for x in (np.ones(len(o.y)), o.y))
    missed, slack = missed / windows[:, None], slack / used[:, None]
    # Knobs rise, so violations never do: the first knob that keeps to the rate is the cheapest.
    rows, keeps = np.arange(len(missed)), missed <= rate
    right = keeps.argmax(axis=1)
    left = (missed == missed[rows, np.maximum(right - 1, 0)][:, None]).argmax(axis=1)
    span = missed[rows, left] - missed[rows, right]
    share = np.where(span > 0, (rate - missed[rows, right]) / np.where(span > 0, span, 1), 0.0)
    found = slack[rows, right] + share * (slack[rows, left] - slack[rows, right])
    # Before the first knob nothing is cheaper.
    found = np.where(right == 0, slack[:, 0], found)
    return np.where(keeps.any(axis=1), found, np.nan)


def deployed(outcomes: list[Outcome], rate: float = 0.05) -> pd.DataFrame:
    """Return what each would have cost with its knob set beforehand, on the other programs.

    A rule's margin, and a model's price, is the least that keeps to the rate on the logs of the
    other programs, taken together; a model without a price gives its quantile 1 - rate. Nothing
    that the held-out program does later is looked at by the knob.

    Parameters
    ----------
    outcomes : list of Outcome
    rate : float

    Returns
    -------
    DataFrame
        ``model``, ``sample``, ``program``, ``composed``, ``knob``, ``violations``, ``shortfall``,
        ``slack``, ``used``.
    """
    curve = curves(outcomes)
    fixed = {o.model: _quantile_knob(rate) for o in outcomes if o.taus is not None}
    rows = []
    for (model, program), held in curve.groupby(["model", "program"], sort=False):
        others = curve[(curve["model"] == model) & (curve["program"] != program)]
        missed = others.groupby("knob")["violations"].mean()
        good = missed.index[missed <= rate]
        knob = fixed.get(model, good.min() if len(good) else missed.index.max())  # type: ignore[call-overload]
        rows.append(held[held["knob"] == knob])
    return pd.concat(rows, ignore_index=True)


def _quantile_knob(rate: float) -> int:
    lower = int((baselines.MARGINS < 1).sum())
    return lower + int(np.argmin(np.abs(TAUS - (1 - rate))))
