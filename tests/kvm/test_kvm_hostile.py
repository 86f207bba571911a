# SPDX-License-Identifier: Apache-2.0
"""What a KVM host may send: an error in one line, or a trace that says what is missing.

`tests/fuzz.py` has the targets ``kvm_ingest``, ``kvm_live`` and ``kvm_soft_dirty``, which go on for
as long as one likes.
"""

import copy
import errno
import json
import os
import random
import struct
import threading
import time

import fake_kvm
import pytest
import spool_fuzz
import tracedat
from fake_kvm import LOG, RESET
from waiting import HANG_S, until

from pmlkit import ftrace
from pmlkit.errors import PmlkitError
from pmlkit.kvm import agent, collector
from pmlkit.kvm.frames import PAGES_HEAD, Frame, pack_json
from pmlkit.kvm.job import Job
from pmlkit.sources.ingest import ingest
from pmlkit.spool import FRAMES_FILE
from pmlkit.spool_reader import read_spool

from test_kvm_collecting import rearm  # isort: skip

HEADER = spool_fuzz.KVM_HEADER


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    path = tmp_path / "x.trace.spool"
    path.mkdir()
    return path


def result(folder, data):
    """Return the trace of a spool, or the text of the error."""
    (folder / FRAMES_FILE).write_bytes(data)
    try:
        trace = ingest(folder, folder.with_suffix(""), overwrite=True)
    except PmlkitError as error:
        assert str(error).isprintable()
        assert str(folder) in str(error)
        return str(error)
    trace.check()
    return trace


def test_a_spool_that_is_cut_at_any_byte_is_a_trace_of_its_whole_frames(folder):
    made = spool_fuzz.kvm_frames(1)
    data = spool_fuzz.sealed(HEADER, made)
    (folder / FRAMES_FILE).write_bytes(data)
    with read_spool(folder / FRAMES_FILE) as spool:
        ends = [(spool.offset, kind) for kind, _ in spool]
    closed = [end for end, kind in ends if kind == Frame.ROUND]
    sizes = range(len(data))
    if not os.environ.get("PMLKIT_EVERY_BYTE"):
        near = {end + more for end, _ in ends for more in (-1, 0, 1)}
        sizes = sorted(near | set(range(0, len(data), 61)) & set(sizes))
    for size in sizes:
        found = result(folder, data[:size])
        rounds = sum(end <= size for end in closed)
        if not rounds:
            assert isinstance(found, str), size
            continue
        assert found.n_rounds == rounds, size
        ended = ends[-1][0] <= size
        assert found.meta.complete is ended, size
        assert any("shorter than requested" in note for note in found.meta.notes), size


def test_changed_spools_are_refused_or_read_to_the_first_wrong_frame(folder):
    rng, refused, cut = random.Random(1), 0, 0
    data = spool_fuzz.sealed(HEADER, spool_fuzz.kvm_frames(1))
    for number in range(int(os.environ.get("PMLKIT_CORRUPTIONS", "200"))):
        changed = spool_fuzz.change(data, rng)
        found = result(folder, changed)
        if isinstance(found, str):
            refused += 1
        elif changed != data:
            cut += 1
            assert found.n_rounds == 1, number
            assert any("shorter than requested" in note for note in found.meta.notes), number
    assert refused > 50
    assert cut > 2


def with_text(name, text):
    """Return the header with another text of the kernel."""
    header = copy.deepcopy(HEADER)
    capture = header["capture"]
    (capture if name == "header_page" else capture["formats"])[name] = text
    return header


