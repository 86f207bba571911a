# SPDX-License-Identifier: Apache-2.0
"""The full check of a trace: every file's digest, every count, every rule of the format.

Only `Trace.check` imports it, when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pmlkit.errors import TraceDamaged
from pmlkit.trace import arrow, consistency, manifest, snapshots
from pmlkit.trace.consistency import first_fault
from pmlkit.trace.entries import RunLengthCounts
from pmlkit.trace.kinds import KINDS, Kind
from pmlkit.trace.parquet import verify
from pmlkit.trace.schema import ENTRIES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    from pmlkit.types import Array, Gfns, Json


# `trace` is a `Trace` throughout, whose module imports this one.
_ROUND_COLUMNS = ["round", "gfn", "kind"]  # columns for the check of a round
_KIND_BITS = 8


def check_trace(trace: Any) -> Json:
    """Check a trace; see `pmlkit.trace.Trace.check`."""
    _check_files(trace)
    scan = _Scan(trace)
    for batch in trace.iter_entries():
        scan.add(batch)
    scan.finish()
    _check_snapshots(trace)
    _ = trace.regions_table, trace.table("guest"), trace.table("disk")  # reading them checks them
    return {
        "entries": trace.meta.entries,
        "rounds": trace.n_rounds,
        "batches": len(scan.batch_rows),
        "lost": trace.meta.lost,
        "files": len(trace.files) + 1,
        "bytes": sum(checksum["bytes"] for checksum in trace.files.values()),
        "bytes_per_entry": round(trace.bytes_per_entry, 3),
        "duration_ns": trace.duration_ns,
        "complete": trace.meta.complete,
        "pml": check_trace(trace.pml) if trace.pml_is_nested else None,
        "sample": check_trace(trace.sample) if trace.sample else None,
    }


def _check_files(trace: Any) -> None:
    for name, checksum in trace.files.items():
        verify(trace.path, name, checksum)
    for pattern in ("*.parquet", "entries/*.parquet"):
        for file in sorted(trace.path.glob(pattern)):
            name = file.relative_to(trace.path).as_posix()
            if name not in trace.files:
                raise TraceDamaged(trace.path, name, f"is not listed in {manifest.NAME}")


def _check_snapshots(trace: Any) -> None:
    if snapshots.FILE not in trace.files:
        return
    rows, last = 0, (-1, 0, 0, 0)
    for batch in trace.table_rows(0, 1 << 32):  # including rows beyond the last round
        columns = {name: arrow.values(batch[name]) for name in batch.schema.names}
        fault = snapshots.rows_fault(columns, last) or _frame_fault(trace, columns["table"])
        _refuse_snapshots(trace, fault)
        rows, last = rows + batch.num_rows, snapshots.last_row(columns)
    stated = trace.files[snapshots.FILE]["rows"]
    fault = f"holds {rows} rows, and {manifest.NAME} states {stated}" if rows != stated else None
    _refuse_snapshots(trace, consistency.beyond_fault(last[0], trace.n_rounds) or fault)


def _refuse_snapshots(trace: Any, fault: str | None) -> None:
    if fault:
        raise TraceDamaged(trace.path, snapshots.FILE, fault)


def _frame_fault(trace: Any, gfn: Gfns) -> str | None:
    highest, limit = int(gfn.max()), trace.meta.gfn_limit
    if limit is not None and highest >= limit:
        return f"holds frame {highest}, and the memory map ends at {limit}"
    return None


class _Scan:
    """One pass over the entries, row group by row group."""

    def __init__(self, trace: Any) -> None:
        self.trace = trace
        self.kinds = np.isin(np.arange(256), [int(kind) for kind in KINDS[trace.meta.kind]])
        self.batch_rows = trace.table("batches")
        self.per_round, self.per_batch = RunLengthCounts(), RunLengthCounts()
        # The last round so far, which may continue in the next row group.
        self.open_round = arrow.empty(ENTRIES).select(_ROUND_COLUMNS)

    def add(self, batch: pa.RecordBatch) -> None:
        columns = {name: arrow.values(batch[name]) for name in batch.schema.names}
        if not batch.num_rows:
            return
        self._refuse(
            self._order_fault(columns),
            self._batch_fault(columns),
            self._value_fault(columns),
        )
        self.per_round.add(columns["round"])
        self.per_batch.add(columns["batch"])
        self._add_rounds(batch, columns["round"])

    def _order_fault(self, columns: Mapping[str, Array]) -> str | None:
        for name, counts in (("round", self.per_round), ("batch", self.per_batch)):
            column = columns[name]
            if column[0] < counts.last or (column[1:] < column[:-1]).any():
                return f"holds entries whose {name} falls"
        return None

    def _batch_fault(self, columns: Mapping[str, Array]) -> str | None:
        rows, last = self.batch_rows, columns["batch"].max()
        if last >= len(rows):
            return f"holds entries of batch {last}, and there are {len(rows)}"
        for name in ("round", "vcpu"):
            if (arrow.values(rows[name])[columns["batch"]] != columns[name]).any():
                return f"holds entries of another {name} than their batch"
        return None

    def _value_fault(self, columns: Mapping[str, Array]) -> str | None:
        kinds = columns["kind"][~self.kinds[columns["kind"]]]
        if kinds.size:
            return f"holds an entry of kind {kinds[0]}, not of a trace of {self.trace.meta.kind}"
        return _frame_fault(self.trace, columns["gfn"])

    def _add_rounds(self, batch: pa.RecordBatch, rounds: NDArray[np.uint32]) -> None:
        if self.trace.meta.kind != "access":
            return
        rows = pa.Table.from_batches([batch]).select(_ROUND_COLUMNS)
        if rounds[-1] == (self.open_round["round"][0].as_py() if len(self.open_round) else -1):
            self.open_round = pa.concat_tables([self.open_round, rows])
            return
        start_of_last = int(np.searchsorted(rounds, rounds[-1]))
        complete = pa.concat_tables([self.open_round, rows.slice(0, start_of_last)])
        self._refuse(access_fault(complete))
        self.open_round = rows.slice(start_of_last)

    def finish(self) -> None:
        """Check the last round, and compare the counts with the tables."""
        if self.trace.meta.kind == "access":
            self._refuse(access_fault(self.open_round))
        rounds = self.trace.rounds_table
        fault = consistency.tables_fault(rounds, self.batch_rows, self.per_round, self.per_batch)
        if fault:
            raise TraceDamaged(
                self.trace.path, "rounds.parquet or batches.parquet", f"is wrong: {fault}"
            )
        for name in ("entries", "lost"):
            stated, summed = getattr(self.trace.meta, name), consistency.total(rounds[name])
            if stated is not None and stated != summed:
                why = f"states {name} {stated}, and the rounds have {summed}"
                raise TraceDamaged(self.trace.path, manifest.NAME, why)

    def _refuse(self, *faults: str | None) -> None:
        if fault := first_fault(*faults):
            raise TraceDamaged(self.trace.path, "entries", fault)


def _is_plain_round(table: pa.Table) -> bool:
    """Whether all entries are of one round, none occurs twice, and none is an execution.

    Sorts one column at a time: a round may have as many entries as memory has pages.
    """
    rounds = table["round"]
    if rounds[0] != rounds[-1]:
        return False
    gfn, kinds = arrow.values(table["gfn"]), arrow.values(table["kind"])
    gfn = gfn if gfn.flags.writeable else gfn.copy()
    present = np.unique(kinds)
    for kind in present:
        frames = gfn if len(present) == 1 else gfn[kinds == kind]
        frames.sort()
        if kind == Kind.EXEC or (frames[1:] == frames[:-1]).any():
            return False
    return True


def _first_repeated(rounds: Array, gfn: Gfns, kind: Array) -> str | None:
    """Return the first entry, by round, kind and frame, that occurs twice; None without one.

    Numpy sorts one column of 64 bits faster than it finds the order of three columns.
    """
    first, frame_bits = int(rounds[0]), int(gfn.max()).bit_length()
    if int(rounds[-1] - rounds[0]).bit_length() + _KIND_BITS + frame_bits > 64:
        order = np.lexsort((gfn, kind, rounds))
        keys = [column[order] for column in (rounds, gfn, kind)]
        twice = np.logical_and.reduce([key[1:] == key[:-1] for key in keys])
        repeated = [tuple(int(key[row]) for key in keys) for row in np.flatnonzero(twice)[:1]]
    else:
        packed = ((rounds - rounds[0]).astype(np.uint64) << np.uint64(_KIND_BITS)) | kind
        packed = (packed << np.uint64(frame_bits)) | gfn
        packed.sort()
        repeated = []
        for value in packed[:-1][packed[1:] == packed[:-1]][:1].tolist():
            rest, frame = divmod(value, 1 << frame_bits)
            repeated.append((first + (rest >> _KIND_BITS), frame, rest & ((1 << _KIND_BITS) - 1)))
    for entry in repeated:
        return ", ".join(f"{n} {v}" for n, v in zip(_ROUND_COLUMNS, entry, strict=True))
    return None


def access_fault(table: pa.Table) -> str | None:
    """Check complete rounds of an access trace.

    Parameters
    ----------
    table : pyarrow.Table
        Entries (`schema.ENTRIES`), in order.

    Returns
    -------
    str or None
        The fault: an entry occurs twice in a round, or executed frames are not at its end, sorted
        by number.
    """
    if not len(table) or _is_plain_round(table):
        return None
    rounds, gfn, kind = (arrow.values(table[name]) for name in ("round", "gfn", "kind"))
    if twice := _first_repeated(rounds, gfn, kind):
        return f"holds an entry twice: {twice}"
    executed = kind == Kind.EXEC
    same = rounds[1:] == rounds[:-1]
    ordered = executed[1:] & (~executed[:-1] | (gfn[1:] > gfn[:-1]))
    fault = same & executed[:-1] & ~ordered
    if fault.any():
        first = rounds[np.flatnonzero(fault)[0]]
        return f"has executed frames in round {first} that are not at its end, in order"
    return None
