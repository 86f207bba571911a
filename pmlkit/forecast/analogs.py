# SPDX-License-Identifier: Apache-2.0
"""Quantiles of a log's own past, weighted by similarity to the present.

A rule that returns a percentile of the past gives all of it the same weight. Here, the weight of a
past outcome depends on the similarity of its state to the present one, and on its age
(Nadaraya-Watson: Nadaraya 1964, Watson 1964; for a distribution: Hall, Wolff, Yao 1999, "Methods
for estimating a conditional distribution function", JASA 94). If no past state is similar, all
outcomes have the same weight, which is the percentile rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from pmlkit.forecast import metrics
from pmlkit.forecast.forecaster import (
    ETA,
    MODELS,
    Calibrated,
    Forecaster,
    outcome,
    unfitted,
)
from pmlkit.forecast.metrics import LEVELS
from pmlkit.forecast.models import Quantiles
from pmlkit.foreign import foreign_class

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from pmlkit.forecast.forecaster import Sample
    from pmlkit.types import Array, Floats, Ints

__all__ = ["Analogs", "LEARNERS", "Pooled", "make", "mix", "states"]

MIN_SIMILARITY = 1e-6  # weight of a past window that is not similar at all
MIN_OUTCOMES = 8  # least number of known outcomes for a prediction


class Analogs(RegressorMixin, BaseEstimator):
    """Quantiles of the known outcomes, weighted by similarity and age.

    Parameters
    ----------
    quantiles : sequence of float
    bandwidth : float
        Distance of two states at which their similarity is exp(-1/2).
    half_life : float
        Number of rows after which an outcome has half its weight.
    """

    def __init__(
        self,
        quantiles: Sequence[float] = tuple(LEVELS),
        bandwidth: float = 0.6,
        half_life: float = 192.0,
    ) -> None:
        self.quantiles = quantiles
        self.bandwidth = bandwidth
        self.half_life = half_life

    def fit(self, X: Array, y: Array) -> Self:
        """Store states X, shape (samples, features), and their outcomes y, in order of time."""
        self.X_, self.y_ = validate_data(self, X, y, y_numeric=True)
        self.quantiles_ = np.unique(self.quantiles)
        return self

    def predict_quantiles(self, X: Array) -> Floats:
        """Predict the outcomes of states that follow the last one of `fit`.

        Returns
        -------
        ndarray of float, shape (samples, quantiles)
            In ascending order from left to right.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        age = np.arange(len(self.y_))[::-1]
        return self._quantiles(X, np.broadcast_to(age, (len(X), len(age))))

    def predict(self, X: Array) -> Floats:
        """Predict the mean of the quantiles, shape (samples,)."""
        return self.predict_quantiles(X).mean(axis=1)

    def predict_rolling(self, X: Array, y: Array, horizon: int) -> Floats:
        """Predict each row's outcome from the outcomes known at that row, as if fitted there.

        Parameters
        ----------
        X : array of float, shape (n, features)
        y : array of float, shape (n,)
            Row t's is known `horizon` rows later; NaN: never.
        horizon : int

        Returns
        -------
        ndarray of float, shape (n, quantiles)
            NaN where fewer than 8 outcomes are known.
        """
        if np.isfinite(y).sum() < MIN_OUTCOMES:
            return np.full((len(y), len(np.unique(self.quantiles))), np.nan)
        age = self._fit_all(X, y) - horizon
        quantiles = np.full((len(y), len(self.quantiles_)), np.nan)
        enough = (age >= 0).sum(axis=1) >= MIN_OUTCOMES
        quantiles[enough] = self._quantiles(np.asarray(X, float)[enough], age[enough])
        return quantiles

    def predict_in_hindsight(self, X: Array, y: Array, near: int) -> Floats:
        """Predict the outcome of each row from all rows that are not within `near` rows of it.

        This uses the future: it is a bound on what could be known, not a forecast. Shapes as in
        `predict_rolling`.
        """
        age = np.abs(self._fit_all(X, y))
        return self._quantiles(np.asarray(X, float), np.where(age <= near, -1, age))

    def _fit_all(self, X: Array, y: Array) -> Ints:
        """Fit on all known outcomes; return the distance in rows from each outcome to each row."""
        known = np.isfinite(y)
        self.fit(np.asarray(X)[known], np.asarray(y)[known])
        return np.arange(len(y))[:, None] - np.flatnonzero(known)

    def _quantiles(self, X: Floats, age: Array) -> Floats:
        """Return weighted quantiles of `y_`; an outcome of negative age is not known yet."""
        distance = ((X[:, None, :] - self.X_) ** 2).sum(axis=2) / self.bandwidth**2
        similarity = np.exp(-distance / 2) + MIN_SIMILARITY
        weights = np.where(age < 0, 0.0, similarity * 0.5 ** (np.maximum(age, 0) / self.half_life))
        return weighted_quantiles(self.y_, weights, self.quantiles_)


