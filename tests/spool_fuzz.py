# SPDX-License-Identifier: Apache-2.0
"""A fuzz target for the readers of spools, and a loop that runs it: ``python tests/spool_fuzz.py``.

`fuzz_one` takes any bytes as a spool's. Whatever they are, who watches the spool and who makes a
trace of it end at the same frame, the first that is not understood, and raise no other error than
pmlkit's; a spool with a good round makes a trace, and stays as it is. The loop changes good spools
of a Xen collector and of a recording, half of the time sealing them anew, and keeps what reaches
new code.
"""

import argparse
import contextlib
import hashlib
import json
import random
import struct
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (1, 0)]

import fake_kvm  # noqa: E402
import tracedat  # noqa: E402
from rewriting import rewrite  # noqa: E402
from tracedat import HEADER_PAGE  # noqa: E402

from pmlkit import ftrace  # noqa: E402
from pmlkit import spool as spool_format  # noqa: E402
from pmlkit.errors import PmlkitError  # noqa: E402
from pmlkit.kvm.frames import LOG, MARKS, PAGES_HEAD, SET_HEAD  # noqa: E402
from pmlkit.kvm.frames import Frame as KvmFrame  # noqa: E402
from pmlkit.kvm.rings import BLOCK_HEAD  # noqa: E402
from pmlkit.sources.ingest import ingest  # noqa: E402
from pmlkit.sources.kvm.watch import KvmWatcher  # noqa: E402
from pmlkit.sources.recorder.messages import Marker, Message  # noqa: E402
from pmlkit.sources.watch import (  # noqa: E402
    Follower,
    RecordingWatcher,  # noqa: E402
    Watcher,
)
from pmlkit.xen import frames  # noqa: E402
from pmlkit.xen.frames import Frame  # noqa: E402

HEAD = struct.Struct("<7QIIHHIII")
FIELDS = {
    **dict.fromkeys(("seq", "first", "tsc_start", "tsc_end", "drain_tsc"), 8),
    **dict.fromkeys(("lost_entries", "lost_records"), 8),
    **{"round": 4, "count": 4, "type": 2, "reason": 2, "flags": 4, "dropped": 4, "vcpu": 4},
}
LAYOUT = [
    [name, at, size]
    for (name, size), at in zip(FIELDS.items(), accumulate((0, *FIELDS.values())), strict=False)
]
SPOOL_HEADER = {
    "source": "xen",
    "clock": "tsc",
    "tsc_khz": 1_000_000,
    "epoch_tsc": 1000,
    "pages": 65536,
    "vcpus": 2,
    "record": LAYOUT,
    "head_bytes": HEAD.size,
    "job": {"period_s": 0.001},
    "domain": {"name": "g", "memory_bytes": 64 << 20, "domid": 1},
    "mode": "pml",
}


def good_frames(rounds=3):
    """Return the frames of a small spool, and its entries: (vcpu, word) in order."""
    made, entries, n = [], [], 0
    for number in range(rounds):
        for vcpu in (0, 1):
            words = [(4096 + n + i) << 12 | 2 for i in range(3 + number)]
            n += len(words)
            told = dict.fromkeys(FIELDS, 0) | {"round": number, "vcpu": vcpu, "type": 1}
            told |= {"count": len(words), "reason": 2, "tsc_end": 1000 * (2 * number + vcpu + 2)}
            data = struct.pack(f"<{len(words)}Q", *words)
            payload = frames.RECORDS_HEAD.pack(1) + HEAD.pack(*told.values()) + data
            made.append((Frame.RECORDS, payload))
            entries += [(vcpu, word) for word in words]
        bits = frames.BITMAP_HEAD.pack(number, 65536, 0) + b"\x0f"
        made.append((Frame.DIRTY, bits))
        closed = {"round": number, "tsc_pause": 1000 * (2 * number + 3), "rearmed": 1}
        closed |= {"tsc_resume": 1000 * (2 * number + 3), "vcpus": [{"exits": number}]}
        made.append((Frame.ROUND, frames.pack_json(**closed)))
    made.append((Frame.EVENT, frames.pack_json(what="nothing", ns=5)))
    made.append((Frame.END, frames.pack_json(complete=True, why="done", rounds=rounds)))
    return made, entries


