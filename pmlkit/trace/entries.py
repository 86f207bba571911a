# SPDX-License-Identifier: Apache-2.0
"""The entries of a trace: written as files of row groups, read back by round."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pmlkit import progress
from pmlkit.errors import TraceDamaged, UsageError
from pmlkit.trace import arrow
from pmlkit.trace.kinds import KINDS
from pmlkit.trace.manifest import open_member
from pmlkit.trace.parquet import ENTRY_ENCODINGS, ParquetFile, open_parquet, parquet_errors
from pmlkit.trace.schema import ENTRIES, GROUPS_PER_FILE, ROW_GROUP_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import NoReturn

    from numpy.typing import ArrayLike, NDArray

    from pmlkit.trace.parquet_pages import Group
    from pmlkit.trace.schema import Checksum
    from pmlkit.types import Array, Ints

    Columns = dict[str, Array]
    # A function that returns round, batch, vcpu, gfn and kind of the entries `start` to before
    # `stop`.
    Generate = Callable[[int, int], tuple[ArrayLike, ...]]


# Files that `EntriesWriter.add_generated` writes in parallel: encoding takes most of the time.
_THREADS = 2
_PIECE = 1 << 16  # entries generated per call: they stay in the processor's caches


class EntriesWriter:
    """Write entries in bounded memory: one row group, 19 bytes per entry.

    The files do not depend on how the entries are divided into calls of `add`.

    Parameters
    ----------
    folder : Path
        The trace's folder; ``entries/`` is created in it.
    kind : {"access", "pml"}
        Determines which kinds of entries are allowed.
    row_group_rows : int
        Entries per row group; a file has `GROUPS_PER_FILE` row groups.

    Attributes
    ----------
    files : dict of str to Checksum
        The finished files.
    per_round, per_batch : RunLengthCounts
        Entries written per round and per batch.
    """

    def __init__(self, folder: Path, kind: str, row_group_rows: int = ROW_GROUP_ROWS) -> None:
        self._folder = folder
        self._allowed = np.isin(np.arange(256), [int(k) for k in KINDS[kind]])
        self._trace_kind = kind
        self._group_rows = row_group_rows
        self._last = {"round": 0, "batch": 0}
        self._part: Part | None = None
        self.files: dict[str, Checksum] = {}
        self.per_round, self.per_batch = RunLengthCounts(), RunLengthCounts()
        (folder / "entries").mkdir()

    def add(self, **columns: ArrayLike) -> None:
        """Append entries: one array or scalar for each of round, batch, vcpu, gfn, kind."""
        arrays, length = _arrays(columns)
        if length:
            self._last = self._check(arrays, self._last)
        added = 0
        while added < length:
            self._part = self._part or Part(
                self._folder, len(self.files), self._group_rows, ahead=True
            )
            added += self._part.take(arrays, added, length)
            if self._part.full:
                self._close_part(self._part)

    def add_generated(self, length: int, generate: Generate) -> None:
        """Append entries that are generated on demand, `_THREADS` files in parallel.

        Parameters
        ----------
        length : int
            Number of all entries; the writer must be empty before the call.
        generate : callable
            Function that gets a range of entries, ``(start, stop)``, and returns their round,
            batch, vcpu, gfn and kind, as for `add`. Several threads call it, in any order.
        """
        if self._part or self.files:
            raise UsageError("entries can only be generated for a trace without entries: use add")
        rows = self._group_rows * GROUPS_PER_FILE

        def write_file(index: int) -> tuple[Part, Checksum, dict[str, NDArray[np.uint32]]]:
            stop = min((index + 1) * rows, length)
            return self._write_file(index, range(index * rows, stop), generate)

        with ThreadPoolExecutor(_THREADS) as pool:
            for part, checksum, ends in pool.map(write_file, range(-(-length // rows))):
                self._last = {n: _last_of_rising(n, ends[n], self._last[n]) for n in ends}
                self._add_file(part, checksum)

    def _write_file(
        self, index: int, span: range, generate: Generate
    ) -> tuple[Part, Checksum, dict[str, NDArray[np.uint32]]]:
        """Write one file; return it, its checksum, and first and last round and batch."""
        part = Part(self._folder, index, self._group_rows)
        first: dict[str, int] = {}
        last = {"round": 0, "batch": 0}
        try:
            for start in range(span.start, span.stop, _PIECE):
                columns = generate(start, min(start + _PIECE, span.stop))
                arrays, length = _arrays(dict(zip(DTYPES, columns, strict=True)))
                first = first or {n: int(np.atleast_1d(arrays[n])[0]) for n in last}
                last = self._check(arrays, last)
                added = 0
                while added < length:
                    added += part.take(arrays, added, length)
            ends = {n: np.array([first[n], last[n]], np.uint32) for n in last}
            return part, part.close(), ends
        except BaseException:
            part.abort()
            raise

    def _check(self, arrays: Columns, last: dict[str, int]) -> dict[str, int]:
        """Check entries that follow the round and batch `last`; return those of the last entry."""
        last = {name: _last_of_rising(name, arrays[name], last[name]) for name in last}
        kinds = np.atleast_1d(arrays["kind"])
        allowed = self._allowed.take(kinds)  # twice as fast as indexing
        if not allowed.all():
            wrong = kinds[allowed.argmin()]
            raise UsageError(
                f"an entry of kind {wrong} cannot be in a trace of kind {self._trace_kind}: "
                "see pmlkit.Kind"
            )
        return last

    def _close_part(self, part: Part) -> None:
        self._add_file(part, part.close())
        self._part = None

    def _add_file(self, part: Part, checksum: Checksum) -> None:
        self.files[part.name] = checksum
        self.per_round.extend(part.per_round)
        self.per_batch.extend(part.per_batch)

    def close(self) -> None:
        """Write the buffered entries; without any, a file without rows, for its columns."""
        if not self.files:
            self._part = self._part or Part(self._folder, 0, self._group_rows)
        if self._part is not None:
            self._close_part(self._part)

    def abort(self) -> None:
        """Close the open file."""
        if self._part is not None:
            self._part.abort()


def _arrays(columns: dict[str, ArrayLike]) -> tuple[Columns, int]:
    """Convert columns to their types; return them and their length."""
    arrays = {name: checked("entries", name, columns[name], t) for name, t in DTYPES.items()}
    return arrays, common_length("entries", arrays)


def checked(what: str, name: str, values: ArrayLike, dtype: np.dtype[np.integer]) -> Array:
    """Convert a column to its type; UsageError, which names `what`, if it does not fit."""
    array = np.asarray(values)
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "iu" and array.size:
        raise UsageError(f"the {what}' {name} are {array.dtype}: give whole numbers")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) <= np.iinfo(dtype).max:
        raise UsageError(f"the {what}' {name} do not fit {dtype}: {array.min()} to {array.max()}")
    return array.astype(dtype, copy=False)


def common_length(what: str, arrays: Mapping[str, Array]) -> int:
    """Return the length of columns (arrays or scalars); UsageError if lengths differ."""
    lengths = {len(array) for array in arrays.values() if array.ndim == 1}
    if len(lengths) != 1 or any(array.ndim > 1 for array in arrays.values()):
        shapes = {name: array.shape for name, array in arrays.items()}
        raise UsageError(f"the {what}' columns have shapes {shapes}: give one length, or scalars")
    return lengths.pop()


def _last_of_rising(name: str, array: NDArray[np.uint32], last: int) -> int:
    """Return the last value of a column that never decreases and begins at `last` or above."""
    values = np.atleast_1d(array)
    if values[0] < last or (values[1:] < values[:-1]).any():
        raise UsageError(f"the entries' {name} falls below {last}: add entries in log order")
    return int(values[-1])


class RowsReader:
    """Read the rows of a range of rounds, from only the files and row groups that have them.

    Parameters
    ----------
    path : Path
        The trace's folder.
    files : dict of str to Checksum
        The trace's files.
    verify : callable
        Called with a file's name before the file is read.
    prefix : str
        Prefix of the names of the files to read.
    schema : pyarrow.Schema
        Columns of the rows; ``round`` is the first column and never decreases.
    """

    def __init__(
        self,
        path: Path,
        files: Mapping[str, Checksum],
        verify: Callable[[str], None],
        prefix: str = "entries/",
        schema: pa.Schema = ENTRIES,
    ) -> None:
        self._path, self._verify, self._schema = path, verify, schema
        self._parts = {name: files[name] for name in sorted(files) if name.startswith(prefix)}

    def batches(self, columns: Sequence[str], first: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the rounds from `first` to before `stop`, one row group at a time.

        Parameters
        ----------
        columns : list of str
            Including ``round``.
        """
        names = [n for n, part in self._parts.items() if _overlaps(part["rounds"], first, stop)]
        rows = sum(self._parts[name]["rows"] for name in names)
        with progress.task("reading", rows) as task:
            for name in names:
                self._verify(name)
                with parquet_errors(self._path, name):
                    yield from self._part_batches(name, columns, first, stop, task)

    def _part_batches(
        self, name: str, columns: Sequence[str], first: int, stop: int, task: progress.Task
    ) -> Iterator[pa.RecordBatch]:
        with open_member(self._path, name) as stream:
            part, groups = open_parquet(self._path, name, stream, self._schema)
            spans = self._spans(name, groups)
            others = [g for g, rounds in zip(groups, spans, strict=True)
                      if not _overlaps(rounds, first, stop)]  # fmt: skip
            task.total = (task.total or 0) - sum(group.rows for group in others)
            for group, rounds in enumerate(spans):
                if _overlaps(rounds, first, stop):
                    table = part.read_row_group(group, columns=[*columns], use_threads=False)
                    numbers = arrow.values(table["round"])
                    if len(numbers) and (int(numbers[0]), int(numbers[-1])) != rounds:
                        self._refuse(
                            name, f"has other rounds in row group {group} than its statistics"
                        )
                    start, end = np.searchsorted(numbers, (first, stop))
                    yield from table.slice(start, end - start).combine_chunks().to_batches()
                    task.advance(len(table))

    def _spans(self, name: str, groups: Sequence[Group]) -> list[tuple[int, int]]:
        """Return the first and last round of each row group; check them against the manifest."""
        expected = self._parts[name]
        rows = sum(group.rows for group in groups)
        if rows != expected["rows"]:
            self._refuse(name, f"has {rows} rows instead of {expected['rows']}")
        spans = [self._span(name, number, group) for number, group in enumerate(groups)]
        if spans and [spans[0][0], spans[-1][1]] != expected["rounds"]:
            actual = f"{spans[0][0]} to {spans[-1][1]}"
            self._refuse(name, f"has rounds {actual}, not {expected['rounds']}")
        return spans

    def _span(self, name: str, number: int, group: Group) -> tuple[int, int]:
        rounds = group.chunks[0]
        if rounds.lowest is None or rounds.highest is None:
            self._refuse(name, f"does not state the rounds of its row group {number}")
        return int.from_bytes(rounds.lowest, "little"), int.from_bytes(rounds.highest, "little")

    def _refuse(self, name: str, why: str) -> NoReturn:
        raise TraceDamaged(self._path, name, why)


