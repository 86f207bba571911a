# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over uses sorted by page: one window, or the means of all, of any part at once.

`pmlkit.occurrences` has the formulas. Here nothing is copied to look at other rounds, other pages
or another threshold: `starts` says where each page's uses begin, `chosen` which pages count, and
rounds from `first` to before `stop` are looked at as if there were no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.kernels import compiled

if TYPE_CHECKING:
    from pmlkit.types import Array

__all__ = ["bend_pages", "slide_pages"]


@compiled
def slide_pages(
    starts: Array,
    rounds: Array,
    chosen: Array,
    pages: tuple[int, int],
    span: tuple[int, int],
    k: int,
    min_count: int,
    steps: Array,
) -> None:
    """Add to `steps` where the pages from ``pages[0]`` to ``pages[1]`` enter W(t, k) and leave it.

    `steps`, int32, shape (rounds + 1,): its running sum is W at the end of every round.
    """
    first, stop = span
    end, back = stop - first, min_count - 1
    for page in range(pages[0], pages[1]):
        a, b = starts[page], starts[page + 1]
        if not chosen[page]:
            continue
        while a < b and rounds[a] < first:
            a += 1
        while a < b and rounds[b - 1] >= stop:
            b -= 1
        for i in range(a + back, b):
            at = rounds[i] - first
            until = rounds[i + 1] - first if i + 1 < b else end
            last = min(rounds[i - back] - first + k, until)
            if last > at:
                steps[at] += 1
                steps[last] -= 1


@compiled
def bend_pages(
    starts: Array,
    rounds: Array,
    chosen: Array,
    pages: tuple[int, int],
    span: tuple[int, int],
    min_count: int,
    bends: Array,
    reached: Array,
) -> None:
    """Add to `bends` and `reached` what the means of W(t, k) for every k are made of.

    Both int32, shape (rounds + 1,): by k, where the sum of W(t, k) over t gets steeper or less
    so; by round, the pages whose `min_count`-th use is in it.
    """
    first, stop = span
    end, back, at_once = stop - first, min_count - 1, 0
    for page in range(pages[0], pages[1]):
        a, b = starts[page], starts[page + 1]
        if not chosen[page]:
            continue
        while a < b and rounds[a] < first:
            a += 1
        while a < b and rounds[b - 1] >= stop:
            b -= 1
        if b - a <= back:
            continue
        reached[rounds[a + back] - first] += 1
        for i in range(a + back, b):
            since = rounds[i - back]
            until = rounds[i + 1] if i + 1 < b else stop
            # Nearly always 0: adding to one cell over and over would wait for itself.
            if since == rounds[i]:
                at_once += 1
            else:
                bends[rounds[i] - since] += 1
            bends[min(until - since, end)] -= 1
    bends[0] += at_once
