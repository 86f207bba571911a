# SPDX-License-Identifier: Apache-2.0
"""`Trace` reads a trace: its description, its tables, its entries by time, kind and region.

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

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pmlkit.errors import NeedsError, TraceDamaged, UnknownName, UsageError, read_error
from pmlkit.trace import annotation, arrow, consistency, manifest, summary
from pmlkit.trace.entries import RowsReader
from pmlkit.trace.kinds import Kind, select_kinds
from pmlkit.trace.parquet import check_size, read_table, verify
from pmlkit.trace.schema import ENTRIES, HARVESTS, SAMPLED, SNAPSHOTS, TABLES, TraceMeta
from pmlkit.trace.selecting import checked_columns, filtered, membership, with_parameters_of
from pmlkit.trace.snapshots import FILE as SNAPSHOTS_FILE
from pmlkit.trace.writer import TraceWriter
from pmlkit.units import exact_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    import pandas as pd

    from pmlkit.trace.schema import Checksum
    from pmlkit.trace.selecting import Filter
    from pmlkit.types import Array, Gfns, Ints, Json, PathLike

__all__ = ["Kind", "Trace", "TraceMeta", "TraceWriter"]


LIMIT_REGION_PAGES = 1 << 24  # 64 GiB of frames, whose numbers take 128 MiB


class Trace:
    """A trace on the disk, opened by `Trace.open`.

    Opening reads ``trace.json`` and compares the sizes of all files. A file's digest is checked
    before its first use. No file stays open. Every method that reads raises `TraceDamaged` if a
    file has been changed since it was written.

    Attributes
    ----------
    path : Path
        The folder, as it was given.
    meta : TraceMeta
        The description.
    files : dict of str to Checksum
        Its files: by name, bytes and blake2b (and rows, rounds for entries).
    """

    def __init__(self, path: PathLike, document: Json) -> None:
        self.path = Path(path)
        self.files: dict[str, Checksum] = document["files"]
        try:
            self.meta = TraceMeta.from_json(document)
        except (UsageError, TypeError) as error:
            raise TraceDamaged(path, manifest.NAME, f"contradicts the format ({error})") from error
        self._document = document
        self._given: Sequence[annotation.Span] | None = None  # set by `with_phases`
        self._verified: set[str] = set()
        self._reader = RowsReader(self.path, self.files, self._verify)

    @classmethod
    def open(cls, path: PathLike | Trace) -> Trace:
        """Open the trace at a path.

        Parameters
        ----------
        path : path-like or Trace
            The folder ``NAME.trace``. A trace that is open is returned.

        Raises
        ------
        TraceNotFound, NotATrace, TraceVersionError, TraceDamaged
        NeedsError
            If it is a `sample`; a sample must not be mistaken for a full trace.

        Examples
        --------
        >>> import pmlkit
        >>> trace = pmlkit.open(pmlkit.bundled("hotcold"))
        >>> trace.meta.domain["name"], trace.phases["name"].tolist()
        ('hotcold', ['start', 'hotcold', 'hot', 'done'])
        """
        if isinstance(path, Trace):
            return path
        trace = cls._open(path)
        if SAMPLED in trace.meta.options:
            hint = f"open the log that it belongs to, {trace.path.parent}"
            raise NeedsError(trace, "accesses of all frames, instead of a sample's", hint)
        return trace

    @classmethod
    def _open(cls, path: PathLike) -> Trace:
        trace = cls(path, manifest.load(Path(path)))
        for name, checksum in trace.files.items():
            try:
                size = manifest.size_of_member(trace.path, name)
            except OSError as error:
                raise read_error(path, name, error) from error
            check_size(path, name, checksum, size)
        return trace

    def __repr__(self) -> str:
        meta = self.meta
        return f"<Trace {self.path}: {meta.kind}, {self.n_rounds} rounds, {meta.entries} entries>"

    def _repr_html_(self) -> str:
        """Return the trace's facts and phases as HTML, which notebooks show."""
        return summary.to_html(self)

    def __reduce__(self) -> tuple[Callable[..., Trace], tuple[object, ...]]:
        return _reopened, (self.path, self._given)

    def __fspath__(self) -> str:
        return str(self.path)

    def _verify(self, name: str) -> None:
        if name not in self._verified:
            verify(self.path, name, self.files[name])
            self._verified.add(name)

    # The description

    @property
    def digest(self) -> str:
        """The digest that seals its ``trace.json``, and so all its files."""
        return manifest.digest(self._document)

    @property
    def duration_ns(self) -> int:
        """Time from the recording's start to the end of the last round, ns."""
        return int(self.rounds_table["t_end_ns"][-1].as_py()) if self.n_rounds else 0

    @property
    def memory_pages(self) -> int:
        """Size of the domain's memory, pages."""
        return self.meta.memory_pages

    @property
    def resolution_ns(self) -> int | None:
        """Requested length of a round, ns; None if it was not requested in time."""
        return self.meta.resolution_ns

    @property
    def is_harvest(self) -> bool:
        """Whether its entries are harvests of accessed flags, which contain less than a recording.

        A harvest contains the frames that a round touched and, from the log, those that it wrote.
        It does not contain their order, whether a written frame was also read, or which frames were
        executed.
        """
        return self.meta.kind == "access" and bool(self._reasons & set(HARVESTS))

    @property
    def size_bytes(self) -> int:
        """Size on disk of its files without ``trace.json`` and those of nested traces, bytes."""
        return sum(checksum["bytes"] for checksum in self.files.values())

    @property
    def bytes_per_entry(self) -> float:
        """Bytes on disk per entry, of the entries' files; 0 if there is no entry."""
        parts = [self.files[name] for name in self.files if name.startswith("entries/")]
        size = sum(part["bytes"] for part in parts)
        return size / self.meta.entries if self.meta.entries else 0.0

    # The tables

    @property
    def n_rounds(self) -> int:
        """Number of rounds."""
        return len(self.rounds_table)

    @property
    def rounds(self) -> pd.DataFrame:
        """The rounds (`schema.ROUNDS`): DataFrame, one row per round; times in ns."""
        return self._rounds.copy(deep=False)

    @property
    def batches(self) -> pd.DataFrame:
        """The drained buffers (`schema.BATCHES`): DataFrame, one row per batch; times in ns."""
        return self._batches.copy(deep=False)

    @property
    def guest(self) -> pd.DataFrame | None:
        """The guest's own statistics (`schema.GUEST`): DataFrame, a row per sample, or None."""
        return None if self._guest is None else self._guest.copy(deep=False)

    @property
    def disk(self) -> pd.DataFrame | None:
        """The guest's disk requests (`schema.DISK`): DataFrame, one row per frame, or None."""
        return None if self._disk is None else self._disk.copy(deep=False)

    @property
    def regions(self) -> pd.DataFrame:
        """Named ranges of frames (`schema.REGIONS`): DataFrame; a region may have several rows."""
        return self._regions.copy(deep=False)

    @property
    def phases(self) -> pd.DataFrame:
        """Starts of the phases: DataFrame of name, round, t_ns, insn (-1: not known).

        If `with_phases` or `pmlkit.trace.annotation` gave the trace any, they are these, with gaps
        named ``""``; else they are the recorded ones, `meta.phases`.
        """
        import pandas as pd

        columns: Json = {"name": object, "round": "int64", "t_ns": "int64", "insn": "int64"}
        return pd.DataFrame(self.phase_starts, columns=list(columns)).astype(columns)

    @cached_property
    def phase_starts(self) -> list[Json]:
        """The rows of `phases`: mappings of name, round, t_ns and insn."""
        spans = annotation.load(self) if self._given is None else self._given
        return self.meta.phases if spans is None else annotation.starts(self, spans)

    def with_phases(self, given: Mapping[str, Any] | Iterable[annotation.Span]) -> Trace:
        """Return the trace with these phases in place of its own; nothing is written.

        Parameters
        ----------
        given : dict of str to (start, end), or iterable of annotation.Span
            Times are ``"2s"`` or nanoseconds; an end of None is the next start, or the trace's end.

        Raises
        ------
        UsageError, NeedsError
            As in `pmlkit.trace.annotation.checked`.

        Examples
        --------
        >>> import pmlkit
        >>> trace = pmlkit.open("hotcold").with_phases({"a": (0, "1s"), "b": ("1s", None)})
        >>> trace.phases["name"].tolist()
        ['a', 'b']
        """
        return _reopened(self, annotation.checked(self, given))

    @cached_property
    def _rounds(self) -> pd.DataFrame:
        return self.rounds_table.to_pandas(split_blocks=True)

    @cached_property
    def rounds_table(self) -> pa.Table:
        """The rounds as a `pyarrow.Table`, which takes less memory than the DataFrame."""
        rounds = self.table("rounds")
        self._refuse("rounds.parquet", consistency.rounds_fault(rounds))
        self._refuse(manifest.NAME, consistency.phases_fault(self.meta.phases, len(rounds)))
        return rounds

    @cached_property
    def _edges(self) -> tuple[Ints, Ints]:
        """The starts and the ends of the rounds, ns.

        A round without length has its instant. The round after it starts a nanosecond later, so
        that a range can begin between the two. But an import splits an interval in which a page
        returns: the first round has all of its time, and those that continue it have no length.
        They start where the first one started.
        """
        starts, ends, entries = (
            arrow.values(self.rounds_table[name]) for name in ("t_start_ns", "t_end_ns", "entries")
        )
        instant, together = starts == ends, np.append(False, ends[1:] == ends[:-1])
        first = np.maximum.accumulate(np.where(instant & together, 0, np.arange(len(starts))))
        continues = (first < np.arange(len(starts))) & ~instant[first] & (entries[first] > 0)
        after = np.append(False, (instant & ~continues)[:-1]) & (ends > starts + 1)
        return (starts + after)[np.where(continues, first, np.arange(len(starts)))], ends

    def start_of(self, number: int) -> int:
        """Return the time from which a round belongs to a range (`rounds_between`), ns.

        For the number after the last round, it is the end of the trace, or a nanosecond later if a
        last round without length belongs to what starts at that end.
        """
        starts, ends = self._edges
        if number < len(starts):
            return int(starts[number])
        return int(self.duration_ns) + int(len(starts) > 0 and starts[-1] == ends[-1])

    @cached_property
    def _batches(self) -> pd.DataFrame:
        return self._read_batches().to_pandas(split_blocks=True, self_destruct=True)

    @cached_property
    def _reasons(self) -> frozenset[str]:
        """The reasons for which buffers were drained; the table may be long and is not kept."""
        return frozenset(arrow.texts(self._read_batches()["reason"]))

    def _read_batches(self) -> pa.Table:
        batches = self.table("batches")
        self._refuse("batches.parquet", consistency.batches_fault(batches, self.n_rounds))
        return batches

    @cached_property
    def _guest(self) -> pd.DataFrame | None:
        return None if self.guest_table is None else self.guest_table.to_pandas()

    @cached_property
    def guest_table(self) -> pa.Table | None:
        """The guest's statistics as a `pyarrow.Table`, for commands that do not import pandas."""
        return self.table("guest") if "guest.parquet" in self.files else None

    @cached_property
    def _disk(self) -> pd.DataFrame | None:
        return self.table("disk").to_pandas() if "disk.parquet" in self.files else None

    @cached_property
    def _regions(self) -> pd.DataFrame:
        return self.regions_table.to_pandas()

    @cached_property
    def regions_table(self) -> pa.Table:
        """The regions as a `pyarrow.Table`, for commands that do not import pandas."""
        regions = self.table("regions")
        self._refuse("regions.parquet", consistency.regions_fault(regions, self.memory_pages))
        return regions

    @property
    def region_names(self) -> list[str]:
        """The names of the regions, in the order of their first rows."""
        return list(dict.fromkeys(map(str, self.regions_table["name"].to_pylist())))

    def _refuse(self, file: str, fault: str | None) -> None:
        if fault:
            raise TraceDamaged(self.path, file, f"is wrong: {fault}")

    def table(self, name: str) -> pa.Table:
        """Read one of the tables (rounds, batches, guest, regions, disk) as a `pyarrow.Table`."""
        file = f"{name}.parquet"
        if name not in TABLES:
            raise UsageError(f"a trace has no table {name!r}: its tables are {list(TABLES)}")
        if file not in self.files:
            return arrow.empty(TABLES[name])
        return read_table(self.path, file, self.files[file], TABLES[name], self.size_bytes)

    # Time and place

    def rounds_between(
        self, start_ns: int | None = None, end_ns: int | None = None
    ) -> tuple[int, int]:
        """Find the rounds that share time with ``[start_ns, end_ns)``.

        Consecutive ranges that meet at the end of a round share no round and omit none.

        Parameters
        ----------
        start_ns, end_ns : int, optional
            Times since the recording's start, ns; default: its start, its end.

        Returns
        -------
        (int, int)
            The first round, and the one after the last.
        """
        if start_ns is not None and end_ns is not None and start_ns > end_ns:
            times = f"{exact_ns(start_ns)} to {exact_ns(end_ns)}"
            problem = f"the range from {times} ends before it starts"
            raise UsageError(f"{problem}: give a start before its end")
        starts, ends = self._edges
        stop = len(starts) if end_ns is None else int(np.searchsorted(starts, end_ns))
        if start_ns is None:
            return 0, stop
        # A round without length belongs to the range that starts there (two marks at one instant),
        # unless it continues one with a length (`_edges`).
        first = min(np.searchsorted(ends, start_ns, "right"), np.searchsorted(starts, start_ns))
        return min(int(first), stop), stop

    def phase_of_rounds(self, recorded: bool = False) -> Array:
        """Name the phase of each round.

        Parameters
        ----------
        recorded : bool
            By the recorded phases, whatever others the trace was given.

        Returns
        -------
        ndarray of object (str), shape (n_rounds,)
            A round in which a phase starts belongs to that phase, or the last of several;
            ``""`` before the first phase.
        """
        phases = self.meta.phases if recorded else self.phase_starts
        names = np.array(["", *(phase["name"] for phase in phases)], dtype=object)
        starts = np.array([phase["round"] for phase in phases], np.int64)
        return names[np.searchsorted(starts, np.arange(self.n_rounds), "right")]

    def frames(self, region: str) -> Gfns:
        """Return the frames of a region.

        Returns
        -------
        ndarray of uint64, sorted, distinct

        Raises
        ------
        NeedsError
            If the trace has no regions.
        UsageError
            If it has none of this name.
        """
        names = self.region_names
        if not names:
            raise NeedsError(self.path, "regions", "use a workload that reports its buffers")
        if region not in names:
            raise UnknownName("region", region, names, self.path.name)
        of_rows = self.regions_table["name"].to_pylist()
        rows = np.flatnonzero([name == region for name in of_rows])
        columns = (
            arrow.values(self.regions_table[name])[rows].tolist() for name in ("gfn", "pages")
        )
        ranges = list(zip(*columns, strict=True))
        pages = sum(length for _, length in ranges)
        if pages > LIMIT_REGION_PAGES:
            size = f"{pages:,} pages, and at most {LIMIT_REGION_PAGES:,} can be looked at"
            raise UsageError(f"the region {region!r} of the trace {self.path} has {size}")
        gfns, at = np.empty(pages, dtype=np.uint64), 0
        for first, length in ranges:
            gfns[at : at + length] = np.arange(first, first + length, dtype=np.uint64)
            at += length
        return gfns if (gfns[1:] > gfns[:-1]).all() else np.unique(gfns)

    # Nested traces

    @cached_property
    def _pml(self) -> Trace:
        # The nested trace.json is one of this trace's files, so its digest is checked as well.
        self._verify(manifest.PML_FILE)
        return _reopened(Trace.open(self.path / "pml.trace"), self._given)

    @property
    def pml_is_nested(self) -> bool:
        """Whether a PML log is nested in this trace."""
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
            raise NeedsError(self.path, "PML log", "make one with `pmlkit simulate`")
        return self._pml

    @cached_property
    def sample(self) -> Trace | None:
        """The sample of accessed flags harvested together with a PML log: an access trace, or None.

        It has one of ``meta.options["sampled_one_in"]`` frames.
        """
        if manifest.SAMPLE_FILE not in self.files:
            return None
        self._verify(manifest.SAMPLE_FILE)
        return Trace._open(self.path / "sample.trace")

    # The entries

    def _select(
        self,
        columns: Sequence[str] | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
        kinds: str | int | None = None,
        region: str | None = None,
    ) -> tuple[pa.Schema, Iterator[Any]]:
        """Return the schema of entries and their batches; parameters as in `iter_entries`."""
        columns = checked_columns("entries", columns, ENTRIES)
        filters: dict[str, Filter] = {}
        if kinds is not None:
            filters["kind"] = select_kinds(kinds).__getitem__
        if region is not None:
            filters["gfn"] = membership(self.frames(region))
        first, stop = self.rounds_between(start_ns, end_ns)
        needed = {"round", *columns, *filters}
        read = [name for name in ENTRIES.names if name in needed]
        batches = filtered(self._reader.batches(read, first, stop), columns, filters)
        return pa.schema([ENTRIES.field(name) for name in columns]), batches

    @with_parameters_of(_select)
    def iter_entries(self, schema: pa.Schema, batches: Iterator[Any]) -> Iterator[Any]:
        """Iterate over the entries in log order, a row group at a time, in bounded memory.

        Parameters
        ----------
        columns : list of str, optional
            Of round, batch, vcpu, gfn, kind; default: all.
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
        return batches

    @with_parameters_of(_select)
    def entries(self, schema: pa.Schema, batches: Iterator[Any]) -> pa.Table:
        """Read entries as one `pyarrow.Table`; parameters as in `iter_entries`."""
        return pa.Table.from_batches(batches, schema=schema)

    @with_parameters_of(_select)
    def to_pandas(self, schema: pa.Schema, batches: Iterator[Any]) -> pd.DataFrame:
        """Read entries as a DataFrame; parameters as in `iter_entries`."""
        return pa.Table.from_batches(batches, schema=schema).to_pandas()

    # The page tables

    @property
    def has_tables(self) -> bool:
        """Whether it or its nested log has snapshots of page tables."""
        return self._tables_trace is not None

    @property
    def tables(self) -> pd.DataFrame:
        """Page tables at the rounds' ends (`schema.SNAPSHOTS`): DataFrame, a row per entry.

        Those of the nested log if the trace has none; without any, no rows.
        """
        return self._snapshots.copy(deep=False)

    @property
    def _tables_trace(self) -> Trace | None:
        if SNAPSHOTS_FILE in self.files:
            return self
        return self.pml._tables_trace if self.pml_is_nested else None

    @cached_property
    def _snapshots(self) -> pd.DataFrame:
        return pa.Table.from_batches(self.iter_tables(), schema=SNAPSHOTS).to_pandas()

    def iter_tables(
        self,
        columns: Sequence[str] | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Iterate over the snapshots of page tables (`tables`), a row group at a time.

        Parameters
        ----------
        columns : list of str, optional
            Of round, table, level, index, target, flags; default: all.
        start_ns, end_ns : int, optional
            Only rounds that share time with this range (`rounds_between`), ns.

        Returns
        -------
        iterator of pyarrow.RecordBatch
            In order of round, table and index.
        """
        columns = checked_columns("page tables", columns, SNAPSHOTS)
        trace = self._tables_trace
        if trace is None:
            return iter(())
        read = [name for name in SNAPSHOTS.names if name in columns or name == "round"]
        batches = trace.table_rows(*trace.rounds_between(start_ns, end_ns), read)
        return (batch.select(columns) for batch in batches)

    def table_rows(
        self, first: int, stop: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Iterate over this trace's own snapshots of the rounds from `first` to before `stop`."""
        reader = RowsReader(self.path, self.files, self._verify, SNAPSHOTS_FILE, SNAPSHOTS)
        return reader.batches(columns or SNAPSHOTS.names, first, stop)

    def check(self) -> Json:
        """Check all files and all counts.

        Returns
        -------
        dict
            entries, rounds, batches, lost, files, bytes, bytes_per_entry, duration_ns, complete,
            and pml: the same of the nested log, or None.

        Raises
        ------
        TraceDamaged
            Names the first wrong file and the reason.
        """
        from pmlkit.trace.audit import check_trace

        return check_trace(self)


def _reopened(path: PathLike | Trace, given: Sequence[annotation.Span] | None) -> Trace:
    """Open a trace, and set the phases of `Trace.with_phases`."""
    trace = Trace.open(os.fspath(path))
    trace._given = given
    return trace
