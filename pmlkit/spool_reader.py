# SPDX-License-Identifier: Apache-2.0
"""Reading a spool (`pmlkit.spool`): whole true frames, and what is missing.

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
from typing import TYPE_CHECKING, NamedTuple

from pmlkit.errors import (
    NotATrace,
    NotUnderstood,
    PmlkitError,
    SpoolDamaged,
    TraceNotFound,
    TraceVersionError,
    read_error,
)
from pmlkit.foreign import loads
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
    from types import TracebackType
    from typing import Any, BinaryIO, Self

    from pmlkit.types import Json, PathLike


__all__ = ["Spool", "holds_frames", "make_way", "read_spool"]

LONGEST_FRAME = 1 << 26  # bytes; what our collectors write is far shorter
_LONGEST_HEADER = 1 << 20
_LONG = 1 << 16  # bytes that are worth a thread's attention
_NOTHING = "without its header nothing in it can be understood; collect again"


class _Frame(NamedTuple):
    """A frame that was read but not yet held against its checksum; or what stands in its place."""

    missing: str  # what to say if it is no whole true frame
    kind: int = 0
    payload: bytes = b""
    sealed: Future[bool] | bool | None = None  # whether its checksum is that of its bytes
    unfinished: bool = False


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
    fault : str or None
        Which frame was not understood, and why (`understand`); `missing` says the same then.
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
        self.fault: str | None = None
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
        """Yield frames; while one is taken apart, the one after it is read and summed up."""
        with ThreadPoolExecutor(1) as pool:
            frame = self._look(pool, self.offset, self.frames_read)
            while self._holds(frame):
                ahead = self._look(pool, self.offset, self.frames_read + 1)
                self.frames_read += 1
                yield frame.kind, frame.payload
                frame = ahead

    def understand(
        self, frames: Iterable[tuple[int, bytes]], take: Callable[[int, bytes], Any]
    ) -> Iterator[Any]:
        """Yield what is made of frames, up to the first that is not understood.

        Parameters
        ----------
        frames : iterable of (int, bytes)
            The spool itself, or what `poll` yields.
        take : callable
            Makes something of a frame's kind and payload, or None; raises `NotUnderstood`.
        """
        for kind, payload in frames:
            try:
                made = take(kind, payload)
            except NotUnderstood as error:
                at = self.payload_at - FRAME.size - SUM_BYTES
                self.fault = f"frame {self.frames_read - 1}, from byte {at} on, is not understood: "
                self.fault = self.missing = self.fault + error.why
                self._unfinished = False
                return
            if made is not None:
                yield made

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

    @property
    def left(self) -> str | None:
        """What is missing though it is there, and may be of use to others: keep the spool."""
        return None if self.ended or self._unfinished else self.missing

    def _look(self, pool: Executor, at: int, sequence: int) -> _Frame:
        """Read what should be the frame of this number, from `at` on, where the file is."""
        try:
            return self._read_frame(pool, at, sequence)
        except OSError as error:
            return _Frame(self._rest(at, f"cannot be read ({error.strerror})"))

    def _read_frame(self, pool: Executor, at: int, sequence: int) -> _Frame:
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
            return _Frame(self._rest(at, f"is no frame {sequence}"))
        if length > LONGEST_FRAME:
            why = f"is a frame {sequence} of {length} bytes, and none has more than {LONGEST_FRAME}"
            return _Frame(self._rest(at, why))
        if length > left - len(head):
            return _Frame(self._cut_off(at, sequence), unfinished=True)
        payload = self._file.read(length)
        whole = head, payload, length
        # Its own thread is worth it for what takes longer than to hand it over.
        sealed = pool.submit(_is_sealed, *whole) if length > _LONG else _is_sealed(*whole)
        return _Frame(self._rest(at, f"is a damaged frame {sequence}"), kind, payload, sealed)

    def _holds(self, frame: _Frame) -> bool:
        """Take a frame if it is whole and true; say what is missing if not, or at the end."""
        sealed = frame.sealed
        if not (sealed.result() if isinstance(sealed, Future) else sealed):
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
        return f"{self._size - at} bytes, from byte {at} on: what is there {why}"


def _is_sealed(head: bytes, payload: bytes, length: int) -> bool:
    return len(payload) == length and head[FRAME.size :] == checksum(head[: FRAME.size], payload)


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
    # A damaged length must not ask for 4 GiB.
    if length > _LONGEST_HEADER:
        why = f"its header has {length} bytes, and none has more than {_LONGEST_HEADER}"
        raise SpoolDamaged(path, 0, why, _NOTHING)
    text = file.read(length)
    if len(text) < length:
        raise SpoolDamaged(path, len(head) + len(text), "its header is cut off", _NOTHING)
    if head[HEADER.size :] != checksum(head[: HEADER.size], text):
        raise SpoolDamaged(path, 0, "its header has been changed", _NOTHING)
    try:
        return loads(text), len(head) + length
    except NotUnderstood as error:
        raise SpoolDamaged(path, 0, f"its header: {error.why}", _NOTHING) from error


def holds_frames(path: PathLike, empty: frozenset[int] = frozenset()) -> bool:
    """Whether a spool holds a whole frame, so that nobody may delete it.

    Parameters
    ----------
    path : path-like
        The file of frames.
    empty : set of int
        Kinds of frames that alone say nothing of a guest.

    Returns
    -------
    bool
        True also of a spool with a header that cannot be read: a later pmlkit may read it.
    """
    try:
        with read_spool(path) as spool:
            return any(kind not in empty for kind, _ in spool)
    except (TraceNotFound, NotATrace):
        return False
    except PmlkitError:
        return os.path.getsize(path) > HEADER.size + SUM_BYTES


def make_way(folder: Path) -> None:
    """Free the name of a spool's folder: remove it, or rename it if it holds frames.

    Parameters
    ----------
    folder : Path
        ``NAME.trace.spool``, which becomes ``NAME.trace-1.spool``. It need not be there.
    """
    if not folder.exists():
        return
    if not holds_frames(folder / FRAMES_FILE):
        shutil.rmtree(folder, ignore_errors=True)
        return
    number = 1
    while (older := folder.with_name(f"{folder.stem}-{number}{folder.suffix}")).exists():
        number += 1
    folder.rename(older)
