# SPDX-License-Identifier: Apache-2.0
"""The cost of closing a round in the lab, before and after the redesign of the series.

Emulated time counts instructions. "Before" is from `data/reads-lab`: the same guests, with the
series of 23 November 2026.

    python -m experiments.closing_costs TRACES data/closing-costs
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import pmlkit
from experiments import made
from experiments.reads_lab import EXPERIMENTS, Experiment, run
from pmlkit.reads import guided

if TYPE_CHECKING:
    from pmlkit.trace.reader import Trace

# In `EXPERIMENTS`; redis and sqlite do little work there, but enough for the cost of a round.
NAMES = ("touch", "memory-64", "rrww", "redis", "sqlite")
PARTS = ("walk_tsc", "tables_tsc", "drain_tsc", "rearm_tsc")
COUNTS = ("snapshots", "logged", "logged_tables")
BEFORE = Path(pmlkit.bundled("redis")).parent / "reads-lab" / "costs.csv"


def medians(rounds: pd.DataFrame) -> dict[str, int]:
    """Return medians over all rounds except the first, which knows no page tables yet."""
    later = rounds[rounds["round"] > 0]
    names = [name for name in (*PARTS, *COUNTS, "pause_tsc") if name in later]
    return {name: round(later[name].median()) for name in names}


def now(trace: Trace) -> dict[str, int]:
    """Return the costs of a trace's rounds."""
    pml = trace.pml
    costs = guided.costs(trace).merge(pml.rounds[["round", "pause_ns"]], on="round")
    costs["pause_tsc"] = costs["pause_ns"] * pml.meta.overheads["tsc_khz"] / 1e6
    return medians(costs)


def before(name: str) -> dict[str, int] | None:
    """Return the costs of the same guest's rounds in November; None if unknown."""
    costs = pd.read_csv(BEFORE)
    sampled = costs["sampled"].astype(bool) | costs["cleared"].astype(bool)
    rounds = costs[(costs["guest"] == name) & ~sampled]
    return medians(rounds) if len(rounds) else None


def rows(name: str, trace: Trace) -> list[dict[str, str | int]]:
    """Return a guest's costs, in instructions, by series."""
    experiment: Experiment = EXPERIMENTS[name]
    label: dict[str, str | int] = {"guest": experiment.guest, "MiB": experiment.memory_mib}
    old = before(name)
    found = [{**label, "series": "now", **now(trace)}]
    return [{**label, "series": "before", **old}, *found] if old else found


def main(folder: str, out: str) -> None:
    """Write the table, and its provenance."""
    traces = run(folder, NAMES)
    table = [row for name in NAMES if name in traces for row in rows(name, traces[name])]
    Path(out).mkdir(parents=True, exist_ok=True)
    pd.DataFrame(table).astype({"pause_tsc": "Int64"}).to_csv(
        Path(out) / "closing.csv", index=False
    )
    last = list(traces.values())[-1].pml.meta
    command = f"python -m experiments.closing_costs TRACES {out}"
    made.note(Path(out) / "made.json", command, last.provenance["versions"], last.created)


if __name__ == "__main__":
    main(*sys.argv[1:])
