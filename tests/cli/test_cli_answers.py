# SPDX-License-Identifier: Apache-2.0
"""Commands that answer first: a sentence, then the table; both as JSON."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from factories import make_trace as write_trace
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from pmlkit import answers, cli, compare, doctor, missratio, period, reads, workingset
from pmlkit.cli import console
from pmlkit.cli.sheets import fold
from pmlkit.reads import judge
from pmlkit.recordings import bundled
from pmlkit.trace.reader import Trace
from pmlkit.units import described, format_bytes


@pytest.fixture
def run(capsys):
    def call(*words):
        code = cli.main([str(word) for word in words])
        assert code == 0
        return capsys.readouterr().out  # stderr has the progress of a busy machine

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


@pytest.mark.parametrize("columns", ["0", "00", "-3", "wide", "", "9" * 40])
def test_a_width_that_is_none_is_as_if_it_were_not_stated(run, trace, monkeypatch, columns):
    """Some terminals and scripts state 0 columns, in which nothing can be printed."""
    plain = run("wss", trace, "--window", "100ms")
    monkeypatch.setenv("COLUMNS", columns)
    assert run("wss", trace, "--window", "100ms") == plain


def test_an_answer_is_folded_at_words_to_the_width(run, trace, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    lines = run("wss", trace, "--window", "100ms", "--summary").splitlines()
    assert all(len(line) <= 40 for line in lines)
    monkeypatch.delenv("COLUMNS")
    assert " ".join(lines).split() == run("wss", trace, "--window", "100ms", "--summary").split()


@pytest.mark.parametrize(
    "words",
    [
        "wss hotcold --window 1s",
        "mrc hotcold",
        "info hotcold",
        "diff hotcold redis --window 1s",
        "compare hotcold --window 1s --techniques pml,vmware",
        "period hotcold",
        "advise hotcold --window 1s",
        "frontier hotcold --window 1s --looks 1,2 --techniques pml,flag-sample",
        "reads rrww-lab",
    ],
)
def test_a_share_has_a_space_before_its_sign(run, words):
    assert not re.search(r"\d%", run(*words.split()))


def test_info_begins_with_what_a_recording_is_and_whether_it_is_sound(run, trace):
    answer = "x is undamaged: a complete recording of 400 ms in 40 rounds, no entries lost."
    assert run("info", trace).startswith(f"{answer}\nSource: synthetic; all accesses ")
    assert run("info", trace, "--summary").splitlines()[0] == answer
    assert json.loads(run("info", trace, "--json"))["summary"]["answer"] == answer
    summary = json.loads(run("info", trace, "--summary", "--json"))["summary"]
    assert summary["answer"] == answer
    assert "; 4 of 4 known answers are met." in run("info", "hotcold", "--summary")
    assert run("info").startswith("14 recordings come with pmlkit.")


def test_frontier_begins_with_the_closest_technique_within_each_budget(run, trace):
    words = ("frontier", trace, "--window", "100ms", "--techniques", "pml,idle-pages")
    out = run(*words)
    value = json.loads(run(*words, "--json"))
    assert out.startswith("T = 100 ms: at a cost of 0.01 % of the instructions, ")
    assert out.startswith(value["summary"]["answer"])
    assert {row["budget"] for row in value["summary"]["closest"]} == {0.0001, 0.001, 0.01}
    assert run(*words, "--summary") == f"{value['summary']['answer']}\n"
    assert json.loads(run(*words, "--summary", "--json")) == {"summary": value["summary"]}


def test_corpus_score_begins_with_the_error_within_each_budget(run, trace, tmp_path, monkeypatch):
    monkeypatch.setattr("pmlkit.corpus.traces", lambda folder, half="": [trace])
    words = ("corpus", "score", tmp_path, "--technique", "pmlkit.techniques.pml:Pml")
    words += ("--window", "100ms", "-o", tmp_path / "scores")
    out = run(*words)
    summary = json.loads(run(*words, "--summary", "--json"))["summary"]
    assert out.startswith("T = 100 ms: PML, m = 1 per round has ")
    assert " ".join(out.split()).startswith(summary["answer"])
    assert "| T | budget % | setting |" in out and "| T |" not in run(*words, "--summary")
    assert summary["answer"].split(" Means")[0] in (tmp_path / "scores" / "README.md").read_text()


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


def test_period_begins_with_its_recommendation(run, trace):
    advice = period.advise(Trace.open(trace))
    assert run("period", trace).startswith(f"{advice.answer}\nSettings: ")
    assert json.loads(run("period", trace, "--json"))["summary"] == advice.summary
    assert run("period", trace, "--summary") == f"{advice.answer}\n"


def test_reads_begins_with_its_estimate(run, capsys):
    table = reads.estimate(Trace.open(bundled("touch-lab")), "harvest")
    words = ("reads", "touch-lab", "--method", "harvest")
    full = table[table["full"]]
    summary = json.loads(run(*words, "--summary", "--json"))["summary"]
    assert summary["mean_bytes"] == pytest.approx(4096 * full["pages"].mean())
    assert summary["peak_bytes"] == 4096 * full["pages"].max()
    assert (summary["windows"], summary["written_bytes"]) == (len(full), None)
    assert run(*words).startswith(f"{summary['answer']}\n")


def test_the_summary_of_reads_states_what_is_unknown(run):
    reasons = json.loads(run("reads", "rrww-lab", "--summary", "--json"))["summary"]["unknown"]
    text = run("reads", "rrww-lab", "--summary")
    assert reasons and all(f"Unknown in 13 of 13 windows: {why}" in text for why in reasons)


def test_the_closest_method_is_that_with_the_least_error_over_all_rounds(run):
    compared = judge.compare(Trace.open(bundled("touch-lab")), ["written", "present", "density"])
    found = answers.closest_method(judge.by_phase(compared))
    errors = compared["error"].abs().groupby(compared["method"]).mean() * 100
    assert found["method"] == errors.idxmin()
    assert found["mape_percent"] == pytest.approx(errors.min(), abs=0.01)
    assert found["next_mape_percent"] == pytest.approx(errors.sort_values().iloc[1], abs=0.01)
    assert run("reads", "touch-lab", "--compare").startswith("Method ")


def test_compare_begins_with_the_best_technique(run):
    words = ("compare", "hotcold", "--techniques", "pml,idle-pages,vmware", "--seeds", "3")
    told = json.loads(run(*words, "--json"))
    best, *others = sorted(told["scores"], key=lambda row: row["mae"])
    summary = told["summary"]
    assert (summary["technique"], summary["error"]) == (best["technique"], best["mae"])
    assert summary["ahead"] == pytest.approx(others[0]["mae"] - best["mae"])
    half = np.hypot(best["mae_ci"], others[0]["mae_ci"])
    assert summary["high"] - summary["low"] == pytest.approx(2 * half)
    assert run(*words, "--summary").startswith(f"{best['title']} ({best['technique']}) is closest")
    sizes = workingset.estimate(Trace.open(bundled("hotcold")), "1s", "sliding")
    assert summary["true_bytes"] == pytest.approx(sizes["bytes"][sizes["full"]].mean(), rel=0.002)


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize(
    "words", [("compare", "--techniques", "pml", "--window", "50ms"), ("advise",)]
)
def test_notes_name_the_option_of_the_command(run, tmp_path, words, form):
    clock = {"kind": "host", "ns_per_insn": None}
    path = write_trace(tmp_path / "host.trace", rounds=60, clock=clock)
    text = run(words[0], path, *words[1:], *form)
    assert "--ns-per-insn" in text and "`ns_per_insn" not in text


def test_the_lead_over_several_recordings_is_the_mean_difference():
    rows = [(t, n, e) for t, errors in {"a": (1, 2, 9), "b": (3, 3, 9.5)}.items()
            for n, e in zip("xyz", errors, strict=True)]  # fmt: skip
    scores = pd.DataFrame(rows, columns=["technique", "trace", "mae"])
    scores = scores.assign(title=scores["technique"], overhead=0.01, mae_ci=0.0)
    truth = pd.DataFrame({"trace": ["x", "y", "z"], "t_ns": 10**9, "pages": [1, 2, 6]})
    found = compare.Comparison(compare.Plan(), scores, None, truth, None, None).best
    assert (found.technique, found.error, found.recordings) == ("a", 4, 3)
    assert found.ahead == pytest.approx(3.5 / 3)
    assert found.low <= found.ahead <= found.high
    assert found.true_bytes == 3 * 4096


def test_the_cheapest_of_equals_is_named_first():
    scores = pd.DataFrame(
        {
            "technique": ["a", "b", "c", "d"],
            "trace": "x",
            "mae": [0.1, 0.1, 0.2, 0.1],
            "mae_ci": 0.0,
        }
    )
    scores = scores.assign(title=scores["technique"], overhead=[0.05, 0.01, 0.001, np.nan])
    truth = pd.DataFrame({"trace": ["x"], "t_ns": 10**9, "pages": [1]})
    found = compare.Comparison(compare.Plan(), scores, None, truth, None, None).best
    assert (found.technique, found.overhead) == ("b", 0.01)
    assert (found.next_title, found.next_overhead, found.ahead) == ("a", 0.05, 0)
    assert "The next, a, is as close, at 5 % of the VM's time." in found.answer


# Tables


@pytest.mark.parametrize("width", ["40", "60", "80"])
@pytest.mark.parametrize(
    "words",
    [
        ("info",),
        ("record", "--list"),
        ("plot", "--list"),
        ("reads", "touch-lab", "--compare"),
        ("wss", "hotcold"),
    ],
    ids=" ".join,
)
def test_a_table_is_folded_to_the_width_and_nothing_is_cut(run, monkeypatch, words, width):
    monkeypatch.setenv("COLUMNS", width)
    out = run(*words)
    assert max(len(line) for line in out.splitlines()) <= int(width)
    assert "…" not in out


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(
    "words",
    [("wss", "--window", "20ms"), ("mrc",), ("diff", "--window", "10ms")],
    ids=lambda words: words[0],
)
def test_long_names_of_several_recordings_fit(run, make_trace, monkeypatch, words, width):
    names = [f"web-server-{place}-of-the-cluster-{'x' * 70}" for place in ("north", "south")]
    paths = [make_trace(f"{name}.trace", rounds=6, seed=len(name)).path for name in names]
    monkeypatch.setenv("COLUMNS", str(width))
    out = run(words[0], *paths, *words[1:])
    lines = out.splitlines()
    assert max(map(len, lines)) <= width and not any(line.endswith(" ") for line in lines)
    assert "north" in out and "…" not in out
    numbers = re.compile(r"[0-9.]+ (?:[KM]iB|B)\b")
    monkeypatch.setenv("COLUMNS", "1000")
    unfolded = run(words[0], *paths, *words[1:])
    assert sorted(numbers.findall(out)) == sorted(numbers.findall(unfolded))


@given(st.text(st.sampled_from("ab-/_. é漢,:9"), max_size=60), st.integers(3, 30))
def test_folding_keeps_every_character_and_the_width(text, width):
    lines = list(fold(text, width))
    assert all(cell_len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@pytest.mark.parametrize(
    "words",
    [
        ("--target", "50%"),
        ("--window", "100ms", "--target", "0.5"),
        ("--window", "100ms", "--target", "0"),
        ("--window", "100ms", "--summary"),
    ],
    ids=" ".join,
)
def test_mrc_answers_in_a_sentence_first(run, trace, words):
    assert re.match(r"x needs |No (size|window) ", run("mrc", trace, *words))


def test_the_memory_for_each_window_is_that_of_its_row(trace):
    opened = Trace.open(trace)
    table = missratio.over_time(opened, "100ms")
    found = answers.miss_ratios(opened, table, [0.5], "100ms")
    for t_ns, rows in table[table["full"] & (table["uses"] > 0)].groupby("t_ns"):
        met = rows.loc[rows["miss_ratio"] <= 0.5, "bytes"]
        if len(met):
            assert met.min() <= found.sizes[0.5]
            if t_ns == found.most_ns[0.5]:
                assert met.min() == found.sizes[0.5]


@pytest.fixture
def examined(monkeypatch):
    """Two capabilities that share a check, one of which lacks something."""
    shared = doctor.Check("Python", "pmlkit needs 3.11 or later", found="3.11.7")
    broken = doctor.Check("Xen's tools", "stock log-dirty, and the end of a domain")
    broken = broken.missing("libxenctrl.so.4.17 is not installed", "apt-get install xen", root=True)
    made = [
        doctor.Capability("demo", "notebooks on the bundled recordings", (shared,)),
        doctor.Capability("xen", "collect on a Xen host", (shared, broken)),
    ]
    monkeypatch.setattr(doctor, "examine", lambda names: made)


@pytest.mark.parametrize("width", ["40", "60", "80"])
def test_doctor_states_remedies_first_and_repeats_nothing(run, examined, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    out = run("doctor")
    assert max(len(line) for line in out.splitlines()) <= int(width)
    assert out.startswith(
        "Works here: demo.\nDoes not work here: xen.\nTo fix:\n  Xen's tools: apt-get"
    )
    assert out.count("3.11.7") == 1 and "and, as above: Python" in out


def test_the_parts_of_a_wide_table_have_all_columns_once():
    from pmlkit.cli.sheets import _parts

    assert _parts([10, 5, 5, 5], 1, 100) == [[0, 1, 2, 3]]
    assert _parts([10, 5, 5, 5], 1, 26) == [[0, 1, 2], [0, 3]]
    assert _parts([10, 50, 5], 1, 20) == [[0, 1], [0, 2]]  # too narrow for the second in any case


def test_plot_and_mrc_take_several_traces(run, trace, other, tmp_path):
    out = run("plot", trace, other, "percentiles", "-o", tmp_path / "f.png", "--label", "a",
              "--label", "b")  # fmt: skip
    assert str(tmp_path / "f.png") in out
    assert (tmp_path / "f.txt").read_text().startswith("a, b: ")
    text = run("mrc", trace, other, "-o", tmp_path / "g.png")
    both = json.loads(run("mrc", trace, other, "--json"))["curves"]
    for label, path in (("x", trace), ("y", other)):
        alone = json.loads(run("mrc", path, "--json"))["exact"]
        assert both[label]["miss_ratio"] == alone["miss_ratio"]
        assert f"{label} needs" in text or "No size" in text
    assert (tmp_path / "g.png").exists()


@pytest.mark.parametrize("options", [("--window", "1s"), ("--method", "exact", "--method", "aet")])
def test_several_traces_have_one_curve_each(trace, capsys, options):
    assert cli.main(["mrc", str(trace), str(trace), *options]) == 2
    assert "give one TRACE" in capsys.readouterr().err


def test_reads_marks_a_window_that_is_cut_short_and_leaves_it_out(run):
    out = run("reads", "sqlite-lab", "--window", "1s", "--method", "harvest")
    table = reads.estimate(Trace.open(bundled("sqlite-lab")), "harvest", "1s")
    assert not table["full"].iloc[-1]
    assert out.count("cut short") == 1 + 1  # in the answer, and in its row
    mean = 4096 * table["pages"][table["full"]].mean()
    assert out.startswith(f"sqlite-lab uses {format_bytes(mean)} on average in T = 1 s")


def test_a_table_states_below_it_why_values_are_missing(capsys):
    nothing = float("nan")
    table = pd.DataFrame({"name": ["x", "y"], "up": [1.0, nothing], "down": [nothing, 2.0]})
    table["cost"], table["note"] = [3.0, 4.0], [None, "n"]
    reasons = {"up": "no such step", "down": "no such step", "cost": "no price"}
    console.sheet(described(table, {}, reasons), "Title")
    assert capsys.readouterr().out.splitlines()[-1] == "--: no such step"
    console.sheet(described(table, {}, reasons | {"down": "never"}), "Title")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["--: no such step (up)", "--: never (down)"]
