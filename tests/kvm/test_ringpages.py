# SPDX-License-Identifier: Apache-2.0
"""Pages of ftrace's ring buffer: two readers of ours, trace-cmd, and a real kernel agree."""

import contextlib
import os
import random
import re
import shutil
import subprocess

import fake_kvm
import pytest
import tracedat

from pmlkit import ftrace
from pmlkit.errors import NotUnderstood
from pmlkit.kvm.frames import LOG, PAGES_HEAD, Frame
from pmlkit.sources.kvm.stream import KvmStream

LAYOUT = ftrace.Layout()
HEADER = {
    "source": "kvm", "mode": "log", "epoch_ns": 0, "domain": {"name": "x", "vcpus": 2},
    "capture": {"clock": "mono", "header_page": tracedat.HEADER_PAGE.decode(),
                "formats": {"dirty": fake_kvm.event_format("dirty", fake_kvm.DIRTY,
                                                           (("__probe_ip", 8), ("gfn", 8)))}},
}  # fmt: skip


def extracted(*pages, cpu=0):
    return KvmStream(HEADER).take(Frame.PAGES, PAGES_HEAD.pack(LOG, 0, 0, cpu) + b"".join(pages))


def some_events(rng, count):
    at, found = rng.randrange(1 << 40), []
    for _ in range(count):
        at += rng.choice((0, 1, 900, (1 << 27) - 1, 1 << 27, 1 << 33))
        found.append(fake_kvm.dirty(at, rng.randrange(1, 1 << 22), rng.randrange(1 << 40)))
    return found


def test_both_readers_return_what_was_written():
    rng = random.Random(1)
    for _ in range(200):
        made, pages, lost = [], [], []
        for _ in range(rng.randrange(1, 4)):
            events = some_events(rng, rng.randrange(0, 100))
            missed = rng.choice((None, None, -1, rng.randrange(1, 1 << 40)))
            if missed is not None:
                lost.append([len(made), missed])
            made += events
            pages.append(tracedat.page(events, missed, large=rng.random() < 0.2))
        by_python = [event for page in pages for event in ftrace.events(page, LAYOUT)]
        assert by_python == made
        pages = [ftrace.trimmed(page, LAYOUT) for page in pages]
        assert all(len(page) % 4 == 0 for page in pages)
        found = extracted(*pages)
        assert found.time.tolist() == [time for time, _ in made]
        gfns = [int.from_bytes(data[16:24], "little") for _, data in made]
        assert found.value.tolist() == gfns
        assert found.thread.tolist() == [int.from_bytes(data[4:8], "little") for _, data in made]
        assert found.lost.tolist() == lost
        each = [ftrace.lost(page, LAYOUT) for page in pages]
        assert [n for n in each if n != 0] == [None if n < 0 else n for _, n in lost]


def test_a_page_without_events_and_losses_is_left_out():
    assert ftrace.trimmed(tracedat.page([]), LAYOUT) == b""
    assert len(ftrace.trimmed(tracedat.page([], 5), LAYOUT)) == 16 + 8


def test_events_of_other_kinds_are_skipped():
    events = [fake_kvm.dirty(10, 5, 1), fake_kvm.fault(20, 5), fake_kvm.dirty(30, 5, 2)]
    assert extracted(ftrace.trimmed(tracedat.page(events), LAYOUT)).value.tolist() == [1, 2]


def test_damaged_pages_are_refused_or_read_but_never_run_on():
    rng = random.Random(2)
    refused = 0
    for _ in range(3000):
        pages = b"".join(
            ftrace.trimmed(tracedat.page(some_events(rng, rng.randrange(1, 20))), LAYOUT)
            for _ in range(2)
        )
        data = bytearray(pages)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data))
            data[at] = rng.choice((0, 1, 0x1D, 0x1E, 0x1F, 0x7F, 0x80, 0xFF))
        del data[rng.choice((len(data), rng.randrange(len(data)))) :]
        try:
            found = extracted(bytes(data))
            assert len(found.time) == len(found.value) <= len(data) // 12 + 1
        except NotUnderstood:
            refused += 1
    assert 300 < refused < 3000


