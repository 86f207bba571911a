# SPDX-License-Identifier: Apache-2.0
"""The writer leaves a whole trace or nothing, and refuses what contradicts the format."""

import errno
import os
import subprocess

import numpy as np
import pandas as pd
import pytest
from factories import make_meta, make_trace

from pmlkit.errors import OutputError, OutputExists, PmlkitError, UsageError
from pmlkit.files import PartialFolder
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace, TraceWriter
from pmlkit.trace.schema import TraceMeta

ROUND = {"round": [0], "t_start_ns": [0], "t_end_ns": [10]}


def entries_of(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_the_name_appears_at_the_end(tmp_path):
    with TraceWriter(tmp_path / "x.trace", make_meta()) as writer:
        writer.add_entries(0, 0, 0, [1, 2], Kind.READ)
        writer.set_rounds(ROUND)
        assert entries_of(tmp_path) == ["x.trace.partial"]
        assert not writer.closed
    assert entries_of(tmp_path) == ["x.trace"]
    assert writer.closed
    assert Trace.open(tmp_path / "x.trace").meta.entries == 2


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_an_exception_leaves_nothing(tmp_path, error):
    with pytest.raises(error), TraceWriter(tmp_path / "x.trace", make_meta()) as writer:
        writer.add_entries(0, 0, 0, np.arange(5000), Kind.READ)
        nested = writer.pml(make_meta("pml"))
        nested.add_entries(0, 0, 0, [1], Kind.WRITE)
        raise error
    assert entries_of(tmp_path) == []
    assert writer.closed
    assert nested.closed


def test_use_after_close(tmp_path):
    writer = TraceWriter(tmp_path / "x", make_meta())
    writer.close()
    writer.close()
    writer.abort()
    assert Trace.open(tmp_path / "x").n_rounds == 0
    for call in (
        lambda: writer.add_entries(0, 0, 0, [1], Kind.READ),
        lambda: writer.set_rounds(ROUND),
        lambda: writer.note("late"),
        lambda: writer.pml(make_meta("pml")),
    ):
        with pytest.raises(UsageError, match="closed"):
            call()


def test_a_taken_name(tmp_path):
    make_trace(tmp_path / "x.trace", rounds=2)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("precious")
    for name in ("x.trace", "file", "folder"):
        with pytest.raises(OutputExists, match=name):
            TraceWriter(tmp_path / name, make_meta())
    for name in ("file", "folder"):  # what is no trace is never replaced
        with pytest.raises(OutputExists):
            TraceWriter(tmp_path / name, make_meta(), overwrite=True)
    assert entries_of(tmp_path) == ["file", "folder", "x.trace"]


def test_overwriting_replaces_only_at_the_end(tmp_path):
    make_trace(tmp_path / "x.trace", rounds=2)
    with pytest.raises(ZeroDivisionError):
        make_and_fail(tmp_path / "x.trace")
    assert Trace.open(tmp_path / "x.trace").n_rounds == 2
    make_trace(tmp_path / "x.trace", rounds=3, overwrite=True)
    assert Trace.open(tmp_path / "x.trace").check()["rounds"] == 3
    assert entries_of(tmp_path) == ["x.trace"]


def make_and_fail(path):
    with TraceWriter(path, make_meta(), overwrite=True):
        raise ZeroDivisionError


def test_a_rename_that_fails_leaves_the_old_trace(tmp_path, monkeypatch):
    make_trace(tmp_path / "x.trace", rounds=2)
    rename = os.rename

    def fail(source, target):
        if str(source).endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OutputError, match="Input/output error"):
        make_trace(tmp_path / "x.trace", rounds=3, overwrite=True, pml=False)
    monkeypatch.undo()
    assert Trace.open(tmp_path / "x.trace").n_rounds == 2
    assert entries_of(tmp_path) == ["x.trace"]


def test_a_name_that_is_taken_meanwhile(tmp_path):
    writer = TraceWriter(tmp_path / "x.trace", make_meta())
    (tmp_path / "x.trace").mkdir()
    (tmp_path / "x.trace" / "file").write_text("of another")
    with pytest.raises(OutputExists):
        writer.close()
    assert entries_of(tmp_path) == ["x.trace"]
    assert (tmp_path / "x.trace" / "file").read_text() == "of another"


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    left = tmp_path / "x.trace.partial"
    (left / "entries").mkdir(parents=True)
    (left / "entries" / "part-00000.parquet").write_text("half")
    (left / "rounds.parquet").write_text("half")
    make_trace(tmp_path / "x.trace").resolve()
    Trace.open(tmp_path / "x.trace").check()
    assert entries_of(tmp_path) == ["x.trace"]


