# SPDX-License-Identifier: Apache-2.0
"""Answers: what a measure of a trace says, in a few numbers and a sentence.

The commands print an answer first, then their table. An answer says which T, which unit and what
kind of source its numbers are of: a log of writes is not the working set of all accesses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.selection import deed, times_ns
from pmlkit.trace.summary import source_text
from pmlkit.units import format_bytes, format_ns, parse_window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Unpack

    import pandas as pd

    from pmlkit.missratio.curve import MissRatioCurve
    from pmlkit.selection import Selection
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json
    from pmlkit.units import Window

__all__ = [
    "MissRatio",
    "Reads",
    "WorkingSet",
    "closest_method",
    "miss_ratio",
    "reads",
    "working_set",
]


@dataclass(frozen=True)
class WorkingSet:
    """W at one T in a few numbers, over the full windows only.

    Attributes
    ----------
    name, source : str
        The recording's, and what it is (`pmlkit.trace.summary.source_text`).
    deed : str
        What the VM does to the pages that count: "uses", "writes".
    window, part : str
        T in words; and what part of the pages counts, empty for all.
    window_ns : int
        T; -1 if it was given in rounds without a common length.
    windows, partial : int
        Full windows, and those that the start or the end cuts short, which are left out.
    overlapping : bool
        Whether a window ends with every round; else they follow one another.
    mean, p50, p95, p99, peak : float
        Bytes; percentiles as `numpy.percentile`, NaN without a full window.
    peak_ns : int
        The end of the first window of that size; -1 without a full window.
    peak_phase : str
    allocated_bytes : int or None
        The most that the guest's kernel counted as allocated in this time; None if not known.
    memory_bytes : int or None
        The VM's RAM; None if it is not known.
    table : DataFrame
        The windows, as `workingset.estimate` returns them.
    """

    name: str
    source: str
    deed: str
    window: str
    part: str
    window_ns: int
    windows: int
    partial: int
    overlapping: bool
    mean: float
    p50: float
    p95: float
    p99: float
    peak: float
    peak_ns: int
    peak_phase: str
    allocated_bytes: int | None
    memory_bytes: int | None
    table: pd.DataFrame = field(repr=False, compare=False)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    @property
    def answer(self) -> str:
        """The answer in a sentence."""
        if not self.windows:
            return f"{self.name} has no full window of T = {self.window}."
        where = f" (phase {self.peak_phase})" if self.peak_phase else ""
        return (
            f"{self.name} {self.deed} {format_bytes(self.mean)}{self.part} on average in "
            f"T = {self.window}; the peak is {format_bytes(self.peak)}, in the window ending at "
            f"{self.peak_ns / 1e9:.3f} s{where}."
        )

    @property
    def lines(self) -> list[str]:
        """The answer, the percentiles, the guest's memory and the source: a line each."""
        lines = [self.answer, *self._percentiles, *self._memory]
        return [*lines, f"Source: {self.source}."]

    @property
    def _percentiles(self) -> Iterator[str]:
        if self.windows:
            parts = {"p50": self.p50, "p95": self.p95, "p99": self.p99}
            sizes = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts.items())
            how = "overlapping windows" if self.overlapping else "windows, one after the other"
            if self.windows == 1:
                how = "window"
            short = f"; {self.partial:,} cut short left out" if self.partial else ""
            yield f"Percentiles: {sizes} ({self.windows:,} {how}{short})."
            yield from self._larger_cut_short
            if not self.overlapping:
                yield "Overlapping windows (--sliding, step='sliding') may have a higher peak."

    @property
    def _larger_cut_short(self) -> Iterator[str]:
        """The largest window that is cut short, if the peak is smaller: a full one has no less."""
        short = self.table[~self.table["full"]]
        at = int(short["bytes"].to_numpy().argmax()) if len(short) else -1
        if at >= 0 and (largest := short.iloc[at])["bytes"] > self.peak:
            yield (
                f"The real peak is higher: a window cut short at {largest['t_ns'] / 1e9:.3f} s has "
                f"{format_bytes(largest['bytes'])} in {format_ns(int(largest['effective_ns']))}."
            )

    @property
    def _memory(self) -> Iterator[str]:
        ram = None if self.memory_bytes is None else f"{format_bytes(self.memory_bytes)} of RAM"
        if self.allocated_bytes is not None:
            of = f", of {ram}" if ram else ""
            yield f"The guest had allocated at most {format_bytes(self.allocated_bytes)}{of}."
        elif ram:
            yield f"The VM has {ram}; how much the guest had allocated is not known."

    def as_dict(self) -> Json:
        """Return the summary for JSON: sizes in bytes, None for what is not known."""
        sizes = {n: getattr(self, n) for n in ("mean", "p50", "p95", "p99", "peak")}
        return {
            "answer": self.answer,
            "trace": self.name,
            "source": self.source,
            "window_ns": self.window_ns,
            "windows": self.windows,
            "partial_windows": self.partial,
            "overlapping": self.overlapping,
            **{f"{n}_bytes": None if np.isnan(size) else size for n, size in sizes.items()},
            "peak_t_ns": self.peak_ns,
            "peak_phase": self.peak_phase,
            "allocated_bytes": self.allocated_bytes,
            "memory_bytes": self.memory_bytes,
        }


