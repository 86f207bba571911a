# SPDX-License-Identifier: Apache-2.0
"""SHARDS: miss-ratio curves from a sample of the pages (Waldspurger et al., FAST 2015).

A page is looked at if a hash of its frame number is below a limit, so all of its uses are looked at
or none. Distances among the sampled pages, over the sampled share R of all pages, estimate the
true ones. `shards` has the paper's fixed rate (section 3.2), its fixed size, where R falls as pages
come (3.3), and its adjustment SHARDS-adj: the sample should have R times all uses; what it has
too many or too few of is taken for uses of very hot pages, and corrected at distance 0 (3.4).

The hash is the fraction of the frame number times the golden ratio (Knuth, TAOCP 3, 6.4): of any
run of frames it picks the share R, to about a page. Buffers are such runs, so their parts in the
sample are even, where those of a random hash would scatter; the price is that pages at one of a few
distances from each other (Fibonacci numbers) would be sampled together. ``seed`` shifts the
fraction.
"""

import numpy as np

from pmlkit.curve import MissRatioCurve
from pmlkit.errors import UsageError
from pmlkit.pageindex import PageIndex, ahead, arrays, grown
from pmlkit.stack import LruStack
from pmlkit.units import check_count

__all__ = ["shards"]

WHOLE = 1 << 32  # the hash's range
CHUNK = 1 << 20  # uses that are hashed at once: few of them are handed on
GOLDEN_32 = 0x9E3779B9  # 2**32 / the golden ratio
ROOT_32 = 0x6A09E667  # 2**32 * (sqrt(2) - 1): tells the groups apart, as evenly


def shards(gfns, rate=0.01, max_pages=None, adjust=True, groups=8, seed=0):
    """Estimate the miss ratio of an LRU cache at every size.

    Parameters
    ----------
    gfns : array of int, shape (uses,), or iterable of such arrays
        Pages in order of use.
    rate : float
        The share R of the pages to look at; where `max_pages` is given, the share to begin with.
    max_pages : int, optional
        Look at no more pages: when there are, R is halved, and what does not belong to the sample
        any more is left out of it. (The paper lets R fall by a page at a time; by halves, what was
        counted before scales exactly, in a bounded number of parts.)
    adjust : bool
        Whether to use SHARDS-adj.
    groups : int
        Parts of the sample (2 or more), from whose differences the error band is estimated; 0 for
        no band.
    seed : int
        Another one takes other pages.

    Returns
    -------
    MissRatioCurve
    """
    if not 0 < rate <= 1:
        raise UsageError(f"a sampling rate of {rate} cannot be: give more than 0, up to 1")
    if max_pages is not None:
        check_count("max_pages", max_pages, "pages")
    if groups == 1 or groups < 0:
        raise UsageError(f"{groups} groups give no error band: give 2 or more, or 0 for no band")
    sample = _Sample(rate, max_pages, groups, seed)
    source = gfns if hasattr(gfns, "once") else _without_rounds(gfns)
    for rounds, chosen in ahead(_chosen(sample, source)):
        sample.use(rounds, chosen)
    return sample.curve(adjust)


def _without_rounds(gfns):
    for array in arrays(gfns):
        for start in range(0, len(array), CHUNK):
            yield None, array[start : start + CHUNK]


def _chosen(sample, source):
    """Yield the uses of the sampled pages: their rounds (None without) and frames."""
    from pmlkit.kernels_sample import sample as choose

    once = getattr(source, "once", False)
    places = np.empty(0, np.int64)
    for rounds, gfns in source:
        places = grown(places, len(gfns), 0)
        hashing = np.uint64(GOLDEN_32), np.uint64(sample.offset), np.uint64(sample.limit)
        at = places[: choose(gfns, *hashing, places)]
        sample.counted(len(gfns))
        yield (rounds[at] if once else None), gfns[at]


