# SPDX-License-Identifier: Apache-2.0
"""Working sets of traces on the disk, against loops over sets and known answers."""

from collections import Counter
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmlkit import missratio, workingset
from pmlkit.errors import NeedsError, ResolutionError, UsageError
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace, TraceMeta, TraceWriter
from pmlkit.units import Window

MS = 1_000_000
LETTERS = {Kind.READ: "r", Kind.WRITE: "w", Kind.EXEC: "x"}
on_disk = settings(max_examples=30)


def make(folder, rounds, kind="access", ends_ns=None, regions=(), phases=(), **meta):
    """Write a trace; `rounds` is a list of lists of (gfn, kind), of 10 ms each."""
    meta = {"domain": {"memory_bytes": 1 << 30}, "period": {"ns": 10 * MS}} | meta
    ends = np.array(ends_ns or [(i + 1) * 10 * MS for i in range(len(rounds))], np.int64)
    table = {
        "round": np.arange(len(rounds)),
        "t_start_ns": np.concatenate(([0], ends))[: len(rounds)],
        "t_end_ns": ends,
    }
    path = folder / "made.trace"
    with TraceWriter(path, TraceMeta(kind, "synthetic", **meta), overwrite=True) as writer:
        for number, entries in enumerate(rounds):
            if entries:
                gfns, kinds = np.array(entries, np.uint64).T
                writer.add_entries(number, number, 0, gfns, kinds.astype(np.uint8))
        writer.set_rounds(pd.DataFrame(table))
        writer.set_regions(pd.DataFrame(regions, columns=["name", "gfn", "pages"]))
        writer.set_phases(
            [{"name": n, "round": r, "t_ns": r * 10 * MS, "insn": -1} for n, r in phases]
        )
    return Trace.open(path)


def reads(*per_round):
    return [[(gfn, Kind.READ) for gfn in pages] for pages in per_round]


def window_of(rounds, first, stop, m, letters="rwx", distinct=True):
    """Count the pages used m times in rounds first to stop, by sets and loops."""
    counts = Counter()
    for entries in rounds[first:stop]:
        pages = [gfn for gfn, kind in entries if LETTERS[Kind(kind)] in letters]
        counts.update(set(pages) if distinct else pages)
    return sum(count >= m for count in counts.values())


access_rounds = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 2, 2**40, 2**40 + 1]),
            st.sampled_from([Kind.READ, Kind.WRITE, Kind.EXEC]),
        ),
        unique=True,
        max_size=8,
    ),
    min_size=1,
    max_size=8,
)


def either_way(data):
    """A context in which the trace is sorted in memory, or streamed as longer ones are."""
    return patch.object(workingset, "AT_ONCE", data.draw(st.sampled_from([0, 100])))


@on_disk
@given(access_rounds, st.data(), st.integers(1, 3), st.sampled_from(["rwx", "rw", "w"]))
def test_estimates_equal_the_oracle(tmp_path, rounds, data, m, letters):
    n, trace = len(rounds), make(tmp_path, rounds)
    k = data.draw(st.integers(1, n))
    with either_way(data):
        tumbling = workingset.estimate(trace, f"{k * 10}ms", min_count=m, kinds=letters)
        sliding = workingset.estimate(trace, f"{k}r", "sliding", m, kinds=letters)
    edges = [(s, min(s + k, n)) for s in range(0, n, k)]
    assert tumbling["pages"].tolist() == [window_of(rounds, *e, m, letters) for e in edges]
    assert tumbling["t_ns"].tolist() == [stop * 10 * MS for _, stop in edges]
    assert tumbling["effective_ns"].tolist() == [(b - a) * 10 * MS for a, b in edges]
    assert tumbling["full"].tolist() == [b - a == k for a, b in edges]
    edges = [(max(t + 1 - k, 0), t + 1) for t in range(n)]
    assert sliding["pages"].tolist() == [window_of(rounds, *e, m, letters) for e in edges]
    assert sliding["effective_ns"].tolist() == [(b - a) * 10 * MS for a, b in edges]
    assert set(sliding["asked_ns"]) == {k * 10 * MS}
    assert sliding["bytes"].tolist() == [4096 * pages for pages in sliding["pages"]]


