# SPDX-License-Identifier: Apache-2.0
"""The explorer without a browser: what its widgets say, its figure shows, to the page."""

import io
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from factories import random_events, write_irregular
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pmlkit import explore, workingset
from pmlkit.figures.explorer import thin
from pmlkit.notebook import explorer
from pmlkit.notebook.explored import Part, difference
from pmlkit.notebook.explorer import UsesByPage
from pmlkit.timeline import Axis, Windows
from pmlkit.units import format_share

ROUND_S = 0.01
live = pytest.mark.parametrize("live", [True, False], ids=["ipympl", "pictures"])


@pytest.fixture(scope="module")
def trace(make_shared_trace):
    phases, regions = [("a", 0), ("b", 15)], [("low", 0, 20), ("high", 40, 9), ("low", 30, 2)]
    return make_shared_trace(rounds=40, phases=phases, regions=regions)


def expected(trace, k=2, m=1, **selection):
    table = workingset.estimate(trace, f"{k}r", "sliding", m, **selection)
    return table[["t_ns", "pages", "full"]]


def shown(explored, part="wss"):
    return explored.figure.data[part].reset_index(drop=True)


# The numbers


def test_it_starts_with_all_of_the_trace(trace):
    explored = explore(trace)
    assert explored.window.value == 2 and explored.window.label == "20 ms"
    assert shown(explored).equals(expected(trace))
    means = workingset.surface(trace, [f"{k}r" for k in explorer.windows(40)], [1])
    assert np.allclose(shown(explored, "mean")["pages"], means["pages"])
    assert (shown(explored, "mean")["asked_ns"] == means["asked_ns"]).all()


@pytest.mark.parametrize("region", [None, "low"])
@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("part", [(0.0, 0.4), (0.05, 0.3), (0.1, 0.11)])
def test_every_widget_changes_the_figure_to_what_the_package_computes(trace, region, k, m, part):
    explored = explore(trace)
    explored.window.value, explored.min_count.value = k, m
    explored.time.value, explored.region.value = part, region or explorer.ALL
    start, end = (round(seconds * 1e9) for seconds in part)
    wanted = {"start": start, "end": end, "region": region}
    rounds = (end - start) // 10_000_000
    if k <= rounds:
        assert shown(explored).equals(expected(trace, k, m, **wanted))
    else:
        assert len(shown(explored)) == 0
        assert explored.note.value.startswith(f"T = {k * 10} ms is longer than the selected part")
    fitting = [of for of in explorer.windows(40) if of <= rounds]
    means = workingset.surface(trace, [f"{of}r" for of in fitting], [m], **wanted)
    told = shown(explored, "mean")["pages"]
    assert np.allclose(told[: len(fitting)], means["pages"])
    assert told[len(fitting) :].isna().all()


def test_a_log_is_a_trace_like_any_other(trace):
    explored = explore(trace.pml)
    explored.min_count.value = 2
    assert shown(explored).equals(expected(trace.pml, 2, 2))
    assert [value for _, value in explored.technique.options] == ["none"]


def test_a_part_of_a_long_trace(trace):
    explored = explore(trace, start="100ms", end="250ms")
    assert shown(explored).equals(expected(trace, 1, start="100ms", end="250ms"))
    assert (explored.time.min, explored.time.max) == (0.1, 0.25)
    explored.time.value = (0.15, 0.2)
    assert shown(explored).equals(expected(trace, 1, start="150ms", end="200ms"))


def test_rounds_of_instructions(make_trace):
    """They have times: T is time."""
    trace = make_trace(rounds=30, period={"ns": None, "insn": 1000}, clock={"kind": "host"})
    explored = explore(trace)
    explored.window.value = 5
    assert explored.window.label == "50 ms"
    assert shown(explored).equals(expected(trace, 5))


def test_rounds_without_times(make_trace):
    trace = make_trace(rounds=30, period={"ns": None, "insn": 1000}, round_ns=0)
    explored = explore(trace)
    explored.window.value = 5
    assert explored.window.label == "5 rounds"
    assert shown(explored)["pages"].tolist() == expected(trace, 5)["pages"].tolist()


