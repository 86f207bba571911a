# SPDX-License-Identifier: Apache-2.0
"""Reads that PML is blind to, estimated from the page tables in its log.

>>> from pmlkit import reads                                                   # doctest: +SKIP
>>> reads.estimate(trace, "accessed", window="1s")                             # doctest: +SKIP

The methods, from plain to good. Each gives pages and an interval from `low` to `high`:

``written``
    PML alone, the written pages. Low is that, too; it cannot bound reads.
``leaves``
    (a) each leaf table in the log stands for 512 pages. Needs marks only. Assumes that a table
    is full, that all of it is used, and that there are no large pages. Low: a page per table,
    or the pages written; high: 512 per table and the pages written.
``present``
    (b) its entries that are present. Assumes that whoever uses a table uses all of it.
``accessed``
    (c) its entries that are present and whose accessed flag is set. Assumes that what was ever
    accessed is used again. Real frames, so one that was read and written, or that has two
    mappings, counts once; of a large page all 512. Of the kernel's entries neither (b) nor (c)
    counts any (`pmlkit.pagetables.covered` says why): what only the kernel reads is missing.
``density``
    (d) the part of those that is in use, learnt from earlier rounds: see
    `pmlkit.reads_density`.
``harvest``
    (e) what the harvest of accessed flags says (an access trace), exactly: see
    `pmlkit.reads_guided`.

Bounds of (b) and (c). Low: the pages that were written, and those whose accessed flag appeared
between two snapshots of the table in successive rounds: they were used for certain. High: the
written and all that the logged tables map, now or in the snapshot before this one, whatever their
flags. It is sure but for the exceptions which `pmlkit.pagetables` lists. Under Linux the direct map
makes it all of memory: `unresolved` says how many pages `high` owes to the kernel's entries only;
about those the tables cannot know, and `why` says so.

Page tables themselves are no part of these numbers: they stand for what they map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import occurrences as kernels
from pmlkit import pagetables
from pmlkit.errors import NeedsError, UsageError
from pmlkit.pagetables import ACCESSED, PAGES_OF_A_TABLE
from pmlkit.selection import rounds_in_ns, time_ns, window_rounds, windows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pmlkit.occurrences import Occurrences
    from pmlkit.reads_density import DensityModel
    from pmlkit.trace import Trace
    from pmlkit.types import Gfns, Ints, Json


__all__ = ["METHODS", "Sets", "estimate", "sets", "truth"]

METHODS = ("written", "leaves", "present", "accessed", "density", "harvest")
_NO_LARGE = "a directory may stand for large pages: without snapshots their number is not known"
_KERNEL = "pages that only the kernel maps: its tables do not tell which of them are used"
_BLIND = "PML alone cannot bound the pages that are only read"


@dataclass(frozen=True)
class Sets:
    """Frames per round, each an `occurrences.Occurrences`; round 0 is the first selected.

    Attributes
    ----------
    written : of data; page tables are left out
    certain : written, or newly accessed
    accessed : written, or a program's, accessed at some time and under a table that was logged
    present : written, or a program's, mapped by a table that was logged, now or when seen before
    reachable : the same with the kernel's mappings
    leaves : the leaf tables in the log
    n_rounds, first : int
    """

    written: kernels.Occurrences
    certain: kernels.Occurrences
    accessed: kernels.Occurrences
    present: kernels.Occurrences
    reachable: kernels.Occurrences
    leaves: kernels.Occurrences
    n_rounds: int
    first: int


def sets(
    trace: Trace,
    start: str | int | None = None,
    end: str | int | None = None,
    rows: pd.DataFrame | None = None,
) -> Sets:
    """Read what the log and the snapshots say of each round.

    Parameters
    ----------
    trace : Trace
    start, end : str, int or None
    rows : DataFrame, optional
        The snapshots (`pagetables.entries`), if they have been read already.

    Returns
    -------
    Sets

    Raises
    ------
    NeedsError
        If the log has no marks, or there are no snapshots.
    """
    log, first, stop = _log(trace, start, end)
    if rows is None:
        rows = pagetables.entries(trace, time_ns(start), time_ns(end))
    tables = pagetables.table_frames(trace, rows, time_ns(start), time_ns(end))
    written = pagetables.without(*_pairs(log[log["level"] == 0]), *tables)
    before = _before(rows)
    parts = {
        "certain": pagetables.covered(rows[_newly(rows, before)], whose="all", large=False),
        "accessed": pagetables.covered(rows),
        "present": pagetables.covered(before, accessed=False),
        "reachable": pagetables.covered(before, accessed=False, whose="all"),
    }
    made = {name: _union(written, pairs, tables, first, stop) for name, pairs in parts.items()}
    made["written"] = _occurrences(*written, first, stop)
    leaves = log[log["level"] == 1]
    made["leaves"] = _occurrences(*_pairs(leaves), first, stop)
    return Sets(**made, n_rounds=stop - first, first=first)


def _log(
    trace: Trace, start: str | int | None, end: str | int | None
) -> tuple[pd.DataFrame, int, int]:
    """Return the log (round, gfn, level: 0 for data), the first round and the one after."""
    span = {"start_ns": time_ns(start), "end_ns": time_ns(end)}
    log = trace.pml.to_pandas(["round", "gfn", "kind"], **span)  # type: ignore[arg-type]
    tables = pagetables.logged(trace, **span)
    keys = tables.rename(columns={"table": "gfn"})[["round", "gfn", "level"]]
    log = log.drop(columns="kind").drop_duplicates().merge(keys, how="left", on=["round", "gfn"])
    return log.fillna({"level": 0}), *trace.rounds_between(**span)


def _pairs(table: pd.DataFrame) -> tuple[Ints, Gfns]:
    return table["round"].to_numpy(np.int64), table["gfn"].to_numpy(np.uint64)


def _union(
    written: tuple[Ints, Gfns],
    more: tuple[Ints, Gfns],
    tables: tuple[Ints, Gfns],
    first: int,
    stop: int,
) -> Occurrences:
    both: Any = (np.concatenate(parts) for parts in zip(written, more, strict=True))
    return _occurrences(*pagetables.without(*both, *tables), first, stop)  # type: ignore[call-arg]


def _occurrences(rounds: Ints, gfns: Gfns, first: int, stop: int) -> Occurrences:
    order = np.argsort(rounds, kind="stable")
    return kernels.occurrences(rounds[order] - first, gfns[order], stop - first, distinct=True)


def _before(rows: pd.DataFrame) -> pd.DataFrame:
    """Add to each snapshot the entries of the same table's snapshot before it."""
    seen = rows[["round", "table"]].drop_duplicates()
    later = seen.assign(later=seen.groupby("table")["round"].shift(-1)).dropna()
    old = rows.merge(later, on=["round", "table"])
    old = old.assign(round=old["later"].astype(rows["round"].dtype)).drop(columns="later")
    return pd.concat([rows.assign(old=False), old.assign(old=True)], ignore_index=True)


