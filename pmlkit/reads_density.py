# SPDX-License-Identifier: Apache-2.0
"""Density-corrected reads: which part of what the logged tables map is in use.

Accessed flags of the guest are sticky, and large pages have one flag for 512 frames: of the pages
that they point to, a part was used in the round. The part is learnt, region by region, by a
regularised logistic regression on what is known of a region (`pmlkit.reads_regions.FEATURES`),
from rounds that had a harvest: of this guest (one round in fifty, say) or of others. Its
coefficients say what counted (`DensityModel.coefficients`).

Assumptions: regions that look alike are used alike, and the rounds to estimate are like those that
were harvested. The interval is what such an estimate missed by in rounds that it had not seen
(cross-validation over the harvested rounds, Student's t), no wider than the bounds that hold for
certain. From fewer than three harvests it cannot be known: the interval is those bounds, and `why`
says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import t as student
from sklearn.model_selection import GroupKFold

from pmlkit import reads
from pmlkit.errors import NeedsError
from pmlkit.pagetables import PAGES_OF_A_TABLE
from pmlkit.reads_regions import FEATURES, candidates, features
from pmlkit.reads_regressor import DensityRegressor
from pmlkit.selection import window_rounds, windows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pmlkit.occurrences import Occurrences
    from pmlkit.trace import Trace
    from pmlkit.types import Floats, Gfns, Ints, Json


__all__ = ["DensityModel", "DensityRegressor", "estimate", "fit", "fit_lessons", "lessons"]

CONFIDENCE = 0.9
FEWEST = 3  # harvests for an interval
_FOLDS = 10
_TOO_FEW = "the interval is the bounds: fewer than three harvests to learn an error from"


@dataclass(frozen=True)
class DensityModel:
    """A fitted model.

    Attributes
    ----------
    regressor : DensityRegressor
    error : float
        Standard deviation of the logarithm of truth over estimate, in rounds not seen; NaN if not
        known.
    bias : float
        Median of that logarithm; estimates are multiplied by its exponential.
    rounds : int
        Harvested rounds that it learnt from.
    """

    regressor: DensityRegressor
    error: float
    bias: float
    rounds: int

    @property
    def coefficients(self) -> pd.Series[float]:
        """What counted: Series of log-odds per standard deviation, by feature."""
        return pd.Series(self.regressor.coef_, index=FEATURES)

    def shares(self, found: Any, harvested: dict[int, Gfns] | None) -> Floats:
        """Return the expected share in use of each region's candidates."""
        return self.regressor.predict(features(found, harvested).to_numpy())

    def factor(self) -> float:
        """Return by what factor the truth may differ, either way; infinite if not known."""
        if not np.isfinite(self.error):
            return np.inf
        n = max(self.rounds, 2)
        quantile = student.ppf((1 + CONFIDENCE) / 2, n - 1)
        return float(np.exp(quantile * self.error * np.sqrt(1 + 1 / n)))


def fit(traces: list[Trace], rounds: Any = None, alpha: float = 1.0) -> DensityModel:
    """Learn densities from harvested rounds.

    Parameters
    ----------
    traces : list of Trace
        Access traces with their logs and snapshots nested in them.
    rounds : list of (iterable of int), optional
        The rounds of each trace to learn from; default: all that have a harvest.
    alpha : float

    Returns
    -------
    DensityModel
    """
    chosen = rounds or [None] * len(traces)
    parts = [lessons(trace, mine) for trace, mine in zip(traces, chosen, strict=True)]
    return fit_lessons(parts, alpha)


def fit_lessons(parts: Sequence[pd.DataFrame], alpha: float = 1.0) -> DensityModel:
    """Learn densities from `lessons` (list of DataFrame, one per trace); returns a DensityModel."""
    named = [
        part.assign(trace=place, group=[f"{place}:{r}" for r in part["round"]])
        for place, part in enumerate(parts)
    ]
    table = pd.concat([_after_first(part) for part in named], ignore_index=True)
    bias, error = _held_out(table, alpha)
    return DensityModel(_fitted(table, alpha), error, bias, table["group"].nunique())


def _after_first(part: pd.DataFrame) -> pd.DataFrame:
    """Leave out a guest's first harvest, before which nothing was known, if there are others."""
    known = part["known"] > 0
    return part[known] if known.any() else part


def lessons(trace: Trace, rounds: Ints | None = None, priors: bool = True) -> pd.DataFrame:
    """Make what a model learns from of the harvested rounds of a trace.

    Parameters
    ----------
    trace : Trace
    rounds : iterable of int, optional
        Those whose harvest may be looked at; default: all that have one.
    priors : bool
        Whether earlier harvests of the same guest are among the features: False for a model that
        is to be used on guests that have none.

    Returns
    -------
    DataFrame
        A row per (round, region): `FEATURES`, ``round``, ``pages`` (candidates), ``hits`` (those
        of them that were touched), and the round's ``certain`` and ``truth`` pages.
    """
    found, harvested = candidates(trace), harvests(trace, rounds)
    regions, frames = found.regions, found.frames
    table = features(found, harvested if priors else None)
    hits = pd.Series(_touched(frames, harvested)).groupby(frames["region"].to_numpy()).sum()
    table["round"] = regions["round"]
    table["pages"] = regions["pages"]
    table["hits"] = hits.reindex(regions.index, fill_value=0)
    table["certain"] = regions["round"].map(_per_round(found.sets.certain))
    table["truth"] = regions["round"].map({r: len(g) for r, g in harvested.items()})
    return table[regions["round"].isin(list(harvested)).to_numpy()]


def _touched(frames: pd.DataFrame, harvested: dict[int, Gfns]) -> Ints:
    touched = np.zeros(len(frames), bool)
    for number, gfns in harvested.items():
        mine = (frames["round"] == number).to_numpy()
        touched[mine] = np.isin(frames["gfn"].to_numpy()[mine], gfns)
    return touched


