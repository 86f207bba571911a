# SPDX-License-Identifier: Apache-2.0
"""Reading a spool (`pmlkit.spool`): complete frames with valid checksums, and what is missing.

>>> with read_spool("x.trace.spool/frames.spool") as spool:    # doctest: +SKIP
...     for kind, payload in spool:
...         ...
...     print(spool.missing)
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pmlkit.errors import (
    NotATrace,
    NotUnderstood,
    PmlkitError,
    SpoolDamaged,
    TraceNotFound,
    TraceVersionError,
    output_error,
    read_error,
)
from pmlkit.files import take_lock
from pmlkit.foreign import loads
from pmlkit.progress import task
from pmlkit.spool import (
    END_KIND,
    FRAME,
    FRAMES_FILE,
    HEADER,
    MAGIC,
    MARKER,
    SUM_BYTES,
    VERSION,
    checksum,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from concurrent.futures import Executor
    from typing import BinaryIO, Self

    from pmlkit.types import Json, PathLike


__all__ = ["Spool", "holds_frames", "make_way", "new_folder", "read_spool", "release"]

T = TypeVar("T")

LONGEST_FRAME = 1 << 26  # bytes; frames of our collectors are far shorter
_LONGEST_HEADER = 1 << 20
_THREAD_BYTES = 1 << 16  # longer payloads are hashed in a thread
_COLLECT_AGAIN = "without its header the content is unreadable; collect again"


class _Frame(NamedTuple):
    """A frame, whose checksum may still be in computation; or the reason why there is none."""

    missing: str  # `Spool.missing` if the checksum is wrong
    kind: int = 0
    payload: bytes = b""
    valid: Future[bool] | bool = False
    unfinished: bool = False

    @property
    def is_valid(self) -> bool:
        return self.valid.result() if isinstance(self.valid, Future) else self.valid


class Spool:
    """A spool being read: iterate over it (once) for its frames, or `poll` one that grows.

    Attributes
    ----------
    header : dict
        The writer's header.
    missing : str or None
        After a complete iteration, what could not be read; None if nothing is missing.
    fault : str or None
        The frame that was not understood, and why (`understand`); `missing` is then the same.
    offset : int
        Bytes of valid frames so far.
    ended : bool
        Whether the closing frame has been read.
    payload_at : int
        Offset of the last frame's payload in the file.
    """

    def __init__(self, path: PathLike, file: BinaryIO, header: Json, offset: int) -> None:
        self.path, self.header, self.offset = path, header, offset
        self.missing: str | None = None
        self.fault: str | None = None
        self.frames_read = self.payload_at = 0
        self.ended = False
        self._file = file
        self._unfinished = False
        self._size = os.fstat(file.fileno()).st_size
        self.frames = self._read()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        return self.frames

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; idempotent."""
        self.frames.close()
        self._file.close()

    def _read(self) -> Generator[tuple[int, bytes], None, None]:
        with self._file, task("the spool", self._size) as read:
            for frame in self._next_frames():
                read.done = self.offset
                yield frame

    def _next_frames(self) -> Iterator[tuple[int, bytes]]:
        """Yield frames; while the caller decodes one, a thread hashes the next one."""
        with ThreadPoolExecutor(1) as pool:
            frame = self._read_frame(pool, self.offset, self.frames_read)
            while self._accept(frame):
                ahead = self._read_frame(pool, self.offset, self.frames_read + 1)
                self.frames_read += 1
                yield frame.kind, frame.payload
                frame = ahead

    def understand(
        self, frames: Iterable[tuple[int, bytes]], decode: Callable[[int, bytes], T | None]
    ) -> Iterator[T]:
        """Yield decoded frames, up to the first that is not understood.

        Parameters
        ----------
        frames : iterable of (int, bytes)
            The spool itself, or `poll`.
        decode : callable
            Called with a frame's kind and payload; a result of None is omitted. Raises
            `NotUnderstood`.
        """
        for kind, payload in frames:
            try:
                decoded = decode(kind, payload)
            except NotUnderstood as error:
                at = self.payload_at - FRAME.size - SUM_BYTES
                self.fault = f"frame {self.frames_read - 1}, from byte {at} on, is unknown: "
                self.fault = self.missing = self.fault + error.why
                self._unfinished = False
                return
            if decoded is not None:
                yield decoded

    def poll(self) -> Iterator[tuple[int, bytes]]:
        """Yield the frames that were appended since the last call.

        Afterwards `missing` says what is wrong, or why the spool is not complete yet.
        """
        if self.ended:
            return
        self.missing = None
        self._size = os.fstat(self._file.fileno()).st_size
        self._file.seek(self.offset)
        yield from self._next_frames()

    @property
    def unfinished(self) -> bool:
        """Whether the spool has no fault except that it, or its last frame, is incomplete."""
        return self.missing is not None and self._unfinished

    @property
    def left(self) -> str | None:
        """`missing` if bytes remain that could not be read: a reason to keep the spool."""
        return None if self.ended or self._unfinished else self.missing

    def _read_frame(self, pool: Executor, at: int, sequence: int) -> _Frame:
        """Read the frame with this number at the file's position, which is `at`."""
        try:
            return self._parse_frame(pool, at, sequence)
        except OSError as error:
            return _Frame(self._rest(at, f"cannot be read ({error.strerror})"))

    def _parse_frame(self, pool: Executor, at: int, sequence: int) -> _Frame:
        left = self._size - at
        head = self._file.read(FRAME.size + SUM_BYTES) if left else b""
        if not head:
            where = f"at byte {at}" if sequence else f"at byte {at}, before the first"
            why = f"the end: the collection stopped after frame {sequence - 1}, {where}"
            return _Frame(why, unfinished=True)
        if len(head) < FRAME.size + SUM_BYTES:
            return _Frame(self._cut_off(at, sequence), unfinished=True)
        marker, kind, zero, number, length = FRAME.unpack_from(head)
        if (marker, zero, number) != (MARKER, 0, sequence):
            return _Frame(self._rest(at, f"is not frame {sequence}"))
        if length > LONGEST_FRAME:
            why = f"is a frame {sequence} of {length} bytes, and none has more than {LONGEST_FRAME}"
            return _Frame(self._rest(at, why))
        if length > left - len(head):
            return _Frame(self._cut_off(at, sequence), unfinished=True)
        payload = self._file.read(length)
        # Short payloads are hashed faster than a thread would start.
        valid = (
            pool.submit(_has_valid_checksum, head, payload, length)
            if length > _THREAD_BYTES
            else _has_valid_checksum(head, payload, length)
        )
        return _Frame(self._rest(at, f"is a damaged frame {sequence}"), kind, payload, valid)

    def _accept(self, frame: _Frame) -> bool:
        """Advance past a valid frame; otherwise, and at the end, set `missing`, return False."""
        if not frame.is_valid:
            self.missing, self._unfinished = frame.missing, frame.unfinished
            return False
        self.payload_at = self.offset + FRAME.size + SUM_BYTES
        self.offset = self.payload_at + len(frame.payload)
        if frame.kind != END_KIND:
            return True
        self.ended, self._unfinished = True, False
        if self.offset != self._size:
            self.missing = self._rest(self.offset, "comes after the end")
        return False

    def _cut_off(self, at: int, sequence: int) -> str:
        left = self._size - at
        return f"frame {sequence}, which is cut off: {left} bytes of it, from byte {at} on"

    def _rest(self, at: int, why: str) -> str:
        return f"{self._size - at} bytes, from byte {at} on: this part {why}"


