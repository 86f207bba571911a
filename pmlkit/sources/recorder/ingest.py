# SPDX-License-Identifier: Apache-2.0
"""Convert a recorder's spool to an access trace, with the emulated PML's log nested in it."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.errors import NotATrace, NotUnderstood, SpoolDamaged
from pmlkit.sources.recorder.messages import (
    KIND_BITS,
    REASONS,
    Mark,
    Marker,
    Message,
    RecorderStream,
    Requests,
    RoundEnd,
    Span,
    Totals,
    check_header,
)
from pmlkit.sources.spooling import read_text
from pmlkit.spool import FRAMES_FILE
from pmlkit.spool_reader import read_spool
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace
from pmlkit.trace.schema import DISK, TraceMeta
from pmlkit.trace.writer import TraceWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pmlkit.sources.recorder.messages import Decoded
    from pmlkit.spool_reader import Spool
    from pmlkit.types import Array, Ints, Json, Tell

    _Moment = tuple[int, int]  # instructions, ns


COUNTERS = ("pswpin", "pswpout", "pgmajfault", "pgfault")
SIZES = ("total", "free", "available", "cached", "committed", "anon", "slab")
_DIGITS = 15  # longest number of a guest, so that it fits int64
# Most spans and entries that are buffered for one call of the writer.
_MAX_SPANS, _MAX_ENTRIES = 1 << 12, 1 << 16
_MAX_PARTS = 1 << 12  # arrays of disk requests before they are concatenated
_ROUND = ("insn_start", "t_start_ns", "insn_end", "t_end_ns", "full_exits", "accessed", "dirty")
_SPAN = ("round", "insn_start", "t_start_ns", "insn_end", "t_end_ns", "reason", "entries")
NOT_SEEN = (
    "page-table walks of the processor and DMA are not recorded; executed frames are known per "
    "round, without order"
)
DISK_TIMES = (
    "disk requests are those that QEMU made from the guest's (merged if they are neighbours). "
    "Their time is when a thread of the host took them. Two runs differ, with either clock"
)
MEMORY_DISK = (
    "/disk is a disk whose frames are no memory of the guest, and are not recorded. The guest's "
    "processor copies its pages, where a real disk would use DMA, and does not wait for it"
)
WALL_TIME = (
    "T is wall time: the guest ran by the host's clock (--clock host), and does less work per "
    "window on a busy host"
)


@dataclass
class Report:
    """The guest's output on its second serial port, in order."""

    phases: list[str] = field(default_factory=list)
    samples: list[dict[str, int]] = field(default_factory=list)
    regions: list[tuple[str, int, int]] = field(default_factory=list)  # name, gfn, pages
    # phase, region, kind, pages
    expected: list[tuple[str, str, str, int]] = field(default_factory=list)
    memory: list[tuple[int, int, str]] = field(default_factory=list)  # start, end, type
    status: int | None = None


def read_report(text: str) -> Report:
    """Parse the guest's report without an incomplete last line.

    Samples before the first phase are omitted: the recording had not begun.
    """
    report = Report()
    for line in text[: text.rfind("\n") + 1].splitlines():
        word, _, rest = line.strip().partition(" ")
        values = rest.split()
        if word == "phase" and values:
            report.phases.append(rest)
        elif word == "sample" and report.phases:
            report.samples.append(read_sample(values))
        elif word == "region" and len(values) == 3 and all(map(_is_count, values[1:])):
            report.regions.append((values[0], int(values[1]), int(values[2])))
        elif word == "expect" and len(values) == 4 and _is_count(values[3]):
            phase, region, kind, pages = values
            report.expected.append((phase, region, kind, int(pages)))
        elif word == "exit" and values and _is_count(values[0].removeprefix("-")):
            report.status = int(values[0])
        elif match := re.fullmatch(r"memory ([0-9a-f]+)-([0-9a-f]+) : (.+)", line.strip()):
            report.memory.append((int(match[1], 16), int(match[2], 16) + 1, match[3]))
    return report


