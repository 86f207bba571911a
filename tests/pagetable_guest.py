# SPDX-License-Identifier: Apache-2.0
"""A guest with page tables on a processor that has PML: small, exact, and all of it known.

It models what matters to a log: the TLB (nothing is walked while a translation is cached, and a
re-arm flushes it), walks that write to the page tables, the guest's sticky accessed flags, the
EPT's accessed and dirty flags. The frames touched in each round are the truth.
"""

import numpy as np
import pandas as pd

from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace
from pmlkit.trace.schema import DRAWN, SAMPLED, TraceMeta
from pmlkit.trace.writer import TraceWriter

PRESENT, ACCESSED, LEAF, DIRTY, WRITABLE, USER, CLEARED = 1, 2, 4, 8, 16, 32, 64
MS = 1_000_000
GOLDEN = 0x9E3779B97F4A7C15


class Guest:
    """Memory, page tables, TLB and log of a guest with four levels of page tables."""

    def __init__(self):
        self.tables = {}  # gfn of a table -> level
        self.entries = {}  # (table, index) -> [target, flags]
        self.rounds = []  # (log, snapshots, touched) of each closed round
        self._next = 1 << 20
        self._cleared = set()  # tables whose accessed flags were cleared at the end of a round
        self._rearm()

    def _rearm(self):
        self.log, self.dirty, self.touched, self.tlb = [], set(), set(), {}

    def frame(self):
        self._next += 1
        return self._next

    def table(self, level):
        gfn = self.frame()
        self.tables[gfn] = level
        return gfn

    def space(self):
        """Return the root of a new address space."""
        return self.table(4)

    def map(self, root, page, gfn, large=False, user=True, accessed=False):
        """Map a virtual page number to a frame; `large`: 512 of each, both aligned."""
        table, last = root, 2 if large else 1
        for level in range(4, last, -1):
            index = page >> 9 * (level - 1) & 511
            if (table, index) not in self.entries:
                self.entries[table, index] = [self.table(level - 1), PRESENT | WRITABLE | USER]
            table = self.entries[table, index][0]
        flags = PRESENT | WRITABLE | LEAF | USER * user | ACCESSED * accessed
        self.entries[table, page >> 9 * (last - 1) & 511] = [gfn, flags]
        return table

    def unmap(self, root, page):
        for table, index, level in self._path(root, page):
            if self.entries[table, index][1] & LEAF:
                del self.entries[table, index]
                self.tlb.pop((root, page >> 9 * (level - 1), level), None)
                return

    def _path(self, root, page):
        table = root
        for level in (4, 3, 2, 1):
            index = page >> 9 * (level - 1) & 511
            yield table, index, level
            target, flags = self.entries[table, index]
            if flags & LEAF:
                return
            table = target

    def read(self, root, page):
        self._access(root, page, False)

    def write(self, root, page):
        self._access(root, page, True)

    def _access(self, root, page, write):
        *_, (table, index, level) = self._path(root, page)
        target, _ = self.entries[table, index]
        gfn = target + (page & (1 << 9 * (level - 1)) - 1)
        # The EPT maps 4 KiB: so does the TLB, whatever the guest's page is.
        if self.tlb.get((root, page), -1) < write:
            for table, index, _ in self._path(root, page):
                self._dirty(table, Kind.PAGE_TABLE | self.tables[table])
                self.entries[table, index][1] |= ACCESSED
            self.entries[table, index][1] |= DIRTY * write
            self.tlb[root, page] = write
        self.touched.add(gfn)
        if write:
            self._dirty(gfn, Kind.WRITE)

    def _dirty(self, gfn, kind):
        self.touched.add(gfn)
        if gfn not in self.dirty:
            self.dirty.add(gfn)
            self.log.append((gfn, int(kind)))

    def close_round(self, clear=False):
        """End the round: snapshots of the tables that were logged, then everything is re-armed.

        With `clear` the hypervisor clears the accessed flags of the leaf entries in them.
        """
        logged = {gfn for gfn, kind in self.log if kind & Kind.PAGE_TABLE}
        rows = [
            (table, self.tables[table], index, target, flags | CLEARED * (table in self._cleared))
            for (table, index), (target, flags) in sorted(self.entries.items())
            if table in logged
        ]
        self.rounds.append((self.log, rows, self.touched))
        if clear:
            self._cleared |= logged
            for (table, _), entry in self.entries.items():
                entry[1] &= ~(ACCESSED * (table in logged and entry[1] & LEAF != 0))
        self._rearm()


