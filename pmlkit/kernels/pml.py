# SPDX-License-Identifier: Apache-2.0
"""The log of PML buffers for a sequence of writes: arrays in, arrays out.

The semantics are the hardware's (Intel SDM, volume 3, Page-Modification Logging):

- an entry is written only when a page's dirty flag changes from 0 to 1;
- each vCPU has its own buffer, while the dirty flag belongs to the page;
- the log-full exit comes before the entry that does not fit. A round that fills its buffer exactly
  has no such exit: the end of the round drains the buffer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.kernels.by_page import stable_order

if TYPE_CHECKING:
    from pmlkit.types import Array, Ints


__all__ = ["REARM", "PmlLog", "pml_log"]

REARM = ("round", "flush", "never")
_LATER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class PmlLog:
    """A log, drained buffer by buffer in the order of the drains.

    Attributes
    ----------
    order, batch : ndarrays of int64, shape (entries,)
        The write of each entry (its index), and its batch.
    round, vcpu, entries : ndarrays of int64, shape (batches,)
    full : ndarray of bool, shape (batches,)
        Whether it was drained because it was full; otherwise it was drained at the end of its
        round.
    first, trigger : ndarrays of int64, shape (batches,)
        The write of its first entry; the write that found it full (meaningless if there was none).
    """

    order: np.ndarray
    batch: np.ndarray
    round: np.ndarray
    vcpu: np.ndarray
    entries: np.ndarray
    full: np.ndarray
    first: np.ndarray
    trigger: np.ndarray


def pml_log(
    window: Ints,
    gfn: Ints,
    vcpu: Ints,
    buffer_entries: int = 512,
    rearm: str = "round",
    windows_per_round: int = 1,
) -> PmlLog:
    """Log writes.

    Parameters
    ----------
    window : array of int, shape (writes,)
        The window of each write, never decreasing. A page is written at most once per window.
    gfn, vcpu : arrays of int, shape (writes,)
    rearm : {"round", "flush", "never"}
        When the dirty flag of a logged page is cleared: at the end of the round; when its buffer
        is drained; never.
    """
    round_ = np.asarray(window, np.int64) // windows_per_round
    gfn, vcpu = np.asarray(gfn, np.uint64), np.asarray(vcpu, np.int64)
    if rearm != "never" and windows_per_round == 1:
        # Each page once per window, re-armed after each: all writes are logged.
        logged = np.arange(len(gfn))
    elif rearm == "flush" and len(vcpu) and vcpu.any():
        logged = _logged_by_any(round_, gfn, vcpu, buffer_entries)
    else:
        before = _previous_write(gfn)
        if rearm == "flush":
            logged = _logged_by_one(round_, before, buffer_entries)
        else:
            known = (before >= 0) & ((rearm == "never") | (round_[before] == round_))
            logged = np.flatnonzero(~known)
    return _buffered(logged, round_, vcpu, buffer_entries)


def _previous_write(gfn: Array) -> Ints:
    """Return, for each write, the index of the previous write to the same page, or -1."""
    order = stable_order(gfn)
    again = np.flatnonzero(gfn[order[1:]] == gfn[order[:-1]])
    before = np.full(len(gfn), -1)
    before[order[again + 1]] = order[again]
    return before


def _logged_by_one(round_: Ints, before: Ints, capacity: int) -> Ints:
    """Return the writes that one vCPU logs if a drain re-arms the pages that it drains.

    When a buffer is empty, all pages are clean. The next buffer contains the writes from then on
    whose page was not written since. That is a search for each buffer, not for each write.
    """
    logged = [np.zeros(0, np.int64)]
    edges = np.append(np.flatnonzero(np.diff(round_, prepend=-1)), len(round_))
    reach = 2 * capacity
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        while start < stop:
            fresh = start + np.flatnonzero(before[start : min(start + reach, stop)] < start)
            if len(fresh) <= capacity and start + reach < stop:
                reach *= 2
                continue
            logged.append(fresh[:capacity])
            start = int(fresh[capacity]) if len(fresh) > capacity else stop
    return np.concatenate(logged)


def _logged_by_any(round_: Array, gfn: Array, vcpu: Array, capacity: int) -> Ints:
    """As `_logged_by_one` for several vCPUs, write by write: a drain re-arms its buffer's pages."""
    logged: list[int] = []
    dirty: set[int] = set()
    buffers: dict[int, list[int]] = {}
    now = -1
    for i, write in enumerate(zip(round_.tolist(), gfn.tolist(), vcpu.tolist(), strict=True)):
        number, page, cpu = write
        if number != now:
            now = number
            dirty.clear()
            buffers.clear()
        if page in dirty:
            continue
        buffer = buffers.setdefault(cpu, [])
        if len(buffer) == capacity:
            dirty.difference_update(buffer)
            buffer.clear()
        buffer.append(page)
        dirty.add(page)
        logged.append(i)
    return np.array(logged, np.int64)


def _buffered(logged: Ints, round_: Ints, vcpu: Ints, capacity: int) -> PmlLog:
    """Fill buffers with the logged writes, and put them in the order of their drains."""
    cpus = int(vcpu.max(initial=0)) + 1
    group = round_[logged] * cpus + vcpu[logged]
    if cpus > 1:
        by_group = stable_order(group.astype(np.uint64))
        logged, group = logged[by_group], group[by_group]
    opens = np.flatnonzero(np.diff(group, prepend=-1))
    sizes = np.diff(np.append(opens, len(group)))
    rank = np.arange(len(group)) - np.repeat(opens, sizes)
    starts = np.flatnonzero(rank % capacity == 0)
    following = np.append(starts[1:], 0)[: len(starts)]
    full = (rank[following] > 0) if len(starts) else np.zeros(0, bool)
    first = logged[starts]
    trigger = np.where(full, logged[following], _LATER)
    drained = np.lexsort((vcpu[first], trigger, round_[first]))
    entries = np.diff(np.append(starts, len(logged)))[drained]
    offsets = np.repeat(starts[drained] - (np.cumsum(entries) - entries), entries)
    return PmlLog(
        order=logged[offsets + np.arange(len(logged))],
        batch=np.repeat(np.arange(len(starts)), entries),
        round=round_[first][drained],
        vcpu=vcpu[first][drained],
        entries=entries,
        full=full[drained],
        first=first[drained],
        trigger=trigger[drained],
    )
