# SPDX-License-Identifier: Apache-2.0
"""The figure of a batch: every technique on every recording, one number and one colour each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LogNorm

from pmlkit.style_mpl import new_figure, styled

if TYPE_CHECKING:
    import pandas as pd

    from pmlkit.compare import Comparison
    from pmlkit.style_mpl import Figure

__all__ = ["errors"]

LEAST, MOST = 0.02, 10.0  # of the working set: where the colours end
DARK = 1.0  # from this error on, letters are white


@styled
def errors(comparison: Comparison, column: str = "mae", columns: int = 2) -> Figure:
    """Draw a score of every technique on every recording: white is good, dark is bad.

    Parameters
    ----------
    comparison : pmlkit.compare.Comparison
    column : str
        Of `Comparison.scores`, a share of the working set.
    columns : {1, 2}

    Returns
    -------
    pmlkit.style_mpl.Figure
        Techniques from the least median to the largest; in grey, those that could not run.
    """
    table = _table(comparison, column)
    titles = comparison.scores.drop_duplicates("technique").set_index("technique")["title"]
    height = 1.1 + 0.155 * len(table)
    figure = new_figure(columns, height, {"errors": table.reset_index()})
    figure.get_layout_engine().set(w_pad=0.07, h_pad=0.05)  # type: ignore[call-arg, union-attr]  # labels are a little wider in print
    axes = figure.subplots()
    values = np.ma.masked_invalid(table.to_numpy(float))
    shades = "YlGnBu"
    axes.pcolormesh(
        np.arange(table.shape[1] + 1) - 0.5, np.arange(len(table) + 1) - 0.5,
        np.clip(values, LEAST, MOST), cmap=shades, norm=LogNorm(LEAST, MOST),
        edgecolors="white", linewidth=0.4, rasterized=True,
    )  # fmt: skip
    axes.set_facecolor("#DDDDDD")
    for (row, place), value in np.ndenumerate(values.filled(np.nan)):
        if np.isfinite(value):
            shade = "white" if value >= DARK else "black"
            axes.text(place, row, _short(value), ha="center", va="center", size=4.6, color=shade)
    axes.axvline(0.5, color="black", lw=0.8)
    axes.set_xticks(range(table.shape[1]), table.columns, rotation=60, ha="right", size=6)
    axes.set_yticks(range(len(table)), titles[table.index], size=6)
    axes.tick_params(length=0)
    axes.set_ylim(len(table) - 0.5, -0.5)
    figure.caption = (
        f"Errors ({column.upper()}) in percent of the working set, T = {comparison.plan.window}, "
        "and their medians, by which the techniques are sorted. In grey: no estimate."
    )
    return figure


def _table(comparison: Comparison, column: str) -> pd.DataFrame:
    """Return techniques against recordings, the median first; by median, silent ones last."""
    wide = comparison.scores.pivot(index="technique", columns="trace", values=column)
    wide = wide.reindex(columns=comparison.traces).astype(float)
    wide.insert(0, "median", wide.median(axis=1))
    return wide.sort_values("median", kind="stable")


def _short(share: float) -> str:
    percent = share * 100
    return f"{percent:.1f}" if percent < 9.95 else f"{percent:.0f}" if percent < 999.5 else ">999"
