# SPDX-License-Identifier: Apache-2.0
"""LRU stack distances: the number of other pages used between two uses of a page.

A cache of c pages that evicts the least recently used one hits exactly the uses whose distance is
less than c (Mattson et al. 1970): one pass gives the miss ratio at every size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.kernels.pages import PageIndex, grown, in_batches

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from pmlkit.types import Array, Gfns, Ids, Ints


__all__ = ["LruStack", "stack_distances"]

SMALLEST = 1 << 18  # positions; with fewer, positions would be reassigned too often
ROW = 64  # bytes of counts that are updated together; a cache line


class LruStack:
    """The pages in order of last use.

    Pages are numbers (`pmlkit.kernels.pages`). Memory is about 50 bytes per page, independent of
    the number of uses.
    """

    def __init__(self) -> None:
        self._last = np.empty(0, np.int32)
        self._masks = _masks(np.uint16), _masks(np.uint32)
        self._clear(SMALLEST)

    def __len__(self) -> int:
        return int(self._state[1])

    def use(self, ids: Ids, pages: int) -> Ids:
        """Use pages in the given order; return the distance of each use, -1 for a first use.

        `pages` is larger than every id so far.
        """
        from pmlkit.kernels.lru import advance

        self._last = grown(self._last, pages, -1)
        out = np.empty(len(ids), np.int32)
        done = 0
        while True:
            state = *self._counts, self._rows, self._masks, self._page_at, out, self._state
            done = advance(ids, done, self._last, *state)
            if done == len(ids):
                return out
            self._place(self.order())

    def order(self) -> Ids:
        """Return the pages, int32, the most recently used one at the end."""
        from pmlkit.kernels.lru import order

        pages = np.empty(len(self), np.int32)
        order(self._counts[0], self._page_at, int(self._state[0]), pages)
        return pages

    def reset(self, pages: Ids) -> None:
        """Set the stack to `pages` (int32, distinct, the most recently used one last)."""
        self._last = np.full(int(max(pages, default=-1)) + 1, -1, np.int32)
        self._place(pages)

    def _place(self, pages: Ids) -> None:
        from pmlkit.kernels.lru import place

        size = len(self._page_at)
        while size < 3 * len(pages):
            size *= 2
        self._clear(size)
        place(pages, self._last, *self._counts, self._page_at, self._state)

    def _clear(self, size: int) -> None:
        from pmlkit.kernels.lru import NODE, PART, WORD

        bits, words = _zeros(size >> WORD, np.uint64), _zeros(size >> WORD, np.uint16)
        nodes, parts = _zeros(size >> NODE, np.uint16), -(-size >> PART)
        segments = _zeros(parts * ROW // 4, np.uint32)
        self._counts = bits, words, nodes, segments, np.zeros(parts, np.int64)
        self._rows = tuple(counts.view(np.uint64) for counts in (words, nodes, segments))
        self._page_at = np.empty(size, np.int32)
        self._state = np.zeros(2, np.int64)


def _zeros(size: int, dtype: DTypeLike) -> Array:
    """Return zeros that begin with a cache line."""
    wanted = size * np.dtype(dtype).itemsize
    array = np.empty(wanted + ROW, np.uint8)
    array[:] = 0  # not np.zeros, for which numpy requests no large pages
    offset = -array.ctypes.data % ROW
    return array[offset : offset + wanted].view(dtype)


def _masks(dtype: DTypeLike) -> Gfns:
    """Return for each lane of a row a row with 1 in the lanes after it, as 64-bit words."""
    lanes = ROW // np.dtype(dtype).itemsize
    masks = _zeros(lanes * lanes, dtype)
    masks[:] = np.triu(np.ones((lanes, lanes), dtype), 1).reshape(-1)
    return masks.view(np.uint64)


def stack_distances(gfns: Gfns) -> Ints:
    """Return the stack distance of every use (int64); `gfns` are pages in order of use.

    It is the number of other pages used since the page's last use; -1 for its first.
    """
    index, stack = PageIndex(), LruStack()
    batches = in_batches(np.asarray(gfns, np.uint64))
    parts = [stack.use(index.ids(part), len(index)) for (part,) in batches]
    return np.concatenate([np.zeros(0, np.int64), *parts])
