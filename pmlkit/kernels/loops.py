# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over uses in log order, and over uses sorted by page.

Importing numba takes long. Callers therefore import this module inside the functions that need it.

Pages are numbers 0, 1, 2, ... in order of first use (`pmlkit.kernels.pages`). Rounds are numbers
from 0 that never decrease. All state is per page, per round or per window: no array grows with the
address space, or with the log. Callers create the arrays and check the arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.kernels.jit import AHEAD, ONES, compiled, fetch, uint32, uint64

if TYPE_CHECKING:
    from pmlkit.types import Array


@compiled
def once_a_round(
    ids: Array, rounds: Array, last: Array, kept_ids: Array, kept_rounds: Array
) -> int:
    """Copy the first use of a page in each round; `last` is the round of each page's last use."""
    kept = uint64(0)
    for i in range(len(ids)):
        # Without a branch: a repeated use is written, too, and the next one overwrites it.
        page, now = uint64(ids[i]), rounds[i]
        again = uint64(uint32(last[page]) ^ uint32(now)) + uint64(ONES)
        last[page] = now
        kept_ids[kept] = ids[i]
        kept_rounds[kept] = now
        kept += again >> uint64(32)
    return kept


@compiled
def by_round(ids: Array, rounds: Array, stamps: Array, marks: Array, counts: Array) -> None:
    """Count the pages of each round, in ``counts[0]``, and those with mark r in ``counts[r + 1]``.

    `stamps`: the last round that used a page, plus 1.
    """
    for i in range(len(ids)):
        page, now = uint64(ids[i]), rounds[i]
        new = (uint64(stamps[page] ^ uint32(now + 1)) + uint64(ONES)) >> uint64(32)
        stamps[page] = now + 1
        counts[0, now] += new
        bits = marks[page] & (uint64(0) - new)  # all bits, or none if the page is not new
        row = 1
        while bits:
            counts[row, now] += bits & uint64(1)
            bits >>= uint64(1)
            row += 1


@compiled
def shorter(length: int, sizes: Array, table: Array, shift: int) -> int:
    """Return how many of the sorted `sizes` are less than a length.

    For each ``2**shift`` lengths, up to the last size, `table` has that number for the first and
    for the last of them (`pmlkit.kernels.by_time.Sizes`). Only the sizes in between are searched.
    """
    at = length >> shift
    if at >= len(table):
        return len(sizes)
    return _place(sizes, table[at, 0], table[at, 1], length)


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
    """Record for each use which of several windows its page had left since its last use.

    `at` contains the ends of rounds. `entered` and `left`, shape (rounds, windows + 1), count the
    uses. The column is the number of `sizes` of windows that are shorter than the time since the
    previous use. `entered` counts them at the round of the use, `left` at the round of the previous
    use.
    """
    none = len(sizes)
    for i in range(len(ids)):
        page, now = uint64(ids[i]), rounds[i]
        before = last[page]
        last[page] = now
        out = shorter(at[now] - at[before], sizes, table, shift) if before >= 0 else none
        entered[now, out] += 1
        left[before, out] += 1  # for pages never used before, row -1, which is the last


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

    `at` contains the ends of rounds. `ring`, shape (pages, a power of two), has the rounds of each
    page's last uses, and `uses` how many it had. The page's next use determines how long a use
    counted (``hold``), so each use closes the previous one.

    For each threshold m of `counts`, the mean working set grows with the window T from ``span``
    (the time of the m-th last use) to ``span + hold``. For m = 1 the gaps suffice. Each bin, one
    for each of the `sizes` of windows (`shorter`), contains their number and their sum.
    """
    mask = ring.shape[1] - 1
    for i in range(len(ids)):
        ahead = uint64(ids[uint64(min(i + AHEAD, len(ids) - 1))])
        fetch(uses, ahead)
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
    """Close the last use of every page, which counts to the end."""
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
    """Count the pages that enter and leave the working sets of windows, with threshold m.

    `enter` and `leave` are those of `pmlkit.timeline.Windows`. ``steps[0]`` is for all pages,
    ``steps[r + 1]`` for those with bit r in `marks`. Each use closes the page's previous one, so at
    the end every page must be used once more, after all rounds.
    """
    mask = ring.shape[1] - 1
    for i in range(len(ids)):
        ahead = uint64(ids[uint64(min(i + AHEAD, len(ids) - 1))])
        fetch(uses, ahead)
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
# The compiled loop of an import: rows in order of time become rounds (see `pmlkit.interop.rounds`).


KEEP, SPLIT, SPLIT_ANY, MERGE = range(4)
# Indices of `state`.
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
    """Number the rounds of rows; return the first row that is out of order, or the number of rows.

    `numbers` gets each row's round, or -1 for a row that is merged into an earlier one. `spans`
    gets the start and end of each new round, ``state[EMITTED]`` in number: at most two per row.
    `last_round` and `last_kinds` contain the round in which each page was seen last, and its kinds
    there.
    """
    emitted = 0
    for i in range(len(ids)):
        page, kind = ids[i], kinds[i]
        if state[ROUND] < 0 or starts[i] != state[START] or ends[i] != state[END]:
            if ends[i] < starts[i] or (state[ROUND] >= 0 and starts[i] < state[END]):
                state[EMITTED] = emitted
                return i
            if state[ROUND] >= 0 and starts[i] > state[END]:  # no use in between
                spans[emitted, 0], spans[emitted, 1] = state[END], starts[i]
                emitted += 1
                state[ROUND] += 1
            spans[emitted, 0], spans[emitted, 1] = starts[i], ends[i]
            emitted += 1
            state[ROUND] += 1
            state[START], state[END] = starts[i], ends[i]
        elif (
            # The page is in this round already: it is a new use.
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
    """Find the next use of the same page for each use, -1 for none; starts at the end.

    `first` is the number of the first of `ids`; `coming` contains each page's next use.
    """
    for i in range(len(ids) - 1, -1, -1):
        following[i] = coming[ids[i]]
        coming[ids[i]] = first + i


# ------------------------------------------------------------------------------
# Loops over uses sorted by page: the sizes of windows, or the means of several T.
#
# `pmlkit.kernels.by_page` has the formulas. No data is copied for other rounds, pages or
# thresholds: `starts` contains the start of each page's uses, `chosen` the pages that count. Rounds
# outside of `first` to before `stop` are ignored.


@compiled
def _inside(a: int, b: int, rounds: Array, first: int, stop: int) -> tuple[int, int]:
    """Narrow a page's references, from `a` to before `b`, to the rounds from `first` to `stop`."""
    return _place(rounds, a, b, first), _place(rounds, a, b, stop)


