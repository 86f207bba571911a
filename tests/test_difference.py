# SPDX-License-Identifier: Apache-2.0
"""The difference of two recordings' working sets: known shifts, coverage, and refusals."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from factories import make_trace, write_irregular

import pmlkit
from pmlkit import cli, difference
from pmlkit.errors import UsageError
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace

PAGE = 4096


def series(rng, n, correlation, level=0.0):
    """Draw a stationary series of neighbours with a correlation: AR(1) of variance 1."""
    noise = rng.standard_normal(n) * np.sqrt(1 - correlation**2)
    values = np.empty(n)
    last = rng.standard_normal()
    for index in range(n):
        last = values[index] = correlation * last + noise[index]
    return values + level


def trace_of(path, sizes, **how):
    """Write a trace whose working set in each round has one of `sizes` pages."""
    events = [[(gfn, Kind.WRITE) for gfn in range(size)] for size in sizes]
    return Trace.open(make_trace(path, events=events, pages=512, pml=False, **how))


def noisy(seed, level, n=120):
    values = series(np.random.default_rng(seed), n, 0.5, 0)
    return np.rint(level + 5 * values).astype(int)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    before = trace_of(folder / "before.trace", noisy(1, 100))
    return before, trace_of(folder / "after.trace", noisy(2, 70))


def windows(sizes, phases=None):
    phases = [""] * len(sizes) if phases is None else phases
    return pd.DataFrame({"bytes": sizes, "phase": phases})


def compared(before, after, same=False):
    return difference._compared(windows(before), windows(after), 1, same)


# What is known


def test_a_known_shift_is_found_with_its_interval(pair):
    found = pmlkit.diff(*pair, window="10ms")
    mean = found.table.iloc[0]
    sizes = [noisy(1, 100), noisy(2, 70)]
    assert mean["difference"] == pytest.approx(PAGE * (sizes[1].mean() - sizes[0].mean()))
    assert mean["low"] < -30 * PAGE < mean["high"] < 0
    assert found.answer.startswith("after writes ") or found.answer.startswith("after uses ")
    assert "less than before (95 % interval" in found.answer and "in T = 10 ms" in found.answer


def test_the_statistics_are_those_of_the_windows(pair):
    table = pmlkit.diff(*pair, window="20ms").table.set_index("statistic")
    for column, trace in zip(("before", "after"), pair, strict=True):
        w = pmlkit.wss(trace, "20ms")
        sizes = w.loc[w["full"], "bytes"]
        assert table.loc["mean", column] == pytest.approx(sizes.mean())
        assert table.loc["p95", column] == pytest.approx(np.percentile(sizes, 95))
        assert table.loc["peak", column] == sizes.max()


def test_a_recording_does_not_differ_from_itself(pair):
    found = pmlkit.diff({"a": pair[0], "b": pair[0]}, window="10ms")
    assert (found.table["difference"] == 0).all()
    assert found.table.loc[0, "low"] < 0 < found.table.loc[0, "high"]
    assert found.answer.startswith("b uses as much as a ")


def test_the_peak_has_no_interval_and_says_why(pair):
    peak = pmlkit.diff(*pair, window="10ms").table.set_index("statistic").loc["peak"]
    assert np.isnan(peak["low"]) and peak["why"]


def test_a_notebook_shows_the_answer_and_the_table(pair):
    found = pmlkit.diff({"<b>": pair[0], "after": pair[1]}, window="10ms")
    shown = found._repr_html_()
    assert "&lt;b&gt;" in shown and "<b>" not in shown
    assert "less than" in shown and "not valid for a maximum" in shown and "NaN" not in shown


def test_the_order_of_the_two_is_that_of_the_sign(pair):
    there = pmlkit.diff(*pair, window="10ms").table.loc[0, "difference"]
    assert pmlkit.diff(*pair[::-1], window="10ms").table.loc[0, "difference"] == -there


def test_phases_that_both_have_keep_their_means():
    rng = np.random.default_rng(4)
    phases = ["low"] * 60 + ["high"] * 60
    steps = np.repeat([10.0, 1000.0], 60)
    before, after = (steps + rng.standard_normal(120) + more for more in (0, 5))
    kept = difference._compared(windows(before, phases), windows(after, phases), 1, True)
    mean, *_, low, high = (kept.iloc[index] for index in range(5))
    assert 4.5 < mean["low"] < 5 < mean["high"] < 5.5 or mean["high"] - mean["low"] < 1
    assert (low["phase"], high["phase"]) == ("low", "high")
    assert low["difference"] == pytest.approx(5, abs=1)
    # Without phases the step is variation, and ten independent values are not there.
    assert np.isnan(compared(before, after).loc[0, "low"])


def test_windows_that_overlap_are_not_counted_as_more(pair):
    tumbling = pmlkit.diff(*pair, window="50ms").table.iloc[0]
    sliding = pmlkit.diff(*pair, window="50ms", step="sliding").table.iloc[0]
    widths = [row["high"] - row["low"] for row in (tumbling, sliding)]
    assert widths[1] > 0.5 * widths[0]


# Coverage


def covered(correlation, n, statistic, monkeypatch, pairs=150):
    monkeypatch.setattr(difference, "DRAWS", 300)
    rng, inside, given = np.random.default_rng(7), 0, 0
    true = 0.5
    for _ in range(pairs):
        drawn = [series(rng, n, correlation, level) for level in (0, true)]
        sizes = [difference._Sizes.of(windows(values), 1, False) for values in drawn]
        *_, low, high, _ = difference._bounded(sizes, statistic)
        given += np.isfinite(low)
        inside += low <= true <= high
    return inside / max(given, 1), given / pairs


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("statistic", [difference._mean, difference._p95])
def test_intervals_hold_the_truth_as_often_as_they_promise(correlation, statistic, monkeypatch):
    share, given = covered(correlation, 200, statistic, monkeypatch)
    assert share >= 0.91
    assert given > 0.9


def test_blocks_of_one_value_would_not(monkeypatch):
    monkeypatch.setattr(difference.Series, "block", 1)
    assert covered(0.8, 200, difference._mean, monkeypatch)[0] < 0.8


def test_short_series_of_slow_changes_have_no_interval(monkeypatch):
    assert covered(0.95, 40, difference._mean, monkeypatch)[1] < 0.05


def test_intervals_are_the_same_each_time():
    rng = np.random.default_rng(2)
    before, after = (series(rng, 100, 0.3) for _ in range(2))
    pd.testing.assert_frame_equal(compared(before, after), compared(before, after))


# Refusals


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"clock": {"kind": "icount", "ns_per_insn": 2.0}}, "clock"),
        ({"clock": {"kind": "host", "ns_per_insn": None}}, "clock"),
    ],
)
def test_traces_of_other_clocks_are_refused(pair, tmp_path, changes, why):
    other = trace_of(tmp_path / "other.trace", noisy(3, 50), **changes)
    with pytest.raises(UsageError, match=f"differ in their {why}"):
        pmlkit.diff(pair[0], other, window="10ms")


def test_a_log_of_writes_is_compared_by_what_was_written(tmp_path):
    trace = Trace.open(make_trace(tmp_path / "t.trace", rounds=60))
    with pytest.raises(UsageError, match="`kinds='written'`"):
        pmlkit.diff(trace, trace.pml, window="10ms")
    assert (pmlkit.diff(trace, trace.pml, "10ms", kinds="w").table["difference"] == 0).all()


def test_rounds_that_differ_are_named_but_not_where_uses_count(pair, tmp_path):
    other = trace_of(tmp_path / "other.trace", noisy(3, 50), round_ns=20_000_000)
    found = pmlkit.diff(pair[0], other, window="20ms")
    assert found.lines[0].startswith("Note: the recordings differ in their rounds")
    with pytest.raises(UsageError, match="counted per round"):
        pmlkit.diff(pair[0], other, window="20ms", min_count=2)
    with pytest.raises(UsageError, match="another T in each"):
        pmlkit.diff(pair[0], other, window="2r")


def test_three_recordings_or_one_are_refused(pair):
    for traces in ([pair[0]], [*pair, pair[0]]):
        with pytest.raises(UsageError, match="of 2 recordings"):
            pmlkit.diff(traces)


# Repeats


@pytest.fixture(scope="module")
def repeats(tmp_path_factory):
    """Three recordings before, four after, 30 pages smaller."""
    folder = tmp_path_factory.mktemp("repeats")
    return [
        [trace_of(folder / f"{name}{n}.trace", noisy(seed + n, level)) for n in range(count)]
        for name, seed, level, count in (("a", 10, 100, 3), ("b", 20, 70, 4))
    ]


def test_the_interval_over_repeats_is_welchs(repeats):
    from scipy.stats import ttest_ind

    found = pmlkit.diff(*repeats, window="10ms")
    tables = [[pmlkit.wss(trace, "10ms") for trace in side] for side in repeats]
    of = {"mean": np.mean, "p95": lambda sizes: np.percentile(sizes, 95), "peak": np.max}
    for row in found.table.to_dict("records"):
        after, before = (
            [of[row["statistic"]](table.loc[table["full"], "bytes"]) for table in side]
            for side in reversed(tables)
        )
        ends = ttest_ind(after, before, equal_var=False).confidence_interval()
        assert (row["low"], row["high"]) == pytest.approx((ends.low, ends.high))
        assert row["difference"] == pytest.approx(np.mean(after) - np.mean(before))
    assert "less than before (95 % interval" in found.answer
    assert found.answer.endswith("over 3 and 4 recordings.")
    assert found.repeats["recording"].tolist() == ["a0", "a1", "a2", "b0", "b1", "b2", "b3"]


def test_a_side_of_one_recording_has_a_difference_and_no_interval(repeats):
    found = pmlkit.diff({"old": repeats[0], "new": repeats[1][0]}, window="10ms")
    assert (found.before, found.after) == ("old", "new")
    assert found.table["low"].isna().all() and (found.table["difference"] < 0).all()
    assert str(found).count("two or more recordings on each side") == 1


def test_repeats_that_do_not_vary_have_no_interval(tmp_path):
    sides = [
        [trace_of(tmp_path / f"{name}{n}.trace", [level] * 20, notes=[f"{n}"]) for n in range(2)]
        for name, level in (("a", 9), ("b", 5))
    ]
    found = pmlkit.diff(*sides, window="10ms")
    assert found.table["low"].isna().all()
    assert str(found).count("the repeats are identical") == 1


def test_a_recording_is_no_repeat_of_itself(repeats):
    first, second = repeats
    for sides in (([first[0], first[0]], second), (first, [first[0], second[0]])):
        with pytest.raises(UsageError, match="is the same recording as"):
            pmlkit.diff(*sides)


def test_each_reason_is_given_once(pair):
    found = pmlkit.diff(*pair, window="300ms")
    text = str(found)
    for why in filter(None, set(found.table["why"])):
        assert text.count(why) == 1
    assert found.table["why"].duplicated().any()


def test_the_command_takes_repeats_with_a_word_between(repeats, capsys):
    words = [[str(trace.path) for trace in side] for side in repeats]
    line = ["diff", *words[0], "vs", *words[1], "--window", "10ms", "--label", "x", "--label", "y"]
    assert cli.main(line) == 0
    out = " ".join(capsys.readouterr().out.split())  # not folded
    found = pmlkit.diff({"x": repeats[0], "y": repeats[1]}, window="10ms")
    assert out.startswith(found.answer) and "b3" in out
    assert cli.main([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found.as_dict()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("A A B", "3 traces and no 'vs'"),
        ("A vs B vs B", "3 traces and 2 'vs'"),
        ("vs B", "no recording on one side"),
        ("A", "1 trace and no"),
        ("A B --label x", "give --label twice"),
        ("A B --label x --label x", "occurs twice"),
    ],
)
def test_wrong_sides_are_one_line(pair, capsys, words, why):
    paths = {"A": str(pair[0].path), "B": str(pair[1].path)}
    assert cli.main(["diff", *(paths.get(word, word) for word in words.split())]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert re.search(why, captured.err)


def test_the_command_prints_the_answer_first_and_the_same_as_json(pair, capsys):
    paths = [str(trace.path) for trace in pair]
    assert cli.main(["diff", *paths, "--window", "10ms"]) == 0
    out = capsys.readouterr().out
    found = pmlkit.diff(*pair, window="10ms")
    assert " ".join(out.split()).startswith(found.answer)  # lines are folded
    assert "no interval" not in out
    assert cli.main(["diff", *paths, "--window", "10ms", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[0]["difference"] == found.table.loc[0, "difference"]
    assert rows[2]["low"] is None


def test_sliding_windows_of_uneven_rounds_are_noted(tmp_path):
    events = [[(gfn, Kind.WRITE) for gfn in range(20)]] * 60
    pair = [write_irregular(tmp_path / f"{n}.trace", events, [10, 1000] * 30) for n in "ab"]
    note = "Note: {}: windows end with rounds of uneven length, and each counts once."
    for step, noted in (("sliding", True), ("2020ns", False), (None, False)):
        text = str(pmlkit.diff(*pair, window="2020ns", step=step))
        assert [note.format(name) in text for name in "ab"] == [noted, noted]
        assert text.replace("\n", "").isprintable()
