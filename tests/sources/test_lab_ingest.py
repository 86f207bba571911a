# SPDX-License-Identifier: Apache-2.0
import itertools
import re
import struct
import sys

import pytest

from pmlkit.errors import NotATrace, PmlkitError
from pmlkit.notebook import live
from pmlkit.sources.lab.ingest import ingest
from pmlkit.spool import SpoolWriter
from pmlkit.xen import frames
from pmlkit.xen.frames import Frame

JOB = {"lockstep": True, "period_s": 0.2, "rounds": 2}
HEADER = {
    "source": "lab",
    "created": "2026-01-02T03:04:05+00:00",
    "guest": "g",
    "memory_bytes": 64 << 20,
    "guest_vcpus": 2,
    "regions": [{"name": "hot", "gfn": 4096, "pages": 4, "kind": "written"}],
    "ns_per_insn": 10.0,
    "versions": {},
    "options": {},
    "job": JOB,
}
HEAD = struct.Struct("<7QIIHHIII")
FIELDS = {
    **dict.fromkeys(("seq", "first", "tsc_start", "tsc_end", "drain_tsc"), 8),
    **dict.fromkeys(("lost_entries", "lost_records"), 8),
    **{"round": 4, "count": 4, "type": 2, "reason": 2, "flags": 4, "dropped": 4, "vcpu": 4},
}
OFFSETS = [0, *itertools.accumulate(FIELDS.values())]
RECORD = [[name, at, size] for (name, size), at in zip(FIELDS.items(), OFFSETS, strict=False)]
TSC = {"clock": "tsc", "tsc_khz": 100_000, "epoch_tsc": 1000, "epoch_ns": 0}
TSC |= {"record": RECORD, "head_bytes": HEAD.size}
VCPU = {"exits": 0, "drains": 1}


def batch(round_number, words, **more):
    fields = dict.fromkeys(FIELDS, 0) | {"round": round_number, "reason": 2, "type": 1}
    fields |= {"count": len(words), **more}
    data = struct.pack(f"<{len(words)}Q", *words)
    return Frame.RECORDS, frames.RECORDS_HEAD.pack(1) + HEAD.pack(*fields.values()) + data


def bitmap(number, bits):
    (parts,) = frames.bitmap_pieces(number, bytes(bits))
    return b"".join(parts)


def closed(number, pause, resume, exits=0):
    vcpus = [VCPU | {"exits": exits}, VCPU]
    fields = {"round": number, "tsc_pause": pause, "tsc_resume": resume, "rearmed": 2}
    return Frame.ROUND, frames.pack_json(**fields, vcpus=vcpus)


END = Frame.END, frames.pack_json(complete=True)
WRITTEN = [(4097 << 12) | 2, (4096 << 12) | 2, (2064 << 12) | 0x11]


@pytest.fixture
def spooled(tmp_path):
    def write(header, *contents, whole=True):
        folder = tmp_path / "x.trace.spool"
        folder.mkdir()
        writer = SpoolWriter(folder / "frames.spool", header)
        for kind, payload in contents:
            writer.append(kind, payload)
        writer.close(whole=whole)
        return ingest(folder, tmp_path / "x.trace")

    return write


def test_records_become_entries_in_log_order(spooled):
    first = batch(0, WRITTEN, tsc_start=1000, tsc_end=1500, reason=1)
    trace = spooled(
        HEADER | TSC, first, batch(0, [], vcpu=1, tsc_end=1600), closed(0, 1550, 1600, 1), END
    )
    entries = trace.to_pandas()
    assert entries.gfn.tolist() == [4097, 4096, 2064]
    assert entries.kind.tolist() == [2, 2, 0x11]
    assert trace.batches.reason.tolist() == ["full", "round"]
    assert trace.batches.t_end_ns.tolist() == [5000, 6000]  # 10 ns a tick, from the epoch
    assert trace.rounds.exits.tolist() == [1]
    assert trace.rounds.pause_ns.tolist() == [500]
    assert trace.meta.complete
    trace.check()


