# SPDX-License-Identifier: Apache-2.0
"""Number pages: from sparse frame numbers to 0, 1, 2, ... in order of first use.

Pages arrive as an array or as a stream, which a thread numbers ahead of the consumer.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from pmlkit.types import Array, Gfns, Ids, Ints

    # Rounds, the numbers of their pages, and the count of numbered pages so far.
    Numbered = tuple[Ids, Ids, int]
    # Pages in order of use, as one array or as several.
    Uses = Gfns | Ints | Sequence[int] | Iterable[Gfns]

__all__ = [
    "BlockTable",
    "PageIndex",
    "ahead",
    "arrays",
    "grown",
    "in_batches",
    "mapped",
    "numbered",
    "numbered_pages",
    "sorted_distinct",
]


BATCH = 1 << 18  # uses per batch: their arrays stay in the cache
WORKERS = 2
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class PageIndex:
    """Number pages in order of first use.

    Attributes
    ----------
    frames : ndarray of uint64, shape (pages,)
        The frame of each number.
    """

    def __init__(self) -> None:
        self._frames = np.empty(1 << 12, np.uint64)
        self._table = BlockTable()

    def __len__(self) -> int:
        return self._table.pages

    @property
    def frames(self) -> Gfns:
        return self._frames[: len(self)]

    def ids(self, gfns: Gfns) -> Ids:
        """Number the pages of some uses: int32, shape (uses,)."""
        from pmlkit.kernels.frames import number_pages

        gfns = np.ascontiguousarray(gfns, np.uint64)
        ids, done = np.empty(len(gfns), np.int32), 0
        while True:
            done = number_pages(gfns, done, ids, self._frames, *self._table.arguments)
            if done == len(gfns):
                return ids
            self._frames = grown(self._frames, len(self) + 1, 0)
            if self._table.full:
                self._table.grow()


def in_batches(*columns: Array) -> Iterator[tuple[Array, ...]]:
    """Divide arrays of one length into batches: an iterator of tuples of arrays."""
    for start in range(0, len(columns[0]), BATCH):
        yield tuple(column[start : start + BATCH] for column in columns)


def numbered(
    batches: Iterable[tuple[Array, Gfns]], index: PageIndex | None = None
) -> Iterator[Numbered]:
    """Number the pages of a stream, in a thread ahead of the consumer.

    Parameters
    ----------
    batches : iterable of (ndarray of int, ndarray of uint64)
        Rounds and frames.

    Yields
    ------
    rounds : ndarray of int32
    ids : ndarray of int32
    pages : int
        Number of pages numbered so far.
    """
    index = PageIndex() if index is None else index

    def number() -> Iterator[Numbered]:
        for rounds, gfns in batches:
            for part, some in in_batches(rounds, gfns):
                ids = index.ids(some)
                yield np.ascontiguousarray(part, np.int32), ids, len(index)

    return ahead(number())


def numbered_pages(gfns: Uses) -> Iterator[tuple[Ids, int]]:
    """Number the pages of one array or of a stream of arrays; yields (ids, pages) as `numbered`."""
    index = PageIndex()

    def number() -> Iterator[tuple[Ids, int]]:
        for array in arrays(gfns):
            for (part,) in in_batches(array):
                yield index.ids(part), len(index)

    return ahead(number())


def sorted_distinct(values: Array) -> Array:
    """Sort numbers, each once. `numpy.unique` hashes them first, which is slower."""
    values = np.sort(values)
    first = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return values[first]


def arrays(gfns: Uses) -> Iterable[Gfns]:
    """Return pages in order of use as an iterable of arrays, for one array or several."""
    nested = isinstance(gfns, list) and bool(gfns) and isinstance(gfns[0], np.ndarray | list)
    one = isinstance(gfns, np.ndarray) or (isinstance(gfns, list) and not nested)
    return [np.asarray(gfns, np.uint64)] if one else (np.asarray(g, np.uint64) for g in gfns)


def ahead(items: Iterable[_Item], depth: int = 4) -> Iterator[_Item]:
    """Iterate over `items`, which a separate thread produces up to `depth` ahead.

    Its exceptions are raised here. If the consumer stops early, so does the thread.
    """
    # An item; None at the end; or the exception.
    queued: queue.Queue[tuple[_Item] | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(message: tuple[_Item] | BaseException | None) -> None:
        # With a timeout, because a consumer that has stopped never empties a full queue.
        while not stopped.is_set():
            try:
                return queued.put(message, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put((item,))
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    # Progress that the thread reports is shown as the caller's.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(produce,), daemon=True)
    thread.start()
    try:
        while isinstance(message := queued.get(), tuple):
            yield message[0]
        if message is not None:
            raise message
    finally:
        stopped.set()
        thread.join()


def mapped(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Iterate over ``work(item)`` in the order of `items`; threads work a little ahead."""
    with ThreadPoolExecutor(WORKERS) as pool:
        waiting: deque[Future[_Result]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


# ------------------------------------------------------------------------------
# A number for each frame of a sparse address space: frames in blocks, blocks in a hash table.
#
# The frame numbers of a guest of a terabyte with holes are too sparse for an array. Used frames
# come in runs. A block therefore holds the numbers of the 512 frames that one page table maps: the
# hash table stays small, and neighbours stay together. If the runs prove short, blocks of 16 frames
# replace them.


CLOSE, FAR = 9, 4  # frames of a block, as powers of two: an EPT table's, and a cache line's
FEW = 16  # pages per block of 512; with fewer, small blocks take less memory


class BlockTable:
    """Numbers (uint32, 0 is none) of frames, for the loops of `pmlkit.kernels`.

    Attributes
    ----------
    arguments : tuple
        Arguments of those loops: keys, slots, cells, shift, state.
    """

    def __init__(self) -> None:
        self._state = np.zeros(2, np.int64)  # pages, blocks
        self._clear(CLOSE, 64)

    @property
    def arguments(self) -> tuple[Gfns, Ids, NDArray[np.uint32], int, Ints]:
        return self._keys, self._slots, self.cells, self._shift, self._state

    @property
    def pages(self) -> int:
        """Number of frames that have a number, according to the caller's count."""
        return int(self._state[0])

    @property
    def full(self) -> bool:
        """Whether the table has no space for another block."""
        return int(self._state[1]) == len(self._keys) // 2

    def _clear(self, shift: int, blocks: int) -> None:
        self._shift = shift
        self._keys = np.zeros(2 * blocks, np.uint64)  # at most half full, so that chains are short
        self._slots = np.empty(2 * blocks, np.int32)
        self.cells = np.empty(blocks << shift, np.uint32)  # numpy requests large pages in np.empty
        self.cells[:] = 0
        self._state[1] = 0

    def grow(self) -> None:
        """Double the number of blocks."""
        from pmlkit.kernels.frames import put_cells

        frames, values = self._items()
        blocks = int(self._state[1])
        if self._shift == CLOSE and blocks >= 1024 and len(frames) < FEW * blocks:
            self._clear(FAR, 1 << (4 * len(frames)).bit_length())
        else:
            self._clear(self._shift, 2 * blocks)
        put_cells(frames, values, *self.arguments)

    def _items(self) -> tuple[Gfns, NDArray[np.uint32]]:
        """Return the frames that have a number, and the numbers."""
        used = np.flatnonzero(self._keys)
        blocks = np.empty(len(used), np.uint64)
        blocks[self._slots[used]] = self._keys[used] - np.uint64(1)
        filled = np.flatnonzero(self.cells)
        offset = (filled & ((1 << self._shift) - 1)).astype(np.uint64)
        frames = (blocks[filled >> self._shift] << np.uint64(self._shift)) | offset
        return frames, self.cells[filled]


def grown(array: Array, size: int, fill: int) -> Array:
    """Return `array` with at least `size` rows: itself, or a copy half as long again."""
    if len(array) >= size:
        return array
    longer = np.empty((max(size, len(array) * 3 // 2), *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    longer[len(array) :] = fill
    return longer
