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

if TYPE_CHECKING:
    from pmlkit.types import Floats, Json


__all__ = ["coverage", "decision", "mape", "matched", "paired", "pinball"]

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
