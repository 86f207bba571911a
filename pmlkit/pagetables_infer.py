# SPDX-License-Identifier: Apache-2.0
"""Which frames of a log without marks are page tables: a guess, with its error rate.

What gives a page table away: it is logged before the pages that it leads to, so early in a round;
it is logged whenever anything under it is used, so in most rounds; it stands alone, while data are
written in runs of neighbouring frames. The same holds for a hot page of data, and so the guess is
poor: use marks where they can be had (``--page-tables mark``). The level is not told.

Error rate, measured on the logs of the lab with their marks hidden (`ERRORS`, percent): ``found``
of the page tables, and ``right`` of the frames that were called one. Four Linux guests, each judged
by a model that was fitted to the others: 73 to 99 percent found, 8 to 40 percent right. Seven more
that the model which is shipped was not fitted to: 81 to 100 percent found, and 36 where processes
come and go; 8 to 29 percent right. 4 to 34 rounds of half a second each. A guest without an
operating system, all of whose frames are used in every round, defeats it: 2 percent right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pmlkit.errors import NeedsError
from pmlkit.kinds import is_page_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

    from pmlkit.trace import Trace
    from pmlkit.types import Bools, Floats, Ints


__all__ = ["ERRORS", "FEATURES", "error_rates", "features", "fit", "infer", "judge"]

FEATURES = ("rate", "place", "earliest", "rank", "run", "rate_before", "rate_after")
THRESHOLD = 0.9
_FEWEST_ROUNDS = 3


def features(trace: Trace) -> pd.DataFrame:
    """Describe each frame of a log.

    Returns
    -------
    DataFrame
        Index: gfn. ``rate`` (share of rounds in which it is logged), ``place`` and ``earliest``
        (mean and least place in the round's log, 0 to 1), ``rank`` (mean logarithm of the number
        of entries before it), ``run`` (share of its entries next to one of a frame at most two
        away), ``rate_before`` and ``rate_after`` (mean rate of the entries next to its own).
    """
    log = trace.pml.to_pandas(["round", "gfn"]).drop_duplicates()
    gfn, number = log["gfn"].to_numpy(np.int64), log["round"].to_numpy()
    before = log.groupby("round").cumcount().to_numpy()
    size = log.groupby("round")["gfn"].transform("size").to_numpy()
    rate = log.groupby("gfn")["gfn"].transform("size").to_numpy() / max(trace.pml.n_rounds, 1)
    table = pd.DataFrame(
        {
            "gfn": log["gfn"].to_numpy(),
            "rate": rate,
            "place": before / np.maximum(size - 1, 1),
            "earliest": before / np.maximum(size - 1, 1),
            "rank": np.log1p(before),
            "run": _beside(gfn, number, 1) | _beside(gfn, number, -1),
            "rate_before": _shifted(rate, number, 1),
            "rate_after": _shifted(rate, number, -1),
        }
    )
    how = dict.fromkeys(FEATURES, "mean") | {"earliest": "min"}
    return table.groupby("gfn").agg(how)[list(FEATURES)].astype(float)


def _beside(gfn: Ints, number: NDArray[np.uint32], step: int) -> Bools:
    near = np.abs(gfn - np.roll(gfn, step)) <= 2
    return near & (np.roll(number, step) == number)


def _shifted(values: Floats, number: NDArray[np.uint32], step: int) -> Floats:
    return np.where(np.roll(number, step) == number, np.roll(values, step), 0)


def fit(traces: Sequence[Trace]) -> Pipeline:
    """Fit a model to logs with marks.

    Parameters
    ----------
    traces : list of Trace

    Returns
    -------
    sklearn.pipeline.Pipeline
        Scaled features, then a logistic regression with balanced classes.
    """
    parts = [(features(trace), _marked(trace)) for trace in traces]
    X = pd.concat([table for table, _ in parts])
    y = np.concatenate([table.index.isin(frames) for table, frames in parts])
    if len(np.unique(y)) < 2:
        raise NeedsError(traces[0], "marks of page tables to learn from")
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    return model.fit(X.to_numpy(), y)


def _marked(trace: Trace) -> NDArray[np.uint64]:
    log = trace.pml.to_pandas(["gfn", "kind"])
    return log.loc[is_page_table(log["kind"].to_numpy()), "gfn"].unique()


def infer(
    trace: Trace, model: Pipeline | None = None, threshold: float = THRESHOLD
) -> pd.DataFrame:
    """Guess which frames of a log are page tables.

    Parameters
    ----------
    trace : Trace
    model : fitted classifier, optional
        From `fit`; default: the one whose error rate is stated above.
    threshold : float
        Least probability of a frame that is called a page table.

    Returns
    -------
    DataFrame
        ``gfn``, ``probability``, ``table`` (bool).

    Raises
    ------
    NeedsError
        If the log has fewer than three rounds: nothing shows, then, that a frame comes again.
    """
    if trace.pml.n_rounds < _FEWEST_ROUNDS:
        raise NeedsError(trace, "third round", "log it for longer")
    table = features(trace)
    probability = _shipped(table) if model is None else model.predict_proba(table.to_numpy())[:, 1]
    found = pd.DataFrame({"gfn": table.index.to_numpy(), "probability": probability})
    return found.assign(table=found["probability"] >= threshold)


def _shipped(table: pd.DataFrame) -> Floats:
    logit = sum(table[name].to_numpy() * weight for name, weight in _WEIGHTS.items()) + _INTERCEPT
    return 1 / (1 + np.exp(-np.clip(logit, -50, 50)))


def error_rates(traces: Mapping[str, Trace], threshold: float = THRESHOLD) -> pd.DataFrame:
    """Measure the guess: each trace by a model of the others.

    Parameters
    ----------
    traces : dict of str to Trace
        With marks, three or more.

    Returns
    -------
    DataFrame
        ``trace``, and what `judge` returns.
    """
    rows = []
    for name, trace in traces.items():
        model = fit([other for key, other in traces.items() if key != name])
        rows.append({"trace": name, **judge(trace, infer(trace, model, threshold))})
    return pd.DataFrame(rows).round(1)


def judge(trace: Trace, guess: pd.DataFrame) -> dict[str, float]:
    """Hold a guess against the marks.

    Parameters
    ----------
    trace : Trace
        With marks.
    guess : DataFrame
        From `infer`, of this trace.

    Returns
    -------
    dict of str to float
        ``frames`` of the log, ``tables`` among them, ``wrong`` (false positives: frames that were
        called a table) and ``missed`` (false negatives); ``found`` (of the tables) and ``right``
        (of what was called one), percent.
    """
    true, called = guess["gfn"].isin(_marked(trace)), guess["table"]
    hits, tables, calls = (int(n.sum()) for n in (true & called, true, called))
    return {
        "frames": len(guess),
        "tables": tables,
        "wrong": calls - hits,
        "missed": tables - hits,
        "found": 100 * hits / max(tables, 1),
        "right": 100 * hits / max(calls, 1),
    }


# The model fitted to the lab's guests (see ERRORS), in log-odds per unit of each feature.
_WEIGHTS = {
    "rate": 3.321,
    "place": 6.004,
    "earliest": -0.734,
    "rank": -2.14,
    "run": -2.705,
    "rate_before": 0.857,
    "rate_after": 0.583,
}
_INTERCEPT = 10.914
# Guest, percent of the page tables found, percent of the frames so called that are tables.
ERRORS = (
    ("start of rrww, 1 GiB", 72.7, 23.8),
    ("rrww, 64 MiB", 98.6, 40.4),
    ("redis", 83.2, 9.5),
    ("sqlite", 96.6, 7.8),
    # Not fitted to:
    ("gcc", 81.3, 8.6),
    ("python", 83.3, 8.2),
    ("sparse", 98.2, 17.4),
    ("largepages", 100.0, 12.2),
    ("forks", 35.6, 26.4),
    ("remap", 87.7, 29.1),
    ("moving", 98.1, 16.1),
)
