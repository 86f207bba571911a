# SPDX-License-Identifier: Apache-2.0
"""`Trace.check` finds what is wrong in content though every digest is right."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from factories import make_trace, reseal
from hypothesis import given
from hypothesis import strategies as st

from pmlkit.errors import TraceDamaged
from pmlkit.trace.audit import access_fault
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace
from pmlkit.trace.schema import ENTRIES

R, W, X = Kind.READ, Kind.WRITE, Kind.EXEC
EVENTS = [[(1, R), (1, W), (3, W), (2, X)], [(1, R), (9, W), (2, X), (9, X)], [(1, R)]]
PART = "entries/part-00000.parquet"


@pytest.fixture
def path(tmp_path):
    return make_trace(tmp_path / "x.trace", events=EVENTS, pml=False)


def fault(path, words):
    with pytest.raises(TraceDamaged) as caught:
        Trace.open(path).check()
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_summary(path):
    summary = Trace.open(path).check()
    assert summary["entries"] == 9
    assert summary["rounds"] == summary["batches"] == 3
    assert summary["duration_ns"] == 30_000_000
    assert summary["pml"] is None
    assert summary["complete"]
    listed = sum(file.stat().st_size for file in path.rglob("*.parquet"))
    assert summary["bytes"] == listed


def test_the_nested_log_is_checked_too(tmp_path):
    path = make_trace(tmp_path / "x", events=EVENTS)
    assert Trace.open(path).check()["pml"]["entries"] == 3
    (path / "pml.trace" / "rounds.parquet").unlink()
    fault(path, "rounds.parquet is missing")


def changed(path, column, row, value):
    """The trace's entries with one value changed."""
    table = Trace.open(path).entries()
    columns = {name: table[name].to_numpy().copy() for name in ENTRIES.names}
    columns[column][row] = value
    return pa.Table.from_arrays([pa.array(c) for c in columns.values()], schema=ENTRIES)


@pytest.mark.parametrize(
    ("column", "row", "value", "words"),
    [
        ("round", 7, 2, "of another round than their batch"),
        ("round", 8, 1, "has rounds 0 to 1, not [0, 2]"),
        ("batch", 3, 2, "batch falls"),
        ("batch", 3, 7, "batch falls"),
        ("batch", 8, 7, "entries of batch 7, and there are 3"),
        ("vcpu", 3, 2, "of another vcpu than their batch"),
        ("kind", 3, 0x11, "kind 17"),
        ("kind", 3, 0, "kind 0"),
        ("gfn", 3, 1 << 20, "frame 1048576, and the memory map ends at 4096"),
        ("gfn", 2, 1, "twice: round 0, gfn 1, kind 2"),
        ("gfn", 6, 10, "executed frames in round 1 that are not at its end"),
        ("kind", 6, 1, None),
        ("kind", 7, 2, "twice"),
        ("kind", 4, 4, "executed frames in round 1"),
    ],
)
def test_changed_entries(path, column, row, value, words):
    reseal(path, {PART: changed(path, column, row, value)})
    if words is None:  # gfn 2 read instead of executed: as good as any
        assert Trace.open(path).check()
    else:
        fault(path, words)


def test_rounds_that_fall(path):
    table = Trace.open(path).entries()
    reseal(path, {PART: pa.concat_tables([table.slice(4), table.slice(0, 4)]).combine_chunks()})
    fault(path, "has other rounds in row group 0 than its statistics")
    swapped = table.take([0, 1, 2, 4, 3, 5, 6, 7, 8])
    reseal(path, {PART: swapped.combine_chunks()})
    fault(path, "round falls")


@pytest.mark.parametrize("group", [1, 2, 3, 5])
def test_a_round_that_spans_row_groups_is_judged_as_one(tmp_path, group):
    events = [[(1, R), (1, W), (3, W), (4, W), (5, X)], [(1, R)]]
    path = make_trace(tmp_path / "x", events=events, row_group_rows=group, pml=False)
    assert Trace.open(path).check()
    twice = [[(1, R), (1, W), (3, W), (4, W), (1, R)], [(1, R)]]
    path = make_trace(tmp_path / "y", events=twice, row_group_rows=group, pml=False)
    fault(path, "twice: round 0, gfn 1, kind 1")