def read_sample(values: Sequence[str]) -> dict[str, int]:
    """Parse a guest's words ``name=number``; ignore others."""
    pairs = [word.partition("=") for word in values]
    return {name: int(value) for name, _, value in pairs if _is_count(value)}


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS


def ingest(
    spool: Path, out: Path, overwrite: bool = False, heard: Tell = lambda line: None
) -> Trace:
    """Convert a recording's spool folder to a trace.

    Parameters
    ----------
    heard : callable, optional
        Function that is called with the message at which the conversion stopped, if that is not the
        end.
    """
    frames = read_spool(spool / FRAMES_FILE)
    try:
        check_header(frames.header)
        stream = RecorderStream(frames.header)
    except NotUnderstood as error:
        frames.close()
        hint = "keep it, try a later pmlkit, or record again"
        raise SpoolDamaged(spool / FRAMES_FILE, 0, error.why, hint) from error
    report = read_report(read_text(spool / "report.txt"))
    meta = describe(frames.header, report)
    writer = TraceWriter(out, meta, overwrite=overwrite)
    with writer, writer.pml(meta_of_pml(meta)) as pml:
        tables = _Tables(writer, pml)
        for kind, message in frames.understand(
            frames, lambda *frame: (frame[0], stream.take(*frame))
        ):
            tables.take(kind, message)
        if not tables.rounds:
            why = "nothing was recorded before the end"
            raise NotATrace(spool, f"{why}: {frames.left}" if frames.left else why, "record again")
        tables.finish(frames, report)
    if frames.left:
        heard(frames.left)
    return Trace.open(out)


class _Tables:
    """The tables of the two traces, made from the plugin's messages."""

    def __init__(self, access: TraceWriter, pml: TraceWriter) -> None:
        self.access, self.pml = _Log(access, accesses=True), _Log(pml, accesses=False)
        self.rounds = _Rows(_ROUND)
        self.marks: list[Mark] = []
        self.totals: Totals | None = None
        self.cost: Json = {}
        self.requests: list[Array] = []
        self._parts = 0  # arrays at the end of `requests` that are not concatenated yet

    def take(self, kind: int, message: Decoded) -> None:
        if isinstance(message, Span) and kind == Message.ACCESS:
            self.access.add(message)
        elif isinstance(message, Span):
            self.pml.add(message)
        elif isinstance(message, RoundEnd):
            self.rounds.add(*[getattr(message, name) for name in _ROUND])
        elif isinstance(message, Mark):
            self.marks.append(message)
        elif isinstance(message, Totals):
            self.totals = message
        elif isinstance(message, Requests):
            self._add_requests(message)
        elif isinstance(message, dict):  # requests of the host
            self.cost = message

    def _add_requests(self, requests: Requests) -> None:
        self.requests.append(requests.parts)
        self._parts += 1
        # Joined, because a small array takes more memory than its contents.
        if self._parts > _MAX_PARTS:
            self.requests[-self._parts :] = [np.concatenate(self.requests[-self._parts :])]
            self._parts = 0

    def finish(self, frames: Spool, report: Report) -> None:
        """Write the tables, and record what is missing."""
        access, pml = self.access.writer, self.pml.writer
        self.access.flush()
        self.pml.flush()
        self._close_open_round()
        self.access.set_tables(self.rounds, frames.header["period"], pml=False)
        self.pml.set_tables(self.rounds, frames.header["period"], pml=True)
        phases = self._phases(report)
        regions = pd.DataFrame(report.regions, columns=["name", "gfn", "pages"])
        ended = self.totals is not None and Marker.END in {m.marker for m in self.marks}
        complete = ended and not frames.left
        for writer in (access, pml):
            writer.set_phases(phases)
            writer.set_regions(regions)
            writer.replace_meta(complete=complete)
            if not complete:
                missing = frames.missing or "the recording was stopped before the workload's end"
                writer.note(f"shorter than requested: {missing}")
        guest = self._guest(report)
        if len(guest):
            access.set_guest(guest)
        if frames.header["options"].get("swap_mib"):
            access.set_disk(self._disk())
            access.note(DISK_TIMES)
        if frames.header["options"].get("disk_mib"):
            access.note(MEMORY_DISK)
        access.note(NOT_SEEN)
        if frames.header["ns_per_insn"] is None:
            access.note(WALL_TIME)
            pml.note(WALL_TIME)
        totals = vars(self.totals) if self.totals else {}
        access.replace_meta(overheads={**self.cost, **totals})

    def _disk(self) -> pd.DataFrame:
        names = list(DISK.names)
        parts = np.concatenate(self.requests) if self.requests else None
        table = pd.DataFrame(parts, columns=None if self.requests else names)
        return table.astype({"write": bool})[names]

    def _close_open_round(self) -> None:
        """End a round at its last span, if the spool was cut off before the round's end."""
        # Of either log: a full PML buffer is told before the accesses that filled it.
        logs = (self.access, self.pml)
        bounds = [b for log in logs if (b := log.bounds_since(len(self.rounds)))]
        if bounds:
            starts, ends = zip(*bounds, strict=True)
            self.rounds.add(*min(starts), *max(ends), 0, 0, 0)

    def _phases(self, report: Report) -> list[dict[str, int | str]]:
        marks = [m for m in self.marks if m.marker == Marker.PHASE]
        names = report.phases + ["?"] * len(marks)
        phases = [_phase(name, m) for name, m in zip(names, marks, strict=False)]
        booting = any(m.marker == Marker.ARM for m in self.marks)
        first = {"round": 0, "t_ns": 0, "insn": 0}
        if booting or not phases:
            return [{"name": "boot" if booting else "start", **first}, *phases]
        phases[0] |= first  # this phase includes the part before the first mark
        return phases

    def _guest(self, report: Report) -> pd.DataFrame:
        marks = [m for m in self.marks if m.marker == Marker.SAMPLE]
        rows = [_sample(m, values) for m, values in zip(marks, report.samples, strict=False)]
        return pd.DataFrame(rows)


