# SPDX-License-Identifier: Apache-2.0
"""The picture of a page walk, drawn by hand: what leads to what, and which of it is logged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from pmlkit.style_mpl import COLORS

if TYPE_CHECKING:
    from typing import Any

    from matplotlib.axes import Axes


__all__ = ["draw_walk"]


def draw_walk(axes: Axes) -> None:
    """Draw a walk to a page that is written and one that is read; red is in the log."""
    axes.set(xlim=(0, 10), ylim=(0, 10))
    axes.axis("off")
    names = ["root", "directory", "leaf table"]
    for place, name in enumerate(names):
        _box(axes, 1.2 + 0.9 * place, 8.6 - 2.2 * place, name, COLORS["vermilion"])
    for place in range(2):
        x, y = 3.2 + 0.9 * place, 8.0 - 2.2 * place
        _arrow(axes, (x, y), (x + 0.6, y - 0.8))
    _box(axes, 0.9, 2.0, "page, written", COLORS["vermilion"])
    _box(axes, 5.9, 2.0, "page, read", COLORS["blue"])
    _arrow(axes, (4.2, 3.6), (3.0, 2.8))
    _arrow(axes, (5.6, 3.6), (7.2, 2.8))
    axes.text(5, 0.6, "red: in the log    blue: not", ha="center", fontsize=6.5, color="#404040")


def _box(axes: Axes, x: float, y: float, text: str, color: str) -> None:
    width = 3.6
    shape = FancyBboxPatch(
        (x, y - 0.5), width, 1.2, boxstyle="round,pad=0.1", fc="white", ec=color, lw=1.2
    )
    axes.add_patch(shape)
    axes.text(x + width / 2, y + 0.1, text, ha="center", va="center", fontsize=6.5, color=color)


def _arrow(axes: Axes, start: Any, end: Any) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 7, "lw": 0.8, "color": "black"}
    axes.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, **style))  # type: ignore[arg-type]
