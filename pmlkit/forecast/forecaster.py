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

from pmlkit.forecast import metrics as decide
from pmlkit.forecast.features import REGIONS, THRESHOLDS, WINDOWS
from pmlkit.forecast.models import BoostedQuantiles, LinearQuantiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, Self

    from pmlkit.types import Array, Bools, Floats, Ints

__all__ = [
    "Calibrated",
    "Forecaster",
    "MODELS",
    "Sample",
    "ahead",
    "level",
    "matrix",
    "split_shift",
    "stacked",
    "track",
]


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
            self.shift_ = split_shift(stacked, self.taus_)
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
            found = track(y, raw, self.taus_, self.horizon, eta, self.shift_)
        else:
            found = np.sort(raw + self.shift_, axis=1)
        return np.maximum(np.expm1(found), 0)

    def scenarios(self, sample: Sample) -> Floats:
        """Return equally likely values, pages, shape (windows, 100); for `decide.by_price`."""
        return decide.scenarios(self.taus_, self.predict(sample, online=False))


def outcome(sample: Sample, horizon: int, target: str) -> tuple[Floats, Bools]:
    """Return what came, log(1 + pages), and in which windows it is judged."""
    y = np.log1p(ahead(sample.table, horizon, target))
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
            model = clone(self.model).fit(*stacked(rows, ~held))
            for i in np.flatnonzero(held):
                unseen[i] = self._said(model, samples[i])
        self.model_ = clone(self.model).fit(*stacked(rows, np.ones(len(rows), bool)))
        self.taus_ = self.model_.quantiles_
        self.samples_, self.unseen_ = samples, unseen if len(names) > 1 else []
        self._calibrate(samples if self.unseen_ else [], self.unseen_)
        return self

    def _rows(self, sample: Sample) -> tuple[pd.DataFrame, Floats]:
        y, keep = outcome(sample, self.horizon, self.target)
        y = y - level(sample.table).to_numpy()
        return matrix(sample.table)[keep], y[keep]

    def _said(self, model: Any, sample: Sample) -> Floats:
        base = level(sample.table).to_numpy()
        found: Floats = model.predict_quantiles(matrix(sample.table)) + base[:, None]
        return found

    def raw(self, sample: Sample) -> Floats:
        """Return the quantiles before calibration: log(1 + pages), shape (windows, quantiles)."""
        return self._said(self.model_, sample)


# ------------------------------------------------------------------------------
# Conformal calibration: shift quantiles until they cover what they say.
#
# *Split*: the quantile of a level tau is shifted by the tau-quantile of the scores y - forecast,
# on data that the model was not fitted to (Romano, Patterson, Candes 2019, "Conformalized
# quantile regression", NeurIPS; one-sided). That holds for data like that of the calibration,
# which another program's is not. *Online*: while the forecasts are in use, each window that ends
# above its quantile moves the shift up by eta tau, each other one down by eta (1 - tau) (Gibbs
# and Candes 2021, "Adaptive conformal inference under distribution shift", NeurIPS; as the
# quantile tracker of Angelopoulos, Candes, Tibshirani 2023, "Conformal PID control", NeurIPS).
# Over n windows the coverage is then within (range of the scores + eta) / (eta n) of tau,
# whatever the data does.


def split_shift(scores: Floats, taus: Floats) -> Floats:
    """Return the shift of each quantile out of calibration scores.

    Parameters
    ----------
    scores : array of float, shape (n, quantiles)
        y - forecast, on calibration data.
    taus : array of float, shape (quantiles,)

    Returns
    -------
    ndarray of float, shape (quantiles,)
        The ceil((n + 1) tau)-th smallest score; the largest, where n is too small for that.
    """
    scores = np.sort(np.asarray(scores, float), axis=0)
    n = len(scores)
    rank = np.minimum(np.ceil((n + 1) * np.asarray(taus)).astype(int), n) - 1
    return scores[rank, np.arange(scores.shape[1])]


def track(
    y: Floats, forecast: Floats, taus: Floats, horizon: int, eta: Any, shift: Floats | None = None
) -> Floats:
    """Shift the quantiles of one log online: each forecast by what was known when it was made.

    Parameters
    ----------
    y : array of float, shape (n,)
        The outcomes; entry t is known `horizon` windows after the forecast t. NaN: never.
    forecast : array of float, shape (n, quantiles)
    taus : array of float, shape (quantiles,)
    horizon : int
    eta : float or array of float, shape (quantiles,)
        How far a miss moves the shift, in units of `y`.
    shift : array of float, shape (quantiles,), optional
        To begin with; zeros by default.

    Returns
    -------
    ndarray of float, shape (n, quantiles)
        Shifted, and rising from left to right.
    """
    y, taus = np.asarray(y, float), np.asarray(taus, float)
    shift = np.zeros(len(taus)) if shift is None else np.array(shift, float)
    shifted = np.empty_like(np.asarray(forecast, float))
    for t in range(len(y)):
        known = t - horizon
        if known >= 0 and np.isfinite(y[known]):
            missed = y[known] > shifted[known]
            shift = shift + eta * (missed - (1 - taus))
        shifted[t] = forecast[t] + shift
    return np.sort(shifted, axis=1)


