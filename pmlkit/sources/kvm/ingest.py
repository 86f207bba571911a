# SPDX-License-Identifier: Apache-2.0
"""Convert a KVM spool (written by `pmlkit.kvm` on the VM's host) to a trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.errors import NotATrace, NotUnderstood, SpoolDamaged
from pmlkit.kvm.host import Host
from pmlkit.kvm.rounds import READONLY
from pmlkit.sources.host.spool import understood
from pmlkit.sources.kvm.events import UNKNOWN_NS, Collected, of_rounds
from pmlkit.sources.kvm.stream import End, Event, KvmStream, Pages, PageSet, Round, Tick
from pmlkit.spool import FRAMES_FILE
from pmlkit.spool_reader import read_spool
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace
from pmlkit.trace.schema import MEMORY_GUESSED, PAGE_SIZE, TraceMeta
from pmlkit.trace.writer import TraceWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmlkit.sources.kvm.events import Log, Losses
    from pmlkit.types import Gfns, Ints, Json, PathLike, Tell


__all__ = ["KvmTrace", "ingest"]

_BUFFER = 512  # entries of PML's buffer
_EVENTS = 100  # messages that are kept
_ADDRESS_SPACE = 1 << 16  # of a slot's number: 0 is memory, 1 what system management mode sees
_UNSEEN = "what the VMM itself writes (virtio, other DMA) is in no log of KVM's"
_READS = "a page that is only read is not logged: the page tables that lead to it are"
_DRAINS = (
    "KVM drains PML's buffer at every exit: an entry was written between its batch's start and "
    "end. A batch of 512 was a full buffer, any other says 'round' for another exit"
)
_SOFT = (
    "soft-dirty bits of the VMM's memory: pages of a round by number, each once, without order. "
    "What the VMM writes itself is in them. A frame counts pages of the VMM's mappings"
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
        Called with a message if it stopped at a frame before the end.

    Raises
    ------
    NotATrace
        If no round was closed, or the collection tells sizes and no frames.
    """
    with understood(spool):
        source = KvmTrace(Path(spool))
        trace = source.write(out, overwrite)
    if source.fault:
        heard(source.fault)
    return trace


