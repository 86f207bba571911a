# SPDX-License-Identifier: Apache-2.0
"""The messages that the recorder's plugin sends: the twin of the structs in recorder_plugin.c."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import NotUnderstood
from pmlkit.stream_json import loads

if TYPE_CHECKING:
    from typing import Any


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
    """What a message is."""

    HELLO = 1
    ACCESS = 2
    PML = 3
    ROUND_END = 4
    MARK = 5
    TOTALS = 6
    DISK = 7
    HOST = 64  # from recorder.py itself: what the recording cost, as JSON


class Marker(IntEnum):
    """What the guest says by a marker instruction."""

    ARM = 1
    PHASE = 2
    SAMPLE = 3
    END = 4


REASONS = ("full", "round", "stop")
KIND_BITS = 3  # an access is ``gfn << 3 | kind``


@dataclass(frozen=True)
class Span:
    """A drained buffer: what was noted between two moments, in the order in which it happened.

    Attributes
    ----------
    values : ndarray of uint32, shape (n,)
        Frame numbers for the PML's buffer; for accesses `frames` and `kinds` in one.
    """

    round: int
    reason: str
    insn_start: int
    t_start_ns: int
    insn_end: int
    t_end_ns: int
    values: np.ndarray

    @property
    def frames(self) -> np.ndarray:
        """Frame numbers of accesses."""
        return self.values >> KIND_BITS

    @property
    def kinds(self) -> np.ndarray:
        """What each access was (`pmlkit.kinds.Kind`, uint8)."""
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
    """Counts over the whole recording, the last message of one that ended in order.

    Attributes
    ----------
    slow : int
        Accesses for which QEMU was asked for the frame.
    io, outside, unknown : int
        Accesses to devices, to memory that is not the guest's RAM, and those that QEMU could not
        translate.
    crossing : int
        Accesses that crossed a page boundary.
    flushes : int
        Instructions that may change the address mapping.
    wrong : int
        Accesses that the short cut would have missed (counted with check=on only): 0.
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
    """Parts of disk requests, each in one frame, in the order in which the disk got them.

    Attributes
    ----------
    parts : structured ndarray of insn, t_ns, sector, gfn, sectors, write (0 or 1)
    """

    parts: np.ndarray


def split(buffer: bytearray) -> list[tuple[int, bytes]]:
    """Cut whole messages off the front of a buffer.

    Parameters
    ----------
    buffer : bytearray
        What came through the pipe; the whole messages are removed from it.

    Returns
    -------
    list of (int, bytes)
        Type and payload of each.
    """
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


def decode(kind: int | Message, payload: bytes) -> Any:
    """Make a `Span`, `RoundEnd`, `Mark`, `Totals`, `Requests` or dict (HOST); None of a HELLO.

    Raises
    ------
    NotUnderstood
        If it is none of them.
    """
    try:
        return _decode(kind, payload)
    except (struct.error, ValueError, LookupError) as error:
        raise NotUnderstood(f"a message of type {int(kind)}: {error}") from error


def _decode(kind: int | Message, payload: bytes) -> Any:
    kind = Message(kind)
    if kind in (Message.ACCESS, Message.PML):
        round_, reason, *times = _SPAN.unpack_from(payload)
        values = np.frombuffer(payload, dtype="<u4", offset=_SPAN.size)
        return Span(round_, REASONS[reason], *times, values)  # type: ignore[call-arg]
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
