# SPDX-License-Identifier: Apache-2.0
"""The agent: log a VM into a spool, on its host. It needs Python 3.9 and root rights.

    python3 -m pmlkit.kvm.agent                    the job is the first line of standard input
    python3 -m pmlkit.kvm.agent JOB.json VM SPOOL  the job is a file

In the first form, standard input stays open. A line "stop" ends the collection, and so does the end
of the input. Other lines show that the other side is alive. Messages go to standard error. The
spool goes to the file that the job names, or to standard output ("-").
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import PmlkitError, UsageError, read_error
from pmlkit.kvm import capture, find, memory, switch
from pmlkit.kvm.collector import Collector
from pmlkit.kvm.host import Host
from pmlkit.kvm.job import Job
from pmlkit.kvm.stop import Stop
from pmlkit.starter import Pipe, first_line, report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.types import Json


def main(arguments: Sequence[str] = ()) -> int:
    """Run a job; returns the exit status."""
    try:
        if not arguments:
            collect(Job.of(first_line(0)), orders=0)
        elif len(arguments) == 3:
            collect(_from_file(*arguments))
        else:
            raise UsageError("give JOB.json VM SPOOL, or nothing and the job by standard input")
    except PmlkitError as error:
        print(f"agent: error: {error}", file=sys.stderr, flush=True)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"agent: error: {where}{error.strerror or error}", file=sys.stderr, flush=True)
        return 1
    return 0


def collect(job: Job, orders: int | None = None, out: int = 1, host: Host | None = None) -> Json:
    """Run a job.

    Parameters
    ----------
    orders : int, optional
        File descriptor of the orders.
    out : int
        The file descriptor for the spool if the job has ``"-"``.
    """
    host = host or Host()
    vm = find.find(host, job.vm)
    with Stop(host, vm, orders, job.silence_s, job.seconds) as stop:
        file = Pipe(out, stop) if job.spool == "-" else None
        if job.mode != "log":
            return memory.collect(job, host, vm, stop, report, file)
        way = switch.of(vm, job)
        try:
            return Collector(
                job, host, vm, stop, lambda: capture.of(host, job, vm), way, report
            ).run(file)
        finally:
            way.close()


def preload() -> None:
    """Do nothing: all modules of a collection are already imported."""


def _from_file(path: str, vm: str, spool: str) -> Job:
    try:
        values = json.loads(Path(path).read_text())
    except OSError as error:
        raise read_error(path, "", error) from error
    except ValueError as error:
        raise UsageError(f"{path} is not a job (JSON)") from error
    return replace(_job(values), vm=vm, spool=spool)


def _job(values: object) -> Job:
    if not isinstance(values, dict):
        raise UsageError("the job is not a JSON object")
    return Job.of(values)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
