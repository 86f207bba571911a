# SPDX-License-Identifier: Apache-2.0
"""Change points and phases of a series of working sets, found by ruptures (kernel PELT).

Truong, Oudre, Vayatis (2020), "Selective review of offline change point detection methods", Signal
Processing 167; the exact search is PELT: Killick, Fearnhead, Eckley (2012), JASA 107.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.types import Floats, Ints


__all__ = ["phases", "points", "since_change"]

LOOK_BACK = 48  # windows that the causal detection looks at
PENALTY = 3.0  # times the noise's variance and the logarithm of the length


def points(series: Floats, min_size: int = 3, penalty: float = PENALTY) -> Ints:
    """Return where a series changes its level.

    Parameters
    ----------
    series : array of float, shape (n,)
    min_size : int
        Least length of a segment.
    penalty : float
        What a change point has to save, in units of the noise's variance times ln(n). The noise is
        estimated by the median of the absolute steps, which a few changes of level do not move.

    Returns
    -------
    ndarray of int
        Index of the first value of each segment but the first.
    """
    import ruptures

    series = np.asarray(series, float)
    if len(series) < 2 * min_size or np.ptp(series) == 0:
        return np.zeros(0, int)
    # The scale is at least a hundredth of the range: most steps of a quiet guest are exactly 0.
    steps = np.abs(np.diff(series))
    scale = max(np.median(steps) / 0.6745 / np.sqrt(2), np.ptp(series) / 100)
    found = ruptures.KernelCPD(kernel="linear", min_size=min_size).fit(series[:, None] / scale)
    return np.array(found.predict(pen=penalty * np.log(len(series)))[:-1], int)


def phases(series: Floats, **how: Any) -> pd.DataFrame:
    """Return the segments between the change points.

    Parameters
    ----------
    series : array of float, shape (n,)
    **how
        As in `points`.

    Returns
    -------
    DataFrame
        ``start`` and ``stop`` (indices; stop exclusive) and ``mean`` of each segment.
    """
    series = np.asarray(series, float)
    edges = [0, *points(series, **how), len(series)]
    spans = list(zip(edges[:-1], edges[1:], strict=True))
    rows = [(start, stop, series[start:stop].mean()) for start, stop in spans if stop > start]
    return pd.DataFrame(rows, columns=["start", "stop", "mean"])


def since_change(series: Floats, look_back: int = LOOK_BACK) -> Ints:
    """Return, for each value, how many values ago the level changed last, as seen at that time.

    Parameters
    ----------
    series : array of float, shape (n,)
    look_back : int
        Only so many last values are looked at; it is also the answer if they show no change.

    Returns
    -------
    ndarray of int, shape (n,)
    """
    series = np.asarray(series, float)
    ages = np.empty(len(series), int)
    for end in range(1, len(series) + 1):
        past = series[max(end - look_back, 0) : end]
        changes = points(past, min_size=2)
        ages[end - 1] = len(past) - changes[-1] if len(changes) else min(end, look_back)
    return ages
