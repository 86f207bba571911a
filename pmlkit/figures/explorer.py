# SPDX-License-Identifier: Apache-2.0
"""The figure that an explorer redraws: W(t, T) over time and, to its right, its mean against T.

It is laid out once, and then only its numbers change: layout takes longer than drawing. Long lines
are reduced to their extremes, which look the same on a screen.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import MaxNLocator, NullLocator
from PIL import Image

from pmlkit.figures.axes import mark_phases, plain_log, seconds_axis
from pmlkit.figures.heat import heat_map
from pmlkit.figures.style import COLORS, Figure, new_figure, styled
from pmlkit.trace.schema import MIB_PAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ipympl.backend_nbagg import Canvas
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from pmlkit.trace.reader import Trace

__all__ = ["Lines", "Picture", "View", "maps", "thin"]

POINTS = 600  # pieces of a line: about a screen's columns
DPI = 120
SPACE = {"left": 0.075, "right": 0.985, "bottom": 0.19, "top": 0.91, "wspace": 0.24}
TICKS = 6  # on the time axes, at most
RIGHT_GAP = 0.085  # between the halves, of the width


def thin(y: np.ndarray, points: int = POINTS) -> np.ndarray:
    """Choose indices of a line that keep its look: the minimum and maximum of each piece.

    Parameters
    ----------
    y : ndarray of float, shape (n,)
    points : int
        Number of pieces, if each has more than two values.

    Returns
    -------
    ndarray of int64
        Ascending; with the first and the last one.
    """
    n = len(y)
    if n <= 2 * points:
        return np.arange(n)
    size = n // points
    pieces = y[: points * size].reshape(points, size)
    starts = np.arange(points) * size
    ends = starts + pieces.argmin(axis=1), starts + pieces.argmax(axis=1)
    return np.unique(np.concatenate((*ends, [0], np.arange(points * size, n), [n - 1])))


@dataclass(frozen=True)
class View:
    """What an explorer's figure shows.

    Attributes
    ----------
    window : str
        T as text.
    at : float
        T in the unit of the right half.
    span_s : (float, float)
        The limits of the time axis.
    cut_s : list of (float, float)
        For each recording from where to where no window is full.
    wss, mean : dict of str to DataFrame
        By label: ``t_ns``, ``pages``, ``full``; and ``rounds``, ``asked_ns``, ``pages``.
    technique : (str, DataFrame, float), optional
        Its name, its estimates (``t_ns``, ``pages``), and their mean, pages.
    difference : DataFrame, optional
        The difference of two recordings: ``t_ns``, ``pages``.
    message : str
        The reason if there is no line.
    """

    window: str
    at: float
    span_s: tuple[float, float]
    cut_s: Sequence[tuple[float, float]]
    wss: Mapping[str, pd.DataFrame]
    mean: Mapping[str, pd.DataFrame]
    technique: tuple[str, pd.DataFrame, float] | None = None
    difference: pd.DataFrame | None = None
    message: str = ""

    @property
    def data(self) -> dict[str, pd.DataFrame]:
        """The tables of the figure; of several recordings with a column ``trace``."""
        tables = {"wss": _stacked(self.wss), "mean": _stacked(self.mean)}
        if self.technique is not None:
            tables["technique"] = self.technique[1]
        if self.difference is not None:
            tables["difference"] = self.difference
        return tables


def _stacked(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    if len(tables) == 1:
        return next(iter(tables.values()))
    named = [table.assign(trace=label) for label, table in tables.items()]
    table = pd.concat(named, ignore_index=True)
    return table[["trace", *(name for name in table if name != "trace")]]


NO_ESTIMATE = pd.DataFrame({"t_ns": [], "pages": []})
CUT = "no full window yet (t < T)"
STYLES: tuple[dict[str, Any], ...] = (
    {"color": COLORS["black"]},
    {"color": COLORS["blue"], "ls": (0, (6, 1))},
    {"color": COLORS["green"], "ls": (0, (3, 1))},
    {"color": COLORS["purple"], "ls": (0, (1, 1))},
)


class Lines:
    """The figure; `show` changes its numbers.

    Parameters
    ----------
    traces : dict of str to Trace
        A line each.
    windows : ndarray of float, shape (windows,)
        Each T that the right half shows, in `unit`.
    unit : str
        "s", or "rounds".

    Attributes
    ----------
    figure : Figure
        Its `data` is as in `View.data`. Windows that are not full, cut short by the start, are
        drawn thin and dotted on grey.
    """

    @styled
    def __init__(self, traces: Mapping[str, Trace], windows: np.ndarray, unit: str) -> None:
        trace = next(iter(traces.values()))
        self._mib = {
            label: one.meta.domain["page_size"] / (1 << 20) for label, one in traces.items()
        }
        self.figure: Figure = new_figure(2, 2.6, {})
        self.figure.set_layout_engine("none")
        self.figure.set_dpi(DPI)
        self._over_time, against = self.figure.subplots(
            1, 2, width_ratios=[2, 1], gridspec_kw=SPACE
        )
        seconds_axis(self._over_time, 0, max(one.duration_ns for one in traces.values()), trace)
        if len(traces) == 1:
            mark_phases(self._over_time, trace, shade=True, labels=False)
        used = "used" if trace.meta.kind == "access" else "logged"
        names = {label: used if len(traces) == 1 else label for label in traces}
        looks = dict(zip(traces, STYLES, strict=False))
        self._sizes, self._cuts, self._curves, self._marks = {}, {}, {}, {}
        grey = {"color": "#8E8E8E", "lw": 0.6, "ls": ":", "label": "_none"}
        for label, look in looks.items():
            (self._sizes[label],) = self._over_time.plot([], [], **look, label=names[label])
            (self._cuts[label],) = self._over_time.plot([], [], **grey)
            (self._curves[label],) = against.plot(windows, np.full(len(windows), np.nan), **look)
            mark = {"marker": "o", "ms": 4, "ls": "none", "color": look["color"]}
            (self._marks[label],) = against.plot([], [], **mark)
        other = {"color": COLORS["vermilion"], "ls": (0, (4, 1)), "marker": ".", "ms": 3}
        (self._estimate,) = self._over_time.plot([], [], **other)
        (self._mean,) = against.plot([], [], color=COLORS["vermilion"], marker="D", ms=4, ls="none")
        (self._gap,) = self._over_time.plot([], [], color=COLORS["orange"], lw=0.9, label="_none")
        self._zero = self._over_time.axhline(0, color="#8E8E8E", lw=0.5, visible=False)
        # Hatched, as phases are grey areas, too.
        self._early = self._over_time.axvspan(
            0, 0, facecolor="none", edgecolor="#BEBEBE", hatch="////", lw=0, zorder=0.5, label=CUT
        )
        self._message = self._over_time.text(
            0.5,
            0.5,
            "",
            transform=self._over_time.transAxes,
            ha="center",
            va="center",
            wrap=True,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )
        against.set(xscale="log", xlabel=f"T ({unit})", ylabel="mean of W(t, T) (MiB)")
        against.set_xlim(windows[0] / 1.3, windows[-1] * 1.3)
        plain_log(against.xaxis)
        against.xaxis.set_minor_locator(NullLocator())
        for axes, left in ((self._over_time, -0.085), (against, -0.2)):
            # Their places are fixed: computing them takes longer than drawing.
            axes.xaxis.set_label_coords(0.5, -0.13)
            axes.yaxis.set_label_coords(left, 0.5)
            axes.yaxis.set_major_locator(MaxNLocator(4))
        self._over_time.xaxis.set_major_locator(MaxNLocator(TICKS))
        self._against, self._windows = against, windows
        self._named: tuple[str, bool] | None = None

    def align(self, over: tuple[float, float]) -> None:
        """Put the time axis over that of the heat maps: left and right, shares of the width."""
        left, right = over
        old = self._over_time.get_position()
        self._over_time.set_position((left, old.y0, right - left, old.height))
        self._over_time.yaxis.set_label_coords((0.022 - left) / (right - left), 0.5)
        begin = right + RIGHT_GAP
        self._against.set_position((begin, old.y0, SPACE["right"] - begin, old.height))
        self._against.yaxis.set_label_coords(-0.055 / (SPACE["right"] - begin), 0.5)

    def show(self, view: View) -> None:
        """Change the figure's numbers, without drawing."""
        self.figure.data = view.data
        tops = [1 / MIB_PAGES if any(len(table) for table in view.wss.values()) else 1]
        for label, table in view.wss.items():
            full, mib = table["full"].astype(bool), self._mib[label]
            tops += [_set(self._sizes[label], table[full], mib)]
            tops += [_set(self._cuts[label], table[~full], mib)]
        name, estimates, mean = view.technique or ("", NO_ESTIMATE, np.nan)
        mib = next(iter(self._mib.values()))
        for artist in (self._estimate, self._mean):
            artist.set_visible(view.technique is not None)
        tops.append(_set(self._estimate, estimates, mib))
        low = self._show_difference(view.difference, mib)
        self._over_time.set_ylim(1.08 * low, max(tops) * 1.08)
        self._over_time.set_ylabel(f"W(t, {view.window}) (MiB)")
        self._over_time.set_xlim(*view.span_s)
        self._show_early(view)
        self._message.set_text(view.message)
        self._legend(name, view)
        highest = [np.nanmax(self._show_mean(view, label), initial=0) for label in view.mean]
        self._mean.set_data([view.at], [mean * mib])
        self._against.set_ylim(0, max(*highest, np.nan_to_num(mean) * mib, 1 / MIB_PAGES) * 1.08)

    def _show_mean(self, view: View, label: str) -> np.ndarray:
        sizes = view.mean[label]["pages"].to_numpy() * self._mib[label]
        self._curves[label].set_ydata(sizes)
        self._marks[label].set_data([view.at], sizes[self._windows == view.at])
        return sizes

    def _show_difference(self, table: pd.DataFrame | None, mib: float) -> float:
        """Draw it; return its minimum, or 0."""
        for artist in (self._zero, self._gap):  # what is not visible takes no time to draw
            artist.set_visible(table is not None)
        if table is None:
            return 0.0
        _set(self._gap, table, mib)
        return min(float(table["pages"].min()) * mib, 0.0) if len(table) else 0.0

    def _show_early(self, view: View) -> None:
        """Mark from where to where no recording has a full window."""
        start, end = min(low for low, _ in view.cut_s), min(high for _, high in view.cut_s)
        self._early.set_x(start)
        self._early.set_width(max(end - start, 0.0))

    def _legend(self, name: str, view: View) -> None:
        two = view.difference is not None
        if self._named == (name, two):
            return
        self._named = name, two
        self._estimate.set_label(name or "_none")
        self._gap.set_label(" less ".join(reversed(list(view.wss))) if two else "_none")
        place = {"loc": "lower left", "bbox_to_anchor": (-0.01, 0.99), "borderaxespad": 0.1}
        self._over_time.legend(**place, ncols=4, fontsize=7, frameon=False, columnspacing=1.2)


