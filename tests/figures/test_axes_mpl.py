# SPDX-License-Identifier: Apache-2.0
"""Where labels go: apart from each other, in order, as near as can be to what they name."""

import numpy as np
import pytest
from factories import make_trace as write_trace
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from pmlkit.figures import axes as axes_mpl
from pmlkit.trace.reader import Trace


@given(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=5))
def test_labels_are_spread_without_overlap_and_in_order(wanted):
    wanted, height = np.array(wanted), np.full(len(wanted), 0.2)
    placed = axes_mpl._spread(wanted, height)
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(placed[order]) >= 0.2 - 1e-9).all()
    assert placed.max() <= 1 + 1e-9


def test_labels_with_room_stay_where_they_are():
    wanted = np.array([0.9, 0.1, 0.5])
    assert axes_mpl._spread(wanted, np.full(3, 0.1)).tolist() == wanted.tolist()


def test_where_room_is_short_the_longest_phases_are_named():
    centres, widths = np.array([0.0, 1.0, 1.2, 3.0]), np.array([1.0, 0.2, 0.9, 0.0])
    assert axes_mpl._spaced(centres, widths, 0.5) == [0, 2]


@pytest.mark.parametrize("low, high, expected", [(1, 50, True), (1, 1e5, False)])
def test_short_logarithmic_axes_have_twos_and_fives(low, high, expected):
    axes = Figure().subplots()
    axes.set(xscale="log", xlim=(low, high))
    axes_mpl.plain_log(axes.xaxis)
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert ("5" in labels) == expected and "10" in labels


def test_time_limits(tmp_path):
    trace = Trace.open(write_trace(tmp_path / "x.trace", rounds=5))
    assert axes_mpl.time_limits(trace, None, None) == (0, 50_000_000)
    assert axes_mpl.time_limits(trace, "10ms", 20_000_000) == (10_000_000, 20_000_000)
    assert axes_mpl.time_limits(trace, None, "1s") == (0, 50_000_000)


def test_phases_are_shaded_or_marked(tmp_path):
    trace = Trace.open(write_trace(tmp_path / "x.trace", rounds=9, phases=[("a", 0), ("b", 3)]))
    shaded, marked = Figure().subplots(), Figure().subplots()
    for axes in (shaded, marked):
        axes_mpl.seconds_axis(axes, 0, trace.duration_ns)
    axes_mpl.mark_phases(shaded, trace, shade=True)
    axes_mpl.mark_phases(marked, trace)
    (band,) = shaded.patches
    assert (band.get_x(), band.get_width()) == pytest.approx((0, 0.03))
    assert {line.get_xdata()[0] for line in marked.lines} == {0.03}
    assert [text.get_text() for text in marked.texts] == ["a", "b"]


def crowd(seed, spread):
    """Name 12 points that crowd: return the axes, the points in pixels, and the names' boxes."""
    figure = Figure(figsize=(4, 3), dpi=100)
    axes = figure.subplots()
    x, y = 0.5 + np.random.default_rng(seed).normal(0, spread, (2, 12))
    axes.plot(x, y, "o", ms=3)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes_mpl.name_points(axes, x, y, [f"technique-{i}" for i in range(12)])
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without their lines
    return axes, axes.transData.transform(np.c_[x, y]), boxes


def test_names_of_points_that_crowd_cover_neither_each_other_nor_the_points():
    _, points, boxes = crowd(0, 0.04)
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert not box.count_contains(points)


def test_the_line_to_a_name_crosses_no_other_name():
    axes, _, boxes = crowd(1, 0.05)
    far = [text for text in axes.texts if text.arrow_patch]
    assert far
    for text in far:
        start, end = axes.transData.transform(text.xy), Text.get_window_extent(text).get_points()
        along = start + np.linspace(0, 1, 200)[:, None] * (end.mean(axis=0) - start)
        others = [box for box, of in zip(boxes, axes.texts, strict=True) if of is not text]
        assert not any(box.count_contains(along) for box in others)


def test_a_name_is_not_on_a_line_of_steps():
    figure = Figure(figsize=(4, 3), dpi=100)
    axes = figure.subplots()
    x, y = np.array([0.2, 0.5, 0.8]), np.array([0.8, 0.5, 0.2])
    axes.step(x, y, where="post")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes_mpl.name_points(axes, x, y, ["first", "second", "third"])
    figure.draw_without_rendering()
    along = np.r_[np.c_[np.linspace(0.2, 0.5, 99), np.full(99, 0.8)],
                  np.c_[np.full(99, 0.5), np.linspace(0.8, 0.5, 99)]]  # fmt: skip
    spots = axes.transData.transform(along)
    assert not any(Text.get_window_extent(text).count_contains(spots) for text in axes.texts)
