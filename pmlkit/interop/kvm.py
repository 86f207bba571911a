# SPDX-License-Identifier: Apache-2.0
"""KVM's log of dirty pages: its rings in memory, and tracers' events of them.

A ring's entry is ``struct kvm_dirty_gfn { u32 flags; u32 slot; u64 offset }`` (Linux,
``include/uapi/linux/kvm.h``): bit 0 of the flags is dirty, bit 1 reset; the low 16 bits of the slot
are its number, the others the address space; the offset counts pages within the slot. The
tracepoint ``kvm_dirty_ring_push`` says the same with the time, as text (`kvm_text`) or in
trace-cmd's ``trace.dat`` (`tracedat`). A slot's place in the guest's memory is in neither: a trace
has the pages of slot N from frame ``N << 32`` on, slot 0 from 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.files import open_regular
from pmlkit.interop import kvm_text, tracedat
from pmlkit.interop.formats import ForeignFileError, Imported
from pmlkit.interop.kvm_log import OFFSET_LIMIT, SLOT_LIMIT, SLOT_SHIFT, SLOTS, imported
from pmlkit.trace.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pmlkit.interop.rounds import Chunk

ENTRY = np.dtype([("flags", "<u4"), ("slot", "<u4"), ("offset", "<u8")])
_CHUNK = 1 << 18  # entries that are read at a time
_MAGICS = {
    b"PERFILE2": (
        "is perf's own data",
        "import what `perf script --show-lost-events` prints of it",
    ),
    b"\x1f\x8b": ("is compressed by gzip", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("is compressed by zstd", "unpack it"),
}


def load(path: Path, window: int | None = None, kernel: str | None = None) -> Imported:
    """Read a dirty ring: in binary, as a tracer's text, or as trace-cmd's file.

    Parameters
    ----------
    window : int, optional
        Length of a round, ns; by default a reset of the rings ends one.
    kernel : str, optional
        Release of the kernel that was traced, which tells the order within a drain.
    """
    with open_regular(path) as file:
        head = file.read(4096)
    for magic, (why, hint) in _MAGICS.items():
        if head.startswith(magic):
            raise ForeignFileError(path, "", why, hint)
    if head.startswith(tracedat.MAGIC):
        return imported(tracedat.read(path), window, kernel)
    if b"\0" in head:
        notes = (SLOTS, "times are not known, nor in which order the guest wrote")
        return Imported(_binary(path), "pml", notes, complete=None)
    log = kvm_text.read(path)
    if not len(log):
        why = "holds neither struct kvm_dirty_gfn nor kvm_dirty_ring_push"
        raise ForeignFileError(path, "", why)
    return imported(log, window, kernel)


def _binary(path: Path) -> Iterator[Chunk]:
    with open_regular(path) as file:
        at = 0
        while data := file.read(_CHUNK * ENTRY.itemsize):
            if left := len(data) % ENTRY.itemsize:
                why = f"is cut in the middle of an entry ({ENTRY.itemsize} bytes each)"
                raise ForeignFileError(path, f"byte {at + len(data) - left}", why)
            entries = np.frombuffer(data, ENTRY)
            slots, offsets = entries["slot"], entries["offset"]
            wrong = (entries["flags"] > 3) | (slots >= SLOT_LIMIT) | (offsets >= OFFSET_LIMIT)
            if wrong.any():
                why = "is no struct kvm_dirty_gfn (unknown flags or slot, or beyond 2^31 pages)"
                number = at // ENTRY.itemsize + int(wrong.argmax())
                raise ForeignFileError(path, f"entry {number}", why)
            dirty = entries["flags"] != 0  # 0: not used yet
            gfn = (slots[dirty].astype(np.uint64) << np.uint64(SLOT_SHIFT)) + offsets[dirty]
            if len(gfn):
                yield 0, 1, 0, gfn, int(Kind.UNKNOWN)
            at += len(data)
