# SPDX-License-Identifier: Apache-2.0
"""Guests with disks.

Of one that swaps, requests are held against QEMU's own trace and the guest's counts. Of one with
files, the pages of the page cache are known, and two recordings are equal.
"""

import re
import struct

import numpy as np
import pytest
from needs import needs_qemu
from plugin_messages import mark, round_end, totals

from pmlkit.corpus import content_digest
from pmlkit.errors import GuestError
from pmlkit.sources.guest.kernel import VIRTIO_BLK, Kernel
from pmlkit.sources.guest.workload import load
from pmlkit.sources.ingest import ingest
from pmlkit.sources.recorder import qemu
from pmlkit.sources.recorder.ingest import DISK_TIMES, MEMORY_DISK
from pmlkit.sources.recorder.messages import Marker, Message, Requests, decode
from pmlkit.sources.recorder.record import record
from pmlkit.sources.recorder.recording import RecordOptions
from pmlkit.spool import SpoolWriter
from pmlkit.trace.kinds import Kind

PART = struct.Struct("<QqQIHH")  # instructions, ns, sector, frame, sectors, write


def test_a_message_of_requests_is_read_as_the_plugin_packs_it():
    payload = PART.pack(5, 40, 1 << 33, 77, 8, 1) + PART.pack(6, 48, 9, 78, 3, 0)
    requests = decode(Message.DISK, payload)
    assert isinstance(requests, Requests)
    parts = requests.parts
    assert parts["sector"].tolist() == [1 << 33, 9]
    assert parts["gfn"].tolist() == [77, 78] and parts["sectors"].tolist() == [8, 3]
    assert parts["write"].tolist() == [1, 0] and parts["t_ns"].tolist() == [40, 48]


@pytest.mark.parametrize("with_disk", [True, False])
def test_requests_become_a_table_of_the_trace(tmp_path, with_disk):
    from test_recorder_ingest import HEADER, REPORT

    options = {**HEADER["options"], "swap_mib": 64 if with_disk else 0}
    (tmp_path / "report.txt").write_text(REPORT)
    with SpoolWriter(tmp_path / "frames.spool", {**HEADER, "options": options}) as spool:
        spool.append(*mark(0, Marker.PHASE, (0, 0)))
        if with_disk:
            spool.append(Message.DISK, PART.pack(5, 40, 16, 100, 8, 1))
        spool.append(*round_end(0, (0, 0), (100, 800)))
        if with_disk:
            spool.append(Message.DISK, PART.pack(105, 840, 16, 300, 8, 0))
        spool.append(*round_end(1, (100, 800), (200, 1600)))
        spool.append(*mark(1, Marker.END, (200, 1600)))
        spool.append(*totals())
    trace = ingest(tmp_path, tmp_path / "x.trace")
    trace.check()
    if not with_disk:
        assert trace.disk is None
        return
    assert trace.disk.to_dict("list") == {
        "t_ns": [40, 840],
        "insn": [5, 105],
        "sector": [16, 16],
        "sectors": [8, 8],
        "gfn": [100, 300],
        "write": [True, False],
    }
    assert DISK_TIMES in trace.meta.notes


def test_a_disk_is_an_empty_file_that_qemu_serves_by_threads(tmp_path):
    words = qemu.disk(tmp_path / "a,b.raw", 3)
    assert (tmp_path / "a,b.raw").stat().st_size == 3 << 20
    assert "a,,b.raw" in words[1] and "aio=threads" in words[1]
    assert words[3].startswith("virtio-blk-pci")


def test_a_kernel_without_the_drivers_says_so(tmp_path):
    kernel = Kernel(tmp_path, "1", "6.1-x", modules=tmp_path)
    with pytest.raises(GuestError, match="6.1-x has no module .*virtio_blk.ko.*without a disk"):
        kernel.drivers(VIRTIO_BLK)
    for name in VIRTIO_BLK:
        path = tmp_path / "kernel" / f"{name}.ko"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    # Each needs those before it.
    assert [path.stem for path in kernel.drivers(VIRTIO_BLK)][-1] == "virtio_blk"


@pytest.fixture(scope="module")
def swapping(tmp_path_factory):
    """A guest of 96 MiB that uses 48 MiB; QEMU writes down each request that it takes."""
    folder = tmp_path_factory.mktemp("swapping")
    log, plain = folder / "qemu.log", qemu.disk

    def traced(path, size_mib):
        events = ["virtio_blk_handle_read", "virtio_blk_handle_write"]
        words = [word for event in events for word in ("-trace", event)]
        return [*plain(path, size_mib), *words, "-D", str(log)]

    settings = {"small": 4, "large": 48, "rate": 4, "phase_ms": 100}
    workload = load("pressure").with_parameters(settings)
    options = RecordOptions(memory_mib=96, swap_mib=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qemu, "disk", traced)
        trace = record(workload, folder / "swapping.trace", options)
    return trace, log.read_text()