class _Rows:
    """Rows of int64 in one array: a stream of tiny messages has millions of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names, self._values = names, array("q")

    def __len__(self) -> int:
        return len(self._values) // len(self._names)

    def add(self, *row: int) -> None:
        self._values.extend(row)

    def column(self, name: str) -> Ints:
        """Return a view of a column; while it exists, adding a row raises BufferError."""
        at = self._names.index(name)
        return np.frombuffer(self._values, np.int64)[at :: len(self._names)]


class _Log:
    """One of the two logs: entries are written in batches of spans, tables at the end."""

    def __init__(self, writer: TraceWriter, accesses: bool) -> None:
        self.writer, self._accesses = writer, accesses
        self.batches = _Rows(_SPAN)
        self._spans: list[Span] = []
        self._entries = 0

    def add(self, span: Span) -> None:
        times = (span.insn_start, span.t_start_ns, span.insn_end, span.t_end_ns)
        self.batches.add(span.round, *times, REASONS.index(span.reason), len(span.values))
        self._spans.append(span)
        self._entries += len(span.values)
        if self._entries > _MAX_ENTRIES or len(self._spans) > _MAX_SPANS:
            self.flush()

    def flush(self) -> None:
        """Write the buffered spans in one call: a call costs more than a span's few entries."""
        spans, self._spans, self._entries = self._spans, [], 0
        if not spans:
            return
        values = np.concatenate([span.values for span in spans])
        lengths = [len(span.values) for span in spans]
        rounds = np.repeat(np.array([span.round for span in spans], np.uint32), lengths)
        first, stop = len(self.batches) - len(spans), len(self.batches)
        batches = np.repeat(np.arange(first, stop, dtype=np.uint32), lengths)
        gfn, kind = values, np.asarray(int(Kind.WRITE), np.uint8)
        if self._accesses:
            gfn = values >> KIND_BITS
            kind = (values & ((1 << KIND_BITS) - 1)).astype(np.uint8)
        self.writer.add_entries(rounds, batches, 0, gfn.astype(np.uint64), kind)

    def bounds_since(self, round_: int) -> tuple[_Moment, _Moment] | None:
        """Return where the spans of a round and of later ones start and end, if there are any."""
        (spans,) = np.nonzero(self.batches.column("round") >= round_)
        if not len(spans):
            return None
        first, last = spans[[0, -1]]
        column = self.batches.column
        start = int(column("insn_start")[first]), int(column("t_start_ns")[first])
        return start, (int(column("insn_end")[last]), int(column("t_end_ns")[last]))

    def set_tables(self, rounds: _Rows, period: Mapping[str, int | None], pml: bool) -> None:
        batches, of_round = self.batches, self.batches.column("round")
        self.writer.set_batches(self._batch_table())
        entries = np.zeros(len(rounds), dtype=np.int64)
        np.add.at(entries, of_round, batches.column("entries"))
        table = {"round": np.arange(len(rounds))}
        table |= {name: rounds.column(name) for name in _ROUND[:4]}
        counts = {
            "asked_ns": _or_minus_one(period["ns"]),
            "asked_insn": _or_minus_one(period["insn"]),
            "entries": entries,
            "rearmed": rounds.column("dirty" if pml else "accessed"),
            "exits": rounds.column("full_exits") if pml else 0,
            "pause_ns": 0,
            "lost": 0,
        }
        self.writer.set_rounds(pd.DataFrame(table | counts))

    def _batch_table(self) -> pd.DataFrame:
        rows = self.batches
        columns = {name: rows.column(name) for name in _SPAN}
        columns["reason"] = np.array(REASONS, object)[columns["reason"]]
        numbers = {"batch": np.arange(len(rows)), "vcpu": 0, "lost": 0, "drain_ns": 0}
        return pd.DataFrame(columns | numbers)


