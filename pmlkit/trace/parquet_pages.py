# SPDX-License-Identifier: Apache-2.0
"""Checks of a Parquet file's footer and page headers, before Arrow allocates memory for them.

A footer of megabytes may declare columns that take gigabytes, and a page of kilobytes may declare
2 GiB. A footer that contradicts itself even ends the process (``RowGroupMetaData.column`` of
pyarrow). So footer and page headers are parsed here first. Both are structs of Thrift's compact
protocol (``parquet.thrift``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, BinaryIO

    Fields = dict[tuple[int, int], Any]  # integers, bytes, lists, and fields of other structs

T = TypeVar("T")


__all__ = ["Chunk", "Group", "PageFault", "check_pages", "chunk_pages", "read_footer"]

LIMIT_FOOTER_BYTES = 1 << 24
LIMIT_CHUNKS = 1 << 16  # columns of all row groups: Arrow takes about 700 bytes for each
LIMIT_ELEMENTS = 1 << 20  # most elements of all lists of a footer
_HEADER_BYTES = (1 << 10, 1 << 20)  # header of a page: usually, and at most
_MOST_PAGES = 1 << 16  # most pages of a column in a row group
_DEEPEST = 6  # footer, row groups, columns, metadata, statistics, and one more
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY = 1, 2, 3, 4, 5, 6, 7, 8
_LIST, _SET, _MAP, _STRUCT = 9, 10, 11, 12
# The fields that are used, by type and number. Like Arrow, we skip a field of another type.
_KIND, _UNPACKED, _PACKED, _COUNT = (_I32, 1), (_I32, 2), (_I32, 3), (_I32, 1)
_DATA, _DICTIONARY, _DATA_2 = (_STRUCT, 5), (_STRUCT, 7), (_STRUCT, 8)
_KINDS = {0: _DATA, 2: _DICTIONARY, 3: _DATA_2}
_GROUPS, _COLUMNS, _METADATA, _STATISTICS = (_LIST, 4), (_LIST, 1), (_STRUCT, 3), (_STRUCT, 12)
_GROUP_BYTES, _GROUP_ROWS = (_I64, 2), (_I64, 3)
_PATH, _VALUES, _CHUNK_BYTES = (_LIST, 3), (_I64, 5), (_I64, 7)
_DATA_AT, _DICTIONARY_AT = (_I64, 9), (_I64, 11)
_HIGHEST, _LOWEST = (_BINARY, 5), (_BINARY, 6)


class PageFault(ValueError):
    """A footer or a page header is invalid."""


class Chunk(NamedTuple):
    """A column of a row group.

    `path` has the names of its parents and its own. `lowest` and `highest` are the bytes of a
    value, or None if the file has no statistics. Offsets and sizes are in bytes.
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
    """Read the row groups of a file's footer; without a footer, none (Arrow raises an error then).

    Raises
    ------
    PageFault
        If the footer is invalid or too large.
    """
    size = stream.seek(0, 2)
    stream.seek(max(0, size - 8))
    tail = stream.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length > size - 8:
        return []
    if length > LIMIT_FOOTER_BYTES:
        limit = f"at most {LIMIT_FOOTER_BYTES:,} are read"
        raise PageFault(f"has a footer of {length:,} bytes, and {limit}")
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


def _items(fields: Fields, field: tuple[int, int], kind: type[T]) -> list[T]:
    """Return a list whose items have this type; Arrow would not check their types."""
    values = fields.get(field) or []
    if not all(isinstance(value, kind) for value in values):
        raise PageFault(f"has in its footer a list of other types in field {field[1]}")
    return values


def _group(number: int, fields: Fields) -> Group:
    columns = _items(fields, _COLUMNS, dict)
    chunks = [_chunk(number, column.get(_METADATA, {})) for column in columns]
    return Group(fields.get(_GROUP_ROWS, -1), fields.get(_GROUP_BYTES, -1), chunks)


