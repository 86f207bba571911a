# SPDX-License-Identifier: Apache-2.0
"""The difference of working sets, before and after, with an interval.

>>> import pmlkit                                                            # doctest: +SKIP
>>> print(pmlkit.diff("before.trace", "after.trace", window="1s"))           # doctest: +SKIP
after uses 12.3 MiB less than before (95 % interval 9.8 to 15.1 MiB less), on average in T = 1 s.

Windows that follow one another are alike, so the interval draws blocks of windows, as described in
`pmlkit.resampling`. If both recordings go through the same phases, these are taken to be a part of
the workload: each phase keeps its mean, and only what W deviates from it is drawn. The interval
covers the variation within the two recordings. It does not cover what would differ if either was
made again. Repeats do, two or more of each:

>>> print(pmlkit.diff(["a1.trace", "a2.trace"], ["b1.trace", "b2.trace"]))   # doctest: +SKIP

Each recording then gives one value of a statistic, and the interval is Welch's (1947): Student's t
for two samples whose variances differ.

The peak of a single pair has no interval, as the bootstrap is not valid for a maximum. The peaks of
repeats have one.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import workingset
from pmlkit.errors import UsageError, argument, visible
from pmlkit.resampling import Series, ends
from pmlkit.selection import stream, usage_verb
from pmlkit.several import are_several, common_window, labelled, losses, unlike
from pmlkit.units import format_bytes, format_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, TypeAlias, Unpack

    from pmlkit.selection import Selection
    from pmlkit.several import Traces, Unlike
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Floats, Json
    from pmlkit.units import Window

    Statistic: TypeAlias = Callable[[Floats], Any]

__all__ = ["Difference", "between", "interval_text", "signed_bytes"]

DRAWS = 4000
BEFORE, AFTER = "before", "after"  # the labels of repeats, if there are no others
COLUMNS = ["statistic", "phase", "before", "after", "difference", "low", "high", "why"]
LEAST_INDEPENDENT = 10  # values in each recording, or there is no interval
LENGTHS_ALIKE = 1.1  # times; beyond, the lengths are named


@dataclass(frozen=True)
class Difference:
    """Working sets of two recordings, or repeats of each, and what the second one has more.

    Attributes
    ----------
    before, after : str
        The labels.
    verb : str
        What the VM does to the pages that count: "uses", "writes".
    window : str
        T in words.
    table : DataFrame
        A row per ``statistic`` (mean, p95, peak; the ``phase`` is "" for the whole, and each phase
        has its mean): ``before``, ``after`` and ``difference`` in bytes; ``low`` and ``high``, the
        95 % interval of the difference, NaN without one; ``why``, the reason why there is none.
    windows : dict of str to DataFrame
        The windows of each recording by its name, as `workingset.estimate` returns them; of a
        single pair, by the labels.
    unlike : tuple of Unlike
        What the recordings differ in, and does not keep them from being compared.
    notes : tuple of str
        What recordings lost, and whether windows end with rounds of uneven length.
    phases : bool
        Whether both go through the same phases, which then keep their means.
    repeats : DataFrame or None
        Of repeats, a row per recording: ``label``, ``recording``, ``mean``, ``p95`` and ``peak`` in
        bytes.
    """

    before: str
    after: str
    verb: str
    window: str
    table: pd.DataFrame
    windows: Mapping[str, pd.DataFrame] = field(repr=False)
    unlike: tuple[Unlike, ...]
    notes: tuple[str, ...]
    phases: bool
    repeats: pd.DataFrame | None = None

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
                "95 % interval": [interval_text(row) for row in self.table.to_dict("records")],
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
            f"{self.after} {self.verb} {_size(row['difference'])} {than} {self.before} "
            f"({_interval(row)}), on average in T = {self.window}{self._of_repeats}."
        )

    @property
    def _of_repeats(self) -> str:
        if self.repeats is None:
            return ""
        counts = self.repeats["label"].value_counts()
        return f", over {counts[self.before]} and {counts[self.after]} recordings"

    @property
    def lines(self) -> list[str]:
        """The answer, and what it holds for: a line each."""
        notes = (f"Note: {one}." for one in (*self.unlike, *self.notes))
        return [*notes, self.answer, *self._reach(), *self._without_interval()]

    def _reach(self) -> Iterator[str]:
        lengths = {name: _length_ns(windows) for name, windows in self.windows.items()}
        if max(lengths.values()) > LENGTHS_ALIKE * min(lengths.values()):
            each = ", ".join(f"{name}: {format_ns(ns)}" for name, ns in lengths.items())
            yield (
                f"The recordings differ in length (whole windows only, {each}): each mean is over "
                "its own recording."
            )
        if not np.isfinite(self.table["low"].iloc[0]):
            return
        if self.repeats is not None:
            yield (
                "The interval is Student's t, by Welch, over the means of the recordings. It "
                "covers the variation between repeats."
            )
            return
        kept = "each phase keeps its mean; " if self.phases else ""
        yield (
            f"The interval is a moving-block bootstrap of the windows ({kept}{DRAWS:,} draws). "
            "It covers the variation within the two recordings, not between repeats of them."
        )

    def _without_interval(self) -> Iterator[str]:
        """Why statistics have no interval: each reason once."""
        without = self.table[self.table["low"].isna()]
        for why, rows in without.groupby("why", sort=False):
            pairs = zip(rows["statistic"], rows["phase"], strict=True)
            names = [f"the {name}{f' of {phase}' if phase else ''}" for name, phase in pairs]
            yield f"No interval for {', '.join(names)}: {why}."

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
            "notes": list(self.notes),
            "phases_keep_their_means": self.phases,
            "repeats": None if self.repeats is None else self.repeats.to_dict("records"),
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


def interval_text(row: Mapping[Any, Any]) -> str:
    """Write the ends of the interval in a row of `Difference.table`; "-" if there is none."""
    if not np.isfinite(row["low"]):
        return "-"
    return f"{signed_bytes(row['low'])} to {signed_bytes(row['high'])}"


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
    before: Traces | Mapping[str, Traces],
    after: Traces | None = None,
    window: str | int | Window | None = None,
    step: str | int | None = None,
    min_count: int = 1,
    **selection: Unpack[Selection],
) -> Difference:
    """Compare the working sets of two recordings, or of repeats of each.

    Parameters
    ----------
    before, after : Trace or path-like, or sequence of these
        A recording, or repeats of it. Or one mapping of two labels to these, the earlier first.
    window, step, min_count, **selection
        As of `workingset.estimate`, whose full windows are compared; one T for all.

    Returns
    -------
    Difference
        ``after`` less ``before``.

    Raises
    ------
    UsageError
        If there are not two recordings or groups, a recording is its own repeat, they have
        contents, clocks, pages or addresses that cannot be compared, or no full window.

    Examples
    --------
    >>> import pmlkit
    >>> difference = pmlkit.diff("pressure", "pressure-roomy", window="100ms")
    >>> difference.table["statistic"].head(3).tolist()
    ['mean', 'p95', 'peak']
    """
    groups = _groups(before, after)
    traces = {name: trace for group in groups.values() for name, trace in group.items()}
    differences = _comparable(traces, min_count, selection)
    window = common_window(traces, window, **selection)
    windows = {
        name: workingset.estimate(trace, window, step, min_count, **selection)
        for name, trace in traces.items()
    }
    full = {name: table[table["full"]] for name, table in windows.items()}
    for name, table in full.items():
        if table.empty:
            raise UsageError(
                f"{name} has no full window of T = {window}: give a shorter {argument('window')}"
            )
    first, second = groups
    what, repeats = usage_verb(next(iter(groups[second].values())), **selection), None
    if len(traces) > 2:
        sides = [[full[name] for name in group] for group in groups.values()]
        table, same = _over_repeats(sides[0], sides[1]), False
        repeats = _each(groups, full)
    else:
        pair = list(full.values())
        same = _phases(pair[0]) == _phases(pair[1]) != [""]
        overlap = max(_overlap(each, step) for each in windows.values())
        table = _compared(pair[0], pair[1], overlap, same)
    return Difference(
        first,
        second,
        what,
        str(window),
        table,
        windows,
        differences,
        (*losses(traces), *_uneven(traces, step, selection)),
        same,
        repeats,
    )


def _groups(before: Any, after: Any) -> dict[str, dict[str, Trace]]:
    """Return the recordings of each side by their names, and the sides by their labels."""
    if isinstance(before, Mapping) and after is None:
        labels, given = list(before), list(before.values())
    else:
        labels = []
        given = before if after is None else [before, after]
        given = list(given) if isinstance(given, list | tuple) else [given]
    if len(given) != 2:
        raise UsageError(f"a comparison is of 2 recordings, and there are {len(given)}: give two")
    sides = [_listed(side) for side in given]
    if not all(sides):
        raise UsageError("there is no recording on one side: give one or more")
    if sum(map(len, sides)) == 2:
        pair = labelled([side[0] for side in sides], labels)
        return {label: {label: trace} for label, trace in pair.items()}
    names = labelled([trace for side in sides for trace in side])
    _check_repeats(names)
    each = iter(names.items())
    labels = labels or [BEFORE, AFTER]
    return {
        label: dict(itertools.islice(each, len(side)))
        for label, side in zip(labels, sides, strict=True)
    }


def _listed(side: Any) -> list[Any]:
    """Return the recordings of a side, which may be one."""
    if isinstance(side, Mapping):
        return list(side.values())
    return list(side) if are_several(side) else [side]


def _check_repeats(traces: Mapping[str, Trace]) -> None:
    """Refuse a recording that is given twice: it is no repeat of itself."""
    known: dict[str, str] = {}
    for name, trace in traces.items():
        if (other := known.setdefault(trace.digest, name)) != name:
            raise UsageError(f"{name} is the same recording as {other}: give each one once")


def _comparable(
    traces: Mapping[str, Trace], min_count: int, selection: Selection
) -> tuple[Unlike, ...]:
    """Return in what the recordings differ; refuse what changes the meaning of a page counted."""
    differences = unlike(traces, selection.get("kinds", "rwx"))
    for one in differences:
        if one.what == "contents":
            raise UsageError(f"{one}: compare what both have, with {argument('kinds', 'written')}")
        if one.what != "rounds":
            raise UsageError(f"{one}, so a difference of W means nothing: record both alike")
        if min_count > 1:
            raise UsageError(
                f"{one}, and uses are counted per round: leave out {argument('min_count')}"
            )
    return tuple(differences)


def _uneven(
    traces: Mapping[str, Trace], step: str | int | None, selection: Selection
) -> Iterator[str]:
    """Yield a note for each recording whose windows end with rounds of uneven length."""
    for name, trace in traces.items():
        if step == "sliding" and not stream(trace, **selection).timeline.even:
            yield (
                f"{name}: windows end with rounds of uneven length, and each counts once. Windows "
                "one after another weigh time evenly"
            )


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
        ("peak", "", *_apart(pair, _peak), np.nan, np.nan, _OF_A_MAXIMUM),
    ]
    both = set(before["phase"]) & set(after["phase"]) - {""}
    for name in [name for name in dict.fromkeys(before["phase"]) if name in both]:
        parts = [table[table["phase"] == name] for table in (before, after)]
        sizes = [_Sizes.of(part, overlap, False) for part in parts]
        rows.append(("mean", name, *_bounded(sizes, _mean)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _each(groups: Mapping[str, Iterable[str]], full: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the statistics of each recording, a row each."""
    rows = [
        (
            label,
            name,
            *(float(statistic(_of_phase(full[name], ""))) for statistic in _STATISTICS.values()),
        )
        for label, names in groups.items()
        for name in names
    ]
    return pd.DataFrame(rows, columns=["label", "recording", *_STATISTICS])


