# SPDX-License-Identifier: Apache-2.0
"""A Xen spool (what `pmlkit.xen` writes), read once and checked: what is in it, and where.

The heads of the records are held, 90 bytes for each buffer of up to 512 entries; their entries
stay in the file until they are asked for, so that memory does not grow with them.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import struct
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import PmlkitError, SpoolDamaged
from pmlkit.spool import read_spool
from pmlkit.xen.frames import RECORDS_HEAD, TOUCHED_HEAD, Frame, unpack_bitmap_piece
from pmlkit.xen.pml import REASONS, TYPE_LOG, TYPE_TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray

    from pmlkit.types import Gfns, Json, PathLike


__all__ = ["XenSpool", "understood"]

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
_LONGEST = 512  # words of a record
_UNSIGNED = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}


# What taking apart whole frames of nonsense can raise; a spool of our own holds none.
NONSENSE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, struct.error)


@contextlib.contextmanager
def understood(path: PathLike) -> Iterator[None]:
    """Context that turns what whole frames of nonsense lead to into `SpoolDamaged`."""
    try:
        yield
    except NONSENSE as error:
        why = f"what it says contradicts itself: {type(error).__name__} {error}"
        raise SpoolDamaged(path, 0, why, "collect again") from error


class XenSpool:
    """All that a spool says, but for the entries themselves.

    Parameters
    ----------
    path : Path
        The file of frames.

    Attributes
    ----------
    header : dict
    missing : str or None
        What could not be read (`pmlkit.spool_reader.Spool.missing`).
    rounds : list of dict
        The closed rounds, in order.
    logs, tables : structured ndarrays
        The heads of the records, and `at`, where in the file their words begin.
    bitmaps : dict of (Frame, round) to list of (first byte, offset, bytes)
    touched : dict of round to list of (offset, words)
    lines, events : list of dict
    end : dict or None

    Raises
    ------
    SpoolDamaged
        If a frame is whole, but not what it should be.
    TraceNotFound, NotATrace, TraceVersionError
    """

    def __init__(self, path: PathLike) -> None:
        self.path = path
        self.rounds: list[Json] = []
        self.lines: list[Json] = []
        self.events: list[Json] = []
        self.end: Json | None = None
        self.bitmaps: dict[tuple[Frame, int], list[tuple[int, int, int]]] = {}
        self.touched: dict[int, list[tuple[int, int]]] = {}
        self._heads, self._count = np.empty(1024, _HEADS), 0
        with read_spool(path) as spool:
            self.header = spool.header
            self._layout()
            for kind, payload in spool:
                try:
                    self._take(kind, payload, spool.payload_at)
                except NONSENSE as error:
                    why = f"its frame {spool.frames_read} is not understood ({error})"
                    raise SpoolDamaged(path, spool.payload_at, why) from error
            self.missing = spool.missing
        self._sort_out()
        self._map: mmap.mmap | None = None

    @property
    def stock(self) -> bool:
        """Whether it is of stock log-dirty: bitmaps only."""
        return self.header.get("clock") != "tsc"

    def _layout(self) -> None:
        fields = self.header.get("record", [])
        try:
            names, offsets, sizes = zip(*fields, strict=True) if fields else ((), (), ())
            told = {"names": names, "offsets": offsets, "itemsize": self.header.get("head_bytes")}
            told["formats"] = [_UNSIGNED[size] for size in sizes]
            self._head = np.dtype(told) if fields else None  # type: ignore[call-overload]
        except (ValueError, KeyError, TypeError) as error:
            raise SpoolDamaged(self.path, 0, f"its header names no records ({error})") from error
        if fields and not set(_KEPT) <= set(names):
            raise SpoolDamaged(self.path, 0, "its records lack fields that are needed")
        self._table = "table" if "table" in names else None

    def _take(self, kind: int, payload: bytes, at: int) -> None:
        if kind == Frame.RECORDS:
            self._take_records(payload, at)
        elif kind == Frame.ROUND:
            self.rounds.append(json.loads(payload))
        elif kind in (Frame.DIRTY, Frame.ACCESSED):
            number, _, first, piece = unpack_bitmap_piece(payload)
            place = (first, at + len(payload) - len(piece), len(piece))
            self.bitmaps.setdefault((Frame(kind), number), []).append(place)
        elif kind == Frame.TOUCHED:
            (number,) = TOUCHED_HEAD.unpack_from(payload)
            words, rest = divmod(len(payload) - TOUCHED_HEAD.size, 8)
            if rest:
                raise ValueError("half a word")
            self.touched.setdefault(number, []).append((at + TOUCHED_HEAD.size, words))
        elif kind == Frame.CONSOLE:
            self.lines.append(json.loads(payload))
        elif kind == Frame.EVENT:
            self.events.append(json.loads(payload))
        elif kind == Frame.END:
            self.end = json.loads(payload)

    def _take_records(self, payload: bytes, at: int) -> None:
        (count,) = RECORDS_HEAD.unpack_from(payload)
        if self._head is None or count > len(payload):
            raise ValueError("records, and no layout of them")
        heads = np.frombuffer(payload, self._head, count, RECORDS_HEAD.size)
        words = heads["count"].astype(np.int64)
        start = RECORDS_HEAD.size + count * self._head.itemsize
        if (words > _LONGEST).any() or start + 8 * int(words.sum()) != len(payload):
            raise ValueError("the records' lengths do not add up")
        kept = self._next_heads(count)
        for name in _KEPT:
            kept[name] = heads[name]
        kept["table"] = heads[self._table] if self._table else 0
        kept["at"] = at + start + 8 * (np.cumsum(words) - words)

    def _next_heads(self, count: int) -> np.ndarray:
        """Return the next `count` heads, to be filled; room that nobody fills takes no memory."""
        first, self._count = self._count, self._count + count
        if self._count > len(self._heads):
            grown = np.empty(max(2 * len(self._heads), self._count), _HEADS)
            grown[:first] = self._heads[:first]
            self._heads = grown
        return self._heads[first : self._count]

    def _sort_out(self) -> None:
        heads, self._heads = self._heads[: self._count], self._heads[:0]
        known = np.isin(heads["type"], (TYPE_LOG, TYPE_TABLES))
        reasons = np.isin(heads["reason"], list(REASONS)) | (heads["type"] != TYPE_LOG)
        numbers = [told.get("round") for told in self.rounds]
        if not (known & reasons).all() or numbers != list(range(len(numbers))):
            raise SpoolDamaged(self.path, 0, "its records or rounds are of kinds not known")
        self.logs = heads[heads["type"] == TYPE_LOG]
        self.tables = heads[heads["type"] == TYPE_TABLES]

    # What is still in the file

    def words(self, heads: NDArray[Any]) -> NDArray[np.uint64]:
        """Read the words of records, one after the other.

        Parameters
        ----------
        heads : structured ndarray
            Of `logs` or `tables`, in any order.

        Returns
        -------
        ndarray of uint64, shape (sum of counts,)
        """
        at, counts = heads["at"].astype(np.int64), heads["count"].astype(np.int64)
        # Records that follow each other in the file are read at once.
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

    def frames_of(self, kind: Frame, number: int) -> Gfns:
        """Return the frames of a bitmap: ndarray of uint64, ascending."""
        view, found = self._view(), [np.zeros(0, np.uint64)]
        for first, at, size in sorted(self.bitmaps.get((kind, number), [])):
            bits = np.frombuffer(view, np.uint8, size, at)
            (places,) = np.nonzero(bits)
            ones = np.unpackbits(bits[places], bitorder="little").reshape(-1, 8)
            rows, columns = np.nonzero(ones)
            found.append((8 * (first + places[rows]) + columns).astype(np.uint64))
        return np.concatenate(found)

    def touched_words(self, number: int) -> Gfns:
        """Return the words of a guided harvest: ndarray of uint64."""
        view = self._view()
        parts = [np.frombuffer(view, "<u8", n, at) for at, n in self.touched.get(number, [])]
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
        """Give back the memory that what was read so far takes."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)
