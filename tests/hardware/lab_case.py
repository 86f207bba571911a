# SPDX-License-Identifier: Apache-2.0
"""What the lab's tests share: a guest is booted once for each set of options."""

import hashlib
from dataclasses import asdict
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from needs import REQUIRED

from pmlkit.sources import lab
from pmlkit.sources.lab.kvm import session as kvm_session
from pmlkit.sources.lab.session import LabOptions
from pmlkit.sources.recorder.kit import record_kit
from pmlkit.spool_reader import read_spool
from pmlkit.xen.frames import Frame, unpack_bitmap_piece

needs_lab = pytest.mark.skipif(
    not REQUIRED,
    reason="boots Xen in an emulator, half a minute each: set PMLKIT_REQUIRE_LAB=1",
)
# Leaf tables that reading frames 4096..6655 goes through, and the code's and the mailbox's.
LEAVES = {
    2: {2064, *range(2068, 2071)},
    3: {2064, 2065, *range(2072, 2077)},
    4: {2064, 2065, *range(2072, 2077)},
}
# With three levels the processor keeps the root's four entries in registers: no walk reads it.
DIRECTORIES = {2: {2050}, 3: {2050}, 4: {2048, 2049, 2050}}
MAILBOX, STACKS = 512, range(256, 260)  # frames of the kit's own that a round may write


class Lab:
    """Boots guests into a folder of the session."""

    def __init__(self, folder):
        self.folder, self._traces, self._numbers = folder, {}, count()

    def run(self, guest, **options):
        """Return a guest's trace (its spool is beside it).

        It is from an earlier call if that one had the same options; what is not said and what is
        said to be the default are the same.
        """
        told = LabOptions(fast=True, keep=True, **options)
        key = guest, repr(asdict(told))
        if key not in self._traces:
            out = self.folder / f"{Path(guest).stem}-{next(self._numbers)}.trace"
            self._traces[key] = lab.run(guest, out, told)
        return self._traces[key]


@cache
def run_on_kvm(folder, guest, options):
    """Return a guest's trace of the KVM lab; `options` are sorted pairs, or pairs of pairs."""
    told = {name: dict(value) if name == "settings" else value for name, value in options}
    name = hashlib.blake2b(repr(options).encode(), digest_size=6).hexdigest()
    out = Path(folder) / f"{guest}-{name}.trace"
    return kvm_session.run(guest, out, kvm_session.KvmLabOptions(keep=True, **told))


@cache
def record(folder, guest, rounds, settings):
    """Return a recording of a guest of the kit; `settings` are pairs."""
    return record_kit(guest, Path(folder) / f"{guest}.trace", None, dict(settings), rounds)


def rounds(trace):
    """Yield (round, its entries as a DataFrame)."""
    yield from trace.to_pandas().groupby("round")


def frames(trace, name):
    """Return a region's frames as a set."""
    return set(trace.frames(name).tolist())


def data(entries, first=4096):
    """Return the entries in the data area."""
    return entries[entries.gfn >= first]


def own(entries):
    """Whether all other entries are the kit's own pages or page tables."""
    rest = entries[entries.gfn < 4096].gfn
    return all(g == MAILBOX or g in STACKS or 2048 <= g < 2112 for g in rest)


def bitmaps(trace, kind=Frame.DIRTY):
    """Return the bitmaps of a kept spool: round -> set of frames."""
    spool = trace.path.with_name(trace.path.name + ".spool") / "frames.spool"
    sets = {}
    for _, payload in (frame for frame in read_spool(spool) if frame[0] == kind):
        number, _, first, piece = unpack_bitmap_piece(payload)
        bits = np.unpackbits(np.frombuffer(piece, np.uint8), bitorder="little")
        sets.setdefault(number, set()).update(8 * first + np.flatnonzero(bits))
    return sets
