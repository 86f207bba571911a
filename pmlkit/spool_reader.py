# SPDX-License-Identifier: Apache-2.0
"""Reading a spool (`pmlkit.spool`): whole true frames, and what is missing.

>>> with read_spool("x.trace.spool/frames.spool") as spool:    # doctest: +SKIP
...     for kind, payload in spool:
...         ...
...     print(spool.missing)
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import (
    NotATrace,
    SpoolDamaged,
    TraceNotFound,
    TraceVersionError,
    read_error,
)
from pmlkit.spool import END_KIND, FRAME, HEADER, MAGIC, MARKER, SUM_BYTES, VERSION, checksum

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from types import TracebackType
    from typing import Any, BinaryIO, Self

    from pmlkit.types import Json, PathLike


__all__ = ["Spool", "read_spool"]

_NOTHING = "without its header nothing in it can be understood; collect again"


class Spool:
    """A spool being read: iterate over it (once) for its frames, or `poll` one that grows.

    Attributes
    ----------
    path : Path
    header : dict
        What the writer was given.
    missing : str or None
        After iteration: what could not be read, None if nothing is missing. A reader that stops
        early leaves it None.
    offset : int
        Bytes read and found true so far.
    frames_read : int
    ended : bool
        Whether the frame that closes a spool has been seen.
    payload_at : int
        Where in the file the payload of the last frame begins.
    """

    def __init__(self, path: PathLike, file: BinaryIO, header: Json, offset: int) -> None:
        self.path, self.header, self.offset = path, header, offset
        self.missing: str | None = None
        self.frames_read = self.payload_at = 0
        self.ended = False
        self._file = file
        self._unfinished = False
        self._size = os.fstat(file.fileno()).st_size
        self.frames = self._read()

    def __iter__(self) -> Iterator[Any]:
        return self.frames

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file. Closing twice does no harm."""
        self.frames.close()  # type: ignore[attr-defined]
        self._file.close()

    def _read(self) -> Iterator[tuple[int, bytes]]:
        with self._file:
            yield from self._more()

    def _more(self) -> Generator[tuple[int, bytes], None, None]:
        try:
            while (frame := self._next(self.frames_read)) is not None:
                self.frames_read += 1
                yield frame
        except OSError as error:
            self.missing = self._rest(f"cannot be read ({error.strerror})")

    def poll(self) -> Iterator[tuple[int, bytes]]:
        """Yield the frames that are there by now; call it again for those appended since.

        Afterwards `missing` says what is wrong, or what keeps the spool from being whole as yet.
        """
        if self.ended:
            return
        self.missing = None
        self._size = os.fstat(self._file.fileno()).st_size
        self._file.seek(self.offset)
        yield from self._more()

    @property
    def unfinished(self) -> bool:
        """Whether nothing is wrong but that the spool, or its last frame, goes on no further."""
        return self.missing is not None and self._unfinished

    def _next(self, sequence: int) -> Any:
        left = self._size - self.offset
        head = self._file.read(FRAME.size + SUM_BYTES) if left else b""
        self._unfinished = len(head) < FRAME.size + SUM_BYTES
        if not head:
            self.missing = f"the end: the collection stopped after frame {sequence - 1}, at byte "
            self.missing += f"{self.offset}" if sequence else f"{self.offset}, before the first"
            return None
        if self._unfinished:
            self.missing = self._cut_off(sequence, left)
            return None
        marker, kind, zero, number, length = FRAME.unpack_from(head)
        if (marker, zero, number) != (MARKER, 0, sequence):
            self.missing = self._rest(f"is no frame {sequence}")
        elif length > left - len(head):
            self._unfinished = True
            self.missing = self._cut_off(sequence, left)
        else:
            return self._checked(head, kind, sequence, length)
        return None

    def _checked(
        self, head: bytes, kind: int, sequence: int, length: int
    ) -> tuple[int, bytes] | None:
        payload = self._file.read(length)
        sealed = head[FRAME.size :] == checksum(head[: FRAME.size], payload)
        if len(payload) < length or not sealed:
            self.missing = self._rest(f"is a damaged frame {sequence}")
            return None
        self.payload_at = self.offset + len(head)
        self.offset += len(head) + length
        if kind != END_KIND:
            return kind, payload
        self.ended = True
        if self.offset != self._size:
            self.missing = self._rest("comes after the end")
        return None

    def _cut_off(self, sequence: int, left: int) -> str:
        return f"frame {sequence}, which is cut off: {left} bytes of it, from byte {self.offset} on"

    def _rest(self, why: str) -> str:
        return f"{self._size - self.offset} bytes, from byte {self.offset} on: what is there {why}"


def read_spool(path: PathLike) -> Spool:
    """Open a spool.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Spool
        Iterate over it for ``(kind, payload)``; afterwards `Spool.missing` says what was cut off.

    Raises
    ------
    TraceNotFound, NotATrace, TraceVersionError
        If there is nothing, or something else.
    SpoolDamaged
        If its header is damaged, so that nothing in it can be understood.
    """
    path = Path(path)
    try:
        file = open(path, "rb")  # noqa: SIM115 (the Spool closes it)
    except FileNotFoundError as error:
        raise TraceNotFound(path) from error
    except IsADirectoryError as error:
        raise NotATrace(path, "it is a folder, and a spool is a file", "give the spool") from error
    except OSError as error:
        raise read_error(path.parent, path.name, error) from error
    except ValueError as error:
        raise TraceNotFound(path) from error
    try:
        header, offset = _read_header(path, file)
        return Spool(path, file, header, offset)
    except BaseException:
        file.close()
        raise


def _read_header(path: PathLike, file: BinaryIO) -> tuple[Json, int]:
    head = file.read(HEADER.size + SUM_BYTES)
    if head[: len(MAGIC)] != MAGIC:
        raise NotATrace(path, "no spool either: it does not begin like one", "give a spool")
    if len(head) < HEADER.size + SUM_BYTES:
        raise SpoolDamaged(path, len(head), "its header is cut off", _NOTHING)
    _, version, length = HEADER.unpack_from(head)
    if version != VERSION:
        raise TraceVersionError(path, version, VERSION)
    # No more than there is: a damaged length must not ask for 4 GiB.
    text = file.read(min(length, os.fstat(file.fileno()).st_size))
    if len(text) < length:
        raise SpoolDamaged(path, len(head) + len(text), "its header is cut off", _NOTHING)
    if head[HEADER.size :] != checksum(head[: HEADER.size], text):
        raise SpoolDamaged(path, 0, "its header has been changed", _NOTHING)
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise SpoolDamaged(path, 0, "its header is no JSON object", _NOTHING)
    return told, len(head) + length
