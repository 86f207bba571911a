# SPDX-License-Identifier: Apache-2.0
"""From a stream of uses to the sizes of its working sets: what `pmlkit.workingset` stands on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pmlkit import onepass, reuse
from pmlkit.pageindex import PageIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pmlkit.streams import Stream
    from pmlkit.types import Array, Floats, Gfns, Ints


__all__ = ["means", "sizes"]

MARKS = 63  # regions that fit into a page's mark at once
MEMORY = 1 << 29  # bytes for the last uses of pages; above, the trace is read more than once


def sizes(source: Stream, k: int, step: int, min_count: int, regions: Sequence[str]) -> list[Ints]:
    """Return the pages of each window, a row for all and one for each region."""
    # Consecutive windows are windows of one round, if a round is all of a window.
    whole = min(k, max(source.n_rounds, 1))
    coarse, k, step = (whole, 1, 1) if step == k else (1, k, step)
    n_rounds = -(-source.n_rounds // coarse)
    if k == min_count == 1 and not regions:
        return [onepass.turnover(source, source.n_rounds, coarse).pages[step - 1 :: step]]
    rows: list[Ints] = []
    for first in range(0, max(len(regions), 1), MARKS):
        index, names = PageIndex(), regions[first : first + MARKS]
        frames = [source.trace.frames(name) for name in names]
        batches = ((r // coarse, ids, pages) for r, ids, pages in source.numbered(index))
        marks = partial(_marks, index, frames)
        if k == min_count == 1:
            found = onepass.by_round(batches, n_rounds, marks, len(names))
        else:
            found = onepass.sliding(batches, n_rounds, k, min_count, marks, len(names))
        rows += list(found[1 if rows else 0 :, step - 1 :: step])
    return rows


def _marks(index: PageIndex, frames: Iterable[Gfns], first: int, pages: int) -> Array:
    """Return for the pages from number `first` on a bit for each region that has them."""
    new = index.frames[first:pages]
    bits = (
        np.isin(new, of_one).astype(np.uint64) << np.uint64(i) for i, of_one in enumerate(frames)
    )
    return sum(bits, np.zeros(len(new), np.uint64))


def means(source: Stream, min_counts: Sequence[int]) -> dict[int, Floats]:
    """Return for each threshold the mean of W(k) over the rounds with a full window, by k."""
    row_bytes = 4 << (max(min_counts, default=1) - 1).bit_length()
    shares = max(1, -(-source.trace.memory_pages * row_bytes // MEMORY))
    parts = [_totals(source.share(i, shares), min_counts) for i in range(shares)]
    n_rounds = source.n_rounds
    summed = {m: tuple(sum(of_part[m][i] for of_part in parts) for i in (0, 1)) for m in min_counts}
    return {m: reuse.means(totals, n_rounds)[1] for m, totals in summed.items()}  # type: ignore[arg-type]


def _totals(source: Stream, min_counts: Sequence[int]) -> dict[int, tuple[Ints, Ints]]:
    found = reuse.Reuse(source.numbered(), source.n_rounds, min_counts)
    return {m: found.totals(m) for m in min_counts}
