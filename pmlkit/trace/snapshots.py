# SPDX-License-Identifier: Apache-2.0
"""Snapshots of page tables at the ends of rounds: ``tables.parquet`` of a trace.

A row is a present entry of a page table that was logged in the round. Entry `index` of the table in
frame `table` points to frame `target`. Rows increase by round, table and index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pmlkit.errors import UsageError
from pmlkit.trace.consistency import first_fault
from pmlkit.trace.entries import checked, common_length
from pmlkit.trace.kinds import TableFlag
from pmlkit.trace.parquet import ParquetFile
from pmlkit.trace.schema import ROW_GROUP_ROWS, SNAPSHOTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import ArrayLike

    from pmlkit.trace.schema import Checksum
    from pmlkit.types import Array, Bools

    LastRow = tuple[int, int, int, int]  # round, table, index, level


FILE = "tables.parquet"
LEVELS = 5
ENTRIES_MAX = 1024  # most entries: those of a page table without PAE
DTYPES = {field.name: np.dtype(field.type.to_pandas_dtype()) for field in SNAPSHOTS}
_KEYS = ("round", "table", "index")

ENCODINGS = {
    "use_dictionary": ["level", "flags"],
    "column_encoding": dict.fromkeys((*_KEYS, "target"), "DELTA_BINARY_PACKED"),
}


class SnapshotsWriter:
    """Write snapshots in bounded memory: one row group is buffered. Without rows, no file.

    Parameters
    ----------
    folder : Path
        The trace's folder.

    Attributes
    ----------
    files : dict of str to Checksum
        The file, once it is closed.
    last : tuple of int
        Round, table, index and level of the last row; the round is -1 before the first row.
    """

    def __init__(self, folder: Path, row_group_rows: int = ROW_GROUP_ROWS) -> None:
        self._path, self._group_rows = folder / FILE, row_group_rows
        self._pieces: list[pa.Table] = []
        self._buffered = self._rows = 0
        self._file: ParquetFile | None = None
        self._first_round = -1
        self.last: LastRow = (-1, 0, 0, 0)
        self.files: dict[str, Checksum] = {}

    def add(self, **columns: ArrayLike) -> None:
        """Append rows: an array or scalar for each of `schema.SNAPSHOTS`; UsageError if wrong."""
        arrays = {n: checked("tables", n, columns[n], dtype) for n, dtype in DTYPES.items()}
        length = common_length("tables", arrays)
        arrays = {name: np.broadcast_to(array, length) for name, array in arrays.items()}
        if not length:
            return
        if fault := rows_fault(arrays, self.last):
            raise UsageError(f"snapshots of page tables: {fault}")
        if self._first_round < 0:
            self._first_round = int(arrays["round"][0])
        self.last = last_row(arrays)
        self._pieces.append(pa.table([pa.array(a) for a in arrays.values()], schema=SNAPSHOTS))
        self._buffered += length
        if self._buffered >= self._group_rows:
            self._write(full_groups_only=True)

    def _write(self, full_groups_only: bool) -> None:
        rows = pa.concat_tables(self._pieces).combine_chunks()
        self._file = self._file or ParquetFile(self._path, SNAPSHOTS, ENCODINGS)
        stop = len(rows) - len(rows) % self._group_rows if full_groups_only else len(rows)
        for start in range(0, stop, self._group_rows):
            self._file.write(rows.slice(start, min(self._group_rows, stop - start)))
        self._rows += stop
        self._pieces, self._buffered = [rows.slice(stop)], len(rows) - stop

    def close(self) -> None:
        """Write the buffered rows, and finish the file, if there is one."""
        if self._buffered:
            self._write(full_groups_only=False)
        if self._file is not None and not self.files:
            rounds = [self._first_round, self.last[0]]
            self.files[FILE] = {**self._file.close(), "rows": self._rows, "rounds": rounds}

    def abort(self) -> None:
        """Close the file, in whatever state it is."""
        if self._file is not None:
            self._file.abort()


def last_row(columns: Mapping[str, Array]) -> LastRow:
    """Return round, table, index and level of the last row."""
    round_, table, index, level = (int(columns[name][-1]) for name in (*_KEYS, "level"))
    return round_, table, index, level


def rows_fault(columns: Mapping[str, Array], last: LastRow) -> str | None:
    """Return the fault in rows of snapshots, or None.

    Parameters
    ----------
    columns : dict of ndarray, shape (n,)
        The columns of `schema.SNAPSHOTS`; n > 0.
    last : tuple of int
        `last_row` of the rows before them.
    """
    flags, level = columns["flags"], columns["level"]
    return first_fault(
        _fault(columns, (level < 1) | (level > LEVELS), "has a level that is not 1 to 5"),
        _fault(columns, columns["index"] >= ENTRIES_MAX, "has no such place in a table"),
        _fault(columns, (flags & TableFlag.PRESENT) == 0, "is not present"),
        _order_fault(columns, last),
    )


def _order_fault(columns: Mapping[str, Array], last: LastRow) -> str | None:
    keys = {}
    for name, before in zip((*_KEYS, "level"), last, strict=True):
        # As int64, since differences of unsigned numbers would wrap around.
        keys[name] = np.concatenate([[before], columns[name].astype(np.int64)])
    round_, table, index, level = (np.diff(keys[name]) for name in (*_KEYS, "level"))
    same = (round_ == 0) & (table == 0)
    rising = (round_ > 0) | (round_ == 0) & (table > 0) | same & (index > 0)
    return first_fault(
        _fault(columns, ~rising, "does not come after the previous one by round, table, index"),
        _fault(columns, same & (level != 0), "has another level than earlier entries of its table"),
    )


def _fault(columns: Mapping[str, Array], wrong: Bools, why: str) -> str | None:
    rows = np.flatnonzero(wrong)
    if not rows.size:
        return None
    place = (columns[name][rows[0]] for name in ("index", "table", "round"))
    return "entry {} of table {} in round {} {}".format(*place, why)
