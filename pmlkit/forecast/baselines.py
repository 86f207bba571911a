# SPDX-License-Identifier: Apache-2.0
"""What a forecast has to beat: simple rules on the series of working sets.

Each takes the series and says, at the end of each window, what it would give the guest; it looks at
nothing later. A margin (`MARGINS`) times that is how each is made more or less careful.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pmlkit.types import Array, Floats, Ints


__all__ = ["BASELINES", "MARGINS", "QUANTILES", "Vpa", "forecast"]

# Half of the forecast to 64 times it: also a rule that is far too low can be made careful.
MARGINS = np.geomspace(0.5, 64, 57)
QUANTILES = np.array([0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995])


def last(pages: Array, horizon: int) -> Floats:
    """Give what was used last."""
    return pages.astype(float)


def max_of(k: int) -> Callable[..., Any]:
    """Make the rule that gives the largest of the last `k` windows."""

    def rule(pages: Array, horizon: int) -> Floats:
        return pd.Series(pages).rolling(k, min_periods=1).max().to_numpy(float)

    rule.__doc__ = f"Give the largest of the last {k} windows."
    return rule


def ewma(halflife: int) -> Callable[..., Any]:
    """Make the rule that gives an exponentially weighted mean; half-life in windows."""

    def rule(pages: Array, horizon: int) -> Floats:
        return pd.Series(pages, dtype=float).ewm(halflife=halflife).mean().to_numpy()

    rule.__doc__ = f"Give the weighted mean, half-life {halflife} windows."
    return rule


def seasonal(pages: Array, horizon: int, longest: int = 192) -> Floats:
    """Give what was used one season before the window that is forecast.

    The season is the lag, from twice the horizon on, at which the past resembles itself most (the
    peak of its autocorrelation); it is looked for again every 16 windows. Before there is enough
    of a past, the last value is given.
    """
    values = np.log1p(np.asarray(pages, float))
    found, season = np.asarray(pages, float).copy(), None
    for t in range(len(values)):
        if t % 16 == 0:
            season = _season(values[max(t - 4 * longest, 0) : t + 1], 2 * horizon, longest)
        if season is not None:
            found[t] = pages[t + horizon - season]
    return found


def _season(past: Floats, shortest: int, longest: int) -> int | None:
    longest = min(longest, len(past) // 2)
    if longest <= shortest:
        return None
    x = past - past.mean()
    if not x.any():
        return None
    size = 1 << int(2 * len(x)).bit_length()
    spectrum = np.fft.rfft(x, size)
    lags = np.fft.irfft(spectrum * spectrum.conj(), size)[shortest : longest + 1]
    lags /= len(x) - np.arange(shortest, longest + 1)
    return shortest + int(np.argmax(lags))


@dataclass(frozen=True)
class Vpa:
    """The Kubernetes Vertical Pod Autoscaler's recommendation for memory.

    A histogram of the peaks of intervals, whose weights halve each `half_life`; the target is the
    upper end of the bucket that holds the 90th percentile, plus 15 %. The running interval's peak
    so far counts, too. There, the interval and the half-life are 24 hours; buckets grow by 5 %.

    Parameters
    ----------
    interval, half_life : int
        Windows.
    percentile, margin, growth : float
    first_pages : float
        Size of the first bucket. (There: 10 MB, too coarse for a small guest.)
    """

    interval: int = 60
    half_life: int = 60
    percentile: float = 0.9
    margin: float = 0.15
    growth: float = 1.05
    first_pages: float = 16

    def __call__(self, pages: Array, horizon: int) -> Floats:
        """Return the recommendation at the end of each window; arrays as in `forecast`."""
        buckets = self._bucket(np.asarray(pages, float))
        weights = np.zeros(buckets.max() + 1)
        found, peak = np.empty(len(pages)), -1
        for t, bucket in enumerate(buckets):
            if t % self.interval == 0:
                weights *= 0.5 ** (self.interval / self.half_life)
                peak = -1
            if bucket > peak:
                if peak >= 0:
                    weights[peak] -= 1
                weights[bucket] += 1
                peak = bucket
            found[t] = self._percentile(weights) * (1 + self.margin)
        return found

    def _bucket(self, pages: Array) -> Array:
        index = np.log1p(pages * (self.growth - 1) / self.first_pages) / np.log(self.growth)
        return np.floor(index).astype(int)

    def _percentile(self, weights: Floats) -> float:
        total = np.cumsum(weights)
        bucket = int(np.searchsorted(total, self.percentile * total[-1]))
        return self.first_pages * (self.growth ** (bucket + 1) - 1) / (self.growth - 1)


def percentile(span: int) -> Callable[..., Any]:
    """Make the rule that gives the quantiles of the last `span` windows; sweeps them, no margin."""

    def rule(pages: Array, horizon: int) -> Floats:
        past = pd.Series(pages, dtype=float).rolling(span, min_periods=1)
        return np.column_stack([past.quantile(q) for q in QUANTILES])

    rule.__doc__ = f"Give a quantile of the last {span} windows."
    return rule


BASELINES = {
    "last value": last,
    **{f"max of {k}": max_of(k) for k in (4, 16, 64)},
    **{f"EWMA {k}": ewma(k) for k in (2, 8, 32)},
    "seasonal naive": seasonal,
    **{f"VPA {k}": Vpa(k, k) for k in (60, 240)},
    "percentile 96": percentile(96),
}


def forecast(name: str, pages: Ints, horizon: int) -> Floats:
    """Return what a baseline gives at the end of each window, over all margins.

    Parameters
    ----------
    name : str
        One of `BASELINES`.
    pages : array of int, shape (windows,)
        The series of working sets.
    horizon : int
        Windows between the decision and the window that it is for.

    Returns
    -------
    ndarray of float, shape (windows, knobs)
        Pages; the more careful to the right. For the percentile rule the knobs are `QUANTILES` and
        then the margins above 1 of its largest; for the others they are `MARGINS`.
    """
    if name not in BASELINES:
        raise UsageError(f"there is no baseline {name!r}: choose from {', '.join(BASELINES)}")
    found = BASELINES[name](np.asarray(pages), horizon)  # type: ignore[operator]
    if found.ndim == 1:
        return found[:, None] * MARGINS
    return np.column_stack([found, found[:, -1:] * MARGINS[MARGINS > 1]])
