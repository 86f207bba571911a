# SPDX-License-Identifier: Apache-2.0
"""Explore a trace in a notebook: widgets for T, m, time, region and technique, and a figure.

>>> import pmlkit                                                        # doctest: +SKIP
>>> explorer = pmlkit.explore(pmlkit.open("redis.trace"))                # doctest: +SKIP
>>> explorer               # in JupyterLab, Notebook 7 or VS Code        # doctest: +SKIP
>>> explorer.window.value, explorer.min_count.value = 10, 2              # doctest: +SKIP
>>> explorer.figure.data["wss"]                 # what is drawn, a DataFrame  # doctest: +SKIP
>>> pmlkit.explore({"before": "a.trace", "after": "b.trace"})            # doctest: +SKIP

The widgets are ipywidgets. The figures are ipympl's or, without it, pictures that are redrawn.
Without a user (papermill, nbconvert) only the figure is shown.
"""

from __future__ import annotations

import asyncio
import html
import math
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.widgets import SpanSelector

from pmlkit import figures, progress
from pmlkit.errors import PmlkitError, UsageError, argument
from pmlkit.figures.explorer import Lines, Picture, View, maps
from pmlkit.figures.notes import links_html
from pmlkit.notebook import views
from pmlkit.notebook.explored import Explored, Part, code, difference
from pmlkit.notebook.uses import UsesByPage, windows
from pmlkit.progress import has_user
from pmlkit.selection import edges, time_ns
from pmlkit.several import labelled, unlike
from pmlkit.units import (
    check_count,
    check_type,
    exact_ns,
    format_ns,
    format_number,
    format_share,
    parse_duration_ns,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

    from pmlkit.figures.style import Figure
    from pmlkit.several import Traces
    from pmlkit.techniques.recorded import Recorded

__all__ = ["Explorer", "UsesByPage", "explore", "windows"]


MOST = 8  # the largest threshold m
MOST_RECORDINGS = 4
NONE, LOG = "none", "log"
ALL = ""  # stands for "all pages": None would be no choice in a Dropdown
SLIDER = ipywidgets.Layout(width="32em")
BUTTON = ipywidgets.Layout(width="auto", min_width="max-content")  # a row squeezes others
LABELS = {"description_width": "8em"}
TIPS = {
    "window": "T: the length of a window. W(t, T) is the set of pages used in (t - T, t].",
    "min_count": "m: a page counts if it was used in at least m rounds within T.",
    "time": "The selected part of the recording. Drag over the heat map to select it; click the "
    "heat map to select everything.",
    "region": "Count the pages of one region that the workload named.",
    "technique": "A technique's estimate for the whole machine, with all pages and m = 1; or PML's "
    "log, which contains written pages only.",
    "zoom": "Stretch the selected part over the whole width. Otherwise the time axis is the heat "
    "map's.",
    "save": "Write the figure as PDF, SVG and PNG, and its data as CSV and Parquet.",
    "copy": "Show Python code that makes this view, and copy it to the clipboard.",
}


def explore(
    traces: Traces,
    start: str | int | None = None,
    end: str | int | None = None,
    window: str | int | None = None,
    min_count: int = 1,
    time: tuple[str | int | None, str | int | None] = (None, None),
    region: str | None = None,
    technique: str | None = None,
    phase: str | None = None,
    between: tuple[str, str] | None = None,
) -> Explorer:
    """Explore a trace, or several together, by moving widgets.

    Parameters
    ----------
    traces : Trace, path-like, or mapping of str to these
        One recording, or up to four by their labels: a line each.
    start, end : str, int or None
        Read only this part. An explorer keeps 4 bytes per use, and needs about 60 while it
        reads: 6 GB for 10^8 entries.
    phase, between
        Read only this part, in place of `start` and `end`: see `pmlkit.selection`.
    window : str or int, optional
        The first T: a duration, or ``"5r"`` rounds. The nearest one that the slider has is taken.
    min_count : int
        The first threshold m, up to 8.
    time : (str or int or None, str or int or None)
        The first selected part: its start and its end.
    region, technique : str, optional
        The first region, and the first technique: a name of `pmlkit.techniques.TECHNIQUES`, or
        ``"log"``.

    Returns
    -------
    Explorer
        As the last value of a notebook's cell it shows itself.
    """
    explorer = Explorer(traces, *edges(start, end, phase, between))
    explorer.look(window, min_count, time, region, technique)
    return explorer


class Explorer:
    """Widgets over one trace or several, and the figures that follow them.

    Parameters
    ----------
    traces, start, end : as in `explore`

    Attributes
    ----------
    window : ipywidgets.SelectionSlider
        T, in (usual) rounds of the trace; of several recordings, in the least common multiple of
        their rounds.
    min_count : ipywidgets.IntSlider
        The threshold m: pages used in at least so many rounds of T.
    time : ipywidgets.FloatRangeSlider
        The selected part in seconds; brushing over the heat map sets it.
    region, technique : ipywidgets.Dropdown
        The selected pages; what is drawn next to the truth: PML's log, or the estimate of one of
        `pmlkit.techniques` for the whole machine.
    zoom : ipywidgets.ToggleButton
        Whether the selected part fills the width.
    save, copy : ipywidgets.Button
        Write the figure; show code that makes it.
    note : ipywidgets.HTML
        Mean and peak of what is drawn, and why something is not.
    figure : pmlkit.figures.style.Figure
        What is drawn, with its `data`.
    heats : list of pmlkit.figures.style.Figure
        The heat map of each recording, of the whole time.
    out : str
        Folder for what is saved, as in `pmlkit.notebook.views.output_folder`.
    """

    out = "results/explore"

    def __init__(
        self, traces: Traces, start: str | int | None = None, end: str | int | None = None
    ) -> None:
        named = labelled(traces)
        if len(named) > MOST_RECORDINGS:
            raise UsageError(f"{len(named)} recordings in one figure: give {MOST_RECORDINGS}")
        self.recordings = [Explored(label, trace, start, end) for label, trace in named.items()]
        self._first, self._part = self.recordings[0], (start, end)
        self._differ = [str(one) for one in unlike(named)] if len(named) > 1 else []
        self._estimates: dict[tuple[str, int], pd.DataFrame | str] = {}
        self._worker = ThreadPoolExecutor(1)
        self._recorded: Recorded | None = None
        self._make_widgets()
        timed = self._unit_ns is not None
        sizes = self._sizes_of_t / 1e9 if timed else self._sizes_of_t
        self._windows = np.asarray(sizes, float)
        self._lines = Lines(named, self._windows, "s" if timed else "rounds")
        self.figure: Figure = self._lines.figure
        self.figure.caption = "the working set over time, and its mean against T."
        self._live: list[Picture] = []
        self.update()
        watched = (self.window, self.min_count, self.time, self.region, self.technique, self.zoom)
        for widget in watched:
            widget.observe(self.update, names="value")

    @property
    def heat(self) -> Figure:
        """The heat map of the first recording."""
        return self.heats[0]

    def look(
        self,
        window: str | int | None = None,
        min_count: int = 1,
        time: tuple[str | int | None, str | int | None] = (None, None),
        region: str | None = None,
        technique: str | None = None,
    ) -> None:
        """Set the widgets; parameters as in `explore`."""
        if window is not None:
            self.window.value = self._nearest(window)
        check_count("min_count", min_count, "rounds")
        self.min_count.value = min_count
        check_type("time", time, tuple | list, "a pair of times, None for an end of the recording")
        if len(time) != 2:
            raise UsageError(f"{argument('time')} has {len(time)} parts: give a start and an end")
        ends = [time_ns(self._first.trace, edge) for edge in time]
        whole = self.time.min, self.time.max
        self.time.value = tuple(
            edge if ns is None else min(max(ns / 1e9, whole[0]), whole[1])
            for ns, edge in zip(ends, whole, strict=True)
        )
        for widget, value in ((self.region, region or ALL), (self.technique, technique or NONE)):
            known = [option[1] for option in widget.options]
            if value not in known:
                what = "region" if widget is self.region else "technique"
                raise UsageError(f"there is no {what} {value!r}: choose from {known[1:]}")
            widget.value = value

    def _nearest(self, window: str | int) -> int:
        """Return the choice of T that is nearest to a duration or a number of rounds."""
        if isinstance(window, str) and window.endswith("r") and window[:-1].isdigit():
            asked = float(window[:-1])
        else:
            ns = parse_duration_ns(window)
            asked = ns / (self._unit_ns or 1)
        return min(self._rounds, key=lambda k: abs(math.log(k / max(asked, 1e-9))))

    # The widgets

    def _make_widgets(self) -> None:
        units = [one.uses.timeline.resolution_ns for one in self.recordings]
        if len(units) > 1 and None in units:
            raise UsageError("a recording has rounds without times: explore it alone")
        self._unit_ns = math.lcm(*(unit for unit in units if unit)) if None not in units else None
        lengths = [one.uses.timeline.axis.length for one in self.recordings]
        n = max(lengths) // (self._unit_ns or 1)
        self._rounds = windows(n)
        self._sizes_of_t = np.array(self._rounds, np.int64) * (self._unit_ns or 1)
        names = [self._name(k) for k in self._rounds]
        self.window = ipywidgets.SelectionSlider(
            options=list(zip(names, self._rounds, strict=True)),
            value=min(self._rounds, key=lambda k: abs(k - max(n // 20, 1))),
            description="window T",
            **_look_of("window", SLIDER),
        )
        self.min_count = ipywidgets.IntSlider(
            1, 1, MOST, description="least uses m", **_look_of("min_count", SLIDER)
        )
        edges = np.array([one.uses.t_ns[[0, -1]] / 1e9 for one in self.recordings])
        low, high = float(edges[:, 0].min()), float(edges[:, 1].max())
        self.time = ipywidgets.FloatRangeSlider(
            value=(low, high), min=low, max=high, step=max((high - low) / 1000, 1e-9),
            description="time (s)", readout_format=_decimals(high),
            **_look_of("time", SLIDER))  # fmt: skip
        shared = [one.regions for one in self.recordings]
        regions = [name for name in shared[0] if all(name in others for others in shared)]
        self.region = ipywidgets.Dropdown(
            options=[("all pages", ALL), *((name, name) for name in regions)],
            description="region", **_look_of("region", SLIDER))  # fmt: skip
        self.technique = ipywidgets.Dropdown(
            options=self._techniques(), description="compare with", **_look_of("technique", SLIDER)
        )
        self.zoom = ipywidgets.ToggleButton(
            description="zoom", icon="search-plus", **_look_of("zoom", BUTTON)
        )
        self.save = ipywidgets.Button(description="save", icon="save", **_look_of("save", BUTTON))
        self.copy = ipywidgets.Button(
            description="copy as code", icon="code", **_look_of("copy", BUTTON)
        )
        self.note, self.messages = ipywidgets.HTML(), ipywidgets.Output()
        self.save.on_click(self._save)
        self.copy.on_click(self._copy)

    def _name(self, k: int) -> str:
        return f"{k} rounds" if self._unit_ns is None else exact_ns(k * self._unit_ns)

    def _techniques(self) -> list[tuple[str, str]]:
        options = [(NONE, NONE)]
        if len(self.recordings) == 1 and self._first.log is not None:
            options.append(("PML's log, with this m", LOG))
        if len(self.recordings) == 1 and self._first.has_references:
            from pmlkit.techniques import TECHNIQUES, make

            options += [(make(name).title, name) for name in TECHNIQUES]
        return options

    @property
    def span(self) -> tuple[int, int]:
        """The first selected round and the one after the last, among those that were read."""
        return self._first.span(*self._times())

    def _times(self) -> tuple[int | None, int | None]:
        """Return the selected part in ns; None: without limit."""
        low, high = (round(seconds * 1e9) for seconds in self.time.value)
        start = None if self.time.value[0] <= self.time.min else low
        end = None if self.time.value[1] >= self.time.max else high
        return start, end

    # The figure

    def update(self, change: object = None) -> None:
        """Compute for the widgets' values, and redraw the figure."""
        k, m, region = self.window.value, self.min_count.value, self.region.value or None
        size = k * (self._unit_ns or 1)
        timed = self._unit_ns is not None
        parts = [
            one.part(self._times(), size, timed, m, region, self._sizes_of_t)
            for one in self.recordings
        ]
        means = [self._mean_table(part) for part in parts]
        place = self._rounds.index(k)
        technique = self._comparison(k, parts[0], m, region)
        view = View(
            window=self._name(k),
            at=float(self._windows[place]),
            span_s=tuple(self.time.value) if self.zoom.value else (self.time.min, self.time.max),
            cut_s=[(part.start_ns / 1e9, min(part.full_ns, part.end_ns) / 1e9) for part in parts],
            wss={one.label: part.wss for one, part in zip(self.recordings, parts, strict=True)},
            mean={one.label: mean for one, mean in zip(self.recordings, means, strict=True)},
            technique=technique,
            difference=difference(*parts) if len(parts) == 2 and not self._refused else None,
            message="" if any(part.is_full for part in parts) else self._too_long(parts, k),
        )
        self._lines.show(view)
        self._write_note(k, parts, [float(mean["pages"].iloc[place]) for mean in means], technique)
        if self._live:
            self._live[0].draw()
            self._brush()

    @property
    def _refused(self) -> list[str]:
        """The respects in which two recordings differ so that no difference of W is formed."""
        return [line for line in self._differ if " rounds " not in line]

    def _mean_table(self, part: Part) -> pd.DataFrame:
        asked_ns = self._sizes_of_t if self._unit_ns else -1
        return pd.DataFrame({"rounds": self._rounds, "asked_ns": asked_ns, "pages": part.means})

    def _too_long(self, parts: Sequence[Part], k: int) -> str:
        length = format_ns(max(part.end_ns - part.start_ns for part in parts))
        return f"T = {self._name(k)} is longer than the selected part, {length}: choose a shorter T"

    def _write_note(
        self,
        k: int,
        parts: Sequence[Part],
        means: Sequence[float],
        technique: tuple[str, pd.DataFrame, float] | None,
    ) -> None:
        """Write the mean (right half) and the peak of full windows, and notes on missing values."""
        lines = []
        for one, part, mean in zip(self.recordings, parts, means, strict=True):
            label = f"{one.label}: " if len(parts) > 1 else ""
            full = part.wss["pages"][part.wss["full"].astype(bool)] * one.mib
            if len(full):
                peak = f"peak {format_number(full.max(), 4)} MiB"
                lines.append(f"{label}mean {format_number(mean * one.mib, 4)} MiB, {peak}")
            else:
                lines.append(label + self._too_long([part], k))
        if len(parts) == 2:
            lines.append(self._difference_text(parts, means))
        if technique is not None:
            name, _, mean = technique
            size = f"mean {format_number(mean * self._first.mib, 4)} MiB"
            lines.append(
                f"{name}: {'no estimate in the selected part' if math.isnan(mean) else size}"
            )
        elif self.technique.value not in (NONE, LOG):
            why = self._estimates[self.technique.value, k]
            lines.append(f"{self.technique.label}: {why}")
        self.note.value = "<br>".join(html.escape(line) for line in lines)

    def _difference_text(self, parts: Sequence[Part], means: Sequence[float]) -> str:
        if self._refused:
            return f"no difference: {'; '.join(self._refused)}"
        first, second = (mean * one.mib for mean, one in zip(means, self.recordings, strict=True))
        if math.isnan(first) or math.isnan(second):
            return "no difference: not both have a full window"
        grows = second / first - 1 if first else 0.0
        share = f" ({'+' if grows > 0 else ''}{format_share(grows)})" if first else ""
        a, b = (one.label for one in self.recordings)
        text = f"{b} - {a}: mean {second - first:+.4g} MiB{share}"
        times = [part.end_ns - part.full_ns for part in parts]
        if abs(times[1] - times[0]) > 0.01 * max(times):  # each mean is of its recording's own time
            lengths = " and ".join(format_ns(ns) for ns in reversed(times))
            text += f"; the means are over {lengths}"
        differ = f"; {'; '.join(self._differ)}: m counts rounds" if self._differ else ""
        return text + differ

    # Techniques

    def _comparison(
        self, k: int, part: Part, m: int, region: str | None
    ) -> tuple[str, pd.DataFrame, float] | None:
        """Return the technique's title, its estimates in the selected part, and their mean."""
        name, log = self.technique.value, self._first.log
        if name == NONE:
            return None
        if name == LOG and log is not None:
            size, timed = k * (self._unit_ns or 1), self._unit_ns is not None
            of_log = log.part(self._times(), size, timed, m, region, np.array([size]))
            return "logged", of_log.wss, float(of_log.means[0])
        if (name, k) not in self._estimates:
            self._start_watching(name, k)
        estimate = self._estimates[name, k]
        if isinstance(estimate, str):
            return None
        estimate = estimate[estimate["t_ns"].between(part.start_ns, part.end_ns)]
        return self.technique.label, estimate, _mean_of(estimate, part.full_ns, part.end_ns)

    def _start_watching(self, name: str, k: int) -> None:
        """Run a technique on the trace: in a thread, if an event loop can take its result."""
        self._estimates[name, k] = "is computed ..."
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._estimates[name, k] = self._watch(name, k)
            return
        future = loop.run_in_executor(self._worker, self._watch, name, k)
        future.add_done_callback(lambda done: self._watched(name, k, done.result()))

    def _watch(self, name: str, k: int) -> pd.DataFrame | str:
        """Return a technique's estimates, or the reason why there are none."""
        from pmlkit import techniques

        try:
            with progress.silent():
                self._recorded = self._recorded or techniques.Recorded.of(self._first.trace)
                # Techniques can be chosen of traces with times only.
                run = techniques.run(name, self._recorded, window=k * (self._unit_ns or 1))
        except PmlkitError as error:
            return str(error)
        estimates = run.estimates[["t_ns", "pages"]]
        if not estimates["pages"].notna().any():
            return "; ".join(["no estimate within the recording at this T", *run.notes])
        return estimates

    def _watched(self, name: str, k: int, estimate: pd.DataFrame | str) -> None:
        self._estimates[name, k] = estimate
        if (self.technique.value, self.window.value) == (name, k):
            self.update()

    # Saving

    def code(self) -> str:
        """Return Python code that makes the current view and its numbers."""
        time = self._times()
        return code(
            {one.label: one.trace for one in self.recordings},
            self._part,
            self._name(self.window.value).replace(" rounds", "r").replace(" ", ""),
            self.min_count.value,
            time,
            self.region.value or None,
            self.technique.value if self.technique.value != NONE else None,
        )

    def save_figure(self) -> list[Path]:
        """Write the figure and its data to `out`, named after the recordings and T."""
        names = "-".join(Path(one.label).name for one in self.recordings)
        stem = f"{names}-{self._name(self.window.value)}".replace(" ", "")
        return figures.save(self.figure, views.output_folder(self.out) / stem)

    def _save(self, _: object) -> None:
        try:
            self._show_message(links_html(self.save_figure()))
        except PmlkitError as error:
            self._show_message(html.escape(str(error)))

    def _copy(self, _: object) -> None:
        text = self.code()
        self._show_message(f"<pre>{html.escape(text)}</pre>", text)

    def _show_message(self, content: str, copied: str = "") -> None:
        """Show HTML below the buttons; copy a text to the clipboard."""
        from IPython import display

        make_html: Callable[[str], object] = display.HTML
        make_script: Callable[[str], object] = display.Javascript
        self.messages.outputs = ()
        self.messages.append_display_data(make_html(content))
        if copied:
            script = f"navigator.clipboard?.writeText({_script_text(copied)})"
            self.messages.append_display_data(make_script(script))

    # Showing

    def show(self, live: bool | None = None) -> ipywidgets.Widget:
        """Return the widgets with the figures, `live` (default: if there is ipympl) or still."""
        live = find_spec("ipympl") is not None if live is None else live
        limits = round(self.time.min * 1e9), round(self.time.max * 1e9)
        shown, self.heats, axes = maps({one.label: one.trace for one in self.recordings}, limits)
        self._lines.align(shown)
        self._live = [Picture(self.figure, live), *(Picture(heat, live) for heat in self.heats)]
        self._spans = [self._selector(over, live) for over in axes]
        rows = [
            [self.window, self.min_count],
            [self.time, self.region],
            [self.technique, self.zoom, self.save, self.copy],
        ]
        boxes = [ipywidgets.HBox(row) for row in rows]
        pictures = [picture.widget for picture in self._live]
        for picture in self._live[1:]:  # so that a box does not shrink it
            width = f"{picture.figure.get_size_inches()[0] * picture.figure.dpi:.0f}px"
            picture.widget.layout.flex, picture.widget.layout.min_width = "0 0 auto", width
        heats = ipywidgets.VBox(pictures[1:], layout=ipywidgets.Layout(flex="0 0 auto"))
        return ipywidgets.VBox([*boxes, self.note, self.messages, pictures[0], heats])

    def _selector(self, axes: Axes, live: bool) -> SpanSelector:
        look = {"alpha": 0.25, "facecolor": "#D55E00"}
        return SpanSelector(
            axes, self._brushed, "horizontal", props=look, interactive=live, useblit=False
        )

    def _brushed(self, low: float, high: float) -> None:
        """Select the brushed part; a click selects everything."""
        whole = self.time.min, self.time.max
        self.time.value = (max(low, whole[0]), min(high, whole[1])) if high > low else whole

    def _brush(self) -> None:
        """Mark the selected part on the heat maps."""
        if not self._live[1].live:
            return
        whole = self.time.value == (self.time.min, self.time.max)
        for span in self._spans:
            visible = bool(span.artists[0].get_visible())
            if whole and visible:
                span.clear()
            elif not whole and not (visible and span.extents == self.time.value):
                span.extents = self.time.value

    def _ipython_display_(self) -> None:
        from IPython.display import display

        show: Callable[[object], object] = display
        show(self.show() if has_user() else self.figure)


def _decimals(seconds: float) -> str:
    """Return the format of times up to so many seconds, which the slider shows uncut."""
    return f".{2 if seconds < 10 else 1 if seconds < 100 else 0}f"


def _look_of(name: str, layout: ipywidgets.Layout | None = None) -> dict[str, object]:
    """Return a widget's tooltip and layout."""
    looks: dict[str, object] = {"tooltip": TIPS[name]}
    if layout is not None:
        looks["layout"] = layout
    return looks | {"style": LABELS} if layout is SLIDER else looks


def _mean_of(estimates: pd.DataFrame, start_ns: int, end_ns: int) -> float:
    """Return the mean over time of estimates, each of which is valid until the next row."""
    t_ns, pages = estimates["t_ns"].to_numpy(), estimates["pages"].to_numpy(float)
    lengths = np.diff(np.clip(np.append(t_ns, end_ns), start_ns, end_ns))
    known = ~np.isnan(pages) & (lengths > 0)
    return float(np.average(pages[known], weights=lengths[known])) if known.any() else math.nan


def _script_text(text: str) -> str:
    """Return a text as a literal of JavaScript."""
    import json

    return json.dumps(text).replace("</", "<\\/")