def test_what_is_not_ours_is_not_cleared(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    (tmp_path / "a.partial").mkdir()
    (tmp_path / "a.partial" / "thesis.tex").write_text("precious")
    (tmp_path / "a.partial" / "rounds.parquet").write_text("as a killed writer leaves it")
    (tmp_path / "b.partial").symlink_to(tmp_path / "mine")
    (tmp_path / "c.partial").write_text("precious")
    for name in "abc":
        with pytest.raises((OutputExists, OutputError), match=name) as caught:
            TraceWriter(tmp_path / name, make_meta())
        assert str(caught.value).isprintable()
    assert (tmp_path / "mine" / "thesis.tex").exists()
    assert entries_of(tmp_path / "a.partial") == ["rounds.parquet", "thesis.tex"]
    assert (tmp_path / "c.partial").read_text() == "precious"


def test_nothing_is_cleared_through_a_link(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "trace.json").write_text("as if a killed writer had left it")
    (tmp_path / "x.trace.partial").symlink_to("mine")
    with pytest.raises(OutputError, match="x.trace"):
        TraceWriter(tmp_path / "x.trace", make_meta())
    assert (tmp_path / "mine" / "trace.json").exists()


def test_a_link_to_a_trace_is_replaced_and_not_followed(tmp_path):
    make_trace(tmp_path / "old.trace", rounds=2)
    (tmp_path / "x.trace").symlink_to("old.trace")
    make_trace(tmp_path / "x.trace", rounds=3, overwrite=True)
    assert Trace.open(tmp_path / "x.trace").n_rounds == 3
    assert Trace.open(tmp_path / "old.trace").n_rounds == 2
    assert entries_of(tmp_path) == ["old.trace", "x.trace"]


def test_two_writers_of_one_name(tmp_path):
    with TraceWriter(tmp_path / "x.trace", make_meta()) as first:
        with pytest.raises(OutputError, match="another process is writing it"):
            TraceWriter(tmp_path / "x.trace", make_meta())
        first.set_rounds(ROUND)
    assert Trace.open(tmp_path / "x.trace").n_rounds == 1


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path, words in (
        (tmp_path / "file" / "x.trace", "a part of its path is a file"),
        (tmp_path / "none" / "x.trace", "make the folder first"),
        ("a\0b", "give another name"),
        ("", "give another name"),
        ("x" * 5000, "choose another place"),
    ):
        with pytest.raises((OutputError, OutputExists)) as caught:
            TraceWriter(path, make_meta())
        assert str(caught.value).isprintable()
        assert isinstance(caught.value, OutputExists) or words in str(caught.value)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("nth", [1, 2, 5, 9, 14, 20, 26])
def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch, code, nth):
    from pmlkit.trace.parquet import HashingFile

    count = iter(range(1, 10_000))
    write = HashingFile.write

    def failing(self, data):
        if next(count) >= nth and not self._discarding:
            raise OSError(code, os.strerror(code))
        return write(self, data)

    monkeypatch.setattr(HashingFile, "write", failing)
    with pytest.raises(OutputError, match="x.trace") as caught:
        make_trace(tmp_path / "x.trace", rounds=40, row_group_rows=100)
    assert ".partial" not in str(caught.value)
    assert entries_of(tmp_path) == []


