# SPDX-License-Identifier: Apache-2.0
"""A folder that gets its name only when it is complete."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import OutputError, OutputExists, output_error
from pmlkit.files import refuse_inside_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from pmlkit.types import PathLike


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
