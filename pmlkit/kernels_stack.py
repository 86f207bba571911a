# SPDX-License-Identifier: Apache-2.0
"""The LRU stack as a bit per use: compiled loops behind `pmlkit.stack`.

Each use takes the next position, each page keeps the bit of its last one. The stack distance of a
use is the number of bits after the page's own. To count them, words of 64 bits have 16-bit counts
of the bits before them in their node (32 words), and nodes those before them in their segment (32
nodes); segments, 65,536 positions each, are in a Fenwick tree. A bit that goes takes 1 from the
counts after it, 32 lanes at a time; a bit that comes is always the last, and changes no count that
anybody has asked for yet. Positions that run out are given anew, in order. So the structure takes
about 2 bits a position, a few positions a page: a million pages fit into the second-level cache,
where the classical tree over the uses (Bennett and Kruskal 1975, Olken 1981) misses it in every
step.
"""

from llvmlite import ir
from numba import int64, types, uint64
from numba.extending import intrinsic

from pmlkit.kernels import compiled

SEGMENT = 1 << 16
AHEAD = 1024  # uses whose pages are fetched together, before they are needed


@intrinsic
def popcount(typing, word):
    """Count the bits of a word: one instruction."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def take(typing, counts, at, masks, row):
    """Subtract 8 words of `masks` from 8 of `counts`: 32 lanes of 16 bits, in two instructions."""

    def generate(context, builder, signature, arguments):
        lanes = ir.VectorType(ir.IntType(64), 8)

        def place(array, index):
            made = context.make_array(signature.args[array])(context, builder, arguments[array])
            pointer = builder.gep(made.data, [arguments[index]])
            return builder.bitcast(pointer, lanes.as_pointer())

        target, mask = place(0, 1), place(2, 3)
        less = builder.sub(builder.load(target, align=8), builder.load(mask, align=8))
        builder.store(less, target, align=8)
        return context.get_dummy_value()

    return types.void(counts, types.uint64, masks, types.uint64), generate


@compiled
def _add(tree, index, amount):
    while index < len(tree):
        tree[index] += amount
        index += index & -index


@compiled
def _new_word(top, in_last, bits, words, nodes, tree):
    """Begin a word, and the node and the segment that begin with it; return the last's bits."""
    word, node = uint64(top) >> uint64(6), uint64(top) >> uint64(11)
    if top & (SEGMENT - 1) == 0 and top > 0:
        _add(tree, top >> 16, in_last)
        in_last = 0
    if top & 2047:
        words[word] = words[word - uint64(1)] + popcount(bits[word - uint64(1)])
        return in_last
    words[word] = 0
    nodes[node] = 0
    if top & (SEGMENT - 1):
        whole = uint64(0)
        for j in range(1, 33):
            whole += popcount(bits[word - uint64(j)])
        nodes[node] = nodes[node - uint64(1)] + whole
    return in_last


@compiled
def advance(ids, done, last, bits, words, words4, nodes, nodes4, tree, page_at, masks, out, state):
    """Use pages from `done` on; write each use's distance to `out`, -1 for a first one.

    Stops where the positions run out, and returns how far it got. `words` and `nodes` are the
    16-bit counts, `words4` and `nodes4` the same memory as words of four; `state` holds the next
    position, the pages, and the bits of the last segment.
    """
    top, live, in_last = state[0], state[1], state[2]
    touched = 0
    for i in range(done, len(ids)):
        if top == len(page_at):
            break
        if (i - done) & (AHEAD - 1) == 0:
            for j in range(i, min(i + AHEAD, len(ids))):
                touched += last[uint64(ids[j])]
        if top & 63 == 0:
            in_last = _new_word(top, in_last, bits, words, nodes, tree)
        page = uint64(ids[i])
        before = last[page]
        if before < 0:
            live += 1
            out[i] = -1
        else:
            place = uint64(before)
            word, node, segment = place >> uint64(6), place >> uint64(11), place >> uint64(16)
            bit = uint64(1) << (place & uint64(63))
            found = bits[word]
            earlier = int64(popcount(found & (bit - uint64(1))))
            earlier += int64(words[word]) + int64(nodes[node])
            j = int64(segment)
            while j > 0:
                earlier += tree[j]
                j &= j - 1
            out[i] = live - earlier - 1
            bits[word] = found ^ bit
            take(words4, node << uint64(3), masks, (word & uint64(31)) << uint64(3))
            take(nodes4, segment << uint64(3), masks, (node & uint64(31)) << uint64(3))
            if segment == uint64(top) >> uint64(16):
                in_last -= 1
            else:
                j = int64(segment) + 1
                while j < len(tree):
                    tree[j] -= 1
                    j += j & -j
        bits[uint64(top) >> uint64(6)] |= uint64(1) << uint64(top & 63)
        page_at[uint64(top)] = ids[i]
        last[page] = top
        in_last += 1
        top += 1
    else:
        i = len(ids)
    state[0], state[1], state[2], state[3] = top, live, in_last, touched
    return i


@compiled
def order(bits, page_at, pages):
    """Write the pages to `pages`, the one used last at the end; return how many there are."""
    count = 0
    for word in range(len(bits)):
        rest = bits[word]
        while rest:
            lowest = rest & (~rest + uint64(1))
            pages[count] = page_at[(word << 6) + int64(popcount(lowest - uint64(1)))]
            rest ^= lowest
            count += 1
    return count


@compiled
def place(pages, last, bits, words, words4, nodes, nodes4, tree, page_at, state):
    """Give pages the positions 0, 1, ... in an empty structure."""
    in_last = 0
    for top in range(len(pages)):
        if top & 63 == 0:
            in_last = _new_word(top, in_last, bits, words, nodes, tree)
        bits[top >> 6] |= uint64(1) << uint64(top & 63)
        page_at[top] = pages[top]
        last[uint64(pages[top])] = top
        in_last += 1
    state[0], state[1], state[2] = len(pages), len(pages), in_last


@compiled
def histogram(distances, counts):
    """Count distances; -1 is counted nowhere."""
    for i in range(len(distances)):
        if distances[i] >= 0:
            counts[uint64(distances[i])] += 1


@compiled
def classical(ids, last, tree, out):
    """Distances by a tree over the uses (Bennett and Kruskal 1975): the oracle, O(uses) memory."""
    for i in range(len(ids)):
        before = last[ids[i]]
        out[i] = -1
        if before >= 0:
            inside = 0
            j = i
            while j > 0:
                inside += tree[j]
                j &= j - 1
            j = before + 1
            while j > 0:
                inside -= tree[j]
                j &= j - 1
            out[i] = inside
            _add(tree, before + 1, -1)
        _add(tree, i + 1, 1)
        last[ids[i]] = i
