# SPDX-License-Identifier: Apache-2.0
"""Writing a trace: under another name until it is whole, then renamed; nothing half-written stays.

>>> with TraceWriter("x.trace", meta) as writer:              # doctest: +SKIP
...     writer.add_entries(round=0, batch=0, vcpu=0, gfn=[7, 9], kind=Kind.WRITE)
...     writer.set_rounds({"round": [0], "t_start_ns": [0], "t_end_ns": [10_000_000]})
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa

from pmlkit.errors import UsageError
from pmlkit.files import PartialFolder
from pmlkit.trace import consistency, manifest
from pmlkit.trace.entries import EntriesWriter
from pmlkit.trace.parquet import HashingFile, to_table, write_table
from pmlkit.trace.schema import REGIONS, ROUNDS, ROW_GROUP_ROWS, SNAPSHOTS
from pmlkit.trace.snapshots import SnapshotsWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Any, Self

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from pmlkit.trace.entries import Tally
    from pmlkit.trace.schema import TraceMeta
    from pmlkit.types import Array, Gfns, Ints, Json, PathLike


# ------------------------------------------------------------------------------
# The small tables of a trace while it is written: completed, checked against its entries, kept.


class TablesWriter:
    """Hold the tables of `schema.TABLES`, and write them once the entries are counted.

    Parameters
    ----------
    folder : Path
        The trace's folder.
    shown : Path
        How messages name it.

    Attributes
    ----------
    files : dict
        What the manifest says of each file, once they are written: bytes, blake2b.
    totals : dict of str to int
        Once they are written: `entries` and `lost` of all rounds.
    """

    def __init__(self, folder: Path, shown: Path) -> None:
        self._folder, self._shown = folder, shown
        self._tables: dict[str, pa.Table] = {}
        self._uncounted: set[str] = set()
        self.files: dict[str, Json] = {}
        self.totals: dict[str, int] = {}

    def set(
        self, name: str, data: Json | Sequence[dict[str, int | str]] | pd.DataFrame | pa.Table
    ) -> None:
        """Set a table: a DataFrame, or what makes one; `entries` may be left to be counted.

        A `pyarrow.Table` is of the table's schema, and its entries are counted: as it may be long,
        it is not turned into a DataFrame.
        """
        if isinstance(data, pa.Table):
            self._uncounted.add(name)
            self._tables[name] = data
            return
        frame = pd.DataFrame(data)
        if name in ("rounds", "batches") and "entries" not in frame and len(frame):
            self._uncounted.add(name)
            frame = frame.assign(entries=0)
        self._tables[name] = to_table(name, frame)

    def close(
        self,
        per_round: Tally,
        per_batch: Tally,
        last_snapshot: int,
        meta: TraceMeta,
        trace_bytes: int = 0,
    ) -> None:
        """Write the tables.

        Parameters
        ----------
        per_round, per_batch : Tally
            The entries written.
        last_snapshot : int
            The last round with a snapshot of a page table; -1 if there is none.
        meta : TraceMeta
            The trace's description.
        trace_bytes : int
            Of the files that are written already.

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
            raise UsageError(f"the tables of {self._shown} contradict each other: {fault}")
        for name, table in tables.items():
            self.files[f"{name}.parquet"] = write_table(
                self._folder / f"{name}.parquet", table, trace_bytes
            )
        self.totals = {name: consistency.total(rounds[name]) for name in ("entries", "lost")}
        self._tables = {}  # they may be long, and whoever asks for the totals holds us

    def _completed(self, tallies: dict[str, Tally]) -> dict[str, pa.Table]:
        given = {"rounds": ROUNDS.empty_table(), "regions": REGIONS.empty_table(), **self._tables}
        uncounted = set(self._uncounted)
        if "batches" not in given:
            given["batches"] = to_table("batches", _one_batch_per_round(given["rounds"]))
            uncounted.add("batches")
        return given | {name: _with_counts(given[name], tallies[name]) for name in uncounted}


def _one_batch_per_round(rounds: pa.Table) -> pd.DataFrame:
    spans = ["t_start_ns", "t_end_ns", "insn_start", "insn_end", "lost", "entries"]
    frame = rounds.select(["round", *spans]).to_pandas()
    return frame.assign(batch=frame["round"], reason="round")


def _with_counts(table: pa.Table, tally: Tally) -> pa.Table:
    column = table.schema.get_field_index("entries")
    field = table.schema.field(column)
    return table.set_column(column, field, pa.array(tally.counts(len(table)), field.type))


_NESTED = {"pml": "pml.trace", "access": "sample.trace"}


