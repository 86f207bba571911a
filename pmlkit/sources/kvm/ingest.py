# SPDX-License-Identifier: Apache-2.0
"""Convert a KVM spool (written by `pmlkit.kvm` on the VM's host) to a trace."""

from __future__ import annotations

from array import array
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd

from pmlkit.errors import NotATrace, NotUnderstood, SpoolDamaged
from pmlkit.interop.kvm_log import DRAIN_ENTRIES, OLDEST_FIRST
from pmlkit.kvm.frames import SET_HEAD
from pmlkit.kvm.host import Host
from pmlkit.kvm.rounds import READONLY
from pmlkit.sources.host.spool import understood
from pmlkit.sources.kvm.events import EVER_NS, UNKNOWN_NS, Census, Drains
from pmlkit.sources.kvm.sample import Samples
from pmlkit.sources.kvm.stream import (
    End,
    Event,
    KvmStream,
    Look,
    Looked,
    Pages,
    PageSet,
    Round,
    Sample,
    Tick,
)
from pmlkit.sources.kvm.tables import Tables
from pmlkit.spool import FRAMES_FILE
from pmlkit.spool_reader import read_spool
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace
from pmlkit.trace.schema import HOST_CLOCK, MEMORY_GUESSED, PAGE_SIZE, UNSEEN, TraceMeta
from pmlkit.trace.writer import TraceWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmlkit.sources.kvm.events import Batches
    from pmlkit.types import Array, Gfns, Ints, Json, PathLike, Tell


__all__ = ["KvmTrace", "ingest"]

_AT_ONCE = 1 << 19  # events that are sorted at once, or those of one pass of the agent
_SLACK_NS = 10_000_000
_EVENTS = 100  # most messages that are kept
_UNSEEN = "KVM's log does not contain writes of the VMM itself (virtio, other DMA)"
_READS = "a page that is only read is not logged, but the page tables that map it are"
_DRAINS = (
    "KVM drains PML's buffer at every exit: an entry was written between its batch's start and "
    "end. A batch of 512 was a full buffer; any other has the reason 'round' for another exit"
)
_SOFT = (
    "soft-dirty bits of the VMM's memory: the pages of a round by number, each once, without "
    "order. They include writes of the VMM itself. A frame is a page of the VMM's mappings"
)
_PARTIAL = "a re-arm takes time: a page that was written meanwhile may count for either round"
_NOTES = (_UNSEEN, _READS, _DRAINS, _PARTIAL)


def ingest(
    spool: Path, out: Path, overwrite: bool = False, heard: Tell = lambda line: None
) -> Trace:
    """Convert the spool folder of a collection to a trace.

    Parameters
    ----------
    heard : callable, optional
        Function that is called with a message if the conversion stopped at a frame before the end.

    Raises
    ------
    NotATrace
        If no round was closed, or the collection contains sizes without frames.
    """
    with understood(spool):
        source = KvmTrace(Path(spool))
        trace = source.write(out, overwrite)
    if source.fault:
        heard(source.fault)
    return trace


