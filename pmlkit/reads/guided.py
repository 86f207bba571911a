# SPDX-License-Identifier: Apache-2.0
"""The guided harvest against the full scan: the frames of each, the leftovers, the costs.

At the end of a round, the guided harvest reads the EPT accessed flags of two sets: the frames that
the logged tables map, and the logged frames themselves. `pmlkit.pagetables` argues why these are
all. The scan reads the flags of all memory. If both run in one round, the guided harvest first, the
scan finds what the other left: nothing, or the exceptions.

Related work, of which only the abstracts were read: HMM-V (arXiv 2209.13111) "tracks memory
accesses through page table manipulation, but reduces the cost by leveraging" PML and a multi-level
queue. vTMM (EuroSys'23, doi 10.1145/3552326.3587449) does the same. Both are for memory tiering.
They may direct their scans in the same way. This module adds the argument for completeness, the
frame-by-frame comparison with the scan, and working sets under Xen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import pagetables
from pmlkit.errors import NeedsError
from pmlkit.trace.kinds import is_page_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pmlkit.trace.reader import Trace
    from pmlkit.types import Bools, Gfns


__all__ = ["CAUSES", "costs", "equality", "leftovers", "model_costs"]

CAUSES = {
    "table": "a page table that was not in the log when the round ended",
    "changed": (
        "its entry was removed in the round: an earlier snapshot of a logged table contains it"
    ),
    "gone": "no used table maps it at the round's end: its mapping came and went",
    "shared": "a page shared with Xen or dom0, not in the guest's memory map",
    "missed": "a used leaf table maps it at the round's end: this must not happen",
}

_RAM = ("usable", "ram", "RAM", "System RAM")


def equality(trace: Trace) -> pd.DataFrame:
    """Compare both harvests round by round.

    Parameters
    ----------
    trace : Trace
        An access trace whose batches have ``guided`` and ``scan``.

    Returns
    -------
    DataFrame
        Per round: ``round``, ``guided`` and ``left`` (frames), ``tables`` (page tables in the log),
        and one column for each of `CAUSES`.

    Raises
    ------
    NeedsError
        If no rounds have both.
    """
    sizes = _sizes(trace)
    if not {"guided", "scan"} <= set(sizes.columns):
        raise NeedsError(
            trace, "round with both harvests", "log it with `pmlkit collect --harvest both`"
        )
    table = pd.DataFrame({"guided": sizes["guided"], "left": sizes["scan"]})
    # A guest without paging has no tables: there the guided harvest reads the flags of all memory.
    tables = (
        pagetables.logged(trace) if pagetables.is_marked(trace) else pd.DataFrame({"round": []})
    )
    table["tables"] = tables.groupby("round").size().reindex(table.index, fill_value=0)
    causes = leftovers(trace).pivot_table(index="round", columns="cause", aggfunc="size")
    causes = causes.reindex(index=table.index, columns=list(CAUSES)).fillna(0).astype("int64")
    table = table.join(causes)
    return table.reset_index()


def _sizes(trace: Trace) -> pd.DataFrame:
    batches = trace.batches
    kept = batches[batches["reason"].isin(["guided", "scan"])]
    return kept.pivot_table(index="round", columns="reason", values="entries", aggfunc="sum")


def leftovers(trace: Trace) -> pd.DataFrame:
    """Return the cause for each frame that only the scan found.

    The log alone is not trusted. A leaf table counts as used in a round if it was logged, or if
    either harvest found its own frame touched. If neither harvest found a table's frame touched,
    the table was not walked.

    Returns
    -------
    DataFrame
        ``round``, ``gfn``, ``cause`` (of `CAUSES`).
    """
    scans = trace.batches.loc[trace.batches["reason"] == "scan", "batch"]
    frames = trace.to_pandas(["round", "batch", "gfn"])
    left = frames[frames["batch"].isin(scans)][["round", "gfn"]].reset_index(drop=True)
    left["cause"] = "gone"
    if len(left) == 0:
        return left
    rows = pagetables.entries(trace) if trace.has_tables else None
    if rows is not None:
        touched = pagetables.pack(frames["round"], frames["gfn"])
        for name, inside in _mapped(trace, rows, left, touched).items():
            left.loc[inside, "cause"] = name
    tables = np.isin(left["gfn"], pagetables.table_frames(trace, rows)[1])
    left.loc[tables, "cause"] = "table"
    left.loc[_outside(trace, left["gfn"].to_numpy()), "cause"] = "shared"
    return left


def _mapped(
    trace: Trace, rows: pd.DataFrame, left: pd.DataFrame, touched: NDArray[np.uint64]
) -> dict[str, Bools]:
    """Return masks of `left`: mapped by a used leaf table before, or at the round's end.

    A snapshot is valid until its table is logged again, because only a write changes a table. (A
    table that is logged without a new snapshot is none any more.) Large pages are left out: the
    kernel maps all memory by them, whether they are used or not.
    """
    small = rows[np.isin(rows["target"], left["gfn"].unique()) & (rows["level"] == 1)]
    logged = pagetables.logged(trace)[["round", "table"]]
    changes = pd.concat([logged, rows[["round", "table"]]]).drop_duplicates()
    changes = changes.astype(np.int64).sort_values(["table", "round"])
    changes["until"] = changes.groupby("table")["round"].shift(-1, fill_value=trace.n_rounds)
    known = small[["round", "table", "target"]].astype(np.int64).merge(changes)
    known = known.rename(columns={"round": "since", "target": "gfn"})
    under = left.reset_index()[["index", "round", "gfn"]].astype(np.int64).merge(known, on="gfn")
    now = (under["since"] <= under["round"]) & (under["round"] < under["until"])
    again = under.merge(logged.astype(np.int64), on=["round", "table"])
    before = again[again["since"] < again["round"]]
    used = under["since"] == under["round"]
    used |= now & np.isin(pagetables.pack(under["round"], under["table"]), touched)
    return {
        "changed": left.index.isin(before["index"]),
        "missed": left.index.isin(under.loc[used, "index"]),
    }


def _outside(trace: Trace, gfns: Gfns) -> Bools:
    ram = [r for r in trace.meta.memory_map if r["type"] in _RAM]
    if not ram:
        return np.zeros(len(gfns), bool)
    inside = [(gfns >= r["start"] // 4096) & (gfns < -(-r["end"] // 4096)) for r in ram]
    return ~np.logical_or.reduce(inside)


def costs(trace: Trace) -> pd.DataFrame:
    """Return the cost of each round's harvests, as Xen measured it.

    Returns
    -------
    DataFrame
        Per round: ``round``; the costs, in ticks of the time-stamp counter (in the lab:
        instructions); and the counts. Costs: finding the page tables (``walk_tsc``), their
        snapshots, re-arming, and both harvests (``guided_tsc``, ``scan_tsc``). Counts: the tables,
        entries and frames examined; in the log, ``logged`` entries, ``logged_tables`` among them,
        and ``exits``.

    Raises
    ------
    NeedsError
        If the trace does not have them.
    """
    costs_of_rounds = trace.pml.meta.overheads.get("rounds") or trace.meta.overheads.get("rounds")
    if not costs_of_rounds:
        raise NeedsError(trace, "costs of its rounds", "log it with a Xen of the newest patches")
    rounds = [{"round": number, **numbers} for number, numbers in enumerate(costs_of_rounds)]
    return pd.DataFrame(rounds).merge(_of_the_log(trace.pml), on="round")


def _of_the_log(pml: Trace) -> pd.DataFrame:
    log = pml.to_pandas(["round", "kind"])
    tables = log["round"][is_page_table(log["kind"].to_numpy())].value_counts()
    rounds = pml.rounds["round"].astype("int64")
    logged = log["round"].value_counts().reindex(rounds, fill_value=0).to_numpy()
    counts = pd.DataFrame({"round": rounds, "logged": logged})
    counts["logged_tables"] = tables.reindex(rounds, fill_value=0).to_numpy()
    return counts.assign(exits=pml.rounds["exits"].to_numpy())


_FULL_DIRECTORY_BYTES = 1 << 30  # with less memory, an EPT directory of 512 entries is not full


def model_costs(measured: pd.DataFrame, memory_bytes: Sequence[int]) -> pd.DataFrame:
    """Extrapolate harvests' costs to other memory sizes, from measured rounds.

    The scan reads one flag per frame of memory: a straight line through the measured sizes (least
    squares). The pruned harvest and the sample read the EPT's directories of the regions in use,
    and one flag per GiB. Their line is fitted to sizes from 1 GiB on; below that, the directory
    itself grows. The guided harvest reads the flags below the logged tables. Their number depends
    on the working set, not on memory, so the model is the mean of the measurements.

    Parameters
    ----------
    measured : DataFrame
        ``memory_bytes``; ``scan``, ``pruned``, ``sampled`` and ``guided``, in instructions. All
        rows have the same working set in different memory sizes, with two or more of at least 1
        GiB.

    Returns
    -------
    DataFrame
        ``memory_bytes``, ``pages``, and the costs as in `measured`.
    """
    pages = np.asarray(memory_bytes, np.int64) // 4096
    modelled = pd.DataFrame({"memory_bytes": np.asarray(memory_bytes, np.int64), "pages": pages})
    full = measured[measured["memory_bytes"] >= _FULL_DIRECTORY_BYTES]
    for name, rows in (("scan", measured), ("pruned", full), ("sampled", full)):
        slope, start = np.polyfit(rows["memory_bytes"].to_numpy() / 4096, rows[name].to_numpy(), 1)
        modelled[name] = slope * pages + max(start, 0)
    below = modelled["memory_bytes"] < _FULL_DIRECTORY_BYTES
    modelled.loc[below, ["pruned", "sampled"]] = np.nan  # the measured value, not the line
    return modelled.assign(guided=measured["guided"].mean())
