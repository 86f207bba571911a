# SPDX-License-Identifier: Apache-2.0
"""Messages of the recorder's plugin; the formats are those of the structs in recorder_plugin.c."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.costs import NS_PER_INSN
from pmlkit.errors import NotUnderstood
from pmlkit.foreign import LATEST_NS, MOST, Fields, loads
from pmlkit.trace.kinds import ACCESS_KINDS
from pmlkit.trace.schema import PAGE_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pmlkit.types import Array, Json

__all__ = ["RecorderStream", "check_header"]


HEAD = struct.Struct("<II")
_SPAN = struct.Struct("<IIQqQq")
_ROUND = struct.Struct("<IIQqQqQQ")
_MARK = struct.Struct("<IIQq")
_TOTALS = struct.Struct("<7Q")
_DISK = np.dtype(
    [
        ("insn", "<u8"),
        ("t_ns", "<i8"),
        ("sector", "<u8"),
        ("gfn", "<u4"),
        ("sectors", "<u2"),
        ("write", "<u2"),
    ]
)


class Message(IntEnum):
    """The type of a message."""

    HELLO = 1
    ACCESS = 2
    PML = 3
    ROUND_END = 4
    MARK = 5
    TOTALS = 6
    DISK = 7
    HOST = 64  # from `Recording` itself: the cost of the recording, as JSON


class Marker(IntEnum):
    """The argument of the guest's marker instruction."""

    ARM = 1
    PHASE = 2
    SAMPLE = 3
    END = 4


REASONS = ("full", "round", "stop")
KIND_BITS = 3  # an access is ``gfn << 3 | kind``


@dataclass(frozen=True)
class Span:
    """A drained buffer: the entries between two moments, in order.

    Attributes
    ----------
    values : ndarray of uint32, shape (n,)
        Frame numbers for the PML's buffer; `frames` and `kinds` combined for accesses.
    """

    round: int
    reason: str
    insn_start: int
    t_start_ns: int
    insn_end: int
    t_end_ns: int
    values: NDArray[np.uint32]

    @property
    def frames(self) -> Array:
        """Frame numbers of accesses."""
        return self.values >> KIND_BITS

    @property
    def kinds(self) -> NDArray[np.uint8]:
        """The kind of each access (`pmlkit.trace.kinds.Kind`, uint8)."""
        return (self.values & ((1 << KIND_BITS) - 1)).astype(np.uint8)


@dataclass(frozen=True)
class RoundEnd:
    """The end of a round; its pages are re-armed. `accessed` and `dirty` count its pages."""

    round: int
    full_exits: int
    insn_start: int
    t_start_ns: int
    insn_end: int
    t_end_ns: int
    accessed: int
    dirty: int


@dataclass(frozen=True)
class Mark:
    """The guest executed a marker."""

    round: int
    marker: Marker
    insn: int
    t_ns: int


@dataclass(frozen=True)
class Totals:
    """Counts over the whole recording: the last message of a recording that ended regularly.

    Attributes
    ----------
    slow : int
        Accesses whose frame QEMU had to look up.
    io, outside, unknown : int
        Accesses to devices, to memory that is not the guest's RAM, and those that QEMU could not
        translate.
    crossing : int
        Accesses that crossed a page boundary.
    flushes : int
        Instructions that may change the address mapping.
    wrong : int
        Accesses that the fast path would have missed (only counted with check=on): 0.
    """

    slow: int
    io: int
    outside: int
    crossing: int
    unknown: int
    flushes: int
    wrong: int


@dataclass(frozen=True)
class Requests:
    """Parts of disk requests, each in one frame, in the order in which the disk received them.

    `parts` is a structured array: insn, t_ns, sector, gfn, sectors, write (0 or 1).
    """

    parts: Array


if TYPE_CHECKING:
    # The message HOST decodes to a dict, HELLO to None.
    Decoded = Span | RoundEnd | Mark | Totals | Requests | Json | None


def split(buffer: bytearray) -> list[tuple[int, bytes]]:
    """Remove the complete messages from the front of a buffer; return their (type, payload)."""
    messages, at = [], 0
    while at + HEAD.size <= len(buffer):
        kind, length = HEAD.unpack_from(buffer, at)
        end = at + HEAD.size + length
        if end > len(buffer):
            break
        messages.append((kind, bytes(buffer[at + HEAD.size : end])))
        at = end
    del buffer[:at]
    return messages


def decode(kind: int | Message, payload: bytes) -> Decoded:
    """Decode to a `Span`, `RoundEnd`, `Mark`, `Totals`, `Requests`, dict (HOST) or None (HELLO).

    Raises
    ------
    NotUnderstood
        If the message is malformed.
    """
    try:
        return _decode(kind, payload)
    except (struct.error, ValueError, LookupError) as error:
        raise NotUnderstood(f"a message of type {int(kind)}: {error}") from error


