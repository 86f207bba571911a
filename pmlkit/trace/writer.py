# SPDX-License-Identifier: Apache-2.0
"""`TraceWriter` writes a trace to ``PATH.partial`` and renames it once it is complete.

>>> with TraceWriter("x.trace", meta) as writer:              # doctest: +SKIP
...     writer.add_entries(round=0, batch=0, vcpu=0, gfn=[7, 9], kind=Kind.WRITE)
...     writer.set_rounds({"round": [0], "t_start_ns": [0], "t_end_ns": [10_000_000]})
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from pmlkit.errors import UsageError
from pmlkit.files import PartialFolder
from pmlkit.trace import consistency, manifest
from pmlkit.trace.entries import EntriesWriter
from pmlkit.trace.parquet import HashingFile, to_table, write_table
from pmlkit.trace.schema import REGIONS, ROUNDS, ROW_GROUP_ROWS, SNAPSHOTS
from pmlkit.trace.snapshots import SnapshotsWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any, Self

    import pandas as pd
    from numpy.typing import ArrayLike

    from pmlkit.trace.entries import Generate, RunLengthCounts
    from pmlkit.trace.schema import Checksum, TraceMeta
    from pmlkit.types import Ints, Json, PathLike

    # None stands for no rows.
    Rows = Mapping[str, Any] | Sequence[dict[str, int | str]] | pd.DataFrame | pa.Table | None


# ------------------------------------------------------------------------------
# The small tables of a trace being written: kept, completed, checked against the entries.


class TablesWriter:
    """Keep the tables of `schema.TABLES`, and write them once the entries are counted.

    Parameters
    ----------
    folder : Path
        The trace's folder.
    display_path : Path
        The folder's name in messages.

    Attributes
    ----------
    files : dict of str to Checksum
        The files, once they are written.
    totals : dict of str to int
        `entries` and `lost` of all rounds, once the tables are written.
    """

    def __init__(self, folder: Path, display_path: Path) -> None:
        self._folder, self._display_path = folder, display_path
        self._tables: dict[str, pa.Table] = {}
        self._uncounted: set[str] = set()
        self.files: dict[str, Checksum] = {}
        self.totals: dict[str, int] = {}

    def set(self, name: str, data: Rows) -> None:
        """Set a table: a DataFrame, or the argument of its constructor.

        Without a column `entries`, entries are counted. They always are for a `pyarrow.Table`,
        which has the table's schema and may be too long for a DataFrame.
        """
        if isinstance(data, pa.Table):
            self._uncounted.add(name)
            self._tables[name] = data
            return
        import pandas as pd

        frame = pd.DataFrame(data)
        if name in ("rounds", "batches") and "entries" not in frame and len(frame):
            self._uncounted.add(name)
            frame = frame.assign(entries=0)
        self._tables[name] = to_table(name, frame)

    def close(
        self,
        per_round: RunLengthCounts,
        per_batch: RunLengthCounts,
        last_snapshot: int,
        meta: TraceMeta,
        trace_bytes: int = 0,
    ) -> None:
        """Write the tables.

        Parameters
        ----------
        per_round, per_batch : RunLengthCounts
            The entries written.
        last_snapshot : int
            The last round with a snapshot of a page table; -1 if there is none.
        trace_bytes : int
            Size of the files that are written already.

        Raises
        ------
        UsageError
            If they contradict each other, the entries or the snapshots.
        """
        tables = self._completed({"rounds": per_round, "batches": per_batch})
        rounds, batches = tables["rounds"], tables["batches"]
        fault = consistency.tables_fault(rounds, batches, per_round, per_batch)
        fault = fault or consistency.beyond_fault(last_snapshot, len(rounds))
        fault = fault or consistency.phases_fault(meta.phases, len(rounds))
        fault = fault or consistency.regions_fault(tables["regions"], meta.memory_pages)
        if fault:
            raise UsageError(f"the tables of {self._display_path} contradict each other: {fault}")
        for name, table in tables.items():
            self.files[f"{name}.parquet"] = write_table(
                self._folder / f"{name}.parquet", table, trace_bytes
            )
        self.totals = {name: consistency.total(rounds[name]) for name in ("entries", "lost")}
        self._tables = {}  # frees their memory: `totals` keeps this object alive

    def _completed(self, counts: dict[str, RunLengthCounts]) -> dict[str, pa.Table]:
        tables = {"rounds": ROUNDS.empty_table(), "regions": REGIONS.empty_table(), **self._tables}
        uncounted = set(self._uncounted)
        if "batches" not in tables:
            tables["batches"] = to_table("batches", _one_batch_per_round(tables["rounds"]))
            uncounted.add("batches")
        return tables | {name: _with_counts(tables[name], counts[name]) for name in uncounted}


def _one_batch_per_round(rounds: pa.Table) -> pd.DataFrame:
    spans = ["t_start_ns", "t_end_ns", "insn_start", "insn_end", "lost", "entries"]
    frame = rounds.select(["round", *spans]).to_pandas()
    return frame.assign(batch=frame["round"], reason="round")


def _with_counts(table: pa.Table, counts: RunLengthCounts) -> pa.Table:
    column = table.schema.get_field_index("entries")
    field = table.schema.field(column)
    return table.set_column(column, field, pa.array(counts.to_array(len(table)), field.type))


_NESTED = {"pml": "pml.trace", "access": "sample.trace"}


class TraceWriter:
    """Write a trace to ``PATH.partial``, which is renamed when it is complete.

    A context manager: a clean exit closes (and renames), an exception aborts (and removes).
    Memory is bounded: one row group of entries is buffered.

    Parameters
    ----------
    path : path-like
        The final folder, ``NAME.trace``.
    meta : TraceMeta
        The description. The writer sets `entries` and `lost`, and `created` if it is None.
    overwrite : bool
        Replace the trace of that name when closing. Only a trace is ever replaced.
    row_group_rows : int
        Entries per row group.
    display_path : Path, optional
        The trace's name in messages, if not `path`.

    Attributes
    ----------
    path : Path
        The final folder.
    manifest_checksum : Checksum or None
        Of ``trace.json``, once closed.

    Raises
    ------
    OutputExists
        If the name is taken (without `overwrite`, or by something other than a trace).
    OutputError
        If the folder cannot be written, the disk is full, or another process is writing it.
        Raised by every method that writes.
    UsageError
        If the data contradict the format or themselves.
    """

    def __init__(
        self,
        path: PathLike,
        meta: TraceMeta,
        overwrite: bool = False,
        *,
        row_group_rows: int = ROW_GROUP_ROWS,
        display_path: Path | None = None,
    ) -> None:
        self.meta = meta
        self.closed = False
        self._rows = row_group_rows
        self._nested: TraceWriter | None = None
        self.manifest_checksum: Checksum | None = None
        self._folder = PartialFolder(path, overwrite, manifest.may_be_replaced, display_path)
        self.path = self._folder.final
        with self._or_abort():
            self._entries = EntriesWriter(self._folder.path, meta.kind, row_group_rows)
            self._snapshots = SnapshotsWriter(self._folder.path, row_group_rows)
            self._tables = TablesWriter(self._folder.path, self._folder.display_path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def add_entries(
        self, round: ArrayLike, batch: ArrayLike, vcpu: ArrayLike, gfn: ArrayLike, kind: ArrayLike
    ) -> None:
        """Append entries in log order.

        Parameters
        ----------
        round, batch, vcpu, gfn, kind : int or array_like of int, shape (n,)
            At least one is an array; scalars stand for all n. `round` and `batch` never fall.
        """
        self._check_open()
        with self._folder.writing():
            self._entries.add(round=round, batch=batch, vcpu=vcpu, gfn=gfn, kind=kind)

    def add_generated(self, length: int, generate: Generate) -> None:
        """Append entries that are generated on demand; see `EntriesWriter.add_generated`."""
        self._check_open()
        with self._folder.writing():
            self._entries.add_generated(length, generate)

    def add_tables(
        self,
        round: ArrayLike,
        table: ArrayLike,
        level: ArrayLike,
        index: ArrayLike,
        target: ArrayLike,
        flags: ArrayLike,
    ) -> None:
        """Append the page-table entries of rounds' ends (`schema.SNAPSHOTS`).

        Parameters
        ----------
        round, table, level, index, target, flags : int or array_like of int, shape (n,)
            At least one is an array; scalars stand for all n. Only entries that are present,
            increasing by round, table and index over all calls; `flags` as `kinds.TableFlag`.
        """
        self._check_open()
        columns = {"round": round, "table": table, "level": level, "index": index}
        with self._folder.writing():
            self._snapshots.add(**columns, target=target, flags=flags)

    def set_tables(self, tables: pd.DataFrame) -> None:
        """Add all snapshots of page tables: a DataFrame with the columns of `add_tables`."""
        import pandas as pd

        frame = pd.DataFrame(tables, columns=SNAPSHOTS.names)
        self.add_tables(**{name: frame[name].to_numpy() for name in SNAPSHOTS.names})

    def set_rounds(self, rounds: Json | pd.DataFrame) -> None:
        """Set the rounds: a DataFrame, or its constructor's argument (`schema.ROUNDS`).

        Required are round (0, 1, ...), t_start_ns and t_end_ns, without gaps between rounds.
        Without `entries`, they are counted.
        """
        self._set("rounds", rounds)

    def set_batches(self, batches: Json | pd.DataFrame) -> None:
        """Set the batches (`schema.BATCHES`). Without them, each round is one batch.

        Required are batch (0, 1, ...), round, t_start_ns, t_end_ns and reason. Without `entries`,
        they are counted.
        """
        self._set("batches", batches)

    def set_guest(self, guest: pd.DataFrame | Mapping[str, Ints]) -> None:
        """Set the guest's own statistics (`schema.GUEST`), in order of time."""
        self._set("guest", guest)

    def set_disk(self, disk: pd.DataFrame | None) -> None:
        """Set the guest's disk requests (`schema.DISK`), in the order of their arrival."""
        self._set("disk", disk)

    def set_regions(self, regions: pd.DataFrame | Sequence[dict[str, int | str]]) -> None:
        """Set the regions (`schema.REGIONS`): name, first frame, pages."""
        self._set("regions", regions)

    def set_tables_of(self, tables: Mapping[str, pa.Table]) -> None:
        """Set tables by name, each a `pyarrow.Table` of its schema; their entries are counted."""
        for name, table in tables.items():
            self._set(name, table)

    def _set(self, name: str, data: Rows) -> None:
        self._check_open()
        self._tables.set(name, data)

    def set_phases(self, phases: Iterable[Json]) -> None:
        """Set the phases: mappings of name, round, t_ns and, optionally, insn, in order of time."""
        rows = [{"insn": -1, **row} for row in phases]
        for name in ("round", "t_ns"):
            values = [row.get(name, 0) for row in rows]
            if values != sorted(values):
                raise UsageError(f"the phases' {name} decreases: give phases in order of time")
        self.replace_meta(phases=rows)

    def note(self, text: str) -> None:
        """Add a line to the notes."""
        self.replace_meta(notes=[*self.meta.notes, text])

    def replace_meta(self, **changes: Any) -> None:
        """Change fields of the description."""
        self._check_open()
        if changes.get("kind", self.meta.kind) != self.meta.kind:
            raise UsageError("a trace cannot change its kind: open another writer")
        self.meta = dataclasses.replace(self.meta, **changes)

    def pml(self, meta: TraceMeta) -> TraceWriter:
        """Start the nested PML log, of kind ``"pml"``; closing this writer closes its writer."""
        return self._nest(meta, "pml")

    def sample(self, meta: TraceMeta) -> TraceWriter:
        """Start the sample of accessed flags nested in a PML log, of kind ``"access"``."""
        return self._nest(meta, "access")

    def _nest(self, meta: TraceMeta, kind: str) -> TraceWriter:
        self._check_open()
        if meta.kind != kind or self.meta.kind == kind or self._nested is not None:
            raise UsageError(
                "only an access trace contains a PML log, and only a log contains a sample: "
                "one of that kind"
            )
        self._nested = TraceWriter(
            self._folder.path / _NESTED[kind],
            meta,
            row_group_rows=self._rows,
            display_path=self._folder.display_path / _NESTED[kind],
        )
        return self._nested

    def close(self) -> None:
        """Finish the trace and rename it; idempotent."""
        if self.closed:
            return
        with self._or_abort():
            self._finish()
            self._folder.commit()
        self.closed = True

    def abort(self) -> None:
        """Remove the partial folder; no effect after `close`."""
        if self.closed:
            return
        self.closed = True
        if self._nested is not None:
            self._nested.abort()
        for part in (self._entries, self._snapshots):
            with contextlib.suppress(Exception):
                part.abort()
        self._folder.discard()

    @contextlib.contextmanager
    def _or_abort(self) -> Iterator[None]:
        try:
            with self._folder.writing():
                yield
        except BaseException:
            self.abort()
            raise

    def _finish(self) -> None:
        nested = self._finish_nested()
        # The entries come first, because their counts complete the tables. The manifest is last,
        # because it lists all files.
        self._entries.close()
        self._snapshots.close()
        counts = self._entries.per_round, self._entries.per_batch
        files = self._entries.files | self._snapshots.files
        size = sum(checksum["bytes"] for checksum in files.values())
        self._tables.close(*counts, self._snapshots.last[0], self.meta, size)
        files |= self._tables.files | nested
        self.manifest_checksum = self._write_manifest(dict(sorted(files.items())))

    def _finish_nested(self) -> dict[str, Checksum]:
        if self._nested is None:
            return {}
        self._nested.close()
        checksum = self._nested.manifest_checksum
        if checksum is None:
            raise UsageError("the nested trace was aborted: abort this trace too")
        return {f"{_NESTED[self._nested.meta.kind]}/{manifest.NAME}": checksum}

    def _write_manifest(self, files: Mapping[str, Checksum]) -> Checksum:
        now = datetime.datetime.now(datetime.UTC).isoformat("T", "seconds")
        totals: Json = {"created": self.meta.created or now, **self._tables.totals}
        self.meta = dataclasses.replace(self.meta, **totals)
        sink = HashingFile(self._folder.path / manifest.NAME)
        with contextlib.closing(sink):
            sink.write(manifest.encode({**self.meta.to_json(), "files": files}))
        return sink.checksum()

    def _check_open(self) -> None:
        if self.closed:
            name = self._folder.display_path
            raise UsageError(f"the writer of {name} is closed: open another one")
