# SPDX-License-Identifier: Apache-2.0
"""The pages of the working set, learned from their log history instead of a fixed m.

A page that was logged within the last `LOOK_BACK` windows is a candidate. The question is whether
it will be used in the next h windows. The rule of a fixed threshold predicts yes if it was logged
at least m times within the last T. A classifier, trained on other programs, decides from the
frequency and times at which the page and its neighbours were logged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from pmlkit import progress
from pmlkit.forecast import features
from pmlkit.forecast.forecaster import folds_by_program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from pmlkit.forecast.log import Log
    from pmlkit.kernels.by_page import References
    from pmlkit.types import Array, Bools, Floats, Gfns, Ints

__all__ = ["LOOK_BACK", "PageClassifier", "backtest", "best_threshold", "candidates", "judge"]

LOOK_BACK = 16  # windows
TIMES = (1, 2, 4, 8, 16)  # T of the fixed thresholds, windows
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # m
MAX_ROWS = 20_000  # rows of a log on which a classifier is fitted


def candidates(
    log: Log,
    window: str | int = "500ms",
    horizon: int = 4,
    every: int = 8,
    truth: References | None = None,
) -> pd.DataFrame:
    """Return the candidates at every `every`-th window, their history, and whether they are used.

    Parameters
    ----------
    log : Log
    window : str, int or Window
    horizon : int
        h, windows.
    every : int
        Windows between two origins.
    truth : References, optional
        The uses, at the log's rounds; default: a logged page counts as used.

    Returns
    -------
    DataFrame
        One row per origin and candidate: ``origin`` (window), ``used`` (in the next h windows), and
        the history. ``count{T}``: parts of windows in which it was logged; ``windows``: windows in
        which it was logged. ``age``: windows since the last log entry; ``gap``: between the last
        two; ``gap_mean``; ``known``: windows since the first. ``near1``, ``near4``: share of the 16
        pages around it logged in the last 1 or 4 windows. ``place``: in the guest's memory, 0 to 1.
        ``busy``: pages of the last window over those of the last `LOOK_BACK`. ``attrs["used"]``
        contains, by origin, the number of pages used, candidates or not.
    """
    k = log.window_rounds(window)
    n = log.n_rounds // k
    occ, parts = features.uses(log, k, n)
    if truth is None:
        used_gfn, used_window = occ.gfn, occ.round // parts
    else:
        used_gfn, used_window = truth.gfn, truth.round // k
    order = np.argsort(occ.round, kind="stable")
    gfn, part = occ.gfn[order], occ.round[order]
    pages, first = np.unique(occ.gfn, return_index=True)
    first_window = occ.round[first] // parts
    tables, used = [], {}
    for origin in range(LOOK_BACK - 1, n - horizon, every):
        lo, hi = np.searchsorted(part, [(origin + 1 - LOOK_BACK) * parts, (origin + 1) * parts])
        used_soon = np.unique(used_gfn[(used_window > origin) & (used_window <= origin + horizon)])
        table = _history(gfn[lo:hi], part[lo:hi] // parts, origin, log.memory_pages)
        table["known"] = origin - first_window[np.searchsorted(pages, table["gfn"])]
        table["used"] = np.isin(table["gfn"], used_soon)
        table.insert(0, "origin", origin)
        used[origin] = len(used_soon)
        tables.append(table)
    result = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"origin": []})
    result.attrs["used"] = used
    return result


def _history(gfn: Gfns, window: Ints, origin: int, memory_pages: int) -> pd.DataFrame:
    """Describe the pages logged in the last `LOOK_BACK` windows; entries are in order of time."""
    pages, index = np.unique(gfn, return_inverse=True)
    columns: dict[str, Array] = {"gfn": pages}
    for size in TIMES:
        columns[f"count{size}"] = np.bincount(index[window > origin - size], minlength=len(pages))
    columns |= _gaps(index, window, len(pages), origin)
    for size in (1, 4):
        columns[f"near{size}"] = _logged_nearby(pages, np.unique(gfn[window > origin - size]))
    columns["place"] = pages / float(memory_pages)
    busy = len(np.unique(gfn[window == origin])) / max(len(pages), 1)
    return pd.DataFrame(columns).assign(busy=busy)


def _gaps(index: Ints, window: Ints, n_pages: int, origin: int) -> dict[str, Array]:
    """Return the number of windows in which each page was logged, and how far they are apart."""
    # One key per page and window, sorted by page and window.
    keys = np.unique(index * np.int64(1 << 32) + window)
    page, logged = keys >> 32, keys & ((1 << 32) - 1)
    starts = np.searchsorted(page, np.arange(n_pages))
    ends = np.searchsorted(page, np.arange(n_pages), "right")
    windows, last = ends - starts, logged[ends - 1]
    twice = windows > 1
    span = last - logged[starts]
    return {
        "windows": windows,
        "age": origin - last,
        "gap": np.where(twice, last - logged[np.maximum(ends - 2, 0)], LOOK_BACK),
        "gap_mean": np.where(twice, span / np.maximum(windows - 1, 1), LOOK_BACK),
    }


def _logged_nearby(pages: Gfns, logged: Gfns) -> Floats:
    """Return the share of the 16 pages around each page that were logged."""
    largest, eight = np.uint64((1 << 64) - 1), np.uint64(8)
    stop = np.searchsorted(logged, np.minimum(pages, largest - eight) + eight, "right")
    start = np.searchsorted(logged, np.maximum(pages, eight) - eight)
    return (stop - start - np.isin(pages, logged)) / 16


FEATURES = [f"count{t}" for t in TIMES]
FEATURES += ["windows", "age", "gap", "gap_mean", "known", "near1", "near4", "place", "busy"]


@dataclass
class PageClassifier:
    """Estimates the probability that a candidate is used.

    `threshold_` is the probability with the best F1 on programs that the model had not seen.
    """

    max_iter: int = 80
    model_: HistGradientBoostingClassifier = field(default=None, repr=False)
    threshold_: float = 0.5

    def fit(self, tables: Sequence[pd.DataFrame], programs: Sequence[str], folds: int = 3) -> Self:
        """Fit on tables of `candidates` of these programs."""
        tables = [_thin(table) for table in tables]
        scores, labels = [], []
        with threadpool_limits(1):
            for held in folds_by_program(programs, folds):
                model = self._fit([t for t, out in zip(tables, held, strict=True) if not out])
                test = pd.concat([t for t, out in zip(tables, held, strict=True) if out])
                scores.append(model.predict_proba(test[FEATURES])[:, 1])
                labels.append(test["used"].to_numpy())
            self.model_ = self._fit(tables)
        if scores:
            self.threshold_ = _best_score(np.concatenate(scores), np.concatenate(labels))
        return self

    def _fit(self, tables: Sequence[pd.DataFrame]) -> HistGradientBoostingClassifier:
        rows = pd.concat(tables)
        model = HistGradientBoostingClassifier(
            max_iter=self.max_iter,
            max_leaf_nodes=16,
            min_samples_leaf=50,
            early_stopping=False,
            random_state=0,
        )
        return model.fit(rows[FEATURES], rows["used"])

    def predict(self, table: pd.DataFrame) -> Floats:
        """Return the probability that each candidate is used, shape (rows,)."""
        with threadpool_limits(1):
            return self.model_.predict_proba(table[FEATURES])[:, 1]


def _thin(table: pd.DataFrame) -> pd.DataFrame:
    return table.sample(MAX_ROWS, random_state=0) if len(table) > MAX_ROWS else table


def _best_score(scores: Floats, labels: Bools) -> float:
    """Return the threshold of best F1."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    f1 = 2 * hits / (np.arange(len(hits)) + 1 + labels.sum())
    last = np.append(scores[order][1:] != scores[order][:-1], True)  # where equal scores end
    return float(scores[order][np.argmax(np.where(last, f1, -1))])


