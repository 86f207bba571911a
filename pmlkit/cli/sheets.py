# SPDX-License-Identifier: Apache-2.0
"""Tables that fit the width of a terminal: texts fold, numbers stay whole, and no cell is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.table import Column, Table

from pmlkit.errors import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

__all__ = ["make_table", "put"]

_GAP = 3  # columns of the terminal between those of a table
_READABLE = 12  # that a text gets at least, if it is so long


def put(page: Console, table: Table, keys: int = 1) -> None:
    """Print a table; if it is wider than the page, its columns in parts, each after the first ones.

    No cell is cut: texts fold at words, numbers are whole.
    """
    least = [_least_width(column) for column in table.columns]
    longest = [_longest(column) for column in table.columns]
    for number, part in enumerate(_parts(least, keys, page.width)):
        if number:
            page.print()
        ranges = [(least[place], longest[place]) for place in part]
        page.print(_of_columns(table, part, _widths(ranges, page.width)))


def _parts(widths: Sequence[int], keys: int, room: int) -> list[list[int]]:
    """Return the places of the columns of each part of a table; all begin with the first `keys`."""
    parts: list[list[int]] = []
    part: list[int] = []
    taken = 0
    for place, width in enumerate(widths):
        if len(part) > keys and taken + width > room:
            parts.append(part)
            part = list(range(keys))
            taken = sum(widths[key] + _GAP for key in part)
        part.append(place)
        taken += width + _GAP
    return [*parts, part]


def _widths(ranges: Sequence[tuple[int, int]], room: int) -> list[int]:
    """Return a width for each (least, longest): what is left goes where most lines are saved."""
    widths, most = [least for least, _ in ranges], [longest for _, longest in ranges]
    left = room - sum(widths) - _GAP * (len(widths) - 1)
    if left >= sum(most) - sum(widths):
        return most
    for _ in range(left):
        place = max(range(len(widths)), key=lambda one: most[one] / max(widths[one], 1))
        widths[place] += 1
    return widths


def _longest(column: Column) -> int:
    return max(cell_len(line) for line in _lines(column))


def _lines(column: Column) -> list[str]:
    """Return the lines of a column's header and cells, as they will be printed."""
    texts = [visible(str(text)) for text in (column.header, *column.cells)]
    return [line for text in texts for line in text.split("\n")]


def _least_width(column: Column) -> int:
    """Return the width below which a column would be cut, or hard to read."""
    longest = _longest(column)
    if column.no_wrap:
        return longest
    words = (word for line in _lines(column) for word in line.split())
    return max(max(map(cell_len, words), default=1), min(longest, _READABLE))


def _of_columns(table: Table, part: Sequence[int], widths: Sequence[int]) -> Table:
    """Return a table of some of the columns of another, with these widths."""
    made = Table(box=table.box, pad_edge=table.pad_edge, show_edge=table.show_edge,
                 show_header=table.show_header)  # fmt: skip
    for place, width in zip(part, widths, strict=True):
        column = table.columns[place]
        made.add_column(column.header, justify=column.justify, width=width, overflow="fold")
    for row in zip(*(table.columns[place].cells for place in part), strict=True):
        made.add_row(*row)
    return made


def make_table(*headers: str, right: Sequence[int] = ()) -> Table:
    """Return a table without rows; columns `right` have numbers, flush right and never folded."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, header in enumerate(headers):
        is_right = index in right  # a number, which is not folded
        table.add_column(header, justify="right" if is_right else "left", no_wrap=is_right)
    return table
