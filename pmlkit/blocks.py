# SPDX-License-Identifier: Apache-2.0
"""A number for each frame of a sparse address space: frames in blocks, blocks in a hash table.

A guest of a terabyte with holes has frame numbers that no array could be indexed by. Frames that
are used come in runs, so a block holds the numbers of 512 of them, what one page table maps: the
hash table stays small, and neighbours stay together. If the runs turn out to be short, blocks of
16 frames take their place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pmlkit.types import Array, Gfns


__all__ = ["BlockTable", "grown"]

CLOSE, FAR = 9, 4  # frames of a block, as powers of two: an EPT table's, and a cache line's
FEW = 16  # pages in a block of 512: below that, small blocks take less memory


class BlockTable:
    """Numbers (uint32, 0 is none) of frames, for the loops of `pmlkit.kernels`.

    Attributes
    ----------
    arguments : tuple
        What those loops take: keys, slots, cells, shift, state.
    """

    def __init__(self) -> None:
        self._state = np.zeros(2, np.int64)  # pages, blocks
        self._clear(CLOSE, 64)

    @property
    def arguments(self) -> tuple[Array | int, ...]:
        return self._keys, self._slots, self.cells, self._shift, self._state

    @property
    def pages(self) -> int:
        """How many frames have a number, by the count of who gave them."""
        return int(self._state[0])

    @property
    def full(self) -> bool:
        """Whether there is no room for another block."""
        return int(self._state[1]) == len(self._keys) // 2

    def _clear(self, shift: int, blocks: int) -> None:
        self._shift = shift
        self._keys = np.zeros(2 * blocks, np.uint64)
        self._slots = np.empty(2 * blocks, np.int32)
        self.cells = np.empty(blocks << shift, np.uint32)  # numpy asks for large pages with empty
        self.cells[:] = 0
        self._state[1] = 0

    def grow(self) -> None:
        """Make room for as many blocks again."""
        from pmlkit.kernels import put_cells

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
        return (blocks[filled >> self._shift] << np.uint64(self._shift)) | offset, self.cells[
            filled
        ]


def grown(array: Array, size: int, fill: int) -> Array:
    """Return `array` with at least `size` rows: itself, or a copy half as long again."""
    if len(array) >= size:
        return array
    longer = np.empty((max(size, len(array) * 3 // 2), *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    longer[len(array) :] = fill
    return longer
