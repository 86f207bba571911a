# SPDX-License-Identifier: Apache-2.0
"""Events of many CPUs become batches piece by piece, as a plain program makes them of all at once.

The plain program (`Oracle`) holds everything in lists of Python.
"""

import random
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import fake_kvm
import numpy as np
import pytest
import tracedat

from pmlkit import ftrace
from pmlkit.kvm.frames import LOG, MARKS, PAGES_HEAD, Frame, pack_json
from pmlkit.sources.ingest import ingest
from pmlkit.sources.kvm import ingest as kvm_ingest
from pmlkit.spool import FRAMES_FILE, SpoolWriter

DIRTY = fake_kvm.event_format("dirty", fake_kvm.DIRTY, (("__probe_ip", 8), ("gfn", 8)))
FORMATS = {"dirty": DIRTY, "kvm_entry": fake_kvm.KVM_ENTRY, "kvm_page_fault": fake_kvm.KVM_FAULT}
LIMIT_NS = 100_000_000  # between two pages of a drain
MS = 1_000_000


def header(release="6.1.0", formats=FORMATS, vcpus=(0, 1, 2)):
    threads = {str(50 + vcpu): vcpu for vcpu in vcpus}
    return {"source": "kvm", "mode": "log", "epoch_ns": 0, "vcpus": threads,
            "domain": {"name": "x", "vcpus": 3, "memory_bytes": 1 << 30},
            "host": {"release": release, "pml": True},
            "capture": {"clock": "mono", "header_page": tracedat.HEADER_PAGE.decode(),
                        "formats": formats}}  # fmt: skip


@dataclass
class Case:
    """A host's events, and how they came."""

    log: dict = field(default_factory=lambda: {0: [], 1: []})  # (time, thread, gfn), by CPU
    marks: dict = field(default_factory=lambda: {0: [], 1: []})  # (time, thread, kind)
    rounds: list = field(default_factory=list)
    slots: list = field(default_factory=list)
    losses: dict = field(default_factory=dict)  # before which event of a CPU, and how many


