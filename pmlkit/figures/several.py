# SPDX-License-Identifier: Apache-2.0
"""Shared parts of figures of several recordings: line styles, names with warnings, captions."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pmlkit.errors import UsageError
from pmlkit.figures.axes import root_figure, seconds_axis, time_limits, time_name
from pmlkit.figures.style import COLORS
from pmlkit.several import losses, unlike

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from matplotlib.axes import Axes

    from pmlkit.figures.style import Figure, Style, Time
    from pmlkit.trace.reader import Trace

__all__ = ["STYLES", "common_axis", "finish_several", "name_lines", "styles", "titles"]

# Lines differ in more than colour: a copier prints grey.
STYLES: tuple[Style, ...] = (
    {"color": COLORS["black"], "ls": "-"},
    {"color": COLORS["vermilion"], "ls": "-"},
    {"color": COLORS["blue"], "ls": (0, (4, 1.5))},
    {"color": COLORS["green"], "ls": (0, (1, 1))},
    {"color": COLORS["purple"], "ls": (0, (5, 1, 1, 1))},
    {"color": COLORS["orange"], "ls": "-"},
)
FEW = 4  # lines that a legend within the axes names
_NAMED = ("contents", "clock")  # differences that a line's name states


def styles(names: Collection[str]) -> dict[str, Style]:
    """Return a style for each line.

    Raises
    ------
    UsageError
        If there are more lines than styles.
    """
    if len(names) > len(STYLES):
        raise UsageError(f"a figure shows up to {len(STYLES)} recordings: leave some out")
    return dict(zip(names, STYLES, strict=False))


def titles(
    traces: Mapping[str, Trace], kinds: str | int = "rwx", counts: bool = False
) -> dict[str, str]:
    """Return the names of lines: labels, and attributes that differ from most recordings.

    Parameters
    ----------
    counts : bool
        Whether uses are counted, which depend on the length of rounds.
    """
    named = (*_NAMED, "rounds") if counts else _NAMED
    warnings: dict[str, list[str]] = {label: [] for label in traces}
    for one in unlike(traces, kinds):
        usual = Counter(one.values.values()).most_common(1)[0][0]
        for label, value in one.values.items():
            if one.what in named and value != usual:
                warnings[label].append(f"rounds of {value}" if one.what == "rounds" else value)
    return {
        label: "\n".join([label, *(f"({value})" for value in values)]) if values else label
        for label, values in warnings.items()
    }


def name_lines(axes: Axes, names: Collection[str]) -> None:
    """Name the lines in a legend: where there is room, above the axes if names are long or many."""
    if len(names) <= FEW and not any("\n" in name for name in names):
        axes.legend(loc="best", handlelength=2)
        return
    handles, texts = axes.get_legend_handles_labels()
    root_figure(axes).legend(handles, texts, loc="outside upper center", ncols=2, fontsize=6.5)


def common_axis(
    axes: Axes, traces: Mapping[str, Trace], start: Time, end: Time
) -> dict[str, tuple[int, int]]:
    """Give axes a time axis for all recordings; return where each one's part starts, and ends.

    If the parts start at different times, the axis counts from the start of each.

    Returns
    -------
    dict of str to (int, int)
        The time that is drawn as 0, and the end of the part, ns.
    """
    limits = {label: time_limits(trace, start, end) for label, trace in traces.items()}
    starts = {low for low, _ in limits.values()}
    together = len(starts) == 1
    zeros = {label: 0 if together else low for label, (low, _) in limits.items()}
    longest = max(high - zeros[label] for label, (_, high) in limits.items())
    first, names = next(iter(traces.values())), {time_name(trace) for trace in traces.values()}
    seconds_axis(axes, min(starts) if together else 0, longest, first)
    name = names.pop() if len(names) == 1 else "time (s)"
    axes.set_xlabel(name if together else f"{name.removesuffix(' (s)')} since the part's start (s)")
    return {label: (zeros[label], high) for label, (_, high) in limits.items()}


def finish_several(
    figure: Figure, traces: Mapping[str, Trace], caption: str, kinds: str | int = "rwx"
) -> Figure:
    """Set the caption of a figure of several recordings, with notes on differences and losses."""
    notes = "".join(f" Note: {one}." for one in (*unlike(traces, kinds), *losses(traces)))
    figure.caption = f"{', '.join(traces)}: {caption}{notes}"
    return figure
