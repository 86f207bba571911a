# SPDX-License-Identifier: Apache-2.0
"""Explore a trace in a notebook: widgets for T, m, time, region and technique, and a figure.

>>> import pmlkit                                                        # doctest: +SKIP
>>> explorer = pmlkit.explore(pmlkit.open("redis.trace"))                # doctest: +SKIP
>>> explorer               # in JupyterLab, Notebook 7 or VS Code        # doctest: +SKIP
>>> explorer.window.value, explorer.min_count.value = 10, 2              # doctest: +SKIP
>>> explorer.figure.data["wss"]                 # what is drawn, a DataFrame  # doctest: +SKIP

The widgets are ipywidgets. The figures are ipympl's or, without it, pictures that are redrawn.
Without a user (papermill, nbconvert) only the figure is shown.
"""

from __future__ import annotations

import asyncio
import html
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.widgets import SpanSelector

from pmlkit import figures
from pmlkit.errors import PmlkitError
from pmlkit.figures.explorer import Lines, Picture, still
from pmlkit.progress import has_user
from pmlkit.selection import region_names, select
from pmlkit.units import Window, format_ns

if TYPE_CHECKING:
    from collections.abc import Callable

    from pmlkit.figures.style import Figure
    from pmlkit.techniques.recorded import Recorded
    from pmlkit.timeline import Axis, Timeline, Windows
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Bools, Floats, Gfns, Ints

__all__ = ["Explorer", "UsesByPage", "explore", "windows"]


MOST = 8  # the largest threshold m
NONE, LOG = "none", "PML's log, with this m"
SLIDER = ipywidgets.Layout(width="30em")


def explore(trace: Trace, start: str | int | None = None, end: str | int | None = None) -> Explorer:
    """Explore a trace by moving widgets.

    Parameters
    ----------
    start, end : str, int or None
        Read only this part. An explorer keeps 4 bytes per use, and needs about 60 while it
        reads: 6 GB for 10^8 entries.

    Returns
    -------
    Explorer
        As the last value of a notebook's cell it shows itself.
    """
    return Explorer(trace, start, end)


