# SPDX-License-Identifier: Apache-2.0
"""Tables of features: the information about a log at the end of each window.

The table has a row per window of length T. A row depends only on rounds up to the window's end, so
later changes affect no row (tests/forecast/test_features.py).

The meaning of the counts depends on the log's inputs. They count the pages that PML logged, or the
frames of the sample that were found accessed, times `one_in`. With both, the working set is what
was logged plus, times `one_in`, the sampled frames that were accessed but not logged. The log's own
counts are separate columns.

A page is *logged* once per round and re-arm. To make counts comparable between logs of different
resolution, a window is divided into `PARTS` parts (if its rounds allow it). A page counts once in
each. With 5 parts, a count of 5 is a page that was written in all of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.errors import UsageError
from pmlkit.forecast.log import window_ns
from pmlkit.kernels import by_page
from pmlkit.reads.sampled import sampled

if TYPE_CHECKING:
    from pmlkit.forecast.log import Log
    from pmlkit.kernels.by_page import References
    from pmlkit.types import Array, Floats, Gfns, Ints

__all__ = ["PARTS", "REGIONS", "WSS_COLUMNS", "change_points", "since_change", "table", "uses"]

LOGGED = "log_"  # prefix of the log's columns where the plain names are the sample's
PARTS = 5
REGIONS = 8
SOON = 8  # windows; a page that returns within them was away for a short time
# (T in windows, threshold m) of each column of working sets.
WSS_COLUMNS = {
    f"w{size}" if m == 1 else f"w{size}_m{m}": (size, m)
    for size in (1, 2, 4, 8, 16, 32)
    for m in (1, 2, 4)
}


def table(log: Log, window: str | int = "500ms") -> pd.DataFrame:
    """Compute the features of each window, known at its end.

    Parameters
    ----------
    log : Log
    window : str, int or Window
        T, which is also the step. An incomplete last window is omitted.

    Returns
    -------
    DataFrame
        One row per window. All numbers are pages unless stated otherwise:

        ``t_ns``
            The window's end.
        ``pages``
            The working set W(t, T) according to the inputs: for PML alone, distinct data pages
            logged in the window.
        ``used``
            The working set of all accesses, which is the truth and not a feature; only if it is
            known.
        ``log_pages`` and others
            Counts of the log alone, if the inputs are the log and a sample.
        ``w{k}``, ``w{k}_m{m}``
            W of the last k windows; W of pages logged at least m times in them.
        ``part_last``, ``part_max``
            In the window's last part, and in the part with most pages.
        ``logged``
            Re-arm count: page-parts in which a page was logged again.
        ``kept``, ``new``, ``soon``, ``late``, ``lost``
            Turnover. kept: also logged in the previous window. new: logged for the first time.
            soon: again after at most `SOON` windows. late: again after more. lost: logged in the
            previous window only.
        ``region0`` ... ``region7``
            Pages by eighths of the guest's memory.
        ``tables``
            Entries of page-table pages (0 if the log does not mark them).
        ``exits``, ``pause_ns``
            Log-full exits, and the time for which the guest was paused, in the window.
        ``since_change``
            Windows since the last change point that is visible from the past alone.
        ``hour_sin``, ``hour_cos``
            The hour as a point on a circle, if the day is known; otherwise NaN.
        ``phase``, ``phase_age``
            The phase that the workload marked, and the number of windows since it began.

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
    t_ns = (np.arange(n) + 1) * window_ns(log, window)
    columns: dict[str, Array] = {"t_ns": t_ns} | _seen(log, k, n)
    if log.used is not None:
        columns["used"] = _distinct(log.used, k, n)
    columns |= _round_sums(_blind_to_log(log), k, n)
    columns["since_change"] = since_change(np.log1p(columns["pages"]))
    columns |= _clock(t_ns, log.day_ns)
    columns |= _phase(log, k, n)
    return pd.DataFrame(columns)


