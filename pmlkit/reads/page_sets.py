# SPDX-License-Identifier: Apache-2.0
"""Sets of frames per round, from certain to possible, derived from a log and its snapshots."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import pagetables
from pmlkit.errors import NeedsError
from pmlkit.kernels import by_page
from pmlkit.pagetables import ACCESSED, CLEARED, LEAF, USER
from pmlkit.recordings import opened
from pmlkit.selection import rounds_of, times_ns
from pmlkit.timeline import Windows, timeline
from pmlkit.trace.schema import UNSEEN

if TYPE_CHECKING:
    from pmlkit.kernels.by_page import References
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Bools, Gfns, Ints, PathLike
    from pmlkit.units import Window


__all__ = ["Columns", "Sets", "joined", "log", "references", "of_log", "pairs", "sets"]


@dataclass(frozen=True)
class Sets:
    """Frames per round, each a `by_page.References`; round 0 is the first selected.

    Attributes
    ----------
    written : of data; page tables are left out
    certain : written, or newly accessed
    accessed : written, or a program's, accessed at some time and under a table that was logged
    present : written, or a program's, mapped by a table that was logged, now or when seen before
    reachable : the same with the kernel's mappings
    kernel : first frames of the kernel's large pages that were accessed in the round; only of
        tables whose flags the hypervisor had cleared
    leaves : the leaf tables in the log
    cleared : bool
        Whether there are such tables; `accessed` then belongs to the round, except for new tables.
    n_rounds, first : int
    """

    written: References
    certain: References
    accessed: References
    present: References
    reachable: References
    kernel: References
    leaves: References
    cleared: bool
    n_rounds: int
    first: int


@dataclass(frozen=True)
class Columns:
    """Columns of `estimate` for each window, in the order of its table."""

    pages: Ints
    low: Ints
    high: Ints
    written: Ints | int
    tables: Ints | int
    unresolved: Ints | int
    why: Array | str


def sets(
    trace: Trace | PathLike, start: str | int | None = None, end: str | int | None = None
) -> Sets:
    """Read the sets of each round from the log and the snapshots.

    Raises
    ------
    NeedsError
        If the log has no marks, or there are no snapshots.
    """
    trace = opened(trace)
    logged, first, stop = log(trace, start, end)
    rows = pagetables.entries(trace, *times_ns(trace, start, end))
    tables = pagetables.table_frames(trace, rows, *times_ns(trace, start, end))
    written = pagetables.without(*pairs(logged[logged["level"] == 0]), *tables)
    before = _before(rows)
    parts = {
        "certain": pagetables.covered(rows[_newly(rows, before)], whose="all", large=False),
        "accessed": pagetables.covered(rows),
        "present": pagetables.covered(before, accessed=False),
        "reachable": pagetables.covered(before, accessed=False, whose="all"),
    }
    frames = {name: _union(written, more, tables, first, stop) for name, more in parts.items()}
    frames["written"] = references(*written, first, stop)
    large = rows[_kernels(rows)].rename(columns={"target": "gfn"})
    for name, part in (("kernel", large), ("leaves", logged[logged["level"] == 1])):
        frames[name] = references(*pairs(part), first, stop)
    cleared = bool((rows["flags"] & CLEARED).any())
    return Sets(**frames, cleared=cleared, n_rounds=stop - first, first=first)


def of_log(trace: Trace, start: str | int | None = None, end: str | int | None = None) -> Sets:
    """Read the sets of each round from the log alone, for a trace without snapshots.

    The log contains only `written` and `leaves`; the certain and the possible sets equal `written`.
    Without marks, page tables count as ordinary pages.
    """
    logged, first, stop = log(trace, start, end, pagetables.is_marked(trace))
    written = references(*pairs(logged[logged["level"] == 0]), first, stop)
    leaves = references(*pairs(logged[logged["level"] == 1]), first, stop)
    none = references(*pairs(logged.head(0)), first, stop)
    names = ("written", "certain", "accessed", "present", "reachable")
    return Sets(
        **dict.fromkeys(names, written),
        kernel=none,
        leaves=leaves,
        cleared=False,
        n_rounds=stop - first,
        first=first,
    )


def log(
    trace: Trace, start: str | int | None, end: str | int | None, marked: bool = True
) -> tuple[pd.DataFrame, int, int]:
    """Return the log (round, gfn, level: 0 for data), the first round and the end (exclusive).

    If the log is not `marked`, all entries are data.
    """
    span = times_ns(trace, start, end)
    entries = trace.pml.to_pandas(["round", "gfn"], *span).drop_duplicates()
    if not marked:
        return entries.assign(level=0), *trace.rounds_between(*span)
    tables = pagetables.logged(trace, *span)
    keys = tables.rename(columns={"table": "gfn"})[["round", "gfn", "level"]]
    entries = entries.merge(keys, how="left", on=["round", "gfn"])
    return entries.fillna({"level": 0}), *trace.rounds_between(*span)


def pairs(table: pd.DataFrame) -> tuple[Ints, Gfns]:
    """Return the columns ``round`` and ``gfn`` as arrays of int64 and uint64."""
    return table["round"].to_numpy(np.int64), table["gfn"].to_numpy(np.uint64)


def references(rounds: Ints, gfns: Gfns, first: int, stop: int) -> References:
    """Sort pairs of round and frame, in any order, by page; round `first` becomes 0."""
    order = np.argsort(rounds, kind="stable")
    return by_page.references(rounds[order] - first, gfns[order], stop - first, distinct=True)


def joined(*parts: References) -> References:
    """Return the union of sets of frames per round."""
    rounds = np.concatenate([refs.round for refs in parts])
    gfns = np.concatenate([refs.gfn for refs in parts])
    return references(rounds, gfns, 0, parts[0].n_rounds)


def _union(
    written: tuple[Ints, Gfns],
    more: tuple[Ints, Gfns],
    tables: tuple[Ints, Gfns],
    first: int,
    stop: int,
) -> References:
    rounds, gfns = (np.concatenate(parts) for parts in zip(written, more, strict=True))
    rounds, gfns = pagetables.without(rounds, gfns, *tables)
    return references(rounds, gfns, first, stop)


def _before(rows: pd.DataFrame) -> pd.DataFrame:
    """Add to each snapshot the entries of the same table's previous snapshot."""
    seen = rows[["round", "table"]].drop_duplicates()
    later = seen.assign(later=seen.groupby("table")["round"].shift(-1)).dropna()
    old = rows.merge(later, on=["round", "table"])
    old = old.assign(round=old["later"].astype(rows["round"].dtype)).drop(columns="later")
    return pd.concat([rows.assign(old=False), old.assign(old=True)], ignore_index=True)