def sealed(header, made):
    """Return the bytes of a closed spool."""
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    head = spool_format.HEADER.pack(spool_format.MAGIC, spool_format.VERSION, len(text))
    parts = [head, spool_format.checksum(head, text), text]
    for number, (kind, payload) in enumerate([*made, (spool_format.END_KIND, b"")]):
        head = spool_format.FRAME.pack(spool_format.MARKER, kind, 0, number, len(payload))
        parts += [head, spool_format.checksum(head, payload), payload]
    return b"".join(parts)


RECORDER_HEADER = {
    "source": "recorder",
    "created": "2026-01-01T00:00:00+00:00",
    "workload": "toy",
    "parameters": {},
    "memory_bytes": 4 << 20,
    "period": {"ns": 1000, "insn": None},
    "ns_per_insn": 8.0,
    "options": {"window": "1us"},
    "cmdline": "quiet",
    "versions": {},
    "host": {},
    "command": "pmlkit record toy",
}


def recorded_frames(rounds=3):
    """Return the messages of a small recording, as the plugin packs them."""
    made = [(Message.MARK, struct.pack("<IIQq", 0, Marker.PHASE, 0, 0))]
    for number in range(rounds):
        times = (125 * number, 1000 * number, 125 * number + 125, 1000 * number + 1000)
        head = struct.pack("<IIQqQq", number, 1, *times)
        made.append(
            (Message.ACCESS, head + struct.pack("<3I", 100 << 3 | 2, 101 << 3 | 1, 7 << 3 | 4))
        )
        made.append((Message.PML, head + struct.pack("<I", 100)))
        made.append((Message.ROUND_END, struct.pack("<IIQqQqQQ", number, 0, *times, 3, 1)))
    made.append((Message.MARK, struct.pack("<IIQq", rounds, Marker.END, 125 * rounds, 5000)))
    return [
        *made,
        (Message.TOTALS, struct.pack("<7Q", *range(7))),
        (Message.HOST, b'{"host_s": 1}'),
    ]


KVM_OBJECTS = (KvmFrame.TICK, KvmFrame.ROUND, KvmFrame.EVENT, KvmFrame.END)
KVM_HEADER = {
    "source": "kvm",
    "mode": "log",
    "epoch_ns": 5,
    "created": "2026-01-01T00:00:00+00:00",
    "job": {"period_s": 0.001, "rounds": 3},
    "domain": {"name": "g", "vcpus": 2, "pid": 7},
    "vmm": {"command": ["qemu"], "version": None},
    "vcpus": {"11": 0, "12": 1},
    "switch": "listen",
    "host": {"release": "6.1.0", "pml": True},
    "capture": {
        "clock": "mono",
        "header_page": HEADER_PAGE.decode(),
        "formats": {
            "dirty": fake_kvm.event_format("dirty", fake_kvm.DIRTY, (("ip", 8), ("gfn", 8))),
            "kvm_entry": fake_kvm.KVM_ENTRY,
        },
    },
}


KVM_BPF_HEADER = KVM_HEADER | {
    "capture": KVM_HEADER["capture"] | {"kind": "bpf", "place": "kprobe"}
}