def _seen(log: Log, k: int, n: int) -> dict[str, Array]:
    """Return the counts of pages according to the log's inputs."""
    if log.inputs == "pml" or log.touched is None:
        return _counts(log, k, n)
    sample = _as_log(log, log.touched)
    columns = {name: log.one_in * count for name, count in _counts(sample, k, n).items()}
    if log.inputs == "sample":
        return columns
    written = _counts(log, k, n)
    columns["pages"] = _joined(log, k, n)
    return columns | {LOGGED + name: written[name] for name in FROM_LOG}


# Counts of the log; with a sample, also those of the sample.
FROM_LOG = ("pages", "w2", "w4", "w8", "w16", "w32", "part_last", "kept", "new", "late", "logged")


def _blind_to_log(log: Log) -> Log:
    """Return the log without PML's data if the inputs are the sample alone."""
    if log.inputs != "sample" or log.touched is None:
        return log
    nothing = np.zeros_like(log.exits)
    return replace(_as_log(log, log.touched), exits=nothing, pause_ns=nothing)


def _as_log(log: Log, references: References) -> Log:
    """Return a log whose entries are these references alone."""
    order = np.argsort(references.round, kind="stable")
    no_table = np.zeros(len(order), bool)
    return replace(log, gfn=references.gfn[order], round=references.round[order], table=no_table)


def _joined(log: Log, k: int, n: int) -> Ints:
    """Return logged pages plus `one_in` times sampled pages that were not logged, per window."""
    assert log.touched is not None
    logged = by_page.references(log.round, log.gfn, log.n_rounds, distinct=True)
    frames = sampled(logged.gfn, log.one_in)
    rounds = np.concatenate([log.touched.round, logged.round[frames]])
    gfns = np.concatenate([log.touched.gfn, logged.gfn[frames]])
    order = np.argsort(rounds, kind="stable")
    either = by_page.references(rounds[order], gfns[order], log.n_rounds)
    unlogged = _distinct(either, k, n) - _distinct(logged.select(frames), k, n)
    return _distinct(logged, k, n) + log.one_in * unlogged


def _distinct(references: References, k: int, n: int) -> Ints:
    """Return the distinct pages in each of `n` windows of `k` rounds."""
    return np.bincount(_page_windows(references, k)[1], minlength=n)[:n]


def _counts(log: Log, k: int, n: int) -> dict[str, Array]:
    """Return the counts of a log's pages, per window."""
    occ, parts = uses(log, k, n)
    gfn, windows = _page_windows(occ, parts)
    columns: dict[str, Array] = {"pages": by_page.sliding(occ, parts)[parts - 1 :: parts]}
    for name, (size, m) in WSS_COLUMNS.items():
        columns[name] = by_page.sliding(occ, size * parts, m)[parts - 1 :: parts]
    columns |= _by_part(occ, n, parts)
    columns |= _turnover(gfn, windows, n)
    return columns | _regions(gfn, windows, n, log.memory_pages)


def uses(log: Log, k: int, n: int) -> tuple[References, int]:
    """Return the uses of data pages in `n` windows of `k` rounds, and the parts of a window.

    The rounds of the `References` are parts of windows.
    """
    parts = PARTS if k % PARTS == 0 else 1
    keep = ~log.table & (log.round < n * k)
    rounds = log.round[keep] // (k // parts)
    return by_page.references(rounds, log.gfn[keep], n * parts, distinct=True), parts


def _by_part(occ: References, n: int, parts: int) -> dict[str, Array]:
    pages = np.bincount(occ.round, minlength=n * parts).reshape(n, parts)
    return {"part_last": pages[:, -1], "part_max": pages.max(axis=1), "logged": pages.sum(axis=1)}


def _page_windows(occ: References, k: int) -> tuple[Gfns, Ints]:
    """Return the distinct pairs of a page and a window of `k` rounds, sorted."""
    window = occ.round // k
    first = np.ones(len(window), bool)
    first[1:] = (occ.gfn[1:] != occ.gfn[:-1]) | (window[1:] != window[:-1])
    return occ.gfn[first], window[first]


