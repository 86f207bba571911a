# SPDX-License-Identifier: Apache-2.0
"""Hint faults: a scanner makes a window of pages inaccessible; faults identify the used pages."""

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
    """The pages whose hint fault occurred within T after the scanner had made them inaccessible.

    NUMA balancing cycles through the memory. Each step makes the next window of 256 MiB
    inaccessible (``numa_balancing_scan_size_mb``), at most one step per second
    (``scan_period_min_ms``). The first access to a page faults and makes it accessible again. The
    time from step to fault is the page's hint fault latency. A page is hot if it is below 1 s
    (``hot_threshold_ms``), which is T here. TPP obtains its use of slow memory from the same
    faults. A window's count covers the T after its step, and stays valid until the scanner has
    returned. Until the scanner has covered all memory, the covered part represents the rest.

    There are two differences. The scanner belongs to the host and works on frames, so a fault is an
    EPT violation, not a guest's page fault. Its pace is fixed, while Linux slows down to one step
    in 60 s if placement is good. A window is small enough that the scanner takes at least T for one
    cycle, so no page is made inaccessible twice in T.

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
        seen = pages = 0  # pages of the windows in `used`, and the number of used ones
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
