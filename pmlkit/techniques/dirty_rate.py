# SPDX-License-Identifier: Apache-2.0
"""QEMU's three ways to calculate a dirty rate, taken as a working set: what is written in T."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View

_SOURCE = "QEMU, migration/dirtyrate.c (calc-dirty-rate)"


@dataclass(frozen=True)
class DirtySampling(Technique):
    """Mode page-sampling: hash some pages, wait, hash them again; the changed share of memory.

    A write that does not change the content is not seen; here every write is taken to change it.

    Attributes
    ----------
    per_gib : int
        Pages per GiB.
    least : int
        Fewest pages: QEMU's lower limit.
    """

    name = "qemu-sampling"
    title = "QEMU dirty rate, page sampling"
    source = _SOURCE
    needs = frozenset({Need.CONTENT})
    random = True
    per_gib: int = 512
    least: int = 128

    def observe(self, view: View) -> None:
        gib = view.memory_pages / (1 << 18)
        wanted = max(round(self.per_gib * gib), self.least)
        count = view.notable(min(wanted, view.memory_pages))
        sample = view.random.integers(0, view.memory_pages, count)
        before = view.content.digest(sample)
        for _ in view.every(view.window_ns):
            changed = np.count_nonzero(view.content.digest(sample) != before)
            view.report(changed / count * view.memory_pages)
            sample = view.random.integers(0, view.memory_pages, count)
            before = view.content.digest(sample)


@dataclass(frozen=True)
class DirtyBitmap(Technique):
    """Mode dirty-bitmap: write-protect all, wait T, count the bits; a write fault per page."""

    name = "qemu-bitmap"
    title = "QEMU dirty rate, dirty bitmap"
    source = _SOURCE
    needs = frozenset({Need.DIRTY})

    def observe(self, view: View) -> None:
        for _ in view.every(view.window_ns):
            view.report(len(view.dirty.collect()))


@dataclass(frozen=True)
class DirtyRing(Technique):
    """Mode dirty-ring: count the ring's entries. A page re-armed by a reap may be in it twice.

    The reaper runs each second, and whenever the ring is full. It re-arms the pages it reaps.

    Attributes
    ----------
    entries : int
        Size of the ring.
    """

    name = "qemu-ring"
    title = "QEMU dirty rate, dirty ring"
    source = _SOURCE + "; KVM's dirty ring"
    needs = frozenset({Need.PML})
    entries: int = 4096

    def observe(self, view: View) -> None:
        for _ in view.every(view.window_ns):
            view.report(len(view.pml.drain(rearm="flush", buffer_entries=self.entries)))
