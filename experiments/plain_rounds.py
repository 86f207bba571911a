# SPDX-License-Identifier: Apache-2.0
"""The cost of a plain round in the lab, without page tables and harvest.

The domain is paused, its buffers are drained, the bitmap is read, the logged pages are re-armed,
and the domain continues. Emulated time counts instructions.

    python -m experiments.plain_rounds TRACES data/plain-rounds
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import pmlkit
from experiments import made
from experiments.reads_lab import EXPERIMENTS

if TYPE_CHECKING:
    from pmlkit.trace.reader import Trace

# In `EXPERIMENTS`: from a few pages a round to thousands, in 64 to 256 MiB.
NAMES = ("reads-4", "touch", "rrww", "redis")


def run(folder: Path, name: str) -> Trace:
    """Log the guest, unless its trace is in the folder."""
    path = folder / f"{name}.trace"
    if path.exists():
        return pmlkit.open(path)
    from pmlkit.sources import lab

    experiment = EXPERIMENTS[name]
    options = lab.LabOptions(
        mode="pml",
        fast=True,
        memory_mib=experiment.memory_mib,
        rounds=experiment.rounds,
        period_s=experiment.period_s,
        settings=experiment.settings,
        page_tables="off",
        slots=1024,
    )
    return lab.run(experiment.guest, path, options)


def rows(name: str, trace: Trace) -> pd.DataFrame:
    """Return a guest's rounds: re-armed pages, and the instructions of the pause.

    Without the first, which follows the enabling.
    """
    pml = trace.pml
    khz = pml.meta.overheads["tsc_khz"]
    table = pd.DataFrame(
        {
            "guest": name,
            "MiB": EXPERIMENTS[name].memory_mib,
            "round": pml.rounds["round"].to_numpy(),
            "rearmed": pml.rounds["rearmed"].to_numpy(),
            "pause_tsc": (pml.rounds["pause_ns"].to_numpy() * khz / 1e6).round().astype(int),
        }
    )
    return table[table["round"] > 0]


def main(folder: str, out: str) -> None:
    """Write the table, and its provenance."""
    for path in (folder, out):
        Path(path).mkdir(parents=True, exist_ok=True)
    traces = {name: run(Path(folder), name) for name in NAMES}
    table = pd.concat([rows(name, trace) for name, trace in traces.items()])
    table.to_csv(Path(out) / "rounds.csv", index=False)
    last = list(traces.values())[-1].pml.meta
    command = f"python -m experiments.plain_rounds TRACES {out}"
    made.note(Path(out) / "made.json", command, last.provenance["versions"], last.created)


if __name__ == "__main__":
    main(*sys.argv[1:])