@on_disk
@given(access_rounds, st.data())
def test_a_part_of_a_trace_is_a_trace(tmp_path, rounds, data):
    first = data.draw(st.integers(0, len(rounds) - 1))
    stop = data.draw(st.integers(first + 1, len(rounds)))
    k = data.draw(st.integers(1, stop - first))
    trace = make(tmp_path, rounds, regions=[("low", 0, 2), ("high", 2**40, 1), ("low", 2, 1)])
    part = {"start": f"{first * 10}ms", "end": stop * 10 * MS}
    with either_way(data):
        found = workingset.estimate(trace, f"{k}r", "sliding", region="low", **part)
        everywhere = workingset.estimate(trace, f"{k}r", "sliding", **part)
    low = [[entry for entry in entries if entry[0] < 3] for entries in rounds]
    edges = [(max(t + 1 - k, first), t + 1) for t in range(first, stop)]
    assert found["pages"].tolist() == [window_of(low, *e, 1) for e in edges]
    assert found["t_ns"].tolist() == [b * 10 * MS for _, b in edges]
    assert everywhere["region:low"].tolist() == found["pages"].tolist()
    high = [[entry for entry in entries if entry[0] == 2**40] for entries in rounds]
    assert everywhere["region:high"].tolist() == [window_of(high, *e, 1) for e in edges]


@on_disk
@given(access_rounds, st.data(), st.sampled_from(["{}r", "{}0ms"]))
def test_the_surface_equals_the_oracle(tmp_path, rounds, data, written):
    n, trace = len(rounds), make(tmp_path, rounds)
    windows = data.draw(st.lists(st.integers(1, n), min_size=1, max_size=3, unique=True))
    found = workingset.surface(trace, [written.format(k) for k in windows], [1, 2, 3])
    for row in found.itertuples():
        k, m = row.rounds, row.min_count
        sizes = [window_of(rounds, t - k, t, m) for t in range(k, n + 1)]
        expected = np.mean(sizes) if sizes else np.nan
        assert row.pages == pytest.approx(expected, nan_ok=True)
        assert row.bytes == pytest.approx(expected * 4096, nan_ok=True)
        assert row.asked_ns == k * 10 * MS
    assert len(found) == 3 * len(windows)


@on_disk
@given(access_rounds)
def test_the_curve_equals_the_oracle(tmp_path, rounds):
    n, trace = len(rounds), make(tmp_path, rounds)
    found = workingset.curve(trace)
    uses = sum(len({gfn for gfn, _ in entries}) for entries in rounds)
    for row in found.itertuples():
        k = row.rounds
        mean = [
            np.mean([window_of(rounds, max(t - w, 0), t, 1) for t in range(1, n + 1)])
            for w in (k, k + 1)
        ]
        assert row.pages == pytest.approx(mean[0])
        assert row.derivative == pytest.approx(mean[1] - mean[0])
        misses = 0
        for t, entries in enumerate(rounds):
            seen = {gfn for e in rounds[max(t - k, 0) : t] for gfn, _ in e}
            misses += len({gfn for gfn, _ in entries} - seen)
        assert row.miss_rate == pytest.approx(misses / n)
        assert row.miss_ratio == pytest.approx(misses / max(uses, 1))
    assert len(found) == n


def test_a_pml_log_counts_every_entry(tmp_path):
    rounds = [[(7, Kind.WRITE), (7, Kind.WRITE), (8, Kind.UNKNOWN)], [(8, Kind.WRITE)]]
    trace = make(tmp_path, rounds, kind="pml")
    assert workingset.estimate(trace, "10ms", min_count=2)["pages"].tolist() == [1, 0]
    assert workingset.estimate(trace, "20ms", min_count=2)["pages"].tolist() == [2]
    gaps = workingset.reuse(trace)
    assert gaps["gap_rounds"].tolist() == [0, 1] and gaps["uses"].tolist() == [1, 1]


def test_no_page_is_used_as_often_as_the_largest_count(make_trace):
    found = workingset.estimate(make_trace(), "20ms", min_count=2**63 - 1)
    assert not found["pages"].any()


def test_page_tables_of_a_pml_log(tmp_path):
    trace = make(tmp_path, [[(1, Kind.WRITE), (2, 0x11), (3, 0x14)]], kind="pml")
    pages = {
        (kinds, tables): workingset.estimate(trace, "1r", kinds=kinds, page_tables=tables)
        for kinds in ("rwx", "rwxp", "p")
        for tables in ("drop", "keep")
    }
    assert {how: table["pages"].tolist() for how, table in pages.items()} == {
        ("rwx", "drop"): [1],
        ("rwx", "keep"): [3],
        ("rwxp", "drop"): [3],
        ("rwxp", "keep"): [3],
        ("p", "drop"): [2],
        ("p", "keep"): [2],
    }