def _overlaps(rounds: Sequence[int] | None, first: int, stop: int) -> bool:
    return rounds is not None and rounds[0] < stop and rounds[1] >= first


# ------------------------------------------------------------------------------
# One file of entries being written: columns of any length become row groups.


DTYPES = {field.name: np.dtype(field.type.to_pandas_dtype()) for field in ENTRIES}


class Part:
    """A file of up to `GROUPS_PER_FILE` row groups of entries; one row group is in memory.

    Parameters
    ----------
    folder : Path
        The trace's folder.
    index : int
        Number of the file, from 0.
    ahead : bool
        Encode a row group in a thread while the next one fills: twice the memory.

    Attributes
    ----------
    name : str
        As in the manifest.
    full : bool
        Whether it has all its row groups.
    per_round, per_batch : RunLengthCounts
        Entries written per round and per batch.
    """

    def __init__(self, folder: Path, index: int, row_group_rows: int, ahead: bool = False) -> None:
        self.name = f"entries/part-{index:05d}.parquet"
        self.per_round, self.per_batch = RunLengthCounts(), RunLengthCounts()
        self._buffer = _columns(row_group_rows)
        self._spare: Columns | None = None
        self._ahead = ThreadPoolExecutor(1) if ahead else None
        self._writing: Future[None] | None = None
        self._group_rows = row_group_rows
        self._buffered = self._groups = self._rows = 0
        self._rounds: list[int] = []  # first and last round of each row group
        self._file = ParquetFile(folder / self.name, ENTRIES, ENTRY_ENCODINGS)

    @property
    def full(self) -> bool:
        return self._groups == GROUPS_PER_FILE

    def take(self, arrays: Columns, start: int, length: int) -> int:
        """Append entries from index `start` on, as many as fit in the open row group.

        Parameters
        ----------
        arrays : dict of ndarray
            A column each of `schema.ENTRIES`, in its type: shape (length,), or a scalar for all.

        Returns
        -------
        int
            How many were appended.
        """
        count = min(length - start, self._group_rows - self._buffered)
        for name, array in arrays.items():
            values = array[start : start + count] if array.ndim else array
            self._buffer[name][self._buffered : self._buffered + count] = values
        self._buffered += count
        if self._buffered == self._group_rows:
            self._end_group()
            if self._ahead:
                self._write_ahead(self._ahead)
            else:
                self._write(self._buffer)
        return count

    def _end_group(self) -> None:
        rounds, batches = (self._buffer[name][: self._buffered] for name in ("round", "batch"))
        self.per_round.add(rounds)
        self.per_batch.add(batches)
        self._rounds += [int(rounds[0]), int(rounds[-1])]
        self._rows += self._buffered
        self._groups += 1
        self._buffered = 0

    def _write_ahead(self, thread: ThreadPoolExecutor) -> None:
        """Let the thread write the full row group after it finishes the previous one."""
        self._wait()
        # The thread reads this buffer until `_wait`; further entries go into the spare one.
        self._writing = thread.submit(self._write, self._buffer)
        self._buffer, self._spare = self._spare or _columns(self._group_rows), self._buffer

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, columns: Columns) -> None:
        table = pa.Table.from_arrays([pa.array(c) for c in columns.values()], schema=ENTRIES)
        self._file.write(table)

    def close(self) -> Checksum:
        """Write the buffered entries and finish the file."""
        self._wait()
        if self._buffered:
            last = {name: column[: self._buffered] for name, column in self._buffer.items()}
            self._end_group()
            self._write(last)
        checksum = self._file.close()
        self._stop_thread()
        self._buffer, self._spare = {}, None  # `per_round` may keep this object alive
        rounds = [self._rounds[0], self._rounds[-1]] if self._rounds else None
        return {**checksum, "rows": self._rows, "rounds": rounds}

    def abort(self) -> None:
        """Close the file, in whatever state it is."""
        self._stop_thread()
        self._file.abort()

    def _stop_thread(self) -> None:
        if self._ahead:
            self._ahead.shutdown()  # waits for the row group being written


