# SPDX-License-Identifier: Apache-2.0
"""The yardstick: Denning's W(t, T) of the recording, and the criteria of Nitu et al. against it.

Accuracy (bias, MAPE, 95th percentile of the error), reactivity (windows until an estimate is within
10 % of the new level after a step up, after a step down), overhead (`pmlkit.techniques.costs`),
intrusiveness and activeness (what the technique says of itself).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.kernels.by_page import sliding
from pmlkit.timeline import Axis, Windows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pmlkit.techniques.recorded import Recorded
    from pmlkit.types import Floats, Ints


__all__ = ["Step", "Truth", "accuracy", "interval", "reactivity", "truth", "within"]

WITHIN = 0.1  # of the new level: the step is followed
STEP = 0.25  # a change by this share of the larger level is a step
_FOREVER = (1 << 63) - 1


@dataclass(frozen=True)
class Step:
    """A step at ``t_ns``, from ``before`` to ``after`` pages; the level holds until ``end_ns``."""

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
        When rounds end, ns since the recording's start, each time once.
    pages : ndarray of int64, shape (instants,)
        W(t, T).
    window_ns : int
        T.
    steps : list of Step
    start_ns, end_ns : int
        The part that is scored: windows T that lie within it.
    """

    t_ns: np.ndarray
    pages: np.ndarray
    window_ns: int
    steps: list[Any]
    start_ns: int = 0
    end_ns: int = _FOREVER

    @property
    def scored(self) -> np.ndarray:
        """Whether the window T that ends with a round is scored (bool, shape (instants,))."""
        return (self.t_ns >= self.start_ns + self.window_ns) & (self.t_ns <= self.end_ns)


def truth(recorded: Recorded, window_ns: int) -> Truth:
    """Measure W(t, T) whenever a round ends, and find its steps.

    W(t, T) holds the pages of the rounds that end in (t - T, t].

    A step is a phase's start at which the level changes by a quarter; a level is the median of
    W over what of a phase is older than T, so that its windows see that phase only. A phase that
    is over by then has no level of its own.

    Parameters
    ----------
    recorded : Recorded
    window_ns : int

    Returns
    -------
    Truth
    """
    axis = Axis(recorded.t_ns[1:] - recorded.t_ns[0], recorded.resolution_ns)
    t_ns = axis.at[axis.last_of_instants]
    pages = sliding(recorded.occurrences(), Windows.on(axis.at, window_ns, t_ns))
    starts = [int(recorded.t_ns[r] - recorded.t_ns[0]) for _, r in recorded.phases]
    spans = list(zip(starts, [*starts[1:], int(t_ns[-1])], strict=True)) if starts else []
    levels = [(low, high, _level(t_ns, pages, low + window_ns, high)) for low, high in spans]
    levels = [level for level in levels if level[2] is not None]
    steps = [
        Step(low, high, before, after)  # type: ignore[arg-type]
        for (_, edge, before), (low, high, after) in zip(levels, levels[1:], strict=False)
        if low == edge and abs(after - before) > STEP * max(after, before)  # type: ignore[operator, type-var]
    ]
    return Truth(t_ns, pages, window_ns, steps)


def _level(t_ns: Ints, pages: Ints, low: int, high: int) -> float | None:
    inside = (t_ns >= low) & (t_ns < high)
    return float(np.median(pages[inside])) if inside.any() else None


def within(truth: Truth, start_ns: int, end_ns: int) -> Truth:
    """Have a part of the recording scored: windows and steps within it.

    A step is within it if more than T of what follows is. It may be followed until its phase or the
    part ends; its levels are those of the whole phases.

    Parameters
    ----------
    truth : Truth
    start_ns, end_ns : int
        Times since the recording's start.

    Returns
    -------
    Truth
        W of the whole recording; `Truth.scored` is what lies in the part.
    """
    cut = [replace(step, end_ns=min(step.end_ns, end_ns)) for step in truth.steps]
    steps = [s for s in cut if s.t_ns >= start_ns and s.end_ns - s.t_ns > truth.window_ns]
    return replace(truth, steps=steps, start_ns=start_ns, end_ns=end_ns)


