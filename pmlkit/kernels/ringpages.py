# SPDX-License-Identifier: Apache-2.0
"""The compiled loop over pages of an ftrace ring buffer: some events, and one field of each.

`pmlkit.ftrace` says how pages are laid out, and reads any event of one page. This one reads
millions of pages of a little-endian machine, of which each ends where its events (or its count of
losses) end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.kernels.jit import compiled, int64, uint64

if TYPE_CHECKING:
    from pmlkit.types import Array


EVENTS, LOSSES, DAMAGED = range(3)  # of `counts`
FEWEST_WORDS = 3  # of an event: its head, its kind, its thread


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
    """Take events out of pages.

    Parameters
    ----------
    words : ndarray of uint32
        Pages, one after another.
    data_at : int
        Where a page's events begin, in words.
    kinds : ndarray of int64
        By an event's id: its row in `fields`, or -1 for an event that is not wanted.
    fields : ndarray of int64, shape (kinds, 2)
        Where the field begins and its size, in words; size 0: none.
    time, kind, thread, value : ndarray
        Filled: an event each. There has to be room for ``len(words) // FEWEST_WORDS``.
    lost : ndarray of int64, shape (pages, 2)
        Filled: the number of the event before which events were lost, and how many (-1: unknown).
    counts : ndarray of int64
        Filled: events, losses, and 1 + the word at which a page is damaged, or 0.
    """
    at, found, losses = 0, 0, 0
    while at < len(words):
        if at + data_at > len(words):
            counts[2] = at + 1
            break
        now = int64(words[at]) | int64(words[at + 1]) << 32
        commit = int64(words[at + 2])
        size = commit & 0x7FFFFFF
        stop = at + data_at + size // 4
        begin = at
        missed = -1 if commit & 0x80000000 else 0
        if size % 4 or stop > len(words):
            counts[2] = at + 1
            break
        end = stop
        if commit & 0x40000000:
            end = stop + (2 if data_at == 4 else 1)
            if end > len(words):
                counts[2] = at + 1
                break
            if missed:
                missed = int64(words[stop])
                if data_at == 4:
                    missed |= int64(words[stop + 1]) << 32
        if missed != 0:
            lost[losses, 0], lost[losses, 1] = found, missed
            losses += 1
        at += data_at
        while at < stop:
            head = int64(words[at])
            code, delta = head & 31, head >> 5
            if code == 29 and delta == 0:
                at = stop
                break
            more = int64(0)
            if code == 0 or code >= 29:
                if at + 1 >= stop:
                    counts[2] = begin + 1
                    break
                more = int64(words[at + 1])
            if code == 30:
                now += (more << 27) + delta
                at += 2
                continue
            if code == 31:
                now = (now & (int64(31) << 59)) | ((more << 27) + delta)
                at += 2
                continue
            now += delta
            data = at + (2 if code == 0 or code == 29 else 1)
            after = at + 1 + ((more + 3) // 4 if code == 0 or code == 29 else code)
            if after < data or after > stop:
                counts[2] = begin + 1
                break
            row = -1
            if code != 29 and after - data >= 2:
                row = kinds[words[data] & 0xFFFF]
            if row >= 0:
                if data + fields[row, 0] + fields[row, 1] > after:
                    counts[2] = begin + 1
                    break
                time[found] = now
                kind[found] = row
                thread[found] = words[data + 1]
                word = uint64(0)
                if fields[row, 1] > 0:
                    word = uint64(words[data + fields[row, 0]])
                if fields[row, 1] > 1:
                    word |= uint64(words[data + fields[row, 0] + 1]) << uint64(32)
                value[found] = word
                found += 1
            at = after
        if counts[2]:
            break
        at = end
    counts[0], counts[1] = found, losses
