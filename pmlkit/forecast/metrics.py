# SPDX-License-Identifier: Apache-2.0
"""What a forecast is worth: losses of quantiles, and what a decision by it costs.

An allocation is decided h windows before the window that it holds for. What a window uses beyond
it is the *shortfall*, what it has beyond its use is the *slack*; both are counted in MiB*s, and a
window with a shortfall is a *violation*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import norm

if TYPE_CHECKING:
    from pmlkit.types import Floats, Json

__all__ = [
    "PRICES",
    "at_levels",
    "by_price",
    "coverage",
    "decision",
    "mape",
    "matched",
    "paired",
    "pinball",
    "scenarios",
]


MIB_PAGES = 256


def pinball(y: Floats, forecast: Floats, tau: float) -> float:
    """Return the mean pinball loss max(tau e, (tau - 1) e), e = y - forecast (Koenker, Bassett).

    Parameters
    ----------
    y, forecast : array of float, shape (n,)
    tau : float

    Returns
    -------
    float
        In the unit of `y`.
    """
    e = np.asarray(y, float) - np.asarray(forecast, float)
    return float(np.mean(np.maximum(tau * e, (tau - 1) * e)))


def coverage(y: Floats, forecast: Floats) -> float:
    """Return the share of `y` that is not above the forecast, 0 to 1."""
    return float(np.mean(np.asarray(y) <= np.asarray(forecast)))


def mape(y: Floats, forecast: Floats) -> float:
    """Return the mean absolute percentage error, where y > 0; NaN if it is nowhere."""
    y, forecast = np.asarray(y, float), np.asarray(forecast, float)
    there = y > 0
    return float(100 * np.mean(np.abs(forecast - y)[there] / y[there])) if there.any() else np.nan


def decision(y: Floats, allocation: Floats, window_s: float) -> pd.DataFrame:
    """Return what allocations cost.

    Parameters
    ----------
    y : array of float, shape (n,)
        What was used, pages.
    allocation : array of float, shape (n,) or (n, knobs)
        What was given, pages.
    window_s : float
        Length of a window, s.

    Returns
    -------
    DataFrame
        A row per knob: ``violations`` (share of the windows), ``shortfall`` and ``slack`` (MiB*s),
        ``used`` (MiB*s).
    """
    y = np.asarray(y, float)[:, None]
    allocation = np.asarray(allocation, float).reshape(len(y), -1)
    scale = window_s / MIB_PAGES
    return pd.DataFrame(
        {
            "violations": (y > allocation).mean(axis=0),
            "shortfall": np.maximum(y - allocation, 0).sum(axis=0) * scale,
            "slack": np.maximum(allocation - y, 0).sum(axis=0) * scale,
            "used": float(y.sum()) * scale,
        }
    )


def matched(curve: pd.DataFrame, rate: float, column: str = "slack") -> float:
    """Return a column of a trade-off curve at a rate of violations.

    Parameters
    ----------
    curve : DataFrame
        Of `decision`, a row per knob.
    rate : float
        Violations that are allowed.
    column : str

    Returns
    -------
    float
        By linear interpolation between the two knobs around the rate, on the curve's lower hull in
        slack (a rule is not held against its clumsy knobs); NaN if no knob has so few violations.
    """
    points = curve.groupby("violations")[column].min()
    best = points.cummin()  # with more violations allowed, nobody has to have more slack
    x, y = best.index.to_numpy(), best.to_numpy()
    return float(np.interp(rate, x, y)) if x[0] <= rate else np.nan


def paired(ours: Floats, theirs: Floats) -> Json:
    """Test whether `ours` is lower than `theirs`, pair by pair (Wilcoxon's signed ranks).

    Parameters
    ----------
    ours, theirs : array of float, shape (pairs,)

    Returns
    -------
    dict
        ``pairs``, ``lower`` (how many are), ``ratio`` (the geometric mean of ours / theirs) and
        ``p`` (two-sided; with n pairs it cannot be below 2 / 2**n).
    """
    from scipy.stats import wilcoxon

    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    there = np.isfinite(ours) & np.isfinite(theirs) & (ours > 0) & (theirs > 0)
    ratio = np.log(ours[there] / theirs[there])
    moved = np.any(ratio != 0)
    return {
        "pairs": int(there.sum()),
        "lower": int((ratio < 0).sum()),
        "ratio": float(np.exp(ratio.mean())) if there.any() else np.nan,
        "p": float(wilcoxon(ratio).pvalue) if moved else 1.0,
    }


# ------------------------------------------------------------------------------
# From quantiles to an allocation: the one that is expected to cost least.
#
# To keep to a rate of violations with as little slack as possible, the rate need not be the same
# in every window. What a window more without a violation costs in slack differs: where a forecast
# has a long tail, it is much. So an allocation a minimises E[max(a - Y, 0)] + price P(Y > a)
# under the forecast distribution of Y, and the price, the same for all windows of a log relative
# to its size, is the knob (a Lagrange multiplier; Autopilot, EuroSys'20, section 3.2.2, weighs
# over- and underruns likewise). Such a decision spends its violations where they save most, which
# may be in the largest peaks: look at the shortfall beside the violations.


PRICES = np.geomspace(0.02, 400, 60)  # times the mean of the log's own past
LEVELS = (np.arange(100) + 0.5) / 100


def scenarios(taus: Floats, quantiles: Floats) -> Floats:
    """Return equally likely values of a distribution that is known by some quantiles.

    Parameters
    ----------
    taus : array of float, shape (quantiles,)
    quantiles : array of float, shape (n, quantiles)
        Pages.

    Returns
    -------
    ndarray of float, shape (n, 100)
        Pages, rising; as `at_levels`.
    """
    return np.maximum(np.sort(at_levels(taus, quantiles, LEVELS), axis=1), 0)


def at_levels(taus: Floats, quantiles: Floats, levels: Floats) -> Floats:
    """Return the quantiles at some levels of a distribution that is known by others.

    Parameters
    ----------
    taus : array of float, shape (quantiles,)
    quantiles : array of float, shape (n, quantiles)
        Pages.
    levels : array of float, shape (levels,)

    Returns
    -------
    ndarray of float, shape (n, levels)
        Pages; between two quantiles, and beyond the last ones, the logarithm is interpolated along
        the normal distribution's.
    """
    logs, at, wanted = np.log1p(quantiles), norm.ppf(taus), norm.ppf(levels)
    right = np.clip(np.searchsorted(at, wanted), 1, len(at) - 1)
    share = (wanted - at[right - 1]) / (at[right] - at[right - 1])
    return np.expm1(logs[:, right - 1] * (1 - share) + logs[:, right] * share)


def by_price(values: Floats, size: Floats, prices: Floats = PRICES) -> Floats:
    """Return the allocations that cost least in expectation.

    Parameters
    ----------
    values : array of float, shape (n, values)
        Equally likely outcomes, rising, pages: of `scenarios`.
    size : array of float, shape (n,)
        What prices are relative to, pages: of the log's own past.
    prices : array of float, shape (knobs,)
        Of a violation.

    Returns
    -------
    ndarray of float, shape (n, knobs)
        Pages; the more careful to the right.
    """
    count = values.shape[1]
    below = np.cumsum(values, axis=1) - values
    # Expected slack and probability of a violation of giving the i-th value.
    slack = (values * np.arange(count) - below) / count
    missed = 1 - (np.arange(count) + 1) / count
    given = np.empty((len(values), len(prices)))
    for knob, price in enumerate(prices):
        best = np.argmin(slack + price * size[:, None] * missed, axis=1)
        given[:, knob] = values[np.arange(len(values)), best]
    return np.maximum.accumulate(given, axis=1)