class TraceWriter:
    """Write a trace to ``PATH.partial``, which gets its name when it is complete.

    A context manager: a clean exit closes (and renames), an exception aborts (and removes).
    Memory is bounded: one row group of entries is held.

    Parameters
    ----------
    path : path-like
        The folder to be, ``NAME.trace``.
    meta : TraceMeta
        What the trace says of itself. The writer fills in `entries` and `lost`, and `created` if
        it is None.
    overwrite : bool
        Replace the trace of that name, at the very end. Nothing but a trace is ever replaced.
    row_group_rows : int
        Entries per row group.
    shown : path-like, optional
        How messages name the trace, if not by `path`.

    Attributes
    ----------
    path : Path
        The folder to be.
    meta : TraceMeta
    closed : bool
    sealed : dict or None
        Once closed: bytes and blake2b of the trace's ``trace.json``.

    Raises
    ------
    OutputExists
        If the name is taken (without `overwrite`, or by something that is no trace).
    OutputError
        If the folder cannot be written, the disk is full, or another process is writing it.
        Raised by every method that writes.
    UsageError
        If what is added contradicts the format or itself.
    """

    def __init__(
        self,
        path: PathLike,
        meta: TraceMeta,
        overwrite: bool = False,
        *,
        row_group_rows: int = ROW_GROUP_ROWS,
        shown: Path | None = None,
    ) -> None:
        self.meta = meta
        self.closed = False
        self._rows = row_group_rows
        self._nested: Any = None
        self.sealed: Any = None
        self._folder = PartialFolder(path, overwrite, manifest.may_be_replaced, shown)
        self.path = self._folder.final
        with self._or_abort():
            self._entries = EntriesWriter(self._folder.path, meta.kind, row_group_rows)
            self._snapshots = SnapshotsWriter(self._folder.path, row_group_rows)
            self._tables = TablesWriter(self._folder.path, self._folder.shown)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def add_entries(self, round: Any, batch: Any, vcpu: Any, gfn: Gfns, kind: Any) -> None:
        """Append entries in log order.

        Parameters
        ----------
        round, batch, vcpu, gfn, kind : int or array_like of int, shape (n,)
            At least one is an array; scalars stand for all n. `round` and `batch` never fall.
        """
        self._check_open()
        with self._folder.writing():
            self._entries.add(round=round, batch=batch, vcpu=vcpu, gfn=gfn, kind=kind)

    def add_made(self, length: int, make: Callable[..., Any]) -> None:
        """Append entries that are made when they are wanted, as `EntriesWriter.add_made`.

        Parameters
        ----------
        length : int
            How many there are; nothing was added before.
        make : callable
            Called with numbers of entries, ``(start, stop)``, from several threads and in any
            order; returns round, batch, vcpu, gfn and kind of these, as for `add_entries`.
        """
        self._check_open()
        with self._folder.writing():
            self._entries.add_made(length, make)

    def add_tables(
        self,
        round: NDArray[np.uint32] | int | pd.Series[Any],
        table: NDArray[np.uint64] | pd.Series[Any],
        level: Array | pd.Series[Any],
        index: Array | pd.Series[Any],
        target: NDArray[np.uint64] | pd.Series[Any],
        flags: Array | pd.Series[Any],
    ) -> None:
        """Append entries of page tables as they were at a round's end (`schema.SNAPSHOTS`).

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
        """Add the snapshots of page tables at once: a DataFrame with `add_tables`' columns."""
        frame = pd.DataFrame(tables, columns=SNAPSHOTS.names)
        self.add_tables(**{name: frame[name].to_numpy() for name in frame})  # type: ignore[arg-type]

    def set_rounds(self, rounds: Json | pd.DataFrame) -> None:
        """Set the rounds: a DataFrame, or what makes one, with columns of `schema.ROUNDS`.

        Needed are round (0, 1, ...), t_start_ns and t_end_ns, without gaps between rounds.
        Without `entries`, they are counted.
        """
        self._set("rounds", rounds)

    def set_batches(self, batches: Json | pd.DataFrame) -> None:
        """Set the batches (`schema.BATCHES`). Without them, each round is one batch.

        Needed are batch (0, 1, ...), round, t_start_ns, t_end_ns and reason. Without `entries`,
        they are counted.
        """
        self._set("batches", batches)

    def set_guest(self, guest: pd.DataFrame | Mapping[str, Ints]) -> None:
        """Set the guest's own view (`schema.GUEST`), in order of time."""
        self._set("guest", guest)  # type: ignore[arg-type]

    def set_disk(self, disk: pd.DataFrame | None) -> None:
        """Set the guest's disk requests (`schema.DISK`), in the order of their arrival."""
        self._set("disk", disk)  # type: ignore[arg-type]

    def set_regions(self, regions: pd.DataFrame | Sequence[dict[str, int | str]]) -> None:
        """Set the regions (`schema.REGIONS`): name, first frame, pages."""
        self._set("regions", regions)

    def set_tables_of(self, tables: Mapping[str, pa.Table]) -> None:
        """Set tables by name, each a `pyarrow.Table` of its schema; their entries are counted."""
        for name, table in tables.items():
            self._set(name, table)

    def _set(
        self, name: str, data: Json | Sequence[dict[str, int | str]] | pd.DataFrame | pa.Table
    ) -> None:
        self._check_open()
        self._tables.set(name, data)

    def set_phases(self, phases: Iterator[Any] | Iterable[dict[str, int | str]]) -> None:
        """Set the phases: a list of {name, round, t_ns, insn}, in order of time."""
        rows = [{"insn": -1, **row} for row in phases]
        for name in ("round", "t_ns"):
            values = [row.get(name, 0) for row in rows]
            if values != sorted(values):
                raise UsageError(f"the phases' {name} falls: give phases in order of time")
        self.replace_meta(phases=rows)

    def note(self, text: str) -> None:
        """Add a line to the notes."""
        self.replace_meta(notes=[*self.meta.notes, text])

    def replace_meta(self, **changes: Any) -> None:
        """Change fields of the description; it is written last."""
        self._check_open()
        if changes.get("kind", self.meta.kind) != self.meta.kind:
            raise UsageError("a trace cannot change its kind: open another writer")
        self.meta = dataclasses.replace(self.meta, **changes)

    def pml(self, meta: TraceMeta) -> TraceWriter:
        """Start the nested PML log, and give its writer (closed with this one, if not before).

        Parameters
        ----------
        meta : TraceMeta
            Of kind ``"pml"``.

        Returns
        -------
        TraceWriter
        """
        return self._nest(meta, "pml")

    def sample(self, meta: TraceMeta) -> TraceWriter:
        """Start the sample of accessed flags that a PML log has nested in it; as `pml`.

        Parameters
        ----------
        meta : TraceMeta
            Of kind ``"access"``.

        Returns
        -------
        TraceWriter
        """
        return self._nest(meta, "access")

    def _nest(self, meta: TraceMeta, kind: str) -> TraceWriter:
        self._check_open()
        if meta.kind != kind or self.meta.kind == kind or self._nested is not None:
            raise UsageError(
                "only an access trace holds a PML log, and only a log a sample: one of that kind"
            )
        folder = self._folder.path / _NESTED[kind], self._folder.shown / _NESTED[kind]
        self._nested = TraceWriter(folder[0], meta, row_group_rows=self._rows, shown=folder[1])
        return self._nested

    def close(self) -> None:
        """Finish the trace and give it its name. Closing twice does no harm."""
        if self.closed:
            return
        with self._or_abort():
            self._finish()
            self._folder.commit()
        self.closed = True

    def abort(self) -> None:
        """Remove what has been written. After `close` this does nothing."""
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
        self._entries.close()
        self._snapshots.close()
        counted = self._entries.per_round, self._entries.per_batch
        written = [*self._entries.files.values(), *self._snapshots.files.values()]
        size = sum(seal["bytes"] for seal in written)
        self._tables.close(*counted, self._snapshots.last[0], self.meta, size)
        parts = self._entries, self._snapshots, self._tables
        files = {name: seal for part in parts for name, seal in part.files.items()} | nested
        self.sealed = self._write_manifest(dict(sorted(files.items())))

    def _finish_nested(self) -> dict[str, dict[str, int | str]]:
        if self._nested is None:
            return {}
        self._nested.close()
        if self._nested.sealed is None:
            raise UsageError("the nested trace was aborted: abort this trace too")
        return {f"{_NESTED[self._nested.meta.kind]}/{manifest.NAME}": self._nested.sealed}

    def _write_manifest(self, files: Mapping[str, Json]) -> dict[str, int | str]:
        now = datetime.datetime.now(datetime.UTC).isoformat("T", "seconds")
        created = self.meta.created or now
        self.meta = dataclasses.replace(self.meta, created=created, **self._tables.totals)  # type: ignore[arg-type]
        sink = HashingFile(self._folder.path / manifest.NAME)
        with contextlib.closing(sink):
            sink.write(manifest.seal({**self.meta.to_json(), "files": files}))
        return sink.seal()

    def _check_open(self) -> None:
        if self.closed:
            raise UsageError(f"the writer of {self._folder.shown} is closed: open another one")
