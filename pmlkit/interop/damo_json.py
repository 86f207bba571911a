# SPDX-License-Identifier: Apache-2.0
"""damo's records in JSON: plain, or compressed by zlib (``json_compressed``) or gzip.

The file is a list of records, one record, or a ``DamoRecord`` with its ``record_list``. A record
may be larger than memory, so its snapshots are read one after another.
"""

from __future__ import annotations

import json
import re
import zlib
from decimal import Decimal
from typing import TYPE_CHECKING

from pmlkit.files import open_regular
from pmlkit.interop.damo_snapshots import Snapshots
from pmlkit.interop.reading import ForeignFileError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO, NoReturn

    from pmlkit.types import Json, PathLike


__all__ = ["read"]

TEXT_LIMIT = 1 << 32  # bytes, unpacked
VALUE_LIMIT = 1 << 22  # characters of a snapshot, or of any other value
_PIECE = 1 << 18
_BLANK = re.compile(r"[ \t\r\n]*")
_LISTS = ("record_list", "snapshots")
_OBJECTS = ("damon_records", "damo_records")
_UNITS = {
    "ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}  # fmt: skip
_MAX = (1 << 64) - 1
_PLAIN = re.compile(r"-?\d{1,20}")
_TIME = re.compile(r"(\d{1,20}(?:\.\d{1,12})?) ?(ns|us|ms|s|m|h|d)(?: |$)")


def read(path: PathLike) -> Snapshots:
    """Read the snapshots of records with one target.

    Raises
    ------
    ForeignFileError
    """
    with open_regular(path) as file:
        reader = _Reader(path, _Text(path, file))
        reader.read()
    return reader.snapshots


class _Text:
    """The text of a file, one piece at a time: `buffer`, read from the character `at` on."""

    def __init__(self, path: PathLike, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        head = file.read(2)
        file.seek(0)
        packed = head[:1] == b"\x78" or head == b"\x1f\x8b"
        self._unpack = zlib.decompressobj(wbits=47) if packed else None  # 47: zlib or gzip
        self._packed = b""
        self._left = TEXT_LIMIT
        self.buffer, self.at, self.ended = "", 0, False

    def more(self) -> bool:
        """Read another piece; return False at the end of the file."""
        if self.ended:
            return False
        data = self._next()
        self._left -= len(data)
        if self._left < 0:
            raise ForeignFileError(self.path, "", f"has more than {TEXT_LIMIT:,} bytes of text")
        self.ended = not data
        # Encoding of names is irrelevant.
        self.buffer = self.buffer[self.at :] + data.decode("latin-1")
        self.at = 0
        return not self.ended

    def _next(self) -> bytes:
        if self._unpack is None:
            return self._file.read(_PIECE)
        while True:
            packed = self._packed or self._file.read(_PIECE)
            if not packed:
                if not self._unpack.eof:
                    raise ForeignFileError(
                        self.path, "", "is not a json record of damo (it is cut)"
                    )
                return b""
            try:
                data = self._unpack.decompress(packed, _PIECE)
            except zlib.error as error:
                why = f"is not a json record of damo ({error})"
                raise ForeignFileError(self.path, "", why) from error
            self._packed = self._unpack.unconsumed_tail
            if data:
                return data
            if self._unpack.eof:
                return b""

    def next(self) -> str:
        """Return the next character that is not blank, without consuming it; "" at the end."""
        while True:
            if blank := _BLANK.match(self.buffer, self.at):
                self.at = blank.end()
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self.more():
                return ""

    def take(self, wanted: str) -> None:
        """Consume one of the characters of `wanted`."""
        character = self.next()
        if not character or character not in wanted:
            self.refuse(f"{character or 'its end'!r} instead of one of {wanted}")
        self.at += 1

    def value(self) -> Any:
        """Consume and return a value."""
        self.next()
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self.buffer, self.at)
                # A number may continue in the next piece.
                if end < len(self.buffer) or not self.more():
                    self.at = min(end, len(self.buffer))
                    return value
                continue
            except RecursionError:
                self.refuse("it is nested too deeply")
            except ValueError as error:
                size = len(self.buffer) - self.at
                if size > VALUE_LIMIT:
                    self.refuse(f"a value has more than {VALUE_LIMIT:,} characters, or {error}")
                grown = [self.more() for _ in range(max(1, size // _PIECE))]
                if not any(grown):
                    self.refuse(str(error))

    def refuse(self, why: str) -> NoReturn:
        raise ForeignFileError(self.path, "", f"is not a json record of damo ({why})")


class _Reader:
    """Reads records, and keeps only their snapshots."""

    def __init__(self, path: PathLike, text: _Text) -> None:
        self.path, self.text = path, text
        self.snapshots = Snapshots(path)
        self._targets: set[tuple[str, ...]] = set()
        self._records = 0

    def read(self) -> None:
        if self.text.next() == "[":
            self._items("[", "]", self._record)
        else:
            self._record()
        if self.text.next():
            self.text.refuse("there is text after its end")
        if not self._records:
            self.text.refuse("it has no snapshots")

    def _items(self, opening: str, closing: str, item: Callable[[], None]) -> None:
        """Read a list or an object, whose items or members `item` reads."""
        self.text.take(opening)
        if self.text.next() != closing:
            item()
            while self.text.next() == ",":
                self.text.take(",")
                item()
        self.text.take(closing)

    def _record(self) -> None:
        facts: Json = {}
        self._items("{", "}", lambda: self._member(facts))
        if "snapshots" in facts:
            self._records += 1
            self._check_record(facts)

    def _member(self, facts: Json) -> None:
        name = self.text.value()
        if not isinstance(name, str):
            self.text.refuse("a name is not a text")
        self.text.take(":")
        if name in _LISTS and self.text.next() == "[":
            facts[name] = None
            self._items("[", "]", self._record if name == _LISTS[0] else self._snapshot)
        elif name in _OBJECTS and self.text.next() == "{":
            inner: Json = {}
            self._items("{", "}", lambda: self._member(inner))
        else:
            facts[name] = self.text.value()

    def _check_record(self, facts: Json) -> None:
        if facts.get("data_source") == "damon_stat":
            why = "comes from DAMON_STAT, whose regions have no addresses"
            raise ForeignFileError(self.path, "", why, "record with `damo record`")
        if "target_id" not in facts:
            self.text.refuse("a record has no target_id")
        names = ("kdamond_idx", "context_idx", "target_id")
        self._targets.add(tuple(str(facts.get(name) or 0) for name in names))
        if len(self._targets) > 1:
            why = f"contains {len(self._targets)} targets with unrelated addresses"
            raise ForeignFileError(self.path, "", why, "record one target at a time")

    def _snapshot(self) -> None:
        where = f"snapshot {len(self.snapshots) + 1}"
        snapshot = self.text.value()
        try:
            for region in snapshot["regions"]:
                start, end = _bytes(region["start"]), _bytes(region["end"])
                self.snapshots.add_region(where, start, end, _accesses(region["nr_accesses"]))
            start_ns, end_ns = (_time_ns(snapshot[name]) for name in ("start_time", "end_time"))
            self.snapshots.add(where, start_ns, end_ns)
        except KeyError as error:
            why = f"is not a record of damo (it has no {error.args[0]})"
            raise ForeignFileError(self.path, where, why) from error
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            why = f"is not a record of damo ({str(error)[:200]})"
            raise ForeignFileError(self.path, where, why) from error


def _accesses(accesses: Json) -> float:
    """Return the number, or the percentage, of samples in which a region was accessed."""
    for name in ("samples", "percent"):
        value = accesses.get(name)
        if value is not None:
            return _number(value.removesuffix("%") if isinstance(value, str) else value)
    raise ValueError("nr_accesses has neither samples nor percent")


def _bytes(value: object) -> int:
    if value == "max":
        return _MAX
    number = _number(value)
    if number != int(number):
        raise ValueError(f"an address is {value!r}")
    return int(number)


def _number(value: object) -> float:
    """Parse a number; damo writes some as text, with commas."""
    if isinstance(value, str):
        text = value.replace(",", "").strip()
        return int(text) if _PLAIN.fullmatch(text) else float(text[:40])
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{str(value)[:40]!r} is not a number")
    return value


def _time_ns(value: object) -> int:
    """Parse a time: nanoseconds, or text such as "1 m 2.5 s"."""
    if isinstance(value, str) and (parts := _TIME.findall(value)):
        text = "".join(number + unit for number, unit in parts)
        if text != value.replace(" ", ""):
            raise ValueError(f"{value[:40]!r} is not a time")
        return round(sum(Decimal(number) * _UNITS[unit] for number, unit in parts))
    return int(_number(value))
