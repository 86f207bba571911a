# SPDX-License-Identifier: Apache-2.0
"""From tables of features to what models learn: scale-free rows X, and targets.

Programs differ in size by orders of magnitude, and a model that is to serve a program that it has
never seen must not depend on it. So sizes enter as differences of logarithms, and targets are
predicted relative to a level of the same log's own past.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.forecast.features import REGIONS, THRESHOLDS, WINDOWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from pmlkit.types import Array, Bools, Floats, Ints


__all__ = ["ahead", "level", "matrix", "stacked"]

LAGS = (1, 2, 3, 4, 6, 8, 12, 16)
SPANS = (4, 8, 16, 32, 64)
HISTORY = 96  # windows that a log's own quantiles look back


def matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that models learn from.

    Parameters
    ----------
    table : DataFrame
        Of `features.table`.

    Returns
    -------
    DataFrame of float64, shape (windows, features)
        Causal like the table; NaN where the past is too short, or the hour is not known.
    """
    now = np.log1p(table["pages"])
    base = level(table)
    columns = {"now": now - base}
    columns |= {f"lag{i}": now.shift(i) - base for i in LAGS}
    for span in SPANS:
        past = now.rolling(span, min_periods=2)
        columns[f"mean{span}"] = past.mean() - base
        columns[f"max{span}"] = past.max() - base
        columns[f"min{span}"] = past.min() - base
        columns[f"std{span}"] = past.std()
        columns[f"ewma{span}"] = now.ewm(halflife=span / 4).mean() - base
    history = now.rolling(HISTORY, min_periods=4)
    for q in (0.25, 0.5, 0.75, 0.95):
        columns[f"q{int(q * 100)}"] = history.quantile(q) - base
    columns |= _sizes(table, base) | _turnover(table) | _rhythm(table, now, base)
    return pd.DataFrame(columns).astype(float)


def level(table: pd.DataFrame) -> pd.Series[float]:
    """Return the level that targets are relative to: log(1 + p90 of the past `HISTORY` windows)."""
    now = np.log1p(table["pages"])
    return now.rolling(HISTORY, min_periods=1).quantile(0.9)


def ahead(table: pd.DataFrame, horizon: int, target: str = "at") -> Floats:
    """Return what is to be forecast from each window.

    Parameters
    ----------
    table : DataFrame
    horizon : int
        h, windows.
    target : {"at", "peak"}
        The working set of the window h later, or the largest of the next h.

    Returns
    -------
    ndarray of float, shape (windows,)
        Pages; NaN in the last h windows, where it is not known.
    """
    pages = table["pages"].astype(float)
    if target == "peak":
        # The largest of the next h is the trailing maximum, h windows later.
        pages = pages.rolling(horizon).max()
    return pages.shift(-horizon).to_numpy()


def _sizes(table: pd.DataFrame, base: pd.Series[float]) -> dict[str, Any]:
    columns = {}
    for size in WINDOWS:
        for m in (1, *THRESHOLDS):
            name = f"w{size}" if m == 1 else f"w{size}_m{m}"
            if name != "w1":
                columns[name] = np.log1p(table[name]) - base
    columns["part_last"] = np.log1p(table["part_last"]) - base
    columns["part_max"] = np.log1p(table["part_max"]) - base
    return columns


def _turnover(table: pd.DataFrame) -> dict[str, Any]:
    pages = table["pages"].clip(lower=1)
    shares = ["kept", "new", "soon", "late", "lost", "logged"]
    shares += [f"region{i}" for i in range(REGIONS)]
    columns = {name: (table[name] / pages).clip(upper=20) for name in shares}
    columns["tables"] = np.log1p(table["tables"]) - np.log1p(table["pages"])
    columns["exits"] = np.log1p(table["exits"])
    columns["paused"] = table["pause_ns"] / table["t_ns"].iloc[0]
    return columns


def _rhythm(table: pd.DataFrame, now: Any, base: Any) -> dict[str, Any]:
    """Describe when things happened: the last change, the last time above and below the middle."""
    middle = now.rolling(HISTORY, min_periods=4).median()
    high = now > middle + 0.2
    columns = {"since_change": np.log1p(table["since_change"])}
    columns["since_high"] = np.log1p(_since(high))
    columns["since_low"] = np.log1p(_since(~high))
    columns["busy"] = high.rolling(HISTORY, min_periods=4).mean()
    changed = high.ne(high.shift()).rolling(HISTORY, min_periods=4).mean()
    columns["switching"] = changed
    columns["hour_sin"], columns["hour_cos"] = table["hour_sin"], table["hour_cos"]
    return columns


def _since(mask: Bools) -> Ints:
    index = np.arange(len(mask))
    return index - np.maximum.accumulate(np.where(mask, index, -1))


def stacked(
    rows: Sequence[tuple[pd.DataFrame, Array]], chosen: Iterable[bool]
) -> tuple[Any, Floats]:
    """Put the chosen ones of several (X, y) one below the other; `chosen` is of bool."""
    X = pd.concat([X for (X, _), keep in zip(rows, chosen, strict=True) if keep])
    return X, np.concatenate([y for (_, y), keep in zip(rows, chosen, strict=True) if keep])
