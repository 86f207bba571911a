# SPDX-License-Identifier: Apache-2.0
"""A recorder's spool, whole or cut, becomes the trace that it tells of."""

import numpy as np
import pytest
from plugin_messages import EXEC, READ, WRITE, access, mark, pml, round_end, totals
from spool_fuzz import RECORDER_HEADER

from pmlkit.errors import NotATrace, PmlkitError, TraceNotFound
from pmlkit.sources.ingest import ingest
from pmlkit.sources.recorder.ingest import read_report
from pmlkit.sources.recorder.messages import Marker
from pmlkit.spool import SpoolWriter
from pmlkit.trace.kinds import Kind

REPORT = """\
memory 00001000-0009fbff : System RAM
memory 00100000-003fffff : System RAM
sample total=1 free=1
arm
phase start
region buffer 100 2
region buffer 300 1
expect work buffer written 3
sample total=1000 free=400 available=1 cached=2 committed=3 anon=4 slab=5 pswpin=6 pgmajfault=8
phase work
exit 0
end
"""
HEADER = RECORDER_HEADER | {"versions": {"qemu": "7.2"}}
MESSAGES = [
    mark(0, Marker.PHASE, (0, 0)),
    mark(0, Marker.SAMPLE, (50, 400)),
    access(0, "round", (0, 0), (125, 1000), [(100, READ), (100, WRITE), (101, WRITE), (7, EXEC)]),
    pml(0, "round", (0, 0), (125, 1000), [100, 101]),
    round_end(0, (0, 0), (125, 1000), accessed=3, dirty=2),
    mark(1, Marker.PHASE, (130, 1040)),
    pml(1, "full", (125, 1000), (150, 1200), [300]),
    access(1, "stop", (125, 1000), (200, 1600), [(300, WRITE), (100, WRITE), (101, WRITE)]),
    pml(1, "stop", (150, 1200), (200, 1600), [100, 101]),
    mark(1, Marker.END, (200, 1600)),
    round_end(1, (125, 1000), (200, 1600), accessed=3, dirty=3, full_exits=1),
    totals(),
]


def make_spool(folder, messages=MESSAGES, report=REPORT, header=HEADER):
    folder.mkdir()
    (folder / "report.txt").write_text(report)
    writer = SpoolWriter(folder / "frames.spool", header)
    for kind, payload in messages:
        writer.append(kind, payload)
    writer.close()
    return folder


@pytest.fixture
def trace(tmp_path):
    return ingest(make_spool(tmp_path / "t.trace.spool"), tmp_path / "t.trace")


def test_entries_come_in_order_with_their_rounds(trace):
    table = trace.to_pandas()
    assert table["gfn"].tolist() == [100, 100, 101, 7, 300, 100, 101]
    assert table["kind"].tolist() == [READ, WRITE, WRITE, EXEC, WRITE, WRITE, WRITE]
    assert table["round"].tolist() == [0] * 4 + [1] * 3
    assert table["batch"].tolist() == [0] * 4 + [1] * 3


def test_the_emulated_pml_is_nested(trace):
    log = trace.pml
    assert log.meta.kind == "pml"
    assert log.to_pandas()["gfn"].tolist() == [100, 101, 300, 100, 101]
    assert set(log.to_pandas()["kind"]) == {int(Kind.WRITE)}
    assert log.batches["reason"].tolist() == ["round", "full", "stop"]
    assert log.rounds["exits"].tolist() == [0, 1]
    assert log.rounds["rearmed"].tolist() == [2, 3]


def test_what_the_guest_said_is_in_the_trace(trace):
    assert trace.phases["name"].tolist() == ["start", "work"]
    assert trace.phases["t_ns"].tolist() == [0, 1040]
    assert trace.frames("buffer").tolist() == [100, 101, 300]
    expected = {"phase": "work", "region": "buffer", "kind": "written", "pages": 3}
    assert [dict(known) for known in trace.meta.known] == [expected]
    assert trace.meta.memory_map[0]["start"] == 0x1000
    assert trace.meta.memory_map[0]["end"] == 0x9FC00


def test_samples_before_the_recording_are_left_out(trace):
    guest = trace.guest
    assert len(guest) == 1
    assert guest["t_ns"].tolist() == [400]
    assert guest["allocated_bytes"].tolist() == [600]
    assert guest["pgmajfault"].tolist() == [8]


def test_a_whole_recording_is_complete(trace):
    assert trace.meta.complete
    trace.check()


def test_rounds_are_contiguous_and_effective(trace):
    rounds = trace.rounds
    assert rounds["t_end_ns"].tolist() == [1000, 1600]
    assert rounds["t_start_ns"].tolist() == [0, 1000]
    assert rounds["asked_ns"].tolist() == [1000, 1000]
    assert rounds["entries"].tolist() == [4, 3]


@pytest.mark.parametrize("keep", range(5, len(MESSAGES)))
def test_a_recording_that_ends_early_is_a_valid_shorter_trace(tmp_path, keep):
    spool = make_spool(tmp_path / "t.trace.spool", MESSAGES[:keep])
    trace = ingest(spool, tmp_path / "t.trace")
    trace.check()
    assert not trace.meta.complete
    assert any("shorter than requested" in note for note in trace.meta.notes)
    spans = [m for m in MESSAGES[:keep] if m[0] == 2]
    assert len(trace.to_pandas()) == sum(len(p) // 4 - 10 for _, p in spans)


def test_a_recording_that_dies_within_a_frame_says_so(tmp_path):
    spool = make_spool(tmp_path / "t.trace.spool")
    frames = spool / "frames.spool"
    whole = frames.read_bytes()
    frames.write_bytes(whole[: whole.index(MESSAGES[-1][1]) + 5])
    trace = ingest(spool, tmp_path / "t.trace")
    assert not trace.meta.complete
    assert any("frame" in note for note in trace.meta.notes)
    assert len(trace.to_pandas()) == 7


def test_nothing_recorded_is_refused_and_leaves_nothing(tmp_path):
    spool = make_spool(tmp_path / "t.trace.spool", [])
    with pytest.raises(NotATrace, match="nothing was recorded"):
        ingest(spool, tmp_path / "t.trace")
    assert not (tmp_path / "t.trace").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.trace.spool"]


def test_a_foreign_folder_is_refused(tmp_path):
    with pytest.raises(NotATrace, match="frames.spool"):
        ingest(tmp_path, tmp_path / "t.trace")
    with pytest.raises(TraceNotFound):
        ingest(tmp_path / "nothing", tmp_path / "t.trace")


def test_an_unknown_source_is_refused(tmp_path):
    spool = make_spool(tmp_path / "t.trace.spool", header={**HEADER, "source": "elsewhere"})
    with pytest.raises(PmlkitError, match="elsewhere"):
        ingest(spool, tmp_path / "t.trace")


def test_a_report_line_that_was_cut_off_is_left_out():
    report = read_report("phase start\nsample total=10 free=5\nsample total=1")
    assert report.samples == [{"total": 10, "free": 5}]


def test_boot_is_the_first_phase_of_a_recorded_boot(tmp_path):
    messages = [mark(0, Marker.ARM, (10, 80)), mark(0, Marker.PHASE, (20, 160)), *MESSAGES[1:]]
    trace = ingest(make_spool(tmp_path / "t.trace.spool", messages), tmp_path / "t.trace")
    assert trace.phases["name"].tolist() == ["boot", "start", "work"]
    np.testing.assert_array_equal(trace.phases["t_ns"], [0, 160, 1040])
