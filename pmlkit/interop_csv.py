# SPDX-License-Identifier: Apache-2.0
"""CSV: a row per entry, with the time that it is known to lie in.

Columns t_start_ns, t_end_ns, vcpu, gfn, kind. The kind is r, w or x; of a PML log w, ? (a write to
data or a page table), or p1 to p5 (a page table of that level). Without `kind` all are reads,
without `vcpu` it is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import csv

from pmlkit.interop import ForeignFileError, Imported, selected
from pmlkit.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray

    from pmlkit.trace import Trace
    from pmlkit.types import Array, Gfns, Ints, PathLike


COLUMNS = {"t_start_ns": pa.int64(), "t_end_ns": pa.int64(), "vcpu": pa.uint16(),
           "gfn": pa.uint64(), "kind": pa.string()}  # fmt: skip
NEEDED = ("t_start_ns", "t_end_ns", "gfn")
LETTERS = {int(Kind.READ): "r", int(Kind.WRITE): "w", int(Kind.EXEC): "x", 0: "?"}
LETTERS |= {int(Kind.PAGE_TABLE) | level: f"p{level}" for level in range(1, 6)}
NUMBERS = {letter: number for number, letter in LETTERS.items()}


def export(trace: Trace, path: PathLike, window: str | int | None = None, **which: Any) -> int:
    """Write a trace's entries."""
    rounds, count = trace.rounds, 0
    starts, ends = rounds["t_start_ns"].to_numpy(), rounds["t_end_ns"].to_numpy()
    letters = np.array([LETTERS.get(number, "?") for number in range(256)], dtype=object)
    with csv.CSVWriter(path, pa.schema(list(COLUMNS.items()))) as writer:  # type: ignore[arg-type]
        for part in selected(trace, ["round", "vcpu", "gfn", "kind"], **which):
            number = part["round"]
            columns = [
                starts[number],
                ends[number],
                part["vcpu"],
                part["gfn"],
                letters[part["kind"]],
            ]
            arrays = map(pa.array, columns, COLUMNS.values())  # type: ignore[arg-type]
            writer.write(pa.record_batch(list(arrays), names=list(COLUMNS)))
            count += len(number)
    return count


def load(path: PathLike, name: str, **_: None) -> Imported:
    """Read entries, in order of time."""
    try:
        options = csv.ConvertOptions(column_types=COLUMNS, strings_can_be_null=False)
        table = csv.read_csv(path, convert_options=options)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise ForeignFileError(path, "", f"is no CSV of entries ({error})") from error
    missing = [column for column in NEEDED if column not in table.column_names]
    if missing:
        raise ForeignFileError(path, "line 1", f"has no column {missing[0]}")
    kinds = _kinds(path, table)
    access = (
        np.isin(kinds, [int(Kind.READ), int(Kind.EXEC)]).any() or "kind" not in table.column_names
    )
    start, end, gfn = (_numbers(path, table, column) for column in NEEDED)
    vcpu = (
        _numbers(path, table, "vcpu") if "vcpu" in table.column_names else np.zeros(len(gfn), "u2")
    )
    _check(path, start, end)
    if access and not np.isin(kinds, [1, 2, 4]).all():
        raise ForeignFileError(path, "", "has kinds of a PML log, and reads or executions")
    return Imported(_rounds(start, end, vcpu, gfn, kinds), "access" if access else "pml")


def _numbers(path: PathLike, table: pa.Table, column: str) -> Array:
    if table[column].null_count:
        raise ForeignFileError(path, "", f"has a row without {column}")
    return table[column].to_numpy()


def _kinds(path: PathLike, table: pa.Table) -> NDArray[np.uint8]:
    if "kind" not in table.column_names:
        return np.full(len(table), int(Kind.READ), dtype=np.uint8)
    letters = table["kind"].to_numpy()
    wrong = [row for row, letter in enumerate(letters) if letter not in NUMBERS]
    if wrong:
        why = f"has the kind {letters[wrong[0]]!r}, and not one of {', '.join(NUMBERS)}"
        raise ForeignFileError(path, f"line {wrong[0] + 2}", why)
    return np.array([NUMBERS[letter] for letter in letters], dtype=np.uint8)


def _check(path: PathLike, start: Ints, end: Ints) -> None:
    for wrong, why in (
        (end < start, "ends before it starts"),
        (np.append(False, start[1:] < start[:-1]), "goes back in time"),
        (np.append(False, (start[1:] != start[:-1]) & (start[1:] < end[:-1])), "overlaps the last"),
        (np.append(False, (start[1:] == start[:-1]) & (end[1:] != end[:-1])), "overlaps the last"),
        (start < 0, "is before the start"),
    ):
        if wrong.any():
            raise ForeignFileError(path, f"line {int(wrong.argmax()) + 2}", why)


def _rounds(
    start: Ints, end: Ints, vcpu: NDArray[np.uint16], gfn: Gfns, kinds: Any
) -> Iterator[tuple[Array | int, ...]]:
    cuts = np.flatnonzero(np.diff(start)) + 1
    for rows in np.split(np.arange(len(start)), cuts):
        if len(rows):
            yield int(start[rows[0]]), int(end[rows[0]]), vcpu[rows], gfn[rows], kinds[rows]
