# SPDX-License-Identifier: Apache-2.0
"""vTMM's tracking: PML for writes, accessed flags in multi-level queues, page temperature."""

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
    """Pages move up a queue if used and down if not; the hot ones are counted.

    Writes come from PML, and reads come from accessed flags. A page in a higher queue is scanned
    more often: queue i every ``2 ** (levels - 1 - i)`` scans. Its temperature is halved at each of
    its scans; a read adds 1, a write `write_weight`. The working set is the pages above queue 0, or
    warmer than `warm`.

    The available sources are the abstracts of vTMM and of its first version, HMM-V (arXiv
    2209.13111). They track accesses "with page-modification logging (PML) and a multi-level queue
    design". The first version tracks "through page table manipulation". Both reduce its cost. Page
    temperatures, sorted into buckets, identify hot pages. According to a reader's notes (jlhu.io,
    vTMM Implementation Feasibility, 2023), it scans the guest's page tables in addition to PML, and
    its source is not available. The queues' rule, the weights and the working set are therefore
    ours: the paper sorts pages, and does not count a working set.

    Attributes
    ----------
    looks : int
        Scans per window T.
    levels : int
        Queues.
    write_weight, warm : float
        Threshold of the temperature.
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
