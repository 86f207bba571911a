# SPDX-License-Identifier: Apache-2.0
"""Folders of results: the tables of a score, and its page in Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pmlkit.errors import PmlkitError
from pmlkit.files import write_files
from pmlkit.forecast import verdict
from pmlkit.scoreboard.forecaster import forecast_lines
from pmlkit.scoreboard.technique import Score, standing

if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Any

    from pmlkit.types import PathLike

__all__ = [
    "details",
    "forecast_details",
    "forecast_page",
    "page",
    "read",
    "save",
    "save_forecasts",
]

_ROWS, _SETTINGS, _FACTS, _PAGE = "scores.csv", "settings.csv", "score.json", "README.md"


def save(score: Score, folder: PathLike) -> Path:
    """Write a score to a folder: two tables, ``score.json``, and a page, which is returned."""
    facts = {"technique": score.technique, "chosen_on": score.chosen_on}
    texts = {
        _ROWS: _csv(score.rows),
        _SETTINGS: _csv(score.settings),
        _FACTS: json.dumps(facts, indent=1) + "\n",
        _PAGE: page(score),
    }
    *_, written = write_files(Path(folder), {name: text.encode() for name, text in texts.items()})
    return written


def read(folder: PathLike) -> Score:
    """Read a score that `save` wrote, with the settings that it contains.

    Raises
    ------
    PmlkitError
        If the folder holds none.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / _FACTS).read_text())
        tables = (pd.read_csv(folder / name) for name in (_ROWS, _SETTINGS))
        return Score(facts["technique"], *tables)
    except (OSError, ValueError, KeyError) as error:
        hint = "`pmlkit corpus score` writes one"
        raise PmlkitError(f"{folder} contains no score", hint) from error


def save_forecasts(table: pd.DataFrame, name: str, folder: PathLike) -> Path:
    """Write a forecaster's score to a folder: a table and a page, which is returned."""
    texts = {_ROWS: _csv(table), _PAGE: forecast_page(table, name)}
    *_, written = write_files(Path(folder), {name: text.encode() for name, text in texts.items()})
    return written


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def page(score: Score) -> str:
    """Return the page of a score, Markdown: the answer and the details."""
    title = f"# {score.technique} on {len(score.programs)} programs"
    return "\n\n".join([title, *score.lines, details(score)])


def details(score: Score) -> str:
    """Return the errors of the settings, as a table in Markdown and what is in it."""
    head = f"""\
Error: mean absolute error over the mean W(t, T), with its 95 % interval of a bootstrap over
programs. Cost: share of the guest's instructions. For each T and budget of cost one setting stands
for all programs; it was chosen on {score.chosen_on}.

| T | budget % | setting | error % | 95 % | worst % | bias % | cost % |
|---|---|---|---|---|---|---|---|
"""
    lines = [_line(row) for row in standing(score).to_dict("records")]
    names = ", ".join(score.programs)
    return head + "".join(lines) + f"\nPrograms: {names}. Every setting is in `{_ROWS}`.\n"


def _line(row: dict[Hashable, Any]) -> str:
    percent = {
        name: f"{100 * value:.3g}" for name, value in row.items() if isinstance(value, float)
    }
    cells = [
        row["window"],
        percent["budget"],
        row["setting"],
        percent["mae"],
        f"{percent['mae_low']} to {percent['mae_high']}",
        *(percent[name] for name in ("worst", "bias", "overhead")),
    ]
    return f"| {' | '.join(cells)} |\n"


def forecast_page(table: pd.DataFrame, name: str) -> str:
    """Return the page of a forecaster's score, Markdown: the answer and the details."""
    title = f"# {name} on {table['program'].nunique()} programs"
    return "\n\n".join([title, *forecast_lines(table, name), forecast_details(table)])


def forecast_details(table: pd.DataFrame) -> str:
    """Return the forecaster and the rules by cost, as a table in Markdown and what is in it."""
    head = """\
Means over programs with 95 % intervals of a bootstrap. Asked: the rate of violations that deciders
were asked for. Idle and short: shares of what is used. Cost: what `pmlkit.forecast` decides by.

| inputs | windows ahead | asked % | decider | violations % | idle % | short % | cost | 95 % |
|---|---|---|---|---|---|---|---|---|
"""
    rows = verdict.summary(table).sort_values(["inputs", "horizon", "asked", "cost"])
    lines = []
    for row in rows.to_dict("records"):
        percent = [f"{100 * row[key]:.3g}" for key in ("violations", "idle", "short")]
        cost = [f"{row['cost']:.3g}", f"{row['cost_low']:.3g} to {row['cost_high']:.3g}"]
        labels = [row["inputs"], str(row["horizon"]), f"{100 * row['asked']:g}", row["decider"]]
        lines.append(f"| {' | '.join([*labels, *percent, *cost])} |\n")
    return head + "".join(lines)
