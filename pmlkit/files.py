# SPDX-License-Identifier: Apache-2.0
"""Reading files from elsewhere safely, and writing files so that they are complete or absent.

`open_regular` opens a file from elsewhere, which may be a FIFO, a device, or larger than memory.
`whole` writes a file under another name until it is complete. Only one process at a time writes it,
and never into a trace. `PartialFolder` does so for a folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import resource
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import FULL, FileRefused, OutputError, OutputExists, output_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import BinaryIO

    from pmlkit.types import PathLike


_KINDS = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a FIFO"),
    (stat.S_ISSOCK, "it is a socket"),
    (stat.S_ISCHR, "it is a device"),
    (stat.S_ISBLK, "it is a device"),
)
_PROBE = bytes(1 << 16)  # written to learn why writing fails


def open_regular(path: PathLike, limit_bytes: int | None = None) -> BinaryIO:
    """Open a regular file from elsewhere for reading bytes.

    Parameters
    ----------
    path : path-like
        Links are followed.
    limit_bytes : int, optional
        The largest size that is accepted.

    Returns
    -------
    binary file
        Buffered; to be closed by the caller.

    Raises
    ------
    FileRefused
        If it is a folder, a FIFO, a device or a socket, or larger than the limit.
    OSError
        If it is not there, or cannot be opened.
    """
    # The file is checked before it is opened, because opening a device can affect it. It is checked
    # again afterwards, because it may have been replaced. Without O_NONBLOCK, opening a FIFO would
    # wait.
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


def _refuse_unfit(path: PathLike, status: os.stat_result, limit_bytes: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        why = next(
            (why for test, why in _KINDS if test(status.st_mode)), "it is not a regular file"
        )
        raise FileRefused(path, why)
    if limit_bytes is not None and status.st_size > limit_bytes:
        raise _too_large(path, f"{status.st_size:,}", limit_bytes)


def _too_large(path: PathLike, size: str, limit_bytes: int) -> FileRefused:
    return FileRefused(path, f"it has {size} bytes, and at most {limit_bytes:,} are read")


def read_regular(path: PathLike, limit_bytes: int) -> bytes:
    """Read all of a file that `open_regular` accepts; parameters and errors as there."""
    with open_regular(path, limit_bytes) as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:  # it grew, or is in /proc, where sizes are 0
        raise _too_large(path, f"more than {limit_bytes:,}", limit_bytes)
    return data


def refuse_inside_trace(path: PathLike, is_folder: bool = False) -> None:
    """Refuse an output inside a trace, where it could replace a file of a recording.

    Parameters
    ----------
    path : path-like
        The output's final name. It may be the name of a trace, which is not checked here.
    is_folder : bool
        The path is a folder to put files into, so it must not be a trace either.

    Raises
    ------
    OutputError
    """
    with contextlib.suppress(OSError, ValueError):  # writing there will raise a better error
        for name in (os.path.realpath(path), os.path.abspath(path)):
            folders = [Path(name)] * is_folder + list(Path(name).parents)
            for folder in folders:
                if _is_trace(folder):
                    raise OutputError(
                        path, f"{folder} is a trace", "choose a place outside of all traces"
                    )


def _is_trace(folder: Path) -> bool:
    """Whether a folder is a trace, even a damaged one or one that is being written."""
    if (folder / "entries" / "part-00000.parquet").exists():
        return True
    return (folder / "trace.json").exists() and (folder / "rounds.parquet").exists()


@contextlib.contextmanager
def whole(output: PathLike, overwrite: bool = False) -> Iterator[Path]:
    """Context that yields a partial file; at its end, the file is renamed to `output`.

    Parameters
    ----------
    output : path-like
        The final name, left as it is if the block raises.
    overwrite : bool
        Replace an existing regular file. Nothing else is ever replaced.

    Yields
    ------
    Path
        An empty file next to `output`, locked against other processes.

    Raises
    ------
    OutputExists
        If the name is taken.
    OutputError
        If `output` is in a trace, another process is writing it, or the system refuses. An
        OSError of the block counts as an error of this file.
    """
    final = Path(output)
    refuse_inside_trace(final)
    try:
        _check_free(final, overwrite)
        partial = final.with_name(f"{final.name}.partial")
        lock = _claim(partial, final)
    except ValueError as error:  # a path with a NUL or without a name
        raise OutputError(output, str(error), "give another name") from error
    except OSError as error:
        raise output_error(output, error) from error
    try:
        yield partial
        # Without it, a crash after the renaming could leave an empty file under the final name.
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
        raise OutputExists(final, replaceable=final.is_file())


def _claim(partial: Path, final: Path) -> int:
    """Create the partial file, or take over that of a killed writer; return its descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    # Its writer may rename or remove the file between our opening and our locking: try again.
    while True:
        try:
            lock = os.open(partial, flags, 0o666)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise OutputExists(partial, replaceable=False) from error  # a link, folder or FIFO
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
    """Lock the partial file; return False if it has been renamed meanwhile."""
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        raise OutputExists(partial, replaceable=False)
    take_lock(lock, final)
    return _is_same(partial, lock)


