# SPDX-License-Identifier: Apache-2.0
"""Resampling: draws with replacement, of single values or of blocks, and intervals from them.

Values that are independent of one another (programs, recordings, repeats) are drawn one by one
(Efron 1979). The values of a series are not independent: working sets of one window and of the next
are alike. `Series` draws blocks of consecutive values, so that similar values stay together (the
moving-block bootstrap of Künsch 1989, on a circle as Politis and Romano 1992).

A short series of slow changes holds few independent values, and no method can make an interval of
them. `Series.independent` estimates their number; callers refuse an interval where it is low.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pmlkit.types import Floats, Ints

__all__ = ["Series", "bootstrap", "drawn", "ends"]

FEW = 10  # values, below which an interval of 95 % holds in less than nine cases of ten
BLOCKS = 6  # of a series, at most: with fewer, longer blocks, intervals are valid more often


def drawn(n: int, draws: int, seed: int = 0) -> Ints:
    """Return which of `n` values are in each of `draws` resamples: (draws, n)."""
    return np.random.default_rng(seed).integers(0, n, (draws, n))


def ends(values: Floats, level: float = 0.95, method: str = "linear") -> tuple[float, float]:
    """Return the ends of the interval that holds a share `level` of resampled values.

    Parameters
    ----------
    values : ndarray of float64, shape (draws,)
    method : str
        As in `numpy.quantile`; with ``"inverted_cdf"``, values may be infinite.
    """
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail], method=method)  # type: ignore[call-overload]
    return float(low), float(high)


def bootstrap(
    values: Floats, statistic: Callable[..., Any] = np.mean, draws: int = 4000
) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a statistic of independent values.

    NaN values are omitted. A single value gives no information about others: its ends are NaN. With
    fewer than `FEW` values the interval is too narrow: of three, it holds in three cases of four.

    Parameters
    ----------
    values : array of float, shape (n,)
    statistic : callable
        Called with an array and ``axis``.
    draws : int
        Number of resamples.

    Examples
    --------
    >>> bootstrap([1.0, 2.0, 9.0], np.median)
    (1.0, 9.0)
    """
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return np.nan, np.nan
    return ends(statistic(values[drawn(len(values), draws)], axis=1))


@dataclass(frozen=True)
class Series:
    """A series of values at equal steps of time, to be drawn in blocks.

    Attributes
    ----------
    values : ndarray of float64, shape (n,)
    fitted : int
        Number of means that were taken off the values (1: one for all).
    least : int
        The shortest block, in values: windows that overlap are alike over at least one T.
    """

    values: Floats
    fitted: int = 1
    least: int = 1

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def independent(self) -> float:
        """The number of independent values that give an equally precise mean: n (1 - r) / (1 + r).

        r is the correlation of neighbours (`least` values apart), with Kendall's (1954) correction
        for its bias in short series.
        """
        values, apart = self.values[:: self.least], len(self.values[:: self.least])
        values = values - values.mean() if apart else values
        total = float(values @ values)
        if apart < 2 or total == 0:
            return float(apart)
        r = float(values[:-1] @ values[1:]) / total
        r = min(max(r + (1 + 4 * max(r, 0.0)) / apart, 0.0), 0.999)
        return apart * (1 - r) / (1 + r)

    @cached_property
    def block(self) -> int:
        """The length of a block: by Politis and White, `least`, or n / `BLOCKS` if that is longer.

        It is n at most.
        """
        n = len(self)
        return max(min(max(_politis_white(self.values), self.least, n // BLOCKS), n), 1)

    @property
    def blocks(self) -> float:
        """The number of blocks in a resample."""
        return len(self) / self.block

    @property
    def widening(self) -> float:
        """The factor by which deviations of resamples are widened, as there are few blocks.

        Student's t in place of the normal distribution, with a degree of freedom less than there
        are blocks, and unbiased variances of blocks and of `fitted` means. Infinite for one block.
        """
        from scipy.special import stdtrit

        n, freedom = len(self), self.blocks - 1
        if freedom <= 0 or n <= self.fitted:
            return np.inf
        unbiased = np.sqrt((freedom + 1) / freedom * n / (n - self.fitted))
        return float(unbiased * stdtrit(freedom, 0.975) / 1.959964)

    def resamples(self, draws: int, seed: int = 0) -> Ints:
        """Return which values are in each resample, in blocks: (draws, n)."""
        n, length = len(self), self.block
        starts = np.random.default_rng(seed).integers(0, n, (draws, -(-n // length)))
        places = (starts[:, :, None] + np.arange(length)) % n
        return places.reshape(draws, -1)[:, :n]


def _politis_white(values: Floats) -> int:
    """Return the block length of Politis and White (2004) for the mean, on a circle.

    As corrected by Patton, Politis and White (2009): (2 g² / d)^(1/3) n^(1/3), where g and d are
    sums of autocovariances under a flat-top window, up to twice the lag at which correlations end.
    """
    n = len(values)
    if n < 4:
        return 1
    centred = values - values.mean()
    few = max(5, int(np.ceil(np.log10(n))))
    last = min(int(np.ceil(np.sqrt(n))) + few, n - 1)
    covariances = np.array([centred[: n - k] @ centred[k:] for k in range(last + 1)]) / n
    if covariances[0] <= 0:
        return 1
    large = np.abs(covariances[1:] / covariances[0]) >= 2 * np.sqrt(np.log10(n) / n)
    ended = [k for k in range(len(large) - few + 1) if not large[k : k + few].any()]
    lag = ended[0] if ended else int(np.flatnonzero(large)[-1]) + 1 if large.any() else 1
    reach = min(2 * max(lag, 1), last)
    lags = np.arange(-reach, reach + 1)
    weighted = np.clip(2 * (1 - np.abs(lags) / reach), 0, 1) * covariances[np.abs(lags)]
    g, d = float(np.abs(lags) @ weighted), 4 / 3 * float(weighted.sum()) ** 2
    length = (2 * g * g / d * n) ** (1 / 3) if d > 0 else 1.0
    return int(np.ceil(min(max(length, 1.0), 3 * np.sqrt(n), n / 3)))