def _set(line: Line2D, table: pd.DataFrame, mib: float) -> float:
    """Set a line's data from a table; return its maximum in MiB."""
    table = table.dropna()
    t, y = table["t_ns"].to_numpy() / 1e9, table["pages"].to_numpy() * mib
    kept = thin(y)
    line.set_data(t[kept], y[kept])
    return float(y.max(initial=0))


# ------------------------------------------------------------------------------
# The heat maps below it.


LEAST_LEFT = 0.085  # for the labels of W
MAP_WIDTH = 0.72  # share of the figure's width; the rest is for the curve against T above


@styled
def maps(
    traces: Mapping[str, Trace], limits_ns: tuple[int, int]
) -> tuple[tuple[float, float], list[Figure], list[Axes]]:
    """Return heat maps as bitmaps, one below the other on one time axis: they are slow to draw.

    Parameters
    ----------
    traces : dict of str to Trace
    limits_ns : (int, int)
        Limits of the time axis.

    Returns
    -------
    (float, float)
        Where the time axes begin and end, shares of the width of the figure above.
    list of Figure
        The bitmaps, with the `data` and `caption` of the heat maps.
    list of matplotlib.axes.Axes
        Invisible axes over those of the heat maps, with their x limits.
    """
    drawn = []
    for label, trace in traces.items():
        start, end = limits_ns[0], min(limits_ns[1], trace.duration_ns)
        figure = heat_map(trace, 2, start=start, end=end)
        axes = figure.axes[0]
        axes.set_xlim(limits_ns[0] / 1e9, limits_ns[1] / 1e9)
        axes.xaxis.set_major_locator(MaxNLocator(TICKS))
        figure.set_layout_engine("constrained", rect=(0, 0, MAP_WIDTH, 1))
        figure.set_dpi(2 * DPI)  # for screens with small pixels
        if len(traces) > 1:
            axes.set_ylabel(f"{label}: {axes.get_ylabel()}")
            for text in [*axes.texts]:  # names of phases, for the other limits
                text.remove()
            mark_phases(axes, trace)
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()  # lays it out
        drawn.append((figure, canvas))
    boxes = [figure.axes[0].get_position() for figure, _ in drawn]
    shared = max([LEAST_LEFT, *(box.x0 for box in boxes)]), min(box.x1 for box in boxes)
    stills = [_still(*pair, shared) for pair in drawn]
    return shared, [copy for copy, _ in stills], [over for _, over in stills]


