# SPDX-License-Identifier: Apache-2.0
"""How long the series' operations go on without a chance to be preempted, in the lab.

A Xen with `hypervisor-patches/lab/pieces.patch` takes the time of each piece. Emulated time counts
instructions; interrupts that come meanwhile are left out. Two guests: one that uses half of its
memory, and one that makes as many page tables as it can, each of which leads to all of its memory.

    python -m experiments.pieces FOLDER data/pieces
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from pmlkit.recordings import PATCHES
from pmlkit.sources.lab import boot, guests, session, xen
from pmlkit.sources.lab.bochs import fast_bochs

SCRIPT = "python3 pieces.py $domid >/out/pieces.json"
COLUMNS = ["stage", "operation", "began", "ended", "pieces", "instructions", "longest"]
_PATCH = PATCHES / "lab" / "pieces.patch"
_MIB_PAGES = 256
_LEAF_PAGES = 1 << 15  # of the log-dirty bitmap
_NODE_LEAVES = 512


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
        """Return what the table and the folder call it."""
        return f"{self.guest}-{self.memory_mib}"


RUNS = (
    Run("half", 64),
    Run("half", 512),
    Run("half", 4096),
    Run("spread", 64, 4000),
    Run("spread", 512, 70000),
    Run("spread", 4096, 70000),
)


def measure(folder: Path, run: Run) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the pieces of a run, and versions; from the folder if they are there."""
    where = folder / run.name
    if not (where / "pieces.json").exists():
        where.mkdir(parents=True, exist_ok=True)
        settings = {"mib": str(run.memory_mib)}
        if run.tables:
            settings["tables"] = str(run.tables)
        guest = guests.load(PATCHES / "tests" / f"{run.guest}.c", settings)
        built = xen.built(xen.Debian(patches=[_PATCH]))
        lab = boot.equip(built, fast_bochs(), session.machine_mib(run.memory_mib))
        # One run each: a saved state would cost more than it saves.
        options = session.LabOptions(script=SCRIPT, memory_mib=run.memory_mib, snapshot=False)
        session.collect(guest, where, options, lab=lab)
    table = pd.DataFrame(json.loads((where / "pieces.json").read_text()), columns=COLUMNS)
    table.insert(0, "guest", run.guest)
    table.insert(1, "MiB", run.memory_mib)
    versions = json.loads((where / "job.json").read_text())["header"]["versions"]
    return table, versions


def main(folder: str, out: str) -> None:
    """Write the table, and what it was made with."""
    tables = []
    for run in RUNS:
        table, versions = measure(Path(folder), run)
        tables.append(table)
    Path(out).mkdir(parents=True, exist_ok=True)
    pd.concat(tables).to_csv(Path(out) / "pieces.csv", index=False)
    made = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "provenance": {
            "command": f"python -m experiments.pieces FOLDER {out}",
            "versions": versions,
        },
    }
    (Path(out) / "made.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
