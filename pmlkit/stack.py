# SPDX-License-Identifier: Apache-2.0
"""LRU stack distances: between two uses of a page, how many other pages were used.

A cache of c pages that evicts the least recently used one hits exactly the uses whose distance is
less than c (Mattson et al. 1970): one pass gives the miss ratio at every size.
"""

import numpy as np

from pmlkit.pageindex import PageIndex, grown, in_batches

__all__ = ["LruStack", "stack_distances"]

SEGMENT = 1 << 16
LANES = 32


class LruStack:
    """The pages in order of last use.

    Pages are numbers (`pmlkit.pageindex`). Memory is about 50 bytes a page, whatever the uses.
    """

    def __init__(self):
        self._last = np.empty(0, np.int32)
        self._masks = _masks()
        self._clear(SEGMENT)

    def __len__(self):
        return int(self._state[1])

    def use(self, ids, pages):
        """Use pages, one after the other.

        Parameters
        ----------
        ids : ndarray of int32, shape (uses,)
        pages : int
            More than the largest of all ids so far.

        Returns
        -------
        ndarray of int32, shape (uses,)
            The distance of each use; -1 for the first use of a page.
        """
        from pmlkit.kernels_stack import advance

        self._last = grown(self._last, pages, -1)
        out = np.empty(len(ids), np.int32)
        done = 0
        while True:
            done = advance(ids, done, self._last, *self._arrays, self._masks, out, self._state)
            if done == len(ids):
                return out
            self._place(self.order())

    def order(self):
        """Return the pages, int32, the most recently used one at the end."""
        from pmlkit.kernels_stack import order

        pages = np.empty(len(self), np.int32)
        order(self._bits, self._page_at, pages)
        return pages

    def reset(self, pages):
        """Let the stack be `pages` (int32, distinct, the most recently used one at the end)."""
        self._last = np.full(int(max(pages, default=-1)) + 1, -1, np.int32)
        self._place(pages)

    def _place(self, pages):
        from pmlkit.kernels_stack import place

        size = len(self._page_at)
        while size < 3 * len(pages):
            size *= 2
        self._clear(size)
        place(pages, self._last, *self._arrays, self._state)

    def _clear(self, size):
        self._bits = _zeros(size // 64, np.uint64)
        words = _zeros(size // 64, np.uint16)
        nodes = _zeros(size // 2048, np.uint16)
        tree = _zeros(size // SEGMENT + 1, np.int64)
        self._page_at = _zeros(size, np.int32)
        self._state = np.zeros(4, np.int64)
        packed = words.view(np.uint64), nodes.view(np.uint64)
        counts = words, packed[0], nodes, packed[1]
        self._arrays = self._bits, *counts, tree, self._page_at


def _zeros(size, dtype):
    array = np.empty(size, dtype)  # for which numpy asks for large pages, as it does not for zeros
    array[:] = 0
    return array


def _masks():
    """Return for each of 32 lanes a row with 1 in the lanes after it, as words of four lanes."""
    return np.triu(np.ones((LANES, LANES), np.uint16), 1).view(np.uint64).reshape(-1)


def stack_distances(gfns):
    """Return the stack distance of every use.

    Parameters
    ----------
    gfns : array of int, shape (uses,)
        Pages in order of use.

    Returns
    -------
    ndarray of int64, shape (uses,)
        The number of other pages used since the page's last use; -1 for its first.
    """
    index, stack = PageIndex(), LruStack()
    parts = [np.zeros(0, np.int64)]
    for (part,) in in_batches(np.asarray(gfns, np.uint64)):
        parts.append(stack.use(index.ids(part), len(index)))
    return np.concatenate(parts)
