# SPDX-License-Identifier: Apache-2.0
"""The error of a sample of accessed flags, draw by draw: with fixed or redrawn frames.

From recordings of all accesses, each draw is taken as the hypervisor would take it. A fixed sample
of one frame in 16 has 16 draws. A redrawn sample has a draw for each number of the first round;
equally many of them are used. Recordings with short rounds are read in rounds of half a second.

    python -m experiments.draws data/reads-draws [NAME=TRACE]...

Recordings that are not bundled are given by name. Only their rows are kept, because the lab can
repeat them (`experiments.reads_lab`).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import pmlkit
from experiments import made
from pmlkit.reads import page_sets, sampled
from pmlkit.timeline import Windows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmlkit.kernels.by_page import References
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json

__all__ = ["RECORDINGS", "estimates", "main", "summed", "worst"]

RECORDINGS = ("rrww-lab", "sqlite-lab", "redis", "sqlite", "hotcold", "pressure", "rrww")
ONE_IN = (16, 32, 64)
DRAWS = 16
ROUND_NS = 500_000_000
KINDS = {"fixed": False, "anew": True}
_APART = 1 << 16  # rounds between the first rounds of two redrawn samples


def _sets(trace: Trace) -> tuple[page_sets.Sets, References]:
    """Return the certain and the touched pages, in rounds of `ROUND_NS`."""
    lab = trace.meta.source == "lab"
    touched = page_sets.truth(trace, tables=not lab)
    frames = page_sets.of_log(trace)
    merged = max(1, ROUND_NS // int(trace.meta.period["ns"]))
    if merged == 1:
        return frames, touched
    n_rounds = touched.n_rounds // merged  # the last one is cut off

    def coarse(refs: References) -> References:
        kept = refs.round < n_rounds * merged
        return page_sets.references(refs.round[kept] // merged, refs.gfn[kept], 0, n_rounds)

    written = coarse(frames.written)
    return replace(frames, certain=written, accessed=written, n_rounds=n_rounds), coarse(touched)


def estimates(name: str, trace: Trace) -> Iterator[pd.DataFrame]:
    """Yield the estimates of each draw of a recording, one row per round with a truth.

    Columns: those of a draw (``recording``, ``one_in``, ``drawn``, ``draw``), ``round``, and in
    pages ``truth``, ``pages`` (estimated), ``low`` and ``high``.
    """
    frames, touched = _sets(trace)
    windows = Windows.of_rounds(touched.n_rounds, 1)
    truth = page_sets.window_sizes(touched, windows)
    for one_in, (kind, redraw), draw in product(ONE_IN, KINDS.items(), range(DRAWS)):
        which = (one_in, draw * _APART if redraw else draw)
        found = sampled.find(touched, which, redraw)
        pages, low, high = sampled.of_sets(frames, found, windows, which, redraw)
        made = {"round": np.arange(len(truth)), "truth": truth}
        table = pd.DataFrame(made | {"pages": pages, "low": low, "high": high})
        labels = {"recording": name, "one_in": one_in, "drawn": kind, "draw": draw}
        yield table[truth > 0].assign(**labels)[[*labels, *table.columns]]


def summed(estimates: pd.DataFrame) -> Json:
    """Return the row of a draw: see `main`."""
    truth, pages = estimates["truth"], estimates["pages"]
    held = (estimates["low"] <= truth) & (truth <= estimates["high"])
    return {
        **estimates.iloc[0][["recording", "one_in", "drawn", "draw"]],
        "rounds": len(truth),
        "pages": round(float(truth.mean()), 1),
        "error": round(float((pages / truth - 1).abs().mean() * 100), 3),
        "of_mean": round(float((pages.mean() / truth.mean() - 1) * 100), 3),
        "inside": round(float(held.mean() * 100), 2),
    }


def worst(table: pd.DataFrame, one_in: int = sampled.ONE_IN) -> pd.DataFrame:
    """Return the worst draw of either kind for each recording, for the docs.

    Columns: mean over the draws of a round's mean absolute error; of the worst draw: that error,
    the error of the mean over all rounds, and the share of rounds whose truth is in the interval,
    all in percent.
    """
    made = []
    chosen = table[table["one_in"] == one_in]
    for name, part in chosen.groupby("recording", sort=False):
        row: Json = {"recording": name, "rounds": int(part["rounds"].iloc[0])}
        for kind, draws in part.groupby("drawn", sort=False):
            row[f"{kind}: error"] = f"{draws['error'].mean():.1f}"
            row[f"{kind}: worst error"] = f"{draws['error'].max():.1f}"
            row[f"{kind}: worst of the mean"] = f"{draws['of_mean'].abs().max():.1f}"
            row[f"{kind}: worst coverage"] = f"{draws['inside'].min():.0f}"
        made.append(row)
    return pd.DataFrame(made)


def main(out: str, *others: str) -> None:
    """Write the rows, and their provenance.

    ``draws.csv`` has a row for each draw: ``recording``, ``one_in``, ``drawn`` (``fixed``,
    ``anew``), ``draw``, ``rounds``, ``pages`` (mean truth); in percent ``error`` (mean absolute
    error of a round), ``of_mean`` (error of the mean over all rounds) and ``inside`` (rounds whose
    truth is in the interval). ``rounds.csv`` has the single rounds (`estimates`) of the sample of
    one frame in 16, ``worst.csv`` is `worst` of the draws.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    traces = {name: pmlkit.open(pmlkit.bundled(name)) for name in RECORDINGS}
    named = (other.split("=", 1) for other in others)
    traces |= {name: pmlkit.open(path) for name, path in named}
    parts = [part for name, trace in traces.items() for part in estimates(name, trace)]
    table = pd.DataFrame([summed(part) for part in parts])
    table.to_csv(folder / "draws.csv", index=False)
    worst(table).to_csv(folder / "worst.csv", index=False)
    rounds = pd.concat([part for part in parts if part["one_in"].iloc[0] == sampled.ONE_IN])
    rounds.round({"pages": 0, "low": 0, "high": 0}).to_csv(
        folder / "rounds.csv", index=False, float_format="%.0f"
    )
    lab = {name: traces[name].meta.provenance for name in traces if name not in RECORDINGS}
    command = " ".join(["python -m experiments.draws", out, *(f"{name}=TRACE" for name in lab)])
    made.note(folder / "made.json", command, {"pmlkit": pmlkit.__version__, **lab})


if __name__ == "__main__":
    main(*sys.argv[1:])
