# SPDX-License-Identifier: Apache-2.0
"""SHARDS: miss-ratio curves from a sample of the pages (Waldspurger et al., FAST 2015).

A page is sampled if a hash of its frame number is below a limit, so all of its uses are sampled or
none. Distances among the sampled pages, divided by the sampled share R of all pages, estimate the
true ones. `shards` implements the paper's fixed rate (section 3.2) and its fixed size, at which R
falls as new pages appear (3.3). It also implements the adjustment SHARDS-adj (3.4). The sample
should have R times all uses. Any surplus or deficit is attributed to very hot pages and corrected
at distance 0.

The hash is the fractional part of the frame number times the golden ratio (Knuth, TAOCP 3, 6.4).
From any run of frames it selects the share R, to within about one page. Buffers are such runs, so
their shares of the sample are even, while a random hash would scatter them. In return, pages at
certain distances from each other (Fibonacci numbers) are sampled together. ``seed`` shifts the
fractional part.
"""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import UsageError
from pmlkit.kernels.pages import PageIndex, arrays, grown, mapped
from pmlkit.missratio.curve import MissRatioCurve
from pmlkit.missratio.distances import LruStack
from pmlkit.selection import Stream
from pmlkit.units import check_count, check_type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmlkit.kernels.pages import Uses
    from pmlkit.types import Bools, Floats, Gfns, Ids, Ints


__all__ = ["sampled", "shards"]

WHOLE = 1 << 32  # the hash's range
CHUNK = 1 << 20  # uses that are hashed at once; few of them are sampled
GOLDEN_32 = 0x9E3779B9  # 2**32 / the golden ratio
ROOT_32 = 0x6A09E667  # 2**32 * (sqrt(2) - 1): an equally even, second hash for the groups


def shards(
    gfns: Uses | Stream,
    rate: float = 0.01,
    max_pages: int | None = None,
    adjust: bool = True,
    groups: int = 8,
    seed: int = 0,
    min_pages: int = 0,
) -> MissRatioCurve:
    """Estimate the miss ratio of an LRU cache at every size.

    Parameters
    ----------
    gfns : array of int, shape (uses,), or iterable of such arrays
        Pages in order of use.
    rate : float
        The share R of pages to sample; if `max_pages` is given, the initial share.
    max_pages : int, optional
        The largest number of sampled pages. If there are more, R is halved, and pages above the new
        limit leave the sample. (The paper lowers R one page at a time. With halving, only a bounded
        number of parts was counted at another rate.)
    adjust : bool
        Whether to use SHARDS-adj.
    groups : int
        Parts of the sample (2 or more), from whose differences the error band is estimated; 0 for
        no band.
    seed : int
        Selects the sampled pages.
    min_pages : int
        Start with all pages, and halve R down to `rate` only while at least this many remain. In a
        small guest, 1 % of the pages is too few for an estimate.

    Raises
    ------
    UsageError
        If a parameter is out of range, or the sample contains no page that is used.

    Examples
    --------
    >>> import numpy as np
    >>> from pmlkit.missratio.sampled import shards
    >>> curve = shards(np.arange(10_000) % 1000, rate=0.1, groups=0)
    >>> curve.pages, curve.sampled_pages < 200
    (1000, True)
    """
    check_type("rate", rate, Real, "a share of the pages, such as 0.1")
    if not 0 < rate <= 1:
        raise UsageError(f"a sampling rate of {rate} is not possible: give more than 0, up to 1")
    for name, pages in (("max_pages", max_pages), ("min_pages", min_pages or None)):
        if pages is not None:
            check_count(name, pages, "pages")
    if groups == 1 or groups < 0:
        raise UsageError(f"{groups} groups give no error band: give 2 or more, or 0 for no band")
    sample = _Sample(rate, max_pages, groups, seed, min_pages)
    batches = _batches(gfns)
    for uses, chosen in mapped(lambda gfns: (len(gfns), sample.of_pages(gfns)), batches):
        sample.all_uses += uses
        sample.use(chosen)
    return sample.curve(adjust)


def _batches(gfns: Uses | Stream) -> Iterator[Gfns]:
    """Yield the used frames, each use once even if it has several entries."""
    if isinstance(gfns, Stream):
        index = PageIndex()
        if gfns.distinct:
            yield from (index.frames[ids] for _, ids, _ in gfns.numbered(index))
        else:
            yield from (some for _, some in gfns)
    else:
        for array in arrays(gfns):
            yield from (array[start : start + CHUNK] for start in range(0, len(array), CHUNK))


