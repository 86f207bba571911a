# SPDX-License-Identifier: Apache-2.0
"""KVM's dirty pages as text of ftrace, trace-cmd report or perf script.

``kvm_dirty_ring_push`` (``include/trace/events/kvm.h``) names the ring, which is the vCPU, and the
page by slot and offset. A kprobe on ``mark_page_dirty_in_slot`` that prints its third argument as
``gfn`` names the page itself, with bitmaps, too. Other lines are skipped; a line of one of these
events that cannot be parsed is refused with its number.
"""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING

from pmlkit.files import open_regular
from pmlkit.interop.formats import ForeignFileError
from pmlkit.interop.kvm_log import DirtyLog, frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmlkit.types import PathLike


__all__ = ["lines", "lost_of", "read"]

LINE_LIMIT = 1 << 16
# Each run of digits is limited, so that a line of digits costs no more than its length.
_TIME = rb"(?<![\d.])(\d{1,11})\.(\d{1,9}): +"
_PUSH = re.compile(
    _TIME + rb"(?:kvm:)?kvm_dirty_ring_push: +ring (\d{1,9}): .{0,99}?"
    rb"\bslot (\d{1,10}) offset 0x([0-9a-f]{1,16})\b"
)
_RESET = re.compile(_TIME + rb"(?:kvm:)?kvm_dirty_ring_reset: +ring (\d{1,9}):")
_MARK = re.compile(_TIME + rb"(?:kvm:)?kvm_(?:exit|entry|page_fault|pml_full): ")
_PROBE = re.compile(
    _TIME + rb"(?:\w{1,64}:)?\w{1,64}: .{0,400}?\bgfn=(?:0x([0-9a-f]{1,16})|(\d{1,19}))\b"
)
_THREAD = re.compile(rb"[-\s](\d{1,10})(?:/(\d{1,10}))?\s+(?:\([\s\d-]{1,12}\)\s+)?\[\d{1,5}\]")
_VCPU = re.compile(rb"\bCPU (\d{1,5})/(?:KVM|TCG)\b")
# ftrace and trace-cmd report, of a CPU's buffer. Without a number, the count is unknown.
_LOST = re.compile(rb"\s*CPU:\d{1,5} \[(?:LOST )?(?:(\d{1,30}) )?EVENTS(?: DROPPED)?\]")
_PERF_LOST = re.compile(rb"\bPERF_RECORD_LOST(?:_SAMPLES)?:? +lost +(\d{1,30})")
_HEADER = re.compile(rb"# entries-in-buffer/entries-written: (\d{1,30})/(\d{1,30})\b")
_RELEASE = re.compile(rb"# os release : (\S{1,99})")
_CLUES = (b"kvm_", b"mark_page_dirty_in_slot", b"gfn=", b"EVENTS", b"PERF_RECORD_LOST", b"# ")


def lines(path: PathLike) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file, with their numbers from 1.

    Raises
    ------
    ForeignFileError
        If one is too long for a line of any tracer.
    """
    with open_regular(path) as file:
        number = 0
        while line := file.readline(LINE_LIMIT):
            number += 1
            if len(line) == LINE_LIMIT and not line.endswith(b"\n"):
                why = f"is longer than {LINE_LIMIT:,} bytes"
                raise ForeignFileError(path, f"line {number}", why)
            yield number, line


def read(path: PathLike) -> DirtyLog:
    """Read the events of a text.

    Raises
    ------
    ForeignFileError
        Naming the line that cannot be parsed.
    """
    log, threads = DirtyLog(path), _Threads()
    for number, line in lines(path):
        if b"kvm_dirty_ring_push:" in line:
            _add_push(log, f"line {number}", line)
        elif any(clue in line for clue in _CLUES):
            _add_other(log, threads, f"line {number}", line)
    if log.absolute:
        log.renumber(threads.vcpus())
    return log


def _add_push(log: DirtyLog, where: str, line: bytes) -> None:
    push = _PUSH.search(line)
    if push is None:
        _refuse(log, where, "kvm_dirty_ring_push")
        return
    place = frame(int(push[4]), int(push[5], 16))
    log.add_page(where, _time_ns(push), _thread(line), int(push[3]), place, absolute=False)


def _add_other(log: DirtyLog, threads: _Threads, where: str, line: bytes) -> None:
    if b"kvm_dirty_ring_reset:" in line:
        if reset := _RESET.search(line):
            log.add_reset(where, _time_ns(reset), _thread(line), int(reset[3]))
        else:
            _refuse(log, where, "kvm_dirty_ring_reset")
    elif b"mark_page_dirty_in_slot" in line and not line.startswith(b"#"):
        if probe := _PROBE.search(line):
            gfn = int(probe[3], 16) if probe[3] else int(probe[4])
            vcpu = threads.index(line)
            place = gfn if gfn < 1 << 52 else None
            log.add_page(where, _time_ns(probe), _thread(line), vcpu, place, absolute=True)
        else:
            hint = "trace it as 'p:dirty mark_page_dirty_in_slot gfn=%dx' (x86-64)"
            raise ForeignFileError(log.path, where, "has no gfn= of mark_page_dirty_in_slot", hint)
    elif mark := _MARK.search(line):
        log.add_mark(where, _time_ns(mark), _thread(line))
    else:
        _add_loss(log, where, line)


def lost_of(line: bytes) -> int | None:
    """Return how many events a line reports as lost; -1 for an unknown number, else None."""
    if lost := _LOST.match(line) or _PERF_LOST.search(line):
        return int(lost[1]) if lost[1] else -1
    header = _HEADER.match(line)
    return max(0, int(header[2]) - int(header[1])) if header else None


def _add_loss(log: DirtyLog, where: str, line: bytes) -> None:
    lost = lost_of(line)
    if lost is not None:
        log.add_loss(where, lost if lost >= 0 else None)
    elif release := _RELEASE.match(line):
        log.set_release(release[1].decode("ascii", "replace"))


def _refuse(log: DirtyLog, where: str, event: str) -> None:
    hint = "check that the line is whole; times have to be in seconds (trace_clock local or mono)"
    raise ForeignFileError(log.path, where, f"is no {event} as ftrace prints it", hint)


def _time_ns(match: re.Match[bytes]) -> int:
    return int(match[1]) * 10**9 + int(match[2].ljust(9, b"0"))


def _thread(line: bytes) -> int | None:
    """Return the number of the thread, which stands before the CPU in brackets."""
    match = _THREAD.search(line[:200])
    return int(match[2] or match[1]) if match else None


class _Threads:
    """Threads of kprobes: those with QEMU's names have a vCPU, others are numbered after these."""

    def __init__(self) -> None:
        self._order: dict[bytes | int | None, int] = {}

    def index(self, line: bytes) -> int:
        """Return the thread's place in the order of their first lines."""
        vcpu = _VCPU.search(line[:200])
        return self._order.setdefault(vcpu[1] if vcpu else _thread(line), len(self._order))

    def vcpus(self) -> list[int]:
        """Return the vCPU of each thread, in that order."""
        named = [int(thread) for thread in self._order if isinstance(thread, bytes)]
        others = count(max(named, default=-1) + 1)
        return [int(t) if isinstance(t, bytes) else next(others) for t in self._order]
