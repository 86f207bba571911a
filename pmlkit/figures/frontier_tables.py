# SPDX-License-Identifier: Apache-2.0
"""Tables of a frontier: errors at equal cost, costs at equal error, in percent, for people.

This module is separate from `figures.frontier`, so that printing a table does not import
matplotlib.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import frontier
from pmlkit.figures.tables import cell, files_of
from pmlkit.files import write_files
from pmlkit.techniques import TECHNIQUES
from pmlkit.units import described, exact_ns, format_share

if TYPE_CHECKING:
    from pmlkit.types import Json, PathLike

__all__ = [
    "as_dict",
    "at_cost",
    "at_error",
    "headline",
    "left_out",
    "published",
    "save",
    "save_tables",
    "sheets",
]

NEVER = "never"


def headline(points: pd.DataFrame) -> pd.DataFrame:
    """Return the technique with the least error within each budget, and that error: a row per T."""
    rows = frontier.closest(points).rows
    rows["T"] = rows["window_ns"].map(exact_ns)
    rows["within"] = [f"at {format_share(budget)}" for budget in rows["budget"]]
    rows["closest"] = [
        "none is cheap enough" if np.isinf(error) else f"{_title(name)}: {_percent(error)}"
        for name, error in rows[["technique", "error"]].to_numpy()
    ]
    names = list(dict.fromkeys(rows["within"]))
    sheet = rows.pivot(index=["window_ns", "T"], columns="within", values="closest")[names]
    sheet = sheet.reset_index("T").reset_index(drop=True).rename_axis(columns=None)
    return described(sheet, dict.fromkeys(names, "% of W"))


def at_cost(points: pd.DataFrame) -> pd.DataFrame:
    """Return the error of each technique at each budget: percent of W, with its 95 % interval.

    The last columns are of the largest budget: the error on recordings that the setting was not
    chosen on, the share of the resamples in which nothing is better, and the setting.
    """
    sheet = _by_window(frontier.at_cost(points), "budget", "error", "at")
    return described(sheet, _units(sheet, "at ", "% of W"), _REASONS)


def at_error(points: pd.DataFrame) -> pd.DataFrame:
    """Return the cost at which each technique reaches each error, percent of the instructions.

    The last columns are of the least error.
    """
    sheet = _by_window(frontier.at_error(points), "target", "cost", "to")
    return described(sheet, _units(sheet, "to ", "% of the instructions"), _REASONS)


_REASONS = {
    "held out": "one recording alone: none is left for it",
    "with": "no setting comes so low",
    "cost": "the clock of the costs is not known",
}


def _units(sheet: pd.DataFrame, begin: str, unit: str) -> dict[str, str]:
    columns = [str(name) for name in sheet if str(name).startswith(begin)]
    return dict.fromkeys(columns, unit) | {"held out": unit}


def published(points: pd.DataFrame) -> pd.DataFrame:
    """Return the techniques as published: error and cost in percent; whether they can be swept."""
    rows = frontier.published(points)
    sheet = pd.DataFrame(
        {
            "T": rows["window_ns"].map(exact_ns),
            "technique": rows["technique"].map(_title),
            "error": [_estimate(*of) for of in rows[["error", "low", "high"]].to_numpy(float)],
            "cost": [_percent(share) for share in rows["cost"]],
            "can be swept": rows["swept"],
            "note": rows["notes"],
        }
    )
    return described(sheet, {"error": "% of W", "cost": "% of the instructions"}, _REASONS)


def _by_window(rows: pd.DataFrame, bound: str, value: str, head: str) -> pd.DataFrame:
    sheets = []
    for window_ns, part in rows.groupby("window_ns"):
        sheet = _sheet(part.reset_index(drop=True), bound, value, head)
        sheet.insert(0, "T", exact_ns(int(str(window_ns))))
        sheets.append(sheet)
    return pd.concat(sheets, ignore_index=True)


def left_out(points: pd.DataFrame) -> pd.DataFrame:
    """Return which techniques have no curve, at which T, and why."""
    rows = frontier.left_out(points)
    return pd.DataFrame(
        {
            "T": rows["window_ns"].map(exact_ns),
            "technique": rows["technique"].map(_title),
            "recordings": [f"{n} of {of}" for n, of in rows[["recordings", "of"]].to_numpy()],
            "why": rows["why"],
        }
    )


def _sheet(rows: pd.DataFrame, bound: str, value: str, head: str) -> pd.DataFrame:
    """Return a row per technique and columns per bound, sorted by value at the largest."""
    bounds = sorted(rows[bound].unique(), reverse=bound == "target")
    order = rows.sort_values(bound, ascending=bound == "target", kind="stable", ignore_index=True)
    names = order.sort_values([bound, value], ascending=[bound == "target", True], kind="stable")
    sheet = pd.DataFrame({"technique": list(dict.fromkeys(names["technique"]))})
    for limit in bounds:
        part = rows[rows[bound] == limit].set_index("technique").loc[sheet["technique"]]
        name = f"{head} {format_share(limit)}"
        sheet[name] = [_estimate(*of) for of in part[[value, "low", "high"]].to_numpy(float)]
        if limit == bounds[-1]:
            sheet["held out"] = [_percent(share) for share in part["held_out"]]
            sheet["first in"] = part["first"].map(format_share).to_list()
            sheet["with"] = [_setting(row) for row in part.reset_index().to_dict("records")]
    sheet["technique"] = sheet["technique"].map(_title)
    return sheet


def _estimate(value: float, low: float, high: float) -> str:
    if np.isinf(value):
        return NEVER
    if np.isnan(low) or low == value == high:  # one recording has no interval
        return str(_percent(value))
    return f"{_percent(value)} ({_percent(low)} to {_percent(high)})"


def _percent(share: float) -> str | None:
    if np.isnan(share):
        return None
    return NEVER if np.isinf(share) else cell(share * 100)


def _setting(row: Json) -> str | None:
    looks, watched = row["looks"], row["watched"]
    if not isinstance(looks, int):
        return None
    text = f"{looks} look{'s' * (looks != 1)}"
    if "watched" in TECHNIQUES[row["technique"]].knobs():
        text += f", {watched:,} watched" if isinstance(watched, int) else ", all watched"
    return text


def _title(technique: str) -> str:
    return TECHNIQUES[technique].title if technique in TECHNIQUES else technique


def sheets(points: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables for people by their titles."""
    tables = {
        "error at equal cost: mean error in percent of W (95 %)": at_cost(points),
        "cost at equal error: percent of the instructions (95 %)": at_error(points),
        "left out": left_out(points),
    }
    return {title: sheet for title, sheet in tables.items() if len(sheet)}


