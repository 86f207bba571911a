# SPDX-License-Identifier: Apache-2.0
"""The distribution of the working set over a recording: the share of windows that a size covers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import workingset
from pmlkit.figures.several import finish_several, name_lines, styles, titles
from pmlkit.figures.style import finish, new_figure, paper_figure
from pmlkit.several import common_window, labelled
from pmlkit.units import exact_ns

if TYPE_CHECKING:
    from pmlkit.figures.style import Figure, Length, Time
    from pmlkit.trace.reader import Trace
    from pmlkit.types import PathLike

__all__ = ["wss_percentiles"]

MIB = 1 << 20
MARKED = (50, 95)  # percentiles with a line
USUAL_NS = 100_000_000  # default T


@paper_figure
def wss_percentiles(
    trace: Trace | Mapping[str, Trace | PathLike],
    window: Length = None,
    columns: int = 1,
    start: Time = None,
    end: Time = None,
    kinds: str | int = "rwx",
) -> Figure:
    """Draw the percentiles of the working set: the share of windows that need no more than a size.

    Parameters
    ----------
    trace : Trace, or dict of str to Trace
        One recording, or several by their labels: then a line each.
    """
    one = None if isinstance(trace, Mapping) else trace
    traces = labelled(trace)
    of_each = styles(traces)
    common = common_window(traces, window, USUAL_NS, start=start, end=end)
    tables = {
        label: workingset.estimate(each, common, "sliding", kinds=kinds, start=start, end=end)
        for label, each in traces.items()
    }
    sizes = {n: np.sort(table.loc[table["full"], "bytes"]) / MIB for n, table in tables.items()}
    data = [
        pd.DataFrame({"trace": label, "MiB": values, "percent": _percents(len(values))})
        for label, values in sizes.items()
    ]
    figure = new_figure(columns, 2.0, {"percentiles": pd.concat(data, ignore_index=True)})
    axes = figure.subplots()
    for label, title in titles(traces, kinds).items():
        axes.step(sizes[label], _percents(len(sizes[label])), where="post", label=title,
                  **of_each[label])  # fmt: skip
    for percent in MARKED:
        axes.axhline(percent, color="#6E6E6E", lw=0.4, ls=(0, (2, 2)), zorder=0)
    name = str(common) if common.ns is None else exact_ns(common.ns)
    axes.set(xlabel=f"W(t, {name}) (MiB)", ylabel="windows (%)", ylim=(0, 101))
    axes.set_xlim(left=0)
    axes.set_yticks([0, 25, 50, 75, 95])
    if one is None:
        name_lines(axes, titles(traces, kinds).values())
    caption = (
        f"the share of windows of T = {name} whose working set is no larger than a size. At the "
        "dotted lines, it is enough for 50 % and for 95 % of the windows."
    )
    if one is None:
        return finish_several(figure, traces, caption, kinds)
    return finish(figure, one, caption)


def _percents(count: int) -> np.ndarray:
    return np.arange(1, count + 1) / max(count, 1) * 100
