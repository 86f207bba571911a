# SPDX-License-Identifier: Apache-2.0
"""Which part of a trace an analysis looks at.

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
from pmlkit.occurrences import Occurrences
from pmlkit.streams import stream, time_ns

if TYPE_CHECKING:
    from pmlkit.timeline import Timeline
    from pmlkit.trace import Trace


__all__ = ["Part", "region_names", "select", "time_ns"]


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
