# SPDX-License-Identifier: Apache-2.0
"""From a KVM host's ring buffers to a trace; the host is a folder (`tests/fake_kvm.py`)."""

import json
import threading

import fake_kvm
import numpy as np
import pytest
from fake_kvm import CALLS, CLEAR, GET, LOG, MARKS, REGION, RESET, call, dirty, done, entry, fault
from waiting import until

from pmlkit.errors import NotATrace
from pmlkit.kvm import agent, collector
from pmlkit.kvm.job import Job
from pmlkit.sources.ingest import ingest
from pmlkit.spool import FRAMES_FILE

MS = 1_000_000


class Run:
    """A collection, and a thread that feeds it as soon as the capture is on."""

    def __init__(self, kvm, tmp_path, feed, **job):
        self.kvm, self.feed = kvm, feed
        self.folder, self.out = tmp_path / "x.trace.spool", tmp_path / "x.trace"
        self.folder.mkdir()
        self.job = Job(vm=job.pop("vm", str(kvm.pid)), spool=str(self.folder / FRAMES_FILE),
                       header={"created": "2026-11-29T15:00:00"}, **job)  # fmt: skip
        self.errors = []

    def _feed(self):
        try:
            until(self.kvm.on)
            self.feed(collector.now_ns())
        except BaseException as error:
            self.errors.append(error)

    def __call__(self):
        feeder = threading.Thread(target=self._feed)
        feeder.start()
        end = agent.collect(self.job, host=self.kvm.host)
        feeder.join()
        assert not self.errors
        return end

    def trace(self):
        trace = ingest(self.folder, self.out)
        trace.check()
        return trace


def returned(number, at, thread=4711, values=(), length=1000):
    """Make the events of a call that returns `length` ns later."""
    return [call(at, thread, number, values), done(at + length, thread)]


def rearm(kvm, number, at):
    """Feed a call; if it ends the last round, the collection ends, and nothing can be fed."""
    kvm.feed(CALLS, 0, returned(number, at))


def ring_rounds(kvm, pages):
    """Return a feeder: a round of each list of frames, between resets of the rings."""

    def feed(now):
        at = now
        rearm(kvm, RESET, at)
        for frames in pages:
            events = [dirty(at + 2000 + n, 4712, frame) for n, frame in enumerate(frames)]
            for first in range(0, len(events), 100):
                kvm.feed(LOG, 0, events[first : first + 100])
            at = at + 2000 + len(frames) + 2000
            rearm(kvm, RESET, at)

    return feed


def by_round(trace):
    frame = trace.to_pandas()
    return [frame[frame["round"] == n].gfn.tolist() for n in range(trace.n_rounds)]


def test_a_vm_becomes_a_trace(kvm, tmp_path):
    pages = [list(range(100, 100 + n)) for n in (300, 7, 0, 1)]
    run = Run(kvm, tmp_path, ring_rounds(kvm, pages), rounds=4, marks=False)
    assert run() == {"complete": True, "why": "all rounds are complete", "rounds": 4}
    trace = run.trace()
    assert [sorted(frames) for frames in by_round(trace)] == pages
    assert (trace.meta.source, trace.meta.complete, trace.meta.lost) == ("kvm", True, 0)
    assert trace.meta.domain["name"] == "web1"
    assert trace.meta.host["modules"]["kvm_intel"]["pml"] == "Y"
    assert trace.meta.host["release"] == "6.1.0-18-amd64"
    assert trace.meta.options["pml"] is True


def test_nothing_of_ours_is_left_in_tracefs(kvm, tmp_path):
    run = Run(kvm, tmp_path, ring_rounds(kvm, [[1]]), rounds=1)
    seen = []
    feed = run.feed
    run.feed = lambda now: (seen.extend([set(kvm.instances()), kvm.probes()]), feed(now))
    run()
    assert seen[0] == {"log", "marks", "calls"}
    assert [name.rpartition("/")[2] for name in seen[1]] == ["dirty", "call", "done"]
    assert kvm.instances() == {}
    assert kvm.probes() == []


