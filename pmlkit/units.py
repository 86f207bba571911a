# SPDX-License-Identifier: Apache-2.0
"""Parse and format durations, windows, sizes, shares and counts; attach units to tables.

One rule holds for times. A text has its unit: ``"250ms"``. Only ``"0"`` needs none. An integer, of
Python or numpy, is nanoseconds, as in all columns whose names end in ``_ns``. Where a trace is
read, an integer that is shorter than a round is refused, as its unit was forgotten. A float is
refused. A text of the command line is never an integer, so there every time has its unit.

What is measured is written with three digits; what was asked for (a T) is written exactly.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import TYPE_CHECKING

from pmlkit.errors import UsageError, argument

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import UnionType
    from typing import Any

    import pandas as pd


__all__ = [
    "Window",
    "check_count",
    "check_memory_mib",
    "check_path",
    "check_type",
    "described",
    "exact_bytes",
    "exact_ns",
    "format_bytes",
    "format_ns",
    "format_number",
    "format_share",
    "is_bare",
    "missing_notes",
    "missing_texts",
    "parse_duration_ns",
    "parse_inches",
    "parse_ratio",
    "parse_share",
    "parse_size_bytes",
    "parse_window",
    "units_of",
]

_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # the micro sign; `_scaled` converts the Greek letter to it
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_BARE = {"": 1}
_TIMES = {unit: ns for unit, ns in _NS.items() if unit != "µs"}
_SIZES = "BKMGTP"
_MEMORY = {f"{letter}iB" if power else "B": 1024**power for power, letter in enumerate(_SIZES)}
_NUMBER = re.compile(r"([0-9]+)(?:\.([0-9]+))?\s*([a-zµ]*)")


@dataclass(frozen=True)
class Window:
    """A window T, either in time or in rounds of the trace.

    Attributes
    ----------
    ns : int or None
        Length in nanoseconds.
    rounds : int or None
        Length in rounds.
    """

    ns: int | None = None
    rounds: int | None = None

    def __post_init__(self) -> None:
        if (self.ns is None) == (self.rounds is None):
            raise UsageError("a Window is either in ns or in rounds: give exactly one of the two")
        if self.length < 1:
            raise UsageError(f"a window of {self} is empty: give more than 0, such as 1s or 5r")

    @property
    def length(self) -> int:
        """Length in ns or rounds, whichever is given."""
        return (self.rounds or 0) if self.ns is None else self.ns

    def __str__(self) -> str:
        return f"{self.rounds}r" if self.ns is None else exact_ns(self.ns)


def parse_duration_ns(time: str | int) -> int:
    """Read a duration, in nanoseconds.

    Parameters
    ----------
    time : str or int
        A number and a unit (ns, us, ms, s, min, h): ``"250ms"``, ``"1.5 s"``; ``"0"`` needs no
        unit. An integer is nanoseconds.

    Raises
    ------
    UsageError
        If it is not a duration, or not a whole number of nanoseconds.

    Examples
    --------
    >>> from pmlkit.units import parse_duration_ns
    >>> parse_duration_ns("1.5ms"), parse_duration_ns("0"), parse_duration_ns(1_500_000)
    (1500000, 0, 1500000)
    """
    ns = _whole_ns(time)
    if ns is None:
        why = "is not a duration: write one as 250ms, 1.5s or 10us"
        raise UsageError(f"{time!r} {_without_unit(time, 'ms', 's') or why}")
    return ns


def parse_window(text: object) -> Window:
    """Read a window: a duration, or a number of rounds.

    Parameters
    ----------
    text : str, int or Window
        ``"1s"``, ``"10ms"``; ``"5r"`` is five rounds; an integer is nanoseconds; a `Window` is
        returned as it is.

    Raises
    ------
    UsageError
        If it is not a window, or zero.
    """
    if isinstance(text, Window):
        return text
    rounds = _scaled(text, {"r": 1})
    if rounds is not None:
        return Window(rounds=rounds)
    ns = _whole_ns(text)
    if ns is None:
        why = "is not a window: write a time as 1s or 10ms, rounds as 5r"
        raise UsageError(f"{text!r} {_without_unit(text, 'ms', 's', 'r (rounds)') or why}")
    return Window(ns=ns)


def is_bare(time: object) -> bool:
    """Return whether a time is an integer, so nanoseconds: perhaps its unit was forgotten."""
    return isinstance(time, Integral) and not isinstance(time, bool)


def parse_size_bytes(text: str, bare: str = "B") -> int:
    """Read a size, in bytes. K, M, G, T, P are powers of 1024, whether written M, MB or MiB.

    QEMU and Xen read ``256M`` in this way, and memory consists of whole pages.

    Parameters
    ----------
    text : str
        ``"256M"``, ``"400MB"``, ``"1.5GiB"``.
    bare : str
        Unit of a number without one: ``"B"``, ``"M"``...

    Raises
    ------
    UsageError
        If it is not a size, or not a whole number of bytes.
    """
    units = {"b": 1, "": 1024 ** _SIZES.index(bare)}
    for power, letter in enumerate(_SIZES.lower()[1:], start=1):
        units |= dict.fromkeys((letter, f"{letter}b", f"{letter}ib"), 1024**power)
    value = _scaled(text, units)
    if value is None:
        raise UsageError(f"{str(text)!r} is not a size: write one as 256M, 400MB or 1.5GiB")
    return value


def parse_inches(length: str | float) -> float:
    """Read a length on paper, in inches: ``"3.5in"``, ``"89mm"``; a bare number is inches.

    Raises
    ------
    UsageError
        If it is not a length.

    Examples
    --------
    >>> from pmlkit.units import parse_inches
    >>> parse_inches("3.5in"), parse_inches("25.4 mm"), parse_inches(7)
    (3.5, 1.0, 7.0)
    """
    if isinstance(length, float | int) and not isinstance(length, bool):
        return float(length)
    match = _LENGTH.fullmatch(str(length).strip().lower())
    if not match:
        hint = "write one as 3.5in, 89mm, 8.9cm or 252pt"
        raise UsageError(f"{str(length)!r} is not a length: {hint}")
    return float(match[1]) / _PER_INCH[match[2] or "in"]


_LENGTH = re.compile(r"([0-9]+(?:\.[0-9]*)?)\s*(in|mm|cm|pt)?")
_PER_INCH = {"in": 1, "mm": 25.4, "cm": 2.54, "pt": 72.27}  # TeX's points


def parse_share(share: str | float) -> float:
    """Read a share of a whole: ``"0.5%"``, or a number. As text, a bare number is a percentage.

    Raises
    ------
    UsageError
        If it is not a share, not more than 0, or more than the whole.

    Examples
    --------
    >>> from pmlkit.units import parse_share
    >>> parse_share("0.5%"), parse_share("0.5"), parse_share(0.005)
    (0.005, 0.005, 0.005)
    """
    is_text = isinstance(share, str)
    value = _number(share, percent=is_text)
    if value is None:
        raise UsageError(f"{share!r} is not a share: write one as 0.5%")
    if not 0 < value <= 1:
        what = f"a share of {format_share(value)} is not possible"
        raise UsageError(f"{what}: give more than 0 %, and at most 100 %")
    return value


def parse_ratio(ratio: str | float) -> float:
    """Read a ratio from 0 to 1: a number, or a percentage with its sign.

    Raises
    ------
    UsageError
        If it is not a ratio.

    Examples
    --------
    >>> from pmlkit.units import parse_ratio
    >>> parse_ratio("0.25"), parse_ratio(1)
    (0.25, 1.0)
    """
    value = _number(ratio, percent=False)
    if value is None or not 0 <= value <= 1:
        raise UsageError(f"{ratio!r} is not a ratio: write one from 0 to 1, or as 10%")
    return value


def _number(text: object, percent: bool) -> float | None:
    """Return a finite number, or None; with a percent sign, or `percent`, a hundredth of it."""
    value = math.nan
    if isinstance(text, bool):
        return None
    if isinstance(text, str):
        if match := _REAL.fullmatch(text.strip().lower()):
            value = float(match[1]) / (100 if match[2] or percent else 1)
    elif isinstance(text, Real):
        value = float(text)
    return value if math.isfinite(value) else None


_REAL = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]{1,3})?)\s*(%?)")


def check_count(name: str, value: object, of_what: str) -> None:
    """Raise a `UsageError` unless `value`, a number of `of_what`, is an integer >= 1 of 64 bits."""
    if not is_bare(value) or value < 1:  # type: ignore[operator]
        raise UsageError(f"{name} is {value!r}: give a whole number of {of_what}, 1 or more")
    if value > _MOST:  # type: ignore[operator]
        raise UsageError(f"{name} is {value}, too large: give at most {_MOST:,} {of_what}")


_MOST = (1 << 63) - 1  # of numpy's integers


def check_type(
    name: str, value: object, types: type | tuple[type, ...] | UnionType, what: str
) -> None:
    """Raise a `UsageError` unless the argument `name` is of one of the types; `what` names them."""
    if not isinstance(value, types):
        raise UsageError(f"{argument(name)} is {value!r}: give {what}")


def check_path(name: str, value: object) -> None:
    """Raise a `UsageError` unless the argument `name` is a path."""
    check_type(name, value, str | os.PathLike, "a path, as a text or a Path")


def check_memory_mib(memory_mib: int, limits: tuple[int, int], where: str) -> None:
    """Raise a `UsageError` unless a guest's memory, MiB, is within the limits of what runs it."""
    low, high = limits
    if not low <= memory_mib <= high:
        size, least, most = (exact_bytes(mib << 20) for mib in (memory_mib, low, high))
        what = f"{where} cannot run a guest with {size} of memory"
        raise UsageError(what, f"give it {least} to {most}")


