# SPDX-License-Identifier: Apache-2.0
"""Peaks: will the working set exceed the present allocation within h windows?

A classifier says how probable that is. Its probabilities are calibrated by a logistic function of
its score (Platt 1999) on programs that it has not seen. A *peak* begins in a window that uses more
than what was allocated at the end of the one before, and in a window before which it did not; an
*alarm* is a probability above a threshold while the allocation still holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score
from threadpoolctl import threadpool_limits

from pmlkit.errors import UsageError
from pmlkit.forecast import forecaster as design
from pmlkit.forecast.forecaster import WARM_UP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Self

    from pmlkit.forecast.forecaster import Sample
    from pmlkit.types import Array, Bools, Floats, Json


__all__ = ["PeakForecaster", "alarms", "backtest", "exceeds", "held", "nearness"]


def held(table: pd.DataFrame) -> Floats:
    """Return the allocation that is watched by default: p90 of the log's own past, pages.

    It is exceeded in a tenth of the windows of a steady load, so there are peaks to forecast.
    """
    return np.expm1(design.level(table).to_numpy())


def exceeds(table: pd.DataFrame, allocation: Floats, horizon: int) -> Floats:
    """Say of each window whether any of the next h uses more than the allocation at its end.

    Parameters
    ----------
    table : DataFrame
        Of `features.table`.
    allocation : array of float, shape (windows,)
        Pages.
    horizon : int

    Returns
    -------
    ndarray of float, shape (windows,)
        1 or 0; NaN in the last h windows, where it is not known.
    """
    peak = design.ahead(table, horizon, "peak")
    return np.where(np.isfinite(peak), peak > allocation, np.nan)


def nearness(table: pd.DataFrame, allocation: Floats) -> Floats:
    """Return a rule's score to compare with: what is used now, over the allocation."""
    return table["pages"].to_numpy() / np.maximum(allocation, 1)


@dataclass
class PeakForecaster:
    """The probability that the allocation will be exceeded within h windows.

    Parameters
    ----------
    horizon : int
    max_iter, min_samples_leaf : int
        Of the boosted trees.

    Attributes
    ----------
    model_, scale_ : estimator
        The classifier, and the calibration of its score.
    threshold_ : float
        Of an alarm: the best F1 on programs that the model had not seen.
    """

    horizon: int = 4
    max_iter: int = 80
    min_samples_leaf: int = 30
    model_: object = field(default=None, repr=False)
    scale_: object = field(default=None, repr=False)
    threshold_: float = 0.5

    def fit(self, samples: Sequence[Sample], folds: int = 3) -> Self:
        """Fit on samples (list of `Sample`); the calibration holds out some programs at a time."""
        rows = [self._rows(sample) for sample in samples]
        programs = np.array([sample.program for sample in samples])
        names = list(dict.fromkeys(programs))
        scores, labels = [], []
        with threadpool_limits(1):
            for fold in range(min(folds, len(names)) if len(names) > 1 else 0):
                out = np.isin(programs, names[fold::folds])
                X, y = design.stacked(rows, ~out)
                if y.min() == y.max():
                    continue
                model = self._classifier().fit(X, y)
                X, y = design.stacked(rows, out)
                scores.append(_score(model, X))
                labels.append(y)
            X, y = design.stacked(rows, np.ones(len(rows), bool))
            if y.min() == y.max():
                raise UsageError("the logs have no peak, or nothing else: give longer ones")
            self.model_ = self._classifier().fit(X, y)
            scores = np.concatenate(scores) if scores else _score(self.model_, X)  # type: ignore[assignment]
            labels = np.concatenate(labels) if labels else y  # type: ignore[assignment]
        self.scale_ = LogisticRegression(C=1e3).fit(scores[:, None], labels)  # type: ignore[call-overload]
        self.threshold_ = _best_threshold(self.scale_.predict_proba(scores[:, None])[:, 1], labels)  # type: ignore[arg-type, attr-defined, call-overload]
        return self

    def _classifier(self) -> Any:
        return HistGradientBoostingClassifier(
            max_iter=self.max_iter,
            learning_rate=0.06,
            max_leaf_nodes=8,
            min_samples_leaf=self.min_samples_leaf,
            l2_regularization=1.0,
            max_features=0.5,
            early_stopping=False,
            random_state=0,
        )

    def _rows(self, sample: Sample) -> tuple[pd.DataFrame, Array]:
        allocation = held(sample.table)
        X, y = _matrix(sample.table, allocation), exceeds(sample.table, allocation, self.horizon)
        keep = np.isfinite(y) & _waiting(sample.table, allocation)
        return X[keep], y[keep].astype(int)

    def predict(self, sample: Sample, allocation: Floats | None = None) -> Floats:
        """Return the probability at the end of each window.

        Parameters
        ----------
        sample : Sample
        allocation : array of float, shape (windows,), optional
            Pages; default `held`.

        Returns
        -------
        ndarray of float, shape (windows,)
            0 to 1; of exceeding the allocation at that window's end within the next h windows.
        """
        allocation = held(sample.table) if allocation is None else allocation
        with threadpool_limits(1):
            score = _score(self.model_, _matrix(sample.table, allocation))
        return self.scale_.predict_proba(score[:, None])[:, 1]  # type: ignore[attr-defined]


