# SPDX-License-Identifier: Apache-2.0
"""Figures as text, for terminals: W over time, a heat map, a miss-ratio curve.

>>> import pmlkit
>>> from pmlkit.figures import terminal
>>> screen = terminal.Screen(width=60, ascii_only=True)
>>> print(terminal.draw(pmlkit.open("hotcold"), "wss", screen=screen))  # doctest: +SKIP

Lines are of braille dots, 2 by 4 in a character, and heat of shaded blocks. With `ascii_only` both
are of ASCII. Nothing is coloured, so that a pipe, a log and NO_COLOR get the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import UnknownName, one_line
from pmlkit.selection import edges

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.figures.style import Length, Time
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Floats

__all__ = ["FIGURES", "Screen", "draw", "heat", "line", "mrc", "wss"]

FIGURES = ("wss", "heat", "mrc")
HEIGHT = 16  # rows of a figure, without its axes
LEAST_WIDTH = 30
SHADES = " ░▒▓█", " .:+#"
DOTS = 2, 4  # dots of a character: columns, rows
_BRAILLE = 0x2800
_UPPER, _LOWER = 0x01 | 0x08 | 0x02 | 0x10, 0x04 | 0x20 | 0x40 | 0x80


@dataclass(frozen=True)
class Screen:
    """The place of a figure.

    Attributes
    ----------
    width : int
        Columns of the whole.
    height : int
        Rows of the figure, without its title and axis.
    ascii_only : bool
        For terminals that cannot show more.
    """

    width: int = 80
    height: int = HEIGHT
    ascii_only: bool = False


def draw(
    trace: Trace,
    figure: str,
    window: Length = None,
    start: Time = None,
    end: Time = None,
    phase: str | None = None,
    between: tuple[str, str] | None = None,
    screen: Screen = Screen(),
) -> str:
    """Draw a figure by its name.

    Parameters
    ----------
    figure : {"wss", "heat", "mrc"}
    window : str or int, optional
        T of ``"wss"``.
    start, end, phase, between
        The part of the trace: see `pmlkit.selection`.
    screen : Screen
        Its size; at least `LEAST_WIDTH` columns are taken.

    Returns
    -------
    str
        Lines without an end of line at the end.

    Raises
    ------
    UnknownName
        If there is no such figure.
    """
    start, end = edges(start, end, phase, between)
    screen = replace(screen, width=max(screen.width, LEAST_WIDTH))
    if figure == "wss":
        return wss(trace, window, start, end, screen)
    if figure == "heat":
        return heat(trace, start, end, screen)
    if figure == "mrc":
        return mrc(trace, start, end, screen)
    raise UnknownName("figure for a terminal", figure, FIGURES)


def wss(
    trace: Trace,
    window: Length = None,
    start: Time = None,
    end: Time = None,
    screen: Screen = Screen(),
) -> str:
    """Draw the working set over time, of full windows; parameters as in `draw`."""
    from pmlkit import workingset
    from pmlkit.answers.wss import window_text
    from pmlkit.figures.axes import time_limits
    from pmlkit.units import format_number

    table = workingset.estimate(trace, window, "sliding", start=start, end=end)
    table = table[table["full"]]
    low, high = (edge / 1e9 for edge in time_limits(trace, start, end))
    t_s, mib = table["t_ns"].to_numpy() / 1e9, table["bytes"].to_numpy() / (1 << 20)
    if not len(table):
        return "no window is full: give a shorter T"
    name = window_text(window, table["asked_ns"].to_numpy())
    peak = int(mib.argmax())
    top, when = (format_number(values[peak], 4) for values in (mib, t_s))
    what = f"W(t, {name}), MiB: the peak is {top} at {when} s"
    drawn = line(t_s, mib, (low, high), "s", screen)
    return "\n".join([*wrap(what, screen.width), *drawn, *_phases(trace, (low, high), drawn)])


def heat(
    trace: Trace,
    start: Time = None,
    end: Time = None,
    screen: Screen = Screen(),
) -> str:
    """Draw which frames were touched when, dark where many; parameters as in `draw`."""
    from pmlkit.figures.axes import address_format
    from pmlkit.figures.heat import cells
    from pmlkit.units import format_bytes

    page_size = trace.meta.domain["page_size"]
    columns = max(screen.width - 12, 1)
    grid = cells(trace, screen.height, columns, start, end)
    if not grid.pages.size:
        return "no page is touched"
    addresses = [frame * page_size for frame in grid.first_frames.tolist()]
    show, unit = address_format(trace, max(addresses), grid.block_pages * page_size)
    # Rounds do not divide the time into as many columns as there are: each is drawn once or twice.
    column = np.arange(columns) * grid.pages.shape[1] // columns
    share = grid.pages[:, column] / grid.block_pages
    levels = np.where(share > 0, 1 + np.minimum((np.sqrt(share) * 4).astype(int), 3), 0)
    shades = SHADES[screen.ascii_only]
    rows = ["".join(shades[level] for level in row) for row in levels[::-1]]
    step = max(screen.height // 4, 1)
    labels = {row: show(addresses[-1 - row]) for row in range(0, len(rows), step)}
    limits = (grid.t_ns[0] / 1e9, grid.t_ns[-1] / 1e9)
    cell = format_bytes(grid.block_pages * page_size)
    what = (
        f"touched frames, {unit} by time; a row is {cell}; rows that nothing touched are left out"
    )
    drawn = _framed(rows, labels, limits, "s", screen.ascii_only)
    return "\n".join([*wrap(what, screen.width), *drawn, *_phases(trace, limits, drawn)])


def mrc(
    trace: Trace,
    start: Time = None,
    end: Time = None,
    screen: Screen = Screen(),
) -> str:
    """Draw the exact miss ratio of an LRU cache against its size; parameters as in `draw`."""
    from pmlkit import missratio
    from pmlkit.units import format_bytes

    curve = missratio.of_trace(trace, start=start, end=end)
    if not curve.uses:
        return "no page is used"
    table = curve.thinned(1024).to_frame()
    page_mib = trace.meta.domain["page_size"] / (1 << 20)
    sizes, ratio = table["pages"].to_numpy() * page_mib, table["miss_ratio"].to_numpy()
    knee = curve.knee()
    size = format_bytes(knee * trace.meta.domain["page_size"])
    what = f"miss ratio against memory: {curve.at(knee):.3g} at the knee, {size}"
    limits = (0.0, float(sizes[-1]))
    steps = np.repeat(sizes, 2)[1:], np.repeat(ratio, 2)[:-1]
    drawn = line(*steps, limits, "MiB", screen, top=1.0)
    return "\n".join([*wrap(what, screen.width), *drawn])


def line(
    x: Sequence[float] | Floats,
    y: Sequence[float] | Floats,
    limits: tuple[float, float],
    unit: str,
    screen: Screen = Screen(),
    top: float | None = None,
) -> list[str]:
    """Draw a line over an axis from 0.

    Parameters
    ----------
    x, y : sequence of float
    limits : (float, float)
        Limits of the x axis.
    unit : str
        Unit of x.
    screen : Screen
    top : float, optional
        The upper end of the y axis; default: the highest y.

    Returns
    -------
    list of str
        The rows, and the axis.
    """
    from plotille import Canvas

    from pmlkit.figures.explorer import thin

    x, y, height = np.asarray(x, float), np.asarray(y, float), screen.height
    top = top or max(float(np.max(y, initial=0)), 1e-9)
    labels = {0: f"{top:.4g}", height // 2: f"{top * (1 - (height // 2) / height):.4g}"}
    labels[height - 1] = "0"
    columns = max(screen.width - max(map(len, labels.values())) - 3, 1)
    low, high = limits[0], max(limits[1], limits[0] + 1e-9)
    # The limits of a canvas are its outer dots.
    canvas = Canvas(columns, height, low, 0.0, high, top)
    kept = thin(y, columns * DOTS[0])
    for at in range(len(kept) - 1):
        canvas.line(x[kept[at]], y[kept[at]], x[kept[at + 1]], y[kept[at + 1]])
    if len(kept) == 1:
        canvas.point(x[0], y[0])
    rows = [row.replace(chr(_BRAILLE), " ") for row in canvas.plot().splitlines()]
    if screen.ascii_only:
        rows = ["".join(map(_ascii, row)) for row in rows]
    return _framed([row.ljust(columns) for row in rows], labels, limits, unit, screen.ascii_only)


def _ascii(character: str) -> str:
    """Return an ASCII character that looks like a braille one."""
    dots = ord(character) - _BRAILLE
    if not 0 < dots < 256:
        return character
    upper, lower = dots & _UPPER, dots & _LOWER
    return ":" if upper and lower else "'" if upper else "."


def _framed(
    rows: Sequence[str],
    labels: dict[int, str],
    limits: tuple[float, float],
    unit: str,
    ascii_only: bool,
) -> list[str]:
    """Return rows with labels on their left, and an axis with ticks below."""
    corner, side, base, tick = _ASCII_FRAME if ascii_only else _FRAME
    room, columns = max(map(len, labels.values())), max(map(len, rows))
    framed = [f"{labels.get(number, ''):>{room}} {side}{row}" for number, row in enumerate(rows)]
    axis, names = [base] * columns, [" "] * (columns + 2)
    (low, high), free = limits, 0
    for value in _ticks(low, high, columns // 12 + 1):
        place = _column((value - low) / max(high - low, 1e-9), columns)
        text = f"{value:g}"
        begin = max(place - len(text) // 2, 0)
        if begin >= free and begin + len(text) + len(unit) <= columns:
            axis[place] = tick
            names[begin : begin + len(text)] = text
            free = begin + len(text) + 1
    if free + len(unit) <= columns:
        names[columns - len(unit) : columns] = unit
    indent = " " * room
    return [
        *(row.rstrip() for row in framed),
        f"{indent} {corner}{''.join(axis)}",
        f"{indent}  {''.join(names).rstrip()}",
    ]


_FRAME, _ASCII_FRAME = ("└", "│", "─", "┴"), ("+", "|", "-", "+")


def _column(share: float, columns: int) -> int:
    """Return the column at a share of the width, rounded as the canvas rounds its dots."""
    return min(round(share * columns * DOTS[0]) // DOTS[0], columns - 1)


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Return 1, 2 or 5 times a power of ten and its multiples, about `most` between two limits.

    >>> _ticks(0, 17.4, 5)
    [0.0, 5.0, 10.0, 15.0]
    """
    span = max(high - low, 1e-9)
    rough = span / max(most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough)
    first, last = math.ceil(low / step), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _phases(trace: Trace, limits: tuple[float, float], drawn: Sequence[str]) -> list[str]:
    """Return a line with the names of phases, each at its start; no line without phases."""
    phases = trace.phases
    if not len(phases):
        return []
    indent = len(drawn[-2]) - len(drawn[-2].lstrip()) + 1
    columns = len(drawn[-2]) - indent
    low, high = limits
    text = [" "] * columns
    starts = np.clip(phases["t_ns"].to_numpy() / 1e9, low, high)
    places = [_column(share, columns) for share in (starts - low) / max(high - low, 1e-9)]
    ends = [*places[1:], columns]
    for name, begin, end in zip(phases["name"], places, ends, strict=True):
        shown = f"|{one_line(name)}"[: max(end - begin, 0)]
        text[begin : begin + len(shown)] = shown
    return [f"{' ' * indent}{''.join(text)}".rstrip()]
