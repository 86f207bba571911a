# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over uses in log order, and over uses sorted by page.

Importing numba takes long: callers import this module inside the functions that need it.

Pages are numbers 0, 1, 2, ... in order of first use (`pmlkit.kernels.pages`). Rounds are numbers
from 0 that never fall. Everything that is kept is per page, per round or per window: no array grows
with the address space, or with the log. Callers make the arrays and check what they are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
from llvmlite import ir
from numba import types, uint32, uint64
from numba.core import cgutils
from numba.extending import intrinsic

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
def by_round(ids: Array, rounds: Array, stamps: Array, marks: Array, counts: Array) -> None:
    """Count the pages of each round, in ``counts[0]``, and in ``counts[r + 1]`` those with mark r.

    `stamps`: the last round that used a page, plus 1.
    """
    for i in range(len(ids)):
        page, now = uint64(ids[i]), rounds[i]
        new = (uint64(stamps[page] ^ uint32(now + 1)) + uint64(ONES)) >> uint64(32)
        stamps[page] = now + 1
        counts[0, now] += new
        bits = marks[page] & (uint64(0) - new)
        row = 1
        while bits:
            counts[row, now] += bits & uint64(1)
            bits >>= uint64(1)
            row += 1


@compiled
def shorter(length: int, sizes: Array, table: Array, shift: int) -> int:
    """Return how many of the sorted `sizes` are less than a length.

    For each ``2**shift`` lengths, up to the last size, `table` has that number of the first and of
    the last of them (`pmlkit.kernels.by_time.Sizes`): what lies between is searched for.
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
    """Add the uses to the histograms of `pmlkit.kernels.by_time.Reuse`.

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


# ------------------------------------------------------------------------------
# Compiled loops over the frames of consecutive windows: distinct pages, and how often.
#
# They have no branch that depends on whether a page is new: about every third use of a busy
# guest's window is of a new page, so the processor would guess wrong that often, at 20 cycles
# each (measured: 13 ns a use with a branch, 3 without). What is equal and what is not becomes 0
# or 1 by arithmetic (`kernels.ONES`).
#
# `keys`, `slots`, `cells`, `shift` and `state` are those of `kernels.number_pages`. A table that is
# full makes a loop stop; it returns how far it got, to be called again.


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


# ------------------------------------------------------------------------------
# Instructions of the processor that numba has no word for.


AHEAD = 16  # uses between asking for what is kept of a page and needing it: what a cache miss takes


