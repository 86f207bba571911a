# SPDX-License-Identifier: Apache-2.0
"""The study of forecasts on recordings, for the command, the notebook and the experiment.

It makes samples of logs, judges forecasters and rules on them, and tabulates the results. The
forecast is for what the logs measure: what is used, or for a PML log alone what is written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import progress
from pmlkit.errors import PmlkitError, UsageError
from pmlkit.forecast import backtest, features, limits, pages, peaks, trial, verdict
from pmlkit.forecast.ahead import training_of
from pmlkit.forecast.analogs import LEARNERS, make
from pmlkit.forecast.compose import (
    LOAD_TRACES,
    PATTERNS,
    composed_of,
    load_traces,
    long_enough,
    sample,
)
from pmlkit.forecast.log import Log, read, step_of
from pmlkit.forecast.trial import Plan
from pmlkit.recordings import open_trace
from pmlkit.trace.schema import MIB_PAGES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pmlkit.forecast.analogs import Pooled
    from pmlkit.forecast.backtest import Outcome
    from pmlkit.forecast.forecaster import Forecaster, Sample
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Ints, PathLike

__all__ = ["Study", "about", "collect", "of_one", "steps", "study_of", "summary"]


@dataclass(frozen=True)
class Study:
    """Logs, their tables of features, and the results of back-tests on them.

    Attributes
    ----------
    logs : tuple of Log
    window : str
    horizon : int
    target : {"at", "peak"}
    held_out : tuple of str or None
        The programs that the models forecast; None: each in turn.
    """

    logs: tuple[Log, ...]
    window: str | int = "500ms"
    horizon: int = 4
    target: str = "at"
    held_out: tuple[str, ...] | None = None

    @cached_property
    def samples(self) -> list[Sample]:
        """The table of features of each log."""
        return [sample(log, self.window) for log in self.logs]

    @cached_property
    def recorded(self) -> list[Sample]:
        """The samples of recordings, without composed ones."""
        return [s for s in self.samples if not s.composed]

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """The allocations of every rule and model, for each program that is left out."""
        forecasters = backtest.default_forecasters(self.horizon, self.target)
        outcomes = backtest.leave_one_out(self.samples, forecasters, programs=self.held_out)
        return [o for o in outcomes if self.held_out is None or o.program in self.held_out]

    @cached_property
    def forecaster(self) -> tuple[Forecaster | Pooled, Sample]:
        """The pooled model, fitted without the first held-out program, and a sample of it."""
        program = self.held_out[0] if self.held_out else self.samples[0].program
        others = [s for s in self.samples if s.program != program]
        model = make("pooled", self.horizon, self.target).fit(others)
        return model, next(s for s in self.samples if s.program == program)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Losses and coverage of the quantiles (`backtest.scores`)."""
        return backtest.scores(self.outcomes)

    @property
    def changes(self) -> Ints:
        """The change points of the sample of `forecaster`, found with hindsight, in windows."""
        return features.change_points(np.log1p(self.forecaster[1].table["pages"]))

    def coverage(self) -> pd.DataFrame:
        """Return the mean coverage of each quantile over programs, and its error in points."""
        table = self.scores.dropna(subset="tau")
        by_log = table.groupby(["model", "tau", "composed", "sample"], sort=False)[
            "coverage"
        ].mean()
        groups = by_log.groupby(["model", "tau", "composed"])
        means = groups.agg(coverage="mean", worst="min", logs="size").reset_index()
        return means.assign(points=100 * (means["coverage"] - means["tau"]))

    def coverage_by_log(self) -> pd.DataFrame:
        """Return each log's coverage less the quantile, in points: a column per quantile."""
        table = self.scores.dropna(subset="tau")
        table = table.assign(points=100 * (table["coverage"] - table["tau"]))
        table["tau"] = [f"q{tau:g}" for tau in table["tau"]]
        rows = ["model", "sample", "composed"]
        wide = table.pivot_table(index=rows, columns="tau", values="points", sort=False)
        return wide.reset_index().rename_axis(columns=None)

    def losses(self) -> pd.DataFrame:
        """Return each model's and rule's mean pinball loss, MAPE and coverage over the logs."""
        table = self.scores.assign(tau=self.scores["tau"].fillna(0.5))
        columns = ["pinball", "mape", "coverage"]
        return table.groupby(["composed", "tau", "model"])[columns].mean().reset_index()

    def judged(self, rate: float = 0.05) -> pd.DataFrame:
        """Judge all deciders on other programs, with knobs set in advance (`trial.judge`)."""
        logs = self.recorded or self.samples
        held = [s for s in logs if self.held_out is None or s.program in self.held_out]
        return trial.judge(held, logs, self._plan(rate))

    def _plan(self, rate: float) -> Plan:
        inputs = tuple(dict.fromkeys(s.inputs for s in self.samples))
        return Plan(str(self.window), (self.horizon,), inputs, (rate,), rate)

    @cached_property
    def limits(self) -> pd.DataFrame:
        """The possible saving with hindsight (`limits.limits`), on recordings if there are any."""
        return limits.limits(self.recorded or self.samples)

    @cached_property
    def peaks(self) -> pd.DataFrame:
        """The back-test of forecasts of peaks (`peaks.backtest`).

        Empty for PML alone if the used pages are known: the use always exceeds what PML sees.
        """
        if not all(sample.feedback for sample in self.samples):
            return pd.DataFrame()
        return peaks.backtest(self.samples, self.horizon, self.held_out)

    @cached_property
    def pages(self) -> pd.DataFrame:
        """The back-test of choices of pages (`pages.backtest`), on recordings if there are any."""
        logs = [log for log in self.logs if not log.composed] or list(self.logs)
        tables = [pages.candidates(log, self.window, self.horizon, truth=log.used) for log in logs]
        programs, names = [log.program for log in logs], [log.name for log in logs]
        return pages.backtest(tables, programs, names, self.held_out)


