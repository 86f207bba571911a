# SPDX-License-Identifier: Apache-2.0
"""Collect from a Xen host, and watch it: the agent logs in dom0, the spool grows here.

>>> with Collection("web1", "web1.trace", host="root@dom0") as run:      # doctest: +SKIP
...     for seen in run:
...         print(seen.round, seen.pages, seen.lost)
>>> run.trace                                                            # doctest: +SKIP
"""

import contextlib
import platform
import shutil
import signal
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from pmlkit.errors import NotATrace, PmlkitError, SpoolDamaged, UsageError
from pmlkit.launch import Agent
from pmlkit.seen import Watcher
from pmlkit.sources.host import command
from pmlkit.sources.recorder import claim
from pmlkit.spool_reader import read_spool

__all__ = ["CollectError", "CollectOptions", "Collection", "collect"]

_POLL_S = 0.1
_END_S = 60.0  # for the last frames; the next collection switches off what a killed one left on
PAGE_TABLES = {
    "off": (),
    "mark": ("tables",),
    "drop": ("tables", "drop"),
    "snapshot": ("tables", "snapshots"),
}


class CollectError(PmlkitError):
    """A collection failed, or was cut. Attributes: `domain`, `why`, `trace` (path, or None)."""

    def __init__(self, domain, why, trace=None, hint=""):
        self.domain, self.why, self.trace = domain, why, trace
        kept = f"what came is in {trace}" if trace else "nothing came"
        super().__init__(f"collecting {domain} ended early ({why})", hint or kept)


@dataclass(frozen=True)
class CollectOptions:
    """How to collect.

    Attributes
    ----------
    mode : {"auto", "pml", "stock"}
        The patched interface, stock log-dirty, or the first that there is.
    rounds : int
        0: until it is stopped.
    period_s : float
        Length of a round, seconds.
    free : bool
        Never pause the guest: rounds are cut out of the log afterwards. Pages are re-armed at
        flushes.
    rearm : {"never", "round", "flush"}
    rearm_every : int
        With "flush": after how many drained buffers.
    slots : int
        Buffers of 512 entries that a vCPU's ring holds: a power of two, 2 to 4096.
    buffers : int
        Hardware buffers per vCPU, 1 to 8.
    page_tables : {"off", "mark", "drop", "snapshot"}
    harvest : {"", "accessed", "guided", "both", "pruned"}
        Which accessed flags are harvested when a round is closed.
    harvest_every : int
        In every so many rounds.
    bitmaps : bool
        Keep the log-dirty bitmap of each round in the spool.
    state : str
        Folder in dom0 for the marks of running collections.
    """

    mode: str = "auto"
    rounds: int = 0
    period_s: float = 1.0
    free: bool = False
    rearm: str = "round"
    rearm_every: int = 1
    slots: int = 64
    buffers: int = 2
    page_tables: str = "mark"
    harvest: str = ""
    harvest_every: int = 1
    bitmaps: bool = False
    state: str = "/run/pmlkit"

    def job(self, domain):
        """Return the agent's job, checked (a dict that JSON can hold)."""
        from pmlkit.xen.job import Job

        if self.page_tables not in PAGE_TABLES:
            known = ", ".join(PAGE_TABLES)
            raise UsageError(f"page tables cannot be {self.page_tables!r}: choose out of {known}")
        pml = {"slots": self.slots, "buffers": self.buffers, "rearm": self.rearm}
        pml |= {"rearm_every": self.rearm_every, "flags": PAGE_TABLES[self.page_tables]}
        names = ("mode", "rounds", "period_s", "free", "harvest", "harvest_every", "bitmaps")
        told = {name: getattr(self, name) for name in (*names, "state")}
        return asdict(Job(domain=str(domain), pml=pml, **told))


