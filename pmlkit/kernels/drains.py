# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over KVM's events in order of time: the drain and the round of each page.

`pmlkit.sources.kvm.events` calls them piece by piece. Arrays store the state of each thread between
the calls. This module is separate, like all compiled loops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.kernels.jit import compiled

if TYPE_CHECKING:
    from pmlkit.types import Array


# Rows of the state of threads; one column per thread.
RUN, LAST, SINCE, BATCH = range(4)
# Columns of the table of batches; one row per batch.
THREAD, ROUND, ENTERED, END, COUNT = range(5)
# Indices of `counts`.
MADE, OUTSIDE, ELSEWHERE = range(3)


@compiled
def assign(
    events: tuple[Array, Array, Array, Array],
    rounds: Array,
    slots: Array,
    limits: Array,
    gaps: Array,
    state: Array,
    table: Array,
    batch: Array,
    counts: Array,
) -> None:
    """Assign a batch to each page: the part of a drain that is in one round.

    Parameters
    ----------
    events : tuple of ndarray
        In order of time: time (int64), kind (0: a page, 1: an entry of a vCPU, otherwise another
        mark), thread (int32, its row in `state`), and value (uint64, a page's frame).
    rounds : ndarray of int64, shape (rounds, 2)
        Start and end. A time that ends one round and begins another belongs to the first.
    slots : ndarray of uint64, shape (slots, 2)
        First frame of the guest's memory and its end (exclusive), in order; empty: all pages count.
    limits : ndarray of int64
        The largest number of pages in a drain.
    gaps : ndarray of int64, by thread
        The time between two pages that separates drains, even without a mark between them.
    state : ndarray of int64, shape (4, threads)
        Pages of the present drain (-1: none), the time of its last page, of the last entry, and its
        batch (-1: none).
    table : ndarray of int64, shape (batches, 5)
        Batches, with room for one per page.
    batch : ndarray of int32
        Output: the batch of each event; -1: none.
    counts : ndarray of int64
        Batches in the table; pages outside of all rounds, and of all slots.
    """
    time, kind, thread, value = events
    number = 0
    for at in range(len(time)):
        now, thread_index = time[at], thread[at]
        batch[at] = -1
        if kind[at] != 0:
            state[RUN, thread_index] = -1
            if kind[at] == 1:
                state[SINCE, thread_index] = now
            continue
        run = state[RUN, thread_index]
        if run < 0 or run == limits[0] or now - state[LAST, thread_index] >= gaps[thread_index]:
            run, state[BATCH, thread_index] = 0, -1
        state[RUN, thread_index], state[LAST, thread_index] = run + 1, now
        while number < len(rounds) and rounds[number, 1] < now:
            number += 1
        if number == len(rounds) or now <= rounds[number, 0]:
            counts[OUTSIDE] += 1
        elif len(slots) > 0 and not _within(value[at], slots):
            counts[ELSEWHERE] += 1
        else:
            batch[at] = _batch(thread_index, now, number, state, table, counts)


@compiled
def _within(gfn: int, slots: Array) -> bool:
    """Return whether a frame lies in the last slot that begins before it."""
    low, high = 0, len(slots)
    while low < high:
        middle = (low + high) // 2
        if slots[middle, 0] <= gfn:
            low = middle + 1
        else:
            high = middle
    return low > 0 and gfn < slots[low - 1, 1]


@compiled
def _batch(
    thread_index: int, now: int, number: int, state: Array, table: Array, counts: Array
) -> int:
    """Count a page for its batch; a first page creates the batch."""
    at = state[BATCH, thread_index]
    if at < 0 or table[at, ROUND] != number:
        at = counts[MADE]
        counts[MADE] += 1
        state[BATCH, thread_index] = at
        table[at, THREAD], table[at, ROUND], table[at, ENTERED] = (
            thread_index,
            number,
            state[SINCE, thread_index],
        )
        table[at, COUNT] = 0
    table[at, END] = now
    table[at, COUNT] += 1
    return int(at)


@compiled
def gather(batch: Array, gfn: Array, place: Array, step: int, out: Array) -> int:
    """Move the pages of finished batches out of the pending pages.

    Parameters
    ----------
    batch : ndarray of int32
        The batch of each waiting page. The first ones are replaced by those that still wait.
    gfn : ndarray of uint64
        Their frames; as `batch`.
    place : ndarray of int64
        Position in `out` of a batch's first page; -1: its batch is not finished. Destroyed.
    step : int
        Step from a page of a batch to the next one: 1, or -1 to reverse batches.
    out : ndarray of uint64
        Filled.

    Returns
    -------
    int
        Number of pages that still wait.
    """
    pending = 0
    for at in range(len(batch)):
        number = batch[at]
        if place[number] >= 0:
            out[place[number]] = gfn[at]
            place[number] += step
        else:
            batch[pending], gfn[pending] = number, gfn[at]
            pending += 1
    return pending
