# SPDX-License-Identifier: Apache-2.0
"""LRU stack distances of short traces, by numpy alone: importing the compiler takes longer.

Take a use at place i whose page was last used at place p. There are ``i - p - 1`` uses between. A
page counts once: a use between whose own last use is after p is a repetition. So the distance is
``i - p - 1`` less the uses before i whose last use is after p. Over all uses these are the
inversions of a permutation, which `earlier_greater` counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pmlkit.types import Array, Gfns, Ints

__all__ = ["distances", "earlier_greater"]

BLOCK, ROW = 10, 5  # places of a block and of a row, as powers of two: a block has 32 rows
_CHUNK = 4096  # rows compared at once: their comparisons stay in the cache


def distances(last: Ints) -> Ints:
    """Return the stack distance of each use that is not the first of its page.

    Parameters
    ----------
    last : ndarray of int64, shape (uses,)
        The place of the page's use before, -1 for none.

    Returns
    -------
    ndarray of int64
        In order of use.
    """
    places = np.flatnonzero(last >= 0)
    before = last[places]
    marks = np.zeros(len(last), np.int64)
    marks[before] = 1
    return places - before - 1 - earlier_greater(np.cumsum(marks)[before] - 1)


def earlier_greater(ranks: Ints) -> Ints:
    """Count for each element of a permutation of 0, 1, ... the greater elements before it.

    Blocks of places cross blocks of values. A greater element before is in an earlier block of
    places and a greater block of values, or in the same block of places and a greater one of
    values, or in the same block of values. The last two are permutations of blocks.
    """
    blocks = -(-len(ranks) >> BLOCK)
    places = np.arange(blocks << BLOCK)
    values = np.append(ranks, places[len(ranks) :])  # whole blocks; the padding changes no count
    block, of_value = places >> BLOCK, values >> BLOCK
    counts = _crossed(block * blocks + of_value, 1, blocks)
    # Within a block of places: the order by block of value and place, which replaces the values.
    where = _low(_sorted(block, of_value, 32, places), BLOCK) | (block << BLOCK)
    inner = np.empty_like(places)
    inner[where] = places & ((1 << BLOCK) - 1)
    counts += _in_blocks(inner)
    # Within a block of values: the order by place.
    packed = _sorted(of_value, places, 32, values)
    counts[_low(packed >> np.uint64(BLOCK), 32)] += _in_blocks(_low(packed, BLOCK))
    return counts[: len(ranks)]


def _in_blocks(values: Ints) -> Ints:
    """Count as `earlier_greater` within each block, which is a permutation of its places."""
    size, low = 1 << BLOCK, (1 << ROW) - 1
    blocks = values.astype(np.uint32).reshape(-1, size)
    places = np.arange(size, dtype=np.uint32)
    of_value = blocks >> ROW
    first = np.arange(len(blocks))[:, None] << BLOCK
    found = _crossed(
        (first + ((places >> ROW << ROW) | of_value)).reshape(-1), len(blocks), 1 << ROW
    )
    found += _in_rows(of_value)
    packed = (of_value << (BLOCK + ROW)) | (places << ROW) | (blocks & low)
    packed.sort(axis=1)
    where = first + ((packed >> ROW) & (size - 1))
    found[where.reshape(-1)] += _in_rows(packed & low)
    return found


def _sorted(group: Ints, order: Ints, bits: int, values: Ints) -> Gfns:
    """Sort triples packed into a number: group, `bits` of order, the place in a block of values."""
    triples = (group << (bits + BLOCK)) | (order << BLOCK) | (values & ((1 << BLOCK) - 1))
    packed: Gfns = triples.astype(np.uint64)
    packed.sort()
    return packed


def _low(packed: Gfns, bits: int) -> Ints:
    return (packed & np.uint64((1 << bits) - 1)).view(np.int64)


def _crossed(cells: Ints, tables: int, size: int) -> Ints:
    """Count for each element the elements in earlier rows and later columns of its table.

    `cells` are the elements' places in all tables, each of shape (size, size).
    """
    counts = np.bincount(cells, minlength=tables * size * size).astype(np.int32)
    counts = counts.reshape(tables, size, size)
    later = np.cumsum(counts[:, :, ::-1], axis=2, dtype=np.int32)[:, :, ::-1] - counts
    earlier = np.cumsum(later, axis=1, dtype=np.int32) - later
    return earlier.reshape(-1)[cells].astype(np.int64)


def _in_rows(values: Array) -> Array:
    """Count the greater values before each one in its row of 32.

    The rows are turned, so that each comparison is one of long arrays of bytes: of all places
    before one with this place.
    """
    rows = values.astype(np.uint8).reshape(-1, 1 << ROW)
    found = np.empty(rows.shape, np.uint8)
    for first in range(0, len(rows), _CHUNK):
        some = np.ascontiguousarray(rows[first : first + _CHUNK].T)
        counts = np.zeros_like(some)
        for place in range(1, 1 << ROW):
            greater = some[:place] > some[place]
            np.add.reduce(greater.view(np.uint8), axis=0, out=counts[place])
        found[first : first + _CHUNK] = counts.T
    return found.reshape(-1)
