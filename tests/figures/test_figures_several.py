# SPDX-License-Identifier: Apache-2.0
"""Figures of several recordings: a line each, names that warn, and what is refused."""

import inspect

import numpy as np
import pytest
from factories import make_trace

import pmlkit
from pmlkit import figures
from pmlkit.errors import UsageError
from pmlkit.figures.catalogue import FIGURES, SEVERAL, draw
from pmlkit.figures.several import STYLES, titles
from pmlkit.trace.reader import Trace

PHASES = [("load", 0), ("run", 20), ("rest", 40)]


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t")
    made = [
        make_trace(folder / "a.trace", rounds=60, phases=PHASES),
        make_trace(folder / "b.trace", rounds=80, seed=1, phases=[("load", 0), ("run", 30)]),
    ]
    return dict(zip(("before", "after"), map(Trace.open, made), strict=True))


def lines(figure):
    """Return the drawn lines that have data, longest first."""
    drawn = [line for axes in figure.axes for line in axes.lines]
    return sorted(drawn, key=lambda line: -len(line.get_xdata()))


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("name", SEVERAL)
def test_each_recording_has_a_line_of_its_own(traces, name, columns):
    figure = draw(traces, name, columns=columns)
    colors = {line.get_color() for line in lines(figure) if len(line.get_xdata()) > 10}
    assert colors == {style["color"] for style in STYLES[:2]}
    assert figure.caption.startswith("before, after: ")
    assert "Note" not in figure.caption
    (table,) = figure.data.values()
    assert set(table.get("trace", table.get("curve"))) == {"before", "after"}


def test_the_lines_are_those_of_each_recording(traces):
    both = draw(traces, "wss", window="50ms").data["wss"]
    for label, trace in traces.items():
        alone = figures.wss_over_time(trace, window="50ms").data["wss"].reset_index(drop=True)
        mine = both[both["trace"] == label].drop(columns="trace").reset_index(drop=True)
        assert mine.equals(alone)


def test_percentiles_are_those_of_the_windows(traces):
    table = draw(traces, "percentiles", window="50ms").data["percentiles"]
    for label, trace in traces.items():
        w = pmlkit.wss(trace, "50ms", "sliding")
        sizes = w.loc[w["full"], "bytes"] / (1 << 20)
        mine = table[table["trace"] == label]
        for percent in (50, 95):
            enough = mine.loc[mine["percent"] >= percent, "MiB"].iloc[0]
            assert enough == pytest.approx(np.percentile(sizes, percent, method="inverted_cdf"))


def test_curves_are_those_of_each_recording(traces):
    curves = draw(traces, "mrc").data["curves"]
    for label, trace in traces.items():
        mine = curves.loc[curves["curve"] == label, "miss_ratio"].to_numpy()
        exact = figures.miss_ratio(trace).data["curves"]
        assert (mine == exact.loc[exact["curve"] == "exact", "miss_ratio"]).all()


def test_phases_that_start_at_other_times_are_drawn_from_their_starts(traces):
    figure = draw(traces, "wss", window="20ms", start="mark:run", end="end:run")
    (axes,) = figure.axes
    assert "since the part's start" in axes.get_xlabel()
    firsts = [line.get_xdata()[0] for line in lines(figure)[:2]]
    assert firsts == pytest.approx([0.02, 0.02])
    together = draw(traces, "wss", window="20ms", start="100ms")
    assert "since" not in together.axes[0].get_xlabel()


def test_names_warn_of_a_log_among_recordings_of_all_accesses(traces):
    mixed = {**traces, "log": traces["before"].pml}
    assert titles(mixed) == {"before": "before", "after": "after", "log": "log\n(writes only)"}
    assert titles(mixed, "w") == {label: label for label in mixed}
    for name in SEVERAL:
        figure = draw(mixed, name)
        texts = [text.get_text() for axes in figure.axes for text in axes.texts]
        legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
        texts += [text.get_text() for each in legends if each for text in each.get_texts()]
        assert "log\n(writes only)" in texts
        assert "differ in their contents" in figure.caption


