# SPDX-License-Identifier: Apache-2.0
"""Decode and check the frames of a KVM host's agent.

The host is not trusted, and a later agent may send frames that are unknown here. Live views
(`watch`) and the conversion to a trace (`ingest`) decode with this module, and stop at the first
frame that is not understood. The frames before it are valid.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pmlkit.errors import NotUnderstood
from pmlkit.foreign import LATEST_NS, MOST, Fields, loads
from pmlkit.ftrace import format_of, layout_of
from pmlkit.kvm.frames import LOG, MARKS, PAGES_HEAD, SET_HEAD, STREAMS, Frame
from pmlkit.kvm.job import MODES

if TYPE_CHECKING:
    from collections.abc import Callable

    from pmlkit.types import Array, Gfns, Ints, Json


__all__ = ["End", "Event", "KvmStream", "Pages", "PageSet", "Round", "Tick"]

ENTRY, FAULT = 1, 2  # kinds of marks; 0 is a page of the log
_EVENTS = {"dirty": (0, "gfn"), "kvm_entry": (ENTRY, "vcpu_id"), "kvm_page_fault": (FAULT, "")}
_OF_STREAM = {LOG: ("dirty",), MARKS: ("kvm_entry", "kvm_page_fault")}
_LONGEST = 1 << 26  # bytes of a frame; the agent sends about 1 MiB
_MOST_CPUS, _MOST_THREADS, _MOST_VCPUS = 1 << 16, 1 << 22, 1 << 16
_MOST_FRAME = 1 << 52
_MOST_LOST = 1 << 53
_FORMAT_CHARACTERS = 1 << 16


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
        The number of the event before which events were lost, and how many; -1: not known.
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
    """A round; `pages` are known where the agent counts them."""

    number: int
    start_ns: int
    end_ns: int
    agent_cpu_ns: int
    pages: int | None


class Tick(NamedTuple):
    """All events before this time have come."""

    ns: int


class PageSet(NamedTuple):
    """Pages of the round that is being collected, without order."""

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
        When the round began in which the VM ended.
    lost : dict of str to int
        What the kernel counts as lost, by stream.
    rings : bool
        Whether the VMM re-armed rings, at times of its own.
    slots : list of (int, int, int)
        First frame, pages, and flags of the guest's memory slots, as far as they are known.
    """

    complete: bool
    why: str
    open_ns: int | None
    lost: dict[str, int]
    rings: bool
    slots: list[tuple[int, int, int]]


Decoded = Pages | Round | Tick | PageSet | Event | End


