# SPDX-License-Identifier: Apache-2.0
"""Tables of features: what is known of a log at the end of each window, and nothing later.

One row per window of length T. Every number in a row is made of the entries of the rounds up to
the window's end, so shuffling what comes later changes no row; a test does.

A page is *logged* once per round and re-arm. So that logs of different resolution mean the same by
a count, a window is cut into `PARTS` parts (where its rounds allow it), and a page counts once in
each: a count of 5 in a window of 5 parts is a page that was written in all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.errors import UsageError
from pmlkit.forecast.log import window_ns
from pmlkit.kernels import by_page

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.forecast.log import Log
    from pmlkit.kernels.by_page import References
    from pmlkit.types import Array, Floats, Gfns, Ints


__all__ = ["PARTS", "REGIONS", "coarse", "phases", "points", "since_change", "table"]


PARTS = 5
REGIONS = 8
WINDOWS = (1, 2, 4, 8, 16, 32)  # T, in windows
THRESHOLDS = (2, 4)  # m, besides 1
SOON = 8  # windows: a page that comes back within them was away for a short time


def table(log: Log, window: str | int = "500ms") -> pd.DataFrame:
    """Return what is known at the end of each window.

    Parameters
    ----------
    log : Log
    window : str, int or Window
        T, which is also the step; a last window that is cut short is left out.

    Returns
    -------
    DataFrame
        One row per window, all numbers in pages unless said otherwise:

        ``t_ns``
            The window's end.
        ``pages``
            The working set W(t, T): distinct data pages logged in the window.
        ``w{k}``, ``w{k}_m{m}``
            W of the last k windows; of pages logged at least m times in them.
        ``part_last``, ``part_max``
            In the window's last part, and in the part that has most.
        ``logged``
            Re-arm count: page-parts in which a page was logged again.
        ``kept``, ``new``, ``soon``, ``late``, ``lost``
            Turnover: logged in the window before, too; for the first time; again after at most
            `SOON` windows; after more; logged in the window before, and not in this one.
        ``region0`` ... ``region7``
            Pages by eighths of the guest's memory.
        ``tables``
            Entries of page-table pages (0 if the log does not mark them).
        ``exits``, ``pause_ns``
            Log-full exits, and the time that the guest stood still, in the window.
        ``since_change``
            Windows since the last change point that the past alone shows.
        ``hour_sin``, ``hour_cos``
            The hour as a point on a circle, where the day is known; else NaN.
        ``phase``, ``phase_age``
            The phase that the workload marked, and for how many windows it has lasted.

    Raises
    ------
    ResolutionError
        If T is no multiple of the log's rounds.
    UsageError
        If the log is shorter than one window.
    """
    k = log.window_rounds(window)
    n = log.n_rounds // k
    if n == 0:
        raise UsageError(f"{log.name} is shorter than a window of {window}: give a shorter one")
    occ, parts = coarse(log, k, n)
    columns = {"t_ns": (np.arange(n) + 1) * window_ns(log, window)}
    columns["pages"] = by_page.sliding(occ, parts)[parts - 1 :: parts]
    for size in WINDOWS:
        for m in (1, *THRESHOLDS):
            name = f"w{size}" if m == 1 else f"w{size}_m{m}"
            columns[name] = by_page.sliding(occ, size * parts, m)[parts - 1 :: parts]
    columns |= _by_part(occ, n, parts) | _turnover(occ, n, parts) | _regions(occ, log, n, parts)
    columns |= _by_round(log, k, n)
    columns["since_change"] = since_change(np.log1p(columns["pages"]))
    columns |= _clock(columns["t_ns"], log.day_ns) | _phase(log, k, n)  # type: ignore[arg-type]
    return pd.DataFrame(columns)


def coarse(log: Log, k: int, n: int) -> tuple[References, int]:
    """Return the data pages' uses with parts of windows as rounds, and the parts of a window.

    Parameters
    ----------
    log : Log
    k : int
        Rounds of a window.
    n : int
        Windows.

    Returns
    -------
    References, int
    """
    parts = PARTS if k % PARTS == 0 else 1
    keep = ~log.table & (log.round < n * k)
    rounds = log.round[keep] // (k // parts)
    return by_page.references(rounds, log.gfn[keep], n * parts, distinct=True), parts


def _by_part(occ: References, n: int, parts: int) -> dict[str, Any]:
    pages = np.bincount(occ.round, minlength=n * parts).reshape(n, parts)
    return {"part_last": pages[:, -1], "part_max": pages.max(axis=1), "logged": pages.sum(axis=1)}


def _turnover(occ: References, n: int, parts: int) -> dict[str, Any]:
    """Count the pages of each window by how long they have been away."""
    gfn, window = _page_windows(occ, parts)
    again = np.concatenate(([False], gfn[1:] == gfn[:-1]))[: len(gfn)]
    gap = np.where(again, np.diff(window, prepend=0), 0)  # 0: seen for the first time
    found = {
        "kept": gap == 1,
        "new": ~again,
        "soon": (gap > 1) & (gap <= SOON),
        "late": gap > SOON,
    }
    counts = {name: np.bincount(window[mask], minlength=n) for name, mask in found.items()}
    pages = sum(counts.values())
    counts["lost"] = np.concatenate(([0], pages[:-1])) - counts["kept"]  # type: ignore[arg-type, index]
    return counts


def _page_windows(occ: References, parts: int) -> tuple[Gfns, Ints]:
    """Return each page and window in which it was used, once, sorted by page and window."""
    window = occ.round // parts
    first = np.ones(len(window), bool)
    first[1:] = (occ.gfn[1:] != occ.gfn[:-1]) | (window[1:] != window[:-1])
    return occ.gfn[first], window[first]


def _regions(occ: References, log: Log, n: int, parts: int) -> dict[str, Any]:
    gfn, window = _page_windows(occ, parts)
    last = np.uint64(REGIONS - 1)
    spare = max(log.memory_pages.bit_length() - 60, 0)  # bits: the product has to fit into 64
    memory = np.uint64(log.memory_pages >> spare)
    part = np.minimum((gfn >> np.uint64(spare)) * np.uint64(REGIONS) // memory, last)
    cells = np.bincount(window * REGIONS + part.astype(np.int64), minlength=n * REGIONS)
    return {f"region{i}": cells.reshape(n, REGIONS)[:, i] for i in range(REGIONS)}


def _by_round(log: Log, k: int, n: int) -> dict[str, Any]:
    tables = np.bincount(log.round[log.table], minlength=log.n_rounds)
    rounds = {"tables": tables, "exits": log.exits, "pause_ns": log.pause_ns}
    return {name: of[: n * k].reshape(n, k).sum(axis=1) for name, of in rounds.items()}


def _clock(t_ns: Ints, day_ns: int | None) -> dict[str, Floats]:
    if day_ns is None:
        return {"hour_sin": np.full(len(t_ns), np.nan), "hour_cos": np.full(len(t_ns), np.nan)}
    angle = 2 * np.pi * (t_ns % day_ns) / day_ns
    return {"hour_sin": np.sin(angle), "hour_cos": np.cos(angle)}


def _phase(log: Log, k: int, n: int) -> dict[str, Array]:
    """Return the phase at each window's end, and the windows since it was marked."""
    phase = log.phase[k - 1 : n * k : k]
    marks = np.concatenate(([True], log.phase[1:] != log.phase[:-1]))
    started = np.maximum.accumulate(np.where(marks, np.arange(log.n_rounds), 0))
    ends = np.arange(k - 1, n * k, k)
    return {"phase": phase, "phase_age": (ends - started[ends]) // k}


# ------------------------------------------------------------------------------
# Change points and phases of a series of working sets, found by ruptures (kernel PELT).
#
# Truong, Oudre, Vayatis (2020), "Selective review of offline change point detection methods",
# Signal Processing 167; the exact search is PELT: Killick, Fearnhead, Eckley (2012), JASA 107.


LOOK_BACK = 48  # windows that the causal detection looks at
PENALTY = 3.0  # times the noise's variance and the logarithm of the length


def points(series: Floats, min_size: int = 3, penalty: float = PENALTY) -> Ints:
    """Return where a series changes its level.

    Parameters
    ----------
    series : array of float, shape (n,)
    min_size : int
        Least length of a segment.
    penalty : float
        What a change point has to save, in units of the noise's variance times ln(n). The noise is
        estimated by the median of the absolute steps, which a few changes of level do not move.

    Returns
    -------
    ndarray of int
        Index of the first value of each segment but the first.
    """
    import ruptures

    series = np.asarray(series, float)
    if len(series) < 2 * min_size or np.ptp(series) == 0:
        return np.zeros(0, int)
    # The scale is at least a hundredth of the range: most steps of a quiet guest are exactly 0.
    steps = np.abs(np.diff(series))
    scale = max(np.median(steps) / 0.6745 / np.sqrt(2), np.ptp(series) / 100)
    found = ruptures.KernelCPD(kernel="linear", min_size=min_size).fit(series[:, None] / scale)
    return np.array(found.predict(pen=penalty * np.log(len(series)))[:-1], int)


def phases(series: Floats, **how: Any) -> pd.DataFrame:
    """Return the segments between the change points.

    Parameters
    ----------
    series : array of float, shape (n,)
    **how
        As in `points`.

    Returns
    -------
    DataFrame
        ``start`` and ``stop`` (indices; stop exclusive) and ``mean`` of each segment.
    """
    series = np.asarray(series, float)
    edges = [0, *points(series, **how), len(series)]
    spans = list(zip(edges[:-1], edges[1:], strict=True))
    rows = [(start, stop, series[start:stop].mean()) for start, stop in spans if stop > start]
    return pd.DataFrame(rows, columns=["start", "stop", "mean"])


def since_change(series: Floats, look_back: int = LOOK_BACK) -> Ints:
    """Return, for each value, how many values ago the level changed last, as seen at that time.

    Parameters
    ----------
    series : array of float, shape (n,)
    look_back : int
        Only so many last values are looked at; it is also the answer if they show no change.

    Returns
    -------
    ndarray of int, shape (n,)
    """
    series = np.asarray(series, float)
    ages = np.empty(len(series), int)
    for end in range(1, len(series) + 1):
        past = series[max(end - look_back, 0) : end]
        changes = points(past, min_size=2)
        ages[end - 1] = len(past) - changes[-1] if len(changes) else min(end, look_back)
    return ages
