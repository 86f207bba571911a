# SPDX-License-Identifier: Apache-2.0
"""A lab spool (what `pmlkit.xen.agent` wrote) becomes a PML trace."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd

from pmlkit.errors import NotATrace
from pmlkit.kinds import Kind
from pmlkit.schema import TraceMeta
from pmlkit.sources.host import read_text
from pmlkit.sources.recorder_ingest import COUNTERS, SIZES, read_report
from pmlkit.spool import read_spool
from pmlkit.trace import Trace
from pmlkit.writer import TraceWriter
from pmlkit.xen.frames import Frame, unpack_batch, unpack_bitmap
from pmlkit.xen.pml import REASONS

_BITMAP_ONLY = "stock log-dirty gives a bitmap: entries are by frame number, not in log order"
_HARVEST = (
    "accessed flags tell which pages were touched, not in which order, nor whether a page that "
    "was written was read too"
)
# Where libxl puts a PVH guest's pages for its console and Xenstore; in no map of the guest's.
_SPECIAL = (0xFEFF8000, 0xFF000000, "Xen special pages")
_NO_WORDS = np.zeros(0, np.uint64)
_BATCH_COLUMNS = [
    "batch",
    "round",
    "vcpu",
    "t_start_ns",
    "t_end_ns",
    "insn_start",
    "insn_end",
    "reason",
    "lost",
    "drain_ns",
]


def ingest(spool, out, overwrite=False):
    """Turn a lab run's spool folder into a trace.

    Parameters
    ----------
    spool, out : Path
    overwrite : bool

    Returns
    -------
    Trace
        The PML log; with a harvest of accessed flags an access trace, and the log nested in it.
    """
    spool = Path(spool)
    frames = read_spool(spool / "frames.spool")
    told = _Told(frames)
    if not told.rounds:
        raise NotATrace(spool, "no round was closed before it ended", "run it again")
    report = read_report(read_text(spool / "guest.txt").replace("\r", ""))
    meta = told.meta(report)
    if not told.accessed:
        with TraceWriter(out, meta, overwrite=overwrite) as writer:
            told.write(writer)
            _finish(writer, told, report, frames.missing)
        return Trace.open(out)
    touched = dataclasses.replace(meta, kind="access", notes=[*meta.notes, _HARVEST])
    with TraceWriter(out, touched, overwrite=overwrite) as writer:
        with writer.pml(meta) as pml:
            told.write(pml)
            _finish(pml, told, report, frames.missing)
        told.write_accessed(writer)
        _finish(writer, told, report, frames.missing)
    return Trace.open(out)


def _finish(writer, told, report, missing):
    writer.set_regions(told.regions(report))
    writer.set_phases(told.phases())
    if (writer.meta.kind == "access" or not told.accessed) and (guest := told.guest()):
        writer.set_guest(pd.DataFrame(guest))
    for note in told.notes(missing):
        writer.note(note)


def _memory_map(report):
    """Return what the guest calls its memory, and the pages that it shares with Xen."""
    told = [*report.memory, *([_SPECIAL] if report.memory else [])]
    return [{"start": start, "end": end, "type": kind} for start, end, kind in told]


class _Told:
    """All frames of a spool, sorted."""

    def __init__(self, frames):
        self.header = frames.header
        self.rounds, self.batches, self.bitmaps, self.lines = [], [], {}, []
        self.accessed = {}
        self.end = None
        for kind, payload in frames:
            self._take(kind, payload)
        self.stock = self.header.get("clock") != "tsc"
        self._drop_open_round()

    def _take(self, kind, payload):
        if kind == Frame.ROUND:
            self.rounds.append(json.loads(payload))
        elif kind == Frame.BATCH:
            self.batches.append(unpack_batch(payload))
        elif kind == Frame.DIRTY:
            number, bits = unpack_bitmap(payload)
            self.bitmaps[number] = bits
        elif kind == Frame.ACCESSED:
            number, bits = unpack_bitmap(payload)
            self.accessed[number] = bits
        elif kind == Frame.CONSOLE:
            self.lines.append(json.loads(payload))
        elif kind == Frame.END:
            self.end = json.loads(payload)

    def _drop_open_round(self):
        """What was drained after the last round was closed belongs to no round: it is the stop."""
        closed = len(self.rounds)
        self.after = [b for b in self.batches if b["round"] >= closed]
        self.batches = [b for b in self.batches if b["round"] < closed]
        self.batches.sort(key=lambda b: (b["round"], b["tsc_end"], b["vcpu"], b["seq"]))

    def ns(self, tsc):
        """Turn a TSC stamp into ns since the start of the log."""
        ticks = np.asarray(tsc, dtype=np.int64) - self.header["epoch_tsc"]
        return np.maximum(ticks * 1_000_000 // self.header["tsc_khz"], 0)

    def meta(self, report):
        h = self.header
        return TraceMeta(
            kind="pml",
            source=h.get("source", "xen"),
            created=h.get("created"),
            domain={
                "name": h["guest"],
                "memory_bytes": h["memory_bytes"],
                "vcpus": h["guest_vcpus"],
                "page_size": 4096,
            },
            memory_map=_memory_map(report),
            clock={"unit": "ns", "kind": "icount", "ns_per_insn": h.get("ns_per_insn")},
            period={"ns": self._period_ns(), "insn": None},
            known=self._known(report),
            options=h["options"] | {"job": h["job"]},
            overheads=self._overheads(),
            host={"machine": "Bochs"},
            provenance={"command": h.get("command", ""), "versions": h["versions"]},
            complete=bool(self.end) and len(self.rounds) > 0,
        )

    def _period_ns(self):
        job = self.header["job"]
        return None if job["lockstep"] else round(job["period_s"] * 1e9)

    def _known(self, report):
        known = [
            dict(zip(("phase", "region", "kind", "pages"), e, strict=True)) for e in report.expected
        ]
        for region in self.header["regions"]:
            if region.get("kind") in ("read", "written", "touched"):
                row = {"phase": "rounds", "region": region["name"], "kind": region["kind"]}
                known.append(row | {"pages": region["pages"]})
        return known

    def _overheads(self):
        if self.stock:
            return {"write_faults": sum(r["faults"] for r in self.rounds)}
        vcpus = self.rounds[-1]["vcpus"]
        return {name: sum(v[name] for v in vcpus) for name in vcpus[0]}

    def regions(self, report):
        rows = [(r["name"], r["gfn"], r["pages"]) for r in self.header["regions"]]
        return pd.DataFrame(rows + report.regions, columns=["name", "gfn", "pages"])

    def phases(self):
        """Phases as the agent heard of them; a guest with a mailbox is in one all the time."""
        spoken = [(t["line"][6:].strip(), t["ns"]) for t in self.lines if t["line"][:6] == "phase "]
        if not spoken:
            return [{"name": "rounds", "round": 0, "t_ns": 0, "insn": -1}]
        ends = self._round_times()[1]
        starts = [int(min(max(ns, 0), ends[-1])) for _, ns in spoken]
        rounds = np.minimum(np.searchsorted(ends, starts, side="right"), len(ends) - 1)
        named = zip(spoken, starts, rounds, strict=True)
        return [{"name": n, "round": int(r), "t_ns": t, "insn": -1} for (n, _), t, r in named]

    def guest(self):
        """Return what the guest said of its memory, at the times at which dom0 read it."""
        said = [line for line in self.lines if line["line"].startswith("sample ")]
        return [_sample(line["line"].split()[1:], line["ns"]) for line in said if line["ns"] >= 0]

    def notes(self, missing):
        if self.stock:
            yield _BITMAP_ONLY
        if missing or not self.end:
            yield f"shorter than asked: {missing or 'the collection did not come to its end'}"
        if any(b["count"] for b in self.after):
            entries = sum(b["count"] for b in self.after)
            yield f"{entries} entries were logged after the last round was closed, and left out"

    def _round_times(self):
        if self.stock:
            ends = np.array([r["t_end_ns"] for r in self.rounds])
        else:
            ends = self.ns([r["tsc_resume"] for r in self.rounds])
        return np.concatenate([[0], ends[:-1]]), ends

    def write(self, writer):
        """Write entries, batches and rounds."""
        starts, ends = self._round_times()
        (self._write_stock if self.stock else self._write_batches)(writer, starts, ends)
        rounds = self._round_table(starts, ends)
        writer.set_rounds(rounds.assign(**self._round_counts()))

    def _round_table(self, starts, ends):
        insn = self.header["ns_per_insn"]
        rounds = {"round": np.arange(len(ends)), "t_start_ns": starts, "t_end_ns": ends}
        rounds |= {"insn_start": (starts / insn).astype(np.int64)}
        rounds |= {"insn_end": (ends / insn).astype(np.int64)}
        return pd.DataFrame(rounds | {"asked_ns": self._period_ns() or -1})

    def _round_counts(self):
        if self.stock:
            return {"pause_ns": [r["pause_ns"] for r in self.rounds]}
        exits = np.array([sum(v["exits"] for v in r["vcpus"]) for r in self.rounds])
        lost = np.zeros(len(self.rounds), dtype=np.int64)
        np.add.at(lost, [b["round"] for b in self.batches], self._lost())
        pauses = [self.ns(r["tsc_resume"]) - self.ns(r["tsc_pause"]) for r in self.rounds]
        return {
            "rearmed": [r["rearmed"] for r in self.rounds],
            "exits": np.diff(exits, prepend=0),
            "pause_ns": pauses,
            "lost": lost,
        }

    def _lost(self):
        return np.array([b["lost_entries"] for b in self.batches], dtype=np.int64)

    def write_accessed(self, writer):
        """Write the pages touched per round: READ, or WRITE if they are in the log as well."""
        starts, ends = self._round_times()
        for number, bits in sorted(self.accessed.items()):
            if number >= len(ends):
                continue
            touched = _frames(bits)
            logged = [
                np.frombuffer(b["data"], np.uint64) for b in self.batches if b["round"] == number
            ]
            written = np.isin(touched, np.concatenate([*logged, _NO_WORDS]) >> np.uint64(12))
            kinds = np.where(written, int(Kind.WRITE), int(Kind.READ)).astype(np.uint8)
            writer.add_entries(number, number, 0, touched, kinds)
        writer.set_rounds(self._round_table(starts, ends))

    def _write_stock(self, writer, starts, ends):
        for number, bits in sorted(self.bitmaps.items()):
            if number < len(ends):
                writer.add_entries(number, number, 0, _frames(bits), int(Kind.UNKNOWN))

    def _write_batches(self, writer, starts, ends):
        rows = []
        for number, batch in enumerate(self.batches):
            words = np.frombuffer(batch["data"], np.uint64)
            kinds = (words & np.uint64(0xFFF)).astype(np.uint8)
            where = (batch["round"], number, batch["vcpu"])
            if len(words):
                writer.add_entries(*where, words >> np.uint64(12), kinds)
            rows.append(self._batch_row(number, batch))
        writer.set_batches(pd.DataFrame(rows, columns=list(_BATCH_COLUMNS)))

    def _batch_row(self, number, batch):
        first, last = (batch[n] - self.header["epoch_tsc"] for n in ("tsc_start", "tsc_end"))
        return (
            number,
            batch["round"],
            batch["vcpu"],
            int(self.ns(batch["tsc_start"])),
            int(self.ns(batch["tsc_end"])),
            max(first, 0),
            max(last, 0),
            REASONS[batch["reason"]],
            batch["lost_entries"],
            int(batch["drain_tsc"] * 1_000_000 // self.header["tsc_khz"]),
        )


def _frames(bits):
    """Return the numbers of the bits that are set (bytes, least significant bit first)."""
    set_bits = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")
    return np.flatnonzero(set_bits).astype(np.uint64)


def _sample(words, ns):
    values = {name: int(value) for name, value in (word.split("=") for word in words)}
    sizes = {f"{name}_bytes": values[name] for name in SIZES}
    allocated = {"allocated_bytes": values["total"] - values["free"]}
    return {"t_ns": ns, **sizes, **allocated, **{name: values[name] for name in COUNTERS}}
