# SPDX-License-Identifier: Apache-2.0
"""Snapshots of page tables in a trace come back as they were written, by round, or not at all."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import make_meta, make_trace, reseal
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting import rewrite

from pmlkit.errors import TraceDamaged, UsageError
from pmlkit.trace import snapshots
from pmlkit.trace.kinds import Kind, TableFlag
from pmlkit.trace.reader import Trace, TraceWriter
from pmlkit.trace.schema import SNAPSHOTS

LEAF = TableFlag.PRESENT | TableFlag.LEAF
ROUNDS = 4
FILE = snapshots.FILE


def some_rows(seed=0, rounds=ROUNDS, tables=6, entries=40):
    """Make up snapshots: in each round some tables, with some of their entries present."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(1, 5, tables)
    pieces = []
    for number in range(rounds):
        for table in np.sort(rng.permutation(tables)[: rng.integers(0, tables + 1)]):
            index = np.sort(rng.permutation(512)[: rng.integers(1, entries)])
            target = rng.integers(0, 1 << 40, len(index))
            flags = rng.integers(0, 16, len(index)) * 2 + 1
            columns = (number, 100 + table, levels[table], index, target, flags)
            pieces.append(pd.DataFrame(dict(zip(SNAPSHOTS.names, columns, strict=True))))
    frame = pd.concat(pieces, ignore_index=True)
    return frame.astype({f.name: f.type.to_pandas_dtype() for f in SNAPSHOTS})


def write(path, rows, kind="pml", cuts=(), rounds=ROUNDS, **options):
    """Write a trace that holds these rows, added in pieces that are cut at `cuts`."""
    index = np.arange(rounds)
    with TraceWriter(path, make_meta(kind), **options) as writer:
        for piece in np.split(np.arange(len(rows)), sorted(cuts)):
            writer.add_tables(**rows.iloc[piece])
        writer.set_rounds({"round": index, "t_start_ns": index * 10, "t_end_ns": index * 10 + 10})
    return Trace.open(path)


def same(actual, expected):
    pd.testing.assert_frame_equal(actual.reset_index(drop=True), expected.reset_index(drop=True))


def test_everything_comes_back(tmp_path):
    rows = some_rows()
    trace = write(tmp_path / "x.trace", rows)
    assert trace.has_tables
    same(trace.tables, rows)
    assert trace.check()["rounds"] == ROUNDS
    same(pq.read_table(tmp_path / "x.trace" / FILE).to_pandas(), rows)
    assert trace.files[FILE]["rows"] == len(rows)


def test_the_set_at_once_is_the_same_as_added_in_pieces(tmp_path):
    rows = some_rows(1)
    with TraceWriter(tmp_path / "x.trace", make_meta("pml")) as writer:
        writer.set_tables(rows)
        writer.set_rounds({"round": [0, 1, 2, 3], "t_start_ns": [0] * 4, "t_end_ns": [0] * 4})
    same(Trace.open(tmp_path / "x.trace").tables, rows)


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 60), max_size=6), room=st.integers(3, 64))
def test_how_rows_are_cut_into_calls_does_not_show(tmp_path_factory, cuts, room):
    folder, rows = tmp_path_factory.mktemp("cuts"), some_rows(2, entries=8)
    cuts = [cut for cut in cuts if cut <= len(rows)]
    whole = write(folder / "a", rows, row_group_rows=room)
    pieces = write(folder / "b", rows, cuts=cuts, row_group_rows=room)
    assert whole.files == pieces.files
    sizes = [batch.num_rows for batch in whole.iter_tables()]
    assert max(sizes) <= room
    same(pieces.tables, rows)


@settings(max_examples=30)
@given(start=st.integers(0, 50), length=st.integers(0, 50))
def test_rounds_are_chosen_by_time(tmp_path_factory, start, length):
    rows = some_rows(3)
    trace = write(tmp_path_factory.mktemp("time") / "x", rows, row_group_rows=16)
    first, stop = trace.rounds_between(start, start + length)
    batches = trace.iter_tables(["table", "index"], start, start + length)
    schema = pa.schema([SNAPSHOTS.field(name) for name in ("table", "index")])
    selected = pa.Table.from_batches(batches, schema=schema).to_pandas()
    chosen = rows[(rows["round"] >= first) & (rows["round"] < stop)]
    same(selected, chosen[["table", "index"]])