def at(estimates: pd.DataFrame, t_ns: Ints) -> Floats:
    """Return what an estimator says at the times `t_ns`: its latest estimate, NaN before any."""
    index = np.searchsorted(estimates["t_ns"].to_numpy(), t_ns, "right") - 1
    pages = np.append(estimates["pages"].to_numpy(), np.nan)
    return pages[index]


def accuracy(estimates: pd.DataFrame, truth: Truth) -> dict[str, float]:
    """Compare estimates with the truth at rounds' ends, in windows T that are scored.

    A comparison weighs by the time since the round end before: by how long its round was.

    Parameters
    ----------
    estimates : DataFrame
        ``t_ns`` and ``pages``.
    truth : Truth

    Returns
    -------
    dict
        ``bias`` (mean of the error, of the mean truth), ``mae`` (mean of its absolute value, of
        the mean truth), ``mape`` (mean of its absolute value, each of the truth then: moments at
        which hardly anything is used weigh most, and those at which nothing is cannot count),
        ``p95`` (95th percentile of that), ``says`` (share of the time at whose end there is an
        estimate). NaN where there is none while pages are used.
    """
    scored = truth.scored
    held = np.diff(truth.t_ns, prepend=0)[scored].astype(float)
    true = truth.pages[scored].astype(float)
    error = at(estimates, truth.t_ns[scored]) - true
    told = ~np.isnan(error)
    says = float(held[told].sum() / held.sum()) if len(held) else 0.0
    error, true, held = error[told], true[told], held[told]
    if not true.any():
        return {"bias": np.nan, "mae": np.nan, "mape": np.nan, "p95": np.nan, "says": says}
    mean, used = np.average(true, weights=held), true > 0
    relative, of = np.abs(error[used]) / true[used], held[used]
    return {
        "bias": float(np.average(error, weights=held) / mean),
        "mae": float(np.average(np.abs(error), weights=held) / mean),
        "mape": float(np.average(relative, weights=of)),
        "p95": float(np.percentile(relative, 95, weights=of, method="inverted_cdf")),
        "says": says,
    }


def reactivity(estimates: pd.DataFrame, truth: Truth) -> pd.DataFrame:
    """Return, for each step, the windows T until an estimate is within 10 % of the new level.

    Returns
    -------
    DataFrame
        ``t_ns``, ``end_ns``, ``up``, ``before``, ``after`` (pages), ``windows``: NaN if it never
        was, within the phase; estimates from before the step do not count. W(t, T) itself takes up
        to 1 window to fall.
    """
    rows = [
        (step.t_ns, step.end_ns, step.up, step.before, step.after, _windows(estimates, truth, step))
        for step in truth.steps
    ]
    return pd.DataFrame(rows, columns=["t_ns", "end_ns", "up", "before", "after", "windows"])


def _windows(estimates: pd.DataFrame, truth: Truth, step: Step) -> float:
    times = truth.t_ns[(truth.t_ns >= step.t_ns) & (truth.t_ns <= step.end_ns)]
    new = estimates[estimates["t_ns"] > step.t_ns]  # one from before the step follows nothing
    near = np.abs(at(new, times) - step.after) <= WITHIN * step.after
    if not near.any():
        return np.nan
    return float((times[np.argmax(near)] - step.t_ns) / truth.window_ns)


def interval(values: Floats | Sequence[float]) -> tuple[float, float]:
    """Return the mean and the half width of its 95 % confidence interval (Student's t).

    Parameters
    ----------
    values : array of float
        One per seed; NaN are left out.

    Returns
    -------
    (float, float)
        The half width is 0 for a single value.
    """
    from scipy.special import stdtrit

    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return np.nan, np.nan
    if len(values) == 1:
        return float(values[0]), 0.0
    quantile = stdtrit(len(values) - 1, 0.975)
    return float(values.mean()), float(quantile * values.std(ddof=1) / np.sqrt(len(values)))
