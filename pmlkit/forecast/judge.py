# SPDX-License-Identifier: Apache-2.0
"""Judge a back-test: losses, what decisions cost at equal violations, and whether it is chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pmlkit.forecast import baselines, metrics
from pmlkit.forecast.backtest import BY_PRICE, DECIDERS, TAUS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.forecast.backtest import Outcome
    from pmlkit.types import Floats

__all__ = ["RATES", "compare", "curves", "deployed", "interval", "relative", "scores"]

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
