# SPDX-License-Identifier: Apache-2.0
"""Tables for papers: LaTeX (booktabs) with the same rows as CSV beside it."""

from pathlib import Path

import numpy as np
import pandas as pd

from pmlkit.style_mpl import write_files

__all__ = ["cell", "escape", "latex", "table"]

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


def table(df, stem, caption, label=None):
    r"""Write a table as ``stem.tex`` (needs only ``\usepackage{booktabs}``) and ``stem.csv``.

    Parameters
    ----------
    df : pandas.DataFrame
        The rows; its index is not written. Columns of numbers are set flush right.
    stem : path-like
        The files' name without its suffix; the folder is made when it does not exist.
    caption : str
        Text: what LaTeX would take as commands is escaped.
    label : str, optional
        Of the LaTeX table; ``tab:`` and the stem's name by default.

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
    files = {
        f"{stem.name}.tex": latex(df, caption, label or f"tab:{stem.name}").encode(),
        f"{stem.name}.csv": df.to_csv(index=False).encode(),
    }
    return write_files(stem.parent, files)


def latex(df, caption, label):
    """Return the text of a booktabs table; see `table`."""
    spec = "".join("r" if is_number(dtype) else "l" for dtype in df.dtypes)
    rows = [_row(map(str, df.columns))] + [_row(map(cell, row)) for row in df.itertuples(False)]
    lines = [
        f"% {' '.join(caption.split())}",
        r"\begin{table}",
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
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def is_number(dtype):
    """Say whether a column holds numbers (yes and no are none)."""
    return pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype)


def escape(text):
    """Escape what LaTeX would take as a command."""
    return "".join(_ESCAPES.get(char, char) for char in str(text))


def _row(cells):
    return " & ".join(escape(cell) for cell in cells) + r" \\"


def cell(value):
    """Write a value as a table shows it: numbers short, what is missing as a dash."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "--"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
