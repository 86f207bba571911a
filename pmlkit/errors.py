# SPDX-License-Identifier: Apache-2.0
"""Every error that pmlkit raises on purpose: one family, the facts as attributes.

A message is always one line, ``what is wrong: what to do about it``, fit to be shown to a user
as it is. The facts (the path, the file inside the trace, the byte offset) are attributes too, so
that a program need not parse the message. Only ``pmlkit.cli.main`` turns these errors into exit
codes: 2 for a `UsageError`, 1 for the others.
"""

from __future__ import annotations

import difflib
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Self

    from pmlkit.types import PathLike


__all__ = [
    "FileRefused",
    "GuestError",
    "MissingTool",
    "NeedsError",
    "NotATrace",
    "NotUnderstood",
    "OutputError",
    "OutputExists",
    "PmlkitError",
    "ResolutionError",
    "SpoolDamaged",
    "TraceDamaged",
    "TraceNotFound",
    "TraceVersionError",
    "UnknownName",
    "UsageError",
    "WorkloadError",
    "closest",
    "is_out_of_memory",
    "output_error",
    "read_error",
]


_LONGEST_WHY = 300  # characters of what somebody else may have written
_LAYOUT = "\n\t"  # of a text that has lines; no other control character reaches a terminal


def visible(text: object) -> str:
    r"""Write control characters as escapes: ``\x1b``; lines and tabs stay.

    Whatever comes from outside (an agent, a guest, a trace) goes through this before a terminal
    shows it: there a control character can rewrite what stands above, or the window's title.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _LAYOUT else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # as Python holds a byte that it could not decode
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def one_line(text: object) -> str:
    """Fold any text into one line that a terminal shows as it is (no control characters).

    A byte of a path that is no UTF-8 is shown as ``\\xff``.
    """
    return visible(" ".join(str(text).split()))


def encodable(text: str) -> str:
    """Make text that UTF-8 can hold out of any: bytes of paths that are none as in `one_line`."""
    return "".join(_escaped(c) if "\ud800" <= c <= "\udfff" else c for c in text)


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like a misspelt one; None if none is."""
    return next(iter(difflib.get_close_matches(name, list(known), 1)), None)


class PmlkitError(Exception):
    """Base of the family.

    Parameters
    ----------
    what : str
        What is wrong, without a final full stop.
    hint : str, optional
        What to do about it.

    Attributes
    ----------
    problem, hint : str
        The two halves of the message; `hint` is empty when there is no advice.
    """

    def __init__(self, what: object, hint: object = "") -> None:
        self.problem = one_line(what)
        self.hint = one_line(hint)
        super().__init__(f"{self.problem}: {self.hint}" if self.hint else self.problem)

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses have other signatures than their message; without this, an error that
        # crosses a process pool (joblib, Dask) could not be unpickled.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[PmlkitError], args: tuple[Any, ...], facts: dict[str, Any]) -> PmlkitError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class TraceNotFound(PmlkitError):
    """There is nothing at the path. Attribute: `path`."""

    def __init__(self, path: PathLike, hint: str = "") -> None:
        self.path = os.fspath(path)
        make_one = "check the path, or make one with `pmlkit record WORKLOAD -o NAME.trace`"
        super().__init__(f"there is no trace at {self.path}", hint or make_one)


class NotATrace(PmlkitError):
    """What is at the path is something else. Attributes: `path`, `why`."""

    def __init__(
        self,
        path: PathLike,
        why: str,
        hint: str = "give the folder NAME.trace that pmlkit has written",
    ) -> None:
        self.path = os.fspath(path)
        self.why = why
        super().__init__(f"{self.path} is not a pmlkit trace ({why})", hint)


