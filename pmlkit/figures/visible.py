# SPDX-License-Identifier: Apache-2.0
"""The pages of a guest with known accesses that each method of a KVM host sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.figures.style import COLORS, new_figure, paper_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from pmlkit.figures.style import Figure, Style


__all__ = ["host_sees"]

# Panels: the column that each shows, and its title.
_PANELS = {"seen": "all", "written": "written", "read": "only read", "tables": "tables"}
_KERNELS: tuple[Style, ...] = (
    {"color": COLORS["orange"], "marker": "o", "mfc": "white", "ms": 3},
    {"color": COLORS["blue"], "marker": "s", "ms": 2.4},
)
_ROW_INCHES, _REST_INCHES = 0.19, 0.72
_ASIDE = 0.3  # between the marks of two kernels, rows
_ROOM = 1.3  # the end of a panel, relative to the truth


@paper_figure
def host_sees(ways: pd.DataFrame, columns: int = 1) -> Figure:
    """Draw how many pages of a guest each way sees, by kernel, against the truth.

    Parameters
    ----------
    ways : DataFrame
        A row for each way and kernel: ``name``, ``group``, ``kernel``; pages as medians over
        rounds: ``seen`` (in all; missing: the kernel does not have the way), ``least`` and
        ``most`` of these; ``written``, ``read``, ``tables`` (missing: the way does not tell
        which), and the bounds ``low`` and ``high`` of what was touched, if it has any. The row of
        the group "truth" has what the guest does.
    """
    truth = ways[ways["group"] == "truth"].iloc[0]
    shown = ways[ways["group"] != "truth"]
    names = list(dict.fromkeys(shown["name"]))
    places = {name: -place for place, name in enumerate(names)}
    figure = new_figure(columns, _REST_INCHES + _ROW_INCHES * len(names), {"ways": ways})
    panels = figure.subplots(1, len(_PANELS), sharey=True, width_ratios=[1.6, 1, 1, 1])
    for axes, (column, title) in zip(panels, _PANELS.items(), strict=True):
        _draw_panel(axes, shown, places, column, float(truth[column]))
        axes.set_title(title, fontsize=6.5, pad=3)
    panels[0].set_yticks(list(places.values()), names)
    panels[0].set_ylim(-len(names) + 0.4, 0.6)
    _part_groups(panels, shown, places)
    figure.supxlabel("pages in a round (vertical line: the truth)", fontsize=7)
    kernels = list(dict.fromkeys(shown["kernel"]))
    for kernel, style in zip(kernels, _KERNELS, strict=False):
        panels[0].plot([], [], ls="none", label=f"Linux {kernel}", **style)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=len(kernels), handletextpad=0.2)
    figure.caption = (
        "pages that a KVM host sees of a guest that reads 10 MiB and writes 7 MiB in each round, "
        "by method and kernel. Marks: medians of the rounds, with whiskers from the least to the "
        "most (for our reads, the bounds). Dash: the method counts pages without naming them. "
        "Cross: this kernel does not have the method. Emulated: Debian's kernels on a processor "
        "with PML in Bochs."
    )
    return figure


def _draw_panel(
    axes: Axes, shown: pd.DataFrame, places: dict[str, int], column: str, truth: float
) -> None:
    axes.axvline(truth, color=COLORS["black"], lw=0.7, zorder=1)
    kernels = list(dict.fromkeys(shown["kernel"]))
    for number, (kernel, style) in enumerate(zip(kernels, _KERNELS, strict=False)):
        rows = shown[shown["kernel"] == kernel]
        y = rows["name"].map(places) + _ASIDE * (len(kernels) - 1) / 2 - _ASIDE * number
        has_value, lacks_method = rows[column].notna(), rows["seen"].isna()
        marks: Style = {"ls": "none", "zorder": 3, "clip_on": False}
        axes.plot(rows[column][has_value].astype(float), y[has_value], **marks, **style)
        if column == "seen":
            _whiskers(axes, rows[has_value], y[has_value], style)
            axes.plot(
                0 * y[lacks_method],
                y[lacks_method],
                "x",
                ms=2.6,
                mew=0.8,
                color=style["color"],
                **marks,
            )
    counts = shown[shown[column].isna() & shown["seen"].notna()]["name"].unique()
    for name in counts:
        axes.text(
            0.5 * truth, places[name], "\N{EN DASH}", ha="center", va="center", color=COLORS["grey"]
        )
    highest = shown[["most", "high"]].max().max() if column == "seen" else 0
    axes.set_xlim(0, max(truth * _ROOM, 1.05 * highest))
    axes.set_xticks([0, truth], ["0", f"{truth:,.0f}"])
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="y")


def _whiskers(axes: Axes, rows: pd.DataFrame, y: pd.Series[float], style: Style) -> None:
    """Draw the bounds, or the range from the least to the most of the rounds."""
    low = rows["low"].fillna(rows["least"]).astype(float)
    high = rows["high"].fillna(rows["most"]).astype(float)
    axes.hlines(y, low, high, color=style["color"], lw=0.8, zorder=2)


def _part_groups(panels: list[Axes], shown: pd.DataFrame, places: dict[str, int]) -> None:
    """Draw a line between the rows of two groups."""
    firsts = shown.drop_duplicates("group")["name"].map(places).tolist()[1:]
    for axes in panels:
        for place in firsts:
            axes.axhline(place + 0.5, color=COLORS["grey"], lw=0.5, ls=(0, (2, 2)))
