# SPDX-License-Identifier: Apache-2.0
"""The spool: a file of frames that is only ever appended to, while a trace is being collected.

A collector that dies at any byte loses at most the frame that it was writing. Each frame carries
its number, its length and a checksum, so that a reader passes on whole true frames and nothing
else, and says what is missing. Nothing but Python's own library is needed (dom0 has no more).

Layout, little-endian::

    file     = "PMLSPOOL", version u32, length u32, checksum, header (JSON), frame*
    frame    = "PMLF", kind u16, zero u16, sequence u32, length u32, checksum, payload
    checksum = blake2b, 8 bytes, over the fields before it and the length bytes after it

A spool that was closed ends with a frame of kind 0xFFFF without payload.
"""

import hashlib
import json
import os
import struct
from pathlib import Path

from pmlkit.errors import (
    NotATrace,
    OutputError,
    OutputExists,
    SpoolDamaged,
    TraceNotFound,
    TraceVersionError,
    UsageError,
    output_error,
    read_error,
)

__all__ = ["Spool", "SpoolWriter", "read_spool"]

VERSION = 1
_MAGIC, _MARKER = b"PMLSPOOL", b"PMLF"
_HEADER = struct.Struct("<8sII")
_FRAME = struct.Struct("<4sHHII")
_SUM_BYTES = 8
_END_KIND = 0xFFFF
_LONGEST = (1 << 32) - 1
_NOTHING = "without its header nothing in it can be understood; collect again"


def _checksum(head, payload):
    state = hashlib.blake2b(head, digest_size=_SUM_BYTES)
    state.update(payload)
    return state.digest()


def _sealed(head, payload):
    return b"".join((head, _checksum(head, payload), payload))


