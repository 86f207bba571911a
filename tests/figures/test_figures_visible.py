# SPDX-License-Identifier: Apache-2.0
"""The figure of what a KVM host sees: its marks are where the table has them."""

import numpy as np
import pandas as pd
import pytest
from overlaps import faults

from pmlkit import figures
from pmlkit.figures.style import styled

NONE = None
COLUMNS = ["name", "group", "kernel", "seen", "least", "most", "written", "read", "tables"]
COLUMNS += ["low", "high"]
ROWS = [
    ("truth", "truth", "", 30, NONE, NONE, 10, 18, 2, NONE, NONE),
    ("blind", "host", "1", 0, 0, 0, NONE, NONE, NONE, NONE, NONE),
    ("blind", "host", "2", 0, 0, 0, NONE, NONE, NONE, NONE, NONE),
    ("new", "host", "1", *[NONE] * 8),
    ("new", "host", "2", 29, 20, 33, NONE, NONE, NONE, NONE, NONE),
    ("log", "ours", "1", 12, 12, 12, 10, 0, 2, NONE, NONE),
    ("log", "ours", "2", 31, 31, 31, 10, 19, 2, 12, 50),
]  # fmt: skip


@pytest.fixture
def ways():
    table = pd.DataFrame(ROWS, columns=COLUMNS)
    return table.astype(dict.fromkeys(COLUMNS[3:], "Int64"))


def marks(axes):
    """Return the (x, row) of all marks of pages, by marker; rows are counted from the top."""
    found = {}
    for line in axes.lines:
        if line.get_marker() in ("o", "s", "x") and len(line.get_xdata()):
            rows = -np.round(np.asarray(line.get_ydata(), float)).astype(int)
            found.setdefault(line.get_marker(), []).extend(zip(line.get_xdata(), rows, strict=True))
    return found


@pytest.mark.parametrize("columns", [1, 2])
def test_it_has_its_width_and_nothing_sticks_out(ways, columns):
    figure = figures.host_sees(ways, columns=columns)
    assert figure.get_size_inches()[0] == {1: 3.33, 2: 7.0}[columns]
    assert "Emulated" in figure.caption
    assert not styled(faults)(figure)


def test_marks_are_at_the_medians_and_a_cross_where_the_kernel_lacks_the_way(ways):
    everything, written, read, tables = figures.host_sees(ways).axes
    assert marks(everything) == {
        "o": [(0, 0), (12, 2)], "s": [(0, 0), (29, 1), (31, 2)], "x": [(0, 1)],
    }  # fmt: skip
    assert marks(written) == {"o": [(10, 2)], "s": [(10, 2)]}
    assert marks(read) == {"o": [(0, 2)], "s": [(19, 2)]}
    assert marks(tables) == {"o": [(2, 2)], "s": [(2, 2)]}
    assert [text.get_text() for text in read.texts] == [
        "\N{EN DASH}"
    ] * 2  # blind, and new on one kernel


def test_whiskers_are_the_range_of_the_rounds_or_the_bounds(ways):
    everything = figures.host_sees(ways).axes[0]
    spans = [tuple(s[:, 0]) for lines in everything.collections for s in lines.get_segments()]
    assert (20, 33) in spans and (12, 50) in spans
    assert everything.get_xlim()[1] >= 50


def test_the_truth_is_a_line_and_a_tick(ways):
    for axes, pages in zip(figures.host_sees(ways).axes, (30, 10, 18, 2), strict=True):
        assert axes.lines[0].get_xdata()[0] == pages == axes.get_xticks()[1]
