# SPDX-License-Identifier: Apache-2.0
"""What is collected, and what is imported of the same events in trace-cmd's file, are the same."""

import random
import struct

import fake_kvm
import pytest
import tracedat
from fake_kvm import LOG, MARKS, RESET, dirty, entry, fault

from pmlkit import interop

from test_kvm_collecting import Run, rearm  # isort: skip

DIRTY = fake_kvm.event_format("dirty", fake_kvm.DIRTY, (("__probe_ip", 8), ("gfn", 8)))


def formats():
    kvm = [tracedat.PUSH, tracedat.RESET, fake_kvm.KVM_ENTRY, fake_kvm.KVM_FAULT]
    data = struct.pack("<I", 2)
    for system, texts in ((b"kvm", kvm), (b"kprobes", [DIRTY])):
        data += system + b"\0" + struct.pack("<I", len(texts))
        data += tracedat._sized(*(text.encode() for text in texts))
    return data


def made(rng, now):
    """Return the events of three rounds on two vCPUs by CPU, the marks by CPU, and the re-arms."""
    log, marks, rearms, at = {0: [], 1: []}, {0: [], 1: []}, [], now
    for _ in range(4):
        for _ in range(rng.randrange(1, 12)):
            cpu = rng.randrange(2)
            thread = 4712 + cpu
            marks[cpu].append(entry(at, thread, cpu))
            for _ in range(rng.randrange(1, 9)):
                at += rng.randrange(50, 400)
                log[cpu].append(dirty(at, thread, rng.randrange(1 << 20)))
            if rng.random() < 0.5:
                at += 1000
                marks[cpu].append(fault(at, thread))
                log[cpu].append(dirty(at + 100, thread, rng.randrange(1 << 20)))
            at += 5000
        rearms.append(at)
        at += 50_000
    return log, marks, rearms


def in_pages(events, size=60):
    return [events[n : n + size] for n in range(0, len(events), size)]


@pytest.mark.parametrize("seed", range(3))
def test_collected_and_imported_are_the_same(tmp_path, monkeypatch, seed):
    kvm = fake_kvm.FakeKvm(tmp_path / "host", "6.1.0")
    kvm.install(monkeypatch.setattr)
    kept = []

    def feed(now):
        log, marks, rearms = made(random.Random(seed), now)
        kept.extend((log, marks, rearms))
        for at in rearms:
            rearm(kvm, RESET, at)
        for stream, events in ((LOG, log), (MARKS, marks)):
            for cpu, of_cpu in events.items():
                for page in in_pages(of_cpu):
                    kvm.feed(stream, cpu, page)

    run = Run(kvm, tmp_path, feed, rounds=3)
    run()
    ours = run.trace()

    log, marks, rearms = kept
    cpus = []
    for cpu in (0, 1):
        events = sorted(log[cpu] + marks[cpu], key=lambda event: event[0])
        if not cpu:  # the tracepoint is hit when the call is over
            resets = [tracedat.reset(at + 1000, 4711, 0) for at in rearms]
            events = sorted(events + resets, key=lambda event: event[0])
        cpus.append([tracedat.page(page) for page in in_pages(events)])
    monkeypatch.setattr(tracedat, "_formats", formats)
    (tmp_path / "trace.dat").write_bytes(tracedat.version_6(cpus, kvm.threads))
    theirs = interop.load("kvm-dirty-ring", tmp_path / "trace.dat", tmp_path / "y.trace")

    a, b = ours.to_pandas(), theirs.to_pandas()
    b = b[b["round"] > 0]  # what comes before the first re-arm
    assert theirs.n_rounds == ours.n_rounds + 1
    for number in range(ours.n_rounds):
        for vcpu in (0, 1):
            mine = a[(a["round"] == number) & (a.vcpu == vcpu)].gfn.tolist()
            other = b[(b["round"] == number + 1) & (b.vcpu == vcpu)].gfn.tolist()
            assert mine == other
    lengths = (ours.rounds.t_end_ns - ours.rounds.t_start_ns).tolist()
    assert (theirs.rounds.t_end_ns - theirs.rounds.t_start_ns).tolist()[1:] == lengths
