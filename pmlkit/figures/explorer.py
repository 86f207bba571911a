# SPDX-License-Identifier: Apache-2.0
"""The figure that an explorer redraws: W(t, T) over time and, beside it, its mean against T.

It is laid out once, and then only its numbers change: layout takes longer than drawing. Long lines
are reduced to their extremes, which look the same on a screen.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import MaxNLocator, NullLocator

from pmlkit.figures.axes import mark_phases, plain_log, seconds_axis
from pmlkit.figures.style import COLORS, Figure, new_figure, styled

if TYPE_CHECKING:
    import pandas as pd
    from ipympl.backend_nbagg import Canvas
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from pmlkit.trace.reader import Trace

__all__ = ["Lines", "Picture", "still", "thin"]

POINTS = 600  # pieces of a line: about a screen's columns
DPI = 120
SPACE = {"left": 0.075, "right": 0.985, "bottom": 0.19, "top": 0.95, "wspace": 0.24}


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


class Lines:
    """The figure; `show` changes its numbers.

    Parameters
    ----------
    trace : Trace
    name : str
        What the black line counts: "used", or "logged" of a PML log.
    windows : ndarray of float, shape (windows,)
        Each T that the right half shows, in `unit`.
    unit : str
        "s", or "rounds".

    Attributes
    ----------
    figure : Figure
        Its `data`: ``wss`` (``t_ns``, ``pages``, ``full``), ``mean`` (``rounds``, ``asked_ns``,
        ``pages``) and, with a technique, ``technique`` (``t_ns``, ``pages``). Windows that are not
        full, cut short by the start, are drawn thin and dotted.
    """

    @styled
    def __init__(self, trace: Trace, name: str, windows: np.ndarray, unit: str) -> None:
        self._mib = trace.meta.domain["page_size"] / (1 << 20)  # of a page
        self.figure: Figure = new_figure(2, 2.5, {})
        self.figure.set_layout_engine("none")
        self.figure.set_dpi(DPI)
        self._over_time, against = self.figure.subplots(
            1, 2, width_ratios=[2, 1], gridspec_kw=SPACE
        )
        seconds_axis(self._over_time, 0, trace.duration_ns, trace)
        mark_phases(self._over_time, trace, shade=True, labels=False)
        black, other = {"color": COLORS["black"]}, {"color": COLORS["vermilion"], "ls": (0, (4, 1))}
        (self._line,) = self._over_time.plot([], [], **black, label=name)
        (self._estimate,) = self._over_time.plot([], [], **other, marker=".", ms=3)
        (self._cut,) = self._over_time.plot([], [], color="#8E8E8E", lw=0.6, ls=":", label="_none")
        (self._curve,) = against.plot(windows, np.full(len(windows), np.nan), **black)
        (self._mark,) = against.plot([], [], **black, marker="o", ms=4, ls="none")
        against.set(xscale="log", xlabel=f"T ({unit})", ylabel="mean of W(t, T) (MiB)")
        against.set_xlim(windows[0] / 1.3, windows[-1] * 1.3)
        plain_log(against.xaxis)
        against.xaxis.set_minor_locator(NullLocator())
        for axes, left in ((self._over_time, -0.085), (against, -0.2)):
            # Their places are fixed: computing them takes longer than drawing.
            axes.xaxis.set_label_coords(0.5, -0.13)
            axes.yaxis.set_label_coords(left, 0.5)
            axes.yaxis.set_major_locator(MaxNLocator(4))
        self._over_time.xaxis.set_major_locator(MaxNLocator(6))
        self._against, self._windows = against, windows

    def show(
        self,
        window: str | int,
        at: float,
        wss: pd.DataFrame,
        mean: pd.DataFrame,
        technique: tuple[str, pd.DataFrame] | None = None,
    ) -> None:
        """Change the figure's numbers, without drawing.

        Parameters
        ----------
        window : str
            T as text.
        at : float
            T in the unit of the right half.
        wss, mean : DataFrame
            What becomes `Figure.data`.
        technique : (str, DataFrame), optional
            Its name and estimates.
        """
        name, estimates = technique or ("", wss[:0])
        self.figure.data = {"wss": wss, "mean": mean} | (
            {"technique": estimates} if technique else {}
        )
        full = wss["full"].astype(bool)
        tops = [self._set(self._line, wss[full]), self._set(self._cut, wss[~full])]
        tops += [self._set(self._estimate, estimates), 1 / 256 if len(wss) else 1]
        self._over_time.set_ylim(0, max(tops) * 1.08)
        self._over_time.set_ylabel(f"W(t, {window}) (MiB)")
        if len(wss):
            low = wss["t_ns"].iloc[0] - (wss["t_ns"].iloc[1:2].sum() - wss["t_ns"].iloc[0])
            last = max(wss["t_ns"].iloc[-1], low + 1)
            self._over_time.set_xlim(max(low, 0) / 1e9, last / 1e9)
        self._legend(name)
        sizes = mean["pages"].to_numpy() * self._mib
        self._curve.set_ydata(sizes)
        self._mark.set_data([at], sizes[self._windows == at])
        self._against.set_ylim(0, max(np.nanmax(sizes, initial=0), 1 / 256) * 1.08)

    def _set(self, line: Line2D, table: pd.DataFrame) -> float:
        """Set a line's data from a table; return its maximum in MiB."""
        table = table.dropna()
        t, y = table["t_ns"].to_numpy() / 1e9, table["pages"].to_numpy() * self._mib
        kept = thin(y)
        line.set_data(t[kept], y[kept])
        return float(y.max(initial=0))

    def _legend(self, name: str) -> None:
        if self._estimate.get_label() == name and self._over_time.get_legend():
            return
        self._estimate.set_label(name or "_none")
        self._over_time.legend(loc="lower left", ncols=2, fontsize=7, frameon=False)


@styled
def still(figure: Figure) -> tuple[Figure, Axes]:
    """Return a bitmap of a figure with axes over it: a heat map is slow to draw again.

    Returns
    -------
    Figure
        The bitmap, with the same `data` and `caption`.
    matplotlib.axes.Axes
        Invisible axes over the first axes of `figure`, with its x limits.
    """
    figure.set_dpi(2 * DPI)  # for screens with small pixels
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = figure.get_size_inches().tolist()
    copy = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(copy)
    copy.data, copy.caption = figure.data, figure.caption
    behind = copy.add_axes((0, 0, 1, 1))
    behind.imshow(np.asarray(canvas.buffer_rgba()), aspect="auto", interpolation="antialiased")
    behind.set_axis_off()
    over = copy.add_axes(figure.axes[0].get_position().bounds, xlim=figure.axes[0].get_xlim())
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
            # Drawn at once: the browser's own request takes longer, and the browser makes none
            # while it waits for another picture.
            canvas.draw()
        else:
            png = io.BytesIO()
            canvas.print_png(png)
            self.widget.value = png.getvalue()


def _canvas(figure: Figure) -> Canvas:
    """Give the figure an ipympl canvas, without pyplot and its global list of figures."""
    from ipympl.backend_nbagg import Canvas, FigureManager

    canvas = Canvas(figure)
    FigureManager(canvas, 0)
    canvas.toolbar_visible = canvas.header_visible = canvas.footer_visible = False
    canvas.resizable = False
    return canvas