def handled(log, how):
    """The sectors of QEMU's own trace events, each by itself, in order."""
    extents = re.findall(rf"virtio_blk_handle_{how} .*sector (\d+) nsectors (\d+)", log)
    parts = [np.arange(int(first), int(first) + int(count)) for first, count in extents]
    return np.concatenate(parts)


@needs_qemu
@pytest.mark.parametrize("how", ["read", "write"])
def test_qemus_own_trace_names_the_same_sectors(swapping, how):
    trace, log = swapping
    disk = trace.disk[trace.disk["write"] == (how == "write")]
    mine = np.repeat(disk["sector"].to_numpy(), disk["sectors"])
    mine = np.sort(mine + np.concatenate([np.arange(count) for count in disk["sectors"]]))
    sectors = handled(log, how)
    # The guest's boot comes first in QEMU's log: mkswap, swapon. The rest is the recording.
    assert 1000 < len(mine) <= len(sectors) < len(mine) + 200
    assert np.array_equal(np.sort(sectors[-len(mine) :]), mine)


@needs_qemu
def test_the_guest_counts_as_many_pages(swapping):
    trace, _ = swapping
    last = trace.guest.iloc[-1]
    until = trace.disk[trace.disk["t_ns"] <= last["t_ns"]]
    writes = int(until["write"].sum())
    assert writes == pytest.approx(last["pswpout"], abs=64)
    assert len(until) - writes == pytest.approx(last["pswpin"], abs=64)


@needs_qemu
def test_a_page_read_back_from_the_disk_is_used_then(swapping):
    """The frame that a page is read into is one that the guest uses in that round or the next."""
    trace, _ = swapping
    reads = trace.disk[~trace.disk["write"]]
    uses = trace.to_pandas(["round", "gfn"])
    used = set(zip(uses["round"].tolist(), uses["gfn"].tolist(), strict=True))
    bounds = trace.rounds["t_end_ns"].to_numpy()
    rounds = np.searchsorted(bounds, reads["t_ns"].to_numpy(), "right")
    near = [
        any((r + d, g) in used for d in (-1, 0, 1, 2))
        for r, g in zip(rounds.tolist(), reads["gfn"].tolist(), strict=True)
    ]
    assert np.mean(near) > 0.98


@needs_qemu
def test_the_recording_says_that_its_disk_is_not_deterministic(swapping):
    trace, _ = swapping
    trace.check()
    assert DISK_TIMES in trace.meta.notes
    assert trace.meta.options["swap_mib"] == 64
    assert not list(trace.path.parent.glob("*.spool"))


# ------------------------------------------------------------------------------
# A disk for files.

PAGES, LARGE = 500, 24000


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """Two recordings of a guest that reads files from its disk."""
    workload = load("pagecache").with_parameters({"pages": PAGES, "large": LARGE})
    folder = tmp_path_factory.mktemp("cached")
    return [record(workload, folder / name) for name in ("one.trace", "two.trace")]


def of_file(trace, phase, kind):
    """The frames of the small file's page cache that a phase used."""
    table = trace.to_pandas(["round", "gfn"], kinds=kind)
    of_phase = table["round"].isin(np.flatnonzero(trace.phase_of_rounds() == phase))
    return np.intersect1d(table["gfn"][of_phase], trace.frames("file"))


@needs_qemu
@pytest.mark.parametrize(
    ("phase", "kind", "pages"),
    [
        ("miss", Kind.WRITE, PAGES),  # copied from the disk
        ("miss", Kind.READ, PAGES),
        ("hit", Kind.WRITE, 0),
        ("hit", Kind.READ, PAGES),
    ],
)
def test_a_missing_page_is_written_to_the_page_cache_and_a_cached_one_only_read(
    cached, phase, kind, pages
):
    trace, _ = cached
    assert len(trace.frames("file")) == PAGES
    assert len(of_file(trace, phase, kind)) == pages


@needs_qemu
def test_a_file_larger_than_the_memory_is_read_from_the_disk(cached):
    trace, _ = cached
    guest, phases = trace.guest, trace.phases.set_index("name")["t_ns"]
    assert guest["total_bytes"].max() < LARGE * 4096
    at = [guest["pgmajfault"][guest["t_ns"] < phases[name]].max() for name in ("fault", "done")]
    assert at[1] - at[0] == LARGE


@needs_qemu
def test_no_frame_of_the_disk_is_in_the_trace(cached):
    trace, _ = cached
    trace.check()
    assert trace.meta.memory_bytes == load("pagecache").memory_mib << 20
    for log in (trace, trace.pml):
        assert log.to_pandas(["gfn"])["gfn"].max() < log.meta.memory_pages
    # Each 8 bytes of both files are copied to the disk, and from it.
    assert trace.meta.overheads["outside"] > 2 * (PAGES + LARGE) * 512
    assert MEMORY_DISK in trace.meta.notes
    assert trace.meta.options["disk_mib"] == load("pagecache").disk_mib


@needs_qemu
def test_two_recordings_with_a_disk_are_equal_to_the_bit(cached):
    assert len({content_digest(trace.path) for trace in cached}) == 1