def _over_repeats(before: Sequence[pd.DataFrame], after: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the table of a `Difference` of repeats."""
    named = [set(table["phase"]) for table in (*before, *after)]
    shared = set.intersection(*named) - {""}
    phases = ["", *(name for name in dict.fromkeys(before[0]["phase"]) if name in shared)]
    rows = []
    for phase in phases:
        for name, statistic in _STATISTICS.items():
            if phase and name != "mean":
                continue
            values = [
                np.array([statistic(_of_phase(table, phase)) for table in side])
                for side in (before, after)
            ]
            rows.append((name, phase, *_welch(*values)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _of_phase(windows: pd.DataFrame, phase: str) -> Floats:
    kept = windows if not phase else windows[windows["phase"] == phase]
    return kept["bytes"].to_numpy(float)


def _welch(before: Floats, after: Floats) -> tuple[float, float, float, float, float, str]:
    """Return means before, after, their difference, Welch's interval, and why there is none."""
    from scipy.special import stdtrit

    means = float(before.mean()), float(after.mean())
    difference = means[1] - means[0]
    sizes = np.array([len(before), len(after)])
    if sizes.min() < 2:
        why = "it needs two or more recordings on each side"
        return *means, difference, np.nan, np.nan, why
    squares = np.array([before.var(ddof=1), after.var(ddof=1)]) / sizes
    if not squares.any():
        why = "the repeats are identical, so record them with other seeds, or on the host's clock"
        return *means, difference, np.nan, np.nan, why
    freedom = squares.sum() ** 2 / (squares**2 / (sizes - 1)).sum()
    reach = float(stdtrit(freedom, 0.975) * np.sqrt(squares.sum()))
    return *means, difference, difference - reach, difference + reach, ""


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


_STATISTICS = {"mean": _mean, "p95": _p95, "peak": _peak}


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
        f"fewer than {LEAST_INDEPENDENT} independent windows, so record for longer, repeat the "
        "recordings, or take a shorter T"
    )


_OF_A_MAXIMUM = "the bootstrap is not valid for a maximum, so repeat the recordings"