def test_only_the_vms_threads_are_recorded(kvm, tmp_path):
    run = Run(kvm, tmp_path, ring_rounds(kvm, [[1]]), rounds=1)
    seen = {}
    feed = run.feed

    def looked(now):
        for name, path in kvm.instances().items():
            seen[name] = (path / "set_event_pid").read_text().split()
            assert (path / "options/event-fork").read_text() == "1"
            assert (path / "trace_clock").read_text() == "mono"
        (calls,) = (kvm.instances()["calls"] / "events").glob("pmlkit_*/call/filter")
        seen["filter"] = calls.read_text()
        feed(now)

    run.feed = looked
    run()
    assert seen["log"] == seen["marks"] == seen["calls"] == ["4711", "4712", "4713"]
    assert str(RESET) in seen["filter"]
    assert str(GET) in seen["filter"]


@pytest.mark.parametrize(
    ("release", "order"),
    [("6.1.0", [3, 2, 1, 9]), ("6.12.1", [3, 2, 1, 9]), ("6.14.0", [1, 2, 3, 9])],
)
def test_a_drain_is_in_the_guests_order(tmp_path, monkeypatch, release, order):
    """Before Linux 6.14 the newest entry comes first; a fault's page comes after the drain."""
    kvm = fake_kvm.FakeKvm(tmp_path / "host", release)
    kvm.install(monkeypatch.setattr)

    def feed(now):
        rearm(kvm, RESET, now)
        marks = [entry(now + 1500, 4712, 0), fault(now + 3000, 4712), entry(now + 4000, 4712, 0)]
        kvm.feed(MARKS, 1, marks)
        log = [dirty(now + 2000 + n, 4712, gfn) for n, gfn in enumerate((1, 2, 3))]
        kvm.feed(LOG, 1, [*log, dirty(now + 3100, 4712, 9)])
        rearm(kvm, RESET, now + 9000)

    run = Run(kvm, tmp_path, feed, rounds=1)
    run()
    trace = run.trace()
    assert by_round(trace) == [order]
    batches = trace.batches
    assert batches.entries.tolist() == [3, 1]
    # Between the entry of the vCPU and the drain.
    assert (batches.t_end_ns - batches.t_start_ns).tolist() == [502, 1600]


def test_a_vcpu_is_told_by_its_entries_not_by_the_name_of_its_thread(kvm, tmp_path):
    def feed(now):
        rearm(kvm, RESET, now)
        kvm.feed(MARKS, 0, [entry(now + 1100, 4712, 5), entry(now + 1200, 4713, 3)])
        kvm.feed(LOG, 0, [dirty(now + 2000, 4712, 1)])
        kvm.feed(LOG, 1, [dirty(now + 3000, 4713, 2)])
        rearm(kvm, RESET, now + 9000)

    run = Run(kvm, tmp_path, feed, rounds=1)
    run()
    assert run.trace().to_pandas().vcpu.tolist() == [5, 3]


def test_without_entries_the_threads_names_tell_it(kvm, tmp_path):
    def feed(now):
        rearm(kvm, RESET, now)
        log = [dirty(now + 2000, 4713, 1), dirty(now + 9000, 4712, 2), dirty(now + 20000, 4711, 3)]
        kvm.feed(LOG, 0, log)
        rearm(kvm, RESET, now + 30000)

    run = Run(kvm, tmp_path, feed, rounds=1, marks=False)
    run()
    trace = run.trace()
    assert trace.to_pandas().vcpu.tolist() == [1, 0, 0]
    assert any("1 entries come from threads that run no vCPU" in note for note in trace.meta.notes)


