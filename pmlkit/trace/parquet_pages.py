# SPDX-License-Identifier: Apache-2.0
"""What a Parquet file says of itself, looked at before Arrow makes room for it.

A footer of megabytes may name columns for gigabytes of memory, and a page of kilobytes may say
2 GiB. Arrow's Python also ends the process where a footer contradicts itself
(``RowGroupMetaData.column``). So footer and page headers are read here, and Arrow gets what is
left. Both are structs of Thrift's compact protocol (``parquet.thrift``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, BinaryIO

    Fields = dict[tuple[int, int], Any]


__all__ = ["Chunk", "Group", "PageFault", "check_pages", "chunk_pages", "read_footer"]

LIMIT_FOOTER_BYTES = 1 << 24
LIMIT_CHUNKS = 1 << 16  # columns of all row groups: Arrow holds about 700 bytes of each
LIMIT_ELEMENTS = 1 << 20  # of all lists of a footer
_WINDOWS = (1 << 10, 1 << 20)  # bytes of a page header: as a rule, and at most
_MOST_PAGES = 1 << 16  # of a column in a row group
_DEEPEST = 6  # a footer, its row groups, their columns, their metadata, its statistics, more
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY = 1, 2, 3, 4, 5, 6, 7, 8
_LIST, _SET, _MAP, _STRUCT = 9, 10, 11, 12
# Fields that are looked at, by type and number; one of another type is passed over, as by Arrow.
_KIND, _UNPACKED, _PACKED, _COUNT = (_I32, 1), (_I32, 2), (_I32, 3), (_I32, 1)
_DATA, _DICTIONARY, _DATA_2 = (_STRUCT, 5), (_STRUCT, 7), (_STRUCT, 8)
_KINDS = {0: _DATA, 2: _DICTIONARY, 3: _DATA_2}
_GROUPS, _COLUMNS, _METADATA, _STATISTICS = (_LIST, 4), (_LIST, 1), (_STRUCT, 3), (_STRUCT, 12)
_GROUP_BYTES, _GROUP_ROWS = (_I64, 2), (_I64, 3)
_PATH, _VALUES, _CHUNK_BYTES = (_LIST, 3), (_I64, 5), (_I64, 7)
_DATA_AT, _DICTIONARY_AT = (_I64, 9), (_I64, 11)
_HIGHEST, _LOWEST = (_BINARY, 5), (_BINARY, 6)


class PageFault(ValueError):
    """What a footer or a page header says that cannot be."""


class Chunk(NamedTuple):
    """A column of a row group.

    `path` is its name, with those of what it is in. `lowest` and `highest` are None where the file
    does not say them, or the bytes of a value. Places and sizes are in bytes.
    """

    path: tuple[str, ...]
    values: int
    packed: int
    data_at: int
    dictionary_at: int
    lowest: bytes | None
    highest: bytes | None


class Group(NamedTuple):
    """A row group; `unpacked` is in bytes."""

    rows: int
    unpacked: int
    chunks: list[Chunk]


def read_footer(stream: BinaryIO) -> list[Group]:
    """Read the row groups that a file's footer names.

    A file without a footer has none: Arrow says what is wrong with it.

    Raises
    ------
    PageFault
        If the footer is none, or larger than is read.
    """
    size = stream.seek(0, 2)
    stream.seek(max(0, size - 8))
    tail = stream.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length > size - 8:
        return []
    if length > LIMIT_FOOTER_BYTES:
        what = f"a footer of {length:,} bytes, and at most {LIMIT_FOOTER_BYTES:,} are read"
        raise PageFault(f"has {what}")
    stream.seek(size - 8 - length)
    try:
        footer = _Struct(stream.read(length)).read(0, 0)[0]
    except IndexError as error:
        raise PageFault("has a footer that is cut off") from error
    except PageFault as fault:
        raise PageFault(f"has in its footer {fault}") from fault
    groups = _items(footer, _GROUPS, dict)
    if sum(len(_items(group, _COLUMNS, dict)) for group in groups) > LIMIT_CHUNKS:
        raise PageFault(f"has more than {LIMIT_CHUNKS:,} columns in its row groups")
    return [_group(number, fields) for number, fields in enumerate(groups)]


def _items(fields: Fields, field: tuple[int, int], kind: type) -> list[Any]:
    """Return a field that is a list; Arrow reads its items as what they should be."""
    values = fields.get(field) or []
    if not all(isinstance(value, kind) for value in values):
        raise PageFault(f"has in its footer a list of other types in field {field[1]}")
    return values


def _group(number: int, fields: Fields) -> Group:
    chunks = [_chunk(number, each.get(_METADATA, {})) for each in _items(fields, _COLUMNS, dict)]
    return Group(fields.get(_GROUP_ROWS, -1), fields.get(_GROUP_BYTES, -1), chunks)


def _chunk(number: int, fields: Fields) -> Chunk:
    path = tuple(name.decode("utf-8", "replace") for name in _items(fields, _PATH, bytes))
    if not path:
        raise PageFault(f"has a column in row group {number} of which its footer says nothing")
    statistics = fields.get(_STATISTICS, {})
    return Chunk(
        path,
        values=fields.get(_VALUES, -1),
        packed=fields.get(_CHUNK_BYTES, -1),
        data_at=fields.get(_DATA_AT, -1),
        dictionary_at=fields.get(_DICTIONARY_AT, -1),
        lowest=statistics.get(_LOWEST),
        highest=statistics.get(_HIGHEST),
    )


def check_pages(
    stream: BinaryIO, number: int, chunks: Sequence[Chunk], most: int, at_once: bool
) -> None:
    """Refuse a row group whose pages would take more than `most` bytes of memory.

    Parameters
    ----------
    stream : binary file
    number : int
        Of the row group.
    chunks : sequence of Chunk
        Those of its columns that are going to be read.
    most : int
        Bytes that may be held.
    at_once : bool
        All pages of a column are held; otherwise one of each column.

    Raises
    ------
    PageFault
        Also naming the column and the field, if a page has more values than the footer says, or
        a header is none.
    """
    pages = [_named_pages(stream, number, chunk) for chunk in chunks]
    size = sum(sum(each) if at_once else max(each, default=0) for each in pages)
    if size > most:
        what = f"has pages with an uncompressed_page_size of {size:,} bytes in row group {number}"
        raise PageFault(f"{what}, and at most {most:,} are read")


def _named_pages(stream: BinaryIO, number: int, chunk: Chunk) -> list[int]:
    try:
        return list(chunk_pages(stream, chunk))
    except PageFault as fault:
        name = f"{'.'.join(chunk.path)[:100]!r} in row group {number}"
        raise PageFault(f"has in its column {name} {fault}") from fault


def chunk_pages(stream: BinaryIO, chunk: Chunk) -> Iterator[int]:
    """Yield what each page that Arrow would read unpacks to, bytes; errors as above."""
    at, left = chunk.data_at, chunk.values
    if 0 < chunk.dictionary_at < at:
        at = chunk.dictionary_at
    end = at + chunk.packed
    if at < 0 or end < at:
        raise PageFault(f"pages from byte {at} to {end}")
    for _ in range(_MOST_PAGES):
        if left <= 0 or at >= end:
            return
        header, length = _header(stream, at, end)
        unpacked, packed = header.get(_UNPACKED, -1), header.get(_PACKED, -1)
        if unpacked < 0 or packed < 0:
            size = "a compressed" if packed < 0 else "an uncompressed"
            raise PageFault(f"a page without {size}_page_size")
        left -= _values(header, left)
        yield unpacked
        at += length + packed
    if left > 0 and at < end:
        raise PageFault(f"more than {_MOST_PAGES:,} pages")


def _values(header: Fields, left: int) -> int:
    """Return how many of the column's `left` values a page holds."""
    kind = _KINDS.get(header.get(_KIND, -1))
    if kind is None:  # of an index: it is passed over
        return 0
    values = header.get(kind, {}).get(_COUNT, -1)
    most = header[_UNPACKED] if kind == _DICTIONARY else left  # a value takes a byte, or more
    if not 0 <= values <= most:
        what = "dictionary" if kind == _DICTIONARY else "page"
        raise PageFault(f"a {what} whose num_values is {values:,}, and at most {most:,} fit")
    return 0 if kind == _DICTIONARY else values


