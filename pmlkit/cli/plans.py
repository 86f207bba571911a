# SPDX-License-Identifier: Apache-2.0
"""Output of `pmlkit run`: the plan, a progress bar, and the report."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from pmlkit import progress
from pmlkit.batch.runner import Watcher
from pmlkit.cli.console import console
from pmlkit.units import format_ns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from pmlkit.batch.expand import Job
    from pmlkit.batch.plan import Plan
    from pmlkit.batch.runner import Report
    from pmlkit.types import Json


__all__ = ["Bar", "plan_dict", "print_plan", "print_report", "report_dict"]


class Bar(Watcher):
    """Progress over all runs, with the names of the active ones.

    At a terminal, a failed run keeps its line.

    Parameters
    ----------
    lines : bool
        Print a line for each run that ends.
    quiet : bool
        Show no progress.
    """

    def __init__(self, lines: bool = False, quiet: bool = False) -> None:
        self.lines, self.quiet = lines, quiet
        self.active: dict[str, str] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        reporter = self._open.enter_context(progress.shown(self.quiet))
        self.at_terminal = isinstance(reporter, progress.Terminal)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def begin(self, total: int) -> None:
        """Start the bar."""
        self.task = self._open.enter_context(progress.task("runs", total))

    def started(self, job: Job) -> None:
        """Add the run's name."""
        self.active[job.id] = job.label
        self.task.begin("; ".join(self.active.values()))

    def ended(self, job: Job, record: Json) -> None:
        """Remove the run's name, and count the run."""
        self.active.pop(job.id, None)
        self.task.begin("; ".join(self.active.values()))
        self.task.advance()
        if self.lines or (record["status"] == "failed" and self.at_terminal):
            progress.note(
                f"{self.task.done}/{self.task.total} {job.label}: {record['status']}"
                f" after {format_ns(int(record['seconds'] * 1e9))}"
            )


def plan_dict(plan: Plan, chosen: Sequence[Job]) -> Json:
    """Return a plan as JSON."""
    return {
        "experiment": plan.experiment.name,
        "folder": str(plan.folder),
        "runs": [_job_dict(plan, job) for job in chosen],
    }


def _job_dict(plan: Plan, job: Job) -> Json:
    record = plan.record(job)
    return {
        "id": job.id,
        "notebook": job.notebook,
        "traces": [trace.name for trace in job.traces],
        "parameters": job.parameters,
        "status": record["status"] if record else "not run yet",
        "error": record and record["error"],
    }


def print_plan(plan: Plan, chosen: Sequence[Job]) -> None:
    """Print the runs, one line each: id, status, label."""
    page = console()
    for job in chosen:
        fields = _job_dict(plan, job)
        page.print(f"{job.id}  {fields['status']:11}  {job.label}")
    left = sum(not plan.is_done(job) for job in chosen)
    page.print(f"{len(chosen)} runs, {left} to do; the folder of the results is {plan.folder}")


def report_dict(report: Report) -> Json:
    """Return an experiment's report as JSON."""
    return {
        "experiment": report.plan.experiment.name,
        "page": str(report.page),
        "results": str(report.results),
        "done": [job.id for job in report.done],
        "kept": [job.id for job in report.kept],
        "outdated": [job.id for job in report.outdated],
        "left": [job.id for job in report.left],
        "interrupted": report.interrupted,
        "gathered": [str(path) for path in report.gathered],
        "failed": [
            {"run": job.id, "label": job.label, **record["error"]} for job, record in report.failed
        ],
    }


def print_report(report: Report) -> None:
    """Print an experiment's report, failures last."""
    page = console()
    counts = f"{len(report.done)} done, {len(report.kept)} done before"
    counts += f", {len(report.failed)} failed" * bool(report.failed)
    counts += f", {len(report.left)} not run" * bool(report.left)
    page.print(counts + "; the same command continues" * report.interrupted)
    if report.outdated:
        page.print(
            f"{len(report.outdated)} of the earlier runs used another state of pmlkit's source: "
            "`--again` repeats them"
        )
    page.print(f"look at {report.page}")
    if report.gathered:
        names = {path.stem for path in report.gathered}
        count = sum(piece.name in names for piece in report.plan.pieces)
        total = len(report.plan.pieces)
        page.print(f"gathered {count} of {total} figures and tables: {report.gathered[-1]}")
    errors = console(error=True)
    for job, record in report.failed:
        where = f"cell {record['error']['cell']}" if record["error"]["cell"] else "papermill"
        errors.print(f"failed: {job.label}")
        errors.print(f"  {where}: {record['error']['message']}")
        errors.print(f"  look at {report.plan.folder / job.id / record['error']['file']}")
    sys.stdout.flush()
