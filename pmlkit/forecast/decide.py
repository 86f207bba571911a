# SPDX-License-Identifier: Apache-2.0
"""From quantiles to an allocation: the one that is expected to cost least.

To keep to a rate of violations with as little slack as possible, the rate need not be the same in
every window. What a window more without a violation costs in slack differs: where a forecast has a
long tail, it is much. So an allocation a minimises E[max(a - Y, 0)] + price P(Y > a) under the
forecast distribution of Y, and the price, the same for all windows of a log relative to its size,
is the knob (a Lagrange multiplier; Autopilot, EuroSys'20, section 3.2.2, weighs over- and underruns
likewise). Such a decision spends its violations where they save most, which may be in the largest
peaks: look at the shortfall beside the violations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

if TYPE_CHECKING:
    from pmlkit.types import Floats


__all__ = ["PRICES", "at_levels", "by_price", "scenarios"]

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