def kvm_frames(rounds=3, by_bpf=False):
    """Return the frames of a small spool of a KVM host's agent."""
    made = []
    for number in range(rounds):
        at = 1000 * number
        for cpu in (0, 1):
            log = [fake_kvm.dirty(at + 10 + n, 11 + cpu, 5 + n) for n in range(3)]
            marks = [fake_kvm.entry(at + 1, 11 + cpu, cpu)]
            if by_bpf:
                entries = (
                    struct.pack("<QQ", at + 10 + n, (5 + n) << 22 | 11 + cpu) for n in range(3)
                )
                block = BLOCK_HEAD.pack(number, 3) + b"".join(entries)
                made.append((KvmFrame.ENTRIES, PAGES_HEAD.pack(LOG, 0, 0, cpu) + 2 * block))
            for stream, events in ((LOG, log), (MARKS, marks))[by_bpf:]:
                page = ftrace.trimmed(tracedat.page(events, number or None), ftrace.Layout())
                made.append((KvmFrame.PAGES, PAGES_HEAD.pack(stream, 0, 0, cpu) + page))
        one = {"round": number, "start_ns": at, "end_ns": at + 1000, "agent_cpu_ns": 5}
        made.append((KvmFrame.ROUND, frames.pack_json(**one)))
        made.append((KvmFrame.TICK, frames.pack_json(ns=at + 1000)))
    made.append((KvmFrame.EVENT, frames.pack_json(what="nothing", ns=5)))
    return [*made, _kvm_end(rounds)]


def _kvm_end(rounds):
    slots = {"0": {"gfn": 0, "pages": 4096, "address": 1 << 40, "flags": 1}}
    counts = {"log": {"overrun": 20, "dropped": 1}}
    last = {"complete": True, "why": "done", "rounds": rounds, "open_ns": None}
    return KvmFrame.END, frames.pack_json(**last, counts=counts, slots=slots)


def kvm_sets(rounds=3):
    """Return the frames of a small spool of soft-dirty bits."""
    made = []
    for number in range(rounds):
        pages = SET_HEAD.pack(number, 0) + struct.pack("<3Q", 1, 5 + number, 8191)
        made.append((KvmFrame.PAGE_SET, pages))
        one = {"start_ns": 1000 * number, "end_ns": 1000 * number + 1000, "pages": 3}
        made.append((KvmFrame.ROUND, frames.pack_json(round=number, **one)))
    return [*made, _kvm_end(rounds)]


def watched(path):
    """Return the rounds that are seen of a spool, as `pmlkit collect` shows them."""

    def make(header):
        if header.get("source") == "kvm":
            return KvmWatcher(header)
        recorded = header.get("source") == "recorder"
        return RecordingWatcher(header) if recorded else Watcher(header)

    follower = Follower(path, make)
    try:
        return list(follower.poll())
    finally:
        follower.close()


def fuzz_one(data, folder):
    """Watch bytes taken for a spool, and make a trace of them; returns it, or None if refused."""
    path = folder / "frames.spool"
    rewrite(path, data)
    seen = watched(path)
    try:
        trace = ingest(folder, folder / "x.trace", overwrite=True)
    except PmlkitError as error:
        assert str(error).isprintable() and str(error)
        assert not seen or b'"recorder"' in data, f"{len(seen)} rounds were seen: {error}"
        trace = None
    assert path.read_bytes() == data
    if trace is not None:
        # A round that was not closed is in the trace, and nobody has seen it.
        log = trace.pml if trace.meta.kind == "access" else trace
        assert len(seen) <= log.n_rounds <= len(seen) + 2
        assert log.rounds.t_end_ns.tolist()[: len(seen)] == [each.t_ns for each in seen]
    return trace


