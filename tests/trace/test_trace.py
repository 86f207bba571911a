# SPDX-License-Identifier: Apache-2.0
"""What is written is what is read: whole, by time, by kind, by region, in pandas and in Arrow."""

import inspect
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import make_meta, make_trace, random_events
from hypothesis import given, settings
from hypothesis import strategies as st

from pmlkit.errors import NeedsError, UsageError
from pmlkit.trace.kinds import Kind, select_kinds
from pmlkit.trace.reader import Trace, TraceWriter
from pmlkit.trace.schema import ENTRIES

ROUND_NS = 10_000_000
COLUMNS = ENTRIES.names


def expected_rows(events):
    """The entries of a trace of these events, as (round, batch, vcpu, gfn, kind)."""
    return [(r, r, 0, gfn, int(kind)) for r, row in enumerate(events) for gfn, kind in row]


def rows(table):
    return list(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True))


def test_everything_comes_back(make_trace):
    events = random_events(rounds=6, pages=40, seed=3)
    trace = make_trace(events=events, phases=[("one", 0), ("two", 4)], guest=True)
    assert rows(trace.entries()) == expected_rows(events)
    assert trace.meta.entries == sum(map(len, events))
    assert trace.n_rounds == 6
    assert trace.duration_ns == 6 * ROUND_NS
    assert trace.resolution_ns == ROUND_NS
    assert trace.memory_pages == 4096
    assert trace.rounds["entries"].tolist() == [len(row) for row in events]
    assert trace.batches["reason"].tolist() == ["round"] * 6
    assert len(trace.guest) == 12
    assert trace.phases.to_dict("list") == {
        "name": ["one", "two"],
        "round": [0, 4],
        "t_ns": [0, 4 * ROUND_NS],
        "insn": [0, 4 * ROUND_NS],
    }
    assert trace.phase_of_rounds().tolist() == ["one"] * 4 + ["two"] * 2


@st.composite
def logs(draw):
    """Columns of any log, and the places at which it is cut into calls of add_entries."""
    n = draw(st.integers(0, 260))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rounds = np.sort(rng.integers(0, draw(st.integers(1, 12)), n))
    batch_starts = np.sort(rng.integers(0, n + 1, draw(st.integers(0, 6))))
    batches = np.searchsorted(batch_starts, np.arange(n), "right")
    # A batch lies in one round.
    batches = np.unique(np.stack([rounds, batches]), axis=1, return_inverse=True)[1]
    high = draw(st.sampled_from([3, 1 << 20, (1 << 64) - 1]))
    gfn = rng.integers(0, high, n, dtype=np.uint64, endpoint=True)
    kind = rng.choice([0, 2, 0x11, 0x12, 0x13, 0x14, 0x15], n)
    vcpus = rng.integers(0, 1 << 16, int(batches.max(initial=-1)) + 1)
    columns = {"round": rounds, "batch": batches, "vcpu": vcpus[batches], "gfn": gfn, "kind": kind}
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=5)))
    return columns, cuts


def write_log(path, log, row_group_rows=7):
    columns, cuts = log
    n_rounds = 13
    starts = np.arange(n_rounds) * ROUND_NS
    firsts = np.unique(columns["batch"], return_index=True)[1]
    with TraceWriter(
        path, make_meta("pml", memory_map=[]), row_group_rows=row_group_rows
    ) as writer:
        for start, stop in zip([0, *cuts], [*cuts, None], strict=True):
            writer.add_entries(**{name: column[start:stop] for name, column in columns.items()})
        spans = {"t_start_ns": starts, "t_end_ns": starts + ROUND_NS}
        writer.set_rounds({"round": np.arange(n_rounds), **spans})
        in_round = columns["round"][firsts]
        spans = {name: values[in_round] for name, values in spans.items()}
        described = {"round": in_round, "vcpu": columns["vcpu"][firsts], **spans}
        writer.set_batches({"batch": np.arange(len(firsts)), "reason": "full", **described})
    return Trace.open(path)


