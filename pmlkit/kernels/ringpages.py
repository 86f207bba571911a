# SPDX-License-Identifier: Apache-2.0
"""The compiled loop over pages of an ftrace ring buffer: some events, and one field of each.

`pmlkit.ftrace` describes the layout of pages, and reads any event of one page. This loop reads
millions of pages of a little-endian machine. Each page ends with its events (or its count of
losses).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.ftrace import LENGTH, MISSED, MISSED_STORED, PADDING, TIME_EXTEND
from pmlkit.kernels.jit import compiled, int64, uint64

if TYPE_CHECKING:
    from pmlkit.types import Array


EVENTS, LOSSES, DAMAGED = range(3)  # indices of `counts`
FEWEST_WORDS = 3  # least words of an event: head, kind and thread
_STAMP_TOP = 31  # the bits of a time that an absolute stamp lacks, from bit 59 on


@compiled
def extract(
    words: Array,
    data_at: int,
    kinds: Array,
    fields: Array,
    time: Array,
    kind: Array,
    thread: Array,
    value: Array,
    lost: Array,
    counts: Array,
) -> None:
    """Extract events from pages.

    Parameters
    ----------
    words : ndarray of uint32
        Pages, one after another.
    data_at : int
        Start of a page's events, in words.
    kinds : ndarray of int64
        By an event's id: its row in `fields`, or -1 for an event that is not requested.
    fields : ndarray of int64, shape (kinds, 2)
        Position and size of the field, in words; size 0: none.
    time, kind, thread, value : ndarray
        Output: one event each. There must be room for ``len(words) // FEWEST_WORDS``.
    lost : ndarray of int64, shape (pages, 2)
        Output: the number of the event before which events were lost, and how many (-1: unknown).
    counts : ndarray of int64
        Output: events, losses, and 1 + the word at which a page is damaged, or 0. All 0 before the
        call.
    """
    at = 0
    while at < len(words):
        stop, end = _bounds(words, at, data_at)
        if end < 0:
            break
        _add_loss(words, at, stop, end, lost, counts)
        first = at + data_at
        if not _add_events(
            words, at, first, stop, kinds, fields, time, kind, thread, value, counts
        ):
            break
        at = end
    if at < len(words):
        counts[2] = at + 1


@compiled
def _bounds(words: Array, at: int, data_at: int) -> tuple[int, int]:
    """Return the ends of a page's events and of the page; -1 if beyond the words."""
    if at + data_at > len(words):
        return 0, -1
    commit = int64(words[at + 2])
    size = commit & LENGTH
    stop = at + data_at + size // 4
    # A count of losses is as long as the field `commit`: the head without the time.
    end = stop + (data_at - 2 if commit & MISSED_STORED else 0)
    if size % 4 != 0 or end > len(words):
        return 0, -1
    return stop, end


@compiled
def _add_loss(words: Array, at: int, stop: int, end: int, lost: Array, counts: Array) -> None:
    """Record the events lost before a page; the count, if known, is between `stop` and `end`."""
    commit = int64(words[at + 2])
    if commit & MISSED == 0:
        return
    missed = int64(-1)
    if end > stop:
        missed = _long(words, stop) if end - stop == 2 else int64(words[stop])
    if missed != 0:
        lost[counts[1], 0], lost[counts[1], 1] = counts[0], missed
        counts[1] += 1


@compiled
def _add_events(
    words: Array,
    page: int,
    at: int,
    stop: int,
    kinds: Array,
    fields: Array,
    time: Array,
    kind: Array,
    thread: Array,
    value: Array,
    counts: Array,
) -> bool:
    """Extract the events of one page; return whether each ends within it."""
    now, found = _long(words, page), counts[0]
    while at < stop:
        head = int64(words[at])
        code, delta = head & 31, head >> 5
        if code == PADDING and delta == 0:  # the rest of the page is empty
            break
        more = int64(0)
        if code == 0 or code >= PADDING:
            if at + 1 >= stop:
                return False
            more = int64(words[at + 1])
        if code > PADDING:  # TIME_EXTEND or TIME_STAMP
            now = _time(now, code, (more << 27) + delta)
            at += 2
            continue
        now += delta
        sized = code == 0 or code == PADDING
        data, after = at + (2 if sized else 1), at + 1 + ((more + 3) // 4 if sized else code)
        if after < data or after > stop:
            return False
        row = -1 if code == PADDING or after - data < 2 else kinds[words[data] & 0xFFFF]
        if row >= 0:
            if data + fields[row, 0] + fields[row, 1] > after:
                return False
            time[found], kind[found], thread[found] = now, row, words[data + 1]
            low = uint64(words[data + fields[row, 0]]) if fields[row, 1] > 0 else uint64(0)
            high = uint64(words[data + fields[row, 0] + 1]) if fields[row, 1] > 1 else uint64(0)
            value[found] = low | high << uint64(32)
            found += 1
        at = after
    counts[0] = found
    return True


@compiled
def _time(now: int, code: int, count: int) -> int:
    """Return the time after an event that contains only a time."""
    if code == TIME_EXTEND:
        return now + count
    return (now & (int64(_STAMP_TOP) << 59)) | count


@compiled
def _long(words: Array, at: int) -> int:
    """Return the 64-bit number in two words."""
    return int64(words[at]) | int64(words[at + 1]) << 32
