# SPDX-License-Identifier: Apache-2.0
"""CSV: pmlkit's own with one row per entry, and others with one row per request.

pmlkit's has the columns t_start_ns, t_end_ns, vcpu, gfn, kind. The first two are the interval that
contains the entry. The kind is r, w or x; in a PML log it is w, ? (a write to data or a page
table), or p1 to p5 (a page table of that level). Without `kind`, all are reads; without `vcpu`, it
is 0. Pages that are not of 4 KiB have their size in each row, in a further column, page_bytes.

Others are read if their columns are named (`pmlkit.interop.columns`).
"""

from __future__ import annotations

import csv as pycsv
import io
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
from pyarrow import csv

from pmlkit.errors import UsageError, argument
from pmlkit.interop.columns import UNITS_NS, chosen, of_rows, parse_columns
from pmlkit.interop.formats import selected
from pmlkit.interop.reading import ForeignFileError, open_compressed, read_exactly
from pmlkit.interop.rounds import Imported
from pmlkit.trace.description import PAGE_SIZE, PAGE_SIZES
from pmlkit.trace.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import BinaryIO

    from pmlkit.interop.rounds import Chunk, Column
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Ints, PathLike

COLUMNS: dict[str, pa.DataType] = {
    "t_start_ns": pa.int64(),
    "t_end_ns": pa.int64(),
    "vcpu": pa.uint16(),
    "gfn": pa.uint64(),
    "kind": pa.string(),
}
PAGE_BYTES = "page_bytes"  # a further column, of pages that are not of 4 KiB
NEEDED = ("t_start_ns", "t_end_ns", "gfn")
LETTERS = {int(Kind.READ): "r", int(Kind.WRITE): "w", int(Kind.EXEC): "x", 0: "?"}
LETTERS |= {int(Kind.PAGE_TABLE) | level: f"p{level}" for level in range(1, 6)}
NUMBERS = {letter: number for number, letter in LETTERS.items()}
BLOCK = 4 << 20  # bytes that are parsed at once, and the longest line
SEPARATORS = {"tab": "\t", "space": " ", "comma": ",", "semicolon": ";"}
_LIKELY = ",\t;|"
_DECIMALS = {"s": 9, "ms": 6, "us": 3, "ns": 0}
_ACCESS = [int(Kind.READ), int(Kind.WRITE), int(Kind.EXEC)]


def export(
    trace: Trace,
    path: PathLike,
    window: int | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    kinds: str | int | None = None,
) -> int:
    """Write a trace's entries, with the clock of the file that it was imported from."""
    rounds, count, base = trace.rounds, 0, trace.meta.clock.get("base_ns") or 0
    if base + trace.duration_ns >= 1 << 63:
        raise UsageError(
            f"times after {base} ns have more than 64 bits: export a trace with smaller times"
        )
    starts, ends = (rounds[name].to_numpy() + base for name in ("t_start_ns", "t_end_ns"))
    letters = pa.array([LETTERS.get(number, "?") for number in range(256)])
    page_bytes, columns = trace.meta.domain["page_size"], dict(COLUMNS)
    if page_bytes != PAGE_SIZE:
        columns[PAGE_BYTES] = pa.int64()
    schema = pa.schema(list(columns.items()))
    # By a handle: a name need not be UTF-8, and a full disk is reported as such.
    with open(path, "wb") as file, csv.CSVWriter(file, schema) as writer:
        entries = selected(trace, ["round", "vcpu", "gfn", "kind"], start_ns, end_ns, kinds)
        for part in entries:
            number = part["round"]
            kind = pa.DictionaryArray.from_arrays(part["kind"], letters).dictionary_decode()
            numbers = (starts[number], ends[number], part["vcpu"], part["gfn"])
            cells = [*map(pa.array, numbers), kind]
            if PAGE_BYTES in columns:
                cells.append(pa.array(np.full(len(number), page_bytes)))
            writer.write(pa.record_batch(cells, schema=schema))
            count += len(number)
    return count


