# SPDX-License-Identifier: Apache-2.0
"""Calibration on guests with a known truth: the kernel's part, and intervals.

*Cleared flags.* If the hypervisor clears the guest's accessed flags, an existing entry that is
accessed now was used in the round. Two parts remain uncertain:

- Fresh entries. Linux creates some of them with the flag set, for pages around a fault. The used
  part is calibrated as a median.
- The kernel's own reads. They use entries of large pages, with one flag for 512 frames. The number
  of frames is calibrated as a power of the number of these entries (least squares between
  logarithms). The kernel does more in each place as it visits more of its memory.

*Intervals.* For each calibration guest, truth over estimate lies between two numbers in 90 percent
of the rounds. The interval uses the lowest and the highest of these numbers over all guests. This
is split conformal prediction with the guest as the unit. The rounds of one guest are alike, so a
new guest is one more guest, not one more round. If flags were cleared, the ratio applies to the
uncertain part, because the rest is exact. Otherwise it applies to the whole. The interval is not
valid for a guest that resembles none of them.
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
FEWEST = 3  # least number of guests for an interval


@dataclass(frozen=True)
class Calibration:
    """Parameters fitted to rounds whose truth is known.

    Attributes
    ----------
    fresh : float
        The used part of the fresh entries' frames.
    slope, scale : float
        The kernel reads ``scale * entries ** slope`` frames.
    ratios : dict of (str, bool) to (float, float)
        Lowest and highest truth over estimate, by method and by whether flags were cleared; if they
        were, both exclude the certain part.
    """

    fresh: float
    slope: float
    scale: float
    ratios: Mapping[tuple[str, bool], tuple[float, float]]

    def others(self, entries: Ints, fresh: Ints) -> Ints:
        """Return the frames expected in addition to the certain ones, for each window.

        `entries` are the kernel's large pages that were accessed; `fresh` are the frames of fresh
        entries.
        """
        kernel = np.clip(self.scale * entries**self.slope, entries, 512 * entries)
        return np.rint(kernel + self.fresh * fresh).astype(np.int64)

    def interval(
        self, method: str, cleared: bool, pages: Ints, certain: Ints
    ) -> tuple[Floats, Floats] | None:
        """Return the ends of intervals around estimates, shape (windows,); None if unknown."""
        if (method, cleared) not in self.ratios:
            return None
        low, high = self.ratios[method, cleared]
        sure = certain if cleared else 0
        return np.floor(sure + low * (pages - sure)), np.ceil(sure + high * (pages - sure))


def calibrate(unsure: pd.DataFrame, rounds: pd.DataFrame | None = None) -> Calibration:
    """Calibrate on rounds whose truth is known; all guests have the same weight.

    Parameters
    ----------
    unsure : DataFrame
        One row per round in which flags were cleared, from `pmlkit.reads.judge.unsure`, with the
        ``guest``. Exclude guests that unmap what they use, because those reads are not the
        kernel's. If there are no two different rounds, a large entry counts as one page, and so
        does a fresh one.
    rounds : DataFrame, optional
        One row per round and method, for intervals: ``guest``, ``method``, ``cleared``, ``pages``,
        ``low`` (certain), ``truth``.

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
    """Read a bundled table of an experiment in the lab.

    Raises
    ------
    TraceNotFound
        If it does not exist.
    """
    path = Path(recording("rrww-lab")).parent / experiment / f"{name}.csv"
    if not path.is_file():
        module = experiment.replace("-", "_")
        raise TraceNotFound(path, f"make it: python -m experiments.{module} FOLDER")
    table = pd.read_csv(path)
    return table.fillna({"phase": ""}) if "phase" in table else table