class KvmTrace:
    """A trace to be written from a spool.

    The spool is read twice: once for the facts that are needed first, and once for the entries.
    Memory contains the entries between two ticks of the agent, and those that cannot be placed yet.
    It also contains 24 bytes per batch, and the times of each round.

    Attributes
    ----------
    rounds : list of Round
    spans : ndarray of int64, shape (rounds, 2)
        Their starts and ends, on the host's clock.
    shift : ndarray of int64
        The offset between the host's times in each and the trace's clock.
    """

    end: End | None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rounds: list[Round] = []
        self.events: list[str] = []
        self.more_events, self.messages = 0, ""
        self.census, self.end = Census(), None
        self.last_ns = self._highest = 0
        # Positions of frames in the file: events (kind, offset, bytes), sets (round, offset,
        # bytes), and ticks (the number of events before, time).
        self._pieces, self._sets, self._ticks = array("q"), array("q"), array("q")
        self._tables, self._samples = Tables(), Samples()
        self._read()
        self._tables.decide()
        if not self.rounds:
            why = "no round was closed before the end"
            messages = f": {self.messages}" if self.messages else ""
            raise NotATrace(folder, f"{why}{messages}", "collect again")
        if self.mode == "lru-gen":
            what = "no trace: it contains sizes from the aging of MGLRU, which gives no frames"
            raise NotATrace(folder, what, "`pmlkit collect --mode lru-gen` writes a table of them")
        self._in_time()

    def _read(self) -> None:
        path = self.folder / FRAMES_FILE
        with read_spool(path) as spool:
            try:
                stream = self._stream = KvmStream(spool.header)
            except NotUnderstood as error:
                hint = "keep it, try a later pmlkit, or collect again"
                raise SpoolDamaged(path, 0, error.why, hint) from error
            self.header, self.mode, self.epoch_ns = spool.header, stream.mode, stream.epoch_ns
            frames = spool.understand(
                spool, lambda kind, payload: (kind, stream.take(kind, payload))
            )
            for kind, frame in frames:
                self._take(kind, frame, spool.payload_at, spool.offset - spool.payload_at)
            self.fault, self.missing = spool.left, spool.missing

    def _take(self, kind: int, frame: object, at: int, size: int) -> None:
        if isinstance(frame, Pages):
            self.census.add(frame)
            self._pieces.extend((kind, at, size))
        elif isinstance(frame, Round):
            self.rounds.append(frame)
        elif isinstance(frame, PageSet):
            self._sets.extend((frame.round, at, size))
            self._highest = max(self._highest, int(frame.frames.max(initial=0)))
        elif isinstance(frame, Look):
            self._tables.add(frame, at, size)
        elif isinstance(frame, Sample):
            self._samples.add(frame)
        elif isinstance(frame, Looked):
            self._tables.close(frame, self.rounds[-1].end_ns)
        elif isinstance(frame, Tick):
            self.last_ns = frame.ns
            self._ticks.extend((len(self._pieces) // 3, frame.ns))
        elif isinstance(frame, Event):
            self.messages = frame.what
            if len(self.events) < _EVENTS:
                self.events.append(frame.what)
            else:
                self.more_events += 1
        elif isinstance(frame, End):
            self.end = frame

    def _in_time(self) -> None:
        """Add the round in which the VM ended, and close the gaps between rounds.

        A trace has no gaps between rounds. Times between measurements are left out of its clock.
        """
        open_ns, last = self.end.open_ns if self.end else None, self.rounds[-1]
        self.unfinished = open_ns is not None and max(open_ns, last.end_ns) < self.last_ns
        if self.unfinished:
            start = max(int(open_ns or 0), last.end_ns)
            self.rounds.append(Round(last.number + 1, start, self.last_ns, 0, None))
        self.spans = np.array([(one.start_ns, one.end_ns) for one in self.rounds], np.int64)
        starts, ends = self.spans[:, 0], self.spans[:, 1]
        gaps = np.append(0, np.maximum(starts[1:] - ends[:-1], 0))
        self.gap_ns = int(gaps.sum())
        self.shift = starts[0] + np.cumsum(gaps)
        self.starts, self.ends = starts - self.shift, ends - self.shift

    # The description

    @property
    def release(self) -> tuple[int, int]:
        """The host's kernel."""
        return Host(release=self.header.get("host", {}).get("release", "")).version

    @property
    def pml(self) -> bool:
        """Whether KVM uses PML, if known."""
        return self.header.get("host", {}).get("pml") is not False

    def slots(self) -> list[tuple[int, int]]:
        """Return the guest's memory according to its slots: (first frame, pages), in order."""
        slots = self.end.slots if self.end else []
        return sorted((gfn, pages) for gfn, pages, flags in slots if not flags & READONLY)

    def meta(self, highest: int, vcpus: int, notes: list[str]) -> TraceMeta:
        """Return the description."""
        h, slots = self.header, self.slots()
        domain, job = h["domain"], h.get("job", {})
        memory = domain.get("memory_bytes") or sum(pages for _, pages in slots) * PAGE_SIZE
        guessed = not memory and not h.get("pages")
        memory = memory or h.get("pages", highest + 1) * PAGE_SIZE
        options = {**h.get("options", {}), "job": job, "pml": h.get("host", {}).get("pml")}
        options |= {name: h.get(name) for name in ("mode", "switch", "vmm")}
        if unseen := self._tables.unseen(len(self.rounds)):
            options[UNSEEN] = unseen
        new = np.diff(self.shift, prepend=-1) != 0
        starts = np.stack([self.starts, self.starts + self.shift], axis=1)
        options[HOST_CLOCK] = starts[new].tolist()
        capture = h.get("capture", {})
        options["capture"] = {
            n: capture[n] for n in ("kind", "place", "marks", "times", "buffer_kib") if n in capture
        }
        if guessed:
            options[MEMORY_GUESSED] = True
        rings = self.end is not None and self.end.rings
        ours = (h.get("switch") in ("qmp", "libvirt") and not rings) or self.mode != "log"
        period_ns = round(job.get("period_s", 1.0) * 1e9) if ours else None
        spent = sum(one.agent_cpu_ns for one in self.rounds)
        return TraceMeta(
            kind="pml",
            source="kvm",
            created=h.get("created"),
            domain={"name": domain["name"], "memory_bytes": -(-memory // PAGE_SIZE) * PAGE_SIZE,
                    "vcpus": max(domain["vcpus"], vcpus)},
            memory_map=self.memory_map(),
            clock={"unit": "ns", "kind": "host", "ns_per_insn": h.get("ns_per_insn")},
            period={"ns": period_ns},
            phases=self.phases(),
            known=self.known(),
            options=options,
            overheads={"agent_cpu_ns": spent},
            host=h.get("host", {}),
            provenance={"command": h.get("command", ""), "versions": h.get("versions", {})},
            notes=notes,
            complete=bool(self.end and self.end.complete and not self.fault),
        )  # fmt: skip

    def memory_map(self) -> list[Json]:
        """Return the guest's memory by its slots."""
        return self.header.get("memory_map") or [
            {"start": gfn * PAGE_SIZE, "end": (gfn + pages) * PAGE_SIZE, "type": "usable"}
            for gfn, pages in self.slots()
        ]

    def phases(self) -> list[Json]:
        """Return the phases of the guest's work, if known."""
        return self.header.get("phases", [])

    def known(self) -> list[Json]:
        """Return the known answers of the guest."""
        return self.header.get("known", [])

    def add_more(self, writer: TraceWriter) -> None:
        """Add the tables of a special source; by default none."""

    def notes(self) -> Iterator[str]:
        """Yield the notes that every trace of this source has."""
        yield from self.events
        if self.more_events:
            yield f"{self.more_events} more events were omitted from these notes"
        if self.gap_ns:
            yield f"{self.gap_ns / 1e9:.3f} s between measurements are omitted from the clock"
        if self.unfinished:
            yield "the last round was not closed: the VM ended in it"
        yield from self._tables.notes()
        yield from self._samples.notes()
        if self.end and self.end.why:
            yield f"it ended because: {self.end.why}"
        if self.missing or not self.end:
            yield f"shorter than requested: {self.missing or 'the collection ended too early'}"
        elif not self.end.complete:
            yield "shorter than requested"

    # The tables

    def write(self, out: PathLike, overwrite: bool) -> Trace:
        """Write the trace."""
        if self.mode == "soft-dirty":
            return self._write_sets(out, overwrite)
        lost, lost_outside = self._lost(self.census.losses())
        drains = self._drains()
        with TraceWriter(out, self.meta(0, 1, []), overwrite=overwrite) as writer:
            table = self._write_log(writer, drains, lost)
            writer.set_batches(self._batch_table(table, lost))
            writer.set_rounds(self._round_table(lost))
            notes = [*self.notes(), *_log_notes(self, table), *_left_out(drains, lost_outside)]
            meta = self.meta(table.highest, table.vcpus, [*notes, *_NOTES])
            writer.replace_meta(**{f.name: getattr(meta, f.name) for f in fields(meta)})
            self._write_tables(writer)
            self._samples.write(writer, meta, self._round_table(lost))
            self.add_more(writer)
        return Trace.open(out)

    def kinds(self, round: Ints, gfn: Gfns) -> Array | int:
        """Return the kinds of entries."""
        self._samples.mark(round, gfn)
        return self._tables.kinds(round, gfn)

    def _write_tables(self, writer: TraceWriter) -> None:
        if self._tables.depth and self.header.get("job", {}).get("page_tables") == "snapshot":
            with open(self.folder / FRAMES_FILE, "rb") as file:
                self._tables.write(file, writer)

    @property
    def turns(self) -> bool:
        """Whether KVM returns the newest entry of a drain first."""
        return self.pml and (0, 0) < self.release < OLDEST_FIRST

    def _drains(self) -> Drains:
        known = {int(thread): vcpu for thread, vcpu in self.header.get("vcpus", {}).items()}
        slots = np.array([(gfn, gfn + pages) for gfn, pages in self.slots()], np.uint64)
        return Drains(self.census, known, self.spans, slots.reshape(-1, 2), self.turns)

    def _over(self, drains: Drains) -> Iterator[Batches]:
        """Read the events again; yield batches when they are finished."""
        pieces = np.array(self._pieces, np.int64).reshape(-1, 3)
        ticks = np.array(self._ticks, np.int64).reshape(-1, 2)
        first = 0
        with open(self.folder / FRAMES_FILE, "rb") as file:
            for stop, ns in [*ticks.tolist(), (len(pieces), EVER_NS)]:
                for kind, at, size in pieces[first:stop].tolist():
                    file.seek(at)
                    drains.add(self._stream.again(kind, file.read(size)))
                first = stop
                if drains.waiting >= _AT_ONCE or ns == EVER_NS:
                    # An event becomes readable some time after its time stamp.
                    yield drains.until(ns - _SLACK_NS if ns < EVER_NS else ns)

    def _write_log(self, writer: TraceWriter, drains: Drains, lost: Ints) -> _BatchTable:
        """Write the entries; return their batches."""
        table = _BatchTable(np.flatnonzero(lost))
        for over in self._over(drains):
            numbers = table.add(over)
            if not len(numbers):
                continue
            each = (numbers, over.round, over.vcpu)
            batch, round, vcpu = (np.repeat(column, over.count) for column in each)
            writer.add_entries(round, batch, vcpu, over.gfn, self.kinds(round, over.gfn))
        table.finish()
        return table

    def _round_table(self, lost: Ints) -> pd.DataFrame:
        asked = self.meta(0, 1, []).period["ns"]
        return pd.DataFrame({
            "round": np.arange(len(self.rounds)), "t_start_ns": self.starts,
            "t_end_ns": self.ends, "asked_ns": -1 if asked is None else asked, "lost": lost,
        })  # fmt: skip

    def _batch_table(self, table: _BatchTable, lost: Ints) -> pd.DataFrame:
        """Return the batches; the last batch of a round gets the losses of the round."""
        c = table.columns()
        rounds = c["round"]
        shift, start, stop = self.shift[rounds], self.starts[rounds], self.ends[rounds]
        bare = c["count"] == 0
        end = np.where(bare, stop, np.clip(c["end"] - shift, start, stop))
        since = np.where(c["since"] == UNKNOWN_NS, 0, c["since"] - shift)
        of_batch, losing = np.zeros(len(rounds), np.int64), np.flatnonzero(lost)
        of_batch[np.searchsorted(rounds, losing, "right") - 1] = lost[losing]
        reasons = np.array(["round", "full"], object)[(c["count"] >= DRAIN_ENTRIES).astype(int)]
        return pd.DataFrame({
            "batch": np.arange(len(rounds)), "round": rounds, "vcpu": c["vcpu"],
            "t_start_ns": np.where(bare, stop, np.clip(since, start, end)), "t_end_ns": end,
            "reason": reasons, "lost": of_batch,
        })  # fmt: skip

    def _lost(self, losses: Ints) -> tuple[Ints, int]:
        """Return the losses of each round, and those outside of all rounds.

        The kernel does not report the number of events in some gaps, but it reports their sum. The
        remainder is assigned to the last round. A gap across a round's end belongs to the later
        round with ftrace, which overwrites old entries. It belongs to the earlier round with BPF,
        which loses new ones. Of more than two rounds each has a part, by its time, so that none
        looks whole that is not.
        """
        lost = np.zeros(len(self.rounds), np.int64)
        after, before, count = losses[:, 0], losses[:, 1], np.maximum(losses[:, 2], 0)
        last = np.searchsorted(self.spans[:, 0], before, "left") - 1  # the round that begins before
        first = np.searchsorted(self.spans[:, 1], after, "right")  # the round that ends after
        at = last
        if self.header.get("capture", {}).get("kind") == "bpf":
            early = np.searchsorted(self.spans[:, 0], after, "left") - 1
            at = np.where((early >= 0) & (after < self.spans[early, 1]), early, at)
        inside = (at >= 0) & (after < self.spans[at, 1])
        several = inside & (last - first > 1)
        np.add.at(lost, at[inside & ~several], count[inside & ~several])
        for gap in np.flatnonzero(several):
            touched = slice(first[gap], last[gap] + 1)
            starts, ends = self.spans[touched].T
            times = np.minimum(ends, before[gap]) - np.maximum(starts, after[gap])
            lost[touched] += _shared(int(count[gap]), times)
        known = int(count.sum())
        total = self.end.lost["log"] if self.end else known
        lost[-1] += max(total - known, 0)
        return lost, int(count[~inside].sum())

    def _write_sets(self, out: PathLike, overwrite: bool) -> Trace:
        notes, path = [*self.notes(), _SOFT], self.folder / FRAMES_FILE
        meta = self.meta(self._highest, 1, notes)
        with TraceWriter(out, meta, overwrite=overwrite) as writer, open(path, "rb") as file:
            for number, at, size in np.array(self._sets, np.int64).reshape(-1, 3).tolist():
                if number < len(self.rounds):
                    file.seek(at + SET_HEAD.size)
                    frames = np.frombuffer(file.read(size - SET_HEAD.size), "<u8")
                    writer.add_entries(number, number, 0, frames, int(Kind.UNKNOWN))
            writer.set_rounds(self._round_table(np.zeros(len(self.rounds), np.int64)))
        return Trace.open(out)


def _shared(count: int, times: Ints) -> Ints:
    """Divide a count in proportion to times; each part is at least 1 if possible."""
    least = min(count // len(times), 1)
    ends = np.floor(np.cumsum(times) / times.sum() * (count - least * len(times)))
    return np.diff(ends.astype(np.int64), prepend=0) + least


class _BatchTable:
    """The batches so far, numbered.

    A round of which all entries were lost gets a batch without entries, for its losses.

    Parameters
    ----------
    losing : ndarray of int64
        Rounds that lost entries, in order.

    Attributes
    ----------
    highest, vcpus : int
        The highest frame, and the number above the highest vCPU.
    timed : bool
        Whether a batch has the time of an entry of its vCPU, or there is no batch.
    """

    _TYPES: ClassVar = {"round": np.uint32, "vcpu": np.uint16, "since": np.int64, "end": np.int64,
                        "count": np.uint16}  # fmt: skip

    def __init__(self, losing: Ints) -> None:
        self._losing, self._parts = losing, [{n: np.empty(0, t) for n, t in self._TYPES.items()}]
        self._count, self._round = 0, -1
        self.highest, self.vcpus, self.timed = 0, 1, False

    def __len__(self) -> int:
        return self._count

    def add(self, over: Batches) -> Ints:
        """Add batches; return their numbers."""
        if not len(over.round):
            return over.round
        self.highest = max(self.highest, int(over.gfn.max(initial=0)))
        self.vcpus = max(self.vcpus, int(over.vcpu.max()) + 1)
        self.timed |= bool((over.since != UNKNOWN_NS).any())
        bare = self._bare(over.round)
        places = np.searchsorted(over.round, bare)
        self._append({n: np.insert(getattr(over, n), places, 0) for n in self._TYPES}, bare, places)
        first = self._count - len(over.round) - len(bare)
        return first + np.arange(len(over.round)) + np.searchsorted(bare, over.round)

    def finish(self) -> None:
        """Add the events after the last batch."""
        bare = self._losing[self._losing > self._round]
        self._append({n: np.zeros(len(bare), t) for n, t in self._TYPES.items()}, bare,
                     np.zeros(len(bare), np.int64))  # fmt: skip

    def _bare(self, rounds: Ints) -> Ints:
        """Return the rounds before the last of these that have losses, but no batch."""
        losing = self._losing[(self._losing > self._round) & (self._losing <= rounds[-1])]
        self._round = int(rounds[-1])
        return np.setdiff1d(losing, rounds)

    def _append(self, columns: dict[str, Array], bare: Ints, places: Ints) -> None:
        columns["round"][places + np.arange(len(places))] = bare
        self._parts.append({n: columns[n].astype(t) for n, t in self._TYPES.items()})
        self._count += len(columns["round"])

    def columns(self) -> dict[str, Array]:
        """Return the columns of all batches: round, vcpu, since, end (0: no entry) and count."""
        return {name: np.concatenate([part[name] for part in self._parts]) for name in self._TYPES}


def _left_out(drains: Drains, lost: int) -> Iterator[str]:
    """Yield notes on the entries that are in no round."""
    if drains.outside:
        yield (f"{drains.outside:,} entries before the first re-arm, between measurements or after "
               "the last round were omitted")  # fmt: skip
    if drains.elsewhere:
        yield f"{drains.elsewhere:,} entries outside of the memory slots were omitted"
    if lost:
        yield f"{lost:,} more were lost there"
    if drains.strange:
        yield f"{drains.strange:,} entries come from threads that run no vCPU, and count for vCPU 0"
    if drains.late:
        yield f"{drains.late:,} events arrived late: they have a later time than their own"


def _log_notes(source: KvmTrace, table: _BatchTable) -> Iterator[str]:
    if not source.pml:
        yield "KVM does not use PML (its parameter pml is off): it logs with write faults"
    elif source.release == (0, 0):
        yield "order within a drain is not known, because the kernel's release is not"
    elif source.turns:
        yield ("order within a drain is reversed: before Linux 6.14 KVM takes the newest first")
    else:
        yield "the order within a drain is that of the log (Linux 6.14 and later)"
    if len(table) and not table.timed:
        yield "drains are separated by gaps of 2 us in time, because entries were not captured"
