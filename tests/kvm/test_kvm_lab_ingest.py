# SPDX-License-Identifier: Apache-2.0
"""A KVM lab's spool with its guest's report; the host is a folder (`tests/fake_kvm.py`)."""

import threading

import fake_kvm
import pytest
from fake_kvm import CALLS, LOG, RESET, call, dirty, done
from waiting import until

from pmlkit.kvm import agent, collector
from pmlkit.kvm.job import Job
from pmlkit.sources.ingest import ingest
from pmlkit.spool import FRAMES_FILE
from pmlkit.trace.known import measure

MS = 1_000_000
HEADER = {
    "source": "lab-kvm",
    "created": "2026-11-29T15:00:00",
    "domain": {"name": "g", "memory_bytes": 64 << 20, "vcpus": 1},
    "regions": [{"name": "hot", "gfn": 100, "pages": 3, "kind": "written"}],
    "ns_per_insn": 10.0,
    "versions": {},
    "options": {"log": "ring"},
    "command": "",
}


@pytest.fixture
def spool(tmp_path, monkeypatch):
    """Return a function that collects three rounds, in which the guest reports lines.

    A line's time is counted from the first re-arm, ms; rounds end at 10, 20 and 30 ms.
    """
    kvm = fake_kvm.FakeKvm(tmp_path / "host")
    kvm.install(monkeypatch.setattr)
    folder = tmp_path / "x.trace.spool"
    folder.mkdir()
    began = []

    def rearm(at):
        kvm.feed(CALLS, 0, [call(at, 4711, RESET), done(at + 1000, 4711)])

    def feed():
        until(kvm.on)
        began.append(start := collector.now_ns())
        rearm(start)
        for n in range(3):
            at = start + n * 10 * MS + 5 * MS
            kvm.feed(LOG, 0, [dirty(at + i, 4712, 100 + i) for i in range(3)])
            rearm(start + (n + 1) * 10 * MS)

    def collect(lines):
        feeder = threading.Thread(target=feed)
        feeder.start()
        job = Job(vm=str(kvm.pid), spool=str(folder / FRAMES_FILE), header=HEADER, rounds=3,
                  marks=False)  # fmt: skip
        agent.collect(job, host=kvm.host)
        feeder.join()
        text = "".join(f"{began[0] + round(ms * MS)} {line}\n" for ms, line in lines)
        (folder / "report.txt").write_text(text)
        trace = ingest(folder, tmp_path / "x.trace")
        trace.check()
        return trace

    return collect


def test_a_guest_of_the_kit_has_its_regions_and_known_answers(spool):
    trace = spool([])
    assert trace.phases["name"].tolist() == ["rounds"]
    assert trace.frames("hot").tolist() == [100, 101, 102]
    assert [(k.expected, k.measured) for k in measure(trace)] == [(3, 3)]
    assert trace.meta.host["machine"] == "Bochs" and trace.meta.clock["ns_per_insn"] == 10.0
    assert trace.meta.options["log"] == "ring" and trace.meta.domain["name"] == "g"


def test_phases_begin_with_the_round_after_their_mark(spool):
    trace = spool([
        (-3, "phase first"),
        (-2, "sample total=100 free=50"),
        (-1, "region mine 101 2"),
        (-1, "expect second mine written 2"),
        (9.9, "phase second"),
        (29.9, "phase done"),
        (30, "exit 0"),
    ])  # fmt: skip
    assert trace.phases[["name", "round"]].to_numpy().tolist() == [["first", 0], ["second", 1]]
    assert trace.phase_of_rounds().tolist() == ["first", "second", "second"]
    assert [(k.phase, k.expected, k.met) for k in measure(trace)] == [("second", 2, True)]
