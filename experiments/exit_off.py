# SPDX-License-Identifier: Apache-2.0
"""The cost of the series at VM exits of a domain that is not logged, in the lab.

One guest (`exits`) makes 100,000 exits of two kinds, under Debian's own binary and under builds of
the same source: without the series, with its option off, and with it. Emulated time counts
instructions. The cheapest 100 exits are those without interrupts.

    python -m experiments.exit_off FOLDER data/exit-off
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from experiments import made
from pmlkit.sources.lab import boot, guests, parts, session, xen
from pmlkit.sources.lab.bochs import fast_bochs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pmlkit.sources.lab.boot import Lab
    from pmlkit.sources.lab.parts import Xen

GUEST = "exits"
BATCH = 100  # exits that the guest times together
SCRIPT = "python3 exits.py $domid guest.cfg {} >/out/exits.json"
STAGES = {
    "off": "no domain is logged",
    "other": "another domain is logged",
    "logged": "this domain is logged",
}


@dataclass(frozen=True)
class Build:
    """A Xen to measure.

    Attributes
    ----------
    make : callable
        Returns it, built at the first call.
    stages : tuple of str
        Of `STAGES`, in order.
    """

    make: Callable[[], Xen]
    stages: tuple[str, ...] = ("off",)


BUILDS = {
    "Debian's binary": Build(parts.stock_xen),
    "without the series": Build(lambda: xen.built(xen.Debian(series=False))),
    "with it, CONFIG_PML=n": Build(lambda: xen.built(xen.Debian(config="CONFIG_PML=n\n"))),
    "with it": Build(xen.patched, tuple(STAGES)),
}


def measure(folder: Path, name: str) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Return the guest's results in each stage, and versions; from the folder if they exist."""
    build = BUILDS[name]
    run = folder / name.replace(" ", "-").replace(",", "").replace("'", "")
    if not (run / "exits.json").exists():
        run.mkdir(parents=True, exist_ok=True)
        guest = guests.load(GUEST)
        lab = lab_of(build.make(), guest.memory_mib)
        script = SCRIPT.format(" ".join(build.stages))
        # A single run: a saved state would cost more than it saves.
        options = session.LabOptions(script=script, fast=True, snapshot=False)
        session.collect(guest, run, options, lab=lab)
    versions = json.loads((run / "job.json").read_text())["header"]["versions"]
    return json.loads((run / "exits.json").read_text()), versions


def lab_of(built: Xen, guest_mib: int) -> Lab:
    """Return the lab with this Xen, and memory for a second guest."""
    return boot.equip(built, fast_bochs(), session.machine_mib(2 * guest_mib))


def rows(name: str, costs: Mapping[str, Mapping[str, int]]) -> list[dict[str, str | float]]:
    """Return instructions per exit, by stage, without the guest's loop."""
    return [
        {
            "Xen": name,
            "logged": STAGES[stage],
            **{kind: _each(results, kind) for kind in ("cpuid", "hypercall")},
        }
        for stage, results in costs.items()
    ]


def _each(results: Mapping[str, int], kind: str) -> float:
    # The guest's clock is emulated, too: its error is a few ticks per batch.
    return round((results[kind] - results["nothing"]) / BATCH, 1)


def main(folder: str, out: str) -> None:
    """Write the table, and its provenance."""
    table = []
    for name in BUILDS:
        costs, versions = measure(Path(folder), name)
        table += rows(name, costs)
    Path(out).mkdir(parents=True, exist_ok=True)
    pd.DataFrame(table).to_csv(Path(out) / "exits-off.csv", index=False)
    command = f"python -m experiments.exit_off FOLDER {out}"
    made.note(Path(out) / "made.json", command, versions)


if __name__ == "__main__":
    main(*sys.argv[1:])
