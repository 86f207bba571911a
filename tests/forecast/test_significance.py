# SPDX-License-Identifier: Apache-2.0
"""Exact tests over few programs: known answers, and the least that they can show."""

import itertools

import numpy as np
import pytest
from scipy.stats import wilcoxon

from pmlkit.forecast import significance


def test_the_sign_test_by_hand():
    assert significance.sign([-1, -1, -1, -1, -1]) == 2 / 2**5
    assert significance.sign([-1, 2, 0]) == 1
    assert significance.sign([-3, -1, -2, 1]) == pytest.approx(2 * (1 + 4) / 2**4)
    assert significance.sign([]) == 1


@pytest.mark.parametrize("seed", range(4))
def test_flipping_signs_is_going_through_all_ways(seed):
    differences = np.random.default_rng(seed).normal(0.5, 1, 7)
    ways = [abs(np.dot(w, differences)) for w in itertools.product([-1, 1], repeat=7)]
    wanted = np.mean(np.array(ways) >= abs(differences.sum()) - 1e-12)
    assert significance.permutation(differences) == pytest.approx(wanted)


def test_of_ranks_it_is_wilcoxons():
    ranks = np.array([1.0, -2, 3, 4, 5, 6, -7, 8])
    assert significance.permutation(ranks) == pytest.approx(wilcoxon(ranks, method="exact").pvalue)


def test_twelve_programs_that_agree_have_the_least_p():
    found = significance.paired_ratio(np.full(12, 0.8), np.ones(12))
    assert found["p_sign"] == found["p_permutation"] == found["least_p"] == 2 / 2**12
    assert found["ratio"] == found["low"] == found["high"] == pytest.approx(0.8)
    assert found["lower"] == found["programs"] == 12


def test_many_pairs_are_drawn():
    random = np.random.default_rng(0)
    assert significance.permutation(random.normal(0, 1, 40)) > 0.01
    assert significance.permutation(random.normal(2, 1, 40)) < 0.001


def test_holm_by_hand():
    np.testing.assert_allclose(significance.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(significance.holm([0.9, 0.8]), [1, 1])
