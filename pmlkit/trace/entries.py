# SPDX-License-Identifier: Apache-2.0
"""The entries of a trace: cut into files of row groups, and read back by round."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pmlkit.errors import TraceDamaged, UsageError
from pmlkit.trace.kinds import KINDS
from pmlkit.trace.manifest import open_member
from pmlkit.trace.parquet import ENTRY_ENCODINGS, ParquetFile, open_parquet, parquet_errors
from pmlkit.trace.schema import ENTRIES, GROUPS_PER_FILE, ROW_GROUP_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any, NoReturn

    import pyarrow as pa
    from numpy.typing import ArrayLike, NDArray

    from pmlkit.trace.parquet_pages import Group
    from pmlkit.types import Array, Json

    Columns = dict[str, np.ndarray]


# Files that are written at a time by `EntriesWriter.add_made`: an entry's codecs take most of the
# time, and the machines that this is made for have more processors than one.
_THREADS = 2
_PIECE = 1 << 16  # entries that are made at a time: what is in the caches is written faster


class EntriesWriter:
    """Write entries in bounded memory: one row group is held, 19 bytes an entry.

    How the entries are cut into calls of `add` does not show in the files.

    Parameters
    ----------
    folder : Path
        The trace's folder; ``entries/`` is made in it.
    kind : {"access", "pml"}
        Decides which kinds of entries may occur.
    row_group_rows : int
        Entries per row group; a file has `GROUPS_PER_FILE` row groups.

    Attributes
    ----------
    files : dict
        What the manifest says of each finished file: bytes, blake2b, rows, rounds (first, last).
    per_round, per_batch : Tally
        Entries written per round and per batch.
    """

    def __init__(self, folder: Path, kind: str, row_group_rows: int = ROW_GROUP_ROWS) -> None:
        self._folder = folder
        self._allowed = np.isin(np.arange(256), [int(k) for k in KINDS[kind]])
        self._trace_kind = kind
        self._room = row_group_rows
        self._last = {"round": 0, "batch": 0}
        self._part: Part | None = None
        self.files: dict[str, Json] = {}
        self.per_round, self.per_batch = Tally(), Tally()
        (folder / "entries").mkdir()

    def add(self, **columns: ArrayLike) -> None:
        """Append entries: one array or scalar for each of round, batch, vcpu, gfn, kind."""
        arrays, length = _arrays(columns)
        if length:
            self._last = self._check(arrays, self._last)
        done = 0
        while done < length:
            self._part = self._part or Part(self._folder, len(self.files), self._room, ahead=True)
            done += self._part.take(arrays, done, length)
            if self._part.full:
                self._close_part()

    def add_made(self, length: int, make: Callable[[int, int], tuple[Any, ...]]) -> None:
        """Append entries that are made when they are wanted, `_THREADS` files at a time.

        Parameters
        ----------
        length : int
            How many there are in all; nothing was added before.
        make : callable
            Called with numbers of entries, ``(start, stop)``, from several threads and in any
            order; returns round, batch, vcpu, gfn and kind of these, as `add` takes them.
        """
        if self._part or self.files:
            raise UsageError("entries are made for a trace that has none as yet: use add")
        rows = self._room * GROUPS_PER_FILE

        def file(index: int) -> tuple[Part, dict[str, Any], dict[str, list[int]]]:
            stop = min((index + 1) * rows, length)
            return self._make_file(index, range(index * rows, stop), make)

        with ThreadPoolExecutor(_THREADS) as pool:
            for part, facts, ends in pool.map(file, range(-(-length // rows))):
                self._last = {n: _not_falling(n, ends[n], self._last[n]) for n in ends}  # type: ignore[arg-type]
                self._keep(part, facts)

    def _make_file(
        self, index: int, span: range, make: Callable[[int, int], tuple[Any, ...]]
    ) -> tuple[Part, dict[str, Any], dict[str, list[int]]]:
        """Write one file; return it, its facts, and round and batch of its first and last entry."""
        part, first, last = Part(self._folder, index, self._room), {}, {"round": 0, "batch": 0}  # type: ignore[var-annotated]
        try:
            for start in range(span.start, span.stop, _PIECE):
                made = make(start, min(start + _PIECE, span.stop))
                arrays, length = _arrays(dict(zip(DTYPES, made, strict=True)))
                first = first or {n: int(np.atleast_1d(arrays[n])[0]) for n in last}
                last = self._check(arrays, last)
                done = 0
                while done < length:
                    done += part.take(arrays, done, length)
            return part, part.close(), {n: [first[n], last[n]] for n in last}
        except BaseException:
            part.abort()
            raise

    def _check(self, arrays: Columns, last: dict[str, int]) -> dict[str, int]:
        """See that entries may follow one of this round and batch; return those of their last."""
        last = {name: _not_falling(name, arrays[name], last[name]) for name in last}
        kinds = np.atleast_1d(arrays["kind"])
        allowed = self._allowed.take(kinds)  # half the time of an index
        if not allowed.all():
            wrong = kinds[allowed.argmin()]
            raise UsageError(
                f"an entry of kind {wrong} cannot be in a trace of kind {self._trace_kind}: "
                "see pmlkit.Kind"
            )
        return last

    def _close_part(self) -> None:
        part = self._part
        self._keep(part, part.close())  # type: ignore[union-attr]
        self._part = None

    def _keep(self, part: Any, facts: dict[str, Any]) -> None:
        self.files[part.name] = facts
        self.per_round.extend(part.per_round)
        self.per_batch.extend(part.per_batch)

    def close(self) -> None:
        """Write what is still held. There is always one file, so that any reader finds columns."""
        if not self.files:
            self._part = self._part or Part(self._folder, 0, self._room)
        if self._part is not None:
            self._close_part()

    def abort(self) -> None:
        """Let go of the open file."""
        if self._part is not None:
            self._part.abort()


def _arrays(columns: dict[str, ArrayLike]) -> tuple[Columns, int]:
    """Bring columns into their types; return them and their length."""
    arrays = {name: checked("entries", name, columns[name], t) for name, t in DTYPES.items()}
    return arrays, common_length("entries", arrays)


def checked(what: str, name: str, values: Any, dtype: np.dtype[Any]) -> Array:
    """Bring a column of what is being added into its type; UsageError if it does not fit."""
    array = np.asarray(values)
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "iu" and array.size:
        raise UsageError(f"the {what}' {name} are {array.dtype}: give whole numbers")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) <= np.iinfo(dtype).max:
        raise UsageError(f"the {what}' {name} do not fit {dtype}: {array.min()} to {array.max()}")
    return array.astype(dtype, copy=False)


def common_length(what: str, arrays: Mapping[str, Array]) -> int:
    """Give the one length of some columns (arrays or scalars); UsageError if there are more."""
    lengths = {len(array) for array in arrays.values() if array.ndim == 1}
    if len(lengths) != 1 or any(array.ndim > 1 for array in arrays.values()):
        shapes = {name: array.shape for name, array in arrays.items()}
        raise UsageError(f"the {what}' columns have shapes {shapes}: give one length, or scalars")
    return lengths.pop()


def _not_falling(name: str, array: NDArray[np.uint32], last: Any) -> int:
    values = np.atleast_1d(array)
    if values[0] < last or (values[1:] < values[:-1]).any():
        raise UsageError(f"the entries' {name} falls below {last}: add entries in log order")
    return int(values[-1])


class RowsReader:
    """Read the rows of some rounds, opening only the files and row groups that hold them.

    Parameters
    ----------
    path : Path
        The trace's folder.
    files : dict
        The manifest's files.
    verify : callable
        Called with a file's name before its first use.
    prefix : str
        How the names of the files begin that hold the rows.
    schema : pyarrow.Schema
        Of the rows; ``round`` is the first column, and never falls.
    """

    def __init__(
        self,
        path: Path,
        files: Mapping[str, Json],
        verify: Callable[..., Any],
        prefix: str = "entries/",
        schema: pa.Schema = ENTRIES,
    ) -> None:
        self._path, self._verify, self._schema = path, verify, schema
        self._parts = {n: seal for n, seal in sorted(files.items()) if n.startswith(prefix)}

    def batches(self, columns: Sequence[str], first: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the rounds from `first` to before `stop`, one row group at a time.

        Parameters
        ----------
        columns : list of str
            ``round`` has to be one of them.
        first, stop : int

        Yields
        ------
        pyarrow.RecordBatch
        """
        for name, seal in self._parts.items():
            if _overlaps(seal["rounds"], first, stop):
                self._verify(name)
                with parquet_errors(self._path, name):
                    yield from self._of_part(name, columns, first, stop)

    def _of_part(
        self, name: str, columns: Sequence[str], first: int, stop: int
    ) -> Iterator[pa.RecordBatch]:
        with open_member(self._path, name) as stream:
            part, groups = open_parquet(self._path, name, stream, self._schema)
            for group, rounds in enumerate(self._spans(name, groups)):
                if _overlaps(rounds, first, stop):
                    table = part.read_row_group(group, columns=columns, use_threads=False)  # type: ignore[arg-type]
                    found = table["round"].to_numpy()
                    if len(found) and (int(found[0]), int(found[-1])) != rounds:
                        self._refuse(name, f"has other rounds in row group {group} than it says")
                    yield from _of_rounds(table, found, first, stop).to_batches()

    def _spans(self, name: str, groups: Sequence[Group]) -> list[tuple[int, int]]:
        """Give the rounds of each row group, once they and the rows are what the manifest says."""
        seal = self._parts[name]
        rows = sum(group.rows for group in groups)
        if rows != seal["rows"]:
            self._refuse(name, f"has {rows} rows instead of {seal['rows']}")
        spans = [self._rounds_of(name, number, group) for number, group in enumerate(groups)]
        if spans and [spans[0][0], spans[-1][1]] != seal["rounds"]:
            self._refuse(name, f"has rounds {spans[0][0]} to {spans[-1][1]}, not {seal['rounds']}")
        return spans

    def _rounds_of(self, name: str, number: int, group: Group) -> tuple[int, int]:
        rounds = group.chunks[0]
        if rounds.lowest is None or rounds.highest is None:
            self._refuse(name, f"does not say the rounds of its row group {number}")
        return int.from_bytes(rounds.lowest, "little"), int.from_bytes(rounds.highest, "little")

    def _refuse(self, name: str, why: str) -> NoReturn:
        raise TraceDamaged(self._path, name, why)