def test_only_the_row_groups_that_are_needed_are_read(tmp_path, monkeypatch):
    trace = write(tmp_path / "x", some_rows(4, rounds=40), rounds=40, row_group_rows=16)
    read = []
    plain = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, group, **rest: read.append(group) or plain(self, group, **rest),
    )
    next(trace.iter_tables())
    assert read == [0]  # as it is asked for: memory is bounded
    read.clear()
    assert list(trace.iter_tables(start_ns=390))
    assert 0 < len(read) < 20 and 0 not in read


def test_a_trace_without_snapshots(tmp_path):
    trace = Trace.open(make_trace(tmp_path / "x.trace"))
    assert not trace.has_tables
    assert FILE not in trace.files
    assert len(trace.tables) == 0
    assert list(trace.tables.columns) == SNAPSHOTS.names
    assert trace.tables["target"].dtype == np.uint64
    assert list(trace.iter_tables()) == []
    with pytest.raises(UsageError, match="no column"):
        trace.iter_tables(["gfn"])


def test_no_rows_make_no_file(tmp_path):
    trace = write(tmp_path / "x", some_rows().iloc[:0])
    assert FILE not in trace.files
    assert trace.check()


def test_an_access_trace_gives_those_of_its_log(tmp_path):
    rows, rounds = some_rows(5), {"round": range(4), "t_start_ns": [0] * 4, "t_end_ns": [0] * 4}
    with TraceWriter(tmp_path / "x", make_meta()) as writer:
        writer.set_rounds(rounds)
        nested = writer.pml(make_meta("pml"))
        nested.set_rounds(rounds)
        nested.set_tables(rows)
    trace = Trace.open(tmp_path / "x")
    assert trace.has_tables
    same(trace.tables, rows)
    assert trace.check()["pml"]


def row(**changes):
    plain = {"round": 0, "table": 9, "level": 1, "index": [3], "target": 5, "flags": int(LEAF)}
    return plain | changes


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (row(level=0), "level that is not 1 to 5"),
        (row(level=6), "level that is not 1 to 5"),
        (row(index=[1024]), "no such place"),
        (row(flags=int(TableFlag.LEAF)), "is not present"),
        (row(index=[5, 5], target=[1, 2]), "does not come after"),
        (row(index=[5, 4]), "does not come after"),
        (row(table=[9, 8], index=[3, 4]), "does not come after"),
        (row(round=[1, 0], index=[3, 4]), "does not come after"),
        (row(level=[1, 2], index=[3, 4]), "another level than earlier entries"),
        (row(index=[-1]), "do not fit"),
        (row(target=[1 << 64]), "whole numbers"),
        (row(target=[0.5]), "whole numbers"),
        (row(index=[1, 2], target=[1, 2, 3]), "one length"),
        (row(round=1), "page tables of round 1, and the trace has 1 rounds"),
    ],
)
def test_what_is_wrong_is_refused_and_leaves_nothing(tmp_path, wrong, words):
    with pytest.raises(UsageError, match=words), TraceWriter(tmp_path / "x", make_meta()) as writer:
        writer.set_rounds({"round": [0], "t_start_ns": [0], "t_end_ns": [10]})
        writer.add_tables(**wrong)
    assert list(tmp_path.iterdir()) == []


def test_order_is_kept_over_calls(tmp_path):
    with TraceWriter(tmp_path / "x", make_meta()) as writer:
        writer.set_rounds({"round": [0], "t_start_ns": [0], "t_end_ns": [10]})
        writer.add_tables(**row())
        for wrong, words in ((row(), "come after"), (row(index=[4], level=2), "another level")):
            with pytest.raises(UsageError, match=words):
                writer.add_tables(**wrong)
        writer.add_tables(**row(table=10, level=2))
    assert len(Trace.open(tmp_path / "x").tables) == 2
    with pytest.raises(UsageError, match="closed"):
        writer.add_tables(**row(table=11))


