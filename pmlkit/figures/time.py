# SPDX-License-Identifier: Apache-2.0
"""Figures with time on x: the working set, by kind of access, and the part that PML logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from pmlkit import workingset
from pmlkit.errors import UsageError, argument
from pmlkit.figures.axes import label_ends, mark_phases, seconds_axis, time_limits, timeline_between
from pmlkit.figures.several import common_axis, finish_several, styles, titles
from pmlkit.figures.style import COLORS, finish, new_figure, pad, paper_figure
from pmlkit.several import common_window, labelled
from pmlkit.timeline import FAR, default_window
from pmlkit.units import Window, check_type, format_ns, format_share, parse_window

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.axes import Axes

    from pmlkit.figures.style import Figure, Length, Style, Time
    from pmlkit.trace.reader import Trace
    from pmlkit.types import PathLike


__all__ = ["pml_against_all", "turnover", "wss_by_kind", "wss_over_time"]

MIB = 1 << 20
RAM: Style = {"color": COLORS["grey"], "ls": (0, (6, 2)), "lw": 0.8}
ALLOCATED: Style = {"color": COLORS["sky"], "ls": "-", "lw": 1.4}
MAX_POINTS = 1500  # more than a paper's column resolves; keeps the PDF small
USUAL_NS = 100_000_000  # default T
TWO_SCALES_FROM = 3  # times the peak of the working set


@dataclass(frozen=True)
class Line:
    """A line of these figures: the kinds of use that it counts, its name, colour and dashes."""

    kinds: str
    name: str
    color: str
    dashes: object = "-"

    @property
    def column(self) -> str:
        """The name of its column in the table behind the figure."""
        return f"{self.name.replace(' ', '_')}_pages"

    @property
    def style(self) -> Style:
        """Keyword arguments for matplotlib."""
        return {"color": self.color, "ls": self.dashes}


# Lines differ in more than colour: a copier prints grey.
LINES = {
    "rwx": Line("rwx", "used", COLORS["black"]),
    "r": Line("r", "read", COLORS["blue"]),
    "w": Line("w", "written", COLORS["vermilion"], (0, (4, 1))),
    "x": Line("x", "executed", COLORS["green"], (0, (1, 1))),
}
# A harvest of accessed flags does not tell reads from executions.
NOT_WRITTEN = Line("r", "not written", COLORS["blue"])
HARVESTED = {"rwx": LINES["rwx"], "r": NOT_WRITTEN, "w": LINES["w"]}
# Changes of the working set: label, sign and style of each.
CHANGES: dict[str, tuple[str, int, Style]] = {
    "came": ("joined", 1, {"color": COLORS["green"], "ls": "-"}),
    "left": ("left", -1, {"color": COLORS["vermilion"], "ls": (0, (4, 1))}),
}
PML_LINE = Line("rwx", "logged", COLORS["vermilion"], (0, (4, 1)))


@paper_figure
def wss_over_time(
    trace: Trace | Mapping[str, Trace | PathLike],
    window: Length = None,
    kinds: Sequence[str] = ("rwx",),
    columns: int = 1,
    start: Time = None,
    end: Time = None,
) -> Figure:
    """Draw the working set over time, below the guest's allocated memory.

    If the guest's memory is much larger than the working set, the scale changes at the working
    set's peak, and the upper part shows the rest of the memory.

    Parameters
    ----------
    trace : Trace, or dict of str to Trace
        One recording, or several by their labels: then a line each, without the guests' memory.
    kinds : sequence of str
        One line each: ``"rwx"``, ``"r"``, ``"w"``, ``"x"``. A PML log has one only, and so have
        several recordings.
    """
    if isinstance(trace, Mapping):
        return _wss_of_several(labelled(trace), window, kinds, columns, start, end)
    lines = [PML_LINE] if trace.meta.kind == "pml" else _lines(kinds)
    window = _window(trace, window, start, end)
    wss = _sizes(trace, lines, window, start, end)
    guest = _guest(trace, start, end)
    data = {"wss": wss} if guest is None else {"wss": wss, "guest": guest}
    figure = new_figure(columns, 2.2, data)
    _draw_with_memory(figure, trace, lines, wss, guest, window, time_limits(trace, start, end))
    return finish(
        figure,
        trace,
        "the working set W(t, T) over time: distinct pages used in the last T = "
        f"{_full_name(window, wss)}. Above it are the memory that the guest's kernel counts as "
        "allocated, and its RAM. Allocated memory is not the same as used memory. The scale of the "
        "upper part may differ.",
    )


def _wss_of_several(
    traces: Mapping[str, Trace],
    window: Length,
    kinds: Sequence[str],
    columns: int,
    start: Time,
    end: Time,
) -> Figure:
    """Draw the working sets of recordings over time, a line each."""
    lines, of_each = _lines(kinds), styles(traces)
    if len(lines) != 1:
        raise UsageError("several recordings have one line each: give one of the kinds")
    line = lines[0]
    common = common_window(traces, window, USUAL_NS, start=start, end=end)
    tables = {n: _sizes(trace, [line], common, start, end) for n, trace in traces.items()}
    wss = pd.concat([table.assign(trace=label) for label, table in tables.items()])
    figure = new_figure(columns, 1.9, {"wss": wss[["trace", *tables[next(iter(tables))]]]})
    axes = figure.subplots()
    spans, ends = common_axis(axes, traces, start, end), []
    of_mib = {label: trace.meta.mib_pages for label, trace in traces.items()}
    for label, title in titles(traces, line.kinds).items():
        sizes = _mib(tables[label], line, of_mib[label]).dropna()
        seconds = (tables[label]["t_ns"] - spans[label][0]) / 1e9
        axes.plot(seconds[sizes.index], sizes, **of_each[label])
        ends += [(sizes.iloc[-1], title, of_each[label])] if len(sizes) else []
    peaks = [_peak([line], table, of_mib[label]) for label, table in tables.items()]
    axes.set(ylim=(0, 1.08 * max(peaks)))
    axes.set_ylabel(f"W(t, {common}) (MiB)")
    label_ends(axes, ends)
    name = _full_name(common, wss)
    caption = (
        f"the working set W(t, T) of each recording over time: distinct pages used in the last "
        f"T = {name}."
    )
    return finish_several(figure, traces, caption, line.kinds)


@paper_figure
def wss_by_kind(
    trace: Trace, window: Length = None, columns: int = 1, start: Time = None, end: Time = None
) -> Figure:
    """Draw the working set over time: all accesses, reads, writes, and executions."""
    lines = HARVESTED if trace.is_harvest else LINES
    sources = [(line, trace) for line in lines.values()]
    window = _window(trace, window, start, end)
    figure = _few_lines(trace, window, columns, start, end, sources)
    kinds = "not written and written" if trace.is_harvest else "read, written and executed"
    return finish(
        figure,
        trace,
        f"the pages used in the last T = {_full_name(window, figure.data['wss'])}, and those "
        f"{kinds}. A page may be in several of these sets; the black line counts it once.",
    )


@paper_figure
def pml_against_all(
    trace: Trace, window: Length = None, columns: int = 1, start: Time = None, end: Time = None
) -> Figure:
    """Draw what PML logs against all accesses; the area between is what it misses.

    Parameters
    ----------
    trace : Trace
        An access trace with the PML log of the same run in it.

    Raises
    ------
    pmlkit.errors.NeedsError
        If the trace has no PML log.
    """
    sources = [(LINES["rwx"], trace), (PML_LINE, trace.pml)]
    window = _window(trace, window, start, end)
    figure = _few_lines(trace, window, columns, start, end, sources)
    return finish(
        figure,
        trace,
        "the pages in PML's log against all pages used in the last T = "
        f"{_full_name(window, figure.data['wss'])}. PML logs a page when it is first written. The "
        "shaded pages were only read or executed, and PML does not see them.",
    )


@paper_figure
def turnover(
    trace: Trace, window: Length = None, columns: int = 1, start: Time = None, end: Time = None
) -> Figure:
    """Draw how the working set changes: the pages that join and leave from window to window."""
    window = _window(trace, window, start, end)
    table = workingset.turnover(trace, window, start=start, end=end)
    figure = new_figure(columns, 1.9, {"turnover": table})
    axes = figure.subplots()
    drawn = table[table["full"]]
    ends = []
    for name, (label, sign, style) in CHANGES.items():
        mib = sign * drawn[name] * trace.meta.domain["page_size"] / MIB
        mib = mib.where(mib.index > 0).bfill()  # the drawn part begins at the first window's end
        axes.step(drawn["t_ns"] / 1e9, mib, where="pre", lw=1.0, **style)
        ends += [(mib.iloc[-1], label, style)] if mib.notna().any() else []
    axes.axhline(0, color="black", lw=0.6)
    if axes.dataLim.height < 1 / trace.meta.mib_pages:
        axes.set_ylim(-1, 1)
    axes.set_ylabel("change of W (MiB)")
    _time(axes, trace, time_limits(trace, start, end))
    label_ends(axes, ends)
    return finish(
        figure,
        trace,
        "the pages that joined the working set, and those that left it, from one window of T = "
        f"{_full_name(window, table)} to the next. A large but constant set shows nothing here. A "
        "program that moves to other pages shows as much above as below.",
    )


def _few_lines(
    trace: Trace,
    window: Window,
    columns: int,
    start: Time,
    end: Time,
    sources: Sequence[tuple[Line, Trace]],
) -> Figure:
    """Draw lines without the guest's memory; `sources`: each line and the trace it reads."""
    lines = [line for line, _ in sources]
    tables = [_sizes(source, [line], window, start, end) for line, source in sources]
    wss = tables[0]
    for table in tables[1:]:
        wss = wss.merge(
            table.drop(columns=["effective_ns", "full", "phase"]), on="t_ns", how="left"
        )
    figure, mib_pages = new_figure(columns, 1.9, {"wss": wss}), trace.meta.mib_pages
    axes = figure.subplots()
    if PML_LINE in lines:
        low, high = (_mib(wss, line, mib_pages) for line in lines[::-1])
        axes.fill_between(wss["t_ns"] / 1e9, low.bfill(), high, color="#F3D3BE", lw=0)
    _plot(axes, lines, wss, mib_pages)
    axes.set_ylim(0, _peak(lines, wss, mib_pages) * 1.08)
    axes.set_ylabel(f"W(t, T) (MiB)\nT = {_folded(_name(window, wss))}")
    _time(axes, trace, time_limits(trace, start, end))
    label_ends(axes, _ends(lines, wss, mib_pages))
    return figure