class Explorer:
    """Widgets over a trace, and the figures that follow them.

    Parameters
    ----------
    start, end : as in `explore`

    Attributes
    ----------
    window : ipywidgets.SelectionSlider
        T, in (usual) rounds of the trace.
    min_count : ipywidgets.IntSlider
        The threshold m: pages used in at least so many rounds of T.
    time : ipywidgets.FloatRangeSlider
        The selected part in seconds; brushing over the heat map sets it.
    region, technique : ipywidgets.Dropdown
        The selected pages; what is drawn beside the truth: PML's log, or the estimate of one of
        `pmlkit.techniques` for the whole machine.
    note : ipywidgets.HTML
        Mean and peak of what is drawn.
    figure, heat : pmlkit.figures.style.Figure
        What is drawn, with its `data`; the heat map of the whole time.
    """

    def __init__(
        self, trace: Trace, start: str | int | None = None, end: str | int | None = None
    ) -> None:
        self.trace = trace
        self._uses = UsesByPage(trace, start, end)
        log = trace.pml if trace.meta.kind == "access" and trace.pml_is_nested else None
        self._log = UsesByPage(log, start, end) if log and log.n_rounds == trace.n_rounds else None
        self._estimates: dict[tuple[str, int], pd.DataFrame | str] = {}
        self._means: tuple[tuple[object, ...], Floats] = ((), np.zeros(0))
        self._worker = ThreadPoolExecutor(1)
        self._recorded: Recorded | None = None
        self._make_widgets()
        timed = self._unit_ns is not None
        sizes = self._sizes_of_t / 1e9 if timed else self._sizes_of_t
        unit = "s" if timed else "rounds"
        name = "used" if trace.meta.kind == "access" else "logged"
        self._lines, self._windows = Lines(trace, name, np.asarray(sizes, float), unit), sizes
        self.figure: Figure = self._lines.figure
        self.figure.caption = "the working set over time, and its mean against T."
        self._live: dict[str, Picture] = {}
        self.update()
        for widget in (self.window, self.min_count, self.time, self.region, self.technique):
            widget.observe(self.update, names="value")

    # The widgets

    def _make_widgets(self) -> None:
        trace, part = self.trace, self._uses.timeline
        self._unit_ns = part.resolution_ns
        n = part.axis.length // (self._unit_ns or 1)
        self._rounds = windows(n)
        self._sizes_of_t = np.array(self._rounds, np.int64) * (self._unit_ns or 1)
        names = [self._name(k) for k in self._rounds]
        self.window = ipywidgets.SelectionSlider(
            options=list(zip(names, self._rounds, strict=True)),
            value=min(self._rounds, key=lambda k: abs(k - max(n // 20, 1))),
            description="T",
            layout=SLIDER,
        )
        self.min_count = ipywidgets.IntSlider(1, 1, MOST, description="m", layout=SLIDER)
        low, high = self._uses.t_ns[[0, -1]] / 1e9
        self.time = ipywidgets.FloatRangeSlider(
            value=(low, high), min=low, max=high, step=max((high - low) / 1000, 1e-9),
            description="time (s)", readout_format=".2f", layout=SLIDER)  # fmt: skip
        self.region = ipywidgets.Dropdown(
            options=[("all pages", None), *((name, name) for name in region_names(trace))],
            description="region",
        )
        self.technique = ipywidgets.Dropdown(options=self._techniques(), description="beside it")
        self.note = ipywidgets.HTML()

    def _name(self, k: int) -> str:
        return f"{k} rounds" if self._unit_ns is None else format_ns(k * self._unit_ns)

    def _techniques(self) -> list[str]:
        options = [NONE] + [LOG] * (self._log is not None)
        if self.trace.meta.kind == "access" and self._unit_ns is not None:
            from pmlkit.techniques import TECHNIQUES

            options += list(TECHNIQUES)
        return options

    @property
    def span(self) -> tuple[int, int]:
        """The first selected round and the one after the last, among those that were read."""
        low, high = (round(seconds * 1e9) for seconds in self.time.value)
        start = None if self.time.value[0] <= self.time.min else low
        end = None if self.time.value[1] >= self.time.max else high
        first, stop = self.trace.rounds_between(start, end)
        base, n = self._uses.first, self._uses.n_rounds
        first = min(max(first - base, 0), n)
        return first, max(min(stop - base, n), first)

    # The figure

    def update(self, change: object = None) -> None:
        """Compute for the widgets' values, and redraw the figure."""
        k, m, span, region = self.window.value, self.min_count.value, self.span, self.region.value
        frames = None if region is None else self.trace.frames(region)
        chosen = self._uses.chosen(frames)
        over = self._over(k, span)
        wss = self._sizes(self._uses, over, m, span, chosen)
        means = self._mean(m, span, region, chosen)
        self._lines.show(
            self._name(k),
            float(self._windows[self._rounds.index(k)]),
            wss,
            means,
            self._comparison(k, over, m, span, frames),
        )
        self._write_note(k, span, wss, means)
        if self._live:
            self._live["figure"].draw()
            self._brush()

    def _over(self, k: int, span: tuple[int, int]) -> Windows | None:
        """Return the windows that end within the selected part; None if T is longer than it."""
        part = self._uses.part(span)
        size = k * (self._unit_ns or 1)
        if size > part.axis.length:
            return None
        window = Window(rounds=k) if self._unit_ns is None else Window(ns=size)
        return part.windows(window, "sliding")

    def _sizes(
        self,
        uses: UsesByPage,
        over: Windows | None,
        m: int,
        span: tuple[int, int],
        chosen: Bools,
    ) -> pd.DataFrame:
        if over is None:
            return pd.DataFrame({name: np.zeros(0, np.int64) for name in ("t_ns", "pages", "full")})
        pages = uses.sizes(over, m, span, chosen)
        return pd.DataFrame({"t_ns": over.t_ns, "pages": pages, "full": over.full})

    def _mean(
        self, m: int, span: tuple[int, int], region: str | None, chosen: Bools
    ) -> pd.DataFrame:
        """Return the right half's table; reused as long as only T changes."""
        if self._means[0] != (m, span, region):
            axis = self._uses.part(span).axis
            pages = self._uses.means(m, span, chosen, axis, self._sizes_of_t)
            self._means = (m, span, region), pages
        asked_ns = self._sizes_of_t if self._unit_ns else -1
        return pd.DataFrame({"rounds": self._rounds, "asked_ns": asked_ns, "pages": self._means[1]})

    def _write_note(
        self, k: int, span: tuple[int, int], wss: pd.DataFrame, means: pd.DataFrame
    ) -> None:
        """Write the mean (of the right half) and the peak of full windows."""
        mib = self.trace.meta.domain["page_size"] / (1 << 20)
        full = wss["pages"][wss["full"].astype(bool)] * mib
        if len(full):
            mean = means["pages"][self._rounds.index(k)] * mib
            text = f"mean {mean:.4g} MiB, peak {full.max():.4g} MiB"
        else:
            length = self._uses.part(span).length_ns
            text = f"T = {self._name(k)} is longer than what is looked at, {format_ns(length)}"
        estimate = self._estimates.get((self.technique.value, self.window.value))
        if isinstance(estimate, str):
            text += f"; {self.technique.value}: {estimate}"
        self.note.value = html.escape(text)

    # Techniques

    def _comparison(
        self,
        k: int,
        over: Windows | None,
        m: int,
        span: tuple[int, int],
        frames: Gfns | None,
    ) -> tuple[str, pd.DataFrame] | None:
        name = self.technique.value
        if name == NONE:
            return None
        if name == LOG and self._log is not None:
            return "logged", self._sizes(self._log, over, m, span, self._log.chosen(frames))
        if (name, k) not in self._estimates:
            self._start_watching(name, k)
        estimate = self._estimates[name, k]
        if isinstance(estimate, str):
            return None
        low, high = self._uses.t_ns[list(span)]
        return name, estimate[estimate["t_ns"].between(low, high)]

    def _start_watching(self, name: str, k: int) -> None:
        """Run a technique on the trace: in a thread, if an event loop can take its result."""
        self._estimates[name, k] = "watching ..."
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._estimates[name, k] = self._watch(name, k)
            return
        future = loop.run_in_executor(self._worker, self._watch, name, k)
        future.add_done_callback(lambda done: self._watched(name, k, done.result()))

    def _watch(self, name: str, k: int) -> pd.DataFrame | str:
        from pmlkit import techniques

        try:
            self._recorded = self._recorded or techniques.Recorded.of(self.trace)
            # Techniques can be chosen of traces with times only.
            result = techniques.run(name, self._recorded, window=k * (self._unit_ns or 1))
        except PmlkitError as error:
            return str(error)
        return result.estimates[["t_ns", "pages"]]

    def _watched(self, name: str, k: int, estimate: pd.DataFrame | str) -> None:
        self._estimates[name, k] = estimate
        if (self.technique.value, self.window.value) == (name, k):
            self.update()

    # Showing

    def show(self, live: bool | None = None) -> ipywidgets.Widget:
        """Return the widgets with the figures, `live` (default: if there is ipympl) or still."""
        live = find_spec("ipympl") is not None if live is None else live
        start, end = self._uses.t_ns[[0, -1]].tolist()
        self.heat, axes = still(figures.heat_map(self.trace, 2, start=start, end=end))
        self._live = {"figure": Picture(self.figure, live), "heat": Picture(self.heat, live)}
        look = {"alpha": 0.25, "facecolor": "#D55E00"}
        self._span = SpanSelector(
            axes, self._brushed, "horizontal", props=look, interactive=live, useblit=False
        )
        rows = [
            [self.window, self.min_count],
            [self.time, self.region],
            [self.technique, self.note],
        ]
        boxes = [ipywidgets.HBox(row) for row in rows]
        return ipywidgets.VBox([*boxes, *(picture.widget for picture in self._live.values())])

    def _brushed(self, low: float, high: float) -> None:
        """Select the brushed part; a click selects everything."""
        whole = self.time.min, self.time.max
        self.time.value = (max(low, whole[0]), min(high, whole[1])) if high > low else whole

    def _brush(self) -> None:
        """Mark the selected part on the heat map."""
        if not self._live["heat"].live:
            return
        whole = self.time.value == (self.time.min, self.time.max)
        visible = bool(self._span.artists[0].get_visible())
        if whole and visible:
            self._span.clear()
        elif not whole and not (visible and self._span.extents == self.time.value):
            self._span.extents = self.time.value

    def _ipython_display_(self) -> None:
        from IPython.display import display

        show: Callable[[object], object] = display
        show(self.show() if has_user() else self.figure)


# ------------------------------------------------------------------------------
# A trace's uses in memory, sorted by page: they give the working set of any part in milliseconds.


WORKERS = 2


class UsesByPage:
    """The uses of a trace's pages, 4 bytes each: sorted at first, then queried often.

    Parameters
    ----------
    start, end : str, int or None
        Read these rounds only.

    Attributes
    ----------
    frames : ndarray of uint64, shape (pages,)
        The pages, ascending.
    n_rounds, first : int
        Rounds that were read, and the number of the first one in the trace.
    t_ns : ndarray of int64, shape (n_rounds + 1,)
        The times between rounds.
    timeline : timeline.Timeline
        The same, with what windows need to know.
    """

    def __init__(
        self, trace: Trace, start: str | int | None = None, end: str | int | None = None
    ) -> None:
        part = select(trace, start=start, end=end)
        refs, self.first, self.n_rounds = part.refs, part.first, part.refs.n_rounds
        self.timeline, self.t_ns = part.timeline, part.timeline.t_ns
        self._starts, self._rounds = refs.starts, refs.round.astype(np.int32)
        self.frames = refs.gfn[self._starts[:-1]]
        cuts = [len(refs) * i // WORKERS for i in range(WORKERS + 1)]
        cuts = np.searchsorted(self._starts[:-1], cuts).tolist()
        self._shares = list(zip(cuts[:-1], cuts[1:], strict=True))

    def __len__(self) -> int:
        return len(self._rounds)

    def chosen(self, frames: Gfns | None = None) -> Bools:
        """Return for each page whether it is one of `frames`; None: every page is."""
        if frames is None:
            return np.ones(len(self.frames), bool)
        return np.isin(self.frames, frames)

    def part(self, span: tuple[int, int]) -> Timeline:
        """Return the timeline of the rounds from ``span[0]`` to before ``span[1]``."""
        first, stop = span
        t_ns, used = self.timeline.t_ns[first : stop + 1], self.timeline.used[first:stop]
        return replace(self.timeline, t_ns=t_ns, used=used)

    def sizes(self, over: Windows, min_count: int, span: tuple[int, int], chosen: Bools) -> Ints:
        """Return the working set of each window in pages, as `workingset.estimate` has them.

        Parameters
        ----------
        over : timeline.Windows
            Windows over the rounds of `span`.
        min_count : int
            The threshold m.
        span : (int, int)
            The first round looked at, and the one after the last; windows stay within.
        chosen : ndarray of bool, shape (pages,)
            As `UsesByPage.chosen` returns.
        """
        from pmlkit.kernels.loops import slide_pages

        how = over.enter, over.leave, min_count
        steps = self._sum(slide_pages, chosen, span, how, np.zeros(len(over) + 1, np.int32))
        return np.cumsum(steps, dtype=np.int64)[:-1]

    def means(
        self,
        min_count: int,
        span: tuple[int, int],
        chosen: Bools,
        axis: Axis,
        sizes: Ints,
    ) -> Floats:
        """Return the mean of W(t, T) over the time of full windows, for several T at once.

        It is as ``workingset.surface`` has it; NaN at 0, and where no window is full.

        Parameters
        ----------
        axis : timeline.Axis
            Where the rounds of `span` end.
        sizes : array of int64
            The T, on that axis, ascending.
        """
        from pmlkit.kernels.loops import sum_pages

        how = np.append(axis.at, axis.end), sizes, min_count
        total = self._sum(sum_pages, chosen, span, how, np.zeros(len(sizes)))
        begin = np.maximum(sizes, axis.at[0] if len(axis) else 0)
        there = (sizes > 0) & (sizes <= axis.length)
        return np.where(there, total, np.nan) / np.where(there, axis.end - begin, 1)

    def _sum(
        self,
        kernel: Callable[..., None],
        chosen: Bools,
        span: tuple[int, int],
        how: tuple[Array, Array, int],
        zeros: Array,
    ) -> Array:
        """Run the kernel on each worker's share of the pages, and add up the results."""

        def part(pages: tuple[int, int]) -> Array:
            total = zeros.copy()
            kernel(self._starts, self._rounds, chosen, pages, span, *how, total)
            return total

        with ThreadPoolExecutor(WORKERS) as pool:
            return sum(pool.map(part, self._shares), zeros)


def windows(n_rounds: int) -> list[int]:
    """Return the windows to choose from, in (usual) rounds: 1, 2, 5, 10 and so on, up to all."""
    ladder = (step * 10**power for power in range(18) for step in (1, 2, 5))
    return [1, *(k for k in ladder if 1 < k < n_rounds), *([n_rounds] if n_rounds > 1 else [])]
