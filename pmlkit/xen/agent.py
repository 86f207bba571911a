# SPDX-License-Identifier: Apache-2.0
"""The agent: log a domain into a spool, in dom0. Needs Python 3.9 and cffi.

    python3 -m pmlkit.xen.agent                       the job is the first line of standard input
    python3 -m pmlkit.xen.agent JOB.json DOMID SPOOL  the lab: the domain may still be paused

In the first form, standard input stays open. A line "stop" ends the collection, and so does the end
of the input. Other lines show that the other side is alive. Messages go to standard error. The
spool goes to the file that the job names, or to standard output.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import GuestError, PmlkitError, UsageError
from pmlkit.starter import Pipe, first_line, report
from pmlkit.xen import domains
from pmlkit.xen.binding import MissingLibrary, XenError
from pmlkit.xen.collector import Collector, Period
from pmlkit.xen.job import Job
from pmlkit.xen.stop import Stop
from pmlkit.xen.xenctrl import Control

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from pmlkit.types import Json
    from pmlkit.xen.domains import Domain
    from pmlkit.xen.lab import Mailbox


def main(arguments: Sequence[str] = ()) -> int:
    """Run a job; returns the exit status."""
    prefix = "LAB agent" if arguments else "agent: error"
    try:
        end = _lab(*arguments) if arguments else serve()
    except PmlkitError as error:
        print(f"{prefix}: {error}", file=sys.stderr, flush=True)
        return 2 if isinstance(error, UsageError) else 1
    if arguments:
        print(f"LAB agent: {end['rounds']} rounds: {end['why']}", file=sys.stderr, flush=True)
    return 0


def serve(orders: int = 0, out: int = 1) -> Json:
    """Run the job that is the first line of file descriptor `orders`.

    Parameters
    ----------
    orders, out : int
        File descriptors; the spool goes to `out` if the job has ``"-"``.
    """
    job = Job.of(first_line(orders))
    domain = domains.find(job.domain)
    with Stop(domain, orders, job.silence_s) as stop:
        file = Pipe(out, stop) if job.spool == "-" else None
        pace = Period(job.period_s)
        return Collector(job, domain, stop, report, pace).run(file)


def preload() -> None:
    """Import all modules of a collection, because the zipapp may be deleted."""
    from pmlkit.xen.binding import ffi

    try:
        ffi()
    except PmlkitError as error:
        sys.exit(f"agent: error: {error}")


def _lab(job_path: str, domid: str, spool: str) -> Json:
    """Start the lab's domain, log it, fill the spool."""
    from pmlkit.xen.lab import LabPeriod, Lockstep

    job = replace(Job.of(json.loads(Path(job_path).read_text())), domain=domid, spool=spool)
    unpause(int(domid))
    domain = _lab_domain(int(domid))
    with contextlib.ExitStack() as stack:
        box = _mailbox(stack, job, domain.domid)
        pace = Lockstep(job, box) if box and job.lockstep else LabPeriod(job)
        pace.begin()
        if box and not job.lockstep:
            box.free_run()
        stop = stack.enter_context(Stop(domain))
        file = Pipe(1, stop) if spool == "-" else None
        end = Collector(job, domain, stop, report, pace).run(file)
    if not end["rounds"]:
        raise GuestError(end["why"] or "it ended before its first round ended")
    return end


def _lab_domain(domid: int) -> Domain:
    try:
        return domains.find(domid)
    except (MissingLibrary, XenError):
        return domains.Domain(domid)


def _mailbox(stack: ExitStack, job: Job, domid: int) -> Mailbox | None:
    if not (job.mailbox or job.lockstep):
        return None
    from pmlkit.xen.lab import Mailbox

    box = stack.enter_context(Mailbox(domid))
    box.wait_ready(job.limit_s)
    return box


def unpause(domid: int) -> None:
    """Start a domain that was created paused."""
    with Control() as control:
        control.unpause(domid)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