def weighted_quantiles(values: Floats, weights: Floats, levels: Array) -> Floats:
    """Return, for each row of weights, the smallest value at which they reach each level.

    Parameters
    ----------
    values : array of float, shape (n,)
    weights : array of float, shape (rows, n)
    levels : array of float, shape (levels,)

    Returns
    -------
    ndarray of float, shape (rows, levels)
    """
    order = np.argsort(values, kind="stable")
    return values[order][_level_indices(weights[:, order], levels)]


def _level_indices(weights: Floats, levels: Array) -> Ints:
    """Return where the cumulative weights of each row reach each level, shape (rows, levels)."""
    total = np.cumsum(weights, axis=1)
    total /= total[:, -1:]
    index = np.array([np.searchsorted(row, levels) for row in total], int).reshape(len(total), -1)
    return np.minimum(index, total.shape[1] - 1)


def states(table: pd.DataFrame) -> Floats:
    """Return log(1 + W), now and smoothed over 2 and 8 windows, shape (windows, 3)."""
    now = np.log1p(table["pages"])
    fast, slow = (now.ewm(halflife=windows).mean() for windows in (2, 8))
    return np.column_stack([now, fast, 0.5 * slow])  # `slow` is less informative: half the weight


# ------------------------------------------------------------------------------
# Two forecasts in one: from other programs, and from the log's own past.

LEARNERS = ("pooled", *MODELS)
BANDWIDTHS = (0.4, 0.8, 1.6)
SHARES = (0.25, 0.5, 0.75)


