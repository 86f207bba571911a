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


__all__ = ["Vtmm"]


@dataclass(frozen=True)
class Vtmm(Technique):
    """Pages climb a queue when they are found used and sink when not; the hot ones are counted.

    PML tells the writes. Reads are found in accessed flags, which are scanned the more often the
    higher a page's queue is: those of queue i every ``2 ** (levels - 1 - i)`` scans. A page's
    temperature is what is left of its uses: halved at each of its scans, plus its reads and
    `write_weight` times its writes. The working set is the pages above queue 0 or warmer than
    `warm`.

    What could be read of it: the abstracts of vTMM and of its first version, HMM-V (arXiv
    2209.13111): accesses are tracked "with page-modification logging (PML) and a multi-level queue
    design", the first version "through page table manipulation", whose cost both reduce; a page's
    temperature, sorted into buckets, tells hot ones. By a reader's notes (jlhu.io, vTMM
    Implementation Feasibility, 2023) it scans the guest's page tables beside PML, and its source is
    not to be had. So the queues' rule and the weights are ours, and so is the working set: the
    paper sorts pages, it does not count one.

    Attributes
    ----------
    scans : int
        Per window T.
    levels : int
        Queues.
    write_weight, warm : float
        Of the temperature.
    """

    name = "vtmm"
    title = "vTMM's tracking"
    source = "Sha et al., vTMM, EuroSys'23 (abstract; rules ours)"
    needs = frozenset({Need.PML, Need.ACCESSED})
    scans: int = 4
    levels: int = 4
    write_weight: float = 2.0
    warm: float = 0.5

    def observe(self, view: View) -> None:
        pages = view.notable(view.memory_pages)
        queue, heat = np.zeros(pages, np.int64), np.zeros(pages)
        period, scans = view.parts(self.scans)
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
            if turn >= scans:
                view.report(np.count_nonzero((queue > 0) | (heat > self.warm)))
