# SPDX-License-Identifier: Apache-2.0
"""Consistency of a trace's tables, checked by the writer and by `Trace.check`.

Each checker returns None, or one line that describes the fault.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.trace import arrow
from pmlkit.trace.schema import REASONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from pmlkit.trace.entries import RunLengthCounts
    from pmlkit.trace.schema import Column
    from pmlkit.types import Bools, Json

_GFN_MAX = np.uint64(1 << 52)  # frames that 64-bit addresses can name


def first_fault(*faults: str | None) -> str | None:
    """Return the first argument that is not None, or None."""
    return next((fault for fault in faults if fault), None)


def tables_fault(
    rounds: pa.Table, batches: pa.Table, per_round: RunLengthCounts, per_batch: RunLengthCounts
) -> str | None:
    """Check rounds and batches, also against the numbers of entries."""
    return first_fault(
        rounds_fault(rounds),
        batches_fault(batches, len(rounds)),
        counts_fault("round", rounds, per_round),
        counts_fault("batch", batches, per_batch),
        lost_fault(rounds, batches),
    )


def rounds_fault(rounds: pa.Table) -> str | None:
    """Check a table of rounds."""
    start, end = arrow.values(rounds["t_start_ns"]), arrow.values(rounds["t_end_ns"])
    return first_fault(
        _numbered("round", rounds["round"]),
        _spans("round", rounds),
        _where("round", start[1:] != end[:-1], "does not end where the next one starts"),
    )


def batches_fault(batches: pa.Table, n_rounds: int) -> str | None:
    """Check the table of batches of a trace of `n_rounds` rounds."""
    rounds = arrow.values(batches["round"]).astype(np.int64)
    return first_fault(
        _numbered("batch", batches["batch"]),
        _spans("batch", batches),
        _where(
            "batch", rounds >= n_rounds, f"belongs to a round that does not exist (of {n_rounds})"
        ),
        _where("batch", rounds[1:] < rounds[:-1], "is of a later round than the next one"),
        _reasons_fault(batches["reason"]),
    )


def _reasons_fault(reasons: Column) -> str | None:
    unknown = arrow.texts(reasons) - set(REASONS)
    if not unknown:
        return None
    row = next(n for n, reason in enumerate(reasons.to_pylist()) if reason in unknown)
    return f"batch {row} was drained for a reason other than {', '.join(REASONS)}"


def phases_fault(phases: Sequence[Json], n_rounds: int) -> str | None:
    """Check that the phases are in order and begin in existing rounds, or after the last."""
    for name in ("round", "t_ns"):
        starts = [phase[name] for phase in phases]
        for n, (before, value) in enumerate(itertools.pairwise(starts), start=1):
            if value < before:
                return f"phases[{n}].{name} is {value}, and the previous one has {before}"
    if phases and phases[-1]["round"] > n_rounds:
        last = len(phases) - 1
        return f"phases[{last}].round is {phases[-1]['round']}, and the trace has {n_rounds} rounds"
    return None


def regions_fault(regions: pa.Table, memory_pages: int) -> str | None:
    """Check the table of regions of a domain with `memory_pages` pages."""
    gfn, pages = arrow.values(regions["gfn"]), arrow.values(regions["pages"])
    if n := int(np.count_nonzero(pages > memory_pages)):
        row = int(np.flatnonzero(pages > memory_pages)[0])
        more = f" (and {n - 1} more)" if n > 1 else ""
        return f"region {row} has {pages[row]} pages{more}, and the memory {memory_pages}"
    return _where("region", gfn > _GFN_MAX - pages, "ends beyond the last address")


def counts_fault(name: str, table: pa.Table, counts: RunLengthCounts) -> str | None:
    """Compare the column `entries` of a table with the numbers of entries of its rows."""
    stated = arrow.values(table["entries"]).astype(np.int64)
    if counts.last >= len(table):
        beyond = f"there are entries of {name} {counts.last}"
        return f"{beyond}, and only {len(table)} of these are described"
    counted = counts.to_array(len(table))
    wrong = np.flatnonzero(stated != counted)
    if wrong.size:
        row = wrong[0]
        return f"{name} {row} should have {stated[row]} entries and has {counted[row]}"
    return None


def beyond_fault(last: int, n_rounds: int) -> str | None:
    """Check that the last round with a snapshot of a page table (-1: none) exists."""
    if last >= n_rounds:
        return f"there are page tables of round {last}, and the trace has {n_rounds} rounds"
    return None


def lost_fault(rounds: pa.Table, batches: pa.Table) -> str | None:
    """Check that rounds and batches lost the same number of entries."""
    by_round, by_batch = total(rounds["lost"]), total(batches["lost"])
    if by_round != by_batch:
        return f"the rounds lost {by_round} entries and the batches {by_batch}"
    return None


def total(column: Column) -> int:
    """Sum a column as a Python int."""
    return int(np.sum(arrow.values(column), dtype=np.uint64))


def _numbered(name: str, column: Column) -> str | None:
    wrong = arrow.values(column) != np.arange(len(column))
    return _where(name, wrong, "has another number: count from 0 without gaps")


def _spans(name: str, table: pa.Table) -> str | None:
    for start, end in (("t_start_ns", "t_end_ns"), ("insn_start", "insn_end")):
        backwards = arrow.values(table[start]) > arrow.values(table[end])
        fault = _where(name, backwards, "ends before it starts")
        if fault:
            return fault
    return None


def _where(name: str, wrong: Bools, why: str) -> str | None:
    rows = np.flatnonzero(wrong)
    return f"{name} {rows[0]} {why}" if rows.size else None