class _Sample:
    """The sampled pages, and the histograms of their stack distances."""

    def __init__(self, rate, max_pages, groups, seed):
        self.limit = max(round(rate * WHOLE), 1)
        self.offset = (seed + 1) * ROOT_32 % WHOLE  # or frame 0 would always be sampled
        self.all_uses = 0
        self._raw = self._max = 0
        self._max, self._groups = max_pages, groups
        self._index, self._last = PageIndex(), np.empty(0, np.int32)
        self._parts = [_Part() for _ in range(groups + 1)]

    def counted(self, uses):
        self.all_uses += uses

    def use(self, rounds, gfns):
        """Take the sampled uses of a batch, in steps that cannot bring many new pages."""
        step = max(self._max // 4, 1) if self._max else max(len(gfns), 1)
        for start in range(0, len(gfns), step):
            part = slice(start, start + step)
            self._step(None if rounds is None else rounds[part], gfns[part])
            while self._max and len(self._index) > self._max:
                self._halve()

    def _step(self, rounds, gfns):
        if self._max:
            still = self._hash(gfns) < self.limit
            rounds, gfns = None if rounds is None else rounds[still], gfns[still]
        self._raw += len(gfns)
        ids = self._index.ids(gfns)
        if rounds is not None:
            ids = self._once(rounds, ids)
        pages = len(self._index)
        self._parts[0].use(ids, pages)
        if self._groups:
            of_use = _mixed(self._index.frames, ROOT_32, self.offset)[ids] * self._groups // WHOLE
            for group, part in enumerate(self._parts[1:]):
                part.use(ids[of_use == group], pages)

    def _once(self, rounds, ids):
        from pmlkit.kernels import once_a_round

        self._last = grown(self._last, len(self._index), -1)
        kept = np.empty(len(ids), np.int32), np.empty(len(ids), np.int32)
        count = once_a_round(ids, rounds.astype(np.int32), self._last, *kept)
        return kept[0][:count]

    def _hash(self, gfns):
        return _mixed(gfns, GOLDEN_32, self.offset)

    def _halve(self):
        self.limit = max(self.limit // 2, 1)
        self._raw /= 2
        kept = np.flatnonzero(self._hash(self._index.frames) < self.limit)
        renumbered = np.full(len(self._index), -1, np.int32)
        renumbered[kept] = np.arange(len(kept))
        frames, self._index = self._index.frames[kept], PageIndex()
        self._index.ids(frames)
        self._last = self._last[kept] if len(self._last) else self._last
        for part in self._parts:
            part.halve(renumbered)

    def curve(self, adjust):
        """Return the curve of the sample."""
        rate = self.limit / WHOLE
        expected = self.all_uses * rate / self._raw if self._raw else 1.0
        whole = self._parts[0]
        per_use = expected if adjust else 1.0
        distances = whole.largest()
        sizes = np.append(0, np.unique(np.ceil((np.arange(distances) + 1) / rate)).astype(np.int64))
        ratio = whole.ratio(sizes, rate, per_use * whole.uses)
        low = high = None
        if self._groups:
            low, high = self._band(ratio, sizes, rate, per_use)
        pages = round(len(self._index) / rate)
        uses = round(whole.uses * expected / rate)
        return MissRatioCurve(
            sizes, ratio, uses, pages, "shards", low, high, self._raw, len(self._index), rate
        )

    def _band(self, ratio, sizes, rate, per_use):
        from scipy.special import stdtrit

        share = per_use * self._parts[0].uses / self._groups
        curves = [p.ratio(sizes, rate / self._groups, share) for p in self._parts[1:]]
        error = np.std(curves, axis=0, ddof=1) / np.sqrt(self._groups)
        half = stdtrit(self._groups - 1, 0.975) * error  # Student's t: both sides, 95 %
        return np.clip(ratio - half, 0, 1), np.clip(ratio + half, 0, 1)


class _Part:
    """The stack of some sampled pages, and how often each distance occurred."""

    def __init__(self):
        self._stack, self._counts = LruStack(), np.zeros(64, np.int64)
        self._before = []  # the counts of each rate before, the highest first
        self.uses = 0

    def use(self, ids, pages):
        from pmlkit.kernels_stack import histogram

        self._counts = grown(self._counts, pages, 0)
        histogram(self._stack.use(ids, pages), self._counts)
        self.uses += len(ids)

    def halve(self, renumbered):
        kept = renumbered[self._stack.order()]
        self._stack.reset(kept[kept >= 0])
        self._before.append(self._counts)
        self._counts = np.zeros_like(self._counts)
        self.uses /= 2

    def largest(self):
        """Return one more than the largest distance, as the sample of now would have it."""
        ends = [np.flatnonzero(c).max(initial=-1) + 1 for c in (*self._before, self._counts)]
        return max(-(-int(end) >> (len(self._before) - i)) for i, end in enumerate(ends))

    def ratio(self, sizes, rate, uses):
        """Return the miss ratio at `sizes`; `uses` is how many the sample should have."""
        hits = np.zeros(len(sizes))
        for older, counts in enumerate([self._counts, *self._before[::-1]]):
            reach = np.concatenate(([0], np.cumsum(counts))) / 2.0**older
            # A page is hit if the pages above it, and itself, fit: (distance + 1) / rate pages.
            inside = np.floor(sizes * (rate * 2.0**older) + 1e-9).astype(np.int64)
            hits += reach[np.minimum(inside, len(counts))]
        hits[sizes > 0] += uses - self.uses
        return np.clip(1 - hits / (uses or 1), 0, 1)


def _mixed(gfns, multiplier, offset):
    """Return the hash of frames, as `kernels_sample.sample` has it."""
    folded = gfns ^ (gfns >> np.uint64(32))
    return (folded * np.uint64(multiplier) + np.uint64(offset)) & np.uint64(WHOLE - 1)
