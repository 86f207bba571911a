# SPDX-License-Identifier: Apache-2.0
"""Reads corrected by density: the used part of what the logged tables map, from a sample.

Pages that are certain from the tables are counted. The rest is sampled: in every round, the EPT
accessed flag of one frame in `one_in` is read and cleared. The density is the part of the sampled
frames that was touched. It is computed in two strata, which differ widely:

- frames under a program's accessed entries in logged tables (stale flags; large pages): their
  number is known, and the sample gives the used part;
- all other frames: those that the kernel reads, and those that were unmapped within the round. They
  are a small part of many frames, so each one that the sample finds represents `one_in` frames.

The sample is one frame of each group of `one_in`, selected by a hash (`pmlkit.reads.draws`). The
patched Xen harvests only the sample (``--harvest sampled``). From a harvest of all frames, only the
sample is used. There are two ways to draw:

- **new in each round** (``--draw round``, the default of a collection): the errors of rounds are
  independent, and their mean has a smaller error than each (`average`). A window of several rounds
  is bounded rather than counted (`pmlkit.reads.redrawn` has the estimator and the reason). The
  tables' strata are not used, because the draw is not known for all regions. Each frame found
  represents `one_in` frames.
- **fixed** (``--draw fixed``): the same frames in every round. A window of several rounds is
  sampled in the same way. Its error is nearly the same in all rounds, and no mean reduces it.

Harvesting *all* frames in one round of `one_in` would cost the same, and would not even measure
that round. The reason is that the flags of the extended page tables also stay set: they report what
was touched since the previous harvest.

Assumption: the hash is independent of what the guest uses. Nothing is carried over from other
rounds or guests, so no similarity between them is assumed. The interval of a round is the sampling
error. It combines Jeffreys' intervals for the part (binomial) and for the count (Poisson), with the
correction for a finite population, by the root of the sum of squares (Zou and Donner, 2008). The
intervals assume that frames are chosen one by one. Neighbours are often used alike, so one of each
group has a smaller error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from pmlkit import pagetables
from pmlkit.errors import NeedsError, UsageError
from pmlkit.reads import draws, page_sets, redrawn
from pmlkit.reads.page_sets import Sets, joined, of_log, sets
from pmlkit.selection import time_ns, times_ns
from pmlkit.trace.schema import DRAWN, SAMPLED

if TYPE_CHECKING:
    import pandas as pd

    from pmlkit.kernels.by_page import References
    from pmlkit.timeline import Windows
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Bools, Floats, Gfns, Ints


__all__ = ["CONFIDENCE", "ONE_IN", "average", "estimate", "find", "of_sets", "sampled"]

CONFIDENCE = (
    0.95  # nominal; the rounds of one guest share a sample, so their coverage is correlated
)
ONE_IN = 16
_BOUNDED = "drawn again in each round: distinct pages of several rounds are bounded, not counted"
_NO_SAMPLE = "a round was too short for a sample: what it read is not known"


def sampled(gfns: Gfns, one_in: int = ONE_IN, draw: int = 0) -> Bools:
    """Mask the frames that are in the fixed sample.

    Parameters
    ----------
    gfns : ndarray of uint64, shape (frames,)
    one_in : int
        Frames in a group: a power of two.
    draw : int
        Index of the sample, 0 to `one_in` - 1. Together they cover all frames, and no two share a
        frame. The hypervisor's is 0.

    Returns
    -------
    ndarray of bool, shape (frames,)
    """
    if one_in < 1 or one_in & (one_in - 1) or not 0 <= draw < one_in:
        raise UsageError(f"sample {draw} of one in {one_in} is not possible: give a power of two")
    gfns, size = np.asarray(gfns, np.uint64), np.uint64(one_in)
    return (gfns - draws.places(gfns // size, one_in)) % size == np.uint64(draw)


def estimate(
    trace: Trace,
    window: str | int = "1r",
    step: str | int | None = None,
    start: str | int | None = None,
    end: str | int | None = None,
    one_in: int | None = None,
    draw: int = 0,
    frames: Sets | None = None,
    touched: References | None = None,
    tables: bool = True,
    redraw: bool | None = None,
) -> pd.DataFrame:
    """Estimate the working set by densities; see `pmlkit.reads.estimate`.

    Parameters
    ----------
    trace : Trace
        A PML log with a sample (``--harvest sampled``); or an access trace with its log, of which
        only the sample is used.
    window, step, start, end
        As in `pmlkit.reads.estimate`.
    one_in : int, optional
        As in `sampled`. Default: the sample that was harvested, or `ONE_IN`.
    draw : int
        As in `sampled`. With `redraw`: the number of rounds that were closed before the first one;
        each number gives a different sample.
    frames, touched : optional
        The results of `page_sets.sets` (or `of_log`) and `page_sets.truth` for the trace, if
        already known.
    tables : bool
        Whether snapshots of page tables are used. If not, only written frames are certain, and all
        other frames are one stratum: the method ``sample`` of `pmlkit.reads`.
    redraw : bool, optional
        For an access trace: whether the sample has a new draw in each round. Default: as it was
        harvested, or False.

    Returns
    -------
    DataFrame
        As `pmlkit.reads.estimate` returns it.
    """
    if trace.sample is not None:
        end = _until(trace, trace.sample, end)
    touched, one_in, redraw = _sample_of(trace, start, end, one_in, (draw, redraw), touched)
    frames = frames or (sets if tables else of_log)(trace, start, end)
    windows = page_sets.windows_of(trace, window, step, start, end)
    sizes = {
        name: page_sets.window_sizes(getattr(frames, name), windows)
        for name in ("written", "present", "reachable", "leaves")
    }
    pages, low, high = of_sets(frames, touched, windows, (one_in, draw), redraw)
    unsampled = page_sets.containing(windows, np.flatnonzero(~_has_sample(trace, start, end)))
    low = np.where(unsampled, sizes["written"], low)
    columns = page_sets.Columns(
        pages=np.minimum(np.rint(pages).astype(np.int64), trace.memory_pages),
        low=np.floor(low).astype(np.int64),
        high=np.minimum(np.ceil(high), trace.memory_pages).astype(np.int64),
        written=sizes["written"],
        tables=sizes["leaves"],
        unresolved=np.maximum(sizes["reachable"] - sizes["present"], 0),
        why=np.where(_lengths(windows)[1] > 1, _BOUNDED, "") if redraw else "",
    )
    columns = page_sets.unbounded(trace, columns, unsampled, _NO_SAMPLE)
    return page_sets.frame(trace, columns, windows, start, end)


def of_sets(
    frames: Sets, found: References, windows: Windows, sample: tuple[int, int], redraw: bool
) -> tuple[Floats, Floats, Floats]:
    """Return estimate, low and high of each window.

    Parameters
    ----------
    frames : pmlkit.reads.page_sets.Sets
        The certain frames, and the candidates: `accessed`.
    found : References
        The touched frames of the sample.
    windows : Windows
    sample : (int, int)
        The number of frames per group, and the draw, as in `estimate`.
    redraw : bool
    """
    if redraw:
        return _estimated_redrawn(frames.certain, found, windows, sample[0])
    return _estimated(*_strata(frames, found, windows, sample), sample[0])


def _until(trace: Trace, sample: Trace, end: str | int | None) -> int:
    """Leave out the round after the last harvest, in which the collector was killed."""
    last, asked = int(sample.rounds["t_end_ns"].iloc[-1]), time_ns(trace, end)
    return last if asked is None else min(asked, last)


def _has_sample(trace: Trace, start: str | int | None, end: str | int | None) -> Bools:
    """Mask the rounds that have a sample: a host takes none in a round that is too short."""
    first, stop = trace.rounds_between(*times_ns(trace, start, end))
    if trace.sample is None:
        return np.ones(stop - first, bool)
    return np.isin(np.arange(first, stop), trace.sample.batches["round"])


def _sample_of(
    trace: Trace,
    start: str | int | None,
    end: str | int | None,
    one_in: int | None,
    draw: tuple[int, bool | None],
    touched: References | None,
) -> tuple[References, int, bool]:
    """Return the touched frames of the sample, its group size, and whether it is redrawn."""
    which, redraw = draw
    if trace.sample is not None:
        harvested: int = trace.sample.meta.options[SAMPLED]
        there = trace.sample.meta.options.get(DRAWN) == "round"
        if one_in not in (None, harvested) or which or redraw not in (None, there):
            actual = f"draw 0 of one frame in {harvested}" + " in each round" * there
            raise UsageError(f"{trace.path} has {actual}: use that one")
        unmarked = not pagetables.is_marked(trace)
        found = page_sets.harvested(trace.sample, trace, start, end, unmarked)
        return found, harvested, there
    if trace.meta.kind == "pml":
        raise NeedsError(
            trace, "sample of accessed flags", "log it with `pmlkit collect --harvest sampled`"
        )
    one_in = one_in or ONE_IN
    touched = page_sets.truth(trace, start, end) if touched is None else touched
    return find(touched, (one_in, which), bool(redraw)), one_in, bool(redraw)


def find(touched: References, sample: tuple[int, int], redraw: bool) -> References:
    """Return the touched frames that a sample finds; parameters as in `of_sets`."""
    one_in, draw = sample
    if redraw:
        return touched.select(draws.found_redrawn(touched.round, touched.gfn, one_in, draw))
    return touched.select(sampled(touched.gfn, one_in, draw))


def _strata(
    frames: Sets, touched: References, windows: Windows, sample: tuple[int, int]
) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Count, per window: certain, candidates; of the sample's: candidates, their hits, others'.

    The sizes of unions of sets give those of the differences.
    """
    accessed = joined(frames.certain, frames.accessed)
    chosen, maybe = (refs.select(sampled(refs.gfn, *sample)) for refs in (frames.certain, accessed))
    unions = (
        frames.certain,
        accessed,
        chosen,
        maybe,
        joined(chosen, touched),
        joined(maybe, touched),
    )
    sure, all_, sure_here, all_here, sure_hit, all_hit = (
        page_sets.window_sizes(refs, windows) for refs in unions
    )
    others = all_hit - all_here
    return sure, all_ - sure, all_here - sure_here, sure_hit - sure_here - others, others


