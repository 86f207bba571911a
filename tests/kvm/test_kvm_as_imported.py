# SPDX-License-Identifier: Apache-2.0
"""One log of a host is one trace: collected, in trace-cmd's file, or as text of ftrace.

trace-cmd itself makes the text, and version 7 of its file.
"""

import random
import shutil
import struct
import subprocess

import fake_kvm
import pytest
import tracedat
from fake_kvm import LOG, MARKS, RESET, dirty, entry, fault
from needs import REQUIRED
from waiting import HANG_S

from pmlkit import interop

from test_kvm_collecting import Run, rearm  # isort: skip

# The probes of `pmlkit collect --kvm`, as trace-cmd finds their formats; it prints what they say.
PRINTED = 'print fmt: "(%lx) gfn=%Lu", REC->__probe_ip, REC->gfn\n'
DIRTY = fake_kvm.event_format("mark_page_dirty_in_slot_dirty", fake_kvm.DIRTY,
                              (("__probe_ip", 8), ("gfn", 8)))  # fmt: skip
DIRTY = DIRTY.replace('print fmt: ""\n', PRINTED)
ENTERED = fake_kvm.KVM_ENTRY.replace('fmt: ""', 'fmt: "vcpu %u, rip 0x%lx", REC->vcpu_id, REC->rip')
FAULTED = fake_kvm.KVM_FAULT.replace('fmt: ""', 'fmt: "vcpu %lu", REC->vcpu_id')
LOST = (None, 7, 1, None)


def formats():
    kvm = [tracedat.PUSH, tracedat.RESET, ENTERED, FAULTED]
    data = struct.pack("<I", 2)
    for system, texts in ((b"kvm", kvm), (b"kprobes", [DIRTY])):
        data += system + b"\0" + struct.pack("<I", len(texts))
        data += tracedat._sized(*(text.encode() for text in texts))
    return data


def made(rng, now):
    """Return the events of four re-arms on two vCPUs by CPU, the marks by CPU, and the re-arms.

    The first events come before the first re-arm, and the last ones after the last. Threads move
    from CPU to CPU. The main thread logs a page now and then.
    """
    log, marks, rearms, at = {0: [], 1: []}, {0: [], 1: []}, [], now
    for number in range(5):
        for _ in range(rng.randrange(1, 12)):
            cpu, vcpu = rng.randrange(2), rng.randrange(2)
            thread = 4712 + vcpu
            marks[cpu].append(entry(at, thread, 1 - vcpu))  # not what the threads' names say
            for _ in range(rng.randrange(1, 9)):
                at += rng.randrange(50, 400)
                log[cpu].append(dirty(at, thread, rng.randrange(1 << 20)))
            if rng.random() < 0.5:
                at += 1000
                marks[cpu].append(fault(at, thread))
                log[cpu].append(dirty(at + 100, thread, rng.randrange(1 << 20)))
            at += 5000
            if rng.random() < 0.2:
                log[cpu].append(dirty(at, 4711, rng.randrange(1 << 20)))
                at += 5000
        if number < 4:
            rearms.append(at)
            at += 50_000
    return log, marks, rearms


def in_pages(events, size=20):
    return [events[n : n + size] for n in range(0, len(events), size)]


def merged(log, marks, rearms):
    """Return the pages of one ring buffer by CPU, with all events; and what was lost before each.

    A page begins where the log's does: there its losses are.
    """
    cpus = []
    for cpu in (0, 1):
        begins = [(page[0][0], LOST[n % 4]) for n, page in enumerate(in_pages(log[cpu]))]
        events = sorted(log[cpu] + marks[cpu], key=lambda event: event[0])
        if not cpu:  # the tracepoint is hit when the call is over
            resets = [tracedat.reset(at + 1000, 4711, 0) for at in rearms]
            events = sorted(events + resets, key=lambda event: event[0])
        begins = [(0, None), *begins]
        spans = zip(begins, [*begins[1:], (1 << 62, None)], strict=True)
        pages = []
        for (start, lost), (stop, _) in spans:
            of = [event for event in events if start <= event[0] < stop]
            pages += [tracedat.page(page, None if n else lost)
                      for n, page in enumerate(in_pages(of, 60))]  # fmt: skip
        cpus.append(pages)
    return cpus


@pytest.fixture(params=range(3))
def collected(request, tmp_path, monkeypatch):
    """The trace of the live source, and the same events as trace-cmd's file."""
    release = "6.14.0" if request.param == 2 else "6.1.0-18-amd64"
    kvm = fake_kvm.FakeKvm(tmp_path / "host", release)
    kvm.install(monkeypatch.setattr)
    kept = []

    def feed(now):
        log, marks, rearms = made(random.Random(request.param), now)
        kept.extend((log, marks, rearms))
        for at in rearms:
            rearm(kvm, RESET, at)
        for cpu in (0, 1):
            for n, page in enumerate(in_pages(log[cpu])):
                kvm.feed(LOG, cpu, page, LOST[n % 4])
            for page in in_pages(marks[cpu]):
                kvm.feed(MARKS, cpu, page)

    run = Run(kvm, tmp_path, feed, rounds=3)
    run()
    monkeypatch.setattr(tracedat, "_formats", formats)
    monkeypatch.setattr(tracedat, "UNAME", f"Linux host {release} #1 SMP x86_64\0".encode())
    path = tmp_path / "trace.dat"
    path.write_bytes(tracedat.version_6(merged(*kept), kvm.threads))
    return run.trace(), path, release


def trace_cmd(*words):
    if not shutil.which("trace-cmd") and not REQUIRED:
        pytest.skip("needs trace-cmd: apt-get install trace-cmd")
    return subprocess.run(["trace-cmd", *map(str, words)], capture_output=True, check=True,
                          timeout=HANG_S).stdout  # fmt: skip


def assert_same(ours, theirs):
    columns = ["round", "vcpu", "gfn"]
    assert theirs.to_pandas(columns).values.tolist() == ours.to_pandas(columns).values.tolist()
    times = ["t_start_ns", "t_end_ns", "lost"]
    assert theirs.rounds[times].values.tolist() == ours.rounds[times].values.tolist()
    assert theirs.meta.lost == ours.meta.lost
    strange = "come from threads that run no vCPU, and count for vCPU 0"
    assert [note for note in theirs.meta.notes if strange in note] == [
        note for note in ours.meta.notes if strange in note
    ]


def test_collected_and_imported_are_the_same(collected, tmp_path):
    ours, path, _ = collected
    assert ours.n_rounds == 3
    assert ours.meta.entries > 40
    assert_same(ours, interop.load("kvm-dirty-ring", path, tmp_path / "y.trace"))


def test_the_same_by_version_7_of_trace_cmd_itself(collected, tmp_path):
    ours, path, _ = collected
    again = tmp_path / "again.dat"
    trace_cmd("convert", "-i", path, "-o", again, "--file-version", "7", "--compression", "zstd")
    assert again.read_bytes()[10:11] == b"7"
    assert_same(ours, interop.load("kvm-dirty-ring", again, tmp_path / "y.trace"))


def test_the_same_by_the_text_that_trace_cmd_prints(collected, tmp_path):
    ours, path, release = collected
    text = trace_cmd("report", "-N", "-t", "-i", path)
    (tmp_path / "text").write_bytes(text)
    theirs = interop.load("kvm-dirty-ring", tmp_path / "text", tmp_path / "y.trace", kernel=release)
    assert_same(ours, theirs)
