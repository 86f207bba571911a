# SPDX-License-Identifier: Apache-2.0
"""Live view of a KVM collection: a `Seen` for each round of its growing spool.

This module is separate from `ingest`, because a live view needs neither the order of entries nor
their vCPUs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.kernels.pages import PageIndex
from pmlkit.kvm.frames import LOG
from pmlkit.sources.kvm.stream import KvmStream, Pages, PageSet, Round
from pmlkit.sources.watch import Seen

if TYPE_CHECKING:
    from pmlkit.types import Array, Gfns, Ints, Json


__all__ = ["KvmWatcher"]


class KvmWatcher:
    """Convert the frames of an agent to rounds.

    Raises
    ------
    NotUnderstood
        If the header is unknown; `take` raises it for an unknown frame.
    """

    def __init__(self, header: Json) -> None:
        self._stream = KvmStream(header)
        self._distinct = PageIndex()
        self._time: list[Ints] = []
        self._gfn: list[Gfns] = []
        self._lost = 0
        self._epoch_ns = -1

    def take(self, kind: int, payload: bytes) -> Seen | None:
        """Process a frame; return a `Seen` if it closes a round, else None."""
        message = self._stream.take(kind, payload)
        if isinstance(message, Round):
            return self._close(message)
        if isinstance(message, Pages) and message.stream == LOG:
            self._time.append(message.time)
            self._gfn.append(message.value)
            self._lost += int(np.maximum(message.lost[:, 1], 0).sum())
        elif isinstance(message, PageSet):
            self._time.append(np.full(len(message.frames), -1, np.int64))
            self._gfn.append(message.frames)
        return None

    def _close(self, one: Round) -> Seen:
        time = np.concatenate([np.empty(0, np.int64), *self._time])
        gfn: Array = np.concatenate([np.empty(0, np.uint64), *self._gfn])
        inside = (time < 0) | ((time > one.start_ns) & (time <= one.end_ns))
        later = time > one.end_ns
        self._time, self._gfn = [time[later]], [gfn[later]]
        pages = np.unique(gfn[inside])
        self._distinct.ids(pages)
        if self._epoch_ns < 0:
            self._epoch_ns = one.start_ns
        lost, self._lost = self._lost, 0
        return Seen(
            round=one.number,
            t_ns=one.end_ns - self._epoch_ns,
            length_ns=one.end_ns - one.start_ns,
            pages=len(pages) if one.pages is None else one.pages,
            distinct=len(self._distinct) if self._stream.mode != "lru-gen" else None,
            entries=int(np.count_nonzero(inside)) if self._stream.mode == "log" else None,
            lost=lost,
            agent_cpu_ns=one.agent_cpu_ns,
        )
