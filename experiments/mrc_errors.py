# SPDX-License-Identifier: Apache-2.0
"""The distance of SHARDS and AET from the exact miss-ratio curve, for each bundled recording.

SHARDS runs with the defaults of `pmlkit mrc`, which may use all pages, and at rates that really
sample, with several seeds.

    python -m experiments.mrc_errors data/mrc-errors
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import pmlkit
from experiments import made
from pmlkit import missratio
from pmlkit.units import format_share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmlkit.types import Json

__all__ = ["SETTINGS", "main", "rows", "summary"]

DEFAULT = {"rate": 0.01, "min_pages": 8192}  # defaults of `pmlkit mrc --method shards`
RATES = (0.1, 0.01)
SEEDS = 8
# Name in the table: (method, options, seeds).
SETTINGS = {
    "SHARDS, as by default": ("shards", DEFAULT, 1),
    **{
        f"SHARDS, {format_share(rate)} of the pages": ("shards", {"rate": rate}, SEEDS)
        for rate in RATES
    },
    "AET": ("aet", {}, 1),
}


def rows(name: str) -> Iterator[Json]:
    """Yield a row per setting and seed of a recording: see `main`."""
    trace = pmlkit.open(pmlkit.bundled(name))
    truth = missratio.of_trace(trace)
    for setting, (method, options, seeds) in SETTINGS.items():
        for seed in range(seeds):
            seeded = options | {"seed": seed, "groups": 0} if method == "shards" else options
            curve = missratio.of_trace(trace, method, **seeded)
            mean, largest = curve.errors(truth)
            yield {
                "recording": name,
                "setting": setting,
                "seed": seed,
                "pages": truth.pages,
                "looked_at": round(curve.rate, 5),
                "sampled": truth.pages if curve.sampled_pages is None else curve.sampled_pages,
                "mean": round(mean, 5),
                "largest": round(largest, 5),
            }


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return, for each setting, the least, median and largest error over recordings.

    A recording counts with its mean over the seeds. ``of all pages`` is in how many recordings all
    pages were looked at, so that the error is 0 by construction: these are left out of the rest.
    """
    made = []
    for setting, part in table.groupby("setting", sort=False):
        whole = part["looked_at"].eq(1) & (setting != "AET")
        row: Json = {"method": setting, "recordings": part["recording"].nunique()}
        row["all pages"] = part.loc[whole, "recording"].nunique()
        means = part[~whole].groupby("recording")[["mean", "largest"]].mean()
        for column in ("mean", "largest"):
            least, middle, most = means[column].quantile([0, 0.5, 1])
            row[f"{column} error"] = f"{middle:.3f} ({least:.3f} to {most:.3f})"
        made.append(row)
    return pd.DataFrame(made)


def main(out: str) -> None:
    """Write the rows, and their provenance.

    Columns: ``recording``, ``setting``, ``seed``, ``pages``, ``looked_at`` (the share of the
    pages), ``sampled`` (their number); ``mean`` and ``largest`` difference from the exact curve,
    over the sizes 1 to all pages, in misses per use.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([row for name in pmlkit.bundled() for row in rows(name)])
    table.to_csv(folder / "errors.csv", index=False)
    made.note(folder / "made.json", f"python -m experiments.mrc_errors {out}",
              {"pmlkit": pmlkit.__version__})  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