def _lines(kinds: Sequence[str]) -> list[Line]:
    check_type("kinds", kinds, Sequence, "a list of letters from rwx, an item for each line")
    if not len(kinds):
        raise UsageError(f'{argument("kinds")} is empty: give one for each line, such as "rwx"')
    return [_line(each) for each in kinds]


def _line(kinds: str) -> Line:
    check_type("kinds", kinds, str, "a list of letters from rwx, an item for each line")
    if kinds in LINES:
        return LINES[kinds]
    if not kinds or set(kinds) - set("rwx"):
        raise UsageError(f"the kinds {kinds!r} are not known: use letters from rwx")
    return Line(kinds, f"used ({kinds})", COLORS["purple"])


def _window(trace: Trace, window: Length, start: Time, end: Time) -> Window:
    if window is not None:
        return parse_window(window)
    return default_window(timeline_between(trace, start, end), USUAL_NS)


def _name(window: Window, wss: pd.DataFrame) -> str:
    """Name T for a label, with the median effective T if that is another."""
    name, median_ns = str(window).replace("r", " rounds"), _effective(window, wss).median()
    if not _far(window, median_ns):
        return name
    return f"{name} (median effective {format_ns(median_ns)})"


def _full_name(window: Window, wss: pd.DataFrame) -> str:
    """Name T as `_name`, or with the number of windows whose effective T differs."""
    name, effective = _name(window, wss), _effective(window, wss)
    far = sum(_far(window, each) for each in effective)
    if not far or _far(window, effective.median()):
        return name
    return (
        f"{name} (in {far:,} of {len(effective):,} windows, the effective T differs by more than "
        f"{format_share(FAR)})"
    )