def describe(header: Json, report: Report) -> TraceMeta:
    """Describe the trace, from the spool's header and the guest's report."""
    icount = header["ns_per_insn"] is not None
    return TraceMeta(
        kind="access",
        source="recorder",
        created=header["created"],
        domain={
            "name": header["workload"],
            "memory_bytes": header["memory_bytes"],
            "vcpus": 1,
            "page_size": 4096,
        },
        memory_map=[{"start": s, "end": e, "type": t} for s, e, t in report.memory],
        clock={
            "unit": "ns",
            "kind": "icount" if icount else "host",
            "ns_per_insn": header["ns_per_insn"],
        },
        period=header["period"],
        known=[
            {"phase": phase, "region": region, "kind": kind, "pages": pages}
            for phase, region, kind, pages in report.expected
        ],
        options={**header["options"], "parameters": header["parameters"]},
        host=header["host"],
        provenance={
            "command": header["command"],
            "cmdline": header["cmdline"],
            "versions": header["versions"],
        },
    )


def meta_of_pml(meta: TraceMeta) -> TraceMeta:
    """Describe the nested log of the emulated PML."""
    return replace(
        meta,
        kind="pml",
        options={**meta.options, "buffer_entries": 512, "buffers": 1, "rearm": "round"},
    )


def _phase(name: str, mark: Mark) -> dict[str, int | str]:
    return {"name": name, "round": mark.round, "t_ns": mark.t_ns, "insn": mark.insn}


def _sample(mark: Mark, values: Mapping[str, int]) -> dict[str, int]:
    row = {"t_ns": mark.t_ns, "insn": mark.insn}
    row |= {f"{name}_bytes": values.get(name, 0) for name in SIZES}
    row["allocated_bytes"] = row["total_bytes"] - row["free_bytes"]
    return row | {name: values.get(name, 0) for name in COUNTERS}


def _or_minus_one(value: int | None) -> int:
    return -1 if value is None else value
