# SPDX-License-Identifier: Apache-2.0
"""The figures of the law: what they carry, their widths, and that nothing sticks out."""

import numpy as np
import pandas as pd
import pytest
from factories import make_trace
from overlaps import faults

import pmlkit
from pmlkit import figures, workingset
from pmlkit.figures import law as figures_law
from pmlkit.figures.style import styled

WIDTHS = {1: 3.33, 2: 7.0}


def points():
    measured = np.geomspace(0.001, 2, 30)
    table = pd.DataFrame({"measured": measured, "predicted": measured * 1.5, "technique": "prl"})
    table = table.assign(missed=0.0, extra=0.0, watched=-1)
    table.loc[:9, "watched"] = 64
    table.loc[20:, "missed"] = 0.5
    table.loc[29, "predicted"] = 0.0  # has no place on a logarithmic axis
    return table


@pytest.mark.parametrize("columns", [1, 2])
def test_predicted_against_measured(columns):
    figure = figures.predicted_against_measured(points(), columns=columns)
    assert figure.get_size_inches()[0] == WIDTHS[columns]
    assert len(figure.data["points"]) == 29
    assert "half are within a factor of 1.5, nine of ten within 1.5" in figure.caption
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["counts all uses (10)", "draws a sample (10)", "misses some uses (9)"]
    assert not styled(faults)(figure)


@pytest.mark.parametrize("columns", [1, 2])
def test_rules_and_what_is_not_covered_are_told_apart(columns):
    table = points()
    table.loc[12:13, "technique"] = "damon"
    table.loc[14:16, ["technique", "predicted"]] = ["senpai", np.nan]
    figure = figures.predicted_against_measured(table, columns=columns)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels[-2:] == ["reports by a rule (2)", "not covered: measured only (3)"]
    assert len(figure.data["not covered"]) == 3
    assert len(figure.data["points"]) == 26
    assert "1 technique that the law does not cover" in figure.caption
    assert not styled(faults)(figure)


@pytest.mark.parametrize("columns", [1, 2])
def test_the_drift_is_that_of_the_working_sets(columns):
    trace = pmlkit.open("hotcold")
    figure = figures.draw(trace, "drift", window="1s", columns=columns)
    table = figure.data["drift"].set_index("age_ns")["drift"]
    sizes = workingset.sweep(trace, ["1s"])
    pages, full = sizes["pages"].to_numpy(float), sizes["full"].to_numpy()
    change = np.abs(pages[10:] - pages[:-10])[full[:-10]]  # 10 rounds of 10 ms
    assert table[100_000_000] == pytest.approx(change.mean() / pages[full].mean(), rel=0.02)
    assert table[0] == 0
    assert not styled(faults)(figure)


def test_a_recording_that_is_not_longer_than_the_window(tmp_path):
    trace = pmlkit.open(make_trace(tmp_path / "short.trace", rounds=1, pml=False))
    figure = figures_law.drift(trace, window=trace.resolution_ns)
    assert not styled(faults)(figure)
