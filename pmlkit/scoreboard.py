# SPDX-License-Identifier: Apache-2.0
"""The score of one technique or forecaster over many recordings, as tables and a page.

A technique is a user's class (`pmlkit.techniques.protocol.Technique`), named ``module:Class``. It
is swept over its two knobs, `looks` and `watched`, by `pmlkit.frontier`. Its error is the mean
absolute error over the mean W(t, T), its cost the share of instructions. At a budget, one setting
stands for all programs: the one of least mean error whose mean cost is within the budget.

A forecaster is a user's quantile regressor (`pmlkit.forecast.models.Quantiles`).
`pmlkit.forecast.trial` judges it like pmlkit's own, together with the simple rules.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import frontier, techniques
from pmlkit.errors import NeedsError, PmlkitError
from pmlkit.files import whole
from pmlkit.forecast import significance, trial, verdict
from pmlkit.resampling import bootstrap
from pmlkit.units import format_ns

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from typing import Any

    from pmlkit.frontier import Plan
    from pmlkit.types import Json, PathLike

__all__ = [
    "BUDGETS",
    "Score",
    "best",
    "compare",
    "details",
    "forecast_details",
    "forecast_lines",
    "forecast_page",
    "page",
    "read",
    "save",
    "save_forecasts",
    "score",
    "score_forecaster",
    "standing",
]

BUDGETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)  # shares of the instructions
_KEYS = ["window", "setting"]
_ROWS, _SETTINGS, _FACTS, _PAGE = "scores.csv", "settings.csv", "score.json", "README.md"


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
        rows = {row["budget"]: row for row in table.to_dict("records")}
        some = [budget for budget in frontier.BUDGETS if budget in rows]
        if not some:
            return f"T = {window}: {self.technique} has no setting that is cheap enough."
        first, *others = ((f"{100 * budget:g} %", _error(rows[budget])) for budget in some)
        answer = (
            f"T = {window}: {self.technique} has a mean error of {first[1]} at a cost of "
            f"{first[0]} of the instructions."
        )
        return " ".join([answer, *(f"At {budget}, it is {error}." for budget, error in others)])

    def as_dict(self) -> Json:
        """Return the answer for JSON."""
        facts = {"programs": len(self.programs), "chosen_on": self.chosen_on}
        return {"answer": " ".join(self.lines), "technique": self.technique, **facts}


def _error(row: dict[Hashable, Any]) -> str:
    mean, low, high = (f"{100 * row[name]:.3g}" for name in ("mae", "mae_low", "mae_high"))
    interval = f" (95 %: {low} to {high})" if low != high else ""
    return f"{mean} % of W{interval}"


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
    UsageError, ResolutionError, ClocksDiffer
        As in `pmlkit.frontier.sweep`.
    """
    plan = replace(plan or frontier.Plan(), techniques=(technique,))
    one = techniques.make(technique)
    points = frontier.sweep(traces, plan, jobs=jobs)
    for missing, part in points[points["missing"] != ""].groupby("missing"):
        raise NeedsError(part["trace"].iloc[0], str(missing), "use recordings that have it")
    means = points.assign(
        program=points["trace"],
        window=points["window_ns"].map(format_ns),
        setting=[_setting(row, one.knobs()) for row in points.to_dict("records")],
    ).groupby(["program", *_KEYS], sort=False)
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
        ``window``, ``budget``, ``setting``. A budget that no setting meets has no row.
    """
    means = score.rows.groupby(_KEYS, sort=False)[["mae", "overhead"]].mean().reset_index()
    chosen = []
    for window, budget in product(means["window"].unique(), budgets):
        within = means[(means["window"] == window) & (means["overhead"] <= budget)]
        if within["mae"].notna().any():
            setting = within.loc[within["mae"].idxmin(), "setting"]
            chosen.append({"window": window, "budget": budget, "setting": setting})
    return pd.DataFrame(chosen, columns=["window", "budget", "setting"])


def standing(score: Score) -> pd.DataFrame:
    """Return the results of a score's settings: means over programs with 95 % intervals.

    Returns
    -------
    DataFrame
        ``window``, ``budget``, ``setting``, ``programs``, ``mae``, ``mae_low``, ``mae_high`` (of a
        bootstrap over programs), ``worst`` (the largest), ``bias``, ``overhead``.
    """
    rows = []
    for choice in score.settings.itertuples():
        part = _of(score, choice.window, choice.setting)
        mae = part["mae"].to_numpy(float)
        low, high = bootstrap(mae)
        labels = {"window": choice.window, "budget": choice.budget, "setting": choice.setting}
        errors = {"mae": float(np.mean(mae)), "mae_low": low, "mae_high": high, "worst": max(mae)}
        means = {name: float(part[name].mean()) for name in ("bias", "overhead")}
        rows.append({**labels, "programs": len(part), **errors, **means})
    return pd.DataFrame(rows)


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
        a = _of(ours, choice.window, choice.setting).set_index("program")["mae"]
        b = _of(theirs, choice.window, choice.setting_theirs).set_index("program")["mae"]
        difference = (a - b).dropna().to_numpy()
        low, high = bootstrap(difference)
        rows.append(
            {
                "window": choice.window,
                "budget": choice.budget,
                "programs": len(difference),
                "difference": float(np.mean(difference)) if len(difference) else float("nan"),
                "low": low,
                "high": high,
                "p": significance.permutation(difference),
            }
        )
    return pd.DataFrame(rows)


def _of(score: Score, window: object, setting: object) -> pd.DataFrame:
    return score.rows[(score.rows["window"] == window) & (score.rows["setting"] == setting)]


def score_forecaster(
    name: str,
    traces: Sequence[PathLike],
    training: Sequence[PathLike],
    plan: trial.Plan | None = None,
) -> pd.DataFrame:
    """Judge a quantile regressor and the simple rules on recordings.

    Parameters
    ----------
    name : str
        ``module:Class``, as `pmlkit.forecast.analogs.make` takes it.
    training : sequence of path-like
        Recordings that it is fitted to, and that knobs are set on. A program that is judged is left
        out of its own training.

    Returns
    -------
    DataFrame
        As returned by `pmlkit.forecast.trial.judge`.
    """
    plan = replace(plan or trial.Plan(), learners=(name,))
    judged = trial.samples_of(traces, plan)
    same = [Path(path) for path in traces] == [Path(path) for path in training]
    known = judged if same else trial.samples_of(training, plan)
    return trial.judge(judged, known, plan)


def forecast_lines(table: pd.DataFrame, name: str) -> list[str]:
    """Return the answer of a forecaster's score: how it compares with the best simple rule."""
    plan = trial.Plan()
    cases = verdict.choose(table, plan).to_dict("records")
    better, worse = (sum(test(case) for case in cases) for test in (_below, _above))
    return [
        f"{name} is better than the best simple rule in {better} of {len(cases)} cases, and worse "
        f"in {worse}, with violations allowed in {100 * plan.main:g} % of the windows.",
        *(_case_line(case) for case in cases),
    ]


