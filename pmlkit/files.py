# SPDX-License-Identifier: Apache-2.0
"""Files that are somebody else's, and files that appear only when they are whole.

A file of a stranger is opened in one place, `open_regular`: it may be a FIFO, a device or a link
to one, and larger than memory. A file of ours is written in one place, `whole`: under another name
until it is complete, by one process at a time, and never into a trace.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import FileRefused, OutputError, OutputExists, output_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from pmlkit.types import PathLike

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.types import PathLike

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, BinaryIO

    from pmlkit.types import PathLike


__all__ = ["open_regular", "read_regular", "refuse_inside_trace", "whole"]


_KINDS = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a FIFO"),
    (stat.S_ISSOCK, "it is a socket"),
    (stat.S_ISCHR, "it is a device"),
    (stat.S_ISBLK, "it is a device"),
)
_PROBE = bytes(1 << 16)  # written to learn why a file takes no more


def open_regular(path: PathLike, limit_bytes: int | None = None) -> BinaryIO:
    """Open a file that somebody else has made, for reading bytes.

    Parameters
    ----------
    path : path-like
        A link is followed; what it leads to has to be a regular file.
    limit_bytes : int, optional
        The largest size that is let in.

    Returns
    -------
    binary file
        Buffered, at its start; to be closed by the caller.

    Raises
    ------
    FileRefused
        If it is a folder, a FIFO, a device or a socket, or larger than the limit.
    OSError
        If it is not there, or cannot be opened.
    """
    # Looked at before it is opened, as opening alone does something to some devices; and after,
    # as it may have been exchanged in between. Opening a FIFO waits unless it is told not to.
    try:
        _refuse_unfit(path, os.stat(path), limit_bytes)
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError as error:  # a path with a NUL
        raise FileRefused(path, str(error)) from error
    try:
        _refuse_unfit(path, os.fstat(handle), limit_bytes)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _refuse_unfit(path: PathLike, found: os.stat_result, limit_bytes: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        why = next((why for test, why in _KINDS if test(found.st_mode)), "it is no regular file")
        raise FileRefused(path, why)
    if limit_bytes is not None and found.st_size > limit_bytes:
        raise _too_large(path, f"{found.st_size:,}", limit_bytes)


def _too_large(path: PathLike, size: str, limit_bytes: int) -> FileRefused:
    return FileRefused(path, f"it has {size} bytes, and at most {limit_bytes:,} are read")


def read_regular(path: PathLike, limit_bytes: int) -> bytes:
    """Read the whole of a file that `open_regular` lets in; parameters and errors as there."""
    with open_regular(path, limit_bytes) as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:  # it grew, or (in /proc) does not know its size
        raise _too_large(path, f"more than {limit_bytes:,}", limit_bytes)
    return data


def refuse_inside_trace(path: PathLike, is_folder: bool = False) -> None:
    """Refuse an output that would lie in a trace: it could replace a file of a recording.

    Parameters
    ----------
    path : path-like
        The name to be. A trace itself may be named: replacing it is another question.
    is_folder : bool
        The path is a folder to put files into, so it must be no trace either.

    Raises
    ------
    OutputError
    """
    with contextlib.suppress(OSError, ValueError):  # whoever writes there says what is wrong
        for name in (os.path.realpath(path), os.path.abspath(path)):
            folders = [Path(name)] * is_folder + list(Path(name).parents)
            for folder in folders:
                if _is_trace(folder):
                    raise OutputError(
                        path, f"{folder} is a trace", "choose a place outside of every trace"
                    )


def _is_trace(folder: Path) -> bool:
    """Say whether a folder is a trace, even a damaged one or one that is being written."""
    if (folder / "entries" / "part-00000.parquet").exists():
        return True
    return (folder / "trace.json").exists() and (folder / "rounds.parquet").exists()


@contextlib.contextmanager
def whole(output: PathLike, overwrite: bool = False) -> Iterator[Path]:
    """Context that gives a name to write to; the file gets its own name once it is whole.

    Parameters
    ----------
    output : path-like
        The name to be. It stays as it is if the block raises.
    overwrite : bool
        Replace the file that has this name; nothing but a regular file is ever replaced.

    Yields
    ------
    Path
        An empty file beside `output`. It is locked: of two writers of one name, one is refused.

    Raises
    ------
    OutputExists
        If the name is taken.
    OutputError
        If it lies in a trace, another process is writing it, the disk is full, or the system
        refuses. An OSError of the block is taken for one about this file.
    """
    final = Path(output)
    refuse_inside_trace(final)
    try:
        _check_free(final, overwrite)
        partial = final.with_name(f"{final.name}.partial")
        lock = _claim(partial, final)
    except ValueError as error:  # a path with a NUL, or without a name
        raise OutputError(output, str(error), "give another name") from error
    except OSError as error:
        raise output_error(output, error) from error
    try:
        yield partial
        os.fsync(lock)
        _check_free(final, overwrite)
        partial.replace(final)
    except OSError as error:
        raise output_error(output, _explained(error, lock)) from error
    finally:
        with contextlib.suppress(OSError):
            if _is_same(partial, lock):
                partial.unlink()
        os.close(lock)


def _check_free(final: Path, overwrite: bool) -> None:
    if os.path.lexists(final) and not (overwrite and final.is_file()):
        raise OutputExists(final)


def _claim(partial: Path, final: Path) -> int:
    """Make the partial file, or take one that a killed writer has left; return its descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        try:
            lock = os.open(partial, flags, 0o666)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise OutputExists(partial) from error  # somebody's link, folder or FIFO
            raise
        try:
            if _is_locked(lock, partial, final):
                os.ftruncate(lock, 0)
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _is_locked(lock: int, partial: Path, final: Path) -> bool:
    """Lock the partial file; False if it was given its final name meanwhile."""
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        raise OutputExists(partial)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            final, "another process is writing it", "wait for it, or give another name"
        ) from error
    except OSError:  # a file system without locks
        pass
    return _is_same(partial, lock)


