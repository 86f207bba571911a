# SPDX-License-Identifier: Apache-2.0
"""Several recordings at once: labels, and what keeps recordings from being compared."""

import pandas as pd
import pytest
from factories import make_trace

import pmlkit
from pmlkit.errors import TraceNotFound, UsageError
from pmlkit.several import are_several, common_window, labelled, unlike
from pmlkit.trace.reader import Trace


@pytest.fixture
def trace(tmp_path):
    return Trace.open(make_trace(tmp_path / "one.trace"))


def test_one_recording_has_its_name(trace):
    assert labelled(trace) == {"one": trace}
    assert list(labelled(str(trace.path))) == ["one"]
    assert list(labelled("hotcold")) == ["hotcold"]


def test_a_mapping_keeps_its_labels_and_their_order(trace):
    traces = labelled({"after": trace, "before": "hotcold"})
    assert list(traces) == ["after", "before"]
    assert traces["after"] is trace
    assert traces["before"].path == pmlkit.open("hotcold").path


def test_names_that_are_alike_get_the_folder_that_tells_them_apart(tmp_path):
    paths = [tmp_path / f / "x.trace" for f in ("a/left", "b/left", "right")]
    for path in paths:
        path.parent.mkdir(parents=True)
        make_trace(path)
    other = make_trace(tmp_path / "y.trace")
    labels = list(labelled([*paths, other]))
    assert labels == ["a/left/x", "b/left/x", "right/x", "y"]


def test_the_same_recording_twice_is_numbered(trace):
    assert list(labelled([trace, "hotcold", trace])) == ["one (1)", "hotcold", "one (2)"]


def test_a_nested_log_is_named_after_its_recording(trace):
    assert list(labelled([trace, trace.pml])) == ["one", "one/pml"]


def test_given_labels(trace):
    assert list(labelled([trace, trace], ["before", "after"])) == ["before", "after"]
    assert list(labelled({"a": trace}, ["b"])) == ["b"]


@pytest.mark.parametrize(
    ("traces", "labels"),
    [
        ([], ()),
        ({}, ()),
        (["hotcold", "redis"], ["one"]),
        (["hotcold", "redis"], ["one", "one"]),
        (["hotcold"], [" "]),
        ({3: "hotcold"}, ()),
        (7, ()),
    ],
)
def test_what_names_no_recordings_is_refused(traces, labels):
    with pytest.raises(UsageError):
        labelled(traces, labels)


def test_a_recording_that_is_not_there():
    with pytest.raises(TraceNotFound):
        labelled({"before": "nowhere.trace"})


def test_what_stands_for_several(trace):
    assert are_several({"a": trace}) and are_several([trace])
    assert not are_several(trace) and not are_several("redis")


def test_recordings_that_are_alike(tmp_path):
    traces = labelled([make_trace(tmp_path / f"{n}.trace", seed=n) for n in range(3)])
    assert unlike(traces) == []


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("contents", {"kind": "pml", "pml": False}),
        ("clock", {"clock": {"kind": "icount", "ns_per_insn": 2.0}}),
        ("clock", {"clock": {"kind": "host", "ns_per_insn": None}}),
        ("rounds", {"round_ns": 20_000_000}),
    ],
)
def test_a_difference_is_named_with_what_each_has(tmp_path, trace, what, changes):
    other = Trace.open(make_trace(tmp_path / "other.trace", **changes))
    (difference,) = unlike({"a": trace, "b": other})
    assert difference.what == what
    assert "a: " in str(difference) and "b: " in str(difference)


def test_writes_are_comparable_with_a_log_of_writes(trace):
    traces = {"all": trace, "log": trace.pml}
    assert [found.what for found in unlike(traces)] == ["contents"]
    assert unlike(traces, "w") == []


def test_the_table_of_several_has_that_of_each_under_its_label(tmp_path):
    traces = labelled([make_trace(tmp_path / f"{n}.trace", rounds=n, seed=n) for n in (20, 30)])
    both = pmlkit.wss(traces, "50ms")
    for label, trace in traces.items():
        of_one = both[both["trace"] == label].drop(columns="trace").reset_index(drop=True)
        pd.testing.assert_frame_equal(of_one, pmlkit.wss(trace, "50ms"))


def test_a_region_of_one_recording_is_missing_in_another(tmp_path, trace):
    other = make_trace(tmp_path / "other.trace", events=[[(3, 2)]] * 5, regions=[("hot", 0, 4)])
    both = pmlkit.wss({"a": trace, "b": other}, "50ms")
    assert both.loc[both["trace"] == "a", "region:hot"].isna().all()
    assert both.loc[both["trace"] == "b", "region:hot"].tolist() == [1]


def test_all_have_the_default_window_of_the_shortest(tmp_path):
    traces = labelled([make_trace(tmp_path / f"{n}.trace", rounds=n) for n in (20, 200)])
    default = pmlkit.wss(traces["20"])["asked_ns"].iloc[0]
    assert set(pmlkit.wss(traces)["asked_ns"]) == {default}
    assert common_window(traces).ns == default


def test_rounds_that_differ_make_no_window_in_rounds(tmp_path, trace):
    other = Trace.open(make_trace(tmp_path / "other.trace", round_ns=20_000_000))
    assert common_window({"a": trace, "b": trace}, "2r").rounds == 2
    with pytest.raises(UsageError, match="another T in each"):
        common_window({"a": trace, "b": other}, "2r")


def test_curves_of_several_are_by_label(trace):
    curves = pmlkit.mrc({"a": trace, "b": "hotcold"}, end="1s")
    assert list(curves) == ["a", "b"]
    assert curves["b"].uses == pmlkit.mrc(pmlkit.open("hotcold"), end="1s").uses
