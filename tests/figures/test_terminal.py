# SPDX-License-Identifier: Apache-2.0
"""Figures as text: peaks where they are, within the width, of characters that a terminal has."""

import json

import numpy as np
import pytest
from factories import write_irregular

from pmlkit import cli, missratio, workingset
from pmlkit.errors import UnknownName
from pmlkit.figures import terminal
from pmlkit.figures.terminal import Screen
from pmlkit.trace.kinds import Kind

W = Kind.WRITE


@pytest.fixture
def trace(make_trace):
    """40 rounds of 10 ms, each of which writes 2 pages; round 30 writes 50."""
    events = [[(page, W) for page in range(50 if n == 30 else 2)] for n in range(40)]
    return make_trace(events=events, phases=[("first", 0), ("second", 20)])


def area(text, side="|"):
    """Return the rows of the area of a figure."""
    return [row.partition(side)[2] for row in text.splitlines() if side in row and "+" not in row]


def test_rounds_without_times_have_a_window_in_rounds(tmp_path):
    trace = write_irregular(tmp_path / "x.trace", [[(1, W)], [(2, W)]], np.zeros(2, np.int64))
    assert "W(t, 1r), MiB" in terminal.draw(trace, "wss")


@pytest.mark.parametrize("width", [40, 60, 80, 133])
def test_a_peak_is_in_its_column(trace, width):
    text = terminal.draw(trace, "wss", "10ms", screen=Screen(width=width, ascii_only=True))
    rows = area(text)[: terminal.HEIGHT]
    inked = [at for at, character in enumerate(rows[0]) if character != " "]
    axis = next(row for row in text.splitlines() if "+-" in row or "++" in row)
    columns = len(axis.partition("+")[2])
    expected = 0.31 / 0.40 * columns  # the round ends at 310 ms of 400
    assert len(inked) <= 2 and all(abs(at - expected) <= 1 for at in inked)
    assert "the peak is 0.1953 at 0.31 s" in " ".join(text.split())  # 50 pages


def test_the_lowest_row_is_zero_and_the_highest_the_peak(trace):
    rows = terminal.draw(trace, "wss", "10ms", screen=Screen(ascii_only=True)).splitlines()
    assert rows[1].split()[0] == "0.1953" and rows[terminal.HEIGHT].split()[0] == "0"


def test_only_full_windows_are_drawn(trace):
    text = terminal.draw(trace, "wss", "200ms", screen=Screen(width=80, ascii_only=True))
    rows = area(text)[: terminal.HEIGHT]
    first = min(len(row) - len(row.lstrip()) for row in rows if row.strip())
    columns = len(next(r for r in text.splitlines() if "+-" in r or "++" in r).partition("+")[2])
    assert first == pytest.approx(0.2 / 0.4 * columns, abs=1.5)


def test_phases_begin_below_their_time(trace):
    text = terminal.draw(trace, "wss", "10ms", screen=Screen(ascii_only=True))
    *_, axis, ticks, names = text.splitlines()
    begin = axis.index("+") + 1
    assert names.index("|first") == begin
    assert names.index("|second") - begin == pytest.approx((len(axis) - begin) / 2, abs=1)
    assert ticks.split() == ["0", "0.1", "0.2", "0.3", "s"]


@pytest.mark.parametrize("figure", terminal.FIGURES)
@pytest.mark.parametrize("width", [1, 30, 47, 80, 200])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_no_row_is_wider_than_the_terminal(trace, figure, width, ascii_only):
    text = terminal.draw(trace, figure, screen=Screen(width=width, ascii_only=ascii_only))
    assert max(map(len, text.splitlines())) <= max(width, terminal.LEAST_WIDTH)
    assert text.isascii() == ascii_only and "\x1b" not in text


def test_heat_is_dark_where_all_pages_are_touched(make_trace):
    """Page 0 in the first half, pages 8 to 11 in the second: a row for each, 20 columns."""
    events = [[(0, W)] if n < 20 else [(page, W) for page in range(8, 12)] for n in range(40)]
    text = terminal.heat(make_trace(events=events), screen=Screen(52, 64, ascii_only=True))
    rows = area(text)[:12]
    assert len(rows[0]) == 40
    dark = [[at for at, character in enumerate(row) if character == "#"] for row in rows]
    assert dark[:4] == [list(range(20, 40))] * 4  # the highest address is on top
    assert dark[-1] == list(range(20))


def test_a_miss_ratio_steps_down_at_its_sizes(trace):
    text = terminal.mrc(trace, screen=Screen(width=60, ascii_only=True))
    curve = missratio.of_trace(trace)
    assert f"{curve.at(curve.knee()):.3g} at the knee" in text
    rows = area(text)[: terminal.HEIGHT]
    assert rows[0].strip() and not rows[0].strip().strip("'.:")


@pytest.mark.parametrize("figure, said", [("wss", "no window is full"), ("heat", "no page"),
                                          ("mrc", "no page")])  # fmt: skip
def test_an_empty_trace_says_so(make_trace, figure, said):
    text = terminal.draw(make_trace(events=[[], []]), figure)
    assert said in text or "the peak is 0 at" in text


def test_another_figure_is_refused(trace):
    with pytest.raises(UnknownName, match="wss"):
        terminal.draw(trace, "surface")


def test_dots_become_ascii_by_their_place():
    assert [terminal._ascii(c) for c in " ⠉⣀⡇⠤x"] == [" ", "'", ".", ":", ".", "x"]


def test_a_line_of_many_points_keeps_its_extremes():
    y = np.zeros(100_000)
    y[61_234] = 1.0
    rows = terminal.line(np.arange(len(y)), y, (0, len(y)), "x", Screen(100, 8, True))
    assert rows[0].partition("|")[2].strip()


# The command


@pytest.mark.parametrize("encoding, is_ascii", [("utf-8", False), ("ascii", True)])
def test_the_command_prints_what_the_terminal_can(trace, monkeypatch, encoding, is_ascii):
    import io
    import sys

    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "50")
    assert cli.main(["plot", str(trace.path), "wss", "--window", "10ms", "--terminal"]) == 0
    stream.flush()
    text = stream.buffer.getvalue().decode()
    assert text.isascii() == is_ascii
    drawn = terminal.draw(trace, "wss", 10_000_000, screen=Screen(width=50, ascii_only=is_ascii))
    assert text == drawn + "\n"


def test_the_command_as_json(trace, capsys):
    assert cli.main(["plot", str(trace.path), "heat", "--terminal", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows == terminal.draw(trace, "heat", screen=Screen(ascii_only=False)).splitlines()


def test_the_command_draws_one_way_only(trace, capsys):
    assert cli.main(["plot", str(trace.path), "wss", "--terminal", "-o", "x"]) == 2
    assert "not both: -o STEM for files, or --terminal" in capsys.readouterr().err


def test_w_is_that_of_the_package(trace):
    table = workingset.estimate(trace, "50ms", "sliding").query("full")
    peak = table["bytes"].max() / 2**20
    assert f"the peak is {peak:.4g}" in terminal.draw(trace, "wss", "50ms")
