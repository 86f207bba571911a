# SPDX-License-Identifier: Apache-2.0
"""From a stream of uses to the sizes of its working sets: what `pmlkit.workingset` stands on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pmlkit import onepass
from pmlkit.pageindex import PageIndex
from pmlkit.reuse import Reuse
from pmlkit.units import check_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pmlkit.streams import Stream
    from pmlkit.timeline import Axis, Windows
    from pmlkit.types import Array, Floats, Gfns, Ints


__all__ = ["means", "sizes"]

MARKS = 63  # regions that fit into a page's mark at once
MEMORY = 1 << 29  # bytes for the last uses of pages; above, the trace is read more than once


def sizes(source: Stream, windows: Windows, min_count: int, regions: Sequence[str]) -> list[Ints]:
    """Return the pages of each window, a row for all and one for each region."""
    check_count("min_count", min_count, "uses")
    if windows.tumbling and min_count == 1 and not regions:
        return [onepass.turnover(source, source.n_rounds, windows).pages]
    rows: list[Ints] = []
    for first in range(0, max(len(regions), 1), MARKS):
        names = regions[first : first + MARKS]
        found = _of_marked(source, windows, min_count, names)
        rows += list(found[1 if rows else 0 :])
    return rows


def _of_marked(source: Stream, windows: Windows, min_count: int, regions: Sequence[str]) -> Ints:
    index, frames = PageIndex(), [source.trace.frames(name) for name in regions]
    marks, batches = partial(_marks, index, frames), source.numbered(index)
    if not windows.tumbling:
        return onepass.sliding(batches, source.n_rounds, windows, min_count, marks, len(frames))
    # Windows that tumble are to their pages what rounds are.
    coarse = ((windows.enter[rounds], ids, pages) for rounds, ids, pages in batches)
    if min_count == 1:
        return onepass.by_round(coarse, len(windows), marks, len(frames))
    return onepass.sliding(coarse, len(windows), 1, min_count, marks, len(frames))


def _marks(index: PageIndex, frames: Iterable[Gfns], first: int, pages: int) -> Array:
    """Return for the pages from number `first` on a bit for each region that has them."""
    new = index.frames[first:pages]
    bits = (
        np.isin(new, of_one).astype(np.uint64) << np.uint64(i) for i, of_one in enumerate(frames)
    )
    return sum(bits, np.zeros(len(new), np.uint64))


def means(source: Stream, axis: Axis, sizes: Ints, min_counts: Sequence[int]) -> dict[int, Floats]:
    """Return for each threshold the mean of W over the full windows of each size (from 0)."""
    row_bytes = 4 << (max(min_counts, default=1) - 1).bit_length()
    shares = max(1, -(-_pages(source, MEMORY // row_bytes) * row_bytes // MEMORY))
    parts = [
        Reuse(source.share(i, shares).numbered(), axis, sizes, min_counts) for i in range(shares)
    ]
    # All have the same share of time, so what they have in the mean adds up.
    return {m: sum(part.means(m)[1] for part in parts) for m in min_counts}  # type: ignore[misc]


def _pages(source: Stream, few: int) -> int:
    """Return how many pages are used: at most so many as memory and entries allow, if `few`."""
    most = min(source.trace.memory_pages, source.trace.meta.entries)
    if most <= few or source.expand:
        return most
    index = PageIndex()
    for _ in source.numbered(index):
        pass
    return len(index)