def _decode(kind: int | Message, payload: bytes) -> Decoded:
    kind = Message(kind)
    if kind in (Message.ACCESS, Message.PML):
        round_, reason, insn_start, t_start_ns, insn_end, t_end_ns = _SPAN.unpack_from(payload)
        values = np.frombuffer(payload, dtype="<u4", offset=_SPAN.size)
        return Span(round_, REASONS[reason], insn_start, t_start_ns, insn_end, t_end_ns, values)
    if kind == Message.ROUND_END:
        return RoundEnd(*_ROUND.unpack(payload))
    if kind == Message.MARK:
        round_, marker, insn, t_ns = _MARK.unpack(payload)
        return Mark(round_, Marker(marker), insn, t_ns)
    if kind == Message.TOTALS:
        return Totals(*_TOTALS.unpack(payload))
    if kind == Message.DISK:
        return Requests(np.frombuffer(payload, dtype=_DISK))
    if kind == Message.HOST:
        return loads(payload)
    return None


# ------------------------------------------------------------------------------
# Checks of the messages against one another, both live and at conversion to a trace.


_IS_ACCESS_KIND = np.isin(np.arange(256), ACCESS_KINDS)  # looked up by kind for each access
_MAX_MEMORY_BYTES = 1 << 41  # frames have 29 bits in a message


class RecorderStream:
    """Decode the messages of a recording in order, and check that they are consistent.

    Raises
    ------
    NotUnderstood
        From the constructor, if the spool's header is malformed. Raised by `take` if a message is
        malformed: do not call it after that.
    """

    def __init__(self, header: Json) -> None:
        memory = Fields(header, "its header's ").whole("memory_bytes", PAGE_SIZE, _MAX_MEMORY_BYTES)
        if memory % PAGE_SIZE:
            raise NotUnderstood(
                f"its header's memory_bytes is {memory}, not a whole number of pages"
            )
        self.rounds, self._end, self._last_mark_ns = 0, (0, 0), 0
        # The last round of each log's spans, by message type.
        self._last_round: dict[int, int] = {}

    def take(self, kind: int, payload: bytes) -> Decoded:
        """Return the message, decoded (`pmlkit.sources.recorder.messages.decode`)."""
        message = decode(kind, payload)
        if isinstance(message, Span):
            self._check_round(message.round, self._last_round.get(kind, 0))
            self._last_round[kind] = message.round
            _check_span(message)
            if kind == Message.ACCESS and not _IS_ACCESS_KIND.take(message.kinds).all():
                raise NotUnderstood("an access that neither reads, nor writes, nor executes")
        elif isinstance(message, RoundEnd):
            self._close(message)
        elif isinstance(message, Mark):
            self._check_round(message.round, 0)
            if not self._last_mark_ns <= message.t_ns <= LATEST_NS or message.insn > LATEST_NS:
                raise NotUnderstood(f"a mark at {message.t_ns} ns, after {self._last_mark_ns} ns")
            self._last_mark_ns = message.t_ns
        return message

    def _check_round(self, number: int, first: int) -> None:
        if not first <= number <= self.rounds:
            raise NotUnderstood(f"it is of round {number}, and {self.rounds} were closed")

    def _close(self, end: RoundEnd) -> None:
        self._check_round(end.round, self.rounds)
        _check_span(end)
        if max(end.full_exits, end.accessed, end.dirty) > MOST:
            raise NotUnderstood("a round with more pages than the memory has")
        start = (end.insn_start, end.t_start_ns)
        if start != self._end and self.rounds:
            raise NotUnderstood(f"round {end.round} begins at {start[1]} ns, and the previous "
                                f"one ends at {self._end[1]} ns")  # fmt: skip
        self._end = (end.insn_end, end.t_end_ns)
        self.rounds += 1


def _check_span(span: Span | RoundEnd) -> None:
    times, instructions = (span.t_start_ns, span.t_end_ns), (span.insn_start, span.insn_end)
    for first, last in (times, instructions):
        if not 0 <= first <= last <= LATEST_NS:
            raise NotUnderstood(f"it goes from {first} to {last}")


def check_header(header: Json) -> None:
    """Check the header's fields that a trace needs; `RecorderStream` checks the memory's size."""
    fields = Fields(header, "its header's ")
    if not {"ns_per_insn", "period"} <= fields.values.keys():
        raise NotUnderstood("its header lacks the clock, or the period")
    fields.choice("source", ("recorder",))
    for name in ("created", "workload", "command", "cmdline"):
        fields.text(name, longest=1 << 16)
    period = fields.object("period")
    if not {"ns", "insn"} <= period.values.keys():
        raise NotUnderstood("its header's period lacks ns or insn")
    for name in ("ns", "insn"):
        period.whole(name, 1, LATEST_NS, None)
    fields.number("ns_per_insn", *NS_PER_INSN, None)
    for name in ("options", "parameters", "versions", "host"):
        fields.object(name)