def test_batches_of_several_vcpus_are_sorted_by_round_and_time(spooled):
    contents = (
        batch(0, [(1 << 12) | 2], tsc_end=1300),
        batch(1, [(2 << 12) | 2], tsc_end=2500),
        closed(0, 1900, 2000),
        batch(0, [(3 << 12) | 2], vcpu=1, tsc_end=1200),
        closed(1, 2900, 3000),
    )
    entries = spooled(HEADER | TSC, *contents, END).to_pandas()
    assert entries.gfn.tolist() == [3, 1, 2]
    assert entries["round"].tolist() == [0, 0, 1]


def test_what_the_reader_missed_is_counted(spooled):
    trace = spooled(
        HEADER | TSC, batch(0, WRITTEN, tsc_end=1500, lost_entries=512), closed(0, 1900, 2000), END
    )
    assert trace.meta.lost == 512
    assert trace.rounds.lost.tolist() == [512]


def test_a_spool_that_was_cut_says_so_and_keeps_the_open_round(spooled):
    contents = (
        batch(0, WRITTEN, tsc_end=1500),
        closed(0, 1900, 2000),
        batch(1, WRITTEN, tsc_end=2100),
    )
    trace = spooled(HEADER | TSC, *contents, whole=False)
    assert not trace.meta.complete
    assert len(trace.to_pandas()) == 6
    assert trace.rounds.t_end_ns.tolist() == [10_000, 11_000]
    notes = " ".join(trace.meta.notes)
    assert "the last 1 round(s) were not closed" in notes
    assert "shorter than requested" in notes


def test_what_switching_off_drained_is_counted_and_left_out(spooled):
    contents = (
        batch(0, WRITTEN, tsc_end=1500),
        closed(0, 1900, 2000),
        batch(1, WRITTEN, tsc_end=2100),
    )
    trace = spooled(HEADER | TSC, *contents, END)
    assert trace.meta.complete
    assert trace.n_rounds == 1
    assert "3 entries were logged after the last round" in " ".join(trace.meta.notes)


def test_stock_bitmaps_become_entries_of_unknown_kind(spooled):
    bits = bytearray(1024)
    bits[512] = 0b101
    fields = {"t_start_ns": 0, "t_end_ns": 7000, "pause_ns": 100, "faults": 0, "round": 0}
    trace = spooled(
        HEADER | {"clock": "dom0"},
        (Frame.DIRTY, bitmap(0, bits)),
        (Frame.ROUND, frames.pack_json(**fields)),
        END,
    )
    assert trace.to_pandas().gfn.tolist() == [4096, 4098]
    assert set(trace.to_pandas().kind) == {0}
    assert trace.meta.overheads["write_faults"] == 0


def test_no_round_no_trace(spooled):
    with pytest.raises(NotATrace, match="no round was closed"):
        spooled(HEADER | TSC)


def test_phases_are_where_the_guest_spoke(spooled):
    mark = Frame.CONSOLE, frames.pack_json(line="phase hot", ns=12_000)
    trace = spooled(HEADER | TSC, closed(0, 1900, 2000), mark, closed(1, 2900, 3000), END)
    assert [(p["name"], p["round"]) for p in trace.meta.phases] == [("hot", 1)]


def test_accessed_flags_become_an_access_trace_around_the_log(spooled):
    bits = bytearray(1024)
    bits[512] = 0b111
    trace = spooled(
        HEADER | TSC,
        batch(0, [(4097 << 12) | 2], tsc_end=1500),
        (Frame.ACCESSED, bitmap(0, bits)),
        closed(0, 1900, 2000),
        END,
    )
    assert trace.meta.kind == "access"
    touched = trace.to_pandas()
    assert dict(zip(touched.gfn, touched.kind, strict=True)) == {4096: 1, 4097: 2, 4098: 1}
    assert trace.pml.to_pandas().gfn.tolist() == [4097]
    trace.check()


def line_of(line, ns):
    return Frame.CONSOLE, frames.pack_json(line=line, ns=ns)