@pytest.mark.skipif(not shutil.which("trace-cmd"), reason="trace-cmd is not installed")
def test_trace_cmd_reads_the_same_pages_the_same(tmp_path):
    rng = random.Random(3)
    events, at = [], 5_000_000_000
    for n in range(90):
        at += rng.choice((0, 1, 900, 1 << 27))
        events.append(tracedat.push(at, 4712, n % 2, 0, rng.randrange(1 << 20)))
    page = tracedat.page(events, 12)
    path = tmp_path / "trace.dat"
    path.write_bytes(tracedat.version_6([[page]], {4712: "CPU 0/KVM"}))
    call = ["trace-cmd", "report", "-t", "-i", str(path)]
    text = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    told = re.findall(r" (\d+)\.(\d{9}): kvm_dirty_ring_push: .*offset (0x[0-9a-f]+)", text)
    ours = [(time, int.from_bytes(data[24:32], "little")) for time, data in
            ftrace.events(page, LAYOUT)]  # fmt: skip
    assert [(int(s + ns), int(gfn, 16)) for s, ns, gfn in told] == ours
    assert len(ours) == 90


TRACING = next((p for p in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
                if os.access(f"{p}/instances", os.W_OK)), None)  # fmt: skip
EVENT = "syscalls/sys_enter_getpgid"


@pytest.fixture
def real():
    """An instance of this machine's kernel that records a system call of ours."""
    if TRACING is None or not os.access(f"{TRACING}/events/{EVENT}/enable", os.W_OK):
        pytest.skip("no tracefs that we may write here, or no system calls in it")
    from pmlkit.kvm.host import Host
    from pmlkit.kvm.tracefs import Instance, owner_name

    host = Host()
    text = (host.tracing / "events/header_page").read_text()
    with Instance(host, f"{owner_name(host)}-log", 64, ftrace.layout_of(text)) as instance:
        instance.follow([os.getpid()])
        instance.enable(EVENT)
        instance.start()
        yield instance
    assert not instance.path.exists()


def getpgid_of(number):
    with contextlib.suppress(OSError):
        os.getpgid(number)


def calls_in(instance, pages):
    """Return the argument of each call of ours in some pages, in order."""
    text = (instance.host.tracing / "events" / EVENT / "format").read_text()
    form = ftrace.format_of(text)
    at, size = form.fields["pid"]
    found = [event for page in pages for event in ftrace.events(page, instance.layout)]
    found = [(time, data) for time, data in found
             if int.from_bytes(data[:2], "little") == form.number]  # fmt: skip
    found.sort(key=lambda event: event[0])
    return [int.from_bytes(data[at : at + size], "little") for _, data in found]


def test_a_real_kernel_hands_out_every_event(real):
    pages = []
    for number in range(5000):
        getpgid_of(2_000_000_000 + number)
        if number % 7 == 0:  # also pages that are not full yet
            pages += [page for _, page in real.drain()]
    pages += [page for _, page in real.drain()]
    assert calls_in(real, pages) == [2_000_000_000 + number for number in range(5000)]
    assert real.counts()["overrun"] == 0
    assert all(ftrace.lost(page, real.layout) == 0 for page in pages)


def test_a_real_kernel_counts_every_event_that_it_loses(real):
    """100,000 events into a buffer for about 1,500: those read and those lost are all."""
    read, lost = [], 0
    for first in (0, 50_000):
        for number in range(first, first + 50_000):
            getpgid_of(2_000_000_000 + number)
        pages = [page for _, page in real.drain()]
        read += calls_in(real, pages)
        lost += sum(ftrace.lost(page, real.layout) or 0 for page in pages)
    assert len(read) + real.counts()["overrun"] == 100_000
    assert 0 < lost <= real.counts()["overrun"]
