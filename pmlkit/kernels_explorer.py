# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over uses sorted by page: one window, or the means of several, of any part.

`pmlkit.occurrences` has the formulas. Here nothing is copied to look at other rounds, other pages
or another threshold: `starts` says where each page's uses begin, `chosen` which pages count, and
rounds from `first` to before `stop` are looked at as if there were no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.kernels import compiled

if TYPE_CHECKING:
    from pmlkit.types import Array

__all__ = ["slide_pages", "sum_pages"]


@compiled
def slide_pages(
    starts: Array,
    rounds: Array,
    chosen: Array,
    pages: tuple[int, int],
    span: tuple[int, int],
    enter: Array,
    leave: Array,
    min_count: int,
    steps: Array,
) -> None:
    """Add to `steps` where the pages from ``pages[0]`` to ``pages[1]`` enter windows and leave.

    `enter` and `leave` are those of `pmlkit.timeline.Windows` over the rounds of `span`. `steps`,
    int32, shape (windows + 1,): its running sum is the working set of each window.
    """
    first, stop = span
    back = min_count - 1
    for page in range(pages[0], pages[1]):
        a, b = starts[page], starts[page + 1]
        if not chosen[page]:
            continue
        while a < b and rounds[a] < first:
            a += 1
        while a < b and rounds[b - 1] >= stop:
            b -= 1
        for i in range(a + back, b):
            at = enter[rounds[i] - first]
            until = enter[(rounds[i + 1] if i + 1 < b else stop) - first]
            last = min(leave[rounds[i - back] - first], until)
            if last > at:
                steps[at] += 1
                steps[last] -= 1


@compiled
def sum_pages(
    starts: Array,
    rounds: Array,
    chosen: Array,
    pages: tuple[int, int],
    span: tuple[int, int],
    at: Array,
    sizes: Array,
    min_count: int,
    sums: Array,
) -> None:
    """Add to `sums` the integral of W(t, T) over the time of full windows, for each T of `sizes`.

    `at` says where the rounds of `span` end and, at last, where all does: windows are full from T
    on. A page is in W from its use on, until T after the `min_count`-th last one, if it is not
    used again by then. `sizes` is ascending, `sums` are floats.
    """
    first, stop = span
    back = min_count - 1
    for page in range(pages[0], pages[1]):
        a, b = starts[page], starts[page + 1]
        if not chosen[page]:
            continue
        while a < b and rounds[a] < first:
            a += 1
        while a < b and rounds[b - 1] >= stop:
            b -= 1
        for i in range(a + back, b):
            since, used = at[rounds[i - back] - first], at[rounds[i] - first]
            until = at[(rounds[i + 1] if i + 1 < b else stop) - first]
            for j in range(len(sizes)):
                if sizes[j] >= until:  # all that is left of longer windows is cut short
                    break
                held = min(since + sizes[j], until) - max(used, sizes[j])
                sums[j] += max(held, 0)
