# SPDX-License-Identifier: Apache-2.0
"""KVM's log of dirty pages: its rings in memory, and tracers' events of them.

A ring's entry is ``struct kvm_dirty_gfn { u32 flags; u32 slot; u64 offset }`` (Linux,
``include/uapi/linux/kvm.h``). Bit 0 of the flags is dirty, bit 1 reset. The low 16 bits of the slot
are its number, the others the address space. The offset counts pages within the slot. The
tracepoint ``kvm_dirty_ring_push`` has the same fields with the time. Its source is trace-cmd's
``trace.dat`` (`tracedat`), or text of ftrace, trace-cmd report or perf script. None of them
contains the position of a slot in the guest's memory. A trace therefore places the pages of slot N
from frame ``N << 32`` on, and those of slot 0 from 0.

In text, a kprobe on ``mark_page_dirty_in_slot`` that prints its third argument as ``gfn`` gives the
frame itself, also with bitmaps. Other lines are skipped; a line of one of these events that cannot
be parsed is refused with its number.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.files import open_regular
from pmlkit.interop import tracedat
from pmlkit.interop.kvm_log import (
    OFFSET_LIMIT,
    SLOT_LIMIT,
    SLOT_SHIFT,
    SLOTS,
    DirtyLog,
    frame,
    imported,
)
from pmlkit.interop.reading import ForeignFileError, lines, lost_of
from pmlkit.interop.rounds import Imported
from pmlkit.trace.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pmlkit.interop.rounds import Chunk
    from pmlkit.types import PathLike


ENTRY = np.dtype([("flags", "<u4"), ("slot", "<u4"), ("offset", "<u8")])
_CHUNK = 1 << 18  # entries that are read at once
_MAGICS = {
    b"PERFILE2": (
        "is perf's own data",
        "import the output of `perf script --show-lost-events`",
    ),
}


def load(path: Path, window: int | None = None, kernel: str | None = None) -> Imported:
    """Read a dirty ring: binary, a tracer's text, or trace-cmd's file.

    Parameters
    ----------
    window : int, optional
        Length of a round, ns; default: a reset of the rings ends a round.
    kernel : str, optional
        Release of the traced kernel, which determines the order within a drain.
    """
    with open_regular(path) as file:
        head = file.read(4096)
    for magic, (why, hint) in _MAGICS.items():
        if head.startswith(magic):
            raise ForeignFileError(path, "", why, hint)
    if head.startswith(tracedat.MAGIC):
        return imported(tracedat.read(path), window, kernel)
    if b"\0" in head:
        notes = (SLOTS, "the times and the order of the guest's writes are not known")
        return Imported(_binary(path), "pml", notes, complete=None)
    log = _read_text(path)
    if not len(log) and not log.counts_losses:
        why = "contains neither struct kvm_dirty_gfn nor kvm_dirty_ring_push"
        raise ForeignFileError(path, "", why)
    return imported(log, window, kernel)


def _binary(path: Path) -> Iterator[Chunk]:
    with open_regular(path) as file:
        at = 0
        while data := file.read(_CHUNK * ENTRY.itemsize):
            if left := len(data) % ENTRY.itemsize:
                why = f"is cut off in the middle of an entry ({ENTRY.itemsize} bytes each)"
                raise ForeignFileError(path, f"byte {at + len(data) - left}", why)
            entries = np.frombuffer(data, ENTRY)
            slots, offsets = entries["slot"], entries["offset"]
            wrong = (entries["flags"] > 3) | (slots >= SLOT_LIMIT) | (offsets >= OFFSET_LIMIT)
            if wrong.any():
                why = "is not a struct kvm_dirty_gfn (unknown flags or slot, or beyond 2^31 pages)"
                number = at // ENTRY.itemsize + int(wrong.argmax())
                raise ForeignFileError(path, f"entry {number}", why)
            dirty = entries["flags"] != 0  # 0: not used yet
            gfn = (slots[dirty].astype(np.uint64) << np.uint64(SLOT_SHIFT)) + offsets[dirty]
            if len(gfn):
                yield 0, 1, 0, gfn, int(Kind.UNKNOWN)
            at += len(data)


# ------------------------------------------------------------------------------
# Text of tracers


# Each run of digits is limited: matching a line of digits takes time linear in its length.
_TIME = rb"(?<![\d.])(\d{1,11})\.(\d{1,9}): +"
_PUSH = re.compile(
    _TIME + rb"(?:kvm:)?kvm_dirty_ring_push: +ring (\d{1,9}): .{0,99}?"
    rb"\bslot (\d{1,10}) offset 0x([0-9a-f]{1,16})\b"
)
_RESET = re.compile(_TIME + rb"(?:kvm:)?kvm_dirty_ring_reset: +ring (\d{1,9}):")
_MARK = re.compile(
    _TIME + rb"(?:kvm:)?kvm_(?:(?:exit|page_fault|pml_full): |entry: (?: *vcpu (\d{1,9})\b)?)"
)
_LOST_ON = re.compile(rb"CPU:(\d{1,5}) ")
_PROBE = re.compile(
    _TIME + rb"(?:\w{1,64}:)?\w{1,64}: .{0,400}?\bgfn=(?:0x([0-9a-f]{1,16})|(\d{1,19}))\b"
)
_THREAD = re.compile(rb"[-\s](\d{1,10})(?:/(\d{1,10}))?\s+(?:\([\s\d-]{1,12}\)\s+)?\[(\d{1,5})\]")
_VCPU = re.compile(rb"\bCPU (\d{1,5})/(?:KVM|TCG)\b")
_RELEASE = re.compile(rb"# os release : (\S{1,99})")
_CLUES = (b"kvm_", b"mark_page_dirty_in_slot", b"gfn=", b"EVENTS", b"PERF_RECORD_LOST", b"# ")


def _read_text(path: PathLike) -> DirtyLog:
    """Read the events of a text.

    Raises
    ------
    ForeignFileError
        Naming the line that cannot be parsed.
    """
    log = DirtyLog(path)
    for number, line in lines(path):
        if b"kvm_dirty_ring_push:" in line:
            _add_push(log, f"line {number}", line)
        elif any(clue in line for clue in _CLUES):
            _add_other(log, f"line {number}", line)
    return log


def _add_push(log: DirtyLog, where: str, line: bytes) -> None:
    push = _PUSH.search(line)
    if push is None:
        _refuse(log, where, "kvm_dirty_ring_push")
        return
    place = frame(int(push[4]), int(push[5], 16))
    time_ns = _time_ns(push)
    thread = _thread(line, log, time_ns)
    log.add_page(where, time_ns, thread, int(push[3]), place, absolute=False)


def _add_other(log: DirtyLog, where: str, line: bytes) -> None:
    if b"kvm_dirty_ring_reset:" in line:
        if reset := _RESET.search(line):
            log.add_reset(where, _time_ns(reset), _thread(line), int(reset[3]))
        else:
            _refuse(log, where, "kvm_dirty_ring_reset")
    elif b"mark_page_dirty_in_slot" in line and not line.startswith(b"#"):
        if probe := _PROBE.search(line):
            gfn = int(probe[3], 16) if probe[3] else int(probe[4])
            time_ns, vcpu = _time_ns(probe), _VCPU.search(line[:200])
            thread = _thread(line, log, time_ns)
            if vcpu:
                log.set_name(where, thread, int(vcpu[1]))
            place = gfn if gfn < 1 << 52 else None
            log.add_page(where, time_ns, thread, 0, place, absolute=True)
        else:
            hint = "trace it as 'p:dirty mark_page_dirty_in_slot gfn=%dx' (x86-64)"
            raise ForeignFileError(log.path, where, "has no gfn= of mark_page_dirty_in_slot", hint)
    elif mark := _MARK.search(line):
        entered = int(mark[3]) if mark[3] else None
        log.add_mark(where, _time_ns(mark), _thread(line), entered)
    else:
        _add_loss(log, where, line)


def _add_loss(log: DirtyLog, where: str, line: bytes) -> None:
    lost = lost_of(line)
    if lost is not None:
        cpu = _LOST_ON.match(line)
        after_ns = log.last_ns.get(int(cpu[1]), 0) if cpu else 0
        log.add_loss(where, lost if lost >= 0 else None, after_ns)
    elif release := _RELEASE.match(line):
        log.set_release(release[1].decode("ascii", "replace"))


def _refuse(log: DirtyLog, where: str, event: str) -> None:
    hint = "check that the line is complete; times must be in seconds (trace_clock local or mono)"
    raise ForeignFileError(log.path, where, f"is not {event} as ftrace prints it", hint)


def _time_ns(match: re.Match[bytes]) -> int:
    return int(match[1]) * 10**9 + int(match[2].ljust(9, b"0"))


def _thread(line: bytes, log: DirtyLog | None = None, time_ns: int = 0) -> int | None:
    """Return the number of the thread, which is printed before the CPU in brackets.

    A `log` gets the time of this page on its CPU.
    """
    match = _THREAD.search(line[:200])
    if match and log is not None:
        log.last_ns[int(match[3])] = time_ns
    return int(match[2] or match[1]) if match else None