def test_rounds_that_differ_are_named_where_uses_are_counted(traces, tmp_path):
    other = Trace.open(make_trace(tmp_path / "c.trace", round_ns=20_000_000))
    mixed = {**traces, "coarse": other}
    assert titles(mixed, counts=True)["coarse"] == "coarse\n(rounds of 20 ms)"
    assert titles(mixed)["coarse"] == "coarse"


def test_a_list_of_one_recording_or_many_colours_are_refused(traces):
    many = {f"t{n}": traces["before"] for n in range(len(STYLES) + 1)}
    with pytest.raises(UsageError, match=f"up to {len(STYLES)}"):
        draw(many, "wss")
    with pytest.raises(UsageError, match="one of the kinds"):
        figures.wss_over_time(traces, kinds=("r", "w"))


@pytest.mark.parametrize("name", sorted(set(FIGURES) - set(SEVERAL)))
def test_the_other_figures_are_of_one_recording(traces, name):
    with pytest.raises(UsageError, match="takes one recording"):
        draw(traces, name)


def test_the_files_are_the_same_each_time(traces, tmp_path):
    first, second = (
        [path.read_bytes() for path in figures.save(draw(traces, "percentiles"), tmp_path / name)]
        for name in ("x/f", "y/f")
    )
    assert first == second


def test_gaps_between_phases_are_neither_shaded_nor_named(traces):
    trace = traces["before"].with_phases({"a": ("100ms", "200ms"), "b": ("300ms", "400ms")})
    (axes,) = figures.wss_by_kind(trace, window="20ms").axes
    names = {text.get_text() for text in axes.texts}
    assert {"a", "b"} <= names and "" not in names
    shaded = [patch.get_x() for patch in axes.patches]
    assert shaded == pytest.approx([0.1, 0.3])


def test_phases_out_of_view_do_not_slant_the_names_in_view(traces):
    figure = figures.wss_by_kind(traces["before"], window="20ms", start="mark:run", end="end:run")
    (name,) = [text for text in figure.axes[0].texts if text.get_text() == "run"]
    assert name.get_rotation() == 0


def _tables(figure):
    return {name: table.to_csv() for name, table in figure.data.items()}


@pytest.mark.parametrize("name", FIGURES)
def test_a_part_is_given_as_to_the_analysis(traces, name):
    trace = traces["before"]
    of_times = _tables(draw(trace, name, "20ms", start="mark:run", end="end:run"))
    assert _tables(draw(trace, name, "20ms", phase="run")) == of_times
    assert _tables(draw(trace, name, "20ms", between=("run", "rest"))) == of_times
    assert _tables(draw(trace, name, "20ms")) != of_times


@pytest.mark.parametrize("name", SEVERAL)
def test_each_recording_has_its_own_part(traces, name):
    of_phase = draw(traces, name, phase="load")
    assert _tables(of_phase) == _tables(draw(traces, name, start="mark:load", end="end:load"))


def test_a_part_is_given_in_one_way(traces):
    for part in ({"phase": "run", "start": "10ms"}, {"phase": "run", "between": ("load", "run")}):
        with pytest.raises(UsageError, match="take one"):
            figures.heat_map(traces["before"], **part)
    with pytest.raises(UsageError, match="two phases"):
        figures.heat_map(traces["before"], between="run")


def test_every_figure_of_a_part_of_a_trace_takes_phases():
    functions = {name: getattr(figures, name) for name in figures.HOMES}
    parameters = {name: inspect.signature(one).parameters for name, one in functions.items()}
    of_parts = {name for name, given in parameters.items() if "start" in given}
    assert of_parts >= {place.partition(":")[2] for place in FIGURES.values()}
    assert of_parts == {
        name for name, given in parameters.items() if {"phase", "between"} <= given.keys()
    }
