# SPDX-License-Identifier: Apache-2.0
"""Means of absolute errors: of a normal around a bias, and of the count of a random sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln, ndtr

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pmlkit.types import Floats

__all__ = ["NORMAL", "combined", "mean_abs", "sample_error", "sample_quantiles"]

NORMAL = float(np.sqrt(2 / np.pi))  # mean absolute deviation of a normal, in standard deviations


def mean_abs(mean: ArrayLike, sd: ArrayLike) -> Floats:
    """Return E |X| of a normal X, the mean of a folded normal.

    ``sd sqrt(2/pi) exp(-mean^2 / (2 sd^2)) + mean (1 - 2 Phi(-mean / sd))``: Leone, Nelson and
    Nottingham, Technometrics 3(4), 1961. With ``sd = 0`` it is ``|mean|``.
    """
    mean, sd = np.broadcast_arrays(np.asarray(mean, float), np.asarray(sd, float))
    some = np.where(sd > 0, sd, 1.0)
    ratio = mean / some
    folded = some * NORMAL * np.exp(-(ratio**2) / 2) + mean * (1 - 2 * ndtr(-ratio))
    return np.where(sd > 0, folded, np.abs(mean))


def combined(staleness: ArrayLike, sampling: ArrayLike, bias: ArrayLike) -> Floats:
    """Return the combined error of three parts, each a share of W.

    Two mean absolute errors of independent noises combine to ``sqrt(a^2 + b^2)`` if both have the
    same shape. A bias shifts the sum: `mean_abs`. The result is exact if only one part is present.

    Parameters
    ----------
    staleness, sampling : float
        Mean absolute errors.
    bias : float
        Mean of V - W, signed.
    """
    return mean_abs(bias, np.hypot(staleness, sampling) / NORMAL)


def sample_error(pages: ArrayLike, memory: int, watched: int, again: bool = False) -> Floats:
    """Return the mean absolute error of the working set of a sample, in pages.

    ``E |X - E X|`` of the count X, times M / n. For n draws with replacement, De Moivre's form is
    ``2 v (1 - p) P(X = v)``, where v is the first count above the mean (Diaconis and Zabell, Closed
    form summation for classical distributions, Statistical Science 6(3), 1991). Without
    replacement, with K of the M frames in use, it is ``2 v (M - K - n + v) / M P(X = v)`` by the
    same sum.

    Parameters
    ----------
    pages : array of float, shape (times,)
        Pages in use at each time, rounded because the formula is for counts.
    memory, watched : int
        M and n.

    Returns
    -------
    ndarray of float64, shape (times,)
    """
    used = np.clip(np.rint(np.asarray(pages, float)), 0, memory)
    n = min(watched, memory) if not again else watched
    v = np.floor(n * used / memory) + 1
    possible = (used > 0) & (used < memory) & (v <= n) & (v <= used if not again else True)
    count, inside = np.where(possible, v, 1.0), np.where(possible, used, 1.0)
    if again:
        p = inside / max(memory, 2)
        log_p = _log_choose(n, count) + count * np.log(p) + (n - count) * np.log1p(-p)
        rest = 1 - p
    else:
        rest = (memory - inside - n + count) / memory
        possible &= rest > 0
        outside = np.where(possible, memory - inside, memory - 1.0)
        drawn_outside = np.where(possible, n - count, 0.0)
        log_p = _log_choose(inside, count) + _log_choose(outside, drawn_outside)
        log_p = log_p - _log_choose(memory, n)
    deviation = 2 * count * rest * np.exp(np.where(possible, log_p, 0.0))
    return np.where(possible, deviation, 0.0) * memory / n


def sample_quantiles(
    pages: float, memory: int, watched: int, shares: Floats, again: bool = False
) -> Floats:
    """Return quantiles of the error of the working set of a sample, in pages, signed.

    Parameters
    ----------
    shares : array of float, shape (quantiles,)
        Each from 0 to 1.
    """
    from scipy.stats import binom, hypergeom

    used = int(np.clip(np.rint(pages), 0, memory))
    if again:
        counts = binom(watched, used / memory).ppf(shares)
    else:
        counts = hypergeom(memory, used, watched).ppf(shares)
    return counts * memory / watched - used


def _log_choose(n: ArrayLike, k: ArrayLike) -> Floats:
    n, k = np.asarray(n, float), np.asarray(k, float)
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