def _newly(rows: pd.DataFrame, before: pd.DataFrame) -> pd.Series[bool]:
    """Mask the entries whose accessed flag the processor has set since the previous snapshot.

    A table that is not in a round's log was not walked in that round. If the flag was clear in the
    last snapshot, or the hypervisor has cleared it since, it was therefore set in this round. A new
    entry proves nothing: Linux creates entries with the flag set for pages around a fault.
    """
    keys = ["round", "table", "index", "target"]
    used, cleared = ((rows["flags"] & flag) != 0 for flag in (ACCESSED, CLEARED))
    old = before[before["old"]]
    known = pd.MultiIndex.from_frame(rows[keys])
    there, clear = (
        known.isin(pd.MultiIndex.from_frame(part[keys]))
        for part in (old, old[(old["flags"] & ACCESSED) == 0])
    )
    return used & (clear | (cleared & there))


def _kernels(rows: pd.DataFrame) -> Bools:
    """Mask the kernel's large pages that were accessed in the round, where flags were cleared."""
    flags = rows["flags"].to_numpy()
    wanted = LEAF | ACCESSED | CLEARED
    # Without programs' entries, the kernel's cannot be distinguished.
    programs = bool((flags & USER).any())
    return programs & ((flags & (wanted | USER)) == wanted) & (rows["level"].to_numpy() > 1)