@settings(max_examples=40)
@given(
    logs(),
    st.sampled_from([None, "w", "p", "wp"]),
    st.one_of(st.none(), st.integers(-5, 140)),
    st.one_of(st.none(), st.integers(-5, 140)),
    st.lists(st.sampled_from(COLUMNS), min_size=1, unique=True),
)
def test_reading_equals_filtering_in_memory(tmp_path_factory, log, kinds, start, end, names):
    trace = write_log(tmp_path_factory.mktemp("t") / "x.trace", log)
    start, end = (None if t is None else t * ROUND_NS // 10 for t in (start, end))
    if None not in (start, end) and start > end:
        start, end = end, start
    frame = pd.DataFrame({name: log[0][name].astype(field_type(name)) for name in COLUMNS})
    begins = frame["round"].to_numpy().astype(np.int64) * ROUND_NS
    keep = np.ones(len(frame), dtype=bool)
    if start is not None:
        keep &= begins + ROUND_NS > start
    if end is not None:
        keep &= begins < end
    keep &= select_kinds(kinds)[frame["kind"]]
    expected = frame[keep].reset_index(drop=True)[names]
    pd.testing.assert_frame_equal(trace.to_pandas(names, start, end, kinds), expected)
    table = trace.entries(names, start, end, kinds)
    assert table.column_names == names
    assert table.to_pydict() == expected.to_dict("list")
    trace.check()


def field_type(name):
    return ENTRIES.field(name).type.to_pandas_dtype()


@settings(max_examples=20)
@given(logs(), st.lists(st.integers(0, 260), max_size=6))
def test_the_same_entries_give_the_same_files(tmp_path_factory, log, cuts):
    columns, _ = log
    folder = tmp_path_factory.mktemp("t")
    one = write_log(folder / "one.trace", log)
    cuts = sorted(min(cut, len(columns["gfn"])) for cut in cuts)
    two = write_log(folder / "two.trace", (columns, cuts))
    assert one.files == two.files
    for name in [*one.files, "trace.json"]:
        assert (one.path / name).read_bytes() == (two.path / name).read_bytes()


def test_creation_time_is_the_only_difference(tmp_path):
    for name, created in (("a", "2024-01-01T00:00:00+00:00"), ("b", None)):
        make_trace(tmp_path / name, created=created, pml=False)
    a, b = Trace.open(tmp_path / "a"), Trace.open(tmp_path / "b")
    assert a.files == b.files
    assert a.meta.created != b.meta.created
    assert b.meta.created.endswith("+00:00")


def test_only_the_row_groups_and_files_that_are_needed_are_read(tmp_path, monkeypatch):
    # 40 rounds of 10 entries; row groups of 10, files of 160.
    events = [[(gfn, Kind.READ) for gfn in range(10)] for _ in range(40)]
    trace = Trace.open(make_trace(tmp_path / "x", events=events, row_group_rows=10, pml=False))
    assert [n for n in trace.files if n.startswith("entries/")] == [
        f"entries/part-{i:05d}.parquet" for i in range(3)
    ]
    read, opened = [], []
    whole = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda s, i, **kw: read.append(i) or whole(s, i, **kw)
    )
    monkeypatch.setattr(trace._reader, "_verify", opened.append)
    table = trace.entries(["gfn"], start_ns=17 * ROUND_NS, end_ns=19 * ROUND_NS)
    assert len(table) == 20
    assert read == [1, 2]
    assert opened == ["entries/part-00001.parquet"]


def test_iteration_is_in_bounded_pieces(tmp_path):
    events = [[(gfn, Kind.READ) for gfn in range(10)] for _ in range(40)]
    trace = Trace.open(make_trace(tmp_path / "x", events=events, row_group_rows=16, pml=False))
    batches = list(trace.iter_entries(["gfn"]))
    assert all(isinstance(batch, pa.RecordBatch) and len(batch) <= 16 for batch in batches)
    assert sum(map(len, batches)) == 400


def test_rounds_between(make_trace):
    trace = make_trace(rounds=4)
    between = trace.rounds_between
    assert between() == (0, 4)
    assert between(0, 4 * ROUND_NS) == (0, 4)
    assert between(ROUND_NS, 2 * ROUND_NS) == (1, 2)
    assert between(ROUND_NS - 1, ROUND_NS + 1) == (0, 2)
    assert between(start_ns=3 * ROUND_NS) == (3, 4)
    assert between(end_ns=1) == (0, 1)
    assert between(99 * ROUND_NS) == (4, 4)
    assert between(-5, -1) == (0, 0)
    with pytest.raises(UsageError, match="ends before it starts"):
        between(2, 1)


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=8),
    st.lists(st.integers(0, 24), max_size=4),
)
def test_ranges_that_meet_where_rounds_end_share_and_miss_nothing(tmp_path_factory, lengths, cuts):
    path = tmp_path_factory.mktemp("t") / "x.trace"
    ends = np.cumsum(lengths)
    with TraceWriter(path, make_meta()) as writer:
        spans = {"t_start_ns": ends - lengths, "t_end_ns": ends}
        writer.set_rounds({"round": range(len(lengths)), **spans})
    trace = Trace.open(path)
    borders = sorted({int(ends[cut % len(ends)]) for cut in cuts})
    ranges = zip([None, *borders], [*borders, None], strict=True)
    numbers = [r for start, end in ranges for r in range(*trace.rounds_between(start, end))]
    assert numbers == list(range(len(lengths)))


