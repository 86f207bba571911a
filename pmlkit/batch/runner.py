# SPDX-License-Identifier: Apache-2.0
"""Run an experiment: run what is missing, and keep the results.

``results/NAME/RUN-ID/`` contains a run's executed notebook, its figures and tables, and
``run.json``. ``results/NAME/`` contains the page ``index.html``, ``results.parquet`` with the
tables of all runs, and the pieces that the experiment gathers for an article.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pmlkit import signals
from pmlkit.batch import expand, gather
from pmlkit.batch.job import ATTEMPT, Processes, Stopped, execute_into, source_digest
from pmlkit.batch.plan import RESULTS, Plan, plan
from pmlkit.errors import output_error
from pmlkit.files import refuse_inside_trace, take_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from pmlkit.batch.expand import Job
    from pmlkit.types import Json, PathLike


__all__ = ["Backend", "Local", "Plan", "Report", "Watcher", "plan", "run"]

PAGE = "index.html"


@dataclass
class Report:
    """The outcome of an experiment.

    Attributes
    ----------
    plan : Plan
    page, results : Path
        ``index.html`` and ``results.parquet``.
    done, kept : list of Job
        Runs of this call; runs that were finished before, and kept.
    failed : list of (Job, dict)
        With their records, whose ``error`` has the cell and the message.
    left : list of Job
        Not run: interrupted, or a summary whose runs are not all finished.
    outdated : list of Job
        Kept runs that were made by other source code of the same version of pmlkit.
    interrupted : bool
    gathered : list of Path
        Figures and tables for an article, in the experiment's folder.
    """

    plan: Plan
    page: Path
    results: Path
    done: list[Job] = field(default_factory=list)
    kept: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, Json]] = field(default_factory=list)
    left: list[Job] = field(default_factory=list)
    outdated: list[Job] = field(default_factory=list)
    interrupted: bool = False
    gathered: list[Path] = field(default_factory=list)


class Watcher:
    """Receives the progress of the runs; this one ignores it."""

    def begin(self, total: int) -> None:
        """Start with `total` runs."""

    def started(self, job: Job) -> None:
        """A run has started (not every backend reports it)."""

    def ended(self, job: Job, record: Json) -> None:
        """A run has ended."""


class Backend(Protocol):
    """Performs the runs: `Local`, or `pmlkit.batch.dask.Cluster`."""

    def run(
        self, jobs: Sequence[Job], folder: Path, started: Callable[[Job], object] = ..., /
    ) -> Generator[tuple[Job, Json], None, None]:
        """Perform runs, and yield each when it ends.

        Parameters
        ----------
        jobs : list of pmlkit.batch.expand.Job
        folder : Path
            The experiment's folder: a run's folder in it has the name of the run's id.
        started : callable, optional
            Function that is called with each job when it starts.

        Yields
        ------
        (Job, dict)
            The job and its record, in the order in which they end. Closing the generator (or an
            exception in the caller) stops all runs, and leaves no incomplete folder.
        """
        ...


class Local:
    """The backend of this machine: runs are its child processes.

    Parameters
    ----------
    jobs : int
        Number of parallel runs.
    """

    def __init__(self, jobs: int = 2) -> None:
        self.jobs = jobs

    def run(
        self, jobs: Sequence[Job], folder: Path, started: Callable[[Job], object] = lambda job: None
    ) -> Generator[tuple[Job, Json], None, None]:
        """Perform runs, and yield each when it ends."""
        processes = Processes()

        def do(job: Job) -> Json:
            if processes.stopped:
                raise Stopped
            started(job)
            return execute_into(job, folder / job.id, processes)

        with ThreadPoolExecutor(self.jobs) as pool:
            waiting = {pool.submit(do, job): job for job in jobs}
            try:
                while waiting:
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        yield waiting.pop(future), future.result()
            finally:
                processes.stop()
                pool.shutdown(wait=True, cancel_futures=True)


def run(
    experiment: PathLike | Plan,
    out: PathLike = "results",
    backend: Backend | None = None,
    *,
    jobs: int = 2,
    only: Sequence[str] = (),
    again: bool = False,
    watcher: Watcher | None = None,
) -> Report:
    """Run what is missing.

    Parameters
    ----------
    experiment : path-like or Plan
    out : path-like
        Folder of the results of all experiments.
    backend : Backend, optional
        Performs the runs; default: this machine.
    jobs : int
        Number of parallel runs on this machine.
    only : sequence of str
        Select only runs with all of these words (`pmlkit.batch.expand.only`).
    again : bool
        Also repeat finished runs.
    watcher : Watcher, optional
        Receives the progress.

    Returns
    -------
    Report
        It includes failed runs, whose notebooks are kept. After Ctrl-C it is `interrupted`, and the
        same call continues.

    Raises
    ------
    pmlkit.batch.schema.ExperimentError, pmlkit.errors.UsageError
    pmlkit.errors.OutputError
        If the results cannot be written, or another process runs the same experiment.
    """
    planned = experiment if isinstance(experiment, Plan) else plan(experiment, out)
    chosen = expand.only(planned.jobs, only)
    report = Report(planned, planned.folder / PAGE, planned.folder / RESULTS)
    report.left = [job for job in chosen if again or not planned.is_done(job)]
    report.kept = [job for job in chosen if job not in report.left]
    sources = {job.id: (planned.record(job) or {}).get("source") for job in report.kept}
    report.outdated = [job for job in report.kept if sources[job.id] != source_digest()]
    watcher = watcher or Watcher()
    with _locked(planned.folder), signals.raising():
        _remove_attempts(planned.folder)
        watcher.begin(len(report.left))
        try:
            _stage(report, planned.runs, backend or Local(jobs), watcher)
            _write(planned, report)
            if all(map(planned.is_done, planned.runs)):
                # Always on this machine, which has the results; there are few.
                _stage(report, planned.summaries, Local(jobs), watcher)
        except KeyboardInterrupt:
            report.interrupted = True
        _write(planned, report)
    return report


def _stage(report: Report, jobs: Sequence[Job], backend: Backend, watcher: Watcher) -> None:
    """Do those of the jobs that are left."""
    waiting = [job for job in report.left if job in jobs]
    if not waiting:
        return
    with contextlib.closing(backend.run(waiting, report.plan.folder, watcher.started)) as over:
        for job, record in over:
            report.left.remove(job)
            if record["status"] == "done":
                report.done.append(job)
            else:
                report.failed.append((job, record))
            watcher.ended(job, record)


def _write(planned: Plan, report: Report) -> None:
    from pmlkit.batch import page, results  # with pandas: later than `--help`

    records = {job.id: planned.record(job) for job in planned.jobs}
    results.write(report.results, planned.folder, planned.runs, records)
    page.write_page(report.page, planned, records)
    ready = [piece for piece in planned.pieces if planned.is_done(piece.job)]
    if ready:
        report.gathered = gather.write(planned.experiment, planned.folder, ready)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the results against a second process."""
    refuse_inside_trace(folder, is_folder=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")  # noqa: SIM115
    except OSError as error:
        raise output_error(folder, error) from error
    with lock:
        take_lock(lock.fileno(), folder, "another pmlkit runs this experiment into it")
        yield


def _remove_attempts(folder: Path) -> None:
    """Remove folders of attempts by dead processes of this machine."""
    for attempt in folder.glob(f"{ATTEMPT}*-{socket.gethostname()}-*"):
        number = attempt.name.rsplit("-", 2)[-2]
        if number.isdigit() and not _is_alive(int(number)):
            shutil.rmtree(attempt, ignore_errors=True)


def _is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
