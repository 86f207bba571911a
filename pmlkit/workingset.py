# SPDX-License-Identifier: Apache-2.0
"""Working sets of a trace: Denning's W(t, T), threshold m, (T, m) surfaces, plateau, re-use.

Each function streams the selected part of a trace through the kernels of `pmlkit.kernels.by_time`
and returns a table. In an access trace, one use of a page is a round in which the page was used in
any of the selected ways. In a PML trace, it is an entry of the log.

All functions take `kinds`, `start`, `end`, `phase`, `between`, `region` and `page_tables` as
``**selection``; `pmlkit.selection` describes them and their errors. `pmlkit.timeline` defines which
rounds belong to a window. A window raises `ResolutionError` in three cases: it is shorter than the
trace's resolution; it is no multiple of it, where rounds have equal lengths; it is longer than the
part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.kernels import by_page, by_time
from pmlkit.kernels.by_time import Reuse
from pmlkit.kernels.pages import PageIndex
from pmlkit.recordings import opened
from pmlkit.selection import stream
from pmlkit.several import common_window, labelled, stacked
from pmlkit.timeline import Windows, default_window
from pmlkit.units import check_count, format_ns, parse_window

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Unpack

    import pandas as pd

    from pmlkit.kernels.by_page import References
    from pmlkit.selection import Selection, Stream
    from pmlkit.several import Traces
    from pmlkit.timeline import Axis
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Floats, Gfns, Ints
    from pmlkit.units import Window


__all__ = [
    "Plateau",
    "columns",
    "curve",
    "estimate",
    "means",
    "references",
    "plateau",
    "reuse",
    "sizes",
    "surface",
    "sweep",
    "turnover",
    "uses_per_page",
]


def estimate(
    trace: Traces,
    window: str | int | Window | None = None,
    step: str | int | None = None,
    min_count: int = 1,
    **selection: Unpack[Selection],
) -> pd.DataFrame:
    """Return the working set over time, one row per window.

    Parameters
    ----------
    trace : Trace or path-like, mapping of str to these, or sequence of these
        One recording, or several by their labels: then there is a column ``trace``, the label.
    window : str, int or Window, optional
        T: ``"1s"``, ``"5r"`` (rounds) or nanoseconds. The default is one second, or the nearest T
        that the part of the trace supports (`timeline.default_window`).
    step : None, "sliding", or as `window`
        Time between the ends of two windows. None: T itself (tumbling). ``"sliding"``: a window
        ends at each instant at which a round ends.
    min_count : int
        The threshold m: a page belongs to the working set if it was used at least m times within T.

    Returns
    -------
    DataFrame
        ``t_ns`` (end of the window), ``pages``, ``bytes``, and ``asked_ns`` (T; -1 if it was given
        in rounds without a common length). ``effective_ns``: the time span of the window's uses,
        see `pmlkit.timeline`. ``phase``: the phase at the window's end. ``region:NAME``: pages, one
        column per region of the trace. ``full``: False for a window that is cut short, by the
        start or the end (the first sliding windows, the last tumbling one), or to an effective
        length of less than half of T.

    Examples
    --------
    >>> import pmlkit
    >>> from pmlkit import workingset
    >>> trace = pmlkit.open(pmlkit.bundled("hotcold"))  # writes 300 pages, and 1500 more in a phase
    >>> table = workingset.estimate(trace, window="1s")
    >>> table[["region:hot", "region:cold"]].max().tolist()
    [300, 1500]
    >>> bool((table["bytes"] == 4096 * table["pages"]).all())
    True
    """
    import pandas as pd

    if isinstance(trace, Mapping | Sequence) and not isinstance(trace, str):
        traces = labelled(trace)
        window = common_window(traces, window, **selection)
        return stacked(estimate, traces, window, step, min_count, **selection)
    return pd.DataFrame(columns(opened(trace), window, step, min_count, **selection))


def columns(
    trace: Trace,
    window: str | int | Window | None = None,
    step: str | int | None = None,
    min_count: int = 1,
    **selection: Unpack[Selection],
) -> dict[str, Array]:
    """Return the columns of `estimate` for one recording, without the time to import pandas."""
    source, names = stream(trace, **selection), trace.region_names
    window = default_window(source.timeline) if window is None else window
    windows = source.timeline.windows(window, step)
    pages, *of_regions = sizes(source, windows, min_count, names)
    phases = np.asarray(trace.phase_of_rounds(), object)[source.first :]
    table = {
        "t_ns": windows.t_ns,
        "pages": pages,
        "bytes": pages * trace.meta.domain["page_size"],
        "asked_ns": np.full(len(windows), windows.asked_ns),
        "effective_ns": windows.effective_ns,
        "phase": phases[windows.round],
    }
    regions = zip((f"region:{name}" for name in names), of_regions, strict=True)
    return {**table, **dict(regions), "full": windows.full}


def sweep(
    trace: Trace, windows: Iterable[str | int | Window], **selection: Unpack[Selection]
) -> pd.DataFrame:
    """Return the working set at the end of each round, for several windows T, in one pass.

    Returns
    -------
    DataFrame
        ``t_ns`` (end of the window), ``rounds`` and ``asked_ns`` (T, in usual rounds and in ns).
        ``pages``, ``bytes``, ``effective_ns`` and ``full`` are as in `estimate`. Rows are sorted by
        window as given, then by time.
    """
    import pandas as pd

    source, asked = stream(trace, **selection), [parse_window(window) for window in windows]
    tables: dict[Window, pd.DataFrame] = {}
    for of_one_axis in _by_axis(asked):
        tables |= zip(of_one_axis, _swept(source, of_one_axis), strict=True)
    columns = ["t_ns", "rounds", "asked_ns", "pages", "bytes", "effective_ns", "full"]
    parts = [tables[window] for window in asked] or [pd.DataFrame(columns=columns, dtype=np.int64)]
    return pd.concat(parts, ignore_index=True)


def _by_axis(asked: Sequence[Window]) -> list[list[Window]]:
    """Return the windows in time and those in rounds, which have different axes."""
    groups = [[w for w in asked if (w.rounds is None) is in_time] for in_time in (True, False)]
    return [group for group in groups if group]


def _swept(source: Stream, asked: Sequence[Window]) -> list[pd.DataFrame]:
    """Return the table of each window; all are in time, or all in rounds."""
    import pandas as pd

    sliding = [source.timeline.windows(w, "sliding") for w in asked]
    axis = source.timeline.axis_of(asked[0])
    pages = by_time.sweep(source.numbered(), axis.at, [source.timeline.size(w) for w in asked])
    page_size, ends = source.trace.meta.domain["page_size"], axis.last_of_instants
    return [
        pd.DataFrame(
            {
                "t_ns": windows.t_ns,
                "rounds": windows.rounds,
                "asked_ns": windows.asked_ns,
                "pages": of_window[ends],
                "bytes": of_window[ends] * page_size,
                "effective_ns": windows.effective_ns,
                "full": windows.full,
            }
        )
        for windows, of_window in zip(sliding, pages, strict=True)
    ]


def turnover(
    trace: Trace, window: str | int | Window = "1s", **selection: Unpack[Selection]
) -> pd.DataFrame:
    """Return how the working set changes from one window to the next.

    Parameters
    ----------
    window : str, int or Window
        T; windows are consecutive.

    Returns
    -------
    DataFrame
        ``t_ns`` (end of the window) and ``pages``. ``came``: pages that are not in the previous
        window. ``stayed``: pages in both. ``left``: pages of the previous window only.
        ``effective_ns`` and ``full`` are as in `estimate`.
    """
    import pandas as pd

    source = stream(trace, **selection)
    windows = source.timeline.windows(window)
    counts = by_time.turnover(source, windows)
    columns = {name: getattr(counts, name) for name in ("pages", "came", "stayed", "left")}
    spans = {"effective_ns": windows.effective_ns, "full": windows.full}
    return pd.DataFrame({"t_ns": windows.t_ns} | columns | spans)


def curve(trace: Trace, **selection: Unpack[Selection]) -> pd.DataFrame:
    """Return Denning's curve: the mean of W(T) and its derivative at every T of the trace.

    Returns
    -------
    DataFrame
        ``rounds`` and ``asked_ns``: T, a multiple of the length of a usual round. ``pages`` and
        ``bytes``: the mean over time. ``full_pages``: the mean over the time in which windows are
        full. ``derivative``: the slope to the next T, pages per usual round. ``miss_rate``: misses
        (uses of pages outside the working set) per usual round. ``miss_ratio``: misses per use.

    Notes
    -----
    The mean is over time, from the end of the first round to one usual round after the end of the
    last one. A page enters W(t, T) at the end of the round that used it. It stays for T after its
    last use. If all rounds have the same length, this is the mean over the rounds. The table lists
    every T up to 100,000 of them; beyond that, T grows by a constant factor.

    Denning and Schwartz (1972) proved that the derivative equals the missing rate. In a finite
    trace it is smaller, by the number of pages whose last use is within T of the end, divided by
    the number of rounds.

    Examples
    --------
    >>> import pmlkit
    >>> from pmlkit import workingset
    >>> curve = workingset.curve(pmlkit.open(pmlkit.bundled("hotcold")))
    >>> curve["rounds"].head(3).tolist()
    [1, 2, 3]
    >>> bool(curve["pages"].is_monotonic_increasing)  # a longer window holds no fewer pages
    True
    """
    import pandas as pd

    source = stream(trace, **selection)
    rounds, lengths = source.timeline.grid()
    statistics = Reuse(source.numbered(), source.timeline.axis, lengths)
    (pages, full), misses = statistics.means(), statistics.miss_counts()
    return pd.DataFrame(
        {
            "rounds": rounds[1:],
            "asked_ns": _in_ns(source, rounds[1:]),
            "pages": pages[1:],
            "bytes": pages[1:] * trace.meta.domain["page_size"],
            "full_pages": full[1:],
            "derivative": _slope(pages, rounds),
            "miss_rate": misses[1:] / max(_usual_rounds(source), 1),
            "miss_ratio": misses[1:] / max(statistics.uses, 1),
        }
    )


def _slope(pages: Floats, rounds: Ints) -> Floats:
    """Return the slope from each T but the first to the next one."""
    # W does not grow for a T beyond the end: no use is older than the start.
    rises = np.append(np.diff(pages[1:]), 0.0)[: len(pages) - 1]
    return rises / np.append(np.diff(rounds[1:]), 1)[: len(pages) - 1]


def _usual_rounds(source: Stream) -> float:
    """Return the length, in usual rounds, of the time over which a mean is taken."""
    axis = source.timeline.axis
    return (axis.end - int(axis.at[0])) / axis.usual if len(axis) else 0.0


def _in_ns(source: Stream, rounds: Ints) -> Ints | int:
    resolution = source.timeline.resolution_ns
    return -1 if resolution is None else rounds * resolution


def surface(
    trace: Trace,
    windows: Iterable[str | int | Window],
    min_counts: Sequence[int],
    **selection: Unpack[Selection],
) -> pd.DataFrame:
    """Return the mean working set over windows T and thresholds m.

    Returns
    -------
    DataFrame
        ``rounds``, ``asked_ns``, ``min_count``, ``pages`` and ``bytes``. The mean is over the time
        in which windows are full, as in `curve`. For windows in rounds, it is over the rounds.
    """
    import pandas as pd

    for min_count in min_counts:
        check_count("min_count", min_count, "uses")
    source, asked = stream(trace, **selection), [parse_window(window) for window in windows]
    pages: dict[tuple[Window, int], float] = {}
    for of_one_axis in _by_axis(asked):
        pages |= _mean_sizes(source, of_one_axis, min_counts)
    rounds = source.timeline
    table = pd.DataFrame(
        [
            (rounds.in_rounds(window), rounds.asked_ns(window), m, pages[window, m])
            for window in asked
            for m in min_counts
        ],
        columns=["rounds", "asked_ns", "min_count", "pages"],
    )
    return table.assign(bytes=table["pages"] * trace.meta.domain["page_size"])


def _mean_sizes(
    source: Stream, asked: Sequence[Window], min_counts: Sequence[int]
) -> dict[tuple[Window, int], float]:
    """Return the mean by window and threshold; the windows are all in time, or all in rounds."""
    lengths_of = [source.timeline.size(window) for window in asked]
    lengths = np.unique([0, *lengths_of])
    of_count = means(source, source.timeline.axis_of(asked[0]), lengths, list(min_counts))
    places = np.searchsorted(lengths, lengths_of)
    return {
        (window, m): of_count[m][place]
        for window, place in zip(asked, places, strict=True)
        for m in min_counts
    }


def reuse(trace: Trace, **selection: Unpack[Selection]) -> pd.DataFrame:
    """Return the re-use histogram: the time from a page's use to its next use.

    Returns
    -------
    DataFrame
        ``gap_rounds`` (in usual rounds, rounded up), ``gap_ns`` (the mean between the ends of the
        two rounds; -1 if the trace has no times) and ``uses``. Gaps that do not occur have no row.
    """
    import pandas as pd

    source = stream(trace, **selection)
    rounds, lengths = source.timeline.grid()
    statistics = Reuse(source.numbered(), source.timeline.axis, lengths)
    gap = np.flatnonzero(statistics.gap_counts)
    uses = statistics.gap_counts[gap]
    # A gap beyond the grid's last T exceeds it by less than a usual round.
    gap_rounds = np.append(rounds, rounds[-1] + 1)[gap]
    gap_ns = np.rint(statistics.gap_sums[gap] / uses).astype(np.int64)
    timed = source.timeline.resolution_ns is not None
    return pd.DataFrame({"gap_rounds": gap_rounds, "gap_ns": gap_ns if timed else -1, "uses": uses})


def uses_per_page(trace: Trace, **selection: Unpack[Selection]) -> pd.DataFrame:
    """Return the number of pages for each number of uses: a DataFrame of ``uses`` and ``pages``."""
    import pandas as pd

    source = stream(trace, **selection)
    uses = Reuse(source.numbered(), source.timeline.axis, np.zeros(1, np.int64)).uses_of_pages
    times, pages = np.unique(uses.astype(np.int64), return_counts=True)
    return pd.DataFrame({"uses": times, "pages": pages})


def references(trace: Trace, **selection: Unpack[Selection]) -> References:
    """Return the selected uses, sorted by page; round 0 is the first one selected."""
    return stream(trace, **selection).references()


# ------------------------------------------------------------------------------
# From a stream of uses to the sizes of its working sets.


MARKS = 63  # regions that fit into the bits of a page's mark
AT_ONCE = 1 << 22  # entries that are sorted in memory, in less time than the compiler's import
MEMORY = 1 << 29  # bytes for the last uses of pages; above, the trace is read more than once


def sizes(source: Stream, windows: Windows, min_count: int, regions: Sequence[str]) -> list[Ints]:
    """Return the pages of each window, a row for all and one for each region."""
    check_count("min_count", min_count, "uses")
    if source.trace.meta.entries <= AT_ONCE and not source.expand:
        return _sizes_at_once(source, windows, min_count, regions)
    if windows.tumbling and min_count == 1 and not regions:
        return [by_time.turnover(source, windows).pages]
    rows: list[Ints] = []
    for first in range(0, max(len(regions), 1), MARKS):
        names = regions[first : first + MARKS]
        of_all, *of_regions = _by_region(source, windows, min_count, names)
        rows += of_regions if rows else [of_all, *of_regions]
    return rows


def _sizes_at_once(
    source: Stream, windows: Windows, min_count: int, regions: Sequence[str]
) -> list[Ints]:
    # Consecutive windows do not share rounds, so each counts as one coarse round.
    coarse = windows.tumbling and min_count == 1
    refs = source.references(windows.enter) if coarse else source.references()

    def count(refs: References) -> Ints:
        if coarse:
            return np.bincount(refs.round, minlength=len(windows))
        return by_page.sliding(refs, windows, min_count)

    insides = (np.isin(refs.gfn, source.trace.frames(name)) for name in regions)
    return [count(refs), *(count(refs.select(inside)) for inside in insides)]


def _by_region(source: Stream, windows: Windows, min_count: int, regions: Sequence[str]) -> Ints:
    index, frames = PageIndex(), [source.trace.frames(name) for name in regions]
    marks, batches = partial(_region_bits, index, frames), source.numbered(index)
    if not windows.tumbling:
        return by_time.sliding(batches, windows, min_count, marks, len(frames))
    # Consecutive windows do not share rounds, so each counts as one coarse round.
    coarse = ((windows.enter[rounds], ids, pages) for rounds, ids, pages in batches)
    if min_count == 1:
        return by_time.by_round(coarse, len(windows), marks, len(frames))
    each = Windows.of_rounds(len(windows), 1)
    return by_time.sliding(coarse, each, min_count, marks, len(frames))


def _region_bits(index: PageIndex, frames: Iterable[Gfns], first: int, pages: int) -> Array:
    """Return, for each page from number `first` on, a bit for each region that has it."""
    new = index.frames[first:pages]
    bits = (
        np.isin(new, of_one).astype(np.uint64) << np.uint64(i) for i, of_one in enumerate(frames)
    )
    return sum(bits, np.zeros(len(new), np.uint64))


def means(source: Stream, axis: Axis, sizes: Ints, min_counts: Sequence[int]) -> dict[int, Floats]:
    """Return for each threshold the mean of W over the full windows of each size (from 0)."""
    row_bytes = 4 << (max(min_counts, default=1) - 1).bit_length()
    shares = max(1, -(-_pages(source, MEMORY // row_bytes) * row_bytes // MEMORY))
    parts = [
        Reuse(source.share(i, shares).numbered(), axis, sizes, min_counts) for i in range(shares)
    ]
    # Each frame is in one share, and all shares span the same time: their means add up.
    return {m: np.sum([part.means(m)[1] for part in parts], axis=0) for m in min_counts}


def _pages(source: Stream, few: int) -> int:
    """Return an upper bound of the used pages; without `few`, their number."""
    most = min(source.trace.memory_pages, source.trace.meta.entries)
    if most <= few or source.expand:
        return most
    index = PageIndex()
    for _ in source.numbered(index):
        pass
    return len(index)


# ------------------------------------------------------------------------------
# The plateau of Bitchebe et al. (VEE'21): distinct pages since the start, once stable.


@dataclass(frozen=True)
class Plateau:
    """The estimate of the plateau estimator, and its history.

    Attributes
    ----------
    pages, bytes, t_ns : int or None
        The estimate and when it was reached; None if the count was never stable.
    stable_rounds : int
        The stability time w, in (usual) rounds.
    series : DataFrame
        Per round: ``t_ns``, ``distinct`` (pages since the start) and ``pages`` (the latest plateau,
        NaN before the first).
    """

    pages: int | None
    bytes: int | None
    t_ns: int | None
    stable_rounds: int
    series: pd.DataFrame

    def __str__(self) -> str:
        if self.t_ns is None:
            return f"no estimate: never {self.stable_rounds} rounds without a new page"
        reached = f"after {self.stable_rounds} rounds without a new page"
        return f"{self.pages} pages, {reached}, at {format_ns(self.t_ns)}"


def plateau(trace: Trace, stable: str = "1s", **selection: Unpack[Selection]) -> Plateau:
    """Return the published plateau estimate (Bitchebe et al., VEE'21).

    It is the number of distinct pages since the start, when this number has not changed for the
    stability time. As published, it never forgets a page, and it does not wait for a first one.

    Parameters
    ----------
    stable : str, int or Window
        The stability time w.
    """
    import pandas as pd

    source = stream(trace, **selection)
    rounds = source.timeline
    w, axis = rounds.size(stable, longest=False), rounds.axis_of(stable)
    distinct = Reuse(source.numbered(), axis, np.zeros(1, np.int64)).distinct()
    plateaus = by_page.plateau(distinct, w, axis.at)
    t_ns = source.timeline.t_ns[1:]
    series = pd.DataFrame({"t_ns": t_ns, "distinct": distinct, "pages": plateaus})
    reached = np.flatnonzero(~np.isnan(plateaus))
    if len(reached) == 0:
        return Plateau(None, None, None, rounds.in_rounds(stable), series)
    at = reached[0]
    return Plateau(
        int(distinct[at]),
        int(distinct[at]) * trace.meta.domain["page_size"],
        int(t_ns[at]),
        rounds.in_rounds(stable),
        series,
    )
