# SPDX-License-Identifier: Apache-2.0
"""The small tables, completed out of what was counted, come back as they were given."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import make_meta
from hypothesis import given, settings
from hypothesis import strategies as st

from pmlkit.errors import UsageError
from pmlkit.trace import parquet
from pmlkit.trace.entries import RunLengthCounts
from pmlkit.trace.kinds import Kind
from pmlkit.trace.parquet import to_table
from pmlkit.trace.reader import Trace
from pmlkit.trace.schema import TABLES
from pmlkit.trace.writer import TablesWriter, TraceWriter

INT64, UINT64 = np.iinfo(np.int64), np.iinfo(np.uint64)


def count(values):
    counted = RunLengthCounts()
    counted.add(np.array(values, np.uint32))
    return counted


def rounds(count):
    edges = np.arange(count + 1)
    return pd.DataFrame({"round": edges[:-1], "t_start_ns": edges[:-1], "t_end_ns": edges[1:]})


def test_entries_are_counted_and_a_round_is_a_batch(tmp_path):
    writer = TablesWriter(tmp_path, tmp_path)
    writer.set("rounds", rounds(3).assign(lost=[0, 2, 3]))
    counted = count([0, 0, 2])
    writer.close(counted, counted, -1, make_meta())
    for name in ("rounds", "batches"):
        assert pq.read_table(tmp_path / f"{name}.parquet")["entries"].to_pylist() == [2, 0, 1]
    assert pq.read_table(tmp_path / "batches.parquet")["reason"].to_pylist() == ["round"] * 3
    assert writer.totals == {"entries": 3, "lost": 5}
    assert sorted(writer.files) == ["batches.parquet", "regions.parquet", "rounds.parquet"]
    for name, checksum in writer.files.items():
        assert checksum["bytes"] == (tmp_path / name).stat().st_size


def test_any_number_comes_back(tmp_path):
    # Columns that rise as a rule hold differences, and those of these rows do not fit their types.
    extremes = {
        "t_ns": [INT64.min, INT64.max, 0, INT64.min, -1],
        "insn": [0, UINT64.max, 1, UINT64.max // 2 + 1, 0],
    }
    table = pd.DataFrame({"sector": range(5), "sectors": 8, "gfn": 1, "write": True} | extremes)
    writer = TablesWriter(tmp_path, tmp_path)
    writer.set("disk", table)
    writer.close(RunLengthCounts(), RunLengthCounts(), -1, make_meta())
    assert pq.read_table(tmp_path / "disk.parquet").equals(to_table("disk", table))


@pytest.mark.parametrize(
    ("per_round", "last_snapshot", "words"),
    [([0, 1, 2], -1, "entries of round 2"), ([0, 1], 2, "page tables of round 2")],
)
def test_what_contradicts_the_rounds(tmp_path, per_round, last_snapshot, words):
    writer = TablesWriter(tmp_path, "x.trace")
    writer.set("rounds", rounds(2))
    with pytest.raises(UsageError, match=f"tables of x.trace contradict.*{words}"):
        writer.close(count(per_round), count(per_round[:2]), last_snapshot, make_meta())
    assert list(tmp_path.iterdir()) == []


# However well a table packs


def round_trip(folder, name, table, limit):
    """Write one of a trace's tables and read it back, with room for `limit` bytes unpacked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "LIMIT_TABLE_BYTES", limit)
        checksum = parquet.write_table(folder / f"{name}.parquet", table)
        return parquet.read_table(folder, f"{name}.parquet", checksum, table.schema)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(TABLES)), st.integers(1, 20_000), st.integers(0, 1000), st.booleans())
def test_a_table_of_ours_is_always_read(tmp_path_factory, name, rows, value, rising):
    columns = []
    for field in TABLES[name]:
        numbers = np.arange(rows) % 2 if field.name == "write" else value + rising * np.arange(rows)
        columns.append(pa.array(numbers % 65536).cast(field.type))
    table = pa.Table.from_arrays(columns, schema=TABLES[name])
    assert round_trip(tmp_path_factory.mktemp("t"), name, table, 1000).equals(table)


def test_a_long_table_keeps_a_column_as_it_is_unless_the_trace_is_large(tmp_path):
    table = to_table("rounds", rounds(10_000).assign(entries=0))
    unpacked = 10_000 * parquet.row_bytes(table.schema)
    small = parquet.write_table(tmp_path / "small", table)["bytes"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "LIMIT_TABLE_BYTES", 1000)
        long = parquet.write_table(tmp_path / "long", table)["bytes"]
        beside = parquet.write_table(tmp_path / "beside", table, unpacked // 16)["bytes"]
    assert small == beside < unpacked / 16 < long < unpacked / 8


@pytest.mark.parametrize("entries", [0, 20])
def test_more_rounds_than_128_mib_hold_are_read(tmp_path, entries):
    count = (1 << 27) // parquet.row_bytes(TABLES["rounds"]) + 1000
    with TraceWriter(tmp_path / "x.trace", make_meta()) as writer:
        if entries:
            at = np.arange(entries)
            writer.add_entries(at, at, 0, at, int(Kind.WRITE))
        writer.set_rounds(rounds(count))
    trace = Trace.open(tmp_path / "x.trace")
    assert trace.check()["rounds"] == trace.n_rounds == count
    assert trace.meta.entries == entries
    assert pq.ParquetFile(tmp_path / "x.trace/rounds.parquet").num_row_groups == 2
