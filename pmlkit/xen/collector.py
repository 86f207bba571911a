# SPDX-License-Identifier: Apache-2.0
"""Collect the rounds of a domain into a spool. Nothing pauses the guest but the end of a round.

The state of a collection is small: which round runs, and why it should end. Whatever happens,
log-dirty mode is switched off; if this process is killed, the next one does it (`marks`).
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from pmlkit.spool import SpoolWriter
from pmlkit.xen import frames, marks, pml
from pmlkit.xen.binding import XenError
from pmlkit.xen.frames import Frame
from pmlkit.xen.patched import Patched
from pmlkit.xen.unpatched import Unpatched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pmlkit.types import Json, Tell
    from pmlkit.xen.domains import Domain
    from pmlkit.xen.job import Job
    from pmlkit.xen.stop import Stop


_POLL_S = 0.01
_SHORTEST_S = 0.0005


class Collector:
    """Collects one domain.

    Parameters
    ----------
    job : Job
    domain : Domain
    stop : Stop
    say : callable
        Called with a sentence when something happens that people should hear of.
    pace : object, optional
        How a round passes (`Period`; the lab has another); default: by the clock.
    """

    def __init__(
        self,
        job: Job,
        domain: Domain,
        stop: Stop,
        say: Tell = lambda text: None,
        pace: Period | None = None,
    ) -> None:
        self.job, self.domain, self.stop, self.say = job, domain, stop, say
        self.pace = pace or Period(job.period_s)
        self.closed = 0

    def run(self, file: Any = None) -> Json:
        """Collect until the rounds are done or something ends it.

        Parameters
        ----------
        file : raw binary file, optional
            Where the spool goes, if not to ``job.spool``.

        Returns
        -------
        dict
            What the spool's END frame says: why, complete, rounds.

        Raises
        ------
        XenError, OutputError, UsageError
            Log-dirty mode is off by then.
        """
        told = list(marks.clean(self.job.state))
        for text in told:
            self.say(text)
        mode = self._mode()
        source_class = Patched if mode == "pml" else Unpatched
        with marks.Mark(self.job.state, self.domain) as mark:
            mark.tell(mode=mode)
            with source_class(self.job, self.domain.domid) as source:
                mark.tell(**source.mark())
                with SpoolWriter(self.job.spool, self._header(source), file) as writer:
                    for text in told:
                        writer.append(Frame.EVENT, frames.pack_json(what=text, ns=0))
                    self._rounds(source, writer)
                    return self._finish(source, writer)

    def _mode(self) -> str:
        if self.job.mode != "auto":
            return self.job.mode
        return "pml" if pml.available(self.domain.domid) else "stock"

    def _header(self, source: Any) -> Json:
        d = self.domain
        found = {"domid": d.domid, "name": d.name, "memory_bytes": d.memory_bytes}
        system = os.uname()
        host = {"node": system.nodename, "release": system.release, "machine": system.machine}
        job = {**asdict(self.job), "header": None}
        facts = {"source": "xen", "job": job, "domain": found, "mode": source.mode, "host": host}
        return {**facts, **self.job.header, **source.facts()}

    def _rounds(self, source: Any, writer: SpoolWriter) -> None:
        self.stop.shared = source.mode == "stock"
        sync = os.environ.get("PMLKIT_SPOOL_SYNC") == "1"
        spent = time.process_time_ns()
        while not self.stop and not (self.job.rounds and self.closed == self.job.rounds):
            with self._alive():
                self.pace.round(self, source, writer)
            self.stop.look_for_migration()  # a bitmap that it has is not to be cleared
            if self.stop.migrating or not self.stop.alive:
                break
            # A round that was cut short is closed like any other.
            now = time.process_time_ns()
            with self._alive():
                source.close_round(writer, self.closed, agent_cpu_ns=now - spent)
                self.closed += 1
            if source.taken_over:
                self.stop.migrated()
            spent = now
            if sync:
                writer.sync()
            self.pace.closed(self, source, writer)

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        """Let an error of Xen's pass if it is that the domain has died."""
        try:
            yield
        except XenError as error:
            self.stop.gone(error)

    def _finish(self, source: Any, writer: SpoolWriter) -> Json:
        last = self._last(source, writer)
        done = bool(self.job.rounds) and self.closed == self.job.rounds
        whole = done or self.pace.ended or (not self.job.rounds and self.stop.kind != "lost")
        why = "all rounds are done" if done else self.stop.why or ""
        end = {"complete": whole, "why": why, "rounds": self.closed}
        # The round in which the domain died was never closed; what was logged in it is good.
        end["keep_open"] = not self.stop.alive
        writer.append(Frame.END, frames.pack_json(**{**last, **end}))
        return end

    def _last(self, source: Any, writer: SpoolWriter) -> Json:
        """Switch logging off, and take what is left."""
        if self.stop.alive:
            with self._alive():
                return source.finish(writer)
        return source.rest(writer)


class Period:
    """Rounds by the clock: drain as often as the rings need it until the time is over."""

    ended = False

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self._nap_s = _POLL_S
        self._due: Any = None

    def round(self, collector: Collector, source: Any, writer: SpoolWriter) -> None:
        """Let a round pass."""
        now = time.monotonic()
        # By the calendar, so that the time that closing takes does not add up.
        start = now if self._due is None or now > self._due + self.period_s else self._due
        self._due = start + self.period_s
        while not collector.stop and (left := self._due - time.monotonic()) > 0:
            self._rest(source.drain(writer))
            if self.meanwhile(collector, source, writer):
                self._due = None
                return
            collector.stop.wait(min(left, self._nap_s))

    def _rest(self, fill: float) -> None:
        """Sleep less the fuller the rings are found, and not at all when they run over."""
        if fill > 0.5:
            self._nap_s = 0
        elif fill > 0.2:
            self._nap_s /= 2
        elif fill < 0.1:
            self._nap_s = min(max(2 * self._nap_s, _SHORTEST_S), _POLL_S)

    def meanwhile(self, collector: Collector, source: Any, writer: SpoolWriter) -> bool:
        """Whether the round should end now; the lab hears its guest here."""
        return False

    def closed(self, collector: Collector, source: Any, writer: SpoolWriter) -> None:
        """A round has been closed."""
