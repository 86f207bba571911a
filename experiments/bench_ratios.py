# SPDX-License-Identifier: Apache-2.0
"""The ratios of speed that the README quotes, from a run of `make bench`.

make bench ARGS="--cpu distinct missratio"
python -m experiments.bench_ratios results/bench/bench.json data/bench
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from experiments import made

__all__ = ["main"]

TOOLS = ("polars", "duckdb", "pandas", "numpy", "libcachesim", "pmlkit")


def main(run: str, out: str) -> None:
    """Write the ratios (``ratio``, ``value``), and their provenance.

    The machine, its load and the clock are among the versions: these are ratios of two times.
    """
    told = json.loads(Path(run).read_text())
    ratios = {name: value for name, value in told.items() if isinstance(value, float)}
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(ratios.items(), columns=["ratio", "value"])
    table.to_csv(folder / "ratios.csv", index=False)
    versions = {name: version(name) for name in TOOLS}
    facts = {name: told[name] for name in ("machine", "cores", "load", "scale")}
    made.note(folder / "made.json", f"python -m experiments.bench_ratios {run} {out}",
              versions | facts)  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
