# SPDX-License-Identifier: Apache-2.0
"""Back-test: what each forecast would have said, and what deciding by it would have cost.

*Leave one program out*: whatever is forecast of a program is forecast by models that saw only the
others (logs of one program, recorded or composed, are held out together). *Rolling origin*: a
forecast is made at the end of every window, from what is known there; the online calibration learns
from the outcomes as they come in. Every rule and model is judged on the same windows.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from pmlkit.errors import UsageError
from pmlkit.forecast import baselines, decide, design, metrics
from pmlkit.forecast.forecaster import MODELS, WARM_UP, Forecaster

__all__ = ["Outcome", "by_time", "compare", "curves", "deployed", "leave_one_out", "scores"]

RATES = (0.02, 0.05, 0.1)  # violations that somebody may allow
BY_PRICE = " by price"  # what is added to a model's name where `decide.by_price` decides
DECIDERS = tuple(name + how for name in MODELS for how in ("", BY_PRICE))
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
    t_ns: np.ndarray
    y: np.ndarray
    given: np.ndarray
    taus: np.ndarray | None = None
    quantiles: np.ndarray | None = None


def leave_one_out(samples, forecasters=None, rules=None, programs=None, progress=None):
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
    found = _by_rule(samples, rules, horizon, target)
    for program in programs or there:
        held = [sample for sample in samples if sample.program == program]
        others = [sample for sample in samples if sample.program != program]
        for name, forecaster in forecasters.items():
            if progress:
                progress(f"{name}, without {program}")
            forecaster.fit(others)
            for sample in held:
                found += _outcomes(name, sample, forecaster)
    return found


def by_time(sample, forecasters=None, rules=None, refits=4, progress=None):
    """Back-test within one log: fitted on its beginning, and anew as it goes on.

    Parameters
    ----------
    sample : Sample
    forecasters, rules, progress
        As in `leave_one_out`.
    refits : int
        How often the models are fitted: at 1/3 of the log, and then at even distances.

    Returns
    -------
    list of Outcome
        From the first fit on.
    """
    forecasters = default_forecasters() if forecasters is None else forecasters
    horizon, target = _common(forecasters)
    n = len(sample.table)
    origins = np.linspace(n / 3, n, refits + 1).astype(int)
    if origins[0] < 4 * WARM_UP:
        raise UsageError(
            f"{sample.name} has {n} windows, a back-test within one log takes {12 * WARM_UP} or "
            "more: give a shorter --window or a longer recording"
        )
    judged = np.zeros(n, bool)
    judged[origins[0] :] = True
    found = _by_rule([sample], rules, horizon, target, judged)
    for name, forecaster in forecasters.items():
        quantiles = np.zeros((n, 0))
        for first, stop in zip(origins[:-1], origins[1:], strict=True):
            if progress:
                progress(f"{name}, from window {first}")
            # Outcomes of the last h windows before the origin are not known there.
            past = _part(sample, first)
            forecaster.fit([past])
            if not quantiles.shape[1]:
                quantiles = np.zeros((n, len(forecaster.taus_)))
            quantiles[first:stop] = forecaster.predict(_part(sample, stop))[first:stop]
        found.append(_model_outcome(name, sample, horizon, target, forecaster.taus_, quantiles,
                                    judged))  # fmt: skip
    return found


def default_forecasters(horizon=4, target="at", **options):
    """Return a forecaster of each of `forecaster.MODELS`."""
    return {name: Forecaster(kind(), horizon, target, **options) for name, kind in MODELS.items()}


def _common(forecasters):
    asked = {(forecaster.horizon, forecaster.target) for forecaster in forecasters.values()}
    if len(asked) != 1:
        raise UsageError("the forecasters differ in horizon or target: give all of them the same")
    return asked.pop()


def _part(sample, stop):
    from dataclasses import replace

    return replace(sample, table=sample.table.iloc[:stop].reset_index(drop=True))


def _judged(sample, horizon, target, judged=None):
    y = design.ahead(sample.table, horizon, target)
    keep = np.isfinite(y)
    keep[: min(WARM_UP, len(y) // 2)] = False
    return y, keep if judged is None else keep & judged


def _by_rule(samples, rules, horizon, target, judged=None):
    found = []
    for sample in samples:
        y, keep = _judged(sample, horizon, target, judged)
        for rule in rules or baselines.BASELINES:
            given = baselines.forecast(rule, sample.table["pages"].to_numpy(), horizon)
            found.append(_made(rule, sample, y, keep, given))
    return found


def _outcomes(name, sample, forecaster):
    """Return what a model gives by its quantiles, and by price.

    Online calibration makes the quantiles cover what they say, and jump after each miss. A price
    needs no exact coverage, and steady forecasts have less slack: it is given those.
    """
    quantiles, taus = forecaster.predict(sample), forecaster.taus_
    how = forecaster.horizon, forecaster.target
    y, keep = _judged(sample, *how)
    size = sample.table["pages"].expanding().mean().to_numpy()
    priced = decide.by_price(taus, forecaster.predict(sample, online=False), size)
    return [
        _model_outcome(name, sample, *how, taus, quantiles),
        _made(name + BY_PRICE, sample, y, keep, priced),
    ]


def _model_outcome(name, sample, horizon, target, taus, quantiles, judged=None):
    y, keep = _judged(sample, horizon, target, judged)
    given = knobs(taus, quantiles)
    return _made(name, sample, y, keep, given, taus, quantiles)


def _made(name, sample, y, keep, given, taus=None, quantiles=None):
    return Outcome(
        name, sample.name, sample.program, sample.composed, sample.window_s,
        sample.table["t_ns"].to_numpy()[keep], y[keep], given[keep], taus,
        None if quantiles is None else quantiles[keep],
    )  # fmt: skip


def knobs(taus, quantiles):
    """Turn quantiles into allocations over a fine grid of levels, and margins beyond the last.

    Parameters
    ----------
    taus : array of float, shape (quantiles,)
    quantiles : array of float, shape (n, quantiles)
        Pages.

    Returns
    -------
    ndarray of float, shape (n, knobs)
        Between two quantiles the logarithm is interpolated along the normal distribution's.
    """
    logs, at = np.log1p(quantiles), norm.ppf(taus)
    wanted = norm.ppf(TAUS)
    right = np.clip(np.searchsorted(at, wanted), 1, len(at) - 1)
    share = (wanted - at[right - 1]) / (at[right] - at[right - 1])
    grid = np.expm1(logs[:, right - 1] * (1 - share) + logs[:, right] * share)
    low = grid[:, :1] * baselines.MARGINS[baselines.MARGINS < 1]
    return np.column_stack([low, grid, grid[:, -1:] * baselines.MARGINS[baselines.MARGINS > 1]])


def scores(outcomes):
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
        for tau, forecast in zip(o.taus, o.quantiles.T, strict=True):
            rows.append(head | {"tau": tau, "coverage": metrics.coverage(o.y, forecast),
                                "pinball": metrics.pinball(o.y, forecast, tau) / 256,
                                "mape": metrics.mape(o.y, forecast)})  # fmt: skip
    return pd.DataFrame(rows)


def _plain(o):
    """Return a rule's forecast without a margin (for the percentile rule: its median)."""
    at = 0 if "percentile" in o.model else int(np.argmin(np.abs(baselines.MARGINS - 1)))
    return o.given[:, at]