def test_hot_and_cold_is_their_sum(tmp_path):
    hot = list(range(100))
    rounds = reads(*(hot + list(range(1000 + 50 * i, 1050 + 50 * i)) for i in range(8)))
    trace = make(tmp_path, rounds, phases=[("warm", 0), ("work", 4)])
    table = workingset.estimate(trace, "80ms")
    assert table.loc[0, ["pages", "bytes", "effective_ns"]].tolist() == [500, 500 * 4096, 80 * MS]
    assert workingset.estimate(trace, "80ms", min_count=2)["pages"].tolist() == [100]
    assert workingset.estimate(trace, "40ms")["phase"].tolist() == ["warm", "work"]
    assert workingset.uses_per_page(trace).to_dict("list") == {"uses": [1, 8], "pages": [400, 100]}
    assert workingset.reuse(trace).to_dict("list") == {
        "gap_rounds": [1],
        "gap_ns": [10 * MS],
        "uses": [700],
    }


def test_read_and_written_pages_are_one_page(tmp_path):
    trace = make(tmp_path, [[(1, Kind.READ), (1, Kind.WRITE), (2, Kind.READ), (3, Kind.EXEC)]])
    pages = {k: workingset.estimate(trace, "1r", kinds=k)["pages"][0] for k in ("rwx", "r", "w")}
    assert pages == {"rwx": 3, "r": 2, "w": 1}
    both = workingset.estimate(trace, "1r", kinds=Kind.READ | Kind.EXEC)
    assert both["pages"].tolist() == [3]


def test_the_effective_period_is_what_the_rounds_spanned(tmp_path):
    """On the host's clock rounds come late: T is a time, and what the rounds took is said."""
    ends = [11 * MS, 20 * MS, 34 * MS, 41 * MS]
    trace = make(tmp_path, reads([1], [2], [1], [3]), ends_ns=ends)
    table = workingset.estimate(trace, "20ms")
    assert table["asked_ns"].tolist() == [20 * MS] * 3
    assert table["pages"].tolist() == [2, 1, 1]
    assert table["effective_ns"].tolist() == [20 * MS, 14 * MS, 7 * MS]
    assert table["full"].tolist() == [True, True, False]
    sliding = workingset.estimate(trace, "20ms", "sliding")
    assert sliding["pages"].tolist() == [1, 2, 2, 2]
    assert sliding["effective_ns"].tolist() == [11 * MS, 20 * MS, 23 * MS, 21 * MS]
    assert sliding["full"].tolist() == [False, True, True, True]
    rounds = workingset.estimate(trace, "2r")
    assert rounds["pages"].tolist() == [2, 2]
    assert rounds["effective_ns"].tolist() == [20 * MS, 21 * MS]
    assert rounds["asked_ns"].tolist() == [-1, -1]  # they have no common length
    assert workingset.reuse(trace)["gap_ns"].tolist() == [23 * MS]


def test_a_step_between_windows(tmp_path):
    trace = make(tmp_path, reads([1], [2], [3], [4], [5]))
    table = workingset.estimate(trace, "30ms", "20ms")
    assert table["t_ns"].tolist() == [20 * MS, 40 * MS]
    assert table["pages"].tolist() == [2, 3]
    gaps = workingset.estimate(trace, "10ms", "20ms")  # a window shorter than the step
    assert gaps["pages"].tolist() == [1, 1] and gaps["effective_ns"].tolist() == [10 * MS] * 2


def test_the_plateau_and_the_lack_of_one(tmp_path):
    trace = make(tmp_path, reads([1], [2], [2], [1], [3], [3]))
    found = workingset.plateau(trace, "20ms")
    assert (found.pages, found.bytes, found.t_ns) == (2, 8192, 40 * MS)
    assert found.series["distinct"].tolist() == [1, 2, 2, 2, 3, 3]
    assert found.series["pages"].tolist()[3:] == [2, 2, 2]
    assert found.series["t_ns"].tolist() == [(i + 1) * 10 * MS for i in range(6)]
    assert "2 pages" in str(found)
    never = workingset.plateau(trace, "30ms")
    assert (never.pages, never.bytes, never.t_ns) == (None, None, None)
    assert never.series["pages"].isna().all() and "no estimate" in str(never)
    late = workingset.plateau(trace, "1r", start="40ms")
    assert (late.pages, late.t_ns) == (1, 60 * MS)


def test_windows_below_or_beside_the_resolution_are_refused(tmp_path):
    trace = make(tmp_path, reads([1]))
    for window in ("5ms", "15ms", "10000001ns", "1ns"):
        with pytest.raises(ResolutionError, match="multiple of 10 ms") as caught:
            workingset.estimate(trace, window)
        assert caught.value.resolution == "10 ms"
    assert "10.000001 ms" in str(refusal_of(trace, "10000001ns"))
    bare = refusal_of(trace, 1)
    assert "a window of 1 is 1 ns" in str(bare) and bare.resolution == "10 ms"


def refusal_of(trace, window):
    with pytest.raises(ResolutionError) as caught:
        workingset.estimate(trace, window)
    return caught.value