def test_a_disk_that_is_full_at_the_last_moment(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="no space left"):
        make_trace(tmp_path / "x.trace")
    assert entries_of(tmp_path) == []


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 128 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"mount cannot be run: {error}")
    if mounted.returncode:
        pytest.skip(f"mounting a small tmpfs needs root: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(tiny_disk):
    rng = np.random.default_rng(0)
    events = [[(int(g), Kind.WRITE) for g in rng.permutation(4096)] for _ in range(60)]
    with pytest.raises(OutputError, match=r"x\.trace \(no space left\): free some space"):
        make_trace(tiny_disk / "x.trace", events=events, row_group_rows=4096)
    assert entries_of(tiny_disk) == []
    make_trace(tiny_disk / "x.trace", rounds=2, pml=False)  # and there is room again
    Trace.open(tiny_disk / "x.trace").check()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w: w.add_entries(0, 0, 0, [1.5], 1), "whole numbers"),
        (lambda w: w.add_entries(0, 0, 0, [-1], 1), "do not fit uint64"),
        (lambda w: w.add_entries(0, 0, 1 << 16, [1], 1), "do not fit uint16"),
        (lambda w: w.add_entries(1 << 32, 0, 0, [1], 1), "do not fit uint32"),
        (lambda w: w.add_entries(0, 0, 0, [1, 2], [1, 2, 4]), "one length"),
        (lambda w: w.add_entries(0, 0, 0, 1, 1), "one length"),
        (lambda w: w.add_entries(0, 0, 0, [[1]], 1), "one length"),
        (lambda w: w.add_entries([1, 0], 0, 0, [1, 2], 1), "round falls"),
        (lambda w: w.add_entries(0, [1, 0], 0, [1, 2], 1), "batch falls"),
        (lambda w: w.add_entries(0, 0, 0, [1], 3), "kind 3"),
        (lambda w: w.add_entries(0, 0, 0, [1, 2], [1, 3]), "kind 3"),
        (lambda w: w.add_entries(0, 0, 0, [1], Kind.UNKNOWN), "kind 0"),
        (lambda w: w.add_entries(0, 0, 0, [1], 0x11), "kind 17"),
        (lambda w: w.set_rounds({"round": [0]}), "needs a column 't_start_ns'"),
        (lambda w: w.set_rounds({**ROUND, "t_ns": [0]}), "no column 't_ns'"),
        (lambda w: w.set_rounds({**ROUND, "lost": [-1]}), "lost cannot be uint64"),
        (lambda w: w.set_rounds({**ROUND, "lost": [0.5]}), "lost cannot be uint64"),
        (lambda w: w.set_rounds({**ROUND, "exits": [None]}), "empty cells"),
        (lambda w: w.set_regions({"name": [None], "gfn": [0], "pages": [1]}), "empty cells"),
        (lambda w: w.set_phases([{"name": "a"}]), "phases"),
        (
            lambda w: w.set_phases(
                [{"name": n, "round": 5 - i, "t_ns": 0} for i, n in enumerate("ab")]
            ),
            "decreases",
        ),
        (lambda w: w.pml(make_meta("access")), "only an access trace"),
        (lambda w: w.replace_meta(kind="pml"), "cannot change its kind"),
        (lambda w: w.replace_meta(host={"load": float("nan")}), "cannot hold nan"),
    ],
)
def test_wrong_use_is_said_at_once(tmp_path, call, words):
    with TraceWriter(tmp_path / "x", make_meta()) as writer:
        with pytest.raises(UsageError) as caught:
            call(writer)
        assert words in str(caught.value)
        assert str(caught.value).isprintable()
    Trace.open(tmp_path / "x").check()


def test_what_was_refused_leaves_no_mark(tmp_path):
    with TraceWriter(tmp_path / "x", make_meta()) as writer:
        for wrong in ({"round": 9, "kind": 0}, {"round": [9, 8], "kind": Kind.READ}):
            with pytest.raises(UsageError):
                writer.add_entries(batch=0, vcpu=0, gfn=[1, 2], **wrong)
        writer.add_entries(0, 0, 0, [1], Kind.READ)
        writer.set_rounds(ROUND)
    assert Trace.open(tmp_path / "x").check()["entries"] == 1


def test_entries_never_go_back(tmp_path):
    with TraceWriter(tmp_path / "x", make_meta("pml"), row_group_rows=4) as writer:
        for index in range(3):
            writer.add_entries(index, index, 0, [1] * 3, Kind.WRITE)
        with pytest.raises(UsageError, match="below 2"):
            writer.add_entries(1, 2, 0, [1], Kind.WRITE)
        ends = np.arange(3) + 1
        writer.set_rounds({"round": range(3), "t_start_ns": ends - 1, "t_end_ns": ends})
    assert Trace.open(tmp_path / "x").meta.entries == 9


