# SPDX-License-Identifier: Apache-2.0
"""AET: the miss-ratio curve from the times between two uses of a page (Hu et al., ATC 2016).

A page that is not used moves down the LRU stack whenever a page from below it is used. Let P(t) be
the probability that the time to a page's next use, counted in uses, exceeds t. A page that was not
used for t then moves down with speed P(t). It has moved down c places after the average eviction
time AET(c), at which the integral of P from 0 reaches c (section 2.1). A cache of c pages misses
the uses after a longer time: mr(c) = P(AET(c)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.kernels.pages import grown, numbered_pages
from pmlkit.missratio.curve import MissRatioCurve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmlkit.kernels.pages import Uses
    from pmlkit.types import Floats, Ids, Ints


__all__ = ["aet", "aet_of"]

FINE = 13  # times below 2**13 uses have bins of their own; each power of two above, 2**12


def aet(gfns: Uses) -> MissRatioCurve:
    """Estimate the miss ratio of an LRU cache at every size.

    Parameters
    ----------
    gfns : array of int, shape (uses,), or iterable of such arrays
        Pages in order of use.

    Returns
    -------
    MissRatioCurve
        The method is ``"aet"``, with one size for each number of pages. The model assumes that the
        times between uses are independent. It is therefore wrong for a loop over more pages than
        the cache can store: every use misses.
    """
    return aet_of(numbered_pages(gfns))


def aet_of(numbered: Iterator[tuple[Ids, int]]) -> MissRatioCurve:
    """Return `aet` of an iterable of (ids, pages): see `pmlkit.kernels.pages.numbered`."""
    from pmlkit.kernels.lru import reuse_times

    counts = np.zeros((66 - FINE) << (FINE - 1), np.int64)
    last, uses, pages = np.empty(0, np.int64), 0, 0
    for ids, known in numbered:
        pages = known
        last = grown(last, pages, -1)
        reuse_times(ids, last, uses, FINE, counts)
        uses += len(ids)
    return MissRatioCurve(*_model(counts, uses, pages), uses, pages, "aet")


def _model(counts: Ints, uses: int, pages: int) -> tuple[Ints, Floats]:
    """Return the sizes, and P(AET(c)) at each."""
    sizes = np.arange(pages + 1)
    if not uses:
        return sizes, np.zeros(1)
    edges = _edges(len(counts))
    # P at the bins' edges, times all uses, so that sums are exact: the uses whose time since the
    # previous use is longer. P is a step between edges 1 apart, and a line in wider bins.
    beyond = uses - np.concatenate(([0.0], np.cumsum(counts[1:])))
    wide = np.diff(edges) > 1
    falls = np.where(wide, np.diff(beyond), 0)
    depth = np.concatenate(([0], np.cumsum((beyond[:-1] + falls / 2) * np.diff(edges))))
    wanted = sizes[:-1] * float(uses)
    at = np.clip(np.searchsorted(depth, wanted, "right") - 1, 0, len(falls) - 1)
    length = np.maximum(depth[at + 1] - depth[at], 1e-300)
    ratio = (beyond[at] + falls[at] * (wanted - depth[at]) / length) / uses
    # A cache for all pages misses first uses only, which need no model.
    return sizes, np.append(np.maximum(ratio, pages / uses), pages / uses)


def _edges(bins: int) -> Floats:
    """Return the edges of the bins of `pmlkit.kernels.lru.reuse_times`, without the bin of time 0.

    Edge e is the longest time that lies in no later bin.
    """
    half = 1 << (FINE - 1)
    index = np.arange(1, bins + 1)
    power = np.maximum(index // half - 1, 0)
    return (index - power * half).astype(float) * 2.0**power - 1
