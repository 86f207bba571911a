# SPDX-License-Identifier: Apache-2.0
"""QEMU's three methods for a dirty rate, used as a working set: the pages written in T."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recent import report_recent
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pmlkit.techniques.view import View
    from pmlkit.types import Ints

_SOURCE = "QEMU, migration/dirtyrate.c (calc-dirty-rate)"


@dataclass(frozen=True)
class DirtySampling(Technique):
    """Mode page-sampling: hash some pages, wait, hash them again; the changed share of memory.

    The real mode misses a write that does not change the content; this model assumes that every
    write changes it.

    Attributes
    ----------
    looks : int
        Measurements started per window T. Each takes T, and has its own sample.
    watched : int, optional
        Pages of a sample; default as published: `per_gib` and `least`.
    per_gib : int
        Pages per GiB.
    least : int
        Smallest number of pages: QEMU's lower limit.
    """

    name = "qemu-sampling"
    title = "QEMU dirty rate, page sampling"
    source = _SOURCE
    needs = frozenset({Need.CONTENT})
    random = True
    looks: int = 1
    watched: int | None = None
    per_gib: int = 512
    least: int = 128

    def observe(self, view: View) -> None:
        period, looks = view.parts(self.looks)
        under_way: deque[tuple[Ints, NDArray[np.int32]]] = deque([self._begin(view)])
        for _ in view.every(period):
            if len(under_way) == looks:
                sample, before = under_way.popleft()
                changed = np.count_nonzero(view.content.digest(sample) != before)
                view.report(changed / len(sample) * view.memory_pages)
            under_way.append(self._begin(view))

    def _begin(self, view: View) -> tuple[Ints, NDArray[np.int32]]:
        """Draw a sample; return it and its hashes."""
        published = max(round(self.per_gib * view.memory_pages / (1 << 18)), self.least)
        wanted = published if self.watched is None else self.watched
        count = view.notable(min(wanted, view.memory_pages))
        sample = view.random.integers(0, view.memory_pages, count)
        return sample, view.content.digest(sample)


@dataclass(frozen=True)
class DirtyBitmap(Technique):
    """Mode dirty-bitmap: write-protect all pages, wait T, count the bits; one write fault per page.

    Attributes
    ----------
    looks : int
        Looks per window T: each write-protects all pages again and counts the pages of the last T.
    """

    name = "qemu-bitmap"
    title = "QEMU dirty rate, dirty bitmap"
    source = _SOURCE
    needs = frozenset({Need.DIRTY})
    looks: int = 1

    def observe(self, view: View) -> None:
        report_recent(view, self.looks, view.dirty.collect)


@dataclass(frozen=True)
class DirtyRing(Technique):
    """Mode dirty-ring: count the ring's entries. A page that a reap re-arms may be in it twice.

    The reaper runs once a second, and whenever the ring is full. It re-arms the pages it reaps.

    Attributes
    ----------
    looks : int
        Reaps per window T, not including those of a full ring. QEMU counts entries, so each reap
        allows a page to be counted once more.
    entries : int
        Number of slots of the ring.
    """

    name = "qemu-ring"
    title = "QEMU dirty rate, dirty ring"
    source = _SOURCE + "; KVM's dirty ring"
    needs = frozenset({Need.PML})
    looks: int = 1
    entries: int = 4096

    def observe(self, view: View) -> None:
        period, looks = view.parts(self.looks)
        reaped: deque[int] = deque(maxlen=looks)
        for _ in view.every(period):
            reaped.append(len(view.pml.drain(rearm="flush", buffer_entries=self.entries)))
            if len(reaped) == looks:
                view.report(sum(reaped))
