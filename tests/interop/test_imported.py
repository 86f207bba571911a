# SPDX-License-Identifier: Apache-2.0
"""Rows become rounds: every use is kept, in order; batches, gaps, losses and times are right."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmlkit import missratio
from pmlkit.interop import formats as interop
from pmlkit.interop.rounds import Imported, OutOfOrder, Rows, regular_ns
from pmlkit.trace.kinds import Kind
from pmlkit.trace.schema import TraceMeta
from pmlkit.trace.writer import TraceWriter

READ, WRITE, EXEC = int(Kind.READ), int(Kind.WRITE), int(Kind.EXEC)
SECOND = 10**9


def write(tmp_path, made, overwrite=True):
    (tmp_path / "file").write_bytes(b"x")
    path = tmp_path / "x.trace"
    return interop._write(made, "csv", tmp_path / "file", path, overwrite, None)


def entries(trace):
    return trace.to_pandas(["round", "gfn", "kind"]).values.tolist()


def spans(trace):
    return trace.rounds[["t_start_ns", "t_end_ns"]].values.tolist()


def lru(pages, size):
    """Return the misses of an LRU cache, by brute force."""
    cache, misses = {}, 0
    for page in pages:
        misses += cache.pop(page, None) is None
        cache[page] = True
        if len(cache) > size:
            del cache[next(iter(cache))]
    return misses


def test_a_round_ends_where_a_page_returns(tmp_path):
    gfn = np.array([1, 2] * 4, "u8")
    made = write(tmp_path, Imported([(0, SECOND, 0, gfn, READ)]))
    assert spans(made) == [[0, SECOND], *[[SECOND, SECOND]] * 3]
    assert made.meta.entries == 8
    assert missratio.of_trace(made).at([2])[0] == 0.25
    assert any("3 of which begin where a page returned" in note for note in made.meta.notes)


def test_another_kind_is_the_same_use_unless_each_row_is_one(tmp_path):
    rows = [(0, 1, 0, np.array([7, 7, 7], "u8"), np.array([READ, WRITE, READ], "u1"))]
    made = write(tmp_path, Imported(rows))
    assert entries(made) == [[0, 7, READ], [0, 7, WRITE], [1, 7, READ]]
    made = write(tmp_path, Imported(rows, each_a_use=True))
    assert [row[0] for row in entries(made)] == [0, 1, 2]


def test_without_an_order_rows_are_merged_and_counted(tmp_path):
    rows = [(0, 1, 0, np.array([7, 8, 7], "u8"), READ), (0, 1, 0, np.array([8], "u8"), READ)]
    made = write(tmp_path, Imported(rows, ordered=False))
    assert entries(made) == [[0, 7, READ], [0, 8, READ]]
    assert any("2 were merged" in note for note in made.meta.notes)


def test_a_log_keeps_every_entry_and_has_a_batch_per_run_of_a_vcpu(tmp_path):
    rows = [(0, 1, np.array([0, 1, 1, 0], "u2"), np.array([5, 5, 6, 5], "u8"), 0)]
    made = write(tmp_path, Imported(rows, "pml"))
    assert made.to_pandas(["round", "batch", "vcpu", "gfn"]).values.tolist() == [
        [0, 0, 0, 5], [0, 1, 1, 5], [0, 1, 1, 6], [0, 2, 0, 5],
    ]  # fmt: skip
    assert made.meta.domain["vcpus"] == 2


def test_executed_frames_stand_at_the_end_of_their_round_also_over_chunks(tmp_path):
    rows = [
        (0, 5, 0, np.array([9, 1], "u8"), np.array([EXEC, READ], "u1")),
        (0, 5, 0, np.array([3, 2], "u8"), np.array([EXEC, READ], "u1")),
        (7, 8, 0, np.array([4], "u8"), READ),
    ]
    made = write(tmp_path, Imported(rows))
    assert entries(made) == [
        [0, 1, READ], [0, 2, READ], [0, 3, EXEC], [0, 9, EXEC], [2, 4, READ],
    ]  # fmt: skip
    assert spans(made) == [[0, 5], [5, 7], [7, 8]]


def test_losses_are_of_the_round_in_which_they_were(tmp_path):
    rows = [(t, t + 10, 0, np.array([1], "u8"), 0) for t in (0, 10, 30)]
    made = write(tmp_path, Imported(rows, "pml", losses="counted", lost_at=((15, 3), (25, 4))))
    assert made.rounds["lost"].tolist() == [0, 3, 4, 0]
    assert (made.meta.lost, made.meta.losses) == (7, "counted")
    assert write(tmp_path, Imported(rows, "pml", lost=5)).rounds["lost"].tolist() == [0, 0, 0, 5]


def test_what_only_the_end_tells_is_said(tmp_path):
    rows = [(0, 1, 0, np.array([1], "u8"), READ)]
    late = {"notes": ("a note",), "counts": {"things": 3, "none": 0}, "complete": None}
    made = write(tmp_path, Imported(rows, late=lambda: late))
    assert {"a note", "3 things"} <= set(made.meta.notes)
    assert made.meta.complete is None
    assert "0 none" not in made.meta.notes


@pytest.mark.parametrize("start", [1_700_000_000 * SECOND, 472 * 3600 * SECOND])
def test_times_of_a_clock_become_a_base(tmp_path, start):
    rows = [(start, start + 5, 0, np.array([1], "u8"), READ)]
    rows.append((start + 5, start + 10, 0, np.array([2], "u8"), READ))
    made = write(tmp_path, Imported(rows))
    assert made.duration_ns == 10 and spans(made) == [[0, 5], [5, 10]]
    assert made.meta.clock["base_ns"] == start


def test_the_period_is_that_of_regular_rounds():
    steps = np.cumsum(np.append(0, np.full(20, 10)))
    even = np.stack([steps[:-1], steps[1:]], axis=1)
    assert regular_ns(even) == 10
    cut = even.copy()
    cut[3, 1] = cut[4, 0] = 33  # by a mark
    assert regular_ns(cut) is None  # 37 to 50 is longer than any
    short = np.insert(even, 3, [[30, 30]], axis=0)
    assert regular_ns(short) is None
    assert regular_ns(even[:1]) is None
    assert regular_ns(np.append(even, [[200, 203]], axis=0)) == 10


@pytest.mark.parametrize("bad", [(5, 4), (3, 9), (-1, 2)])
def test_intervals_that_go_back_or_overlap_are_out_of_order(tmp_path, bad):
    meta = TraceMeta("access", "synthetic", domain={"memory_bytes": 4096})
    with pytest.raises(OutOfOrder) as caught, TraceWriter(tmp_path / "o.trace", meta) as writer:
        rows = Rows(writer, Imported(()))
        one = np.array([1], "u8")
        rows.add(*interop.columns(0, 4, 0, one, READ))
        rows.add(*interop.columns(*bad, 0, one, READ))
    assert caught.value.row == 1


ROWS = st.lists(
    st.tuples(
        st.integers(0, 3),  # to the next interval
        st.integers(0, 5),
        st.sampled_from([READ, WRITE]),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, cut=st.integers(1, 7), each=st.booleans())
def test_rounds_hold_what_the_rows_say(tmp_path_factory, rows, cut, each):
    steps, gfn, kind, vcpu = (np.array(column) for column in zip(*rows, strict=True))
    start = np.cumsum(steps) * 10
    parts = [
        (start[i : i + cut], start[i : i + cut] + 10, vcpu[i : i + cut], gfn[i : i + cut],
         kind[i : i + cut])
        for i in range(0, len(rows), cut)
    ]  # fmt: skip
    made = write(tmp_path_factory.mktemp("rows"), Imported(parts, each_a_use=each))
    entries = made.to_pandas(["round", "vcpu", "gfn", "kind"])
    assert (
        entries[["vcpu", "gfn", "kind"]].values.tolist() == np.stack([vcpu, gfn, kind], 1).tolist()
    )
    base = made.meta.clock["base_ns"] or 0
    ends = made.rounds["t_end_ns"].to_numpy()[entries["round"]] + base
    assert ends.tolist() == (start + 10).tolist()
    for size in (1, 2, 4):
        uses = gfn if each else entries.drop_duplicates(["round", "gfn"])["gfn"].tolist()
        expected = lru(list(uses), size) / len(uses)
        assert missratio.of_trace(made).at([size])[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("lengths", "period"),
    [
        ([10] * 20, 10),
        ([10] * 19 + [4], 10),  # a mark cut one short
        ([10] * 6 + [4] * 4, None),
        ([10] * 19 + [30], None),  # a gap
        ([10] * 19 + [0], None),
        ([10], None),
    ],
)
def test_a_period_is_claimed_of_regular_rounds_only(lengths, period):
    ends = np.cumsum(lengths)
    assert regular_ns(np.stack([ends - lengths, ends], axis=1)) == period
