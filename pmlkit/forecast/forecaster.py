# SPDX-License-Identifier: Apache-2.0
"""A forecaster: quantiles of the working set h windows ahead, calibrated, for any program.

It joins the parts: features and targets (`design`), a quantile regressor (`models`) and conformal
calibration (`conformal`). Fitted on some programs, it is meant to be used on others.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from sklearn.base import clone

from pmlkit.forecast import conformal, design
from pmlkit.forecast.models import BoostedQuantiles, LinearQuantiles

__all__ = ["MODELS", "Forecaster", "Sample"]

MODELS = {"boosted": BoostedQuantiles, "linear": LinearQuantiles}
WARM_UP = 16  # windows of a log that nobody is judged by: there is no past yet


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


@dataclass
class Forecaster:
    """Quantiles of the working set ahead.

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
    """

    model: object
    horizon: int = 4
    target: str = "at"
    online: bool = True
    eta: float = 0.1
    model_: object = field(default=None, repr=False)
    taus_: np.ndarray = field(default=None, repr=False)
    shift_: np.ndarray = field(default=None, repr=False)
    spread_: float = field(default=0.0, repr=False)

    def fit(self, samples, folds=3):
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
        scores = []
        for fold in range(min(folds, len(names)) if len(names) > 1 else 0):
            held = np.isin(programs, names[fold::folds])
            model = clone(self.model).fit(*design.stacked(rows, ~held))
            X, y = design.stacked(rows, held)
            scores.append(y[:, None] - model.predict_quantiles(X))
        self.model_ = clone(self.model).fit(*design.stacked(rows, np.ones(len(rows), bool)))
        self.taus_ = self.model_.quantiles_
        if scores:
            scores = np.concatenate(scores)
            self.shift_ = conformal.split_shift(scores, self.taus_)
            self.spread_ = float(np.subtract(*np.quantile(scores, [0.75, 0.25])))
        else:
            self.shift_, self.spread_ = np.zeros(len(self.taus_)), 0.1
        return self

    def _rows(self, sample):
        X = design.matrix(sample.table)
        y = np.log1p(design.ahead(sample.table, self.horizon, self.target))
        y = y - design.level(sample.table).to_numpy()
        keep = np.isfinite(y)
        keep[: min(WARM_UP, len(y) // 2)] = False
        return X[keep], y[keep]

    def raw(self, sample):
        """Return the quantiles before calibration: log(1 + pages), shape (windows, quantiles)."""
        X = design.matrix(sample.table)
        return self.model_.predict_quantiles(X) + design.level(sample.table).to_numpy()[:, None]

    def predict(self, sample, online=None):
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
            y = np.log1p(design.ahead(sample.table, self.horizon, self.target))
            eta = self.eta * self.spread_
            found = conformal.track(y, raw, self.taus_, self.horizon, eta, self.shift_)
        else:
            found = np.sort(raw + self.shift_, axis=1)
        return np.maximum(np.expm1(found), 0)