DIRTY = HEADER["capture"]["formats"]["dirty"]
PAGE_TEXT = tracedat.HEADER_PAGE.decode()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("header_page", PAGE_TEXT.replace("offset:16", "offset:0")),
        ("header_page", PAGE_TEXT.replace("offset:16", "offset:99999")),
        ("header_page", PAGE_TEXT.replace("offset:16", "offset:18")),
        ("header_page", PAGE_TEXT.replace("offset:16", "offset:60")),
        ("header_page", PAGE_TEXT.replace("offset:8;\tsize:8", "offset:8;\tsize:3")),
        ("header_page", "x" * 70_000),
        ("header_page", 5),
        ("dirty", ""),
        ("dirty", DIRTY.replace("gfn", "gfm")),
        ("dirty", DIRTY.replace("ID: 2001", "ID: 70000")),
        ("dirty", DIRTY.replace("ID: 2001", "ID: -1")),
        ("dirty", DIRTY.replace("gfn;\toffset:16;\tsize:8", "gfn;\toffset:16;\tsize:2")),
        ("dirty", DIRTY.replace("gfn;\toffset:16;\tsize:8", "gfn;\toffset:18;\tsize:8")),
        ("dirty", "\tfield:u64 gfn" * 4000),
        ("dirty", None),
        ("kvm_entry", "name: x\nID: 5\n"),
    ],
)  # fmt: skip
def test_texts_of_a_kernel_that_are_wrong_are_refused(folder, name, text):
    found = result(folder, spool_fuzz.sealed(with_text(name, text), spool_fuzz.kvm_frames(1)))
    assert isinstance(found, str)
    assert "header" in found or "layout" in found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        # Larger than each event: none is long enough.
        ("dirty", DIRTY.replace("gfn;\toffset:16", "gfn;\toffset:65532")),
    ],
)
def test_events_that_are_shorter_than_their_format_end_it(folder, name, text):
    found = result(folder, spool_fuzz.sealed(with_text(name, text), spool_fuzz.kvm_frames(1)))
    assert isinstance(found, str) or not found.meta.complete


def raw(data, stream=LOG):
    return Frame.PAGES, PAGES_HEAD.pack(stream, 0, 0, 0) + data


GOOD = ftrace.trimmed(tracedat.page([fake_kvm.dirty(500, 11, 5)]), ftrace.Layout())


@pytest.mark.parametrize(
    "frame",
    [
        (Frame.PAGES, b""),
        (Frame.PAGES, b"\0\0\0"),
        raw(GOOD + b"x"),
        raw(GOOD[:-4]),
        raw(GOOD[:12]),
        raw(struct.pack("<QQ", 1, 4096) + GOOD[16:]),  # goes on beyond the end
        raw(struct.pack("<QQ", 1, (1 << 27) - 4) + GOOD[16:]),
        raw(struct.pack("<QQ", 1, 6) + bytes(8)),
        raw(struct.pack("<QQ", 1, 1 << 30)),  # a count of losses that is not there
        raw(GOOD + struct.pack("<QQI", 1, 4, 0)),  # an event without its length
        raw(GOOD + struct.pack("<QQII", 1, 8, 0, 0xFFFFFFFF)),
        raw(GOOD, stream=2),
        raw(GOOD, stream=200),
        raw(ftrace.trimmed(tracedat.page([fake_kvm.dirty(500, 11, 1 << 52)]), ftrace.Layout())),
        raw(ftrace.trimmed(tracedat.page([fake_kvm.dirty(1 << 62, 11, 1)]), ftrace.Layout())),
        raw(ftrace.trimmed(tracedat.page([], 1 << 62), ftrace.Layout())),
        (Frame.TICK, pack_json(ns=-1)),
        (Frame.TICK, b"{}"),
        (Frame.ROUND, pack_json(round=5, start_ns=0, end_ns=1)),
        (Frame.ROUND, pack_json(round=1, start_ns=9000, end_ns=1)),
        (Frame.ROUND, pack_json(round=1, start_ns=0, end_ns=1)),  # before the one before
        (Frame.END, pack_json(complete=True, why="", slots={"0": {"gfn": 0}})),
        (Frame.END, pack_json(complete=1)),
        (77, b""),
    ],
)
def test_a_frame_that_is_wrong_ends_the_trace_before_it(folder, frame):
    made = spool_fuzz.kvm_frames(1)[:-2]
    found = result(
        folder, spool_fuzz.sealed(HEADER, [*made, frame, *spool_fuzz.kvm_frames(1)[-1:]])
    )
    assert (found.n_rounds, found.meta.entries, found.meta.complete) == (1, 6, False)
    assert any(f"frame {len(made)}, from byte" in note for note in found.meta.notes)


def test_time_that_goes_back_between_ticks_is_refused(folder):
    made = [*spool_fuzz.kvm_frames(1)[:-2], (Frame.TICK, pack_json(ns=5)),
            (Frame.TICK, pack_json(ns=4))]  # fmt: skip
    found = result(folder, spool_fuzz.sealed(HEADER, made))
    assert any("a tick of" in note and "the previous one" in note for note in found.meta.notes)


