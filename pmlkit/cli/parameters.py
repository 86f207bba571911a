# SPDX-License-Identifier: Apache-2.0
"""Types of options and arguments: they read texts of the command line, and refuse wrong ones.

What a text means is decided in `pmlkit.units`. A number is finite, a time has its unit, and only
where the help says so is zero a value.
"""

from __future__ import annotations

import glob
import math
import os
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from pmlkit.errors import UsageError, closest

if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "ABOVE_0",
    "DURATION",
    "DURATION_TEXT",
    "DURATION_TEXTS",
    "KINDS",
    "LENGTH",
    "MEMORY",
    "MEMORY_OR_0",
    "NAME",
    "NUMBER",
    "PAGES",
    "PATH",
    "RATIO",
    "SETTING",
    "SHARE",
    "SIZE",
    "SIZE_OR_0",
    "TIME",
    "TRACE",
    "WINDOW",
    "Ratio",
    "TracePath",
]


class _Parsed(click.ParamType):  # type: ignore[type-arg]
    """A text that a function of `pmlkit.units` reads.

    Parameters
    ----------
    name : str
        In the help.
    function : str
        The function's name: `units` is imported when a text is read.
    zero : bool
        Whether 0 is a value.
    """

    def __init__(self, name: str, function: str, zero: bool = False, **how: str) -> None:
        self.name, self._function, self._zero, self._how = name, function, zero, how

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        from pmlkit import units

        try:
            number = getattr(units, self._function)(value, **self._how)
        except UsageError as error:
            self.fail(str(error), param, ctx)
        if number == 0 and not self._zero:
            self.fail(f"{value!r} is not possible: give more than 0", param, ctx)
        return number


class _Unread(click.ParamType):  # type: ignore[type-arg]
    """A duration, or several with commas between, that stays a text."""

    name = "time"

    def __init__(self, several: bool = False) -> None:
        self._several = several

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        for text in value.split(",") if self._several else [value]:
            DURATION.convert(text, param, ctx)
        return value


class _Time(click.ParamType):  # type: ignore[type-arg]
    """A time of a trace: a duration or ``mark:PHASE``; stays a text, which has its unit."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from pmlkit.trace.annotation import is_named

        if not is_named(value):
            _SINCE_START.convert(value, param, ctx)
        return value


class _Memory(_Parsed):
    """Guest memory as a number of MiB, or a size with its unit; becomes MiB."""

    def __init__(self, zero: bool = False) -> None:
        super().__init__("MiB", "parse_size_bytes", zero, bare="M")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        size = super().convert(value, param, ctx)
        if not isinstance(value, str):
            return size
        if size % (1 << 20):
            self.fail(f"{value!r} is not a whole number of MiB", param, ctx)
        return size >> 20


class _Pages(_Parsed):
    """The size of a page; ``none`` becomes 0."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return 0 if value == "none" else super().convert(value, param, ctx)


class _Number(click.FloatRange):
    """A finite number within a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class Ratio(_Parsed):
    """A ratio from `low` to `high`: a number, or a share in percent."""

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__("ratio", "parse_ratio", zero=True)
        self._low, self._high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        ratio = super().convert(value, param, ctx)
        if not self._low <= ratio <= self._high:
            self.fail(f"{value!r} is not from {self._low:g} to {self._high:g}", param, ctx)
        return ratio


class _Name(click.ParamType):  # type: ignore[type-arg]
    """A name of a machine or VM, which is not empty: ``--host ""`` must not mean this machine."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not value.strip():
            self.fail("the name is empty", param, ctx)
        return value


class _Path(click.Path):
    """A path, which is not empty: an unset variable of a script must not pass as no path at all.

    Nor is it ``-``, which means standard input or output elsewhere, and would be a file here.
    """

    def __init__(self) -> None:
        # An unreadable path is not wrong usage (exit code 2): opening it raises the error.
        super().__init__(readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty", param, ctx)
        if value == "-":
            why = "standard input and output are not supported: give a file"
            self.fail(f"{why} (./- if it has this name)", param, ctx)
        return super().convert(value, param, ctx)


class TracePath(_Path):
    """A trace: its path or, if nothing is there, the name of a bundled one.

    Every argument that names a trace is of this type. Names with a suffix in `others` are files of
    another kind, which the command recognises.
    """

    name = "trace"

    def __init__(self, others: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._others = others

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from pmlkit.errors import TraceNotFound
        from pmlkit.recordings import bundled, find

        if (
            not value
            or not isinstance(value, str)
            or os.path.lexists(value)
            or value.endswith(self._others)
        ):
            return super().convert(value, param, ctx)
        known = bundled()
        if value in known:
            return str(bundled(value))
        if near := closest(value, known):
            raise TraceNotFound(value, f"do you mean the bundled {near!r}?")
        return super().convert(str(find(value)), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from pmlkit.recordings import bundled

        known = [name for name in bundled() if incomplete and name.startswith(incomplete)]
        own = sorted(glob.glob(f"{glob.escape(incomplete)}*.trace"))
        items = [CompletionItem(name) for name in [*own, *known]]
        return items or super().shell_complete(ctx, param, incomplete)


class _Kinds(click.ParamType):  # type: ignore[type-arg]
    """Kinds of use, as words with commas between or as letters; stays a text."""

    name = "kinds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from pmlkit.trace.kinds import parse_kinds

        try:
            parse_kinds(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)
        return value


class _Setting(click.ParamType):  # type: ignore[type-arg]
    """``name=value``; becomes the pair."""

    name = "name=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        name, equals, text = value.partition("=")
        if not name.strip() or not equals:
            self.fail(f"{value!r}: write it as name=value", param, ctx)
        return name.strip(), text


NAME, PATH = _Name(), _Path()
DURATION = _Parsed("time", "parse_duration_ns")
_SINCE_START = _Parsed("time", "parse_duration_ns", zero=True)
DURATION_TEXT, DURATION_TEXTS = _Unread(), _Unread(several=True)
TIME = _Time()
LENGTH = _Parsed("length", "parse_inches")
WINDOW = _Parsed("window", "parse_window")
MEMORY, MEMORY_OR_0 = _Memory(), _Memory(zero=True)
SIZE, SIZE_OR_0 = (_Parsed("size", "parse_size_bytes", zero) for zero in (False, True))
PAGES = _Pages("size", "parse_size_bytes")
SHARE = _Parsed("share", "parse_share")
RATIO = Ratio()
NUMBER, ABOVE_0 = _Number(0), _Number(0, min_open=True)
SETTING = _Setting()
TRACE = TracePath()
KINDS = _Kinds()
