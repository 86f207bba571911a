# SPDX-License-Identifier: Apache-2.0
"""One recording of an explorer: the numbers for the selected part, T, m and region.

The module has no widgets and figures, so that the numbers can be tested alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import recordings
from pmlkit.notebook.uses import UsesByPage
from pmlkit.units import Window

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pmlkit.trace.reader import Trace
    from pmlkit.types import Bools, Floats, Ints

__all__ = ["Explored", "Part", "code", "difference"]


@dataclass(frozen=True)
class Part:
    """The working set of a recording in the selected part.

    Attributes
    ----------
    wss : DataFrame
        ``t_ns``, ``pages``, ``full``, as of `pmlkit.workingset.estimate`, sliding; empty if T is
        longer than the part.
    means : ndarray of float
        The mean of W over the time of full windows, for each T; NaN where none is full.
    start_ns, end_ns : int
        The part.
    full_ns : int
        The end of the first full window; after `end_ns` if there is none.
    """

    wss: pd.DataFrame
    means: Floats
    start_ns: int
    end_ns: int
    full_ns: int

    @property
    def is_full(self) -> bool:
        """Whether there is a full window."""
        return bool(self.wss["full"].any())


class Explored:
    """A recording in memory, and the log that it holds.

    Parameters
    ----------
    label : str
    trace : Trace
    start, end : str, int or None
        Read only this part.
    with_log : bool
        Also read the nested log, if its rounds are the trace's.

    Attributes
    ----------
    uses : UsesByPage
    log : Explored or None
    """

    def __init__(
        self,
        label: str,
        trace: Trace,
        start: str | int | None = None,
        end: str | int | None = None,
        with_log: bool = True,
    ) -> None:
        self.label, self.trace = label, trace
        self.uses = UsesByPage(trace, start, end)
        self._means: dict[tuple[object, ...], Floats] = {}
        nested = with_log and trace.meta.kind == "access" and trace.pml_is_nested
        alike = nested and trace.pml.n_rounds == trace.n_rounds
        self.log = Explored(label, trace.pml, start, end, False) if alike else None

    @property
    def mib(self) -> float:
        """MiB of a page."""
        return float(self.trace.meta.domain["page_size"] / (1 << 20))

    @property
    def has_references(self) -> bool:
        """Whether techniques can run on it: it has all accesses, with times."""
        timed = self.uses.timeline.resolution_ns is not None
        return self.trace.meta.kind == "access" and timed

    @cached_property
    def regions(self) -> list[str]:
        """The names of its regions."""
        return self.trace.region_names

    def span(self, start_ns: int | None, end_ns: int | None) -> tuple[int, int]:
        """Return the first round of a part and the one after the last, among those read."""
        first, stop = self.trace.rounds_between(start_ns, end_ns)
        base, n = self.uses.first, self.uses.n_rounds
        first = min(max(first - base, 0), n)
        return first, max(min(stop - base, n), first)

    def part(
        self,
        times_ns: tuple[int | None, int | None],
        size: int,
        timed: bool,
        min_count: int,
        region: str | None,
        sizes: Ints,
    ) -> Part:
        """Compute a part.

        Parameters
        ----------
        times_ns : (int or None, int or None)
            Its start and end; None: without limit.
        size : int
            T, in ns, or in rounds if the trace is not `timed`.
        timed : bool
        min_count : int
            The threshold m.
        region : str or None
            Default: all pages.
        sizes : array of int64
            Each T of the means, ascending.
        """
        span = self.span(*times_ns)
        part = self.uses.part(span)
        chosen = self._chosen(region)
        start_ns, end_ns = (int(edge) for edge in self.uses.t_ns[list(span)])
        if size > part.axis.length:
            wss = pd.DataFrame({name: np.zeros(0, np.int64) for name in ("t_ns", "pages", "full")})
            full_ns = end_ns + 1
        else:
            window = Window(ns=size) if timed else Window(rounds=size)
            over = part.windows(window, "sliding")
            pages = self.uses.sizes(over, min_count, span, chosen)
            wss = pd.DataFrame({"t_ns": over.t_ns, "pages": pages, "full": over.full})
            full = wss["t_ns"][wss["full"]]
            full_ns = int(full.iloc[0]) if len(full) else end_ns + 1
        means = self._mean(min_count, span, region, chosen, sizes)
        return Part(wss, means, start_ns, end_ns, full_ns)

    def _chosen(self, region: str | None) -> Bools:
        return self.uses.chosen(None if region is None else self.trace.frames(region))

    def _mean(
        self, m: int, span: tuple[int, int], region: str | None, chosen: Bools, sizes: Ints
    ) -> Floats:
        """Return the means; kept as long as only T changes."""
        key = (m, span, region, sizes.tobytes())
        if key not in self._means:
            axis = self.uses.part(span).axis
            self._means = {key: self.uses.means(m, span, chosen, axis, sizes)}
        return self._means[key]


def difference(first: Part, second: Part) -> pd.DataFrame:
    """Return the second working set minus the first, pages, where both have full windows.

    Returns
    -------
    DataFrame
        ``t_ns``: the ends of windows of either; ``pages``: W changes at its own windows' ends.
    """
    both = [part.wss[part.wss["full"].astype(bool)] for part in (first, second)]
    if not all(len(table) for table in both):
        return pd.DataFrame({"t_ns": np.zeros(0, np.int64), "pages": np.zeros(0, np.int64)})
    times = np.union1d(*(table["t_ns"] for table in both))
    low = max(table["t_ns"].iloc[0] for table in both)
    high = min(table["t_ns"].iloc[-1] for table in both)
    times = times[(times >= low) & (times <= high)]
    places = [np.searchsorted(table["t_ns"], times, "right") - 1 for table in both]
    a, b = (table["pages"].to_numpy()[at] for table, at in zip(both, places, strict=True))
    return pd.DataFrame({"t_ns": times, "pages": b - a})


# ------------------------------------------------------------------------------
# The view as code.


def code(
    traces: Mapping[str, Trace],
    part: tuple[str | int | None, str | int | None],
    window: str,
    min_count: int,
    time_ns: tuple[int | None, int | None],
    region: str | None,
    technique: str | None,
) -> str:
    """Return Python code that makes a view of an explorer, by public functions.

    Parameters
    ----------
    traces : mapping of str to Trace
        The recordings by label.
    part : (start, end)
        The part that was read, as `explore` got it.
    window : str
        T: ``"100ms"`` or ``"5r"``.
    min_count : int
    time_ns : (int or None, int or None)
        The selected part.
    region, technique : str or None
    """
    opened = {label: _opened(trace) for label, trace in traces.items()}
    if len(traces) == 1:
        (given,) = opened.values()
        lines = ["import pmlkit", "", f"trace = {given}"]
        what = "trace"
    else:
        lines = ["import pmlkit", "", "traces = {"]
        lines += [f"    {label!r}: {given}," for label, given in opened.items()]
        lines += ["}"]
        what = "traces"
    start, end = (own if ns is None else ns for own, ns in zip(part, time_ns, strict=True))
    selection = _arguments(start=start, end=end, region=region)
    lines.append(f'wss = pmlkit.wss({what}, {window!r}, "sliding", {min_count}{selection})')
    view = _arguments(
        start=part[0],
        end=part[1],
        window=window,
        min_count=min_count if min_count > 1 else None,
        time=None if time_ns == (None, None) else time_ns,
        region=region,
        technique=technique,
    )
    lines.append(f"figure = pmlkit.explore({what}{view}).figure")
    return "\n".join(lines) + "\n"


def _arguments(**values: object) -> str:
    return "".join(f", {name}={value!r}" for name, value in values.items() if value is not None)


def _opened(trace: Trace) -> str:
    """Return the call that opens a trace: a bundled one by its name, a nested log by its trace."""
    path, nested = trace.path, ""
    if path.name == "pml.trace" and path.parent.suffix == ".trace":
        path, nested = path.parent, ".pml"
    name = recordings.name_of(path)
    bundled = name in recordings.bundled() and recordings.find(name).samefile(path)
    return f"pmlkit.open({name if bundled else str(path)!r}){nested}"
