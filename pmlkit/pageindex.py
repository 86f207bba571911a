# SPDX-License-Identifier: Apache-2.0
"""Numbering pages: from sparse frame numbers to 0, 1, 2, ... in order of first use, of an array or
of a stream, a little ahead of who asks.
"""

import queue
import threading

import numpy as np

from pmlkit.blocks import BlockTable, grown

__all__ = ["PageIndex", "ahead", "arrays", "grown", "in_batches", "numbered", "numbered_pages"]

BATCH = 1 << 18  # uses handed on at once: their arrays stay in the cache


class PageIndex:
    """Number pages in order of first use.

    Attributes
    ----------
    frames : ndarray of uint64, shape (pages,)
        The frame of each number.
    """

    def __init__(self):
        self._frames = np.empty(1 << 12, np.uint64)
        self._table = BlockTable()

    def __len__(self):
        return self._table.pages

    @property
    def frames(self):
        return self._frames[: len(self)]

    def ids(self, gfns):
        """Number the pages of some uses.

        Parameters
        ----------
        gfns : array of uint64, shape (uses,)

        Returns
        -------
        ndarray of int32, shape (uses,)
        """
        from pmlkit.kernels import number_pages

        gfns = np.ascontiguousarray(gfns, np.uint64)
        ids, done = np.empty(len(gfns), np.int32), 0
        while True:
            done = number_pages(gfns, done, ids, self._frames, *self._table.arguments)
            if done == len(gfns):
                return ids
            self._frames = grown(self._frames, len(self) + 1, 0)
            if self._table.full:
                self._table.grow()


def in_batches(*columns):
    """Cut arrays of one length into batches: an iterator of tuples of arrays."""
    for start in range(0, len(columns[0]), BATCH):
        yield tuple(column[start : start + BATCH] for column in columns)


def numbered(batches, index=None):
    """Number the pages of a stream, in a thread of its own, a little ahead of who asks.

    Parameters
    ----------
    batches : iterable of (ndarray of int, ndarray of uint64)
        Rounds and frames.
    index : PageIndex, optional

    Yields
    ------
    rounds : ndarray of int32
    ids : ndarray of int32
    pages : int
        How many pages have a number by now.
    """
    index = PageIndex() if index is None else index

    def number():
        for rounds, gfns in batches:
            for part, some in in_batches(rounds, gfns):
                ids = index.ids(some)
                yield np.ascontiguousarray(part, np.int32), ids, len(index)

    return ahead(number())


def numbered_pages(gfns):
    """Number the pages of one array or of a stream of arrays; yields (ids, pages) as `numbered`."""
    index = PageIndex()

    def number():
        for array in arrays(gfns):
            for (part,) in in_batches(array):
                yield index.ids(part), len(index)

    return ahead(number())


def arrays(gfns):
    """Return pages in order of use as an iterable of arrays, whether they are one or several."""
    one = isinstance(gfns, np.ndarray) or (isinstance(gfns, list) and not _nested(gfns))
    return [np.asarray(gfns, np.uint64)] if one else (np.asarray(g, np.uint64) for g in gfns)


def _nested(gfns):
    return bool(gfns) and isinstance(gfns[0], np.ndarray | list)


def ahead(items, depth=4):
    """Iterate over `items`, which a thread of its own produces up to `depth` ahead.

    What it raises is raised here. If the consumer stops early, so does the thread.
    """
    made, stopped = queue.Queue(depth), threading.Event()

    def put(item):
        while not stopped.is_set():
            try:
                return made.put(item, timeout=0.1)
            except queue.Full:
                continue

    def produce():
        try:
            for item in items:
                put((True, item))
                if stopped.is_set():
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while (got := made.get())[0]:
            yield got[1]
        if got[1] is not None:
            raise got[1]
    finally:
        stopped.set()
        thread.join()
