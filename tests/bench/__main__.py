# SPDX-License-Identifier: Apache-2.0
"""Measure, print tables, write ``results/bench/``: ``python -m tests.bench [--quick] [NAME]...``.

Every module of `MODULES` has ``measure(scale)``, which returns its ratios (a dict of numbers) and
its rows (a list of dicts). Ratios are of one run on one machine. Without an option it takes about
ten minutes on two cores; ``--quick`` two; ``--full`` an hour, with logs of 10^8 and 10^9 entries.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import time
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import timing
from tests.bench.goals import GOALS, verdicts

OUT = Path("results/bench")
MODULES = ("startup", "distinct", "missratio", "store", "explorer", "collection", "scaling")
MODULES += ("kvm", "recorder", "whole")
SCALES = {"quick": timing.QUICK, "full": timing.FULL, None: timing.DEFAULT}


def main():
    asked = _arguments()
    scale = replace(SCALES[asked.size], clock="cpu" if asked.cpu else "wall")
    ratios, rows, seconds = {}, {}, {}
    for name in asked.modules or MODULES:
        started = time.monotonic()
        found, rows[name] = importlib.import_module(f"tests.bench.{name}").measure(scale)
        ratios |= {key: round(value, 4) for key, value in found.items()}
        seconds[name] = round(time.monotonic() - started, 1)
        _show(f"{name} ({seconds[name]} s)", rows[name])
        verdict = verdicts(ratios)
        _write(scale, ratios, rows, seconds, verdict)  # what there is, if the next one is stopped
    _show("goals", verdict)
    _draw(verdict)


def _arguments():
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="NAME", help=", ".join(MODULES))
    parser.add_argument("--quick", dest="size", action="store_const", const="quick")
    parser.add_argument("--full", dest="size", action="store_const", const="full")
    parser.add_argument("--cpu", action="store_true", help="CPU time: on a machine in use")
    return parser.parse_args()


def _show(title, rows):
    """Print rows, those that follow each other with the same columns as one table."""
    console = Console(width=None if sys.stdout.isatty() else 130)
    for columns, some in groupby(rows, key=tuple):
        table = Table(*columns, title=title)
        for row in some:
            table.add_row(*(str(value) for value in row.values()))
        console.print(table)


def _write(scale, ratios, rows, seconds, verdict):
    OUT.mkdir(parents=True, exist_ok=True)
    facts = {"machine": platform.machine(), "cores": os.cpu_count(), "scale": asdict(scale)}
    facts["load"] = os.getloadavg()  # of which this run is a part
    found = {**facts, **ratios, "goals": verdict, "seconds": seconds, "rows": rows}
    (OUT / "bench.json").write_text(json.dumps(found, indent=2) + "\n")


def _draw(verdict):
    from pmlkit import figures
    from tests.bench.figure import goals_figure

    if any(row["measured"] is not None for row in verdict):
        figures.save(goals_figure(verdict), OUT / "bench")
    print(
        f"written to {OUT}: {len(GOALS)} goals, {sum(row['met'] == 'yes' for row in verdict)} met"
    )


if __name__ == "__main__":
    main()
