# SPDX-License-Identifier: Apache-2.0
"""Convert a Xen spool (written by `pmlkit.xen` in dom0) to a trace, in bounded memory.

Entries are ordered by round and, within a round, by the time at which their buffer was drained. A
round that was not closed when the collection ended is kept, and a note reports it.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.errors import NotATrace
from pmlkit.sources.host.spool import XenSpool, understood
from pmlkit.sources.host.stream import COSTS, ns_of
from pmlkit.spool import FRAMES_FILE
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace
from pmlkit.trace.schema import DRAWN, PAGE_SIZE, SAMPLED, TraceMeta
from pmlkit.trace.writer import TraceWriter
from pmlkit.xen.frames import Frame
from pmlkit.xen.pml import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from pmlkit.sources.host.stream import Structs
    from pmlkit.types import Array, Bools, Gfns, Ints, Json, PathLike, Tell

__all__ = ["XenTrace", "convert", "ingest"]


# ------------------------------------------------------------------------------
# Harvests of accessed flags become an access trace of the pages touched between them.


_RECORDS = 2048  # records read at once
_COSTS = {"guided": "guided_tsc", "scan": "scan_tsc"}


def _write_harvests(trace: XenTrace, writer: TraceWriter) -> None:
    """Write the pages touched between harvests: READ, or WRITE if they are in the log too.

    Parameters
    ----------
    writer : TraceWriter
        Of an access trace.
    """
    batches: list[Json] = []
    first = 0
    for number, last in enumerate(trace.harvests):
        for reason, parts in _harvested(trace, first, last):
            for frames, kinds in parts:
                if len(frames):
                    writer.add_entries(number, len(batches), 0, frames, kinds)
            batches.append({"round": number, "reason": reason})
        trace.spool.forget()
        first = last + 1
    rounds = _rounds(trace)
    writer.set_rounds(rounds)
    spans = ["t_start_ns", "t_end_ns", "insn_start", "insn_end"]
    table = pd.DataFrame(batches).join(rounds[spans], on="round")
    writer.set_batches(table.assign(batch=np.arange(len(table)), drain_ns=_costs(trace, table)))
    trace.write_rest(writer, True)


def _rounds(trace: XenTrace) -> pd.DataFrame:
    """Return the rounds of the access trace: from harvest to harvest."""
    table = trace.round_table().iloc[trace.harvests].reset_index(drop=True)
    for start, end in (("t_start_ns", "t_end_ns"), ("insn_start", "insn_end")):
        table[start] = np.concatenate([[0], table[end].to_numpy()[:-1]])
    every = trace.job.get("harvest_every", 1)
    asked = table["asked_ns"].where(table["asked_ns"] < 0, table["asked_ns"] * every)
    return table.assign(round=np.arange(len(table)), asked_ns=asked)


def _costs(trace: XenTrace, table: pd.DataFrame) -> list[int]:
    columns = {why: trace.rounds.column(name, trace.count) for why, name in _COSTS.items()}
    numbers = [trace.harvests[number] for number in table["round"]]
    ticks = [columns[why][n] for n, why in zip(numbers, table["reason"], strict=True)]
    return [int(ns_of(t, trace.header["tsc_khz"])) for t in ticks]


def _harvested(
    trace: XenTrace, first: int, last: int
) -> Iterator[tuple[str, Iterator[tuple[Gfns, NDArray[np.uint8]]]]]:
    """Yield each source of the harvest that closed round `last`, and its (frames, kinds)."""
    spool, taken = trace.spool, np.zeros(0, np.uint64)
    if spool.has(Frame.TOUCHED, last):
        words = spool.touched_words(last)
        words = words[np.argsort(words >> np.uint64(12), kind="stable")]
        taken, read = words >> np.uint64(12), (words & np.uint64(0xFF)) == int(Kind.READ)
        # Page tables are written by the walks that read them.
        yield "guided", iter([(taken, _kinds(~read))])
    if spool.has(Frame.ACCESSED, last):
        yield "scan", _scanned(trace, first, last, taken)


def _scanned(
    trace: XenTrace, first: int, last: int, taken: Gfns
) -> Iterator[tuple[Gfns, NDArray[np.uint8]]]:
    logged = _logged(trace, first, last)
    for frames in trace.spool.frames_of(Frame.ACCESSED, last):
        frames = frames[~_among(frames, taken)]
        yield frames, _kinds(_among(frames, logged))


def _among(frames: Gfns, known: Gfns) -> Bools:
    """Return a mask of the frames that are known; both are sorted."""
    if not len(known):
        return np.zeros(len(frames), bool)
    return known[np.minimum(np.searchsorted(known, frames), len(known) - 1)] == frames


def _kinds(written: Bools) -> NDArray[np.uint8]:
    return np.where(written, int(Kind.WRITE), int(Kind.READ)).astype(np.uint8)


def _logged(trace: XenTrace, first: int, last: int) -> NDArray[np.uint64]:
    """Return the logged frames of the rounds `first` to `last`, ascending."""
    rounds, frames = trace.logs["round"], np.zeros(0, np.uint64)
    start, stop = np.searchsorted(rounds, first), np.searchsorted(rounds, last, "right")
    for at in range(start, stop, _RECORDS):
        words = trace.spool.words(trace.logs[at : min(at + _RECORDS, stop)])
        frames = np.union1d(frames, words >> np.uint64(12))
    return frames


# ------------------------------------------------------------------------------
# The round of each record, and the start and end of each round, as arrays.


def _split_rounds(spool: XenSpool) -> tuple[Structs, int, int]:
    """Put the records of a spool in the order of the trace.

    Returns
    -------
    logs : structured ndarray
        The records kept, by round and, in it, by the time at which their buffer was taken.
    count : int
        The rounds of the trace: the closed ones, and up to two that were not closed (one
        during its closing, one still running).
    left_out : int
        Entries of records after the last closed round of a collection that came to its end.
    """
    logs, closed = spool.logs, len(spool.rounds)
    if spool.header.get("job", {}).get("free") and not spool.stock:
        logs = _cut(spool, logs)
    # The last key is the primary one. Buffers of one instant are in order of vCPU, then of filling.
    order = np.lexsort((logs["seq"], logs["vcpu"], logs["tsc_end"], logs["round"]))
    after = logs["round"] >= closed
    entries = int(logs["count"][after].sum())
    inside = order[~after[order]]
    # Buffers that were drained by switching logging off belong to no round.
    ended = spool.end if spool.missing is None and closed else None
    if ended is not None and not ended.keep_open:
        return logs[inside], closed, entries
    if not entries:
        return logs[inside], closed, 0
    return logs[order], int(logs["round"].max()) + 1, 0


def _cut(spool: XenSpool, logs: Structs) -> Structs:
    """Number the rounds of a `free` collection by its time marks."""
    marks = spool.rounds.column("end_ns")
    ends = _ns(spool, logs["tsc_end"])
    logs = logs.copy()
    logs["round"] = np.searchsorted(marks, ends, side="left")
    # The last buffers are drained when logging is switched off.
    if spool.end is not None and len(marks):
        logs["round"] = np.minimum(logs["round"], len(marks) - 1)
    return logs


def _ns(spool: XenSpool, tsc: ArrayLike) -> Ints:
    """Convert TSC stamps to ns since the start of the log: ndarray of int64."""
    ticks = np.asarray(tsc, dtype=np.int64) - spool.header["epoch_tsc"]
    return ns_of(np.maximum(ticks, 0), spool.header["tsc_khz"])


def _round_times(spool: XenSpool, logs: Structs, count: int) -> tuple[Ints, Ints]:
    """Return the starts and ends of the rounds, ns: two ndarrays of int64.

    A round begins where the previous one ends: when Xen resumed the domain.
    """
    last = np.zeros(count, np.int64)
    if not spool.stock:
        np.maximum.at(last, logs["round"].astype(np.int64), _ns(spool, logs["tsc_end"]))
    closed = spool.rounds.column("end_ns", count, -1)
    # In rounds that Xen does not close, the last buffer may be drained after the end mark.
    marked = spool.rounds.column("tick", count, 1) == 1
    ends = np.where(marked, np.maximum(closed, last), closed)
    ends = np.maximum.accumulate(ends)
    return np.concatenate([np.zeros(1, np.int64), ends[:-1]]), ends


_BITMAP_ONLY = (
    "stock log-dirty gives a bitmap: entries are sorted by frame number, not in log order, and a "
    "page counts once per round"
)
_HARVEST = (
    "accessed flags show which pages were touched. They show neither the order, nor whether a "
    "written page was also read"
)
_FREE = "no round was closed in Xen: rounds end with the buffer that contains their end"
_STAMPS = ("tsc_start", "tsc_end")
_UPPER = 0x100  # bit of a table's word: the upper half of its entries


def ingest(
    spool: Path, out: Path, overwrite: bool = False, heard: Tell = lambda line: None
) -> Trace:
    """Convert the spool folder of a collection to a trace.

    Parameters
    ----------
    heard : callable, optional
        Function that is called with a message if the conversion stopped at a frame before the end.

    Returns
    -------
    Trace
        The PML log. With a harvest of accessed flags: an access trace, with the log nested in it.
    """
    with understood(spool):
        read = XenSpool(Path(spool) / FRAMES_FILE, ("xen",))
        trace = convert(XenTrace(read, spool), out, overwrite)
    if read.fault:
        heard(read.fault)
    return trace


def convert(source: XenTrace, out: PathLike, overwrite: bool = False) -> Trace:
    """Write a `XenTrace`."""
    meta = source.meta()
    if not source.harvests:
        with TraceWriter(out, meta, overwrite=overwrite) as writer:
            source.write(writer)
        return Trace.open(out)
    notes, options = [*meta.notes, _HARVEST], dict(meta.options)
    if source.one_in:
        which = "a new one in each round" if source.draw == "round" else "the same in all rounds"
        notes.append(f"one in {source.one_in} frames was examined, {which}")
        options |= {SAMPLED: source.one_in, DRAWN: source.draw}
    period_ns, every = meta.period["ns"], source.job.get("harvest_every", 1)
    changes: Json = {
        "notes": notes,
        "options": options,
        # Flags accumulate between harvests.
        "period": {**meta.period, "ns": period_ns and period_ns * every},
    }
    touched = dataclasses.replace(meta, kind="access", **changes)
    # A sample is nested in the log, not the log in it, so that it is not mistaken for a full trace.
    with TraceWriter(out, meta if source.one_in else touched, overwrite=overwrite) as writer:
        nested = writer.sample(touched) if source.one_in else writer.pml(meta)
        pml, access = (writer, nested) if source.one_in else (nested, writer)
        source.write(pml)
        _write_harvests(source, access)
    return Trace.open(out)


class XenTrace:
    """A trace to be written from a spool; `pmlkit.sources.lab.ingest` extends it.

    Parameters
    ----------
    path : path-like
        Its name in messages.
    """

    ns_per_insn: float | None = None

    def __init__(self, spool: XenSpool, path: PathLike) -> None:
        self.spool, self.header = spool, spool.header
        self.job: Json = spool.header.get("job", {})
        self.rounds = spool.rounds
        self.logs, self.count, self.left_out = _split_rounds(spool)
        spool.logs = self.logs  # one copy only: 90 bytes a buffer
        if not self.count:
            why = "no round was closed before the end, and nothing was logged"
            why += f": {spool.fault}" if spool.fault else ""
            raise NotATrace(path, why, "collect again")
        self.starts, self.ends = _round_times(spool, self.logs, self.count)
        self.harvests = sorted(n for n in spool.harvests if n < self.count)
        # 0: all frames.
        self.one_in = self.job["one_in"] if self.job.get("harvest") == "sampled" else 0
        self.draw = self.job.get("draw", "fixed")  # older collectors do not state it

    # The description

    def meta(self) -> TraceMeta:
        """Return the description of the PML log."""
        h = self.header
        period = self.job.get("period_s")
        return TraceMeta(
            kind="pml",
            source=h.get("source", "xen"),
            created=h.get("created"),
            domain=self.domain(),
            memory_map=self.memory_map(),
            clock={"unit": "ns", "kind": "icount" if self.ns_per_insn else "host",
                   "ns_per_insn": self.ns_per_insn},
            period={"ns": round(period * 1e9) if period and not self.lockstep else None},
            phases=self.phases(),
            known=self.known(),
            options={**h.get("options", {}), "job": h.get("job"), "mode": h.get("mode")},
            overheads=self.overheads(),
            host=h.get("host", {}),
            provenance={"command": h.get("command", ""), "versions": h.get("versions", {})},
            notes=list(self.notes()),
            complete=bool(self.spool.end and self.spool.end.complete and not self.spool.fault),
        )  # fmt: skip

    @property
    def lockstep(self) -> bool:
        return bool(self.job.get("lockstep"))

    def domain(self) -> Json:
        domain = self.header.get("domain", {})
        memory = domain.get("memory_bytes") or self.header["pages"] * PAGE_SIZE
        memory = -(-memory // PAGE_SIZE) * PAGE_SIZE
        name = domain.get("name") or str(domain.get("domid", "guest"))
        return {"name": name, "memory_bytes": memory, "vcpus": self.header.get("vcpus", 1)}

    def memory_map(self) -> list[Json]:
        return []

    def phases(self) -> list[Json]:
        return []

    def known(self) -> list[Json]:
        return []

    def regions(self) -> pd.DataFrame | None:
        return None

    def guest(self) -> list[Json]:
        return []

    def overheads(self) -> dict[str, int]:
        """Return the total costs of the collection, in Xen and in dom0."""
        rounds = self.rounds
        costs: Json = {"agent_cpu_ns": _total(rounds.column("agent_cpu_ns"))}
        if self.spool.stock:
            return costs | {"write_faults": _total(rounds.column("faults"))}
        costs |= {"tsc_khz": self.header["tsc_khz"], **rounds.vcpus}
        costs["rearm_tsc"] = _total(rounds.column("rearm_tsc"))
        if self.harvests:
            costs["rounds"] = self._costs()
        return costs

    def _costs(self) -> list[dict[str, int]]:
        """Return the known costs of each closed round."""
        columns = {name: self.rounds.column(name, missing=-1).tolist() for name in COSTS}
        rows = [{"round": number} for number in range(len(self.rounds))]
        for name, values in columns.items():
            for row, value in zip(rows, values, strict=True):
                if value >= 0:
                    row[name] = value
        return rows

    def notes(self) -> Iterator[str]:
        """Yield the notes of the trace."""
        spool = self.spool
        if spool.stock:
            yield _BITMAP_ONLY
        if self.job.get("free"):
            yield _FREE
        yield from spool.events
        if spool.more_events:
            yield f"{spool.more_events} more events were omitted from these notes"
        if spool.more_lines:
            yield f"the last {spool.more_lines} lines of the guest were omitted"
        if spool.end and spool.end.why:
            yield f"it ended because: {spool.end.why}"
        if spool.missing or not spool.end:
            yield f"shorter than requested: {spool.missing or 'the collection ended too early'}"
        elif not spool.end.complete:
            yield "shorter than requested"
        unfinished = self.count - len(self.rounds)
        if unfinished:
            yield f"the last {unfinished} round(s) were not closed: they end with their last entry"
        if self.left_out:
            yield (
                f"{self.left_out} entries were logged after the last round was closed, and omitted"
            )

    # The tables

    def write(self, writer: TraceWriter) -> None:
        """Write the PML log."""
        if self.spool.stock:
            self._write_stock(writer)
        else:
            self._write_logs(writer)
            self._write_tables(writer)
        writer.set_rounds(self.round_table().assign(**self._round_counts()))
        self.write_rest(writer, not self.harvests or self.one_in > 0)

    def write_rest(self, writer: TraceWriter, guest: bool) -> None:
        """Write the regions and, if requested, the guest's own view."""
        if (regions := self.regions()) is not None:
            writer.set_regions(regions)
        if guest and (samples := self.guest()):
            writer.set_guest(pd.DataFrame(samples))

    def round_table(self) -> pd.DataFrame:
        """Return the rounds and their times: DataFrame."""
        rounds: dict[str, Ints | int] = {"round": np.arange(len(self.ends))}
        rounds |= {"t_start_ns": self.starts, "t_end_ns": self.ends}
        for name, at in (("insn_start", self.starts), ("insn_end", self.ends)):
            rounds[name] = (at / self.ns_per_insn).astype(np.int64) if self.ns_per_insn else 0
        asked = self.job.get("period_s")
        asked_ns = round(asked * 1e9) if asked and not self.lockstep else -1
        return pd.DataFrame(rounds | {"asked_ns": asked_ns})

    def _round_counts(self) -> dict[str, Ints]:
        count, rounds = self.count, self.rounds
        pauses = {"pause_ns": rounds.column("pause_ns", count)}
        if self.spool.stock:
            return pauses
        exits = np.zeros(count, np.int64)
        exits[: len(rounds)] = np.diff(rounds.column("exits"), prepend=0)
        lost = np.bincount(self.logs["round"], self.logs["lost_entries"], minlength=count)
        return {
            "rearmed": rounds.column("rearmed", count),
            "exits": exits,
            **pauses,
            "lost": lost.astype(np.int64),
        }

    def _write_logs(self, writer: TraceWriter) -> None:
        ends = np.cumsum(self.logs["count"], dtype=np.int64)
        if len(ends):
            writer.add_generated(int(ends[-1]), partial(self._columns, ends))
        writer.set_batches(self._batch_table())

    def _columns(self, ends: Ints, start: int, stop: int) -> tuple[Array, ...]:
        """Make the columns of the entries from number `start` to before `stop`.

        Parameters
        ----------
        ends : ndarray of int64, shape (records,)
            The number of the entry after each record's last.
        """
        first, last = np.searchsorted(ends, (start, stop - 1), "right")
        # A copy, whose first and last record are cut to the wanted entries.
        part = self.logs[first : last + 1].copy()
        part["count"][-1] -= ends[last] - stop
        skipped = start - (ends[first - 1] if first else 0)
        part["count"][0] -= skipped
        part["at"][0] += 8 * skipped
        words = self.spool.words(part)
        self.spool.forget()
        counts, numbers = part["count"], np.arange(first, last + 1, dtype=np.uint32)
        each = [np.repeat(v, counts) for v in (part["round"], numbers, part["vcpu"])]
        return *each, words >> np.uint64(12), words.astype(np.uint8)

    def _batch_table(self) -> pd.DataFrame:
        logs, h = self.logs, self.header
        times = {name: _ns(self.spool, logs[name]) for name in _STAMPS}
        reasons = np.array([REASONS.get(i, "") for i in range(max(REASONS) + 1)], object)
        columns = {"batch": np.arange(len(logs)), "round": logs["round"], "vcpu": logs["vcpu"]}
        columns |= {"t_start_ns": np.minimum(times["tsc_start"], times["tsc_end"])}
        columns |= {"t_end_ns": times["tsc_end"], "reason": reasons[logs["reason"]]}
        if self.ns_per_insn:
            insn = {n: np.maximum(logs[n].astype(np.int64) - h["epoch_tsc"], 0) for n in _STAMPS}
            columns |= {"insn_start": insn["tsc_start"], "insn_end": insn["tsc_end"]}
        columns |= {"lost": logs["lost_entries"].astype(np.int64)}
        drain = ns_of(logs["drain_tsc"].astype(np.int64), h["tsc_khz"])
        return pd.DataFrame(columns | {"drain_ns": drain})

    def _write_tables(self, writer: TraceWriter) -> None:
        tables = self.spool.tables
        tables = _each_once(tables[tables["round"] < self.count])
        for first in range(0, len(tables), 1024):
            part = tables[first : first + 1024]
            words = self.spool.words(part)
            row = np.repeat(np.arange(len(part)), part["count"])
            index = np.arange(len(words)) - np.repeat(
                np.cumsum(part["count"], dtype=np.int64) - part["count"], part["count"]
            )
            there = words != 0
            row, index, words = row[there], index[there], words[there]
            table = part["table"][row]
            upper = (table >> np.uint64(8) & np.uint64(1)).astype(np.int64)
            writer.add_tables(
                part["round"][row], table >> np.uint64(12), (table & np.uint64(0xF)),
                index + 512 * upper, words >> np.uint64(12), words & np.uint64(0xFF),
            )  # fmt: skip

    def _write_stock(self, writer: TraceWriter) -> None:
        for number in range(self.count):
            for frames in self.spool.frames_of(Frame.DIRTY, number):
                writer.add_entries(number, number, 0, frames, int(Kind.UNKNOWN))


def _total(values: Ints) -> int:
    return sum(values.tolist())  # as Python's integers, which do not overflow


def _each_once(tables: Structs) -> Structs:
    """Sort snapshots of tables by round, frame and half, and keep the first of equal ones.

    A second half whose level differs from the first half's is dropped.
    """
    frames, halves = tables["table"] >> np.uint64(12), tables["table"] & np.uint64(_UPPER)
    order = np.lexsort((halves, frames, tables["round"]))
    tables, frames, halves = tables[order], frames[order], halves[order]
    same = np.zeros(len(tables), bool)
    same[1:] = (tables["round"][1:] == tables["round"][:-1]) & (frames[1:] == frames[:-1])
    levels = tables["table"] & np.uint64(0xF)
    again = np.zeros(len(tables), bool)
    again[1:] = (halves[1:] == halves[:-1]) | (levels[1:] != levels[:-1])
    return tables[~(same & again)]