def _overlaps(rounds: Sequence[int] | None, first: int, stop: int) -> bool:
    return rounds is not None and rounds[0] < stop and rounds[1] >= first


def _of_rounds(table: pa.Table, rounds: Array, first: int, stop: int) -> pa.Table:
    start, end = np.searchsorted(rounds, (first, stop))
    return table.slice(start, end - start).combine_chunks()


# ------------------------------------------------------------------------------
# One file of a trace's entries while it is written: row groups, out of columns as they come.


DTYPES = {field.name: np.dtype(field.type.to_pandas_dtype()) for field in ENTRIES}


def part_name(index: int) -> str:
    """Name the file of entries with this index (0-based)."""
    return f"entries/part-{index:05d}.parquet"


class Part:
    """One file of entries, of up to `GROUPS_PER_FILE` row groups; one of them is held, 19 bytes
    an entry.

    Parameters
    ----------
    folder : Path
        The trace's folder.
    index : int
    row_group_rows : int
    ahead : bool
        Let a thread encode a row group while the next one fills: twice the memory.

    Attributes
    ----------
    name : str
        As in the manifest.
    full : bool
        Whether it takes no more.
    per_round, per_batch : Tally
        Entries written per round and per batch.
    """

    def __init__(self, folder: Path, index: int, row_group_rows: int, ahead: bool = False) -> None:
        self.name = part_name(index)
        self.per_round, self.per_batch = Tally(), Tally()
        self._buffer, self._spare = _columns(row_group_rows), None
        self._ahead = ThreadPoolExecutor(1) if ahead else None
        self._writing: Future[Any] | None = None
        self._room = row_group_rows
        self._held = self._groups = self._rows = 0
        self._rounds: list[int] = []  # the first and last round of each row group
        self._file = ParquetFile(folder / self.name, ENTRIES, ENTRY_ENCODINGS)

    @property
    def full(self) -> bool:
        return self._groups == GROUPS_PER_FILE

    def take(self, arrays: dict[str, np.ndarray], start: int, length: int) -> int:
        """Take entries from number `start` on, as many as the open row group has room for.

        Parameters
        ----------
        arrays : dict of ndarray
            A column each of `schema.ENTRIES`, in its type: shape (length,), or a scalar for all.
        start, length : int

        Returns
        -------
        int
            How many were taken.
        """
        count = min(length - start, self._room - self._held)
        for name, array in arrays.items():
            part = array[start : start + count] if array.ndim else array
            self._buffer[name][self._held : self._held + count] = part
        self._held += count
        if self._held == self._room:
            self._end_group()
            if self._ahead:
                self._go_on()
            else:
                self._write(self._buffer)
        return count

    def _end_group(self) -> None:
        rounds, batches = (self._buffer[name][: self._held] for name in ("round", "batch"))
        self.per_round.add(rounds)
        self.per_batch.add(batches)
        self._rounds += [int(rounds[0]), int(rounds[-1])]
        self._rows += self._held
        self._groups += 1
        self._held = 0

    def _go_on(self) -> None:
        """Hand the full row group to the thread, which is done with the one before, and go on."""
        self._wait()
        self._writing = self._ahead.submit(self._write, self._buffer)  # type: ignore[union-attr]
        self._buffer, self._spare = self._spare or _columns(self._room), self._buffer  # type: ignore[assignment]

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, columns: dict[str, np.ndarray]) -> None:
        table = pa.Table.from_arrays([pa.array(c) for c in columns.values()], schema=ENTRIES)
        self._file.write(table)

    def close(self) -> Json:
        """Write what is still held; give what the manifest says of the file."""
        self._wait()
        if self._held:
            last = {name: column[: self._held] for name, column in self._buffer.items()}
            self._end_group()
            self._write(last)
        seal = self._file.close()
        self._stop()
        self._buffer, self._spare = {}, None  # whoever sums up the counts holds us for longer
        rounds = [self._rounds[0], self._rounds[-1]] if self._rounds else None
        return {**seal, "rows": self._rows, "rounds": rounds}

    def abort(self) -> None:
        """Let go of the file."""
        self._stop()
        self._file.abort()

    def _stop(self) -> None:
        if self._ahead:
            self._ahead.shutdown()  # waits for what it is writing


