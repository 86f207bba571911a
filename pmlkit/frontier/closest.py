# SPDX-License-Identifier: Apache-2.0
"""The answer of a frontier: the technique with the least error within each budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.frontier import tables
from pmlkit.techniques import TECHNIQUES
from pmlkit.units import exact_ns, format_share

if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Any

    import pandas as pd

    from pmlkit.types import Json

__all__ = ["Closest", "closest", "error_text"]

CERTAIN = 0.95  # of the resamples: below it, a sentence states the share


@dataclass(frozen=True)
class Closest:
    """The technique with the least error within each budget, at each T.

    Attributes
    ----------
    rows : DataFrame
        One row per ``window_ns`` and ``budget``, as of `at_cost`. ``error`` is infinite if no
        technique is within the budget.
    """

    rows: pd.DataFrame

    @property
    def lines(self) -> list[str]:
        """The answer: for each T, a sentence per budget."""
        if self.rows.empty:
            return ["No technique estimates every recording."]
        return [
            " ".join(_sentences(int(str(window_ns)), part))
            for window_ns, part in self.rows.groupby("window_ns", sort=False)
        ]

    def as_dict(self) -> Json:
        """Return the answer for JSON: None for what is not known."""
        names = ["window_ns", "budget", "technique", "error", "low", "high", "first", "cost"]
        rows = self.rows[names].replace(np.inf, np.nan).astype(object)
        rows = rows.where(rows.notna(), None)
        rows["technique"] = rows["technique"].where(rows["error"].notna(), None)
        return {"answer": " ".join(self.lines), "closest": rows.to_dict("records")}


def closest(points: pd.DataFrame) -> Closest:
    """Return the technique with the least error within each budget; of equals, the cheapest."""
    rows = tables.at_cost(points)
    equal = rows["error"].round(9)  # smaller differences are rounding errors
    order = rows.assign(equal=equal).sort_values(["window_ns", "budget", "equal", "cost"])
    first = order.drop(columns="equal").drop_duplicates(["window_ns", "budget"])
    return Closest(first.reset_index(drop=True))


def _sentences(window_ns: int, rows: pd.DataFrame) -> list[str]:
    first, *others = rows.to_dict("records")
    budget = format_share(first["budget"])
    head = f"T = {exact_ns(window_ns)}: at a cost of {budget} of the instructions, "
    if np.isinf(first["error"]):
        sentences = [f"{head}no technique is cheap enough."]
    else:
        sentences = [f"{head}{_title(first)} is closest: its mean error is {_error(first)}."]
    for row in others:
        answer = "none is cheap enough"
        if np.isfinite(row["error"]):
            answer = f"{_title(row)} is closest: {_error(row)}"
        sentences.append(f"At {format_share(row['budget'])}, {answer}.")
    return sentences


def _title(row: dict[Hashable, Any]) -> str:
    name = row["technique"]
    return f"{TECHNIQUES[name].title} ({name})" if name in TECHNIQUES else name


def _error(row: dict[Hashable, Any]) -> str:
    often = f"best in {format_share(row['first'])} of the resamples"
    note = often if row["first"] < CERTAIN else ""
    return error_text(row["error"], row["low"], row["high"], note)


def error_text(error: float, low: float, high: float, note: str = "") -> str:
    """Write an error, a share of W, with its interval.

    Parameters
    ----------
    low, high : float
        The ends of its 95 % interval. No interval is written if they are equal or NaN, as for one
        recording.
    note : str
        To be added to the interval.
    """
    interval = ""
    if low < high:
        upper = "or more" if np.isinf(high) else f"to {format_share(high)}"
        interval = f" (95 %: {'; '.join(filter(None, [f'{format_share(low)} {upper}', note]))})"
    return f"{format_share(error)} of W{interval}"
