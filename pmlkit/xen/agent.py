# SPDX-License-Identifier: Apache-2.0
"""Log a domain and fill a spool: what runs in dom0.

    python3 -m pmlkit.xen.agent JOB.json DOMID SPOOL

The job says how (`Job`). The domain may still be paused: it is unpaused here.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from pmlkit.errors import PmlkitError
from pmlkit.spool import SpoolWriter
from pmlkit.xen import frames
from pmlkit.xen.binding import check, ffi, library
from pmlkit.xen.frames import Frame
from pmlkit.xen.mailbox import Mailbox
from pmlkit.xen.pml import ROUND_ACCESSED, TYPE_TABLES, Options, PmlLog
from pmlkit.xen.stock import LogDirty

_POLL_S = 0.02


@dataclass(frozen=True)
class Job:
    """What is asked of the agent.

    Attributes
    ----------
    mode : {"stock", "pml"}
        Log-dirty as any Xen has it, or the patched interface.
    rounds : int
    period_s : float
        Length of a round, seconds; not used in lock step.
    lockstep : bool
        The guest has a mailbox and runs one of its rounds in each of ours.
    mailbox : bool
        The guest has a mailbox; without lock step it runs freely.
    wait_for : str
        Begin when the guest's console says a line that starts with this.
    stop_at : str
        End when it says a line that starts with this.
    console : str
        File with what the guest says; lines are put into the spool.
    pml : dict
        `pmlkit.xen.pml.Options`.
    accessed, bitmaps : bool
        Harvest accessed flags; put the log-dirty bitmap into the spool.
    limit_s : float
        Seconds of dom0's time for any single wait.
    header : dict
        Goes into the spool's header.
    """

    mode: str = "pml"
    rounds: int = 8
    period_s: float = 0.2
    lockstep: bool = False
    mailbox: bool = False
    wait_for: str = ""
    stop_at: str = ""
    console: str = ""
    pml: dict = field(default_factory=dict)
    accessed: bool = False
    bitmaps: bool = False
    limit_s: float = 120
    header: dict = field(default_factory=dict)


def main(arguments):
    """Run a job; returns the exit status."""
    job_path, domid, spool = arguments
    told = json.loads(Path(job_path).read_text())
    known = {f.name for f in fields(Job)}
    job = Job(**{name: value for name, value in told.items() if name in known})
    try:
        Agent(job, int(domid)).run(spool)
    except PmlkitError as error:
        print(f"LAB agent: {error}", flush=True)
        return 1
    return 0


class Agent:
    """Collects the rounds of one domain."""

    def __init__(self, job, domid):
        self.job, self.domid = job, domid
        self.console = _Console(job.console)

    def run(self, spool):
        """Start the domain, log it, fill the spool."""
        unpause(self.domid)
        if not (self.job.mailbox or self.job.lockstep):
            return self._run(spool, None)
        with Mailbox(self.domid) as box:
            box.wait_ready(self.job.limit_s)
            self._run(spool, box)

    def _run(self, spool, box):
        self._wait_for(self.job.wait_for)
        if box and not self.job.lockstep:
            box.free_run()
        log = _Stock if self.job.mode == "stock" else _Patched
        with log(self.job, self.domid) as source:
            header = {"job": asdict(self.job), **self.job.header, **source.facts()}
            with SpoolWriter(spool, header) as writer:
                self._rounds(source, writer, box)
                source.finish(writer)
        print(f"LAB agent: {writer.frames} frames, {writer.bytes} bytes", flush=True)

    def _rounds(self, source, writer, box):
        for number in range(self.job.rounds):
            if box and self.job.lockstep:
                box.run(number + 1, self.job.limit_s, lambda: source.drain(writer))
            else:
                self._pass_time(source, writer)
            source.close_round(writer, number)
            if self._say(writer, source):
                break

    def _pass_time(self, source, writer):
        end = time.monotonic() + self.job.period_s
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _POLL_S))
            source.drain(writer)
            self._stamp(source, writer)

    def _stamp(self, source, writer):
        for line in self.console.lines():
            self.ended = bool(self.job.stop_at) and line.startswith(self.job.stop_at)
            writer.append(Frame.CONSOLE, frames.pack_json(line=line, ns=source.now_ns()))

    ended = False

    def _say(self, writer, source):
        self._stamp(source, writer)
        return self.ended

    def _wait_for(self, start):
        end = time.monotonic() + self.job.limit_s
        while start and not any(line.startswith(start) for line in self.console.lines(keep=True)):
            if time.monotonic() > end:
                raise PmlkitError(f"the guest never said {start!r}", "see its console")
            time.sleep(_POLL_S)


class _Console:
    """A growing file, line by line."""

    def __init__(self, path):
        self._path, self._at, self._kept = path, 0, []

    def lines(self, keep=False):
        """Return the lines that are new; `keep`: and return them once more next time."""
        fresh, self._kept = self._kept, []
        try:
            with open(self._path, "rb") as file:
                file.seek(self._at)
                data = file.read()
        except OSError:
            data = b""
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        fresh = [*fresh, *(line.strip() for line in whole.decode(errors="replace").splitlines())]
        if keep:
            self._kept = fresh
        return fresh


class _Stock:
    """Rounds by stock log-dirty."""

    def __init__(self, job, domid):
        self._log = LogDirty(domid)
        self._log.close_round()  # enabling marks nothing dirty, but let the first round start clean
        self._started = time.monotonic_ns()
        self._last = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._log.close()

    def facts(self):
        return {"clock": "dom0", "pages": self._log.pages, "vcpus": 1}

    def now_ns(self):
        return time.monotonic_ns() - self._started

    def drain(self, writer):
        """There is nothing to drain: the bitmap is all."""

    def close_round(self, writer, number):
        bits, faults, began, ended = self._log.close_round()
        began, ended = began - self._started, ended - self._started
        told = {"round": number, "t_start_ns": self._last, "t_end_ns": ended}
        told |= {"pause_ns": ended - began, "faults": faults}
        writer.append(Frame.DIRTY, frames.pack_bitmap(number, bits))
        writer.append(Frame.ROUND, frames.pack_json(**told))
        self._last = ended

    def finish(self, writer):
        writer.append(Frame.END, frames.pack_json(complete=True))


class _Patched:
    """Rounds by the patched interface."""

    def __init__(self, job, domid):
        wanted = {**job.pml, "flags": tuple(job.pml.get("flags", ("tables",)))}
        if job.accessed and "accessed" not in wanted["flags"]:
            wanted["flags"] += ("accessed",)
        self._flags = ROUND_ACCESSED if job.accessed else 0
        self._bitmaps = job.bitmaps
        self._log = PmlLog(domid, Options(**wanted))
        self._info = self._log.log_info(0)
        self._started = time.monotonic_ns()  # the epoch of the TSC stamps, within a millisecond

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._log.close()

    def facts(self):
        status, info = self._log.status(), self._info
        names = ("tsc_khz", "epoch_tsc", "epoch_ns")
        told = {name: info[name] for name in names}
        told |= {"clock": "tsc", "pages": status["max_gfn"] + 1, "vcpus": self._log.vcpus}
        return told

    def now_ns(self):
        return time.monotonic_ns() - self._started

    def drain(self, writer):
        for record in self._log.read():
            kind = Frame.TABLES if record["type"] == TYPE_TABLES else Frame.BATCH
            writer.append(kind, frames.pack_batch(record))

    def close_round(self, writer, number):
        told = self._log.close_round(self._flags, dirty=self._bitmaps)
        self.drain(writer)
        for kind, name in ((Frame.DIRTY, "dirty"), (Frame.ACCESSED, "accessed")):
            bits = told.pop(name)
            if bits is not None:
                writer.append(kind, frames.pack_bitmap(told["round"], bits))
        told["vcpus"] = [self._log.vcpu_status(v) for v in range(self._log.vcpus)]
        writer.append(Frame.ROUND, frames.pack_json(**told))

    def finish(self, writer):
        self._log.disable()
        self.drain(writer)
        infos = [self._log.log_info(v) for v in range(self._log.vcpus)]
        writer.append(Frame.END, frames.pack_json(complete=True, logs=infos))


def unpause(domid):
    """Let a domain run that was created paused."""
    lib = library("xenctrl")
    handle = check(lib.xc_interface_open(ffi().NULL, ffi().NULL, 0), "xc_interface_open")
    try:
        check(lib.xc_domain_unpause(handle, domid), "xc_domain_unpause")
    finally:
        lib.xc_interface_close(handle)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
