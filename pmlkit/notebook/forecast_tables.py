# SPDX-License-Identifier: Apache-2.0
"""Tables of forecasts (`pmlkit.forecast.study` and `verdict`), for the notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from pmlkit.forecast import study, verdict
from pmlkit.units import described

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pmlkit.forecast.study import Study
    from pmlkit.forecast.verdict import Verdict

__all__ = [
    "about",
    "coverage_by_log",
    "deciders",
    "losses",
    "pages",
    "peaks",
    "programs",
    "statements",
    "tests",
]

_SHARES = ("violations", "idle", "short", "again")
_NO_CASE = "no such case in this log"


def programs(outcome: Verdict) -> pd.DataFrame:
    """Return the programs of a trial: a row each, how many logs of it were judged, the set."""
    logs = outcome.judged.groupby("program", sort=False)["log"].nunique()
    return logs.rename("logs").reset_index().assign(set=outcome.programs)


def tests(outcome: Verdict) -> pd.DataFrame:
    """Return the tests of a trial (`Verdict.tests`)."""
    units = {"horizon": "windows", "lower": "programs"}
    reasons = {"p_holm": "corrected for the primary tests only"}
    return described(outcome.tests.copy(), units, reasons)


def statements(outcome: Verdict) -> pd.DataFrame:
    """Return the protocol's statements, and whether they are true (`Verdict.statements`)."""
    return described(outcome.statements.copy(), {})


def about(results: Study) -> pd.DataFrame:
    """Return `study.about` without digests."""
    table = study.about(results).drop(columns="digest")
    return described(table, {"median_mib": "MiB", "max_mib": "MiB"})


def deciders(results: Study) -> pd.DataFrame:
    """Return the costs of decisions (`verdict.summary`), with knobs set on other programs.

    Returns
    -------
    DataFrame
        ``inputs``, ``decider``, ``programs``; means in percent: ``violations`` (windows with too
        little), ``idle`` and ``short`` (of what is used), ``again`` (windows with too little after
        another); ``cost`` and its 95 % interval; the mean ``run`` of violations and the
        ``longest``, in windows.
    """
    rows = verdict.summary(results.judged())
    table = rows[["inputs", "decider", "programs"]].copy()
    for name in _SHARES:
        table[name] = rows[name] * 100
    cost = rows[["cost", "cost_low", "cost_high"]].rename(columns={"cost_low": "from"})
    table = table.join(cost.rename(columns={"cost_high": "to"})).join(rows[["run", "longest"]])
    units = dict.fromkeys(_SHARES, "%") | {"run": "windows", "longest": "windows"}
    return described(table, units, "no window has too little")


def coverage_by_log(results: Study) -> pd.DataFrame:
    """Return `Study.coverage_by_log`."""
    table = results.coverage_by_log()
    return described(table, _of_rest(table, ("model", "sample", "composed"), "points"), _NO_CASE)


def losses(results: Study) -> pd.DataFrame:
    """Return `Study.losses`, the coverage in percent."""
    table = results.losses()
    table["coverage"] *= 100
    return described(table, {"pinball": "MiB", "mape": "%", "coverage": "%"}, _NO_CASE)


def peaks(results: Study) -> pd.DataFrame:
    """Return `Study.peaks`, the lead in seconds."""
    table = results.peaks.copy()
    return described(table, {"lead_s": "s"}, _NO_CASE)


def pages(results: Study) -> pd.DataFrame:
    """Return `Study.pages`."""
    return described(results.pages.copy(), {}, _NO_CASE)


def _of_rest(table: pd.DataFrame, labels: Iterable[str], unit: str) -> dict[str, str]:
    return dict.fromkeys([str(name) for name in table if name not in tuple(labels)], unit)
