# SPDX-License-Identifier: Apache-2.0
"""The working set with its reads, and the method that is closest to the truth."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.recordings import name_of
from pmlkit.trace.summary import source_text
from pmlkit.units import exact_ns, format_bytes, format_ns, format_share

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json

__all__ = ["Reads", "closest_method", "reads"]


@dataclass(frozen=True)
class Reads:
    """An estimate of the working set with its reads, over the full windows.

    Attributes
    ----------
    name, source, method : str
    windows, partial : int
        Full windows, and those that are left out.
    unknown : int
        Full windows that have something that cannot be known.
    reasons : dict of str to int
        What cannot be known, and in how many of all windows.
    window : str
        T in words.
    mean, low, high, peak : float
        Bytes: means of the estimate and of the ends of its interval; the largest estimate.
    written : float
        Mean bytes that PML alone sees; NaN if the trace has no log.
    """

    name: str
    source: str
    method: str
    windows: int
    partial: int
    unknown: int
    reasons: dict[str, int]
    window: str
    mean: float
    low: float
    high: float
    peak: float
    written: float

    @property
    def answer(self) -> str:
        """The answer in a sentence."""
        if not self.windows:
            return f"{self.name} has no full window in this part."
        alone = ""
        if not np.isnan(self.written):
            alone = f"; PML alone sees {format_bytes(self.written)}"
        about = "" if self.method == "harvest" else "about "
        return (
            f"{self.name} uses {about}{format_bytes(self.mean)} on average in {self.window}, reads "
            f"included (method {self.method}){alone}."
        )

    @property
    def lines(self) -> list[str]:
        """The answer, how sure it is, and the source: a line each."""
        return [self.answer, *self._sure, f"Source: {self.source}."]

    @property
    def _sure(self) -> Iterator[str]:
        if self.windows:
            short = f", without {self.partial:,} cut short" if self.partial else ""
            yield (
                f"Mean interval {format_bytes(self.low)} to {format_bytes(self.high)}; largest "
                f"estimate {format_bytes(self.peak)} ({self.windows:,} windows{short})."
            )
        for why, count in self.reasons.items():
            yield f"Unknown in {count:,} of {self.windows + self.partial:,} windows: {why}"

    def as_dict(self) -> Json:
        """Return the answer for JSON: sizes in bytes, None for what is not known."""
        sizes = {n: getattr(self, n) for n in ("mean", "low", "high", "peak", "written")}
        return {
            "answer": self.answer,
            "trace": self.name,
            "source": self.source,
            "method": self.method,
            "windows": self.windows,
            "partial_windows": self.partial,
            "windows_with_unknowns": self.unknown,
            "unknown": list(self.reasons),
            **{f"{n}_bytes": None if np.isnan(size) else size for n, size in sizes.items()},
        }


def reads(trace: Trace, table: pd.DataFrame, method: str) -> Reads:
    """Answer how large the working set is with its reads.

    Parameters
    ----------
    trace : Trace
    table : DataFrame
        Of `pmlkit.reads.estimate`.
    method : str
        The method of the table.
    """
    full = table[table["full"]]
    page = trace.meta.domain["page_size"]
    sizes = {n: full[n].to_numpy(float) * page for n in ("pages", "low", "high", "written")}
    sizes["written"][sizes["written"] < 0] = np.nan
    mean = {n: float(size.mean()) if len(size) else np.nan for n, size in sizes.items()}
    return Reads(
        name=name_of(trace.path),
        source=source_text(trace),
        method=method,
        windows=len(full),
        partial=len(table) - len(full),
        unknown=int((full["why"] != "").sum()),
        reasons=dict(Counter(filter(None, table["why"]))),
        window=_asked_text(full),
        mean=mean["pages"],
        low=mean["low"],
        high=mean["high"],
        peak=float(sizes["pages"].max()) if len(full) else np.nan,
        written=mean["written"],
    )


def _asked_text(full: pd.DataFrame) -> str:
    """Return T, and what windows last in the median where that is another time."""
    asked = int(full["asked_ns"].iloc[0]) if len(full) and "asked_ns" in full else -1
    lasts = format_ns(full["effective_ns"].median()) if len(full) else "unknown length"
    return f"T = {exact_ns(asked)}" if asked > 0 else f"windows of {lasts} (median)"


def closest_method(compared: pd.DataFrame) -> Json:
    """Answer which method of estimating reads is closest to the truth.

    Parameters
    ----------
    compared : DataFrame
        Of `pmlkit.reads.judge.by_phase`.

    Returns
    -------
    dict
        ``answer``, ``method``, ``mape_percent`` (mean absolute error), ``inside_percent`` (rounds
        whose truth is in the interval), ``next`` and ``next_mape_percent``, ``rounds``.
    """
    weights = compared["rounds"]
    columns = compared[["mape", "inside", "truth"]].mul(weights, axis=0).assign(rounds=weights)
    sums = columns.groupby(compared["method"]).sum()
    means = sums.div(sums["rounds"], axis=0).assign(rounds=sums["rounds"]).sort_values("mape")
    best = means.iloc[0]
    facts = {
        "method": str(means.index[0]),
        "mape_percent": float(best["mape"]),
        "inside_percent": float(best["inside"]),
        "rounds": int(best["rounds"]),
        "next": str(means.index[1]) if len(means) > 1 else None,
        "next_mape_percent": float(means["mape"].iloc[1]) if len(means) > 1 else None,
    }
    other = (
        f" (next: {facts['next']}, {format_share(means['mape'].iloc[1] / 100)})"
        if facts["next"]
        else ""
    )
    text = (
        f"Method {facts['method']} is closest to the harvest, which is the truth: its mean error "
        f"is {format_share(best['mape'] / 100)}{other}. The truth is within its interval in "
        f"{format_share(best['inside'] / 100)} of {facts['rounds']:,} rounds of this recording."
    )
    return {"answer": text, **facts}
