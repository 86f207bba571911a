# SPDX-License-Identifier: Apache-2.0
"""Collect from a Xen host: the agent logs in dom0, and the spool grows here.

>>> with Collection("web1", "web1.trace", host="root@dom0") as run:      # doctest: +SKIP
...     for seen in run:
...         print(seen.round, seen.pages, seen.lost)
>>> run.trace                                                            # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import signal
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from pmlkit.errors import NotATrace, PmlkitError, SpoolDamaged, TraceVersionError
from pmlkit.sources.host.launch import Agent
from pmlkit.sources.spooling import claim, command
from pmlkit.sources.watch import Follower, Watcher
from pmlkit.spool import FRAMES_FILE
from pmlkit.spool_reader import holds_frames, release
from pmlkit.xen.job import Job, LogOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any, Self

    from pmlkit.sources.watch import Seen, Taker
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json, PathLike, Tell


__all__ = ["CollectError", "CollectOptions", "Collection", "collect"]

_POLL_S = 0.1
_NOT_WHOLE = "the spool did not arrive completely"
_END_S = 60.0  # time for the last frames


@dataclass(frozen=True)
class CollectOptions(LogOptions):
    """Options of a collection: `pmlkit.xen.job.LogOptions`, and dom0's folder for marks.

    Attributes
    ----------
    state : str
        Folder in dom0 for the marks of running collections.
    """

    source: ClassVar[str] = "xen"
    state: str = "/run/pmlkit"

    def watcher(self, header: Json) -> Watcher:
        """Return the object that converts the agent's frames to rounds."""
        return Watcher(header, (self.source,))

    def job(self, domain: str) -> Json:
        """Return the agent's job as JSON values."""
        return asdict(Job(**asdict(self), domain=domain))


class HowToCollect(Protocol):
    """Options of a collection from any source: `CollectOptions`, `KvmCollectOptions`.

    Attributes
    ----------
    source : str
        The value of `source` in the spool's header, and the package of the agent.
    """

    source: ClassVar[str]
    __dataclass_fields__: ClassVar[Json]

    def job(self, domain: str) -> Json:
        """Return the agent's job as JSON values."""

    def watcher(self, header: Json) -> Taker:
        """Return the object that converts the agent's frames to rounds."""


class CollectError(PmlkitError):
    """A collection failed, or was cut short. Attributes: `domain`, `why`, `trace` (or None)."""

    def __init__(self, domain: str, why: str, trace: str | None = None, hint: str = "") -> None:
        self.domain, self.why, self.trace = domain, why, trace
        if trace:
            problem = f"collecting {domain} ended early ({why})"
            super().__init__(problem, hint or f"the received part is in {trace}")
        else:
            super().__init__(f"nothing was collected of {domain}: {why}", hint)


