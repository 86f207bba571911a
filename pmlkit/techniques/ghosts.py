# SPDX-License-Identifier: Apache-2.0
"""Ghost lists: evicted pages, and the memory that would have kept them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.kernels.pages import PageIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pmlkit.types import Bools, Ints


__all__ = ["GhostList"]


class GhostList:
    """The evicted pages in order of eviction, and the stack distances of the reloaded ones.

    Suppose that a page returns while d others, evicted after it, are still gone. It would not have
    been evicted if the memory were d + 1 pages larger (LRU's inclusion; Mattson et al., 1970). A
    Fenwick tree stores the positions, so a distance takes log n steps.

    Parameters
    ----------
    size : int
        Initial capacity in pages; it grows as needed, independent of page numbers.
    """

    def __init__(self, size: int = 1 << 16) -> None:
        self._index = PageIndex()
        self._at = np.zeros(size, np.int64)  # position of each page, from 1; 0: not evicted
        self._tree = np.zeros(1 << 12, np.int64)
        self._used = 0

    def __len__(self) -> int:
        return int(np.count_nonzero(self._at))

    def follow(self, pages: Ints | Sequence[int], back: Bools | Sequence[bool]) -> Ints:
        """Process evictions and reloads in order.

        Parameters
        ----------
        pages : array of int, shape (n,)
        back : array of bool, shape (n,)
            True for a reload.

        Returns
        -------
        ndarray of int64, shape (n,)
            The distance d of each reload of an evicted page; -1 for all others.
        """
        pages = self._index.ids(np.asarray(pages, np.int64).view(np.uint64)).astype(np.int64)
        self._make_room(len(pages), len(self._index))
        distances = np.full(len(pages), -1)
        back = np.asarray(back, bool)
        self._used = _compiled()(pages, back, self._at, self._tree, self._used, distances)
        return distances

    def _make_room(self, more: int, size: int) -> None:
        if size > len(self._at):
            self._at = np.append(self._at, np.zeros(max(size, 2 * len(self._at)), np.int64))
        if self._used + more < len(self._tree):
            return
        evicted = np.flatnonzero(self._at)
        self._at[evicted[np.argsort(self._at[evicted])]] = np.arange(1, len(evicted) + 1)
        self._used = len(evicted)
        index = np.arange(2 * (self._used + more) + 2)
        low = index & -index
        self._tree = np.clip(self._used - (index - low), 0, low)


def _follow(pages: Ints, back: Bools, at: Ints, tree: Ints, used: int, distances: Ints) -> int:
    """Fill in `distances`; return the positions in use. Plain loops, which numba compiles.

    In a Fenwick tree, ``j & -j`` is the lowest set bit of j. Node j contains the sum of that many
    positions up to j. Adding it leads to the next node above; subtracting it leads to the preceding
    sum.
    """
    size = len(tree)
    for i in range(len(pages)):
        page = pages[i]
        place = at[page]
        if place:
            at[page] = 0
            j = place
            while j < size:
                tree[j] -= 1
                j += j & -j
            if back[i]:
                later, j = 0, used
                while j > 0:
                    later += tree[j]
                    j -= j & -j
                j = place
                while j > 0:
                    later -= tree[j]
                    j -= j & -j
                distances[i] = later
        if not back[i]:
            used += 1
            at[page] = used
            j = used
            while j < size:
                tree[j] += 1
                j += j & -j
    return used


@cache
def _compiled() -> Callable[..., int]:
    try:
        from numba import njit
    except ImportError:  # slower, with the same result
        return _follow
    return njit(cache=True)(_follow)