def _newly(rows: pd.DataFrame, before: pd.DataFrame) -> pd.Series[bool]:
    """Mask the entries whose accessed flag the processor has set since the snapshot before.

    A table that is not in a round's log was not walked in it: so if the flag was clear in the last
    snapshot, it was set in this round. An entry that was not there before proves nothing: Linux
    makes entries with the flag set, for pages around the one that is asked for.
    """
    keys = ["round", "table", "index", "target"]
    used = (rows["flags"] & ACCESSED) != 0
    clear = before[before["old"] & ((before["flags"] & ACCESSED) == 0)]
    return used & pd.MultiIndex.from_frame(rows[keys]).isin(pd.MultiIndex.from_frame(clear[keys]))


def estimate(
    trace: Trace,
    method: str = "accessed",
    window: str | int = "1r",
    step: str | int | None = None,
    start: str | int | None = None,
    end: str | int | None = None,
    model: DensityModel | None = None,
) -> pd.DataFrame:
    """Estimate the working set, reads included, window by window.

    Parameters
    ----------
    trace : Trace
        A PML log with marks (and snapshots), or an access trace that has one nested in it.
    method : str
        One of `METHODS`.
    window, step : str, int or Window
        As in `pmlkit.workingset.estimate`.
    start, end : str, int or None
    model : pmlkit.reads_density.DensityModel, optional
        For ``density``; default: learnt from the rounds of `trace` that have a harvest.

    Returns
    -------
    DataFrame
        ``t_ns`` (the window's end), ``pages``, ``low``, ``high``, ``bytes``, ``written`` (what PML
        alone says), ``tables`` (leaf tables in the log), ``unresolved`` (pages that `high` owes to
        the kernel's mappings alone), ``phase``, and ``why``: what cannot be known, or "".

    Raises
    ------
    NeedsError
        If the trace lacks what the method needs.
    UsageError
        If there is no such method.
    """
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}: choose from {', '.join(METHODS)}")
    if method == "density":
        from pmlkit import reads_density

        return reads_density.estimate(trace, model, window, step, start, end)
    k = window_rounds(trace, window)
    s = k if step is None else 1 if step == "sliding" else window_rounds(trace, step)
    found = _columns(trace, method, k, s, start, end)
    return frame(trace, found, k, s, start, end)


