# SPDX-License-Identifier: Apache-2.0
"""The guided harvest against the full scan: the frames of each, the leftovers, the costs.

The guided harvest reads, at the end of a round, the EPT accessed flags of the frames that the
logged tables map, and of the logged frames themselves (`pmlkit.pagetables` argues why these are
all). The scan reads the flags of all memory. Both in one round, the guided harvest first, the scan
finds what the other left: nothing, or the exceptions.

Relatives, of which only the abstracts were read: HMM-V (arXiv 2209.13111) "tracks memory accesses
through page table manipulation, but reduces the cost by leveraging" PML and a multi-level queue,
and so does vTMM (EuroSys'23, doi 10.1145/3552326.3587449), both for memory tiering. They may well
direct their scans by it. What is shown here is the argument for completeness, the comparison with
the scan frame by frame, and working sets under Xen.
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
    "changed": "its entry was removed in the round: an earlier snapshot of a logged table has it",
    "gone": "no table that was used leads to it at the round's end: its mapping came and went",
    "shared": "a page shared with Xen or dom0, not in the guest's memory map",
    "missed": "a leaf table that was used leads to it when the round ends: this must not be",
}

_RAM = ("usable", "ram", "RAM", "System RAM")


def equality(trace: Trace) -> pd.DataFrame:
    """Compare both harvests round by round.

    Parameters
    ----------
    trace : Trace
        An access trace whose batches say ``guided`` and ``scan``.

    Returns
    -------
    DataFrame
        Per round: ``round``, ``guided`` and ``left`` (frames), ``tables`` (page tables in the
        log), and a column for each of `CAUSES`.

    Raises
    ------
    NeedsError
        If there are no rounds with both.
    """
    sizes = _sizes(trace)
    if not {"guided", "scan"} <= set(sizes.columns):
        raise NeedsError(trace, "round with both harvests", "log it with --harvest both")
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
    """Return, for each frame that only the scan found, why the guided harvest missed it.

    The log alone is not trusted: a leaf table counts as used in a round if it was logged, or if
    either harvest found its own frame touched. A table whose frame nobody touched was not walked.

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
    """Return masks of `left`: a used leaf table leads to it, before, or at the round's end.

    A snapshot holds until its table is logged again: what changes a table is a write. (A table that
    is logged without a new snapshot is none any more.) Large pages are left out: the kernel maps
    all memory by them, whether they are used or not.
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
    """Return what each round's harvests cost, as Xen measured it.

    Returns
    -------
    DataFrame
        Per round: ``round``, the time-stamp counts (in the lab: instructions) of finding the page
        tables (``walk_tsc``), of their snapshots, of re-arming and of both harvests
        (``guided_tsc``, ``scan_tsc``); the tables, entries and frames looked at; and, of the log,
        ``logged`` entries, ``logged_tables`` of them, and ``exits``.

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

    The scan reads a flag per frame of memory: a straight line through the measured sizes (least
    squares). The pruned harvest and the sample read the EPT's directories of the regions in use,
    and one flag per GiB: a straight line through the sizes from 1 GiB on, as below it the directory
    itself grows. The guided harvest reads the flags under the tables that were logged, whose number
    is the working set's and not memory's: the mean of what was measured.

    Parameters
    ----------
    measured : DataFrame
        ``memory_bytes``; ``scan``, ``pruned``, ``sampled`` and ``guided``, instructions: of the
        same working set in several sizes, two of 1 GiB or more among them.

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
    modelled.loc[below, ["pruned", "sampled"]] = np.nan  # measured there, and no line
    return modelled.assign(guided=measured["guided"].mean())
