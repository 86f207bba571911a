# SPDX-License-Identifier: Apache-2.0
"""Conformal calibration: shift quantiles until they cover what they say.

*Split*: the quantile of a level tau is shifted by the tau-quantile of the scores y - forecast, on
data that the model was not fitted to (Romano, Patterson, Candes 2019, "Conformalized quantile
regression", NeurIPS; one-sided). That holds for data like that of the calibration, which another
program's is not. *Online*: while the forecasts are in use, each window that ends above its quantile
moves the shift up by eta tau, each other one down by eta (1 - tau) (Gibbs and Candes 2021,
"Adaptive conformal inference under distribution shift", NeurIPS; as the quantile tracker of
Angelopoulos, Candes, Tibshirani 2023, "Conformal PID control", NeurIPS). Over n windows the
coverage is then within (range of the scores + eta) / (eta n) of tau, whatever the data does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.types import Floats


__all__ = ["split_shift", "track"]


def split_shift(scores: Floats, taus: Floats) -> Floats:
    """Return the shift of each quantile out of calibration scores.

    Parameters
    ----------
    scores : array of float, shape (n, quantiles)
        y - forecast, on calibration data.
    taus : array of float, shape (quantiles,)

    Returns
    -------
    ndarray of float, shape (quantiles,)
        The ceil((n + 1) tau)-th smallest score; the largest, where n is too small for that.
    """
    scores = np.sort(np.asarray(scores, float), axis=0)
    n = len(scores)
    rank = np.minimum(np.ceil((n + 1) * np.asarray(taus)).astype(int), n) - 1
    return scores[rank, np.arange(scores.shape[1])]


def track(
    y: Floats, forecast: Floats, taus: Floats, horizon: int, eta: Any, shift: Floats | None = None
) -> Floats:
    """Shift the quantiles of one log online: each forecast by what was known when it was made.

    Parameters
    ----------
    y : array of float, shape (n,)
        The outcomes; entry t is known `horizon` windows after the forecast t. NaN: never.
    forecast : array of float, shape (n, quantiles)
    taus : array of float, shape (quantiles,)
    horizon : int
    eta : float or array of float, shape (quantiles,)
        How far a miss moves the shift, in units of `y`.
    shift : array of float, shape (quantiles,), optional
        To begin with; zeros by default.

    Returns
    -------
    ndarray of float, shape (n, quantiles)
        Shifted, and rising from left to right.
    """
    y, taus = np.asarray(y, float), np.asarray(taus, float)
    shift = np.zeros(len(taus)) if shift is None else np.array(shift, float)
    shifted = np.empty_like(np.asarray(forecast, float))
    for t in range(len(y)):
        known = t - horizon
        if known >= 0 and np.isfinite(y[known]):
            missed = y[known] > shifted[known]
            shift = shift + eta * (missed - (1 - taus))
        shifted[t] = forecast[t] + shift
    return np.sort(shifted, axis=1)