def _estimated(
    sure: Ints, candidates: Ints, looked_at: Ints, hits: Ints, others: Ints, one_in: int
) -> tuple[Floats, Floats, Floats]:
    """Return estimate, low and high (float arrays, shape (windows,))."""
    tails = (1 - CONFIDENCE) / 2 + np.array([[0.0], [CONFIDENCE]])
    share = np.where(looked_at > 0, hits / np.maximum(looked_at, 1), 0.5)
    shares = np.asarray(stats.beta.ppf(tails, hits + 0.5, looked_at - hits + 0.5))
    counts = np.asarray(stats.gamma.ppf(tails, others + 0.5))
    # If all or none are hit, Jeffreys' interval excludes the estimate itself: include it.
    below, above = (
        np.hypot(
            candidates * np.maximum(side * (part - share), 0),
            one_in * np.maximum(side * (count - others), 0),
        )
        for side, part, count in zip((-1, 1), shares, counts, strict=True)
    )
    rest = np.sqrt(1 - 1 / one_in)  # share of the frames that were not examined
    pages = (sure + candidates * share + one_in * others).astype(float)
    return pages, np.maximum(pages - rest * below, sure + hits + others), pages + rest * above


# ------------------------------------------------------------------------------
# A sample with a new draw in each round.


def _lengths(windows: Windows) -> tuple[Ints, Ints]:
    """Return the first round of each window, and its number of rounds."""
    each = np.arange(len(windows))
    first = np.searchsorted(windows.leave[:-1], each, side="right")
    return first, np.maximum(windows.until - first, 0)