def judge(table: pd.DataFrame, chosen: Bools) -> dict[str, float]:
    """Judge a choice among the candidates of a table.

    Returns
    -------
    dict
        ``precision``, ``recall`` (of all pages that were used, candidates or not), ``f1``, and
        ``size``: pages chosen over pages used.
    """
    used = sum(table.attrs["used"].values())
    hits, picked = int((table["used"] & chosen).sum()), int(chosen.sum())
    return {
        "precision": hits / picked if picked else np.nan,
        "recall": hits / used if used else np.nan,
        "f1": 2 * hits / (picked + used) if picked + used else np.nan,
        "size": picked / used if used else np.nan,
    }


def best_threshold(tables: Sequence[pd.DataFrame]) -> tuple[int, int]:
    """Find the fixed (T, m) with the best mean F1 on these tables."""

    def mean_f1(rule: tuple[int, int]) -> float:
        t, m = rule
        return float(np.mean([judge(table, _at_least(table, t, m))["f1"] for table in tables]))

    return max(((t, m) for t in TIMES for m in COUNTS if m <= features.PARTS * t), key=mean_f1)


def _at_least(table: pd.DataFrame, t: int, m: int) -> Bools:
    return (table[f"count{t}"] >= m).to_numpy()


def backtest(
    tables: Sequence[pd.DataFrame],
    programs: list[str],
    names: list[str],
    held_out: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Leave one program out; judge the classifier, the best (T, m) of the others, and m = 1.

    Parameters
    ----------
    tables : list of DataFrame
        Tables from `candidates`, one per log.
    programs, names : list of str
        The programs of the logs.
    held_out : sequence of str, optional
        Programs; default all.

    Returns
    -------
    DataFrame
        ``model``, ``sample``, ``program``, and as in `judge`.
    """
    rows = []
    for program in progress.over(
        list(held_out or dict.fromkeys(programs)), "pages", "without {}".format
    ):
        others = [i for i, p in enumerate(programs) if p != program]
        model = PageClassifier().fit([tables[i] for i in others], [programs[i] for i in others])
        t, m = best_threshold([tables[i] for i in others])
        for i in (i for i, p in enumerate(programs) if p == program):
            table = tables[i]
            choices = (
                ("learned", "learned", model.predict(table) >= model.threshold_),
                ("best fixed m", f"m = {m} in T = {t}", _at_least(table, t, m)),
                ("m = 1 in T = 4", "m = 1 in T = 4", _at_least(table, 4, 1)),
            )
            for kind, rule, chosen in choices:
                labels = {"model": kind, "rule": rule, "sample": names[i], "program": program}
                rows.append(labels | judge(table, chosen))
    return pd.DataFrame(rows)
