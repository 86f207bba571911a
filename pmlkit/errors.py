# SPDX-License-Identifier: Apache-2.0
"""The exceptions that pmlkit raises, all derived from `PmlkitError`.

A message is one line for users: ``what is wrong: what to do about it``. The path, the file in the
trace, the byte offset and the like are attributes as well, so that programs need not parse the
message. ``pmlkit.cli.main`` exits with 2 for a `UsageError`, and with 1 for the others.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import re
import sys
import traceback
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Self

    from pmlkit.types import Json, PathLike


__all__ = [
    "ClocksDiffer",
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
    "argument",
    "at_shell",
    "closest",
    "is_out_of_memory",
    "names_its_function",
    "of_argument",
    "output_error",
    "read_error",
]


_LONGEST_WHY = 300  # characters of a text that may be hostile
_LAYOUT = "\n\t"  # the only control characters that reach a terminal


def visible(text: object) -> str:
    r"""Replace control characters, except newlines and tabs, by escapes such as ``\x1b``.

    For text from an agent, a guest or a trace: on a terminal, control characters could change the
    text above, or the window's title.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _LAYOUT else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # Python's form of a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def one_line(text: object) -> str:
    """Convert any text to one line without control characters.

    A byte of a path that is not UTF-8 becomes ``\\xff``.
    """
    return visible(" ".join(str(text).split()))


def encodable(text: str) -> str:
    """Convert any text to one that UTF-8 can encode; other bytes of paths become escapes."""
    return "".join(_escaped(c) if "\ud800" <= c <= "\udfff" else c for c in text)


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is closest to a misspelt one; None if none is similar."""
    return next(iter(difflib.get_close_matches(name, list(known), 1)), None)


class PmlkitError(Exception):
    """Base class of all exceptions of pmlkit.

    Parameters
    ----------
    what : str
        What is wrong, without a full stop.
    hint : str, optional
        What to do about it.

    Attributes
    ----------
    problem, hint : str
        The two parts of the message; `hint` may be empty. Arguments are named as in Python.
    at_shell : str
        The message with arguments named as options of a command: ``--window``.

    Notes
    -----
    Texts name an argument by `argument`.
    """

    def __init__(self, what: object, hint: object = "") -> None:
        self.problem, self.hint = (
            one_line(_substituted(text, _in_python)) for text in (what, hint)
        )
        self.at_shell = _joined(
            *(one_line(_substituted(text, _as_option)) for text in (what, hint))
        )
        super().__init__(_joined(self.problem, self.hint))

    def amend(self, change: Callable[[str], str]) -> None:
        """Change the message, in Python and at the shell: to add what is kept, say."""
        self.args = (change(str(self)), *self.args[1:])
        self.at_shell = change(self.at_shell)

    def add(self, what: str) -> None:
        """Add to the message, in brackets, what is kept and what to do with it."""
        self.amend(lambda text: f"{text} ({one_line(what)})")

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: one line. With ``PMLKIT_DEBUG`` set, the whole traceback."""
        if os.environ.get("PMLKIT_DEBUG"):
            return traceback.format_exception(self)
        return [f"{type(self).__name__}: {self}"]

    def __reduce__(self) -> tuple[object, ...]:
        # By default, unpickling calls the class with the message, but subclasses have other
        # parameters. Process pools (joblib, Dask) pickle exceptions.
        return _rebuild, (type(self), self.args, self.__dict__)


def _joined(problem: str, hint: str) -> str:
    return f"{problem}: {hint}" if hint else problem


# ------------------------------------------------------------------------------
# Names of arguments in messages: Python and the command line write them differently.

_MARK = "\ue000"  # delimits the name; a private-use character that no text contains
_ARGUMENT = re.compile(f"{_MARK}([a-z_]+)(?: ([^{_MARK}]*))?{_MARK}")


def argument(name: str, value: object = None) -> str:
    """Return a placeholder for an argument, to be put into the text of an error.

    Parameters
    ----------
    name : str
        Name of the argument, as in Python.
    value : optional
        The value to give. True: a flag, which has no value at the shell.

    Examples
    --------
    >>> from pmlkit.errors import UsageError, argument
    >>> error = UsageError("no round is so short", f"give a longer {argument('window')}")
    >>> print(error)
    no round is so short: give a longer `window`
    >>> print(error.at_shell)
    no round is so short: give a longer --window
    """
    return f"{_MARK}{name}{'' if value is None else f' {value}'}{_MARK}"


def at_shell(text: str, options: Mapping[str, str]) -> str:
    """Return a text for Python as the shell writes it, with options in place of arguments.

    Parameters
    ----------
    text : str
        A note or an answer, with arguments in backquotes.
    options : dict of str to str
        The option of each argument, of the command that prints the text.

    Examples
    --------
    >>> from pmlkit.errors import at_shell
    >>> at_shell("give `window='1s'`, or another `trace`", {"window": "--window"})
    'give --window 1s, or another `trace`'
    """

    def as_option(match: re.Match[str]) -> str:
        option, value = options.get(match[1]), match[2]
        if option is None:
            return match[0]
        return option if value in (None, _FLAG) else f"{option} {value}"

    return _IN_PYTHON.sub(as_option, text)


