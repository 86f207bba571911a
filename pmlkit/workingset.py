# SPDX-License-Identifier: Apache-2.0
"""Working sets of a trace: Denning's W(t, T), threshold m, (T, m) surfaces, plateau, re-use.

Each function reads the part of a trace that it needs, calls the kernels of `pmlkit.occurrences`
and returns a table. What counts as one use of a page: in an access trace a round in which the page
was used in any of the asked ways, in a PML trace an entry of the log.

The keyword arguments `kinds`, `start`, `end`, `region` and `page_tables` that they share, and the
errors that those raise, are described in `pmlkit.selection`. A window that is no multiple of the
trace's resolution is a `ResolutionError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import onepass
from pmlkit.plateau import Plateau, plateau
from pmlkit.reuse import Reuse
from pmlkit.reuse import means as mean_sizes
from pmlkit.selection import region_names, rounds_in_ns, select, window_rounds, windows
from pmlkit.sizes import means, sizes
from pmlkit.streams import stream
from pmlkit.units import check_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from pmlkit.occurrences import Occurrences
    from pmlkit.trace import Trace


__all__ = [
    "Plateau",
    "curve",
    "estimate",
    "occurrences",
    "plateau",
    "reuse",
    "surface",
    "sweep",
    "turnover",
    "uses_per_page",
    "window_rounds",
]


def estimate(
    trace: Trace,
    window: str | int = "1s",
    step: str | int | None = None,
    min_count: int = 1,
    **selection: Any,
) -> pd.DataFrame:
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

    Examples
    --------
    >>> import pmlkit
    >>> from pmlkit import workingset
    >>> trace = pmlkit.open(pmlkit.bundled("hotcold"))  # writes 300 pages, and 1500 more in a phase
    >>> table = workingset.estimate(trace, window="1s")
    >>> table[["region:hot", "region:cold"]].max().tolist()
    [300, 1500]
    >>> bool((table["bytes"] == 4096 * table["pages"]).all())
    True
    """
    k = window_rounds(trace, window)
    s = k if step is None else 1 if step == "sliding" else window_rounds(trace, step)
    check_count("min_count", min_count, "uses")
    source, names = stream(trace, **selection), region_names(trace)
    starts, ends = windows(source.n_rounds, k, s)
    pages, *of_regions = sizes(source, k, s, min_count, names)
    phases = np.asarray(trace.phase_of_rounds(), object)[source.first :]
    table = {
        "t_ns": source.t_ns[ends],
        "pages": pages,
        "bytes": pages * trace.meta.domain["page_size"],
        "asked_ns": rounds_in_ns(trace, k),
        "effective_ns": source.t_ns[ends] - source.t_ns[starts],
        "phase": phases[ends - 1],
    }
    regions = zip((f"region:{name}" for name in names), of_regions, strict=True)
    return pd.DataFrame({**table, **dict(regions)})


def sweep(trace: Trace, windows: Iterable[str], **selection: Any) -> pd.DataFrame:
    """Return the working set at the end of every round for several windows T, in one pass.

    Parameters
    ----------
    trace : Trace
    windows : sequence of str, int or Window
    **selection
        `kinds`, `start`, `end`, `region`, `page_tables`: see `pmlkit.selection`.

    Returns
    -------
    DataFrame
        ``t_ns`` (end of the window), ``rounds`` and ``asked_ns`` (T), ``pages`` and ``bytes``;
        sorted by window as given, then by time.
    """
    ks = [window_rounds(trace, window) for window in windows]
    source = stream(trace, **selection)
    pages = onepass.sweep(source.numbered(), source.n_rounds, ks).reshape(-1)
    rounds = np.repeat(np.asarray(ks, np.int64), source.n_rounds)
    return pd.DataFrame(
        {
            "t_ns": np.tile(source.t_ns[1:], len(ks)),
            "rounds": rounds,
            "asked_ns": rounds_in_ns(trace, rounds),
            "pages": pages,
            "bytes": pages * trace.meta.domain["page_size"],
        }
    )


def turnover(trace: Trace, window: str | int = "1s", **selection: Any) -> pd.DataFrame:
    """Return how the working set changes from one window to the next.

    Parameters
    ----------
    trace : Trace
    window : str, int or Window
        T; windows are consecutive.
    **selection
        `kinds`, `start`, `end`, `region`, `page_tables`: see `pmlkit.selection`.

    Returns
    -------
    DataFrame
        ``t_ns`` (end of the window), ``pages``, ``came`` (pages that the window before did not
        have), ``stayed`` (those that it had) and ``left`` (those that it had, and this one has
        not).
    """
    k = window_rounds(trace, window)
    source = stream(trace, **selection)
    _, ends = windows(source.n_rounds, k, k)
    found = onepass.turnover(source, source.n_rounds, k)
    names = ("pages", "came", "stayed", "left")
    return pd.DataFrame(
        {"t_ns": source.t_ns[ends]} | {name: getattr(found, name) for name in names}
    )


def curve(trace: Trace, **selection: Any) -> pd.DataFrame:
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

    Examples
    --------
    >>> import pmlkit
    >>> from pmlkit import workingset
    >>> curve = workingset.curve(pmlkit.open(pmlkit.bundled("hotcold")))
    >>> curve["rounds"].head(3).tolist()
    [1, 2, 3]
    >>> bool(curve["pages"].is_monotonic_increasing)  # a longer window holds no fewer pages
    True
    """
    source = stream(trace, **selection)
    found = Reuse(source.numbered(), source.n_rounds)
    pages, full = mean_sizes(found.totals(), source.n_rounds)
    misses = found.miss_counts()
    rounds = np.arange(1, source.n_rounds + 1)
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
            "miss_rate": misses[1:] / max(source.n_rounds, 1),
            "miss_ratio": misses[1:] / max(found.uses, 1),
        }
    )


def surface(
    trace: Trace, windows: Iterable[str], min_counts: Sequence[int], **selection: Any
) -> pd.DataFrame:
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
    source = stream(trace, **selection)
    n, of_count = source.n_rounds, means(source, list(min_counts))
    table = pd.DataFrame(
        [(k, m, of_count[m][k] if k <= n else np.nan) for k in rounds for m in min_counts],
        columns=["rounds", "min_count", "pages"],
    )
    table.insert(1, "asked_ns", rounds_in_ns(trace, table["rounds"].to_numpy(np.int64)))
    return table.assign(bytes=table["pages"] * trace.meta.domain["page_size"])


def reuse(trace: Trace, **selection: Any) -> pd.DataFrame:
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
    source = stream(trace, **selection)
    found = Reuse(source.numbered(), source.n_rounds, t_ns=source.t_ns)
    gap = np.flatnonzero(found.gap_counts)
    uses = found.gap_counts[gap]
    gap_ns = np.rint(found.gap_ns[gap] / uses).astype(np.int64)
    return pd.DataFrame({"gap_rounds": gap, "gap_ns": gap_ns, "uses": uses})


def uses_per_page(trace: Trace, **selection: Any) -> pd.DataFrame:
    """Return how many pages were used how often: a DataFrame of ``uses`` and ``pages``."""
    source = stream(trace, **selection)
    uses = Reuse(source.numbered(), source.n_rounds, ()).uses_of_pages
    times, pages = np.unique(uses.astype(np.int64), return_counts=True)
    return pd.DataFrame({"uses": times, "pages": pages})


def occurrences(trace: Trace, **selection: Any) -> Occurrences:
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