def harvests(trace: Trace, chosen: Any = None) -> dict[int, Gfns]:
    """Return the frames of each harvested round: dict of int to ndarray of uint64."""
    occ = reads.truth(trace)
    there = range(occ.n_rounds) if chosen is None else chosen
    order = np.argsort(occ.round, kind="stable")
    rounds, gfns = occ.round[order], occ.gfn[order]
    starts = np.searchsorted(rounds, np.arange(occ.n_rounds + 1))
    found = {int(r): gfns[starts[r] : starts[r + 1]] for r in there if r < occ.n_rounds}
    return {r: frames for r, frames in found.items() if len(frames)}


def _per_round(occ: Occurrences) -> dict[int, int]:
    return dict(enumerate(np.bincount(occ.round, minlength=occ.n_rounds)))


def _fitted(table: pd.DataFrame, alpha: float) -> DensityRegressor:
    known = table[table["pages"] > 0]
    share = known["hits"] / known["pages"]
    weight = known["pages"] / PAGES_OF_A_TABLE
    regressor = DensityRegressor(alpha)
    return regressor.fit(known[list(FEATURES)].to_numpy(), share, sample_weight=weight)


def _held_out(table: pd.DataFrame, alpha: float) -> tuple[float, float]:
    """Return median and deviation of log(truth / estimate) in rounds that were left out."""
    by = "trace" if table["trace"].nunique() >= FEWEST else "group"
    groups = table[by]
    if table["group"].nunique() < FEWEST:
        return 0.0, np.nan
    expected = pd.Series(0.0, table.index)
    folds = GroupKFold(min(_FOLDS, groups.nunique()))
    for seen, left in folds.split(table, groups=groups):
        regressor = _fitted(table.iloc[seen], alpha)
        part = table.iloc[left]
        shares = regressor.predict(part[list(FEATURES)].to_numpy())
        expected.iloc[left] = shares * part["pages"]
    rounds = table.assign(expected=expected).groupby("group")
    sums = rounds.agg({"expected": "sum", "certain": "first", "truth": "first"})
    logs = np.log(sums["truth"] / np.maximum(sums["expected"] + sums["certain"], 1))
    # The median: a fold may be unlike all others, such as the round before the first harvest.
    bias = float(logs.median())
    return bias, float(max(np.sqrt(((logs - bias) ** 2).sum() / (len(logs) - 1)), 1e-3))


def estimate(
    trace: Trace,
    model: DensityModel | None = None,
    window: str | int = "1r",
    step: str | int | None = None,
    start: str | int | None = None,
    end: str | int | None = None,
    rounds: Ints | range | None = None,
) -> pd.DataFrame:
    """Estimate the working set by densities; see `pmlkit.reads.estimate`.

    In a window of several rounds a frame counts with the largest of its shares: what is used
    stays in use.

    Parameters
    ----------
    trace : Trace
    model : DensityModel, optional
        Default: learnt from `rounds` of this trace.
    window, step, start, end
        As in `pmlkit.reads.estimate`.
    rounds : iterable of int, optional
        The rounds of the trace whose harvest may be looked at; default: all that have one.

    Returns
    -------
    DataFrame
        As `pmlkit.reads.estimate` returns it.
    """
    harvested = harvests(trace, rounds) if trace.meta.kind == "access" else {}
    if model is None:
        if not harvested:
            raise NeedsError(trace, "harvested rounds", "give a model: reads_density.fit(traces)")
        model = fit([trace], None if rounds is None else [rounds])
    found = candidates(trace, start, end)
    shifted = {r - found.sets.first: g for r, g in harvested.items()}
    shares = model.shares(found, shifted)
    k = window_rounds(trace, window)
    s = k if step is None else 1 if step == "sliding" else window_rounds(trace, step)
    columns = _windows(found, shares, model, k, s)
    return reads.frame(trace, columns, k, s, start, end)


def _windows(found: Any, shares: Floats, model: DensityModel, k: int, step: int) -> Json:
    sizes = {
        name: reads.sampled(getattr(found.sets, name), k, step)
        for name in ("written", "certain", "present", "reachable", "leaves")
    }
    expected = _expected(found, shares, k, step)
    pages = (sizes["certain"] + expected) * np.exp(model.bias)
    pages = np.clip(np.rint(pages), sizes["certain"], sizes["reachable"])
    low, high = (np.rint(pages * f) for f in (1 / model.factor(), model.factor()))
    known = np.isfinite(model.factor())
    return {
        "pages": pages.astype(np.int64),
        "low": np.maximum(low if known else 0, sizes["certain"]).astype(np.int64),
        "high": np.minimum(high, sizes["reachable"]).astype(np.int64),
        "written": sizes["written"],
        "tables": sizes["leaves"],
        "unresolved": sizes["reachable"] - sizes["present"],
        "why": "" if known else _TOO_FEW,
    }


def _expected(found: Any, shares: Floats, k: int, step: int) -> Floats:
    """Return the pages that each window is expected to have beside those that are certain."""
    frames, certain = found.frames, found.sets.certain
    rounds, gfns = frames["round"].to_numpy(), frames["gfn"].to_numpy()
    share = shares[frames["region"].to_numpy()]
    sums = []
    for first, stop in zip(*windows(found.sets.n_rounds, k, step), strict=True):
        inside = (rounds >= first) & (rounds < stop)
        sure = certain.gfn[(certain.round >= first) & (certain.round < stop)]
        inside[inside] = ~np.isin(gfns[inside], sure)
        sums.append(pd.Series(share[inside]).groupby(gfns[inside]).max().sum())
    return np.array(sums, float)
