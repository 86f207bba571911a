# SPDX-License-Identifier: Apache-2.0
"""The law of errors against runs: each technique, on recordings of all accesses.

What is predicted is of the recording's curves, by `pmlkit.law`; no parameter is fitted. What is
measured is a run of the technique, scored as `pmlkit compare` does. A technique that the law does
not cover (`pmlkit.law.OUTSIDE`) has a measured error alone.

    python -m experiments.law data/law              # T = 1 s, 0.1 s and 5 s
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import pmlkit
from experiments import made
from pmlkit import law
from pmlkit.errors import NeedsError
from pmlkit.techniques import TECHNIQUES, Recorded, make, run, scores
from pmlkit.techniques.protocol import KNOBS
from pmlkit.units import parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pmlkit.techniques import Technique
    from pmlkit.types import Json

__all__ = ["EMULATED", "LAB", "factors", "load", "main", "rows", "summary", "windows"]

EMULATED = ("hotcold", "redis", "sqlite", "rrww", "pressure")  # every access, in rounds of 10 ms
LAB = ("rrww-lab", "sqlite-lab")  # in rounds of half a second
WINDOW = "1s"  # T
OTHERS = ("100ms", "5s")  # more T, of which each has a file of its own
LOOKS = (1, 2, 4, 10)
WATCHED = (64, 1024)
SEEDS = 3
LEAST = 2  # least number of windows T in a recording


def settings(name: str) -> Iterator[Technique]:
    """Yield a technique at each setting of its knobs."""
    technique = make(name)
    for looks in LOOKS if "looks" in technique.knobs() else LOOKS[:1]:
        for watched in WATCHED if "watched" in technique.knobs() else WATCHED[:1]:
            yield technique.turned(looks, watched)


def rows(name: str, windows: Sequence[str] = (WINDOW,)) -> Iterator[Json]:
    """Yield a row per window, technique and setting: see `main`."""
    recorded = Recorded.of(pmlkit.open(pmlkit.bundled(name)))
    curves = law.Curves(recorded)
    for window in windows:
        window_ns = parse_duration_ns(window)
        if not recorded.resolution_ns < window_ns <= recorded.duration_ns / LEAST:
            continue
        truth = scores.truth(recorded, window_ns)
        for technique in (one for name in TECHNIQUES for one in settings(name)):
            try:
                row = _row(technique, curves, truth)
            except NeedsError:
                continue  # no page tables, or no disk, in this recording
            yield {"recording": name, "window": window} | row


def _row(technique: Technique, curves: law.Curves, truth: scores.Truth) -> Json:
    seeds = range(SEEDS if technique.random else 1)
    runs = [run(technique, curves.recorded, truth.window_ns, seed=seed) for seed in seeds]
    errors = np.array([scores.accuracy(one.estimates, truth)["mae"] for one in runs])
    measured = {
        "measured": errors.mean(),
        "overhead_measured": np.mean([one.overhead for one in runs]),
    }
    if technique.name in law.OUTSIDE:
        knobs = {knob: getattr(technique, knob, None) or -1 for knob in KNOBS}
        return {"technique": technique.name, **knobs} | measured
    found = law.predict(technique, curves, truth.window_ns)
    watched = found.parts.watched or found.parts.samples
    return {
        "technique": technique.name,
        "looks": found.looks,
        "watched": watched or -1,
        "predicted": found.error,
        "low": found.low,
        "high": found.high,
        "from_start": found.from_start,
        "by_parts": found.by_parts,
        "staleness": found.staleness,
        "sampling": found.sampling,
        "missed": found.blindness.missed,
        "extra": found.blindness.extra,
        "inside": np.mean((errors >= found.low) & (errors <= found.high)),
        "overhead": found.overhead,
        **measured,
    }


def file_of(window: str) -> str:
    """Return the name of the file with the points of a window."""
    return "points.csv" if window == WINDOW else f"points-{window}.csv"


def load(folder: Path, lab: bool = False, window: str = WINDOW) -> pd.DataFrame:
    """Return the points of the recorder's guests, or of the lab's, that are no 0 on either side.

    Techniques that the law does not cover have no point.
    """
    table = pd.read_csv(folder / file_of(window))
    table = table[table["recording"].isin(LAB) == lab]
    return table[(table["predicted"] > 0) & (table["measured"] > 0)].reset_index(drop=True)


def factors(table: pd.DataFrame, column: str = "predicted") -> pd.Series[float]:
    """Return the factor of each prediction's error, in either direction; 1 is exact."""
    return np.exp(np.abs(np.log(table[column] / table["measured"])))


def windows(folder: Path) -> pd.DataFrame:
    """Return, for each T, the points, and by what factor predicted errors and costs are off."""
    rows = []
    for window in (OTHERS[0], WINDOW, *OTHERS[1:]):
        table = load(folder, window=window)
        cost = np.exp(np.abs(np.log(table["overhead"] / table["overhead_measured"])))
        counts = table["technique"].isin(list(law.STATED))
        row: Json = {"T": window, "recordings": table["recording"].nunique()}
        for kind, of in (("counting", table[counts]), ("by a rule", table[~counts])):
            off = factors(of)
            row |= {f"{kind}: points": len(of), f"{kind}: half": off.median()}
            row |= {f"{kind}: nine of ten": off.quantile(0.9)}
        rows.append(row | {"cost: half": cost.median(), "cost: nine of ten": cost.quantile(0.9)})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return, for each technique, the factor of its predictions' errors, and the parts.

    Medians over the points; parts are shares of W, in percent.
    """
    off = factors(table).groupby(table["technique"], sort=False)
    parts = table.groupby("technique", sort=False)
    found = {"points": parts.size(), "half within": off.median(), "nine of ten": off.quantile(0.9)}
    for part in ("staleness", "sampling", "missed", "extra"):
        found[f"{part}, %"] = 100 * parts[part].median()
    return pd.DataFrame(found).sort_values("half within")


def write(folder: Path, found: Sequence[Json]) -> None:
    """Write the rows of each window to its file: four digits."""
    table = pd.DataFrame(found)
    numbers = table.select_dtypes("float").columns
    table[numbers] = table[numbers].map(lambda value: float(f"{value:.4g}"))
    for window, points in table.groupby("window"):
        points.to_csv(folder / file_of(str(window)), index=False)


def main(out: str, *windows: str) -> None:
    """Write the points of each window to a file, and what they were made with.

    Columns: ``recording``, ``window`` (T), ``technique``, ``looks`` (per T, those that were taken),
    ``watched`` (frames, or samples in T; -1: all); shares of mean W: ``predicted`` with its
    interval ``low`` to ``high``, ``from_start`` (if the looks are known to begin with the
    recording), ``by_parts`` (of the three numbers alone), ``staleness``, ``sampling``, ``missed``,
    ``extra``, and ``measured`` (the mean over draws); ``inside``: the share of draws within the
    interval; ``overhead`` and ``overhead_measured``: shares of the guest's time. Techniques that
    the law does not cover have ``measured`` and ``overhead_measured`` alone.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Json] = []
    for name in (*EMULATED, *LAB):
        found += rows(name, windows or (WINDOW, *OTHERS))
        write(folder, found)  # after each recording, so that an interrupted run keeps some
        print(name, len(found), file=sys.stderr)
    made.note(folder / "made.json", f"python -m experiments.law {' '.join((out, *windows))}",
              {"pmlkit": pmlkit.__version__})  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
