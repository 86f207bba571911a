# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over the frames of consecutive windows: distinct pages, and how often.

They have no branch that depends on whether a page is new: about every third use of a busy guest's
window is of a new page, so the processor would guess wrong that often, at 20 cycles each (measured:
13 ns a use with a branch, 3 without). What is equal and what is not becomes 0 or 1 by arithmetic
(`kernels.ONES`).

`keys`, `slots`, `cells`, `shift` and `state` are those of `kernels.number_pages`. A table that is
full makes a loop stop; it returns how far it got, to be called again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import uint64

from pmlkit.kernels import GOLDEN, ONES, compiled

if TYPE_CHECKING:
    from pmlkit.types import Array


@compiled
def window_ends(rounds: Array, untils: Array, ends: Array) -> None:
    """Find where each window ends, doubling the step from where the last one did.

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
    """Count the pages of each window from `first` on, and those that the one before had, too.

    Goes on at use `done`, which is in that window. `cells` hold the last window that used a frame,
    plus 2.
    """
    bits = 0
    while 1 << bits < len(keys):
        bits += 1
    drop, mask, shift = uint64(64 - bits), uint64(len(keys) - 1), uint64(shift)  # type: ignore[assignment]
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
            before = uint64(cells[cell])
            new += ((before ^ now) + uint64(ONES)) >> uint64(32)
            again += uint64(1) - (((before ^ (now - uint64(1))) + uint64(ONES)) >> uint64(32))
            cells[cell] = now
        done = max(begin, ends[window])
        pages[window] += new
        stayed[window] += again
    return done


@compiled
def counts(
    gfns: Array,
    ends: Array,
    first: int,
    done: int,
    keys: Array,
    slots: Array,
    cells: Array,
    shift: int,
    state: Array,
    reached: Array,
) -> int:
    """Count, for each window from `first` on and each m, the pages used at least m times in it.

    `reached` has shape (windows, most m + 1): a page adds 1 when its count gets there, and to the
    last column when it is beyond. `cells` hold the last window that used a frame, plus 1, and in
    the low bits the count, up to the most.
    """
    bits, of_count, most = 0, 0, reached.shape[1] - 1
    while 1 << bits < len(keys):
        bits += 1
    while 1 << of_count <= most:
        of_count += 1
    drop, mask, shift = uint64(64 - bits), uint64(len(keys) - 1), uint64(shift)  # type: ignore[assignment]
    low, room = (uint64(1) << shift) - uint64(1), len(cells) >> shift
    for window in range(first, len(ends)):
        none = (window + 1) << of_count
        begin = done
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
                    return done
                keys[at] = block
                slots[at] = state[1]
                state[1] += 1
            cell = (uint64(slots[at]) << shift) | (gfn & low)
            count = max(cells[cell], none) - none  # what an earlier window left is less
            reached[window, count] += 1
            cells[cell] = none + min(count + 1, most)
        done = max(begin, ends[window])
    return done
