# SPDX-License-Identifier: Apache-2.0
"""How well rankings of hot regions do: chosen on half of the guests, scored on the other half.

The guests were split before anything was scored, by family, in turn along the alphabet (`CHOSEN_ON`
has the half to choose on). On it `choose` takes the window and the way of ranking with the best
mean rank correlation; what is reported is how these do on the other half (`judge`).

Two kinds of traces: the lab's, whose log has the page tables themselves and whose truth is the
harvest of each round; and the recorder's, in rounds of 10 ms, where the first use of 2 MiB of
frames stands for the first log of their table, and the truth knows all rounds.

    python -m pmlkit.hotness_table OUT.csv NAME.trace...
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import pmlkit
from pmlkit import hotness
from pmlkit.errors import NeedsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.trace import Trace


__all__ = ["CHOSEN_ON", "choose", "judge", "scores"]

CHOSEN_ON = ("burst", "gcc", "moving", "pressure", "redis", "rrww", "rwrw", "sparse", "wwrr", "xz")
LAB_WINDOWS = ("2r", "3r", "5r")  # of rounds of half a second
WINDOWS = ("10r", "25r", "50r", "100r", "200r")  # of rounds of 10 ms
WAYS = ("place", "share")


def scores(trace: Trace, windows: Sequence[str] = LAB_WINDOWS) -> pd.DataFrame:
    """Score the rankings of one guest's regions by their first logs, in windows of rounds.

    The truth looks at every round. So in windows of several rounds it knows more than the ranking,
    which sees one log of a table in each, as if it had been re-armed but once.

    Parameters
    ----------
    trace : Trace
        As for `hotness.touches`.
    windows : sequence of str

    Returns
    -------
    DataFrame
        A row per ``truth`` ("rounds", "pages"), ``window`` and ``by`` (way of ranking), with the
        fields of `hotness.Score`.
    """
    rows = []
    for what in ("rounds", "pages"):
        truth = hotness.touches(trace, what)
        for window in windows:
            for by in WAYS:
                score = hotness.score(hotness.rank(trace, window, by), truth)
                rows.append({"truth": what, "window": window, "by": by, **vars(score)})
    return pd.DataFrame(rows).round(4)


def choose(table: pd.DataFrame, by: str = "place", truth: str = "rounds") -> str:
    """Return the window with the best mean correlation over the guests of `CHOSEN_ON`.

    Parameters
    ----------
    table : DataFrame
        From `scores`, with a column ``guest``.
    by, truth : str
    """
    rows = table[table["guest"].isin(CHOSEN_ON) & (table["by"] == by) & (table["truth"] == truth)]
    if rows.empty:
        raise NeedsError("the scores", "guest to choose on", f"score {', '.join(CHOSEN_ON)}")
    return str(rows.groupby("window", sort=False)["correlation"].mean().idxmax())


def judge(table: pd.DataFrame, window: str) -> pd.DataFrame:
    """Return what a window scores on the guests that it was not chosen on.

    Returns
    -------
    DataFrame
        A row per ``guest`` and ``truth``: ``regions``; ``correlation`` and ``precision`` of the
        time of the first log; those of the ``share`` of windows with a log (``share_correlation``,
        ``share_precision``); ``chance`` (the precision of a random order).
    """
    rows = table[~table["guest"].isin(CHOSEN_ON) & (table["window"] == window)]
    keys = ["guest", "truth"]
    place, share = (rows[rows["by"] == by].set_index(keys) for by in WAYS)
    found = place[["regions", "correlation", "precision"]]
    found = found.assign(
        share_correlation=share["correlation"],
        share_precision=share["precision"],
        chance=place["chance"],
    )
    found = found.reset_index()
    return found.sort_values("truth", ascending=False, kind="stable").reset_index(drop=True)


def main(arguments: Sequence[str]) -> int:
    """Score the recorder's traces named, and write the table."""
    out, *paths = arguments
    parts = []
    for path in paths:
        rows = scores(pmlkit.open(path), WINDOWS)
        rows.insert(0, "guest", Path(path).stem)
        parts.append(rows)
    pd.concat(parts, ignore_index=True).to_csv(out, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