LENGTHS = st.lists(st.integers(1, 30) | st.integers(100, 300), min_size=3, max_size=20)


@given(LENGTHS, st.integers(1, 3), st.data())
def test_windows_of_irregular_rounds_are_of_time(tmp_path_factory, lengths, m, data):
    """Held against sets of pages by hand: of rounds that end in (t - T, t], in the part."""
    events = random_events(len(lengths), pages=6, seed=len(lengths))
    events = [[] if length >= 100 else row for length, row in zip(lengths, events, strict=True)]
    trace = write_irregular(tmp_path_factory.mktemp("uses") / "x.trace", events, lengths)
    uses, first = UsesByPage(trace), data.draw(st.integers(0, len(lengths) - 1))
    stop = data.draw(st.integers(first + 1, len(lengths)))
    part = uses.part((first, stop))
    t_ns = data.draw(st.integers(1, part.length_ns))
    ends = np.cumsum(lengths)
    windows = Windows.on(part.axis.at, t_ns, part.axis.at)
    found = uses.sizes(windows, m, (first, stop), uses.chosen())
    for row, last in enumerate(range(first, stop)):
        inside = [r for r in range(first, stop) if ends[last] - t_ns < ends[r] <= ends[last]]
        pages = Counter(g for r in inside for g in {gfn for gfn, _ in events[r]})
        assert found[row] == sum(count >= m for count in pages.values())
    # The mean over time: W changes where a round ends, and T later.
    axis = part.axis
    (mean,) = uses.means(m, (first, stop), uses.chosen(), axis, np.array([t_ns]))
    ticks = np.arange(max(t_ns, axis.at[0]), axis.end)
    sizes = [
        sum(
            count >= m
            for count in Counter(
                g
                for r, end in zip(range(first, stop), axis.at, strict=True)
                if tick - t_ns < end <= tick
                for g in {gfn for gfn, _ in events[r]}
            ).values()
        )
        for tick in ticks
    ]
    assert mean == pytest.approx(np.mean(sizes))


def test_an_empty_trace(make_trace):
    explored = explore(make_trace(events=[[], []]))
    assert shown(explored)["pages"].tolist() == [0, 0]


# What is drawn beside the truth


def test_the_log_beside_it_has_the_same_threshold(trace):
    explored = explore(trace)
    explored.technique.value, explored.min_count.value = explorer.LOG, 2
    assert shown(explored, "technique").equals(expected(trace.pml, 2, 2))


def test_a_technique_beside_it(trace):
    from pmlkit import techniques

    explored = explore(trace)
    explored.technique.value, explored.window.value = "vmware", 10
    said = techniques.run("vmware", techniques.Recorded.of(trace), window="100ms").estimates
    assert shown(explored, "technique").equals(said[["t_ns", "pages"]])
    mean = explored._lines._mean.get_ydata()[0] * 256
    assert f"VMware sampling: mean {mean / 256:.4g} MiB" in explored.note.value
    assert said["pages"].min() <= mean <= said["pages"].max()
    explored.time.value = (0.1, 0.2)
    assert shown(explored, "technique")["t_ns"].between(1e8, 2e8).all()
    explored.technique.value = "none"
    assert "technique" not in explored.figure.data


def test_a_technique_without_an_estimate_says_why(trace):
    explored = explore(trace, window="400ms", technique="vmware")
    assert "VMware sampling: no estimate" in explored.note.value


def test_the_mean_of_estimates_is_over_time():
    estimates = pd.DataFrame({"t_ns": [0, 10, 40, 90], "pages": [5.0, 1.0, np.nan, 3.0]})
    assert explorer._mean_of(estimates, 5, 100) == pytest.approx((5 * 5 + 30 * 1 + 10 * 3) / 45)
    assert np.isnan(explorer._mean_of(estimates[:0], 5, 100))


def test_a_technique_that_lacks_something_says_so(trace):
    explored = explore(trace)
    explored.technique.value = "geiger"
    assert "disk requests" in explored.note.value
    assert "technique" not in explored.figure.data