def test_what_comes_before_the_first_rearm_is_left_out(kvm, tmp_path):
    def feed(now):
        kvm.feed(LOG, 0, [dirty(now + n, 4712, n) for n in range(10)])
        rearm(kvm, RESET, now + 1000)
        kvm.feed(LOG, 0, [dirty(now + 5000, 4712, 77)])
        rearm(kvm, RESET, now + 9000)

    run = Run(kvm, tmp_path, feed, rounds=1)
    run()
    trace = run.trace()
    assert by_round(trace) == [[77]]
    assert any(note.startswith("10 entries before the first re-arm") for note in trace.meta.notes)


def regions(now, flags, slots=((0, 0, 16 << 20), (1, 1 << 32, 16 << 20))):
    """Make the calls by which QEMU switches the logging of two slots on or off."""
    return [
        event
        for n, (slot, address, size) in enumerate(slots)
        for event in returned(
            REGION, now + 100 * n, values=(slot, flags, address, size, 1 << 40), length=50
        )
    ]


def test_one_measurement_with_bitmaps_is_one_round(kvm, tmp_path):
    """Logging on, the bitmap taken and cleared, a second, the bitmap taken, logging off: twice."""

    def feed(now):
        for at in (now, now + 90 * MS):
            kvm.feed(LOG, 0, [dirty(at + 150, 4712, 1)])
            kvm.feed(LOG, 0, [dirty(at + 2270, 4712, 99)])  # slot 1 is still to be cleared
            kvm.feed(LOG, 0, [dirty(at + 9000 + n, 4712, 100 + n) for n in range(3)])
            kvm.feed(LOG, 0, [dirty(at + 50 * MS + 1100, 4712, 200)])
            calls = regions(at, 1)
            for n, (number, slot) in enumerate([(GET, 0), (GET, 1), (CLEAR, 0), (CLEAR, 1)]):
                calls += returned(number, at + 2000 + 100 * n, values=(slot,), length=50)
            calls += returned(GET, at + 50 * MS, values=(0,))
            calls += returned(GET, at + 50 * MS + 2000, values=(1,))
            # At once: bitmaps that are taken long after each other are no group.
            kvm.feed(CALLS, 0, calls + regions(at + 51 * MS, 0))

    run = Run(kvm, tmp_path, feed, rounds=2)
    run()
    trace = run.trace()
    assert [sorted(frames) for frames in by_round(trace)] == [[99, 100, 101, 102, 200]] * 2
    length = 50 * MS + 3000 - 2200
    assert (trace.rounds.t_end_ns - trace.rounds.t_start_ns).tolist() == [length, length]
    assert any("between measurements are omitted from the clock" in n for n in trace.meta.notes)
    # The slots are the guest's memory.
    assert trace.meta.memory_bytes == 32 << 20
    assert trace.meta.memory_map == [
        {"start": 0, "end": 16 << 20, "type": "usable"},
        {"start": 1 << 32, "end": (1 << 32) + (16 << 20), "type": "usable"},
    ]


def test_a_bitmap_that_is_taken_rearms_if_nothing_clears(kvm, tmp_path):
    def feed(now):
        for n in range(4):
            kvm.feed(LOG, 0, [dirty(now + n * 10_000 + 5000, 4712, n)])
            rearm(kvm, GET, now + (n + 1) * 10_000)

    run = Run(kvm, tmp_path, feed, rounds=3)
    run()
    assert by_round(run.trace()) == [[1], [2], [3]]


def test_the_round_in_which_a_vm_ends_is_kept(kvm, tmp_path):
    def feed(now):
        rearm(kvm, RESET, now)
        rearm(kvm, RESET, now + 5000)
        kvm.feed(LOG, 0, [dirty(now + 7000, 4712, 42)])
        kvm.end()

    run = Run(kvm, tmp_path, feed)
    assert run() == {"complete": True, "why": "the VM has ended", "rounds": 1}
    trace = run.trace()
    assert by_round(trace) == [[], [42]]
    assert "the last round was not closed: the VM ended in it" in trace.meta.notes


