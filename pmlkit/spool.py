# SPDX-License-Identifier: Apache-2.0
"""The spool: an append-only file of frames, written while a trace is being collected.

A collector that dies loses at most the frame that it was writing. Each frame has its number, its
length and a checksum: a reader (`pmlkit.spool_reader`) returns only complete frames with valid
checksums, and reports what is missing. A spool may also come through a pipe. The module needs only
Python's standard library, because dom0 may have nothing else.

Layout, little-endian::

    file     = "PMLSPOOL", version u32, length u32, checksum, header (JSON), frame*
    frame    = "PMLF", kind u16, zero u16, sequence u32, length u32, checksum, payload
    checksum = the first 8 bytes of SHA-1 over the fields before it and the length bytes after it

A closed spool ends with a frame of kind 0xFFFF without payload. (SHA-1 serves as a checksum, not
against forgery. Processors have instructions for it, so it is the fastest strong hash.)
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import OutputError, OutputExists, UsageError, output_error

if TYPE_CHECKING:
    import io
    from collections.abc import Iterable, Sequence
    from typing import Self

    from pmlkit.types import Json, PathLike


__all__ = ["SpoolWriter"]

VERSION = 2
MAGIC, MARKER = b"PMLSPOOL", b"PMLF"
HEADER = struct.Struct("<8sII")
FRAME = struct.Struct("<4sHHII")
SUM_BYTES = 8
END_KIND = 0xFFFF
_LONGEST = (1 << 32) - 1
FRAMES_FILE = "frames.spool"  # in a trace's spool folder


def folder_of(out: Path) -> Path:
    """Return the spool folder of the trace `out`, which is next to it."""
    return out.with_name(f"{out.name}.spool")


def checksum(head: bytes, *parts: bytes | memoryview) -> bytes:
    """Return the checksum of a frame with the packed fields `head` and a payload in parts."""
    state = hashlib.sha1(head, usedforsecurity=False)
    for part in parts:
        state.update(part)
    return state.digest()[:SUM_BYTES]


class SpoolWriter:
    """Append frames to a new spool. A context manager.

    Parameters
    ----------
    path : path-like
        The file; it must not exist. With `file`, only its name in messages.
    header : dict
        JSON values; `Spool.header` when it is read.
    file : raw binary file, optional
        A pipe to write to instead.

    Attributes
    ----------
    bytes : int
        Bytes of complete frames in the file.
    frames : int
        Frames appended so far.

    Raises
    ------
    OutputExists
        If the name is taken.
    OutputError
        By every method that writes: a full disk, a folder that is not writable, a pipe without a
        reader. The spool then ends after its last complete frame.
    """

    def __init__(self, path: PathLike, header: Json, file: io.RawIOBase | None = None) -> None:
        self.path = Path(path)
        self.bytes = self.frames = 0
        self._broken = False
        text = json.dumps(header, allow_nan=False).encode()
        self._file = file or _create(self.path)
        head = HEADER.pack(MAGIC, VERSION, len(text))
        try:
            self._write([head + checksum(head, text) + text])
        except OutputError:
            self._file.close()
            if file is None:
                self.path.unlink(missing_ok=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(whole=kind is None)

    @property
    def closed(self) -> bool:
        """Whether nothing more can be appended."""
        return self._file.closed

    def append(self, kind: int, *payload: bytes | memoryview) -> None:
        """Append one frame, completely or not at all.

        Parameters
        ----------
        kind : int
            Type of the payload, 0 to 0xFFFE.
        payload : bytes-like
            Consecutive parts, which are not copied.
        """
        if not 0 <= kind < END_KIND:
            raise UsageError(f"a frame's kind is {kind}: it must be 0 to {END_KIND - 1}")
        self._append(kind, payload)

    def _append(self, kind: int, parts: Iterable[bytes | memoryview]) -> None:
        if self.closed or self._broken:
            raise UsageError(f"the spool {self.path} is closed: open another one")
        views = [memoryview(part).cast("B") for part in parts if len(part)]
        length = sum(map(len, views))
        if max(length, self.frames) > _LONGEST:
            raise UsageError(f"a spool cannot contain a frame {self.frames} of {length} bytes")
        head = FRAME.pack(MARKER, kind, 0, self.frames, length)
        self._write([head + checksum(head, *views), *views])
        self.frames += 1

    def _write(self, parts: Sequence[bytes | memoryview]) -> None:
        try:
            for part in parts:
                _write_all(self._file, part)
        except BaseException as error:  # including Ctrl-C in the middle of a frame
            self._cut_back()
            if isinstance(error, OSError):
                raise output_error(self.path, error) from error
            raise
        self.bytes += sum(map(len, parts))

    def _cut_back(self) -> None:
        # Remove the part of the frame that was written, so that appending can be tried again.
        try:
            self._file.truncate(self.bytes)
            self._file.seek(self.bytes)
        except (OSError, ValueError):
            self._broken = True

    def sync(self) -> None:
        """Sync the file to the disk, so that it survives a crash of the machine."""
        try:
            if self._file.seekable():
                os.fsync(self._file.fileno())
        except OSError as error:
            raise output_error(self.path, error) from error

    def close(self, whole: bool = True) -> None:
        """Close the file; idempotent.

        Parameters
        ----------
        whole : bool
            Whether the collection is complete. If not, the closing frame is omitted.
        """
        if self.closed:
            return
        try:
            if whole and not self._broken:
                self._append(END_KIND, ())
            self.sync()
        finally:
            self._file.close()


def _create(path: PathLike) -> io.FileIO:
    try:
        return open(path, "xb", buffering=0)
    except FileExistsError as error:
        raise OutputExists(path, replaceable=False) from error
    except OSError as error:
        raise output_error(path, error) from error
    except ValueError as error:  # a NUL in the name
        raise OutputError(path, str(error), "give another name") from error


def _write_all(file: io.RawIOBase, data: memoryview | bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]
