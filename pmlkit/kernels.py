# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over uses in log order. Only the modules ``kernels*`` import numba, and nothing
imports them before it calls them, so that nothing else waits for it.

Pages are numbers 0, 1, 2, ... in order of first use (`pmlkit.pageindex`), rounds are numbers from
0 that never fall. Everything that is kept is per page, per round or per window: no array grows
with the address space, or with the log. Callers make the arrays and check what they are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
from numba import uint32, uint64

from pmlkit.kernels_instructions import AHEAD, fetch

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pmlkit.types import Array


GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / the golden ratio, odd: Knuth, TAOCP 3, 6.4
ONES = 0xFFFFFFFF  # (x + ONES) >> 32 is 0 for a 32-bit x of 0, else 1: no branch to guess wrong


def compiled(function: Callable[..., Any]) -> Any:
    """Compile at the first call, outside of the GIL, and keep the result on the disk if we may."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # there is no folder that numba could write to
        return numba.njit(nogil=True)(function)


@compiled
def number_pages(
    gfns: Array,
    done: int,
    ids: Array,
    frames: Array,
    keys: Array,
    slots: Array,
    cells: Array,
    shift: int,
    state: Array,
) -> int:
    """Number pages from `done` on, until the end or until a table is full; return how far it got.

    Blocks are ``2**shift`` frames. `keys` (block + 1, 0 is free) is an open hash table of blocks,
    `slots` says which piece of `cells` each has; there, a frame has its number + 1, 0 for none.
    `state` counts the pages and the blocks.

    The way to a cell is written out in three loops: as a function it would cost more than it does,
    since numba counts references to the arrays of every call.
    """
    bits = 0
    while 1 << bits < len(keys):
        bits += 1
    drop, mask, shift = uint64(64 - bits), uint64(len(keys) - 1), uint64(shift)  # type: ignore[assignment]
    pages = state[0]
    low, room = (uint64(1) << shift) - uint64(1), len(cells) >> shift
    for i in range(done, len(gfns)):
        gfn = uint64(gfns[i])
        block = (gfn >> shift) + uint64(1)
        at = (block * uint64(GOLDEN)) >> drop
        key = keys[at]
        while key != block and key != uint64(0):
            at = (at + uint64(1)) & mask
            key = keys[at]
        if key != block:
            if state[1] == room:
                state[0] = pages
                return i
            keys[at] = block
            slots[at] = state[1]
            state[1] += 1
        cell = (uint64(slots[at]) << shift) | (gfn & low)
        number = cells[cell]
        if number == 0:
            if pages == len(frames):
                state[0] = pages
                return i
            frames[pages] = gfn
            pages += 1
            number = pages
            cells[cell] = number
        ids[i] = number - 1
    state[0] = pages
    return len(gfns)


@compiled
def put_cells(
    frames: Array, values: Array, keys: Array, slots: Array, cells: Array, shift: int, state: Array
) -> None:
    """Write a value into the cell of each frame; there has to be room."""
    bits = 0
    while 1 << bits < len(keys):
        bits += 1
    drop, mask, shift = uint64(64 - bits), uint64(len(keys) - 1), uint64(shift)  # type: ignore[assignment]
    low = (uint64(1) << shift) - uint64(1)
    for i in range(len(frames)):
        gfn = frames[i]
        block = (gfn >> shift) + uint64(1)
        at = (block * uint64(GOLDEN)) >> drop
        while keys[at] != block and keys[at] != uint64(0):
            at = (at + uint64(1)) & mask
        if keys[at] == uint64(0):
            keys[at] = block
            slots[at] = state[1]
            state[1] += 1
        cell = (uint64(slots[at]) << shift) | (gfn & low)
        cells[cell] = values[i]


@compiled
def once_a_round(
    ids: Array, rounds: Array, last: Array, kept_ids: Array, kept_rounds: Array
) -> int:
    """Copy the first use of a page in each round; `last` is the round of each page's last use."""
    kept = uint64(0)
    for i in range(len(ids)):
        page, now = uint64(ids[i]), rounds[i]
        again = uint64(uint32(last[page]) ^ uint32(now)) + uint64(ONES)
        last[page] = now
        kept_ids[kept] = ids[i]
        kept_rounds[kept] = now
        kept += again >> uint64(32)
    return kept  # type: ignore[return-value]


@compiled
def by_round(ids: Array, rounds: Array, stamps: Array, marks: Array, found: Array) -> None:
    """Count the pages of each round, in ``found[0]``, and in ``found[r + 1]`` those with mark r.

    `stamps`: the last round that used a page, plus 1.
    """
    for i in range(len(ids)):
        page, now = uint64(ids[i]), rounds[i]
        new = (uint64(stamps[page] ^ uint32(now + 1)) + uint64(ONES)) >> uint64(32)
        stamps[page] = now + 1
        found[0, now] += new
        bits = marks[page] & (uint64(0) - new)
        row = 1
        while bits:
            found[row, now] += bits & uint64(1)
            bits >>= uint64(1)
            row += 1