def collect(
    traces: Sequence[Trace | PathLike] | None = None,
    window: str | int = "500ms",
    horizon: int = 4,
    target: str = "at",
    composed: bool = True,
    inputs: str = "pml",
) -> Study:
    """Create a study of traces.

    Parameters
    ----------
    traces : sequence of path-like or Trace, optional
        Default: the bundled recordings with a changing load.
    window, horizon, target
        As in `Study`.
    composed : bool
        Also compose a daily, a bursty and a random-walk log from each recording that is a PML log
        alone.
    inputs : str
        One of `log.INPUTS`.

    Raises
    ------
    PmlkitError
        If there are no traces, or one is too short for a forecast.
    """
    logs = []
    for trace in progress.over(list(traces or load_traces()), "reading", str):
        opened = open_trace(trace)
        step_ns = step_of(opened, window, features.PARTS)
        log = read(opened, inputs=inputs, step_ns=step_ns)
        logs.append(long_enough(log, window, horizon))
        if composed and not log.composed and log.measures == "written":
            logs += [composed_of(log, pattern) for pattern in PATTERNS]
    if not logs:
        raise PmlkitError("there is no recording to forecast", "give traces, or restore data/")
    return Study(tuple(logs), window, horizon, target)


def study_of(
    trace: Trace | PathLike,
    traces: Sequence[Trace | PathLike] | None = None,
    who: str = "trace",
    **settings: Any,
) -> Study:
    """Create a study that leaves out one program, or each.

    Parameters
    ----------
    trace : Trace or path-like
        A bundled recording's name, or a path.
    traces : sequence of path-like, optional
        Training traces; default: the bundled recordings with a changing load.
    who : {"trace", "each"}
        Leave out the program of `trace`, and learn from other programs; or each program of
        `traces`.
    **settings
        As in `collect`.
    """
    if who not in ("trace", "each"):
        raise UsageError(f"who is {who!r}: use trace or each")
    others = [open_trace(other) for other in traces or load_traces()]
    if who == "each":
        return collect(others, **settings)
    held = open_trace(trace)
    program = read(held).program
    others = [other for other in others if read(other).program != program]
    return replace(collect([held, *others], **settings), held_out=(program,))


def of_one(
    trace: Trace | PathLike,
    inputs: str = "pml+sample",
    window: str | int = "500ms",
    horizon: int = 4,
) -> tuple[Forecaster | Pooled, Sample]:
    """Return the pooled model, fitted to other programs, and the sample of one trace.

    The other programs are those for development if the trace shows what is used; otherwise they are
    the bundled recordings with a changing load.
    """
    opened = open_trace(trace)
    step_ns = step_of(opened, window, features.PARTS)
    log = long_enough(read(opened, inputs=inputs, step_ns=step_ns), window, horizon)
    training, _ = training_of(log, window)
    return make("pooled", horizon).fit(training), sample(log, window)


def steps(traces: int = 0) -> int:
    """Return the number of steps of a back-test of that many traces (0: the bundled ones).

    Each trace is read; every learner, the peaks and the pages are fitted without its program. There
    are fewer steps if traces share a program. The trial adds one step per group.
    """
    traces = traces or len(LOAD_TRACES)
    return traces * (1 + len(LEARNERS) + 2) + min(traces, Plan().folds)


def summary(study: Study, rate: float = 0.05) -> dict[str, pd.DataFrame]:
    """Return the study's tables by name; `rate` is the allowed violations in ``deciders``.

    A table without rows is omitted.
    """
    tables = {
        "deciders": verdict.summary(study.judged(rate)),
        "coverage": study.coverage(),
        "coverage-by-log": study.coverage_by_log(),
        "losses": study.losses(),
        "peaks": study.peaks,
        "pages": study.pages,
        "limits": study.limits,
        "data": about(study),
    }
    return {name: table for name, table in tables.items() if len(table)}


def about(study: Study) -> pd.DataFrame:
    """Return one row per log: name, program, inputs, measured quantity, windows, sizes, digest."""
    rows = []
    for log, sample_of_log in zip(study.logs, study.samples, strict=True):
        table = sample_of_log.table
        mib = table["used" if "used" in table else "pages"] / MIB_PAGES
        rows.append(
            {
                "log": log.name,
                "program": log.program,
                "composed": log.composed,
                "inputs": log.inputs,
                "measures": log.measures,
                "windows": len(mib),
                "median_mib": mib.median(),
                "max_mib": mib.max(),
                "digest": log.digest(),
            }
        )
    return pd.DataFrame(rows)
