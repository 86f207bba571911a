# SPDX-License-Identifier: Apache-2.0
"""Calibration of the estimates on guests with a known truth: the kernel's part, and intervals.

*Cleared flags.* Where the hypervisor clears the guest's accessed flags, an entry that was there
before and is accessed now was used in the round. Two things stay uncertain:

- Fresh entries. Linux makes some with the flag set, for pages around a fault. The part that is used
  is calibrated as a median.
- The kernel's own reads. They are under entries of large pages, one flag for 512 frames. The number
  of frames is calibrated as a power of the number of these entries (least squares between
  logarithms): the more of its memory the kernel visits, the more it does in each place.

*Intervals.* For each calibration guest, truth over estimate lies between two numbers in 90 percent
of the rounds. The interval takes the lowest and the highest of all guests. This is split conformal
prediction with the guest as the unit: the rounds of a guest are alike, and a new guest is one more
guest, not one more round. Where flags were cleared, the ratio is of what is not certain, as the
rest is exact; elsewhere it is of the whole. It fails for a guest that is unlike all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.errors import TraceNotFound
from pmlkit.recordings import bundled as recording

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pmlkit.types import Floats, Ints


__all__ = ["COVERAGE", "Calibration", "bundled", "calibrate", "load"]

COVERAGE = 0.9
FEWEST = 3  # guests that an interval needs


@dataclass(frozen=True)
class Calibration:
    """Parameters fitted to rounds whose truth is known.

    Attributes
    ----------
    fresh : float
        Part of the fresh entries' frames that is used.
    slope, scale : float
        The kernel reads ``scale * entries ** slope`` frames.
    ratios : dict of (str, bool) to (float, float)
        Lowest and highest truth over estimate, by method and whether flags were cleared; if so,
        both without what is certain.
    """

    fresh: float
    slope: float
    scale: float
    ratios: Mapping[tuple[str, bool], tuple[float, float]]

    def others(self, entries: Ints, fresh: Ints) -> Ints:
        """Return the frames expected beside the certain ones, for each window.

        `entries` are the kernel's large pages that were accessed, `fresh` the frames of fresh
        entries.
        """
        kernel = np.clip(self.scale * entries**self.slope, entries, 512 * entries)
        return np.rint(kernel + self.fresh * fresh).astype(np.int64)

    def interval(
        self, method: str, cleared: bool, pages: Ints, certain: Ints
    ) -> tuple[Floats, Floats] | None:
        """Return low and high about estimates (arrays, shape (windows,)); None if not known."""
        if (method, cleared) not in self.ratios:
            return None
        low, high = self.ratios[method, cleared]
        sure = certain if cleared else 0
        return np.floor(sure + low * (pages - sure)), np.ceil(sure + high * (pages - sure))


def calibrate(unsure: pd.DataFrame, rounds: pd.DataFrame | None = None) -> Calibration:
    """Calibrate on rounds whose truth is known; each guest counts the same.

    Parameters
    ----------
    unsure : DataFrame
        A row per round in which flags were cleared, from `pmlkit.reads.judge.unsure`, with the
        ``guest``; not of guests that unmap what they use, which is none of the kernel's reads. If
        there are no two different rounds, a large entry counts one page, and a fresh one, too.
    rounds : DataFrame, optional
        A row per round and method, for intervals: ``guest``, ``method``, ``cleared``, ``pages``,
        ``low`` (what is certain), ``truth``.

    """
    fresh, slope, scale = 1.0, 1.0, 1.0
    known = unsure[(unsure["entries"] > 0) & (unsure["pages"] > 0)]
    if known["entries"].nunique() > 1:
        weight = 1 / np.sqrt(known.groupby("guest")["guest"].transform("size"))
        logs = np.log(known["entries"]), np.log(known["pages"])
        slope, start = np.polyfit(*logs, 1, w=weight)
        scale = float(np.exp(start))
    some = unsure[unsure["fresh"] > 0]
    if len(some):
        fresh = float((some["used"] / some["fresh"]).groupby(some["guest"]).median().median())
    ratios = {}
    if rounds is not None:
        for (method, cleared), rows in rounds.groupby(["method", "cleared"]):
            if rows["guest"].nunique() >= FEWEST:
                ratios[str(method), bool(cleared)] = _between(rows, bool(cleared))
    return Calibration(fresh, float(slope), scale, ratios)


def _between(rows: pd.DataFrame, cleared: bool) -> tuple[float, float]:
    sure = rows["low"].to_numpy(float) * cleared
    expected = np.maximum(rows["pages"].to_numpy(float) - sure, 1)
    ratio = (rows["truth"].to_numpy(float) - sure) / expected
    tail = (1 - COVERAGE) / 2
    parts = [ratio[places] for places in rows.groupby("guest").indices.values()]
    tails = np.array([np.quantile(part, (tail, 1 - tail)) for part in parts])
    return float(tails[:, 0].min()), float(tails[:, 1].max())


def bundled() -> Calibration:
    """Calibrate on the lab's guests (``data/reads-lab``)."""
    return calibrate(load("unsure"), load("rounds"))


def load(name: str, experiment: str = "reads-lab") -> pd.DataFrame:
    """Read a table of an experiment in the lab that comes with pmlkit.

    Raises
    ------
    TraceNotFound
        If it is not there.
    """
    path = Path(recording("rrww-lab")).parent / experiment / f"{name}.csv"
    if not path.is_file():
        module = experiment.replace("-", "_")
        raise TraceNotFound(path, f"make it: python -m experiments.{module} FOLDER")
    table = pd.read_csv(path)
    return table.fillna({"phase": ""}) if "phase" in table else table
