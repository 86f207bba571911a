# SPDX-License-Identifier: Apache-2.0
"""The difference of two recordings' working sets, before and after, with an interval.

>>> import pmlkit                                                            # doctest: +SKIP
>>> print(pmlkit.diff("before.trace", "after.trace", window="1s"))           # doctest: +SKIP
after uses 12.3 MiB less than before (95 % interval 9.8 to 15.1 MiB less), on average in T = 1 s.

Windows that follow one another are alike, so the interval draws blocks of windows, as described in
`pmlkit.resampling`. If both recordings go through the same phases, these are taken to be a part of
the workload: each phase keeps its mean, and only what W deviates from it is drawn. The interval
covers the variation within the two recordings. It does not cover what would differ if either was
made again: repeat a recording to see that.

The peak has a difference but no interval: the bootstrap is not valid for a maximum.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import workingset
from pmlkit.errors import UsageError, argument, visible
from pmlkit.resampling import Series, ends
from pmlkit.selection import deed
from pmlkit.several import common_window, labelled, unlike
from pmlkit.units import format_bytes, format_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, TypeAlias, Unpack

    from pmlkit.selection import Selection
    from pmlkit.several import Traces, Unlike
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Floats, Json, PathLike
    from pmlkit.units import Window

    Statistic: TypeAlias = Callable[[Floats], Any]

__all__ = ["Difference", "between", "signed_bytes"]

DRAWS = 4000
LEAST_INDEPENDENT = 10  # values in each recording, or there is no interval
LENGTHS_ALIKE = 1.1  # times; beyond, the lengths are named


@dataclass(frozen=True)
class Difference:
    """Working sets of two recordings, and what the second one has more.

    Attributes
    ----------
    before, after : str
        The labels.
    deed : str
        What the VM does to the pages that count: "uses", "writes".
    window : str
        T in words.
    table : DataFrame
        A row per ``statistic`` (mean, p95, peak; the ``phase`` is "" for the whole, and each phase
        has its mean): ``before``, ``after`` and ``difference`` in bytes; ``low`` and ``high``, the
        95 % interval of the difference, NaN without one; ``why``, the reason why there is none.
    windows : dict of str to DataFrame
        The windows of each, as `workingset.estimate` returns them.
    unlike : tuple of Unlike
        What the recordings differ in, and does not keep them from being compared.
    phases : bool
        Whether both go through the same phases, which then keep their means.
    """

    before: str
    after: str
    deed: str
    window: str
    table: pd.DataFrame
    windows: Mapping[str, pd.DataFrame] = field(repr=False)
    unlike: tuple[Unlike, ...]
    phases: bool

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        """Return the answer and the table as HTML, which notebooks show."""
        table = pd.DataFrame(
            {
                "W": self.table["statistic"],
                "phase": self.table["phase"].replace("", "all"),
                self.before: self.table["before"].map(format_bytes),
                self.after: self.table["after"].map(format_bytes),
                "difference": self.table["difference"].map(signed_bytes),
                "95 % interval": [_ends(row) for _, row in self.table.iterrows()],
            }
        )
        lines = "".join(f"<p>{html.escape(visible(line))}</p>" for line in self.lines)
        return lines + table.to_html(index=False, border=0)

    @property
    def answer(self) -> str:
        """The difference of the means in a sentence, with its interval."""
        row = self.table.iloc[0]
        than = "than" if row["difference"] else "as"
        return (
            f"{self.after} {self.deed} {_size(row['difference'])} {than} {self.before} "
            f"({_interval(row)}), on average in T = {self.window}."
        )

    @property
    def lines(self) -> list[str]:
        """The answer, and what it holds for: a line each."""
        return [*(f"Note: {one}." for one in self.unlike), self.answer, *self._reach()]

    def _reach(self) -> Iterator[str]:
        lengths = {name: _length_ns(windows) for name, windows in self.windows.items()}
        if max(lengths.values()) > LENGTHS_ALIKE * min(lengths.values()):
            each = ", ".join(f"{name}: {format_ns(ns)}" for name, ns in lengths.items())
            yield f"The recordings differ in length ({each}): each mean is over its own recording."
        row = self.table.iloc[0]
        if np.isfinite(row["low"]):
            kept = "each phase keeps its mean; " if self.phases else ""
            yield (
                f"The interval is a moving-block bootstrap of the windows ({kept}{DRAWS:,} draws). "
                "It covers the variation within the two recordings, not between repeats of them."
            )
        else:
            yield f"There is no interval: {row['why']}."

    def as_dict(self) -> Json:
        """Return the comparison for JSON: sizes in bytes, None for what is not known."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        return {
            "answer": self.answer,
            "before": self.before,
            "after": self.after,
            "window": self.window,
            "rows": rows,
            "unlike": {one.what: one.values for one in self.unlike},
            "phases_keep_their_means": self.phases,
        }


