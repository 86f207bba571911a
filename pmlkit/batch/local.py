# SPDX-License-Identifier: Apache-2.0
"""Runs on this machine, several at the same time."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from pmlkit.batch.job import Processes, Stopped, execute_into

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from pmlkit.batch.expand import Job
    from pmlkit.types import Json


__all__ = ["Local"]


class Local:
    """A backend; others have the same method `run`.

    Parameters
    ----------
    jobs : int
        Runs at the same time.
    """

    def __init__(self, jobs: int = 2) -> None:
        self.jobs = jobs

    def run(
        self, jobs: Sequence[Job], folder: Path, started: Callable[[Job], object] = lambda job: None
    ) -> Generator[tuple[Job, Json], None, None]:
        """Do runs, and yield each when it ends.

        Parameters
        ----------
        jobs : list of pmlkit.batch.expand.Job
        folder : Path
            The experiment's: a run's folder in it is named after the run's id.
        started : callable, optional
            Called with each job when it starts.

        Yields
        ------
        (Job, dict)
            The job and its record, in the order in which they end. Closing the generator (or an
            exception in the caller) stops all runs, and leaves no folder half written.
        """
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
