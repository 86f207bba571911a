# SPDX-License-Identifier: Apache-2.0
"""The interval of independent values, by drawing them with replacement."""

import numpy as np
import pytest

from pmlkit.resampling import bootstrap


def test_the_interval_of_a_mean():
    values = np.random.default_rng(0).normal(10, 1, 400)
    low, high = bootstrap([*values, np.nan])
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)


@pytest.mark.parametrize("values", [[], [4.0], [4.0, np.nan]])
def test_one_value_has_no_interval(values):
    assert np.isnan(bootstrap(values)).all()