def windows_of(
    trace: Trace,
    window: str | int | Window,
    step: str | int | None = None,
    start: str | int | None = None,
    end: str | int | None = None,
) -> Windows:
    """Return the windows over the rounds from `start` to `end`; UsageError without a round."""
    first, stop = rounds_of(trace, *times_ns(trace, start, end))
    return timeline(trace, first, stop - first).windows(window, step)


def unseen(
    trace: Trace, windows: Windows, start: str | int | None = None, end: str | int | None = None
) -> Bools:
    """Mask the windows in which an incomplete harvest may have missed a page table."""
    first, stop = trace.rounds_between(*times_ns(trace, start, end))
    rounds = np.array(trace.pml.meta.options.get(UNSEEN, []), np.int64)
    return containing(windows, rounds[(rounds >= first) & (rounds < stop)] - first)


def containing(windows: Windows, rounds: Ints) -> Bools:
    """Mask the windows with one of the rounds, which are counted from the first selected."""
    mask = np.zeros(len(windows), bool)
    for enter, leave in zip(windows.enter[rounds], windows.leave[rounds], strict=True):
        mask[enter:leave] = True
    return mask


def unbounded(trace: Trace, columns: Columns, mask: Bools, why: str) -> Columns:
    """Remove the upper bound of windows in which something is not known, and state the reason."""
    high = np.where(mask, np.maximum(columns.high, trace.memory_pages), columns.high)
    return replace(columns, high=high, why=np.where(mask, why, columns.why))


def frame(
    trace: Trace,
    columns: Columns,
    windows: Windows,
    start: str | int | None = None,
    end: str | int | None = None,
) -> pd.DataFrame:
    """Create the table that `estimate` returns."""
    first, stop = trace.rounds_between(*times_ns(trace, start, end))
    table = pd.DataFrame({"t_ns": windows.t_ns} | vars(columns))
    table.insert(4, "bytes", table["pages"] * trace.meta.domain["page_size"])
    table["asked_ns"] = windows.asked_ns
    table["phase"] = np.asarray(trace.phase_of_rounds(), object)[first:stop][windows.round]
    return table.assign(effective_ns=windows.effective_ns, full=windows.full)


def truth(
    trace: Trace | PathLike,
    start: str | int | None = None,
    end: str | int | None = None,
    tables: bool = False,
) -> References:
    """Return the frames that the harvest found, per round.

    Parameters
    ----------
    trace : Trace or path-like
        An access trace with its log nested in it.
    tables : bool
        Includes page tables, which the processor walks.
    """
    trace = opened(trace)
    if trace.meta.kind != "access":
        raise NeedsError(
            trace, "harvest of accessed flags", "log it with `pmlkit collect --harvest`"
        )
    return harvested(trace, trace, start, end, tables)


def harvested(
    home: Trace,
    trace: Trace,
    start: str | int | None = None,
    end: str | int | None = None,
    tables: bool = False,
) -> References:
    """Return the frames of an access trace that belongs to a log; see `truth`.

    Parameters
    ----------
    home : Trace
        `trace` itself, or its sample.
    trace : Trace
        The trace whose log marks the page tables.
    """
    span = times_ns(trace, start, end)
    first, stop = trace.rounds_between(*span)
    rounds, gfns = pairs(home.to_pandas(["round", "gfn"], *span))
    if not tables:
        rows = pagetables.entries(trace, *span) if trace.has_tables else None
        table_rounds, table_gfns = pagetables.table_frames(trace, rows, *span)
        rounds, gfns = pagetables.without(rounds, gfns, table_rounds, table_gfns)
    return references(rounds, gfns, first, stop)


def window_sizes(refs: References, windows: Windows | None = None) -> Ints:
    """Return the sizes of the windows (int64); for None, those of the rounds."""
    return by_page.sliding(refs, windows or Windows.of_rounds(refs.n_rounds, 1))