def changed(trace, column, place, value):
    frame = trace.tables
    frame[column] = frame[column].where(frame.index != place % len(frame), value)
    return pa.Table.from_pandas(frame, schema=SNAPSHOTS, preserve_index=False)


@pytest.mark.parametrize(
    ("column", "place", "value", "words"),
    [
        ("level", 3, 9, "level that is not"),
        ("flags", 3, 0, "is not present"),
        ("index", 3, 2000, "no such place"),
        ("index", 5, 0, "does not come after"),
        ("round", -1, ROUNDS, f"has rounds 0 to {ROUNDS}, not"),
        ("table", -1, 1 << 30, "frame 1073741824, and the memory map ends at 4096"),
    ],
)
def test_check_finds_what_is_wrong_though_its_digest_is_right(
    tmp_path, column, place, value, words
):
    trace = write(tmp_path / "x", some_rows(6, entries=9))
    reseal(tmp_path / "x", {FILE: changed(trace, column, place, value)})
    with pytest.raises(TraceDamaged, match=words):
        Trace.open(tmp_path / "x").check()


def test_rows_that_went_are_missed(tmp_path):
    trace = write(tmp_path / "x", some_rows(7))
    rows = pa.Table.from_pandas(trace.tables.iloc[:-1], schema=SNAPSHOTS, preserve_index=False)
    reseal(tmp_path / "x", {FILE: rows})
    with pytest.raises(TraceDamaged, match=r"tables.parquet has \d+ rows instead of"):
        Trace.open(tmp_path / "x").check()


def test_a_flipped_bit_anywhere_is_found(tmp_path):
    write(tmp_path / "x", some_rows(8, rounds=2, entries=5), rounds=2)
    file = tmp_path / "x" / FILE
    data = bytearray(file.read_bytes())
    for place in range(0, len(data), 3):
        data[place] ^= 1 << place % 8
        rewrite(file, data)
        with pytest.raises(TraceDamaged, match=FILE):
            _ = Trace.open(tmp_path / "x").tables
        data[place] ^= 1 << place % 8


def test_a_file_that_went_or_was_cut_is_refused_at_open(tmp_path):
    write(tmp_path / "x", some_rows(9))
    file = tmp_path / "x" / FILE
    data = file.read_bytes()
    for rest in (None, b"", data[:-1], data + b"\n"):
        file.unlink() if rest is None else file.write_bytes(rest)
        with pytest.raises(TraceDamaged, match=FILE):
            Trace.open(tmp_path / "x")
        file.write_bytes(data)
    assert Trace.open(tmp_path / "x").check()


def test_batches_of_harvests(tmp_path):
    """A harvest is a batch: the guided one first, then what the scan of all memory still found."""
    index = np.arange(2)
    with TraceWriter(tmp_path / "x", make_meta()) as writer:
        for number in index:
            writer.add_entries(number, 2 * number, 0, [1, 2], Kind.READ)
        writer.add_entries(1, 3, 0, [7], Kind.READ)
        times = {"t_start_ns": index * 10, "t_end_ns": index * 10 + 10}
        writer.set_rounds({"round": index, **times})
        twice = {name: np.repeat(values, 2) for name, values in times.items()}
        reasons = ["guided", "scan"] * 2
        writer.set_batches({"batch": range(4), "round": [0, 0, 1, 1], "reason": reasons, **twice})
    trace = Trace.open(tmp_path / "x")
    assert trace.check()["entries"] == 5
    scans = trace.batches[trace.batches["reason"] == "scan"]
    assert scans["entries"].tolist() == [0, 1]


def test_a_harvest_is_told_from_a_recording(tmp_path):
    def make(name, reason):
        with TraceWriter(tmp_path / name, make_meta()) as writer:
            writer.set_rounds({"round": [0], "t_start_ns": [0], "t_end_ns": [10]})
            batch = {"batch": [0], "round": [0], "t_start_ns": [0], "t_end_ns": [10]}
            writer.set_batches({**batch, "reason": [reason]})
        return Trace.open(tmp_path / name)

    assert make("a", "guided").is_harvest
    assert make("b", "scan").is_harvest
    assert not make("c", "round").is_harvest
