# SPDX-License-Identifier: Apache-2.0
"""Read and check a Xen spool (written by `pmlkit.xen`) once, and index its frames.

The heads of the records are in memory, 90 bytes for each buffer of up to 512 entries. The entries
stay in the file until they are read, so memory does not grow with their number.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from array import array
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import NotUnderstood, PmlkitError, SpoolDamaged, UsageError
from pmlkit.sources.host.stream import (
    SOURCES,
    Bitmap,
    End,
    Event,
    Line,
    Records,
    Round,
    Touched,
    XenStream,
)
from pmlkit.spool_reader import read_spool
from pmlkit.xen.frames import BITMAP_HEAD, TOUCHED_HEAD, Frame
from pmlkit.xen.pml import TYPE_LOG, TYPE_TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmlkit.sources.host.stream import Decoded, Structs
    from pmlkit.types import Array, Gfns, Ints, PathLike


__all__ = ["Rounds", "XenSpool", "understood"]

_KEPT = ("seq", "tsc_start", "tsc_end", "drain_tsc", "lost_entries", "lost_records", "round",
         "count", "type", "reason", "vcpu")  # fmt: skip
_HEADS = np.dtype(
    [
        *((name, "<u8") for name in _KEPT[:6]),
        *(("round", "<u4"), ("count", "<u4")),
        *((name, "<u2") for name in _KEPT[8:]),
        *(("table", "<u8"), ("at", "<i8")),
    ]
)
_EVENTS = 100  # most events that are kept; the others are counted
# Characters of the guest's console that are kept; later lines are counted.
_LINES_CHARACTERS = 1 << 26
_HELD_BYTES = 1 << 18  # bytes of heads that are buffered before they become columns
_CHUNK_BYTES = 1 << 17  # bytes of a bitmap that are decoded at once


# Errors of decoding contradictory frames, which pmlkit never writes.
NONSENSE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError,
            struct.error)  # fmt: skip


@contextlib.contextmanager
def understood(path: PathLike) -> Iterator[None]:
    """Context that converts errors of a contradictory spool to `SpoolDamaged`.

    `XenStream` refuses each frame that is itself invalid; this is for all other contradictions.
    """
    try:
        yield
    except (UsageError, *NONSENSE) as error:
        kind = "" if isinstance(error, PmlkitError) else f"{type(error).__name__} "
        why = f"its content is contradictory: {kind}{error}"
        hint = "keep it, try a later pmlkit, or collect again"
        raise SpoolDamaged(path, 0, why, hint) from error


class Rounds:
    """The closed rounds of a spool, as columns; ``len`` is their number.

    Attributes
    ----------
    vcpus : dict of str to int
        Sums of the vCPUs' counts in the last round.
    """

    def __init__(self) -> None:
        self._columns: dict[str, array[int]] = {}
        self._count = 0
        self.vcpus: dict[str, int] = {}

    def __len__(self) -> int:
        return self._count

    def add(self, closed: Round) -> None:
        """Append a round."""
        values = {"end_ns": closed.end_ns, **closed.counts}
        for name in values.keys() - self._columns.keys():
            self._columns[name] = array("q", [-1]) * self._count
        for name, column in self._columns.items():
            column.append(values.get(name, -1))
        self._count += 1
        self.vcpus = closed.vcpus

    def column(self, name: str, count: int | None = None, missing: int = 0) -> Ints:
        """Return a field of `Round`, or one of its counts, of each round.

        Parameters
        ----------
        count : int, optional
            Number of rounds; default: the closed ones.
        missing : int
            The value for rounds that lack it.

        Returns
        -------
        ndarray of int64, shape (count,)
        """
        column = np.full(self._count if count is None else count, missing, np.int64)
        if name in self._columns:
            values = np.frombuffer(self._columns[name], np.int64)
            column[: self._count] = np.where(values < 0, missing, values)
        return column


class _Pieces:
    """The places of pieces in the file, by round: (first byte, offset, size) each."""

    def __init__(self) -> None:
        self._rows = array("q")

    def add(self, number: int, first: int, at: int, size: int) -> None:
        self._rows.extend((number, first, at, size))

    def _table(self) -> Ints:
        # Without a copy: the array cannot grow while this view exists.
        return np.frombuffer(self._rows, np.int64).reshape(-1, 4)

    def rounds(self) -> set[int]:
        return set(np.unique(self._table()[:, 0]).tolist())

    def of(self, number: int) -> list[list[int]]:
        table = self._table()
        # The stream refuses decreasing rounds, so the rows are sorted by round.
        start, stop = np.searchsorted(table[:, 0], [number, number + 1])
        return table[start:stop, 1:].tolist()


class XenSpool:
    """The contents of a spool, except the entries.

    Parameters
    ----------
    path : Path
        The file of frames.
    sources : sequence of str, optional
        Accepted values of the header's `source`.

    Attributes
    ----------
    missing, fault : str or None
        What could not be read (`pmlkit.spool_reader.Spool.missing`), and the first frame in it that
        is damaged or unknown. The frames before it are read.
    rounds : Rounds
        The closed rounds, in order.
    logs, tables : structured ndarrays
        The heads of the records; `at` is the offset of their words in the file.
    more_events, more_lines : int
        Numbers of the omitted ones.

    Raises
    ------
    SpoolDamaged
        If its header is unknown.
    TraceNotFound, NotATrace, TraceVersionError
    """

    def __init__(self, path: PathLike, sources: tuple[str, ...] = SOURCES) -> None:
        self.path = path
        self.rounds = Rounds()
        self.lines: list[Line] = []
        self.events: list[str] = []
        self.more_events = self.more_lines = self._characters = 0
        self.end: End | None = None
        self._pieces = {kind: _Pieces() for kind in (Frame.DIRTY, Frame.ACCESSED, Frame.TOUCHED)}
        self._heads, self._count = np.empty(1024, _HEADS), 0
        self._waiting: list[tuple[bytes, int]] = []  # heads of a frame, offset of its words
        self._layout, self._waiting_bytes = np.dtype("V1"), 0
        with read_spool(path) as spool:
            self.header = spool.header
            try:
                stream = XenStream(spool.header, sources)
            except NotUnderstood as error:
                hint = "keep it, try a later pmlkit, or collect again"
                raise SpoolDamaged(path, 0, error.why, hint) from error
            contents: Iterator[Decoded] = spool.understand(spool, stream.take)
            for decoded in contents:
                self._keep(decoded, spool.payload_at)
            self._put_heads()
            self.missing, self.fault = spool.missing, spool.left
        self.stock = stream.stock
        heads, self._heads = self._heads[: self._count], self._heads[:0]
        logs = heads["type"] == TYPE_LOG
        self.logs = heads if logs.all() else heads[logs]  # most have no tables: no copy
        self.tables = heads[heads["type"] == TYPE_TABLES]
        self._map: mmap.mmap | None = None

    def _keep(self, decoded: Decoded, at: int) -> None:
        if isinstance(decoded, Records):
            self._keep_records(decoded, at)
        elif isinstance(decoded, Round):
            self.rounds.add(decoded)
        elif isinstance(decoded, Bitmap):
            begins = at + BITMAP_HEAD.size
            self._pieces[decoded.kind].add(decoded.round, decoded.first, begins, len(decoded.piece))
        elif isinstance(decoded, Touched):
            self._pieces[Frame.TOUCHED].add(decoded.round, 0, at + TOUCHED_HEAD.size, decoded.words)
        elif isinstance(decoded, Line):
            self._keep_line(decoded)
        elif isinstance(decoded, End):
            self.end = decoded
        elif isinstance(decoded, Event) and decoded.what:
            if len(self.events) < _EVENTS:
                self.events.append(decoded.what)
            else:
                self.more_events += 1

    def _keep_line(self, line: Line) -> None:
        self._characters += len(line.line) + _HEADS.itemsize
        if self._characters < _LINES_CHARACTERS:
            self.lines.append(line)
        else:
            self.more_lines += 1

    def _keep_records(self, records: Records, at: int) -> None:
        # As bytes, so that the frame is freed and many small ones become columns together.
        heads, self._layout = records.heads.tobytes(), records.heads.dtype
        self._waiting.append((heads, at + records.start))
        self._waiting_bytes += len(heads) + _HEADS.itemsize
        if self._waiting_bytes > _HELD_BYTES:
            self._put_heads()

    def _put_heads(self) -> None:
        buffered, self._waiting, self._waiting_bytes = self._waiting, [], 0
        heads = np.frombuffer(b"".join(part for part, _ in buffered), self._layout)
        if not len(heads):
            return
        lengths = [len(part) // self._layout.itemsize for part, _ in buffered]
        words = heads["count"].astype(np.int64)
        before = np.append(0, np.cumsum(words))
        firsts = np.cumsum([0, *lengths[:-1]])  # of each frame's heads
        begins = np.array([at for _, at in buffered]) - 8 * before[firsts]
        kept = self._next_heads(len(heads))
        for name in _KEPT:
            kept[name] = heads[name]
        kept["table"] = heads["table"] if "table" in (heads.dtype.names or ()) else 0
        kept["at"] = np.repeat(begins, lengths) + 8 * before[:-1]

    def _next_heads(self, count: int) -> Structs:
        """Return space for the next `count` heads; pages that are never written take no memory."""
        first, self._count = self._count, self._count + count
        if self._count > len(self._heads):
            grown = np.empty(max(2 * len(self._heads), self._count), _HEADS)
            grown[:first] = self._heads[:first]
            self._heads = grown
        return self._heads[first : self._count]

    @property
    def harvests(self) -> set[int]:
        """The rounds that were closed with a harvest of accessed flags."""
        return self._pieces[Frame.ACCESSED].rounds() | self._pieces[Frame.TOUCHED].rounds()

    def has(self, kind: Frame, number: int) -> bool:
        """Whether a round has a bitmap or a guided harvest (`Frame.TOUCHED`)."""
        return bool(self._pieces[kind].of(number))

    # Data that is read from the file on demand

    def words(self, heads: Structs) -> Gfns:
        """Read the words of records, in sequence.

        Parameters
        ----------
        heads : structured ndarray
            Of `logs` or `tables`, in any order.

        Returns
        -------
        ndarray of uint64, shape (sum of counts,)
        """
        at, counts = heads["at"].astype(np.int64), heads["count"].astype(np.int64)
        # Adjacent records in the file are read at once.
        opens = np.flatnonzero(np.diff(at) != 8 * counts[:-1]) + 1
        starts = np.concatenate([[0], opens]).astype(np.int64)
        lengths = np.add.reduceat(counts, starts) if len(counts) else starts[:0]
        places = at[starts] if len(counts) else starts[:0]
        view = self._view()
        parts = [
            np.frombuffer(view, "<u8", length, place)
            for place, length in zip(places.tolist(), lengths.tolist(), strict=True)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.uint64)

    def frames_of(self, kind: Frame, number: int) -> Iterator[Gfns]:
        """Yield the frames of a bitmap in parts: ndarrays of uint64, ascending."""
        view = self._view()
        for first, at, size in self._pieces[kind].of(number):
            for skipped in range(0, size, _CHUNK_BYTES):
                length = min(_CHUNK_BYTES, size - skipped)
                bits = np.frombuffer(view, np.uint8, length, at + skipped)
                yield _ones(bits) + np.uint64(8 * (first + skipped))

    def touched_words(self, number: int) -> Gfns:
        """Return the words of a guided harvest: ndarray of uint64."""
        view, pieces = self._view(), self._pieces[Frame.TOUCHED].of(number)
        parts = [np.frombuffer(view, "<u8", count, at) for _, at, count in pieces]
        return np.concatenate([np.zeros(0, np.uint64), *parts])

    def _view(self) -> mmap.mmap:
        if self._map is None:
            try:
                with open(self.path, "rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except OSError as error:
                raise PmlkitError(f"cannot read {self.path} ({error.strerror})") from error
        return self._map

    def forget(self) -> None:
        """Release the memory of the parts of the file read so far."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)


def _ones(bits: Array) -> Gfns:
    """Return the numbers of the bits that are set."""
    (places,) = np.nonzero(bits)
    ones = np.unpackbits(bits[places], bitorder="little").reshape(-1, 8)
    rows, columns = np.nonzero(ones)
    return (8 * places[rows] + columns).astype(np.uint64)