def _chunk(number: int, fields: Fields) -> Chunk:
    path = tuple(name.decode("utf-8", "replace") for name in _items(fields, _PATH, bytes))
    if not path:
        raise PageFault(f"has a column in row group {number} without metadata in the footer")
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
    number : int
        Of the row group.
    chunks : sequence of Chunk
        The columns that will be read.
    at_once : bool
        Whether all pages of a column are in memory together, or one page of each column.

    Raises
    ------
    PageFault
        Also if a header is invalid, or a page has more values than the footer declares.
    """
    pages = [_named_pages(stream, number, chunk) for chunk in chunks]
    size = sum(sum(sizes) if at_once else max(sizes, default=0) for sizes in pages)
    if size > most:
        pages_text = f"pages with an uncompressed_page_size of {size:,} bytes"
        raise PageFault(f"has {pages_text} in row group {number}, and at most {most:,} are read")


def _named_pages(stream: BinaryIO, number: int, chunk: Chunk) -> list[int]:
    try:
        return list(chunk_pages(stream, chunk))
    except PageFault as fault:
        name = f"{'.'.join(chunk.path)[:100]!r} in row group {number}"
        raise PageFault(f"has in its column {name} {fault}") from fault


def chunk_pages(stream: BinaryIO, chunk: Chunk) -> Iterator[int]:
    """Yield the uncompressed size of each page that Arrow would read, bytes."""
    at, left = chunk.data_at, chunk.values
    if 0 < chunk.dictionary_at < at:
        # Arrow begins at the dictionary, which comes before the data.
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
    """Return how many of the column's `left` values a page has."""
    kind = _KINDS.get(header.get(_KIND, -1))
    if kind is None:  # an index page has no values and is skipped
        return 0
    values = header.get(kind, {}).get(_COUNT, -1)
    most = header[_UNPACKED] if kind == _DICTIONARY else left  # a value takes a byte or more
    if not 0 <= values <= most:
        page = "dictionary" if kind == _DICTIONARY else "page"
        raise PageFault(f"a {page} whose num_values is {values:,}, and at most {most:,} fit")
    return 0 if kind == _DICTIONARY else values


def _header(stream: BinaryIO, at: int, end: int) -> tuple[Fields, int]:
    """Parse the page header at an offset; return its fields and its length in bytes."""
    for length in _HEADER_BYTES:
        stream.seek(at)
        try:
            return _Struct(stream.read(min(length, end - at))).read(0, 0)
        except IndexError:  # it is longer
            continue
        except PageFault as fault:
            raise PageFault(f"a page header with {fault}") from fault
    raise PageFault(f"no page header at byte {at}")


class _Struct:
    """Parse a struct of Thrift's compact protocol; IndexError if the bytes end before the struct.

    Integers, bytes, structs and lists are returned; values of other types are skipped.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._elements = LIMIT_ELEMENTS  # remaining elements of lists

    def read(self, at: int, depth: int) -> tuple[Fields, int]:
        """Return the fields of the struct at an offset, by type and number, and its end."""
        fields: Fields = {}
        number = 0
        if depth > _DEEPEST:
            raise PageFault(f"structs that are nested more than {_DEEPEST} deep")
        while kind := self._data[at]:
            at += 1
            number += kind >> 4
            if not kind >> 4:
                number, at = self._signed(at, 32)
            # A field's number has 16 bits with a sign, and wraps around as in Arrow's parser.
            number = (number + 0x8000 & 0xFFFF) - 0x8000
            field = kind & 15, number
            value, at = (
                (None, at) if kind & 15 in (_TRUE, _FALSE) else self._value(at, kind & 15, depth)
            )
            if isinstance(value, dict):
                value = fields.get(field, {}) | value  # Arrow merges repeated structs as well
            if value is not None:
                fields[field] = value
        return fields, at + 1

    def _value(self, at: int, kind: int, depth: int) -> tuple[object, int]:
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

    def _list(self, at: int, depth: int) -> tuple[list[object], int]:
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
        """Parse a zigzag integer."""
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
