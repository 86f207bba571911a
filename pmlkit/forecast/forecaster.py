# SPDX-License-Identifier: Apache-2.0
"""A forecaster: quantiles of the working set h windows ahead, calibrated, for any program.

A forecaster combines features and targets, a quantile regressor (`models`) and conformal
calibration. It is fitted on some programs and forecasts others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.base import clone

from pmlkit import progress
from pmlkit.forecast import metrics
from pmlkit.forecast.features import LOGGED, REGIONS, WSS_COLUMNS
from pmlkit.forecast.models import BoostedQuantiles, LinearQuantiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Self

    from pmlkit.forecast.models import Quantiles
    from pmlkit.types import Array, Bools, Floats, Ints, Json

__all__ = [
    "Calibrated",
    "Forecaster",
    "MODELS",
    "Sample",
    "base_level",
    "design_matrix",
    "folds_by_program",
    "outcome",
    "split_shift",
    "stack",
    "targets",
    "track",
]

MODELS = {"boosted": BoostedQuantiles, "linear": LinearQuantiles}
ETA = 0.03  # learning rate of the online calibration, relative to the spread of the scores
WARM_UP = 16  # windows at a log's start that are not judged, because there is no past yet


def unfitted() -> Floats:
    """Return the value of an array attribute before `fit`."""
    return np.zeros(0)


@dataclass(frozen=True)
class Sample:
    """A log's table of features (of `features.table`); windows are `window_s` seconds long.

    `inputs` and `measures` are those of the log (`log.Log`): the input of the features, and the
    forecast quantity.
    """

    name: str
    program: str
    table: pd.DataFrame
    window_s: float
    composed: bool = False
    inputs: str = "pml"
    measures: str = "written"

    @property
    def feedback(self) -> bool:
        """Whether the inputs later show the outcome: PML alone never shows pages only read."""
        return self.inputs != "pml" or self.measures == "written"

    def seen(self, horizon: int, target: str = "at") -> Floats:
        """Return `targets` according to the inputs; NaN if the inputs do not show them."""
        if not self.feedback:
            return np.full(len(self.table), np.nan)
        return targets(self.table.drop(columns="used", errors="ignore"), horizon, target)


class Calibrated(ABC):
    """Calibrate the quantiles of `raw`: the base of all forecasters."""

    horizon: int
    target: str
    online: bool
    eta: float
    taus_: Floats
    shift_: Floats
    spread_: float

    @abstractmethod
    def raw(self, sample: Sample) -> Floats:
        """Return the quantiles before calibration: log(1 + pages), shape (windows, quantiles)."""

    def _calibrate(self, samples: list[Sample], unseen: list[Floats]) -> None:
        """Set shift and spread by errors of models that had not seen the program."""
        errors = []
        for sample, forecast in zip(samples, unseen, strict=True):
            pages, keep = outcome(sample, self.horizon, self.target)
            errors.append((np.log1p(pages)[:, None] - forecast)[keep])
        if errors:
            scores = np.concatenate(errors)
            self.shift_ = split_shift(scores, self.taus_)
            self.spread_ = float(np.subtract(*np.quantile(scores, [0.75, 0.25])))
        else:
            self.shift_, self.spread_ = np.zeros(len(self.taus_)), 0.1

    def predict(
        self, sample: Sample, online: bool | None = None, raw: Floats | None = None
    ) -> Floats:
        """Forecast from the end of each window of a sample, from the information available then.

        Parameters
        ----------
        sample : Sample
        online : bool, optional
            Overrides the forecaster's own `online`.
        raw : array of float, optional
            The quantiles before calibration; default: `raw` of the sample.

        Returns
        -------
        ndarray of float, shape (windows, quantiles)
            Pages; the quantiles are `taus_`.
        """
        raw = self.raw(sample) if raw is None else raw
        if self.online if online is None else online:
            y = np.log1p(sample.seen(self.horizon, self.target))
            eta = self.eta * self.spread_
            quantiles = track(y, raw, self.taus_, self.horizon, eta, self.shift_)
        else:
            quantiles = np.sort(raw + self.shift_, axis=1)
        return np.maximum(np.expm1(quantiles), 0)

    def scenarios(self, sample: Sample) -> Floats:
        """Return equally likely values, pages, shape (windows, 100); for `metrics.cheapest`."""
        return metrics.scenarios(self.taus_, self.predict(sample, online=False))


def outcome(sample: Sample, horizon: int, target: str) -> tuple[Floats, Bools]:
    """Return the targets, pages used, and the windows in which forecasts are judged."""
    pages = targets(sample.table, horizon, target)
    keep = np.isfinite(pages)
    keep[: min(WARM_UP, len(pages) // 2)] = False
    return pages, keep


def folds_by_program(programs: Sequence[str], folds: int) -> Iterator[Bools]:
    """Yield the samples that each fold leaves out: whole programs; none if there is only one."""
    names = list(dict.fromkeys(programs))
    if len(names) > 1:
        for fold in range(min(folds, len(names))):
            yield np.isin(programs, names[fold::folds])


@dataclass
class Forecaster(Calibrated):
    """Quantiles of the working set ahead, learned from other programs.

    Parameters
    ----------
    model : estimator
        An instance of one of `MODELS`; `fit` clones it.
    horizon : int
        h, windows.
    target : {"at", "peak"}
        The window h later, or the largest of the next h.
    online : bool
        Whether the shift is adapted while forecasting (`track`).
    eta : float
        How fast, relative to the spread of the calibration's scores.

    Attributes
    ----------
    model_ : estimator
        The samples that it was fitted to.
    taus_ : ndarray of float, shape (quantiles,)
    shift_ : ndarray of float, shape (quantiles,)
        For the split calibration: a model that had not seen a program forecasts it.
    spread_ : float
        The scores' interquartile range, in units of log(1 + pages).
    samples_, unseen_ : list
        The samples of `fit`, and raw forecasts of them by models that had not seen the program
        (none if there is only one program). Not saved.
    """

    model: Quantiles
    horizon: int = 4
    target: str = "at"
    online: bool = True
    eta: float = ETA
    model_: Quantiles = field(init=False, repr=False)
    taus_: Floats = field(default_factory=unfitted, repr=False)
    shift_: Floats = field(default_factory=unfitted, repr=False)
    spread_: float = field(default=0.0, repr=False)
    samples_: list[Sample] | None = field(default=None, repr=False)
    unseen_: list[Floats] = field(default_factory=list, repr=False)

    def fit(self, samples: list[Sample], folds: int = 3) -> Self:
        """Fit on samples; calibrate by leaving out one of `folds` groups of programs at a time."""
        rows = [self._rows(sample) for sample in samples]
        unseen: dict[int, Floats] = {}
        groups = list(folds_by_program([sample.program for sample in samples], folds))
        with progress.task("fitting", len(groups) + 1) as task:
            for held in groups:
                model = clone(self.model).fit(*stack(rows, ~held))
                unseen |= {int(i): _raw(model, samples[i]) for i in np.flatnonzero(held)}
                task.advance()
            self.model_ = clone(self.model).fit(*stack(rows))
        self.taus_ = self.model_.quantiles_
        self.samples_, self.unseen_ = samples, [unseen[i] for i in sorted(unseen)]
        self._calibrate(samples if unseen else [], self.unseen_)
        return self

    def _rows(self, sample: Sample) -> tuple[pd.DataFrame, Array]:
        pages, keep = outcome(sample, self.horizon, self.target)
        y = np.log1p(pages) - base_level(sample.table).to_numpy()
        return design_matrix(sample.table)[keep], y[keep]

    def raw(self, sample: Sample) -> Floats:
        """Return the quantiles before calibration: log(1 + pages), shape (windows, quantiles)."""
        return _raw(self.model_, sample)


def _raw(model: Quantiles, sample: Sample) -> Floats:
    base = base_level(sample.table).to_numpy()
    return model.predict_quantiles(design_matrix(sample.table)) + base[:, None]


# ------------------------------------------------------------------------------
# Conformal calibration: shift quantiles so that their coverage is their level.
#
# *Split*: the quantile of a level tau is shifted by the tau-quantile of the scores y - forecast,
# on data that the model was not fitted to (Romano, Patterson, Candes 2019, "Conformalized
# quantile regression", NeurIPS; one-sided). This holds for data like that of the calibration, and
# another program's data is not. *Online*: while the forecasts are in use, each window that ends
# above its quantile moves the shift up by eta tau, each other one down by eta (1 - tau) (Gibbs
# and Candes 2021, "Adaptive conformal inference under distribution shift", NeurIPS; as the
# quantile tracker of Angelopoulos, Candes, Tibshirani 2023, "Conformal PID control", NeurIPS).
# Over n windows the coverage is then within (range of the scores + eta) / (eta n) of tau,
# whatever the data does.


def split_shift(scores: Floats, taus: Floats) -> Floats:
    """Return the shift of each quantile, from calibration scores.

    Parameters
    ----------
    scores : array of float, shape (n, quantiles)
        y - forecast, on calibration data.
    taus : array of float, shape (quantiles,)

    Returns
    -------
    ndarray of float, shape (quantiles,)
        The ceil((n + 1) tau)-th smallest score; the largest if n is too small.
    """
    scores = np.sort(np.asarray(scores, float), axis=0)
    n = len(scores)
    rank = np.minimum(np.ceil((n + 1) * np.asarray(taus)).astype(int), n) - 1
    return scores[rank, np.arange(scores.shape[1])]


def track(
    y: Floats,
    forecast: Floats,
    taus: Floats,
    horizon: int,
    eta: float,
    shift: Floats | None = None,
) -> Floats:
    """Shift the quantiles of one log online, by the outcomes known at the time of each forecast.

    Parameters
    ----------
    y : array of float, shape (n,)
        The outcomes; entry t is known `horizon` windows after the forecast t. NaN: never.
    forecast : array of float, shape (n, quantiles)
    taus : array of float, shape (quantiles,)
    horizon : int
    eta : float
        How far a miss moves the shift, in units of `y`.
    shift : array of float, shape (quantiles,), optional
        Initial shift; zeros by default.

    Returns
    -------
    ndarray of float, shape (n, quantiles)
        Shifted, and in ascending order from left to right.
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
# From tables of features to the training data of models: scale-free rows X, and targets.
#
# Programs differ in size by orders of magnitude, and a model for unseen programs must not depend on
# size. Sizes therefore enter as differences of logarithms, and targets are predicted relative to a
# level of the same log's own past.

