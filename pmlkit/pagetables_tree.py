# SPDX-License-Identifier: Apache-2.0
"""The tree that snapshots of page tables show, and what each table covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from pmlkit.pagetables import ACCESSED, LEAF, entries, spans

if TYPE_CHECKING:
    from pmlkit.trace import Trace


__all__ = ["coverage", "tree"]


def tree(trace: Trace, number: int | None = None) -> pd.DataFrame:
    """Return the tree that the snapshots show: who leads to whom.

    Parameters
    ----------
    trace : Trace
    number : int, optional
        Look at the tables of this round; default: each table as it was seen last.

    Returns
    -------
    DataFrame
        A row per table: ``table``, ``level``, ``parents`` (entries of other tables which lead to
        it: several address spaces may share a table; 0 for a root), ``parent`` (one of them, -1 if
        there is none), ``present``, ``accessed`` (its entries), ``leaf`` (those that map a page).
    """
    rows = entries(trace)
    last = rows.groupby("table")["round"].transform("max") if number is None else number
    rows = rows[rows["round"] == last]
    inner = rows[(rows["flags"] & LEAF) == 0]
    inner = inner[inner["target"].isin(rows["table"].unique())]
    parents = inner.groupby("target")["table"].agg(["size", "first"])
    found = _counts(rows, ["table", "level"])
    found["parents"] = found["table"].map(parents["size"]).fillna(0).astype("int64")
    found["parent"] = found["table"].map(parents["first"]).fillna(-1).astype("int64")
    return found[["table", "level", "parents", "parent", "present", "accessed", "leaf"]]


def coverage(trace: Trace, start_ns: int | None = None, end_ns: int | None = None) -> pd.DataFrame:
    """Say of each snapshot what it covers.

    Returns
    -------
    DataFrame
        A row per (round, table): ``round``, ``table``, ``level``; of its entries the ``present``,
        ``accessed``, ``leaf`` and ``accessed_leaf`` ones; ``pages`` mapped and ``accessed_pages``.
    """
    rows = entries(trace, start_ns, end_ns)
    rows = rows.assign(pages=spans(rows) * ((rows["flags"] & LEAF) != 0))
    return _counts(rows, ["round", "table", "level"])


def _counts(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    flags = rows["flags"].to_numpy()
    used = (flags & ACCESSED) != 0
    leaf = (flags & LEAF) != 0
    columns = {"present": 1, "accessed": used, "leaf": leaf, "accessed_leaf": used & leaf}
    if "pages" in rows:
        columns |= {"pages": rows["pages"], "accessed_pages": rows["pages"] * used}
    return rows[by].assign(**columns).groupby(by, as_index=False).sum()