def _columns(rows: int) -> dict[str, np.ndarray]:
    return {name: np.empty(rows, dtype) for name, dtype in DTYPES.items()}


# ------------------------------------------------------------------------------
# How many entries each round has, or each batch: counted as they pass, in order.


class Tally:
    """Counts of values that never fall: 12 bytes for each run of them, and no Python objects.

    Attributes
    ----------
    last : int
        The highest value so far; -1 before the first.
    """

    def __init__(self) -> None:
        self.last = -1
        self._values: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> None:
        """Count values: integers, shape (n,), that do not fall and are none below `last`."""
        if not len(values):
            return
        opens = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
        self._values.append(values[opens])
        self._lengths.append(np.diff(opens, append=len(values)))
        self.last = int(values[-1])

    def extend(self, other: Tally) -> None:
        """Count what another one has counted."""
        self._values += other._values
        self._lengths += other._lengths
        self.last = max(self.last, other.last)

    def counts(self, length: int) -> np.ndarray:
        """Return how often each of 0 to `length` - 1 occurred: int64, shape (length,)."""
        found = np.zeros(length, np.int64)
        for values, lengths in zip(self._values, self._lengths, strict=True):
            known = values < length
            found[values[known]] += lengths[known]  # each value once in a piece: they never fall
        return found
