# SPDX-License-Identifier: Apache-2.0
"""The page headers of a Parquet file: what each page unpacks to, before anything is unpacked.

A footer says what a file holds, but Arrow makes room for what the pages say. A page of kilobytes
may say 2 GiB. A header is a struct of Thrift's compact protocol (``PageHeader`` in
``parquet.thrift``); Arrow reads the same bytes, up to the same page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, BinaryIO

    Fields = dict[tuple[int, int], Any]


__all__ = ["PageFault", "check_pages", "column_pages"]

_WINDOWS = (1 << 10, 1 << 20)  # bytes of a header: as a rule, and at most
_MOST_PAGES = 1 << 16  # of a column in a row group
_DEEPEST = 4  # a header, its page, its statistics
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _BINARY, _STRUCT = 1, 2, 3, 4, 5, 6, 8, 12
# Fields that are looked at, by type and number; one of another type is passed over, as by Arrow.
_KIND, _UNPACKED, _PACKED, _COUNT = (_I32, 1), (_I32, 2), (_I32, 3), (_I32, 1)
_DATA, _DICTIONARY, _DATA_2 = (_STRUCT, 5), (_STRUCT, 7), (_STRUCT, 8)
_KINDS = {0: _DATA, 2: _DICTIONARY, 3: _DATA_2}


class PageFault(ValueError):
    """What a page header says that cannot be."""


def check_pages(
    stream: BinaryIO, metadata: Any, group: int, columns: Iterable[int], most: int, at_once: bool
) -> None:
    """Refuse a row group whose pages would take more than `most` bytes of memory.

    Parameters
    ----------
    stream : binary file
    metadata : pyarrow.parquet.FileMetaData
        Of its footer.
    group : int
    columns : iterable of int
        Those that are going to be read.
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
    pages = [column_pages(stream, metadata, group, number) for number in columns]
    size = sum(sum(each) if at_once else max(each, default=0) for each in pages)
    if size > most:
        what = f"has pages with an uncompressed_page_size of {size:,} bytes in row group {group}"
        raise PageFault(f"{what}, and at most {most:,} are read")


def column_pages(stream: BinaryIO, metadata: Any, group: int, number: int) -> list[int]:
    """Return what each page of a column of a row group unpacks to, bytes; errors as above."""
    chunk = metadata.row_group(group).column(number)
    try:
        return list(_sizes(stream, chunk))
    except PageFault as fault:
        name = f"{chunk.path_in_schema[:100]!r} in row group {group}"
        raise PageFault(f"has in its column {name} {fault}") from fault


def _sizes(stream: BinaryIO, chunk: Any) -> Iterator[int]:
    """Yield what each page that Arrow would read unpacks to, bytes."""
    at, left = chunk.data_page_offset, chunk.num_values
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < at:
        at = chunk.dictionary_page_offset
    end = at + chunk.total_compressed_size
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
        data = stream.read(min(window, end - at))
        try:
            return _struct(data, 0, 0)
        except IndexError:  # it goes on
            continue
    raise PageFault(f"no page header at byte {at}")


def _struct(data: bytes, at: int, depth: int) -> tuple[Fields, int]:
    """Read a struct: its numbers and structs by type and field, and where it ends."""
    fields: Fields = {}
    number = 0
    if depth > _DEEPEST:
        raise PageFault(f"a page header that is nested more than {_DEEPEST} deep")
    while kind := data[at]:
        at += 1
        number += kind >> 4
        if not kind >> 4:
            number, at = _signed(data, at)
        number = (number + 0x8000 & 0xFFFF) - 0x8000
        value, at = _value(data, at, kind & 15, depth)
        field = kind & 15, number
        if isinstance(value, dict):
            value = fields.get(field, {}) | value  # as Arrow takes one that is there twice
        if value is not None:
            fields[field] = value
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    """Read a value; None for those that no page's size depends on."""
    if kind in (_TRUE, _FALSE):
        return None, at
    if kind == _I32:
        return _signed(data, at)
    if kind in (_I16, _I64):
        return None, _varint(data, at)[1]
    if kind == _BYTE:
        return None, at + 1
    if kind == _BINARY:
        length, at = _varint(data, at)
        return None, at + length
    if kind == _STRUCT:
        return _struct(data, at, depth + 1)
    raise PageFault(f"a page header with a field of type {kind}")


def _signed(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of 32 bits in zigzag form."""
    word, at = _varint(data, at)
    word &= 0xFFFFFFFF
    return word >> 1 ^ -(word & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    word = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        word |= (byte & 127) << shift
        if byte < 128:
            return word, at
    raise PageFault("a page header with a number of more than 64 bits")
