# SPDX-License-Identifier: Apache-2.0
"""The verdict of a trial: means with intervals, the best deciders, and tests over programs.

`choose` names the best rule and the best model of one trial, on the programs for development.
`contest` compares only these two in another trial. `statements` checks the statements that
experiments/protocol.md makes in advance.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import recordings
from pmlkit.errors import PmlkitError
from pmlkit.forecast import significance
from pmlkit.forecast.baselines import BASELINES
from pmlkit.forecast.trial import FOLDER, RECOMMENDED, Plan
from pmlkit.resampling import bootstrap

if TYPE_CHECKING:
    from pmlkit.types import Json, PathLike

__all__ = [
    "DEVELOPMENT",
    "HELD_OUT",
    "Verdict",
    "load",
    "of",
    "save",
    "by_program",
    "choices",
    "choose",
    "contest",
    "statements",
    "summary",
]

VALUES = ("violations", "idle", "short", "cost", "again", "run", "longest")


def by_program(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return means over the logs of a program: programs down, deciders across."""
    means = table.groupby(["program", "decider"], sort=False)[value].mean()
    return means.unstack("decider")


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return means over programs, with 95 % intervals of a bootstrap over programs.

    Returns
    -------
    DataFrame
        One row per ``inputs``, ``horizon``, ``asked`` and ``decider``: ``programs``, and the mean,
        ``_low`` and ``_high`` of ``violations``, ``idle``, ``short``, ``cost``, ``again``, ``run``
        and ``longest``.
    """
    rows = []
    keys = ["inputs", "horizon", "asked"]
    for labels, part in table.groupby(keys, sort=False):
        wide = {value: by_program(part, value) for value in VALUES}
        for decider in wide["cost"]:
            row: Json = dict(zip(keys, labels, strict=True)) | {"decider": decider}
            row["programs"] = int(wide["cost"][decider].notna().sum())
            for value in VALUES:
                of_programs = wide[value][decider].to_numpy(float)
                known = of_programs[np.isfinite(of_programs)]
                row[value] = float(known.mean()) if len(known) else np.nan
                row[f"{value}_low"], row[f"{value}_high"] = bootstrap(known)
            rows.append(row)
    return pd.DataFrame(rows)


def choose(table: pd.DataFrame, plan: Plan | None = None) -> pd.DataFrame:
    """Name the best rule and the best model of a trial, by the lowest cost.

    Returns
    -------
    DataFrame
        One row per ``inputs`` and ``horizon``. ``rule`` and ``model``: deciders with the lowest
        geometric mean ``cost`` over programs, at the plan's main rate. The columns of
        `significance.paired_ratio` for the two. ``better``: the model if its interval is below 1,
        otherwise the rule.
    """
    plan, rows = plan or Plan(), []
    for (inputs, horizon), part in table[table["asked"] == plan.main].groupby(
        ["inputs", "horizon"], sort=False
    ):
        part = part[part["model"] != RECOMMENDED]
        learned = ~part["model"].isin(list(BASELINES))
        best = {
            kind: _cheapest(part[mask]) for kind, mask in (("rule", ~learned), ("model", learned))
        }
        costs = by_program(part, "cost")
        test = _against(costs, best["model"], best["rule"])
        better = best["model" if test["high"] < 1 else "rule"]
        rows.append({"inputs": inputs, "horizon": horizon, **best, **test, "better": better})
    return pd.DataFrame(rows)


def _against(costs: pd.DataFrame, ours: str, theirs: str) -> Json:
    pair = (costs[ours].to_numpy(float), costs[theirs].to_numpy(float))
    return significance.paired_ratio(*pair)


def _cheapest(part: pd.DataFrame) -> str:
    return str(np.log(by_program(part, "cost").clip(lower=1e-6)).mean().idxmin())


def contest(table: pd.DataFrame, chosen: pd.DataFrame, plan: Plan | None = None) -> pd.DataFrame:
    """Compare, in a trial, the choices of another trial.

    Returns
    -------
    DataFrame
        One row per ``inputs``, ``horizon`` and pair: ``ours`` and ``theirs``, whose inputs are
        ``against``. The columns of `significance.paired_ratio` are for ``cost`` at the main rate.
        The pairs are the model and the rule; the recommended decider and the rule; and the rules of
        two kinds of inputs. ``primary``: whether it is one of the tests named in advance;
        ``p_holm``: their p, corrected for multiple tests (otherwise NaN).
    """
    plan, rows = plan or Plan(), []
    table = table[table["asked"] == plan.main]
    costs = {key: by_program(part, "cost") for key, part in table.groupby(["inputs", "horizon"])}
    rule = {(choice.inputs, choice.horizon): str(choice.rule) for choice in chosen.itertuples()}
    for choice in chosen.itertuples():
        own_key, primary_key = (choice.inputs, choice.horizon), (plan.primary, choice.horizon)
        pairs = [(str(choice.model), own_key), (RECOMMENDED, own_key)]
        pairs += [(rule[own_key], primary_key)] * (own_key != primary_key and primary_key in rule)
        for number, (ours, against) in enumerate(pairs):
            pair = pd.concat([costs[own_key][ours], costs[against][rule[against]]], axis=1)
            primary = number == 0 and own_key == primary_key
            rows.append(
                {
                    **dict(zip(("inputs", "horizon"), own_key, strict=True)),
                    **{"ours": ours, "theirs": rule[against], "against": against[0]},
                    "primary": primary,
                    **significance.paired_ratio(*pair.to_numpy(float).T),
                }
            )
    results = pd.DataFrame(rows)
    results["p_holm"] = np.nan
    corrected = significance.holm(results.loc[results["primary"], "p_permutation"].to_numpy())
    results.loc[results["primary"], "p_holm"] = corrected
    return results


def statements(tests: pd.DataFrame, means: pd.DataFrame, plan: Plan | None = None) -> pd.DataFrame:
    """Check which of the protocol's statements are true in a trial.

    Parameters
    ----------
    tests : DataFrame
        As returned by `contest`.
    means : DataFrame
        As returned by `summary`.

    Returns
    -------
    DataFrame
        ``number``, ``statement``, the decisive ``value`` (the worst of several), the ``bound``, and
        whether it ``holds``. Statements whose inputs or horizons the trial lacks are omitted.
    """
    plan = plan or Plan()
    soon, late = min(plan.horizons), max(plan.horizons)
    main = tests[tests["primary"]].set_index("horizon")
    across = tests[tests["inputs"] != tests["against"]].set_index("inputs")
    safe = tests[tests["ours"] == RECOMMENDED]
    recommended = means[(means["decider"] == RECOMMENDED) & np.isclose(means["asked"], plan.main)]
    recommended = recommended[recommended["inputs"] == plan.primary].set_index("horizon")
    higher = across["programs"] - across["lower"]
    share = 10 / 12  # of the programs
    again = recommended["again"] / recommended["violations"]
    rows = [
        (1, "a model gains half a second ahead: p", main["p_holm"].get(soon), 0.05, "below"),
        (1, "a model gains half a second ahead: ratio", main["ratio"].get(soon), 1, "below"),
        (2, "it gains little two seconds ahead: upper end", main["high"].get(late), 0.9, "above"),
        (3, "PML alone is not enough: share of programs",
         (higher / across["programs"])[across.index == "pml"].min(), share, "least"),
        (4, "the sample does without PML: upper end",
         across["high"][across.index == "sample"].max(), 1.25, "below"),
        (5, "following the cheapest is safe: ratio", safe["ratio"].max(), 1.1, "most"),
        (6, "violations come in runs: times the rate", again.get(late), 3, "least"),
        (7, "safety is dear: idle over use", recommended["idle"].min(), 0.5, "above"),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["number", "statement", "value", "bound", "side"])
    table = table.dropna(subset="value")
    table["holds"] = [
        bool(SIDES[str(row.side)](row.value, row.bound)) for row in table.itertuples()
    ]
    return table.drop(columns="side")


SIDES = {
    "below": operator.lt,
    "above": operator.gt,
    "least": lambda value, bound: value >= bound - 1e-9,
    "most": operator.le,
}


# ------------------------------------------------------------------------------
# All tables of a trial, as files.

HELD_OUT, DEVELOPMENT = "held-out", "development"
DIGITS = "%.5g"


@dataclass(frozen=True)
class Verdict:
    """The tables of a trial.

    Attributes
    ----------
    programs : str
        `HELD_OUT`, or `DEVELOPMENT`: those on which the rule and the model were chosen.
    chosen : DataFrame
        From `choose`, on the programs for development.
    judged : DataFrame
        From `trial.judge`, at the main rate.
    means, tests, statements : DataFrame
        From `summary`, `contest` and `statements`.
    """

    programs: str
    chosen: pd.DataFrame
    judged: pd.DataFrame
    means: pd.DataFrame
    tests: pd.DataFrame
    statements: pd.DataFrame


def of(
    judged: pd.DataFrame, chosen: pd.DataFrame, programs: str, plan: Plan | None = None
) -> Verdict:
    """Return the verdict of a trial."""
    plan = plan or Plan()
    means, tests = summary(judged), contest(judged, chosen, plan)
    main = judged[judged["asked"] == plan.main]
    return Verdict(programs, chosen, main, means, tests, statements(tests, means, plan))


def save(verdict: Verdict, folder: PathLike) -> None:
    """Write the tables to a folder, as CSV with their significant digits."""
    for name in ("judged", "means", "tests", "statements"):
        path = Path(folder) / f"{verdict.programs}-{name}.csv"
        getattr(verdict, name).to_csv(path, index=False, float_format=DIGITS)
    path = Path(folder) / "chosen.csv"
    if verdict.programs == DEVELOPMENT:
        verdict.chosen.to_csv(path, index=False, float_format=DIGITS)


def load(folder: PathLike | None = None) -> Verdict:
    """Read the tables that `save` wrote: for the held-out programs, if they exist.

    Raises
    ------
    PmlkitError
        If there are none.
    """
    folder = Path(folder) if folder else recordings.folder() / FOLDER
    for programs in (HELD_OUT, DEVELOPMENT):
        if (folder / f"{programs}-judged.csv").exists():
            names = ("judged", "means", "tests", "statements")
            tables = [pd.read_csv(folder / f"{programs}-{name}.csv") for name in names]
            return Verdict(programs, pd.read_csv(folder / "chosen.csv"), *tables)
    raise PmlkitError(
        f"{folder} has no results", "make them: `python -m experiments.forecast_use --develop DIR`"
    )


# Further comparisons of a trial: file, score, the model and the rule.
CHOICES = (
    ("peaks", "average_precision", "boosted", "nearness"),
    ("pages", "f1", "learned", "best fixed m"),
)


def choices(folder: PathLike | None = None) -> pd.DataFrame:
    """Compare models of peaks and of pages with their rules, for the trial that `load` reads.

    Returns
    -------
    DataFrame
        ``what``, ``inputs``, ``score``, the means over programs of the ``model`` and the ``rule``,
        and the columns of `significance.paired_ratio` for model over rule: above 1, the model is
        better.
    """
    programs = load(folder).programs
    folder = Path(folder) if folder else recordings.folder() / FOLDER
    rows = []
    for what, score, model, rule in CHOICES:
        path = folder / f"{programs}-{what}.csv"
        table = pd.read_csv(path) if path.exists() else pd.DataFrame()
        if table.empty:
            continue
        table = table if "inputs" in table else table.assign(inputs="pml")
        for inputs, part in table.groupby("inputs"):
            wide = part.groupby(["program", "model"])[score].mean().unstack("model").dropna()
            ours, theirs = (wide[name].to_numpy(float) for name in (model, rule))
            means = {"model": float(ours.mean()), "rule": float(theirs.mean())}
            test = significance.paired_ratio(ours, theirs)
            rows.append({"what": what, "inputs": inputs, "score": score, **means, **test})
    return pd.DataFrame(rows)