def _below(case: dict[Hashable, Any]) -> bool:
    return bool(case["high"] < 1)


def _above(case: dict[Hashable, Any]) -> bool:
    return bool(case["low"] > 1)


def _case_line(case: dict[Hashable, Any]) -> str:
    ahead = f"{case['horizon']} window{'s' * (case['horizon'] != 1)} ahead"
    return (
        f"- {case['inputs']}, {ahead}: {case['ratio']:.3g} times the cost of the best rule, "
        f"`{case['rule']}` (95 %: {case['low']:.3g} to {case['high']:.3g}), and less on "
        f"{case['lower']} of {case['programs']} programs."
    )


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


def save_forecasts(table: pd.DataFrame, name: str, folder: PathLike) -> Path:
    """Write a forecaster's score to a folder: a table and a page, which is returned."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / _ROWS, overwrite=True) as partial:
        table.to_csv(partial, index=False, float_format="%.6g", lineterminator="\n")
    with whole(folder / _PAGE, overwrite=True) as partial:
        partial.write_text(forecast_page(table, name))
    return folder / _PAGE


# ------------------------------------------------------------------------------
# Folders of results.


def save(score: Score, folder: PathLike) -> Path:
    """Write a score to a folder: two tables, ``score.json``, and a page, which is returned."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in ((_ROWS, score.rows), (_SETTINGS, score.settings)):
        with whole(folder / name, overwrite=True) as partial:
            table.to_csv(partial, index=False, float_format="%.6g", lineterminator="\n")
    facts = {"technique": score.technique, "chosen_on": score.chosen_on}
    with whole(folder / _FACTS, overwrite=True) as partial:
        partial.write_text(json.dumps(facts, indent=1) + "\n")
    with whole(folder / _PAGE, overwrite=True) as partial:
        partial.write_text(page(score))
    return folder / _PAGE


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
