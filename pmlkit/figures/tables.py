# SPDX-License-Identifier: Apache-2.0
"""Tables for papers: LaTeX (booktabs) with the same rows as CSV next to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.files import write_files
from pmlkit.units import units_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pandas.api.extensions import ExtensionDtype

    from pmlkit.types import PathLike


__all__ = ["cell", "column", "escape", "heads", "heads_of", "latex", "read_rows", "table"]

# In characters of small print: the width of one column and of a page, the length from which a text
# is folded if the table is too wide, the gap between columns.
COLUMN_CHARS, WIDE_CHARS, LONG_CHARS, GAP_CHARS = 50, 88, 40, 3

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def table(df: pd.DataFrame, stem: PathLike, caption: str, label: str | None = None) -> list[Path]:
    r"""Write a table as ``stem.tex`` (needs only ``\usepackage{booktabs}``) and ``stem.csv``.

    Parameters
    ----------
    df : pandas.DataFrame
        The rows; its index is not written. Columns of numbers are set flush right. The LaTeX heads
        have the units (`pmlkit.units.described`); the CSV has the columns' own names.
    stem : path-like
        The files' name, with or without one of the suffixes; the folder is made when it does not
        exist.
    caption : str
        Caption; special characters of LaTeX are escaped.
    label : str, optional
        Label of the LaTeX table; ``tab:`` and the stem's name by default.

    Returns
    -------
    list of pathlib.Path
        What was written.

    Raises
    ------
    pmlkit.errors.OutputError
        If the files cannot be written.
    """
    stem = Path(stem)
    stem = stem.with_suffix("") if stem.suffix in (".tex", ".csv") else stem
    return write_files(stem.parent, files_of(df, stem.name, caption, label))


def files_of(
    df: pd.DataFrame, name: str, caption: str, label: str | None = None
) -> dict[str, bytes]:
    """Return the files that `table` writes, by name: to write several tables all or none.

    Parameters
    ----------
    df, caption, label
        As in `table`.
    name : str
        The `stem` of `table`, without a folder and a suffix.
    """
    return {
        f"{name}.tex": latex(df, caption, label or f"tab:{name}").encode(),
        f"{name}.csv": df.to_csv(index=False).encode(),
    }


def read_rows(csv: PathLike) -> pd.DataFrame:
    """Read the CSV of a `table`: "NA" or "None" may name a phase; only empty cells are missing."""
    return pd.read_csv(csv, keep_default_na=False, na_values=[""])


def latex(df: pd.DataFrame, caption: str, label: str, wide: bool = False) -> str:
    """Return the text of a booktabs table; see `table`.

    Parameters
    ----------
    df, caption, label
        As in `table`.
    wide : bool
        Let it span both columns of a page (``table*``).

    Returns
    -------
    str
        The numbers of a column have the same decimals; long texts are folded.

    Examples
    --------
    >>> import pandas as pd
    >>> from pmlkit.figures.tables import latex
    >>> print(latex(pd.DataFrame({"phase": ["read_1"], "growth": [-0.5]}), "Growth in %", "tab:g"))
    % Growth in %
    ...
        read\\_1 & $-$0.5 \\\\
    ...
    """
    cells = [column(df.iloc[:, n]) for n in range(df.shape[1])]
    boxes = _boxes(df, cells, WIDE_CHARS if wide else COLUMN_CHARS)
    rows = [_row(map(escape, heads(df)))] + [
        _row(_set(text, box) for text, box in zip(row, boxes, strict=True))
        for row in zip(*cells, strict=True)
    ]
    spec = "".join("r" if box == "r" else "l" for box in boxes)
    star = "*" * wide
    lines = [
        f"% {' '.join(caption.split())}",
        rf"\begin{{table{star}}}",
        r"  \centering",
        rf"  \caption{{{escape(caption)}}}",
        rf"  \label{{{label}}}",
        rf"  \begin{{tabular}}{{{spec}}}",
        r"    \toprule",
        f"    {rows[0]}",
        r"    \midrule",
        *(f"    {row}" for row in rows[1:]),
        r"    \bottomrule",
        r"  \end{tabular}",
        rf"\end{{table{star}}}",
    ]
    return "\n".join(lines) + "\n"


def heads(df: pd.DataFrame) -> list[str]:
    """Return the heads of a table's columns: words, and the unit of `pmlkit.units.described`.

    >>> from pmlkit.units import described
    >>> heads(described(pd.DataFrame({"start_s": [1.5], "first_uses": [0.8]}), {"start_s": "s"}))
    ['start (s)', 'first uses']
    """
    units = units_of(df)
    return [_head(str(name), units.get(str(name), "")) for name in df.columns]


def _head(name: str, unit: str) -> str:
    words = name.replace("_", " ")
    if unit:  # a name may end with the unit: "start_s"
        words = f"{words.removesuffix(f' {unit.lower()}')} ({unit})"
    return words


def heads_of(text: str) -> list[str]:
    """Return the heads of a table that `latex` wrote."""
    row = text.partition("\\toprule\n    ")[2].partition("\n")[0]
    return [_unescaped(head) for head in row.removesuffix(r" \\").split(" & ")]


def _boxes(df: pd.DataFrame, cells: list[list[str]], room: int) -> list[str]:
    """Choose how LaTeX sets each column: numbers flush right, long texts folded.

    Returns
    -------
    list of str
        ``"r"``, ``"l"``, or the width of a box.
    """
    widths = [
        GAP_CHARS + max(map(len, [head, *texts]))
        for head, texts in zip(heads(df), cells, strict=True)
    ]
    plain = ["r" if is_number(dtype) else "l" for dtype in df.dtypes]
    long = [n for n, width in enumerate(widths) if width > LONG_CHARS]
    wanted = sum(widths[n] for n in long)
    if sum(widths) <= room:
        return plain
    left = max((room - sum(widths) + wanted) / room, 0.25)
    for n in long:
        plain[n] = rf"{left * widths[n] / wanted:.2f}\linewidth"
    return plain


def _set(text: str, box: str) -> str:
    """Format a cell as LaTeX: a minus instead of a hyphen, folded text ragged."""
    if box == "r":
        return "$-$" + text[1:] if re.match(r"-[\d.]", text) else escape(text)
    if box == "l":
        return escape(text)
    return rf"\parbox[t]{{{box}}}{{\raggedright {escape(text)}\strut}}"


def column(values: pd.Series[Any]) -> list[str]:
    """Format the values of a column; floats have equally many decimals, so that they align.

    Parameters
    ----------
    values : pandas.Series

    Returns
    -------
    list of str
        The median has three digits. If that rounds many values to zero, each is formatted by
        `cell`.
    """
    if not pd.api.types.is_float_dtype(values.dtype):
        return [cell(value) for value in values]
    sizes = values.abs().astype(float)
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if sizes.empty:
        return [cell(value) for value in values]
    decimals = int(np.clip(2 - np.floor(np.log10(sizes.median())), 0, 4))
    if (sizes < 10.0**-decimals).mean() > 0.1:
        return [cell(value) for value in values]
    while decimals and np.array_equal(sizes.round(decimals), sizes.round(decimals - 1)):
        decimals -= 1
    return [cell(v) if pd.isna(v) else f"{v:,.{decimals}f}" for v in values]


def is_number(dtype: np.dtype | ExtensionDtype) -> bool:
    """Return whether a column holds numbers (booleans do not count)."""
    return pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype)


def escape(text: str) -> str:
    """Escape characters that LaTeX would interpret."""
    return "".join(_ESCAPES.get(char, char) for char in str(text))


def _unescaped(text: str) -> str:
    chars = {sequence: char for char, sequence in _ESCAPES.items()}
    return re.sub("|".join(map(re.escape, chars)), lambda found: chars[found[0]], text)


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def cell(value: object) -> str:
    """Format a value for a table: numbers short, missing values as a dash."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "--"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        return _short(float(value))
    return str(value)


def _short(value: float) -> str:
    """Format a number with three digits, and with at most four decimals."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.1f}"
    if size >= 0.01 or not size:
        return f"{value:.3g}"
    return f"{value:.2g}" if size >= 0.001 else f"{value:.1e}"
