# SPDX-License-Identifier: Apache-2.0
"""The goals and what was measured, as one figure."""

import pandas as pd

from pmlkit.figures.axes import plain_log
from pmlkit.figures.style import COLORS, new_figure, styled


@styled
def goals_figure(rows):
    """Draw how far each goal was met: 1 is the bound, beyond it is better.

    Parameters
    ----------
    rows : list of dict
        Of `goals.verdicts`.

    Returns
    -------
    pmlkit.figures.style.Figure
    """
    table = pd.DataFrame([row for row in rows if row["measured"]])
    bound = table["bound"].str.split(" ").str[1].astype(float)
    at_least = table["bound"].str.startswith(">")
    table["reached"] = (table["measured"] / bound).where(at_least, bound / table["measured"])
    figure = new_figure(2, 0.7 + 0.19 * len(table), {"goals": table})
    axes = figure.subplots()
    colors = [COLORS["blue"] if met == "yes" else COLORS["vermilion"] for met in table["met"]]
    places = range(len(table))
    axes.barh(places, table["reached"] - 1, left=1, color=colors, height=0.6)
    for place, row in zip(places, table.to_dict("records"), strict=True):
        value = row["measured"]
        text = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
        text = f"{text} ({row['bound']})"
        axes.annotate(text, (max(row["reached"], 1), place), (3, 0), textcoords="offset points",
                      va="center", fontsize=6)  # fmt: skip
    axes.axvline(1, color=COLORS["black"], lw=0.8)
    axes.set_yticks(places, table["what"])
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="times better than its goal")
    axes.set_xlim(right=table["reached"].max() * 4)
    plain_log(axes.xaxis)
    figure.caption = "What was measured in one run, against the goals."
    return figure
