# SPDX-License-Identifier: Apache-2.0
"""The interval of independent values, by drawing them with replacement."""

import numpy as np
import pytest

from pmlkit.resampling import FEW, bootstrap


def test_the_interval_of_a_mean():
    values = np.random.default_rng(0).normal(10, 1, 400)
    low, high = bootstrap([*values, np.nan])
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)


@pytest.mark.parametrize("values", [[], [4.0], [4.0, np.nan]])
def test_one_value_has_no_interval(values):
    assert np.isnan(bootstrap(values)).all()


@pytest.mark.parametrize(
    ("n", "low", "high"),
    [(3, 0.7, 0.8), (5, 0.8, 0.88), (FEW - 1, 0.85, 0.93), (2 * FEW, 0.9, 0.96)],
)
def test_with_few_values_an_interval_holds_less_often_than_it_says(n, low, high):
    rng = np.random.default_rng(n)
    ends = [bootstrap(rng.standard_normal(n), draws=500) for _ in range(1500)]
    assert low < np.mean([below <= 0 <= above for below, above in ends]) < high
