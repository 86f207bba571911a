# SPDX-License-Identifier: Apache-2.0
"""vTMM's tracking: PML for writes, accessed flags along multi-level queues, page temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View


@dataclass(frozen=True)
class Vtmm(Technique):
    """Pages rise a queue when found used and sink when not; the hot ones are counted.

    Writes come from PML, reads from accessed flags. A page is scanned more often the higher its
    queue is: those of queue i every ``2 ** (levels - 1 - i)`` scans. Its temperature is halved at
    each of its scans; a read adds 1, a write `write_weight`. The working set is the pages above
    queue 0 or warmer than `warm`.

    The sources that were available are the abstracts of vTMM and of its first version, HMM-V (arXiv
    2209.13111). They track accesses "with page-modification logging (PML) and a multi-level queue
    design", the first version "through page table manipulation", whose cost both reduce. A page's
    temperature, sorted into buckets, tells hot ones. By a reader's notes (jlhu.io, vTMM
    Implementation Feasibility, 2023) it scans the guest's page tables beside PML, and its source is
    not available. So the queues' rule and the weights are ours, and so is the working set: the
    paper sorts pages, and does not count a working set.

    Attributes
    ----------
    looks : int
        Scans per window T.
    levels : int
        Queues.
    write_weight, warm : float
        Of the temperature.
    """

    name = "vtmm"
    title = "vTMM's tracking"
    source = "Sha et al., vTMM, EuroSys'23 (abstract; rules ours)"
    needs = frozenset({Need.PML, Need.ACCESSED})
    looks: int = 4
    levels: int = 4
    write_weight: float = 2.0
    warm: float = 0.5

    def observe(self, view: View) -> None:
        pages = view.notable(view.memory_pages)
        queue, heat = np.zeros(pages, np.int64), np.zeros(pages)
        period, looks = view.parts(self.looks)
        for turn, _ in enumerate(view.every(period), start=1):
            written = view.pml.drain()
            written = written[written < view.memory_pages]
            due = np.flatnonzero(turn % (1 << (self.levels - 1 - queue)) == 0)
            read = view.accessed.harvest(due)
            heat[due] = heat[due] / 2 + read
            heat[written] += self.write_weight
            used = np.union1d(due[read], written)
            sunk = np.setdiff1d(due, used, assume_unique=True)
            queue[used] = np.minimum(queue[used] + 1, self.levels - 1)
            queue[sunk] = np.maximum(queue[sunk] - 1, 0)
            if turn >= looks:
                view.report(np.count_nonzero((queue > 0) | (heat > self.warm)))
