# SPDX-License-Identifier: Apache-2.0
"""Compiled loops of the miss-ratio curves that estimate: sampling pages, times between uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import int64, uint64

from pmlkit.kernels.loops import compiled, popcount

if TYPE_CHECKING:
    from pmlkit.types import Array


@compiled
def sample(gfns: Array, multiplier: int, offset: int, limit: int, chosen: Array) -> int:
    """Say which uses are of pages whose hash, a fraction of 2**32, is below `limit`.

    Writes their places to `chosen`, and returns how many there are. 64 uses at a time become 64
    bits, by vector instructions, of which few are 1.
    """
    low, kept, words = uint64(0xFFFFFFFF), 0, len(gfns) // 64
    whole = gfns[: words * 64].reshape((words, 64))
    for word in range(words):
        bits = uint64(0)
        for j in range(64):
            gfn = whole[word, j]
            mixed = (((gfn ^ (gfn >> uint64(32))) & low) * multiplier + offset) & low
            bits |= ((mixed - limit) >> uint64(63)) << uint64(j)
        while bits:
            lowest = bits & (~bits + uint64(1))
            chosen[kept] = word * 64 + int64(popcount(lowest - uint64(1)))  # type: ignore[call-arg, operator]
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
