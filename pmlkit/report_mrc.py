# SPDX-License-Identifier: Apache-2.0
"""Miss-ratio curves as people read them on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from pmlkit.report import console, window_notes
from pmlkit.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from pmlkit.types import Json


ROWS, COLUMNS = 12, 6


def curves(found: Mapping[str, Json], page_size: int) -> None:
    """Print curves: what they stand on, the working sets that follow, and ratios at some sizes."""

    def size(pages: float | None) -> str:
        return "never" if pages is None else format_bytes(pages * page_size)

    page = Table("", *found, box=None, pad_edge=False)
    for _ in found:
        page.columns[-1].justify = "right"
    for label, value in _LINES.items():
        page.add_row(label, *(value(curve) for curve in found.values()))  # type: ignore[no-untyped-call]
    page.add_row("memory at the knee", *(size(curve["knee_pages"]) for curve in found.values()))
    for target in next(iter(found.values()))["pages_for"]:
        sizes = (size(curve["pages_for"][target]) for curve in found.values())
        page.add_row(f"memory for a miss ratio of {target}", *sizes)
    page.add_section()
    for pages in _spread(max(curve["sizes_pages"][-1] for curve in found.values())):
        page.add_row(f"miss ratio at {size(pages)}", *(_at(c, pages) for c in found.values()))
    console().print(page)


_LINES = {
    "uses": lambda curve: f"{curve['uses']:,}",
    "pages": lambda curve: f"{curve['pages']:,}",
    "pages looked at": lambda curve: f"{curve['sampled_pages'] or curve['pages']:,}",
    "first uses": lambda curve: f"{curve['cold']:.2%}",
}


def over_time(table: pd.DataFrame, page_size: int) -> None:
    """Print the miss ratio of each window at some sizes."""
    grid = table.pivot(index="t_ns", columns="pages", values="miss_ratio")
    sizes = grid.columns  # none, of a part without rounds
    chosen = sizes[
        np.unique(np.linspace(0, max(len(sizes) - 1, 0), COLUMNS).astype(int))[: len(sizes)]
    ]
    page, full = (
        Table(
            "end", *(format_bytes(int(n) * page_size) for n in chosen), "", box=None, pad_edge=False
        ),
        dict(table.groupby("t_ns")["full"].all()),
    )
    for t_ns, row in grid[chosen].iterrows():
        ratios = ("" if np.isnan(r) else f"{r:.4f}" for r in row)
        page.add_row(f"{t_ns / 1e9:.3f} s", *ratios, "" if full[t_ns] else "cut short")  # type: ignore[operator]
    console().print(page)
    for line in window_notes(table):
        console().print(line)


def _spread(last: int) -> list[float]:
    """Return sizes that double, up to `last`."""
    doubling = [last >> shift for shift in range(ROWS)]
    return sorted({size for size in doubling if size})


def _at(curve: Json, size: float) -> str:
    place = np.searchsorted(curve["sizes_pages"], size, "right") - 1
    ratio = f"{curve['miss_ratio'][place]:.4f}"
    if curve["low"] is None:
        return ratio
    return f"{ratio} ({curve['low'][place]:.4f} to {curve['high'][place]:.4f})"
