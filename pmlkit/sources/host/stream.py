# SPDX-License-Identifier: Apache-2.0
"""Decode and check the frames of a Xen collector.

dom0 is not trusted, and a later Xen may send frames that are unknown here. Live views
(`pmlkit.sources.watch`) and the conversion to a trace (`spool`) decode with this module. Both
therefore stop at the first frame that is unknown. The frames before it are valid.
"""

from __future__ import annotations

import datetime
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from pmlkit.errors import NotUnderstood
from pmlkit.foreign import LATEST_NS, MOST, Fields, loads
from pmlkit.trace.kinds import PML_KINDS
from pmlkit.trace.schema import PAGE_SIZE
from pmlkit.xen.frames import BITMAP_HEAD, RECORDS_HEAD, TOUCHED_HEAD, Frame, unpack_bitmap_piece
from pmlkit.xen.job import DRAWS, HARVESTS, SAMPLES
from pmlkit.xen.pml import REASONS, TYPE_LOG, TYPE_TABLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pmlkit.types import Array, Bools, Gfns, Ints, Json

    Structs = NDArray[np.void]  # a structured array


__all__ = ["Bitmap", "End", "Event", "Line", "Records", "Round", "Touched", "XenStream", "ns_of"]

SOURCES = ("xen", "lab")
COSTS = ("walk_tsc", "drain_tsc", "tables_tsc", "rearm_tsc", "guided_tsc", "scan_tsc",
         "guided_tables", "guided_entries", "guided_frames", "scan_frames", "cleared", "snapshots",
         "tables", "dirty_pages", "accessed_pages", "touched_count", "roots_dropped",
         "roots_stale", "tables_dropped", "memory")  # fmt: skip
WORDS = 512  # most words of a record
_STAMPS = ("tsc_start", "tsc_end", "drain_tsc")
_CHECKED = ("type", "reason", "count", "vcpu", "round", *_STAMPS)
# The required fields of a record's head, and the possible sizes of each, bytes.
_NEEDED = {
    **dict.fromkeys(("seq", *_STAMPS, "lost_entries", "lost_records"), (8,)),
    **dict.fromkeys(("round", "count"), (4,)),
    **dict.fromkeys(("type", "reason", "vcpu"), (2, 4)),
}
_UNSIGNED = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}
_OF_A_LOG = np.isin(np.arange(256), PML_KINDS)
_LONGEST = 1 << 24  # bytes of a frame; pmlkit's collector sends 1 MiB at most
_LONGEST_HEAD = 4096  # longest head of a record, bytes
_FEW = 8  # up to so many heads, Python checks faster than numpy
_MOST_VCPUS = 1 << 13
_MOST_KHZ = 10**9
_MOST_PAGES = 1 << 52
_MOST_LOST = 1 << 53
_LEVELS, _PRESENT = 5, 1  # levels of page tables; a flag of entries
_GROWTH, _WHOLE = 4, 1 << 15  # a domain may get memory while it is logged; Xen rounds bitmaps up
_FASTEST_NS = 0.2  # per instruction, which limits the instructions up to `LATEST_NS`
_LINE = 1 << 16  # characters of a line of the guest's console


class Records(NamedTuple):
    """Drained buffers: their heads, all their words, and the offset of the words in the payload."""

    heads: Structs
    words: Gfns
    start: int


class Bitmap(NamedTuple):
    """A piece of a bitmap: its first byte, and its bytes."""

    kind: Frame
    round: int
    first: int
    piece: bytes


class Touched(NamedTuple):
    """Words of a guided harvest."""

    round: int
    words: int


@dataclass(frozen=True)
class Round:
    """A closed round.

    Attributes
    ----------
    number, end_ns : int
    counts : dict of str to int
        tick, pause_ns, faults, agent_cpu_ns, rearmed, exits (since the start), and those of `COSTS`
        that the collector sent.
    vcpus : dict of str to int
        Sums of the vCPUs' counts.
    entries, lost : int
        As counted by the collector when it read the rings.
    fill : float
    """

    number: int
    end_ns: int
    counts: dict[str, int]
    vcpus: dict[str, int]
    entries: int
    lost: int
    fill: float

    @property
    def pages(self) -> int:
        """The working set of the round: distinct pages."""
        accessed = self.counts.get("accessed_pages", 0)
        if touched := self.counts.get("touched_count", 0):
            return touched + accessed
        # A collection that closes no rounds has only entries.
        return accessed or self.counts.get("dirty_pages", self.entries)


