# SPDX-License-Identifier: Apache-2.0
"""Quantile regressors with scikit-learn's contract: boosted trees, and a linear model.

Both fit one model per quantile and predict all of them. Quantiles that cross are sorted
(Chernozhukov, Fernandez-Val, Galichon 2010, "Quantile and probability curves without crossing",
Econometrica 78). ``predict`` returns the median; ``predict_quantiles`` returns all quantiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.impute import SimpleImputer
from sklearn.linear_model import QuantileRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import RobustScaler
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    import pandas as pd
    from sklearn.utils import Tags

    from pmlkit.types import Floats, Ints

__all__ = ["QUANTILES", "BoostedQuantiles", "LinearQuantiles", "Quantiles"]

QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


class Quantiles(RegressorMixin, BaseEstimator):
    """One regressor per quantile; their predictions are sorted. Subclasses have `_model`."""

    def _rows(self, n: int) -> slice | Ints:
        return slice(None)

    def fit(self, X: Floats | pd.DataFrame, y: Floats) -> Self:
        """Fit to X, shape (samples, features), where NaN is unknown, and y, shape (samples,)."""
        X, y = validate_data(self, X, y, y_numeric=True, ensure_all_finite="allow-nan")
        self.quantiles_ = np.unique([*self.quantiles, 0.5])
        self.known_ = ~np.isnan(X).all(axis=0)  # trees refuse a feature that is never known
        rows = self._rows(len(X))
        X, y = np.where(self.known_, X, 0.0)[rows], y[rows]
        # One thread: the fits are small, and threads that wait for a busy core cost far more.
        with threadpool_limits(1):
            self.models_ = [self._model(q, X).fit(X, y) for q in self.quantiles_]
        if hasattr(self, "max_iter"):
            self.n_iter_ = self.max_iter  # there is no early stopping
        return self

    def predict_quantiles(self, X: Floats | pd.DataFrame) -> Floats:
        """Predict the quantiles `quantiles_`, shape (samples, quantiles), in ascending order."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, ensure_all_finite="allow-nan")
        X = np.where(self.known_, X, 0.0)
        with threadpool_limits(1):
            quantiles = np.column_stack([model.predict(X) for model in self.models_])
        return np.sort(quantiles, axis=1)

    def predict(self, X: Floats | pd.DataFrame) -> Floats:
        """Predict the median; shapes as in `predict_quantiles`."""
        return self.predict_quantiles(X)[:, np.searchsorted(self.quantiles_, 0.5)]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class BoostedQuantiles(Quantiles):
    """Quantiles by histogram gradient boosting.

    Parameters
    ----------
    quantiles : sequence of float
        In addition to the median, which is always fitted.
    max_iter : int
        Trees.
    learning_rate : float
    max_leaf_nodes : int
    min_samples_leaf : int
        A leaf of n samples has no information about quantiles beyond 1 - 1/n.
    l2_regularization : float
    max_features : float
        Share of the features that each split considers.
    random_state : int
    """

    def __init__(
        self,
        quantiles: Sequence[float] = QUANTILES,
        max_iter: int = 120,
        learning_rate: float = 0.06,
        max_leaf_nodes: int = 8,
        min_samples_leaf: int = 40,
        l2_regularization: float = 1.0,
        max_features: float = 0.5,
        random_state: int = 0,
    ) -> None:
        self.quantiles = quantiles
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.max_leaf_nodes = max_leaf_nodes
        self.min_samples_leaf = min_samples_leaf
        self.l2_regularization = l2_regularization
        self.max_features = max_features
        self.random_state = random_state

    def _model(self, quantile: float, X: Floats) -> HistGradientBoostingRegressor:
        return HistGradientBoostingRegressor(
            loss="quantile",
            quantile=quantile,
            max_iter=self.max_iter,
            learning_rate=self.learning_rate,
            max_leaf_nodes=self.max_leaf_nodes,
            min_samples_leaf=self.min_samples_leaf,
            l2_regularization=self.l2_regularization,
            max_features=self.max_features,
            early_stopping=False,
            random_state=self.random_state,
        )


class LinearQuantiles(Quantiles):
    """Quantiles by linear programming, on the features that correlate most with the target.

    Koenker and Bassett (1978), "Regression quantiles", Econometrica 46; with an L1 penalty.

    Parameters
    ----------
    quantiles : sequence of float
        In addition to the median, which is always fitted.
    features : int
        Number of features kept; the time of a fit grows quickly with it.
    alpha : float
        Weight of the penalty, per sample.
    max_samples : int
        If there are more samples, evenly spaced ones are fitted, for the same reason.
    """

    def __init__(
        self,
        quantiles: Sequence[float] = QUANTILES,
        features: int = 24,
        alpha: float = 1e-3,
        max_samples: int = 2500,
    ) -> None:
        self.quantiles = quantiles
        self.features = features
        self.alpha = alpha
        self.max_samples = max_samples

    def _rows(self, n: int) -> slice | Ints:
        if n <= self.max_samples:
            return slice(None)
        return np.linspace(0, n - 1, self.max_samples).astype(int)

    def _model(self, quantile: float, X: Floats) -> Pipeline:
        return make_pipeline(
            SimpleImputer(strategy="median", keep_empty_features=True),
            RobustScaler(quantile_range=(5, 95)),
            SelectKBest(f_regression, k=min(self.features, X.shape[1])),
            QuantileRegressor(quantile=quantile, alpha=self.alpha, solver="highs"),
        )
