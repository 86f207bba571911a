# SPDX-License-Identifier: Apache-2.0
"""The figure behind `pmlkit period`: overhead, working set and sensitivity, each against T."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.figures.axes import panel_letter, plain_log
from pmlkit.figures.style import COLORS, finish, new_figure, paper_figure

if TYPE_CHECKING:
    from pmlkit.figures.style import Figure
    from pmlkit.period.advice import Advice
    from pmlkit.trace.reader import Trace


__all__ = ["period_trade_off"]

_MIB = 1 << 20


@paper_figure
def period_trade_off(trace: Trace, advice: Advice, columns: int = 2) -> Figure:
    """Draw what a period costs, what it shows, and how much that depends on it."""
    table = advice.table
    figure = new_figure(columns, 2.3 if columns == 2 else 5.4, {"periods": table})
    shape = (1, 3) if columns == 2 else (3, 1)
    panels = figure.subplots(*shape, sharex=True)
    t_ms = table["period_ns"] / 1e6
    cost, size, change = panels
    cost.plot(t_ms, 100 * table["guest_overhead"], color=COLORS["black"], label="guest")
    cost.plot(t_ms, 100 * table["host_overhead"], color=COLORS["black"], ls=":", label="host")
    asked = {"color": COLORS["black"], "lw": 0.5}
    cost.axhline(100 * advice.target, label="asked, of the guest", **asked)
    cost.set(yscale="log", ylabel="overhead (%)")
    plain_log(cost.yaxis)
    cost.legend()
    size.plot(t_ms, table["bytes"] / _MIB, color=COLORS["black"])
    size.set(ylabel="mean W(T) (MiB)")
    size.set_ylim(bottom=0)
    change.plot(t_ms, 100 * table["sensitivity"], color=COLORS["black"])
    change.axhline(100 * advice.accuracy, **asked)
    change.set(ylabel="growth if T doubles (%)")
    for letter, panel in zip("abc", panels, strict=True):
        panel.axvline(advice.period_ns / 1e6, color=COLORS["black"], ls="--", lw=0.7)
        panel.set_xscale("log")
        plain_log(panel.xaxis)
        panel_letter(panel, letter)
    panels[-1 if columns == 1 else 1].set_xlabel("period T (ms)")
    return finish(
        figure,
        trace,
        "against the period T: (a) what logging costs the guest and the host, (b) the mean "
        "working set, (c) by how much it grows if T is doubled. Horizontal lines: what was asked "
        f"of the guest's overhead (the host's has no limit), and of the growth; dashed: the period "
        f"chosen. Constants: "
        f"{', '.join(advice.constants.kinds)}.",
    )