TABLES = {
    "a gap in time": ({"t_start_ns": [0, 11]}, {}, "does not end where the next one starts"),
    "negative time": ({"t_end_ns": [10, 5]}, {}, "ends before it starts"),
    "numbers": ({"round": [0, 2]}, {}, "has another number"),
    "counts of rounds": ({"entries": [1, 3]}, {}, "round 0 should have 1 entries and has 2"),
    "counts of batches": ({}, {"entries": [2, 9]}, "batch 1 should have 9 entries and has 1"),
    "reason": ({}, {"reason": ["full", "bored"]}, "batch 1 was drained for a reason other"),
    "order of batches": ({}, {"round": [1, 0]}, "is of a later round"),
    "rounds of batches": ({}, {"round": [0, 7]}, "a round that does not exist"),
    "too few rounds": ({"round": [0], "t_start_ns": [0], "t_end_ns": [9]}, None, "only 1"),
    "lost": ({"lost": [0, 3]}, {}, "the rounds lost 3 entries and the batches 0"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_that_contradict_each_other(tmp_path, case):
    rounds, batches, words = TABLES[case]
    spans = {"t_start_ns": [0, 10], "t_end_ns": [10, 20]}
    with pytest.raises(UsageError) as caught, TraceWriter(tmp_path / "x", make_meta()) as writer:
        writer.add_entries([0, 0, 1], [0, 0, 1], 0, [5, 6, 5], Kind.READ)
        writer.set_rounds({"round": [0, 1], **spans, **rounds})
        if batches is not None:
            fixed = {"batch": [0, 1], "round": [0, 1], "reason": "round", **spans}
            writer.set_batches({**fixed, **batches})
    assert words in str(caught.value)
    assert entries_of(tmp_path) == []


def test_what_can_be_left_out_is_filled_in(tmp_path):
    with TraceWriter(tmp_path / "x", make_meta("pml")) as writer:
        writer.add_entries([0, 0, 1], [0, 1, 2], 0, [5, 6, 5], Kind.WRITE)
        spans = {"t_start_ns": [0, 10], "t_end_ns": [10, 20]}
        writer.set_rounds(pd.DataFrame({"round": [0, 1], "lost": [0, 4], **spans}))
        writer.set_batches(
            {
                "batch": range(3),
                "round": [0, 0, 1],
                "t_start_ns": [0, 5, 10],
                "t_end_ns": [5, 10, 20],
                "reason": ["full", "round", "round"],
                "lost": [0, 0, 4],
            }
        )
    trace = Trace.open(tmp_path / "x")
    assert trace.rounds["entries"].tolist() == [2, 1]
    assert trace.batches["entries"].tolist() == [1, 1, 1]
    assert trace.rounds["asked_ns"].tolist() == [-1, -1]
    assert (trace.meta.entries, trace.meta.lost) == (3, 4)
    trace.check()


def test_empty_frames_stand_for_no_rows(tmp_path):
    with TraceWriter(tmp_path / "x", make_meta()) as writer:
        writer.set_batches(pd.DataFrame([]))
        writer.set_guest(pd.DataFrame())
        writer.set_rounds(ROUND)
    trace = Trace.open(tmp_path / "x")
    assert (len(trace.batches), len(trace.guest), trace.n_rounds) == (0, 0, 1)


def test_the_description_holds_what_it_was_given(tmp_path):
    host = {"cpu": "x", "count": np.int64(3), "share": np.float32(0.5), "flags": ("a", "b")}
    with TraceWriter(tmp_path / "x", make_meta(host=host)) as writer:
        writer.note("one")
        writer.note("two \udcff")
        writer.replace_meta(complete=False, overheads={"path": tmp_path})
    meta = Trace.open(tmp_path / "x").meta
    assert meta.host == {"cpu": "x", "count": 3, "share": 0.5, "flags": ["a", "b"]}
    assert meta.notes == ["one", "two ?"]
    assert meta.overheads == {"path": str(tmp_path)}
    assert not meta.complete
    assert meta == writer.meta


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "other"}, "kind"),
        ({"source": ""}, "source"),
        ({"domain": {"name": "x"}}, "memory_bytes is None"),
        ({"domain": {"memory_bytes": 5000}}, "multiple of 4096"),
        ({"domain": {"memory_bytes": 4096, "page_size": 8192}}, "multiple of 8192"),
        ({"domain": {"memory_bytes": 4096, "page_size": 3000}}, "page_size"),
        ({"period": {"ns": 0}}, "period.ns"),
        ({"memory_map": [{"start": 0}]}, "memory_map"),
        ({"created": "yesterday"}, "created"),
    ],
)
def test_descriptions_that_make_no_sense(fields, words):
    fixed = {"kind": "pml", "source": "lab", "domain": {"memory_bytes": 4096}}
    TraceMeta(**fixed)
    with pytest.raises(UsageError, match=words):
        TraceMeta(**{**fixed, **fields})


def test_the_resolution_follows_from_instructions_and_the_clock():
    meta = make_meta(period={"insn": 1000}, clock={"ns_per_insn": 1.5})
    assert meta.resolution_ns == 1500
    assert make_meta(period={"insn": 1000}, clock={}).resolution_ns is None
    assert make_meta(period={"ns": 7}).resolution_ns == 7


