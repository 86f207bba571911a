# SPDX-License-Identifier: Apache-2.0
"""Simple rules on the series of working sets, which a forecast has to beat.

At the end of each window, a rule allocates memory from the series so far. A factor (`MARGINS`)
makes it more or less cautious.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pmlkit.types import Array, Floats, Ints

    # Pages per window and the horizon in windows to pages, shape (windows,) or (windows, knobs).
    Rule = Callable[[Array, int], Floats]

__all__ = ["BASELINES", "MARGINS", "QUANTILES", "Vpa", "extend", "forecast"]

# Up to 64 times: a large margin can correct a rule that is far too low.
MARGINS = np.geomspace(0.5, 64, 57)
LONGEST = 192  # windows of a season
QUANTILES = np.array([0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995])


def last(pages: Array, horizon: int) -> Floats:
    """Allocate the use of the last window."""
    return pages.astype(float)


def max_of(k: int) -> Rule:
    """Create the rule that allocates the largest of the last `k` windows."""

    def rule(pages: Array, horizon: int) -> Floats:
        return pd.Series(pages).rolling(k, min_periods=1).max().to_numpy(float)

    return rule


def ewma(halflife: int) -> Rule:
    """Create the rule that allocates an exponentially weighted mean; half-life in windows."""

    def rule(pages: Array, horizon: int) -> Floats:
        return pd.Series(pages, dtype=float).ewm(halflife=halflife).mean().to_numpy()

    return rule


def seasonal(pages: Array, horizon: int) -> Floats:
    """Allocate the use of one season before the forecast window.

    The season is the lag of the largest autocorrelation, at least twice the horizon. It is
    determined every 16 windows. While the past is too short, the last value is allocated.
    """
    values = np.log1p(np.asarray(pages, float))
    allocation, season = np.asarray(pages, float).copy(), None
    for t in range(len(values)):
        if t % 16 == 0:
            season = _season(values[max(t - 4 * LONGEST, 0) : t + 1], 2 * horizon)
        if season is not None:
            allocation[t] = pages[t + horizon - season]
    return allocation


def _season(past: Floats, shortest: int) -> int | None:
    longest = min(LONGEST, len(past) // 2)
    if longest <= shortest:
        return None
    x = past - past.mean()
    if not x.any():
        return None
    size = 1 << int(2 * len(x)).bit_length()
    spectrum = np.fft.rfft(x, size)
    autocorrelation = np.fft.irfft(spectrum * spectrum.conj(), size)[shortest : longest + 1]
    autocorrelation /= len(x) - np.arange(shortest, longest + 1)
    return shortest + int(np.argmax(autocorrelation))


@dataclass(frozen=True)
class Vpa:
    """The Kubernetes Vertical Pod Autoscaler's recommendation for memory.

    It keeps a histogram of the peaks of intervals, whose weights halve each `half_life`. The target
    is the upper end of the bucket with the 90th percentile, plus 15 %. The present interval's peak
    so far also counts. In Kubernetes, interval and half-life (here in windows) are 24 hours, and
    buckets grow by 5 %. The first bucket is 10 MB, which is too coarse for a small guest.
    """

    interval: int = 60
    half_life: int = 60
    percentile: float = 0.9
    margin: float = 0.15
    growth: float = 1.05
    first_pages: float = 16

    def __call__(self, pages: Array, horizon: int) -> Floats:
        """Return the recommendation at the end of each window."""
        buckets = self._bucket(np.asarray(pages, float))
        weights = np.zeros(buckets.max() + 1)
        target, peak = np.empty(len(pages)), -1
        for t, bucket in enumerate(buckets):
            if t % self.interval == 0:
                weights *= 0.5 ** (self.interval / self.half_life)
                peak = -1
            if bucket > peak:
                if peak >= 0:
                    weights[peak] -= 1
                weights[bucket] += 1
                peak = bucket
            target[t] = self._percentile(weights) * (1 + self.margin)
        return target

    def _bucket(self, pages: Array) -> Array:
        index = np.log1p(pages * (self.growth - 1) / self.first_pages) / np.log(self.growth)
        return np.floor(index).astype(int)

    def _percentile(self, weights: Floats) -> float:
        total = np.cumsum(weights)
        bucket = int(np.searchsorted(total, self.percentile * total[-1]))
        return self.first_pages * (self.growth ** (bucket + 1) - 1) / (self.growth - 1)


def percentile(span: int) -> Rule:
    """Create the rule whose knobs are quantiles of the last `span` windows."""

    def rule(pages: Array, horizon: int) -> Floats:
        past = pd.Series(pages, dtype=float).rolling(span, min_periods=1)
        return np.column_stack([past.quantile(q) for q in QUANTILES])

    return rule


BASELINES: dict[str, Rule] = {
    "last value": last,
    **{f"max of {k}": max_of(k) for k in (4, 16, 64)},
    **{f"EWMA {k}": ewma(k) for k in (2, 8, 32)},
    "seasonal naive": seasonal,
    **{f"VPA {k}": Vpa(k, k) for k in (60, 240)},
    "percentile 96": percentile(96),
}


def forecast(name: str, pages: Ints, horizon: int) -> Floats:
    """Return the allocations of a baseline at the end of each window, for all margins.

    Parameters
    ----------
    name : str
        One of `BASELINES`.
    pages : array of int, shape (windows,)
        The series of working sets.
    horizon : int
        Number of windows from the decision to the window that it applies to.

    Returns
    -------
    ndarray of float, shape (windows, knobs)
        Pages, in ascending order from left to right. The knobs are `MARGINS`. For the percentile
        rule they are `QUANTILES`, and margins above 1 of the largest quantile.
    """
    if name not in BASELINES:
        raise UsageError(f"there is no baseline {name!r}: choose from {', '.join(BASELINES)}")
    allocation = BASELINES[name](np.asarray(pages), horizon)
    return allocation[:, None] * MARGINS if allocation.ndim == 1 else extend(allocation)


def extend(allocations: Floats) -> Floats:
    """Append the last knob, multiplied by the margins above 1, as further knobs."""
    return np.column_stack([allocations, allocations[:, -1:] * MARGINS[MARGINS > 1]])