class SpoolWriter:
    """Append frames to a new spool. A context manager.

    Parameters
    ----------
    path : path-like
        The file; it must not exist.
    header : dict
        What JSON can hold; comes back as `Spool.header`.

    Attributes
    ----------
    path : Path
    bytes : int
        Bytes that are safely in the file.
    frames : int
        Frames appended so far.

    Raises
    ------
    OutputExists
        If the name is taken.
    OutputError
        By every method that writes: a full disk, a folder that cannot be written. The spool then
        ends after its last whole frame.
    """

    def __init__(self, path, header):
        self.path = Path(path)
        self.bytes = self.frames = 0
        self._broken = False
        text = json.dumps(header, allow_nan=False).encode()
        self._file = _create(self.path)
        try:
            self._write(_sealed(_HEADER.pack(_MAGIC, VERSION, len(text)), text))
        except OutputError:
            self._file.close()
            self.path.unlink(missing_ok=True)
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.close(whole=kind is None)

    @property
    def closed(self):
        """Whether nothing more can be appended."""
        return self._file.closed

    def append(self, kind, payload):
        """Append one frame, at once and whole.

        Parameters
        ----------
        kind : int
            0 to 0xFFFE: what the payload is.
        payload : bytes-like
        """
        if not 0 <= kind < _END_KIND:
            raise UsageError(f"a frame's kind is {kind}: it has to be 0 to {_END_KIND - 1}")
        self._append(kind, bytes(payload))

    def _append(self, kind, payload):
        if self.closed or self._broken:
            raise UsageError(f"the spool {self.path} is closed: open another one")
        if max(len(payload), self.frames) > _LONGEST:
            raise UsageError(f"a spool cannot hold a frame {self.frames} of {len(payload)} bytes")
        head = _FRAME.pack(_MARKER, kind, 0, self.frames, len(payload))
        self._write(_sealed(head, payload))
        self.frames += 1

    def _write(self, data):
        try:
            _write_all(self._file, data)
        except BaseException as error:  # a Ctrl-C, too, may come in the middle of a frame
            self._cut_back()
            if isinstance(error, OSError):
                raise output_error(self.path, error) from error
            raise
        self.bytes += len(data)

    def _cut_back(self):
        # Whatever part of the frame got through: without it, the writer may try again.
        try:
            self._file.truncate(self.bytes)
            self._file.seek(self.bytes)
        except OSError:
            self._broken = True

    def sync(self):
        """Wait until what was appended is on the disk (against a crash of the machine)."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise output_error(self.path, error) from error

    def close(self, whole=True):
        """End the spool. Closing twice does no harm.

        Parameters
        ----------
        whole : bool
            Whether the collection came to its end; if not, readers will say that it did not.
        """
        if self.closed:
            return
        try:
            if whole and not self._broken:
                self._append(_END_KIND, b"")
            self.sync()
        finally:
            self._file.close()


def _create(path):
    try:
        return open(path, "xb", buffering=0)
    except FileExistsError as error:
        raise OutputExists(path) from error
    except OSError as error:
        raise output_error(path, error) from error
    except ValueError as error:  # a NUL in the name
        raise OutputError(path, str(error), "give another name") from error


def _write_all(file, data):
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


class Spool:
    """A spool being read: iterate over it (once) for its frames.

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
    """

    def __init__(self, path, file, header, offset):
        self.path, self.header, self.offset = path, header, offset
        self.missing = None
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self.frames = self._read()

    def __iter__(self):
        return self.frames

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.close()

    def close(self):
        """Let go of the file. Closing twice does no harm."""
        self.frames.close()
        self._file.close()

    def _read(self):
        sequence = 0
        with self._file:
            try:
                while (frame := self._next(sequence)) is not None:
                    yield frame
                    sequence += 1
            except OSError as error:
                self.missing = self._rest(f"cannot be read ({error.strerror})")

    def _next(self, sequence):
        left = self._size - self.offset
        head = self._file.read(_FRAME.size + _SUM_BYTES)
        if not head:
            self.missing = f"the end: the collection stopped after frame {sequence - 1}, at byte "
            self.missing += f"{self.offset}" if sequence else f"{self.offset}, before the first"
            return None
        if len(head) < _FRAME.size + _SUM_BYTES:
            self.missing = self._cut_off(sequence, left)
            return None
        marker, kind, zero, number, length = _FRAME.unpack_from(head)
        if (marker, zero, number) != (_MARKER, 0, sequence):
            self.missing = self._rest(f"is no frame {sequence}")
        elif length > left - len(head):
            self.missing = self._cut_off(sequence, left)
        else:
            return self._checked(head, kind, sequence, length)
        return None

    def _checked(self, head, kind, sequence, length):
        payload = self._file.read(length)
        if len(payload) < length or head[_FRAME.size :] != _checksum(head[: _FRAME.size], payload):
            self.missing = self._rest(f"is a damaged frame {sequence}")
            return None
        self.offset += len(head) + length
        if kind != _END_KIND:
            return kind, payload
        if self.offset != self._size:
            self.missing = self._rest("comes after the end")
        return None

    def _cut_off(self, sequence, left):
        return f"frame {sequence}, which is cut off: {left} bytes of it, from byte {self.offset} on"

    def _rest(self, why):
        return f"{self._size - self.offset} bytes, from byte {self.offset} on: what is there {why}"


def read_spool(path):
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


def _read_header(path, file):
    head = file.read(_HEADER.size + _SUM_BYTES)
    if head[: len(_MAGIC)] != _MAGIC:
        raise NotATrace(path, "no spool either: it does not begin like one", "give a spool")
    if len(head) < _HEADER.size + _SUM_BYTES:
        raise SpoolDamaged(path, len(head), "its header is cut off", _NOTHING)
    _, version, length = _HEADER.unpack_from(head)
    if version != VERSION:
        raise TraceVersionError(path, version, VERSION)
    # No more than there is: a damaged length must not ask for 4 GiB.
    text = file.read(min(length, os.fstat(file.fileno()).st_size))
    if len(text) < length:
        raise SpoolDamaged(path, len(head) + len(text), "its header is cut off", _NOTHING)
    if head[_HEADER.size :] != _checksum(head[: _HEADER.size], text):
        raise SpoolDamaged(path, 0, "its header has been changed", _NOTHING)
    return json.loads(text), len(head) + length
