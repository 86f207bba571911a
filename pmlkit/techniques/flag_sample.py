# SPDX-License-Identifier: Apache-2.0
"""A simple sample of accessed flags: always the same frames, and no other input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View
    from pmlkit.types import Ints

ONE_IN = 64  # frames of memory per frame of the sample, by default


@dataclass(frozen=True)
class FlagSample(Technique):
    """Read the accessed flags of a fixed random sample of frames, `looks` times per T.

    The estimate is the share of the sample whose flag was set in any of the last `looks` looks,
    multiplied by the memory. The frames are drawn once, without replacement. For n frames and a
    working set that is the share p of memory, the relative standard error is sqrt((1 - p) / (p n)).
    It is smaller if n is a large part of the memory. The frames stay the same, and so does their
    error. A constant working set gets the same estimate each time, and an average over time does
    not help.

    Attributes
    ----------
    looks : int
        Looks per window T. Each is followed by an estimate; more looks detect a change sooner, at a
        higher cost.
    watched : int, optional
        Frames of the sample; default: a 64th of the memory.
    """

    name = "flag-sample"
    title = "Accessed-flag sample"
    source = "this project; after VMware's (Waldspurger, OSDI'02), with flags for traps"
    needs = frozenset({Need.ACCESSED})
    random = True
    looks: int = 4
    watched: int | None = None

    def observe(self, view: View) -> None:
        sample = self._draw(view)
        weight = view.memory_pages / len(sample)
        view.accessed.harvest(sample)  # the flags are as old as the VM: clear them first
        last = np.zeros(len(sample), np.int64)  # look that found the flag set; they count from 1
        period, looks = view.parts(self.looks)
        for turn, _ in enumerate(view.every(period), start=1):
            last[view.accessed.harvest(sample)] = turn
            if turn >= looks:
                view.report(np.count_nonzero(last > turn - looks) * weight)

    def _draw(self, view: View) -> Ints:
        memory = view.memory_pages
        wanted = max(memory // ONE_IN, 1) if self.watched is None else self.watched
        count = view.notable(min(wanted, memory))
        return view.random.choice(memory, count, replace=False)
