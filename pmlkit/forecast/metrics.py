# SPDX-License-Identifier: Apache-2.0
"""Losses of quantile forecasts, and the costs of the allocations that follow from them.

An allocation is decided h windows before the window that it applies to. A window's use beyond the
allocation is its *shortfall*, an allocation beyond the use is *slack*. A window with a shortfall is
a *violation*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

if TYPE_CHECKING:
    from pmlkit.types import Bools, Floats, Json

__all__ = [
    "LEVELS",
    "PRICES",
    "at_levels",
    "cheapest",
    "coverage",
    "mape",
    "idle_and_short",
    "pinball",
    "runs",
    "scenarios",
]


def pinball(y: Floats, forecast: Floats, tau: float) -> float:
    """Return the mean pinball loss max(tau e, (tau - 1) e), e = y - forecast (Koenker, Bassett)."""
    e = np.asarray(y, float) - np.asarray(forecast, float)
    return float(np.mean(np.maximum(tau * e, (tau - 1) * e)))


def coverage(y: Floats, forecast: Floats) -> float:
    """Return the share of values y that are not above the forecast."""
    return float(np.mean(np.asarray(y) <= np.asarray(forecast)))


def mape(y: Floats, forecast: Floats) -> float:
    """Return the mean absolute percentage error where y > 0; NaN if y is never above 0."""
    y, forecast = np.asarray(y, float), np.asarray(forecast, float)
    used = y > 0
    return float(100 * np.mean(np.abs(forecast - y)[used] / y[used])) if used.any() else np.nan


def runs(missed: Bools) -> Json:
    """Describe the runs of violations: consecutive windows with a violation each.

    If windows fail independently by chance, ``again`` equals ``rate``.

    Parameters
    ----------
    missed : array of bool, shape (n,)
        Whether each window has a violation, in chronological order.

    Returns
    -------
    dict
        ``violations``: the share of the windows. ``again``: the share of violations followed by
        another, P(violation | one before); NaN without any. ``run``: the mean length of a run,
        windows; NaN without any. ``longest``: the length of the longest run, 0 without any.
    """
    missed = np.asarray(missed, bool)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], missed, [False])).astype(int)))
    lengths = edges[1::2] - edges[::2]
    before = missed[:-1]
    return {
        "violations": float(missed.mean()),
        "again": float(missed[1:][before].mean()) if before.any() else np.nan,
        "run": float(lengths.mean()) if len(lengths) else np.nan,
        "longest": int(lengths.max(initial=0)),
    }


def idle_and_short(y: Floats, allocation: Floats, rate: float) -> Json:
    """Return the waste and the shortage of an allocation, relative to the use.

    Parameters
    ----------
    y, allocation : array of float, shape (n,)
        Pages used, and pages allocated.
    rate : float
        Allowed rate of violations.

    Returns
    -------
    dict
        ``idle``: pages allocated but not used, over the pages used. ``short``: pages used but not
        allocated, over the pages used. ``cost``: idle + (1 - rate) / rate * short. This is the
        pinball loss of the quantile 1 - rate, in other units. Its minimum is reached by the true
        quantile (Koenker and Bassett 1978).
    """
    y, allocation = np.asarray(y, float), np.asarray(allocation, float)
    used = max(float(y.sum()), 1.0)
    idle = float(np.maximum(allocation - y, 0).sum()) / used
    short = float(np.maximum(y - allocation, 0).sum()) / used
    return {"idle": idle, "short": short, "cost": idle + (1 - rate) / rate * short}


# ------------------------------------------------------------------------------
# From quantiles to an allocation: the one of least expected cost.
#
# For a given rate of violations, slack is least if the rate differs between windows.
# Avoiding a violation costs much slack where the forecast has a long tail. An allocation a
# therefore minimises E[max(a - Y, 0)] + price P(Y > a) under the forecast distribution of Y. The
# price is the knob (a Lagrange multiplier), the same for all windows of a log relative to its size.
# Autopilot (EuroSys'20, section 3.2.2) weighs over- and underruns likewise. Violations fall where
# they save most, which may be in the largest peaks: consider the shortfall, too.

PRICES = np.geomspace(0.02, 400, 60)  # relative to the mean of the log's own past
LEVELS = (np.arange(100) + 0.5) / 100


def scenarios(taus: Floats, quantiles: Floats) -> Floats:
    """Return 100 equally likely values of a distribution, ascending, from some quantiles.

    Shapes and interpolation as in `at_levels`.
    """
    return np.maximum(np.sort(at_levels(taus, quantiles, LEVELS), axis=1), 0)


def at_levels(taus: Floats, quantiles: Floats, levels: Floats) -> Floats:
    """Interpolate quantiles of a distribution at other levels.

    Parameters
    ----------
    taus : array of float, shape (quantiles,)
    quantiles : array of float, shape (n, quantiles)
        Pages.
    levels : array of float, shape (levels,)

    Returns
    -------
    ndarray of float, shape (n, levels)
        Pages. The logarithm is interpolated and extrapolated linearly in the normal quantile.
    """
    logs, known, wanted = np.log1p(quantiles), norm.ppf(taus), norm.ppf(levels)
    right = np.clip(np.searchsorted(known, wanted), 1, len(known) - 1)
    share = (wanted - known[right - 1]) / (known[right] - known[right - 1])
    return np.expm1(logs[:, right - 1] * (1 - share) + logs[:, right] * share)


def cheapest(values: Floats, size: Floats, prices: Floats = PRICES) -> Floats:
    """Return the allocations with the lowest expected cost.

    Parameters
    ----------
    values : array of float, shape (n, values)
        Equally likely outcomes from `scenarios`, in ascending order, pages.
    size : array of float, shape (n,)
        Pages that prices are relative to: the mean of the log's own past.
    prices : array of float, shape (knobs,)
        Prices of a violation.

    Returns
    -------
    ndarray of float, shape (n, knobs)
        Pages, in ascending order from left to right.
    """
    count = values.shape[1]
    below = np.cumsum(values, axis=1) - values
    # Expected slack and probability of a violation if the i-th value is allocated.
    slack = (values * np.arange(count) - below) / count
    missed = 1 - (np.arange(count) + 1) / count
    allocations = np.empty((len(values), len(prices)))
    for knob, price in enumerate(prices):
        best = np.argmin(slack + price * size[:, None] * missed, axis=1)
        allocations[:, knob] = values[np.arange(len(values)), best]
    return np.maximum.accumulate(allocations, axis=1)
