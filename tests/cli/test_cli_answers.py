# SPDX-License-Identifier: Apache-2.0
"""Commands that answer first: a sentence, then the table; both as JSON."""

import json

import pytest
from factories import make_trace as write_trace

from pmlkit import answers, cli, missratio
from pmlkit.trace.reader import Trace
from pmlkit.units import format_bytes


@pytest.fixture(autouse=True)
def no_width(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def run(capsys):
    def call(*words):
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert (code, err) == (0, "")
        return out

    return call


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    return write_trace(tmp_path_factory.mktemp("t") / "x.trace", rounds=40, guest=True)


def test_wss_begins_with_its_summary(run, trace):
    found = answers.working_set(Trace.open(trace), "100ms")
    out = run("wss", trace, "--window", "100ms")
    assert out.startswith(f"{found}\n\n")
    assert run("wss", trace, "--window", "100ms", "--summary") == f"{found}\n"
    summary = json.loads(run("wss", trace, "--window", "100ms", "--summary", "--json"))["summary"]
    assert summary == found.as_dict()


def test_an_answer_is_folded_at_words_to_the_width(run, trace, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    lines = run("wss", trace, "--window", "100ms", "--summary").splitlines()
    assert all(len(line) <= 40 for line in lines)
    monkeypatch.delenv("COLUMNS")
    assert " ".join(lines).split() == run("wss", trace, "--window", "100ms", "--summary").split()


def test_mrc_begins_with_the_memory_for_its_targets(run, trace):
    out = run("mrc", trace, "--target", "0.5", "--target", "0")
    curve = missratio.of_trace(Trace.open(trace))
    size = format_bytes(4096 * curve.pages_for(0.5))
    assert out.startswith(
        f"x needs {size} for a miss ratio of 0.5 (LRU, exact). No size has a miss"
    )
    told = json.loads(run("mrc", trace, "--target", "0.5", "--target", "0", "--json"))["exact"]
    assert told["summary"]["bytes_for"] == {"0.5": 4096 * told["pages_for"]["0.5"], "0": None}
    assert told["summary"]["answer"] in " ".join(out.split())
    short = run(
        "mrc", trace, "--summary", "--method", "shards", "--rate", "0.5", "--min-pages", "0"
    )
    assert "From a sample of " in short and "(95 %)" in short and "miss ratio at" not in short


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return write_trace(tmp_path_factory.mktemp("t") / "y.trace", rounds=60, seed=1)


def test_several_traces_are_answered_side_by_side(run, trace, other):
    out = run("wss", trace, other, "--window", "100ms")
    for path in (trace, other):
        assert answers.working_set(Trace.open(path), "100ms").answer in out
    assert "Note" not in out
    ends = [line.split()[0] for line in out.splitlines() if line.startswith("0.")]
    assert ends == ["0.100", "0.200", "0.300", "0.400", "0.500", "0.600"]


def test_several_traces_as_json_are_those_of_each(run, trace, other):
    words = ("--window", "100ms", "--json")
    both = json.loads(run("wss", trace, other, "--label", "a", "--label", "b", *words))
    for label, path in (("a", trace), ("b", other)):
        assert both["windows"][label] == json.loads(run("wss", path, *words))
        alone = json.loads(run("wss", path, "--summary", *words))["summary"]
        assert both["summaries"][label]["mean_bytes"] == alone["mean_bytes"]
        assert both["summaries"][label]["trace"] == label
    assert both["unlike"] == {}


def test_a_log_of_writes_next_to_all_accesses_is_noted(run, trace):
    log = trace / "pml.trace"
    out = run("wss", trace, log, "--summary")
    assert out.startswith("Note: the recordings differ in their contents (x: all accesses")
    assert not run("wss", trace, log, "--summary", "--kinds", "w").startswith("Note")


def test_labels_have_to_be_as_many_as_traces(trace, capsys):
    assert cli.main(["wss", str(trace), str(trace), "--label", "a"]) == 2
    assert "one label for each" in capsys.readouterr().err
