# SPDX-License-Identifier: Apache-2.0
"""Which part of a trace an analysis looks at, and how long a window is in its rounds.

Analyses take the keyword arguments of `select` and hand them on:

kinds : str, int or Kind
    Letters out of ``"rwxp"`` (p: page-table pages of a PML log), or a mask; ``"rwx"`` if left out.
    A page counts once however many of them it was used by. A PML log has writes only.
start, end : str, int or None
    Look at the rounds between these times only, ``"2s"`` or nanoseconds. Windows do not reach
    back beyond `start`.
region : str or None
    Look at the frames of this region only.
page_tables : "drop", "keep" or "expand"
    Of a PML log, the pages that are known to be page tables: leave them out (``"drop"``, if left
    out: the written working set), count them as written pages, or put in their place the frames
    that they lead to (the accessed entries of their snapshots, see `pmlkit.pagetables`): reads
    that the log does not show. Each frame counts once per round, then.

They raise `UsageError` if one of them is not what it should be, and `NeedsError` if the trace has
no such region or kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit import occurrences as kernels
from pmlkit.errors import PmlkitError, ResolutionError, UsageError
from pmlkit.occurrences import Occurrences
from pmlkit.streams import stream, time_ns
from pmlkit.units import format_ns, parse_window

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.timeline import Timeline
    from pmlkit.trace import Trace
    from pmlkit.units import Window


__all__ = ["Part", "region_names", "select", "time_ns", "window_rounds"]


def window_rounds(trace: Any, window: str | int | Window) -> int:
    """Return how many rounds of the trace make a window.

    Parameters
    ----------
    trace : Trace
    window : str, int or Window

    Returns
    -------
    int

    Raises
    ------
    ResolutionError
        If that is not a whole number, or the trace's rounds have no length in time.
    """
    window = parse_window(window)
    resolution = trace.resolution_ns
    if window.rounds is not None:
        if window.rounds * (resolution or 1) >= 1 << 63:
            raise UsageError(f"a window of {window} is more than 64 bits can hold: give less")
        return window.rounds
    if resolution is None:
        raise _rounds_only(trace, window)
    if window.ns % resolution:
        raise ResolutionError(format_ns(window.ns, 15), format_ns(resolution, 15))  # type: ignore[arg-type]
    return window.ns // resolution


@dataclass(frozen=True)
class Part:
    """The uses that were selected of a trace.

    Attributes
    ----------
    occ : Occurrences
        The uses, sorted by page; its round 0 is the first one selected.
    first : int
        The number of that round in the trace.
    t_ns : ndarray of int64, shape (n_rounds + 1,)
        The times between rounds: round i lasts from ``t_ns[i]`` to ``t_ns[i + 1]``.
    timeline : pmlkit.timeline.Timeline
        When those rounds ended, and which windows hold them.
    """

    occ: Occurrences
    first: int
    t_ns: np.ndarray
    timeline: Timeline


def select(
    trace: Trace,
    kinds: str | int = "rwx",
    start: str | int | None = None,
    end: str | int | None = None,
    region: str | None = None,
    page_tables: str = "drop",
) -> Part:
    """Read the uses that an analysis looks at; the parameters are described above.

    Parameters
    ----------
    trace : Trace
    kinds, start, end, region, page_tables

    Returns
    -------
    Part
    """
    source = stream(trace, kinds, start, end, region, page_tables)
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.uint64)), *source]
    rounds, gfns = (np.concatenate(column) for column in zip(*parts, strict=True))
    occ = kernels.occurrences(rounds, gfns, source.n_rounds, distinct=source.once)
    return Part(occ, source.first, source.t_ns, source.timeline)


def region_names(trace: Trace) -> list[str]:
    """Return the names of the trace's regions, in the order of their first rows."""
    return list(dict.fromkeys(trace.regions["name"]))


def _rounds_only(trace: Trace, window: Window) -> ResolutionError:
    insn = trace.meta.period["insn"]
    period = "no stated length" if insn is None else f"{insn} instructions"
    error = ResolutionError(str(window), f"rounds of {period}")
    what = f"a window of {window} cannot be had: the trace has rounds of {period}, not of a time"
    PmlkitError.__init__(error, what, "give the window in rounds, such as 5r")
    return error
