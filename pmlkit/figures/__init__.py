# SPDX-License-Identifier: Apache-2.0
"""Functions that return a matplotlib Figure, and `save`, which writes it with its data.

Modules
-------
catalogue   figures by name, as ``pmlkit plot`` draws them
style, axes sizes, fonts, colours; axes of time, pages and addresses
time, window, heat, mrc, reads, period, compare, forecast
            figures by what they show
live        a figure that grows while a guest is logged
explorer    the figure behind `pmlkit.explore`
tables      LaTeX tables with their rows as CSV
compare_tables
            tables of a comparison
"""

from typing import TYPE_CHECKING

from pmlkit.lazy import lazy

if TYPE_CHECKING:
    from pmlkit.figures.catalogue import (
        FIGURES,
        Figure,
        about,
        compare_curves,
        draw,
        harvest_costs,
        heat_map,
        hotness,
        mechanism,
        miss_ratio,
        miss_ratio_over_time,
        pml_against_all,
        reads_errors,
        reads_over_time,
        reuse_histogram,
        save,
        surface,
        table,
        wss_against_window,
        wss_by_kind,
        wss_over_time,
    )

__all__ = [
    "FIGURES",
    "Figure",
    "about",
    "compare_curves",
    "draw",
    "harvest_costs",
    "heat_map",
    "hotness",
    "mechanism",
    "miss_ratio",
    "miss_ratio_over_time",
    "pml_against_all",
    "reads_errors",
    "reads_over_time",
    "reuse_histogram",
    "save",
    "surface",
    "table",
    "wss_against_window",
    "wss_by_kind",
    "wss_over_time",
]

__getattr__ = lazy("pmlkit.figures", dict.fromkeys(__all__, "figures.catalogue"))