def test_rounds_of_instructions_have_times_or_take_windows_of_rounds(tmp_path):
    period = {"insn": 100_000}
    timed = make(tmp_path, reads([1], [2], [1]), period=period)
    assert workingset.estimate(timed, "20ms")["pages"].tolist() == [2, 1]
    assert workingset.curve(timed)["asked_ns"].tolist() == [10 * MS, 20 * MS, 30 * MS]
    trace = make(tmp_path, reads([1], [2], [1]), period=period, ends_ns=[0, 0, 0])
    with pytest.raises(ResolutionError) as error:
        workingset.estimate(trace, "1s")
    assert "100000 instructions" in str(error.value) and "5r" in str(error.value)
    table = workingset.estimate(trace, Window(rounds=2))
    assert table["pages"].tolist() == [2, 1] and set(table["asked_ns"]) == {-1}
    assert workingset.estimate(trace, "2r", "sliding")["pages"].tolist() == [1, 2, 2]
    curve = workingset.curve(trace)
    assert set(curve["asked_ns"]) == {-1} and curve["full_pages"].tolist() == [1, 2, 2]
    assert workingset.surface(trace, ["2r"], [1])["asked_ns"].tolist() == [-1]
    gaps = workingset.reuse(trace)
    assert gaps["gap_rounds"].tolist() == [2] and gaps["gap_ns"].tolist() == [-1]


@pytest.mark.parametrize("rounds", [[], [[]], [[], [], []]])
def test_nothing_was_used(tmp_path, rounds):
    trace = make(tmp_path, rounds, regions=[("buffer", 0, 4)])
    for step in (None, "sliding", "20ms"):
        table = workingset.estimate(trace, "10ms", step)
        assert table["pages"].tolist() == [0] * len(table)
        assert table["region:buffer"].tolist() == [0] * len(table)
        assert len(table) == {None: len(rounds), "sliding": len(rounds)}.get(step, len(rounds) // 2)
    assert len(workingset.curve(trace)) == len(rounds)
    assert workingset.surface(trace, ["10ms"], [1, 2])["pages"].fillna(0).tolist() == [0, 0]
    assert len(workingset.sweep(trace, ["10ms", "1r"])) == 2 * len(rounds)
    assert len(workingset.turnover(trace, "10ms")) == len(rounds)
    assert len(workingset.reuse(trace)) == len(workingset.uses_per_page(trace)) == 0
    assert len(workingset.plateau(trace, "10ms").series) == len(rounds)


def test_a_window_longer_than_what_is_looked_at_is_refused(tmp_path):
    trace = make(tmp_path, reads([1], [2]))
    assert workingset.estimate(trace, "20ms")["pages"].tolist() == [2]
    for window, lasts in (("1h", "20 ms"), ("30ms", "20 ms"), ("4000000000r", "2 rounds")):
        for call in (
            lambda w: workingset.estimate(trace, w),
            lambda w: workingset.estimate(trace, w, "sliding"),
            lambda w: workingset.surface(trace, [w], [1]),
            lambda w: workingset.sweep(trace, [w]),
            lambda w: workingset.turnover(trace, w),
            lambda w: missratio.over_time(trace, w),
        ):
            with pytest.raises(ResolutionError, match=lasts):
                call(window)
        assert workingset.plateau(trace, window).pages is None
    with pytest.raises(ResolutionError, match="10 ms"):
        workingset.estimate(trace, "20ms", start="10ms")
    with pytest.raises(UsageError, match="64 bits"):
        workingset.estimate(trace, "4000000000000r")


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"window": "soon"}, UsageError, "5r"),
        ({"step": "often"}, UsageError, "5r"),
        ({"min_count": 0}, UsageError, "1 or more"),
        ({"kinds": "q"}, UsageError, "letters"),
        ({"page_tables": "both"}, UsageError, "drop, keep or expand"),
        ({"page_tables": "expand"}, NeedsError, "trace.pml"),
        ({"start": "late"}, UsageError, "250ms"),
        ({"start": "20ms", "end": "10ms"}, UsageError, "ends before"),
        ({"start": "9999999999h"}, UsageError, "64 bits"),
        ({"region": "heap"}, NeedsError, "regions"),
    ],
)
def test_wrong_arguments_are_refused_by_name(tmp_path, wrong, error, text):
    with pytest.raises(error, match=text):
        workingset.estimate(make(tmp_path, reads([1])), **({"window": "10ms"} | wrong))


def test_a_pml_log_has_no_reads(tmp_path):
    trace = make(tmp_path, [[(1, Kind.WRITE)]], kind="pml")
    with pytest.raises(NeedsError, match="writes only"):
        workingset.estimate(trace, "10ms", kinds="rx")
