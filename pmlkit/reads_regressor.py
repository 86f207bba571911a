# SPDX-License-Identifier: Apache-2.0
"""Logistic regression of a share: which part of something is in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

if TYPE_CHECKING:
    from typing import Any, Self

    from pmlkit.types import Array, Floats


__all__ = ["DensityRegressor"]


class DensityRegressor(RegressorMixin, BaseEstimator):
    """Logistic regression of a share between 0 and 1.

    Parameters
    ----------
    alpha : float
        Strength of the penalty on squared (standardised) coefficients.

    Attributes
    ----------
    coef_ : ndarray, shape (n_features,)
        Per standard deviation of a feature, in log-odds.
    intercept_ : float
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X: Floats, y: Any, sample_weight: Any = None) -> Self:
        """Fit to shares `y` (clipped to 0..1); weights as in scikit-learn. Returns self."""
        X, y = validate_data(self, X, y, y_numeric=True)
        weight = _check_sample_weight(sample_weight, X, dtype=float)
        share = np.clip(np.asarray(y, float), 0, 1)
        self.scaler_ = StandardScaler().fit(X, sample_weight=weight)
        weights = np.concatenate((weight * share, weight * (1 - share)))
        labels = np.repeat([1, 0], len(X))
        used = weights > 0
        self.coef_, self.intercept_ = np.zeros(X.shape[1]), _odds(weights, labels)
        if len(np.unique(labels[used])) == 2:
            twice = np.concatenate([self.scaler_.transform(X)] * 2)
            model = LogisticRegression(C=1 / self.alpha, tol=1e-8, max_iter=2000)
            model.fit(twice[used], labels[used], sample_weight=weights[used])
            self.coef_, self.intercept_ = model.coef_[0], float(model.intercept_[0])
        return self

    def predict(self, X: Floats) -> Floats:
        """Return shares, ndarray of float, shape (n_samples,)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        logit = self.scaler_.transform(X) @ self.coef_ + self.intercept_
        return 1 / (1 + np.exp(-np.clip(logit, -50, 50)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # targets beyond 0..1 are none of its own
        return tags


def _odds(weights: Floats, labels: Array) -> float:
    """Return the log-odds of a sample in which every label may be the same."""
    ones, zeros = (weights[labels == label].sum() for label in (1, 0))
    return float(np.log((ones + 1e-9) / (zeros + 1e-9)))
