# SPDX-License-Identifier: Apache-2.0
"""vTMM's tracking: PML for writes, accessed flags along multi-level queues, page temperature."""

from dataclasses import dataclass

import numpy as np

from pmlkit.techniques.protocol import Need, Technique

__all__ = ["Vtmm"]


@dataclass(frozen=True)
class Vtmm(Technique):
    """Pages climb a queue when they are found used and sink when not; the hot ones are counted.

    PML tells the writes. Reads are found in accessed flags, which are scanned the more often the
    higher a page's queue is: those of queue i every ``2 ** (levels - 1 - i)`` scans. A page's
    temperature is what is left of its uses: halved at each of its scans, plus its reads and
    `write_weight` times its writes. The working set is the pages above queue 0 or warmer than
    `warm`. Only the paper's abstract could be read: the queues' rule and the weights are ours.

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
    source = "Sha et al., vTMM, EuroSys'23 (abstract; parameters ours)"
    needs = frozenset({Need.PML, Need.ACCESSED})
    scans: int = 4
    levels: int = 4
    write_weight: float = 2.0
    warm: float = 0.5

    def observe(self, view):
        queue = np.zeros(view.memory_pages, np.int64)
        heat = np.zeros(view.memory_pages)
        for turn, _ in enumerate(view.every(view.parts(self.scans)), start=1):
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
            if turn >= self.scans:
                view.report(np.count_nonzero((queue > 0) | (heat > self.warm)))