class TraceVersionError(PmlkitError):
    """The format version is another one. Attributes: `path`, `found`, `supported`."""

    def __init__(self, path: PathLike, found: object, supported: int) -> None:
        self.path = os.fspath(path)
        self.found = found
        self.supported = supported
        super().__init__(
            f"{self.path} has format version {found}, and this pmlkit reads version {supported}",
            "use the pmlkit that wrote it, or restore it from a copy if it is damaged",
        )


class TraceDamaged(PmlkitError):
    """A file of a trace is not what was written. Attributes: `path`, `file`, `why`."""

    def __init__(self, path: PathLike, file: str, why: str) -> None:
        self.path = os.fspath(path)
        self.file = file
        self.why = why
        super().__init__(
            f"the trace {self.path} is damaged: {file} {why}",
            "restore it from a copy, or record it again",
        )


class FileRefused(PmlkitError):
    """A file is not one to read: a FIFO, a device, too large. Attributes: `path`, `why`."""

    def __init__(
        self, path: PathLike, why: str, hint: str = "give a regular file, and see who made it"
    ) -> None:
        self.path = os.fspath(path)
        self.why = why
        super().__init__(f"cannot read {self.path} ({why})", hint)


class SpoolDamaged(PmlkitError):
    """A spool cannot be read any further. Attributes: `path`, `offset` (bytes), `why`."""

    def __init__(
        self,
        path: PathLike,
        offset: int,
        why: str,
        hint: str = "`pmlkit ingest` keeps what comes before it",
    ) -> None:
        self.path = os.fspath(path)
        self.offset = offset
        self.why = why
        super().__init__(f"the spool {self.path} is damaged at byte {offset} ({why})", hint)


class NotUnderstood(PmlkitError):
    """A stream says what cannot be, or what only a later pmlkit knows. Attribute: `why`.

    Raised by what takes a frame apart; the reader of the spool adds which frame it was.
    """

    def __init__(self, why: str) -> None:
        self.why = one_line(why)[:_LONGEST_WHY]
        super().__init__(self.why, "an update of pmlkit may know it")


class OutputExists(PmlkitError):
    """The output's name is taken. Attribute: `path`."""

    def __init__(self, path: PathLike) -> None:
        self.path = os.fspath(path)
        super().__init__(f"{self.path} exists already", "give another name, or remove it first")


class OutputError(PmlkitError):
    """The output cannot be written. Attributes: `path`, `why`."""

    def __init__(
        self, path: PathLike, why: str, hint: str = "free some space there or choose another place"
    ) -> None:
        self.path = os.fspath(path)
        self.why = why
        super().__init__(f"cannot write {self.path} ({why})", hint)


class MissingTool(PmlkitError):
    """A program is not installed. Attributes: `tool`, `package` (of Debian)."""

    def __init__(self, tool: str, package: str) -> None:
        self.tool = tool
        self.package = package
        super().__init__(f"{tool} is not installed", f"apt-get install {package}")


class WorkloadError(PmlkitError):
    """A workload does not exist or cannot be built. Attributes: `name`, `why`."""

    def __init__(
        self, name: PathLike, why: str, hint: str = "`pmlkit record --list` names the workloads"
    ) -> None:
        self.name = os.fspath(name)
        self.why = why
        super().__init__(f"the workload {self.name} cannot be run ({why})", hint)


class GuestError(PmlkitError):
    """The guest panicked, hung or died. Attributes: `why`, `console_tail` (its last output)."""

    def __init__(self, why: str, console_tail: str = "", hint: str = "") -> None:
        self.why = why
        self.console_tail = console_tail
        lines = [line for line in str(console_tail).splitlines() if line.strip()]
        last = f"; its last words were: {lines[-1].strip()[:160]}" if lines else ""
        super().__init__(
            f"the guest failed ({why}{last})",
            hint or "give it more memory or a longer time limit, or look at its console",
        )