class Line(NamedTuple):
    """A line of the guest's console, with the time of reading."""

    line: str
    ns: int


class Event(NamedTuple):
    """A message of the collector."""

    what: str


class End(NamedTuple):
    """The end: whether all that was requested was logged, and whether a round is still open."""

    complete: bool
    why: str
    keep_open: bool


if TYPE_CHECKING:
    Decoded = Records | Bitmap | Touched | Round | Line | Event | End

Ticks = TypeVar("Ticks", int, "Ints")


def ns_of(ticks: Ticks, tsc_khz: int) -> Ticks:
    """Convert TSC ticks (int, or ndarray of int64) to ns without overflow."""
    # `ticks * 1_000_000` would overflow after an hour of a TSC of 2.5 GHz.
    return ticks // tsc_khz * 1_000_000 + ticks % tsc_khz * 1_000_000 // tsc_khz


class XenStream:
    """Decodes the frames of a stream, in their order.

    Parameters
    ----------
    sources : sequence of str
        Accepted values of the header's `source`.

    Raises
    ------
    NotUnderstood
        If the header is unknown; raised by `take` for an unknown frame. Pass no frames to it after
        that.
    """

    def __init__(self, header: Json, sources: tuple[str, ...] = SOURCES) -> None:
        self.header = header
        fields = Fields(header, "its header's ")
        _check_origin(fields, sources)
        self.stock = fields.choice("clock", ("tsc", "dom0")) == "dom0"
        self._vcpus = _check_domain(fields)
        self._free = _check_job(fields.object("job", {})) and not self.stock
        self._layout: np.dtype[np.void] | None = None
        if not self.stock:
            self._check_clock(fields)
        pages = max(header.get("pages") or 0, _memory_bytes(header) // PAGE_SIZE)
        self._most_bits = _GROWTH * pages + _WHOLE
        self.rounds = self._end_ns = self._exits = self._lost = 0
        self._reached: dict[Frame, int] = {}  # bytes of this round's bitmaps so far
        self._line_ns = -LATEST_NS  # lines before the first round have times below 0
        self._ended = False
        self._takers: dict[int, Callable[[bytes], Decoded]] = {
            Frame.ROUND: self._round,
            Frame.RECORDS: self._records,
            Frame.TOUCHED: self._touched,
            Frame.CONSOLE: self._line,
            Frame.EVENT: _event,
            Frame.END: self._end,
        }

    def _check_clock(self, fields: Fields) -> None:
        self._khz = fields.whole("tsc_khz", 1, _MOST_KHZ)
        self._epoch = fields.whole("epoch_tsc", 0, (1 << 62))
        self._latest = min(self._epoch + LATEST_NS // 1_000_000 * self._khz, (1 << 63) - 1)
        self._layout = _layout(fields)
        places = [(self._layout.names or ()).index(name) for name in _CHECKED]
        self._checked = operator.itemgetter(*places)

    def take(self, kind: int, payload: bytes) -> Decoded:
        """Decode a frame: returns one of this module's tuples, or a `Round`."""
        if self._ended:
            raise NotUnderstood("it comes after the last frame of a collection")
        if len(payload) > _LONGEST:
            raise NotUnderstood(f"{len(payload)} bytes, and no frame has more than {_LONGEST}")
        if kind in (Frame.DIRTY, Frame.ACCESSED):
            return self._bitmap(Frame(kind), payload)
        taker = self._takers.get(kind)
        if taker is None:
            raise NotUnderstood(f"a frame of kind {kind}")
        return taker(payload)

    # Records

    def _records(self, payload: bytes) -> Records:
        heads, start = self._heads(payload)
        words = int(heads["count"].sum(dtype=np.int64))
        if start + 8 * words != len(payload):
            held = len(payload) - start
            raise NotUnderstood(f"its records have {words} words, and it holds {held} bytes")
        self._check_heads(heads)
        records = Records(heads, np.frombuffer(payload, "<u8", words, start), start)
        _check_words(records)
        return records

    def _heads(self, payload: bytes) -> tuple[Structs, int]:
        if self._layout is None:
            raise NotUnderstood("records, and stock log-dirty has none")
        if len(payload) < RECORDS_HEAD.size:
            raise NotUnderstood("records that are shorter than their count")
        (count,) = RECORDS_HEAD.unpack_from(payload)
        if count * self._layout.itemsize > len(payload) - RECORDS_HEAD.size:
            raise NotUnderstood(f"{count} records, more than it can contain")
        heads = np.frombuffer(payload, self._layout, count, RECORDS_HEAD.size)
        return heads, RECORDS_HEAD.size + count * self._layout.itemsize

    def _check_heads(self, heads: Structs) -> None:
        if len(heads) > _FEW or not self._are_valid(heads.tolist()):
            self._check_each(heads)
        lost = heads["lost_entries"]
        # A limit for each record, so that the sum of 64 bits cannot overflow.
        _all(lost, lost <= _MOST_LOST // max(len(lost), 1), "a record that lost {} entries")
        self._lost += int(lost.sum())
        if self._lost > _MOST_LOST:
            raise NotUnderstood(f"{self._lost} entries were lost")

    def _are_valid(self, rows: list[tuple[int, ...]]) -> bool:
        """Check like `_check_each`, faster for few records."""
        for row in rows:
            kind, reason, count, vcpu, number, *stamps = self._checked(row)
            known = kind == TYPE_TABLES or (kind == TYPE_LOG and reason in REASONS)
            placed = count <= WORDS and vcpu < self._vcpus and number <= self.rounds + 1
            if not (known and placed and max(stamps) <= self._latest):
                return False
        return True

    def _check_each(self, heads: Structs) -> None:
        kinds, logs = heads["type"], heads["type"] == TYPE_LOG
        _all(kinds, logs | (kinds == TYPE_TABLES), "a record of type {}")
        reasons = heads["reason"]
        _all(reasons, np.isin(reasons, list(REASONS)) | ~logs, "a record of reason {}")
        _all(heads["count"], heads["count"] <= WORDS, f"a record of {{}} words, of {WORDS} at most")
        vcpus = f"a record of vCPU {{}}, of {self._vcpus}"
        _all(heads["vcpu"], heads["vcpu"] < self._vcpus, vcpus)
        closed = f"a record of round {{}}, and {self.rounds} were closed"
        _all(heads["round"], heads["round"] <= self.rounds + 1, closed)
        for name in _STAMPS:
            _all(heads[name], heads[name] <= self._latest, f"a record whose {name} is {{}}")

    # Bitmaps and words of a harvest

    def _bitmap(self, kind: Frame, payload: bytes) -> Bitmap:
        if self.stock and kind == Frame.ACCESSED:
            raise NotUnderstood("a harvest of accessed flags, and stock log-dirty has none")
        if len(payload) < BITMAP_HEAD.size:
            raise NotUnderstood("a bitmap that is shorter than its head")
        number, bits, first, piece = unpack_bitmap_piece(payload)
        self._check_round(number, "a bitmap")
        if bits > self._most_bits:
            raise NotUnderstood(f"a bitmap of {bits} pages, more than the domain has")
        if 8 * (first + len(piece)) > -(-bits // 8) * 8:
            raise NotUnderstood(f"a piece of a bitmap that goes beyond its {bits} bits")
        if first < self._reached.get(kind, 0):
            raise NotUnderstood(f"a piece of a bitmap that goes back to byte {first}")
        self._reached[kind] = first + len(piece)
        return Bitmap(kind, number, first, piece)

    def _touched(self, payload: bytes) -> Touched:
        if self.stock:
            raise NotUnderstood("a guided harvest, and stock log-dirty has none")
        words, rest = divmod(len(payload) - TOUCHED_HEAD.size, 8)
        if words < 0 or rest:
            raise NotUnderstood("a guided harvest that does not consist of whole words")
        (number,) = TOUCHED_HEAD.unpack_from(payload)
        self._check_round(number, "a guided harvest")
        return Touched(number, words)

    def _check_round(self, number: int, what: str) -> None:
        if number != self.rounds:
            raise NotUnderstood(f"{what} of round {number}, and {self.rounds} were closed")

    # Rounds and the end

    def _round(self, payload: bytes) -> Round:
        fields = Fields(loads(payload))
        number = fields.whole("round")
        if number != self.rounds:
            raise NotUnderstood(f"it closes round {number}, and round {self.rounds} is the next")
        end_ns = self._time(fields)
        if end_ns < self._end_ns:
            raise NotUnderstood(f"round {number} ends at {end_ns} ns, the previous one at "
                                f"{self._end_ns} ns")  # fmt: skip
        vcpus = self._sums(fields)
        seen = fields.object("seen", {})
        counts = {
            "tick": int(fields.flag("tick", False)),
            "pause_ns": self._pause(fields),
            "faults": fields.whole("faults") if self.stock else 0,
            "agent_cpu_ns": fields.whole("agent_cpu_ns", default=0),
            "rearmed": fields.whole("rearmed", default=0),
            "exits": vcpus.get("exits", 0),
            **{name: fields.whole(name) for name in COSTS if name in fields.values},
        }
        if counts["exits"] < self._exits:
            raise NotUnderstood(f"{counts['exits']} exits, and {self._exits} before them")
        entries = seen.whole("entries", default=counts.get("dirty_pages", 0))
        lost, fill = seen.whole("lost", default=0), seen.number("fill", 0, 1e9, 0.0)
        self.rounds, self._end_ns, self._exits = number + 1, end_ns, counts["exits"]
        self._reached = {}
        return Round(number, end_ns, counts, vcpus, entries, lost, float(fill))

    def _time(self, fields: Fields) -> int:
        tick = fields.flag("tick", False)
        if self._free and not tick:
            raise NotUnderstood("it closes a round, and this collection closes none")
        for name, there in (("t_ns", tick), ("t_end_ns", "t_end_ns" in fields or self.stock)):
            if there:
                return int(fields.whole(name, 0, LATEST_NS))
        return int(
            ns_of(max(fields.whole("tsc_resume", 0, self._latest) - self._epoch, 0), self._khz)
        )

    def _pause(self, fields: Fields) -> int:
        if "pause_ns" in fields or self.stock:
            return int(fields.whole("pause_ns", 0, LATEST_NS, 0))
        if "tsc_resume" not in fields:
            return 0
        resume = fields.whole("tsc_resume", 0, self._latest)
        return int(ns_of(resume - fields.whole("tsc_pause", 0, resume), self._khz))

    def _sums(self, fields: Fields) -> dict[str, int]:
        if self.stock and "vcpus" not in fields:
            return {}
        each = list(fields.objects("vcpus", 1, self._vcpus))
        names = list(each[0].values)
        if self._layout is not None:
            each[0].whole("exits")
        return {name: sum(vcpu.whole(name) for vcpu in each) for name in names}

    def _line(self, payload: bytes) -> Line:
        fields = Fields(loads(payload))
        self._line_ns = fields.whole("ns", self._line_ns, LATEST_NS)
        return Line(fields.text("line", longest=_LINE), self._line_ns)

    def _end(self, payload: bytes) -> End:
        fields = Fields(loads(payload))
        closed = fields.whole("rounds", default=self.rounds)
        if closed != self.rounds:
            raise NotUnderstood(f"it ends after {closed} rounds, and {self.rounds} were closed")
        end = End(
            fields.flag("complete", True), fields.text("why", ""), fields.flag("keep_open", False)
        )
        self._ended = True
        return end


def _all(values: Array, hold: Bools, what: str) -> None:
    """Refuse the first value that violates a rule."""
    if not hold.all():
        raise NotUnderstood(what.format(int(values[np.argmin(hold)])))


def _check_words(records: Records) -> None:
    heads, words = records.heads, records.words
    tables = heads["type"] == TYPE_TABLES
    if tables.any():
        _check_tables(heads, words, tables)
        words = words[np.repeat(~tables, heads["count"])]
    kinds = words.astype(np.uint8)
    _all(kinds, _OF_A_LOG.take(kinds), "an entry of kind {:#x} in a log")


def _check_tables(heads: Structs, words: Gfns, tables: Bools) -> None:
    if "table" not in (heads.dtype.names or ()):
        raise NotUnderstood("a snapshot of a page table in records that do not name the table")
    levels = heads["table"][tables] & np.uint64(0xF)
    _all(levels, (levels >= 1) & (levels <= _LEVELS), "a page table of level {}")
    words = words[np.repeat(tables, heads["count"])]
    present = (words == 0) | (words & np.uint64(_PRESENT) != 0)
    _all(words, present, "an entry {:#x} of a page table, which is not present")


def _event(payload: bytes) -> Event:
    return Event(Fields(loads(payload)).text("what", ""))


# The header


def _check_origin(fields: Fields, sources: tuple[str, ...]) -> None:
    fields.choice("source", sources)
    created = fields.text("created", None)
    try:
        datetime.datetime.fromisoformat(created or "2000-01-01")
    except ValueError as error:
        raise NotUnderstood(f"its header's created is {created!r:.60}, not a time") from error
    for name in ("options", "versions", "host"):
        fields.object(name, {})
    fields.text("command", "", longest=1 << 16)
    fields.text("mode", None)


def _check_domain(fields: Fields) -> int:
    """Check the domain; returns the number of logged vCPUs."""
    fields.whole("pages", 1, _MOST_PAGES, None)
    fields.whole("memory_bytes", 0, MOST, None)
    domain = fields.object("domain", {})
    domain.text("name", None)
    domain.whole("domid", 0, 1 << 16, None)
    domain.whole("memory_bytes", 0, MOST, None)
    vcpus = fields.whole("vcpus", 1, _MOST_VCPUS, 1)
    if fields.values["source"] == "lab":
        fields.text("guest")
        _check_memory(fields)
        return max(fields.whole("guest_vcpus", 1, _MOST_VCPUS), vcpus)
    if not _memory_bytes(fields.values):
        fields.whole("pages", 1, _MOST_PAGES)
    return int(vcpus)


def _memory_bytes(header: Json) -> int:
    domain = header.get("domain") or {}
    return int(domain.get("memory_bytes") or header.get("memory_bytes") or 0)


def _check_memory(fields: Fields) -> None:
    """Check the fields of the lab's header."""
    if fields.whole("memory_bytes", PAGE_SIZE) % PAGE_SIZE:
        raise NotUnderstood("its header's memory_bytes is not a whole number of pages")
    fields.number("ns_per_insn", _FASTEST_NS, 1e9, None)
    for region in fields.objects("regions", 0, 1 << 16):
        region.text("name")
        last = region.whole("gfn", 0, _MOST_PAGES) + region.whole("pages", 1, _MOST_PAGES)
        if last > _MOST_PAGES:
            raise NotUnderstood(f"a region that ends at frame {last}")
        region.text("kind", None)
        known = region.object("known", {})
        for name in known.values:
            known.whole(name)


def _check_job(job: Fields) -> bool:
    """Check the job; returns whether it closes no rounds (`free`)."""
    job.flag("phase_rounds", False)
    every = job.whole("harvest_every", 1, 1 << 32, 1)
    least = 0 if job.flag("lockstep", False) else 1e-9
    job.number("period_s", least, LATEST_NS / 1e9 / every, None)
    if job.choice("harvest", HARVESTS, "") == "sampled" and job.whole("one_in") not in SAMPLES:
        raise NotUnderstood(f"a sample of one in {job.whole('one_in')}")
    job.choice("draw", DRAWS, "fixed")
    return job.flag("free", False)


def _layout(fields: Fields) -> np.dtype[np.void]:
    """Return the layout of a record's head that the header describes."""
    size = fields.whole("head_bytes", 1, _LONGEST_HEAD)
    rows = fields.values.get("record")
    if not (isinstance(rows, list) and rows):
        raise _no_layout()
    each = sorted(map(_head_field, rows), key=lambda field: field.offset)
    offsets, names = [field.offset for field in each], [field.name for field in each]
    ends, next_starts = [field.offset + field.size for field in each], [*offsets[1:], size]
    if len(set(names)) < len(names) or any(map(operator.gt, ends, next_starts)):
        raise NotUnderstood("its header's record has fields that overlap")
    sizes = {field.name: field.size for field in each}
    for name, possible in {**_NEEDED, "table": (8, None)}.items():
        if sizes.get(name) not in possible:
            raise NotUnderstood(f"its header's record has no field {name} of {possible[0]} bytes")
    formats = [_UNSIGNED[field.size] for field in each]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


class _HeadField(NamedTuple):
    name: str
    offset: int
    size: int


def _head_field(row: object) -> _HeadField:
    match row:
        case [str(name), int(offset), int(size)] if not {type(offset), type(size)} - {int}:
            if name.isidentifier() and offset >= 0 and size in _UNSIGNED:
                return _HeadField(name, offset, size)
    raise _no_layout()


def _no_layout() -> NotUnderstood:
    return NotUnderstood("its header's record is not a list of [name, offset, bytes]")
