# SPDX-License-Identifier: Apache-2.0
"""Parse and format durations, windows, sizes and counts; attach units to tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

from pmlkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import pandas as pd


__all__ = [
    "Window",
    "check_count",
    "described",
    "format_bytes",
    "format_ns",
    "missing_texts",
    "parse_duration_ns",
    "parse_inches",
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
_SIZES = "BKMGTP"
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
        return f"{self.rounds}r" if self.ns is None else format_ns(self.ns)


def parse_duration_ns(text: str) -> int:
    """Read a duration, in nanoseconds.

    Parameters
    ----------
    text : str
        A number and a unit (ns, us, ms, s, min, h): ``"250ms"``, ``"1.5 s"``.

    Raises
    ------
    UsageError
        If it is not a duration, or not a whole number of nanoseconds.

    Examples
    --------
    >>> from pmlkit.units import parse_duration_ns
    >>> parse_duration_ns("1.5ms")
    1500000
    """
    value = _scaled(text, _NS)
    if value is None:
        raise UsageError(f"{str(text)!r} is not a duration: write one as 250ms, 1.5s or 10us")
    return value


def parse_window(text: object) -> Window:
    """Read a window: a duration, or a number of rounds.

    Parameters
    ----------
    text : str, int or Window
        ``"1s"``, ``"10ms"``; ``"5r"`` is five rounds; an int is nanoseconds; a `Window` is
        returned as it is.

    Raises
    ------
    UsageError
        If it is not a window, or zero.
    """
    if isinstance(text, Window):
        return text
    if isinstance(text, int) and not isinstance(text, bool):
        return Window(ns=text)
    rounds = _scaled(text, {"r": 1})
    if rounds is not None:
        return Window(rounds=rounds)
    ns = _scaled(text, _NS)
    if ns is None:
        raise UsageError(f"{str(text)!r} is not a window: write a time as 1s or 10ms, rounds as 5r")
    return Window(ns=ns)


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
    match = _LENGTH.fullmatch(str(length).strip().lower())
    if not match:
        hint = "write one as 3.5in, 89mm, 8.9cm or 252pt"
        raise UsageError(f"{str(length)!r} is not a length: {hint}")
    return float(match[1]) / _PER_INCH[match[2] or "in"]


_LENGTH = re.compile(r"([0-9]+(?:\.[0-9]*)?)\s*(in|mm|cm|pt)?")
_PER_INCH = {"in": 1, "mm": 25.4, "cm": 2.54, "pt": 72.27}  # TeX's points


def parse_share(text: str | float) -> float:
    """Parse a share: ``"0.5%"``, or a number. As text, a bare number is a percentage, too.

    Examples
    --------
    >>> from pmlkit.units import parse_share
    >>> parse_share("0.5%"), parse_share("0.5"), parse_share(0.005)
    (0.005, 0.005, 0.005)
    """
    try:
        value = float(text.strip().removesuffix("%")) / 100 if isinstance(text, str) else text
    except ValueError:
        raise UsageError(f"{text!r} is not a share: write one as 0.5%") from None
    if not 0 < value < float("inf"):
        raise UsageError(f"a share of {text} is not possible: give more than 0%")
    return value


def check_count(name: str, value: object, of_what: str) -> None:
    """Raise a `UsageError` unless `value`, a number of `of_what`, is an integer >= 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise UsageError(f"{name} is {value!r}: give a whole number of {of_what}, 1 or more")


def format_ns(ns: float, digits: int = 6) -> str:
    """Format a duration in its largest fitting unit: ``250 ms``. With 15 digits it is exact."""
    for unit in ("h", "min", "s", "ms", "us"):
        if abs(ns) >= _NS[unit]:
            return f"{ns / _NS[unit]:.{digits}g} {unit}"
    return f"{ns:g} ns"


def format_bytes(size: float) -> str:
    """Format a size in its largest fitting unit with up to four digits: ``1.5 GiB``."""
    for power in range(len(_SIZES) - 1, 0, -1):
        if abs(size) >= 1024**power:
            return f"{size / 1024**power:.4g} {_SIZES[power]}iB"
    return f"{size:g} B"


def described(
    table: pd.DataFrame,
    units: Mapping[Any, str],
    missing: Mapping[Any, str] | str | None = None,
) -> pd.DataFrame:
    """Attach to a table what a reader needs: units, and why values are missing.

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


_UNITS, _MISSING = "units", "missing"  # of a table's `attrs`


def units_of(table: pd.DataFrame) -> dict[str, str]:
    """Return the units of a table's columns, as `described` attached them."""
    return dict(table.attrs.get(_UNITS, {}))


def missing_texts(table: pd.DataFrame) -> dict[str, str]:
    """Return why values of a table's columns are missing, as `described` attached it."""
    return dict(table.attrs.get(_MISSING, {}))


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
