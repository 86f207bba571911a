# SPDX-License-Identifier: Apache-2.0
"""The cost of a log-full exit in stock log-dirty, by version of Xen: compare `exit_costs`.

The same guest under the same patched Xen, whose counters also see the exits of stock log-dirty.

    python -m experiments.stock_costs data/exit-costs [TREE...]

Debian's 4.17 is measured, and the source tree of Xen in each TREE. From 4.20.4 and 4.21 on, stock
log-dirty takes the lock on the guest's memory, and flushes, once per buffer instead of once per
entry.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

import pandas as pd

from experiments import made
from experiments.exit_costs import GUEST, ROUNDS
from pmlkit.sources.lab import guests
from pmlkit.sources.lab.session import LabOptions, collect

BUFFER = 512  # entries that a log-full exit drains


def measure(tree: str | None) -> tuple[dict[str, str | int], dict[str, str]]:
    """Return a Xen's row (instructions, as the emulated TSC counts them), and all versions."""
    with tempfile.TemporaryDirectory() as scratch:
        spool = Path(scratch)
        options = LabOptions(xen_source=tree, script=f"python3 stock.py $domid {ROUNDS}")
        collect(guests.load(GUEST), spool, options)
        versions = json.loads((spool / "job.json").read_text())["header"]["versions"]
        console = (spool / "console.txt").read_text(errors="replace")
    spent = json.loads(re.findall(r"STOCK (\{.*\})", console)[-1])
    each = spent["exit_tsc"] / spent["exits"]
    row = {
        "xen": versions["xen"],
        "exits": spent["exits"],
        "instructions per exit": round(each),
        "per entry": round(each / BUFFER),
    }
    return row, versions


def main(out: str, *trees: str) -> None:
    """Write the table, and its provenance."""
    rows, versions = zip(*(measure(tree) for tree in (None, *trees)), strict=True)
    Path(out).mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(Path(out) / "stock.csv", index=False)
    command = f"python -m experiments.stock_costs {out} TREE"
    made.note(Path(out) / "stock.json", command, versions)


if __name__ == "__main__":
    main(*sys.argv[1:])