def _effective(window: Window, wss: pd.DataFrame) -> pd.Series[float]:
    """Return the effective T, ns, of the full windows; none if T is a number of rounds."""
    return wss["effective_ns"][wss["full"] & (window.ns is not None)]


def _far(window: Window, effective_ns: float) -> bool:
    return window.ns is not None and abs(effective_ns - window.ns) > FAR * window.ns


def _folded(name: str) -> str:
    """Move the addition of `_name` in brackets to a separate line."""
    return name.replace(" (", "\n(")


def _sizes(
    trace: Trace, lines: Sequence[Line], window: Window, start: Time, end: Time
) -> pd.DataFrame:
    """Return the table behind the lines: time, effective window, phase, and pages of each line."""
    rounds = max(-(-timeline_between(trace, start, end).n_rounds // MAX_POINTS), 1)
    tables = [
        workingset.estimate(trace, window, f"{rounds}r", kinds=line.kinds, start=start, end=end)
        for line in lines
    ]
    pages = {line.column: sizes["pages"] for line, sizes in zip(lines, tables, strict=True)}
    return tables[0][["t_ns", "effective_ns", "full", "phase"]].assign(**pages)


def _guest(trace: Trace, start: Time, end: Time) -> pd.DataFrame | None:
    if trace.guest is None or trace.guest.empty:
        return None
    low, high = time_limits(trace, start, end)
    inside = trace.guest["t_ns"].between(low, high)
    return trace.guest.loc[inside, ["t_ns", "allocated_bytes", "total_bytes"]]


def _mib(wss: pd.DataFrame, line: Line, mib_pages: float) -> pd.Series[float]:
    # Windows that the start cuts short are not drawn: they are smaller.
    return (wss[line.column] / mib_pages).where(wss["full"])


def _peak(lines: Iterable[Line], wss: pd.DataFrame, mib_pages: float) -> float:
    return max(1 / mib_pages, *(_mib(wss, line, mib_pages).max() for line in lines))


def _plot(axes: Axes, lines: Iterable[Line], wss: pd.DataFrame, mib_pages: float) -> None:
    for line in lines:
        sizes = _mib(wss, line, mib_pages).dropna()
        axes.plot(wss["t_ns"][sizes.index] / 1e9, sizes, **line.style)


def _ends(
    lines: Iterable[Line], wss: pd.DataFrame, mib_pages: float
) -> list[tuple[float, str, Style]]:
    drawn = ((line, _mib(wss, line, mib_pages).dropna()) for line in lines)
    return [(sizes.iloc[-1], line.name, line.style) for line, sizes in drawn if len(sizes)]


def _time(axes: Axes, trace: Trace, limits: tuple[int, int], labels_on: Axes | None = None) -> None:
    seconds_axis(axes, limits[0], limits[1], trace)
    mark_phases(axes, trace, shade=True, labels=labels_on is None)
    if labels_on is not None:
        labels_on.set_xlim(axes.get_xlim())
        mark_phases(labels_on, trace, shade=True)


def _draw_with_memory(
    figure: Figure,
    trace: Trace,
    lines: Sequence[Line],
    wss: pd.DataFrame,
    guest: pd.DataFrame | None,
    window: Window,
    limits: tuple[int, int],
) -> None:
    """Draw lines and memory; large memory gets a second scale above the lines' peak."""
    mib_pages = trace.meta.mib_pages
    peak, ram = _peak(lines, wss, mib_pages) * 1.08, trace.meta.memory_bytes / MIB
    split = ram > TWO_SCALES_FROM * peak
    if split:
        pad(figure, hspace=0.0, h_pad=0.01)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2.2])
        _join(upper, lower, peak, ram * 1.08)
    else:
        upper = lower = figure.subplots()
        lower.set_ylim(0, max(ram * 1.05, peak))
    for axes in (upper, lower) if split else (lower,):
        _plot_memory(axes, guest, ram)
    _plot(lower, lines, wss, mib_pages)
    lower.set_ylabel("memory (MiB)")
    _time(lower, trace, limits, labels_on=upper if split else None)
    memory = [(ram, "RAM", RAM)]
    if guest is not None and len(guest):
        memory.append((guest["allocated_bytes"].iloc[-1] / MIB, "allocated", ALLOCATED))
    ends = [
        (y, f"{name} in\n{_folded(_name(window, wss))}", style)
        for y, name, style in _ends(lines, wss, mib_pages)
    ]
    above = [end for end in memory if split and end[0] > peak]
    label_ends(upper, above)
    label_ends(lower, ends + [end for end in memory if end not in above])


def _plot_memory(axes: Axes, guest: pd.DataFrame | None, ram: float) -> None:
    axes.axhline(ram, **RAM)
    if guest is not None and len(guest):
        axes.plot(guest["t_ns"] / 1e9, guest["allocated_bytes"] / MIB, **ALLOCATED)


def _join(upper: Axes, lower: Axes, peak: float, top: float) -> None:
    """Give the y axis two scales: 0 to the peak below, the rest of the memory above."""
    lower.set_ylim(0, peak)
    upper.set_ylim(peak, top)
    upper.spines["bottom"].set_visible(False)
    upper.tick_params(axis="x", bottom=False, labelbottom=False)
    upper.locator_params(axis="y", nbins=3)
    slanted = [(-1, -0.6), (1, 0.6)]
    for axes, y in ((upper, 0), (lower, 1)):
        axes.plot(
            [0], [y], transform=axes.transAxes, marker=slanted, ms=6, color="k", mew=0.6,
            ls="none", clip_on=False,
        )  # fmt: skip
