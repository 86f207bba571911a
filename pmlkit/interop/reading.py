# SPDX-License-Identifier: Apache-2.0
"""Read foreign files: their lines and records, unpacked, and errors with their positions.

A file may have any content. It is therefore never read as a whole, and no line may be longer than a
tracer's.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import pyarrow as pa

from pmlkit.errors import PmlkitError
from pmlkit.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from pmlkit.types import Array, PathLike


__all__ = [
    "ForeignFileError",
    "foreign",
    "lines",
    "lost_of",
    "open_compressed",
    "read_exactly",
    "records",
    "wrapping_of",
]

CHUNK = 1 << 17  # records that are read at once
LINE_LIMIT = 1 << 16
# ftrace and trace-cmd report, of a CPU's buffer. Without a number, the count is unknown.
_LOST = re.compile(rb"\s*CPU:\d{1,5} \[(?:LOST )?(?:(\d{1,30}) )?EVENTS(?: DROPPED)?\]")
_PERF_LOST = re.compile(rb"\bPERF_RECORD_LOST(?:_SAMPLES)?:? +lost +(\d{1,30})")
_HEADER = re.compile(rb"# entries-in-buffer/entries-written: (\d{1,30})/(\d{1,30})\b")
HEAD = 16  # bytes that show a wrapping
UTF_16 = "UTF-16"
_UNPACKED: tuple[Literal["zstd", "gzip"], ...] = ("zstd", "gzip")
_WRAPPINGS = {
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
    "gzip": re.compile(rb"\x1f\x8b\x08"),
    "bzip2": re.compile(rb"BZh[1-9]\x31\x41\x59\x26\x53\x59"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
    "zip": re.compile(rb"PK\x03\x04"),
    "lz4": re.compile(rb"\x04\x22\x4d\x18"),
    UTF_16: re.compile(rb"\xff\xfe|\xfe\xff"),
}


class ForeignFileError(PmlkitError):
    """A file does not have the named format. Attributes: `path`, `where`, `why`."""

    def __init__(
        self,
        path: PathLike,
        where: str,
        why: str,
        hint: str = "check the format's name, and the file",
    ) -> None:
        self.path, self.where, self.why = os.fspath(path), where, why
        place = f"{where} of {self.path}" if where else self.path
        super().__init__(f"{place} {why}", hint)


@contextlib.contextmanager
def foreign(path: PathLike, name: str) -> Iterator[None]:
    """Context for reading a foreign file.

    Raises
    ------
    ForeignFileError
        For any error that the file's content can cause; a `PmlkitError` passes unchanged.
    """
    try:
        yield
    except PmlkitError:
        raise
    except (*_FOREIGN, OSError) as error:
        # Arrow raises these for a damaged file.
        if not isinstance(error, OSError) or error.errno is None:
            why = f"cannot be read as {name} ({type(error).__name__}: {str(error)[:200]})"
            raise ForeignFileError(path, "", why) from error
        why = f"cannot be read ({error.strerror or error})"
        raise ForeignFileError(path, "", why, "check its permissions and its disk") from error


_FOREIGN = (
    ValueError,  # and pyarrow.ArrowInvalid, UnicodeError, json.JSONDecodeError
    TypeError,
    LookupError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    EOFError,
    pa.ArrowException,
    zlib.error,
    struct.error,
    csv.Error,
)


# Text


def lines(path: PathLike) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file, with their numbers from 1.

    Raises
    ------
    ForeignFileError
        If a line is too long for any tracer.
    """
    with open_regular(path) as file:
        number = 0
        while line := file.readline(LINE_LIMIT):
            number += 1
            if len(line) == LINE_LIMIT and not line.endswith(b"\n"):
                why = f"is longer than {LINE_LIMIT:,} bytes"
                raise ForeignFileError(path, f"line {number}", why)
            yield number, line


def lost_of(line: bytes) -> int | None:
    """Return how many events a line reports as lost; -1 for an unknown number, otherwise None."""
    if lost := _LOST.match(line) or _PERF_LOST.search(line):
        return int(lost[1]) if lost[1] else -1
    header = _HEADER.match(line)
    return max(0, int(header[2]) - int(header[1])) if header else None


# Bytes


def wrapping_of(head: bytes) -> str | None:
    """Return the compression of a file with this beginning, or UTF-16; None for neither."""
    return next((name for name, magic in _WRAPPINGS.items() if magic.match(head)), None)


def read_exactly(path: PathLike, file: BinaryIO | pa.NativeFile, size: int) -> bytes:
    """Read `size` bytes, or the rest of the file."""
    parts, left = [], size
    try:
        while left and (part := file.read(left)):
            parts.append(part)
            left -= len(part)
    except (OSError, EOFError, pa.ArrowException) as error:
        if getattr(error, "errno", None) is not None:
            raise
        why = f"cannot be unpacked: it is cut off or damaged ({error})"
        raise ForeignFileError(path, "", why) from error
    return b"".join(parts)


@contextlib.contextmanager
def open_compressed(path: PathLike, text: bool = False) -> Iterator[BinaryIO | pa.NativeFile]:
    """Context with the file, unpacked if it is Zstandard or gzip."""
    with open_regular(path) as file:
        head = file.peek(HEAD)[:HEAD] if isinstance(file, io.BufferedReader) else b""
        found = wrapping_of(head)
        name = next((name for name in _UNPACKED if name == found), None)
        # Times in a binary trace may equal gzip's three magic bytes, so the name must match, too.
        named = text or str(path).endswith((".gz", ".tgz"))
        if name is None or (name == "gzip" and not named):
            yield file
            return
        packed = pa.PythonFile(cast("io.IOBase", file), "r")
        with pa.CompressedInputStream(packed, name) as unpacked:
            yield unpacked


@dataclass(frozen=True)
class records:
    """The records of a binary file, compressed or not, a batch at a time.

    Parameters
    ----------
    skip : int
        Bytes before the first record.
    what : str
        Name of a record in messages.
    """

    path: PathLike
    dtype: np.dtype[np.void]
    skip: int = 0
    what: str = "request"

    def __iter__(self) -> Iterator[tuple[int, Array]]:
        """Yield the number of the first record of a batch, and the batch."""
        size, number = self.dtype.itemsize, 0
        with open_compressed(self.path) as file:
            read_exactly(self.path, file, self.skip)
            while data := read_exactly(self.path, file, size * CHUNK):
                whole = len(data) // size
                if whole * size != len(data):
                    byte = self.skip + (number + whole) * size
                    why = f"is cut off in the middle of a {self.what} ({size} bytes each)"
                    raise ForeignFileError(self.path, f"byte {byte}", why)
                yield number, np.frombuffer(data, self.dtype)
                number += whole
