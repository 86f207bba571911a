# SPDX-License-Identifier: Apache-2.0
"""Compiled loops of the miss-ratio curves that estimate: sampling pages, times between uses."""

from numba import uint64

from pmlkit.kernels import compiled


@compiled
def sample(gfns, multiplier, offset, limit, chosen):
    """Copy the uses of the pages whose hash, a fraction of 2**32, is below `limit`.

    Returns how many there are.
    """
    kept = 0
    low = uint64(0xFFFFFFFF)
    for i in range(len(gfns)):
        gfn = uint64(gfns[i])
        if (((gfn ^ (gfn >> uint64(32))) * multiplier + offset) & low) < limit:
            chosen[kept] = i
            kept += 1
    return kept


@compiled
def reuse_times(ids, last, now, fine, counts):
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
