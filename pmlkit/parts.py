# SPDX-License-Identifier: Apache-2.0
"""One file of a trace's entries while it is written: row groups, out of columns as they come."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pmlkit.parquet import ENTRY_ENCODINGS, ParquetFile
from pmlkit.schema import ENTRIES, GROUPS_PER_FILE
from pmlkit.tally import Tally

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from pmlkit.types import Json

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
