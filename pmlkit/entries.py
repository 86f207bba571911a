# SPDX-License-Identifier: Apache-2.0
"""The entries of a trace: buffered into row groups and files, and read back by round."""

from collections import Counter

import numpy as np
import pyarrow as pa

from pmlkit.errors import UsageError
from pmlkit.kinds import KINDS
from pmlkit.parquet import ENTRY_ENCODINGS, ParquetFile, open_parquet, parquet_errors
from pmlkit.schema import ENTRIES, GROUPS_PER_FILE, ROW_GROUP_ROWS

DTYPES = {field.name: np.dtype(field.type.to_pandas_dtype()) for field in ENTRIES}


def part_name(index):
    """Name the file of entries with this index (0-based)."""
    return f"entries/part-{index:05d}.parquet"


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
    per_round, per_batch : Counter
        Entries written per round and per batch.
    """

    def __init__(self, folder, kind, row_group_rows=ROW_GROUP_ROWS):
        self._folder = folder
        self._allowed = np.isin(np.arange(256), [int(k) for k in KINDS[kind]])
        self._trace_kind = kind
        self._buffer = {name: np.empty(row_group_rows, dtype) for name, dtype in DTYPES.items()}
        self._room = row_group_rows
        self._held = self._groups = 0
        self._last = {"round": 0, "batch": 0}
        self._file = None
        self._rounds = []  # the first and last round of each row group of the open file
        self._rows = 0  # of the open file
        self.files = {}
        self.per_round, self.per_batch = Counter(), Counter()
        (folder / "entries").mkdir()

    def add(self, **columns):
        """Append entries: one array or scalar for each of round, batch, vcpu, gfn, kind."""
        arrays = {name: checked("entries", name, columns[name], t) for name, t in DTYPES.items()}
        length = common_length("entries", arrays)
        if not length:
            return
        self._check(arrays)
        done = 0
        while done < length:
            done += self._take(arrays, done, length)

    def _check(self, arrays):
        last = {n: _not_falling(n, arrays[n], self._last[n]) for n in ("round", "batch")}
        kinds = np.atleast_1d(arrays["kind"])
        allowed = self._allowed[kinds]
        if not allowed.all():
            wrong = kinds[~allowed]
            raise UsageError(
                f"an entry of kind {wrong[0]} cannot be in a trace of kind {self._trace_kind}: "
                "see pmlkit.Kind"
            )
        self._last = last

    def _take(self, arrays, start, length):
        count = min(length - start, self._room - self._held)
        for name, array in arrays.items():
            part = array[start : start + count] if array.ndim else array
            self._buffer[name][self._held : self._held + count] = part
        self._held += count
        if self._held == self._room:
            self._write_group()
        return count

    def _write_group(self):
        columns = {name: buffer[: self._held] for name, buffer in self._buffer.items()}
        for counter, name in ((self.per_round, "round"), (self.per_batch, "batch")):
            counter.update(_run_lengths(columns[name]))
        self._open()
        self._file.write(
            pa.Table.from_arrays([pa.array(c) for c in columns.values()], schema=ENTRIES)
        )
        self._rounds += [int(columns["round"][0]), int(columns["round"][-1])]
        self._rows += self._held
        self._groups += 1
        self._held = 0
        if self._groups == GROUPS_PER_FILE:
            self._close_file()

    def _open(self):
        if self._file is None:
            path = self._folder / part_name(len(self.files))
            self._file = ParquetFile(path, ENTRIES, ENTRY_ENCODINGS)

    def _close_file(self):
        seal = self._file.close()
        rounds = [self._rounds[0], self._rounds[-1]] if self._rounds else None
        self.files[part_name(len(self.files))] = {**seal, "rows": self._rows, "rounds": rounds}
        self._file, self._rounds, self._rows, self._groups = None, [], 0, 0

    def close(self):
        """Write what is still held. There is always one file, so that any reader finds columns."""
        if self._held:
            self._write_group()
        if not self.files:
            self._open()
        if self._file is not None:
            self._close_file()

    def abort(self):
        """Let go of the open file."""
        if self._file is not None:
            self._file.abort()


def checked(what, name, values, dtype):
    """Bring a column of what is being added into its type; UsageError if it does not fit."""
    array = np.asarray(values)
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "iu" and array.size:
        raise UsageError(f"the {what}' {name} are {array.dtype}: give whole numbers")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) <= np.iinfo(dtype).max:
        raise UsageError(f"the {what}' {name} do not fit {dtype}: {array.min()} to {array.max()}")
    return array.astype(dtype, copy=False)


def common_length(what, arrays):
    """Give the one length of some columns (arrays or scalars); UsageError if there are more."""
    lengths = {len(array) for array in arrays.values() if array.ndim == 1}
    if len(lengths) != 1 or any(array.ndim > 1 for array in arrays.values()):
        shapes = {name: array.shape for name, array in arrays.items()}
        raise UsageError(f"the {what}' columns have shapes {shapes}: give one length, or scalars")
    return lengths.pop()


def _run_lengths(values):
    """Return how often each value occurs, of an array that never falls: a dict."""
    opens = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    lengths = np.diff(np.append(opens, len(values)))
    return dict(zip(values[opens].tolist(), lengths.tolist(), strict=True))


def _not_falling(name, array, last):
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

    def __init__(self, path, files, verify, prefix="entries/", schema=ENTRIES):
        self._path, self._verify, self._schema = path, verify, schema
        self._parts = {n: seal for n, seal in sorted(files.items()) if n.startswith(prefix)}

    def batches(self, columns, first, stop):
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

    def _of_part(self, name, columns, first, stop):
        with open_parquet(self._path, name, self._path / name, self._schema) as part:
            for group in range(part.num_row_groups):
                if _overlaps(_group_rounds(part, group), first, stop):
                    table = part.read_row_group(group, columns=columns, use_threads=False)
                    yield from _of_rounds(table, first, stop).to_batches()


def _overlaps(rounds, first, stop):
    return rounds is not None and rounds[0] < stop and rounds[1] >= first


def _group_rounds(part, group):
    statistics = part.metadata.row_group(group).column(0).statistics
    return statistics.min, statistics.max


def _of_rounds(table, first, stop):
    rounds = table["round"].to_numpy()
    start, end = np.searchsorted(rounds, (first, stop))
    return table.slice(start, end - start).combine_chunks()