# ------------------------------------------------------------------------------
# From tables of features to what models learn: scale-free rows X, and targets.
#
# Programs differ in size by orders of magnitude, and a model that is to serve a program that it has
# never seen must not depend on it. So sizes enter as differences of logarithms, and targets are
# predicted relative to a level of the same log's own past.


LAGS = (1, 2, 3, 4, 6, 8, 12, 16)
SPANS = (4, 8, 16, 32, 64)
HISTORY = 96  # windows that a log's own quantiles look back


def matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that models learn from.

    Parameters
    ----------
    table : DataFrame
        Of `features.table`.

    Returns
    -------
    DataFrame of float64, shape (windows, features)
        Causal like the table; NaN where the past is too short, or the hour is not known.
    """
    now = np.log1p(table["pages"])
    base = level(table)
    columns = {"now": now - base}
    columns |= {f"lag{i}": now.shift(i) - base for i in LAGS}
    for span in SPANS:
        past = now.rolling(span, min_periods=2)
        columns[f"mean{span}"] = past.mean() - base
        columns[f"max{span}"] = past.max() - base
        columns[f"min{span}"] = past.min() - base
        columns[f"std{span}"] = past.std()
        columns[f"ewma{span}"] = now.ewm(halflife=span / 4).mean() - base
    history = now.rolling(HISTORY, min_periods=4)
    for q in (0.25, 0.5, 0.75, 0.95):
        columns[f"q{int(q * 100)}"] = history.quantile(q) - base
    columns |= _sizes(table, base) | _turnover(table) | _rhythm(table, now, base)
    return pd.DataFrame(columns).astype(float)


def level(table: pd.DataFrame) -> pd.Series[float]:
    """Return the level that targets are relative to: log(1 + p90 of the past `HISTORY` windows)."""
    now = np.log1p(table["pages"])
    return now.rolling(HISTORY, min_periods=1).quantile(0.9)


def ahead(table: pd.DataFrame, horizon: int, target: str = "at") -> Floats:
    """Return what is to be forecast from each window.

    Parameters
    ----------
    table : DataFrame
    horizon : int
        h, windows.
    target : {"at", "peak"}
        The working set of the window h later, or the largest of the next h.

    Returns
    -------
    ndarray of float, shape (windows,)
        Pages; NaN in the last h windows, where it is not known.
    """
    pages = table["pages"].astype(float)
    if target == "peak":
        # The largest of the next h is the trailing maximum, h windows later.
        pages = pages.rolling(horizon).max()
    return pages.shift(-horizon).to_numpy()


def _sizes(table: pd.DataFrame, base: pd.Series[float]) -> dict[str, Any]:
    columns = {}
    for size in WINDOWS:
        for m in (1, *THRESHOLDS):
            name = f"w{size}" if m == 1 else f"w{size}_m{m}"
            if name != "w1":
                columns[name] = np.log1p(table[name]) - base
    columns["part_last"] = np.log1p(table["part_last"]) - base
    columns["part_max"] = np.log1p(table["part_max"]) - base
    return columns


def _turnover(table: pd.DataFrame) -> dict[str, Any]:
    pages = table["pages"].clip(lower=1)
    shares = ["kept", "new", "soon", "late", "lost", "logged"]
    shares += [f"region{i}" for i in range(REGIONS)]
    columns = {name: (table[name] / pages).clip(upper=20) for name in shares}
    columns["tables"] = np.log1p(table["tables"]) - np.log1p(table["pages"])
    columns["exits"] = np.log1p(table["exits"])
    columns["paused"] = table["pause_ns"] / table["t_ns"].iloc[0]
    return columns


def _rhythm(table: pd.DataFrame, now: Any, base: Any) -> dict[str, Any]:
    """Describe when things happened: the last change, the last time above and below the middle."""
    middle = now.rolling(HISTORY, min_periods=4).median()
    high = now > middle + 0.2
    columns = {"since_change": np.log1p(table["since_change"])}
    columns["since_high"] = np.log1p(_since(high))
    columns["since_low"] = np.log1p(_since(~high))
    columns["busy"] = high.rolling(HISTORY, min_periods=4).mean()
    changed = high.ne(high.shift()).rolling(HISTORY, min_periods=4).mean()
    columns["switching"] = changed
    columns["hour_sin"], columns["hour_cos"] = table["hour_sin"], table["hour_cos"]
    return columns


def _since(mask: Bools) -> Ints:
    index = np.arange(len(mask))
    return index - np.maximum.accumulate(np.where(mask, index, -1))


def stacked(
    rows: Sequence[tuple[pd.DataFrame, Array]], chosen: Iterable[bool]
) -> tuple[Any, Floats]:
    """Put the chosen ones of several (X, y) one below the other; `chosen` is of bool."""
    X = pd.concat([X for (X, _), keep in zip(rows, chosen, strict=True) if keep])
    return X, np.concatenate([y for (_, y), keep in zip(rows, chosen, strict=True) if keep])