def format_ns(ns: float) -> str:
    """Format a duration in its largest fitting unit, with three digits: ``12.3 ms``."""
    return _in_unit(ns, _TIMES)


def exact_ns(ns: int) -> str:
    """Format a duration so that it reads back as the same: ``1.25 s``, ``90 s``, ``2 min``.

    Days and more may lose their nanoseconds: there are 15 digits.
    """
    for unit in ("h", "min"):
        if ns and ns % _NS[unit] == 0:
            return f"{ns // _NS[unit]} {unit}"
    for unit in ("s", "ms", "us"):
        if abs(ns) >= _NS[unit]:
            return f"{ns / _NS[unit]:.15g} {unit}"
    return f"{ns:g} ns"


def format_bytes(size: float) -> str:
    """Format a size in its largest fitting unit, with three digits: ``1.5 GiB``."""
    return _in_unit(size, _MEMORY)


def exact_bytes(size: int) -> str:
    """Format a size in the largest unit of which it is a multiple: ``1536 MiB``."""
    powers = [power for power in range(1, len(_SIZES)) if size and size % 1024**power == 0]
    power = max(powers, default=0)
    return f"{size // 1024**power} {_SIZES[power]}{'iB' if power else ''}"


def format_share(share: float, digits: int = 3) -> str:
    """Format a share of a whole in percent, with a space before the sign.

    Parameters
    ----------
    digits : int
        Fewer than three for what is not known as well, such as a prediction.
    """
    return f"{format_number(100 * share, digits)} %"


