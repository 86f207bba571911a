# SPDX-License-Identifier: Apache-2.0
"""The figures of capped guests, and of the guest's clock."""

import numpy as np
import pandas as pd
import pytest
from overlaps import faults

from pmlkit import figures
from pmlkit.figures.style import styled


def caps(*rows):
    """Rows of (program, technique, cap, saved, swap-ins a second, slow-down)."""
    columns = ["program", "technique", "cap_mib", "saved", "swap_ins_per_s", "slowdown"]
    table = pd.DataFrame(rows, columns=columns)
    table["work"] = table["slowdown"] ** 0.5
    for column in ("swap_ins_per_s", "slowdown"):
        table[f"{column}_pm"] = table[column] * 0.1
    return table


CAPS = caps(
    ("p", "truth", 140, -0.05, 0, 1.0),
    ("p", "prl", 140, -0.05, 0, 1.0),
    ("p", "idle-pages", 140, -0.05, 0, 1.0),
    ("p", "pml", 112, 0.16, 900, 3.0),
    ("q", "truth", 100, 0.2, 5, 1.1),
    ("q", "damon", 80, 0.4, np.nan, np.nan),
)


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("columns", [1, 2])
def test_each_program_has_a_panel_for_swaps_and_one_for_time(columns):
    figure = figures.capped_guests(CAPS, columns=columns)
    assert [title for axes in figure.axes if (title := axes.get_title())] == ["p", "q"]
    assert len(figure.axes) == 4
    assert not styled(faults)(figure)


def test_techniques_of_one_cap_share_a_point():
    above = figures.capped_guests(CAPS).axes[0]
    assert sorted(texts(above)) == ["pml", "truth, prl +1"]


def test_a_guest_that_died_has_no_point():
    above = figures.capped_guests(CAPS).axes[1]
    assert texts(above) == ["truth"]


def test_no_guest_is_said():
    assert "no guest" in texts(figures.capped_guests(CAPS.head(0)).axes[0])[0]


def test_what_does_not_move_with_the_clock_lies_on_one_line():
    rows = [
        ("redis", ns, insn, insn * ns, insn / 1e5)
        for ns in (8.0, 2.0, 1.0)
        for insn in (10_000_000, 100_000_000)
    ]
    sizes = pd.DataFrame(rows, columns=["program", "ns_per_insn", "t_insn", "t_ns", "p95"])
    ranks = pd.DataFrame(
        [("redis", ns, "instructions", 0.005, "prl", 0.1) for ns in (8.0, 2.0, 1.0)],
        columns=["program", "ns_per_insn", "kind", "budget", "technique", "error"],
    )
    by_time, by_insn, errors = figures.clock_sensitivity(sizes, ranks).axes
    curves = [line.get_xydata() for line in by_insn.lines if len(line.get_xdata())]
    assert len(curves) == 3 and all((curve == curves[0]).all() for curve in curves)
    assert by_time.lines[0].get_xdata()[0] == 8 * by_time.lines[2].get_xdata()[0]
    points = [line.get_xydata() for line in errors.lines if line.get_linestyle() == "None"]
    assert [point.tolist() for point in points] == [[[10, 10]]] * 2
