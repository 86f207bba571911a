# SPDX-License-Identifier: Apache-2.0
"""What can be seen of a collection while it goes on: a `Seen` per round, out of its frames."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import NotUnderstood, PmlkitError
from pmlkit.sources.host.stream import SOURCES, Bitmap, Records, Round, XenStream
from pmlkit.sources.recorder.messages import Message, RecorderStream, RoundEnd, Span
from pmlkit.spool_reader import read_spool
from pmlkit.trace.schema import PAGE_SIZE
from pmlkit.xen.pml import TYPE_LOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any, Protocol

    from pmlkit.spool_reader import Spool
    from pmlkit.types import Array, Json

    class Taker(Protocol):
        """What turns the frames of a spool into rounds."""

        def take(self, kind: int, payload: bytes) -> Seen | None: ...

    from numpy.typing import NDArray


__all__ = ["Follower", "RecordingWatcher", "Seen", "Watcher"]


_MOST_PAGES = 1 << 28  # of a domain whose distinct pages are counted: one byte each
_CHUNK = 1 << 17  # entries, or bytes of a bitmap, looked at at a time


@dataclass(frozen=True)
class Seen:
    """A round, as soon as it is closed.

    Attributes
    ----------
    round : int
    t_ns, length_ns : int
        Its end, and how long it effectively was.
    pages : int
        Its working set: distinct pages written, or touched where accessed flags were harvested.
    distinct : int
        Distinct pages since the collection began.
    entries, lost, exits : int
        Logged, missed by us, and VM exits because a buffer was full.
    fill : float
        How full the fullest ring was found, 0 to 1.
    pause_ns, agent_cpu_ns : int
        What it cost: the guest's pause at the end of the round, our CPU time in dom0.
    """

    round: int
    t_ns: int
    length_ns: int
    pages: int
    distinct: int = 0
    entries: int = 0
    lost: int = 0
    exits: int = 0
    fill: float = 0.0
    pause_ns: int = 0
    agent_cpu_ns: int = 0

    @property
    def bytes(self) -> int:
        """The working set, bytes."""
        return self.pages * PAGE_SIZE

    @property
    def seconds(self) -> float:
        """Its length, seconds; never 0."""
        return max(self.length_ns, 1) / 1e9

    def as_dict(self) -> Json:
        """Return the fields, for JSON."""
        return asdict(self)


class Follower:
    """Reads a spool as it grows.

    Parameters
    ----------
    spool : Path
        The file of frames; it need not be there yet, and may be removed once it was seen.
    watcher : callable
        Given the spool's header it returns what takes its frames: `Watcher`, or
        `pmlkit.sources.watch.RecordingWatcher`.

    Attributes
    ----------
    fault : str or None
        What was not understood: the header, or the first frame that was not. Nothing comes after.
    """

    def __init__(self, spool: Path, watcher: Callable[[Json], Taker]) -> None:
        self._path, self._make = spool, watcher
        self._reader: Spool | None = None
        self._watcher: Any = None
        self.fault: str | None = None

    def poll(self) -> Iterator[Seen]:
        """Yield the rounds that have ended since the last time."""
        if self.fault or not self._open():
            return
        reader: Any = self._reader
        yield from reader.understand(reader.poll(), self._watcher.take)
        self.fault = reader.fault

    def _open(self) -> bool:
        if self._reader is None and self.fault is None:
            with contextlib.suppress(PmlkitError):  # not yet there, or not yet whole
                self._begin(read_spool(self._path))
        return self._reader is not None

    def _begin(self, reader: Spool) -> None:
        try:
            self._watcher = self._make(reader.header)
            self._reader = reader
        except NotUnderstood as error:
            reader.close()
            self.fault = f"the header is not understood: {error.why}"

    @property
    def header(self) -> Json:
        """What the spool says of itself, once its first bytes have come; else {}."""
        return self._reader.header if self._open() else {}  # type: ignore[union-attr]

    @property
    def ended(self) -> bool:
        """Whether the frame that closes a spool has been seen."""
        return self._reader is not None and self._reader.ended

    def close(self) -> None:
        """Let go of the file. Closing twice does no harm."""
        if self._reader is not None:
            self._reader.close()


class Watcher:
    """Turns the frames of a Xen collector into rounds.

    Parameters
    ----------
    header : dict
        Of the spool.
    sources : sequence of str, optional
        Which the header may say that it is of.

    Raises
    ------
    NotUnderstood
        If the header is not; `take`, if a frame is not (`pmlkit.sources.host.stream`).
    """

    def __init__(self, header: Json, sources: tuple[str, ...] = SOURCES) -> None:
        self._stream = XenStream(header, sources)
        pages = header.get("pages") or 0
        self._known = np.zeros(pages, bool) if 0 < pages <= _MOST_PAGES else None
        self._distinct = self._exits = self._end_ns = 0

    def take(self, kind: int, payload: bytes) -> Seen | None:
        """Take a frame; returns a `Seen` if it closes a round, else None."""
        made = self._stream.take(kind, payload)
        if isinstance(made, Round):
            return self._close(made)
        if self._known is not None and isinstance(made, Records):
            self._records(made)
        elif self._known is not None and isinstance(made, Bitmap):
            self._bitmap(made)
        return None

    def _records(self, made: Records) -> None:
        logs, words = made.heads["type"] == TYPE_LOG, made.words
        if not logs.all():
            words = words[np.repeat(logs, made.heads["count"])]
        for first in range(0, len(words), _CHUNK):
            self._add(words[first : first + _CHUNK] >> np.uint64(12))

    def _add(self, frames: Array) -> None:
        frames = frames[frames < len(self._known)].astype(np.int64)  # type: ignore[arg-type]
        fresh = frames[~self._known[frames]]  # type: ignore[index]
        self._known[fresh] = True  # type: ignore[index]
        self._distinct += len(np.unique(fresh))

    def _bitmap(self, made: Bitmap) -> None:
        piece = np.frombuffer(made.piece, np.uint8)
        for first in range(0, len(piece), _CHUNK):
            bits = np.unpackbits(piece[first : first + _CHUNK], bitorder="little").view(bool)
            known = self._known[8 * (made.first + first) :][: len(bits)]  # type: ignore[index]
            self._distinct += int((bits[: len(known)] & ~known).sum())
            known |= bits[: len(known)]

    def _close(self, made: Round) -> Seen:
        start, self._end_ns = self._end_ns, made.end_ns
        before, self._exits = self._exits, made.counts["exits"]
        return Seen(
            round=made.number,
            t_ns=made.end_ns,
            length_ns=made.end_ns - start,
            pages=made.pages,
            distinct=self._distinct,
            entries=made.entries,
            lost=made.lost,
            exits=self._exits - before,
            fill=made.fill,
            pause_ns=made.counts["pause_ns"],
            agent_cpu_ns=made.counts["agent_cpu_ns"],
        )


# ------------------------------------------------------------------------------
# What can be seen of a recording while it goes on: a `Seen` per round, out of its messages.


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