def _still(figure: Figure, canvas: Any, shared: tuple[float, float]) -> tuple[Figure, Axes]:
    """Draw a heat map with its axes at a place, and return its bitmap and axes over it."""
    figure.set_layout_engine("none")
    box = figure.axes[0].get_position()
    figure.axes[0].set_position((shared[0], box.y0, shared[1] - shared[0], box.height))
    canvas.draw()
    width, height = figure.get_size_inches().tolist()
    copy = Figure(figsize=(width * (MAP_WIDTH + 0.01), height), dpi=DPI)
    FigureCanvasAgg(copy)
    copy.data, copy.caption = figure.data, figure.caption
    behind = copy.add_axes((0, 0, 1, 1))
    pixels = np.asarray(canvas.buffer_rgba())
    behind.imshow(
        pixels[:, : round(pixels.shape[1] * (MAP_WIDTH + 0.01))],
        aspect="auto",
        interpolation="antialiased",
    )
    behind.set_axis_off()
    scale = 1 / (MAP_WIDTH + 0.01)
    place = (shared[0] * scale, box.y0, (shared[1] - shared[0]) * scale, box.height)
    over = copy.add_axes(place, xlim=figure.axes[0].get_xlim())
    over.set_axis_off()
    return copy, over


class Picture:
    """A figure as a widget: live (ipympl) or a PNG.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    live : bool
        Use ipympl.

    Attributes
    ----------
    widget : ipywidgets.Widget
    """

    def __init__(self, figure: Figure, live: bool) -> None:
        self.figure, self.live = figure, live
        if live:
            self.widget = _canvas(figure)
        else:
            import ipywidgets

            width = int(figure.get_size_inches()[0] * figure.dpi)
            self.widget = ipywidgets.Image(format="png", width=width)
            self.draw()

    def draw(self) -> None:
        """Redraw the widget."""
        canvas: Any = self.figure.canvas
        if self.live:
            # Draw at once: a request by the browser takes longer, and it makes none while it waits
            # for another picture. The browser requests the first picture itself; an earlier one
            # would confuse it.
            if not canvas.syncing_data_url:
                canvas.draw()
        else:
            png = io.BytesIO()
            canvas.print_png(png)
            self.widget.value = png.getvalue()


def _canvas(figure: Figure) -> Canvas:
    """Give the figure an ipympl canvas, without pyplot and its global list of figures."""
    from ipympl.backend_nbagg import Canvas, FigureManager

    class WholePictures(Canvas):  # type: ignore[misc] # ipympl has no types
        """Sends whole pictures, and not what differs from the previous one.

        A busy browser omits a picture if the next one comes before it is decoded. What only that
        one changed would never be seen.
        """

        _png_is_old: bool  # ipympl's

        def get_diff_image(self) -> bytes | None:
            if not self._png_is_old:
                return None
            self._png_is_old = False
            self.set_image_mode("full")
            pixels = np.asarray(self.get_renderer().buffer_rgba())
            self._last_buff = pixels.view(np.uint32).squeeze(2)  # which ipympl may send, too
            png = io.BytesIO()
            # The default level takes half as long again, and saves 5 % of the bytes.
            Image.fromarray(pixels).save(png, "png", compress_level=1)
            return png.getvalue()

    canvas = WholePictures(figure)
    FigureManager(canvas, 0)
    canvas.toolbar_visible = canvas.header_visible = canvas.footer_visible = False
    canvas.resizable = False
    return canvas
