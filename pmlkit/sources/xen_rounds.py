# SPDX-License-Identifier: Apache-2.0
"""Which record belongs to which round, and from when to when a round lasts: arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.sources.xen_stream import ns_of

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from pmlkit.sources.xen_spool import XenSpool
    from pmlkit.types import Array, Ints


__all__ = ["ns", "round_times", "split_rounds"]


def split_rounds(spool: XenSpool) -> tuple[NDArray[Any], int, int]:
    """Put the records of a spool in the order of the trace.

    Parameters
    ----------
    spool : XenSpool

    Returns
    -------
    logs : structured ndarray
        The records kept, by round and, in it, by the time at which their buffer was taken.
    count : int
        The rounds of the trace: those that were closed, and up to two that were not (the round
        that was being closed, and the one that runs).
    left_out : int
        Entries of records after the last closed round of a collection that came to its end.
    """
    logs, closed = spool.logs, len(spool.rounds)
    if spool.header.get("job", {}).get("free") and not spool.stock:
        logs = _cut(spool, logs)
    order = np.lexsort((logs["seq"], logs["vcpu"], logs["tsc_end"], logs["round"]))
    after = logs["round"] >= closed
    entries = int(logs["count"][after].sum())
    inside = order[~after[order]]
    # What was drained by switching logging off belongs to no round.
    ended = spool.end if spool.missing is None and closed else None
    if ended is not None and not ended.keep_open:
        return logs[inside], closed, entries
    if not entries:
        return logs[inside], closed, 0
    return logs[order], int(logs["round"].max()) + 1, 0


def _cut(spool: XenSpool, logs: Array) -> Array:
    """Number rounds by the marks of the time that a collection without rounds has put."""
    marks = spool.rounds.column("end_ns")
    ends = ns(spool, logs["tsc_end"])
    logs = logs.copy()
    logs["round"] = np.searchsorted(marks, ends, side="left")
    if spool.end is not None and len(marks):  # the last buffers, taken when it was switched off
        logs["round"] = np.minimum(logs["round"], len(marks) - 1)
    return logs


def ns(spool: XenSpool, tsc: Any) -> Any:
    """Turn TSC stamps into ns since the start of the log: ndarray of int64."""
    ticks = np.asarray(tsc, dtype=np.int64) - spool.header["epoch_tsc"]
    return ns_of(np.maximum(ticks, 0), spool.header["tsc_khz"])


def round_times(spool: XenSpool, logs: NDArray[Any], count: int) -> tuple[Ints, Ints]:
    """Return the starts and ends of the rounds, ns: two ndarrays of int64.

    A round begins where the one before it ends: when Xen let the domain go on.
    """
    last = np.zeros(count, np.int64)
    if not spool.stock:
        np.maximum.at(last, logs["round"].astype(np.int64), ns(spool, logs["tsc_end"]))
    closed = spool.rounds.column("end_ns", count, -1)
    # Where Xen has closed no round, the last buffer may be taken after the mark of its end.
    marked = spool.rounds.column("tick", count, 1) == 1
    ends = np.where(marked, np.maximum(closed, last), closed)
    ends = np.maximum.accumulate(ends)
    return np.concatenate([np.zeros(1, np.int64), ends[:-1]]), ends
