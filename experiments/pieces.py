# SPDX-License-Identifier: Apache-2.0
"""The longest times for which the series' operations cannot be preempted, in the lab.

A Xen with `hypervisor-patches/lab/pieces.patch` times each piece. Emulated time counts
instructions; interrupts are not counted. There are two guests: one uses half of its memory, the
other creates as many page tables as possible, each of which leads to all of its memory.

    python -m experiments.pieces FOLDER data/pieces
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from experiments import made
from pmlkit.recordings import PATCHES
from pmlkit.sources.lab import boot, guests, session, xen
from pmlkit.sources.lab.bochs import fast_bochs
from pmlkit.trace.schema import MIB_PAGES

SCRIPT = "python3 pieces.py $domid >/out/pieces.json"
COLUMNS = ["stage", "operation", "began", "ended", "pieces", "instructions", "longest"]
TIB_MIB = 1 << 20
FREE_BITMAP = "paging_free_log_dirty_bitmap"
GUIDE = "pml_close_guide"
FIRST = "alloc_frames"  # end of the first piece of enabling
PAGE_INSTRUCTIONS = 4096  # to allocate, map and clear a page; an upper bound for a page of a ring
OPERATIONS = ("enable", "disable", "close_round", "fetch")
NAMES = {
    "enable": "enable",
    "plain": "close, no harvest",
    "scan": "close, scan",
    "pruned": "close, pruned",
    "guided": "close, guided",
    "sample": "close, sample of one in 16",
    "fetch": "fetch what was touched",
    "disable": "disable",
    "enable, largest rings": "enable, 4,096 records a ring",
    "disable, largest rings": "disable, the same",
}
_PATCH = PATCHES / "lab" / "pieces.patch"
_LEAF_PAGES = 1 << 15  # pages of the log-dirty bitmap
_NODE_LEAVES = 512
_REGIONS_AT_ONCE = 512 // 128 * 512  # entries for each of BITS_OF_TABLE, of 1 GiB each


@dataclass(frozen=True)
class Run:
    """A guest of `hypervisor-patches/tests`, and its memory.

    Attributes
    ----------
    tables : int
        Page tables that it makes; 0: those of what it uses.
    """

    guest: str
    memory_mib: int
    tables: int = 0

    @property
    def name(self) -> str:
        """The name in the table and of the folder."""
        return f"{self.guest}-{self.memory_mib}"


RUNS = (
    Run("fill", 64),
    Run("fill", 512),
    Run("fill", 4096),
    Run("spread", 64, 4000),
    Run("spread", 512, 70000),
    Run("spread", 4096, 70000),
)


def measure(folder: Path, run: Run) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the pieces of a run, and versions; from the folder if they exist."""
    where = folder / run.name
    if not (where / "pieces.json").exists():
        where.mkdir(parents=True, exist_ok=True)
        settings = {"mib": str(run.memory_mib)}
        if run.tables:
            settings["tables"] = str(run.tables)
        guest = guests.load(PATCHES / "tests" / f"{run.guest}.c", settings)
        built = xen.built(xen.Debian(patches=[_PATCH]))
        lab = boot.equip(built, fast_bochs(), session.machine_mib(run.memory_mib))
        # A single run each: a saved state would cost more than it saves.
        options = session.LabOptions(script=SCRIPT, memory_mib=run.memory_mib, snapshot=False)
        session.collect(guest, where, options, lab=lab)
    table = pd.DataFrame(json.loads((where / "pieces.json").read_text()), columns=COLUMNS)
    table.insert(0, "guest", run.guest)
    table.insert(1, "MiB", run.memory_mib)
    versions = json.loads((where / "job.json").read_text())["header"]["versions"]
    return table, versions


def longest(table: pd.DataFrame) -> pd.DataFrame:
    """Return the longest piece by operation (index), and guest and MiB (columns).

    Those of 1 TiB are by a model: `at_1_tib`.
    """
    table = table[table["operation"].isin(OPERATIONS)]
    what = table["stage"].mask(table["operation"] == "fetch", "fetch").map(NAMES)
    known = table.assign(what=what)[what.notna()]
    modelled = [at_1_tib(rows) for _, rows in known.groupby("guest")]
    every = pd.concat([known, *modelled])
    found = every.pivot_table("longest", "what", ["guest", "MiB"], aggfunc="max")
    return found.reindex([name for name in NAMES.values() if name in found.index])


def at_1_tib(rows: pd.DataFrame) -> pd.DataFrame:
    """Extrapolate a guest's pieces to 1 TiB, from those with the least and the most memory.

    What a piece does at most is set by the code, not by the memory, and most pieces reach it with
    4 GiB: a page of the bitmap, a page table, 64 regions. Three grow up to 1 TiB. Xen's own code
    frees a node of the log-dirty bitmap, which has a page for each 128 MiB, up to 512. Enabling
    allocates a list with 8 bytes for each 512 page tables that may be known. And the 4 pages of
    1 GiB that a piece notes can be 2,048 new regions; with 4 GiB they are those of 3 GiB.
    """
    least, most = (rows[rows["MiB"] == size(rows["MiB"])] for size in (min, max))
    mib = int(most["MiB"].iloc[0])
    more = pd.Series(0.0, most.index)
    leaf = _leaf_instructions(least, most)
    more[most["ended"] == FREE_BITMAP] = leaf * (_NODE_LEAVES - _leaves(mib))
    first = (most["began"] == "call") & (most["ended"] == FIRST)
    more[first] = (_pages_of_list(TIB_MIB) - _pages_of_list(mib)) * PAGE_INSTRUCTIONS
    large = (most["ended"] == GUIDE) & (most["guest"] == "spread")
    more[large] = most["longest"] * (_REGIONS_AT_ONCE / _regions(mib) - 1)
    return most.assign(MiB=TIB_MIB, longest=(most["longest"] + more).round().astype("int64"))


def _leaf_instructions(least: pd.DataFrame, most: pd.DataFrame) -> float:
    """Return the instructions to free a page of the bitmap, which half of the memory has."""
    took, leaves = [], []
    for rows in (least, most):
        took.append(rows.loc[rows["ended"] == FREE_BITMAP, "longest"].max())
        leaves.append(_leaves(int(rows["MiB"].iloc[0])))
    if leaves[0] == leaves[1] or pd.isna(took[0]):
        return 0.0
    return float(took[1] - took[0]) / (leaves[1] - leaves[0])


def _leaves(mib: int) -> int:
    return max(1, mib // 2 * MIB_PAGES // _LEAF_PAGES)


def _regions(mib: int) -> int:
    return (mib // 1024 - 1) * 512 if mib > 1024 else mib // 2  # as spread.c maps it


def _pages_of_list(mib: int) -> int:
    tables = mib * MIB_PAGES // 64 + 4096  # t->max in pml_alloc_tables()
    return -(-(-(-tables // 512) * 8) // 4096)


def main(folder: str, out: str) -> None:
    """Write the table, and its provenance."""
    tables = []
    for run in RUNS:
        table, versions = measure(Path(folder), run)
        tables.append(table)
    Path(out).mkdir(parents=True, exist_ok=True)
    pd.concat(tables).to_csv(Path(out) / "pieces.csv", index=False)
    command = f"python -m experiments.pieces FOLDER {out}"
    made.note(Path(out) / "made.json", command, versions)


if __name__ == "__main__":
    main(*sys.argv[1:])
