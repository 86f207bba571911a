# SPDX-License-Identifier: Apache-2.0
"""What can be seen of a recording while it goes on: a `Seen` per round, out of its messages."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import PmlkitError
from pmlkit.schema import PAGE_SIZE
from pmlkit.seen import Seen
from pmlkit.sources.messages import Message, RoundEnd, Span, decode
from pmlkit.spool_reader import read_spool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pmlkit.spool_reader import Spool

__all__ = ["RecordingWatcher"]


class RecordingWatcher:
    """Reads the spool of a recording as it grows.

    Parameters
    ----------
    spool : Path
        The file of frames; it need not be there yet, and may be removed once it was seen.
    """

    def __init__(self, spool: Path) -> None:
        self._path = spool
        self._reader: Spool | None = None
        self._known = np.zeros(0, bool)
        self._entries = 0

    def poll(self) -> Iterator[Seen]:
        """Yield the rounds that have ended since the last time."""
        if self._reader is None:
            with contextlib.suppress(PmlkitError):  # not yet there, or not yet whole
                self._reader = read_spool(self._path)
                self._known = np.zeros(self._reader.header["memory_bytes"] // PAGE_SIZE, bool)
        if self._reader is None:
            return
        for kind, payload in self._reader.poll():
            message = decode(kind, payload)
            if isinstance(message, Span) and kind == Message.ACCESS:
                self._entries += len(message.values)
                frames = message.frames
                self._known[frames[frames < len(self._known)]] = True
            elif isinstance(message, RoundEnd):
                yield self._close(message)

    def _close(self, end: RoundEnd) -> Seen:
        entries, self._entries = self._entries, 0
        return Seen(
            round=end.round,
            t_ns=end.t_end_ns,
            length_ns=end.t_end_ns - end.t_start_ns,
            pages=end.accessed,
            distinct=int(self._known.sum()),
            entries=entries,
            exits=end.full_exits,
        )

    def close(self) -> None:
        """Let go of the file. Closing twice does no harm."""
        if self._reader is not None:
            self._reader.close()
