# SPDX-License-Identifier: Apache-2.0
"""The costs of a log-full exit and of a drained entry in the lab, by design of the log.

One guest (`known`) writes 1,800 pages a round under our Xen, once for each design. Emulated time
counts instructions, so the numbers are instructions.

    python -m experiments.exit_costs TRACES data/exit-costs
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import pmlkit
from experiments import made

if TYPE_CHECKING:
    from pmlkit.trace.reader import Trace

GUEST, ROUNDS = "known", 12


@dataclass(frozen=True)
class Design:
    """A configuration of the log.

    Attributes
    ----------
    buffers : int
        Hardware buffers of a vCPU.
    rearm : str
    lockstep : bool
        The guest waits for dom0 between rounds; without, it never pauses.
    """

    buffers: int
    rearm: str = "round"
    lockstep: bool = True


DESIGNS = {
    "one buffer, re-arm per round": Design(1),
    "two buffers, re-arm per round": Design(2),
    "four buffers, re-arm per round": Design(4),
    "one buffer, re-arm per flush, no pauses": Design(1, "flush", lockstep=False),
    "two buffers, re-arm per flush, no pauses": Design(2, "flush", lockstep=False),
}


def run(folder: Path, name: str) -> Trace:
    """Log the guest with a design, unless its trace is in the folder."""
    design = DESIGNS[name]
    path = folder / f"{name.replace(', ', '_').replace(' ', '-')}.trace"
    if path.exists():
        return pmlkit.open(path)
    from pmlkit.sources import lab

    options = lab.LabOptions(
        mode="pml",
        buffers=design.buffers,
        rearm=design.rearm,
        lockstep=design.lockstep,
        page_tables="off",
        rounds=ROUNDS,
        period_s=0.05,
    )
    return lab.run(GUEST, path, options)


def row(name: str, trace: Trace) -> dict[str, str | int | float]:
    """Return a design's costs, in instructions: the emulated TSC counts them."""
    costs = trace.pml.meta.overheads
    exits = costs["exits"]
    return {
        "design": name,
        "exits": exits,
        "waited": costs.get("waited", 0),
        "instructions per exit": round(costs["exit_tsc"] / exits),
        "per entry drained": round(costs["drain_tsc"] / costs["entries"]),
    }


def main(folder: str, out: str) -> None:
    """Write the table, and its provenance."""
    for path in (folder, out):
        Path(path).mkdir(parents=True, exist_ok=True)
    traces = {name: run(Path(folder), name) for name in DESIGNS}
    rows = [row(name, trace) for name, trace in traces.items()]
    pd.DataFrame(rows).to_csv(Path(out) / "exits.csv", index=False)
    last = list(traces.values())[-1].pml.meta
    command = f"python -m experiments.exit_costs TRACES {out}"
    made.note(Path(out) / "made.json", command, last.provenance["versions"], last.created)


if __name__ == "__main__":
    main(*sys.argv[1:])