class Collection:
    """A collection: a context manager that starts it, and an iterator over its rounds.

    The end of the ``with`` block stops it and writes the trace; Ctrl-C does the same. Log-dirty
    mode is then off.

    Parameters
    ----------
    domain : str or int
        Name or id.
    out : path-like
        Path of the trace, ``NAME.trace``.
    host : str, optional
        ``root@dom0``: the agent runs there, by SSH. None: this machine is dom0.
    overwrite, keep : bool
        Replace an existing trace; keep the spool next to the trace.
    heard : callable, optional
        Called with each message of the agent.

    Attributes
    ----------
    seen : list of Seen
        The rounds so far.
    trace : Trace or None
        Available after the end.
    """

    trace: Any  # None until it is written
    _agent: Agent  # from `start` on
    _follower: Follower

    def __init__(
        self,
        domain: str | int,
        out: PathLike,
        options: HowToCollect | None = None,
        host: str | None = None,
        *,
        overwrite: bool = False,
        keep: bool = False,
        heard: Tell = lambda line: None,
    ) -> None:
        self.domain, self.out, self.host = str(domain), out, host
        self.options: HowToCollect = options or CollectOptions()
        self.overwrite, self.keep, self.heard = overwrite, keep, heard
        self.seen: list[Seen] = []
        self.trace = None
        self._started = self._finished = self._stopped = self._warned = False
        self._new: list[Path] = []  # folders that the output takes, from the innermost on

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self.finish(quietly=kind is not None)

    def start(self) -> None:
        """Start the agent."""
        job = self.options.job(self.domain)
        self._new = [each for each in Path(self.out).parents if not each.exists()]
        self.out, self.folder = self._claim_output()
        file = self.folder / FRAMES_FILE
        job["header"] = {
            "source": self.options.source,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "options": {**asdict(self.options), "collected_over": "ssh" if self.host else "local"},
            "versions": {"python": platform.python_version()},
            "command": command("pmlkit.collect"),
        }
        try:
            self._agent = Agent(job, file, self.host, self.heard, self.options.source)
        except BaseException:
            self._discard()
            raise
        self._follower = Follower(file, self.options.watcher)
        self._started = True
        if self._stopped:  # the signal arrived during the start
            self._agent.stop()

    def _claim_output(self) -> tuple[Path, Path]:
        """Return the output, and the folder that was made for the spool."""
        return claim(self.out, self.overwrite)

    def _discard(self) -> None:
        """Remove the spool, and the folders that were made for it, unless they have more."""
        shutil.rmtree(self.folder, ignore_errors=True)
        release(self.folder)
        with contextlib.suppress(OSError):
            for each in self._new:
                each.rmdir()

    def stop(self) -> None:
        """Ask the agent to end; continue to iterate for the last rounds."""
        self._stopped = True
        if self._started:
            self._agent.stop()

    def __iter__(self) -> Iterator[Seen]:
        """Yield a `Seen` for each closed round, until the collection has ended."""
        while True:
            running = self._agent.running()
            yield from self._poll()
            if not running:
                return
            time.sleep(_POLL_S)

    def _poll(self) -> Iterator[Seen]:
        for seen in self._follower.poll():
            self.seen.append(seen)
            yield seen
        if self._follower.fault and not self._warned:
            self._warned = True
            if not self._follower.header:  # no trace can be created from it
                self._agent.stop()
            self.heard(f"{self._sent(self._follower.fault)}: no rounds are shown from here on")

    @property
    def header(self) -> Json:
        """The spool's header; {} until it has arrived."""
        return self._follower.header

    def finish(self, quietly: bool = False) -> Trace:
        """Wait for the end and write the trace; idempotent.

        Raises
        ------
        CollectError
            If it was cut short; the trace contains the rounds that arrived. With `quietly`, only if
            nothing arrived.
        OutputError
        """
        if self._finished or not self._started:
            return self.trace
        self._finished = True
        status = self._agent.wait(_END_S)
        for _ in self._poll():
            pass
        self._follower.close()
        try:
            self._write(status, quietly)
        finally:
            release(self.folder)
        return self.trace

    def _write(self, status: int, quietly: bool) -> None:
        from pmlkit.sources.ingest import ingest, kept_hint

        why = self._reason(status)
        messages: list[str] = []  # the error of the first unknown frame
        try:
            self.trace = ingest(
                self.folder, self.out, overwrite=self.overwrite, heard=messages.append,
                source=self.options.source,
            )  # fmt: skip
        except PmlkitError as error:
            self._keep(error, why, quietly)
            return
        if messages:
            if not quietly:
                hint = f"the part before it is in {self.out}; {kept_hint(self.folder, self.out)}"
                raise CollectError(self.domain, self._sent(messages[0]), str(self.out), hint)
        elif not self.keep:
            self._discard()
        if why and not quietly:
            raise CollectError(self.domain, why, str(self.out))

    def _keep(self, error: PmlkitError, why: str | None, quietly: bool) -> None:
        """Keep a spool that contains a frame but produced no trace, and raise the error."""
        from pmlkit.sources.ingest import ingest_command

        what = f"{ingest_command(self.folder, self.out)} converts the received part to a trace"
        if isinstance(error, TraceVersionError):  # the spool may be complete
            hint = f"the received part is kept in {self.folder}: {what}"
            raise CollectError(self.domain, error.problem, hint=hint) from error
        if not isinstance(error, NotATrace | SpoolDamaged):
            error.add(what)
            raise error
        kept = holds_frames(self.folder / FRAMES_FILE)
        if not kept:
            self._discard()
        if quietly:
            return
        fault = self._follower.fault
        if fault:
            why = self._sent(fault)
        elif why in (None, _NOT_WHOLE):
            why = error.problem
        if not kept:
            raise self._no_spool_error(why or "") from error
        hint = f"the received part makes no trace, and is kept in {self.folder}"
        raise CollectError(self.domain, why or "", hint=hint) from error

    def _sent(self, fault: str) -> str:
        """Return the message for a frame that is not understood."""
        where = f" on {self.host}" if self.host else ""
        return f"the collector{where} sent data that this pmlkit does not accept: {fault}"

    def _no_spool_error(self, why: str) -> PmlkitError:
        ours = self.host is None or self._agent.spoke
        hint = "" if ours else f"try `ssh {self.host} python3 -V`"
        return CollectError(self.domain, why, hint=hint)

    def _reason(self, status: int) -> str | None:
        """Return the reason why a collection failed; None if it did not fail."""
        if status == 0 and self._follower.ended:
            return None
        if status == 0:
            return _NOT_WHOLE
        last = self._agent.lines[-1] if self._agent.lines else f"exit status {status}"
        if status != 255:
            return last
        if not self._follower.header:
            return f"no connection to {self.host}: {last}"
        return f"the connection to {self.host} was lost: {last}"

    def run(self, show: Callable[[Seen], object] = lambda seen: None) -> Trace:
        """Collect to the end; Ctrl-C, SIGTERM and SIGHUP stop it early and cleanly.

        Parameters
        ----------
        show : callable
            Called with each `Seen`.
        """
        with _ending(self.stop), self:
            for seen in self:
                show(seen)
        return self.trace


@contextlib.contextmanager
def _ending(stop: Callable[[], None]) -> Iterator[None]:
    """Context in which signals that end a program end the collection instead."""

    def stopped(number: int, _: object) -> None:
        for each in before:  # the next signal ends the program
            signal.signal(each, before[each])
        stop()

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, stopped)
    except ValueError:  # not the main thread, which handles signals
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def collect(
    domain: str,
    out: PathLike,
    options: HowToCollect | None = None,
    host: str | None = None,
    **more: Any,
) -> Collection:
    """Start collecting a domain; returns the `Collection`, to be used in a ``with`` block.

    It takes the parameters of `Collection`. Call `run` on it to collect to the end.
    """
    return Collection(domain, out, options, host, **more)