def _in_unit(value: float, units: Mapping[str, int]) -> str:
    """Format a value in the largest unit that it reaches once rounded: 999.9 ms are ``1 s``.

    Parameters
    ----------
    units : dict of str to int
        Sizes, ascending, the first of which is 1.
    """
    for (unit, size), limit in zip(units.items(), [*units.values(), math.inf][1:], strict=True):
        number = format_number(value / size)
        text = f"{number} {unit}"
        if not abs(float(number)) * size >= limit:  # also if it is no number
            break
        value = math.copysign(max(abs(value), limit), value)
    return text


def format_number(value: float, digits: int = 3) -> str:
    """Format a number with so many digits, or all those before the point, without an exponent."""
    if abs(value) >= 10**digits - 0.5:
        return f"{value:.0f}"
    text = f"{value:.{digits}g}"
    return f"{Decimal(text):f}" if "e" in text else text  # small ones without an exponent


def described(
    table: pd.DataFrame,
    units: Mapping[Any, str],
    missing: Mapping[Any, str] | str | None = None,
) -> pd.DataFrame:
    """Attach units, and reasons for missing values, to a table.

    Parameters
    ----------
    table : pandas.DataFrame
        Changed in place: its `attrs`.
    units : dict of str to str
        By column: ``"MiB"``, ``"%"``.
    missing : dict of str to str, or str
        By column, or of all columns: why a cell may have no value.

    Returns
    -------
    pandas.DataFrame
        The table.
    """
    reasons = dict.fromkeys(table.columns, missing) if isinstance(missing, str) else missing
    table.attrs |= {_UNITS: dict(units), _MISSING: dict(reasons or {})}
    return table


