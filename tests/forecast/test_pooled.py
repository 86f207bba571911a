# SPDX-License-Identifier: Apache-2.0
"""A log's own past, and pooling it with what others did: known answers; and what can be known."""

import numpy as np
import pandas as pd
import pytest
from forecast_logs import make_sample

from pmlkit.forecast import analogs, limits
from pmlkit.forecast.analogs import SHARES, Analogs, Pooled, make, mix
from pmlkit.forecast.forecaster import WARM_UP, Forecaster, targets
from pmlkit.forecast.models import LinearQuantiles


def test_weighted_quantiles_are_those_of_repeated_values():
    random = np.random.default_rng(0)
    values, counts = random.normal(size=40), random.integers(0, 5, (3, 40))
    levels = np.array([0.101, 0.5001, 0.951])
    found = analogs.weighted_quantiles(values, counts.astype(float), levels)
    for row, times in zip(found, counts, strict=True):
        np.testing.assert_array_equal(
            row, np.quantile(np.repeat(values, times), levels, method="inverted_cdf")
        )


def test_a_state_that_was_there_brings_what_came_then():
    X = np.tile([0.0, 10.0], 30)[:, None]
    y = np.where(X[:, 0] == 0, 1.0, 5.0)
    found = Analogs((0.1, 0.5, 0.9)).fit(X, y).predict_quantiles([[0.0], [10.0]])
    np.testing.assert_array_equal(found, [[1, 1, 1], [5, 5, 5]])


def test_a_state_unlike_all_gets_the_percentiles_of_the_past():
    y = np.random.default_rng(0).normal(size=500)
    model = Analogs((0.1, 0.5, 0.9), half_life=np.inf).fit(np.zeros((500, 1)), y)
    wanted = np.quantile(y, [0.1, 0.5, 0.9], method="inverted_cdf")
    np.testing.assert_allclose(model.predict_quantiles([[1e3]])[0], wanted, atol=0.02)


def test_what_is_old_counts_less():
    y = np.concatenate([np.zeros(60), np.ones(20)])
    forgets = Analogs((0.5,), half_life=5).fit(np.zeros((80, 1)), y)
    keeps = Analogs((0.5,), half_life=np.inf).fit(np.zeros((80, 1)), y)
    assert forgets.predict_quantiles([[0.0]]) == 1 and keeps.predict_quantiles([[0.0]]) == 0


@pytest.mark.parametrize("horizon", [1, 4])
def test_following_is_fitting_anew_on_what_is_known(horizon):
    random = np.random.default_rng(0)
    X, y = random.normal(size=(40, 2)), random.normal(size=40)
    y[-horizon:] = np.nan
    found = Analogs((0.2, 0.8), half_life=7).predict_rolling(X, y, horizon)
    for t in (7 + horizon, 20, 39):
        known = Analogs((0.2, 0.8), half_life=7).fit(X[: t - horizon + 1], y[: t - horizon + 1])
        np.testing.assert_array_equal(found[t], known.predict_quantiles(X[t : t + 1])[0])
    assert np.isnan(found[: 7 + horizon]).all()


def test_following_looks_at_nothing_later():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(60, 2)), random.normal(size=60)
    other = y.copy()
    other[30 - 4 + 1 :] = random.permutation(other[30 - 4 + 1 :])
    one, two = (Analogs((0.5, 0.9)).predict_rolling(X, of, 4) for of in (y, other))
    np.testing.assert_array_equal(one[:31], two[:31])


def test_mixtures_by_hand():
    own, others = np.array([[1.0, 2, 3, 4]]), np.array([[5.0, 6, 7, 8]])
    np.testing.assert_array_equal(mix(own, others, 0.5), [[1, 3, 5, 7]])
    np.testing.assert_array_equal(mix(own, others, 0.0), others)
    np.testing.assert_array_equal(mix(own * np.nan, others, 0.5), others)


@pytest.fixture(scope="module")
def samples():
    return [make_sample(f"{name}-x", seed=i, rounds=1000) for i, name in enumerate("abc")]


def linear(target="at"):
    return Forecaster(LinearQuantiles((0.5, 0.9), features=4), target=target)


def test_pooling_fits_its_base_once_and_chooses_a_share(samples):
    others = samples[:2]
    base = linear().fit(others)
    fitted = base.model_
    pooled = Pooled(base).fit(others)
    assert pooled.base.model_ is fitted and pooled.share_ in SHARES
    pooled.fit(samples[1:])
    assert pooled.base.model_ is not fitted


def test_pooled_quantiles_cover_what_they_say(samples):
    pooled = Pooled(linear()).fit(samples[:2])
    forecast = pooled.predict(samples[2])[WARM_UP:-4]
    y = targets(samples[2].table, 4)
    covered = (y[WARM_UP:-4, None] <= forecast).mean(axis=0)
    np.testing.assert_allclose(covered, [0.5, 0.9], atol=0.08)
    values = pooled.scenarios(samples[2])
    assert values.shape == (len(samples[2].table), 100) and (np.diff(values, axis=1) >= 0).all()


def test_one_program_alone_can_be_pooled(samples):
    pooled = Pooled(linear("peak")).fit(samples[:1])
    assert np.isfinite(pooled.predict(samples[1])).all()


def test_what_can_be_made():
    assert isinstance(make("pooled", 2, "peak"), Pooled) and make("pooled", 2).horizon == 2
    assert isinstance(make("linear"), Forecaster)


def test_who_is_told_more_wastes_less():
    samples = []
    for i, name in enumerate("ab"):
        one = make_sample(f"{name}-x", seed=i, rounds=1500)
        # The load is a coin that is thrown anew in each window: only the phase says it.
        heads = np.random.default_rng(i).random(len(one.table)) < 0.3
        pages = np.where(heads, 1000, 10)
        table = one.table.assign(pages=pages, phase=np.where(heads, "work", "rest"))
        samples.append(type(one)(one.name, one.program, table, one.window_s))
    found = limits.limits(samples, (1, 4)).set_index("horizon")
    assert (found["told the phase"] < 0.1).all()
    assert (found[["own past", "hindsight"]] > 0.8).all(axis=None)
    assert (found["autocorrelation"].abs() < 0.15).all()


def test_the_phase_ahead_is_that_of_the_later_window():
    sample = make_sample("a")
    phase = pd.Series(list("xxyyz"))
    table = sample.table.iloc[:5].assign(phase=phase)
    found = limits.phase_ahead(type(sample)("a", "a", table, 0.5), 2)
    assert [int(np.argmax(row)) for row in found] == [0, 0, 1, 1, 1]
    assert np.linalg.norm(found[0] - found[2]) == pytest.approx(limits.APART)