def made(rng, marked):
    """Make the events of three threads that move between two CPUs; some have no marks."""
    case, at = Case(), rng.randrange(1, 1000)
    for _ in range(rng.randrange(1, 120)):
        thread, cpu = rng.choice((50, 51, 52)), rng.randrange(2)
        if marked and thread < 52 and rng.random() < 0.8:
            case.marks[cpu].append((at, thread, rng.choice("ef")))
            at += rng.choice((0, 1, 500))
        for _ in range(rng.choice((1, 1, 3, 40, 600))):
            case.log[cpu].append((at, thread, rng.randrange(1 << 12)))
            at += rng.choice((1, 1, 1, 50, 1999, 2000, 2001))
        at += rng.choice((1, 3000, MS, LIMIT_NS - 2000, LIMIT_NS, 2 * LIMIT_NS))
    start = at // rng.choice((3, 10, 1000))
    while start < at:
        end = start + rng.randrange(0, max(at // rng.randrange(1, 20), 1))
        case.rounds.append((start, end))
        start = end + rng.choice((0, 0, 1000, MS))
    if rng.random() < 0.5:
        case.slots = [(0, 1000), (1500, 1600)]
    for cpu, events in case.log.items():
        for place in sorted(rng.sample(range(len(events)), min(len(events), rng.randrange(3)))):
            case.losses[cpu, place] = rng.choice((-1, rng.randrange(1, 1 << 40)))
    return case


class Oracle:
    """What has to come out."""

    def __init__(self, case, turn):
        self.case, self.turn = case, turn
        batches = [b for d in self._drains() for b in self._parts(d)]
        self.batches = sorted(batches, key=lambda b: (b["round"], b["end"], b["thread"]))
        self.lost = [0] * len(case.rounds)
        for (cpu, place), count in case.losses.items():
            times = [time for time, *_ in case.log[cpu]]
            begun = [n for n, (start, _) in enumerate(case.rounds) if start < times[place]]
            after = times[place - 1] if place else 0
            if begun and after < case.rounds[begun[-1]][1]:
                self.lost[begun[-1]] += max(count, 0)

    def _drains(self):
        case, drains, open_drain, since = self.case, [], {}, {}
        pages = [(t, 1, thread, gfn) for of in case.log.values() for t, thread, gfn in of]
        marks = [(t, 0, thread, what) for of in case.marks.values() for t, thread, what in of]
        with_marks = {thread for _, _, thread, _ in marks}
        for time, page, thread, value in sorted(pages + marks, key=lambda event: event[:2]):
            if not page:
                open_drain.pop(thread, None)
                if value == "e":
                    since[thread] = time
                continue
            drain = open_drain.get(thread)
            gap = LIMIT_NS if thread in with_marks else 2000
            if drain is None or len(drain["pages"]) == 512 or time - drain["pages"][-1][0] >= gap:
                drain = {"thread": thread, "since": since.get(thread, -1), "pages": []}
                open_drain[thread] = drain
                drains.append(drain)
            drain["pages"].append((time, value))
        return drains

    def _parts(self, drain):
        parts = {}
        for time, gfn in drain["pages"]:
            inside = [n for n, (start, end) in enumerate(self.case.rounds) if start < time <= end]
            if inside and self._in_memory(gfn):
                parts.setdefault(inside[0], []).append((time, gfn))
        for number, pages in parts.items():
            gfns = [gfn for _, gfn in pages]
            yield {"round": number, "end": pages[-1][0], "thread": drain["thread"],
                   "since": drain["since"], "gfns": gfns[::-1] if self.turn else gfns}  # fmt: skip

    def _in_memory(self, gfn):
        slots = self.case.slots
        return not slots or any(start <= gfn < end for start, end in slots)


def written(case, folder, rng, release, passes):
    """Write the spool of a case; some passes over the buffers."""
    pack = {LOG: lambda t, thread, gfn: fake_kvm.dirty(t, thread, gfn),
            MARKS: lambda t, thread, kind: (fake_kvm.entry(t, thread, thread - 50) if kind == "e"
                                            else fake_kvm.fault(t, thread))}  # fmt: skip
    events = {(LOG, cpu): of for cpu, of in case.log.items()}
    events |= {(MARKS, cpu): of for cpu, of in case.marks.items()}
    last = max((of[-1][0] for of in events.values() if of), default=0) + 1
    sent = dict.fromkeys(events, 0)
    folder.mkdir()
    with SpoolWriter(folder / FRAMES_FILE, header(release)) as writer:
        for number in range(1, passes + 1):
            horizon = last * number // passes
            for (stream, cpu), of in events.items():
                stop = sum(event[0] < horizon for event in of)
                stop = min(len(of), stop + rng.randrange(3))  # some come meanwhile
                pages = in_pages(case, stream, cpu, sent[stream, cpu], max(stop, sent[stream, cpu]))
                sent[stream, cpu] = max(stop, sent[stream, cpu])
                data = [ftrace.trimmed(tracedat.page([pack[stream](*of[n]) for n in span], missed),
                                       ftrace.Layout()) for span, missed in pages]  # fmt: skip
                writer.append(Frame.PAGES, PAGES_HEAD.pack(stream, 0, 0, cpu), *data)
            writer.append(Frame.TICK, pack_json(ns=horizon))
        for number, (start, end) in enumerate(case.rounds):
            writer.append(Frame.ROUND, pack_json(round=number, start_ns=start, end_ns=end))
        slots = {str(n): {"gfn": start, "pages": end - start, "flags": 0}
                 for n, (start, end) in enumerate(case.slots)}  # fmt: skip
        writer.append(Frame.END, pack_json(complete=True, why="", slots=slots))


def in_pages(case, stream, cpu, first, stop):
    """Yield the numbers of the events of each page, and how many were lost before it."""
    while first < stop:
        end = first + 1
        while end < min(stop, first + 100) and not (stream == LOG and (cpu, end) in case.losses):
            end += 1
        yield range(first, end), case.losses.get((cpu, first)) if stream == LOG else None
        first = end


@pytest.mark.parametrize("at_once", [1, 300, 1 << 19])
@pytest.mark.parametrize("release", ["6.1.0", "6.14.0"])
def test_events_become_the_batches_that_a_plain_program_makes(
    tmp_path, monkeypatch, at_once, release
):
    monkeypatch.setattr(kvm_ingest, "_AT_ONCE", at_once)
    for seed in range(15):
        rng = random.Random(seed)
        case = made(rng, marked=seed % 3)
        folder = tmp_path / f"{seed}.trace.spool"
        written(case, folder, rng, release, passes=rng.choice((1, 3, 40)))
        trace = ingest(folder, tmp_path / f"{seed}.trace")
        trace.check()
        assert trace.meta.complete
        wanted = Oracle(case, turn=release == "6.1.0")
        entries = trace.to_pandas()
        rows = [(b["round"], b["thread"] - 50, gfn) for b in wanted.batches for gfn in b["gfns"]]
        assert list(zip(entries["round"], entries.vcpu, entries.gfn, strict=True)) == rows, seed
        batches = trace.batches[trace.batches.entries > 0]
        assert batches.entries.tolist() == [len(b["gfns"]) for b in wanted.batches], seed
        shift, origin = shifts(case.rounds)
        spans = [clipped(b, case.rounds[b["round"]], shift[b["round"]]) for b in wanted.batches]
        assert list(zip(batches.t_start_ns, batches.t_end_ns, strict=True)) == spans, seed
        assert trace.rounds.lost.tolist() == wanted.lost, seed
        assert trace.batches.groupby("round").lost.sum().reindex(
            range(len(case.rounds)), fill_value=0).tolist() == wanted.lost  # fmt: skip
        assert trace.rounds.t_end_ns.tolist() == [
            end - s for (_, end), s in zip(case.rounds, shift, strict=True)
        ]
        assert origin == case.rounds[0][0]


def shifts(rounds):
    """Return what is taken from the times of each round: gaps are left out of a trace's clock."""
    found, at = [], rounds[0][0]
    for (start, _), before in zip(rounds, [rounds[0], *rounds], strict=False):
        at += max(start - before[1], 0) if found else 0
        found.append(at)
    return found, rounds[0][0]


def clipped(batch, span, shift):
    start, end = span[0] - shift, batch["end"] - shift
    since = 0 if batch["since"] < 0 else batch["since"] - shift
    return min(max(since, start), end), end


def test_a_drain_that_a_rearm_cuts_is_turned_round_on_each_side(tmp_path):
    """An entry counts for the round in which KVM took it out of the buffer."""
    case = Case(rounds=[(0, 100), (100, 200)])
    case.log[0] = [(98, 50, 1), (99, 50, 2), (100, 50, 3), (101, 50, 4), (102, 50, 5)]
    written(case, tmp_path / "x.trace.spool", random.Random(1), "6.1.0", 1)
    entries = ingest(tmp_path / "x.trace.spool", tmp_path / "x.trace").to_pandas()
    assert entries.gfn.tolist() == [3, 2, 1, 5, 4]
    assert entries["round"].tolist() == [0, 0, 0, 1, 1]


def test_an_event_that_comes_late_is_kept_and_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(kvm_ingest, "_AT_ONCE", 1)
    folder, ms = tmp_path / "x.trace.spool", MS
    folder.mkdir()

    def page(*events):
        data = ftrace.trimmed(tracedat.page([fake_kvm.dirty(*e) for e in events]), ftrace.Layout())
        return PAGES_HEAD.pack(LOG, 0, 0, events[0][1] - 50) + data

    with SpoolWriter(folder / FRAMES_FILE, header("6.14.0")) as writer:
        writer.append(Frame.PAGES, page((10 * ms, 50, 1), (80 * ms, 50, 2)))
        writer.append(Frame.TICK, pack_json(ns=60 * ms))
        writer.append(Frame.PAGES, page((20 * ms, 51, 3)))
        writer.append(Frame.TICK, pack_json(ns=90 * ms))
        writer.append(Frame.ROUND, pack_json(round=0, start_ns=0, end_ns=30 * ms))
        writer.append(Frame.ROUND, pack_json(round=1, start_ns=30 * ms, end_ns=90 * ms))
        writer.append(Frame.END, pack_json(complete=True, why=""))
    trace = ingest(folder, tmp_path / "x.trace")
    entries = trace.to_pandas()
    assert list(zip(entries["round"], entries.gfn, strict=True)) == [(0, 1), (1, 3), (1, 2)]
    assert "1 events arrived late: they have a later time than their own" in trace.meta.notes


PEAK = """
import sys
import pmlkit.sources.kvm.ingest as kvm
from pmlkit.sources.ingest import ingest
kvm._AT_ONCE = 1 << 16
ingest(sys.argv[1], sys.argv[2])
print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]))
"""


def long_spool(folder, pages):
    """Write the spool of one CPU that fills a page every 100 us, and is read every ms."""
    event = np.dtype([("head", "<u4"), ("kind", "<u2"), ("flags", "<u2"), ("thread", "<i4"),
                      ("ip", "<u8"), ("gfn", "<u8")])  # fmt: skip
    events = np.zeros(145, event)
    events["head"], events["kind"], events["thread"] = 6 | 600 << 5, fake_kvm.DIRTY, 50
    events["gfn"] = np.arange(145)
    folder.mkdir()
    with SpoolWriter(folder / FRAMES_FILE, header()) as writer:
        for first in range(0, pages, 10):
            data = [struct.pack("<QQ", n * MS // 10, events.nbytes) + events.tobytes()
                    for n in range(first, first + 10)]  # fmt: skip
            writer.append(Frame.PAGES, PAGES_HEAD.pack(LOG, 0, 0, 0), *data)
            writer.append(Frame.TICK, pack_json(ns=(first + 10) * MS // 10))
        writer.append(Frame.ROUND, pack_json(round=0, start_ns=0, end_ns=pages * MS))
        writer.append(Frame.END, pack_json(complete=True, why=""))


def test_memory_does_not_grow_with_the_log(tmp_path):
    """Three million entries more: in arrays they would be 100 MiB at the least."""
    peaks = []
    for name, pages in (("short", 7000), ("long", 28_000)):
        long_spool(tmp_path / f"{name}.trace.spool", pages)
        call = [sys.executable, "-c", PEAK, *(str(tmp_path / f"{name}.{end}")
                                              for end in ("trace.spool", "trace"))]  # fmt: skip
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(call, capture_output=True, text=True, check=True, cwd=root)
        peaks.append(int(done.stdout) >> 10)
    assert peaks[1] - peaks[0] < 48, peaks
