# SPDX-License-Identifier: Apache-2.0
"""Axes that figures share: time, sizes, addresses, phases, labels beside lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cbook import STEP_LOOKUP_MAP
from matplotlib.collections import LineCollection
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from pmlkit.selection import rounds_of, times_ns
from pmlkit.timeline import timeline
from pmlkit.trace.schema import ADDRESSES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.collections import QuadMesh
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

    from pmlkit.figures.style import Style, Time
    from pmlkit.timeline import Timeline
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Floats


__all__ = [
    "address_format",
    "address_name",
    "color_bar",
    "label_ends",
    "mark_phases",
    "name_points",
    "pages_name",
    "panel_letter",
    "plain_log",
    "root_figure",
    "write_empty",
    "seconds_axis",
    "time_limits",
    "time_name",
    "timeline_between",
]


def root_figure(axes: Axes) -> Figure:
    """Return the figure that axes are in."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def plain_log(*logarithmic: Axis) -> None:
    """Label logarithmic axes with plain numbers (0.1, 1, 10); a short one also with 2 and 5."""
    for axis in logarithmic:
        low, high = axis.get_view_interval()
        short = low > 0 and high / low < 200
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if short else (1,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
        if short:
            axis.set_minor_locator(NullLocator())
        # Empty labels take time to lay out; labels that are off do not.
        axis.set_tick_params(which="minor", label1On=False)


def color_bar(axes: Axes, mesh: QuadMesh, label: str) -> Colorbar:
    """Draw a narrow bar of the colours of a mesh next to its axes."""
    bar = root_figure(axes).colorbar(mesh, ax=axes, pad=0.02, fraction=0.05, aspect=30)
    bar.set_label(label)
    bar.outline.set_linewidth(0.4)
    return bar


def write_empty(axes: Axes, text: str) -> None:
    """Write a text into axes without data (a logarithmic axis fails without)."""
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#6E6E6E")


def panel_letter(axes: Axes, letter: str) -> None:
    """Mark a panel, (a), (b), outside its upper left corner."""
    axes.set_title(f"({letter})", loc="left")


UNMARKED = "start"  # the first phase of every recording
PHASE_POINTS = 6.5  # size of the names of phases
SLANTED_INCHES = 0.17  # between two slanted names: a line's height over the sine of the slant


def address_name(trace: Trace) -> str:
    """Return the kind of address: ``"guest-physical address"``, virtual or block."""
    return f"{trace.meta.domain.get('address', ADDRESSES[0])} address"


def pages_name(trace: Trace) -> str:
    """Return what the trace's frames are: guest frames, or pages of a program or a disk."""
    return _PAGES[trace.meta.domain.get("address", ADDRESSES[0])]


_PAGES = {
    "guest-physical": "guest frames",
    "virtual": "pages of the program",
    "block": "pages of the disk",
}
_HEXADECIMAL = 16 << 40  # higher addresses are hexadecimal: GiB would take as many digits
_COARSE = 16 << 20  # bytes of a row that GiB with few digits can tell apart


def address_format(
    trace: Trace, highest: int, row_bytes: int = _COARSE
) -> tuple[Callable[[int], str], str]:
    """Choose the labels of an axis of addresses.

    Parameters
    ----------
    trace : Trace
    highest : int
        The highest address on the axis, bytes.
    row_bytes : int
        Distance of the addresses that labels must tell apart.

    Returns
    -------
    text : callable
        Formats an address: in MiB; in GiB from 8 GiB on; in hexadecimal from 16 TiB on and if it
        is virtual, as debuggers do. Addresses of more than 64 bits are hashes that name pages: they
        are formatted as numbers of pages.
    name : str
        The axis' title, with the unit.
    """
    name = address_name(trace)
    if highest >= 1 << 64:
        return (
            lambda address: hex(address // trace.meta.domain["page_size"])
        ), "number of the page"
    if highest >= _HEXADECIMAL or name.startswith("virtual"):
        return hex, name
    coarse = highest >= 8 << 30 and row_bytes >= _COARSE
    unit, of_unit = (1 << 30, "GiB") if coarse else (1 << 20, "MiB")
    return (lambda address: _plain(address / unit)), f"{name} ({of_unit})"


def _plain(value: float) -> str:
    return f"{value:g}" if value < 1e6 else f"{value:.0f}"


def time_limits(trace: Trace, start: Time, end: Time) -> tuple[int, int]:
    """Return `start` and `end` ("2s", nanoseconds or None) in nanoseconds, within the trace."""
    (start_ns, end_ns), last = times_ns(trace, start, end), trace.duration_ns
    return start_ns or 0, last if end_ns is None else min(end_ns, last)


def timeline_between(trace: Trace, start: Time, end: Time) -> Timeline:
    """Return the timeline of the rounds between `start` and `end`."""
    first, stop = rounds_of(trace, *time_limits(trace, start, end))
    return timeline(trace, first, stop - first)


def seconds_axis(axes: Axes, start_ns: int, end_ns: int, trace: Trace | None = None) -> None:
    """Make x the time in seconds, named after the trace's clock (default: guest time)."""
    axes.set_xlim(start_ns / 1e9, max(end_ns, start_ns + 1) / 1e9)
    axes.set_xlabel("guest time (s)" if trace is None else time_name(trace))


def time_name(trace: Trace) -> str:
    """Name the time axis: guest time only if the guest's instructions are the clock."""
    physical = trace.meta.domain.get("address", ADDRESSES[0]) == ADDRESSES[0]
    return "guest time (s)" if physical and trace.meta.clock["kind"] == "icount" else "time (s)"


def mark_phases(axes: Axes, trace: Trace, shade: bool = False, labels: bool = True) -> None:
    """Mark the starts of the trace's phases, and name them above the axes.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        With seconds on x, and its limits set.
    trace : Trace
        A phase lasts until the next one.
    shade : bool, default False
        Shade every second phase rather than draw a line at each start.
    labels : bool, default True
        Write the names. Those that find no room go to `Figure.unnamed_phases`.

    A trace whose workload marks no phase has no marks.
    """
    phases = trace.phases
    if phases["name"].tolist() == [UNMARKED]:
        return
    low, high = axes.get_xlim()
    edges = np.append(phases["t_ns"].to_numpy(), trace.duration_ns) / 1e9
    edges = np.clip(edges, low, high)
    for index, edge in enumerate(edges[:-1]):
        if not shade and low < edge < high:
            # White below black is visible on dark cells, too.
            axes.axvline(edge, color="white", lw=0.7, zorder=3)
            axes.axvline(edge, color="black", lw=0.6, ls=(0, (2, 2)), zorder=3)
        elif shade and index % 2 == 0 and phases["name"][index]:  # a gap has no name
            axes.axvspan(edge, edges[index + 1], color="#EFEFEF", lw=0, zorder=0)
    if labels and len(phases):
        _label_phases(axes, list(phases["name"]), edges)


def _label_phases(axes: Axes, names: Sequence[str], edges: Floats) -> None:
    low, high = axes.get_xlim()
    inches = root_figure(axes).get_size_inches()[0] * 0.76  # approximate width without the labels
    visible = [i for i, name in enumerate(names) if name and edges[i] < edges[i + 1]]
    names = [names[i] for i in visible]
    centres = ((edges[:-1] + edges[1:]) / 2)[visible]
    widths = (np.diff(edges) / (high - low) * inches)[visible]
    needed = np.array([_text_inches(name) for name in names])
    between = np.diff(centres) / (high - low) * inches
    if np.all(between >= (needed[1:] + needed[:-1]) / 2):
        for name, centre in zip(names, centres, strict=True):
            _above(axes, centre, name)
        return
    # A slanted name needs a line's height. If there is no room for all, longer phases win.
    named = _spaced(centres, widths, SLANTED_INCHES * (high - low) / inches)
    for index in named:
        _above(axes, centres[index], names[index], slanted=True)
    left_out = [name for i, name in enumerate(names) if i not in named]
    vars(root_figure(axes)).setdefault("unnamed_phases", []).extend(left_out)


def _text_inches(text: str) -> float:
    return (len(text) * 0.56 + 0.8) * PHASE_POINTS / 72


def _above(axes: Axes, x: float, text: str, slanted: bool = False) -> None:
    axes.text(
        x, 1.02, text, transform=axes.get_xaxis_transform(), color="#404040", fontsize=PHASE_POINTS,
        ha="left" if slanted else "center", va="bottom", clip_on=False,
        rotation=35 if slanted else None, rotation_mode="anchor" if slanted else None,
    )  # fmt: skip


def _spaced(centres: Floats, widths: Floats, distance: float) -> list[int]:
    """Choose indices, the widest first, so that no two centres are closer than `distance`."""
    chosen: list[int] = []
    for index in np.argsort(-widths, kind="stable"):
        if widths[index] > 0 and all(abs(centres[index] - centres[k]) >= distance for k in chosen):
            chosen.append(int(index))
    return sorted(chosen)


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, Style]]) -> None:
    """Write each line's name at its right end, with a sample of the line; none overlap.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        With its limits set.
    ends : list of (float, str, dict)
        The line's last y, its name, and its style: ``color`` and ``ls``.
    """
    low, high = axes.get_ylim()
    width, full_height = root_figure(axes).get_size_inches()
    inches = full_height * 0.7 * axes.get_position().height / 0.77
    height = np.array([1 + text.count("\n") for _, text, _ in ends]) * 8.5 / 72 / inches
    wanted = np.array([(y - low) / (high - low) for y, _, _ in ends])
    sample = 0.12 / (width * 0.76)
    for (_, text, style), y in zip(ends, _spread(wanted, height), strict=True):
        axes.plot([1.01, 1.01 + sample], [y, y], transform=axes.transAxes, clip_on=False, **style)
        axes.text(
            1.025 + sample, y, text, transform=axes.transAxes, color=style["color"], va="center",
            fontsize=7, linespacing=1.05, clip_on=False,
        )  # fmt: skip