_IN_PYTHON = re.compile(r"`([a-z_]+)(?:='?([^`']*)'?)?`")  # as `_in_python` writes it
_FLAG = str(True)


def _substituted(text: object, name: Callable[[re.Match[str]], str]) -> str:
    return _ARGUMENT.sub(name, str(text))


def _in_python(match: re.Match[str]) -> str:
    if match[2] is None:
        return f"`{match[1]}`"
    return f"`{match[1]}={match[2] if match[2] == _FLAG else repr(match[2])}`"


def _as_option(match: re.Match[str]) -> str:
    option = f"--{match[1].replace('_', '-')}"
    return option if match[2] in (None, _FLAG) else f"{option} {match[2]}"


def _rebuild(cls: type[PmlkitError], args: tuple[object, ...], facts: Json) -> PmlkitError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class TraceNotFound(PmlkitError):
    """Nothing exists at the path. Attribute: `path`."""

    def __init__(self, path: PathLike, hint: str = "") -> None:
        self.path = os.fspath(path)
        make_one = "check the path, or make one with `pmlkit record WORKLOAD -o NAME.trace`"
        super().__init__(f"there is no trace at {self.path}", hint or make_one)


class NotATrace(PmlkitError):
    """The path is not a trace. Attributes: `path`, `why`."""

    def __init__(
        self,
        path: PathLike,
        why: str,
        hint: str = "give the folder NAME.trace that pmlkit wrote",
    ) -> None:
        self.path = os.fspath(path)
        self.why = why
        super().__init__(f"{self.path} is not a pmlkit trace ({why})", hint)


class TraceVersionError(PmlkitError):
    """The trace has an unsupported format version. Attributes: `path`, `found`, `supported`."""

    def __init__(self, path: PathLike, found: object, supported: int) -> None:
        self.path = os.fspath(path)
        self.found = found
        self.supported = supported
        super().__init__(
            f"{self.path} has format version {found}, but this pmlkit reads version {supported}",
            "use the pmlkit that wrote it, or restore it from a copy if it is damaged",
        )


class TraceDamaged(PmlkitError):
    """A file of a trace is missing, changed or invalid. Attributes: `path`, `file`, `why`."""

    def __init__(self, path: PathLike, file: str, why: str) -> None:
        self.path = os.fspath(path)
        self.file = file
        self.why = why
        super().__init__(
            f"the trace {self.path} is damaged: {file} {why}",
            "restore it from a copy, or record it again",
        )


class FileRefused(PmlkitError):
    """A file is a FIFO or device, or too large to read. Attributes: `path`, `why`."""

    def __init__(
        self, path: PathLike, why: str, hint: str = "give a regular file, and check its origin"
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
        hint: str = "`pmlkit ingest` keeps the part before it",
    ) -> None:
        self.path = os.fspath(path)
        self.offset = offset
        self.why = why
        super().__init__(f"the spool {self.path} is damaged at byte {offset} ({why})", hint)


class NotUnderstood(PmlkitError):
    """A stream is invalid, or of a later version of pmlkit. Attribute: `why`.

    Raised when a frame is decoded; the reader of the spool adds the number of the frame.
    """

    def __init__(self, why: str) -> None:
        self.why = one_line(why)[:_LONGEST_WHY]
        super().__init__(self.why, "an update of pmlkit may support it")


class OutputExists(PmlkitError):
    """The output exists already. Attributes: `path`, `replaceable` (by ``overwrite=True``)."""

    def __init__(self, path: PathLike, replaceable: bool = True) -> None:
        self.path = os.fspath(path)
        self.replaceable = replaceable
        away = f"replace it by {argument('overwrite', True)}" if replaceable else "remove it first"
        hint = f"give another name, or {away}"
        super().__init__(f"{self.path} exists already", hint)


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
    """The guest panicked, hung or died. Attributes: `why`, `console_tail` (last output)."""

    def __init__(self, why: str, console_tail: str = "", hint: str = "") -> None:
        self.why = why
        self.console_tail = console_tail
        lines = [line for line in str(console_tail).splitlines() if line.strip()]
        last = f"; its last line was: {lines[-1].strip()[:160]}" if lines else ""
        super().__init__(
            f"the guest failed ({why}{last})",
            hint or "give it more memory or a longer time limit, or look at its console",
        )


class ResolutionError(PmlkitError):
    """A window T is shorter than, or not a multiple of, the resolution, or longer than the trace.

    Attributes: `asked` and `resolution`, both as given: ns, or text such as ``"10ms"``. If the
    window is too long, `resolution` is the length of the trace.
    """

    def __init__(self, asked: int | str, resolution: int | str) -> None:
        self.asked = asked
        self.resolution = resolution
        super().__init__(
            f"a window of {_ns(asked)} is not possible, because this trace resolves "
            f"{_ns(resolution)}",
            f"use a multiple of {_ns(resolution)}, or record with a shorter `pmlkit record "
            "--window`",
        )

    @classmethod
    def of(cls, asked: int | str, resolution: int | str, what: str, hint: str) -> Self:
        """Return an error with another message."""
        error = cls(asked, resolution)
        PmlkitError.__init__(error, what, hint)
        return error