@intrinsic
def popcount(typing: Any, word: Any) -> tuple[Any, Callable[..., Any]]:
    """Count the bits of a word: one instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def fetch(typing: Any, array: Any, at: Any) -> tuple[Any, Callable[..., Any]]:
    """Ask for an element (by its place in memory) that will be needed: it waits for nothing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = context.make_array(array)(context, builder, arguments[0])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        element = builder.bitcast(builder.gep(made.data, [arguments[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")  # type: ignore[no-untyped-call]
        # to be written, kept in all caches, data
        builder.call(prefetch, [element, number(1), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


# ------------------------------------------------------------------------------
# The compiled loop of an import: rows in order of time become rounds (see `pmlkit.interop.rounds`).


KEEP, SPLIT, SPLIT_ANY, MERGE = range(4)
# What `state` holds.
ROUND, START, END, CUTS, MERGED, EMITTED = range(6)


@compiled
def cut_rounds(
    starts: Array,
    ends: Array,
    ids: Array,
    kinds: Array,
    how: int,
    last_round: Array,
    last_kinds: Array,
    state: Array,
    numbers: Array,
    spans: Array,
) -> int:
    """Number the rounds of rows; return the first row that is out of order, or how many they are.

    `numbers` gets each row's round, or -1 for a row that is merged into an earlier one; `spans`
    the start and end of each new round, ``state[EMITTED]`` of them: at most two a row.
    `last_round` and `last_kinds` say of each page in which round it was seen last, and how.
    """
    emitted = 0
    for i in range(len(ids)):
        page, kind = ids[i], kinds[i]
        if state[ROUND] < 0 or starts[i] != state[START] or ends[i] != state[END]:
            if ends[i] < starts[i] or (state[ROUND] >= 0 and starts[i] < state[END]):
                state[EMITTED] = emitted
                return i
            if state[ROUND] >= 0 and starts[i] > state[END]:  # nothing was used in between
                spans[emitted, 0], spans[emitted, 1] = state[END], starts[i]
                emitted += 1
                state[ROUND] += 1
            spans[emitted, 0], spans[emitted, 1] = starts[i], ends[i]
            emitted += 1
            state[ROUND] += 1
            state[START], state[END] = starts[i], ends[i]
        elif (
            how != KEEP
            and last_round[page] == state[ROUND]
            and (how == SPLIT_ANY or last_kinds[page] & kind)
        ):
            if how == MERGE:
                state[MERGED] += 1
                numbers[i] = -1
                continue
            spans[emitted, 0], spans[emitted, 1] = ends[i], ends[i]
            emitted += 1
            state[ROUND] += 1
            state[CUTS] += 1
        if last_round[page] != state[ROUND]:
            last_round[page], last_kinds[page] = state[ROUND], 0
        last_kinds[page] |= kind
        numbers[i] = state[ROUND]
    state[EMITTED] = emitted
    return len(ids)


@compiled
def next_accesses(ids: Array, first: int, coming: Array, following: Array) -> None:
    """Say of each use which use of its page comes next, -1 for none; uses are taken from the end.

    `first` is the number of the first of `ids`; `coming` holds each page's next use.
    """
    for i in range(len(ids) - 1, -1, -1):
        following[i] = coming[ids[i]]
        coming[ids[i]] = first + i


# ------------------------------------------------------------------------------
# Loops over uses sorted by page: the sizes of windows, or the means of several T.
#
# `pmlkit.kernels.by_page` has the formulas. Nothing is copied to look at other rounds, other pages
# or another threshold: `starts` says where each page's uses begin, `chosen` which pages count. The
# rounds from `first` to before `stop` are looked at as if there were no others.


@compiled
def _inside(a: int, b: int, rounds: Array, first: int, stop: int) -> tuple[int, int]:
    """Narrow a page's references, from `a` to before `b`, to the rounds from `first` to `stop`."""
    while a < b and rounds[a] < first:
        a += 1
    while a < b and rounds[b - 1] >= stop:
        b -= 1
    return a, b


@compiled
def slide_pages(
    starts: Array,
    rounds: Array,
    chosen: Array,
    pages: tuple[int, int],
    span: tuple[int, int],
    enter: Array,
    leave: Array,
    min_count: int,
    steps: Array,
) -> None:
    """Add to `steps` where the pages from ``pages[0]`` to ``pages[1]`` enter windows and leave.

    `enter` and `leave` are those of `pmlkit.timeline.Windows` over the rounds of `span`. `steps`,
    int32, shape (windows + 1,): its running sum is the working set of each window.
    """
    first, stop = span
    back = min_count - 1
    for page in range(pages[0], pages[1]):
        if not chosen[page]:
            continue
        a, b = _inside(starts[page], starts[page + 1], rounds, first, stop)
        for i in range(a + back, b):
            at = enter[rounds[i] - first]
            until = enter[(rounds[i + 1] if i + 1 < b else stop) - first]
            last = min(leave[rounds[i - back] - first], until)
            if last > at:
                steps[at] += 1
                steps[last] -= 1


@compiled
def sum_pages(
    starts: Array,
    rounds: Array,
    chosen: Array,
    pages: tuple[int, int],
    span: tuple[int, int],
    at: Array,
    sizes: Array,
    min_count: int,
    sums: Array,
) -> None:
    """Add to `sums` the integral of W(t, T) over the time of full windows, for each T of `sizes`.

    `at` says where the rounds of `span` end and, at last, where all does: windows are full from T
    on. A page is in W from its use on, until T after the `min_count`-th last one, if it is not
    used again by then. `sizes` is ascending, `sums` are floats.
    """
    first, stop = span
    back = min_count - 1
    for page in range(pages[0], pages[1]):
        if not chosen[page]:
            continue
        a, b = _inside(starts[page], starts[page + 1], rounds, first, stop)
        for i in range(a + back, b):
            since, used = at[rounds[i - back] - first], at[rounds[i] - first]
            until = at[(rounds[i + 1] if i + 1 < b else stop) - first]
            for j in range(len(sizes)):
                if sizes[j] >= until:  # all that is left of longer windows is cut short
                    break
                held = min(since + sizes[j], until) - max(used, sizes[j])
                sums[j] += max(held, 0)
