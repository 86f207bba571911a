# SPDX-License-Identifier: Apache-2.0
"""A technique's settings on the same recordings, and the least error or cost within a bound.

A sample is a weight for each recording: all of them, a bootstrap sample, or all but one. So one
product of matrices gives the means of all settings in all samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.resampling import drawn, ends

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    import pandas as pd

    from pmlkit.types import Floats, Ints

__all__ = [
    "RESAMPLES",
    "SETTING",
    "Grid",
    "but_one",
    "by_technique",
    "interval",
    "least",
    "mixes_tables",
    "of",
    "resampled",
    "whole",
]

RESAMPLES = 1000
SETTING = ["looks", "watched"]


@dataclass(frozen=True)
class Grid:
    """A technique's settings at one T on the same recordings.

    Attributes
    ----------
    settings : DataFrame
        ``looks``, ``watched``, ``says``.
    error, cost : ndarray of float64, shape (settings, recordings)
        Means over seeds.
    """

    technique: str
    window_ns: int
    settings: pd.DataFrame
    error: Floats
    cost: Floats

    @property
    def recordings(self) -> int:
        return self.error.shape[1]

    def mean(self, name: str, weights: Floats) -> Floats:
        """Return the mean ``error`` or ``cost``, shape (settings, samples).

        Parameters
        ----------
        weights : ndarray of float64, shape (recordings, samples)
        """
        return getattr(self, name) @ weights

    def number_of(self, setting: pd.Series[Any]) -> int | None:
        """Return the number of a setting of another grid, or None if it was not run here."""
        same = self.settings[SETTING].fillna(-1) == setting[SETTING].fillna(-1)
        found = np.flatnonzero(same.all(axis=1))
        return int(found[0]) if len(found) else None


def of(points: pd.DataFrame, published: bool = False) -> list[Grid]:
    """Return the grids of the techniques, by T: the settings with an estimate of every recording.

    A technique that cannot be swept has its one point in place of a sweep. One with real page
    tables on some recordings and simulated ones on others has no grid: they share no mean.
    """
    grids = []
    for window_ns, technique, part in by_technique(points):
        if mixes_tables(part):
            continue
        chosen = part[part["published"]] if published else _swept(part)
        means = chosen.groupby([*SETTING, "trace"], dropna=False, sort=False)
        wide = means[["mae", "overhead", "says"]].mean().unstack("trace").dropna()
        if len(wide):
            settings = wide.index.to_frame(index=False)
            settings["says"] = wide["says"].to_numpy(float).mean(axis=1)
            error, cost = (wide[name].to_numpy(float) for name in ("mae", "overhead"))
            grids.append(Grid(technique, window_ns, settings, error, cost))
    return grids


def by_technique(points: pd.DataFrame) -> Iterator[tuple[int, str, pd.DataFrame]]:
    """Yield the points of each T and technique."""
    for window_ns in points["window_ns"].unique().tolist():
        of_window = points[points["window_ns"] == window_ns]
        for technique in of_window["technique"].unique().tolist():
            yield window_ns, technique, of_window[of_window["technique"] == technique]


def mixes_tables(part: pd.DataFrame) -> bool:
    """Whether a technique's estimates are from both real and simulated page tables."""
    return bool(part.loc[part["mae"].notna(), "simulated"].nunique() > 1)


def _swept(part: pd.DataFrame) -> pd.DataFrame:
    return part[~part["published"]] if (~part["published"]).any() else part


def resampled(recordings: int) -> Floats:
    """Return how often each recording is in each resample, shares: (recordings, resamples).

    Resamples are the same for all techniques, so that these can be compared within each.
    """
    samples = drawn(recordings, RESAMPLES)
    counts = [np.bincount(sample, minlength=recordings) for sample in samples]
    return np.transpose(counts) / recordings


def whole(recordings: int) -> Floats:
    """Return the weights of the sample that is all recordings."""
    return np.full((recordings, 1), 1 / recordings)


def but_one(recordings: int) -> Floats:
    """Return the weights of the samples that leave out a recording each."""
    return (1 - np.eye(recordings)) / max(recordings - 1, 1)


def least(value: Floats, bounded: Floats, bound: float) -> tuple[Floats, Ints]:
    """Return the least value of the settings within a bound, and which setting has it.

    Parameters
    ----------
    value, bounded : ndarray of float64, shape (settings, samples)

    Returns
    -------
    least : ndarray of float64, shape (samples,)
        Infinite where no setting is within the bound.
    setting : ndarray of int64, shape (samples,)
    """
    allowed = np.where(bounded <= bound, value, np.inf)
    setting = allowed.argmin(axis=0)
    return allowed[setting, np.arange(allowed.shape[1])], setting


def interval(values: Floats) -> tuple[float, float]:
    """Return the ends of the 95 % interval over resamples; infinite where it is not reached."""
    return ends(values, method="inverted_cdf")
