# SPDX-License-Identifier: Apache-2.0
"""Live view of a collection or recording: a `Seen` for each round of its growing spool."""

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
    from typing import Protocol

    from pmlkit.spool_reader import Spool
    from pmlkit.types import Array, Bools, Json

    class Taker(Protocol):
        """Converts the frames of a spool to rounds."""

        def take(self, kind: int, payload: bytes) -> Seen | None: ...


__all__ = ["Follower", "RecordingWatcher", "Seen", "Watcher"]


_MAX_PAGES = 1 << 28  # most pages of a domain whose distinct pages are counted, at one byte each
_CHUNK = 1 << 17  # entries, or bytes of a bitmap, that are processed at once


@dataclass(frozen=True)
class Seen:
    """A closed round.

    Attributes
    ----------
    round : int
    t_ns, length_ns : int
        Its end, and its effective length.
    pages : int
        Its working set: distinct pages written, or touched if accessed flags were harvested.
    distinct : int or None
        Distinct pages since the collection began; None if the source does not list pages.
    entries, exits : int or None
        Entries logged, and VM exits on a full buffer; None if the source does not count them.
    lost : int
        Entries lost.
    fill : float or None
        The fill level of the fullest ring, 0 to 1; None if unknown.
    pause_ns, agent_cpu_ns : int
        The guest's pause at the end of the round, and the collector's CPU time in dom0.
    """

    round: int
    t_ns: int
    length_ns: int
    pages: int
    distinct: int | None = None
    entries: int | None = None
    lost: int = 0
    exits: int | None = None
    fill: float | None = None
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
        The file of frames. It may not exist yet, and may be removed after it was opened.
    watcher : callable
        Creates a `Watcher` or `RecordingWatcher` from the spool's header.

    Attributes
    ----------
    fault : str or None
        Why the header or a frame is unknown; `poll` yields nothing after that.
    """

    def __init__(self, spool: Path, watcher: Callable[[Json], Taker]) -> None:
        self._path, self._make = spool, watcher
        self._reader: Spool | None = None
        self._watcher: Taker | None = None
        self.fault: str | None = None

    def poll(self) -> Iterator[Seen]:
        """Yield the rounds that have ended since the last call."""
        reader = self._open()
        if self.fault or reader is None or self._watcher is None:
            return
        yield from reader.understand(reader.poll(), self._watcher.take)
        self.fault = reader.fault

    def _open(self) -> Spool | None:
        if self._reader is None and self.fault is None:
            with contextlib.suppress(PmlkitError):  # it does not exist, or is still incomplete
                self._begin(read_spool(self._path))
        return self._reader

    def _begin(self, reader: Spool) -> None:
        try:
            self._watcher = self._make(reader.header)
            self._reader = reader
        except NotUnderstood as error:
            reader.close()
            self.fault = f"the header is unknown: {error.why}"

    @property
    def header(self) -> Json:
        """The spool's header; {} until it is written."""
        reader = self._open()
        return reader.header if reader else {}

    @property
    def ended(self) -> bool:
        """Whether the frame that closes a spool has been seen."""
        return self._reader is not None and self._reader.ended

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._reader is not None:
            self._reader.close()


class _Pages:
    """The pages seen so far, with a running count, which each round only extends."""

    def __init__(self, count: int) -> None:
        self._seen, self.distinct = np.zeros(count, bool), 0

    def add(self, frames: Array) -> None:
        frames = frames[frames < len(self._seen)].astype(np.int64)
        fresh = np.unique(frames[~self._seen[frames]])
        self._seen[fresh] = True
        self.distinct += len(fresh)

    def add_bits(self, first: int, bits: Bools) -> None:
        """Add the frames `first` + i whose bit i is set."""
        seen = self._seen[first:][: len(bits)]
        self.distinct += int((bits[: len(seen)] & ~seen).sum())
        seen |= bits[: len(seen)]


class Watcher:
    """Convert the frames of a Xen collector to rounds.

    Parameters
    ----------
    header : dict
        Of the spool.
    sources : sequence of str, optional
        Accepted sources.

    Raises
    ------
    NotUnderstood
        If the header is unknown; `take` raises it for an unknown frame
        (`pmlkit.sources.host.stream`).
    """

    def __init__(self, header: Json, sources: tuple[str, ...] = SOURCES) -> None:
        self._stream = XenStream(header, sources)
        pages = header.get("pages") or 0
        self._pages = _Pages(pages) if 0 < pages <= _MAX_PAGES else None
        self._exits = self._end_ns = 0

    def take(self, kind: int, payload: bytes) -> Seen | None:
        """Process a frame; return a `Seen` if it closes a round, else None."""
        message = self._stream.take(kind, payload)
        if isinstance(message, Round):
            return self._close(message)
        if self._pages is not None and isinstance(message, Records):
            self._add_records(self._pages, message)
        elif self._pages is not None and isinstance(message, Bitmap):
            self._add_bitmap(self._pages, message)
        return None

    def _add_records(self, pages: _Pages, records: Records) -> None:
        is_log, words = records.heads["type"] == TYPE_LOG, records.words
        if not is_log.all():
            words = words[np.repeat(is_log, records.heads["count"])]
        for first in range(0, len(words), _CHUNK):
            pages.add(words[first : first + _CHUNK] >> np.uint64(12))

    def _add_bitmap(self, pages: _Pages, bitmap: Bitmap) -> None:
        piece = np.frombuffer(bitmap.piece, np.uint8)
        for first in range(0, len(piece), _CHUNK):
            bits = np.unpackbits(piece[first : first + _CHUNK], bitorder="little").view(bool)
            pages.add_bits(8 * (bitmap.first + first), bits)

    def _close(self, end: Round) -> Seen:
        start, self._end_ns = self._end_ns, end.end_ns
        before, self._exits = self._exits, end.counts["exits"]
        return Seen(
            round=end.number,
            t_ns=end.end_ns,
            length_ns=end.end_ns - start,
            pages=end.pages,
            distinct=self._pages.distinct if self._pages else None,
            entries=end.entries,
            lost=end.lost,
            exits=self._exits - before,
            fill=end.fill,
            pause_ns=end.counts["pause_ns"],
            agent_cpu_ns=end.counts["agent_cpu_ns"],
        )


class RecordingWatcher:
    """Convert the messages of a recording, with the header of its spool, to rounds."""

    def __init__(self, header: Json) -> None:
        self._stream = RecorderStream(header)
        self._pages = _Pages(header["memory_bytes"] // PAGE_SIZE)
        self._entries = 0

    def take(self, kind: int, payload: bytes) -> Seen | None:
        """Process a message; return a `Seen` if it closes a round, else None."""
        message = self._stream.take(kind, payload)
        if isinstance(message, Span) and kind == Message.ACCESS:
            self._entries += len(message.values)
            self._pages.add(message.frames)
        return self._close(message) if isinstance(message, RoundEnd) else None

    def _close(self, end: RoundEnd) -> Seen:
        entries, self._entries = self._entries, 0
        return Seen(
            round=end.round,
            t_ns=end.t_end_ns,
            length_ns=end.t_end_ns - end.t_start_ns,
            pages=end.accessed,
            distinct=self._pages.distinct,
            entries=entries,
            exits=end.full_exits,
        )