def test_a_pml_log_may_hold_a_frame_twice(tmp_path):
    events = [[(1, W), (2, W), (1, W)]]
    assert Trace.open(make_trace(tmp_path / "x", kind="pml", events=events)).check()


@pytest.mark.parametrize(
    ("table", "column", "row", "value", "words"),
    [
        ("rounds", "entries", 0, 5, "round 0 should have 5 entries and has 4"),
        ("rounds", "t_end_ns", 0, 7, "does not end where the next one starts"),
        ("rounds", "round", 1, 7, "another number"),
        ("rounds", "lost", 1, 7, "the rounds lost 7 entries and the batches 0"),
        ("rounds", "insn_start", 1, 1 << 60, "ends before it starts"),
        ("batches", "entries", 1, 7, "batch 1 should have 7 entries and has 4"),
        ("batches", "reason", 1, "bored", "for a reason other than"),
        ("batches", "round", 2, 9, "of another round than their batch"),
        ("batches", "vcpu", 1, 1, "of another vcpu"),
    ],
)
def test_changed_tables(path, table, column, row, value, words):
    content = Trace.open(path).table(table)
    values = np.array(content[column].to_pylist())
    values[row] = value
    place = content.schema.get_field_index(column)
    field = content.schema.field(place)
    new = content.set_column(place, field, pa.array(values.tolist(), field.type))
    reseal(path, {f"{table}.parquet": new})
    fault(path, words)


def test_other_columns(path):
    reseal(path, {"rounds.parquet": Trace.open(path).table("batches")})
    fault(path, "other columns")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("entries", 8, "states entries 8, and its files have 9 rows"),
        ("lost", 1, "states lost 1, and the rounds have 0"),
    ],
)
def test_totals(path, name, value, words):
    reseal(path, **{name: value})
    fault(path, words)


def test_a_stray_file(path):
    (path / "entries" / "part-00007.parquet").write_bytes(b"another reader would take this in")
    Trace.open(path).entries()
    fault(path, "part-00007.parquet is not listed in trace.json")


def test_the_memory_map_counts_ram_only(tmp_path):
    def make(name, ranges):
        memory_map = [{"start": s << 12, "end": e << 12, "type": t} for s, e, t in ranges]
        return make_trace(tmp_path / name, events=EVENTS, memory_map=memory_map, pml=False)

    assert Trace.open(make("a", [(0, 10, "usable"), (10, 50, "reserved")])).check()
    fault(
        make("b", [(0, 5, "usable"), (5, 50, "reserved")]), "frame 9, and the memory map ends at 5"
    )
    assert Trace.open(make("c", [])).check()


@given(
    st.integers(0, 2**32 - 3),
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 7, 2**52]), st.sampled_from([R, W])),
        max_size=12,
    ),
    st.booleans(),
)
def test_the_first_entry_that_is_there_twice_is_named(first, entries, far):
    """Rounds that are far apart leave no room to sort entries as one number."""
    rows = sorted((first * (not far) + 2**31 * far * r + r, f, k) for r, f, k in entries)
    rows = [(round_ % 2**32, frame, kind) for round_, frame, kind in rows]
    rows.sort()
    columns = [np.array(c, t) for c, t in zip(zip(*rows, strict=True), ("u4", "u8", "u1"),
                                              strict=False)]  # fmt: skip
    names = ["round", "gfn", "kind"]
    table = pa.table(columns or [pa.array([], t) for t in ("u4", "u8", "u1")], names)
    twice = [row for row, count in Counter(rows).items() if count > 1]
    found = access_fault(table)
    if not twice:
        assert found is None
    else:
        least = min(twice, key=lambda row: (row[0], row[2], row[1]))
        assert found == "holds an entry twice: round {}, gfn {}, kind {}".format(*least)
