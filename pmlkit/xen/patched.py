# SPDX-License-Identifier: Apache-2.0
"""Rounds of a domain's PML log, from the patched Xen into a spool."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pmlkit.xen import frames
from pmlkit.xen.frames import TOUCHED_HEAD, Frame
from pmlkit.xen.pml import (
    ROUND_ACCESSED,
    ROUND_GUIDED,
    ROUND_PRUNED,
    ROUND_SAMPLE_SHIFT,
    TYPE_LOG,
    PmlLog,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from pmlkit.spool import SpoolWriter
    from pmlkit.types import Json
    from pmlkit.xen.binding import CData
    from pmlkit.xen.job import Job


HARVEST_FLAGS = {
    "": 0,
    "accessed": ROUND_ACCESSED,
    "guided": ROUND_GUIDED,
    "both": ROUND_GUIDED | ROUND_ACCESSED,
    "pruned": ROUND_ACCESSED | ROUND_PRUNED,
    "sampled": ROUND_ACCESSED | ROUND_PRUNED,
}


class Patched:
    """Rounds by the patched interface. A context manager; logging is off afterwards.

    Parameters
    ----------
    job : Job
    domid : int
    """

    mode = "pml"
    taken_over = False  # Xen refuses to migrate a domain that is logged

    def __init__(self, job: Job, domid: int) -> None:
        self._job = job
        self._flags = HARVEST_FLAGS[job.harvest]
        if job.harvest == "sampled":
            self._flags |= (job.one_in.bit_length() - 1) << ROUND_SAMPLE_SHIFT
        self._log = PmlLog(domid, job)
        self._started = time.monotonic_ns()  # the epoch of the TSC stamps, within a millisecond
        self._slots = self._log.log_info(0)["slots"]
        self._next = 0
        self._counts = _Counts()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()

    def facts(self) -> Json:
        """Return fields of the spool's header."""
        status, info = self._log.status(), self._log.log_info(0)
        facts: Json = {name: info[name] for name in ("tsc_khz", "epoch_tsc", "epoch_ns", "slots")}
        facts |= {"clock": "tsc", "pages": status["max_gfn"] + 1, "vcpus": self._log.vcpus}
        facts["record"], facts["head_bytes"] = self._log.record_layout()
        return facts

    def mark(self) -> Json:
        """Return what tells this logging from another one's of the same domain."""
        return {"generation": self._log.status()["generation"]}

    def now_ns(self) -> int:
        return time.monotonic_ns() - self._started

    def drain(self, writer: SpoolWriter) -> float:
        """Append new records to the spool; return the fill of the fullest ring, 0 to 1 or more."""
        fill = 0.0

        def take(records: Sequence[CData], payload: tuple[bytes, bytes]) -> None:
            writer.append(Frame.RECORDS, *payload)
            self._counts.add(records)

        for vcpu in range(self._log.vcpus):
            fill = max(fill, self._log.drain(vcpu, take) / self._slots)
        self._counts.fill = max(self._counts.fill, fill)
        return fill

    def close_round(self, writer: SpoolWriter, number: int, **more: object) -> Json:
        """End a round; of a `free` collection: append a mark of the time."""
        if self._job.free:
            self.drain(writer)
            closed: Json = {"round": number, "tick": True, "t_ns": self.now_ns()}
        else:
            closed = self._close(writer, number)
        closed["vcpus"] = [self._log.vcpu_status(v) for v in range(self._log.vcpus)]
        closed["seen"] = self._counts.take()
        writer.append(Frame.ROUND, frames.pack_json(**closed, **more))
        return closed

    def _close(self, writer: SpoolWriter, number: int) -> Json:
        due = self._flags and number % self._job.harvest_every == self._job.harvest_every - 1
        closed = self._log.close_round(self._flags if due else 0, dirty=self._job.bitmaps)
        # First the rings, which fill while bitmaps are written.
        self.drain(writer)
        for kind, name in ((Frame.DIRTY, "dirty"), (Frame.ACCESSED, "accessed")):
            bits = closed.pop(name)
            for parts in () if bits is None else frames.bitmap_pieces(closed["round"], bits):
                writer.append(kind, *parts)
        touched = closed.pop("touched")
        if touched is not None:
            _write_touched(writer, closed["round"], memoryview(touched))
        closed["harvest"] = self._job.harvest if due else ""
        self._next = closed["round"] + 1
        return closed

    def finish(self, writer: SpoolWriter) -> Json:
        """Switch logging off and drain the rest; return the rings' last status."""
        self._log.disable()
        return self.rest(writer)

    def rest(self, writer: SpoolWriter) -> Json:
        """Drain the rest; the rings of a domain that is gone stay mapped."""
        while self.drain(writer):
            pass
        logs = [self._log.log_info(v) for v in range(self._log.vcpus)]
        return {"logs": logs, "seen": self._counts.take()}


def _write_touched(writer: SpoolWriter, number: int, words: memoryview) -> None:
    words = words.cast("B") if len(words) else words
    for first in range(0, max(len(words), 1), frames.PIECE_BYTES):
        piece = words[first : first + frames.PIECE_BYTES]
        writer.append(Frame.TOUCHED, TOUCHED_HEAD.pack(number), piece)


class _Counts:
    """Counts since the last round, for live views."""

    def __init__(self) -> None:
        self.take()

    def add(self, records: Sequence[CData]) -> None:
        for record in records:
            if record.type == TYPE_LOG:
                self.entries += record.count
            self.lost += record.lost_entries
        self.records += len(records)

    def take(self) -> Json:
        """Return the counts and reset them."""
        names = ("entries", "lost", "records", "fill")
        counts = {name: getattr(self, name, 0) for name in names}
        self.entries = self.lost = self.records = 0
        self.fill = 0.0
        return counts
