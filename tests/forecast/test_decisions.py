# SPDX-License-Identifier: Apache-2.0
"""Losses, what decisions cost, the rules, and the back-test: known answers."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from forecast_logs import make_sample
from sklearn.base import BaseEstimator

from pmlkit.errors import UsageError
from pmlkit.forecast import ahead, backtest, baselines, metrics, peaks
from pmlkit.forecast.analogs import Pooled
from pmlkit.forecast.forecaster import WARM_UP, Forecaster, targets
from pmlkit.forecast.models import LinearQuantiles
from pmlkit.trace.schema import MIB_PAGES


def test_pinball_loss_by_hand():
    assert metrics.pinball([10, 0], [6, 4], 0.9) == pytest.approx((0.9 * 4 + 0.1 * 4) / 2)
    assert metrics.pinball([5], [5], 0.3) == 0


def test_the_quantile_has_the_least_pinball_loss():
    y = np.random.default_rng(0).exponential(size=2000)
    losses = [metrics.pinball(y, np.full(2000, np.quantile(y, q)), 0.9) for q in (0.8, 0.9, 0.97)]
    assert min(losses) == losses[1]


def test_coverage_and_mape():
    assert metrics.coverage([1, 2, 3, 4], [2, 2, 2, 2]) == 0.5
    assert metrics.mape([0, 10, 20], [5, 15, 10]) == pytest.approx(50)
    assert np.isnan(metrics.mape([0], [1]))


def slack_at_rate(curve: pd.DataFrame, rate: float) -> float:
    """Return the slack of a trade-off curve at a rate of violations.

    It is interpolated linearly between the two knobs around the rate. Knobs with more slack than
    another one with fewer violations are ignored. NaN if no knob has so few violations.
    """
    best = curve.groupby("violations")["slack"].min().cummin()
    x, y = best.index.to_numpy(), best.to_numpy()
    return float(np.interp(rate, x, y)) if x[0] <= rate else np.nan


def test_slack_at_a_rate_is_interpolated_and_not_extrapolated():
    curve = pd.DataFrame({"violations": [0.2, 0.1, 0.1, 0.02], "slack": [1.0, 5.0, 3.0, 7.0]})
    assert slack_at_rate(curve, 0.1) == 3
    assert slack_at_rate(curve, 0.06) == pytest.approx(5)
    assert slack_at_rate(curve, 0.5) == 1
    assert np.isnan(slack_at_rate(curve, 0.01))


# The rules


def rule(name, pages, horizon=2):
    given = baselines.forecast(name, np.asarray(pages), horizon)
    return given[:, np.argmin(np.abs(baselines.MARGINS - 1))]


def test_the_rules_by_hand():
    pages = [4, 8, 2, 2, 2, 2]
    np.testing.assert_allclose(rule("last value", pages), pages, rtol=0.05)
    np.testing.assert_allclose(rule("max of 4", pages), [4, 8, 8, 8, 8, 2], rtol=0.05)
    means = pd.Series(pages, dtype=float).ewm(halflife=2).mean()
    np.testing.assert_allclose(rule("EWMA 2", pages), means, rtol=0.05)


def test_the_seasonal_rule_finds_the_season():
    pages = np.tile([10, 10, 10, 10, 10, 10, 10, 10, 100, 100, 100, 100], 20)
    horizon = 2
    given = baselines.seasonal(pages, horizon)
    np.testing.assert_array_equal(given[100:-horizon], pages[100 + horizon :])


def test_the_recommender_gives_the_bucket_of_the_peaks_and_15_percent():
    pages = np.full(200, 1000)
    given = baselines.Vpa(10, 10)(pages, 1)
    edges = 16 * (1.05 ** np.arange(60) - 1) / 0.05
    assert given[-1] == pytest.approx(1.15 * edges[edges > 1000][0])
    pages[::10] = 5000  # one window of each interval: what counts is the interval's peak
    given = baselines.Vpa(10, 10)(pages, 1)
    assert given[-1] >= 1.15 * 5000


def test_the_recommender_forgets_by_half_lives():
    pages = np.concatenate([np.full(100, 5000), np.full(100, 100)])
    given = baselines.Vpa(10, 10)(pages, 1)
    # The old peaks weigh 1 - 2**-n after n intervals of the new ones: p90 leaves them at n = 4.
    assert given[100 + 10 * 3 - 1] > 5000 and given[100 + 10 * 4] < 200


def test_a_rule_that_there_is_not():
    with pytest.raises(UsageError, match="no baseline"):
        baselines.forecast("crystal ball", np.ones(3), 1)


# Deciding by price


def test_the_cheapest_allocation_is_the_one_of_brute_force():
    taus = np.array([0.1, 0.5, 0.9])
    quantiles = np.array([[10.0, 20.0, 200.0], [5.0, 50.0, 60.0]])
    values = metrics.scenarios(taus, quantiles)
    size, prices = np.array([10.0, 30.0]), np.array([0.5, 5.0, 50.0])
    given = metrics.cheapest(values, size, prices)
    for row in range(2):
        for knob, price in enumerate(prices):
            cost = [
                np.maximum(a - values[row], 0).mean() + price * size[row] * (values[row] > a).mean()
                for a in values[row]
            ]
            mine = np.flatnonzero(values[row] == given[row, knob])[0]
            assert cost[mine] == pytest.approx(min(cost))
    assert (np.diff(given, axis=1) >= 0).all()


# The back-test


class Oracle(BaseEstimator):
    """Knows nothing, says 0 at all quantiles, and remembers how many rows it was fitted on."""

    def fit(self, X, y):
        self.quantiles_, self.rows_ = np.array([0.5, 0.9]), len(y)
        return self

    def predict_quantiles(self, X):
        return np.zeros((len(X), 2))


def test_the_held_out_program_is_never_learned_from():
    samples = [make_sample(f"{name}-{i}", seed=i) for name in "abc" for i in range(2)]
    seen = {}

    class Spy(Forecaster):
        def fit(self, given, folds=3):
            self.given_ = {sample.program for sample in given}
            return super().fit(given, folds)

        def predict(self, sample, online=None):
            seen[sample.name] = self.given_
            return super().predict(sample, online)

    backtest.leave_one_out(samples, {"spy": Spy(Oracle())}, rules=["last value"])
    assert set(seen) == {sample.name for sample in samples}
    assert all(name[0] not in programs and len(programs) == 2 for name, programs in seen.items())


def test_a_base_of_two_models_is_fitted_once_for_each_program():
    samples, fits = [make_sample(name, seed=i) for i, name in enumerate("abc")], []

    class Spy(Forecaster):
        def fit(self, given, folds=3):
            fits.append([sample.program for sample in given])
            return super().fit(given, folds)

    base = Spy(Oracle())
    backtest.leave_one_out(samples, {"base": base, "pooled": Pooled(base)}, ["last value"])
    assert fits == [["b", "c"], ["a", "c"], ["a", "b"]]


def test_all_are_judged_on_the_same_windows_with_what_came():
    samples = [make_sample("a"), make_sample("b", seed=1)]
    found = backtest.leave_one_out(samples, {"oracle": Forecaster(Oracle())}, ["last value"])
    assert {o.model for o in found} == {"last value", "oracle", "oracle by price"}
    pages = samples[0].table["pages"].to_numpy()
    for o in (o for o in found if o.sample == "a"):
        np.testing.assert_array_equal(o.y, pages[WARM_UP + 4 :])
        np.testing.assert_array_equal(o.t_ns, samples[0].table["t_ns"][WARM_UP:-4])
        assert (np.diff(o.allocations, axis=1) >= 0).all()


def outcome(model, y, given, sample="a-1"):
    """Make what a model of one knob or more gave."""
    y = np.asarray(y, float)
    given = np.asarray(given, float).reshape(len(y), -1)
    program = sample.split("-")[0]
    return backtest.Outcome(model, sample, program, False, 0.5, np.arange(len(y)), y, given)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.03, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("seed", range(5))
def test_slack_at_a_rate_is_that_of_the_curve(rate, seed):
    random = np.random.default_rng(seed)
    y = random.integers(1, 50, 200).astype(float)
    given = random.integers(1, 20, (200, 1)) * np.array([0.1, 0.5, 1, 1, 2, 3])
    o = outcome("m", y, given)
    beyond = given - y[:, None]
    curve = pd.DataFrame(
        {"violations": (beyond < 0).mean(axis=0), "slack": beyond.clip(0).sum(axis=0)}
    )
    np.testing.assert_allclose(
        backtest.relative_slack(o, rate), slack_at_rate(curve, rate) / y.sum()
    )


def test_one_program_cannot_be_held_out_of_one():
    with pytest.raises(UsageError, match="two or more"):
        backtest.leave_one_out([make_sample("a-1"), make_sample("a-2", seed=1)])


def test_a_linear_forecaster_covers_what_it_says_on_a_program_that_it_has_not_seen():
    samples = [make_sample(f"{name}-x", seed=i, rounds=1500) for i, name in enumerate("abcd")]
    model = Forecaster(LinearQuantiles((0.5, 0.9), features=4)).fit(samples[:3])
    forecast = model.predict(samples[3])[WARM_UP:-4]
    y = targets(samples[3].table, 4)[WARM_UP:-4]
    np.testing.assert_allclose((y[:, None] <= forecast).mean(axis=0), [0.5, 0.9], atol=0.06)


# Peaks


def test_alarms_by_hand():
    pages = np.full(60, 10)
    pages[[30, 31, 50]] = 100
    table = pd.DataFrame({"pages": pages})
    allocation = np.full(60, 50.0)
    score = np.zeros(60)
    score[[28, 29, 40]] = 1  # two before the first peak, and a false one
    found = peaks.alarms(table, allocation, score, 0.5, horizon=4, window_s=0.5)
    assert (found["peaks"], found["recall"], found["lead_s"]) == (2, 0.5, 1.0)
    assert found["precision"] == pytest.approx(2 / 3)


def test_an_alarm_right_before_a_peak_at_the_very_end_warned_of_it():
    """Whether it was right for all of its horizon is not known, but of this peak it did warn."""
    table, score = pd.DataFrame({"pages": [10] * 59 + [100]}), np.zeros(60)
    score[58] = 1
    found = peaks.alarms(table, np.full(60, 50.0), score, 0.5, horizon=4, window_s=0.5)
    assert (found["peaks"], found["recall"], found["lead_s"]) == (1, 1.0, 0.5)
    assert np.isnan(found["precision"])


def test_exceeding_looks_at_the_next_windows_only():
    table = pd.DataFrame({"pages": [9, 1, 1, 9, 1, 1]})
    found = peaks.exceeds(table, np.full(6, 5.0), 2)
    np.testing.assert_array_equal(found, [0, 1, 1, 0, np.nan, np.nan])


def test_an_allocation_was_exceeded_as_often_as_the_past_says():
    """Pages by window; within the next two, 5 pages are exceeded after two windows of the four."""
    present = SimpleNamespace(table=pd.DataFrame({"pages": [9, 1, 1, 9, 1, 1]}))
    found = ahead._exceeded(present, 5 / MIB_PAGES, 2)
    assert found == {"exceeds": 0.5, "exceeds_windows": 4}


def test_peaks_are_forecast_for_another_program():
    samples = [make_sample(name, seed=i, rounds=1000) for i, name in enumerate("abc")]
    model = peaks.PeakForecaster(max_iter=20).fit(samples[:2])
    p = model.predict(samples[2])
    assert p.shape == (200,) and ((p >= 0) & (p <= 1)).all()
    label = peaks.exceeds(samples[2].table, peaks.default_allocation(samples[2].table), 4)
    assert abs(np.nanmean(label) - p.mean()) < 0.2


def test_programs_without_a_peak_do_not_calibrate_the_alarm():
    samples = [make_sample(name, seed=i, rounds=1000) for i, name in enumerate("ab")]
    quiet = make_sample("c", seed=2, rounds=1000)
    for column in quiet.table.select_dtypes("number"):
        quiet.table[column] = quiet.table[column].min()
    model = peaks.PeakForecaster(max_iter=20).fit([samples[0], quiet])
    p = model.predict(samples[1])
    assert p.shape == (200,) and ((p >= 0) & (p <= 1)).all()
