# SPDX-License-Identifier: Apache-2.0
"""Gather an article's figures and tables from the runs of an experiment.

Files that a run's ``gather`` names are copied to the experiment's folder under the article's names:
``fig-NAME.pdf``, a ``fig-NAME.tex`` that includes it, and ``tab-NAME.tex``. Captions are the
experiment's. ``README.md`` lists them with their captions and the numbers behind them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.batch import expand
from pmlkit.files import write_files

if TYPE_CHECKING:
    import pandas as pd

    from pmlkit.batch.schema import Entry, Experiment, Place

__all__ = ["Piece", "pieces", "write"]

README = "README.md"
FIGURE, TABLE = "fig-", "tab-"
_ONE_COLUMN_PT = 4 * 72  # a figure wider than four inches spans both columns
_FIGURE = r"""% {comment}
\begin{{{environment}}}
  \centering
  \includegraphics{{{name}}}
  \caption{{{caption}}}
  \label{{{label}}}
\end{{{environment}}}
"""


@dataclass(frozen=True)
class Piece:
    """A figure or a table of the article.

    Attributes
    ----------
    name : str
        ``fig-...`` or ``tab-...``.
    job : pmlkit.batch.expand.Job
        The run that creates it.
    file : str
        Its name in the run's folder, without suffix.
    caption : str
        Text.
    columns : dict of str to str
        A table's columns and their headings; empty: all columns.
    rows : dict of str to list
        Keep only the rows whose column has one of the values.
    wide : bool
        The table spans both columns of the page (a figure's width decides for figures).
    where : tuple
        The place in the file, as `Experiment.error` takes it.
    """

    name: str
    job: expand.Job
    file: str
    caption: str
    columns: dict[str, str]
    rows: dict[str, list[object]]
    wide: bool
    where: Place

    @property
    def is_figure(self) -> bool:
        """Figures are gathered as PDF, tables as LaTeX."""
        return self.name.startswith(FIGURE)

    @property
    def label(self) -> str:
        """Return the LaTeX label, ``fig:NAME`` or ``tab:NAME``."""
        return self.name.replace("-", ":", 1)


def pieces(experiment: Experiment) -> list[Piece]:
    """List an experiment's pieces, in the order of its file.

    Raises
    ------
    pmlkit.batch.schema.ExperimentError
        If a name is invalid or a duplicate, or an entry that gathers creates several runs.
    """
    by_name: dict[str, Piece] = {}
    for entry in experiment.runs:
        if not entry.gather:
            continue
        job = _only_job(experiment, entry)
        for name, fields in entry.gather.items():
            where = (*entry.where, "gather", name)
            if not re.fullmatch(f"({FIGURE}|{TABLE})[a-z0-9-]+", name):
                hint = "call it fig-NAME or tab-NAME, in small letters, digits and dashes"
                raise experiment.error(where, f"{name!r} is not a name of a figure or table", hint)
            if name in by_name:
                raise experiment.error(where, f"{name} is gathered twice", "rename one")
            by_name[name] = Piece(
                name=name,
                job=job,
                file=fields["file"],
                caption=" ".join(fields["caption"].split()),
                columns=fields.get("columns", {}),
                rows=fields.get("rows", {}),
                wide=fields.get("wide", False),
                where=where,
            )
    return list(by_name.values())


def _only_job(experiment: Experiment, entry: Entry) -> expand.Job:
    jobs = expand.jobs_of(experiment, entry)
    if len(jobs) != 1:
        why = f"this entry has {len(jobs)} runs, but a piece comes from one run"
        raise experiment.error((*entry.where, "gather"), why, "name one trace, and remove the grid")
    return jobs[0]


def write(experiment: Experiment, folder: Path, wanted: list[Piece]) -> list[Path]:
    """Gather the pieces of finished runs.

    Parameters
    ----------
    folder : Path
        Folder of the experiment's results.
    wanted : list of Piece
        Pieces of finished runs.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    pmlkit.batch.schema.ExperimentError
        If a run has not created a piece, or the document does not exist; names the line.
    pmlkit.errors.OutputError
        If a file cannot be written.
    """
    files: dict[str, bytes] = {}
    for piece in wanted:
        gather = _figure if piece.is_figure else _table
        files |= gather(experiment, folder / piece.job.id, piece)
    if experiment.document:
        files |= _document(experiment)
    files[README] = _readme(experiment, folder, wanted).encode()
    written = write_files(folder, files)
    for stale in {p for kind in (FIGURE, TABLE) for p in folder.glob(f"{kind}*")} - {*written}:
        stale.unlink()  # under a name that the experiment no longer has
    return written


def _figure(experiment: Experiment, run: Path, piece: Piece) -> dict[str, bytes]:
    from pmlkit.figures.tables import escape

    pdf = _made(experiment, run, piece, ".pdf").read_bytes()
    text = _FIGURE.format(
        comment=piece.caption,
        environment="figure*" if _width_pt(pdf) > _ONE_COLUMN_PT else "figure",
        name=piece.name,
        caption=escape(piece.caption),
        label=piece.label,
    )
    return {f"{piece.name}.pdf": pdf, f"{piece.name}.tex": text.encode()}


def _width_pt(pdf: bytes) -> float:
    """Return the width that a PDF states, in points of 1/72 inch; 0 without one."""
    box = re.search(rb"/MediaBox\s*\[\s*([\d.]+)\s+[\d.]+\s+([\d.]+)", pdf)
    return float(box[2]) - float(box[1]) if box else 0.0


def _table(experiment: Experiment, run: Path, piece: Piece) -> dict[str, bytes]:
    from pmlkit.figures.tables import latex, read_rows

    rows = read_rows(_made(experiment, run, piece, ".csv"))
    for name in (*piece.rows, *piece.columns):
        if name not in rows:
            hint = f"its columns are: {', '.join(map(str, rows.columns))}"
            raise experiment.error(piece.where, f"{piece.file} has no column {name!r}", hint)
    for name, values in piece.rows.items():
        rows = rows[rows[name].isin(values)]
    if piece.columns:
        rows = rows[list(piece.columns)].rename(columns=piece.columns)
    text = latex(rows, piece.caption, piece.label, wide=piece.wide)
    return {f"{piece.name}.tex": text.encode(), f"{piece.name}.csv": _csv(rows)}


def _csv(rows: pd.DataFrame) -> bytes:
    return rows.to_csv(index=False).encode()


def _made(experiment: Experiment, run: Path, piece: Piece, suffix: str) -> Path:
    path = run / f"{piece.file}{suffix}"
    if not path.exists():
        there = ", ".join(sorted(p.stem for p in run.glob(f"*{suffix}"))) or "nothing"
        why = f"{piece.job.label} has made no {path.name}"
        raise experiment.error((*piece.where, "file"), why, f"it has made: {there}")
    return path


def _document(experiment: Experiment) -> dict[str, bytes]:
    path = experiment.path.parent / experiment.document
    try:
        return {path.name: path.read_bytes()}
    except OSError as error:
        raise experiment.error(("document",), f"{path}: {error.strerror}", "fix it") from error


def _readme(experiment: Experiment, folder: Path, wanted: list[Piece]) -> str:
    lines = [f"# {experiment.title}", "", " ".join(experiment.about.split()), ""]
    lines += [
        f"Made by `{experiment.command}`. In LaTeX `\\input{{NAME}}` includes a",
        "figure or a table with its caption (graphicx, booktabs), and",
        "`\\includegraphics{NAME}` a figure alone.",
        "",
    ]
    for piece in wanted:
        data = sorted(p.name for p in (folder / piece.job.id).glob(f"{piece.file}*.csv"))
        links = ", ".join(f"[{name}]({piece.job.id}/{name})" for name in data)
        suffix = ".pdf" if piece.is_figure else ".tex"
        executed = f"{piece.job.id}/{piece.job.notebook}.ipynb"
        lines += [
            f"## {piece.name}{suffix}",
            "",
            piece.caption,
            "",
            f"Notebook [{piece.job.label}]({executed}); its numbers: {links}.",
            "",
        ]
    return "\n".join(lines)
