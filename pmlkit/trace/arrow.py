# SPDX-License-Identifier: Apache-2.0
"""Arrow's columns as numpy arrays and back, without pandas.

`pyarrow.Array.to_numpy`, `pyarrow.array` and ``schema.empty_table`` import pandas, which takes
longer than most commands need for their answer. So does `pyarrow.compute`, which ``cast``,
``filter`` and ``take`` import: the functions that need it import it themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.types import Array, Bools

__all__ = ["empty", "mask", "texts", "values"]

_PART = 1 << 16  # texts of a column that are Python objects at one time


def values(column: Any) -> Array:
    """Return the values of a column of numbers without nulls: read-only, not copied if possible.

    Parameters
    ----------
    column : pyarrow.Array or pyarrow.ChunkedArray

    Raises
    ------
    pyarrow.ArrowTypeError
        If it is a column of text or of bits, or has nulls.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return np.from_dlpack(column)


def texts(column: Any) -> set[str]:
    """Return the distinct texts of a column.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
    """
    found: set[str] = set()
    for first in range(0, len(column), _PART):
        found.update(column.slice(first, _PART).to_pylist())
    return found


def mask(chosen: Bools) -> Any:
    """Convert booleans, shape (rows,), for Arrow's filters."""
    bits = pa.py_buffer(np.packbits(chosen, bitorder="little").tobytes())
    return pa.Array.from_buffers(pa.bool_(), len(chosen), [None, bits])


def empty(schema: pa.Schema) -> pa.Table:
    """Return a table without rows."""
    return pa.Table.from_batches([], schema=schema)