def working_set(
    trace: Trace,
    window: str | int | Window | None = None,
    step: str | int | None = None,
    min_count: int = 1,
    **selection: Unpack[Selection],
) -> WorkingSet:
    """Summarize the working set at one T: mean, percentiles, the peak and where it is.

    The parameters and errors are those of `workingset.estimate`, of whose windows the full ones
    count.

    Examples
    --------
    >>> import pmlkit
    >>> from pmlkit import answers
    >>> print(answers.working_set(pmlkit.open("hotcold"), "1s").answer)  # doctest: +ELLIPSIS
    hotcold uses ... on average in T = 1 s; the peak is ..., in the window ending at ...
    """
    from pmlkit import workingset  # and pandas, which miss ratios do without

    table = workingset.estimate(trace, window, step, min_count, **selection)
    full = table[table["full"]]
    size = full["bytes"].to_numpy()
    at = full.iloc[int(size.argmax())] if len(size) else None
    p50, p95, p99 = np.percentile(size, (50, 95, 99)) if len(size) else [np.nan] * 3
    memory = trace.meta.known_memory_pages
    return WorkingSet(
        name=trace.path.stem,
        source=source_text(trace),
        deed=deed(trace, **selection),
        window=_window_text(window, table),
        part=_part_text(min_count, selection),
        window_ns=int(table["asked_ns"].iloc[0]) if len(table) else -1,
        windows=len(full),
        partial=len(table) - len(full),
        overlapping=step is not None,
        mean=float(size.mean()) if len(size) else np.nan,
        p50=float(p50),
        p95=float(p95),
        p99=float(p99),
        peak=np.nan if at is None else float(at["bytes"]),
        peak_ns=-1 if at is None else int(at["t_ns"]),
        peak_phase="" if at is None else str(at["phase"]),
        allocated_bytes=_allocated(trace, selection),
        memory_bytes=None if memory is None else trace.meta.memory_bytes,
        table=table,
    )


def _window_text(window: str | int | Window | None, table: pd.DataFrame) -> str:
    """Return T in words; the one that was chosen is in the table."""
    if window is not None:
        return str(parse_window(window))
    asked = int(table["asked_ns"].iloc[0]) if len(table) else -1
    return "1r" if asked < 0 else format_ns(asked)  # `timeline.default_window`


def _part_text(min_count: int, selection: Selection) -> str:
    """Return which pages are counted: nothing if all are."""
    region = selection.get("region")
    often = f" at least {min_count} times" if min_count > 1 else ""
    return f" of region {region}{often}" if region else often


def _allocated(trace: Trace, selection: Selection) -> int | None:
    """Return the most that the guest had allocated in the part of the trace, bytes."""
    if trace.guest is None:
        return None
    start, end = times_ns(trace, **selection)
    last = trace.duration_ns if end is None else end
    inside = trace.guest["t_ns"].between(start or 0, last)
    values = trace.guest.loc[inside, "allocated_bytes"]
    return int(values.max()) if len(values) else None


# ------------------------------------------------------------------------------
# Miss ratios


