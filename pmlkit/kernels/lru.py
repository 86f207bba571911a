# SPDX-License-Identifier: Apache-2.0
"""Compiled loops of miss-ratio curves: the LRU stack as a bit per use, samples, times between uses.

Each use takes the next position, and each page has a bit at the position of its last use. The stack
distance of a use is the number of bits after the page's own. Sums serve to count the bits before
it:

- words of 64 positions have 16-bit counts of the bits before them in their node (32 words);
- nodes have 16-bit counts of those before them in their segment (32 nodes);
- segments have 32-bit counts of those before them in their part (16 segments, a million positions);
- parts count all bits before them.

A bit that is removed reduces the counts after it by 1, a row of 64 bytes at a time. A new bit is
always the last one, and is set with its whole word, because no count extends beyond the last use.
No branch depends on the data, so branch prediction does not matter. When positions run out, they
are assigned again, in order.

The structure therefore takes about 2 bits per position, a few positions per page. A million pages
fit into the second-level cache. The classical tree over the uses (Bennett and Kruskal 1975, Olken
1981) misses that cache in each step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.kernels.jit import AHEAD, compiled, fetch, int64, popcount, subtract, uint64

if TYPE_CHECKING:
    import numpy as np

    from pmlkit.types import Array


WORD, NODE, SEGMENT, PART = 6, 11, 16, 20  # positions of each, as powers of two


@compiled
def _begin(
    top: int, live: int, bits: Array, words: Array, nodes: Array, segments: Array, parts: Array
) -> None:
    """Begin a word at position `top`, after `live` bits, with all bits set."""
    word, part = uint64(top) >> uint64(WORD), uint64(top) >> uint64(PART)
    node, segment = uint64(top) >> uint64(NODE), uint64(top) >> uint64(SEGMENT)
    bits[word] = ~uint64(0)
    if top & ((1 << PART) - 1) == 0:
        parts[part] = live
    live -= parts[part]
    if top & ((1 << SEGMENT) - 1) == 0:
        segments[segment] = live
    live -= segments[segment]
    if top & ((1 << NODE) - 1) == 0:
        nodes[node] = live
    words[word] = live - nodes[node]


@compiled
def advance(
    ids: Array,
    done: int,
    last: Array,
    bits: Array,
    words: Array,
    nodes: Array,
    segments: Array,
    parts: Array,
    rows: tuple[Array, ...],
    masks: tuple[Array, ...],
    page_at: Array,
    out: Array,
    state: Array,
) -> int:
    """Use pages from `done` on; write each use's distance to `out`, -1 for a first one.

    Stops when the positions run out, and returns its position. `rows` are the memory of words,
    nodes and segments as 64-bit words. `masks` are the values to subtract from such rows: of 16
    bits, of 32. `state` contains the next position and the pages.
    """
    top, live = state[0], state[1]
    of_words, of_nodes, of_segments = rows
    narrow, wide = masks
    for i in range(done, len(ids)):
        if top == len(page_at):
            break
        fetch(last, uint64(ids[uint64(min(i + AHEAD, len(ids) - 1))]))
        if top & 63 == 0:
            _begin(top, live, bits, words, nodes, segments, parts)
        page = uint64(ids[i])
        before = last[page]
        if before < 0:
            live += 1
            out[i] = -1
        else:
            place = uint64(before)
            word, node = place >> uint64(WORD), place >> uint64(NODE)
            segment, part = place >> uint64(SEGMENT), place >> uint64(PART)
            bit = uint64(1) << (place & uint64(63))
            marks = bits[word]
            earlier = int64(popcount(marks & (bit - uint64(1))))
            earlier += int64(words[word]) + int64(nodes[node]) + int64(segments[segment])
            out[i] = live - earlier - parts[part] - 1
            bits[word] = marks ^ bit
            subtract(of_words, node << uint64(3), narrow, (word & uint64(31)) << uint64(3))
            subtract(of_nodes, segment << uint64(3), narrow, (node & uint64(31)) << uint64(3))
            subtract(of_segments, part << uint64(3), wide, (segment & uint64(15)) << uint64(3))
            for later in range(part + uint64(1), (uint64(top) >> uint64(PART)) + uint64(1)):
                parts[later] -= 1
        page_at[uint64(top)] = ids[i]
        last[page] = top
        top += 1
    else:
        i = len(ids)
    state[0], state[1] = top, live
    return i


@compiled
def order(bits: Array, page_at: Array, top: int, pages: Array) -> int:
    """Write the pages to `pages`, the most recently used one last; return their number."""
    count = 0
    for word in range(-(-top // 64)):
        rest = bits[word]
        if word == top >> 6:  # positions from `top` on have a bit, but no page
            rest &= (uint64(1) << uint64(top & 63)) - uint64(1)
        while rest:
            lowest = rest & (~rest + uint64(1))
            pages[count] = page_at[(word << 6) + int64(popcount(lowest - uint64(1)))]
            rest ^= lowest
            count += 1
    return count


@compiled
def place(
    pages: Array,
    last: Array,
    bits: Array,
    words: Array,
    nodes: Array,
    segments: Array,
    parts: Array,
    page_at: Array,
    state: Array,
) -> None:
    """Assign the positions 0, 1, ... to pages in an empty structure."""
    for top in range(len(pages)):
        if top & 63 == 0:
            _begin(top, top, bits, words, nodes, segments, parts)
        page_at[top] = pages[top]
        last[uint64(pages[top])] = top
    state[0], state[1] = len(pages), len(pages)


@compiled
def histogram(distances: Array, counts: Array) -> None:
    """Count distances; -1 is not counted."""
    for i in range(len(distances)):
        if distances[i] >= 0:
            counts[uint64(distances[i])] += 1


# ------------------------------------------------------------------------------
# The loops of estimated curves: samples of pages, and times between uses.


@compiled
def sample(
    gfns: Array, multiplier: np.uint64, offset: np.uint64, limit: np.uint64, chosen: Array
) -> int:
    """Find the uses of pages whose hash, a fraction of 2**32, is below `limit`.

    Writes their positions to `chosen`, and returns their number. 64 uses at a time become 64 bits,
    with vector instructions; few of the bits are 1.
    """
    low, kept, words = uint64(0xFFFFFFFF), 0, len(gfns) // 64  # arithmetic is modulo 2**32
    whole = gfns[: words * 64].reshape((words, 64))
    for word in range(words):
        bits = uint64(0)
        for j in range(64):
            gfn = whole[word, j]
            mixed = (((gfn ^ (gfn >> uint64(32))) & low) * multiplier + offset) & low
            # The difference of 64-bit words is negative, and has its highest bit, if it is below.
            bits |= ((mixed - limit) >> uint64(63)) << uint64(j)
        while bits:
            lowest = bits & (~bits + uint64(1))  # -bits; its trailing ones count the position
            chosen[kept] = word * 64 + int64(popcount(lowest - uint64(1)))
            kept += 1
            bits ^= lowest
    for i in range(words * 64, len(gfns)):
        gfn = gfns[i]
        if (((gfn ^ (gfn >> uint64(32))) & low) * multiplier + offset) & low < limit:
            chosen[kept] = i
            kept += 1
    return kept


@compiled
def reuse_times(ids: Array, last: Array, now: int, fine: int, counts: Array) -> None:
    """Add the uses between two uses of a page to a histogram of half-open bins.

    Times below ``2**fine`` have bins of their own; above, each power of two has ``2**(fine - 1)``.
    `now` is the number of the first use; `last`: -1 is never.
    """
    half = 1 << (fine - 1)
    for i in range(len(ids)):
        page = uint64(ids[i])
        before = last[page]
        last[page] = now + i
        if before >= 0:
            time = now + i - before
            power = 0
            while (time >> power) >= 2 * half:
                power += 1
            counts[(time >> power) + power * half] += 1