def test_time_that_goes_back_within_a_cpu_is_put_in_order(folder):
    pages = b"".join(ftrace.trimmed(tracedat.page([fake_kvm.dirty(at, 11, at)]), ftrace.Layout())
                     for at in (900, 100, 500))  # fmt: skip
    made = [raw(pages), (Frame.ROUND, pack_json(round=0, start_ns=0, end_ns=1000))]
    header = HEADER | {"host": {"release": "6.14"}}
    found = result(folder, spool_fuzz.sealed(header, made))
    assert found.to_pandas().gfn.tolist() == [100, 500, 900]


def test_the_highest_frame_that_there_can_be_is_read(folder):
    page = ftrace.trimmed(tracedat.page([fake_kvm.dirty(500, 11, (1 << 52) - 1)]), ftrace.Layout())
    made = [raw(page), (Frame.ROUND, pack_json(round=0, start_ns=0, end_ns=1000))]
    found = result(folder, spool_fuzz.sealed(HEADER, made))
    assert found.to_pandas().gfn.tolist() == [(1 << 52) - 1]
    assert found.meta.memory_bytes == 1 << 64


class SlowFile:
    """A disk on which a block takes a while, and as long as it takes if it is told to stand."""

    def __init__(self, path):
        self.file = open(path, "wb", buffering=0)  # noqa: SIM115
        self.goes_on = threading.Event()
        self.goes_on.set()

    def write(self, data):
        self.goes_on.wait(HANG_S)
        time.sleep(0.002)
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_16_vcpus_and_a_slow_reader_lose_as_many_as_they_say(folder, tmp_path, monkeypatch):
    """A full buffer drops what comes, and the next page says how much: to the entry."""
    cpus, pages, size = 16, 60, 100
    kvm = fake_kvm.FakeKvm(tmp_path / "host", cpus=cpus)
    kvm.process(kvm.pid, {kvm.pid: "qemu"} | {5000 + n: f"CPU {n}/KVM" for n in range(cpus)},
                links=())  # fmt: skip
    kvm.install(monkeypatch.setattr)
    lost, made, disk = [0] * cpus, 0, SlowFile(folder / FRAMES_FILE)

    def feed():
        nonlocal made
        until(kvm.on)
        disk.goes_on.clear()
        at = collector.now_ns()
        rearm(kvm, RESET, at)
        pipes = [os.open(kvm.instances()["log"] / f"per_cpu/cpu{n}/trace_pipe_raw",
                         os.O_RDWR | os.O_NONBLOCK) for n in range(cpus)]  # fmt: skip
        missed = [0] * cpus
        for number in range(pages):
            for cpu, pipe in enumerate(pipes):
                start = at + 2000 + (number * cpus + cpu) * size
                events = [fake_kvm.dirty(start + n, 5000 + cpu, n) for n in range(size)]
                made += size
                try:
                    os.write(pipe, tracedat.page(events, missed[cpu] or None))
                    missed[cpu] = 0
                except OSError as error:
                    assert error.errno == errno.EAGAIN
                    missed[cpu], lost[cpu] = missed[cpu] + size, lost[cpu] + size
                    disk.goes_on.set()
        for cpu, count in enumerate(lost):
            kvm.count(LOG, cpu, overrun=count)
        kvm._held += pipes
        rearm(kvm, RESET, at + 3000 + pages * cpus * size)

    feeder = threading.Thread(target=feed)
    feeder.start()
    job = Job(vm=str(kvm.pid), rounds=1, marks=False, header={"created": "2026-11-29T15:00:00"})
    monkeypatch.setattr(agent, "Pipe", lambda out, stop: disk)
    agent.collect(job, host=kvm.host)
    feeder.join()
    trace = ingest(folder, tmp_path / "x.trace")
    trace.check()
    assert trace.meta.lost == sum(lost) > 0
    assert trace.meta.entries == made - sum(lost) > 0


def test_a_flood_of_messages_is_counted(folder):
    event = Frame.EVENT, pack_json(what="x", ns=5)
    found = result(
        folder, spool_fuzz.sealed(HEADER, [*spool_fuzz.kvm_frames(1)[:-1], *[event] * 500])
    )
    assert found.meta.notes.count("x") < 101
    assert any("more events were omitted" in note for note in found.meta.notes)


def test_the_header_may_hold_anything(folder):
    made, rng = spool_fuzz.kvm_frames(1), random.Random(2)
    for name in HEADER:
        for value in rng.sample(spool_fuzz.NASTY, 5):
            header = json.loads(json.dumps(HEADER)) | {name: value}
            result(folder, spool_fuzz.sealed(header, made))