def test_a_note_names_mean_and_peak(trace):
    explored = explore(trace)
    """Of full windows: the mean is that of the right half."""
    table = expected(trace)
    pages = table["pages"][table["full"]] / 256
    assert len(pages) < len(table)
    assert explored.note.value == f"mean {pages.mean():.4g} MiB, peak {pages.max():.4g} MiB"
    shown_mean = shown(explored, "mean").set_index("rounds").loc[2, "pages"] / 256
    assert shown_mean == pytest.approx(pages.mean())


# Showing


@live
def test_what_is_drawn_follows(trace, live):
    explored = explore(trace)
    explored.show(live=live)
    before = drawn(explored)
    explored.window.value = 20
    assert (drawn(explored) != before).any()
    table = expected(trace, 20)
    lines = {line.get_label(): line for line in explored.figure.axes[0].lines}
    assert (lines["used"].get_ydata() * 256 == table["pages"][table["full"]]).all()
    cut = next(line for line in explored.figure.axes[0].lines if line.get_linestyle() == ":")
    assert (cut.get_ydata() * 256 == table["pages"][~table["full"]]).all()


def drawn(explored):
    explored.figure.canvas.draw()
    return np.array(explored.figure.canvas.buffer_rgba())


def test_nothing_is_drawn_before_the_browser_is_there(trace):
    """Else its canvas keeps the size 0: a technique may end before the widget is shown."""
    explored = explore(trace)
    explored.show(live=True)
    canvas, drawn = explored.figure.canvas, []
    canvas.draw = lambda: drawn.append(True)
    explored.window.value = 5
    assert not drawn
    canvas.syncing_data_url = False  # as ipympl does for the browser's first message
    explored.window.value = 2
    assert drawn


def test_every_picture_is_whole(trace):
    """A busy browser omits pictures: the next one must not be a difference from an omitted one."""
    explored = explore(trace)
    explored.show(live=True)
    canvas, sent = explored.figure.canvas, []
    canvas.syncing_data_url = False
    canvas.send_binary = sent.append
    for k in (20, 5, 2):
        explored.window.value = k
    pictures = [np.asarray(Image.open(io.BytesIO(picture))) for picture in sent]
    assert len(pictures) >= 3
    assert all(picture[..., 3].min() == 255 for picture in pictures)


def test_without_ipympl_the_picture_is_another_one(trace):
    explored = explore(trace)
    box = explored.show(live=False)
    picture = box.children[-2]  # above the heat map
    before = picture.value
    assert bytes(before).startswith(b"\x89PNG")
    explored.min_count.value = 3
    assert picture.value != before


@live
def test_brushing_sets_the_time_and_a_click_sets_it_back(trace, live):
    explored = explore(trace)
    explored.show(live=live)
    explored._spans[0].onselect(0.05, 0.3)
    assert explored.time.value == (0.05, 0.3)
    assert shown(explored).equals(expected(trace, 2, start=50_000_000, end=300_000_000))
    explored._spans[0].onselect(0.1, 0.1)
    assert explored.time.value == (0.0, 0.4)
    assert shown(explored).equals(expected(trace))


def test_the_slider_moves_the_brush(trace):
    explored = explore(trace)
    explored.show(live=True)
    explored.time.value = (0.1, 0.2)
    assert explored._spans[0].extents == (0.1, 0.2) and explored._spans[0].artists[0].get_visible()
    explored.time.value = (0.0, 0.4)
    assert not explored._spans[0].artists[0].get_visible()


@live
def test_both_figures_have_one_time_axis(trace, live):
    explored = explore(trace)
    explored.show(live=live)
    upper, lower = explored.figure, explored.heat
    of_time = [upper.axes[0], lower.axes[-1]]
    edges = [axes.get_position().bounds for axes in of_time]
    inches = [f.get_size_inches()[0] for f in (upper, lower)]
    assert edges[0][0] * inches[0] == pytest.approx(edges[1][0] * inches[1])
    assert edges[0][2] * inches[0] == pytest.approx(edges[1][2] * inches[1])
    explored.time.value = (0.1, 0.2)
    assert of_time[0].get_xlim() == of_time[1].get_xlim() == (0, 0.4)
    explored.zoom.value = True
    assert of_time[0].get_xlim() == (0.1, 0.2)