def _length_ns(windows: pd.DataFrame) -> int:
    t_ns, effective_ns = windows["t_ns"], windows["effective_ns"]
    return int(t_ns.iloc[-1] - t_ns.iloc[0] + effective_ns.iloc[0])


def _size(more: float) -> str:
    if more == 0:
        return "as much"
    return f"{format_bytes(abs(more))} {'more' if more > 0 else 'less'}"


def signed_bytes(size: float) -> str:
    """Write a difference of sizes, with its sign."""
    return f"{'+' if size > 0 else ''}{format_bytes(size)}"


def _ends(row: pd.Series[float]) -> str:
    """Write an interval's ends, or the reason why there is none."""
    if not np.isfinite(float(row["low"])):
        return str(row["why"])
    return f"{signed_bytes(float(row['low']))} to {signed_bytes(float(row['high']))}"


def _interval(row: pd.Series[float]) -> str:
    """Write the interval of a difference in the direction of the difference."""
    low, high = float(row["low"]), float(row["high"])
    if not np.isfinite(low):
        return "no interval"
    near, far = (low, high) if row["difference"] >= 0 else (high, low)
    if np.sign(near) == np.sign(far):
        sign = "more" if far > 0 else "less"
        size = f"{format_bytes(abs(near))} to {format_bytes(abs(far))} {sign}"
    else:
        size = f"{_size(near)} to {_size(far)}"
    return f"95 % interval {size}"


def between(
    before: Traces,
    after: Trace | PathLike | None = None,
    window: str | int | Window | None = None,
    step: str | int | None = None,
    min_count: int = 1,
    **selection: Unpack[Selection],
) -> Difference:
    """Compare the working sets of two recordings.

    Parameters
    ----------
    before, after : Trace or path-like
        Or one mapping of two labels to recordings, the earlier first.
    window, step, min_count, **selection
        As of `workingset.estimate`, whose full windows are compared; one T for both.

    Returns
    -------
    Difference
        ``after`` less ``before``.

    Raises
    ------
    UsageError
        If there are not two recordings, they have contents, clocks, pages or addresses that cannot
        be compared, or no full window.

    Examples
    --------
    >>> import pmlkit
    >>> difference = pmlkit.diff("pressure", "pressure-roomy", window="100ms")
    >>> difference.table["statistic"].head(3).tolist()
    ['mean', 'p95', 'peak']
    """
    given: Any = before if after is None else [before, after]
    traces = labelled(given)
    if len(traces) != 2:
        raise UsageError(f"a comparison is of 2 recordings, and there are {len(traces)}: give two")
    differences = _comparable(traces, min_count, selection)
    window = common_window(traces, window, **selection)
    windows = {
        label: workingset.estimate(trace, window, step, min_count, **selection)
        for label, trace in traces.items()
    }
    full = [table[table["full"]] for table in windows.values()]
    for label, table in zip(traces, full, strict=True):
        if table.empty:
            raise UsageError(
                f"{label} has no full window of T = {window}: give a shorter {argument('window')}"
            )
    first, second = traces
    same = _phases(full[0]) == _phases(full[1]) != [""]
    table = _compared(full[0], full[1], _overlap(windows[first], step), same)
    what = deed(traces[second], **selection)
    return Difference(first, second, what, str(window), table, windows, differences, same)


def _comparable(
    traces: Mapping[str, Trace], min_count: int, selection: Selection
) -> tuple[Unlike, ...]:
    """Return in what the recordings differ; refuse what changes the meaning of a page counted."""
    found = unlike(traces, selection.get("kinds", "rwx"))
    for one in found:
        if one.what == "contents":
            raise UsageError(f"{one}: compare what both have, with {argument('kinds', 'written')}")
        if one.what != "rounds":
            raise UsageError(f"{one}, so a difference of W means nothing: record both alike")
        if min_count > 1:
            raise UsageError(
                f"{one}, and uses are counted per round: leave out {argument('min_count')}"
            )
    return tuple(found)


