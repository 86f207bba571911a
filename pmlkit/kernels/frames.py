# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over frames: their numbers in order of first use, and the windows that use them.

Importing numba takes long. Callers therefore import this module inside the functions that need it.
The tables are those of `pmlkit.kernels.pages.BlockTable`. A loop that runs out of space in them
stops and returns its position. The caller enlarges them and calls it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.kernels.jit import GOLDEN, ONES, compiled, uint64

if TYPE_CHECKING:
    from pmlkit.types import Array


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
    """Number pages from position `done` until the end or a full table; return the new position.

    Blocks are ``2**shift`` frames. `keys` (block + 1, 0 is free) is an open hash table of blocks.
    `slots` gives the piece of `cells` for each block. There, a frame has its number + 1, or 0 for
    none. `state` counts the pages and the blocks.

    The way to a cell is written out in three loops. As a function it would take longer than its
    work, because numba counts references to the arrays of every call.
    """
    bits = 0
    while 1 << bits < len(keys):
        bits += 1
    drop, mask, shift = uint64(64 - bits), uint64(len(keys) - 1), uint64(shift)
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
    """Write a value into the cell of each frame; there must be space."""
    bits = 0
    while 1 << bits < len(keys):
        bits += 1
    drop, mask, shift = uint64(64 - bits), uint64(len(keys) - 1), uint64(shift)
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


# ------------------------------------------------------------------------------
# The distinct frames of consecutive windows, and those that the previous window had, too.
#
# No branch depends on whether a page is new. About every third use of a busy guest's window is of a
# new page, so a branch would be mispredicted that often, at 20 cycles each (measured: 13 ns a use
# with a branch, 3 without). Arithmetic turns equality into 0 or 1 (`jit.ONES`).


@compiled
def window_ends(rounds: Array, untils: Array, ends: Array) -> None:
    """Find the end of each window, doubling the step from the end of the previous one.

    `untils` are the first rounds that are later than each window.
    """
    at = 0
    for window in range(len(ends)):
        until, step = untils[window], 1
        while at + step <= len(rounds) and rounds[at + step - 1] < until:
            at += step
            step *= 2
        while step:
            if at + step <= len(rounds) and rounds[at + step - 1] < until:
                at += step
            step >>= 1
        ends[window] = at


@compiled
def distinct(
    gfns: Array,
    ends: Array,
    first: int,
    done: int,
    keys: Array,
    slots: Array,
    cells: Array,
    shift: int,
    state: Array,
    pages: Array,
    stayed: Array,
) -> int:
    """Count the pages of each window from `first` on, and those that were also in the previous one.

    Continues at use `done`, which is in that window. `cells` contain the last window that used a
    frame, plus 2, so an empty cell, 0, is never the window before the first.
    """
    bits = 0
    while 1 << bits < len(keys):
        bits += 1
    drop, mask, shift = uint64(64 - bits), uint64(len(keys) - 1), uint64(shift)
    low, room = (uint64(1) << shift) - uint64(1), len(cells) >> shift
    for window in range(first, len(ends)):
        now = uint64(window + 2)
        new, again, begin = uint64(0), uint64(0), done
        for done in range(begin, ends[window]):
            gfn = uint64(gfns[done])
            block = (gfn >> shift) + uint64(1)
            at = (block * uint64(GOLDEN)) >> drop
            key = keys[at]
            while key != block and key != uint64(0):
                at = (at + uint64(1)) & mask
                key = keys[at]
            if key != block:
                if state[1] == room:
                    pages[window] += new
                    stayed[window] += again
                    return done
                keys[at] = block
                slots[at] = state[1]
                state[1] += 1
            cell = (uint64(slots[at]) << shift) | (gfn & low)
            # A page is new if its last window is not this one; it stayed if it is the one before.
            before = uint64(cells[cell])
            new += ((before ^ now) + uint64(ONES)) >> uint64(32)
            again += uint64(1) - (((before ^ (now - uint64(1))) + uint64(ONES)) >> uint64(32))
            cells[cell] = now
        done = max(begin, ends[window])
        pages[window] += new
        stayed[window] += again
    return done