def test_the_time_before_the_first_full_window_is_hatched(trace):
    explored = explore(trace, window="50ms", time=("100ms", "300ms"))
    box = explored._lines._early
    assert (box.get_x(), box.get_width()) == pytest.approx((0.1, 0.05))
    assert explored.figure.data["wss"].query("full")["t_ns"].iloc[0] == 150_000_000


def test_a_window_longer_than_the_part_is_explained_in_the_figure(trace):
    explored = explore(trace, window="400ms", time=("100ms", "300ms"))
    assert explored._lines._message.get_text() in explored.note.value
    assert "T = 400 ms is longer than the selected part, 200 ms" in explored.note.value
    explored.window.value = 1
    assert explored._lines._message.get_text() == ""


def test_every_widget_says_what_it_is(trace):
    explored = explore(trace)
    assert {getattr(explored, name).tooltip for name in explorer.TIPS} == {*explorer.TIPS.values()}
    titles = dict(explored.technique.options)
    assert titles["VMware sampling"] == "vmware"


# Keeping a view


VIEWS = [
    {},
    {"window": "100ms", "min_count": 2, "region": "low", "time": ("100ms", None)},
    {"window": "50ms", "technique": "vmware", "start": "50ms", "end": "350ms"},
    {"technique": "log"},
]


@pytest.mark.parametrize("view", VIEWS)
def test_the_code_makes_the_same_view(trace, view):
    explored, names = explore(trace, **view), {}
    exec(explored.code(), names)
    assert names["figure"].data.keys() == explored.figure.data.keys()
    for name, table in explored.figure.data.items():
        assert table.equals(names["figure"].data[name])
    assert names["wss"][["t_ns", "pages", "full"]].equals(shown(explored))


def test_the_code_names_a_bundled_trace_by_its_name():
    code = explore("hotcold", window="1s").code()
    assert "pmlkit.open('hotcold')\n" in code and "window='1s'" in code


def test_buttons_save_the_figure_and_show_the_code(trace, tmp_path):
    explored = explore(trace, window="50ms")
    explored.out = tmp_path / "saved"
    explored.save.click()
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"x-50ms.pdf", "x-50ms-wss.csv"} <= names
    assert "x-50ms.pdf" in str(explored.messages.outputs)
    explored.copy.click()
    (code, script) = (output["data"] for output in explored.messages.outputs)
    assert "pmlkit.explore(trace" in code["text/html"]
    assert "clipboard" in script["application/javascript"]
    explored.out = trace.path / "trace.json"
    explored.save.click()
    assert "trace.json" in str(explored.messages.outputs[0]["data"]["text/html"])


# Two recordings


@pytest.fixture(scope="module")
def two(make_shared_trace):
    return {
        name: make_shared_trace(f"{name}.trace", rounds=40, seed=seed)
        for seed, name in enumerate("ab")
    }


@live
def test_two_recordings_have_a_line_each_and_their_difference(two, live):
    explored = explore(two, window="50ms", min_count=2)
    explored.show(live=live)
    assert len(explored.heats) == 2
    tables = {name: expected(trace, 5, 2).set_index("t_ns") for name, trace in two.items()}
    drawn = explored.figure.data["wss"].set_index("t_ns")
    for name, table in tables.items():
        assert (drawn.loc[drawn["trace"] == name, "pages"] == table["pages"]).all()
    full = tables["a"]["full"]
    less = (tables["b"]["pages"] - tables["a"]["pages"])[full]
    assert explored.figure.data["difference"].set_index("t_ns")["pages"].equals(less)
    means = [table["pages"][full].mean() / 256 for table in tables.values()]
    grows = format_share(means[1] / means[0] - 1)
    text = f"b - a: mean {means[1] - means[0]:+.4g} MiB ({grows})"
    assert text in explored.note.value
    lines = [line.get_label() for line in explored.figure.axes[0].lines]
    assert {"a", "b", "b less a"} <= set(lines)
    assert [value for _, value in explored.technique.options] == ["none"]


