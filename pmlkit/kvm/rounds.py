# SPDX-License-Identifier: Apache-2.0
"""The VMM's requests to KVM: its memory slots, and the re-arms that end rounds.

A logged page is logged again only after a re-arm. The VMM re-arms with

- ``KVM_RESET_DIRTY_RINGS``: all pages that it has taken from the rings;
- ``KVM_CLEAR_DIRTY_LOG``: a range of a slot's bitmap;
- ``KVM_GET_DIRTY_LOG``: a slot, unless the VMM clears with ``KVM_CLEAR_DIRTY_LOG`` as QEMU does.

The calls for all slots and pieces of slots form one re-arm. A guest that runs meanwhile writes
pages as soon as they are re-armed, and the rest of the re-arm may take long. A round therefore
ends, and the next begins, where the re-arm *starts*: the VMM takes all later entries at the next
re-arm. ``KVM_GET_DIRTY_LOG`` alone first takes what KVM still has, and then re-arms. There, the
boundary is the end of the last of these calls.

The time between the start of logging and the first re-arm is not a round: in that time, a first
*read* of a page that KVM maps writable also counts.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pmlkit.errors import PmlkitError
from pmlkit.ftrace import events, format_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pmlkit.ftrace import Layout
    from pmlkit.types import Json


__all__ = ["ARGUMENTS", "CALLS_OF_INTEREST", "Call", "Calls", "Round", "Rounds", "Slot"]

GET, CLEAR, RESET = 0x4010AE42, 0xC018AEC0, 0xAEC7
REGION, REGION_2 = 0x4020AE46, 0x40A0AE49
CALLS_OF_INTEREST = (GET, CLEAR, RESET, REGION, REGION_2)
# The fields that are fetched from the call's structure: names, offsets, sizes.
ARGUMENTS = (("a", 0, 4), ("b", 4, 4), ("c", 8, 8), ("d", 16, 8), ("e", 24, 8))
LOGGED, READONLY = 1, 2  # flags of a slot
_GAP_NS = 50_000_000  # longest time between two bitmaps that are taken at once
_PAGE = 4096


@dataclass(frozen=True)
class Call:
    """A returned call of KVM's ioctl.

    Attributes
    ----------
    start_ns, end_ns : int
    number : int
        The request.
    values : tuple of int
        The first fields of its structure, see `ARGUMENTS`.
    """

    start_ns: int
    end_ns: int
    number: int
    values: tuple[int, ...] = (0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Slot:
    """A piece of the guest's memory: first frame, pages, the VMM's address, flags."""

    gfn: int
    pages: int
    address: int
    flags: int

    def as_dict(self) -> Json:
        """Return the fields, for JSON."""
        return {"gfn": self.gfn, "pages": self.pages, "address": self.address, "flags": self.flags}


class Calls:
    """Pairs calls and their returns, which come from the buffers of several CPUs.

    Parameters
    ----------
    formats : dict of str to str
        The formats of the events "call" and "done".
    """

    def __init__(self, formats: dict[str, str], layout: Layout) -> None:
        call, done = format_of(formats["call"]), format_of(formats["done"])
        if call is None or done is None:
            what = "the kernel describes its kprobe events in an unknown form"
            raise PmlkitError(
                what, "report the format file of one event, and use --mode soft-dirty"
            )
        self._call, self._done, self._layout = call, done, layout
        self._events: list[tuple[int, int, tuple[int, ...] | None]] = []
        self._open: dict[int, tuple[int, tuple[int, ...]]] = {}

    def add(self, page: bytes) -> None:
        """Add a page of the calls' buffer."""
        number = struct.Struct(f"{self._layout.order}HBBi")
        for time_ns, data in events(page, self._layout):
            kind, _, _, thread = number.unpack_from(data)
            if kind == self._call.number:
                self._events.append((time_ns, thread, self._values(data)))
            elif kind == self._done.number:
                self._events.append((time_ns, thread, None))

    def _values(self, data: bytes) -> tuple[int, ...]:
        names = ("nr", *(name for name, _, _ in ARGUMENTS))
        places = [self._call.fields.get(name, (0, 0)) for name in names]
        return tuple(self._layout.number(data[at : at + size]) for at, size in places)

    def until(self, horizon_ns: int) -> Iterator[Call]:
        """Yield the calls that had returned by a time; all events before it were added."""
        self._events.sort(key=lambda event: event[0])
        ready = 0
        while ready < len(self._events) and self._events[ready][0] < horizon_ns:
            ready += 1
        now, self._events = self._events[:ready], self._events[ready:]
        for time_ns, thread, values in now:
            if values is not None:
                self._open[thread] = time_ns, values
            elif thread in self._open:
                start_ns, (number, *rest) = self._open.pop(thread)
                yield Call(start_ns, time_ns, number, tuple(rest))


