# SPDX-License-Identifier: Apache-2.0
"""Harvests of accessed flags in the lab: found frames, frames left to a full scan, and costs.

Each guest boots once under our Xen. dom0 logs it again for each harvest
(``hypervisor-patches/lab/dom0/harvests.py``). A scan of all memory follows each harvest while the
guest stays paused, so the frames that the scan finds were missed. Emulated time counts
instructions, so the costs are instructions.

    python -m experiments.harvests RUNS data/harvests [NAME]...

Runs the named guests, or all, unless their results are in the folder RUNS. Then it writes the
tables of all results there.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from experiments import made
from pmlkit.errors import PmlkitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.types import Json, Tell

__all__ = ["EXPERIMENTS", "Experiment", "run", "summary", "tabulate"]

_SCRIPT = "python3 harvests.py $domid harvests.json"
_DONE = "done"  # the phase after the work of a Linux guest
_LARGEST_SAVED_MIB = 320  # with more memory, a saved state of the machine would be used only once


@dataclass(frozen=True)
class Experiment:
    """A guest, and the length of its observation.

    Attributes
    ----------
    guest : str
        Of ``pmlkit lab run --list`` or ``pmlkit record --list``.
    group : {"bare", "memory", "benchmark", "program", "adversary"}
    settings : dict of str
    memory_mib : int
    rounds : int
        For each harvest.
    period_s : float
        Length of a round; not used with guests of the kit.
    """

    guest: str
    group: str
    settings: Json = field(default_factory=dict)
    memory_mib: int = 256
    rounds: int = 4
    period_s: float = 0.3


_SMALL = {"size_mib": "32", "phase_ms": "6000"}
_BARE = {
    **{name: (name, {}) for name in ("known", "rewrites", "ordered", "steps", "vcpus", "far")},
    **{f"reads-{levels}": ("reads", {"levels": str(levels)}) for levels in (2, 3, 4)},
    "touch": ("touch", {}),
    "touch-large": ("touch", {"large": "1"}),
}
_WORK: dict[str, tuple[str, str, Json]] = {
    "rrww": ("rrww", "benchmark", _SMALL),
    "hotcold": ("hotcold", "benchmark", {"phase_ms": "16000"}),
    "redis": (
        "redis",
        "program",
        {"keys": "6000", "gets": "25000", "few": "300", "idle_s": "2"},
    ),
    "sqlite": ("sqlite", "program", {"purchases": "8000", "lookups": "400"}),
    "gcc": ("gcc", "program", {"level": "1"}),
    "python": (
        "numpy",
        "program",
        {"matrix": "256", "products": "2", "numbers": "1000000", "decomposed": "120"},
    ),
    "sparse": ("sparse", "adversary", _SMALL),
    "largepages": ("largepages", "adversary", _SMALL),
    "moving": ("moving", "adversary", {"size_mib": "32", "ticks": "1200"}),
    "forks": ("forks", "adversary", {"processes": "32", "rounds": "120"}),
    "remap": ("remap", "adversary", {"cycles": "80"}),
}
_COME_AND_GO = ("forks", "remap")  # each phase is difficult in a different way
EXPERIMENTS = {
    **{n: Experiment(guest, "bare", told, 64) for n, (guest, told) in _BARE.items()},
    **{
        name: Experiment(
            guest,
            group,
            told,
            320 if guest in ("gcc", "numpy") else 256,
            rounds=10 if name in _COME_AND_GO else 4,
        )
        for name, (guest, group, told) in _WORK.items()
    },
    **{
        f"memory-{mib}": Experiment("reads", "memory", {"levels": "4"}, mib)
        for mib in (64, 128, 256, 512, 1024, 2048, 4096)
    },
    "half-4096": Experiment("half", "memory", {}, 4096),
}


def run(folder: Path, name: str, progress: Tell = print) -> list[Json]:
    """Return the rows of a guest: from a new boot, or from the folder."""
    path = folder / f"{name}.json"
    if not path.exists():
        path.write_text(json.dumps(_boot(EXPERIMENTS[name]), indent=1) + "\n")
        progress(f"{name}: done")
    rows: list[Json] = json.loads(path.read_text())["rows"]
    return rows


def _boot(experiment: Experiment) -> Json:
    from pmlkit.sources.lab import guests, session

    guest = guests.load(experiment.guest, experiment.settings)
    job = {
        "mailbox": guest.mailbox,
        "rounds": experiment.rounds,
        "period_s": experiment.period_s,
    }
    options = session.LabOptions(
        fast=True,
        memory_mib=experiment.memory_mib,
        snapshot=experiment.memory_mib <= _LARGEST_SAVED_MIB,
        script=f"echo '{json.dumps(job)}' >harvests.json\n{_SCRIPT}",
    )
    with tempfile.TemporaryDirectory() as spool:
        session.collect(guest, Path(spool), options)
        said = Path(spool) / "harvests.jsonl"
        rows = [json.loads(line) for line in said.read_text().splitlines()] if said.exists() else []
        if not rows:
            console = (Path(spool) / "console.txt").read_text(errors="replace")
            raise PmlkitError(f"{experiment.guest}: dom0 closed no round", console[-2000:])
        header = json.loads((Path(spool) / "job.json").read_text())["header"]
    return {"rows": rows, "versions": header["versions"]}


def tabulate(folder: Path) -> tuple[pd.DataFrame, Json]:
    """Return a row per round of all guests in the folder, and the versions of the last one.

    Columns: ``guest``, ``group``, ``memory_mib``, ``harvest``, ``tables`` (whether page tables are
    told apart in the log), ``round``, ``phase``; frames that the harvest ``found``, and that it
    ``left`` (-1: not known, as nothing can follow a sample); frames ``looked`` at; and
    instructions: ``walk`` (finding page tables) and ``harvest_insn``; ``rest_insn`` of the scan
    that followed.
    """
    parts, versions = [], {}
    for name, experiment in EXPERIMENTS.items():
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        told = json.loads(path.read_text())
        rows, versions = pd.DataFrame(told["rows"]), told["versions"]
        guided = rows["harvest"] == "guided"
        labels = {"guest": name, "group": experiment.group, "memory_mib": experiment.memory_mib}
        columns = {
            **{n: rows[n] for n in ("harvest", "tables", "round", "phase", "found", "left")},
            "looked": rows["guided_frames"].where(guided, rows["scan_frames"]),
            "walk": rows["walk_tsc"],
            "harvest_insn": rows["guided_tsc"].where(guided, rows["scan_tsc"]),
            "rest_insn": rows["rest_tsc"].fillna(-1).astype(int),
        }
        parts.append(pd.DataFrame({**labels, **columns}))
    return pd.concat(parts, ignore_index=True), versions


def steady(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rounds without the first of each harvest and those after the guest's work."""
    return rows[(rows["round"] > 0) & (rows["phase"] != _DONE)]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return instructions per round of each harvest, and the frames left, one row per guest.

    The first round of each is left out, as it follows the enabling, and those after the guest's
    work. ``guided`` includes finding the page tables, which it needs.
    """
    later = steady(rows)
    guided = later["harvest"] == "guided"
    later = later.assign(insn=later["harvest_insn"] + later["walk"].where(guided, 0))
    order = ["group", "guest", "memory_mib"]
    table = (
        later.pivot_table("insn", order, "harvest", "median", sort=False).round().astype("Int64")
    )
    found = later[later["harvest"] == "pruned"].groupby(order, sort=False)["found"].median()
    table.insert(0, "touched", found.round().astype("Int64"))
    for harvest in ("pruned", "guided"):
        left = rows[rows["harvest"] == harvest].groupby(order, sort=False)["left"]
        table[f"left by {harvest}"] = left.sum()
    return table.reset_index()


def main(folder: str, out: str, *names: str) -> None:
    """Run the named guests; write the tables, and their provenance."""
    for path in (folder, out):
        Path(path).mkdir(parents=True, exist_ok=True)
    _run_all(Path(folder), names or tuple(EXPERIMENTS))
    rows, versions = tabulate(Path(folder))
    rows.to_csv(Path(out) / "rounds.csv", index=False)
    summary(rows).to_csv(Path(out) / "guests.csv", index=False)
    command = f"python -m experiments.harvests RUNS {out}"
    made.note(Path(out) / "made.json", command, versions)


def _run_all(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        try:
            run(folder, name)
        except PmlkitError as error:
            print(f"{name}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