def _phases(windows: pd.DataFrame) -> list[str]:
    """Return the names of the phases in order, each once for each stretch."""
    names = windows["phase"]
    return names[names != names.shift()].tolist()


def _overlap(windows: pd.DataFrame, step: str | int | None) -> int:
    """Return how many windows in a row overlap: 1 if they follow one another."""
    full = windows[windows["full"]]
    if step is None or len(full) < 2:
        return 1
    between_ns = float(full["t_ns"].diff().median())
    return max(int(np.ceil(float(full["effective_ns"].median()) / max(between_ns, 1))), 1)


def _compared(before: pd.DataFrame, after: pd.DataFrame, overlap: int, same: bool) -> pd.DataFrame:
    """Return the table of a `Difference`; `same`: phases keep their means."""
    pair = [_Sizes.of(table, overlap, same) for table in (before, after)]
    rows = [
        ("mean", "", *_bounded(pair, _mean)),
        ("p95", "", *_bounded(pair, _p95)),
        ("peak", "", *_apart(pair, _peak), np.nan, np.nan, "none for a maximum"),
    ]
    both = set(before["phase"]) & set(after["phase"]) - {""}
    for name in [name for name in dict.fromkeys(before["phase"]) if name in both]:
        parts = [table[table["phase"] == name] for table in (before, after)]
        sizes = [_Sizes.of(part, overlap, False) for part in parts]
        rows.append(("mean", name, *_bounded(sizes, _mean)))
    columns = ["statistic", "phase", "before", "after", "difference", "low", "high", "why"]
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class _Sizes:
    """The sizes of a recording's windows, bytes: means that are kept, and deviations from them."""

    kept: Floats
    deviations: Series

    @classmethod
    def of(cls, windows: pd.DataFrame, overlap: int, by_phase: bool) -> _Sizes:
        sizes = windows["bytes"].astype(float)
        stretch = (windows["phase"] != windows["phase"].shift()).cumsum()
        groups = stretch if by_phase else stretch * 0
        kept = sizes.groupby(groups).transform("mean").to_numpy()
        deviations = Series(sizes.to_numpy() - kept, groups.nunique(), overlap)
        return cls(kept, deviations)

    @property
    def values(self) -> Floats:
        return self.kept + self.deviations.values

    def resampled(self, seed: int) -> Floats:
        """Return resamples of the sizes: (draws, windows)."""
        return self.kept + self.deviations.values[self.deviations.resamples(DRAWS, seed)]


def _mean(sizes: Floats) -> Floats:
    return sizes.mean(axis=-1)


def _p95(sizes: Floats) -> Floats:
    return np.percentile(sizes, 95, axis=-1)


def _peak(sizes: Floats) -> Floats:
    return sizes.max(axis=-1)


def _apart(pair: list[_Sizes], statistic: Statistic) -> tuple[float, float, float]:
    """Return a statistic before, after, and its difference."""
    before, after = (float(statistic(sizes.values)) for sizes in pair)
    return before, after, after - before


def _bounded(
    pair: list[_Sizes], statistic: Statistic
) -> tuple[float, float, float, float, float, str]:
    """Return a statistic before, after, its difference, the interval, and why there is none."""
    before, after, difference = _apart(pair, statistic)
    if why := _too_few(pair):
        return before, after, difference, np.nan, np.nan, why
    seeds = (1, 2)  # the two recordings are drawn independently of one another
    drawn = [statistic(s.resampled(seed)) for s, seed in zip(pair, seeds, strict=True)]
    widening = max(sizes.deviations.widening for sizes in pair)
    low, high = ends(drawn[1] - drawn[0] - difference)
    return before, after, difference, difference + widening * low, difference + widening * high, ""


def _too_few(pair: list[_Sizes]) -> str:
    """Return why there is no interval, or nothing."""
    least = min(sizes.deviations.independent for sizes in pair)
    if least >= LEAST_INDEPENDENT:
        return ""
    return (
        f"too few independent windows (about {least:.0f}, and {LEAST_INDEPENDENT} are needed): "
        "record for longer, or take a shorter T"
    )
