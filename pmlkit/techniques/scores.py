# SPDX-License-Identifier: Apache-2.0
"""The ground truth, Denning's W(t, T) of the recording, and the criteria of Nitu et al.

Accuracy is bias, MAPE and the 95th percentile of the error. Reactivity is the number of windows
until an estimate is within 10 % of the new level after a step up, or down. Overhead comes from
`pmlkit.costs`; intrusiveness and activeness are attributes of the technique.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.kernels.by_page import sliding
from pmlkit.resampling import bootstrap
from pmlkit.timeline import Axis, Windows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pmlkit.techniques.recorded import Recorded
    from pmlkit.types import Bools, Floats, Ints


__all__ = ["Step", "Truth", "accuracy", "interval", "reactivity", "resampled", "truth", "within"]

WITHIN = 0.1  # a step is followed if the estimate is within this share of the new level
STEP = 0.25  # least change of a step, as a share of the larger level
RESAMPLES = 2000
_FOREVER = (1 << 63) - 1


@dataclass(frozen=True)
class Step:
    """A step at ``t_ns``, from ``before`` to ``after`` pages; the level lasts until ``end_ns``."""

    t_ns: int
    end_ns: int
    before: float
    after: float

    @property
    def up(self) -> bool:
        return self.after > self.before


@dataclass(frozen=True)
class Truth:
    """The working set of the recording.

    Attributes
    ----------
    t_ns : ndarray of int64, shape (instants,)
        Ends of rounds, ns since the recording's start, each time once.
    pages : ndarray of int64, shape (instants,)
        W(t, T).
    window_ns : int
        T.
    steps : list of Step
    start_ns, end_ns : int
        The part that is scored: windows T within it.
    """

    t_ns: Ints
    pages: Ints
    window_ns: int
    steps: list[Step]
    start_ns: int = 0
    end_ns: int = _FOREVER

    @property
    def scored(self) -> Bools:
        """Whether the window T that ends with a round is scored (bool, shape (instants,))."""
        return (self.t_ns >= self.start_ns + self.window_ns) & (self.t_ns <= self.end_ns)


def truth(recorded: Recorded, window_ns: int) -> Truth:
    """Measure W(t, T) at the end of each round, and find its steps.

    W(t, T) contains the pages of the rounds that end in (t - T, t].

    A step is a phase's start at which the level changes by a quarter or more. A level is the median
    of W over a phase, from T after its start, when windows contain that phase only. A phase shorter
    than T has no level.
    """
    axis = Axis(recorded.t_ns[1:] - recorded.t_ns[0], recorded.resolution_ns)
    t_ns = axis.at[axis.last_of_instants]
    pages = sliding(recorded.occurrences(), Windows.on(axis.at, window_ns, t_ns))
    starts = [int(recorded.t_ns[r] - recorded.t_ns[0]) for _, r in recorded.phases]
    spans = list(zip(starts, [*starts[1:], int(t_ns[-1])], strict=True)) if starts else []
    levels = []
    for low, high in spans:
        inside = (t_ns >= low + window_ns) & (t_ns < high)
        if inside.any():
            levels.append((low, high, float(np.median(pages[inside]))))
    steps = [
        Step(low, high, before, after)
        for (_, edge, before), (low, high, after) in zip(levels, levels[1:], strict=False)
        if low == edge and abs(after - before) > STEP * max(after, before)
    ]
    return Truth(t_ns, pages, window_ns, steps)


def within(truth: Truth, start_ns: int, end_ns: int) -> Truth:
    """Return W of the whole recording, with only the part between two times scored.

    A step counts if the step and more than T of the following time are in the part. Estimates may
    follow it until its phase or the part ends; its levels are those of the whole phases. Times are
    since the recording's start.
    """
    cut = [replace(step, end_ns=min(step.end_ns, end_ns)) for step in truth.steps]
    steps = [s for s in cut if s.t_ns >= start_ns and s.end_ns - s.t_ns > truth.window_ns]
    return replace(truth, steps=steps, start_ns=start_ns, end_ns=end_ns)


def at(estimates: pd.DataFrame, t_ns: Ints) -> Floats:
    """Return the latest estimate at the times `t_ns`, NaN before any."""
    index = np.searchsorted(estimates["t_ns"].to_numpy(), t_ns, "right") - 1
    pages = np.append(estimates["pages"].to_numpy(), np.nan)
    return pages[index]


def accuracy(estimates: pd.DataFrame, truth: Truth) -> dict[str, float]:
    """Compare estimates (``t_ns``, ``pages``) with the truth at the ends of scored rounds.

    The weight of a comparison is the length of its round.

    Returns
    -------
    dict
        ``bias``: mean error, as a share of the mean truth. ``mae``: mean absolute error, as a share
        of the mean truth. ``mape``: mean absolute error, each as a share of the truth at that time;
        moments with few pages weigh most, and those without pages do not count. ``p95``: 95th
        percentile of the same. ``says``: share of the time with an estimate. NaN if there is no
        estimate while pages are used.
    """
    scored = truth.scored
    weights = np.diff(truth.t_ns, prepend=0)[scored].astype(float)
    true = truth.pages[scored].astype(float)
    error = at(estimates, truth.t_ns[scored]) - true
    estimated = ~np.isnan(error)
    says = float(weights[estimated].sum() / weights.sum()) if len(weights) else 0.0
    error, true, weights = error[estimated], true[estimated], weights[estimated]
    if not true.any():
        return {"bias": np.nan, "mae": np.nan, "mape": np.nan, "p95": np.nan, "says": says}
    mean, used = np.average(true, weights=weights), true > 0
    relative, some = np.abs(error[used]) / true[used], weights[used]
    return {
        "bias": float(np.average(error, weights=weights) / mean),
        "mae": float(np.average(np.abs(error), weights=weights) / mean),
        "mape": float(np.average(relative, weights=some)),
        "p95": float(np.percentile(relative, 95, weights=some, method="inverted_cdf")),
        "says": says,
    }


def reactivity(estimates: pd.DataFrame, truth: Truth) -> pd.DataFrame:
    """Return, for each step, the windows T until an estimate is within 10 % of the new level.

    Returns
    -------
    DataFrame
        ``t_ns``, ``end_ns``, ``up``, ``before``, ``after`` (pages), ``windows``: NaN if the
        estimate never gets there within the phase. Estimates made before the step do not count.
        W(t, T) itself takes up to one window to fall.
    """
    rows = [
        (step.t_ns, step.end_ns, step.up, step.before, step.after, _windows(estimates, truth, step))
        for step in truth.steps
    ]
    return pd.DataFrame(rows, columns=["t_ns", "end_ns", "up", "before", "after", "windows"])


def _windows(estimates: pd.DataFrame, truth: Truth, step: Step) -> float:
    times = truth.t_ns[(truth.t_ns >= step.t_ns) & (truth.t_ns <= step.end_ns)]
    new = estimates[estimates["t_ns"] > step.t_ns]
    near = np.abs(at(new, times) - step.after) <= WITHIN * step.after
    if not near.any():
        return np.nan
    return float((times[np.argmax(near)] - step.t_ns) / truth.window_ns)


def resampled(
    values: Sequence[float] | Floats | pd.Series[float], statistic: Callable[..., Any] = np.median
) -> tuple[float, float, float]:
    """Return the median and its 95 % interval, by a bootstrap (Efron and Tibshirani, 1993).

    Parameters
    ----------
    values : array of float
        One per recording, or per round; NaN is omitted.
    statistic : callable
        ``np.mean`` instead of the median: called with an array and ``axis``.

    Returns
    -------
    (float, float, float)
        The median, and the 2.5th and 97.5th percentile of the medians of resamples with
        replacement. A single value gives no information about others: its ends are NaN.

    Examples
    --------
    >>> resampled([1.0, 2.0, 9.0])
    (2.0, 1.0, 9.0)
    """
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, np.nan, np.nan
    return float(statistic(values, axis=0)), *bootstrap(values, statistic, RESAMPLES)


def interval(values: Sequence[float] | Floats | pd.Series[float]) -> tuple[float, float]:
    """Return the mean and the half width of its 95 % confidence interval (Student's t).

    Parameters
    ----------
    values : array of float
        One per seed; NaN is omitted.

    Returns
    -------
    (float, float)
        The half width is NaN for a single value, which gives no information about others.
    """
    from scipy.special import stdtrit

    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return np.nan, np.nan
    if len(values) == 1:
        return float(values[0]), np.nan
    quantile = stdtrit(len(values) - 1, 0.975)
    return float(values.mean()), float(quantile * values.std(ddof=1) / np.sqrt(len(values)))