@pytest.mark.parametrize("rearms", [0, 1])
def test_without_two_rearms_the_error_says_what_is_missing(kvm, tmp_path, rearms):
    def feed(now):
        for n in range(rearms):
            rearm(kvm, RESET, now + 10 * n)
        kvm.end()

    run = Run(kvm, tmp_path, feed)
    run()
    why = "re-armed once" if rearms else "is it logging"
    with pytest.raises(NotATrace, match=why):
        ingest(run.folder, run.out)


def test_lost_is_what_the_kernel_counts(kvm, tmp_path):
    """Of each round, and of the time before the first, whether the pages say how many or not."""

    def feed(now):
        kvm.feed(LOG, 0, [dirty(now + 10, 4712, 1)])
        kvm.feed(LOG, 0, [dirty(now + 20, 4712, 2)], missed=1000)  # before the first re-arm
        rearm(kvm, RESET, now + 1000)
        kvm.feed(LOG, 1, [dirty(now + 3000, 4713, 3)])
        kvm.feed(LOG, 1, [dirty(now + 4000, 4713, 4)], missed=7)
        rearm(kvm, RESET, now + 9000)
        kvm.feed(LOG, 1, [dirty(now + 11000, 4713, 5)], missed=-1)
        kvm.count(LOG, 0, overrun=1000)
        kvm.count(LOG, 1, overrun=20, dropped=3)
        rearm(kvm, RESET, now + 19000)

    run = Run(kvm, tmp_path, feed, rounds=2)
    run()
    trace = run.trace()
    assert trace.rounds.lost.tolist() == [7, 16]
    assert trace.meta.lost == 23
    assert "1,000 more were lost there" in trace.meta.notes


def test_a_round_of_which_all_was_lost_has_a_batch_for_its_losses(kvm, tmp_path):
    def feed(now):
        rearm(kvm, RESET, now)
        rearm(kvm, RESET, now + 1000)
        kvm.count(LOG, 0, overrun=5)
        rearm(kvm, RESET, now + 2000)

    run = Run(kvm, tmp_path, feed, rounds=2)
    run()
    trace = run.trace()
    assert trace.rounds.lost.tolist() == [0, 5]
    assert trace.batches.lost.tolist() == [5]


@pytest.mark.parametrize("missed", [243, 2])
def test_no_round_looks_whole_that_a_gap_touches(kvm, tmp_path, missed):
    """The kernel says how many events a gap has, and not where in it: here it has three rounds."""

    def feed(now):
        rearm(kvm, RESET, now + 1000)
        kvm.feed(LOG, 0, [dirty(now + 4000, 4712, 1)])
        rearm(kvm, RESET, now + 11000)
        rearm(kvm, RESET, now + 21000)
        kvm.feed(LOG, 0, [dirty(now + 26000, 4712, 2)], missed=missed)
        kvm.count(LOG, 0, overrun=missed)
        rearm(kvm, RESET, now + 31000)

    run = Run(kvm, tmp_path, feed, rounds=3)
    run()
    lost = run.trace().rounds.lost
    assert lost.sum() == missed
    if missed > 3:
        assert lost[1] > lost[0] > lost[2] > 0  # the longer in the gap, the more


def test_a_mark_that_is_lost_is_no_entry_that_is_lost(kvm, tmp_path):
    def feed(now):
        rearm(kvm, RESET, now)
        kvm.feed(MARKS, 0, [entry(now + 1500, 4712, 0)], missed=50)
        kvm.feed(LOG, 0, [dirty(now + 3000, 4712, 3)])
        kvm.count(MARKS, 0, overrun=50)
        rearm(kvm, RESET, now + 9000)

    run = Run(kvm, tmp_path, feed, rounds=1)
    run()
    assert run.trace().meta.lost == 0