def load(
    path: PathLike,
    columns: str | Mapping[str, str] | None = None,
    separator: str | None = None,
    header: bool | None = None,
    time_unit: str | None = None,
    window: int | None = None,
    page_size: int | None = None,
    unit: int | None = None,
) -> Imported:
    """Read entries in order of time, or requests if `columns` gives the roles of columns."""
    if columns is None:
        options = {"window": window, "page-size": page_size, "unit": unit, "time-unit": time_unit}
        for option, value in options.items():
            if value is not None:
                why = f"is for requests: add {argument('columns', 'time=...,obj=...')}"
                raise UsageError(f"--{option} {why}")
        return _entries(_Table(path, _head(path, separator or ",", True)))
    roles = parse_columns(columns)
    table = _Table(path, _head(path, separator, header, list(roles.values())))
    names = chosen(path, roles, table.head.names)
    rows = partial(table.batches, _types(table, names, time_unit or "s"))
    return of_rows(
        path, rows, names, table.where,
        window=window, time_unit=time_unit, page_size=page_size, unit=unit,
    )  # fmt: skip


@dataclass(frozen=True)
class _Head:
    """The head of a file: separator, names of columns, number of lines before the first row."""

    separator: str
    names: list[str]
    lines: int


def _head(
    path: PathLike, separator: str | None, header: bool | None, wanted: list[str] | None = None
) -> _Head:
    separator = SEPARATORS.get(separator or "", separator)
    if separator is not None and (
        len(separator) != 1 or separator in '"\r\n\0' or not separator.isascii()
    ):
        why = f"the separator {separator!r} is not supported"
        raise UsageError(f"{why}: give one character of ASCII, or tab, space")
    number, line = 0, ""
    with _lines(path) as lines:
        for line in lines:
            number += 1
            if line.strip():
                break
    if not line.strip():
        raise ForeignFileError(path, "", "is not a CSV of entries (it is empty)")
    if "\r" in line:
        why = "ends with a carriage return alone, as on old systems"
        raise ForeignFileError(path, f"line {number}", why, "convert the ends of lines to LF")
    if separator is None:
        best_row = max(_LIKELY, key=line.count)
        separator = best_row if best_row in line else ","
    try:
        cells = [cell.strip() for cell in _cells(line, separator)]
    except pycsv.Error as error:
        why = f"is not a CSV of entries ({error})"
        raise ForeignFileError(path, f"line {number}", why) from error
    if header is None:  # the row that may have names; with numbers of columns there may be none
        numbers = all(one.isdecimal() for one in wanted or ())
        header = not (numbers and any(cell.replace(".", "").isdecimal() for cell in cells))
    if header:
        return _Head(separator, cells, number)
    return _Head(separator, [f"column {at}" for at in range(1, len(cells) + 1)], number - 1)


def _cells(line: str, separator: str) -> list[str]:
    return next(pycsv.reader([line], delimiter=separator))


@contextmanager
def _lines(path: PathLike) -> Iterator[Iterator[str]]:
    """Context with the lines of a file, each at most a block long."""
    with open_compressed(path, text=True) as file:

        def lines() -> Iterator[str]:
            rest, first = b"", True
            while data := read_exactly(path, file, BLOCK):
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    yield _text(line, first)
                    first = False
                if len(rest) > BLOCK:
                    raise ForeignFileError(path, "", f"has a line of more than {BLOCK} bytes")
            if rest:
                yield _text(rest, first)

        yield lines()


def _text(line: bytes, first: bool) -> str:
    text = line.decode("utf-8", "replace").rstrip("\r")
    return text.removeprefix("\ufeff") if first else text