@dataclass(frozen=True)
class MissRatio:
    """The memory that keeps the miss ratio at targets, by one method.

    Attributes
    ----------
    name, source, deed : str
        As in `WorkingSet`.
    curve : MissRatioCurve
    sizes : dict of float to int or None
        Bytes by target; None if no size meets it.
    knee_bytes : int
        The size beyond which more memory gains little.
    round_ns : int or None
        The length of a usual round: a page counts once in each.
    page_size : int
        Bytes.
    """

    name: str
    source: str
    deed: str
    curve: MissRatioCurve
    sizes: dict[float, int | None]
    knee_bytes: int
    round_ns: int | None
    page_size: int = 4096

    def __str__(self) -> str:
        return "\n".join([*self.lines, self.origin])

    @property
    def answer(self) -> str:
        """The answer in a sentence or two."""
        met = {target: size for target, size in self.sizes.items() if size is not None}
        never = [f"{target:g}" for target in self.sizes if target not in met]
        needs = [f"{format_bytes(size)} for a miss ratio of {t:g}" for t, size in met.items()]
        found = f"{self.name} needs {' and '.join(needs)} (LRU, {self.curve.method})." * bool(needs)
        if not never:
            return found
        return (
            f"{found} No size has a miss ratio of {' or '.join(never)}: first uses alone are "
            f"{self.curve.cold:.2%} of all."
        ).strip()

    @property
    def lines(self) -> list[str]:
        """The answer, how sure it is, and the knee: a line each."""
        lines = [self.answer, self._sure]
        return [
            *lines,
            f"Beyond {format_bytes(self.knee_bytes)} (the knee) more memory gains little.",
        ]

    @property
    def origin(self) -> str:
        """What a use is, and what kind of source it is from."""
        each = (
            "in each round"
            if self.round_ns is None
            else f"in a round of {format_ns(self.round_ns)}"
        )
        uses = f"a page that the VM {self.deed} {each}"
        return f"A use is {uses}; first uses are misses. Source: {self.source}."

    @property
    def _sure(self) -> str:
        curve = self.curve
        if curve.method == "exact":
            return f"Exact for this recording: {curve.uses:,} uses of {curve.pages:,} pages."
        if curve.low is None:
            return "A model of the LRU stack (AET), without an interval."
        ends = [
            f"{low:.3g} to {high:.3g} at {format_bytes(size)}" for size, low, high in self._bands
        ]
        sampled = f"{curve.sampled_pages or 0:,} of about {curve.pages:,} pages"
        return f"From a sample of {sampled}; the miss ratio is within {', '.join(ends)} (95 %)."

    @property
    def _bands(self) -> Iterator[tuple[int, float, float]]:
        for size in self.sizes.values():
            band = None if size is None else self.curve.band(np.array([size // self.page_size]))
            if size is not None and band is not None:
                yield size, float(band[0][0]), float(band[1][0])

    def as_dict(self) -> Json:
        """Return the answer for JSON; sizes in bytes, None where no size meets the target."""
        return {
            "answer": self.answer,
            "trace": self.name,
            "source": self.source,
            "method": self.curve.method,
            "bytes_for": {f"{target:g}": size for target, size in self.sizes.items()},
            "knee_bytes": self.knee_bytes,
            "first_uses": self.curve.cold,
        }


def miss_ratio(
    trace: Trace,
    curve: MissRatioCurve,
    targets: Sequence[float] = (0.1, 0.01),
    **selection: Unpack[Selection],
) -> MissRatio:
    """Answer how much memory a trace needs for target miss ratios.

    Parameters
    ----------
    trace : Trace
    curve : MissRatioCurve
        Of `pmlkit.missratio.of_trace`, with the same `selection`.
    targets : sequence of float
        Miss ratios, 0 to 1.

    Examples
    --------
    >>> import pmlkit
    >>> from pmlkit import answers
    >>> trace = pmlkit.open("hotcold")
    >>> answers.miss_ratio(trace, pmlkit.mrc(trace), [1.0]).answer
    'hotcold needs 0 B for a miss ratio of 1 (LRU, exact).'
    """
    page = trace.meta.domain["page_size"]
    pages = {target: curve.pages_for(target) for target in targets}
    return MissRatio(
        name=trace.path.stem,
        source=source_text(trace),
        deed=deed(trace, **selection),
        curve=curve,
        sizes={target: None if n is None else n * page for target, n in pages.items()},
        knee_bytes=curve.knee() * page,
        round_ns=trace.meta.resolution_ns,
        page_size=page,
    )


# ------------------------------------------------------------------------------
# Estimates of reads


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
            return f"{self.name} has no full window of {self.window}."
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
            short = f", {self.partial:,} cut short left out" if self.partial else ""
            yield (
                f"Mean interval {format_bytes(self.low)} to {format_bytes(self.high)}; largest "
                f"estimate {format_bytes(self.peak)} ({self.windows:,} windows{short})."
            )
        if self.unknown:
            yield f"In {self.unknown:,} of them, something is unknown: see below the table."

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
        name=trace.path.stem,
        source=source_text(trace),
        method=method,
        windows=len(full),
        partial=len(table) - len(full),
        unknown=int((full["why"] != "").sum()),
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
    lasts = format_ns(full["effective_ns"].median(), 3) if len(full) else "unknown length"
    return f"T = {format_ns(asked)}" if asked > 0 else f"windows of {lasts} (median)"


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
    found = {
        "method": str(means.index[0]),
        "mape_percent": float(best["mape"]),
        "inside_percent": float(best["inside"]),
        "rounds": int(best["rounds"]),
        "next": str(means.index[1]) if len(means) > 1 else None,
        "next_mape_percent": float(means["mape"].iloc[1]) if len(means) > 1 else None,
    }
    other = f" (next: {found['next']}, {found['next_mape_percent']:.3g} %)" if found["next"] else ""
    text = (
        f"Method {found['method']} is closest to the harvest, which is the truth: its mean error "
        f"is {found['mape_percent']:.3g} %{other}, and the truth is within its interval in "
        f"{found['inside_percent']:.3g} % of {found['rounds']:,} rounds of this recording."
    )
    return {"answer": text, **found}