def test_memory_that_is_added_is_told(kvm, tmp_path):
    def feed(now):
        kvm.feed(CALLS, 0, regions(now, 1))
        rearm(kvm, RESET, now + 1000)
        new = (2, 1, 5 << 32, 1 << 20, 1 << 41)
        kvm.feed(CALLS, 0, [call(now + 2000, 4711, REGION, new), done(now + 2100, 4711)])
        rearm(kvm, RESET, now + 9000)

    run = Run(kvm, tmp_path, feed, rounds=1)
    run()
    trace = run.trace()
    assert "memory was added: slot 2, 1024 KiB" in trace.meta.notes
    assert trace.meta.memory_bytes == 33 << 20


def test_the_ready_file_says_that_the_capture_is_on(kvm, tmp_path, capsys):
    ready = tmp_path / "ready"
    feed = ring_rounds(kvm, [[1]])
    run = Run(kvm, tmp_path, lambda now: (until(ready.exists), feed(now)), rounds=1,
              ready=str(ready))  # fmt: skip
    run()
    assert "agent: capture is on" in capsys.readouterr().err


def test_a_spool_that_ends_in_the_middle_is_a_trace_that_says_so(kvm, tmp_path):
    pages = [list(range(n, n + 50)) for n in range(5)]
    run = Run(kvm, tmp_path, ring_rounds(kvm, pages), rounds=5)
    run()
    path = run.folder / FRAMES_FILE
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b'"complete"') - 10])
    trace = ingest(run.folder, run.out)
    assert trace.meta.complete is False
    assert trace.n_rounds == 5
    assert any("shorter than requested" in note for note in trace.meta.notes)


def test_the_job_may_be_a_file(kvm, tmp_path, monkeypatch):
    (tmp_path / "job.json").write_text(json.dumps({"seconds": 0.05, "unknown": 1}))
    monkeypatch.setattr(agent, "Host", lambda: kvm.host)
    assert agent.main([str(tmp_path / "job.json"), str(kvm.pid), str(tmp_path / "s")]) == 0
    assert (tmp_path / "s").exists()


def test_an_entry_outside_of_the_memory_slots_is_left_out(kvm, tmp_path):
    def feed(now):
        kvm.feed(CALLS, 0, regions(now, 1))
        rearm(kvm, RESET, now + 1000)
        kvm.feed(LOG, 0, [dirty(now + 3000, 4712, 0xA0000), dirty(now + 3100, 4712, 5)])
        rearm(kvm, RESET, now + 9000)

    run = Run(kvm, tmp_path, feed, rounds=1)
    run()
    trace = run.trace()
    assert by_round(trace) == [[5]]
    assert "1 entries outside of the memory slots were omitted" in trace.meta.notes


def test_any_interleaving_of_cpus_and_losses_is_counted_to_the_entry(kvm, tmp_path):
    rng = np.random.default_rng(7)
    made, lost, kept = [], 0, 0

    def feed(now):
        nonlocal lost, kept
        at = now
        rearm(kvm, RESET, at)
        for _ in range(6):
            at += 5000
            entries = int(rng.integers(0, 60))
            of_round = []
            for _ in range(entries):
                cpu, events = int(rng.integers(0, 2)), []
                for _ in range(int(rng.integers(1, 90))):
                    at += int(rng.integers(1, 5000))
                    events.append(dirty(at, 4712 + cpu, int(rng.integers(0, 1 << 20))))
                missed = int(rng.integers(1, 1 << 30)) if rng.random() < 0.3 else None
                lost += missed or 0
                kept += len(events)
                of_round += [gfn for _, gfn in ((t, d[16:24]) for t, d in events)]
                kvm.feed(LOG, cpu, events, missed)
            made.append(sorted(int.from_bytes(g, "little") for g in of_round))
            at += 5000
            kvm.count(LOG, 0, overrun=lost)
            rearm(kvm, RESET, at)

    run = Run(kvm, tmp_path, feed, rounds=6, marks=False)
    run()
    trace = run.trace()
    assert [sorted(frames) for frames in by_round(trace)] == made
    assert (trace.meta.entries, trace.meta.lost) == (kept, lost)
