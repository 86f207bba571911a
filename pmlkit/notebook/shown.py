# SPDX-License-Identifier: Apache-2.0
"""`shown`: a table as a notebook shows it.

The head has the units. Numbers have three digits. A missing value is a dash, with the reason below
the table. Nothing is omitted or cut, and colours are those of the page.

>>> import pandas as pd
>>> from pmlkit.notebook.shown import shown
>>> from pmlkit.units import described
>>> table = pd.DataFrame({"phase": ["load", "idle"], "mean": [56.932506, float("nan")]})
>>> shown(described(table, {"mean": "MiB"}, {"mean": "no window ends in this phase"}))
phase  mean (MiB)
load         56.9
idle            –
–: no window ends in this phase
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from pmlkit.figures.notes import caption_html, links_html, paragraph, text_of
from pmlkit.figures.tables import column, heads, is_number
from pmlkit.figures.tables import table as save_table
from pmlkit.units import described, missing_notes, missing_texts, units_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pmlkit.types import PathLike

__all__ = ["NO_VALUE", "Shown", "shown"]

DASH = "\N{EN DASH}"
NO_VALUE = "no value"  # used if a table gives no reason, which it should
_LATEX_DASH = "--"
_SHORT = 24  # longest text of a cell that is not folded, characters
_CELL = "padding:.2em .6em; vertical-align:top; border-bottom:1px solid rgba(128,128,128,.35)"
_NUMBER = f"{_CELL}; text-align:right"
_TEXT = f"{_CELL}; text-align:left; white-space:normal; max-width:36em"


@dataclass(frozen=True)
class Shown:
    """A table as a notebook shows it; created by `shown`.

    Attributes
    ----------
    table : pandas.DataFrame
        What is shown.
    heads : tuple of str
        Names of the columns, with their units.
    columns : tuple of list of str
        The cells' texts, column by column.
    notes : tuple of str
        Why values are missing.
    caption : str
        The table's caption.
    files : tuple of Path
        What was written.
    """

    table: pd.DataFrame = field(repr=False)
    heads: tuple[str, ...]
    columns: tuple[list[str], ...]
    notes: tuple[str, ...] = ()
    caption: str = ""
    files: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        widths = [max(map(len, (h, *c))) for h, c in zip(self.heads, self.columns, strict=True)]
        lines = [
            "  ".join(
                text.rjust(width) if right else text.ljust(width)
                for text, width, right in zip(row, widths, self._right, strict=True)
            ).rstrip()
            for row in self._rows()
        ]
        return "\n".join([*lines, *self._below()])

    def _repr_html_(self) -> str:
        styles = [_NUMBER if right else _TEXT for right in self._right]
        head, *rows = self._rows()
        lines = [_row("th", head, styles), *(_row("td", row, styles) for row in rows)]
        body = f"<thead>{lines[0]}</thead><tbody>{''.join(lines[1:])}</tbody>"
        table = f'<table style="border-collapse:collapse; margin:0">{body}</table>'
        notes = "".join(paragraph(text_of(note)) for note in self._below())
        below = notes + caption_html(self.caption) + links_html(self.files)
        return f'<div style="overflow-x:auto">{table}</div>{below}'

    @property
    def _right(self) -> list[bool]:
        """Which columns are flush right."""
        return [is_number(dtype) for dtype in self.table.dtypes]

    def _rows(self) -> Iterator[Sequence[str]]:
        yield self.heads
        yield from zip(*self.columns, strict=True)

    def _below(self) -> Iterator[str]:
        if not len(self.table):
            yield "no rows"
        yield from (f"{DASH}: {note}" for note in self.notes)


def _row(tag: str, cells: Sequence[str], styles: Sequence[str]) -> str:
    made = (
        f'<{tag} style="{style}">{_cell_html(tag, text)}</{tag}>'
        for text, style in zip(cells, styles, strict=True)
    )
    return f"<tr>{''.join(made)}</tr>"


def _cell_html(tag: str, text: str) -> str:
    # The numbers of a cell stay together; its head may be folded.
    words = text_of(text)
    return words.replace(" ", "&nbsp;") if tag == "td" and len(text) < _SHORT else words


def shown(
    table: pd.DataFrame,
    stem: PathLike | None = None,
    caption: str = "",
    units: Mapping[str, str] | None = None,
    missing: Mapping[str, str] | None = None,
    files: Sequence[Path] = (),
) -> Shown:
    """Show a table in a notebook, and save it if a stem is given.

    Parameters
    ----------
    table : pandas.DataFrame
        A named index becomes a column; another is not shown.
    stem : path-like, optional
        Write it as ``stem.tex`` and ``stem.csv``, as `pmlkit.figures.table` does.
    caption : str
        Shown below the table, and written to the LaTeX file.
    units, missing : dict of str to str, optional
        By column: units, and why a value is missing. They add to those that the table has
        (`pmlkit.units.described`).
    files : sequence of Path
        Files that are written already, to be linked below the table.

    Raises
    ------
    pmlkit.errors.OutputError
        If the files cannot be written.
    """
    if table.index.name is not None:
        table = table.reset_index()
    reasons = {**missing_texts(table), **(missing or {})}
    table = described(table.copy(), {**units_of(table), **(units or {})}, reasons)
    cells = [column(table.iloc[:, place]) for place in range(table.shape[1])]
    return Shown(
        table=table,
        heads=tuple(heads(table)),
        columns=tuple([DASH if text == _LATEX_DASH else text for text in of] for of in cells),
        notes=tuple(missing_notes(table, reasons, NO_VALUE)),
        caption=caption,
        files=(*files, *(save_table(table, stem, caption) if stem is not None else ())),
    )
