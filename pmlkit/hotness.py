# SPDX-License-Identifier: Apache-2.0
"""Hot and cold regions, by when their leaf table is logged again after a re-arm.

After a re-arm every leaf table waits for the first access under it: one that is used a thousand
times a second is logged within a millisecond, one that is used once a second in the middle of it,
one that is not used not at all. For accesses at random times with rate r the first comes after
1/r on average (exponential waiting), so the time of the first log orders regions by their rate
even when all are logged in every round, and the share of rounds in which they are logged no longer
tells them apart. What is ranked are leaf tables (2 MiB of addresses each), not pages.

What it tells is how *often* a region is used, not how *much* of it: held against the pages that
are touched under a table the ranking is of no use (`touches` with ``what="pages"``). Three pages of
a library that every loop runs through are hot; a buffer of 512 pages that is read once a second
is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from pmlkit import pagetables, reads
from pmlkit.errors import NeedsError, UsageError
from pmlkit.selection import window_rounds

if TYPE_CHECKING:
    from pmlkit.trace import Trace


__all__ = ["Score", "rank", "score", "touches"]


@dataclass(frozen=True)
class Score:
    """How well a ranking agrees with the truth.

    Attributes
    ----------
    correlation : float
        Spearman's rank correlation; NaN if either is constant.
    precision : float
        Share of the k regions that are ranked first which are among the k hottest.
    k, regions : int
    """

    correlation: float
    precision: float
    k: int
    regions: int


def rank(trace: Trace, window: str | int = "1r", by: str = "place") -> pd.DataFrame:
    """Rank leaf tables, hottest first.

    Parameters
    ----------
    trace : Trace
        With marks.
    window : str, int or Window
        Rounds that count as one: only the first log of a table in them is looked at, as if nothing
        had been re-armed in between.
    by : {"place", "share"}
        The mean place of the first log (0: first, 1: last or not logged), or, to compare, the
        share of the windows in which it is logged.

    Returns
    -------
    DataFrame
        ``table``, ``place``, ``share``, ``heat`` (larger is hotter), by falling heat.
    """
    k = window_rounds(trace, window)
    found = pagetables.logged(trace)
    found = found[found["level"] == 1]
    n_windows = max(-(-trace.n_rounds // k), 1)
    in_window = (found["round"] % k + found["place"]) / k
    found = found.assign(window=found["round"] // k, at=in_window)
    firsts = found.groupby(["table", "window"], as_index=False)["at"].min()
    sums = firsts.groupby("table")["at"].agg(["sum", "size"])
    place = (sums["sum"] + n_windows - sums["size"]) / n_windows
    table = pd.DataFrame({"place": place, "share": sums["size"] / n_windows})
    table["heat"] = 1 - table["place"] if by == "place" else table["share"]
    return table.sort_values("heat", ascending=False, kind="stable").reset_index()


def touches(trace: Trace, what: str = "rounds") -> pd.Series:
    """Measure the truth by the harvests: how often, or how much, each leaf table was used.

    Parameters
    ----------
    trace : Trace
        An access trace of harvests, with marks and snapshots in its log.
    what : {"rounds", "pages"}
        The share of the rounds in which a page under the table was touched; or the mean number of
        those pages a round. A page under several tables counts for each.

    Returns
    -------
    Series
        By table (gfn).

    Raises
    ------
    NeedsError
        If it is no harvest.
    UsageError
        If there is no such truth.
    """
    if what not in ("rounds", "pages"):
        raise UsageError(f"there is no truth {what!r}: say rounds or pages")
    if trace.meta.kind != "access":
        raise NeedsError(trace, "harvest of accessed flags", "log it with --accessed")
    rows = pagetables.entries(trace)
    rows = rows[(rows["level"] == 1) & (rows["flags"] & pagetables.LEAF > 0)]
    occ = reads.truth(trace)
    used = np.isin(
        pagetables.pack(rows["round"], rows["target"]), pagetables.pack(occ.round, occ.gfn)
    )
    tables = rows[used].groupby("table")["round"]
    found = tables.nunique() if what == "rounds" else tables.size()
    return found / max(trace.n_rounds, 1)


def score(ranking: pd.DataFrame, truth: pd.Series, k: int = 10) -> Score:
    """Score a ranking against the truth.

    Parameters
    ----------
    ranking : DataFrame
        ``table`` and ``heat``.
    truth : Series
        Larger is hotter, by table; a table that it lacks has 0.
    k : int

    Returns
    -------
    Score
    """
    heat = ranking.set_index("table")["heat"]
    both = pd.DataFrame({"heat": heat, "truth": truth.reindex(heat.index).fillna(0)})
    k = min(k, len(both))
    first, hottest = (set(both.nlargest(k, name).index) for name in ("heat", "truth"))
    constant = len(both) < 2 or both.nunique().min() < 2
    correlation = np.nan if constant else float(spearmanr(both["heat"], both["truth"]).statistic)
    return Score(correlation, len(first & hottest) / max(k, 1), k, len(both))
