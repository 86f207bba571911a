# SPDX-License-Identifier: Apache-2.0
"""A sample of accessed flags for reads, and PML's log for writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.flag_sample import FlagSample
from pmlkit.techniques.recent import Recent
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View


@dataclass(frozen=True)
class FlagSamplePml(FlagSample):
    """Count the pages in PML's log, and estimate the others by a fixed sample of accessed flags.

    With w pages logged in the last `looks` looks, the estimate is w, and of the other pages of
    memory the share that is used in the part of the sample that was not logged (post-stratified:
    Cochran, Sampling Techniques, 1977, 5A.9). `flag-sample` is the same without the log: their
    difference is what PML adds. The sample alone errs by sqrt((1 - p) / (p n)); here p is the share
    of memory that is used and not written. The log is drained, and its pages are armed again, at
    each look.

    Attributes
    ----------
    looks : int
        Per window T.
    watched : int, optional
        Frames of the sample; by default a 64th of the memory.
    """

    name = "flag-sample-pml"
    title = "Accessed-flag sample and PML"
    source = "this project (2026); close to vTMM (EuroSys'23)"
    needs = frozenset({Need.ACCESSED, Need.PML})

    def observe(self, view: View) -> None:
        sample = self._draw(view)
        view.accessed.harvest(sample)  # the flags are as old as the VM: clear them first
        view.pml.drain()
        read = np.zeros(len(sample), np.int64)  # look that found the flag set; they count from 1
        written = np.zeros(len(sample), np.int64)  # look whose log had the frame
        period, looks = view.parts(self.looks)
        logged = Recent(looks)
        for turn, _ in enumerate(view.every(period), start=1):
            log = view.pml.drain()
            pages = logged.add(log)
            written[np.isin(sample, log)] = turn
            read[view.accessed.harvest(sample)] = turn
            if logged.full:
                others = written <= turn - looks
                used = int(np.count_nonzero(others & (read > turn - looks)))
                left = view.memory_pages - pages
                view.report(pages + left * used / max(int(np.count_nonzero(others)), 1))
