# SPDX-License-Identifier: Apache-2.0
"""Hint faults: a scanner makes a window of pages inaccessible; faults tell which are used."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View


@dataclass(frozen=True)
class HintFaults(Technique):
    """The pages whose hint fault came within T after the scanner had made them inaccessible.

    NUMA balancing goes round the memory: each step makes the next window of 256 MiB inaccessible
    (``numa_balancing_scan_size_mb``), at most one step a second (``scan_period_min_ms``). The first
    access to a page faults, and frees it. The time from step to fault is the page's hint fault
    latency; a page is hot if that is below 1 s (``hot_threshold_ms``), which is T here. TPP takes
    its use of slow memory from the same faults. So a window's count is of the T that follows its
    step, and stands until the scanner has come round again. Until it has been everywhere, the part
    that it has seen stands for the rest.

    Two things differ. The scanner is the host's and works on frames, so a fault is an EPT violation
    and not one of the guest's. And its pace is fixed: Linux slows down to a step in 60 s where
    placement is good. A window is no larger than lets it be everywhere once per T, so no page is
    made inaccessible twice in T.

    Attributes
    ----------
    looks : int
        Steps per window T.
    watched : int
        Pages of a step.
    """

    name = "hint-faults"
    title = "Hint faults (NUMA balancing, TPP)"
    source = "Linux 6.1, kernel/sched/fair.c; Maruf et al. (TPP), ASPLOS'23"
    needs = frozenset({Need.TRAPS})
    looks: int = 1
    watched: int = 65_536

    def observe(self, view: View) -> None:
        memory = view.notable(view.memory_pages)
        period, looks = view.parts(self.looks)
        size = min(self.watched, -(-memory // looks))
        windows = cycle([(at, min(at + size, memory)) for at in range(0, memory, size)])
        used: dict[int, int] = {}  # pages of each window, by its first frame
        seen = pages = 0  # pages of the windows in `used`, and those of them in use
        under_way = deque([next(windows)])
        view.traps.unmap(*under_way[0])
        for _ in view.every(period):
            if len(under_way) == looks:
                first, stop = under_way.popleft()
                seen += 0 if first in used else stop - first
                pages -= used.get(first, 0)
                used[first] = view.traps.faulted(first, stop)
                pages += used[first]
                view.report(pages * memory / seen)
            under_way.append(next(windows))
            view.traps.unmap(*under_way[-1])
