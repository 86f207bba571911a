# SPDX-License-Identifier: Apache-2.0
"""Tables with arbitrary columns: the role of each column, and rows as requests.

Roles are assigned as ``time=ts,obj=lbn,size=len,op=rw``. `obj` (required) is a number or a name.
`time` is a number of `time_unit` (or a timestamp, in Parquet). `size` is in bytes, `op` is a read
or a write, and `vcpu` is a number. Columns may also be given by number, from 1 on, as in
libCacheSim. Without `time`, only the order is known.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pmlkit.errors import UsageError, argument
from pmlkit.files import open_regular
from pmlkit.interop.reading import ForeignFileError
from pmlkit.interop.requests import Clock, Learned, Requests, imported
from pmlkit.interop.rounds import Imported
from pmlkit.trace.kinds import Kind
from pmlkit.trace.parquet import LIMIT_GROUP_BYTES, THRIFT
from pmlkit.trace.parquet_pages import PageFault, check_pages, read_footer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any, BinaryIO, TypeAlias

    from pmlkit.interop.rounds import Column
    from pmlkit.trace.parquet_pages import Group
    from pmlkit.types import Array, Ints, PathLike

    Values: TypeAlias = pa.Array[Any]

ROLES = ("time", "obj", "size", "op", "vcpu")
UNITS_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DECIMALS = {unit_ns: len(str(unit_ns)) - 1 for unit_ns in UNITS_NS.values()}
_BATCH = 1 << 17
_TEXTS = (pa.string(), pa.binary(), pa.large_string(), pa.large_binary())
_BUFFER = 1 << 20  # bytes of a column that are read at once
_READ, _WRITE = int(Kind.READ), int(Kind.WRITE)
_OPS = dict.fromkeys(("r", "read", "get", "gets", "load"), _READ)
_OPS |= dict.fromkeys(("w", "write", "set", "put", "store"), _WRITE)


def parse_columns(text: str | Mapping[str, str]) -> dict[str, str]:
    """Parse ``time=ts,obj=lbn,size=5`` to the columns by role; UsageError if malformed."""
    pairs = text.items() if not isinstance(text, str) else _pairs(text)
    columns: dict[str, str] = {}
    for role, name in pairs:
        if role not in ROLES:
            raise UsageError(f"a column cannot contain {role!r}: use {', '.join(ROLES)}")
        if role in columns:
            raise UsageError(f"two columns contain the {role}: name one")
        columns[role] = str(name)
    if "obj" not in columns:
        raise UsageError(
            f"no column contains the obj: name it, as in {argument('columns', 'time=ts,obj=lbn')}"
        )
    return columns


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for part in text.split(","):
        role, equals, name = part.partition("=")
        if not equals or not name.strip():
            raise UsageError(
                f"{part!r} names no column: write {argument('columns', 'time=ts,obj=lbn,size=len')}"
            )
        yield role.strip(), name.strip()


def chosen(path: PathLike, columns: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return the names of the columns by their roles; numbers count from 1.

    Raises
    ------
    ForeignFileError
        If one does not exist; the message lists the existing ones.
    """
    return {role: _named(path, name, names) for role, name in columns.items()}


def _named(path: PathLike, name: str, names: Sequence[str]) -> str:
    if names.count(name) > 1:
        raise ForeignFileError(path, "", f"has the column {name} twice", "name it by its number")
    if name in names:
        return name
    if name.isdecimal() and len(name) <= len(str(len(names))) and 1 <= int(name) <= len(names):
        return names[int(name) - 1]
    why = f"has no column {name[:40]}: its columns are {', '.join(names)[:200]}"
    raise ForeignFileError(path, "", why, f"name one of these in {argument('columns')}")


