# SPDX-License-Identifier: Apache-2.0
"""The score of a technique: its error and its cost at each setting, on each recording.

A technique is a user's class (`pmlkit.techniques.protocol.Technique`), named ``module:Class``. It
is swept over its two knobs, `looks` and `watched`, by `pmlkit.frontier`. Its error is the mean
absolute error over the mean W(t, T), its cost the share of instructions. At a budget, one setting
stands for all programs: the one of least mean error whose mean cost is within the budget.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from pmlkit import frontier, techniques
from pmlkit.errors import NeedsError, UsageError
from pmlkit.forecast import significance
from pmlkit.units import exact_ns, format_share

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from typing import Any

    from pmlkit.frontier import Plan
    from pmlkit.types import Json, PathLike

__all__ = ["BUDGETS", "Score", "best", "compare", "score", "standing"]

BUDGETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)  # shares of the instructions


@dataclass(frozen=True)
class Score:
    """The error and cost of a technique at each setting, on each recording.

    Attributes
    ----------
    technique : str
        Its title.
    rows : DataFrame
        ``program``, ``window`` (T), ``setting`` (``looks=4 watched=256``, or ``default``), ``mae``
        (share of the mean W), ``bias``, ``overhead`` (share of the instructions; NaN where the
        recording's clock does not say).
    chosen : DataFrame, optional
        The settings that stand for the technique, chosen on other programs beforehand: `best` of
        their score. Default: chosen on these programs.
    """

    technique: str
    rows: pd.DataFrame
    chosen: pd.DataFrame | None = None

    @property
    def programs(self) -> list[str]:
        return list(dict.fromkeys(self.rows["program"]))

    @property
    def settings(self) -> pd.DataFrame:
        """The setting for each T and budget, as of `best`."""
        return best(self) if self.chosen is None else self.chosen

    @property
    def chosen_on(self) -> str:
        """Where the settings were chosen, in words."""
        return "these same programs" if self.chosen is None else "other programs, beforehand"

    @property
    def lines(self) -> list[str]:
        """The answer: for each T, the errors within some budgets; and where it is from."""
        table = standing(self)
        windows = dict.fromkeys(self.rows["window"])
        return [
            *(self._answer(window, table[table["window"] == window]) for window in windows),
            f"Means over {len(self.programs)} programs. The settings were chosen on "
            f"{self.chosen_on}.",
        ]

    def _answer(self, window: str, table: pd.DataFrame) -> str:
        errors = [
            (format_share(budget), frontier.error_text(*interval))
            for budget, *interval in table[["budget", "mae", "mae_low", "mae_high"]].to_numpy()
            if budget in frontier.BUDGETS
        ]
        if not errors:
            why = "is cheap enough and has an estimate of every program"
            return f"T = {window}: no setting of {self.technique} {why}."
        (budget, error), *others = errors
        answer = (
            f"T = {window}: {self.technique} has a mean error of {error} at a cost of {budget} of "
            "the instructions."
        )
        return " ".join([answer, *(f"At {budget}, it is {error}." for budget, error in others)])

    def as_dict(self) -> Json:
        """Return the answer for JSON."""
        facts = {"programs": len(self.programs), "chosen_on": self.chosen_on}
        return {"answer": " ".join(self.lines), "technique": self.technique, **facts}


def score(
    technique: str,
    traces: Sequence[PathLike],
    plan: Plan | None = None,
    jobs: int = 1,
) -> Score:
    """Run a technique at all its settings on recordings.

    Parameters
    ----------
    technique : str
        ``module:Class``, or a name of `pmlkit.techniques.TECHNIQUES`.
    plan : pmlkit.frontier.Plan, optional
        Its windows, settings and seeds.

    Raises
    ------
    NeedsError
        If a recording lacks what the technique looks at.
    UsageError
        If page tables are real on some recordings and simulated on others; and as in
        `pmlkit.frontier.sweep`.
    ResolutionError, ClocksDiffer
        As in `pmlkit.frontier.sweep`.
    """
    plan = replace(plan or frontier.Plan(), techniques=(technique,))
    one = techniques.make(technique)
    points = frontier.sweep(traces, plan, jobs=jobs)
    for missing, part in points[points["missing"] != ""].groupby("missing"):
        raise NeedsError(part["trace"].iloc[0], str(missing), "use recordings that have it")
    if points["simulated"].nunique() > 1:
        names = ", ".join(points.loc[points["simulated"], "trace"].unique())
        raise UsageError(
            f"{one.title} has simulated page tables on {names}, and real ones on the others: "
            "score them apart"
        )
    means = points.assign(
        program=points["trace"],
        window=points["window_ns"].map(exact_ns),
        setting=[_setting(row, one.knobs()) for row in points.to_dict("records")],
    ).groupby(["program", "window", "setting"], sort=False)
    rows = means[["mae", "bias", "overhead"]].mean().reset_index()
    return Score(one.title, rows)


def _setting(point: dict[Hashable, Any], knobs: Sequence[str]) -> str:
    """Name the setting of a point of a sweep."""
    if point["published"]:
        return "default"
    values = {knob: "all" if pd.isna(point[knob]) else point[knob] for knob in knobs}
    return " ".join(f"{knob}={value}" for knob, value in values.items())


def best(score: Score, budgets: Sequence[float] = BUDGETS) -> pd.DataFrame:
    """Choose a setting per T and budget: the least mean error at a mean cost within the budget.

    Returns
    -------
    DataFrame
        ``window``, ``budget``, ``setting``. A budget that no setting meets has no row. Neither has
        a setting without an estimate of every program.
    """
    rows = []
    for window, wide in _by_window(score).items():
        error, cost = wide["mae"].to_numpy(), wide["overhead"].to_numpy()
        chosen = frontier.choose(error, cost, budgets)
        rows += [(window, budget, wide.index[setting]) for budget, setting, _ in chosen]
    return pd.DataFrame(rows, columns=["window", "budget", "setting"])


def standing(score: Score) -> pd.DataFrame:
    """Return the results of a score's settings: means over programs with 95 % intervals.

    Returns
    -------
    DataFrame
        ``window``, ``budget``, ``setting``, ``programs``, ``mae``, ``mae_low``, ``mae_high`` (of a
        bootstrap over programs), ``worst`` (the largest), ``bias``, ``overhead``. A setting that
        was not run, or has no estimate of some program, has no row.
    """
    by_window, rows = _by_window(score), []
    for window, budget, setting in score.settings.itertuples(index=False):
        if window in by_window and setting in by_window[window].index:
            part = by_window[window].loc[setting]
            means = part["bias"].mean(), part["overhead"].mean()
            errors = *frontier.mean_error(part["mae"].to_numpy()), part["mae"].max()
            rows.append((window, budget, setting, len(part["mae"]), *errors, *means))
    names = ["window", "budget", "setting", "programs", "mae", "mae_low", "mae_high", "worst"]
    return pd.DataFrame(rows, columns=[*names, "bias", "overhead"])


def _by_window(score: Score) -> dict[Hashable, pd.DataFrame]:
    """Return the results for each T: settings by (``mae``, ``bias`` or ``overhead``, program)."""
    names = ["mae", "bias", "overhead"]
    return {
        window: rows.pivot(index="setting", columns="program", values=names)
        .reindex(rows["setting"].unique())  # in this order: of equals, the first is chosen
        .dropna()
        for window, rows in score.rows.groupby("window", sort=False)
    }


def compare(ours: Score, theirs: Score) -> pd.DataFrame:
    """Compare two techniques at equal budgets, program by program, each at its settings.

    Returns
    -------
    DataFrame
        ``window``, ``budget``, ``programs``, ``difference`` (mean of our error less theirs),
        ``low``, ``high`` (95 %, bootstrap over programs), ``p`` (exact test by flipping signs).
    """
    rows = []
    both = ours.settings.merge(theirs.settings, on=["window", "budget"], suffixes=("", "_theirs"))
    for choice in both.itertuples():
        a, b = (
            of.rows[(of.rows["window"] == choice.window) & (of.rows["setting"] == setting)]
            for of, setting in ((ours, choice.setting), (theirs, choice.setting_theirs))
        )
        errors = a.set_index("program")["mae"] - b.set_index("program")["mae"]
        difference = errors.dropna().to_numpy()
        mean, low, high = frontier.mean_error(difference)
        rows.append(
            {
                "window": choice.window,
                "budget": choice.budget,
                "programs": len(difference),
                "difference": mean,
                "low": low,
                "high": high,
                "p": significance.permutation(difference),
            }
        )
    return pd.DataFrame(rows)