def test_a_phase_starts_where_the_round_ended_that_its_mark_was_heard_in(spooled):
    """The guest rests around a mark, and the agent ends the round once it has heard it."""
    contents = [
        line_of("phase start", -5),
        closed(0, 1900, 2000),
        line_of("phase read", 15_000),
        closed(1, 2900, 3000),
        closed(2, 3900, 4000),
        line_of("phase done", 35_000),
        closed(3, 4900, 5000),
    ]
    trace = spooled(HEADER | TSC | {"job": JOB | {"phase_rounds": True}}, *contents, END)
    assert trace.phases[["name", "round", "t_ns"]].to_numpy().tolist() == [
        ["start", 1, 10_000],
        ["read", 2, 20_000],
    ]


def test_what_a_guest_said_is_known_though_its_console_was_lost(spooled):
    contents = [line_of("region buffer 4096 2", -5), line_of("expect read buffer written 2", -5)]
    contents += [line_of("phase read", 1000), batch(0, WRITTEN), closed(0, 1900, 2000)]
    trace = spooled(HEADER | TSC, *contents, END)
    assert trace.frames("buffer").tolist() == [4096, 4097]
    assert trace.meta.known[0]["region"] == "buffer"


PAGES = {"pages": 16384}
# What stands in for a lab that logs until it is interrupted, and leaves its spool then.
LEAVES = """
import signal, sys
from pathlib import Path
from pmlkit.spool import SpoolWriter
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # it may come before it is waited for
folder = Path(OUT + ".spool")
folder.mkdir()
with SpoolWriter(folder / "frames.spool", HEADER) as writer:
    for kind, payload in TOLD:
        writer.append(kind, payload)
    signal.sigwait([signal.SIGINT])
    with open(folder / "frames.spool", "ab") as torn:
        torn.write(TORN)
    sys.exit("pmlkit: it was interrupted")
"""


def leave(monkeypatch, tmp_path, *contents, torn=b""):
    run = live.start("lab", "g", tmp_path)
    plain = [(int(kind), payload) for kind, payload in contents]
    header = HEADER | TSC | PAGES
    given = f"OUT, HEADER, TOLD, TORN = {str(run.out)!r}, {header!r}, {plain!r}, {torn!r}"
    monkeypatch.setattr(run, "_command", lambda: [sys.executable, "-c", given + LEAVES])
    return run


def test_a_lab_is_seen_while_it_runs_and_what_came_is_kept(monkeypatch, tmp_path):
    run = leave(monkeypatch, tmp_path, batch(0, WRITTEN, tsc_end=1500), closed(0, 1900, 2000))
    seen = []

    def interrupt(each):
        seen.append(each)
        raise KeyboardInterrupt

    trace = run.run(interrupt)
    assert [(s.round, s.distinct, s.t_ns) for s in seen] == [(0, 3, 10_000)]
    assert trace.to_pandas().gfn.tolist() == [4097, 4096, 2064]
    assert not (tmp_path / "g.trace.spool").exists()


def test_a_frame_that_an_interrupted_lab_tore_costs_nothing_before_it(monkeypatch, tmp_path):
    contents = batch(0, WRITTEN, tsc_end=1500), closed(0, 1900, 2000)
    run = leave(monkeypatch, tmp_path, *contents, torn=b"\xff" * 64)
    lines = []

    def interrupt(_):
        raise KeyboardInterrupt

    trace = run.run(interrupt, lines.append)
    assert trace.to_pandas().gfn.tolist() == [4097, 4096, 2064]
    assert (tmp_path / "g.trace.spool").exists()
    assert re.search(r"the trace ends before that, and .*g\.trace\.spool is kept$", lines[-1])


def test_what_keeps_a_lab_from_running_is_said(monkeypatch, tmp_path):
    run = live.start("lab", "g", tmp_path)
    script = "import sys; sys.exit('pmlkit: no compiler: install one')"
    monkeypatch.setattr(run, "_command", lambda: [sys.executable, "-c", script])
    with pytest.raises(PmlkitError, match=r"^no compiler: install one$"):
        run.run(print)
    assert run.trace is None
