# SPDX-License-Identifier: Apache-2.0
"""Working sets of a trace: Denning's W(t, T), threshold m, (T, m) surfaces, plateau, re-use.

Each function reads the part of a trace that it needs, calls the kernels of `pmlkit.occurrences`
and returns a table. What counts as one use of a page: in an access trace a round in which the page
was used in any of the asked ways, in a PML trace an entry of the log.

The keyword arguments `kinds`, `start`, `end`, `region` and `page_tables` that they share, and the
errors that those raise, are described in `pmlkit.selection`. A window that is no multiple of the
trace's resolution is a `ResolutionError`.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pmlkit import occurrences as kernels
from pmlkit.selection import region_names, rounds_in_ns, select, window_rounds
from pmlkit.units import check_count, format_ns

__all__ = [
    "Plateau",
    "curve",
    "estimate",
    "occurrences",
    "plateau",
    "reuse",
    "surface",
    "uses_per_page",
    "window_rounds",
]


def estimate(trace, window="1s", step=None, min_count=1, **selection):
    """Return the working set over time, one row per window.

    Parameters
    ----------
    trace : Trace
    window : str, int or Window
        T: ``"1s"``, ``"5r"`` (rounds) or nanoseconds.
    step : None, "sliding", or as `window`
        Between the ends of two windows: None for T itself (tumbling), ``"sliding"`` for one round.
    min_count : int
        The threshold m: a page belongs to the working set if it was used m times within T.
    **selection
        `kinds`, `start`, `end`, `region`, `page_tables`: see `pmlkit.selection`.

    Returns
    -------
    DataFrame
        ``t_ns`` (end of the window), ``pages``, ``bytes``, ``asked_ns`` (T; -1 if the period was
        asked for in instructions), ``effective_ns`` (what the window really spans: less than T
        for the first of the sliding windows and for a last tumbling one that the end cuts short;
        rounds vary where the clock is the host's), ``phase`` (at the window's end), and a column
        ``region:NAME`` of pages per region of the trace.
    """
    k = window_rounds(trace, window)
    s = k if step is None else 1 if step == "sliding" else window_rounds(trace, step)
    check_count("min_count", min_count, "uses")
    part = select(trace, **selection)
    starts, ends = _windows(part.occ.n_rounds, k, s)
    pages = _sampled(part.occ, k, s, min_count)
    phases = np.asarray(trace.phase_of_rounds(), object)[part.first :]
    table = pd.DataFrame(
        {
            "t_ns": part.t_ns[ends],
            "pages": pages,
            "bytes": pages * trace.meta.domain["page_size"],
            "asked_ns": rounds_in_ns(trace, k),
            "effective_ns": part.t_ns[ends] - part.t_ns[starts],
            "phase": phases[ends - 1],
        }
    )
    for name in region_names(trace):
        table[f"region:{name}"] = _sampled(part.occ.restrict(trace.frames(name)), k, s, min_count)
    return table


def curve(trace, **selection):
    """Return Denning's curve: the mean of W(T) and its derivative at every T that the trace has.

    Parameters
    ----------
    trace : Trace
    **selection
        `kinds`, `start`, `end`, `region`, `page_tables`: see `pmlkit.selection`.

    Returns
    -------
    DataFrame
        ``rounds`` and ``asked_ns`` (T), ``pages`` and ``bytes`` (the mean over all rounds),
        ``full_pages`` (over the rounds that have a full window only), ``derivative`` (pages per
        round: the mean at the next T less this one), ``miss_rate`` (misses per round: uses whose
        page is not in the working set) and ``miss_ratio`` (misses per use).

    Notes
    -----
    Denning and Schwartz (1972) show that the derivative equals the missing rate. In a finite trace
    it is less by the pages whose last use is within T of the end, over the rounds.
    """
    occ = occurrences(trace, **selection)
    pages, full = kernels.mean_sizes(occ)
    misses = kernels.miss_counts(occ)
    rounds = np.arange(1, occ.n_rounds + 1)
    # W is never larger for a T beyond the end: nothing is older than the start.
    after = np.append(pages[2:], pages[-1])[: len(rounds)]
    return pd.DataFrame(
        {
            "rounds": rounds,
            "asked_ns": rounds_in_ns(trace, rounds),
            "pages": pages[1:],
            "bytes": pages[1:] * trace.meta.domain["page_size"],
            "full_pages": full[1:],
            "derivative": after - pages[1:],
            "miss_rate": misses[1:] / max(occ.n_rounds, 1),
            "miss_ratio": misses[1:] / max(len(occ), 1),
        }
    )


def surface(trace, windows, min_counts, **selection):
    """Return the mean working set over windows T and thresholds m.

    Parameters
    ----------
    trace : Trace
    windows : sequence of str, int or Window
    min_counts : sequence of int
    **selection
        `kinds`, `start`, `end`, `region`, `page_tables`: see `pmlkit.selection`.

    Returns
    -------
    DataFrame
        ``rounds``, ``asked_ns``, ``min_count``, ``pages`` and ``bytes``: the mean over the rounds
        that have a full window; NaN where T is longer than what was looked at.
    """
    rounds = [window_rounds(trace, window) for window in windows]
    for min_count in min_counts:
        check_count("min_count", min_count, "uses")
    occ = occurrences(trace, **selection)
    means = {m: kernels.mean_sizes(occ, m)[1] for m in min_counts}
    table = pd.DataFrame(
        [(k, m, means[m][k] if k <= occ.n_rounds else np.nan) for k in rounds for m in min_counts],
        columns=["rounds", "min_count", "pages"],
    )
    table.insert(1, "asked_ns", rounds_in_ns(trace, table["rounds"].to_numpy(np.int64)))
    return table.assign(bytes=table["pages"] * trace.meta.domain["page_size"])


@dataclass(frozen=True)
class Plateau:
    """What the plateau estimator says.

    Attributes
    ----------
    pages, bytes, t_ns : int or None
        The estimate and when it was reached; None if the count was never stable.
    stable_rounds : int
        The stability time w.
    series : DataFrame
        Per round ``t_ns``, ``distinct`` (pages since the start) and ``pages`` (the latest
        plateau, NaN before the first), by which the estimate can be followed past its first value.
    """

    pages: int | None
    bytes: int | None
    t_ns: int | None
    stable_rounds: int
    series: pd.DataFrame

    def __str__(self):
        if self.pages is None:
            return f"no estimate: never {self.stable_rounds} rounds without a new page"
        reached = f"after {self.stable_rounds} rounds without a new page"
        return f"{self.pages} pages, {reached}, at {format_ns(self.t_ns)}"


def plateau(trace, stable="1s", **selection):
    """Return the published plateau estimate (Bitchebe et al., VEE'21).

    It is the number of distinct pages since the start, once unchanged for the stability time.
    As published it does not forget; nor does it wait for a first page.

    Parameters
    ----------
    trace : Trace
    stable : str, int or Window
        The stability time w.
    **selection
        `kinds`, `start`, `end`, `region`, `page_tables`: see `pmlkit.selection`.

    Returns
    -------
    Plateau
    """
    w = window_rounds(trace, stable)
    part = select(trace, **selection)
    distinct = kernels.cumulative_distinct(part.occ)
    follows = kernels.plateau(distinct, w)
    t_ns = part.t_ns[1:]
    series = pd.DataFrame({"t_ns": t_ns, "distinct": distinct, "pages": follows})
    reached = np.flatnonzero(~np.isnan(follows))
    if len(reached) == 0:
        return Plateau(None, None, None, w, series)
    at = reached[0]
    return Plateau(
        int(distinct[at]),
        int(distinct[at]) * trace.meta.domain["page_size"],
        int(t_ns[at]),
        w,
        series,
    )


def reuse(trace, **selection):
    """Return the re-use histogram: how long after a page's use its next one came.

    Parameters
    ----------
    trace : Trace
    **selection
        `kinds`, `start`, `end`, `region`, `page_tables`: see `pmlkit.selection`.

    Returns
    -------
    DataFrame
        ``gap_rounds``, ``gap_ns`` (the mean, between the ends of the two rounds) and ``uses``;
        gaps that do not occur have no row.
    """
    part = select(trace, **selection)
    earlier, later = kernels.gaps(part.occ)
    t_end = part.t_ns[1:]
    uses = np.bincount(later - earlier)
    total_ns = np.bincount(later - earlier, weights=t_end[later] - t_end[earlier])
    gap = np.flatnonzero(uses)
    gap_ns = np.rint(total_ns[gap] / uses[gap]).astype(np.int64)
    return pd.DataFrame({"gap_rounds": gap, "gap_ns": gap_ns, "uses": uses[gap]})


def uses_per_page(trace, **selection):
    """Return how many pages were used how often: a DataFrame of ``uses`` and ``pages``."""
    _, uses = kernels.use_counts(occurrences(trace, **selection))
    times, pages = np.unique(uses, return_counts=True)
    return pd.DataFrame({"uses": times, "pages": pages})


def occurrences(trace, **selection):
    """Return the selected uses, sorted by page, for the kernels of `pmlkit.occurrences`.

    Parameters
    ----------
    trace : Trace
    **selection
        `kinds`, `start`, `end`, `region`, `page_tables`: see `pmlkit.selection`.

    Returns
    -------
    Occurrences
        Its round 0 is the first one that was selected.
    """
    return select(trace, **selection).occ


def _windows(n_rounds, k, step):
    """Return the first round of each window and the one after its last."""
    if step == k:
        starts = np.arange(0, n_rounds, k)
        return starts, np.minimum(starts + k, n_rounds)
    ends = np.arange(step, n_rounds + 1, step)
    return np.maximum(ends - k, 0), ends


def _sampled(occ, k, step, min_count):
    if step == k:
        return kernels.tumbling(occ, k, min_count)
    return kernels.sliding(occ, k, min_count)[step - 1 :: step]