_UNITS, _MISSING = "units", "missing"  # keys of a table's `attrs`


def units_of(table: pd.DataFrame) -> dict[str, str]:
    """Return the units of a table's columns, as `described` attached them."""
    return dict(table.attrs.get(_UNITS, {}))


def missing_texts(table: pd.DataFrame) -> dict[str, str]:
    """Return the reasons for missing values by column, as `described` attached them."""
    return dict(table.attrs.get(_MISSING, {}))


def missing_notes(
    table: pd.DataFrame, reasons: Mapping[str, str], otherwise: str = ""
) -> list[str]:
    """Return why values are missing, each reason once, with its columns if reasons differ.

    Parameters
    ----------
    table : pandas.DataFrame
    reasons : dict of str to str
        By column, as `missing_texts` returns them.
    otherwise : str
        The reason for the other columns; empty: these get no note.
    """
    columns: dict[str, list[str]] = {}
    for place, name in enumerate(map(str, table.columns)):
        why = reasons.get(name, otherwise)
        if why and table.iloc[:, place].isna().any():
            columns.setdefault(why, []).append(name.replace("_", " "))
    if len(columns) == 1:
        return list(columns)
    return [f"{why} ({', '.join(names)})" for why, names in columns.items()]


def _without_unit(text: object, *units: str) -> str:
    """Return what is wrong with a text that is a number alone; nothing for others."""
    match = _NUMBER.fullmatch(text.strip()) if isinstance(text, str) else None
    if not match or match[3]:
        return ""
    examples = [f"{match[0]}{unit}" for unit in units]
    return f"has no unit: write it as {', '.join(examples[:-1])} or {examples[-1]}"


def _whole_ns(time: object) -> int | None:
    """Return a duration in nanoseconds; None if it is none."""
    if is_bare(time):
        return int(time) if 0 <= time < 1 << 63 else None  # type: ignore[call-overload,operator]
    return 0 if _scaled(time, _BARE) == 0 else _scaled(time, _NS)


def _scaled(text: object, units: Mapping[str, int]) -> int | None:
    """Return the integer number of base units, or None. Exact: 0.1 s is 10**8 ns."""
    match = _NUMBER.fullmatch(str(text).strip().lower().replace("μ", "µ"))
    if not match or match[3] not in units:
        return None
    fraction = match[2] or ""
    value, rest = divmod(int(match[1] + fraction) * units[match[3]], 10 ** len(fraction))
    if value >= 1 << 63:
        raise UsageError(f"{text!r} is more than 64 bits can hold: give less")
    return None if rest else value