def write_trace(
    path,
    guest,
    harvests=None,
    marks=True,
    snapshots=True,
    phases=(),
    left=None,
    one_in=None,
    redraw=False,
    memory_bytes=16 << 30,
    **meta,
):
    """Write the guest's rounds, 10 ms each: the harvest, and in it the log with its snapshots.

    Parameters
    ----------
    path : Path
    guest : Guest
    harvests : set of int, optional
        The rounds whose harvest is in the trace; default: all. A sample ends with the last one.
    marks : bool
        Whether the log's entries say which are page tables.
    snapshots : bool
    left : dict of int to set, optional
        The harvest was guided, and a scan found these frames by round (beside what was touched).
    one_in : int, optional
        Only so large a sample was harvested: it is nested in the log.
    redraw : bool
        It was drawn again in each round.
    """
    n = len(guest.rounds)
    meta |= {"domain": {"memory_bytes": memory_bytes}, "period": {"ns": 10 * MS}}
    edges = np.arange(n + 1) * 10 * MS
    times = {"round": np.arange(n), "t_start_ns": edges[:-1], "t_end_ns": edges[1:]}
    starts = [{"name": p, "round": r, "t_ns": r * 10 * MS, "insn": -1} for p, r in phases]
    log = TraceMeta("pml", "synthetic", options=meta.pop("options", {}), **meta)
    options = {SAMPLED: one_in} if one_in else {}
    options |= {DRAWN: "round"} if redraw else {}
    found = hypervisor_finds(guest, one_in) if redraw else None
    harvest = TraceMeta("access", "synthetic", options=options, **meta)
    with TraceWriter(path, log if one_in else harvest) as outer:
        inner = outer.sample(harvest) if one_in else outer.pml(log)
        pml, writer = (outer, inner) if one_in else (inner, outer)
        for number, (log, rows, _) in enumerate(guest.rounds):
            _add_log(pml, number, log, marks)
            if rows and snapshots:
                pml.add_tables(number, *np.array(rows, np.uint64).T)
        pml.set_rounds(pd.DataFrame(times))
        pml.set_phases(starts)
        sources = 1 if left is None else 2
        there = sorted(range(n) if harvests is None or not one_in else harvests)
        batches = {number: batch for batch, number in enumerate(there)}
        for number, (log, _, touched) in enumerate(guest.rounds):
            if harvests is None or number in harvests:
                extra = (left or {}).get(number, set())
                if found:
                    touched = found[number]
                else:
                    touched = {gfn for gfn in touched if not one_in or in_sample(gfn, one_in)}
                _add_harvest(writer, number, sources * batches[number], touched - extra, log)
                _add_harvest(writer, number, 2 * number + 1, extra, log)
        if left is not None:
            writer.set_batches(_harvest_batches(times))
        if one_in:
            batches = pd.DataFrame(times).iloc[there].reset_index(drop=True)
            writer.set_batches(batches.assign(batch=batches.index, reason="scan"))
        writer.set_rounds(pd.DataFrame(times).iloc[: there[-1] + 1])
        writer.set_phases(starts)
    return Trace.open(path)


def in_sample(gfn, one_in, draw=0):
    """Whether a frame is in the sample, as the patches define it (``XEN_PML_DRAW``)."""
    group = gfn // one_in
    if draw:
        group = (group + (draw << 40)) * GOLDEN % 2**64
        group ^= group >> 32
    return (group * GOLDEN % 2**64 >> 40) % one_in == gfn % one_in


def hypervisor_finds(guest, one_in):
    """Return what a sample drawn again finds in each round, by the flags as the patches keep them.

    As `scan_region` of their harvest.c: a region that was not used is not looked at. Of one that
    was, the flags of this draw are read and cleared, and those of the next round's are cleared.
    """
    flags, draws, found = set(), {}, []
    for number, (_, _, touched) in enumerate(guest.rounds):
        flags |= touched
        used = {gfn >> 9 for gfn in touched}
        mine = {
            g for g in flags if g >> 9 in used and in_sample(g, one_in, _draw(draws, g, number))
        }
        found.append(mine)
        flags -= mine
        flags -= {g for g in flags if g >> 9 in used and in_sample(g, one_in, number + 2)}
        draws |= dict.fromkeys(used, number + 2)
    return found


def _draw(draws, gfn, number):
    return draws.get(gfn >> 9, number + 1)


def _add_harvest(writer, number, batch, touched, log):
    if touched:
        frames = np.array(sorted(touched), np.uint64)
        written = np.isin(frames, [gfn for gfn, _ in log])
        kinds = np.where(written, int(Kind.WRITE), int(Kind.READ)).astype(np.uint8)
        writer.add_entries(number, batch, 0, frames, kinds)


def _harvest_batches(times):
    """Return two batches a round, the guided harvest's and the scan's."""
    table = pd.DataFrame(times).loc[lambda rows: rows.index.repeat(2)].reset_index(drop=True)
    reasons = ["guided", "scan"] * (len(table) // 2)
    return table.assign(batch=np.arange(len(table)), reason=reasons)


def _add_log(pml, number, log, marks):
    if log:
        gfns, kinds = np.array(log, np.uint64).T
        kinds = kinds.astype(np.uint8)
        pml.add_entries(number, number, 0, gfns, kinds if marks else np.zeros_like(kinds))


def truth(guest, number, tables=False):
    """Return the frames touched in a round, without the page tables unless asked for."""
    touched = guest.rounds[number][2]
    return touched if tables else touched - set(guest.tables)
