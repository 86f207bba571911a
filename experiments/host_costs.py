# SPDX-License-Identifier: Apache-2.0
"""The costs of soft-dirty bits and of the aging of MGLRU on a KVM host, in the lab.

Two guests of the kit, one that writes 1,800 pages a round and one that reads 2,560, run round by
round under our monitor (`host_costs_job`). Emulated time counts instructions, so the numbers are
instructions.

    python -m experiments.host_costs RUNS data/host-costs

Does the runs that are not in the folder RUNS yet.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from experiments import made
from pmlkit.errors import PmlkitError
from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.lab.bochs import INSN_PER_S
from pmlkit.sources.lab.kvm import session, steps

if TYPE_CHECKING:
    from pmlkit.types import Json

GUESTS = ("known", "reads")
KERNELS = ("6.1", "6.12")
TIMES = ["plain", "clear", "dirty", "pagemap", "young", "idle"]


def run(folder: Path, kernel: str, guest: str) -> Path:
    """Boot a kernel and time the rounds of a guest, unless the folder has the results."""
    out = folder / f"{kernel}-{guest}"
    if not (out / "status").exists():
        files = {"job.py": (Path(__file__).parent / "host_costs_job.py").read_text()}
        options = session.KvmLabOptions(kernel=kernel, script=steps.script(files, "job.py"))
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            spool = Path(scratch) / out.name
            spool.mkdir()
            session.collect(lab_guests.load(guest), spool, options, print)
            if (spool / "status").read_text().strip() != "0":
                said = (spool / "said.txt").read_text()
                raise PmlkitError(f"the job on Linux {kernel} failed", said[-2000:])
            spool.replace(out)
    return out


def rows(out: Path, kernel: str, guest: str) -> tuple[pd.DataFrame, Json]:
    """Return a row per round, times in instructions; and the versions of the software.

    Columns: ``kernel``, ``guest``, ``written`` and ``read`` (pages in a round, but for its page
    tables), ``memory_mib``, ``round``; of a round as it is (``plain``) and after soft-dirty bits
    were cleared (``dirty``); of clearing them (``clear``), of reading ``pagemap``, of an aging
    after a round (``young``) and of one right after that (``idle``).
    """
    header = json.loads((out / "job.json").read_text())["header"]
    lines = (out / "costs.jsonl").read_text().splitlines()
    table = pd.DataFrame([json.loads(line) for line in lines])
    table[TIMES] = (table[TIMES] * (INSN_PER_S / 1e9)).round().astype(int)
    for kind in ("read", "written"):
        pages = [region["pages"] for region in header["regions"] if region["kind"] == kind]
        table.insert(0, kind, sum(pages))
    table.insert(0, "guest", guest)
    table.insert(0, "kernel", kernel)
    return table, header["versions"]


def main(folder: str, out: str) -> None:
    """Write the table, and its provenance."""
    for path in (folder, out):
        Path(path).mkdir(parents=True, exist_ok=True)
    tables, versions = [], []
    for kernel in KERNELS:
        for guest in GUESTS:
            table, of = rows(run(Path(folder), kernel, guest), kernel, guest)
            tables.append(table)
            versions.append(of)
    pd.concat(tables).to_csv(Path(out) / "rounds.csv", index=False)
    made.note(Path(out) / "made.json", f"python -m experiments.host_costs RUNS {out}", versions)


if __name__ == "__main__":
    main(*sys.argv[1:])