def change(data, rng):
    """Do to some bytes what disks, crashes and people do."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        start, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 4, 8, 60))
        what = rng.randrange(7)
        if what == 0:
            data[start : start + length] = rng.randbytes(len(data[start : start + length]))
        elif what == 1:
            data[start : start + length] = bytes(len(data[start : start + length]))
        elif what == 2:
            del data[start : start + length]
        elif what == 3:
            data[start:start] = rng.randbytes(length)
        elif what == 4:
            source = rng.randrange(len(data) + 1)
            data[start : start + length] = data[source : source + length]
        elif what == 5:
            data[start : start + 1] = bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF))])
        else:
            del data[start:]
    return bytes(data)


NASTY = (None, True, -1, 0, 1 << 53, 1 << 63, 1 << 64, 10**30, 1.5, 1e300, "", "x", "\x1b[2J",
         "\ud800", [], [[]], {}, {"a": 1}, [1, "x"], "9" * 5000)  # fmt: skip


def lie(told, rng):
    """Give another value to one field of a JSON object, or to one of an object in it."""
    told = dict(told)
    name = rng.choice([*told, "source"])
    inner = told.get(name)
    if isinstance(inner, dict) and inner and rng.random() < 0.7:
        told[name] = lie(inner, rng)
    elif rng.random() < 0.1:
        told.pop(name, None)
    else:
        told[name] = rng.choice(NASTY)
    return told


def is_object(payload):
    return payload.startswith(b"{")


def nonsense(header, made, rng):
    """Change what frames say, and seal them: whole frames of nonsense."""
    made = list(made)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(made))
        kind, payload = made[at]
        what = rng.randrange(7)
        if what == 5 and is_object(payload):
            with contextlib.suppress(ValueError, RecursionError):  # hostile already
                made[at] = kind, json.dumps(lie(json.loads(payload), rng)).encode()
        elif what >= 5:
            header = lie(header, rng) if rng.random() < 0.5 else header
        elif what == 0:
            made[at] = kind, change(payload, rng) if payload else b"x"
        elif what == 1:
            made[at] = rng.choice((*Frame, 3, 64)), payload
        elif what == 2:
            del made[at]
            made = made or [(kind, payload)]
        elif what == 3:
            made.insert(rng.randrange(len(made)), made[at])
        else:
            text = change(json.dumps(header).encode(), rng)
            return sealed(text, made)
    return sealed(header, made)


class _Coverage:
    """Which lines of the readers an input reaches (`sys.settrace`, on these files only)."""

    def __init__(self):
        self.seen = set()

    def of(self, work):
        found = set()

        def lines(frame, event, _):
            found.add((frame.f_code.co_filename, frame.f_lineno))
            return lines

        def calls(frame, event, _):
            name = frame.f_code.co_filename
            reads = ("spool", "xen_", "stream", "seen", "messages", "recorder_")
            return lines if any(word in name for word in reads) else None

        sys.settrace(calls)
        try:
            work()
        finally:
            sys.settrace(None)
        fresh = bool(found - self.seen)
        self.seen |= found
        return fresh


def run(seconds, seed, folder):
    """Fuzz for some seconds; returns how many inputs were tried and how many were kept."""
    rng, coverage = random.Random(seed), _Coverage()
    good = (SPOOL_HEADER, good_frames()[0]), (RECORDER_HEADER, recorded_frames())
    kept, tried, end = [sealed(*each) for each in good], 0, time.monotonic() + seconds
    while not tried or time.monotonic() < end:
        data = change(rng.choice(kept), rng) if rng.random() < 0.5 else None
        data = data or nonsense(*rng.choice(good), rng)
        try:
            if coverage.of(lambda data=data: fuzz_one(data, folder)):
                kept.append(data)
        except BaseException:
            name = f"spool-fuzz-{hashlib.sha1(data).hexdigest()[:12]}.bin"
            Path(name).write_bytes(data)
            print(f"the input is in {name}; seed {seed}", file=sys.stderr)
            raise
        tried += 1
    return tried, len(kept)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("inputs", nargs="*", type=Path, help="run these instead")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(suffix=".trace.spool") as folder:
        for path in told.inputs:
            print(path, fuzz_one(path.read_bytes(), Path(folder)))
        if not told.inputs:
            tried, kept = run(told.seconds, told.seed, Path(folder))
            print(f"{tried} inputs, {kept} of them reached new code (seed {told.seed})")


if __name__ == "__main__":
    main()