class Collection:
    """A collection: a context manager that starts it, and an iterator over its rounds as they come.

    Leaving the ``with`` block ends it and writes the trace. Ctrl-C ends it, too; log-dirty mode is
    off afterwards.

    Parameters
    ----------
    domain : str or int
        Name or id.
    out : path-like
        The trace to be, ``NAME.trace``.
    options : CollectOptions, optional
    host : str, optional
        ``root@dom0``: the agent runs there, by SSH. None: this machine is dom0.
    overwrite, keep : bool
        Replace the trace; keep the spool beside it.
    heard : callable, optional
        Called with each sentence that the agent says.

    Attributes
    ----------
    seen : list of Seen
        The rounds so far.
    trace : Trace or None
        Once it has ended.
    """

    def __init__(
        self, domain, out, options=None, host=None, *, overwrite=False, keep=False,
        heard=lambda line: None,
    ):  # fmt: skip
        self.domain, self.out, self.host = str(domain), out, host
        self.options = options or CollectOptions()
        self.overwrite, self.keep, self.heard = overwrite, keep, heard
        self.seen, self.trace = [], None
        self._agent = self._reader = self._watcher = None
        self._finished = self._stopped = False

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, error, traceback):
        self.stop()
        self.finish(quietly=kind is not None)

    def start(self):
        """Start the agent."""
        job = self.options.job(self.domain)
        self.out, self.folder = claim(self.out, self.overwrite)
        self._file = self.folder / "frames.spool"
        job["header"] = {
            "source": "xen",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "options": {**asdict(self.options), "collected_over": "ssh" if self.host else "local"},
            "versions": {"python": platform.python_version()},
            "command": command("pmlkit.xen.collect"),
        }
        try:
            self._agent = Agent(job, self._file, self.host, self.heard)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        if self._stopped:  # while it was being started
            self._agent.stop()

    def stop(self):
        """Ask it to end; iterate on for the last rounds."""
        self._stopped = True
        if self._agent is not None:
            self._agent.stop()

    def __iter__(self):
        """Yield a `Seen` for each round, as it is closed, until the collection has ended."""
        while True:
            running = self._agent.running()
            yield from self._poll()
            if not running:
                return
            time.sleep(_POLL_S)

    def _poll(self):
        if self._reader is None and not self._open():
            return
        for kind, payload in self._reader.poll():
            seen = self._watcher.take(kind, payload)
            if seen is not None:
                self.seen.append(seen)
                yield seen

    def _open(self):
        try:
            self._reader = read_spool(self._file)
        except PmlkitError:  # not yet there, or not yet whole: `finish` says if that was it
            return False
        self._watcher = Watcher(self._reader.header)
        return True

    @property
    def header(self):
        """What the spool says of itself, once its first bytes have come; else {}."""
        return self._reader.header if self._reader or self._open() else {}

    def finish(self, quietly=False):
        """Wait for the end and write the trace. Finishing twice does no harm.

        Raises
        ------
        CollectError
            If it was cut; the trace holds what came. With `quietly` only if nothing came.
        OutputError
        """
        if self._finished or self._agent is None:
            return self.trace
        self._finished = True
        status = self._agent.wait(_END_S)
        for _ in self._poll():
            pass
        if self._reader is not None:
            self._reader.close()
        self._write(status, quietly)
        return self.trace

    def _write(self, status, quietly):
        from pmlkit.ingest import ingest

        why = self._why(status)
        try:
            self.trace = ingest(self.folder, self.out, overwrite=self.overwrite)
        except (NotATrace, SpoolDamaged, PmlkitError) as error:
            empty = isinstance(error, NotATrace | SpoolDamaged)
            if not empty:
                raise
            shutil.rmtree(self.folder, ignore_errors=True)
            if quietly:
                return
            raise self._nothing(why or error.problem) from error
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        if why and not quietly:
            raise CollectError(self.domain, why, str(self.out))

    def _nothing(self, why):
        hint = "" if self.host is None else f"try `ssh {self.host} python3 -V`"
        return CollectError(self.domain, why, hint=hint)

    def _why(self, status):
        """Say why a collection did not end well; None if it did."""
        if status == 0 and self._reader is not None and self._reader.ended:
            return None
        if status == 0:
            return "the spool did not arrive whole"
        told = self._agent.said[-1] if self._agent.said else f"exit status {status}"
        return f"the connection to {self.host} was lost: {told}" if status == 255 else told

    def run(self, show=lambda seen: None):
        """Collect to the end; Ctrl-C, SIGTERM and SIGHUP end it early and cleanly.

        Parameters
        ----------
        show : callable
            Called with each `Seen`.

        Returns
        -------
        Trace
        """
        with _ending(self.stop), self:
            for seen in self:
                show(seen)
        return self.trace

    def figure(self):
        """Return a live figure of it (`pmlkit.figures_live.LiveFigure`)."""
        from pmlkit.figures_live import LiveFigure

        return LiveFigure()


@contextlib.contextmanager
def _ending(stop):
    """Let the signals that end a program end the collection instead."""

    def stopped(number, _):
        for each in before:  # once more is meant
            signal.signal(each, before[each])
        stop()

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, stopped)
    except ValueError:  # not the main thread: signals are somebody else's
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def collect(domain, out, options=None, host=None, **more):
    """Start collecting a domain; returns the `Collection`, to be used in a ``with`` block.

    Parameters as of `Collection`; `collect(...).run()` collects to the end and returns the trace.
    """
    return Collection(domain, out, options, host, **more)