def take_lock(handle: int, path: PathLike, taken: str = "another process is writing it") -> None:
    """Lock an open file or folder; a file system without locks passes.

    Raises
    ------
    OutputError
        If another process holds it, in the words of `taken`: it writes `path`.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        hint = "wait for it, or give another name"
        raise OutputError(path, taken, hint) from error
    except OSError:
        pass


def _is_same(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _explained(error: OSError, handle: int) -> OSError:
    """Find the system's reason for an error without one: libraries report only a short write."""
    if error.errno is not None:
        return error
    try:
        os.pwrite(handle, _PROBE, os.fstat(handle).st_size)
        os.fsync(handle)
    except OSError as reason:
        return reason
    return error


# Files that a killed writer of a trace may have left. Any others are not removed.
_LEFTOVERS = re.compile(r"entries|\w+\.parquet|trace\.json|pml\.trace(\.partial)?")


class PartialFolder:
    """Create the folder ``PATH.partial``; `commit` renames it to ``PATH``, `discard` removes it.

    Files that a killed process left in it are removed first. A running process holds a lock.

    Parameters
    ----------
    path : path-like
        The final name.
    overwrite : bool
        When committing, replace what has that name, if `replaceable` allows it.
    replaceable : callable
        Takes the Path of what is there, returns whether it may be replaced.
    display_path : Path, optional
        The folder's name in messages, if not `path`; for a folder nested in a partial one.

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
        replaceable: Callable[[Path], bool] = lambda path: False,
        display_path: Path | None = None,
    ) -> None:
        self.final = Path(path)
        self.display_path = display_path or self.final
        self._overwrite, self._is_replaceable = overwrite, replaceable
        self._lock: int | None = None
        if display_path is None:
            refuse_inside_trace(self.final)
        with self.writing():
            try:
                self._check_free()
                self.path = self.final.with_name(self.final.name + ".partial")
                self._claim()
            except ValueError as error:  # a path with a NUL or without a name
                raise OutputError(self.display_path, str(error), "give another name") from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Context that turns an OSError into an `OutputError` naming the folder."""
        try:
            yield
        except OSError as error:
            raise output_error(self.display_path, error) from error

    def _check_free(self) -> None:
        if os.path.lexists(self.final):
            replaceable = self._is_replaceable(self.final)
            if not (self._overwrite and replaceable):
                raise OutputExists(self.display_path, replaceable)

    def _claim(self) -> None:
        self.path.mkdir(exist_ok=True)
        # Never through a link: its target would be cleared.
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            take_lock(self._lock, self.display_path)
        except OutputError:
            self._release()
            raise
        self._clear()

    def _clear(self) -> None:
        leftovers = list(self.path.iterdir())
        if not all(_LEFTOVERS.fullmatch(file.name) for file in leftovers):
            self._release()
            raise OutputExists(f"{self.display_path}.partial", replaceable=False)
        for file in leftovers:
            _remove(file)

    def commit(self) -> None:
        """Rename the folder to its final name."""
        with self.writing():
            # Its files must be on the disk before it has the name of a complete trace. The name is
            # checked again: another process may have taken it meanwhile.
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
                raise OutputExists(self.display_path, replaceable=False) from error
            raise

    def discard(self) -> None:
        """Remove the folder; no effect after `commit`."""
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


def portable(argument: str) -> str:
    """Return a command's argument with a file's name instead of its absolute path.

    A trace has the command that made it, and is published: a machine's folders are not part of it.

    Examples
    --------
    >>> [portable(word) for word in ("/home/me/x.trace", "--output=/home/me/x.trace", "x/y.c")]
    ['x.trace', '--output=x.trace', 'x/y.c']
    """
    match = re.fullmatch(r"(--[\w-]+=|-\w|)(/.*)", argument, re.DOTALL)
    return match[1] + Path(match[2]).name if match else argument


@contextlib.contextmanager
def scratch_folder(prefix: str = "pmlkit-") -> Iterator[Path]:
    """Context that yields a temporary folder, removed at its end.

    Raises
    ------
    OutputError
        If the disk is full, for an OSError of the block that names no file.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=prefix) as scratch:
            yield Path(scratch)
    except OSError as error:
        if error.filename is None and error.errno in FULL:
            raise output_error(tempfile.gettempdir(), error) from error
        raise


def cache_folder() -> Path:
    """Return the folder of built plugins and fetched packages: $PMLKIT_CACHE or ~/.cache/pmlkit."""
    return Path(os.environ.get("PMLKIT_CACHE") or Path.home() / ".cache" / "pmlkit")


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write files (name to bytes) into a folder, all of them or none; return the paths."""
    folder = make_folder(folder)
    with _most_open_files(), contextlib.ExitStack() as stack:
        for name, content in files.items():
            partial = stack.enter_context(whole(folder / name, overwrite=True))
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # some file systems find only now that they are full
    return [folder / name for name in files]


@contextlib.contextmanager
def _most_open_files() -> Iterator[None]:
    """Context in which as many files may be open as the system allows: a folder gets hundreds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents if they do not exist; return its path."""
    refuse_inside_trace(folder, is_folder=True)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    return Path(folder)
