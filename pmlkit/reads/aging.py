# SPDX-License-Identifier: Apache-2.0
"""The aging of MGLRU combined with a log: the number of touched pages, and the frames among them.

From Linux 6.12 on, the host's aging counts the pages that a VM has touched, including reads. It
names no frames (``pmlkit collect --kvm VM --mode lru-gen``). A log of the same VM at the same time
names frames: those that were written and, by its page tables, those that may have been read. The
aging thus gives the number of pages, and the log and its tables give the frames.

Both have the host's monotonic clock: the table as ``clock_ns``, the trace in its options.

The count includes pages that are not the guest's data: the VMM's own pages, because aging covers a
control group, and the guest's page tables. If the host uses huge pages for the guest, the count may
be in whole huge pages.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.errors import FileRefused, NeedsError, UsageError
from pmlkit.files import read_regular
from pmlkit.pagetables import PAGES_OF_A_TABLE, is_marked
from pmlkit.reads.page_sets import Sets, of_log, sets, unseen, window_sizes
from pmlkit.selection import rounds_of, times_ns
from pmlkit.timeline import Windows
from pmlkit.trace.schema import HOST_CLOCK

if TYPE_CHECKING:
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Bools, Ints, PathLike


__all__ = ["estimate", "read"]

COLUMNS = ("clock_ns", "length_ns", "pages")
_MOST = 1 << 62
_LIMIT_BYTES = 1 << 28  # about ten million intervals
_MIXED = "the count includes the VMM's own pages and the guest's page tables"
_BELOW = "the aging counted too few pages, because more were certainly touched: is it from this VM?"
_ABOVE = "the aging counted more pages than the tables map: the rest is the VMM's, or not mapped"


def read(path: PathLike) -> pd.DataFrame:
    """Read the table that ``pmlkit collect --mode lru-gen`` writes.

    Returns
    -------
    DataFrame
        ``clock_ns`` (the end of an interval, on the host's clock), ``length_ns``, ``pages``: int64.

    Raises
    ------
    UsageError
        If it is not such a table.
    FileRefused
        If it cannot be read.
    """
    try:
        table = pd.read_csv(io.BytesIO(read_regular(path, _LIMIT_BYTES)))
    except OSError as error:
        raise FileRefused(path, error.strerror or "not readable", _hint()) from error
    except ValueError as error:  # also pandas' own
        raise UsageError(f"{path} is not a table (CSV)", _hint()) from error
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise UsageError(f"{path} has no column {missing[0]}", _hint())
    table = table[list(COLUMNS)]
    numbers = all(kind.kind == "i" for kind in table.dtypes) and len(table) > 0
    if not numbers or not ((table >= 0) & (table < _MOST)).to_numpy().all():
        raise UsageError(f"{path} has rows that aging does not produce", _hint())
    if (np.diff(table["clock_ns"]) < table["length_ns"].to_numpy()[1:]).any():
        raise UsageError(f"{path} has intervals that overlap, or are not in order", _hint())
    return table.reset_index(drop=True)


def _hint() -> str:
    return "give the output of `pmlkit collect --kvm VM --mode lru-gen -o X.csv`"


@dataclass(frozen=True)
class _Places:
    """The rounds of each interval: those inside of it, and those that overlap its ends."""

    inside: Windows
    touching: Windows


def estimate(
    trace: Trace,
    table: pd.DataFrame,
    start: str | int | None = None,
    end: str | int | None = None,
) -> pd.DataFrame:
    """Estimate the working set of each interval between two agings.

    Parameters
    ----------
    trace : Trace
        The log of a KVM host that was collected at the same time.
    table : DataFrame
        From `read`.
    start, end : str, int or None

    Returns
    -------
    DataFrame
        The table of `pmlkit.reads.estimate`, with ``read`` (pages beyond the written ones) and
        ``named`` (pages that the log and its tables name). `pages` is the aging's count, limited by
        the bounds of the log and the tables. Intervals that the trace does not cover are omitted.

    Raises
    ------
    NeedsError
        If the trace does not contain the host's clock.
    UsageError
        If no interval lies within the trace, or no round within the part.
    """
    span = times_ns(trace, start, end)
    first, stop = rounds_of(trace, *span)
    begins, ends = (c[first:stop] for c in _on_host(trace))
    since = table["clock_ns"] - table["length_ns"]
    table = table[(since >= begins[0]) & (table["clock_ns"] <= ends[-1])].reset_index(drop=True)
    if not len(table):
        hint = "collect both at the same time, on the same host"
        raise UsageError(f"no interval of the aging lies within {trace.path}", hint)
    frames = sets(trace, start, end) if trace.pml.has_tables else of_log(trace, start, end)
    places = _places(table, begins, ends)
    missed = unseen(trace, places.touching, start, end)
    return _table(trace, table, frames, places, (first, stop), missed)


def _on_host(trace: Trace) -> tuple[Ints, Ints]:
    """Return the starts and ends of all rounds on the host's clock, ns."""
    pairs = trace.pml.meta.options.get(HOST_CLOCK)
    if not pairs:
        what = "the host's clock"
        raise NeedsError(trace, what, "collect it again, with `pmlkit collect --kvm`")
    at, host = np.array(pairs, np.int64).reshape(-1, 2).T
    begins = trace.rounds["t_start_ns"].to_numpy(np.int64)
    ahead = (host - at)[np.searchsorted(at, begins, "right") - 1]
    return begins + ahead, trace.rounds["t_end_ns"].to_numpy(np.int64) + ahead


def _places(table: pd.DataFrame, begins: Ints, ends: Ints) -> _Places:
    until = table["clock_ns"].to_numpy()
    since = until - table["length_ns"].to_numpy()
    # The first interval that ends after a round's begin, and the first that begins after its end.
    overlapping = np.searchsorted(until, begins, "right"), np.searchsorted(since, ends, "left")
    whole = np.searchsorted(until, ends, "left"), np.searchsorted(since, begins, "right")
    inside = _windows(whole[0], np.maximum(whole[0], whole[1]), len(until))
    return _Places(inside, _windows(*overlapping, len(until)))


def _windows(enter: Array, leave: Array, count: int) -> Windows:
    first, beyond = (np.append(side, count).astype(np.int32) for side in (enter, leave))
    return Windows(first, beyond)


def _table(
    trace: Trace,
    table: pd.DataFrame,
    frames: Sets,
    places: _Places,
    span: tuple[int, int],
    missed: Bools,
) -> pd.DataFrame:
    """Combine the counts with the pages of the log and the tables."""
    names = ("written", "certain", "accessed", "leaves")
    inside = {name: window_sizes(getattr(frames, name), places.inside) for name in names}
    counted, low = table["pages"].to_numpy(np.int64), inside["certain"]
    high = np.minimum(_most(trace, frames, places.touching), trace.memory_pages)
    high = np.where(missed, trace.memory_pages, np.maximum(high, low))
    pages = np.clip(counted, low, high)
    why = np.where(counted > high, _ABOVE, np.where(counted < low, _BELOW, _MIXED))
    at, host = np.array(trace.pml.meta.options[HOST_CLOCK], np.int64).T
    clock = table["clock_ns"].to_numpy(np.int64)
    t_ns = clock - (host - at)[np.searchsorted(host, clock, "right") - 1]
    last = np.searchsorted(trace.rounds["t_start_ns"].to_numpy()[span[0] : span[1]], t_ns) - 1
    length = table["length_ns"].to_numpy(np.int64)
    return pd.DataFrame({
        "t_ns": t_ns, "pages": pages, "low": low, "high": high,
        "bytes": pages * trace.meta.domain["page_size"], "written": inside["written"],
        "read": np.maximum(pages - inside["written"], 0), "named": inside["accessed"],
        "tables": inside["leaves"], "unresolved": np.maximum(counted - high, 0), "why": why,
        "asked_ns": length,
        "phase": np.asarray(trace.phase_of_rounds(), object)[span[0] + last],
        "effective_ns": length, "full": True,
    })  # fmt: skip


def _most(trace: Trace, frames: Sets, windows: Windows) -> Ints:
    """Return the most pages that each interval can have touched, according to the tables."""
    written = window_sizes(frames.written, windows)
    if trace.pml.has_tables:
        return window_sizes(frames.reachable, windows)
    if not is_marked(trace):
        return np.full_like(written, trace.memory_pages)
    return PAGES_OF_A_TABLE * window_sizes(frames.leaves, windows) + written
