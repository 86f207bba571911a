# SPDX-License-Identifier: Apache-2.0
"""What can be seen of a collection while it goes on: a `Seen` per round, out of its frames."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import PmlkitError
from pmlkit.schema import PAGE_SIZE
from pmlkit.spool_reader import read_spool
from pmlkit.xen.frames import RECORDS_HEAD, Frame, unpack_bitmap_piece

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import Any, Protocol

    from pmlkit.spool_reader import Spool
    from pmlkit.types import Array, Json

    class Taker(Protocol):
        """What turns the frames of a spool into rounds."""

        def take(self, kind: int, payload: bytes) -> Seen | None: ...


__all__ = ["Follower", "Seen", "Watcher"]

_MOST_PAGES = 1 << 28  # of a domain whose distinct pages are counted: one byte each


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
        `pmlkit.seen_recorder.RecordingWatcher`.
    """

    def __init__(self, spool: Path, watcher: Callable[[Json], Taker]) -> None:
        self._path, self._make = spool, watcher
        self._reader: Spool | None = None
        self._watcher: Any = None

    def poll(self) -> Iterator[Seen]:
        """Yield the rounds that have ended since the last time."""
        if not self._open():
            return
        for kind, payload in self._reader.poll():  # type: ignore[union-attr]
            seen = self._watcher.take(kind, payload)
            if seen is not None:
                yield seen

    def _open(self) -> bool:
        if self._reader is None:
            with contextlib.suppress(PmlkitError):  # not yet there, or not yet whole
                self._reader = read_spool(self._path)
                self._watcher = self._make(self._reader.header)
        return self._reader is not None

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
    """Turns frames into rounds.

    Parameters
    ----------
    header : dict
        Of the spool.
    """

    def __init__(self, header: Json) -> None:
        self.header = header
        self._head = header.get("head_bytes", 0)
        self._count_at = next((f[1] for f in header.get("record", []) if f[0] == "count"), 0)
        self._type_at = next((f[1] for f in header.get("record", []) if f[0] == "type"), 0)
        pages = header.get("pages", 0)
        self._known = np.zeros(pages, bool) if 0 < pages <= _MOST_PAGES else None
        self._distinct = self._round_pages = self._exits = self._end_ns = 0

    def take(self, kind: int, payload: bytes) -> Seen | None:
        """Take a frame; returns a `Seen` if it closes a round, else None."""
        if kind == Frame.RECORDS:
            self._records(payload)
        elif kind in (Frame.DIRTY, Frame.ACCESSED):
            self._bitmap(payload)
        elif kind == Frame.ROUND:
            return self._close(json.loads(payload))
        return None

    def _records(self, payload: bytes) -> None:
        (count,) = RECORDS_HEAD.unpack_from(payload)
        heads = np.frombuffer(payload, np.uint8, count * self._head, RECORDS_HEAD.size)
        heads = heads.reshape(count, self._head)
        counts = heads[:, self._count_at : self._count_at + 4].copy().view("<u4").ravel()
        logs = heads[:, self._type_at] == 1
        words = np.frombuffer(payload, "<u8", offset=RECORDS_HEAD.size + heads.size)
        if not logs.all():
            words = words[np.repeat(logs, counts)]
        self._add(words >> np.uint64(12))

    def _bitmap(self, payload: bytes) -> None:
        _, _, first, piece = unpack_bitmap_piece(payload)
        bits = np.unpackbits(np.frombuffer(piece, np.uint8), bitorder="little")
        self._add(8 * first + np.flatnonzero(bits))

    def _add(self, frames: Array) -> None:
        if self._known is None or not len(frames):
            return
        frames = frames[frames < len(self._known)].astype(np.int64)
        fresh = frames[~self._known[frames]]
        self._known[fresh] = True
        self._distinct += len(np.unique(fresh))

    def _close(self, told: Json) -> Seen:
        start, exits = self._end_ns, sum(v["exits"] for v in told.get("vcpus", []))
        self._end_ns = max(self._times(told), start)
        fresh, self._exits = exits - self._exits, exits
        seen: Any = told.get("seen", {})
        return Seen(
            round=told["round"],
            t_ns=self._end_ns,
            length_ns=self._end_ns - start,
            pages=_pages(told),
            distinct=self._distinct,
            entries=seen.get("entries", told.get("dirty_pages", 0)),
            lost=seen.get("lost", 0),
            exits=fresh,
            fill=float(seen.get("fill", 0.0)),
            pause_ns=self._pause(told),
            agent_cpu_ns=told.get("agent_cpu_ns", 0),
        )

    def _times(self, told: Mapping[str, int]) -> int:
        for name in ("t_end_ns", "t_ns"):
            if name in told:
                return told[name]
        return self._ns(told["tsc_resume"] - self.header["epoch_tsc"])

    def _pause(self, told: Mapping[str, int]) -> int:
        if "pause_ns" in told:
            return told["pause_ns"]
        return self._ns(told.get("tsc_resume", 0) - told.get("tsc_pause", 0))

    def _ns(self, ticks: int) -> int:
        return ticks * 1_000_000 // self.header["tsc_khz"]


def _pages(told: Json) -> int:
    """Return the working set of a round that was closed."""
    if told.get("touched_count"):
        return told["touched_count"] + told.get("accessed_pages", 0)
    entries = told.get("seen", {}).get("entries", 0)  # of a collection that closes none
    return told.get("accessed_pages") or told.get("dirty_pages", entries)
