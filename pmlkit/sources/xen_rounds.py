# SPDX-License-Identifier: Apache-2.0
"""Which record belongs to which round, and from when to when a round lasts: arrays and dicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from pmlkit.sources.xen_spool import XenSpool
    from pmlkit.types import Array, Ints


__all__ = ["round_times", "split_rounds"]

_OPEN = 2  # the round that was being closed, and the one that runs


def split_rounds(
    spool: XenSpool,
) -> tuple[NDArray[Any], list[Any], int]:
    """Put the records of a spool in the order of the trace.

    Parameters
    ----------
    spool : XenSpool

    Returns
    -------
    logs : structured ndarray
        The records kept, by round and, in it, by the time at which their buffer was taken.
    rounds : list of (dict or None)
        What is known of each round; None: it was not closed.
    left_out : int
        Entries of records after the last closed round of a collection that came to its end.
    """
    logs, closed = spool.logs, spool.rounds
    if spool.header.get("job", {}).get("free") and not spool.stock:
        logs = _cut(spool, logs)
    logs = logs[np.lexsort((logs["seq"], logs["vcpu"], logs["tsc_end"], logs["round"]))]
    after = logs["round"] >= len(closed)
    entries = int(logs["count"][after].sum())
    # What was drained by switching logging off belongs to no round.
    ended = spool.end if spool.missing is None and closed else None
    if ended is not None and not ended.get("keep_open"):
        return logs[~after], list(closed), entries
    count = int(logs["round"][-1]) + 1 if entries else len(closed)
    if count > len(closed) + _OPEN:
        raise ValueError(f"a record of round {count - 1}, and {len(closed)} were closed")
    kept = logs if entries else logs[~after]
    return kept, [*closed, *[None] * (count - len(closed))], 0


def _cut(spool: XenSpool, logs: Array) -> Array:
    """Number rounds by the marks of the time that a collection without rounds has put."""
    marks = np.array([told["t_ns"] for told in spool.rounds], dtype=np.int64)
    ends = ns(spool, logs["tsc_end"])
    logs = logs.copy()
    logs["round"] = np.searchsorted(marks, ends, side="left")
    if spool.end is not None and len(marks):  # the last buffers, taken when it was switched off
        logs["round"] = np.minimum(logs["round"], len(marks) - 1)
    return logs


def ns(spool: XenSpool, tsc: Any) -> Any:
    """Turn TSC stamps into ns since the start of the log: ndarray of int64."""
    ticks = np.asarray(tsc, dtype=np.int64) - spool.header["epoch_tsc"]
    return np.maximum(ticks, 0) * 1_000_000 // spool.header["tsc_khz"]


def round_times(
    spool: XenSpool,
    logs: NDArray[Any],
    rounds: Sequence[Any],
) -> tuple[Ints, Any]:
    """Return the starts and ends of the rounds, ns: two ndarrays of int64.

    A round begins where the one before it ends: when Xen let the domain go on.
    """
    last = np.zeros(len(rounds), np.int64)
    if not spool.stock:
        np.maximum.at(last, logs["round"].astype(np.int64), ns(spool, logs["tsc_end"]))
    ends, before = [], 0
    for told, entry_ns in zip(rounds, last.tolist(), strict=True):
        before = max(before, _end(spool, told, entry_ns))
        ends.append(before)
    ends = np.array(ends, dtype=np.int64)  # type: ignore[assignment]
    return np.concatenate([[0], ends[:-1]]), ends


def _end(spool: XenSpool, told: Any, entry_ns: int) -> int:
    if told is None:
        return entry_ns
    if "t_end_ns" in told:
        return told["t_end_ns"]
    if told.get("tick"):
        return max(told["t_ns"], entry_ns)
    return int(ns(spool, told["tsc_resume"]))
