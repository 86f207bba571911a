# SPDX-License-Identifier: Apache-2.0
"""The kernel's ftrace in binary: formats of events, and the pages of a ring buffer.

The layout is the kernel's (``events/header_page``, ``events/header_event``, ``events/*/format`` in
tracefs). A page has a time, the number of its bytes ("commit"), and events, each with the time
since the one before. A page states whether events before it were lost, and usually how many. The
module needs only Python's standard library, because a traced host may have nothing else;
`pmlkit.kernels.ringpages` reads the same pages at a higher rate.
"""

from __future__ import annotations

import re
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["Format", "Layout", "PageDamaged", "events", "format_of", "layout_of", "lost", "numbers",
           "trimmed"]  # fmt: skip

MISSED, MISSED_STORED, LENGTH = 1 << 31, 1 << 30, (1 << 27) - 1
PADDING, TIME_EXTEND, TIME_STAMP = 29, 30, 31
_STAMP_TOP = 31 << 59  # the bits of a time that an absolute stamp lacks
_KINDS = bytes(byte & 31 for byte in range(256))  # the kind of an event by its first byte
_FIELD = re.compile(r"field:[^;]*?(\w+)(?:\[[^\]]*\])?;\s*offset:(\d{1,5});\s*size:(\d{1,5});")
_ID = re.compile(r"^ID: (\d{1,5})$", re.MULTILINE)
_NAME = re.compile(r"^name: (\S{1,80})$", re.MULTILINE)


class PageDamaged(ValueError):
    """A page of a ring buffer that cannot be parsed."""


@dataclass(frozen=True)
class Format:
    """The format of an event.

    Attributes
    ----------
    name : str
    number : int
        The event's id.
    fields : dict of str to (int, int)
        Offset and size of each field, bytes.
    """

    name: str
    number: int
    fields: dict[str, tuple[int, int]]


def format_of(text: str) -> Format | None:
    """Parse the text of ``events/SYSTEM/EVENT/format``; None if it is not a format."""
    number, name = _ID.search(text), _NAME.search(text)
    if number is None or name is None:
        return None
    return Format(name[1], int(number[1]), _fields(text))


def _fields(text: str) -> dict[str, tuple[int, int]]:
    return {m[1]: (int(m[2]), int(m[3])) for m in _FIELD.finditer(text)}


@dataclass(frozen=True)
class Layout:
    """How pages of a ring buffer are laid out.

    Attributes
    ----------
    order : {"<", ">"}
        The order of bytes, as `struct` has it.
    data_at : int
        Where a page's events begin, bytes.
    commit_bytes : int
        Size of the field that counts a page's bytes.
    page_bytes : int
        Size of a page.
    """

    order: str = "<"
    data_at: int = 16
    commit_bytes: int = 8
    page_bytes: int = 4096

    def number(self, data: bytes | memoryview) -> int:
        """Convert bytes to a number."""
        return int.from_bytes(data, "little" if self.order == "<" else "big")


def layout_of(text: str, order: str = "<") -> Layout | None:
    """Parse the text of ``events/header_page``; None if the kernel's pages are of another kind."""
    fields = _fields(text)
    data_at, data_bytes = fields.get("data", (16, 4080))
    commit_bytes = fields.get("commit", (8, 8))[1]
    if commit_bytes not in (4, 8) or not 12 <= data_at <= 64:
        return None
    return Layout(order, data_at, commit_bytes, data_at + data_bytes)


def _commit(page: bytes, layout: Layout) -> int:
    return layout.number(page[8 : 8 + layout.commit_bytes])


def _stop(page: bytes, layout: Layout) -> int:
    stop = layout.data_at + (_commit(page, layout) & LENGTH)
    if len(page) < layout.data_at or stop > len(page):
        raise PageDamaged("has more data than there is")
    return stop


def trimmed(page: bytes, layout: Layout) -> bytes:
    """Return a page without the bytes after its events; b"" if it has neither events nor losses."""
    stop = _stop(page, layout)
    if _commit(page, layout) & MISSED_STORED:
        stop += layout.commit_bytes
    return page[:stop] if _commit(page, layout) else b""


def lost(page: bytes, layout: Layout) -> int | None:
    """Return the number of events lost before a page; None if it is unknown."""
    commit = _commit(page, layout)
    if not commit & MISSED:
        return 0
    stop = _stop(page, layout)
    if not commit & MISSED_STORED or stop + layout.commit_bytes > len(page):
        return None
    return layout.number(page[stop : stop + layout.commit_bytes])


def events(page: bytes, layout: Layout) -> Iterator[tuple[int, bytes]]:
    """Yield the time and the data of each event of a page.

    Raises
    ------
    PageDamaged
        If an event does not end within the page.
    """
    return _from(page, layout, layout.data_at, _stop(page, layout))


def _from(page: bytes, layout: Layout, at: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Yield the events between two positions."""
    time = layout.number(page[:8])
    word = struct.Struct(f"{layout.order}I")
    while at < stop:
        if at + 4 > stop:
            raise PageDamaged("has an event without an end")
        (head,) = word.unpack_from(page, at)
        kind, delta = (head & 31, head >> 5) if layout.order == "<" else (head >> 27, head & LENGTH)
        if kind == PADDING and not delta:
            return  # the rest of the page is empty
        more = 0
        if kind in (0, PADDING, TIME_EXTEND, TIME_STAMP):
            if at + 8 > stop:
                raise PageDamaged("has an event without an end")
            (more,) = word.unpack_from(page, at + 4)
        if kind == TIME_EXTEND:
            time, at = time + (more << 27) + delta, at + 8
        elif kind == TIME_STAMP:
            time, at = (time & _STAMP_TOP) | ((more << 27) + delta), at + 8
        else:
            time += delta
            begin = at + (8 if kind in (0, PADDING) else 4)
            at += 4 + (more if kind in (0, PADDING) else 4 * kind)
            if at < begin or at > stop:
                raise PageDamaged("has an event without an end")
            if kind != PADDING:
                yield time, page[begin:at]


def numbers(page: bytes, layout: Layout, at: int, size: int) -> tuple[int, list[int]]:
    """Return a field of all events of a page, in their order.

    Events of one kind and length are taken at once: a host's own Python has no faster way.

    Parameters
    ----------
    at, size : int
        Where the field is in an event's data, and its bytes (8).

    Returns
    -------
    time_ns : int
        No event is earlier.
    values : list of int

    Raises
    ------
    PageDamaged
    """
    time, begin, stop = layout.number(page[:8]), layout.data_at, _stop(page, layout)
    values: list[int] = []
    if layout.order == "<" and sys.byteorder == "little" and not at % 4 and not begin % 4:
        words = memoryview(page[: stop - stop % 4]).cast("I")
        while begin < stop:
            kind = page[begin] & 31
            if kind == 0 or kind >= PADDING or 4 * kind < at + size:
                break
            step = kind + 1
            kinds = page[begin : stop - 4 * kind : 4 * step].translate(_KINDS)
            run = len(kinds) - len(kinds.lstrip(bytes((kind,))))
            if not run:
                break
            low = words[begin // 4 + 1 + at // 4 :: step][:run].tolist()
            high = words[begin // 4 + 2 + at // 4 :: step][:run].tolist()
            values += low if not any(high) else [a | b << 32 for a, b in zip(low, high)]  # noqa: B905
            begin += 4 * step * run
    if begin < stop:
        rest = _from(page, layout, begin, stop)
        values += [layout.number(data[at : at + size]) for _, data in rest]
    return time, values