class _Table:
    """The rows of a CSV file."""

    def __init__(self, path: PathLike, head: _Head) -> None:
        self.path, self.head = path, head

    def where(self, row: int) -> str:
        """Return the line of a row; blank lines are not rows."""
        with _lines(self.path) as lines:
            for number, line in enumerate(lines, start=1):
                if number > self.head.lines and line.strip():
                    row -= 1
                    if row < 0:
                        return f"line {number}"
        return "the last line"

    def has_types(self, types: Mapping[str, pa.DataType]) -> bool:
        """Return whether all values of the columns have these types."""
        try:
            for _ in self._batches(types):
                pass
        except pa.ArrowException:
            return False
        return True

    def batches(self, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Yield the columns of `types` in these types.

        Raises
        ------
        ForeignFileError
            The message names the line of the first value of another type.
        """
        try:
            yield from self._batches(types)
        except (pa.ArrowException, OSError) as error:
            self._explain(types)
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ForeignFileError(
                self.path, "", f"is not a CSV of entries ({str(error)[:200]})"
            ) from error

    def _batches(self, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        read = csv.ReadOptions(
            use_threads=False, block_size=BLOCK, skip_rows=self.head.lines,
            column_names=self.head.names,
        )  # fmt: skip
        convert = csv.ConvertOptions(
            column_types=dict(types), include_columns=list(types), strings_can_be_null=False
        )
        parse = csv.ParseOptions(delimiter=self.head.separator)
        if not self._has_rows():  # an empty stream is an error to Arrow
            return
        with (
            open_compressed(self.path, text=True) as file,
            csv.open_csv(cast("BinaryIO", file), read, parse, convert) as reader,
        ):
            yield from reader

    def _has_rows(self) -> bool:
        with _lines(self.path) as lines:
            return any(line.strip() for at, line in enumerate(lines) if at >= self.head.lines)

    def _explain(self, types: Mapping[str, pa.DataType]) -> None:
        """Raise an error for the first faulty line."""
        names = self.head.names
        with _lines(self.path) as lines:
            for number, line in enumerate(lines, start=1):
                if number <= self.head.lines or not line.strip():
                    continue
                fault, cells = None, list(names)
                try:
                    cells = _cells(line, self.head.separator)
                except pycsv.Error as error:
                    fault = str(error)
                if len(cells) != len(names):
                    fault = f"it has {len(cells)} columns, while the first line has {len(names)}"
                for name, kind in types.items():
                    fault = fault or _cell_fault(name, cells[names.index(name)], kind)
                if fault:
                    raise ForeignFileError(
                        self.path, f"line {number}", f"is not a CSV of entries ({fault})"
                    )


def _cell_fault(name: str, cell: str, kind: pa.DataType) -> str | None:
    try:
        if cell.strip():
            table = io.BytesIO(b"a\n" + cell.strip().encode() + b"\n")
            options = csv.ConvertOptions(column_types={"a": kind}, strings_can_be_null=False)
            csv.read_csv(table, convert_options=options)
        elif not (pa.types.is_string(kind) or pa.types.is_binary(kind)):
            return f"it has no {name}"
    except pa.ArrowException:
        return f"its {name} {cell.strip()[:40]!r} is not a {_NAMES.get(str(kind), 'number')}"
    return None


_NAMES = {
    "int64": "whole number of 64 bits",
    "uint64": "frame number of 64 bits",
    "uint16": "number below 65536",
}


_OTHER_TYPES: dict[str, pa.DataType] = {"obj": pa.binary(), "time": pa.float64()}


def _types(table: _Table, names: Mapping[str, str], time_unit: str) -> dict[str, pa.DataType]:
    """Return the types of the columns.

    Objects are numbers if all of them can be. Times are exact, unless one of them has more decimal
    places than a nanosecond: programs print 0.1 + 0.2 as 0.30000000000000004.
    """
    if time_unit not in UNITS_NS:
        raise UsageError(f"the time unit {time_unit!r} is unknown: use s, ms, us or ns")
    kinds: dict[str, pa.DataType] = {
        # Decimal places of a nanosecond.
        "time": pa.decimal128(19 + _DECIMALS[time_unit], _DECIMALS[time_unit]),
        "size": pa.int64(), "op": pa.string(), "vcpu": pa.uint16(), "obj": pa.uint64(),
    }  # fmt: skip
    others = {role: kind for role, kind in _OTHER_TYPES.items() if role in names}
    if not table.has_types({names[role]: kinds[role] for role in others}):
        for role, other in others.items():
            if not table.has_types({names[role]: kinds[role]}):
                kinds[role] = other
    return {name: kinds[role] for role, name in names.items()}


def _entries(table: _Table) -> Imported:
    names = table.head.names
    for name in (*COLUMNS, PAGE_BYTES):
        if names.count(name) > 1:
            raise ForeignFileError(table.path, "line 1", f"has the column {name} twice")
    missing = [name for name in NEEDED if name not in names]
    if missing:
        why = f"has no column {missing[0]}: its columns are {', '.join(names)[:200]}"
        named = argument("columns", "time=...,obj=...,size=...")
        hint = f"name the columns of another CSV by {named}"
        raise ForeignFileError(table.path, "line 1", why, hint)
    kind = "access" if _is_access(table) else "pml"
    return Imported(_rows(table), kind, page_size=_page_size(table))


def _page_size(table: _Table) -> int:
    """Return the size of the pages, which all rows must agree on."""
    size = None
    if PAGE_BYTES in table.head.names:
        for first, batch in _numbered(table, {PAGE_BYTES: pa.int64()}):
            sizes = _numbers(table, first, batch, PAGE_BYTES)
            size = int(sizes[0]) if size is None and len(sizes) else size
            if (wrong := (sizes != size) | ~np.isin(sizes, PAGE_SIZES)).any():
                row = int(wrong.argmax())
                why = f"has pages of {sizes[row]} bytes"
                hint = "give all rows one size, a power of two from 512 to 2^30"
                raise ForeignFileError(table.path, table.where(first + row), why, hint)
    return PAGE_SIZE if size is None else size


def _is_access(table: _Table) -> bool:
    """Return whether there are reads or executions, which a PML log does not contain."""
    if "kind" not in table.head.names:
        return True
    kinds: set[int] = set()
    for first, batch in _numbered(table, {"kind": pa.string()}):
        kinds.update(np.unique(_kinds(table, first, batch["kind"])).tolist())
    access = bool(kinds & {int(Kind.READ), int(Kind.EXEC)})
    if access and not kinds <= set(_ACCESS):
        raise ForeignFileError(table.path, "", "has kinds of a PML log, and reads or executions")
    return access


def _numbered(
    table: _Table, types: Mapping[str, pa.DataType]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield batches with the number of their first row."""
    first = 0
    for batch in table.batches(types):
        yield first, batch
        first += batch.num_rows


def _kinds(table: _Table, first: int, column: pa.Array[pa.StringScalar]) -> Array:
    encoded = column.dictionary_encode()
    letters = [str(letter).strip() for letter in encoded.dictionary.to_pylist()]
    known = np.array([NUMBERS.get(letter, 255) for letter in letters], np.uint8)
    kinds = known[encoded.indices.to_numpy()] if len(letters) else np.empty(0, np.uint8)
    if (kinds == 255).any():
        row = int((kinds == 255).argmax())
        letter = letters[encoded.indices[row].as_py()]
        why = f"has the kind {letter[:40]!r}, which is not one of {', '.join(NUMBERS)}"
        raise ForeignFileError(table.path, table.where(first + row), why)
    return kinds


def _rows(table: _Table) -> Iterator[Chunk]:
    types = {name: kind for name, kind in COLUMNS.items() if name in table.head.names}
    last = np.empty(0, np.int64), np.empty(0, np.int64)
    for first, batch in _numbered(table, types):
        columns = {name: _numbers(table, first, batch, name) for name in types if name != "kind"}
        start, end = columns["t_start_ns"], columns["t_end_ns"]
        _check(table, first, start, end, last)
        last = start[-1:], end[-1:]
        kind: Column = int(Kind.READ)
        if "kind" in types:
            kind = _kinds(table, first, batch["kind"])
        if len(start):
            yield start, end, columns.get("vcpu", 0), columns["gfn"], kind


def _numbers(table: _Table, first: int, batch: pa.RecordBatch, name: str) -> Array:
    column = batch[name]
    if column.null_count:
        row = int(column.is_null().to_numpy(zero_copy_only=False).argmax())
        raise ForeignFileError(table.path, table.where(first + row), f"has no {name}")
    return column.to_numpy()


def _check(table: _Table, first: int, start: Ints, end: Ints, last: tuple[Ints, Ints]) -> None:
    """Check the intervals of rows; `last` is that of the row before, empty if there is none."""
    at = len(last[0])
    start, end = np.concatenate([last[0], start]), np.concatenate([last[1], end])
    starts_again = start[1:] != start[:-1]
    for wrong, why in (
        (end < start, "ends before it starts"),
        (np.append(False, start[1:] < start[:-1]), "goes back in time"),
        (np.append(False, starts_again & (start[1:] < end[:-1])), "overlaps the last"),
        (np.append(False, ~starts_again & (end[1:] < end[:-1])), "overlaps the last"),
        (np.append(False, ~starts_again & (end[1:] > end[:-1]) & (end[:-1] > start[:-1])),
         "overlaps the last"),
        (start < 0, "is before the start"),
    ):  # fmt: skip
        if wrong.any():
            row = first + int(wrong.argmax()) - at
            raise ForeignFileError(table.path, table.where(row), why)
