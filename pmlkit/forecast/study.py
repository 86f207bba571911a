# SPDX-License-Identifier: Apache-2.0
"""The whole study of forecasts on recordings: samples, back-tests, and their tables.

What the command, the notebook and the experiment share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.errors import PmlkitError, UsageError
from pmlkit.forecast import backtest, limits, pages, peaks
from pmlkit.forecast import backtest as judge
from pmlkit.forecast import features as changes
from pmlkit.forecast.analogs import LEARNERS, make
from pmlkit.forecast.compose import (
    LOAD_TRACES,
    PATTERNS,
    composed_of,
    load_traces,
    long_enough,
    sample,
)
from pmlkit.forecast.log import Log, read
from pmlkit.recordings import open_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pmlkit.forecast.backtest import Outcome
    from pmlkit.forecast.forecaster import Sample
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Ints, PathLike, Tell


__all__ = ["Study", "about", "collect", "hold_out", "steps", "study_of", "summary"]


@dataclass(frozen=True)
class Study:
    """Logs, their tables of features, and what the back-test says of them.

    Attributes
    ----------
    logs : tuple of Log
    window : str
    horizon : int
    target : {"at", "peak"}
    held_out : tuple of str or None
        The programs that the models forecast; None: each in its turn.
    progress : callable or None
        Called with a text before each step.
    """

    logs: tuple[Log, ...]
    window: str | int = "500ms"
    horizon: int = 4
    target: str = "at"
    held_out: tuple[Any, ...] | None = None
    progress: Tell | None = None

    @cached_property
    def samples(self) -> list[Sample]:
        """The tables of features: list of `Sample`."""
        return [sample(log, self.window) for log in self.logs]

    @cached_property
    def recorded(self) -> list[Sample]:
        """Those of recordings."""
        return [s for s in self.samples if not s.composed]

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """What every rule and model gave: of all logs, each program held out."""
        forecasters = backtest.default_forecasters(self.horizon, self.target)
        found = backtest.leave_one_out(
            self.samples, forecasters, programs=self.held_out, progress=self.progress
        )
        return [o for o in found if self.held_out is None or o.program in self.held_out]

    @cached_property
    def forecaster(self) -> tuple[Any, Sample]:
        """The pooled model, fitted on all programs but the one held out first, and its log."""
        program = self.held_out[0] if self.held_out else self.samples[0].program
        others = [one for one in self.samples if one.program != program]
        model = make("pooled", self.horizon, self.target).fit(others)
        return model, next(one for one in self.samples if one.program == program)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """The trade-off of violations against slack (`judge.curves`)."""
        return judge.curves(self.outcomes)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Losses and coverage of the quantiles (`judge.scores`)."""
        return judge.scores(self.outcomes)

    @property
    def changes(self) -> Ints:
        """The change points of that log, found with hindsight: windows."""
        return changes.points(np.log1p(self.forecaster[1].table["pages"]))

    def coverage(self) -> pd.DataFrame:
        """Return the mean coverage of each quantile over programs, and its error in points."""
        table = self.scores.dropna(subset="tau")
        each = table.groupby(["model", "tau", "composed", "sample"], sort=False)["coverage"].mean()
        grouped = each.groupby(["model", "tau", "composed"])
        found = grouped.agg(coverage="mean", worst="min", logs="size").reset_index()
        return found.assign(points=100 * (found["coverage"] - found["tau"]))

    def coverage_by_log(self) -> pd.DataFrame:
        """Return each log's coverage less the quantile, in points: a column per quantile."""
        table = self.scores.dropna(subset="tau")
        table = table.assign(points=100 * (table["coverage"] - table["tau"]))
        table["tau"] = [f"q{tau:g}" for tau in table["tau"]]
        rows = ["model", "sample", "composed"]
        wide = table.pivot_table(index=rows, columns="tau", values="points", sort=False)
        return wide.reset_index().rename_axis(columns=None)

    def compare(self) -> pd.DataFrame:
        """Compare with the best rule at equal violations (`judge.compare`), by kind of log."""
        tables = []
        for kind, curve in self.curves.groupby("composed"):
            of = [o for o in self.outcomes if o.composed == kind]
            tables.append(judge.compare(of, curve=curve).assign(composed=kind))
        return pd.concat(tables, ignore_index=True)

    def losses(self) -> pd.DataFrame:
        """Return each model's and rule's mean pinball loss, MAPE and coverage over the logs."""
        table = self.scores.assign(tau=self.scores["tau"].fillna(0.5))
        columns = ["pinball", "mape", "coverage"]
        return table.groupby(["composed", "tau", "model"])[columns].mean().reset_index()

    def deployed(self, rate: float = 0.05) -> pd.DataFrame:
        """Return the cost of each with its knob set on other programs (`judge.deployed`).

        Returns
        -------
        DataFrame
            ``composed``, ``model``; means over the logs of ``violations``, ``slack`` and
            ``shortfall`` as shares of what was used; sums of both in MiB*s.
        """
        table = judge.deployed(self.outcomes, rate)
        table["slack_share"] = table["slack"] / table["used"]
        table["shortfall_share"] = table["shortfall"] / table["used"]
        grouped = table.groupby(["composed", "model"])
        means = grouped[["violations", "slack_share", "shortfall_share"]].mean()
        sums = grouped[["slack", "shortfall"]].sum()
        return means.join(sums).reset_index()

    @cached_property
    def limits(self) -> pd.DataFrame:
        """What could be forecast at all, by how far ahead (`limits.limits`); of the recordings."""
        return limits.limits(self.recorded or self.samples)

    @cached_property
    def peaks(self) -> pd.DataFrame:
        """The forecasts of peaks, judged (`peaks.backtest`)."""
        return peaks.backtest(self.samples, self.horizon, self.held_out, self.progress)

    @cached_property
    def pages(self) -> pd.DataFrame:
        """The choice of pages, judged (`pages.backtest`); of the recordings, if there are any."""
        logs = [log for log in self.logs if not log.composed] or list(self.logs)
        tables = [pages.candidates(log, self.window, self.horizon) for log in logs]
        programs, names = [log.program for log in logs], [log.name for log in logs]
        return pages.backtest(tables, programs, names, self.held_out, self.progress)