class ResolutionError(PmlkitError):
    """A window is below, or no multiple of, the trace's resolution, or longer than the trace.

    Attributes: `asked` and `resolution` (both as given: ns, or text such as ``"10ms"``; of a
    window that is too long the length of what there is).
    """

    def __init__(self, asked: int | str, resolution: int | str) -> None:
        self.asked = asked
        self.resolution = resolution
        super().__init__(
            f"a window of {_ns(asked)} cannot be had from a trace that resolves {_ns(resolution)}",
            f"ask for a multiple of {_ns(resolution)}, or record with a shorter --window",
        )

    @classmethod
    def of(cls, asked: int | str, resolution: int | str, what: str, hint: str) -> Self:
        """Make one that says something else."""
        error = cls(asked, resolution)
        PmlkitError.__init__(error, what, hint)
        return error


class UsageError(PmlkitError):
    """The call itself is wrong (exit code 2)."""


class UnknownName(UsageError):
    """There is nothing of this kind with this name. Attributes: `name`, `known` (the names)."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.name, self.known = name, tuple(known)
        near = closest(name, self.known)
        meant = f"do you mean {near!r}? If not, " if near else ""
        hint = f"{meant}choose from {', '.join(self.known)}"
        super().__init__(f"there is no {kind} {name!r}", hint)


class NeedsError(PmlkitError):
    """An analysis needs something that the trace has not. Attributes: `trace` (path), `what`."""

    def __init__(
        self,
        trace: PathLike,
        what: str,
        hint: str = "use a trace that was collected with it",
    ) -> None:
        self.trace = os.fspath(getattr(trace, "path", trace))
        self.what = what
        super().__init__(f"the trace {self.trace} has no {what}", hint)


def _ns(value: int | str) -> str:
    return f"{value} ns" if isinstance(value, int) else str(value)


_ADVICE = {
    errno.ENOSPC: ("no space left", "free some space there or choose another place"),
    errno.EDQUOT: (
        "the quota is used up",
        "free some space there or choose another place",
    ),
    errno.EFBIG: (
        "the file is as large as a file may be here",
        "raise the limit (`ulimit -f`) or choose another place",
    ),
    errno.EACCES: ("not allowed", "choose a folder that you may write to"),
    errno.EPERM: ("not allowed", "choose a folder that you may write to"),
    errno.EROFS: (
        "the file system is read-only",
        "choose a folder that you may write to",
    ),
    errno.ENOENT: ("its folder does not exist", "make the folder first"),
    errno.ENOTDIR: ("a part of its path is a file", "choose another place"),
    errno.EISDIR: ("it is a folder", "give another name"),
}


def read_error(path: PathLike, file: str, error: OSError) -> PmlkitError | TraceDamaged:
    """Turn an `OSError` met while reading a file of a trace into a `PmlkitError`.

    Parameters
    ----------
    path : path-like
        The trace, as the user gave it.
    file : str
        The file in it.
    error : OSError
        What the system said.

    Returns
    -------
    PmlkitError
        `TraceDamaged` if the file is not there (any more); to be raised ``from error``.
    """
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return TraceDamaged(path, file, "is missing")
    why = error.strerror or str(error)
    hint = "check its permissions, and the disk that it is on"
    return PmlkitError(f"cannot read {file} of the trace {os.fspath(path)} ({why})", hint)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Say whether an error means that the machine, or a limit, gives no more memory or threads."""
    said = ("Failed to launch worker thread", "can't start new thread")
    return isinstance(error, MemoryError) or any(text in str(error) for text in said)


def output_error(path: PathLike, error: OSError) -> OutputError:
    """Turn an `OSError` met while writing into an `OutputError` with fitting advice.

    Parameters
    ----------
    path : path-like
        What was being written: the final name, as the user gave it.
    error : OSError
        What the system said.

    Returns
    -------
    OutputError
        To be raised by the caller, ``from error``.
    """
    fallback = (
        error.strerror or str(error) or type(error).__name__,
        "choose another place",
    )
    why, hint = _ADVICE.get(error.errno, fallback)  # type: ignore[arg-type]
    return OutputError(path, why, hint)