def _has_valid_checksum(head: bytes, payload: bytes, length: int) -> bool:
    return len(payload) == length and head[FRAME.size :] == checksum(head[: FRAME.size], payload)


def read_spool(path: PathLike) -> Spool:
    """Open a spool.

    Returns
    -------
    Spool
        Iterate over it for ``(kind, payload)``; afterwards `Spool.missing` says what is missing.

    Raises
    ------
    TraceNotFound, NotATrace, TraceVersionError
    SpoolDamaged
        If its header is damaged, so that its frames cannot be decoded.
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
        raise NotATrace(path, "not a spool either: its first bytes differ", "give a spool")
    if len(head) < HEADER.size + SUM_BYTES:
        raise SpoolDamaged(path, len(head), "its header is cut off", _COLLECT_AGAIN)
    _, version, length = HEADER.unpack_from(head)
    if version != VERSION:
        raise TraceVersionError(path, version, VERSION)
    # A damaged length must not make us read 4 GiB.
    if length > _LONGEST_HEADER:
        why = f"its header has {length} bytes, and none has more than {_LONGEST_HEADER}"
        raise SpoolDamaged(path, 0, why, _COLLECT_AGAIN)
    text = file.read(length)
    if len(text) < length:
        raise SpoolDamaged(path, len(head) + len(text), "its header is cut off", _COLLECT_AGAIN)
    if head[HEADER.size :] != checksum(head[: HEADER.size], text):
        raise SpoolDamaged(path, 0, "its header has been changed", _COLLECT_AGAIN)
    try:
        return loads(text), len(head) + length
    except NotUnderstood as error:
        raise SpoolDamaged(path, 0, f"its header: {error.why}", _COLLECT_AGAIN) from error


def holds_frames(path: PathLike, empty: frozenset[int] = frozenset()) -> bool:
    """Whether a spool has a complete frame, so that it must not be deleted.

    Parameters
    ----------
    path : path-like
        The file of frames.
    empty : set of int
        Kinds of frames without data of a guest, which do not count.

    Returns
    -------
    bool
        Also True if the header cannot be read: a later pmlkit may read it.
    """
    try:
        with read_spool(path) as spool:
            return any(kind not in empty for kind, _ in spool)
    except (TraceNotFound, NotATrace):
        return False
    except PmlkitError:
        return os.path.getsize(path) > HEADER.size + SUM_BYTES


# Locks of the spool folders that this process fills; they end with it, however it ends.
_locks: dict[str, int] = {}


def new_folder(folder: Path) -> None:
    """Create a spool folder, which nobody else takes until `release`, or this process's end.

    Raises
    ------
    OutputError
        If it cannot be created, or a folder of this name is being filled.
    """
    try:
        make_way(folder)
        folder.mkdir(parents=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise output_error(folder.with_suffix(""), error) from error
    _locks[os.path.realpath(folder)] = handle
    take_lock(handle, folder.with_suffix(""))


def release(folder: Path) -> None:
    """End the lock of a spool folder, if there is one: it is filled, or was removed."""
    if (handle := _locks.pop(os.path.realpath(folder), None)) is not None:
        os.close(handle)


def make_way(folder: Path) -> None:
    """Remove a spool folder if it exists, or rename it if it holds frames.

    Parameters
    ----------
    folder : Path
        ``NAME.trace.spool``, renamed to ``NAME.trace-1.spool``.

    Raises
    ------
    OutputError
        If it is being filled.
    """
    if not folder.exists():
        return
    _refuse_in_use(folder)
    if not holds_frames(folder / FRAMES_FILE):
        shutil.rmtree(folder, ignore_errors=True)
        return
    number = 1
    while (older := folder.with_name(f"{folder.stem}-{number}{folder.suffix}")).exists():
        number += 1
    folder.rename(older)


def _refuse_in_use(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        take_lock(handle, folder.with_suffix(""))
    finally:
        os.close(handle)
