# SPDX-License-Identifier: Apache-2.0
"""Tables of a comparison as LaTeX, HTML and CSV, and the cost model.

This module is separate from `figures.compare`, so that printing a table does not import matplotlib.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pmlkit.compare import PARTS
from pmlkit.costs import prices
from pmlkit.figures.tables import cell, files_of
from pmlkit.files import write_files
from pmlkit.techniques.scores import resampled
from pmlkit.units import described

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from typing import Any

    from pmlkit.compare import Comparison
    from pmlkit.types import PathLike


__all__ = [
    "cost_table",
    "headline",
    "html",
    "narrow",
    "overview",
    "save",
    "save_tables",
    "sheets",
    "shown",
]

MOST_COLUMNS = 16  # of an overview on a terminal


def shown(comparison: Comparison, trace: str) -> pd.DataFrame:
    """Return the scores of one trace as a table for people: percent, windows, yes and no."""
    rows = comparison.scores[comparison.scores["trace"] == trace]
    percent = {"bias %": "bias", "MAE %": "mae", "MAPE %": "mape", "± %": "mape_ci", "p95 %": "p95"}
    sheet = pd.DataFrame({"technique": rows["title"]})
    for name, column in percent.items():
        sheet[name] = _column(rows, column) * 100
    sheet["answered %"] = _column(rows, "says") * 100
    sheet["lag up, T"], sheet["lag down, T"] = _column(rows, "up"), _column(rows, "down")
    sheet["overhead %"] = _column(rows, "overhead") * 100
    sheet["guest changed"], sheet["moves memory"] = rows["intrusive"], rows["active"]
    sheet["note"] = [_note(row) for row in rows.to_dict("records")]
    sheet = sheet.reset_index(drop=True)
    reasons = dict.fromkeys([*percent, "answered %"], "no estimate: see the note")
    reasons["± %"] = "a single draw, or no estimate"
    steps = dict.fromkeys(
        ["lag up, T", "lag down, T"], "there is no such step, or no estimate follows it"
    )
    return described(sheet, {}, reasons | steps | {"overhead %": "not known: see the note"})


def _note(row: Mapping[Hashable, Any]) -> str:
    """Return why a row has no estimate or no overhead."""
    if row["missing"]:
        return f"the trace has no {row['missing']}"
    if row.get("says") == 0:
        return "no estimate while pages are used"
    return str(row["notes"]) if pd.isna(row.get("overhead", 0.0)) else ""


def headline(comparison: Comparison) -> pd.DataFrame:
    """Return `overview` for a notebook: with units, and a note where an error is missing.

    The means over recordings are left out if there is only one.
    """
    sheet = overview(comparison)
    if len(comparison.traces) == 1:
        sheet = sheet.drop(columns=["mean", "median", "from", "to"])
    rows = comparison.scores.to_dict("records")
    notes = {row["title"]: note for row in rows[::-1] if (note := _note(row))}
    sheet["note"] = sheet["technique"].map(notes).fillna("")
    units = dict.fromkeys([name for name in sheet if name not in ("technique", "note")], "%")
    few = dict.fromkeys(("from", "to"), "fewer than two recordings")
    missing = dict.fromkeys(units, "no estimate: see the note")
    return described(sheet, units, missing | few)


def overview(comparison: Comparison, column: str = "mape") -> pd.DataFrame:
    """Return one score as techniques against traces, in percent, with its mean and median.

    Both are over the traces. The 95 % interval of the median (``from``, ``to``) is from a bootstrap
    over the traces.
    """
    wide = comparison.scores.pivot(index="title", columns="trace", values=column) * 100
    wide = wide.reindex(columns=comparison.traces)
    wide = wide.reindex(list(dict.fromkeys(comparison.scores["title"])))
    scores = wide.copy()
    wide["mean"] = scores.mean(axis=1)
    wide[["median", "from", "to"]] = [resampled(row) for row in scores.to_numpy(float)]
    return wide.reset_index().rename(columns={"title": "technique"})


def narrow(sheet: pd.DataFrame) -> pd.DataFrame:
    """Drop the columns of single recordings from an overview wider than a terminal."""
    wide = "median" in sheet and len(sheet.columns) > MOST_COLUMNS
    return sheet[["technique", "mean", "median", "from", "to"]] if wide else sheet


def sheets(comparison: Comparison) -> dict[str, pd.DataFrame]:
    """Return the tables for people by name: the overview (of several traces), then each trace."""
    tables = {}
    if len(comparison.traces) > 1:
        tables["overview: MAPE in percent"] = overview(comparison)
        tables["overview-mae: mean error in percent of the mean W"] = overview(comparison, "mae")
    return tables | {trace: shown(comparison, trace) for trace in comparison.traces}


def _column(rows: pd.DataFrame, name: str) -> pd.Series[float]:
    return pd.to_numeric(rows[name]) if name in rows else pd.Series(float("nan"), rows.index)


def save(comparison: Comparison, folder: PathLike) -> list[Path]:
    """Write the tables (LaTeX, HTML, CSV) and the figures of a comparison, all files or none.

    Parameters
    ----------
    comparison : Comparison
    folder : path-like

    Returns
    -------
    list of Path
    """
    from pmlkit.figures import compare as drawn
    from pmlkit.figures import style

    files = _tables(comparison)
    for name, figure in drawn.all_of(comparison):
        files |= style.files_of(figure, name)
    return write_files(Path(folder), files)


def save_tables(comparison: Comparison, folder: PathLike) -> list[Path]:
    """Write the tables alone; parameters and return value as of `save`."""
    return write_files(Path(folder), _tables(comparison))


def _tables(comparison: Comparison) -> dict[str, bytes]:
    """Return the files of the tables by name."""
    files = {f"{name}.parquet": getattr(comparison, name).to_parquet(index=False) for name in PARTS}
    tables = sheets(comparison)
    for title, sheet in tables.items():
        name = f"table-{title.split(':')[0]}"
        files |= files_of(sheet, name, f"{title}. {comparison.caption}")
    files |= files_of(cost_table(), "costs", "Costs of the events")
    return files | {"tables.html": html(tables, comparison.caption).encode()}


def cost_table() -> pd.DataFrame:
    """Return the prices: each event, its meaning, its instructions, and the source of the number.

    Those with a transition include it.
    """
    rows = [
        (name, price.what, round(price.insn, 2), f"{price.kind}: {price.stated}")
        for name, price in prices().items()
    ]
    table = pd.DataFrame(rows, columns=["event", "what", "insn", "source"])
    return described(table, {"insn": "instructions"})


def html(tables: Mapping[str, pd.DataFrame], caption: str) -> str:
    """Return a page of tables.

    Parameters
    ----------
    tables : dict of str to DataFrame
    caption : str

    Returns
    -------
    str
    """
    import jinja2

    cells = {
        stem: [[cell(v) for v in row] for row in df.itertuples(False)]
        for stem, df in tables.items()
    }
    heads = {stem: list(df.columns) for stem, df in tables.items()}
    page = jinja2.Environment(autoescape=True).from_string(_PAGE)
    return page.render(caption=caption, sheets=cells, heads=heads)


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>pmlkit compare</title>
<style>body { font: 14px sans-serif; margin: 2em } table { border-collapse: collapse }
th, td { padding: .2em .6em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child, td:last-child { text-align: left }</style>
<p>{{ caption }}</p>
{% for stem, rows in sheets.items() %}<h2>{{ stem }}</h2>
<table><tr>{% for head in heads[stem] %}<th>{{ head }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endfor %}</html>
"""
