# SPDX-License-Identifier: Apache-2.0
"""Phases that a trace is given afterwards: CSV, the file next to the trace, and times by name."""

import itertools
import json
import os
import pickle
import random
import shutil

import numpy as np
import pytest
from factories import make_trace, write_irregular
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting import rewrite

import pmlkit
from pmlkit import cli, interop, selection
from pmlkit.errors import NeedsError, OutputExists, PmlkitError, UnknownName, UsageError
from pmlkit.trace import annotation, known, manifest
from pmlkit.trace.annotation import Span
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace

MS = 1_000_000
RECORDED = [("start", 0), ("work", 2), ("rest", 6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trace of ten rounds of 10 ms."""
    path = tmp_path_factory.mktemp("t") / "x.trace"
    return make_trace(path, rounds=10, phases=RECORDED)


@pytest.fixture
def path(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "x.trace")


@pytest.fixture
def trace(path):
    return Trace.open(path)


def spans(text, tmp_path):
    file = tmp_path / "phases.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return annotation.of_csv(file)


# The CSV


@pytest.mark.parametrize(
    "text",
    [
        "load,0.01,0.05",
        "name,start,end\nload,0.01,0.05\n",
        "phase;begin;stop\nload;10ms;50ms\n",
        "label\tstart_ms\tend_ms\r\nload\t10\t50\r\n",
        "Name,Start (ms),Length (ms)\nload,10,40\n",
        "end,comment,name,start\n50ms,what,load,10000us\n",
        "\ufeffname,start,end\n\n# a comment\nload,1e-2,5e-2\n",
        "name,start_ns,end_ns\nload,10000000,50000000\n",
        'name,start,duration\n"load",.01,4e-2\n',
        "load,0.010000000000000000208,0.05",
    ],
)
def test_a_csv_as_people_write_it(text, tmp_path):
    assert spans(text, tmp_path) == [Span("load", 10 * MS, 50 * MS)]


def test_rows_may_be_in_any_order_and_ends_left_out(tmp_path):
    found = spans("name,start,end\nb,50ms,\na,10ms,\n", tmp_path)
    assert found == [Span("a", 10 * MS, None), Span("b", 50 * MS, None)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no phases"),
        ("# nothing\n", "no phases"),
        ("load", "name the columns"),
        ("load,soon,late", "name the columns"),
        ("name,end\nload,5s", "name the columns"),
        ("name,start,start_ms\nload,1,2", "start twice"),
        ("load,1,2\nrun,x,3", "line 2 .* wrong start"),
        ("load,1,2\nrun,2,3 parsecs", "line 2 .* wrong end"),
        ("load,1,2\n,2,3", "line 2 .* no name"),
        ("load,1,2\nrun,,3", "line 2 .* no start"),
        ("load,1,2\nrun", "line 2 .* no start"),
        ("load,0,1\nrun,1,5,2,5", "too many cells"),
        ("load,0,nan", "wrong end"),
        ("load,0,inf", "wrong end"),
        ("load,0,1e400", "wrong end"),
        ("load,0,1e99", "out of range"),
        ("load,0,99999999999", "out of range"),
        ("name,start\nload,-1", "out of range"),
        ("a\x07b,0,1", "cannot be printed"),
        ("x" * 300 + ",0,1", "cannot be printed"),
        (b"l\xff,0,1", "not UTF-8"),
        ('"load,0,1', "not CSV"),
        ("a,0,1\n" * 10_001, "are the most"),
    ],
)
def test_a_csv_that_is_wrong_is_refused_with_its_line(text, why, tmp_path):
    with pytest.raises(UsageError, match=why):
        spans(text, tmp_path)


def test_a_file_that_is_none_is_refused(tmp_path, trace):
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "."):
        with pytest.raises(UsageError, match="cannot be read"):
            annotation.of_csv(tmp_path / name)
    with pytest.raises(OSError):
        annotation.of_csv(tmp_path / "nowhere.csv")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_bytes_are_phases_or_refused_in_one_line(tmp_path_factory, data):
    word = st.sampled_from(
        ["load", "name", "start", "end", "1", "2s", "-3", "1e5", "nan", "0x1", '"', "5ms", "é"]
        + ["\0", "1e999999999", "9" * 40, "start_ms", "..", "=", "#", " "]
    )
    mark = st.sampled_from([",", ";", "\t", "\n", "\r\n", ""])
    text = "".join(data.draw(st.lists(st.one_of(word, mark, st.text(max_size=3)), max_size=25)))
    file = tmp_path_factory.getbasetemp() / "any.csv"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = annotation.of_csv(file)
    except UsageError:
        return
    assert all(0 <= span.start_ns < 1 << 63 and span.name.isprintable() for span in found)


# Phases that fit a trace


def test_phases_have_the_rounds_that_start_in_them(trace):
    given = trace.with_phases({"a": ("10ms", "30ms"), "b": (30 * MS, "55ms"), "c": ("70ms", None)})
    assert list(given.phase_of_rounds()) == ["", "a", "a", "b", "b", "", "", "c", "c", "c"]
    assert given.phases["name"].tolist() == ["a", "b", "", "c"]
    assert list(trace.phase_of_rounds()) == ["start"] * 2 + ["work"] * 4 + ["rest"] * 4


def test_recorded_phases_given_again_are_the_same(trace):
    rows = trace.phases.itertuples()
    again = trace.with_phases([Span(row.name, row.t_ns, None) for row in rows])
    assert again.phase_of_rounds().tolist() == trace.phase_of_rounds().tolist()


@pytest.mark.parametrize(
    ("phases", "why"),
    [
        ({}, "0 phases"),
        ({"a": ("0s", "50ms"), "b": ("40ms", "80ms")}, "overlap.*'a'.*'b'"),
        ({"a": ("0s", "50ms"), "b": ("0s", "50ms")}, "overlap"),
        ({"a": ("200ms", None)}, "lasts 100 ms"),
        ({"a": ("50ms", "40ms")}, "give an end after its start, 50 ms"),
        ({"a": ("41ms", "42ms"), "b": ("42ms", "90ms")}, "'a'.* starts and ends within one round"),
        ({"": ("0s", None)}, "no name"),
        ({"a": "0s"}, "a start and an end"),
        ({"a": (0.5, None)}, "'a' .*0.5 is not a duration"),
        ({"a": (None, 5)}, "'a' .*its unit, such as '5s'"),
        ({"a": ("1s", "2s", "3s")}, "a start and an end"),
    ],
)
def test_phases_that_do_not_fit_are_refused(trace, phases, why):
    with pytest.raises(UsageError, match=why):
        trace.with_phases(phases)


def test_an_end_after_the_trace_is_its_end(trace):
    assert annotation.checked(trace, {"a": (0, "1h")}) == [Span("a", 0, 100 * MS)]


@settings(max_examples=100, deadline=None)
@given(cuts=st.lists(st.integers(0, 99), min_size=2, max_size=8, unique=True))
def test_rounds_have_the_last_phase_that_started_by_their_end(folder, cuts):
    trace, cuts = Trace.open(folder), sorted(cuts)
    phases = [Span(f"p{at}", at * MS, None) for at in cuts]
    try:
        given = trace.with_phases(phases)
    except UsageError:  # two in one round
        assert len({at // 10 for at in cuts}) < len(cuts)
        return
    ends = np.arange(1, 11) * 10
    expected = [next((f"p{at}" for at in reversed(cuts) if at < end), "") for end in ends]
    assert given.phase_of_rounds().tolist() == expected


# The file next to a trace


def test_phases_that_are_written_are_those_of_every_reader(path, tmp_path):
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    file = annotation.annotate(Trace.open(path), {"load": (0, "40ms"), "run": ("40ms", None)})
    assert file == tmp_path / "x.trace.phases.json"
    trace = Trace.open(path)
    assert trace.phases["name"].tolist() == ["load", "run"]
    assert trace.pml.phases["name"].tolist() == ["load", "run"]
    assert Trace.open(path / "pml.trace").phases["name"].tolist() == ["load", "run"]
    assert pmlkit.wss(trace, "20ms")["phase"].tolist() == ["load"] * 2 + ["run"] * 3
    assert "load" in trace._repr_html_() and "work" not in trace._repr_html_()
    assert [row["name"] for row in trace.meta.phases] == ["start", "work", "rest"]
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    trace.check()
    assert annotation.remove(trace) and not annotation.remove(trace)
    assert Trace.open(path).phases["name"].tolist() == ["start", "work", "rest"]


def test_a_trace_is_found_with_its_phases_from_anywhere(path, tmp_path, monkeypatch):
    annotation.annotate(Trace.open(path), {"all": (0, None)})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.trace").symlink_to(path)
    monkeypatch.chdir(path)
    for name in (".", tmp_path / "elsewhere" / "link.trace", f"{path}/"):
        assert Trace.open(name).phases["name"].tolist() == ["all"]


def test_phases_given_before_are_replaced_only_if_asked(trace):
    annotation.annotate(trace, {"a": (0, None)})
    with pytest.raises(OutputExists):
        annotation.annotate(trace, {"b": (0, None)})
    annotation.annotate(trace, {"b": (0, None)}, overwrite=True)
    assert Trace.open(trace.path).phases["name"].tolist() == ["b"]


def test_known_answers_are_those_of_the_recorded_phases():
    trace = pmlkit.open("hotcold").with_phases({"hot": (0, "1s"), "b": ("1s", None)})
    assert known.measure(trace) == known.measure(pmlkit.open("hotcold"))


def test_phases_go_along_with_a_pickle_and_into_the_nested_log(trace):
    given = trace.with_phases({"a": (0, "50ms"), "b": ("50ms", None)})
    assert pickle.loads(pickle.dumps(given)).phases["name"].tolist() == ["a", "b"]
    assert given.pml.phases["name"].tolist() == ["a", "b"]
    assert trace.pml.phases["name"].tolist() == [name for name, _ in RECORDED]


def test_a_nested_log_is_annotated_with_its_recording(trace):
    with pytest.raises(UsageError, match="annotate that one"):
        annotation.annotate(trace.pml, {"a": (0, None)})


def test_phases_of_another_recording_are_refused(path, tmp_path):
    file = annotation.annotate(Trace.open(path), {"a": (0, None)})
    other = make_trace(tmp_path / "other.trace", rounds=10, seed=3)
    file.rename(tmp_path / "other.trace.phases.json")
    trace = Trace.open(other)
    with pytest.raises(PmlkitError, match="belongs to another recording.*--remove"):
        pmlkit.wss(trace, "20ms")
    annotation.remove(trace)
    assert len(pmlkit.wss(Trace.open(other), "20ms"))


def test_phases_of_an_earlier_recording_of_this_name_are_refused(path):
    annotation.annotate(Trace.open(path), {"a": (0, None)})
    shutil.rmtree(path)
    make_trace(path, rounds=12, seed=5)
    with pytest.raises(PmlkitError, match="an earlier one"):
        _ = Trace.open(path).phases


def test_any_damage_to_the_file_is_found(path):
    file = annotation.annotate(Trace.open(path), {"a": (0, "50ms"), "b": ("50ms", None)})
    good, rng = file.read_bytes(), random.Random(0)
    for _ in range(200):
        data = bytearray(good)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        rewrite(file, data)
        with pytest.raises(PmlkitError, match="annotate .* --remove") as error:
            _ = Trace.open(path).phases
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d | {"format": "other"},
        lambda d: d | {"version": 2},
        lambda d: d | {"trace": 5},
        lambda d: d | {"phases": 5},
        lambda d: d | {"phases": [{"name": "", "start_ns": 0, "end_ns": 5}]},
        lambda d: d | {"phases": [{"name": "a", "start_ns": -1, "end_ns": 5}]},
        lambda d: d | {"phases": [{"name": "a", "start_ns": 5, "end_ns": 5}]},
        lambda d: d | {"phases": d["phases"][::-1]},
        lambda d: d | {"more": float("nan")},
        lambda d: [d],
        lambda d: {},
    ],
)
def test_a_file_that_is_sealed_but_wrong_is_refused(path, change):
    spans = {"a": (0, "50ms"), "b": ("50ms", None)}
    file = annotation.annotate(Trace.open(path), spans)
    document = json.loads(file.read_text())
    document.pop("digest")
    changed = change(document)
    if isinstance(changed, dict) and "more" not in changed:
        changed["digest"] = manifest.digest(changed)
    file.write_text(json.dumps(changed))
    with pytest.raises(PmlkitError, match="annotate .* --remove"):
        _ = Trace.open(path).phases


def test_a_trace_without_times_has_no_phases(trace, monkeypatch):
    monkeypatch.setattr(Trace, "duration_ns", 0)
    with pytest.raises(NeedsError, match="times"):
        trace.with_phases({"a": (0, 5)})


# Times by name


def test_named_times_are_where_rounds_start(trace):
    assert annotation.time_ns(trace, "mark:work") == 20 * MS
    assert annotation.time_ns(trace, "end:work") == 60 * MS
    assert annotation.time_ns(trace, "end:rest") == 100 * MS
    assert annotation.bounds(trace, "work") == (20 * MS, 60 * MS)
    assert annotation.time_ns(trace, "5ms") == 5 * MS


def test_a_selected_phase_has_its_rounds_and_no_others(trace):
    for each in (trace, trace.with_phases({"work": ("23ms", "57ms"), "z": ("57ms", None)})):
        table = pmlkit.wss(each, "10ms", phase="work")
        assert set(table["phase"]) == {"work"}
        assert len(table) == (each.phase_of_rounds() == "work").sum()
        assert pmlkit.wss(each, "10ms", start="mark:work", end="end:work").equals(table)


def test_a_phase_that_recurs_is_named_by_its_number(tmp_path):
    marks = [("a", 0), ("b", 2), ("a", 5), ("c#2", 8)]
    trace = Trace.open(make_trace(tmp_path / "t.trace", rounds=10, phases=marks))
    assert annotation.bounds(trace, "a#2") == (50 * MS, 80 * MS)
    assert annotation.bounds(trace, "c#2") == (80 * MS, 100 * MS)
    with pytest.raises(UsageError, match="a#1 to a#2"):
        annotation.bounds(trace, "a")
    for name in ("a#3", "a#0", "d", "", "a#x"):
        with pytest.raises(UnknownName):
            annotation.bounds(trace, name)


def test_a_trace_without_phases_says_how_to_give_some(tmp_path):
    trace = Trace.open(make_trace(tmp_path / "t.trace", phases=[]))
    with pytest.raises(NeedsError, match="annotate"):
        pmlkit.wss(trace, "10ms", phase="a")


# The commands


def run(capsys, *words):
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_annotate_prints_what_it_reads(path, tmp_path, capsys):
    code, out, _ = run(capsys, "annotate", path)
    assert (code, out) == (0, "name,start,end\nstart,0,0.02\nwork,0.02,0.06\nrest,0.06,0.1\n")
    (tmp_path / "p.csv").write_text(out.replace("work", '"w,1"'))
    assert run(capsys, "annotate", path, tmp_path / "p.csv")[0] == 0
    assert run(capsys, "annotate", path)[1] == out.replace("work", '"w,1"')
    code, _, err = run(capsys, "annotate", path, "--phase", "x=0s..1s")
    assert code == 1 and "--overwrite" in err
    assert run(capsys, "annotate", path, "--phase", "x=0s..1s", "--overwrite")[0] == 0
    assert run(capsys, "annotate", path)[1] == "name,start,end\nx,0,0.1\n"
    assert "recorded phases again" in run(capsys, "annotate", path, "--remove")[1]


@pytest.mark.parametrize("text", ["", "load", "load,x,y", "load,1,2\nrun,1,3", "l\0,0,1"])
def test_hostile_phases_are_refused_in_one_line(path, tmp_path, capsys, text):
    (tmp_path / "p.csv").write_text(text)
    code, out, err = run(capsys, "annotate", path, tmp_path / "p.csv")
    assert (code, out, err.count("\n")) == (2, "", 1) and "defect" not in err
    assert not annotation.sidecar(path).exists()


def test_phases_select_in_the_commands(path, capsys):
    def ends(*options):
        code, out, err = run(capsys, "wss", path, "--window", "10ms", "--json", *options)
        assert code == 0, err
        return [(row["t_ns"] // MS, row["phase"]) for row in json.loads(out)]

    work = [(at, "work") for at in (30, 40, 50, 60)]
    assert ends("--phase", "work") == work
    assert ends("--start", "mark:work", "--end", "mark:rest") == work
    assert ends("--between", "work", "rest") == work
    assert ends("--phase", "start", "--phase", "work") == [(10, "start"), (20, "start"), *work]
    assert ends("--phase", "b=40ms..60ms", "--phase", "a=10ms..40ms") == [
        (20, "a"), (30, "a"), (40, "a"), (50, "b"), (60, "b"),
    ]  # fmt: skip
    everything = [(10 * number, "a") for number in range(1, 11)]
    assert ends("--phase", "a=..20ms", "--phase", "a=20ms..") == everything


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--phase", "work", "--start", "1ms"], "use one of them"),
        (["--phase", "nowhere"], "no phase 'nowhere'"),
        (["--phase", "start", "--phase", "rest"], "does not follow"),
        (["--phase", "a=0s..20ms", "--phase", "b=30ms..40ms"], "does not follow"),
        (["--phase", "a=0s..20ms", "--phase", "work"], "names phases, or defines"),
        (["--phase", "a=5s..6s"], "lasts 100 ms"),
        (["--phase", "a=x..6s"], "not a duration"),
        (["--between", "work", "nowhere"], "no phase 'nowhere'"),
        (["--start", "mark:nowhere"], "no phase 'nowhere'"),
    ],
)
def test_phases_that_select_nothing_are_refused(path, capsys, options, why):
    code, out, err = run(capsys, "wss", path, "--window", "10ms", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert why in err and "defect" not in err


# Rounds without length: references at instants, and intervals that an import splits.


@settings(max_examples=60)
@given(
    lengths=st.lists(st.sampled_from([0, 0, 10, 20, 50]), min_size=2, max_size=12),
    cuts=st.lists(st.integers(0, 300), min_size=2, max_size=5, unique=True),
    seed=st.integers(0, 1 << 16),
)
def test_the_rounds_of_a_phase_are_those_that_have_its_name(tmp_path_factory, lengths, cuts, seed):
    total, rng = sum(lengths), np.random.default_rng(seed)
    cuts = sorted({min(cut, total) for cut in cuts})
    events = [[(int(gfn), Kind.WRITE) for gfn in range(rng.integers(3))] for _ in lengths]
    trace = write_irregular(tmp_path_factory.mktemp("t") / "x.trace", events, lengths)
    each = {f"p{at}": (f"{a}ns", f"{b}ns") for at, (a, b) in enumerate(itertools.pairwise(cuts))}
    try:
        trace = trace.with_phases(each)
    except PmlkitError:  # within one round, or no time
        return
    names = trace.phase_of_rounds()
    for name in each:
        part = selection.stream(trace, phase=name)
        chosen = np.arange(part.first, part.first + part.n_rounds)
        assert chosen.tolist() == np.flatnonzero(names == name).tolist()


def test_an_interval_that_an_import_split_stays_in_one_part(tmp_path):
    """Times in whole seconds: page 1 returns within the second, so its round is split."""
    rows = [(0, 1), (0, 2), (0, 1), (1, 3), (1, 3), (2, 1), (3, 2), (3, 2), (3, 2)]
    (tmp_path / "x.csv").write_text("time,obj\n" + "".join(f"{t},{o}\n" for t, o in rows))
    columns = {"time": "time", "obj": "obj"}
    trace = interop.load("csv", tmp_path / "x.csv", tmp_path / "x.trace", columns=columns)
    assert (np.diff(trace.rounds[["t_start_ns", "t_end_ns"]]) == 0).any()
    uses = {part: pmlkit.mrc(trace, **{part: "1s"}).uses for part in ("start", "end")}
    assert uses == {"start": 6, "end": 3}
    halves = trace.with_phases({"a": ("0s", "1s"), "b": ("1s", None)})
    assert [pmlkit.mrc(halves, phase=phase).uses for phase in "ab"] == [3, 6]
    sizes = pmlkit.wss(trace, "1s")["pages"].tolist()
    cut = pmlkit.wss(trace, "1s", end="2s")["pages"].tolist()
    assert (sizes, cut) == ([2, 1, 1, 1], [2, 1])
