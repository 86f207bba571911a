# SPDX-License-Identifier: Apache-2.0
"""Techniques that see all accesses, at equal numbers of looks: the cause of their ranking.

python -m experiments.equal_looks data/equal-looks
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import pmlkit
from experiments import made
from pmlkit import techniques
from pmlkit.techniques import Recorded, scores
from pmlkit.units import parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmlkit.types import Json

__all__ = ["LOOKS", "RECORDINGS", "TECHNIQUES", "main", "summary"]

TECHNIQUES = {
    "pml-page-tables": "PML with page tables",
    "idle-pages": "Accessed-flag scan (kstaled)",
    "prl": "PRL, all references per round",
}
LOOKS = (1, 2, 4)
RECORDINGS = ("redis", "sqlite", "hotcold", "pressure")
WINDOW = "1s"


def rows(name: str) -> Iterator[Json]:
    """Yield a row per technique and number of looks: see `main`."""
    recorded = Recorded.of(pmlkit.open(pmlkit.bundled(name)))
    truth = scores.truth(recorded, parse_duration_ns(WINDOW))
    for technique in map(techniques.make, TECHNIQUES):
        for looks in LOOKS:
            run = techniques.run(replace(technique, looks=looks), recorded, WINDOW)  # type: ignore[type-var, call-arg]
            yield {
                "recording": name,
                "technique": technique.name,
                "looks": looks,
                "mae": round(scores.accuracy(run.estimates, truth)["mae"], 6),
                "overhead": round(run.overhead, 6),
            }


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return errors and overheads in percent: techniques and looks against recordings."""
    made: list[Json] = []
    for (technique, looks), part in table.groupby(["technique", "looks"], sort=False):
        row: Json = {"technique": TECHNIQUES[technique], "looks": str(looks)}
        for one in part.itertuples():
            row[str(one.recording)] = f"{one.mae * 100:.1f} at {one.overhead * 100:.2g}"
        made.append(row)
    return pd.DataFrame(made)


def main(out: str) -> None:
    """Write the rows, and their provenance.

    Columns: ``recording``, ``technique``, ``looks`` (a window T), ``mae`` (mean absolute error over
    the mean working set), ``overhead`` (instructions of the looks over those of the guest).
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([row for name in RECORDINGS for row in rows(name)])
    table.to_csv(folder / "errors.csv", index=False)
    versions = {"pmlkit": pmlkit.__version__}
    made.note(folder / "made.json", f"python -m experiments.equal_looks {out}", versions)


if __name__ == "__main__":
    main(*sys.argv[1:])
