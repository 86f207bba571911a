# SPDX-License-Identifier: Apache-2.0
"""The quantile models: scikit-learn's contract, and quantiles that are right where it is known."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.utils.estimator_checks import parametrize_with_checks

from pmlkit.forecast.analogs import Analogs
from pmlkit.forecast.forecaster import split_shift, track
from pmlkit.forecast.models import QUANTILES, BoostedQuantiles, LinearQuantiles


@parametrize_with_checks(
    [
        BoostedQuantiles((0.5, 0.9), max_iter=60, learning_rate=0.2, min_samples_leaf=5),
        LinearQuantiles(quantiles=(0.5, 0.9), alpha=0.0),
        Analogs(),
    ]
)
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


def noisy(n, seed):
    """Draw y = 2 x + noise, whose spread grows with x."""
    random = np.random.default_rng(seed)
    x = random.uniform(0, 1, (n, 3))
    return x, 2 * x[:, 0] + (0.1 + x[:, 0]) * random.normal(size=n)


@pytest.mark.parametrize("model", [BoostedQuantiles(), LinearQuantiles()])
def test_quantiles_of_known_noise(model):
    model.fit(*noisy(1500, 0))
    x, y = noisy(2000, 1)
    found = model.predict_quantiles(x)
    assert found.shape == (2000, len(QUANTILES))
    assert (np.diff(found, axis=1) >= 0).all()
    for tau, column in zip(model.quantiles_, found.T, strict=True):
        assert abs((y <= column).mean() - tau) < 0.05
        truth = 2 * x[:, 0] + (0.1 + x[:, 0]) * norm.ppf(tau)
        assert np.abs(column - truth).mean() < 0.35
    np.testing.assert_array_equal(model.predict(x), found[:, QUANTILES.index(0.5)])


def test_a_feature_that_nobody_knows_does_not_matter():
    x, y = noisy(300, 0)
    blind = np.column_stack([x, np.full(300, np.nan)])
    model = BoostedQuantiles((0.5,), max_features=1.0)
    one = model.fit(x, y).predict(x)
    np.testing.assert_array_equal(one, model.fit(blind, y).predict(blind))


def test_the_split_shift_is_the_order_statistic():
    scores = np.arange(1.0, 100.0)[:, None].repeat(2, axis=1)  # 99 scores: n + 1 = 100
    np.testing.assert_array_equal(split_shift(scores, [0.5, 0.95]), [50, 95])
    np.testing.assert_array_equal(split_shift(scores[:5], [0.5, 0.99]), [3, 5])


def test_split_calibration_covers_what_it_says_on_exchangeable_data():
    random = np.random.default_rng(0)
    taus, covered = np.array([0.5, 0.9, 0.95]), []
    for _ in range(200):
        y = random.gamma(2, size=300)
        shift = split_shift(y[:200, None] - np.zeros(3), taus)
        covered.append((y[200:, None] <= shift).mean(axis=0))
    np.testing.assert_allclose(np.mean(covered, axis=0), taus, atol=0.01)


def test_online_calibration_covers_what_it_says_even_if_the_model_is_wrong():
    random = np.random.default_rng(1)
    y = np.concatenate([random.normal(0, 1, 1500), random.normal(5, 3, 1500)])
    taus = np.array([0.5, 0.9, 0.95])
    found = track(y, np.zeros((3000, 3)), taus, horizon=4, eta=0.2)
    np.testing.assert_allclose((y[:, None] <= found).mean(axis=0), taus, atol=0.02)


def test_online_calibration_learns_of_an_outcome_when_it_is_there_and_not_before():
    y = np.full(10, -10.0)
    y[4] = 100.0
    found = track(y, np.zeros((10, 1)), [0.9], horizon=3, eta=1.0)[:, 0]
    steps = [0, 0, -0.1, -0.1, -0.1, -0.1, 0.9, -0.1, -0.1]  # what is forecast at 4 comes at 7
    np.testing.assert_allclose(np.diff(found), steps)


def test_an_outcome_that_never_comes_moves_nothing():
    y = np.full(6, np.nan)
    found = track(y, np.ones((6, 2)), [0.5, 0.9], horizon=1, eta=1.0)
    np.testing.assert_array_equal(found, 1.0)
