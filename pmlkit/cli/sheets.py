# SPDX-License-Identifier: Apache-2.0
"""Tables that fit the width of a terminal: texts fold, numbers stay whole, and no cell is cut.

A text folds at spaces. A word that is longer than its column, such as the path of a recording,
folds behind a separator, so that it is readable on two lines.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len, chop_cells
from rich.table import Column, Table
from rich.text import Text

from pmlkit.errors import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console, RenderableType

__all__ = ["fold", "make_table", "put"]

_GAP = 3  # columns of the terminal between those of a table
_READABLE = 12  # that a text gets at least, if it is so long
_UNITS = r"(?:ns|us|ms|s|min|h|[KMGTP]?i?B|%)(?![\w%])"
_WORDS = re.compile(rf"(?:T = )?[-+]?[0-9][0-9.,]* {_UNITS}\S*|\S+")  # a number keeps its unit
_PIECES = re.compile(r"[^-/_.:,=]*[-/_.:,=]+|[^-/_.:,=]+")


def put(page: Console, table: Table, keys: int = 1) -> None:
    """Print a table; if it is wider than the page, its columns in parts, each after the first ones.

    No cell is cut: texts fold at words, numbers are whole. A column without any text is left out.
    """
    columns = [column for column in table.columns if max(_lengths(column))]
    least = [_least_width(column) for column in columns]
    lengths = [_lengths(column) for column in columns]
    for number, part in enumerate(_parts(least, keys, page.width)):
        if number:
            page.print()
        widths = _widths([(least[place], lengths[place]) for place in part], page.width)
        made = _of_columns(table, [columns[place] for place in part], widths)
        for line in page.render_lines(made, pad=False):
            text = Text.assemble(*((segment.text, segment.style or "") for segment in line))
            text.rstrip()
            page.print(text, no_wrap=True, crop=False)


def fold(text: str, width: int, indent: str = "") -> Iterator[str]:
    """Yield the lines of a text that is folded at words, and at separators in longer words."""
    if cell_len(text) <= width:
        return (yield text)  # with its own spaces
    line = text[: len(text) - len(text.lstrip())]
    line = line if len(line) <= width // 2 else ""
    room = max(width - max(len(indent), len(line)), 1)
    for start, piece in _pieces(_WORDS.findall(text), room):
        joined = f"{line} {piece}" if start and line.strip() else f"{line}{piece}"
        if cell_len(joined) > width and line.strip():
            yield line
            joined = f"{indent}{piece}"
        line = joined
    if line.strip():
        yield line


def _pieces(words: Iterable[str], width: int) -> Iterator[tuple[bool, str]]:
    """Yield whether a word starts, and a word or a piece of it that is not wider than `width`."""
    for word in words:
        short = cell_len(word) <= width
        parts = [word] if short else _PIECES.findall(word)
        chopped = [one for part in parts for one in chop_cells(part, width)]
        yield from ((number == 0, part) for number, part in enumerate(chopped))


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


def _widths(columns: Sequence[tuple[int, Counter[int]]], room: int) -> list[int]:
    """Return a width for each (least width, lengths of lines): the room goes where most is over."""
    widths, longest = [least for least, _ in columns], [max(lengths) for _, lengths in columns]
    left = room - sum(widths) - _GAP * (len(widths) - 1)
    if left >= sum(longest) - sum(widths):
        return longest

    def over(place: int) -> int:
        return sum(n * max(size - widths[place], 0) for size, n in columns[place][1].items())

    for _ in range(left):
        widths[max(range(len(widths)), key=over)] += 1
    for _ in range(-left):  # no room even for the least: the widest gives way
        place = max(range(len(widths)), key=widths.__getitem__)
        widths[place] = max(widths[place] - 1, 1)
    return widths


def _lengths(column: Column) -> Counter[int]:
    """Return how many lines of each length a column has."""
    texts = (column.header, *column.cells)
    return Counter(cell_len(line) for text in texts for line in _lines(text))


def _lines(cell: RenderableType) -> list[str]:
    """Return the lines of a header or a cell, as they will be printed."""
    return visible(str(cell)).replace("\t", " ").split("\n")


def _least_width(column: Column) -> int:
    """Return the width below which a column would be cut, or hard to read."""
    whole = column.cells if column.no_wrap else ()  # numbers
    texts = [column.header, *(() if column.no_wrap else column.cells)]
    words = (word for text in texts for line in _lines(text) for word in line.split())
    readable = max((min(cell_len(word), _READABLE) for word in words), default=1)
    if not column.no_wrap:
        readable = max(readable, min(max(_lengths(column)), _READABLE))
    return max(readable, *(cell_len(line) for cell in whole for line in _lines(cell)), 1)


def _of_columns(table: Table, columns: Sequence[Column], widths: Sequence[int]) -> Table:
    """Return a table of some of the columns of another, with these widths."""
    made = Table(box=table.box, pad_edge=table.pad_edge, show_edge=table.show_edge,
                 show_header=table.show_header)  # fmt: skip
    for column, width in zip(columns, widths, strict=True):
        made.add_column(_folded(column.header, width), justify=column.justify, width=width,
                        overflow="fold")  # fmt: skip
    for row in zip(*(column.cells for column in columns), strict=True):
        made.add_row(*(_folded(cell, width) for cell, width in zip(row, widths, strict=True)))
    return made


def _folded(cell: RenderableType, width: int) -> RenderableType:
    """Return a header or a cell with its lines folded, if they are wider than its column."""
    lines = _lines(cell)
    if all(cell_len(line) <= width for line in lines):
        return cell
    folded = "\n".join(part for line in lines for part in fold(line, width))
    return Text(folded, style=getattr(cell, "style", ""))


def make_table(*headers: str, right: Sequence[int] = ()) -> Table:
    """Return a table without rows; columns `right` have numbers, flush right and never folded."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, header in enumerate(headers):
        is_right = index in right  # a number, which is not folded
        table.add_column(header, justify="right" if is_right else "left", no_wrap=is_right)
    return table