def _columns(rows: int) -> Columns:
    return {name: np.empty(rows, dtype) for name, dtype in DTYPES.items()}


# ------------------------------------------------------------------------------
# Entries per round and per batch, counted while they pass in order.


class RunLengthCounts:
    """Count values that never decrease, in run-length form: 12 bytes per run of equal values.

    Attributes
    ----------
    last : int
        The highest value so far; -1 before the first.
    """

    def __init__(self) -> None:
        self.last = -1
        self._values: list[Array] = []
        self._lengths: list[Ints] = []

    def add(self, values: Array) -> None:
        """Count values: integers, shape (n,), increasing from `last` or above."""
        if not len(values):
            return
        starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
        self._values.append(values[starts])
        self._lengths.append(np.diff(starts, append=len(values)))
        self.last = int(values[-1])

    def extend(self, other: RunLengthCounts) -> None:
        """Add the counts of values that follow."""
        self._values += other._values
        self._lengths += other._lengths
        self.last = max(self.last, other.last)

    def to_array(self, length: int) -> Ints:
        """Return the number of occurrences of 0 to `length` - 1: int64, shape (length,)."""
        counts = np.zeros(length, np.int64)
        for values, lengths in zip(self._values, self._lengths, strict=True):
            inside = values < length
            # A value occurs once in a piece, because values increase.
            counts[values[inside]] += lengths[inside]
        return counts