@dataclass(frozen=True)
class Round:
    """A round: from one re-arm to the next, or to the end of logging."""

    start_ns: int
    end_ns: int


@dataclass
class _Bitmaps:
    """Bitmaps that are taken in a row, each of another slot."""

    end_ns: int
    slots: set[int] = field(default_factory=set)


class Rounds:
    """Divides the VMM's calls into rounds.

    Attributes
    ----------
    slots : dict of int to Slot
        As far as the VMM has set them.
    armed_ns : int or None
        Start of the present round; None before the first re-arm.
    logging : bool or None
        Whether slots are logged; None if unknown.
    by_hand, rings : bool
        Whether the VMM re-arms with KVM_CLEAR_DIRTY_LOG; with KVM_RESET_DIRTY_RINGS.
    messages : list of str
        Changes; the caller removes them.
    """

    def __init__(self) -> None:
        self.slots: dict[int, Slot] = {}
        self.armed_ns: int | None = None
        self.logging: bool | None = None
        self.by_hand = self.rings = False
        self.rearms = 0
        self.messages: list[str] = []
        self._taken: _Bitmaps | None = None
        # Cleared slots and pages since a bitmap was taken.
        self._cleared: set[tuple[int, int]] = set()
        self._synced_ns: int | None = None  # a bitmap was taken since the last re-arm

    def add(self, calls: Iterable[Call], horizon_ns: int) -> Iterator[Round]:
        """Yield the rounds that calls end; all calls before `horizon_ns` are known."""
        for call in calls:
            if call.number in (REGION, REGION_2):
                yield from self._region(call)
            elif call.number in (GET, CLEAR, RESET):
                yield from self._rearm(call)
        if self._taken is not None and horizon_ns - self._taken.end_ns > _GAP_NS:
            yield from self._close()

    def finish(self) -> Iterator[Round]:
        """Yield the round that the last calls end."""
        yield from self._close()

    def _rearm(self, call: Call) -> Iterator[Round]:
        if call.number == GET:
            yield from self._get(call)
        elif call.number == CLEAR:
            yield from self._clear(call)
        else:
            self.rings = True
            yield from self._close()
            yield from self._cut(call.start_ns)

    def _get(self, call: Call) -> Iterator[Round]:
        taken, slot = self._taken, call.values[0]
        if taken and (slot in taken.slots or call.start_ns - taken.end_ns > _GAP_NS):
            yield from self._close()
            taken = None
        if taken is None:
            taken = self._taken = _Bitmaps(call.end_ns)
        taken.end_ns = call.end_ns
        taken.slots.add(slot)
        self._cleared.clear()

    def _clear(self, call: Call) -> Iterator[Round]:
        place = call.values[0], call.values[2]
        if not self.by_hand:
            self.by_hand, self.armed_ns = True, None  # bitmaps taken before have not re-armed
        yield from self._close()
        if not self._cleared or place in self._cleared:
            self._cleared.clear()
            yield from self._cut(call.start_ns)
        self._cleared.add(place)

    def _close(self) -> Iterator[Round]:
        """Close the group of bitmaps: no later one belongs to it."""
        taken, self._taken = self._taken, None
        if taken is None:
            return
        if self.by_hand:
            self._synced_ns = taken.end_ns
        else:
            yield from self._cut(taken.end_ns)

    def _cut(self, at_ns: int) -> Iterator[Round]:
        """End the round, and begin the next."""
        self.rearms += 1
        if self.armed_ns is not None:
            yield Round(self.armed_ns, at_ns)
        self.armed_ns, self._synced_ns = at_ns, None

    def _region(self, call: Call) -> Iterator[Round]:
        self._set(call)
        logging = any(slot.flags & LOGGED for slot in self.slots.values())
        if logging and not self.logging:
            self._taken = self.armed_ns = self._synced_ns = None  # there was no re-arm yet
            self._cleared.clear()
        elif not logging and self.logging is not False:
            yield from self._close()
            # The log after the last re-arm is a round if a bitmap was taken at its end.
            if self.armed_ns is not None and self._synced_ns is not None:
                yield Round(self.armed_ns, self._synced_ns)
            self.armed_ns = self._synced_ns = None
        self.logging = logging

    def _set(self, call: Call) -> None:
        number, flags, address, size, exists = call.values
        known = number in self.slots
        if size:
            self.slots[number] = Slot(address // _PAGE, size // _PAGE, exists, flags)
        else:
            self.slots.pop(number, None)
        if self.armed_ns is None:  # logging is being switched on, slot by slot
            return
        if size and not known:
            self.messages.append(f"memory was added: slot {number}, {size >> 10} KiB")
        elif not size and known:
            self.messages.append(f"memory was removed: slot {number}")
