# SPDX-License-Identifier: Apache-2.0
"""Hot and cold regions, ranked by when their leaf table is logged after a re-arm.

After a re-arm, every leaf table waits for the first access below it. A table that is used a
thousand times a second is logged within a millisecond; an unused table is not logged. For accesses
at random times with rate r, the first comes after 1/r on average (exponential waiting). The time of
the first log therefore orders regions by their rate, even if all of them are logged in every round.
In that case, the share of rounds in which they are logged no longer distinguishes them. The ranking
is of leaf tables (2 MiB of addresses each), not of pages.

The ranking states how *often* a region is used, not how *much* of it (`touches` with
``what="pages"``). For example, three pages of a library that every loop uses are hot. A buffer of
512 pages that is read once a second is not.

`hotness_table` shows the quality of the ranking: Spearman's correlation with how often a region is
used, the precision at 10, and the same for two other orders. These are the share of windows with a
log, which ignores order, and a random order. The window was chosen on other guests. Two limits
follow from the method:

- In long rounds most tables are used in each, so there is little to rank. The period must be short
  compared with the time between two uses of the regions to be distinguished.
- The ranking is of little use for how much of a region is used. For that question, count entries
  (`reads`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from pmlkit import pagetables
from pmlkit.errors import NeedsError, UsageError
from pmlkit.reads import page_sets
from pmlkit.recordings import name_of, open_trace
from pmlkit.timeline import timeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.timeline import Timeline
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Floats, Ints
    from pmlkit.units import Window


__all__ = [
    "CHOSEN_ON",
    "Score",
    "choose",
    "first_logs",
    "judge",
    "rank",
    "score",
    "scores",
    "touches",
]


@dataclass(frozen=True)
class Score:
    """How well a ranking agrees with the truth.

    Attributes
    ----------
    correlation : float
        Spearman's rank correlation; NaN if either is constant.
    precision : float
        Share of the k regions ranked first that are among the hottest: as hot as the k-th or
        hotter. If regions tie in the ranking, this is the mean over their possible orders.
    chance : float
        The precision of a random order: the share of all regions that are among the hottest.
    k, regions : int
    """

    correlation: float
    precision: float
    chance: float
    k: int
    regions: int


def first_logs(trace: Trace) -> pd.DataFrame:
    """Find where in each round each region is logged first.

    Parameters
    ----------
    trace : Trace
        A log with marks of page tables, or a recorder's trace. A recorder's trace has no marks;
        there, the first use of any of the 512 frames of an aligned 2 MiB replaces the first log of
        their leaf table. This assumes that guest addresses equal frames and that no frame is mapped
        twice.

    Returns
    -------
    DataFrame
        ``round``, ``table`` (gfn; a recorder's: first frame of the region) and ``place``, from 0
        (first in the round) to 1.
    """
    if not _is_recorded(trace):
        first = pagetables.logged(trace)
        return first[first["level"] == 1][["round", "table", "place"]]
    log = trace.to_pandas(["round", "gfn"])
    number = log.groupby("round").cumcount()
    size = log.groupby("round")["gfn"].transform("size")
    first = log.assign(place=number / np.maximum(size - 1, 1), table=_region(log["gfn"]))
    return first.drop_duplicates(["round", "table"])[["round", "table", "place"]]


def _is_recorded(trace: Trace) -> bool:
    return trace.meta.kind == "access" and not trace.is_harvest and not trace.has_tables


def _region(gfns: pd.Series[int]) -> pd.Series[int]:
    return gfns - gfns % pagetables.PAGES_OF_A_TABLE


def rank(trace: Trace, window: str | int | Window = "1r", by: str = "place") -> pd.DataFrame:
    """Rank leaf tables, hottest first.

    Parameters
    ----------
    trace : Trace
        As for `first_logs`.
    window : str, int or Window
        T: only the first log of a table in the window is used, as if nothing had been re-armed
        within it.
    by : {"place", "share"}
        The mean place of the first log (0: first, 1: last or not logged). For comparison: the share
        of the windows in which it is logged, that is, the log without its order.

    Returns
    -------
    DataFrame
        ``table``, ``place``, ``share``, ``heat`` (larger is hotter), in descending order of heat.
    """
    rounds = timeline(trace)
    windows, logs = rounds.windows(window), first_logs(trace)
    n_windows = max(len(windows), 1)
    number = logs["round"].to_numpy(np.int64)
    at = _place_in_window(rounds, window, number, logs["place"].to_numpy())
    logs = logs.assign(window=windows.enter[number], at=at)
    firsts = logs.groupby(["table", "window"], as_index=False)["at"].min()
    sums = firsts.groupby("table")["at"].agg(["sum", "size"])
    place = (sums["sum"] + n_windows - sums["size"]) / n_windows
    table = pd.DataFrame({"place": place, "share": sums["size"] / n_windows})
    table["heat"] = 1 - table["place"] if by == "place" else table["share"]
    return table.sort_values("heat", ascending=False, kind="stable").reset_index()


def _place_in_window(
    rounds: Timeline, window: str | int | Window, number: Ints, place: Floats
) -> Floats:
    """Return where in its window each log is, from 0 to 1.

    What a round logs first may have been logged before the window began, in which the round ends.
    """
    axis, size = rounds.axis_of(window), rounds.size(window)
    ends, unit = axis.at, axis.usual
    begins = np.concatenate(([0], ends))[number]
    window_begins = np.maximum(-(-ends[number] // size) - 1, 0) * size
    length = (ends[number] - begins) / unit
    within = ((begins - window_begins) / unit + place * length) / (size / unit)
    return np.clip(within, 0, 1)


def touches(trace: Trace, what: str = "rounds") -> pd.Series:
    """Measure the truth from the accesses: how often, or how much, each leaf table was used.

    Parameters
    ----------
    trace : Trace
        An access trace of harvests, with marks and snapshots in its log; or a recorder's.
    what : {"rounds", "pages"}
        The share of the rounds in which a page under the table was touched; or the mean number of
        those pages a round. A page under several tables counts for each of them.

    Returns
    -------
    Series
        By table (gfn).

    Raises
    ------
    NeedsError
        If it has no accesses.
    UsageError
        If `what` is unknown.
    """
    if what not in ("rounds", "pages"):
        raise UsageError(f"there is no truth {what!r}: use rounds or pages")
    if trace.meta.kind != "access":
        raise NeedsError(
            trace, "harvest of accessed flags", "log it with `pmlkit collect --harvest`"
        )
    used = _recorded(trace) if _is_recorded(trace) else _harvested(trace)
    tables = used.groupby("table")["round"]
    counts = tables.nunique() if what == "rounds" else tables.size()
    return counts / max(trace.n_rounds, 1)


def _recorded(trace: Trace) -> pd.DataFrame:
    uses = trace.to_pandas(["round", "gfn"]).drop_duplicates()
    return uses.assign(table=_region(uses["gfn"]))


def _harvested(trace: Trace) -> pd.DataFrame:
    rows = pagetables.entries(trace)
    rows = rows[(rows["level"] == 1) & (rows["flags"] & pagetables.LEAF > 0)]
    refs = page_sets.truth(trace)
    used = np.isin(
        pagetables.pack(rows["round"], rows["target"]), pagetables.pack(refs.round, refs.gfn)
    )
    return rows[used]


def score(ranking: pd.DataFrame, truth: pd.Series, k: int = 10) -> Score:
    """Score a ranking (``table`` and ``heat``) against the truth, which is 0 for other tables."""
    heat = ranking.set_index("table")["heat"]
    truth = truth.reindex(heat.index).fillna(0)
    k = min(k, len(heat))
    hottest = truth >= truth.nlargest(k).min()
    constant = min(heat.nunique(), truth.nunique()) < 2
    correlation = np.nan if constant else float(spearmanr(heat, truth).statistic)
    precision = float((_first(heat, k) * hottest).sum()) / max(k, 1)
    return Score(correlation, precision, float(hottest.mean()), k, len(heat))


def _first(heat: pd.Series[float], k: int) -> pd.Series[float]:
    """Return the probability of each region to be among the first k, ties in random order."""
    last = heat.nlargest(k).min()
    surely, maybe = heat > last, heat == last
    return surely + maybe * (k - surely.sum()) / max(maybe.sum(), 1)


# ------------------------------------------------------------------------------
# How well rankings of hot regions do: chosen on half of the guests, scored on the other half.
#
# The guests were split before scoring, by family, alternating along the alphabet. `CHOSEN_ON` is
# the half to choose on: there, `choose` takes the window and the method of ranking with the best
# mean rank correlation. `judge` reports their scores on the other half.
#
# Two kinds of traces: the lab's, whose log has the page tables themselves and whose truth is the
# harvest of each round; and the recorder's, in rounds of 10 ms, where the first use of 2 MiB of
# frames stands for the first log of their table, and the truth knows all rounds.
#
#     python -m pmlkit.reads.hotness OUT.csv NAME.trace...


CHOSEN_ON = ("burst", "gcc", "moving", "pressure", "redis", "rrww", "rwrw", "sparse", "wwrr", "xz")
LAB_WINDOWS = ("2r", "3r", "5r")  # windows in rounds of half a second
WINDOWS = ("10r", "25r", "50r", "100r", "200r")  # windows in rounds of 10 ms
WAYS = ("place", "share")


def scores(trace: Trace, windows: Sequence[str] = LAB_WINDOWS) -> pd.DataFrame:
    """Score the rankings of one guest's regions by their first logs, in windows of rounds.

    The truth uses every round. In windows of several rounds it therefore contains more than the
    ranking. The ranking uses one log entry per table and window, as if tables were re-armed once
    per window.

    Returns
    -------
    DataFrame
        A row per ``truth`` ("rounds", "pages"), ``window`` and ``by`` (way of ranking), with the
        fields of `Score`.
    """
    rows = []
    for what in ("rounds", "pages"):
        truth = touches(trace, what)
        for window in windows:
            for by in WAYS:
                result = score(rank(trace, window, by), truth)
                rows.append({"truth": what, "window": window, "by": by, **vars(result)})
    return pd.DataFrame(rows).round(4)


def choose(table: pd.DataFrame, by: str = "place", truth: str = "rounds") -> str:
    """Return the window with the best mean correlation over the guests of `CHOSEN_ON`.

    Parameters
    ----------
    table : DataFrame
        From `scores`, with a column ``guest``.
    """
    rows = table[table["guest"].isin(CHOSEN_ON) & (table["by"] == by) & (table["truth"] == truth)]
    if rows.empty:
        raise NeedsError("the scores", "guest to choose on", f"score {', '.join(CHOSEN_ON)}")
    return str(rows.groupby("window", sort=False)["correlation"].mean().idxmax())


def judge(table: pd.DataFrame, window: str) -> pd.DataFrame:
    """Return the scores of a window on the guests that it was not chosen on.

    Returns
    -------
    DataFrame
        One row per ``guest`` and ``truth``: ``regions``; ``correlation`` and ``precision`` of the
        time of the first log; ``share_correlation`` and ``share_precision`` of the share of windows
        with a log; ``chance`` (the precision of a random order).
    """
    rows = table[~table["guest"].isin(CHOSEN_ON) & (table["window"] == window)]
    keys = ["guest", "truth"]
    place, share = (rows[rows["by"] == by].set_index(keys) for by in WAYS)
    scored = place[["regions", "correlation", "precision"]]
    scored = scored.assign(
        share_correlation=share["correlation"],
        share_precision=share["precision"],
        chance=place["chance"],
    )
    scored = scored.reset_index()
    return scored.sort_values("truth", ascending=False, kind="stable").reset_index(drop=True)


def main(arguments: Sequence[str]) -> int:
    """Score the named traces of the recorder, and write the table."""
    out, *paths = arguments
    parts = []
    for path in paths:
        rows = scores(open_trace(path), WINDOWS)
        rows.insert(0, "guest", name_of(path))
        parts.append(rows)
    pd.concat(parts, ignore_index=True).to_csv(out, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