class UsageError(PmlkitError):
    """The call itself is wrong (exit code 2)."""


class UnknownName(UsageError):
    """Nothing of this kind has this name. Attributes: `name`, `known` (all names).

    Parameters
    ----------
    kind : str
        "figure", "phase".
    name : str
    known : iterable of str
    whose : str
        What has the known names, if that is not pmlkit: a trace.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], whose: str = "") -> None:
        self.name, self.known = name, tuple(known)
        near = closest(str(name), self.known)
        meant = f"do you mean {near!r}? If not, " if near else ""
        hint = f"{meant}choose from {', '.join(self.known)}"
        super().__init__(
            f"{whose} has no {kind} {name!r}" if whose else f"there is no {kind} {name!r}", hint
        )


@contextlib.contextmanager
def of_argument(name: str) -> Iterator[None]:
    """Context in which the error for a wrong value begins with the name of the argument.

    Examples
    --------
    >>> from pmlkit.errors import of_argument
    >>> from pmlkit.units import parse_duration_ns
    >>> with of_argument("start"):
    ...     parse_duration_ns("soon")
    Traceback (most recent call last):
    pmlkit.errors.UsageError: `start`: 'soon' is not a duration: write one as 250ms, 1.5s or 10us
    """
    try:
        yield
    except UsageError as error:
        if type(error) is not UsageError:  # its own class names what is wrong
            raise
        raise UsageError(f"{argument(name)}: {error.problem}", error.hint) from None


def names_its_function(module: str, function: str) -> None:
    """Let a call of a module, which cannot be called, raise an error that names a function.

    Parameters
    ----------
    module : str
        ``pmlkit.period``, which users take for a function, like ``pmlkit.advise``.
    function : str
        ``pmlkit.period.advise``.
    """

    class Module(ModuleType):
        def __call__(self, *_given: object, **_named: object) -> NoReturn:
            raise UsageError(f"{module} is a module, not a function", f"call {function}")

    sys.modules[module].__class__ = Module


class NeedsError(PmlkitError):
    """The trace lacks data that an analysis needs. Attributes: `trace` (path), `what`."""

    def __init__(
        self,
        trace: PathLike,
        what: str,
        hint: str = "use a trace that was collected with it",
    ) -> None:
        self.trace = os.fspath(getattr(trace, "path", trace))
        self.what = what
        super().__init__(f"the trace {self.trace} has no {what}", hint)


class ClocksDiffer(PmlkitError):
    """A cost and a duration are of two clocks whose relation is unknown.

    Attributes: `cost`, `duration`, what the two count, in words.
    """

    def __init__(self, cost: str, duration: str) -> None:
        self.cost, self.duration = cost, duration
        hint = (
            f"give {argument('ns_per_insn')}, the length of an instruction there, or for "
            "`pmlkit period` a calibration of that host"
        )
        super().__init__(f"a cost in {cost} cannot be a share of {duration}", hint)


def _ns(value: int | str) -> str:
    return f"{value} ns" if isinstance(value, int) else str(value)


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # nothing more can be written
_ADVICE = {
    errno.ENOSPC: ("no space left", "free some space there or choose another place"),
    errno.EDQUOT: ("the quota is used up", "free some space there or choose another place"),
    errno.EFBIG: (
        "the file has reached the maximum size here",
        "raise the limit (`ulimit -f`) or choose another place",
    ),
    errno.EACCES: ("not allowed", "choose a folder that you may write to"),
    errno.EPERM: ("not allowed", "choose a folder that you may write to"),
    errno.EROFS: ("the file system is read-only", "choose a folder that you may write to"),
    errno.ENOENT: ("its folder does not exist", "make the folder first"),
    errno.ENOTDIR: ("a part of its path is a file", "choose another place"),
    errno.EISDIR: ("it is a folder", "give another name"),
}


def read_error(path: PathLike, file: str, error: OSError) -> PmlkitError:
    """Convert an `OSError` of reading the file `file` of the trace `path`.

    Returns
    -------
    PmlkitError
        To be raised ``from error``; `TraceDamaged` if the file does not exist.
    """
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return TraceDamaged(path, file, "is missing")
    why = error.strerror or str(error)
    hint = "check its permissions and its disk"
    return PmlkitError(f"cannot read {file} of the trace {os.fspath(path)} ({why})", hint)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error means that no more memory or threads are available."""
    messages = ("Failed to launch worker thread", "can't start new thread")
    return isinstance(error, MemoryError) or any(text in str(error) for text in messages)


def output_error(path: PathLike, error: OSError) -> OutputError:
    """Convert an `OSError` of writing the output with the final name `path`."""
    fallback = (error.strerror or str(error) or type(error).__name__, "choose another place")
    why, hint = _ADVICE.get(error.errno or 0, fallback)
    return OutputError(path, why, hint)