class Converter:
    """Convert rows to requests.

    Parameters
    ----------
    columns : dict
        The names of the columns by their roles.
    unit_ns, tick_ns : int
        Unit of the times, and length of an interval.
    where : callable
        Names the row with a number, for messages.

    Attributes
    ----------
    base_ns : int or None
        Time of the file's clock at the time 0.
    named : bool
        Whether objects are names.
    """

    def __init__(
        self,
        path: PathLike,
        columns: Mapping[str, str],
        unit_ns: int,
        tick_ns: int,
        where: Callable[[int], str],
    ) -> None:
        self._path, self._columns, self._where = path, columns, where
        self._unit_ns, self._tick_ns = unit_ns, tick_ns
        self._numbers: dict[str | bytes, int] = {}  # numbers of named objects
        self.base_ns: int | None = None
        self.named = False

    def requests(self, batches: Iterator[pa.RecordBatch]) -> Iterator[Requests]:
        """Convert batches of rows."""
        zero = None if self.base_ns is None else self.base_ns // self._tick_ns
        clock, first = Clock(self._path, self._tick_ns, self._where, zero), 0
        for batch in batches:
            columns = {role: batch[name] for role, name in self._columns.items()}
            for role, column in columns.items():
                if column.null_count:
                    row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
                    raise ForeignFileError(self._path, self._where(first + row), f"has no {role}")
            yield self._batch(first, columns, clock)
            first += batch.num_rows
        if clock.zero is not None and self.base_ns is None and "time" in self._columns:
            self.base_ns = clock.zero * self._tick_ns

    def _batch(self, first: int, columns: dict[str, Values], clock: Clock) -> Requests:
        obj = self._objects(first, columns["obj"])
        size = self._whole("size", first, columns["size"]) if "size" in columns else 1
        op = self._kinds(first, columns["op"]) if "op" in columns else _READ
        vcpu = self._whole("vcpu", first, columns["vcpu"]) if "vcpu" in columns else 0
        start: Column = 0
        end: Column = 1
        if "time" in columns:
            times_ns = self._times_ns(first, columns["time"])
            start, end = clock.times(first, times_ns // self._tick_ns)
        return Requests(first, start, end, obj, size, op, vcpu)

    def _objects(self, first: int, column: Values) -> Array:
        if pa.types.is_integer(column.type):
            numbers = column.to_numpy(zero_copy_only=False)
            if numbers.dtype.kind == "i" and (numbers < 0).any():
                self._refuse(first, numbers < 0, "has a negative obj")
            return numbers.astype(np.uint64)
        if pa.types.is_nested(column.type):
            raise ForeignFileError(
                self._path, "", f"has objects of {column.type}, not numbers or names"
            )
        if pa.types.is_floating(column.type):  # pandas writes whole numbers so if one is missing
            self._refuse(first, np.isnan(column.to_numpy(zero_copy_only=False)), "has no obj")
        self.named = True
        names, index = _distinct(column)
        ids = [self._numbers.setdefault(name, len(self._numbers)) for name in names]
        return np.array(ids, np.uint64)[index]

    def _whole(self, role: str, first: int, column: Values) -> Ints:
        if not pa.types.is_integer(column.type):
            raise ForeignFileError(
                self._path, "", f"has a {role} of {column.type}, not of whole numbers"
            )
        values = column.to_numpy(zero_copy_only=False)
        wrong = (values < 0) | (values > np.iinfo(np.int64).max)
        if role == "vcpu":
            wrong |= values > np.iinfo(np.uint16).max
        self._refuse(first, wrong, f"has a {role} that is negative, or too large")
        return values.astype(np.int64)

    def _times_ns(self, first: int, column: Any) -> Ints:
        """Return times in ns; decimals are scaled exactly."""
        kind = column.type
        if pa.types.is_timestamp(kind):
            values, unit_ns = column.cast(pa.int64()).to_numpy(), UNITS_NS[kind.unit]
            wrong = np.abs(values.astype(np.float64)) * unit_ns >= 2.0**63
        elif pa.types.is_floating(kind):
            values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
            wrong = ~(np.abs(values) * self._unit_ns < 2.0**62)  # true for NaN, too
            self._refuse(first, wrong | (values < 0), "has a value that is not a time")
            return np.rint(values * self._unit_ns).astype(np.int64)
        elif pa.types.is_decimal(kind):
            column = _rescaled(column, _DECIMALS[self._unit_ns])
            words = np.frombuffer(column.buffers()[1], np.int64).reshape(-1, 2)
            low, high = words[column.offset : column.offset + len(column)].T
            wrong, values, unit_ns = (high != 0) | (low < 0), low.copy(), 1
        elif pa.types.is_integer(kind):
            values, unit_ns = column.to_numpy(zero_copy_only=False), self._unit_ns
            wrong = (values < 0) | (values > ((1 << 63) - 1) // unit_ns)
        else:
            raise ForeignFileError(
                self._path, "", f"has times of {kind}, not numbers or timestamps"
            )
        self._refuse(first, wrong, "has a time that is negative, or has more than 64 bits in ns")
        return values.astype(np.int64) * unit_ns

    def _kinds(self, first: int, column: Values) -> Array:
        values, index = _distinct(column)
        ops = [value.decode() if isinstance(value, bytes) else str(value) for value in values]
        kind_of_op = np.array([_OPS.get(op.strip().lower(), 0) for op in ops], np.uint8)
        kinds = kind_of_op[index]
        if (kinds == 0).any():
            name = ops[index[int(np.argmax(kinds == 0))]][:40]
            self._refuse(
                first, kinds == 0, f"has the op {name}, which is not one of {', '.join(_OPS)}"
            )
        return kinds

    def _refuse(self, first: int, wrong: Array, why: str) -> None:
        if wrong.any():
            raise ForeignFileError(self._path, self._where(first + int(wrong.argmax())), why)


def _rescaled(column: Any, decimals: int) -> Any:
    """Return decimals of 128 bits with so many decimal places, rounded."""
    if column.type.scale > decimals:
        column = pc.round(column, decimals)
    return column.cast(pa.decimal128(38, decimals))


def _distinct(column: Any) -> tuple[list[Any], Array]:
    """Return the distinct values of a column in order of first row, and the index of each row.

    A dictionary is of a whole row group: most of its values may be in no row of this batch.
    """
    if not pa.types.is_dictionary(column.type):
        encoded = column.dictionary_encode()
        return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    used = column.indices.dictionary_encode()
    return column.dictionary.take(used.dictionary).to_pylist(), used.indices.to_numpy()


def of_rows(
    path: PathLike,
    rows: Callable[[], Iterator[pa.RecordBatch]],
    columns: Mapping[str, str],
    where: Callable[[int], str],
    *,
    window: int | None = None,
    time_unit: str | None = None,
    page_size: int | None = None,
    unit: int | None = None,
) -> Imported:
    """Convert rows, which are requests; each call of `rows` returns an iterator over all."""
    if (time_unit or "s") not in UNITS_NS:
        raise UsageError(f"the time unit {time_unit!r} is unknown: use s, ms, us or ns")
    unit_ns = UNITS_NS[time_unit or "s"]
    converter = Converter(path, columns, unit_ns, window or unit_ns, where)
    notes = () if "time" in columns else ("times are not known, only the order",)

    def learned() -> Learned:
        if not converter.named:
            return Learned(converter.base_ns, notes)
        if unit is not None:
            raise UsageError(
                f"objects have names here, not numbers of units: leave out {argument('unit')}"
            )
        more = (*notes, "objects are numbered in the order of their first use")
        return Learned(converter.base_ns, more, of_blocks=True)

    return imported(
        path, lambda: converter.requests(rows()), page_size=page_size, unit=unit, where=where,
        kinds_known="op" in columns, learned=learned,
    )  # fmt: skip


def load(
    path: Path,
    columns: str | Mapping[str, str] | None = None,
    window: int | None = None,
    time_unit: str | None = None,
    page_size: int | None = None,
    unit: int | None = None,
) -> Imported:
    """Read a Parquet file."""
    if columns is None:
        raise UsageError(f"name the columns: {argument('columns', 'time=ts,obj=lbn,size=len')}")
    with open_regular(path) as file:
        schema = _opened(path, file)[0].schema_arrow
    names = chosen(path, parse_columns(columns), schema.names)
    wanted = list(dict.fromkeys(names.values()))
    # As dictionaries: a long text that millions of rows share is then held once.
    texts = [name for name in wanted if schema.field(name).type in _TEXTS]

    def rows() -> Iterator[pa.RecordBatch]:
        with open_regular(path) as file:
            parquet, groups = _opened(path, file, texts)
            for number, group in enumerate(groups):
                chunks = [chunk for chunk in group.chunks if chunk.path[0] in wanted]
                with _refusing(path):  # one page of each column is held
                    check_pages(file, number, chunks, LIMIT_GROUP_BYTES, at_once=False)
                yield from parquet.iter_batches(
                    _BATCH, row_groups=[number], columns=wanted, use_threads=False
                )

    return of_rows(
        path, rows, names, "row {}".format,
        window=window, time_unit=time_unit, page_size=page_size, unit=unit,
    )  # fmt: skip


def _opened(
    path: PathLike, file: BinaryIO, texts: Sequence[str] = ()
) -> tuple[pq.ParquetFile, list[Group]]:
    """Open a file; its footer is checked first, because Arrow may crash on a damaged one."""
    with _refusing(path):
        groups = read_footer(file)
    parquet = pq.ParquetFile(
        file, pre_buffer=False, buffer_size=_BUFFER, read_dictionary=list(texts), **THRIFT
    )
    return parquet, groups


@contextlib.contextmanager
def _refusing(path: PathLike) -> Iterator[None]:
    """Context in which wrong claims of a footer or a page become errors of this file."""
    try:
        yield
    except PageFault as fault:
        raise ForeignFileError(path, "", str(fault)) from fault
