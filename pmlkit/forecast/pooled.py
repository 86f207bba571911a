# SPDX-License-Identifier: Apache-2.0
"""Two forecasts in one: what other programs did, and what this log did before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.forecast import analogs, decide
from pmlkit.forecast.forecaster import ETA, MODELS, Calibrated, Forecaster, nothing, outcome

if TYPE_CHECKING:
    from typing import Self

    from pmlkit.forecast.forecaster import Sample
    from pmlkit.types import Floats, Ints

__all__ = ["LEARNERS", "Pooled", "make", "mixed"]

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
        model = analogs.Analogs(bandwidth=bandwidth)
        return model.follow(analogs.state(sample.table), y, self.horizon)

    def _pooled(self, sample: Sample, theirs: Floats) -> Floats:
        return mixed(self._own(sample, self.bandwidth_), theirs, self.share_)

    def _at(self) -> Ints:
        return np.array([np.argmin(np.abs(analogs.LEVELS - tau)) for tau in self.taus_])

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
    at = analogs.reached(np.take_along_axis(weights, order, axis=1), (np.arange(n) + 0.5) / n)
    found: Floats = np.take_along_axis(np.take_along_axis(both, order, axis=1), at, axis=1)
    return found


def _crps(y: Floats, values: Floats) -> float:
    e = y[:, None] - values
    return float(np.maximum(analogs.LEVELS * e, (analogs.LEVELS - 1) * e).mean())


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
