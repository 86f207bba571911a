# SPDX-License-Identifier: Apache-2.0
"""One leaf table over time: the accesses to each page below it, and when it was logged.

This module is separate because it estimates nothing: it shows why a log of writes contains
information about reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit import pagetables
from pmlkit.errors import NeedsError
from pmlkit.trace.kinds import Kind

if TYPE_CHECKING:
    import pandas as pd

    from pmlkit.trace.reader import Trace


__all__ = ["LeafHistory", "leaf_history"]


@dataclass(frozen=True)
class LeafHistory:
    """The content of a figure of one leaf table.

    Attributes
    ----------
    table : int
        Its frame.
    states : ndarray of uint8, shape (n_rounds, entries)
        0: the page was not touched; 1: it was only read; 2: it was written.
    logged : ndarray of bool, shape (n_rounds,)
        Whether the table was in the round's log.
    """

    table: int
    states: np.ndarray
    logged: np.ndarray


def leaf_history(trace: Trace, table: int | None = None) -> LeafHistory:
    """Return the history of the pages under a leaf table.

    Parameters
    ----------
    trace : Trace
        An access trace of harvests, with marks and snapshots in its log.
    table : int, optional
        The table's frame; default: the table below which most pages were touched in total.
    """
    rows = pagetables.entries(trace)
    rows = rows[(rows["level"] == 1) & ((rows["flags"] & pagetables.LEAF) != 0)]
    if rows.empty:
        raise NeedsError(trace, "leaf table in its snapshots")
    frames = trace.to_pandas(["round", "gfn", "kind"])
    if table is None:
        table = _busiest(rows, frames)
    mine = rows[rows["table"] == table].drop_duplicates("index", keep="last")
    states = np.zeros((trace.n_rounds, max(512, int(mine["index"].max()) + 1)), np.uint8)
    touched = frames.merge(mine[["index", "target"]], left_on="gfn", right_on="target")
    for kind, state in ((Kind.READ, 1), (Kind.EXEC, 1), (Kind.WRITE, 2)):
        part = touched[touched["kind"] == int(kind)]
        states[part["round"], part["index"]] = state
    tables = pagetables.logged(trace)
    logged = np.zeros(trace.n_rounds, bool)
    logged[tables.loc[tables["table"] == table, "round"]] = True
    return LeafHistory(int(table), states, logged)


def _busiest(rows: pd.DataFrame, frames: pd.DataFrame) -> int:
    """Choose the table whose pages were touched most often, and both read and written."""
    mapped = rows.drop_duplicates(["table", "target"], keep="last")
    both = frames.merge(mapped[["table", "target"]], left_on="gfn", right_on="target")
    counts = both.groupby(["table", "kind"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=[int(Kind.READ), int(Kind.WRITE)], fill_value=0)
    # The sum breaks ties: among equal tables, the one with the most reads and writes.
    rank = counts.min(axis=1) + counts.sum(axis=1) / 1e6
    return int(counts.index[int(rank.argmax())])