def _head(o):
    return {"model": o.model, "sample": o.sample, "program": o.program, "composed": o.composed}


def curves(outcomes):
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


def at_rate(curve, rate):
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


def compare(curve, rates=RATES, models=DECIDERS):
    """Compare each model with the best rule, at the same rate of violations on every log.

    Parameters
    ----------
    curve : DataFrame
        Of `curves`.
    rates : sequence of float
    models : sequence of str

    Returns
    -------
    DataFrame
        ``rate``, ``model``, ``best_rule`` (the lowest geometric mean of slack over the programs:
        chosen with hindsight, in its favour), ``programs``, ``lower`` (on how many of them the
        model has less slack), ``slack`` (model over rule, geometric mean) and ``p`` (Wilcoxon's
        signed ranks over programs). Logs of one program are averaged first: they are not
        independent.
    """
    program = curve.drop_duplicates("sample").set_index("sample")["program"]
    rows = []
    for rate in rates:
        logs = np.log(at_rate(curve, rate).clip(lower=1e-6))
        mean = logs.groupby(program).mean()
        rules = mean[[name for name in mean if name in baselines.BASELINES]].dropna(axis=1)
        if rules.empty:
            continue  # no rule keeps to this rate on every program
        best = rules.mean().idxmin()
        for model in (name for name in models if name in mean):
            test = metrics.paired(np.exp(mean[model]), np.exp(mean[best]))
            rows.append(
                {"rate": rate, "model": model, "best_rule": best, "programs": test["pairs"],
                 "lower": test["lower"], "slack": test["ratio"], "p": test["p"]}
            )  # fmt: skip
    columns = ["rate", "model", "best_rule", "programs", "lower", "slack", "p"]
    return pd.DataFrame(rows, columns=columns)


def deployed(outcomes, rate=0.05):
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
        knob = fixed.get(model, good.min() if len(good) else missed.index.max())
        rows.append(held[held["knob"] == knob])
    return pd.concat(rows, ignore_index=True)


def _quantile_knob(rate):
    lower = int((baselines.MARGINS < 1).sum())
    return lower + int(np.argmin(np.abs(TAUS - (1 - rate))))
