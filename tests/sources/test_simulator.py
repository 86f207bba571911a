# SPDX-License-Identifier: Apache-2.0
"""The simulated log against a PML written down write by write, and against the recorder's own."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pml_hardware import hardware

import pmlkit
from pmlkit import interop
from pmlkit.errors import NeedsError, OutputExists, UsageError
from pmlkit.sources.simulator import PmlModel, simulate
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace, TraceMeta, TraceWriter
from pmlkit.trace.summary import clock_text

MS = 1_000_000
CHUNK = 3  # entries of an access batch here
FREE = {
    "exit_ns": 0,
    "reset_ns": 0,
    "switch_ns": 0,
    "drain_ns_per_entry": 0,
    "rearm_ns_per_entry": 0,
    "invept_ns": 0,
}


def make_access(path, windows, vcpus=1, **meta):
    """Write an access trace of 1 ms per window; `windows` is a list of lists of (gfn, vcpu, kind).

    Its batches are of `CHUNK` entries; the i-th of a window ends i + 1 microseconds after its
    start, but the last, which ends with it.
    """
    entries, batches = [], []
    for number, window in enumerate(windows):
        for at in range(0, len(window), CHUNK):
            chunk = window[at : at + CHUNK]
            full = at + CHUNK < len(window)
            start = number * MS + at // CHUNK * 1000
            end = start + 1000 if full else (number + 1) * MS
            reason = "full" if full else "round"
            row = (len(batches), number, 0, start, end, start * 2, end * 2, reason)
            entries += [(number, len(batches), v, g, int(k)) for g, v, k in chunk]
            batches.append(row)
    spans = ["t_start_ns", "t_end_ns", "insn_start", "insn_end"]
    edges = np.arange(len(windows) + 1) * MS
    rounds = {"round": np.arange(len(windows)), "t_start_ns": edges[:-1], "t_end_ns": edges[1:]}
    rounds |= {"insn_start": edges[:-1] * 2, "insn_end": edges[1:] * 2, "asked_ns": MS}
    domain = {"memory_bytes": 1 << 30, "vcpus": vcpus}
    meta = {"clock": {"kind": "icount", "ns_per_insn": 1 / 3}, **meta}  # the costs' own processor
    meta = TraceMeta("access", "synthetic", domain, period={"ns": MS}, **meta)
    with TraceWriter(path, meta, overwrite=True) as writer:
        if entries:
            writer.add_entries(*np.array(entries, np.uint64).T)
        writer.set_rounds(pd.DataFrame(rounds))
        columns = ["batch", "round", "vcpu", *spans, "reason"]
        writer.set_batches(pd.DataFrame(batches, columns=columns))
        writer.set_regions({"name": ["buffer"], "gfn": [3], "pages": [9]})
        writer.set_guest({"t_ns": [5], **{f"{name}_bytes": [7] for name in GUEST}})
    return Trace.open(path)


GUEST = ("total", "free", "available", "cached", "committed", "anon", "slab", "allocated")


def written(*windows):
    return [[(gfn, 0, Kind.WRITE) for gfn in window] for window in windows]


def drained(trace):
    """Give (round, vcpu, reason, pages) of each batch of a PML trace."""
    frame = trace.to_pandas()
    pages = {number: of["gfn"].tolist() for number, of in frame.groupby("batch")}
    rows = trace.batches[["round", "vcpu", "reason"]].itertuples(index=False, name=None)
    return [(*row, pages[i]) for i, row in enumerate(rows)]


@st.composite
def access_windows(draw):
    """First events per window: each (gfn, kind) once, EXEC last."""
    event = st.tuples(
        st.sampled_from([0, 1, 2, 3, 4, 2**40]),
        st.integers(0, 1),
        st.sampled_from([Kind.READ, Kind.WRITE, Kind.EXEC]),
    )
    events = st.lists(event, max_size=12, unique_by=lambda e: (e[0], e[2]))
    windows = draw(st.lists(events, min_size=1, max_size=7))
    return [sorted(window, key=lambda e: e[2] == Kind.EXEC) for window in windows]


on_disk = settings(max_examples=40)
models = st.builds(
    PmlModel,
    buffer_entries=st.integers(1, 5),
    buffers=st.sampled_from([1, 2]),
    rearm=st.sampled_from(["round", "flush", "never"]),
    rounds_per_round=st.integers(1, 3),
)


@on_disk
@given(access_windows(), models)
def test_the_trace_is_what_hardware_logs(tmp_path, windows, model):
    access = make_access(tmp_path / "a.trace", windows, vcpus=2)
    pml = simulate(access, tmp_path / "p.trace", model, overwrite=True)
    pml.check()
    writes = [(i, g, v) for i, w in enumerate(windows) for g, v, k in w if k == Kind.WRITE]
    how = (model.buffer_entries, model.rearm, model.rounds_per_round)
    last = (len(windows) - 1) // model.rounds_per_round
    expected = [
        (number, cpu, "full" if full else "stop" if number == last else "round", pages)
        for number, cpu, full, pages in hardware(writes, *how)
    ]
    assert drained(pml) == expected
    assert set(pml.to_pandas()["kind"]) <= {Kind.WRITE}
    check_rounds(pml, access, expected, model)
    check_times(pml, writes)


def check_rounds(pml, access, expected, model):
    count = model.rounds_per_round
    assert pml.n_rounds == -(-access.n_rounds // count)
    assert pml.resolution_ns == count * MS and set(pml.rounds["asked_ns"]) == {count * MS}
    for i, row in pml.rounds.iterrows():
        mine = [batch for batch in expected if batch[0] == i]
        pages = sum(len(batch[3]) for batch in mine)
        assert row["entries"] == pages
        assert row["rearmed"] == (0 if model.rearm == "never" else pages)
        assert row["exits"] == sum(batch[2] == "full" for batch in mine)
        ends = [i * count * MS, min((i + 1) * count, access.n_rounds) * MS]
        assert row[["t_start_ns", "t_end_ns"]].tolist() == ends
        assert row[["insn_start", "insn_end"]].tolist() == [2 * end for end in ends]
    assert pml.rounds["pause_ns"].sum() == pml.meta.overheads["pause_ns"]


def check_times(pml, writes):
    """The windows of a batch's entries have to meet the batch's time."""
    windows_of = {}
    for window, gfn, _ in writes:
        windows_of.setdefault(gfn, []).append(window)
    for (_, _, _, pages), row in zip(drained(pml), pml.batches.itertuples(), strict=True):
        bounds = pml.rounds.loc[row.round, ["t_start_ns", "t_end_ns"]].tolist()
        assert bounds[0] <= row.t_start_ns < row.t_end_ns <= bounds[1]
        assert (row.insn_start, row.insn_end) == (row.t_start_ns * 2, row.t_end_ns * 2)
        for page in pages:
            spans = [(w * MS, (w + 1) * MS) for w in windows_of[page]]
            assert any(a < row.t_end_ns and row.t_start_ns < b for a, b in spans)


def same_log(one, other):
    """Compare all that two PML traces log."""
    pd.testing.assert_frame_equal(one.to_pandas(), other.to_pandas())
    for table, columns in (
        ("batches", ["batch", "round", "vcpu", "reason", "entries", "lost"]),
        ("rounds", [c for c in one.rounds if c != "pause_ns"]),
    ):
        ours, theirs = getattr(one, table)[columns], getattr(other, table)[columns]
        pd.testing.assert_frame_equal(ours, theirs)


BUNDLED = {name: Trace.open(pmlkit.bundled(name)).meta for name in pmlkit.bundled()}
# A harvest of accessed flags tells no order, and some recordings are of the log alone.
RECORDED = [n for n, m in BUNDLED.items() if (m.source, m.kind) == ("recorder", "access")]


@pytest.mark.parametrize("name", RECORDED)
def test_the_log_equals_the_recorders_own(tmp_path, name):
    trace = Trace.open(pmlkit.bundled(name))
    simulated = simulate(trace, tmp_path / "p.trace")
    same_log(simulated, trace.pml)
    for ours, theirs in zip(
        simulated.batches.itertuples(), trace.pml.batches.itertuples(), strict=True
    ):
        # Both bracket the drain; the recorder saw the moment, the access trace has its bracket.
        assert ours.t_start_ns <= theirs.t_end_ns <= ours.t_end_ns


def test_times_of_a_full_drain_come_from_the_batches_of_the_access_trace(tmp_path):
    access = make_access(tmp_path / "a.trace", written(range(8)))
    pml = simulate(access, tmp_path / "p.trace", PmlModel(buffer_entries=4))
    # Entries 0-3 are in access batches 0 and 1, and entry 4, in batch 1, finds the buffer full.
    assert pml.batches["t_start_ns"].tolist() == [0, 1000]
    assert pml.batches["t_end_ns"].tolist() == [2000, MS]
    assert pml.batches["reason"].tolist() == ["full", "stop"]


def test_512_entries_fit_and_the_513th_exits(tmp_path):
    access = make_access(tmp_path / "a.trace", written(range(512), range(513), range(1025)))
    pml = simulate(access, tmp_path / "p.trace")
    assert pml.rounds["exits"].tolist() == [0, 1, 2]
    assert pml.batches["entries"].tolist() == [512, 512, 1, 512, 512, 1]
    assert pml.batches["reason"].tolist() == ["round", "full", "round", "full", "full", "stop"]


def test_what_costs_what(tmp_path):
    access = make_access(tmp_path / "a.trace", written(range(10), [], range(3)))

    def pauses(**options):
        model = PmlModel(**{"buffer_entries": 4, **FREE, **options})
        out = simulate(access, tmp_path / "p.trace", model, overwrite=True)
        parts = out.meta.overheads
        names = ("exit_ns", "reset_or_switch_ns", "drain_ns", "rearm_ns", "invept_ns")
        assert sum(parts[n] for n in names) == parts["pause_ns"] + parts["beside_ns"]
        assert parts["pause_share"] == pytest.approx(parts["pause_ns"] / (3 * MS))
        return out.rounds["pause_ns"].tolist()

    # Round 0: two full exits and its end; rounds 1 and 2: their ends.
    assert pauses(exit_ns=10) == [30, 10, 10]
    assert pauses(reset_ns=10) == [30, 10, 10]
    assert pauses(reset_ns=10, switch_ns=20, buffers=2) == [50, 10, 10]
    # Ten entries and three; with two buffers only the two entries of the end are waited for.
    assert pauses(drain_ns_per_entry=1) == [10, 0, 3]
    assert pauses(drain_ns_per_entry=1, buffers=2) == [2, 0, 3]
    assert pauses(rearm_ns_per_entry=1) == [10, 0, 3]
    assert pauses(rearm_ns_per_entry=1, rearm="flush") == [10, 0, 3]
    assert pauses(rearm_ns_per_entry=1, rearm="flush", buffers=2) == [2, 0, 3]
    assert pauses(rearm_ns_per_entry=1, rearm="never") == [0, 0, 0]
    assert pauses(invept_ns=1) == [1, 1, 1]
    assert pauses(invept_ns=1, rearm="flush") == [3, 1, 1]
    assert pauses(invept_ns=1, rearm="flush", buffers=2) == [3, 1, 1]
    assert pauses(invept_ns=1, rearm="never") == [0, 0, 0]
    assert simulate(access, tmp_path / "q.trace").batches["drain_ns"].tolist() == [500, 150]


def test_costs_are_of_the_clock_of_the_trace(tmp_path):
    """The same instructions: a machine that takes 8 ns for each is stopped 24 times as long."""

    def overheads(ns_per_insn):
        clock = {"kind": "icount" if ns_per_insn else "host", "ns_per_insn": ns_per_insn}
        windows = written(range(10), [], range(3))
        access = make_access(tmp_path / "a.trace", windows, clock=clock)
        return simulate(access, tmp_path / "p.trace", overwrite=True).meta.overheads

    own, recorder, host = overheads(1 / 3), overheads(8.0), overheads(None)
    assert own["pause_ns"] == 3 * (2140 + 800 + 500) + 13 * (50 + 50)
    assert recorder["pause_ns"] == 24 * own["pause_ns"] == 24 * host["pause_ns"]
    assert recorder["pause_share"] == pytest.approx(24 * own["pause_ns"] / (3 * MS))
    assert "pause_share" not in host  # it is not known how fast the host is


def test_two_buffers_shorten_exits_and_change_no_entry(tmp_path):
    access = make_access(tmp_path / "a.trace", written(range(2000), range(500)))
    one, two = (simulate(access, tmp_path / f"{n}.trace", PmlModel(buffers=n)) for n in (1, 2))
    same_log(one, two)
    assert two.meta.overheads["pause_ns"] < one.meta.overheads["pause_ns"]
    assert one.meta.overheads["beside_ns"] == 0 < two.meta.overheads["beside_ns"]


def test_what_the_access_trace_says_is_kept(tmp_path):
    phases = [{"name": "work", "round": 3, "t_ns": 3 * MS, "insn": 6 * MS}]
    known = [{"phase": "work", "region": "buffer", "kind": "written", "pages": 9}]
    access = make_access(
        tmp_path / "a.trace", written([1], [], [2], [3]), phases=phases, known=known, complete=False
    )
    pml = simulate(tmp_path / "a.trace", tmp_path / "p.trace", PmlModel(rounds_per_round=2))
    assert (pml.meta.kind, pml.meta.source) == ("pml", "simulator")
    assert pml.phases[["name", "round"]].values.tolist() == [["work", 1]]
    assert pml.meta.known == known and not pml.meta.complete
    assert pml.meta.options["rounds_per_round"] == 2
    assert pml.meta.provenance["simulated_from"]["name"] == "a.trace"
    assert any("repeated writes within" in note for note in pml.meta.notes)
    pd.testing.assert_frame_equal(pml.regions, access.regions)
    pd.testing.assert_frame_equal(pml.guest, access.guest)


def test_no_writes_and_no_rounds(tmp_path):
    for windows in ([], [[]], [[], [(1, 0, Kind.READ)]]):
        access = make_access(tmp_path / "a.trace", windows)
        for rearm in ("round", "flush", "never"):
            model = PmlModel(rearm=rearm, rounds_per_round=2)
            pml = simulate(access, tmp_path / "p.trace", model, overwrite=True)
            assert pml.meta.entries == len(pml.batches) == 0
            assert pml.n_rounds == (len(windows) + 1) // 2


def test_what_cannot_be_simulated_is_refused(tmp_path):
    access = make_access(tmp_path / "a.trace", written([1]))
    pml = simulate(access, tmp_path / "p.trace")
    with pytest.raises(NeedsError, match="access trace"):
        simulate(pml, tmp_path / "q.trace")
    with pytest.raises(OutputExists):
        simulate(access, tmp_path / "p.trace")
    assert not (tmp_path / "q.trace").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"buffer_entries": 0},
        {"buffers": 3},
        {"rearm": "daily"},
        {"rounds_per_round": 0},
        {"exit_ns": -1},
        {"drain_ns_per_entry": 1.5},
    ],
)
def test_a_model_that_cannot_be_is_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        PmlModel(**wrong)


# A part of the recording

SEVEN = written(range(9), range(5, 8), [1], range(12), [2, 3], [], range(4))


@pytest.mark.parametrize("buffers", [1, 2])
def test_a_part_has_the_rounds_of_the_whole_where_each_is_armed_anew(tmp_path, buffers):
    access = make_access(tmp_path / "a.trace", SEVEN)
    model = PmlModel(buffer_entries=4, buffers=buffers)
    whole = simulate(access, tmp_path / "w.trace", model)
    part = simulate(access, tmp_path / "p.trace", model, start="1ms", end=5 * MS)
    part.check()
    expected = whole.rounds.iloc[1:5].reset_index(drop=True)
    pd.testing.assert_frame_equal(part.rounds.drop(columns="round"), expected.drop(columns="round"))
    assert part.rounds["round"].tolist() == [0, 1, 2, 3]
    mine = [(r - 1, v, why, pages) for r, v, why, pages in drained(whole) if 1 <= r < 5]
    last = [(*row[:2], "stop" if row[0] == 3 and row[2] == "round" else row[2], row[3])
            for row in mine]  # fmt: skip
    assert drained(part) == last
    overheads = part.meta.overheads
    assert overheads["pause_ns"] == expected["pause_ns"].sum()
    assert overheads["pause_share"] == pytest.approx(expected["pause_ns"].sum() / (4 * MS))


def test_parts_of_a_log_start_with_pages_that_may_be_logged(tmp_path):
    access = make_access(tmp_path / "a.trace", SEVEN)
    for rearm, rounds in (("never", 1), ("round", 2), ("flush", 2)):
        model = PmlModel(buffer_entries=4, rearm=rearm, rounds_per_round=rounds)
        part = simulate(access, tmp_path / "p.trace", model, overwrite=True, start="3ms")
        part.check()
        alone = make_access(tmp_path / "b.trace", SEVEN[3:])
        assert drained(part) == drained(simulate(alone, tmp_path / "q.trace", model, True))


def test_a_part_keeps_what_is_true_of_it(tmp_path):
    phases = [
        {"name": name, "round": r, "t_ns": r * MS, "insn": 2 * r * MS}
        for name, r in (("boot", 0), ("work", 2), ("rest", 4))
    ]
    known = [
        {"phase": name, "region": "buffer", "kind": "written", "pages": 9}
        for name in ("boot", "work", "rest")
    ]
    access = make_access(tmp_path / "a.trace", SEVEN, phases=phases, known=known)
    part = simulate(access, tmp_path / "p.trace", start="1ms", end="6ms")
    assert part.phases[["name", "round", "t_ns"]].values.tolist() == [
        ["boot", 0, MS], ["work", 1, 2 * MS], ["rest", 3, 4 * MS],
    ]  # fmt: skip
    assert [answer["phase"] for answer in part.meta.known] == ["work"]
    assert "the part from 1 ms to 6 ms" in part.meta.notes[-1]
    assert len(part.guest) == 0  # the sample was at 5 ns
    assert len(simulate(access, tmp_path / "q.trace", end="3ms").guest) == 1
    whole = simulate(access, tmp_path / "w.trace", start=0)
    assert whole.meta.known == known and not any("the part" in note for note in whole.meta.notes)


@pytest.mark.parametrize(
    "span, says",
    [(("2ms", "1ms"), "ends before it starts"), (("1s", None), "with a round between")],
)
def test_a_part_without_rounds_is_refused(tmp_path, span, says):
    access = make_access(tmp_path / "a.trace", SEVEN)
    with pytest.raises(UsageError, match=says):
        simulate(access, tmp_path / "p.trace", None, False, *span)
    assert not (tmp_path / "p.trace").exists()


def test_a_log_of_an_imported_trace_keeps_what_is_not_known(tmp_path):
    """The memory ends at the highest page, and the times are the file's, not those of a host."""
    rows = "0,10,3,w\n10,20,4,w\n20,30,9,r\n"
    (tmp_path / "x.csv").write_text(f"t_start_ns,t_end_ns,gfn,kind\n{rows}")
    access = interop.load("csv", tmp_path / "x.csv", tmp_path / "x.trace")
    log = simulate(access, tmp_path / "log.trace")
    assert access.meta.known_memory_pages is None and log.meta.known_memory_pages is None
    assert clock_text(log.meta) == clock_text(access.meta) == "the imported file's"
    assert log.meta.time.machine.startswith("the file (")