@compiled
def _place(values: Array, a: int, b: int, wanted: int) -> int:
    """Return the place of the first of sorted values that is not less; `b` if all are less."""
    while a < b:
        middle = (a + b) >> 1
        if values[middle] < wanted:
            a = middle + 1
        else:
            b = middle
    return a


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
    """Add to `steps` where the pages from ``pages[0]`` to ``pages[1]`` enter and leave windows.

    `enter` and `leave` are those of `pmlkit.timeline.Windows` over the rounds of `span`. `steps`,
    int32, shape (windows + 1,): its running sum is the working set of each window. A page that
    stays from use to use makes two steps in all.
    """
    first, stop = span
    back = min_count - 1
    for page in range(pages[0], pages[1]):
        if not chosen[page]:
            continue
        a, b = _inside(starts[page], starts[page + 1], rounds, first, stop)
        end = -1  # of its stay so far: none
        for i in range(a + back, b):
            at = enter[rounds[i] - first]
            until = enter[(rounds[i + 1] if i + 1 < b else stop) - first]
            last = min(leave[rounds[i - back] - first], until)
            if last > at:
                if at != end:
                    if end >= 0:
                        steps[end] -= 1
                    steps[at] += 1
                end = last
        if end >= 0:
            steps[end] -= 1


@compiled
def sum_pages(
    starts: Array,
    rounds: Array,
    chosen: Array,
    pages: tuple[int, int],
    span: tuple[int, int],
    at: Array,
    sizes: Array,
    shorter: Array,
    min_count: int,
    sums: Array,
) -> None:
    """Add to `sums` the integral of W(t, T) over the time of full windows, for each T of `sizes`.

    `at` contains the ends of the rounds of `span` and, last, the end of all: windows are full from
    T on. A page is in W from its use until T after the `min_count`-th last one, unless it is used
    again by then. `sizes` is ascending, `shorter` says how many of them each `at` reaches. `sums`
    are floats. They have an element more than `sizes`, and are differences: their running sum is
    the integral. For all T from the time to the next use on, up to the time of the use, a use adds
    the same, so this takes two steps.
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
            reached = shorter[rounds[i] - first]
            j = 0
            while j < reached and since + sizes[j] < until:
                held = max(since + sizes[j] - used, 0)
                sums[j] += held
                sums[j + 1] -= held
                j += 1
            if j < reached:
                sums[j] += until - used
                sums[reached] -= until - used
            j = reached
            while j < len(sizes) and sizes[j] < until:  # all longer windows are cut short
                held = max(min(since + sizes[j], until) - sizes[j], 0)
                sums[j] += held
                sums[j + 1] -= held
                j += 1
