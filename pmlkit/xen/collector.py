# SPDX-License-Identifier: Apache-2.0
"""Collect the rounds of a domain into a spool. The guest is paused only at the end of a round.

Log-dirty mode is off after each end of a collection; if this process is killed, the next one
switches it off (`marks`).
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

from pmlkit.spool import SpoolWriter
from pmlkit.xen import frames, marks, pml, stock
from pmlkit.xen.binding import XenError
from pmlkit.xen.frames import Frame

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator

    from pmlkit.types import Json, Tell
    from pmlkit.xen.domains import Domain
    from pmlkit.xen.job import Job
    from pmlkit.xen.stop import Stop


_POLL_S = 0.01
_SHORTEST_S = 0.0005


class Source(Protocol):
    """Rounds of a domain from one interface: `pml.Patched`, `stock.Unpatched`.

    Attributes
    ----------
    mode : {"pml", "stock"}
    taken_over : bool
        Whether a migration uses log-dirty mode at present.
    """

    mode: str

    @property
    def taken_over(self) -> bool: ...

    def facts(self) -> Json:
        """Return fields of the spool's header."""

    def mark(self) -> Json:
        """Return the facts by which a later process identifies this logging (`marks`)."""

    def now_ns(self) -> int:
        """Return the time since the start of the collection."""

    def drain(self, writer: SpoolWriter) -> float:
        """Append new records to the spool; return the fill of the fullest ring, 0 to 1 or more."""

    def close_round(self, writer: SpoolWriter, number: int, **more: object) -> Json:
        """End a round and append its data."""

    def finish(self, writer: SpoolWriter) -> Json:
        """Switch logging off and append the rest; return the last status."""

    def rest(self, writer: SpoolWriter) -> Json:
        """Append the rest of a domain that no longer exists; return the last status."""


class Collector:
    """Collects one domain.

    Parameters
    ----------
    report : callable
        Called with each message for the user.
    pace : object, optional
        The rule for the end of a round; default: by the clock (`Period`).
    """

    def __init__(
        self,
        job: Job,
        domain: Domain,
        stop: Stop,
        report: Tell = lambda text: None,
        pace: Period | None = None,
    ) -> None:
        self.job, self.domain, self.stop, self.report = job, domain, stop, report
        self.pace = pace or Period(job.period_s)
        self.closed = 0
        self._enough = ""  # the reason why no further round is needed

    def run(self, file: io.RawIOBase | None = None) -> Json:
        """Collect until the rounds are complete, the spool reaches its limit, or an event ends it.

        Parameters
        ----------
        file : raw binary file, optional
            Destination of the spool, if not ``job.spool``.

        Returns
        -------
        dict
            The content of the spool's END frame: why, complete, rounds.

        Raises
        ------
        XenError, OutputError, UsageError
            Log-dirty mode is then off.
        """
        cleaned = list(marks.clean(self.job.state))
        for text in cleaned:
            self.report(text)
        mode = self._mode()
        source_class = pml.Patched if mode == "pml" else stock.Unpatched
        with marks.Mark(self.job.state, self.domain) as mark:
            mark.record(mode=mode)
            with source_class(self.job, self.domain.domid) as source:
                mark.record(**source.mark())
                with SpoolWriter(self.job.spool, self._header(source), file) as writer:
                    for text in cleaned:
                        writer.append(Frame.EVENT, frames.pack_json(what=text, ns=0))
                    self._rounds(source, writer)
                    return self._finish(source, writer)

    def _mode(self) -> str:
        if self.job.mode != "auto":
            return self.job.mode
        return "pml" if pml.available(self.domain.domid) else "stock"

    def _header(self, source: Source) -> Json:
        d = self.domain
        domain = {"domid": d.domid, "name": d.name, "memory_bytes": d.memory_bytes}
        system = os.uname()
        host = {"node": system.nodename, "release": system.release, "machine": system.machine}
        job = {**asdict(self.job), "header": None}
        facts = {"source": "xen", "job": job, "domain": domain, "mode": source.mode, "host": host}
        return {**facts, **self.job.header, **source.facts()}

    def _rounds(self, source: Source, writer: SpoolWriter) -> None:
        self.stop.shared = source.mode == "stock"
        sync = os.environ.get("PMLKIT_SPOOL_SYNC") == "1"
        spent = time.process_time_ns()
        while not self.stop and not self._enough:
            with self._alive():
                self.pace.round(self, source, writer)
            self.stop.look_for_migration()  # its bitmap must not be cleared
            if self.stop.migrating or not self.stop.alive:
                break
            # A shortened round is closed like any other.
            now = time.process_time_ns()
            with self._alive():
                source.close_round(writer, self.closed, agent_cpu_ns=now - spent)
                self.closed += 1
                self._enough = self._completion(writer)
            if source.taken_over:
                self.stop.migrated()
            spent = now
            if sync:
                writer.sync()
            self.pace.closed(self, source, writer)

    def _completion(self, writer: SpoolWriter) -> str:
        """Return why the closed round is the last one of the job, or ""."""
        if self.closed == self.job.rounds:
            return "all rounds are complete"
        most = self.job.most_bytes
        if most and writer.bytes >= most:
            return f"the spool has reached {writer.bytes} bytes: its limit is {most}"
        return ""

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        """Suppress Xen's error if the domain has died."""
        try:
            yield
        except XenError as error:
            self.stop.gone(error)

    def _finish(self, source: Source, writer: SpoolWriter) -> Json:
        last = self._last(source, writer)
        asked = bool(self._enough) or self.pace.ended
        whole = asked or (not self.job.rounds and self.stop.kind != "lost")
        why = self._enough or self.stop.why or ""
        end = {"complete": whole, "why": why, "rounds": self.closed}
        # The round in which the domain died was never closed; its entries are valid.
        end["keep_open"] = not self.stop.alive
        writer.append(Frame.END, frames.pack_json(**{**last, **end}))
        return end

    def _last(self, source: Source, writer: SpoolWriter) -> Json:
        """Switch logging off and drain the rest."""
        if self.stop.alive:
            with self._alive():
                return source.finish(writer)
        return source.rest(writer)


class Period:
    """Rounds by the clock; the rings are drained as often as necessary."""

    ended = False

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self._nap_s = _POLL_S
        self._due: float | None = None

    def round(self, collector: Collector, source: Source, writer: SpoolWriter) -> None:
        """Drain until the round ends."""
        now = time.monotonic()
        # Due times are fixed in advance, so that the time for closing does not accumulate.
        start = now if self._due is None or now > self._due + self.period_s else self._due
        self._due = start + self.period_s
        while not collector.stop and (left := self._due - time.monotonic()) > 0:
            self._rest(source.drain(writer))
            if self.meanwhile(collector, source, writer):
                self._due = None
                return
            collector.stop.wait(min(left, self._nap_s))

    def _rest(self, fill: float) -> None:
        """Sleep less if the rings are fuller; do not sleep if they overflow."""
        if fill > 0.5:
            self._nap_s = 0
        elif fill > 0.2:
            self._nap_s /= 2
        elif fill < 0.1:
            self._nap_s = min(max(2 * self._nap_s, _SHORTEST_S), _POLL_S)

    def meanwhile(self, collector: Collector, source: Source, writer: SpoolWriter) -> bool:
        """Whether the round should end now; the lab reads its guest's console here."""
        return False

    def closed(self, collector: Collector, source: Source, writer: SpoolWriter) -> None:
        """Called after a round has been closed."""