def test_recordings_of_other_rounds_have_windows_that_both_resolve(make_trace):
    fine = make_trace("fine.trace", rounds=40)
    coarse = make_trace("coarse.trace", rounds=8, round_ns=30_000_000, period={"ns": 30_000_000})
    explored = explore({"fine": fine, "coarse": coarse}, window="60ms")
    assert explored.window.label == "60 ms"
    drawn = explored.figure.data["wss"]
    for name, trace in (("fine", fine), ("coarse", coarse)):
        pages = workingset.estimate(trace, "60ms", "sliding")["pages"]
        assert drawn.loc[drawn["trace"] == name, "pages"].tolist() == pages.tolist()
    assert "m counts rounds" in explored.note.value


def test_means_over_other_times_are_said_to_be(make_trace):
    two = {"long": make_trace("l.trace", rounds=40), "short": make_trace("s.trace", rounds=20)}
    explored = explore(two, window="50ms")
    assert "; the means are over 150 ms and 350 ms" in explored.note.value


def test_recordings_that_cannot_be_compared_have_no_difference(two):
    explored = explore({"all": two["a"], "log": two["b"].pml}, window="50ms")
    assert "difference" not in explored.figure.data
    assert "no difference: the recordings differ in their contents" in explored.note.value


def test_the_code_of_two_recordings(two):
    explored, names = explore(two, window="50ms", time=("50ms", "200ms")), {}
    exec(explored.code(), names)
    for name, table in explored.figure.data.items():
        assert table.equals(names["figure"].data[name])
    assert names["wss"]["pages"].tolist() == shown(explored)["pages"].tolist()


def test_a_difference_of_steps_at_other_times():
    def part(t_ns, pages):
        full = [False] + [True] * (len(t_ns) - 1)
        table = pd.DataFrame({"t_ns": t_ns, "pages": pages, "full": full})
        return Part(table, np.zeros(0), 0, t_ns[-1], t_ns[1])

    found = difference(part([10, 20, 30, 40], [1, 2, 3, 4]), part([5, 25, 40, 50], [7, 10, 20, 30]))
    assert found["t_ns"].tolist() == [25, 30, 40]
    assert found["pages"].tolist() == [10 - 2, 10 - 3, 20 - 4]


# Its parts


def test_uses_agree_with_the_kernels_that_they_repeat(make_trace):
    trace = make_trace(rounds=60, pages=200, seed=3)
    uses, frames = UsesByPage(trace), np.arange(50, 120, dtype=np.uint64)
    refs = workingset.references(trace)
    refs = refs.select(np.isin(refs.gfn, frames))
    from pmlkit.kernels import by_page

    for m in (1, 3):
        means = uses.means(m, (0, 60), uses.chosen(frames), Axis.of_rounds(60), np.arange(61))
        expected = [by_page.sliding(refs, k, m)[k - 1 :].mean() for k in range(1, 61)]
        assert np.allclose(means[1:], expected)
        for k in (1, 7, 100):
            sizes = uses.sizes(Windows.of_rounds(60, k), m, (0, 60), uses.chosen(frames))
            assert (sizes == by_page.sliding(refs, k, m)).all()


def test_thinning_keeps_the_extremes_and_the_ends():
    y = np.random.default_rng(0).normal(size=10_007)
    kept = thin(y, 100)
    assert len(kept) <= 2 * 100 + 2 + 10_007 % 100
    assert (np.diff(kept) > 0).all() and kept[0] == 0 and kept[-1] == len(y) - 1
    assert {y.argmin(), y.argmax()} <= set(kept)
    assert (thin(y[:150], 100) == np.arange(150)).all()


def test_the_ladder_of_windows():
    assert explorer.windows(1) == [1]
    assert explorer.windows(2) == [1, 2]
    assert explorer.windows(60) == [1, 2, 5, 10, 20, 50, 60]
    assert explorer.windows(0) == [1]