def _header(stream: BinaryIO, at: int, end: int) -> tuple[Fields, int]:
    """Read the header at a place; returns its fields, and its length in bytes."""
    for window in _WINDOWS:
        stream.seek(at)
        try:
            return _Struct(stream.read(min(window, end - at))).read(0, 0)
        except IndexError:  # it goes on
            continue
        except PageFault as fault:
            raise PageFault(f"a page header with {fault}") from fault
    raise PageFault(f"no page header at byte {at}")


class _Struct:
    """Read a struct of Thrift's compact protocol; IndexError where the bytes end before it does.

    Numbers, bytes, structs and lists are kept; of the rest it is known where they end.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._elements = LIMIT_ELEMENTS  # that are left for lists

    def read(self, at: int, depth: int) -> tuple[Fields, int]:
        """Return its values by type and field, and where it ends."""
        fields: Fields = {}
        number = 0
        if depth > _DEEPEST:
            raise PageFault(f"structs that are nested more than {_DEEPEST} deep")
        while kind := self._data[at]:
            at += 1
            number += kind >> 4
            if not kind >> 4:
                number, at = self._signed(at, 32)
            number = (number + 0x8000 & 0xFFFF) - 0x8000
            field = kind & 15, number
            value, at = (
                (None, at) if kind & 15 in (_TRUE, _FALSE) else self._value(at, kind & 15, depth)
            )
            if isinstance(value, dict):
                value = fields.get(field, {}) | value  # as Arrow takes one that is there twice
            if value is not None:
                fields[field] = value
        return fields, at + 1

    def _value(self, at: int, kind: int, depth: int) -> tuple[Any, int]:
        if kind in (_I32, _I64):
            return self._signed(at, 32 if kind == _I32 else 64)
        if kind == _STRUCT:
            return self.read(at, depth + 1)
        if kind == _BINARY:
            length, at = self._varint(at)
            if at + length > len(self._data):
                raise IndexError
            return self._data[at : at + length], at + length
        if kind in (_LIST, _SET):
            return self._list(at, depth)
        if kind == _I16:
            return None, self._varint(at)[1]
        if kind in (_TRUE, _FALSE, _BYTE):
            return None, at + 1
        if kind == _DOUBLE:
            return None, at + 8
        raise PageFault(f"a field of type {kind}")

    def _list(self, at: int, depth: int) -> tuple[Any, int]:
        length, kind = self._data[at] >> 4, self._data[at] & 15
        at += 1
        if length == 15:
            length, at = self._varint(at)
        self._elements -= length
        if self._elements < 0:
            raise PageFault(f"lists of more than {LIMIT_ELEMENTS:,} elements")
        values = []
        for _ in range(length):
            value, at = self._value(at, kind, depth)
            values.append(value)
        return values, at

    def _signed(self, at: int, bits: int) -> tuple[int, int]:
        """Read a number in zigzag form."""
        word, at = self._varint(at)
        word &= (1 << bits) - 1
        return word >> 1 ^ -(word & 1), at

    def _varint(self, at: int) -> tuple[int, int]:
        word = 0
        for shift in range(0, 70, 7):
            byte = self._data[at]
            at += 1
            word |= (byte & 127) << shift
            if byte < 128:
                return word, at
        raise PageFault("a number of more than 64 bits")
