# SPDX-License-Identifier: Apache-2.0
"""Peaks: will the working set exceed the present allocation within h windows?

A classifier estimates this probability. Its probabilities are calibrated by a logistic function of
its score (Platt 1999) on programs that it has not seen. A window is over if it uses more than was
allocated at the end of the previous one. The first of consecutive windows that are over begins a
*peak*. An *alarm* is a probability above a threshold while the allocation is still sufficient.
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

from pmlkit import progress
from pmlkit.errors import UsageError
from pmlkit.forecast.forecaster import (
    WARM_UP,
    base_level,
    design_matrix,
    folds_by_program,
    stack,
    targets,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from pmlkit.forecast.forecaster import Sample
    from pmlkit.types import Bools, Floats, Ints, Json

__all__ = ["PeakForecaster", "alarms", "backtest", "default_allocation", "exceeds", "nearness"]


def default_allocation(table: pd.DataFrame) -> Floats:
    """Return p90 of the log's own past, pages.

    A steady load exceeds it in a tenth of the windows, so there are peaks to forecast.
    """
    return np.expm1(base_level(table).to_numpy())


def exceeds(table: pd.DataFrame, allocation: Floats, horizon: int) -> Floats:
    """Return whether one of the next h windows uses more than the present allocation.

    Shape (windows,), 1 or 0; NaN in the last h windows, where it is unknown.
    """
    peak = targets(table, horizon, "peak")
    return np.where(np.isfinite(peak), peak > allocation, np.nan)


def nearness(table: pd.DataFrame, allocation: Floats) -> Floats:
    """Return the score of the reference rule: the present use over the allocation."""
    return table["pages"].to_numpy() / np.maximum(allocation, 1)


@dataclass
class PeakForecaster:
    """The probability that the allocation will be exceeded within h windows.

    Parameters
    ----------
    horizon : int
    max_iter, min_samples_leaf : int
        Parameters of the boosted trees.

    Attributes
    ----------
    model_, scale_ : estimator
        The classifier, and the calibration of its score.
    threshold_ : float
        The probability of an alarm, with the best F1 on programs that the model had not seen.
    """

    horizon: int = 4
    max_iter: int = 80
    min_samples_leaf: int = 30
    model_: HistGradientBoostingClassifier = field(default=None, repr=False)
    scale_: LogisticRegression = field(default=None, repr=False)
    threshold_: float = 0.5

    def fit(self, samples: Sequence[Sample], folds: int = 3) -> Self:
        """Fit on samples; calibrate by leaving out one of `folds` groups of programs at a time."""
        rows = [self._rows(sample) for sample in samples]
        with threadpool_limits(1):
            X, y = stack(rows)
            if y.min() == y.max():
                raise UsageError("the logs have no peak, or nothing else: use longer ones")
            self.model_ = self._classifier().fit(X, y)
            unseen = self._unseen(rows, [sample.program for sample in samples], folds)
            scores, labels = unseen or (_score(self.model_, X), y)
        self.scale_ = LogisticRegression(C=1e3).fit(scores[:, None], labels)
        self.threshold_ = _best_threshold(self._probability(scores), labels)
        return self

    def _unseen(
        self, rows: Sequence[tuple[pd.DataFrame, Ints]], programs: Sequence[str], folds: int
    ) -> tuple[Floats, Ints] | None:
        """Return scores and labels of programs from models that had not seen them, or None.

        None, too, if these programs have no peak, or nothing else: a calibration needs both.
        """
        scores, labels = [], []
        for held in folds_by_program(programs, folds):
            X, y = stack(rows, ~held)
            if y.min() == y.max():
                continue
            model = self._classifier().fit(X, y)
            X, y = stack(rows, held)
            scores.append(_score(model, X))
            labels.append(y)
        if len(np.unique(np.concatenate([*labels, []]))) < 2:
            return None
        return np.concatenate(scores), np.concatenate(labels)

    def _classifier(self) -> HistGradientBoostingClassifier:
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

    def _rows(self, sample: Sample) -> tuple[pd.DataFrame, Ints]:
        allocation = default_allocation(sample.table)
        label, keep = _labels(sample.table, allocation, self.horizon)
        return _matrix(sample.table, allocation)[keep], label[keep].astype(int)

    def predict(self, sample: Sample, allocation: Floats | None = None) -> Floats:
        """Return the probability at the end of each window.

        Parameters
        ----------
        sample : Sample
        allocation : array of float, shape (windows,), optional
            Pages; default `default_allocation`.

        Returns
        -------
        ndarray of float, shape (windows,)
            0 to 1: the probability of exceeding the allocation at that window's end within the next
            h windows.
        """
        allocation = default_allocation(sample.table) if allocation is None else allocation
        with threadpool_limits(1):
            score = _score(self.model_, _matrix(sample.table, allocation))
        return self._probability(score)

    def _probability(self, score: Floats) -> Floats:
        return self.scale_.predict_proba(score[:, None])[:, 1]


def _matrix(table: pd.DataFrame, allocation: Floats) -> pd.DataFrame:
    X = design_matrix(table).drop(columns=["hour_sin", "hour_cos"])
    return X.assign(room=np.log1p(allocation) - np.log1p(table["pages"])).fillna(0.0)


def _score(model: HistGradientBoostingClassifier, X: pd.DataFrame) -> Floats:
    return logit(np.clip(model.predict_proba(X)[:, 1], 1e-6, 1 - 1e-6))


def _best_threshold(scores: Floats, labels: Ints | Floats) -> float:
    """Return the threshold of best F1, out of up to 99."""
    candidates = np.unique(np.quantile(scores, np.linspace(0.01, 0.99, 99)))
    return float(max(candidates, key=lambda c: f1_score(labels, scores >= c, zero_division=0)))


def _over(pages: pd.Series[int], allocation: Floats) -> Bools:
    """Return whether each window used more than was allocated at the end of the previous one."""
    before = np.concatenate(([np.inf], allocation[:-1]))
    return pages.to_numpy() > before


def _waiting(table: pd.DataFrame, allocation: Floats) -> Bools:
    """Return the windows before a peak: according to the inputs, the allocation suffices."""
    keep = ~_over(table["pages"], allocation)
    keep[: min(WARM_UP, len(keep) // 2)] = False
    return keep


def _labels(table: pd.DataFrame, allocation: Floats, horizon: int) -> tuple[Floats, Bools]:
    """Return `exceeds`, and the windows in which a forecast is judged by it."""
    label = exceeds(table, allocation, horizon)
    return label, np.isfinite(label) & _waiting(table, allocation)


def alarms(
    table: pd.DataFrame,
    allocation: Floats,
    score: Floats,
    threshold: float,
    horizon: int,
    window_s: float,
) -> Json:
    """Judge alarms (score at or above the threshold) by the peaks that followed.

    Returns
    -------
    dict
        ``peaks``: their number. ``recall``: the share with an alarm within the h windows before.
        ``precision``: the share of windows with an alarm whose allocation was exceeded within h.
        ``lead_s``: the median time from the first alarm to the beginning of the peak.
        ``base_rate``: the precision of an alarm that is always on.
    """
    over = _over(table["used" if "used" in table else "pages"], allocation)
    label, judged = _labels(table, allocation, horizon)
    raised = _waiting(table, allocation) & (score >= threshold)
    alarm = raised & judged
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
    training: Sequence[Sample] | None = None,
) -> pd.DataFrame:
    """Leave one program out; judge the alarms of the classifier and of the rule `nearness`.

    Parameters
    ----------
    samples : list of Sample
    horizon : int
    held_out : sequence of str, optional
        Programs; default all.
    training : sequence of Sample, optional
        Training samples, without those of the program left out; default: `samples`.

    Returns
    -------
    DataFrame
        ``model``, ``sample``, ``program``, ``composed``, as in `alarms`, and
        ``average_precision`` (the area under precision against recall, over all thresholds).
    """
    rows = []
    programs = list(held_out or dict.fromkeys(sample.program for sample in samples))
    for program in progress.over(programs, "peaks", "without {}".format):
        others = [sample for sample in training or samples if sample.program != program]
        model = PeakForecaster(horizon).fit(others)
        rule = _rule_threshold(others, horizon)
        for sample in (s for s in samples if s.program == program):
            near = nearness(sample.table, default_allocation(sample.table))
            rows.append(_judge("boosted", sample, model.predict(sample), model.threshold_, horizon))
            rows.append(_judge("nearness", sample, near, rule, horizon))
    return pd.DataFrame(rows)


def _judge(name: str, sample: Sample, score: Floats, threshold: float, horizon: int) -> Json:
    allocation = default_allocation(sample.table)
    label, keep = _labels(sample.table, allocation, horizon)
    both = keep.any() and 0 < label[keep].mean() < 1
    return {
        "model": name,
        "sample": sample.name,
        "program": sample.program,
        "composed": sample.composed,
        **alarms(sample.table, allocation, score, threshold, horizon, sample.window_s),
        "average_precision": (
            float(average_precision_score(label[keep], score[keep])) if both else np.nan
        ),
    }


def _rule_threshold(samples: Sequence[Sample], horizon: int) -> float:
    scores, labels = [], []
    for sample in samples:
        allocation = default_allocation(sample.table)
        label, keep = _labels(sample.table, allocation, horizon)
        scores.append(nearness(sample.table, allocation)[keep])
        labels.append(label[keep])
    return _best_threshold(np.concatenate(scores), np.concatenate(labels))
