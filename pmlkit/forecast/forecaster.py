# SPDX-License-Identifier: Apache-2.0
"""A forecaster: quantiles of the working set h windows ahead, calibrated, for any program.

It joins the parts: features and targets (`design`), a quantile regressor (`models`) and conformal
calibration (`conformal`). Fitted on some programs, it is meant to be used on others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from pmlkit.forecast import conformal, decide, design
from pmlkit.forecast.models import BoostedQuantiles, LinearQuantiles

if TYPE_CHECKING:
    from typing import Self

    from pmlkit.types import Bools, Floats

__all__ = ["MODELS", "Calibrated", "Forecaster", "Sample"]

MODELS = {"boosted": BoostedQuantiles, "linear": LinearQuantiles}
ETA = 0.03  # how fast the online calibration moves, relative to the spread of the scores
WARM_UP = 16  # windows of a log that nobody is judged by: there is no past yet


def nothing() -> Floats:
    """Return what an array is before anything is fitted."""
    return np.zeros(0)


@dataclass(frozen=True)
class Sample:
    """One log's table of features, with its names.

    Attributes
    ----------
    name, program : str
        The log's, and that of the program that it is held out with.
    table : DataFrame
        Of `features.table`.
    window_s : float
        Length of a window, s.
    composed : bool
    """

    name: str
    program: str
    table: pd.DataFrame
    window_s: float
    composed: bool = False


class Calibrated:
    """What every forecaster does with the quantiles that `raw` says."""

    horizon: int
    target: str
    online: bool
    eta: float
    taus_: Floats
    shift_: Floats
    spread_: float

    def raw(self, sample: Sample) -> Floats:
        """Return the quantiles before calibration: log(1 + pages), shape (windows, quantiles)."""
        raise NotImplementedError

    def _calibrate(self, samples: list[Sample], unseen: list[Floats]) -> None:
        """Set the shift by forecasts of samples whose programs had not been seen."""
        scores = []
        for sample, forecast in zip(samples, unseen, strict=True):
            y, keep = outcome(sample, self.horizon, self.target)
            scores.append((y[:, None] - forecast)[keep])
        if scores:
            stacked = np.concatenate(scores)
            self.shift_ = conformal.split_shift(stacked, self.taus_)
            self.spread_ = float(np.subtract(*np.quantile(stacked, [0.75, 0.25])))
        else:
            self.shift_, self.spread_ = np.zeros(len(self.taus_)), 0.1

    def predict(self, sample: Sample, online: bool | None = None) -> Floats:
        """Forecast from the end of each window of a sample, each by what was known then.

        Parameters
        ----------
        sample : Sample
        online : bool, optional
            Instead of the forecaster's own `online`.

        Returns
        -------
        ndarray of float, shape (windows, quantiles)
            Pages; the quantiles are `taus_`.
        """
        raw = self.raw(sample)
        if self.online if online is None else online:
            y, _ = outcome(sample, self.horizon, self.target)
            eta = self.eta * self.spread_
            found = conformal.track(y, raw, self.taus_, self.horizon, eta, self.shift_)
        else:
            found = np.sort(raw + self.shift_, axis=1)
        return np.maximum(np.expm1(found), 0)

    def scenarios(self, sample: Sample) -> Floats:
        """Return equally likely values, pages, shape (windows, 100); for `decide.by_price`."""
        return decide.scenarios(self.taus_, self.predict(sample, online=False))


def outcome(sample: Sample, horizon: int, target: str) -> tuple[Floats, Bools]:
    """Return what came, log(1 + pages), and in which windows it is judged."""
    y = np.log1p(design.ahead(sample.table, horizon, target))
    keep = np.isfinite(y)
    keep[: min(WARM_UP, len(y) // 2)] = False
    return y, keep


@dataclass
class Forecaster(Calibrated):
    """Quantiles of the working set ahead, by what other programs did.

    Parameters
    ----------
    model : estimator
        One of `MODELS`, made; it is cloned.
    horizon : int
        h, windows.
    target : {"at", "peak"}
        The window h later, or the largest of the next h.
    online : bool
        Whether the shift is adapted while forecasting (`conformal.track`).
    eta : float
        How fast, relative to the spread of the calibration's scores.

    Attributes
    ----------
    model_ : estimator
        Fitted on all the samples.
    taus_ : ndarray of float, shape (quantiles,)
    shift_ : ndarray of float, shape (quantiles,)
        Of the split calibration: each program was forecast by a model that had not seen it.
    spread_ : float
        The scores' interquartile range, in units of the target (a logarithm of pages).
    samples_, unseen_ : list
        What it was fitted on, and the raw forecasts of that by models that had not seen the
        program (none if there is one program only); not saved.
    """

    model: Any
    horizon: int = 4
    target: str = "at"
    online: bool = True
    eta: float = ETA
    model_: Any = field(default=None, repr=False)
    taus_: Floats = field(default_factory=nothing, repr=False)
    shift_: Floats = field(default_factory=nothing, repr=False)
    spread_: float = field(default=0.0, repr=False)
    samples_: list[Sample] | None = field(default=None, repr=False)
    unseen_: list[Floats] = field(default_factory=list, repr=False)

    def fit(self, samples: list[Sample], folds: int = 3) -> Self:
        """Fit on samples, and calibrate by holding out some of their programs at a time.

        Parameters
        ----------
        samples : list of Sample
        folds : int
            Into so many groups the programs are split for the calibration; at most one each.

        Returns
        -------
        self
        """
        rows = [self._rows(sample) for sample in samples]
        programs = np.array([sample.program for sample in samples])
        names = list(dict.fromkeys(programs))
        unseen: list[Any] = [None] * len(samples)
        for fold in range(min(folds, len(names)) if len(names) > 1 else 0):
            held = np.isin(programs, names[fold::folds])
            model = clone(self.model).fit(*design.stacked(rows, ~held))
            for i in np.flatnonzero(held):
                unseen[i] = self._said(model, samples[i])
        self.model_ = clone(self.model).fit(*design.stacked(rows, np.ones(len(rows), bool)))
        self.taus_ = self.model_.quantiles_
        self.samples_, self.unseen_ = samples, unseen if len(names) > 1 else []
        self._calibrate(samples if self.unseen_ else [], self.unseen_)
        return self

    def _rows(self, sample: Sample) -> tuple[pd.DataFrame, Floats]:
        y, keep = outcome(sample, self.horizon, self.target)
        y = y - design.level(sample.table).to_numpy()
        return design.matrix(sample.table)[keep], y[keep]

    def _said(self, model: Any, sample: Sample) -> Floats:
        level = design.level(sample.table).to_numpy()
        found: Floats = model.predict_quantiles(design.matrix(sample.table)) + level[:, None]
        return found

    def raw(self, sample: Sample) -> Floats:
        """Return the quantiles before calibration: log(1 + pages), shape (windows, quantiles)."""
        return self._said(self.model_, sample)