@dataclass
class Pooled(Calibrated):
    """A mixture of a forecast from other programs and one from the log's own past.

    The two distributions are mixed (Stone 1961, "The opinion pool"). The share of the own past and
    the bandwidth are chosen on programs that the base has not seen. The criterion is the pinball
    loss over 100 quantiles, which is half the CRPS.

    Parameters
    ----------
    base : Forecaster
        The forecast from other programs. It is fitted, unless it is already fitted on the same
        samples.
    online, eta
        As in `Forecaster`.

    Attributes
    ----------
    bandwidth_ : float
        Settings of `Analogs`.
    share_ : float
        Weight of the own past, 0 to 1.
    unseen_ : list
        As in `Forecaster`.
    """

    base: Forecaster
    online: bool = True
    eta: float = ETA
    bandwidth_: float = field(default=0.8, repr=False)
    share_: float = field(default=0.5, repr=False)
    taus_: Floats = field(default_factory=unfitted, repr=False)
    shift_: Floats = field(default_factory=unfitted, repr=False)
    spread_: float = field(default=0.0, repr=False)
    unseen_: list[Floats] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.horizon, self.target = self.base.horizon, self.base.target

    def fit(self, samples: list[Sample], folds: int = 3) -> Self:
        """Fit; parameters as in `Forecaster.fit`."""
        if self.base.samples_ is not samples:
            self.base.fit(samples, folds)
        self.taus_ = self.base.taus_
        unseen = [_log_scenarios(self.taus_, raw) for raw in self.base.unseen_]
        judged = samples if unseen else []
        if judged:
            self.bandwidth_, self.share_ = self._choose(samples, unseen)
        mixtures = [self._mixture(s, others) for s, others in zip(judged, unseen, strict=True)]
        self.unseen_ = [self._at_taus(values) for values in mixtures]
        self._calibrate(judged, self.unseen_)
        return self

    def _choose(self, samples: list[Sample], unseen: list[Floats]) -> tuple[float, float]:
        """Return the bandwidth and share of least loss; every program counts once."""
        losses: dict[tuple[float, float], pd.Series[float]] = {}
        outcomes = [outcome(sample, self.horizon, self.target) for sample in samples]
        programs = [sample.program for sample in samples]
        for bandwidth in BANDWIDTHS:
            past = [self._own_past(sample, bandwidth) for sample in samples]
            for share in SHARES:
                losses_of_samples = [
                    _mean_pinball(np.log1p(pages[keep]), mix(own[keep], others[keep], share))
                    for (pages, keep), own, others in zip(outcomes, past, unseen, strict=True)
                ]
                losses[bandwidth, share] = pd.Series(losses_of_samples).groupby(programs).mean()
        table = pd.DataFrame(losses)
        return min(losses, key=lambda choice: (table[choice] / table.mean(axis=1)).mean())

    def _own_past(self, sample: Sample, bandwidth: float) -> Floats:
        y = np.log1p(sample.seen(self.horizon, self.target))
        return Analogs(bandwidth=bandwidth).predict_rolling(states(sample.table), y, self.horizon)

    def _mixture(self, sample: Sample, others: Floats) -> Floats:
        return mix(self._own_past(sample, self.bandwidth_), others, self.share_)

    def _at_taus(self, values: Floats) -> Floats:
        return values[:, [np.argmin(np.abs(LEVELS - tau)) for tau in self.taus_]]

    def raw(self, sample: Sample) -> Floats:
        """Return the quantiles before calibration: log(1 + pages), shape (windows, quantiles)."""
        return self._at_taus(self._log_scenarios(sample))

    def _log_scenarios(self, sample: Sample) -> Floats:
        return self._mixture(sample, _log_scenarios(self.taus_, self.base.raw(sample)))

    def scenarios(self, sample: Sample) -> Floats:
        """Return equally likely values, pages, shape (windows, 100); for `metrics.cheapest`."""
        return np.maximum(np.expm1(self._log_scenarios(sample)), 0)


def _log_scenarios(taus: Floats, raw: Floats) -> Floats:
    return np.log1p(metrics.scenarios(taus, np.maximum(np.expm1(raw), 0)))


def mix(own: Floats, others: Floats, share: float) -> Floats:
    """Mix two distributions, each of equally likely values.

    Parameters
    ----------
    own, others : array of float, shape (n, values)
        In ascending order from left to right; rows of `own` that are NaN do not count.
    share : float
        Weight of `own`, 0 to 1.

    Returns
    -------
    ndarray of float, shape (n, values)
        Equally likely, in ascending order from left to right.
    """
    n = others.shape[1]
    both = np.concatenate([own, others], axis=1)
    weights = np.where(np.isnan(both), 0.0, np.repeat([share, 1 - share], n))
    order = np.argsort(both, axis=1, kind="stable")
    levels = (np.arange(n) + 0.5) / n
    index = _level_indices(np.take_along_axis(weights, order, axis=1), levels)
    return np.take_along_axis(np.take_along_axis(both, order, axis=1), index, axis=1)


def _mean_pinball(y: Floats, values: Floats) -> float:
    e = y[:, None] - values
    return float(np.maximum(LEVELS * e, (LEVELS - 1) * e).mean())


def make(learner: str, horizon: int = 4, target: str = "at") -> Forecaster | Pooled:
    """Create an unfitted forecaster by the name of its learner, one of `LEARNERS`.

    ``"pooled"`` mixes the boosted trees and the log's own past. ``"module:Class"`` names an
    external quantile regressor, derived from `models.Quantiles`.
    """
    if learner == "pooled":
        return Pooled(Forecaster(MODELS["boosted"](), horizon, target))
    foreign = ":" in learner
    model = foreign_class(learner, Quantiles, "forecaster") if foreign else MODELS[learner]
    return Forecaster(model(), horizon, target)