def _turnover(gfn: Gfns, window: Ints, n: int) -> dict[str, Array]:
    """Count the pages of each window by how long they have been away."""
    again = np.concatenate(([False], gfn[1:] == gfn[:-1]))[: len(gfn)]
    gap = np.where(again, np.diff(window, prepend=0), 0)  # 0: the page's first window
    masks = {
        "kept": gap == 1,
        "new": ~again,
        "soon": (gap > 1) & (gap <= SOON),
        "late": gap > SOON,
    }
    counts = {name: np.bincount(window[mask], minlength=n) for name, mask in masks.items()}
    pages = np.bincount(window, minlength=n)
    counts["lost"] = np.concatenate(([0], pages[:-1])) - counts["kept"]
    return counts


def _regions(gfn: Gfns, window: Ints, n: int, memory_pages: int) -> dict[str, Array]:
    last = np.uint64(REGIONS - 1)
    excess_bits = max(memory_pages.bit_length() - 60, 0)  # dropped, for gfn * REGIONS in 64 bits
    memory = np.uint64(memory_pages >> excess_bits)
    region = np.minimum((gfn >> np.uint64(excess_bits)) * np.uint64(REGIONS) // memory, last)
    counts = np.bincount(window * REGIONS + region.astype(np.int64), minlength=n * REGIONS)
    return {f"region{i}": counts.reshape(n, REGIONS)[:, i] for i in range(REGIONS)}


def _round_sums(log: Log, k: int, n: int) -> dict[str, Array]:
    tables = np.bincount(log.round[log.table], minlength=log.n_rounds)
    rounds = {"tables": tables, "exits": log.exits, "pause_ns": log.pause_ns}
    return {name: values[: n * k].reshape(n, k).sum(axis=1) for name, values in rounds.items()}


def _clock(t_ns: Ints, day_ns: int | None) -> dict[str, Array]:
    if day_ns is None:
        return {"hour_sin": np.full(len(t_ns), np.nan), "hour_cos": np.full(len(t_ns), np.nan)}
    angle = 2 * np.pi * (t_ns % day_ns) / day_ns
    return {"hour_sin": np.sin(angle), "hour_cos": np.cos(angle)}


def _phase(log: Log, k: int, n: int) -> dict[str, Array]:
    """Return the phase at each window's end, and the windows since it was marked."""
    marks = np.concatenate(([True], log.phase[1:] != log.phase[:-1]))
    started = np.maximum.accumulate(np.where(marks, np.arange(log.n_rounds), 0))
    ends = np.arange(k - 1, n * k, k)
    return {"phase": log.phase[ends], "phase_age": (ends - started[ends]) // k}


# ------------------------------------------------------------------------------
# Change points of a series of working sets, found by ruptures (kernel PELT).
#
# Truong, Oudre, Vayatis (2020), "Selective review of offline change point detection methods",
# Signal Processing 167; the exact search is PELT: Killick, Fearnhead, Eckley (2012), JASA 107.

LOOK_BACK = 48  # windows that the causal detection uses
PENALTY = 3.0  # times the noise's variance and the logarithm of the length


def change_points(series: Floats, min_size: int = 3) -> Ints:
    """Find the points at which a series changes its level.

    A change point must reduce the cost by `PENALTY` times the noise's variance times ln(n). The
    noise is estimated from the median of the absolute steps, which a few changes of level do not
    affect.

    Parameters
    ----------
    series : array of float, shape (n,)
    min_size : int
        Smallest length of a segment.

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
    search = ruptures.KernelCPD(kernel="linear", min_size=min_size).fit(series[:, None] / scale)
    return np.array(search.predict(pen=PENALTY * np.log(len(series)))[:-1], int)


def since_change(series: Floats, look_back: int = LOOK_BACK) -> Ints:
    """Count, at each value, the values since the last change point that was then visible.

    Only the last `look_back` values are searched. If they show no change, the count is `look_back`,
    or the length of the past if it is shorter.
    """
    series = np.asarray(series, float)
    ages = np.empty(len(series), int)
    for end in range(1, len(series) + 1):
        past = series[max(end - look_back, 0) : end]
        changes = change_points(past, min_size=2)
        ages[end - 1] = len(past) - changes[-1] if len(changes) else len(past)
    return ages
