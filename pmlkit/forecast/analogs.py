# SPDX-License-Identifier: Apache-2.0
"""What a log did after moments like this one: quantiles out of its own past.

A rule that gives a percentile of the past treats all of it alike. Here each past window weighs by
how alike its state was to the present one, and by how recent it is; what came h windows after it is
drawn with that weight (Nadaraya-Watson: Nadaraya 1964, Watson 1964; of a distribution: Hall, Wolff,
Yao 1999, "Methods for estimating a conditional distribution function", JASA 94). A state unlike all
of the past gets the past as a whole: the percentile rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from pmlkit.forecast import metrics as decide
from pmlkit.forecast.forecaster import ETA, MODELS, Calibrated, Forecaster, nothing, outcome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from pmlkit.forecast.forecaster import Sample
    from pmlkit.types import Array, Floats, Ints

__all__ = ["Analogs", "LEARNERS", "LEVELS", "Pooled", "make", "mixed", "state"]


LEVELS = (np.arange(100) + 0.5) / 100
FLOOR = 1e-6  # weight of a past window that was not alike at all
LEAST = 8  # outcomes that have to be known before the past says anything


class Analogs(RegressorMixin, BaseEstimator):
    """Quantiles of the outcomes that are known, weighted by likeness and by age.

    Parameters
    ----------
    quantiles : sequence of float
    bandwidth : float
        Distance of two states at which likeness has fallen to exp(-1/2).
    half_life : float
        Rows until an outcome weighs half.
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
        """Keep what happened, in order of time.

        Parameters
        ----------
        X : array of float, shape (samples, features)
            States.
        y : array of float, shape (samples,)
            What came after them.

        Returns
        -------
        self
        """
        self.X_, self.y_ = validate_data(self, X, y, y_numeric=True)
        self.quantiles_ = np.unique(self.quantiles)
        return self

    def predict_quantiles(self, X: Array) -> Floats:
        """Say what comes after states that follow the last of `fit`'s.

        Parameters
        ----------
        X : array of float, shape (samples, features)

        Returns
        -------
        ndarray of float, shape (samples, quantiles)
            Rising from left to right.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        age = np.arange(len(self.y_))[::-1]
        return self._drawn(X, np.broadcast_to(age, (len(X), len(age))))

    def predict(self, X: Array) -> Floats:
        """Predict the mean of the quantiles, shape (samples,)."""
        return self.predict_quantiles(X).mean(axis=1)

    def follow(self, X: Array, y: Array, horizon: int) -> Floats:
        """Say at each row what comes, by the outcomes known there: fitted anew at every row.

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
        age = self._since(X, y) - horizon
        found = np.full((len(y), len(self.quantiles_)), np.nan)
        enough = (age >= 0).sum(axis=1) >= LEAST
        found[enough] = self._drawn(np.asarray(X, float)[enough], age[enough])
        return found

    def hindsight(self, X: Array, y: Array, near: int) -> Floats:
        """Say at each row what comes, by all others but those within `near` rows of it.

        This looks into the future: it says what could be known, not what is.

        Parameters
        ----------
        X, y : array
            As in `follow`.
        near : int

        Returns
        -------
        ndarray of float, shape (n, quantiles)
        """
        age = np.abs(self._since(X, y))
        return self._drawn(np.asarray(X, float), np.where(age <= near, -1, age))

    def _since(self, X: Array, y: Array) -> Ints:
        """Keep all that there ever is; return how many rows each row is after each of these."""
        there = np.isfinite(y)
        self.fit(np.asarray(X)[there], np.asarray(y)[there])
        return np.arange(len(y))[:, None] - np.flatnonzero(there)

    def _drawn(self, X: Floats, age: Array) -> Floats:
        """Return quantiles of `y_`, weighted; what has a negative age is not known yet."""
        far = ((X[:, None, :] - self.X_) ** 2).sum(axis=2) / self.bandwidth**2
        alike = np.exp(-far / 2) + FLOOR
        weights = np.where(age < 0, 0.0, alike * 0.5 ** (np.maximum(age, 0) / self.half_life))
        return weighted(self.y_, weights, self.quantiles_)