LAGS = (1, 2, 3, 4, 6, 8, 12, 16)
SPANS = (4, 8, 16, 32, 64)
HISTORY = 96  # windows that a log's own quantiles look back


def design_matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Return the scale-free features of each window, float64: the rows for the models.

    Causal like the table; NaN if the past is too short, or the hour is unknown.
    """
    now = np.log1p(table["pages"])
    base = base_level(table)
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
    columns |= _sizes(table, base) | _turnover(table) | _rhythm(table, now)
    columns |= _logged(table, base)
    return pd.DataFrame(columns).astype(float)


def base_level(table: pd.DataFrame) -> pd.Series[float]:
    """Return the level that targets are relative to: log(1 + p90 of the past `HISTORY` windows)."""
    now = np.log1p(table["pages"])
    return now.rolling(HISTORY, min_periods=1).quantile(0.9)


def targets(table: pd.DataFrame, horizon: int, target: str = "at") -> Floats:
    """Return the forecast target for each window.

    Parameters
    ----------
    table : DataFrame
        A table from `features.table`; without the column ``used``, its ``pages`` are the target.
    horizon : int
        h, windows.
    target : {"at", "peak"}
        The working set of the window h later, or the largest of the next h.

    Returns
    -------
    ndarray of float, shape (windows,)
        Pages; NaN in the last h windows, where it is unknown.
    """
    pages = table["used" if "used" in table else "pages"].astype(float)
    if target == "peak":
        # The largest of the next h is the trailing maximum, h windows later.
        pages = pages.rolling(horizon).max()
    return pages.shift(-horizon).to_numpy()


def _sizes(table: pd.DataFrame, base: pd.Series[float]) -> Json:
    names = [name for name in WSS_COLUMNS if name != "w1"]  # w1 is `pages`
    return {name: np.log1p(table[name]) - base for name in (*names, "part_last", "part_max")}


def _logged(table: pd.DataFrame, base: pd.Series[float]) -> Json:
    """Return the log's own counts next to a sample's; nothing if the log has the plain names."""
    names = [name for name in map(str, table) if name.startswith(LOGGED)]
    return {name: np.log1p(table[name]) - base for name in names}


def _turnover(table: pd.DataFrame) -> Json:
    pages = table["pages"].clip(lower=1)
    shares = ["kept", "new", "soon", "late", "lost", "logged"]
    shares += [f"region{i}" for i in range(REGIONS)]
    columns = {name: (table[name] / pages).clip(upper=20) for name in shares}
    columns["tables"] = np.log1p(table["tables"]) - np.log1p(table["pages"])
    columns["exits"] = np.log1p(table["exits"])
    columns["paused"] = table["pause_ns"] / table["t_ns"].iloc[0]
    return columns


def _rhythm(table: pd.DataFrame, now: pd.Series[float]) -> Json:
    """Return the windows since the last change, high and low, and how frequent they are."""
    high = now > now.rolling(HISTORY, min_periods=4).median() + 0.2
    return {
        "since_change": np.log1p(table["since_change"]),
        "since_high": np.log1p(_since(high)),
        "since_low": np.log1p(_since(~high)),
        "busy": high.rolling(HISTORY, min_periods=4).mean(),
        "switching": high.ne(high.shift()).rolling(HISTORY, min_periods=4).mean(),
        "hour_sin": table["hour_sin"],
        "hour_cos": table["hour_cos"],
    }


def _since(mask: pd.Series[bool]) -> Ints:
    """Count the windows since the mask was last true."""
    index = np.arange(len(mask))
    return index - np.maximum.accumulate(np.where(mask, index, -1))


def stack(
    rows: Sequence[tuple[pd.DataFrame, Array]], chosen: Iterable[bool] | None = None
) -> tuple[pd.DataFrame, Array]:
    """Concatenate the chosen (X, y) of several; default: all."""
    parts = (
        rows if chosen is None else [one for one, keep in zip(rows, chosen, strict=True) if keep]
    )
    return pd.concat([X for X, _ in parts]), np.concatenate([y for _, y in parts])