def _estimated_redrawn(
    certain: References, touched: References, windows: Windows, one_in: int
) -> tuple[Floats, Floats, Floats]:
    """Return estimate, low and high: the certain pages, plus the estimated union of the others."""
    sure = page_sets.window_sizes(certain, windows).astype(float)
    others = page_sets.window_sizes(joined(certain, touched), windows) - sure
    zeros = np.zeros(len(windows), np.int64)
    pages, low, high = _estimated(sure, zeros, zeros, zeros, others, one_in)
    first, lengths = _lengths(windows)
    for window in np.flatnonzero(lengths > 1):
        span = int(first[window]), int(first[window] + lengths[window])
        times = _times(certain, touched, span)
        found = redrawn.union(times, int(lengths[window]), one_in, CONFIDENCE)
        pages[window], low[window], high[window] = np.add(sure[window], found)
    return pages, low, high


def _times(certain: References, touched: References, span: tuple[int, int]) -> Ints:
    """Return, for each frame not certain in a span, the number of rounds in which it was found."""
    first, stop = span
    sure, hits = (
        refs.gfn[(refs.round >= first) & (refs.round < stop)] for refs in (certain, touched)
    )
    return np.unique(hits[~np.isin(hits, sure)], return_counts=True)[1]


def average(trace: Trace, draw: int = 0, redraw: bool | None = None) -> tuple[float, float, float]:
    """Estimate the mean number of pages that a round with a sample touches.

    Written pages are counted; each other frame that the sample finds represents `one_in` frames.
    With a new draw in each round, the rounds' counts are independent, and their sum has Poisson's
    limits. With a fixed draw, all rounds observe the same frames. The limits are then those of one
    round's count, independent of the number of rounds.

    Parameters
    ----------
    trace, draw, redraw
        As in `estimate`.

    Returns
    -------
    (float, float, float)
        Mean, low and high, pages.
    """
    end = None if trace.sample is None else _until(trace, trace.sample, None)
    found, one_in, redraw = _sample_of(trace, None, end, None, (draw, redraw), None)
    written, has_sample = of_log(trace, None, end).written, _has_sample(trace, None, end)
    written = written.select(has_sample[written.round])
    n_rounds = max(int(has_sample.sum()), 1)
    others = (len(joined(written, found)) - len(written)) / n_rounds
    whole = n_rounds if redraw else 1
    low, high = (float(side) / whole for side in redrawn.limits(others * whole, CONFIDENCE))
    sure = len(written) / n_rounds
    return sure + one_in * others, sure + one_in * low, sure + one_in * high