class KvmTrace:
    """A trace to be written from a spool."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rounds: list[Round] = []
        self.sets: list[PageSet] = []
        self.events: list[str] = []
        self.collected, self.end = Collected(), None
        self.last_ns = 0
        self._read()
        if not self.rounds:
            why = "no round was closed before it ended"
            said = f": {self.events[-1]}" if self.events else ""
            raise NotATrace(folder, f"{why}{said}", "collect again")
        if self.mode == "lru-gen":
            what = "no trace: it has sizes by the aging of MGLRU, which tells no frames"
            raise NotATrace(folder, what, "`pmlkit collect --mode lru-gen` makes a table of them")
        self._in_time()

    end: End | None

    def _read(self) -> None:
        path = self.folder / FRAMES_FILE
        with read_spool(path) as spool:
            try:
                stream = KvmStream(spool.header)
            except NotUnderstood as error:
                hint = "keep it, try a later pmlkit, or collect again"
                raise SpoolDamaged(path, 0, error.why, hint) from error
            self.header, self.mode, self.epoch_ns = spool.header, stream.mode, stream.epoch_ns
            for frame in spool.understand(spool, stream.take):
                self._take(frame)
            self.fault, self.missing = spool.left, spool.missing

    def _take(self, frame: object) -> None:
        if isinstance(frame, Pages):
            self.collected.add(frame)
        elif isinstance(frame, Round):
            self.rounds.append(frame)
        elif isinstance(frame, PageSet):
            self.sets.append(frame)
        elif isinstance(frame, Tick):
            self.last_ns = frame.ns
        elif isinstance(frame, Event):
            self.events.append(frame.what)
        elif isinstance(frame, End):
            self.end = frame

    def _in_time(self) -> None:
        """Add the round in which the VM ended, and make the rounds follow on one another.

        A trace has no gaps between rounds. Times between measurements are left out of its clock.
        """
        open_ns, last = self.end.open_ns if self.end else None, self.rounds[-1]
        self.unfinished = open_ns is not None and max(open_ns, last.end_ns) < self.last_ns
        if self.unfinished:
            start = max(int(open_ns or 0), last.end_ns)
            self.rounds.append(Round(last.number + 1, start, self.last_ns, 0, None))
        starts = np.array([one.start_ns for one in self.rounds], np.int64)
        ends = np.array([one.end_ns for one in self.rounds], np.int64)
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
        """Whether KVM uses PML, as far as it is known."""
        return self.header.get("host", {}).get("pml") is not False

    def slots(self) -> list[tuple[int, int]]:
        """Return the guest's memory as far as slots are known: (first frame, pages), in order."""
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
        capture = h.get("capture", {})
        options["capture"] = {
            n: capture[n] for n in ("kind", "place", "buffer_kib") if n in capture
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
        """Return the phases of the guest's work, if they are known."""
        return self.header.get("phases", [])

    def known(self) -> list[Json]:
        """Return what the guest is known to touch."""
        return self.header.get("known", [])

    def add_more(self, writer: TraceWriter) -> None:
        """Add tables of a special source: none."""

    def notes(self) -> Iterator[str]:
        """Yield the notes that every trace of this source has."""
        yield from self.events[:_EVENTS]
        if self.gap_ns:
            yield f"{self.gap_ns / 1e9:.3f} s between measurements are left out of the clock"
        if self.unfinished:
            yield "the last round was not closed: the VM ended in it"
        if self.end and self.end.why:
            yield f"it ended because: {self.end.why}"
        if self.missing or not self.end:
            yield f"shorter than asked: {self.missing or 'the collection did not come to its end'}"
        elif not self.end.complete:
            yield "shorter than asked"

    # The tables

    def write(self, out: PathLike, overwrite: bool) -> Trace:
        """Write the trace."""
        if self.mode == "soft-dirty":
            return self._write_sets(out, overwrite)
        known = {int(thread): vcpu for thread, vcpu in self.header.get("vcpus", {}).items()}
        log = self.collected.log(known, self.release, self.pml)
        number, left_out = self._placed(log)
        order, batch_of, batches = self._batches(log, number)
        lost, lost_outside = self._lost(self.collected.losses())
        batches, renumbered = _with_losses(batches, lost, self.ends)
        if lost_outside:
            left_out.append(f"{lost_outside:,} more were lost there")
        notes = [*self.notes(), *_log_notes(self, log), *left_out, *_NOTES]
        gfn, vcpu = log.gfn[order], log.vcpu[order]
        meta = self.meta(int(gfn.max(initial=0)), int(vcpu.max(initial=0)) + 1, notes)
        with TraceWriter(out, meta, overwrite=overwrite) as writer:
            if len(order):
                batch_of = renumbered[batch_of]
                writer.add_entries(number[order], batch_of, vcpu, gfn, int(Kind.UNKNOWN))
            writer.set_batches(batches)
            writer.set_rounds(self._round_table(lost))
            self.add_more(writer)
        return Trace.open(out)

    def _placed(self, log: Log) -> tuple[Ints, list[str]]:
        """Return the round of each entry (-1: none), and notes on those that have none."""
        number, notes = of_rounds(log.time, self.rounds), []
        if outside := int(np.count_nonzero(number < 0)):
            notes.append(f"{outside:,} entries before the first re-arm, between measurements or "
                         "after the last round were left out")  # fmt: skip
        if slots := self.slots():
            number = np.where(_within(log.gfn, slots), number, -1)
        if elsewhere := int(np.count_nonzero(number < 0)) - outside:
            notes.append(f"{elsewhere:,} entries outside of the memory slots were left out")
        return number, notes

    def _round_table(self, lost: Ints) -> pd.DataFrame:
        asked = self.meta(0, 1, []).period["ns"]
        return pd.DataFrame({
            "round": np.arange(len(self.rounds)), "t_start_ns": self.starts,
            "t_end_ns": self.ends, "asked_ns": -1 if asked is None else asked, "lost": lost,
        })  # fmt: skip

    def _batches(self, log: Log, number: Ints) -> tuple[Ints, Ints, pd.DataFrame]:
        """Return the order of the entries, the batch of each, and the table of batches."""
        ends = np.zeros(len(log.since), np.int64)
        np.maximum.at(ends, log.drain, log.time)
        rank = np.empty(len(ends), np.int64)
        rank[np.argsort(ends, kind="stable")] = np.arange(len(ends))
        key = np.where(number >= 0, number * max(len(ends), 1) + rank[log.drain], -1)
        order = np.argsort(key, kind="stable")[np.count_nonzero(key < 0) :]
        key = key[order]
        new = np.append(True, key[1:] != key[:-1]) if len(key) else np.zeros(0, bool)
        batch_of, firsts = np.cumsum(new) - 1, np.flatnonzero(new)
        rounds, drain = number[order[firsts]], log.drain[order[firsts]]
        shift, start = self.shift[rounds], self.starts[rounds]
        # The end of the part of a drain that is in the round.
        last = np.zeros(len(firsts), np.int64)
        np.maximum.at(last, batch_of, log.time[order])
        since = np.where(log.since[drain] == UNKNOWN_NS, 0, log.since[drain]) - shift
        end = np.clip(last - shift, start, self.ends[rounds])
        sizes = np.diff(np.append(firsts, len(order)))
        table = pd.DataFrame({
            "batch": np.arange(len(firsts)), "round": rounds, "vcpu": log.vcpu[order[firsts]],
            "t_start_ns": np.clip(since, start, end), "t_end_ns": end,
            "reason": np.where(sizes >= _BUFFER, "full", "round"),
        })  # fmt: skip
        return order, batch_of, table

    def _lost(self, losses: Losses) -> tuple[Ints, int]:
        """Return the losses of each round, and those outside of all.

        The kernel does not say how many events some of the gaps have, but how many in all: what is
        left is assigned to the last round. A gap across a round's end is of the later round with
        ftrace, which overwrites what is old, and of the earlier with BPF, which loses what is new.
        """
        by_bpf = self.header.get("capture", {}).get("kind") == "bpf"
        lost = np.zeros(len(self.rounds), np.int64)
        starts, ends = self.starts + self.shift, self.ends + self.shift
        outside = known = 0
        for after, before, count in zip(
            losses.after.tolist(), losses.before.tolist(), losses.count.tolist(), strict=True
        ):
            at = int(np.searchsorted(starts, before, "left")) - 1  # the last that begins before
            if by_bpf and (early := int(np.searchsorted(starts, after, "left")) - 1) >= 0:
                at = early if after < ends[early] else at
            known += max(count, 0)
            if at >= 0 and after < ends[at]:
                lost[at] += max(count, 0)
            else:
                outside += max(count, 0)
        total = self.end.lost["log"] if self.end else known
        lost[-1] += max(total - known, 0)
        return lost, outside

    def _write_sets(self, out: PathLike, overwrite: bool) -> Trace:
        highest = max((int(one.frames[-1]) for one in self.sets if len(one.frames)), default=0)
        notes = [*self.notes(), _SOFT]
        with TraceWriter(out, self.meta(highest, 1, notes), overwrite=overwrite) as writer:
            for one in self.sets:
                if one.round < len(self.rounds):
                    writer.add_entries(one.round, one.round, 0, one.frames, int(Kind.UNKNOWN))
            writer.set_rounds(self._round_table(np.zeros(len(self.rounds), np.int64)))
        return Trace.open(out)


def _within(gfns: Gfns, slots: list[tuple[int, int]]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which frames lie in one of the slots."""
    starts = np.array([gfn for gfn, _ in slots], np.uint64)
    ends = np.array([gfn + pages for gfn, pages in slots], np.uint64)
    at = np.searchsorted(starts, gfns, "right").astype(np.int64) - 1
    return (at >= 0) & (gfns < ends[np.maximum(at, 0)])


def _with_losses(batches: pd.DataFrame, lost: Ints, ends: Ints) -> tuple[pd.DataFrame, Ints]:
    """Assign the losses of each round to its last batch, which is made if it has none.

    Returns
    -------
    table : DataFrame
    number : ndarray of int64
        The new number of each old batch.
    """
    rounds = batches["round"].to_numpy()
    bare = np.setdiff1d(np.flatnonzero(lost), rounds)
    made = dict.fromkeys(("t_start_ns", "t_end_ns"), ends[bare])
    more = pd.DataFrame({"batch": -1, "round": bare, "vcpu": 0, **made, "reason": "round"})
    table = pd.concat([batches, more]) if len(bare) else batches
    table = table.sort_values("round", kind="stable").reset_index(drop=True)
    number = np.empty(len(batches), np.int64)
    old = table["batch"].to_numpy()
    number[old[old >= 0]] = np.flatnonzero(old >= 0)
    column, losing = np.zeros(len(table), np.int64), np.flatnonzero(lost)
    column[np.searchsorted(table["round"].to_numpy(), losing, "right") - 1] = lost[losing]
    return table.assign(batch=np.arange(len(table)), lost=column), number


def _log_notes(source: KvmTrace, log: Log) -> Iterator[str]:
    if not source.pml:
        yield "KVM does not use PML (its parameter pml is off): it logs by write faults"
    elif source.release == (0, 0):
        yield "order within a drain is not known: the kernel's release is not"
    elif log.turned:
        yield "order within a drain is turned round: before Linux 6.14 KVM takes the newest first"
    else:
        yield "order within a drain is that of the log (Linux 6.14 and later)"
    if len(log.since) and (log.since == UNKNOWN_NS).all():
        yield "drains are told apart by gaps of 2 us in time, as entries were not captured"
    if log.strange:
        yield f"{log.strange:,} entries are of threads that run no vCPU, and count for vCPU 0"