def _matrix(table: pd.DataFrame, allocation: Floats) -> pd.DataFrame:
    X = design.matrix(table).drop(columns=["hour_sin", "hour_cos"])
    return X.assign(room=np.log1p(allocation) - np.log1p(table["pages"])).fillna(0.0)


def _score(model: Any, X: pd.DataFrame) -> Floats:
    return logit(np.clip(model.predict_proba(X)[:, 1], 1e-6, 1 - 1e-6))


def _best_threshold(scores: Floats, labels: Array) -> float:
    """Return the threshold with the best F1, out of up to 99."""
    candidates = np.unique(np.quantile(scores, np.linspace(0.01, 0.99, 99)))
    return float(max(candidates, key=lambda c: f1_score(labels, scores >= c, zero_division=0)))


def _over(table: pd.DataFrame, allocation: Floats) -> Bools:
    """Say of each window whether it used more than was allocated at the end of the one before."""
    before = np.concatenate(([np.inf], allocation[:-1]))
    return table["pages"].to_numpy() > before


def _waiting(table: pd.DataFrame, allocation: Floats) -> Bools:
    """Choose the windows in which a forecast of a peak makes sense: none is there already."""
    keep = ~_over(table, allocation)
    keep[: min(WARM_UP, len(keep) // 2)] = False
    return keep


def alarms(
    table: pd.DataFrame,
    allocation: Floats,
    score: Floats,
    threshold: float,
    horizon: int,
    window_s: float,
) -> Json:
    """Judge alarms by the peaks that came.

    Parameters
    ----------
    table : DataFrame
    allocation, score : array of float, shape (windows,)
    threshold : float
        There is an alarm where the score is not below it.
    horizon : int
    window_s : float

    Returns
    -------
    dict
        ``peaks`` that began; ``recall``: the share with an alarm within the h windows before;
        ``precision``: the share of the windows with an alarm after which the allocation of that
        time was exceeded within h; ``lead_s``: the median time from the first of those alarms to
        the beginning of the peak; ``base_rate``: the precision of an alarm that is always on.
    """
    over = _over(table, allocation)
    label = exceeds(table, allocation, horizon)
    waiting = _waiting(table, allocation)
    raised = waiting & (score >= threshold)
    judged, alarm = waiting & np.isfinite(label), raised & np.isfinite(label)
    first = max(np.flatnonzero(judged)[0] if judged.any() else len(over), 1)
    begins = [t for t in range(first + 1, len(over)) if over[t] and not over[t - 1]]
    leads = []
    for t in begins:
        before = np.flatnonzero(raised[max(t - horizon, 0) : t])
        if len(before):
            leads.append((t - max(t - horizon, 0) - before[0]) * window_s)
    return {
        "peaks": len(begins),
        "recall": len(leads) / len(begins) if begins else np.nan,
        "precision": float(label[alarm].mean()) if alarm.any() else np.nan,
        "lead_s": float(np.median(leads)) if leads else np.nan,
        "base_rate": float(label[judged].mean()) if judged.any() else np.nan,
    }


def backtest(
    samples: list[Sample],
    horizon: int = 4,
    held_out: Sequence[str] | None = None,
    progress: Callable[..., Any] | None = None,
) -> pd.DataFrame:
    """Leave one program out, and judge the alarms of the classifier and of the rule `nearness`.

    Parameters
    ----------
    samples : list of Sample
    horizon : int
    held_out : sequence of str, optional
        Programs; default all.
    progress : callable, optional
        Called with a text before each fit.

    Returns
    -------
    DataFrame
        ``model``, ``sample``, ``program``, ``composed``, as in `alarms`, and
        ``average_precision`` (the area under precision against recall, over all thresholds).
    """
    rows = []
    for program in held_out or dict.fromkeys(sample.program for sample in samples):
        others = [sample for sample in samples if sample.program != program]
        if progress:
            progress(f"peaks, without {program}")
        model = PeakForecaster(horizon).fit(others)
        rule = _rule_threshold(others, horizon)
        for sample in (s for s in samples if s.program == program):
            allocation = held(sample.table)
            near = nearness(sample.table, allocation)
            for name, score, threshold in (
                ("boosted", model.predict(sample), model.threshold_),
                ("nearness", near, rule),
            ):
                rows.append(_judge(name, sample, allocation, score, threshold, horizon))
    return pd.DataFrame(rows)


def _judge(
    name: str, sample: Sample, allocation: Floats, score: Floats, threshold: float, horizon: int
) -> Json:
    head = {"model": name, "sample": sample.name, "program": sample.program}
    found = alarms(sample.table, allocation, score, threshold, horizon, sample.window_s)
    label = exceeds(sample.table, allocation, horizon)
    keep = np.isfinite(label) & _waiting(sample.table, allocation)
    both = keep.any() and 0 < label[keep].mean() < 1
    area = float(average_precision_score(label[keep], score[keep])) if both else np.nan
    return head | {"composed": sample.composed} | found | {"average_precision": area}


def _rule_threshold(samples: Sequence[Sample], horizon: int) -> float:
    scores, labels = [], []
    for sample in samples:
        allocation = held(sample.table)
        label = exceeds(sample.table, allocation, horizon)
        keep = np.isfinite(label) & _waiting(sample.table, allocation)
        scores.append(nearness(sample.table, allocation)[keep])
        labels.append(label[keep])
    return _best_threshold(np.concatenate(scores), np.concatenate(labels))
