# SPDX-License-Identifier: Apache-2.0
"""Reading a trace: what it says of itself, its tables, and its entries by time, kind and region.

>>> import pmlkit
>>> trace = pmlkit.open(pmlkit.bundled("hotcold"))
>>> trace.meta.domain["name"], trace.meta.complete
('hotcold', True)
>>> written = trace.to_pandas(["gfn", "kind"], start_ns=0, end_ns=1_000_000_000, kinds="w")
>>> len(written) > 0
True
>>> sum(len(batch) for batch in trace.iter_entries(["gfn"])) == trace.meta.entries  # bounded memory
True
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pmlkit import manifest
from pmlkit.entries import RowsReader
from pmlkit.errors import NeedsError, UsageError, read_error
from pmlkit.kinds import Kind, select_kinds
from pmlkit.parquet import check_size
from pmlkit.schema import ENTRIES, SAMPLED, SNAPSHOTS, TraceMeta
from pmlkit.snapshots import FILE as SNAPSHOTS_FILE
from pmlkit.trace_tables import TraceTables
from pmlkit.writer import TraceWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    import pandas as pd

    from pmlkit.types import Bools, Gfns, Json, PathLike


__all__ = ["Kind", "Trace", "TraceMeta", "TraceWriter"]


class Trace(TraceTables):
    """A trace on the disk, opened by `Trace.open`.

    Opening reads ``trace.json`` and compares the size of every file; a file's digest is checked
    before its first use. No file is held open. Every method that reads raises `TraceDamaged` if a
    file is not the one that was written.

    Attributes
    ----------
    path : Path
        The folder, as it was given.
    meta : TraceMeta
        What the trace says of itself.
    files : dict
        What it says of its files: by name, bytes and blake2b (and rows, rounds for entries).
    """

    def __init__(self, path: PathLike, document: Json) -> None:
        super().__init__(path, document)
        self._reader = RowsReader(self.path, self.files, self._verify)

    @classmethod
    def open(cls, path: PathLike) -> Trace:
        """Open the trace at a path.

        Parameters
        ----------
        path : path-like
            The folder ``NAME.trace``.

        Returns
        -------
        Trace

        Raises
        ------
        TraceNotFound, NotATrace, TraceVersionError, TraceDamaged
        NeedsError
            If it is a sample (`sample`), which nobody shall take for all accesses.

        Examples
        --------
        >>> import pmlkit
        >>> trace = pmlkit.open(pmlkit.bundled("hotcold"))
        >>> trace.meta.domain["name"], trace.phases["name"].tolist()
        ('hotcold', ['start', 'hotcold', 'hot', 'done'])
        """
        trace = cls._open(path)
        if SAMPLED in trace.meta.options:
            hint = f"open the log that it belongs to, {trace.path.parent}"
            raise NeedsError(trace, "accesses of all frames, but a sample's", hint)
        return trace

    @classmethod
    def _open(cls, path: PathLike) -> Trace:
        trace = cls(path, manifest.load(Path(path)))
        for name, seal in trace.files.items():
            try:
                size = manifest.size_of_member(trace.path, name)
            except OSError as error:
                raise read_error(path, name, error) from error
            check_size(path, name, seal, size)
        return trace

    def __repr__(self) -> str:
        meta = self.meta
        return f"<Trace {self.path}: {meta.kind}, {self.n_rounds} rounds, {meta.entries} entries>"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Trace.open, (self.path,)

    def __fspath__(self) -> str:
        return str(self.path)

    @cached_property
    def _pml(self) -> Trace:
        # Its trace.json is one of our files, so its digest is checked like theirs.
        self._verify(manifest.PML_FILE)
        return Trace.open(self.path / "pml.trace")

    @property
    def pml_is_nested(self) -> bool:
        """Whether there is a PML log nested in this trace."""
        return manifest.PML_FILE in self.files

    @property
    def pml(self) -> Trace:
        """The PML log of the run: the nested trace, or this one if it is a PML log.

        Raises
        ------
        NeedsError
            If there is none.
        """
        if self.meta.kind == "pml":
            return self
        if not self.pml_is_nested:
            raise NeedsError(self, "PML log", "make one with `pmlkit simulate`")
        return self._pml

    @cached_property
    def sample(self) -> Trace | None:
        """The sample of accessed flags that was harvested beside a PML log: an access trace.

        It has one frame of so many as ``meta.options["sampled_one_in"]`` says.
        """
        if manifest.SAMPLE_FILE not in self.files:
            return None
        self._verify(manifest.SAMPLE_FILE)
        return Trace._open(self.path / "sample.trace")

    # The entries

    def iter_entries(
        self,
        columns: Sequence[str] | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
        kinds: str | int | None = None,
        region: str | None = None,
    ) -> Iterator[Any]:
        """Iterate over the entries in log order, a row group at a time, in bounded memory.

        Parameters
        ----------
        columns : list of str, optional
            Of round, batch, vcpu, gfn, kind; None: all.
        start_ns, end_ns : int, optional
            Only rounds that share time with this range (`rounds_between`), ns.
        kinds : Kind, int or str, optional
            Only these kinds: a mask, or letters (`kinds.select_kinds`).
        region : str, optional
            Only frames of this region.

        Returns
        -------
        iterator of pyarrow.RecordBatch
            Batches may be empty.
        """
        columns = _known_columns("entries", columns, ENTRIES)
        tests = {}
        if kinds is not None:
            tests["kind"] = select_kinds(kinds).__getitem__
        if region is not None:
            tests["gfn"] = _membership(self.frames(region))
        first, stop = self.rounds_between(start_ns, end_ns)
        read = [n for n in ENTRIES.names if n in columns or n in tests or n == "round"]
        return _selected(self._reader.batches(read, first, stop), columns, tests)

    def entries(
        self,
        columns: Sequence[str] | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
        kinds: str | int | None = None,
        region: str | None = None,
    ) -> pa.Table:
        """Read entries as one `pyarrow.Table`; parameters as in `iter_entries`."""
        batches = self.iter_entries(columns, start_ns, end_ns, kinds, region)
        fields = [ENTRIES.field(name) for name in (columns or ENTRIES.names)]
        return pa.Table.from_batches(batches, schema=pa.schema(fields))

    def to_pandas(
        self,
        columns: Sequence[str] | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
        kinds: str | int | None = None,
        region: str | None = None,
    ) -> pd.DataFrame:
        """Read entries as a DataFrame; parameters as in `iter_entries`."""
        return self.entries(columns, start_ns, end_ns, kinds, region).to_pandas()

    # The page tables

    @property
    def has_tables(self) -> bool:
        """Whether it holds snapshots of page tables, or its nested log does."""
        return self._tables_home is not None

    @property
    def tables(self) -> pd.DataFrame:
        """Page tables at the rounds' ends (`schema.SNAPSHOTS`): DataFrame, a row per entry.

        Of the nested log, if the trace has none of its own; without any, no rows.
        """
        return self._snapshots.copy(deep=False)

    @property
    def _tables_home(self) -> Trace | None:
        if SNAPSHOTS_FILE in self.files:
            return self
        return self.pml._tables_home if self.pml_is_nested else None

    @cached_property
    def _snapshots(self) -> pd.DataFrame:
        return pa.Table.from_batches(self.iter_tables(), schema=SNAPSHOTS).to_pandas()

    def iter_tables(
        self,
        columns: Sequence[str] | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[Any]:
        """Iterate over the snapshots of page tables (`tables`), a row group at a time.

        Parameters
        ----------
        columns : list of str, optional
            Of round, table, level, index, target, flags; None: all.
        start_ns, end_ns : int, optional
            Only rounds that share time with this range (`rounds_between`), ns.

        Returns
        -------
        iterator of pyarrow.RecordBatch
            In order of round, table and index.
        """
        columns = _known_columns("page tables", columns, SNAPSHOTS)
        home = self._tables_home
        if home is None:
            return iter(())
        read = [name for name in SNAPSHOTS.names if name in columns or name == "round"]
        rows = home.table_rows(*home.rounds_between(start_ns, end_ns), read)
        return (batch.select(columns) for batch in rows)

    def table_rows(
        self, first: int, stop: int, columns: Sequence[str] | None = None
    ) -> Iterator[Any]:
        """Iterate over this trace's own snapshots of the rounds from `first` to before `stop`."""
        reader = RowsReader(self.path, self.files, self._verify, SNAPSHOTS_FILE, SNAPSHOTS)
        return reader.batches(columns or SNAPSHOTS.names, first, stop)

    def check(self) -> Json | None:
        """Check every file and every count.

        Returns
        -------
        dict
            entries, rounds, batches, lost, files, bytes, bytes_per_entry, duration_ns, complete,
            and pml: the same of the nested log, or None.

        Raises
        ------
        TraceDamaged
            Naming the first file that is wrong, and why.
        """
        from pmlkit.audit import check_trace

        return check_trace(self)


def _known_columns(what: str, columns: Sequence[str] | None, schema: pa.Schema) -> list[str]:
    columns = list(schema.names if columns is None else columns)
    unknown = [name for name in columns if name not in schema.names]
    if unknown or not columns:
        raise UsageError(f"{what} have no column {unknown}: choose out of {schema.names}")
    return columns


def _membership(frames: Gfns) -> Callable[..., Any]:
    def test(gfn: Gfns) -> Bools:
        place = np.minimum(np.searchsorted(frames, gfn), len(frames) - 1)
        return frames[place] == gfn if len(frames) else np.zeros(len(gfn), dtype=bool)

    return test


def _selected(
    batches: Iterator[Any], columns: Sequence[str], tests: Json
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for name, test in tests.items():
            kept = test(batch[name].to_numpy())
            batch = batch if kept.all() else batch.filter(pa.array(kept))
        yield batch.select(columns)
