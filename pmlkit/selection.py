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
page_tables : "drop" or "keep"
    Whether writes include those to pages that are known to be page tables; ``"drop"`` if left out.

They raise `UsageError` if one of them is not what it should be, and `NeedsError` if the trace has
no such region or kind.
"""

from dataclasses import dataclass

import numpy as np

from pmlkit import occurrences as kernels
from pmlkit.errors import NeedsError, PmlkitError, ResolutionError, UsageError
from pmlkit.kinds import Kind, parse_kinds
from pmlkit.occurrences import Occurrences
from pmlkit.units import format_ns, parse_duration_ns, parse_window

__all__ = ["Part", "region_names", "rounds_in_ns", "select", "window_rounds"]


def window_rounds(trace, window):
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
        raise ResolutionError(format_ns(window.ns, 15), format_ns(resolution, 15))
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
    """

    occ: Occurrences
    first: int
    t_ns: np.ndarray


def select(trace, kinds="rwx", start=None, end=None, region=None, page_tables="drop"):
    """Read the uses that an analysis looks at; the parameters are described above.

    Parameters
    ----------
    trace : Trace
    kinds, start, end, region, page_tables

    Returns
    -------
    Part
    """
    mask = _mask(trace, kinds, page_tables)
    span = {"start_ns": _ns(start), "end_ns": _ns(end)}
    first, stop = trace.rounds_between(**span)
    rounds, gfns = _read(trace, kinds=mask, region=region, **span)
    once = trace.meta.kind == "access"  # its entries are kinds of use, not uses
    occ = kernels.occurrences(rounds - first, gfns, stop - first, distinct=once)
    return Part(occ, first, _bounds(trace)[first : stop + 1])


def _mask(trace, kinds, page_tables):
    if page_tables not in ("drop", "keep"):
        raise UsageError(f"page_tables is {page_tables!r}: say drop or keep")
    mask = parse_kinds(kinds)
    if mask is None:
        return None
    if trace.meta.kind == "pml" and not mask & (Kind.WRITE | Kind.PAGE_TABLE):
        raise NeedsError(trace, "reads and executions", "a PML log has writes only: ask for w")
    return mask | Kind.PAGE_TABLE if page_tables == "keep" and mask & Kind.WRITE else mask


def _read(trace, **which):
    """Return the rounds (int64) and the frames (uint64) of the entries."""
    batches = trace.iter_entries(columns=["round", "gfn"], **which)
    parts = [[np.zeros(0, np.int64), np.zeros(0, np.uint64)]]
    parts += ([column.to_numpy() for column in batch.columns] for batch in batches)
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _bounds(trace):
    """Return the times between rounds, int64, shape (n_rounds + 1,)."""
    rounds = trace.rounds
    edges = rounds["t_start_ns"].to_numpy()[:1], rounds["t_end_ns"].to_numpy()
    return np.concatenate(edges).astype(np.int64)


def region_names(trace):
    """Return the names of the trace's regions, in the order of their first rows."""
    return list(dict.fromkeys(trace.regions["name"]))


def rounds_in_ns(trace, rounds):
    """Return the time that was asked for `rounds` (int or array of int), or -1 if it was not."""
    resolution = trace.resolution_ns
    return rounds * 0 - 1 if resolution is None else rounds * resolution


def _ns(time):
    return parse_duration_ns(time) if isinstance(time, str) else time


def _rounds_only(trace, window):
    insn = trace.meta.period["insn"]
    period = "no stated length" if insn is None else f"{insn} instructions"
    error = ResolutionError(str(window), f"rounds of {period}")
    what = f"a window of {window} cannot be had: the trace has rounds of {period}, not of a time"
    PmlkitError.__init__(error, what, "give the window in rounds, such as 5r")
    return error