def collect(
    traces: Sequence[Trace | PathLike] | None = None,
    window: str | int = "500ms",
    horizon: int = 4,
    target: str = "at",
    composed: bool = True,
    progress: Callable[..., Any] | None = None,
) -> Study:
    """Make a study of traces.

    Parameters
    ----------
    traces : sequence of path-like or Trace, optional
        Default: the bundled recordings under a changing load.
    window, horizon, target
        As in `Study`.
    composed : bool
        Compose a daily, a bursty and a random-walk log out of each recording, too.
    progress : callable, optional

    Returns
    -------
    Study

    Raises
    ------
    PmlkitError
        If there is no trace, or one is too short to be forecast.
    """
    logs = []
    for trace in traces or load_traces():
        if progress:
            progress(f"reading {trace}")
        log = read(trace if hasattr(trace, "pml") else open_trace(trace))  # type: ignore[arg-type]
        logs.append(long_enough(log, window, horizon))
        if composed and not log.composed:
            logs += [composed_of(log, pattern) for pattern in PATTERNS]
    if not logs:
        raise PmlkitError("there is no recording to forecast", "give traces, or restore data/")
    return Study(tuple(logs), window, horizon, target, None, progress)


def hold_out(trace: Trace, traces: Sequence[Trace | PathLike] | None = None, **how: Any) -> Study:
    """Make a study in which the models forecast one trace's program, and learn from the others.

    Parameters
    ----------
    trace : Trace, str or path-like
        A bundled recording's name, or a path.
    traces : sequence of path-like, optional
        To learn from; those of the same program are left out. Default: the bundled ones.
    **how
        As in `collect`.

    Returns
    -------
    Study
    """
    held = open_trace(trace)
    program = read(held).program
    others = [open_trace(other) for other in traces or load_traces()]
    others = [other for other in others if read(other).program != program]
    return replace(collect([held, *others], **how), held_out=(program,))


def study_of(
    trace: Trace, traces: Sequence[Trace | PathLike] | None = None, who: str = "trace", **how: Any
) -> Study:
    """Make the study of a notebook: hold out the program of `trace`, or ``"each"`` of `traces`."""
    if who not in ("trace", "each"):
        raise UsageError(f"what is held out is {who!r}: say trace or each")
    if who == "each":
        return collect([open_trace(one) for one in traces or load_traces()], **how)
    return hold_out(trace, traces, **how)


def steps(traces: int = 0) -> int:
    """Return how often `progress` is told something in a back-test of so many traces (0: ours).

    Each trace is read; without each one's program every learner, the peaks and the pages are fitted
    (fewer, where traces are of one program).
    """
    return (traces or len(LOAD_TRACES)) * (1 + len(LEARNERS) + 2)


def summary(study: Study, rate: float = 0.05) -> dict[str, pd.DataFrame]:
    """Return the study's tables by name: what a report shows.

    Parameters
    ----------
    study : Study
    rate : float
        Violations that are allowed, of the table ``deployed``.

    Returns
    -------
    dict of str to DataFrame
    """
    return {
        "compare": study.compare(),
        "coverage": study.coverage(),
        "coverage-by-log": study.coverage_by_log(),
        "deployed": study.deployed(rate),
        "losses": study.losses(),
        "peaks": study.peaks,
        "pages": study.pages,
        "limits": study.limits,
        "data": about(study),
    }


def about(study: Study) -> pd.DataFrame:
    """Return a row per log: its name, program, windows, sizes, digest, and whether composed."""
    rows = []
    for log, one in zip(study.logs, study.samples, strict=True):
        w = one.table["pages"] / 256
        rows.append(
            {"log": log.name, "program": log.program, "composed": log.composed,
             "windows": len(one.table), "median_mib": w.median(), "max_mib": w.max(),
             "digest": log.digest()}
        )  # fmt: skip
    return pd.DataFrame(rows)