def _spread(wanted: Floats, height: Floats) -> Floats:
    """Move labels apart as little as possible, within 0 to 1; keep the order of `wanted`."""
    order = np.argsort(wanted, kind="stable")
    placed = np.clip(wanted, 0, 1)[order]
    half = height[order] / 2
    for index in range(1, len(placed)):
        least = placed[index - 1] + half[index - 1] + half[index]
        placed[index] = max(placed[index], least)
    for index in range(len(placed) - 1, -1, -1):
        above = placed[index + 1] - half[index + 1] if index + 1 < len(placed) else 1 + half[index]
        placed[index] = min(placed[index], above - half[index])
    result = np.empty_like(placed)
    result[order] = placed
    return result


def name_points(axes: Axes, x: Floats, y: Floats, names: Sequence[str], size: float = 5.5) -> None:
    """Write names next to points, each at the nearest place free of names, marks and lines.

    A name that is far from its point has a thin line to it, which crosses no other name.

    Parameters
    ----------
    axes : Axes
        Axes whose figure is complete except for the names, which depend on the layout.
    x, y : array of float, shape (points,)
    names : sequence of str, shape (points,)
    size : float
        Size of the letters, points.
    """
    figure = root_figure(axes)
    figure.draw_without_rendering()
    scale = 72 / figure.dpi
    spots = axes.transData.transform(np.c_[x, y]) * scale
    frame = axes.get_window_extent().extents * scale  # type: ignore[operator]
    taken = np.vstack((_around(spots, 2), _obstacles(axes, scale)))
    named = np.zeros((0, 4))
    for index in np.argsort(-spots[:, 0]):  # from the right, where space is scarcest
        width, height = 0.65 * size * len(names[index]), 1.35 * size
        spot = spots[index]
        boxes = [(shift, _moved(spot, shift, width, height)) for shift in _SHIFTS]
        costs = [
            _cost(shift, box, taken, frame) + 1e3 * _crossed(_leader(spot, shift, box), named)
            for shift, box in boxes
        ]
        shift, box = boxes[int(np.argmin(costs))]
        taken = np.vstack((taken, box, _around(_leader(spot, shift, box), 0.5)))
        named = np.vstack((named, box))
        far = np.hypot(*shift) > _FAR
        name = axes.annotate(
            names[index], (x[index], y[index]),
            ((box[0] + box[2]) / 2 - spots[index, 0], (box[1] + box[3]) / 2 - spots[index, 1]),
            textcoords="offset points", fontsize=size, ha="center", va="center",
            arrowprops={"arrowstyle": "-", "lw": 0.3, "color": "#6E6E6E", "shrinkB": 2}
            if far else None,
        )  # fmt: skip
        name.set_in_layout(False)  # its place was chosen in the layout without it


