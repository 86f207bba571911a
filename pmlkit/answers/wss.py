# SPDX-License-Identifier: Apache-2.0
"""The working set at one T in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pmlkit import workingset
from pmlkit.recordings import name_of
from pmlkit.selection import stream, times_ns, usage_verb
from pmlkit.timeline import default_window
from pmlkit.trace import arrow
from pmlkit.trace.summary import source_text
from pmlkit.units import exact_ns, format_bytes, format_ns, parse_window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Unpack

    import pandas as pd

    from pmlkit.selection import Selection
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Json
    from pmlkit.units import Window

__all__ = ["WorkingSet", "window_text", "working_set"]

EVEN = 0.05  # share of the mean by which the mean over time may differ without a note


@dataclass(frozen=True)
class WorkingSet:
    """W at one T in a few numbers, over the full windows only.

    Attributes
    ----------
    name, source : str
        The recording's, and what it is (`pmlkit.trace.summary.source_text`).
    verb : str
        What the VM does to the pages that count: "uses", "writes".
    window, part : str
        T in words; and what part of the pages counts, empty for all.
    window_ns : int
        T; -1 if it was given in rounds without a common length.
    windows, partial : int
        Full windows, and those that are cut short, which are left out.
    overlapping : bool
        Whether a window ends with every round; else they follow one another.
    mean, p50, p95, p99, peak : float
        Bytes, each window once; percentiles as `numpy.percentile`, NaN without a full window.
    over_time : float
        The mean over time, bytes, for windows that end with rounds of uneven length; else NaN.
    peak_ns : int
        The end of the first window of that size; -1 without a full window.
    peak_phase : str
    allocated_bytes : int or None
        The most that the guest's kernel counted as allocated in this time; None if not known.
    memory_bytes : int or None
        The VM's RAM; None if it is not known.
    columns : dict of str to ndarray
        The windows, as `workingset.columns` returns them.
    table : DataFrame
        The same, as `workingset.estimate` returns them.
    """

    name: str
    source: str
    verb: str
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
    over_time: float
    peak: float
    peak_ns: int
    peak_phase: str
    allocated_bytes: int | None
    memory_bytes: int | None
    columns: dict[str, Array] = field(repr=False, compare=False)

    @cached_property
    def table(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(self.columns)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    @property
    def answer(self) -> str:
        """The answer in a sentence."""
        if not self.windows:
            return f"{self.name} has no full window of T = {self.window}."
        where = f" (phase {self.peak_phase})" if self.peak_phase else ""
        return (
            f"{self.name} {self.verb} {format_bytes(self.mean)}{self.part} on average in "
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
            short = f", without {self.partial:,} cut short" if self.partial else ""
            yield f"Percentiles: {sizes} ({self.windows:,} {how}{short}).{self._interpolated}"
            yield from self._larger_cut_short
            yield from self._uneven
            if not self.overlapping:
                yield "Overlapping windows (--sliding, step='sliding') may have a higher peak."

    @property
    def _interpolated(self) -> str:
        """Which percentiles only two windows determine."""
        after = self.windows - 1
        few = [name for name, beyond in (("p95", 0.05), ("p99", 0.01)) if 0 < after * beyond < 1]
        lie = "lie" if len(few) > 1 else "lies"
        return f" {' and '.join(few)} {lie} between the two largest windows." if few else ""

    @property
    def _larger_cut_short(self) -> Iterator[str]:
        """The largest window that is cut short, if the peak is smaller: a full one has no less."""
        short = ~self.columns["full"]
        if not short.any():
            return
        sizes, ends, spans = (self.columns[n][short] for n in ("bytes", "t_ns", "effective_ns"))
        at = int(sizes.argmax())
        if sizes[at] > self.peak:
            yield (
                f"The real peak is higher: a window cut short at {ends[at] / 1e9:.3f} s has "
                f"{format_bytes(sizes[at])} in {format_ns(int(spans[at]))}."
            )

    @property
    def _uneven(self) -> Iterator[str]:
        """The mean over time, if windows end with rounds so uneven that the means differ."""
        if abs(self.over_time - self.mean) > EVEN * self.mean:
            yield (
                "The windows end with rounds of uneven length, and each counts once. Evenly over "
                f"time, the mean is {format_bytes(self.over_time)}. Windows one after another "
                "weigh time evenly. In Python, windows at a `step` in time do, too."
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
        sizes = {n: getattr(self, n) for n in ("mean", "p50", "p95", "p99", "over_time", "peak")}
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
    columns = workingset.columns(trace, window, step, min_count, **selection)
    full = np.flatnonzero(columns["full"])
    size = columns["bytes"][full]
    at = full[size.argmax()] if len(full) else -1
    p50, p95, p99 = np.percentile(size, (50, 95, 99)) if len(size) else [np.nan] * 3
    memory = trace.meta.known_memory_pages
    return WorkingSet(
        name=name_of(trace.path),
        source=source_text(trace),
        verb=usage_verb(trace, **selection),
        window=window_text(window, columns["asked_ns"]),
        part=_part_text(min_count, selection),
        window_ns=_first(columns["asked_ns"]),
        windows=len(full),
        partial=len(columns["full"]) - len(full),
        overlapping=step is not None,
        mean=float(size.mean()) if len(size) else np.nan,
        p50=float(p50),
        p95=float(p95),
        p99=float(p99),
        over_time=_over_time(trace, window, step, min_count, **selection),
        peak=np.nan if at < 0 else float(columns["bytes"][at]),
        peak_ns=-1 if at < 0 else int(columns["t_ns"][at]),
        peak_phase="" if at < 0 else str(columns["phase"][at]),
        allocated_bytes=_allocated(trace, selection),
        memory_bytes=None if memory is None else trace.meta.memory_bytes,
        columns=columns,
    )


def _over_time(
    trace: Trace,
    window: str | int | Window | None,
    step: str | int | None,
    min_count: int,
    **selection: Unpack[Selection],
) -> float:
    """Return the mean over time of windows that end with uneven rounds, bytes; NaN for others."""
    if step != "sliding":
        return np.nan
    part = stream(trace, **selection).timeline
    window = default_window(part) if window is None else parse_window(window)
    if part.even or window.ns is None:
        return np.nan
    return float(workingset.surface(trace, [window], [min_count], **selection)["bytes"].iloc[0])


def window_text(window: str | int | Window | None, asked_ns: Array) -> str:
    """Return T in words; the one that was chosen is in the column ``asked_ns`` of the windows."""
    if window is not None:
        return str(parse_window(window))
    asked = _first(asked_ns)
    return "1r" if asked < 0 else exact_ns(asked)  # `timeline.default_window`


def _first(asked_ns: Array) -> int:
    return int(asked_ns[0]) if len(asked_ns) else -1


def _part_text(min_count: int, selection: Selection) -> str:
    """Return which pages are counted: nothing if all are."""
    region = selection.get("region")
    often = f" at least {min_count} times" if min_count > 1 else ""
    return f" of region {region}{often}" if region else often


def _allocated(trace: Trace, selection: Selection) -> int | None:
    """Return the most that the guest had allocated in the part of the trace, bytes."""
    if trace.guest_table is None:
        return None
    start, end = times_ns(trace, **selection)
    t_ns, allocated = (arrow.values(trace.guest_table[n]) for n in ("t_ns", "allocated_bytes"))
    inside = (t_ns >= (start or 0)) & (t_ns <= (trace.duration_ns if end is None else end))
    return int(allocated[inside].max()) if inside.any() else None
