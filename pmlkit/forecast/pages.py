# SPDX-License-Identifier: Apache-2.0
"""Which pages belong to the working set: learned from their log history, in place of a fixed m.

At some moment, every page that was logged within the last `LOOK_BACK` windows is a candidate. The
question is whether it will be used in the next h windows. The rule of a fixed threshold says yes if
it was logged at least m times within the last T. A classifier is shown how often and when the page
was logged, and what its neighbours did, and is trained on other programs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from pmlkit.forecast.features import coarse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Self

    from pmlkit.forecast.log import Log
    from pmlkit.kernels.by_page import References
    from pmlkit.types import Array, Floats, Gfns, Json


__all__ = ["LOOK_BACK", "PageClassifier", "backtest", "candidates", "fixed"]

LOOK_BACK = 16  # windows
TIMES = (1, 2, 4, 8, 16)  # T of the fixed thresholds, windows
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # m
ROWS = 20_000  # of one log that a classifier is shown


def candidates(
    log: Log,
    window: str | int = "500ms",
    horizon: int = 4,
    every: int = 8,
    truth: References | None = None,
) -> pd.DataFrame:
    """Return the candidates at every `every`-th window, with their history, and what came.

    Parameters
    ----------
    log : Log
    window : str, int or Window
    horizon : int
        h, windows.
    every : int
        Windows between two moments.
    truth : References, optional
        What counts as use, at the log's rounds; default: being logged.

    Returns
    -------
    DataFrame
        A row per moment and candidate: ``origin`` (window), ``used`` (in the next h windows), and
        the history: ``count{T}`` (parts of windows in which it was logged), ``windows`` (in which
        it was), ``age`` (windows since the last), ``gap`` (between the last two), ``gap_mean``,
        ``known`` (windows since the first), ``near1``, ``near4`` (share of the 16 pages around it
        logged in the last 1 or 4 windows), ``place`` (in the guest's memory, 0 to 1), ``busy``
        (all pages of the last window over those of the last `LOOK_BACK`).
        ``attrs["used"]`` has, by origin, how many pages were used, candidates or not.
    """
    k = log.window_rounds(window)
    n = log.n_rounds // k
    occ, parts = coarse(log, k, n)
    later = (occ.gfn, occ.round // parts) if truth is None else (truth.gfn, truth.round // k)
    order = np.argsort(occ.round, kind="stable")
    gfn, part = occ.gfn[order], occ.round[order]
    pages, first = np.unique(occ.gfn, return_index=True)
    born = occ.round[first] // parts
    tables, used = [], {}
    for origin in range(LOOK_BACK - 1, n - horizon, every):
        lo, hi = np.searchsorted(part, [(origin + 1 - LOOK_BACK) * parts, (origin + 1) * parts])
        soon = (later[1] > origin) & (later[1] <= origin + horizon)
        wanted = np.unique(later[0][soon])
        table = _history(gfn[lo:hi], part[lo:hi], origin, parts, log.memory_pages)
        table["known"] = origin - born[np.searchsorted(pages, table["gfn"])]
        table["used"] = np.isin(table["gfn"], wanted)
        table.insert(0, "origin", origin)
        used[origin] = len(wanted)
        tables.append(table)
    found = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"origin": []})
    found.attrs["used"] = used
    return found


def _history(gfn: Gfns, part: Array, origin: int, parts: int, memory_pages: int) -> pd.DataFrame:
    """Describe the pages logged in the last `LOOK_BACK` windows; `part` is in order of time."""
    pages, index = np.unique(gfn, return_inverse=True)
    window = part // parts
    columns = {"gfn": pages}
    for size in TIMES:
        columns[f"count{size}"] = np.bincount(index[window > origin - size], minlength=len(pages))  # type: ignore[assignment]
    # One entry per page and window, sorted by page and window.
    keys = np.unique(index * np.int64(1 << 32) + window)
    page, when = keys >> 32, keys & ((1 << 32) - 1)
    ends = np.searchsorted(page, np.arange(len(pages)), "right")
    starts = np.searchsorted(page, np.arange(len(pages)))
    columns["windows"] = ends - starts  # type: ignore[assignment]
    columns["age"] = origin - when[ends - 1]  # type: ignore[assignment]
    twice = columns["windows"] > 1
    gap = np.where(twice, when[ends - 1] - when[np.maximum(ends - 2, 0)], LOOK_BACK)
    columns["gap"] = gap
    span = when[ends - 1] - when[starts]
    columns["gap_mean"] = np.where(twice, span / np.maximum(columns["windows"] - 1, 1), LOOK_BACK)
    for size in (1, 4):
        near = np.unique(gfn[window > origin - size])
        end, eight = np.uint64((1 << 64) - 1), np.uint64(8)
        around = np.searchsorted(near, np.minimum(pages, end - eight) + eight, "right")
        below = np.searchsorted(near, np.maximum(pages, eight) - eight)
        columns[f"near{size}"] = (around - below - np.isin(pages, near)) / 16  # type: ignore[assignment]
    columns["place"] = pages / float(memory_pages)  # type: ignore[assignment]
    columns["busy"] = len(np.unique(gfn[window == origin])) / max(len(pages), 1)  # type: ignore[assignment]
    return pd.DataFrame(columns)


FEATURES = [f"count{t}" for t in TIMES]
FEATURES += ["windows", "age", "gap", "gap_mean", "known", "near1", "near4", "place", "busy"]


@dataclass
class PageClassifier:
    """Says of each candidate whether it belongs to the working set.

    Attributes
    ----------
    model_ : estimator
    threshold_ : float
        The best F1 on programs that the model had not seen.
    """

    max_iter: int = 80
    model_: object = field(default=None, repr=False)
    threshold_: float = 0.5

    def fit(self, tables: Sequence[pd.DataFrame], programs: Any, folds: int = 3) -> Self:
        """Fit on tables of `candidates` (list of DataFrame) of these programs (list of str)."""
        tables = [_thin(table) for table in tables]
        programs = np.asarray(programs)
        names = list(dict.fromkeys(programs))
        scores, labels = [], []
        with threadpool_limits(1):
            for fold in range(min(folds, len(names)) if len(names) > 1 else 0):
                out = np.isin(programs, names[fold::folds])
                model = self._fitted([t for t, o in zip(tables, out, strict=True) if not o])
                test = pd.concat([t for t, o in zip(tables, out, strict=True) if o])
                scores.append(model.predict_proba(test[FEATURES])[:, 1])
                labels.append(test["used"].to_numpy())
            self.model_ = self._fitted(tables)
        if scores:
            self.threshold_ = _best(np.concatenate(scores), np.concatenate(labels))
        return self

    def _fitted(self, tables: Sequence[pd.DataFrame]) -> Any:
        data = pd.concat(tables)
        model = HistGradientBoostingClassifier(
            max_iter=self.max_iter, max_leaf_nodes=16, min_samples_leaf=50, early_stopping=False,
            random_state=0,
        )  # fmt: skip
        return model.fit(data[FEATURES], data["used"])

    def predict(self, table: pd.DataFrame) -> Floats:
        """Return the probability that each candidate is used, shape (rows,)."""
        with threadpool_limits(1):
            return self.model_.predict_proba(table[FEATURES])[:, 1]  # type: ignore[attr-defined]


def _thin(table: pd.DataFrame) -> pd.DataFrame:
    return table.sample(ROWS, random_state=0) if len(table) > ROWS else table


def _best(scores: Floats, labels: Array) -> float:
    """Return the threshold with the best F1."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    f1 = 2 * hits / (np.arange(len(hits)) + 1 + labels.sum())
    last = np.append(scores[order][1:] != scores[order][:-1], True)  # where equal scores end
    return float(scores[order][np.argmax(np.where(last, f1, -1))])


def judge(table: pd.DataFrame, chosen: Any) -> Json:
    """Judge a choice of pages.

    Parameters
    ----------
    table : DataFrame
        Of `candidates`.
    chosen : array of bool, shape (rows,)

    Returns
    -------
    dict
        ``precision``, ``recall`` (of all the pages that were used, candidates or not), ``f1``, and
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


def fixed(tables: Sequence[pd.DataFrame]) -> tuple[int, int]:
    """Find the fixed threshold with the best mean F1 on these tables: (T, m)."""
    f1 = {
        (t, m): np.mean([judge(table, table[f"count{t}"] >= m)["f1"] for table in tables])
        for t in TIMES
        for m in COUNTS
        if m <= 5 * t
    }
    return max(f1, key=f1.get)  # type: ignore[arg-type]


def backtest(
    tables: Sequence[pd.DataFrame],
    programs: list[str],
    names: list[str],
    held_out: Sequence[str] | None = None,
    progress: Callable[..., Any] | None = None,
) -> pd.DataFrame:
    """Leave one program out: the classifier, the best fixed (T, m) of the others, and m = 1.

    Parameters
    ----------
    tables : list of DataFrame
        Of `candidates`.
    programs, names : list of str
        Of the logs.
    held_out : sequence of str, optional
        Programs; default all.
    progress : callable, optional
        Called with a text before each fit.

    Returns
    -------
    DataFrame
        ``model``, ``sample``, ``program``, and as in `judge`.
    """
    rows = []
    for program in held_out or dict.fromkeys(programs):
        if progress:
            progress(f"pages, without {program}")
        others = [i for i, p in enumerate(programs) if p != program]
        model = PageClassifier().fit([tables[i] for i in others], [programs[i] for i in others])
        t, m = fixed([tables[i] for i in others])
        for i in (i for i, p in enumerate(programs) if p == program):
            table = tables[i]
            choices = (
                ("learned", "learned", model.predict(table) >= model.threshold_),
                ("best fixed m", f"m = {m} in T = {t}", table[f"count{t}"] >= m),
                ("m = 1 in T = 4", "m = 1 in T = 4", table["count4"] >= 1),
            )
            for kind, rule, chosen in choices:
                head = {"model": kind, "rule": rule, "sample": names[i], "program": program}
                rows.append(head | judge(table, np.asarray(chosen)))
    return pd.DataFrame(rows)