def test_regions(make_trace):
    regions = [("buf", 10, 3), ("other", 0, 5), ("buf", 12, 2)]
    trace = make_trace(regions=regions, rounds=8, pages=20)
    assert trace.frames("buf").tolist() == [10, 11, 12, 13]
    assert trace.frames("buf").dtype == np.uint64
    everything = trace.to_pandas()
    expected = everything[everything["gfn"].isin([10, 11, 12, 13]) & (everything["kind"] == 2)]
    entries = trace.to_pandas(region="buf", kinds=Kind.WRITE)
    pd.testing.assert_frame_equal(entries, expected.reset_index(drop=True))
    with pytest.raises(UsageError, match="choose from buf, other"):
        trace.frames("nope")
    with pytest.raises(UsageError, match="nope"):
        trace.iter_entries(region="nope")  # at once, not at the first batch


def test_what_a_trace_has_not(make_trace):
    trace = make_trace(pml=False)
    assert trace.guest is None
    assert len(trace.regions) == 0
    assert len(trace.phases) == 0
    assert trace.phases.columns.tolist() == ["name", "round", "t_ns", "insn"]
    assert trace.phase_of_rounds().tolist() == [""] * 5
    with pytest.raises(NeedsError, match="no PML log"):
        _ = trace.pml
    with pytest.raises(NeedsError, match="no regions"):
        trace.frames("buf")


def test_the_nested_log_is_the_order_of_first_writes(make_trace):
    trace = make_trace(rounds=6, pages=2000)
    assert trace.pml.meta.kind == "pml"
    assert trace.pml.pml is trace.pml
    names = ["round", "gfn", "kind"]
    assert trace.pml.entries(names).equals(trace.entries(names, kinds=Kind.WRITE))
    assert set(trace.pml.batches["reason"]) == {"full", "round"}


@pytest.mark.parametrize("columns", [["nope"], [], ["gfn", "t_ns"]])
def test_columns_that_there_are_not(make_trace, columns):
    with pytest.raises(UsageError, match="columns?"):
        make_trace().entries(columns)


def test_an_empty_trace(tmp_path):
    with TraceWriter(tmp_path / "x", make_meta()):
        pass
    trace = Trace.open(tmp_path / "x")
    assert (trace.n_rounds, trace.duration_ns, trace.bytes_per_entry) == (0, 0, 0)
    assert len(trace.entries()) == 0
    assert trace.entries().schema.equals(ENTRIES)
    assert trace.to_pandas(["gfn"], 0, 10, "w").empty
    assert trace.check()["entries"] == 0


def test_all_readers_of_entries_show_the_same_parameters():
    iterate, *others = map(inspect.signature, (Trace.iter_entries, Trace.entries, Trace.to_pandas))
    assert list(iterate.parameters) == ["self", "columns", "start_ns", "end_ns", "kinds", "region"]
    assert all(other.parameters == iterate.parameters for other in others)
    assert [other.return_annotation for other in others] == ["pa.Table", "pd.DataFrame"]


def test_tables_can_be_changed_without_changing_the_trace(make_trace):
    trace = make_trace()
    table = trace.rounds
    table["entries"] = 0
    table.loc[0, "t_end_ns"] = 5
    assert trace.rounds["entries"].sum() == trace.meta.entries
    assert trace.rounds["t_end_ns"][0] == ROUND_NS


def test_any_parquet_reader_opens_it(make_trace):
    trace = make_trace()
    frame = pq.ParquetFile(trace.path / "entries" / "part-00000.parquet").read(use_threads=False)
    assert frame.equals(trace.entries())
    assert frame.schema.names == COLUMNS


def test_a_trace_goes_to_another_process(make_trace):
    trace = make_trace()
    twin = pickle.loads(pickle.dumps(trace))
    assert twin.entries().equals(trace.entries())
    assert "access, 5 rounds" in repr(twin)


def test_reading_leaves_a_clean_exit(make_trace):
    # Arrow's threads can abort the interpreter at its end (apache/arrow issue 34314).
    path = make_trace(rounds=20, pages=2000).path
    code = f"import pmlkit; t = pmlkit.open({str(path)!r}); t.check(); t.to_pandas(); t.rounds"
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_realistic_entries_take_two_bytes_or_less(tmp_path):
    """Each round: a run of a buffer in order, and some of a hot set in no order."""
    rng = np.random.default_rng(0)
    events = []
    for index in range(200):
        start = 4000 + 97 * index % 20000
        hot = rng.choice(1500, 300, replace=False) * 7
        events.append([(int(g), Kind.WRITE) for g in (*range(start, start + 500), *hot)])
    trace = Trace.open(make_trace(tmp_path / "x", events=events, memory_bytes=256 << 20))
    assert trace.bytes_per_entry <= 2.0
    assert trace.pml.bytes_per_entry <= 2.0
