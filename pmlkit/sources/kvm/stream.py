# SPDX-License-Identifier: Apache-2.0
"""Decode and check the frames of a KVM host's agent.

The host is not trusted, and a later agent may send frames that are unknown here. Live views
(`watch`) and the conversion to a trace (`ingest`) decode with this module. Both stop at the first
frame that is unknown. The frames before it are valid.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pmlkit.errors import NotUnderstood
from pmlkit.foreign import LATEST_NS, MOST, Fields, loads
from pmlkit.ftrace import format_of, layout_of
from pmlkit.kvm.frames import (
    CANDIDATE,
    HOLE,
    LOG,
    LOOK_HEAD,
    MARKS,
    PAGES_HEAD,
    SET_HEAD,
    STREAMS,
    Frame,
)
from pmlkit.kvm.job import CAPTURES, DRAWS, MODES
from pmlkit.kvm.rings import BLOCK_HEAD, ENTRY_BYTES, THREAD_BITS, VCPU_BITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pmlkit.types import Array, Gfns, Ints, Json


__all__ = ["End", "Event", "KvmStream", "Look", "Looked", "Pages", "PageSet", "Round",
           "Sample", "Tick", "look_of"]  # fmt: skip

ENTRY, FAULT = 1, 2  # kinds of marks; 0 is a page of the log
_EVENTS = {"dirty": (0, "gfn"), "kvm_entry": (ENTRY, "vcpu_id"), "kvm_page_fault": (FAULT, "")}
_OF_STREAM = {LOG: ("dirty",), MARKS: ("kvm_entry", "kvm_page_fault")}
_LONGEST = 1 << 26  # bytes of a frame; the agent sends about 1 MiB
_MOST_CPUS, _MOST_THREADS, _MOST_VCPUS = 1 << 16, 1 << 22, 1 << 16
_MOST_FRAME = 1 << 52
_MOST_LOST = 1 << 53
_FORMAT_CHARACTERS = 1 << 16
_MOST_LOOKED = 1 << 18  # most frames that are examined after a round
_MOST_CANDIDATES = 1 << 13  # possible page tables among them; each takes a page of memory here
_MOST_SLOTS = 1 << 16
_ENTRIES = 512  # entries of a page table
_MOST_READ = 1 << 40  # highest readable frame: 4 PiB


class Pages(NamedTuple):
    """Events of pages of one CPU: columns of the same length, and losses.

    Attributes
    ----------
    stream : {LOG, MARKS}
    cpu : int
    time : ndarray of int64
        Nanoseconds of the host's clock.
    kind : ndarray of uint8
        0, `ENTRY` or `FAULT`.
    thread : ndarray of int32
    value : ndarray of uint64
        The frame, or the vCPU of an entry.
    lost : ndarray of int64, shape (losses, 2)
        The number of the event before which events were lost, and the number of lost events; -1 if
        unknown.
    """

    stream: int
    cpu: int
    time: Ints
    kind: Array
    thread: Array
    value: Gfns
    lost: Ints


@dataclass(frozen=True)
class Round:
    """A round; `pages` is known if the agent counts them."""

    number: int
    start_ns: int
    end_ns: int
    agent_cpu_ns: int
    pages: int | None


class Tick(NamedTuple):
    """All events before this time have arrived."""

    ns: int


class PageSet(NamedTuple):
    """Pages of the present round, without order."""

    round: int
    frames: Gfns


class Look(NamedTuple):
    """Frames that were examined after the last closed round.

    Attributes
    ----------
    round : int
    frames : ndarray of uint64
    states : ndarray of uint8
        The type of each: OTHER, EMPTY, CANDIDATE or HOLE of `pmlkit.kvm.frames`.
    words : ndarray of uint64, shape (candidates, 512)
        Contents of the candidates.
    """

    round: int
    frames: Gfns
    states: Array
    words: Array


class Looked(NamedTuple):
    """The examination of a round's frames has ended.

    Attributes
    ----------
    round : int
    logged, left, holes : int
        Numbers of logged frames, of those not examined, and of those that could not be read.
    ns : int
        Time of its end.
    slots : ndarray of uint64, shape (slots, 2)
        First frame and pages of the guest's memory slots, by their frames.
    """

    round: int
    logged: int
    left: int
    holes: int
    ns: int
    slots: Array


class Sample(NamedTuple):
    """Frames of the sample of the last closed round that were touched in it."""

    round: int
    frames: Gfns


class Event(NamedTuple):
    """A message of the agent."""

    what: str


@dataclass(frozen=True)
class End:
    """The end of a collection.

    Attributes
    ----------
    open_ns : int or None
        Start of the round in which the VM ended.
    lost : dict of str to int
        Lost events according to the kernel, by stream.
    rings : bool
        Whether the VMM re-armed rings at times of its own choice.
    slots : list of (int, int, int)
        First frame, pages, and flags of the guest's memory slots, as far as known.
    """

    complete: bool
    why: str
    open_ns: int | None
    lost: dict[str, int]
    rings: bool
    slots: list[tuple[int, int, int]]


Decoded = Pages | Round | Tick | PageSet | Look | Looked | Sample | Event | End


class KvmStream:
    """Decodes the frames of a stream, in their order.

    Raises
    ------
    NotUnderstood
        If the header is unknown; raised by `take` for an unknown frame. Pass no frames to it after
        that.
    """

    def __init__(self, header: Json) -> None:
        self.header = header
        fields = Fields(header, "its header's ")
        fields.choice("source", ("kvm", "lab-kvm"))
        self.mode = fields.choice("mode", MODES)
        self.epoch_ns = fields.whole("epoch_ns", 0, LATEST_NS)
        _check_header(fields)
        self._rounds = self._end_ns = self._tick_ns = self._lost = 0
        self._sampled = -1
        self._looked = 0  # frames examined since a round was closed; -1: the examination has ended
        self._candidates = 0  # possible page tables among them
        self._ended = self._by_bpf = False
        self._scratch: tuple[Array, Array, Array, Array, Array] | None = None
        self._tables: dict[int, tuple[Ints, Ints]] = {}
        if self.mode == "log":
            self._read_layout(fields.object("capture"))
        # Decoders for frames that `again` decodes again; they change no state.
        self._decoders: dict[int, Callable[[bytes], Pages]] = {
            Frame.PAGES: self._pages,
            Frame.ENTRIES: self._entries,
        }
        self._takers: dict[int, Callable[[bytes], Decoded]] = {
            **self._decoders,
            Frame.PAGE_SET: self._page_set,
            Frame.ROUND: self._round,
            Frame.LOOK: self._look,
            Frame.LOOKED: self._look_over,
            Frame.SAMPLE: self._sample,
            Frame.TICK: self._tick,
            Frame.EVENT: lambda payload: Event(_text(Fields(loads(payload)), "what")),
            Frame.END: self._end,
        }

    def _read_layout(self, capture: Fields) -> None:
        capture.choice("clock", ("mono",))
        layout = layout_of(str(capture.text("header_page", longest=_FORMAT_CHARACTERS)))
        if layout is None or layout.data_at % 4 or layout.data_at // 4 not in (3, 4):
            raise NotUnderstood("pages of a ring buffer whose layout is unknown")
        self._data_at = layout.data_at // 4
        formats = capture.object("formats")
        for stream, names in _OF_STREAM.items():
            kinds, fields = np.full(1 << 16, -1, np.int64), np.zeros((3, 2), np.int64)
            for name in names:
                if name in formats:
                    self._add_format(kinds, fields, name, formats)
            self._tables[stream] = kinds, fields
        self._by_bpf = capture.choice("kind", CAPTURES, "ftrace") == "bpf"
        if (self._tables[LOG][0] < 0).all() and not self._by_bpf:
            raise NotUnderstood("its header has no format of the event of a logged page")

    def _add_format(self, kinds: Ints, fields: Ints, name: str, formats: Fields) -> None:
        row, field = _EVENTS[name]
        form = format_of(str(formats.text(name, longest=_FORMAT_CHARACTERS)))
        at, size = form.fields.get(field, (0, 0)) if form else (0, 0)
        if form is None or at % 4 or size not in ((4, 8) if field else (0,)) or form.number >> 16:
            raise NotUnderstood(f"its header has an unknown format of {name}")
        kinds[form.number] = row
        fields[row] = at // 4, size // 4

    def take(self, kind: int, payload: bytes) -> Decoded:
        """Decode a frame."""
        if self._ended:
            raise NotUnderstood("it comes after the last frame of a collection")
        if len(payload) > _LONGEST:
            raise NotUnderstood(f"{len(payload)} bytes, and no frame has more than {_LONGEST}")
        taker = self._takers.get(kind)
        if taker is None:
            raise NotUnderstood(f"a frame of kind {kind}")
        decoded = taker(payload)
        if isinstance(decoded, Pages):
            self._lost += int(np.maximum(decoded.lost[:, 1], 0).sum())
            if self._lost > _MOST_LOST:
                raise NotUnderstood("a page with an impossible number of lost events")
        return decoded

    def again(self, kind: int, payload: bytes) -> Pages:
        """Decode a frame of events that `take` has decoded before; in any order."""
        return self._decoders[kind](payload)

    def _pages(self, payload: bytes) -> Pages:
        if len(payload) < PAGES_HEAD.size:
            raise NotUnderstood("pages that are shorter than their head")
        stream, _, _, cpu = PAGES_HEAD.unpack_from(payload)
        if stream not in self._tables or cpu >= _MOST_CPUS:
            raise NotUnderstood(f"pages of stream {stream} and CPU {cpu}")
        if (len(payload) - PAGES_HEAD.size) % 4:
            raise NotUnderstood("pages that do not consist of whole words")
        return _checked(
            self._extracted(stream, cpu, np.frombuffer(payload, "<u4", -1, PAGES_HEAD.size))
        )

    def _entries(self, payload: bytes) -> Pages:
        """Decode blocks of entries that a BPF program has written."""
        if not self._by_bpf or len(payload) < PAGES_HEAD.size:
            raise NotUnderstood("entries of BPF in a collection without BPF")
        stream, _, _, cpu = PAGES_HEAD.unpack_from(payload)
        if stream not in (LOG, MARKS) or cpu >= _MOST_CPUS:
            raise NotUnderstood(f"entries of stream {stream} and CPU {cpu}")
        at, number, parts, lost = PAGES_HEAD.size, 0, [np.empty((0, 2), np.uint64)], []
        while at < len(payload):
            if len(payload) - at < BLOCK_HEAD.size:
                raise NotUnderstood("entries that are shorter than their head")
            before, count = BLOCK_HEAD.unpack_from(payload, at)
            at += BLOCK_HEAD.size
            if count > (len(payload) - at) // ENTRY_BYTES:
                raise NotUnderstood(f"{count} entries, more than it can contain")
            if before:
                lost.append((number, min(before, _MOST_LOST + 1)))
            parts.append(np.frombuffer(payload, "<u8", 2 * count, at).reshape(-1, 2))
            at, number = at + count * ENTRY_BYTES, number + count
        return _checked(_of_entries(stream, cpu, np.concatenate(parts), lost))

    def _extracted(self, stream: int, cpu: int, words: Array) -> Pages:
        from pmlkit.kernels import ringpages

        room = len(words) // ringpages.FEWEST_WORDS + 1
        if self._scratch is None or len(self._scratch[0]) < room:
            # Kept, because the allocation would take as long as filling it.
            lost = np.empty((len(words) // self._data_at + 1, 2), np.int64)
            self._scratch = (np.empty(room, np.int64), np.empty(room, np.uint8),
                             np.empty(room, np.int32), np.empty(room, np.uint64), lost)  # fmt: skip
        time, kind, thread, value, lost = self._scratch
        (kinds, fields), counts = self._tables[stream], np.zeros(3, np.int64)
        ringpages.extract(
            words, self._data_at, kinds, fields, time, kind, thread, value, lost, counts
        )
        if counts[ringpages.DAMAGED]:
            raise NotUnderstood(f"a page, from word {counts[2] - 1} on, that cannot be parsed")
        found, losses = counts[: ringpages.DAMAGED].tolist()
        time, kind = time[:found].copy(), kind[:found].copy()
        thread, value = thread[:found].copy(), value[:found].copy()
        return Pages(stream, cpu, time, kind, thread, value, lost[:losses].copy())

    def _tick(self, payload: bytes) -> Tick:
        ns = Fields(loads(payload)).whole("ns", 0, LATEST_NS)
        if ns < self._tick_ns:
            raise NotUnderstood(f"a tick of {ns} ns, and the previous one is of {self._tick_ns} ns")
        self._tick_ns = ns
        return Tick(ns)

    def _page_set(self, payload: bytes) -> PageSet:
        if self.mode != "soft-dirty" or len(payload) < SET_HEAD.size:
            raise NotUnderstood("a set of pages that is not possible here")
        return PageSet(*self._set(payload, self._rounds))

    def _sample(self, payload: bytes) -> Sample:
        if self.mode != "log" or len(payload) < SET_HEAD.size or not self._rounds:
            raise NotUnderstood("a sample that is not possible here")
        number, gfns = self._set(payload, self._rounds - 1)
        if number <= self._sampled:
            raise NotUnderstood(f"a second sample of round {number}")
        if len(gfns) and gfns[-1] >= _MOST_READ:
            raise NotUnderstood("a sample of impossible frames")
        self._sampled = number
        return Sample(number, gfns)

    def _set(self, payload: bytes, wanted: int) -> tuple[int, Gfns]:
        number, _ = SET_HEAD.unpack_from(payload)
        if number != wanted or (len(payload) - SET_HEAD.size) % 8:
            raise NotUnderstood(f"a set of pages of round {number}: {self._rounds} were closed")
        gfns = np.frombuffer(payload, "<u8", -1, SET_HEAD.size)
        if len(gfns) and (gfns[-1] >= _MOST_FRAME or (gfns[1:] <= gfns[:-1]).any()):
            raise NotUnderstood("a set of pages that is not in order")
        return number, gfns

    def _round(self, payload: bytes) -> Round:
        fields = Fields(loads(payload))
        number, start = fields.whole("round"), fields.whole("start_ns", 0, LATEST_NS)
        if number != self._rounds:
            raise NotUnderstood(f"it closes round {number}, and round {self._rounds} is the next")
        end = fields.whole("end_ns", 0, LATEST_NS)
        if not self._end_ns <= start <= end:
            raise NotUnderstood(f"round {number} is from {start} to {end} ns, and the previous "
                                f"one ends at {self._end_ns} ns")  # fmt: skip
        self._rounds, self._end_ns = number + 1, end
        self._looked = self._candidates = 0
        cpu, pages = fields.whole("agent_cpu_ns", default=0), fields.whole("pages", default=None)
        return Round(number, start, end, cpu, pages)

    def _look(self, payload: bytes) -> Look:
        look = look_of(payload)
        self._check_looked(look.round)
        self._looked += len(look.frames)
        self._candidates += len(look.words)
        if self._looked > _MOST_LOOKED or self._candidates > _MOST_CANDIDATES:
            raise NotUnderstood("an impossible number of examined frames of a round")
        return look

    def _look_over(self, payload: bytes) -> Looked:
        fields = Fields(loads(payload))
        number = int(fields.whole("round"))
        self._check_looked(number)
        counts = (fields.whole(name, 0, _MOST_LOST) for name in ("logged", "left", "holes"))
        logged, left, holes = map(int, counts)
        if left > logged or holes > logged:
            raise NotUnderstood(f"{left} and {holes} of {logged} frames")
        ns = int(fields.whole("ns", self._end_ns, LATEST_NS))
        rows = fields.values.get("slots")
        if not isinstance(rows, list) or len(rows) > _MOST_SLOTS:
            raise NotUnderstood("a look without memory slots")
        if not all(_is_span(row) for row in rows):
            raise NotUnderstood("a look with an impossible memory slot")
        self._looked = -1
        slots = np.array(rows, np.uint64).reshape(-1, 2)
        return Looked(number, logged, left, holes, ns, slots[np.argsort(slots[:, 0])])

    def _check_looked(self, number: int) -> None:
        if number != self._rounds - 1 or self._looked < 0 or self.mode != "log":
            raise NotUnderstood(f"an examination of round {number} that is not possible here")

    def _end(self, payload: bytes) -> End:
        fields = Fields(loads(payload))
        lost = {}
        for name in STREAMS:
            counts = fields.object("counts", {}).object(name, {})
            counted = (counts.whole(which, 0, _MOST_LOST, 0) for which in ("overrun", "dropped"))
            lost[name] = sum(counted)
        slots = fields.object("slots", {})
        rows = [_slot(slots.object(name)) for name in slots.values]
        self._ended = True
        known = fields.values.get("open_ns") is not None
        open_ns = fields.whole("open_ns", 0, LATEST_NS) if known else None
        rings = fields.flag("rings", False)
        return End(fields.flag("complete"), _text(fields, "why"), open_ns, lost, rings, rows)


def look_of(payload: bytes) -> Look:
    """Decode a frame of kind LOOK.

    Raises
    ------
    NotUnderstood
    """
    if len(payload) < LOOK_HEAD.size:
        raise NotUnderstood("a look that is shorter than its head")
    number, count = LOOK_HEAD.unpack_from(payload)
    at = LOOK_HEAD.size
    if len(payload) < at + 9 * count:
        raise NotUnderstood(f"a look at {count} frames, cut off")
    frames = np.frombuffer(payload, "<u8", count, at)
    states = np.frombuffer(payload, np.uint8, count, at + 8 * count)
    highest = int(frames[states != HOLE].max(initial=0))
    if highest >= _MOST_READ or int(states.max(initial=0)) > HOLE:
        raise NotUnderstood("a look at impossible frames")
    kept = int(np.count_nonzero(states == CANDIDATE))
    return Look(number, frames, states, _entries_of(payload, at + 9 * count, kept))


def _entries_of(payload: bytes, at: int, kept: int) -> Array:
    """Decode the entries of the candidates of a LOOK frame; what is not present is 0."""
    counts = np.frombuffer(payload[at : at + 2 * kept], "<u2").astype(np.int64)
    at, total = at + 2 * kept, int(counts.sum())
    if kept > _MOST_CANDIDATES or len(counts) != kept or len(payload) != at + 10 * total:
        raise NotUnderstood(f"a look with {len(payload) - at} bytes of {total} entries")
    places = np.frombuffer(payload, "<u2", total, at).astype(np.int64)
    if int(places.max(initial=0)) >= _ENTRIES:
        raise NotUnderstood("a look with impossible entries")
    words = np.zeros((kept, _ENTRIES), np.uint64)
    rows = np.repeat(np.arange(kept), counts)
    words[rows, places] = np.frombuffer(payload[at + 2 * total :], "<u8")
    return words


def _is_span(row: object) -> bool:
    if not isinstance(row, list) or len(row) != 2:
        return False
    return all(isinstance(n, int) and 0 <= n < _MOST_FRAME for n in row)


def _of_entries(stream: int, cpu: int, entries: Gfns, lost: list[tuple[int, int]]) -> Pages:
    """Return the columns of entries of BPF: the time, and the frame above the thread."""
    thread = (entries[:, 1] & np.uint64((1 << THREAD_BITS) - 1)).astype(np.int32)
    time = np.minimum(entries[:, 0], np.uint64(LATEST_NS)).astype(np.int64)
    value, kind = entries[:, 1] >> np.uint64(THREAD_BITS), np.zeros(len(time), np.uint8)
    if stream == MARKS:
        kinds = value >> np.uint64(VCPU_BITS)
        if len(kinds) and not ENTRY <= kinds.min() <= kinds.max() <= FAULT:
            raise NotUnderstood("a mark of an unknown kind")
        kind, value = kinds.astype(np.uint8), value & np.uint64((1 << VCPU_BITS) - 1)
    places = np.array(lost, np.int64).reshape(-1, 2)
    return Pages(stream, cpu, time, kind, thread, value, places)


def _checked(pages: Pages) -> Pages:
    """Return events of a page after checking them."""
    if len(pages.time) and not 0 <= pages.time.min() <= pages.time.max() < LATEST_NS:
        raise NotUnderstood("an event with an impossible time")
    if pages.stream == LOG and len(pages.value) and pages.value.max() >= _MOST_FRAME:
        raise NotUnderstood("an event of a frame whose number has more than 52 bits")
    if len(pages.lost) and pages.lost[:, 1].max() > _MOST_LOST // len(pages.lost):
        raise NotUnderstood("a page that lost an impossible number of events")
    return pages


def _text(fields: Fields, name: str) -> str:
    return str(fields.text(name, ""))


def _slot(fields: Fields) -> tuple[int, int, int]:
    gfn, pages = fields.whole("gfn", 0, _MOST_FRAME), fields.whole("pages", 1, _MOST_FRAME)
    return gfn, pages, fields.whole("flags", 0, (1 << 32) - 1)


def _check_header(fields: Fields) -> None:
    if (created := fields.text("created", None)) is not None:
        try:
            datetime.datetime.fromisoformat(created)
        except ValueError as error:
            raise NotUnderstood(f"its header's created is {created[:40]!r}, not a time") from error
    domain = fields.object("domain")
    domain.text("name")
    domain.whole("vcpus", 1, _MOST_VCPUS)
    domain.whole("memory_bytes", 1, MOST, None)
    vcpus = fields.object("vcpus", {})
    for thread in vcpus.values:
        if not thread.isdecimal() or int(thread[:10]) > _MOST_THREADS:
            raise NotUnderstood(f"its header has a thread {thread[:20]!r}")
        vcpus.whole(thread, 0, _MOST_VCPUS - 1)
    host = fields.object("host", {})
    host.text("release", "")
    job = fields.object("job", {})
    job.number("period_s", 0, 1e9, 1.0)
    job.whole("one_in", 2, 1 << 30, 16)
    job.choice("draw", DRAWS, DRAWS[0])