def as_dict(points: pd.DataFrame) -> Json:
    """Return the tables for JSON, shares: lists of rows; None where it is never reached."""
    tables = {
        "at_cost": frontier.at_cost(points),
        "at_error": frontier.at_error(points),
        "published": frontier.published(points),
        "left_out": frontier.left_out(points),
    }
    head = {"about": frontier.caption(points), "summary": frontier.closest(points).as_dict()}
    return head | {name: _records(rows) for name, rows in tables.items()}


def _records(rows: pd.DataFrame) -> list[Json]:
    rows = rows.replace(np.inf, np.nan).astype(object)
    return [
        {str(k): v for k, v in row.items()}
        for row in rows.where(rows.notna(), None).to_dict("records")
    ]


def save(points: pd.DataFrame, folder: PathLike) -> list[Path]:
    """Write the tables (LaTeX, CSV) and the figure, all files or none.

    Returns
    -------
    list of Path
    """
    from pmlkit.figures import frontier as drawn
    from pmlkit.figures import style

    figure = style.files_of(drawn.error_against_cost(points), "frontier")
    return write_files(Path(folder), _tables(points) | figure)


def save_tables(points: pd.DataFrame, folder: PathLike) -> list[Path]:
    """Write the tables alone; parameters and return value as of `save`."""
    return write_files(Path(folder), _tables(points))


def _tables(points: pd.DataFrame) -> dict[str, bytes]:
    """Return the files of the tables by name."""
    tables = {
        "at-cost": (at_cost, "Errors at equal cost, percent of W, with 95 % intervals"),
        "at-error": (at_error, "Costs at equal error, percent of the instructions, 95 % intervals"),
        "published": (published, "Techniques as published: error, percent of W; cost, percent"),
        "left-out": (left_out, "Techniques without a curve, and why"),
    }
    files: dict[str, bytes] = {}
    for name, (made, what) in tables.items():
        if len(sheet := made(points)):
            files |= files_of(sheet, name, f"{what}. {frontier.caption(points)}")
    return files
