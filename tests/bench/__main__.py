# SPDX-License-Identifier: Apache-2.0
"""Measure, print a table, and write ``results/bench/bench.json``: ``python -m tests.bench``."""

import json
import os
import platform
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import recorder, store

OUT = Path("results/bench/bench.json")


def main():
    rows = {"recorder": recorder.measure(), "store": store.measure()}
    facts = {"machine": platform.machine(), "cores": os.cpu_count(), **_ratios(rows)}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({**facts, "rows": rows}, indent=2) + "\n")
    for name, lines in rows.items():
        _show(name, lines)
    print(f"written to {OUT}")


def _ratios(rows):
    slowdowns = {f"{r['workload']}_{r['clock']}": r["slowdown"] for r in rows["recorder"]}
    sizes = {r["trace"]: r["bytes_per_entry"] for r in rows["store"]}
    return {"recorder_slowdown": slowdowns, "store_bytes_per_entry": sizes}


def _show(title, rows):
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
