# SPDX-License-Identifier: Apache-2.0
"""Page tables as they were at the end of a round: ``tables.parquet`` of a trace.

A row is an entry that is present, of a page table that was logged in the round: in table (frame)
`table`, at `index`, it leads to frame `target`. Rows increase by round, table and index.
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
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from pmlkit.types import Array, Bools


FILE = "tables.parquet"
LEVELS = 5
ENTRIES_MAX = 1024  # of a table without PAE
DTYPES = {field.name: np.dtype(field.type.to_pandas_dtype()) for field in SNAPSHOTS}
_KEYS = ("round", "table", "index")

ENCODINGS = {
    "use_dictionary": ["level", "flags"],
    "column_encoding": {
        **dict.fromkeys(("round", "table", "index"), "DELTA_BINARY_PACKED"),
        "target": "DELTA_BINARY_PACKED",
    },
}


class SnapshotsWriter:
    """Write snapshots in bounded memory: one row group is held. No row, no file.

    Parameters
    ----------
    folder : Path
        The trace's folder.
    row_group_rows : int

    Attributes
    ----------
    files : dict
        What the manifest says of the file, once it is closed: bytes, blake2b, rows, rounds.
    last : tuple of int
        Round, table, index and level of the row written last; the round is -1 before the first.
    """

    # Not there before they are needed.
    _file: Any
    _first: Any

    def __init__(self, folder: Path, row_group_rows: int = ROW_GROUP_ROWS) -> None:
        self._path, self._room = folder / FILE, row_group_rows
        self._pieces, self._held, self._rows = [], 0, 0  # type: ignore[var-annotated]
        self._file = self._first = None
        self.last = (-1, 0, 0, 0)
        self.files: dict[Any, Any] = {}

    def add(self, **columns: Any) -> None:
        """Append rows: an array or scalar for each of `schema.SNAPSHOTS`; UsageError if wrong."""
        arrays = {n: checked("tables", n, columns[n], dtype) for n, dtype in DTYPES.items()}
        length = common_length("tables", arrays)
        arrays = {name: np.broadcast_to(array, length) for name, array in arrays.items()}
        if not length:
            return
        if fault := rows_fault(arrays, self.last):
            raise UsageError(f"snapshots of page tables: {fault}")
        if self._first is None:
            self._first = int(arrays["round"][0])
        self.last = last_row(arrays)
        self._pieces.append(pa.table([pa.array(a) for a in arrays.values()], schema=SNAPSHOTS))
        self._held += length
        if self._held >= self._room:
            self._write(whole_groups_only=True)

    def _write(self, whole_groups_only: bool) -> None:
        held = pa.concat_tables(self._pieces).combine_chunks()
        self._file = self._file or ParquetFile(self._path, SNAPSHOTS, ENCODINGS)
        stop = len(held) - len(held) % self._room if whole_groups_only else len(held)
        for start in range(0, stop, self._room):
            self._file.write(held.slice(start, min(self._room, stop - start)))
        self._rows += stop
        self._pieces, self._held = [held.slice(stop)], len(held) - stop

    def close(self) -> None:
        """Write what is still held, and finish the file, if there is one."""
        if self._held:
            self._write(whole_groups_only=False)
        if self._file is not None and not self.files:
            rounds = [self._first, self.last[0]]
            self.files[FILE] = {**self._file.close(), "rows": self._rows, "rounds": rounds}

    def abort(self) -> None:
        """Let go of the open file."""
        if self._file is not None:
            self._file.abort()


def last_row(columns: Mapping[str, Array]) -> tuple[int, int, int, int]:
    """Give round, table, index and level of the last of some rows (arrays by name)."""
    return tuple(int(columns[name][-1]) for name in (*_KEYS, "level"))  # type: ignore[return-value]


def rows_fault(columns: Mapping[str, Array], last: Sequence[int] = (-1, 0, 0, 0)) -> str | None:
    """Check rows of snapshots.

    Parameters
    ----------
    columns : dict of ndarray, shape (n,)
        Of `schema.SNAPSHOTS`; n > 0.
    last : tuple of int
        `last_row` of what stands before them.

    Returns
    -------
    str or None
        What is wrong.
    """
    flags, level = columns["flags"], columns["level"]
    return first_fault(
        _fault(columns, (level < 1) | (level > LEVELS), "has a level that is not 1 to 5"),
        _fault(columns, columns["index"] >= ENTRIES_MAX, "has no such place in a table"),
        _fault(columns, (flags & TableFlag.PRESENT) == 0, "is not present"),
        _order_fault(columns, last),
    )


def _order_fault(columns: Mapping[str, Array], last: Iterable[int]) -> str | None:
    keys = {}
    for name, before in zip((*_KEYS, "level"), last, strict=True):
        keys[name] = np.concatenate([[before], columns[name].astype(np.int64)])
    round_, table, index, level = (np.diff(keys[name]) for name in (*_KEYS, "level"))
    same = (round_ == 0) & (table == 0)
    rising = (round_ > 0) | (round_ == 0) & (table > 0) | same & (index > 0)
    return first_fault(
        _fault(columns, ~rising, "does not come after the one before by round, table, index"),
        _fault(columns, same & (level != 0), "has another level than the same table before it"),
    )


def _fault(columns: Mapping[str, Array], wrong: Bools, why: str) -> str | None:
    rows = np.flatnonzero(wrong)
    if not rows.size:
        return None
    place = (columns[name][rows[0]] for name in ("index", "table", "round"))
    return "entry {} of table {} in round {} {}".format(*place, why)
