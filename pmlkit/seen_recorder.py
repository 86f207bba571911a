# SPDX-License-Identifier: Apache-2.0
"""What can be seen of a recording while it goes on: a `Seen` per round, out of its messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.schema import PAGE_SIZE
from pmlkit.seen import Seen
from pmlkit.sources.messages import Message, RoundEnd, Span
from pmlkit.sources.recorder_stream import RecorderStream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pmlkit.types import Json

__all__ = ["RecordingWatcher"]


class RecordingWatcher:
    """Turns the messages of a recording into rounds.

    Parameters
    ----------
    header : dict
        Of the spool.
    """

    def __init__(self, header: Json) -> None:
        self._stream = RecorderStream(header)
        self._known = np.zeros(header["memory_bytes"] // PAGE_SIZE, bool)
        self._entries = self._distinct = 0

    def take(self, kind: int, payload: bytes) -> Seen | None:
        """Take a message; returns a `Seen` if it closes a round, else None."""
        message = self._stream.take(kind, payload)
        if isinstance(message, Span) and kind == Message.ACCESS:
            self._entries += len(message.values)
            self._add(message.frames)
        return self._close(message) if isinstance(message, RoundEnd) else None

    def _add(self, frames: NDArray[np.uint32]) -> None:
        # Counted as they come: a stream of empty rounds must not cost the memory's size each.
        frames = frames[frames < len(self._known)]
        fresh = np.unique(frames[~self._known[frames]])
        self._known[fresh] = True
        self._distinct += len(fresh)

    def _close(self, end: RoundEnd) -> Seen:
        entries, self._entries = self._entries, 0
        return Seen(
            round=end.round,
            t_ns=end.t_end_ns,
            length_ns=end.t_end_ns - end.t_start_ns,
            pages=end.accessed,
            distinct=self._distinct,
            entries=entries,
            exits=end.full_exits,
        )