def test_every_error_of_the_writer_is_of_the_family(tmp_path):
    for error in (OutputError, OutputExists, UsageError):
        assert issubclass(error, PmlkitError)


def test_the_nested_log(tmp_path):
    with TraceWriter(tmp_path / "x", make_meta()) as writer:
        with writer.pml(make_meta("pml")) as nested:
            nested.set_rounds(ROUND)
            with pytest.raises(UsageError, match="only an access trace"):
                nested.pml(make_meta("pml"))
        with pytest.raises(UsageError, match="one of that kind"):
            writer.pml(make_meta("pml"))
        writer.set_rounds(ROUND)
    assert Trace.open(tmp_path / "x").pml.n_rounds == 1


def test_an_aborted_nested_log_aborts_the_trace(tmp_path):
    with (
        pytest.raises(UsageError, match="was aborted"),
        TraceWriter(tmp_path / "x", make_meta()) as writer,
    ):
        writer.pml(make_meta("pml")).abort()
    assert entries_of(tmp_path) == []


def test_entries_that_are_made_in_threads_give_the_same_files(tmp_path):
    rng = np.random.default_rng(1)
    n, rows = 5000, 64  # 79 row groups in 5 files, in pieces of every length
    rounds = np.sort(rng.integers(0, 9, n)).astype(np.uint32)
    columns = (rounds, rounds, 0 * rounds, rng.integers(0, 4096, n), 0 * rounds + 2)

    def write(name, add):
        with TraceWriter(tmp_path / name, make_meta("pml"), row_group_rows=rows) as writer:
            add(writer)
            edges = np.arange(10)
            writer.set_rounds(
                {"round": edges[:-1], "t_start_ns": edges[:-1], "t_end_ns": edges[1:]}
            )
        return Trace.open(tmp_path / name)

    def make(start, stop):
        return tuple(column[start:stop] for column in columns)

    made = write("made", lambda writer: writer.add_generated(n, make))
    added = write("added", lambda writer: writer.add_entries(*columns))
    assert len([name for name in made.files if name.startswith("entries/")]) == 5
    assert made.files == added.files
    assert made.check()["entries"] == n


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        (lambda a, b: (np.full(b - a, 9 - a // 1024, np.uint32), 0, 0, 0, 2), "round falls below"),
        (lambda a, b: (np.zeros(b - a, np.uint32), 0, 0, 0, 9), "kind 9 cannot be"),
        (lambda a, b: (np.zeros(b - a, float), 0, 0, 0, 2), "give whole numbers"),
    ],
)
def test_entries_that_are_made_wrong_leave_nothing(tmp_path, columns, why):
    with (
        pytest.raises(UsageError, match=why),
        TraceWriter(tmp_path / "x", make_meta("pml"), row_group_rows=64) as writer,
    ):
        writer.add_generated(4096, columns)
    assert entries_of(tmp_path) == []


def test_entries_are_made_for_an_empty_trace_only(tmp_path):
    with TraceWriter(tmp_path / "x", make_meta()) as writer:
        writer.add_entries(0, 0, 0, [1], Kind.READ)
        with pytest.raises(UsageError, match="trace without entries"):
            writer.add_generated(1, lambda start, stop: None)
        writer.set_rounds(ROUND)


def test_a_full_disk_while_entries_are_made(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pmlkit.trace.parquet.HashingFile.write", full)
    with (
        pytest.raises(OutputError),
        TraceWriter(tmp_path / "x", make_meta("pml"), row_group_rows=64) as writer,
    ):
        writer.add_generated(4096, lambda a, b: (np.zeros(b - a, np.uint32), 0, 0, 0, 2))
    assert entries_of(tmp_path) == []


def test_what_a_link_leads_to_is_not_cleared(tmp_path):
    """Its files are called as a killed writer's: only that it is a link tells them apart."""
    theirs = tmp_path / "theirs.trace"
    theirs.mkdir()
    (theirs / "trace.json").write_text("{}")
    (theirs / "rounds.parquet").write_text("rounds")
    (tmp_path / "x.trace.partial").symlink_to(theirs)
    with pytest.raises(OutputError):
        PartialFolder(tmp_path / "x.trace")
    assert (theirs / "rounds.parquet").read_text() == "rounds"
    assert (theirs / "trace.json").read_text() == "{}"