_FAR = 8  # points from a name to its point, beyond which a line joins the two
# Offsets of a name from its point (points right, up), the nearest first.
_SHIFTS = [(4, 0), (-4, 0), (0, 5), (0, -5)] + [
    (round(r * np.cos(a), 1), round(r * np.sin(a), 1))
    for r in (6, 10, 15, 21, 28, 36, 45, 55, 66)
    for a in np.arange(0, 2 * np.pi, np.pi / 8)
]


def _obstacles(axes: Axes, scale: float) -> Floats:
    """Return boxes around the marks and lines in axes: shape (boxes, 4), points."""
    boxes = [np.zeros((0, 4))]
    for line in axes.lines:
        data = np.asarray(line.get_xydata(), float).reshape(-1, 2)
        drawn = np.column_stack(STEP_LOOKUP_MAP[line.get_drawstyle()](*data.T))
        path = line.get_transform().transform(drawn) * scale
        joined = line.get_linestyle() not in ("None", "", " ")
        boxes.append(_around(_along(path), 0.8) if joined else _around(path, 2))
    for bars in (c for c in axes.collections if isinstance(c, LineCollection)):
        for segment in bars.get_segments():
            path = axes.transData.transform(np.asarray(segment, float).reshape(-1, 2)) * scale
            boxes.append(_around(_along(path), 0.5))
    finite_boxes = np.vstack(boxes)
    return finite_boxes[np.isfinite(finite_boxes).all(axis=1)]


