# SPDX-License-Identifier: Apache-2.0
"""The size of a figure on paper: widths of columns by venue, or a given width and height.

Letters have the same size at every width, because a figure is drawn at its printed size.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmlkit.errors import UnknownName, UsageError
from pmlkit.units import parse_inches

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["VENUES", "Size", "sized"]

# Inches of one column and of the page's text, as the venue's LaTeX class sets them: acmart
# (sigconf), IEEEtran (conference), usenix-2020-09.sty, and llncs, which has one column only.
VENUES = {
    "acm": (3.33, 7.0),
    "ieee": (3.5, 7.16),
    "usenix": (3.33, 7.0),
    "lncs": (4.8, 4.8),
}
DEFAULT = "acm"
LEAST_INCHES, MOST_INCHES = 2.0, 20.0
_WIDE_INCHES = 5.0  # from here on, panels stand side by side


@dataclass(frozen=True)
class Size:
    """The size that a user asks for.

    Attributes
    ----------
    width, height : float or None
        Inches; None: the venue's width, and the figure's own height.
    venue : str
        One of `VENUES`.
    """

    width: float | None = None
    height: float | None = None
    venue: str = DEFAULT

    @classmethod
    def of(
        cls,
        width: str | float | None = None,
        height: str | float | None = None,
        venue: str | None = None,
    ) -> Size:
        """Read a size.

        Parameters
        ----------
        width, height : str or float, optional
            ``"3.5in"``, ``"89mm"``; a number is inches.
        venue : str, optional
            One of `VENUES`.

        Raises
        ------
        UnknownName
            If there is no such venue.
        UsageError
            If a length is none, or no figure fits it.
        """
        if venue is not None and str(venue).lower() not in VENUES:
            raise UnknownName("venue", str(venue), VENUES)
        return cls(_inches(width), _inches(height), DEFAULT if venue is None else venue.lower())

    def columns(self) -> int | None:
        """Return the layout for a given width: 1 or 2 columns; None without a width."""
        return None if self.width is None else 1 + (self.width >= _WIDE_INCHES)

    def inches(self, columns: int, height: float) -> tuple[float, float]:
        """Return the width and the height of a figure of so many columns and that height."""
        width = VENUES[self.venue][columns - 1] if self.width is None else self.width
        return width, height if self.height is None else self.height


def _inches(length: str | float | None) -> float | None:
    if length is None:
        return None
    inches = parse_inches(length)
    if not LEAST_INCHES / 2 <= inches <= MOST_INCHES:
        limits = f"{LEAST_INCHES / 2:g} to {MOST_INCHES:g} inches"
        raise UsageError(f"no figure fits a side of {length}: give {limits}")
    return inches


_CURRENT: ContextVar[Size] = ContextVar("size")


def current() -> Size:
    """Return the size that the current call requests."""
    return _CURRENT.get(Size())


@contextlib.contextmanager
def sized(size: Size) -> Iterator[None]:
    """Context in which new figures have this size."""
    token = _CURRENT.set(size)
    try:
        yield
    finally:
        _CURRENT.reset(token)
