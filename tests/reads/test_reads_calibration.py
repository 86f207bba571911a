# SPDX-License-Identifier: Apache-2.0
"""Calibration on other guests: the kernel's part, fresh entries, intervals."""

import numpy as np
import pandas as pd
import pytest

from pmlkit.reads.calibration import COVERAGE, Calibration, bundled, calibrate


def unsure(guests=3, slope=2.0, scale=0.5):
    entries = np.array([20, 25, 30, 40])
    pages = np.rint(scale * entries**slope).astype(int)
    rows = pd.DataFrame(
        {"entries": entries, "pages": pages, "fresh": 100, "used": [30, 40, 50, 40]}
    )
    return pd.concat([rows.assign(guest=f"g{n}") for n in range(guests)], ignore_index=True)


def test_a_power_of_the_kernels_entries_and_a_part_of_the_fresh():
    fitted = calibrate(unsure())
    assert fitted.slope == pytest.approx(2, abs=0.01) and fitted.scale == pytest.approx(
        0.5, rel=0.05
    )
    assert fitted.fresh == 0.4
    assert fitted.others(np.array([20, 0]), np.array([10, 5])).tolist() == [204, 2]


def test_a_large_page_has_no_more_than_512():
    fitted = Calibration(1.0, 3.0, 1.0, {})
    assert fitted.others(np.array([100]), np.array([0])).tolist() == [51_200]


def test_no_calibration_counts_one_page_each():
    fitted = calibrate(unsure().head(0))
    assert fitted.others(np.array([7]), np.array([3])).tolist() == [10] and fitted.ratios == {}


def rounds(ratio, low=0, guests=4, **how):
    """Rounds of guests with truth over estimate (less `low`) as `ratio` says, 1000 estimated."""
    names = [f"g{n % guests}" for n in range(len(ratio))]
    truth = low + (1000 - low) * ratio
    return pd.DataFrame({"guest": names, "pages": 1000, "low": low, "truth": truth} | how)


def test_intervals_hold_in_nine_rounds_of_ten_of_guests_of_the_same_kind():
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(200):
        ratio = np.exp(rng.normal(0, 0.3, 81))
        fitted = calibrate(unsure(), rounds(ratio[:-1], method="accessed", cleared=False))
        low, high = fitted.interval("accessed", False, np.array([1000]), np.array([400]))
        inside.append(low[0] <= 1000 * ratio[-1] <= high[0])
        assert fitted.interval("accessed", True, np.array([1000]), np.array([400])) is None
    assert np.mean(inside) >= COVERAGE


def test_with_cleared_flags_only_the_rest_is_unsure():
    seen = rounds(np.tile([0.5, 2.0], 20), low=900, guests=5, method="accessed", cleared=True)
    fitted = calibrate(unsure(), seen)
    low, high = fitted.interval("accessed", True, np.array([1000]), np.array([800]))
    assert (low[0], high[0]) == (900, 1200)


def test_the_guest_that_is_furthest_off_counts():
    ratio = np.where(np.arange(40) % 4 == 3, 3.0, 1.0)
    fitted = calibrate(unsure(), rounds(ratio, method="present", cleared=False))
    assert fitted.ratios["present", False] == (1, 3)


def test_few_guests_give_no_interval():
    seen = rounds(np.ones(40), guests=2, method="leaves", cleared=False)
    assert calibrate(unsure(), seen).ratios == {}


def test_what_comes_with_the_package():
    fitted = bundled()
    assert {("accessed", True), ("accessed", False), ("leaves", False)} <= set(fitted.ratios)
    assert all(0 < low < high for low, high in fitted.ratios.values())
    assert 1 < fitted.slope < 4 and 0 < fitted.fresh < 1