class KvmStream:
    """Decodes the frames of a stream, in their order.

    Raises
    ------
    NotUnderstood
        If the header is not; by `take`, if a frame is not. Give it no frame after that.
    """

    def __init__(self, header: Json) -> None:
        self.header = header
        fields = Fields(header, "its header's ")
        fields.choice("source", ("kvm", "lab-kvm"))
        self.mode = fields.choice("mode", MODES)
        self.epoch_ns = fields.whole("epoch_ns", 0, LATEST_NS)
        _check_header(fields)
        self._rounds = self._end_ns = self._tick_ns = self._lost = 0
        self._ended = False
        self._scratch: tuple[Array, Array, Array, Array, Array] | None = None
        self._tables: dict[int, tuple[Ints, Ints]] = {}
        if self.mode == "log":
            self._read_layout(fields.object("capture"))
        # Of frames that are decoded again, by `again`: the decoders change nothing here.
        self._decoders: dict[int, Callable[[bytes], Pages]] = {Frame.PAGES: self._pages}
        self._takers: dict[int, Callable[[bytes], Decoded]] = {
            **self._decoders,
            Frame.PAGE_SET: self._page_set,
            Frame.ROUND: self._round,
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
        if (self._tables[LOG][0] < 0).all():
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
            raise NotUnderstood("it comes after the last one of a collection")
        if len(payload) > _LONGEST:
            raise NotUnderstood(f"{len(payload)} bytes, and no frame has more than {_LONGEST}")
        taker = self._takers.get(kind)
        if taker is None:
            raise NotUnderstood(f"a frame of kind {kind}")
        decoded = taker(payload)
        if isinstance(decoded, Pages):
            self._lost += int(np.maximum(decoded.lost[:, 1], 0).sum())
            if self._lost > _MOST_LOST:
                raise NotUnderstood("a page with which more events were lost than there can be")
        return decoded

    def again(self, kind: int, payload: bytes) -> Pages:
        """Decode a frame of events that `take` has decoded; in any order."""
        return self._decoders[kind](payload)

    def _pages(self, payload: bytes) -> Pages:
        if len(payload) < PAGES_HEAD.size:
            raise NotUnderstood("pages that are shorter than their head")
        stream, _, _, cpu = PAGES_HEAD.unpack_from(payload)
        if stream not in self._tables or cpu >= _MOST_CPUS:
            raise NotUnderstood(f"pages of stream {stream} and CPU {cpu}")
        if (len(payload) - PAGES_HEAD.size) % 4:
            raise NotUnderstood("pages that are no whole words")
        pages = self._extracted(stream, cpu, np.frombuffer(payload, "<u4", -1, PAGES_HEAD.size))
        if len(pages.time) and not 0 <= pages.time.min() <= pages.time.max() < LATEST_NS:
            raise NotUnderstood("an event whose time cannot be")
        if stream == LOG and len(pages.value) and pages.value.max() >= _MOST_FRAME:
            raise NotUnderstood("an event of a frame that no machine has")
        if len(pages.lost) and pages.lost[:, 1].max() > _MOST_LOST // len(pages.lost):
            raise NotUnderstood("a page that lost more events than there can be")
        return pages

    def _extracted(self, stream: int, cpu: int, words: Array) -> Pages:
        from pmlkit.kernels import ringpages

        room = len(words) // ringpages.FEWEST_WORDS + 1
        if self._scratch is None or len(self._scratch[0]) < room:
            # Kept: the kernel needs as long to hand out memory as we to fill it.
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
            raise NotUnderstood(f"a tick of {ns} ns, and the one before is of {self._tick_ns} ns")
        self._tick_ns = ns
        return Tick(ns)

    def _page_set(self, payload: bytes) -> PageSet:
        if self.mode != "soft-dirty" or len(payload) < SET_HEAD.size:
            raise NotUnderstood("a set of pages where none can be")
        number, _ = SET_HEAD.unpack_from(payload)
        if number != self._rounds or (len(payload) - SET_HEAD.size) % 8:
            raise NotUnderstood(f"a set of pages of round {number}: {self._rounds} were closed")
        gfns = np.frombuffer(payload, "<u8", -1, SET_HEAD.size)
        if len(gfns) and (gfns[-1] >= _MOST_FRAME or (gfns[1:] <= gfns[:-1]).any()):
            raise NotUnderstood("a set of pages that is not in order")
        return PageSet(number, gfns)

    def _round(self, payload: bytes) -> Round:
        fields = Fields(loads(payload))
        number, start = fields.whole("round"), fields.whole("start_ns", 0, LATEST_NS)
        if number != self._rounds:
            raise NotUnderstood(f"it closes round {number}, and round {self._rounds} is the next")
        end = fields.whole("end_ns", 0, LATEST_NS)
        if not self._end_ns <= start <= end:
            raise NotUnderstood(f"round {number} is from {start} to {end} ns, and the one before "
                                f"ends at {self._end_ns} ns")  # fmt: skip
        self._rounds, self._end_ns = number + 1, end
        cpu, pages = fields.whole("agent_cpu_ns", default=0), fields.whole("pages", default=None)
        return Round(number, start, end, cpu, pages)

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
            raise NotUnderstood(f"its header's created is {created[:40]!r}, no time") from error
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
    fields.object("job", {}).number("period_s", 0, 1e9, 1.0)
