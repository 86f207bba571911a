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
    from pmlkit.types import Array, Ids

__all__ = ["distances", "earlier_greater"]

BLOCK, WORD = 10, 6  # places of a block and bits of a word, as powers of two: 16 words a block
SIZE = 1 << BLOCK


def distances(last: Ids) -> Ids:
    """Return the stack distance of each use that is not the first of its page.

    Parameters
    ----------
    last : ndarray of int32, shape (uses,)
        The place of the page's use before, -1 for none.

    Returns
    -------
    ndarray of int32
        In order of use.
    """
    places = np.flatnonzero(last >= 0).astype(np.int32)
    before = last[places]
    marks = np.zeros(len(last), np.int8)
    marks[before] = 1
    return places - before - 1 - earlier_greater(np.cumsum(marks, dtype=np.int32)[before] - 1)


def earlier_greater(ranks: Array) -> Ids:
    """Count for each element of a permutation of 0, 1, ... the greater elements before it.

    Blocks of places cross blocks of values. A greater element before is in an earlier block of
    places and a greater block of values, or in the same block of places and a greater one of
    values, or in the same block of values. The last two are permutations of blocks.

    Parameters
    ----------
    ranks : ndarray of int, shape (elements,)
        At most 2**22 elements: an element's block and its place in a block share 32 bits.
    """
    blocks = -(-len(ranks) >> BLOCK)
    values = np.arange(blocks << BLOCK)  # whole blocks; the padding changes no count
    values[: len(ranks)] = ranks
    place_of = np.empty(len(values), np.uint32)
    place_of[values] = np.arange(len(values), dtype=np.uint32)
    of_value = (values >> BLOCK).astype(np.uint32).reshape(blocks, SIZE)
    # Rows: each block of places by block of value and place, then each block of values by place.
    rows = np.concatenate([of_value, place_of.reshape(blocks, SIZE)])
    rows <<= BLOCK
    rows |= np.arange(SIZE, dtype=np.uint32)
    rows.sort(axis=1)
    low = rows.astype(np.uint16) & np.uint16(SIZE - 1)
    order = _put(low[:blocks], np.arange(SIZE))  # replaces the values of a block of places
    columns = np.empty((SIZE, 2 * blocks), np.uint16)
    columns[:, :blocks], columns[:, blocks:] = order.T, low[blocks:].T
    found = _in_columns(columns).T
    of_values = _put(low[blocks:], found[blocks:]).reshape(-1)
    counts = _crossed(of_value)
    counts += found[:blocks]
    return (counts.reshape(-1) + of_values[values])[: len(ranks)]


def _put(places: Array, values: Array) -> Array:
    """Put values into rows at places, which are a permutation in each row."""
    rows = np.empty_like(places)
    np.put_along_axis(rows, places, values, axis=1)
    return rows


def _crossed(of_value: Array) -> Ids:
    """Count for each element those in earlier blocks of places and greater blocks of values.

    Parameters
    ----------
    of_value : ndarray of int, shape (blocks, SIZE)
        The block of each element's value, a row for each block of places.
    """
    greater = np.zeros(len(of_value), np.int64)  # elements so far, by block of value
    counts = np.empty(of_value.shape, np.int32)
    for row, found in zip(of_value, counts, strict=True):
        found[:] = greater[row]
        greater += SIZE - np.cumsum(np.bincount(row, minlength=len(greater)))
    return counts


def _in_columns(columns: Array) -> Array:
    """Count as `earlier_greater` within each column, which is a permutation of 0 to SIZE - 1.

    All columns advance together, a place at a time. A column keeps a bit for each value so far,
    and for each word of bits the number of values in greater words.

    Parameters
    ----------
    columns : ndarray of uint16, shape (SIZE, blocks)

    Returns
    -------
    ndarray of uint16, shape (SIZE, blocks)
    """
    words, blocks = SIZE >> WORD, columns.shape[1]
    bits = np.zeros(words * blocks, np.uint64)
    greater = np.zeros((words, blocks), np.uint16)
    of_word, column = greater.reshape(-1), np.arange(blocks)
    word_numbers = np.arange(words, dtype=np.uint8)[:, None]
    counts = np.empty_like(columns)
    for values, found in zip(columns, counts, strict=True):
        word = (values >> WORD).astype(np.uint8)
        place = (values & ((1 << WORD) - 1)).astype(np.uint64)
        at = word * np.intp(blocks) + column
        marks = bits[at]
        np.add(of_word[at], np.bitwise_count(marks >> place), out=found)
        bits[at] = marks | (np.uint64(1) << place)
        greater += word > word_numbers
    return counts