def _around(spots: Floats, half: float) -> Floats:
    return np.hstack((spots - half, spots + half))


def _along(path: Floats) -> Floats:
    """Return points on a line, 3 points apart: shape (points, 2), as `path`."""
    path = np.clip(path, -2000, 2000)
    pieces = [
        a + (b - a) * np.linspace(0, 1, int(np.hypot(*(b - a)) / 3) + 1)[:, None]
        for a, b in zip(path, path[1:], strict=False)
        if np.isfinite([a, b]).all()
    ]
    return np.vstack(pieces) if pieces else path


def _moved(
    spot: Floats, shift: tuple[float, float], width: float, height: float
) -> tuple[float, float, float, float]:
    """Return the box of a shifted name: its nearer edge, or its middle, is at the offset."""
    right, up = shift
    left = spot[0] + right - (width if right < -1 else 0 if right > 1 else width / 2)
    low = spot[1] + up - height / 2
    return left, low, left + width, low + height


def _leader(
    spot: Floats, shift: tuple[float, float], box: tuple[float, float, float, float]
) -> Floats:
    """Return points on the line from a point to its name: shape (points, 2); none if it is near."""
    if np.hypot(*shift) <= _FAR:
        return np.zeros((0, 2))
    return _along(np.array([spot, [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]]))


def _crossed(leader: Floats, named: Floats) -> int:
    """Return how many points of a line are within boxes of names."""
    low, high = named[:, None, :2], named[:, None, 2:]
    return int(((leader >= low) & (leader <= high)).all(axis=2).sum())


def _cost(
    shift: tuple[float, float],
    box: tuple[float, float, float, float],
    taken: Floats,
    frame: Floats,
) -> float:
    """Return the cost of a place: leaving the axes, then covering others, then the distance."""
    left, low, right, high = box
    across = np.minimum(right, taken[:, 2]) - np.maximum(left, taken[:, 0])
    up = np.minimum(high, taken[:, 3]) - np.maximum(low, taken[:, 1])
    covered = float((across.clip(0) * up.clip(0)).sum())
    outside = left < frame[0] or right > frame[2] or low < frame[1] or high > frame[3]
    return 1e6 * outside + 1e3 * covered + np.hypot(*shift)