class _Sample:
    """The sampled pages, and the histograms of their stack distances."""

    def __init__(
        self, rate: float, max_pages: int | None, groups: int, seed: int, min_pages: int
    ) -> None:
        self._least = max(round(rate * WHOLE), 1)
        self.limit = WHOLE if min_pages else self._least
        self.offset = (seed + 1) * ROOT_32 % WHOLE  # otherwise frame 0 would always be sampled
        self.all_uses = 0
        self._max, self._min, self._groups = max_pages, min_pages, groups
        self._index = PageIndex()
        self._parts = [_Part() for _ in range(groups + 1)]

    def of_pages(self, gfns: Gfns) -> Gfns:
        """Return the uses of the sampled pages (or of more pages, if R has fallen since)."""
        from pmlkit.kernels.lru import sample

        hashing = np.uint64(GOLDEN_32), np.uint64(self.offset), np.uint64(self.limit)
        at = np.empty(len(gfns), np.int32)
        return gfns[at[: sample(np.ascontiguousarray(gfns), *hashing, at)]]

    def use(self, gfns: Gfns) -> None:
        """Add the sampled uses of a batch, in steps with a bounded number of new pages."""
        most = self._max or self._min
        step = max(most // 4, 1) if most else max(len(gfns), 1)
        for start in range(0, len(gfns), step):
            self._step(gfns[start : start + step])
            while (limit := self._lower()) < self.limit:
                self._shrink(limit)

    def _lower(self) -> int:
        """Return the limit that the number of pages so far requires."""
        pages, half = len(self._index), max(self.limit // 2, 1)
        if self._max and pages > self._max:
            return half
        lower = max(half, min(self._least, self.limit))
        return lower if self._min and pages * (lower / self.limit) >= self._min else self.limit

    def _step(self, gfns: Gfns) -> None:
        if self._max or self._min:
            gfns = gfns[self._hash(gfns) < self.limit]
        ids = self._index.ids(gfns)
        pages = len(self._index)
        self._parts[0].use(ids, pages)
        if self._groups:
            of_use = _mixed(self._index.frames, ROOT_32, self.offset)[ids] * self._groups // WHOLE
            for group, part in enumerate(self._parts[1:]):
                part.use(ids[of_use == group], pages)

    def _hash(self, gfns: Gfns) -> Gfns:
        return _mixed(gfns, GOLDEN_32, self.offset)

    def _shrink(self, limit: int) -> None:
        by = limit / self.limit
        self.limit = limit
        kept = np.flatnonzero(self._hash(self._index.frames) < self.limit)
        renumbered = np.full(len(self._index), -1, np.int32)
        renumbered[kept] = np.arange(len(kept))
        frames, self._index = self._index.frames[kept], PageIndex()
        self._index.ids(frames)
        for part in self._parts:
            part.shrink(renumbered, by)

    def curve(self, adjust: bool) -> MissRatioCurve:
        """Return the curve of the sample."""
        rate, whole = self.limit / WHOLE, self._parts[0]
        if self.all_uses and not len(self._index):
            what = f"a sample of {rate:.3g} of the pages has none of those that are used"
            raise UsageError(f"{what}: give a larger rate, or min_pages")
        uses = self.all_uses * rate if adjust else whole.uses
        distances = whole.largest()
        sizes = np.append(0, np.unique(np.ceil((np.arange(distances) + 1) / rate)).astype(np.int64))
        ratio = whole.ratio(sizes, rate, uses)
        low = high = None
        if self._groups:
            low, high = self._band(ratio, sizes, rate, uses)
        sampled = len(self._index)
        counts = self.all_uses, round(sampled / rate)
        return MissRatioCurve(sizes, ratio, *counts, "shards", low, high, sampled, rate)

    def _band(self, ratio: Floats, sizes: Ints, rate: float, uses: float) -> tuple[Floats, Floats]:
        from scipy.special import stdtrit

        each = rate / self._groups, uses / self._groups
        curves = [part.ratio(sizes, *each) for part in self._parts[1:]]
        error = np.std(curves, axis=0, ddof=1) / np.sqrt(self._groups) * np.sqrt(1 - rate)
        half = stdtrit(self._groups - 1, 0.975) * error  # Student's t: both sides, 95 %
        return np.clip(ratio - half, 0, 1), np.clip(ratio + half, 0, 1)


class _Part:
    """The stack of some sampled pages, and how often each distance occurred."""

    def __init__(self) -> None:
        self._stack, self._counts = LruStack(), np.zeros(64, np.int64)
        # (counts, their rate over the current rate), in order of time
        self._before: list[tuple[Ints, float]] = []
        self.uses: float = 0  # expected number of uses at the current rate

    def use(self, ids: Ids, pages: int) -> None:
        from pmlkit.kernels.lru import histogram

        self._counts = grown(self._counts, pages, 0)
        histogram(self._stack.use(ids, pages), self._counts)
        self.uses += len(ids)

    def shrink(self, renumbered: Ids, by: float) -> None:
        kept = renumbered[self._stack.order()]
        self._stack.reset(kept[kept >= 0])
        self._before = [(c, times / by) for c, times in (*self._before, (self._counts, 1.0))]
        self._counts = np.zeros_like(self._counts)
        self.uses *= by

    def largest(self) -> int:
        """Return the largest distance plus one, scaled to the current sample."""
        every = (*self._before, (self._counts, 1.0))
        ends = [(np.flatnonzero(counts).max(initial=-1) + 1) / times for counts, times in every]
        return int(np.ceil(max(ends)))

    def ratio(self, sizes: Ints, rate: float, uses: float) -> Floats:
        """Return the miss ratio at `sizes`; `uses` is the expected number of uses in the sample."""
        hits = np.zeros(len(sizes))
        for counts, times in (*self._before, (self._counts, 1.0)):
            reach = np.concatenate(([0], np.cumsum(counts))) / times
            # A page is hit if the pages above it, and itself, fit: (distance + 1) / rate pages.
            inside = np.floor(sizes * (rate * times) + 1e-9).astype(np.int64)
            hits += reach[np.minimum(inside, len(counts))]
        hits[sizes > 0] += uses - self.uses
        return np.clip(1 - hits / uses, 0, 1) if uses else np.zeros(len(sizes))


def _mixed(gfns: Gfns, multiplier: int, offset: int) -> Gfns:
    """Return the hash of frames, as `pmlkit.kernels.lru.sample` computes it."""
    folded = gfns ^ (gfns >> np.uint64(32))
    return (folded * np.uint64(multiplier) + np.uint64(offset)) & np.uint64(WHOLE - 1)


def sampled(gfns: Gfns, rate: float, seed: int = 0) -> Bools:
    """Mask the pages that `shards` samples at this rate."""
    offset = (seed + 1) * ROOT_32 % WHOLE
    return _mixed(np.asarray(gfns, np.uint64), GOLDEN_32, offset) < max(round(rate * WHOLE), 1)
