# SPDX-License-Identifier: Apache-2.0
"""Reads, which PML does not log, estimated from the page tables in its log.

>>> from pmlkit import reads                                                   # doctest: +SKIP
>>> reads.estimate(trace, "accessed", window="1s")                             # doctest: +SKIP

The methods, from the simplest to the most accurate. Each gives pages and an interval from `low` to
`high`:

``written``
    PML alone, the written pages. Low is the same number; PML cannot bound reads.
``leaves``
    Each leaf table in the log stands for 512 pages. Needs marks only. Assumes that a table
    is full, that all of it is used, and that there are no large pages. Low: a page per table, or
    the pages written. High: 512 per table, plus the pages written.
``present``
    Its entries that are present. Assumes that a program that uses a table uses all of it.
``accessed``
    Its entries that are present and whose accessed flag is set. Assumes that a page that was
    accessed once is used again. The method counts real frames: a frame that was read and written,
    or that has two mappings, counts once. A large page counts as all of its 512 frames. Neither
    ``present`` nor ``accessed`` counts the kernel's entries (`pmlkit.pagetables.covered` explains
    why), so pages that only the kernel reads are missing.
``density``
    The used part of those, from a sample of the accessed flags of the extended page
    tables: see `pmlkit.reads.sampled`.
``sample``
    The same sample without the page tables. Written pages are counted; each other frame that the
    sample finds represents as many frames as the sample's ratio.
``harvest``
    The result of the harvest of accessed flags (an access trace), exactly: see
    `pmlkit.reads.guided`.

Bounds of ``present`` and ``accessed``. Low: the pages that were certainly used. They were written,
or their accessed flag appeared between two snapshots of the table in successive rounds. High: the
written pages and all pages that the logged tables map, now or in the previous snapshot, regardless
of flags. It is certain except for the cases that `pmlkit.pagetables` lists. Under Linux the direct
map extends `high` to all of memory. `unresolved` is the number of pages that `high` contains only
because of the kernel's entries. The tables cannot decide about these pages, and `why` states this.

These numbers exclude page tables themselves, which represent the pages that they map.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.errors import UsageError
from pmlkit.pagetables import PAGES_OF_A_TABLE
from pmlkit.reads.calibration import Calibration
from pmlkit.reads.page_sets import (
    Columns,
    Sets,
    frame,
    joined,
    log,
    pairs,
    references,
    sets,
    truth,
    unbounded,
    unseen,
    window_sizes,
    windows_of,
)
from pmlkit.recordings import opened
from pmlkit.selection import edges
from pmlkit.timeline import Windows
from pmlkit.units import check_type

if TYPE_CHECKING:
    from pmlkit.kernels.by_page import References
    from pmlkit.trace.reader import Trace
    from pmlkit.types import PathLike


__all__ = ["METHODS", "Sets", "estimate", "sets", "truth"]

METHODS = ("written", "leaves", "present", "accessed", "density", "sample", "harvest")
_NO_LARGE = "a directory may stand for large pages: without snapshots their number is not known"
_KERNEL = "pages that only the kernel maps: its tables do not show which of them are used"
_CALIBRATED = (
    "The trace alone gives no interval. The one shown is calibrated to be valid in 90 % of the "
    "rounds of the lab's guests; trust it only if your guest resembles them."
)
_UNSEEN = (
    "some logged frames were not examined: page tables, and the pages that they map, may be missing"
)
_BLIND = "PML alone gives no bound for pages that are only read"


def estimate(
    trace: Trace | PathLike,
    method: str = "accessed",
    window: str | int = "1r",
    step: str | int | None = None,
    start: str | int | None = None,
    end: str | int | None = None,
    calibration: Calibration | None = None,
    frames: Sets | None = None,
    phase: str | None = None,
    between: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """Estimate the working set, reads included, window by window.

    Parameters
    ----------
    trace : Trace or path-like
        A PML log with marks (and snapshots), or an access trace that has one nested in it.
    method : str
        One of `METHODS`.
    window, step : str, int or Window
        As in `pmlkit.workingset.estimate`.
    start, end, phase, between
        The part of the trace: see `pmlkit.selection`.
    calibration : pmlkit.reads.calibration.Calibration, optional
        For ``accessed`` with cleared flags, and for intervals. Default: all accessed entries count,
        and intervals are the bounds.
    frames : Sets, optional
        The result of `sets` for the trace from `start` to `end`, if it is already known.

    Returns
    -------
    DataFrame
        ``t_ns`` (the window's end), ``pages``, ``low``, ``high``, ``bytes``. ``written``: PML
        alone. ``tables``: leaf tables in the log. ``unresolved``: pages that `high` contains only
        because of the kernel's mappings. ``phase``. ``why``: what cannot be known, or "".
        ``asked_ns``, ``effective_ns`` and ``full`` are as in `pmlkit.workingset.estimate`.

    Raises
    ------
    NeedsError
        If the trace lacks what the method needs.
    UsageError
        If the method does not exist.
    """
    start, end = edges(start, end, phase, between)
    trace = opened(trace)
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}: choose from {', '.join(METHODS)}")
    check_type("calibration", calibration, Calibration | None, "a Calibration")
    check_type("frames", frames, Sets | None, "the result of `reads.sets`")
    if method in ("density", "sample"):
        from pmlkit.reads import sampled

        tables = method == "density"
        frames = frames if tables else None
        return sampled.estimate(trace, window, step, start, end, frames=frames, tables=tables)
    windows = windows_of(trace, window, step, start, end)
    if method == "harvest":
        columns = _exact(truth(trace, start, end), windows)
    elif method in ("written", "leaves"):
        columns = _of_marks(trace, method, windows, start, end)
    else:
        frames = frames or sets(trace, start, end)
        columns = _of_snapshots(trace, method, frames, windows, calibration)
    if calibration is not None:
        columns = _narrowed(columns, method, frames is not None and frames.cleared, calibration)
    if method in ("leaves", "present", "accessed"):
        mask = unseen(trace, windows, start, end)
        columns = unbounded(trace, columns, mask, _UNSEEN)
    return frame(trace, columns, windows, start, end)


def _of_snapshots(
    trace: Trace, method: str, frames: Sets, windows: Windows, calibration: Calibration | None
) -> Columns:
    """Count the entries of snapshots, for ``present`` and ``accessed``."""
    names = ("written", "certain", "accessed", "present", "reachable", "leaves", "kernel")
    sizes = {name: window_sizes(getattr(frames, name), windows) for name in names}
    high = np.minimum(sizes["reachable"], trace.memory_pages)
    unresolved = np.maximum(high - sizes["present"], 0)
    pages = np.minimum(sizes[method], trace.memory_pages)
    if method == "accessed" and frames.cleared and calibration is not None:
        both = window_sizes(joined(frames.certain, frames.accessed), windows)
        fresh = both - sizes["certain"]
        pages = sizes["certain"] + calibration.others(sizes["kernel"], fresh)
    return Columns(
        pages=pages,
        low=sizes["certain"],
        high=np.maximum(high, pages),
        written=sizes["written"],
        tables=sizes["leaves"],
        unresolved=unresolved,
        why=np.where(unresolved > 0, _KERNEL, ""),
    )


def _narrowed(columns: Columns, method: str, cleared: bool, calibration: Calibration) -> Columns:
    """Replace bounds by the calibrated interval where that is narrower."""
    interval = calibration.interval(method, cleared, columns.pages, columns.low)
    if interval is None:
        return columns
    low = np.clip(interval[0], columns.low, columns.pages).astype(np.int64)
    high = np.clip(interval[1], columns.pages, columns.high).astype(np.int64)
    return replace(columns, low=low, high=high, why=_CALIBRATED)


def _exact(refs: References, windows: Windows) -> Columns:
    pages = window_sizes(refs, windows)
    return Columns(pages, pages, pages, written=-1, tables=-1, unresolved=0, why="")


def _of_marks(
    trace: Trace, method: str, windows: Windows, start: str | int | None, end: str | int | None
) -> Columns:
    """Count written pages and leaf tables, for ``leaves`` or PML alone."""
    logged, first, stop = log(trace, start, end)
    parts = (logged[logged["level"] == level] for level in (0, 1))
    written, leaves = (
        window_sizes(references(*pairs(part), first, stop), windows) for part in parts
    )
    memory = trace.memory_pages
    if method == "written":
        pages, low, high, why = written, written, np.full_like(written, memory), _BLIND
    else:
        pages = np.minimum(np.maximum(PAGES_OF_A_TABLE * leaves, written), memory)
        low = np.maximum(written, leaves)
        high = np.minimum(PAGES_OF_A_TABLE * leaves + written, memory)
        why = _NO_LARGE
    return Columns(pages, low, high, written, leaves, unresolved=0, why=why)
