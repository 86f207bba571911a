# SPDX-License-Identifier: Apache-2.0
"""What does PML's log add to a sample of accessed flags?

Each input is taken away in turn: a sample of one frame in 16, the same with PML's log, and a sample
twice as large without it. An estimate is held against W at the instant of its look, so staleness,
which is the same for all, is left out: what remains is the sample's own error.

    python -m experiments.ablation data/ablation
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import pmlkit
from experiments import made
from pmlkit.techniques import Recorded, make, run, scores

if TYPE_CHECKING:
    from pmlkit.techniques import Technique
    from pmlkit.types import Json

__all__ = ["INPUTS", "error", "main", "summary", "worded"]

RECORDINGS = ("redis", "sqlite", "hotcold", "pressure", "rrww", "sqlite-lab", "rrww-lab")
WINDOW_NS = 500_000_000  # T: the lab's rounds are as long
DRAWS = 16
# Name: the technique, and one frame in how many is in the sample.
INPUTS = {
    "flags 1/16": ("flag-sample", 16),
    "flags 1/16 + PML": ("flag-sample-pml", 16),
    "flags 1/8": ("flag-sample", 8),
}


def error(technique: Technique, recorded: Recorded, truth: scores.Truth, seed: int) -> Json:
    """Return the error at the looks, a share of mean W there, and the overhead of a run."""
    one = run(technique, recorded, truth.window_ns, seed=seed)
    t_ns = one.estimates["t_ns"].to_numpy()
    known = truth.pages[np.searchsorted(truth.t_ns, t_ns)].astype(float)
    pages = one.estimates["pages"].to_numpy()
    return {"error": np.abs(pages - known).mean() / known.mean(), "overhead": one.overhead}


def rows(name: str) -> list[Json]:
    """Return a row for each input and draw, of one recording."""
    recorded = Recorded.of(pmlkit.open(pmlkit.bundled(name)))
    truth = scores.truth(recorded, WINDOW_NS)
    found = []
    for inputs, (technique, one_in) in INPUTS.items():
        watched = recorded.known_memory_pages // one_in
        made_of = make(technique, looks=1, watched=watched)
        for seed in range(DRAWS):
            key = {"recording": name, "inputs": inputs, "draw": seed}
            found.append(key | error(made_of, recorded, truth, seed))
    return found


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean error of each recording and input, its interval over draws, and the overhead.

    Returns
    -------
    DataFrame
        ``recording``, ``inputs``; ``error`` and ``pm``, the half width of its 95 % interval;
        ``overhead``: shares.
    """
    found = []
    for (name, inputs), of in table.groupby(["recording", "inputs"], sort=False):
        mean, half = scores.interval(of["error"])
        found.append((name, inputs, mean, half, of["overhead"].mean()))
    return pd.DataFrame(found, columns=["recording", "inputs", "error", "pm", "overhead"])


def worded(table: pd.DataFrame) -> pd.DataFrame:
    """Return the summary as a text has it, in percent: a row for each recording."""
    made_of = summary(table)
    made_of["text"] = [
        f"{100 * row.error:.2f} ± {100 * row.pm:.2f} at {100 * row.overhead:.2g}"
        for row in made_of.itertuples()
    ]
    wide = made_of.pivot(index="recording", columns="inputs", values="text")
    return wide.loc[made_of["recording"].unique(), list(INPUTS)].reset_index()


def main(out: str) -> None:
    """Write a row for each recording, input and draw: ``error`` and ``overhead`` are shares."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([row for name in RECORDINGS for row in rows(name)])
    table.round(6).to_csv(folder / "errors.csv", index=False)
    versions = {"pmlkit": pmlkit.__version__}
    made.note(folder / "made.json", f"python -m experiments.ablation {out}", versions)


if __name__ == "__main__":
    main(*sys.argv[1:])