def frame(
    trace: Trace,
    columns: Mapping[str, Any],
    k: int,
    step: int,
    start: str | int | None = None,
    end: str | int | None = None,
) -> pd.DataFrame:
    """Make the table that `estimate` returns of its columns (arrays, one value per window)."""
    first, stop = trace.rounds_between(time_ns(start), time_ns(end))
    _, ends = windows(stop - first, k, step)
    table = pd.DataFrame({"t_ns": trace.rounds["t_end_ns"].to_numpy()[first:stop][ends - 1]})
    for name, values in columns.items():
        table[name] = values
    table.insert(4, "bytes", table["pages"] * trace.meta.domain["page_size"])
    table["asked_ns"] = rounds_in_ns(trace, k)
    table["phase"] = np.asarray(trace.phase_of_rounds(), object)[first:stop][ends - 1]
    return table


def _columns(
    trace: Trace, method: str, k: int, step: int, start: str | int | None, end: str | int | None
) -> Json:
    if method == "harvest":
        return _exact(truth(trace, start, end), k, step)
    if method in ("written", "leaves"):
        return _of_marks(trace, method, k, step, start, end)
    found = sets(trace, start, end)
    names = ("written", "certain", "accessed", "present", "reachable", "leaves")
    sizes = {name: sampled(getattr(found, name), k, step) for name in names}
    high = np.minimum(sizes["reachable"], trace.memory_pages)
    unresolved = np.maximum(high - sizes["present"], 0)
    return {
        "pages": sizes[method],
        "low": sizes["certain"],
        "high": np.maximum(high, sizes[method]),
        "written": sizes["written"],
        "tables": sizes["leaves"],
        "unresolved": unresolved,
        "why": np.where(unresolved > 0, _KERNEL, ""),
    }


def _exact(occ: Occurrences, k: int, step: int) -> Json:
    pages = sampled(occ, k, step)
    same = dict.fromkeys(("pages", "low", "high"), pages)
    return {**same, "written": -1, "tables": -1, "unresolved": 0, "why": ""}


def _of_marks(
    trace: Trace, method: str, k: int, step: int, start: str | int | None, end: str | int | None
) -> Json:
    """Count written pages and leaf tables: (a), or PML alone."""
    log, first, stop = _log(trace, start, end)
    size = {
        level: sampled(_occurrences(*_pairs(log[log["level"] == level]), first, stop), k, step)
        for level in (0, 1)
    }
    written, leaves = size[0], size[1]
    memory = trace.memory_pages
    if method == "written":
        bounds = {"pages": written, "low": written, "high": np.full_like(written, memory)}
        why = _BLIND
    else:
        pages = np.minimum(np.maximum(PAGES_OF_A_TABLE * leaves, written), memory)
        high = np.minimum(PAGES_OF_A_TABLE * leaves + written, memory)
        bounds = {"pages": pages, "low": np.maximum(written, leaves), "high": high}
        why = _NO_LARGE
    return {**bounds, "written": written, "tables": leaves, "unresolved": 0, "why": why}


def truth(
    trace: Trace, start: str | int | None = None, end: str | int | None = None, tables: bool = False
) -> Occurrences:
    """Return the frames that the harvest found, per round.

    Parameters
    ----------
    trace : Trace
        An access trace with its log nested in it.
    start, end : str, int or None
    tables : bool
        Page tables too, which the processor walks.

    Returns
    -------
    Occurrences
    """
    if trace.meta.kind != "access":
        raise NeedsError(trace, "harvest of accessed flags", "log it with --accessed")
    span = {"start_ns": time_ns(start), "end_ns": time_ns(end)}
    first, stop = trace.rounds_between(**span)
    touched = _pairs(trace.to_pandas(["round", "gfn"], **span))  # type: ignore[arg-type]
    if not tables:
        rows = pagetables.entries(trace, **span) if trace.has_tables else None
        touched = pagetables.without(*touched, *pagetables.table_frames(trace, rows, **span))
    return _occurrences(*touched, first, stop)


def sampled(occ: Occurrences, k: int, step: int) -> Ints:
    """Return the sizes of the windows (int64), as `windows` lays them out."""
    if step == k:
        return kernels.tumbling(occ, k)
    return kernels.sliding(occ, k)[step - 1 :: step]