def weighted(values: Floats, weights: Floats, levels: Array) -> Floats:
    """Return weighted quantiles: of each row of weights the least value that reaches the level.

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
    return values[order][reached(weights[:, order], levels)]


def reached(weights: Floats, levels: Array) -> Ints:
    """Return where the weights of each row, added up, reach each level of their sum.

    Parameters
    ----------
    weights : array of float, shape (rows, n)
    levels : array of float, shape (levels,)

    Returns
    -------
    ndarray of int64, shape (rows, levels)
    """
    total = np.cumsum(weights, axis=1)
    total /= total[:, -1:]
    at = np.array([np.searchsorted(row, levels) for row in total], int).reshape(len(total), -1)
    return np.minimum(at, total.shape[1] - 1)


def state(table: pd.DataFrame) -> Floats:
    """Return by what moments are alike: the logarithm of W, now and smoothed over 2 and 8 windows.

    Parameters
    ----------
    table : DataFrame
        Of `features.table`.

    Returns
    -------
    ndarray of float, shape (windows, 3)
    """
    now = np.log1p(table["pages"].astype(float))
    slow = now.ewm(halflife=8).mean()  # type: ignore[attr-defined]  # says less: half the weight
    return np.column_stack([now, now.ewm(halflife=2).mean(), 0.5 * slow])  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------
# Two forecasts in one: what other programs did, and what this log did before.


LEARNERS = ("pooled", *MODELS)
BANDWIDTHS = (0.4, 0.8, 1.6)
SHARES = (0.25, 0.5, 0.75)


@dataclass
class Pooled(Calibrated):
    """A forecast by other programs and one by the log's own past, pooled.

    The two distributions are mixed (Stone 1961, "The opinion pool"). How much the own past counts,
    and how alike moments have to be, is chosen on programs that the other part had not seen, by
    the pinball loss over 100 quantiles, which is half the CRPS.

    Parameters
    ----------
    base : Forecaster
        The forecast by other programs; it is fitted, unless it is already on the same samples.
    online, eta
        As in `Forecaster`.

    Attributes
    ----------
    bandwidth_, share_ : float
        Of `analogs.Analogs`; of the own past, 0 to 1.
    """

    base: Forecaster
    online: bool = True
    eta: float = ETA
    bandwidth_: float = field(default=0.8, repr=False)
    share_: float = field(default=0.5, repr=False)
    taus_: Floats = field(default_factory=nothing, repr=False)
    shift_: Floats = field(default_factory=nothing, repr=False)
    spread_: float = field(default=0.0, repr=False)

    @property
    def horizon(self) -> int:  # type: ignore[override]
        """h of the base, windows."""
        return self.base.horizon

    @property
    def target(self) -> str:  # type: ignore[override]
        """Target of the base."""
        return self.base.target

    def fit(self, samples: list[Sample], folds: int = 3) -> Self:
        """Fit; parameters as in `Forecaster.fit`."""
        if self.base.samples_ is not samples:
            self.base.fit(samples, folds)
        self.taus_ = self.base.taus_
        unseen = [_values(self.taus_, raw) for raw in self.base.unseen_]
        judged = samples if unseen else []
        if judged:
            self.bandwidth_, self.share_ = self._chosen(samples, unseen)
        pooled = [self._pooled(s, v) for s, v in zip(judged, unseen, strict=True)]
        self._calibrate(judged, [values[:, self._at()] for values in pooled])
        return self

    def _chosen(self, samples: list[Sample], unseen: list[Floats]) -> tuple[float, float]:
        """Return the bandwidth and the share with the least loss, a program counting once."""
        losses: dict[tuple[float, float], pd.Series] = {}
        outcomes = [outcome(sample, self.horizon, self.target) for sample in samples]
        for bandwidth in BANDWIDTHS:
            own = [self._own(sample, bandwidth) for sample in samples]
            for share in SHARES:
                found = [
                    _crps(y[keep], mixed(mine[keep], theirs[keep], share))
                    for (y, keep), mine, theirs in zip(outcomes, own, unseen, strict=True)
                ]
                by = pd.Series(found).groupby([sample.program for sample in samples])
                losses[bandwidth, share] = by.mean()
        table = pd.DataFrame(losses)
        return min(losses, key=lambda how: (table[how] / table.mean(axis=1)).mean())

    def _own(self, sample: Sample, bandwidth: float) -> Floats:
        y, _ = outcome(sample, self.horizon, self.target)
        model = Analogs(bandwidth=bandwidth)
        return model.follow(state(sample.table), y, self.horizon)

    def _pooled(self, sample: Sample, theirs: Floats) -> Floats:
        return mixed(self._own(sample, self.bandwidth_), theirs, self.share_)

    def _at(self) -> Ints:
        return np.array([np.argmin(np.abs(LEVELS - tau)) for tau in self.taus_])

    def raw(self, sample: Sample) -> Floats:
        """Return the quantiles before calibration: log(1 + pages), shape (windows, quantiles)."""
        return self._values(sample)[:, self._at()]

    def _values(self, sample: Sample) -> Floats:
        return self._pooled(sample, _values(self.taus_, self.base.raw(sample)))

    def scenarios(self, sample: Sample) -> Floats:
        """Return equally likely values, pages, shape (windows, 100); for `decide.by_price`."""
        return np.maximum(np.expm1(self._values(sample)), 0)


def _values(taus: Floats, raw: Floats) -> Floats:
    return np.log1p(decide.scenarios(taus, np.maximum(np.expm1(raw), 0)))


def mixed(own: Floats, others: Floats, share: float) -> Floats:
    """Mix two distributions, each of equally likely values.

    Parameters
    ----------
    own, others : array of float, shape (n, values)
        Rising from left to right; rows of `own` that are NaN do not count.
    share : float
        Of `own`, 0 to 1.

    Returns
    -------
    ndarray of float, shape (n, values)
        Equally likely, rising from left to right.
    """
    n = others.shape[1]
    both = np.concatenate([own, others], axis=1)
    weights = np.where(np.isnan(both), 0.0, np.repeat([share, 1 - share], n))
    order = np.argsort(both, axis=1, kind="stable")
    at = reached(np.take_along_axis(weights, order, axis=1), (np.arange(n) + 0.5) / n)
    found: Floats = np.take_along_axis(np.take_along_axis(both, order, axis=1), at, axis=1)
    return found


def _crps(y: Floats, values: Floats) -> float:
    e = y[:, None] - values
    return float(np.maximum(LEVELS * e, (LEVELS - 1) * e).mean())


def make(learner: str, horizon: int = 4, target: str = "at") -> Forecaster | Pooled:
    """Make a forecaster, not fitted.

    Parameters
    ----------
    learner : {"pooled", "boosted", "linear"}
    horizon, target
        As in `Forecaster`.

    Returns
    -------
    Forecaster or Pooled
        Pooled: the boosted trees and the log's own past.
    """
    if learner == "pooled":
        return Pooled(Forecaster(MODELS["boosted"](), horizon, target))
    return Forecaster(MODELS[learner](), horizon, target)
