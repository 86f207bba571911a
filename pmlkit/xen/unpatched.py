# SPDX-License-Identifier: Apache-2.0
"""Rounds of stock log-dirty, which any Xen has: the distinct pages of each, into a spool."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pmlkit.errors import UsageError
from pmlkit.xen import frames
from pmlkit.xen.frames import Frame
from pmlkit.xen.stock import LogDirty

if TYPE_CHECKING:
    from typing import Self

    from pmlkit.spool import SpoolWriter
    from pmlkit.types import Json
    from pmlkit.xen.job import Job


class Unpatched:
    """Rounds by stock log-dirty. A context manager; log-dirty mode is off afterwards.

    Parameters
    ----------
    job : Job
    domid : int

    Raises
    ------
    UsageError
        If the job needs the patched Xen.
    """

    mode = "stock"

    def __init__(self, job: Job, domid: int) -> None:
        if job.free or job.harvest:
            what = "a log without rounds" if job.free else "a harvest of accessed flags"
            raise UsageError(f"stock log-dirty has not {what}: it needs the patched Xen")
        self._log = LogDirty(domid)
        self._log.close_round()  # enabling marks nothing dirty, but let the first round start clean
        self._started = time.monotonic_ns()
        self._last = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()

    def facts(self) -> Json:
        """Return fields of the spool's header."""
        return {"clock": "dom0", "pages": self._log.pages, "vcpus": 1}

    def mark(self) -> Json:
        """Return the facts by which a later process identifies this logging (`marks`)."""
        return {"on": True}

    def now_ns(self) -> int:
        return time.monotonic_ns() - self._started

    def drain(self, writer: SpoolWriter) -> float:
        """Nothing to drain: the bitmap is read when the round is closed."""
        return 0.0

    def close_round(self, writer: SpoolWriter, number: int, **more: object) -> Json:
        """Read and clear the bitmap, and append it to the spool."""
        log = self._log.close_round()
        end_ns = log.ended_ns - self._started
        closed = {"round": number, "t_start_ns": self._last, "t_end_ns": end_ns}
        closed |= {"pause_ns": log.ended_ns - log.began_ns}
        closed |= {"faults": log.faults, "dirty_pages": log.dirty_pages}
        for parts in frames.bitmap_pieces(number, log.bits):
            writer.append(Frame.DIRTY, *parts)
        writer.append(Frame.ROUND, frames.pack_json(**closed, **more))
        self._last = end_ns
        return closed

    def finish(self, writer: SpoolWriter) -> Json:
        """Switch log-dirty mode off."""
        self._log.close()
        return {}

    def rest(self, writer: SpoolWriter) -> Json:
        """A domain that is gone has no bitmap."""
        return {}

    @property
    def taken_over(self) -> bool:
        """Whether a migration has log-dirty mode now."""
        return self._log.taken_over