@compiled
def shorter(length: int, sizes: Array, table: Array, shift: int) -> int:
    """Return how many of the sorted `sizes` are less than a length.

    For each ``2**shift`` lengths, up to the last size, `table` has that number of the first and of
    the last of them (`pmlkit.reuse.Sizes`): what lies between is searched for.
    """
    at = length >> shift
    if at >= len(table):
        return len(sizes)
    low, high = table[at, 0], table[at, 1]
    while low < high:
        middle = (low + high) >> 1
        if sizes[middle] < length:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def sweep(
    ids: Array,
    rounds: Array,
    at: Array,
    last: Array,
    sizes: Array,
    table: Array,
    shift: int,
    entered: Array,
    left: Array,
) -> None:
    """Note for each use which of several windows its page had left since its last use.

    `at` says where rounds end. `entered` and `left`, shape (rounds, windows + 1), count the uses
    by how many of the `sizes` of windows are less than the time since the use before, at the round
    of the use and at that of the use before; `left` has a last row for pages never used before,
    whose `last` is -1.
    """
    none = len(sizes)
    for i in range(len(ids)):
        page, now = uint64(ids[i]), rounds[i]
        before = last[page]
        last[page] = now
        out = shorter(at[now] - at[before], sizes, table, shift) if before >= 0 else none
        entered[now, out] += 1
        left[before, out] += 1


@compiled
def reuse(
    ids: Array,
    rounds: Array,
    at: Array,
    ring: Array,
    uses: Array,
    counts: Array,
    sizes: Array,
    table: Array,
    shift: int,
    gaps: Array,
    gap_sums: Array,
    bends: Array,
    bend_sums: Array,
    firsts: Array,
    reached: Array,
) -> None:
    """Add the uses to the histograms of `pmlkit.reuse.Reuse`.

    `at` says where rounds end. `ring`, shape (pages, a power of two): the rounds of each page's
    last uses; `uses`: how many it had. Of use i of a page only the page's next use says how long
    it counted (`hold`), so each use closes the one before. For each threshold m of `counts`, the
    mean working set grows with the window T from ``span`` (where the m-th last use lies) to ``span
    + hold`` (`occurrences`); for m = 1 the gaps say it all. Each bin, one for each of the `sizes`
    of windows (`shorter`), has how many there are and their sum.
    """
    mask = ring.shape[1] - 1
    for i in range(len(ids)):
        ahead = uint64(ids[uint64(min(i + AHEAD, len(ids) - 1))])
        fetch(uses, ahead)  # type: ignore[call-arg]
        fetch(ring, ahead * uint64(mask + 1))
        page, now = uint64(ids[i]), rounds[i]
        had = uses[page]
        if had:
            last = ring[page, (had - 1) & mask]
            hold = at[now] - at[last]
            place = shorter(hold, sizes, table, shift)
            gaps[place] += 1
            gap_sums[place] += hold
            for j in range(len(counts)):
                if had >= counts[j]:
                    span = at[last] - at[ring[page, (had - counts[j]) & mask]]
                    place = shorter(span, sizes, table, shift)
                    bends[j, place] += 1
                    bend_sums[j, place] += span
                    place = shorter(span + hold, sizes, table, shift)
                    bends[j, place] -= 1
                    bend_sums[j, place] -= span + hold
        else:
            firsts[now] += 1
        for j in range(len(counts)):
            reached[j, now] += had + 1 == counts[j]
        ring[page, had & mask] = now
        uses[page] = had + 1


@compiled
def reuse_ends(
    end: int,
    at: Array,
    ring: Array,
    uses: Array,
    counts: Array,
    sizes: Array,
    table: Array,
    shift: int,
    bends: Array,
    bend_sums: Array,
) -> None:
    """Close the last use of every page: it counted to the end."""
    mask = ring.shape[1] - 1
    for page in range(len(uses)):
        had = uses[page]
        for j in range(len(counts)):
            if had >= counts[j]:
                last = at[ring[page, (had - 1) & mask]]
                span = last - at[ring[page, (had - counts[j]) & mask]]
                place = shorter(span, sizes, table, shift)
                bends[j, place] += 1
                bend_sums[j, place] += span
                place = shorter(span + end - last, sizes, table, shift)
                bends[j, place] -= 1
                bend_sums[j, place] -= span + end - last


@compiled
def slide(
    ids: Array,
    rounds: Array,
    enter: Array,
    leave: Array,
    m: int,
    ring: Array,
    uses: Array,
    marks: Array,
    steps: Array,
) -> None:
    """Add up where pages enter and leave the working sets of windows, with threshold m.

    `enter` and `leave` are those of `pmlkit.timeline.Windows`. ``steps[0]`` is of all pages,
    ``steps[r + 1]`` of those with bit r in `marks`. Each use closes the page's one before, so at
    the end every page has to be used once more, after all rounds.
    """
    mask = ring.shape[1] - 1
    for i in range(len(ids)):
        ahead = uint64(ids[uint64(min(i + AHEAD, len(ids) - 1))])
        fetch(uses, ahead)  # type: ignore[call-arg]
        fetch(ring, ahead * uint64(mask + 1))
        page, now = uint64(ids[i]), rounds[i]
        had = uses[page]
        if had >= m:
            last = enter[ring[page, (had - 1) & mask]]
            end = min(leave[ring[page, (had - m) & mask]], enter[now])
            bits = marks[page] if end > last else uint64(0)
            steps[0, last] += end > last
            steps[0, end] -= end > last
            row = 1
            while bits:
                if bits & uint64(1):
                    steps[row, last] += 1
                    steps[row, end] -= 1
                bits >>= uint64(1)
                row += 1
        ring[page, had & mask] = now
        uses[page] = had + 1