def _is_same(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _explained(error: OSError, handle: int) -> OSError:
    """Find what the system said where a library tells only that less was written than asked."""
    if error.errno is not None:
        return error
    try:
        os.pwrite(handle, _PROBE, os.fstat(handle).st_size)
        os.fsync(handle)
    except OSError as said:
        return said
    return error


# ------------------------------------------------------------------------------
# A folder that gets its name only when it is complete.


# What a killed writer can have left. Anything else is someone's, and stays.
_LEFTOVERS = re.compile(r"entries|\w+\.parquet|trace\.json|pml\.trace(\.partial)?")


class PartialFolder:
    """Make ``PATH.partial`` to write into; `commit` gives it its name, `discard` removes it.

    What a killed process has left of the same name is removed first; a living one holds a lock.

    Parameters
    ----------
    path : path-like
        The name to be.
    overwrite : bool
        Replace what has that name, if `replaceable` allows it, at the moment of `commit`.
    replaceable : callable
        Takes the Path of what is there and says whether it may be replaced.
    shown : path-like, optional
        How messages name the folder, if not by `path`.

    Attributes
    ----------
    path : Path
        The folder to write into; after `commit`, the final one.

    Raises
    ------
    OutputExists, OutputError
        By every method; `writing` turns an OSError of its block into an OutputError.
    """

    def __init__(
        self,
        path: PathLike,
        overwrite: bool = False,
        replaceable: Callable[..., Any] = lambda path: False,
        shown: Path | None = None,
    ) -> None:
        self.final = Path(path)
        self.shown = Path(shown or path)
        self._may_replace = replaceable if overwrite else lambda path: False
        self._lock: int | None = None
        if shown is None:  # but for what is nested in a trace that is being written
            refuse_inside_trace(self.final)
        with self.writing():
            try:
                self._check_free()
                self.path = self.final.with_name(self.final.name + ".partial")
                self._claim()
            except ValueError as error:  # a path with a NUL, or without a name
                raise OutputError(self.shown, str(error), "give another name") from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Context that turns what the system says into an `OutputError` naming the folder."""
        try:
            yield
        except OSError as error:
            raise output_error(self.shown, error) from error

    def _check_free(self) -> None:
        if os.path.lexists(self.final) and not self._may_replace(self.final):
            raise OutputExists(self.shown)

    def _claim(self) -> None:
        self.path.mkdir(exist_ok=True)
        # Never through a link: what is behind it would be cleared.
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._release()
            raise OutputError(
                self.shown, "another process is writing it", "wait for it, or give another name"
            ) from error
        except OSError:  # a file system without locks
            pass
        self._clear()

    def _clear(self) -> None:
        left = list(self.path.iterdir())
        if not all(_LEFTOVERS.fullmatch(file.name) for file in left):
            self._release()
            raise OutputExists(f"{self.shown}.partial")
        for file in left:
            _remove(file)

    def commit(self) -> None:
        """Give the folder its name."""
        with self.writing():
            _sync_folder(self.path)
            self._check_free()
            with self._old_moved_away():
                self._rename()
            self.path = self.final
            _sync_folder(self.final.parent)
        self._release()

    @contextlib.contextmanager
    def _old_moved_away(self) -> Iterator[None]:
        if not os.path.lexists(self.final):
            yield
            return
        old = self.final.with_name(f"{self.final.name}.replaced-{os.getpid()}")
        os.rename(self.final, old)
        try:
            yield
        except BaseException:
            os.rename(old, self.final)
            raise
        _remove(old)

    def _rename(self) -> None:
        try:
            os.rename(self.path, self.final)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise OutputExists(self.shown) from error
            raise

    def discard(self) -> None:
        """Remove the folder; after `commit` this does nothing."""
        if self.path != self.final:
            shutil.rmtree(self.path, ignore_errors=True)
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync_folder(path: PathLike) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cache_folder() -> Path:
    """Where built plugins and fetched packages are kept: $PMLKIT_CACHE or ~/.cache/pmlkit."""
    return Path(os.environ.get("PMLKIT_CACHE") or Path.home() / ".cache" / "pmlkit")


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write `files` (name to bytes) into `folder`, each complete or not at all."""
    folder = make_folder(folder)
    for name, content in files.items():
        _write_whole(folder / name, content)
    return [folder / name for name in files]


def make_folder(folder: Path) -> Path:
    """Make a folder and those above it, if they do not exist yet, and return its path."""
    refuse_inside_trace(folder, is_folder=True)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    return Path(folder)


def _write_whole(path: Path, content: bytes) -> None:
    with whole(path, overwrite=True) as partial:
        partial.write_bytes(content)
