# SPDX-License-Identifier: Apache-2.0
"""Events of all CPUs: their vCPUs, their drains and rounds, and the losses.

A spool is read twice. A `Census` collects the facts that are needed before the first entry can be
placed. Then `Drains` orders the events, from tick to tick: memory does not grow with the log.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.interop.kvm_log import DRAIN_ENTRIES, DRAIN_GAP_NS, DRAIN_LIMIT_NS
from pmlkit.kvm.frames import LOG
from pmlkit.sources.kvm.stream import ENTRY

if TYPE_CHECKING:
    from pmlkit.sources.kvm.stream import Pages
    from pmlkit.types import Array, Bools, Gfns, Ints

    # Columns of events: time, kind, thread's row, value.
    Columns = tuple[Array, Array, Array, Array]


__all__ = ["EVER_NS", "UNKNOWN_NS", "Batches", "Census", "Drains"]

UNKNOWN_NS = -1
EVER_NS = 1 << 61  # a time after all events
_MOST_VCPUS = 1 << 16
_NO_EVENTS = tuple(np.empty(0, t) for t in (np.int64, np.uint8, np.int32, np.uint64))


class Census:
    """The facts about all events. Takes pages of a stream in the order of arrival.

    Attributes
    ----------
    threads : ndarray of int32
        Threads with an event, in order.
    marked : ndarray of int32
        Threads with a mark.
    """

    def __init__(self) -> None:
        self.threads = self.marked = np.empty(0, np.int32)
        self._entered: dict[int, tuple[int, int]] = {}  # last time and vCPU, by thread
        self._losses = array("q")  # three numbers each
        self._last: dict[int, int] = {}
        self._waiting: dict[int, list[tuple[int, int]]] = {}

    def add(self, pages: Pages) -> None:
        """Add the events of some pages."""
        if pages.stream == LOG:
            self._add_losses(pages)
        if not len(pages.time):
            return
        threads = np.unique(pages.thread[_firsts(pages.thread)])
        self.threads = _union(self.threads, threads)
        if pages.stream == LOG:
            self._last[pages.cpu] = int(pages.time[-1])
        else:
            self.marked = _union(self.marked, threads)
            self._add_entries(pages)

    def _add_entries(self, pages: Pages) -> None:
        # In reverse order, so that the first entry of each run of a thread remains.
        entered = np.flatnonzero((pages.kind == ENTRY) & (pages.value < _MOST_VCPUS))[::-1]
        entered = entered[_firsts(pages.thread[entered])]
        _, each = np.unique(pages.thread[entered], return_index=True)
        rows = entered[each]
        columns = (pages.thread[rows], pages.time[rows], pages.value[rows])
        for of, time, vcpu in zip(*(column.tolist() for column in columns), strict=True):
            if time >= self._entered.get(of, (0, 0))[0]:
                self._entered[of] = time, vcpu

    def _add_losses(self, pages: Pages) -> None:
        waiting = self._waiting.setdefault(pages.cpu, [])
        if waiting and len(pages.time):
            first = int(pages.time[0])
            for after, count in waiting:
                self._losses.extend((after, first, count))
            waiting.clear()
        for place, count in pages.lost.tolist():
            after = int(pages.time[place - 1]) if place else self._last.get(pages.cpu, 0)
            if place < len(pages.time):
                self._losses.extend((after, int(pages.time[place]), count))
            else:  # the next position is in a later frame
                waiting.append((after, count))

    def losses(self) -> Ints:
        """Return the positions at which events of the log were lost.

        Returns
        -------
        ndarray of int64, shape (losses, 3)
            Times of the last event before and the first one after, on the CPU, and the number of
            lost events; -1 if unknown.
        """
        rows = array("q", self._losses)
        for waiting in self._waiting.values():
            for after, count in waiting:
                rows.extend((after, EVER_NS, count))
        return np.array(rows, np.int64).reshape(-1, 3)

    def vcpus(self, known: dict[int, int]) -> tuple[Array, Bools]:
        """Return the vCPU of each thread, and whether it runs one.

        Parameters
        ----------
        known : dict of int to int
            The vCPUs of threads, if entries do not show them.
        """
        known = {**known, **{thread: vcpu for thread, (_, vcpu) in self._entered.items()}}
        threads = self.threads.tolist()
        if not known:  # which threads run vCPUs is unknown: assume those that log
            known = dict(zip(threads, range(_MOST_VCPUS), strict=False))
        vcpu = np.array([known.get(thread, 0) for thread in threads], np.uint16)
        return vcpu, np.array([thread in known for thread in threads], bool)


def _firsts(thread: Array) -> Ints:
    """Return the positions at which the thread changes."""
    return np.flatnonzero(np.append(True, thread[1:] != thread[:-1])[: len(thread)])


def _union(known: Array, more: Array) -> Array:
    """Return the union of sorted arrays: usually the first one."""
    at = np.minimum(np.searchsorted(known, more), max(len(known) - 1, 0))
    return known if len(known) and (known[at] == more).all() else np.union1d(known, more)


@dataclass(frozen=True)
class Batches:
    """Finished batches in the order of their ends, and their entries.

    Attributes
    ----------
    vcpu : ndarray of uint16
    round : ndarray of int64
    since : ndarray of int64
        Time of the vCPU's entry; `UNKNOWN_NS` without marks.
    end : ndarray of int64
        Time of the last entry.
    count : ndarray of int64
    gfn : ndarray of uint64, shape (sum of counts,)
        In the guest's order.
    """

    vcpu: Array
    round: Ints
    since: Ints
    end: Ints
    count: Ints
    gfn: Gfns


class Drains:
    """Orders events and forms batches: the part of a drain that is in one round.

    Parameters
    ----------
    vcpus : dict of int to int
        The vCPUs of threads, if entries do not show them.
    rounds : ndarray of int64, shape (rounds, 2)
        Start and end of each.
    slots : ndarray of uint64, shape (slots, 2)
        The guest's memory, from one frame to another (exclusive); empty if unknown.
    turn : bool
        Whether the newest entry of a drain comes first.

    Attributes
    ----------
    waiting : int
        Events that were added but are not ordered yet.
    outside, elsewhere : int
        Entries outside of all rounds, or outside of the guest's memory.
    strange : int
        Entries of threads that run no vCPU.
    late : int
        Events that came after their time had been processed: they count at the time of processing.
    """

    def __init__(
        self, census: Census, vcpus: dict[int, int], rounds: Ints, slots: Gfns, turn: bool
    ) -> None:
        from pmlkit.kernels import drains

        self._loops = drains
        self._threads, (self._vcpu, self._runs) = census.threads, census.vcpus(vcpus)
        marked = np.isin(self._threads, census.marked)
        self._gaps = np.where(marked, DRAIN_LIMIT_NS, DRAIN_GAP_NS).astype(np.int64)
        self._rounds, self._slots, self._turn = rounds, slots, turn
        self._state = np.full((4, len(self._threads)), -1, np.int64)
        self._counts = np.zeros(3, np.int64)
        self._table = np.empty((0, 5), np.int64)
        self._batch, self._gfn = np.empty(0, np.int32), np.empty(0, np.uint64)
        self._parts: list[Columns] = []
        self._settled_ns = self.waiting = self.strange = self.late = 0

    @property
    def outside(self) -> int:
        return int(self._counts[self._loops.OUTSIDE])

    @property
    def elsewhere(self) -> int:
        return int(self._counts[self._loops.ELSEWHERE])

    def add(self, pages: Pages) -> None:
        """Add the events of some pages."""
        firsts = _firsts(pages.thread)
        rows = np.searchsorted(self._threads, pages.thread[firsts]).astype(np.int32)
        thread = np.repeat(rows, np.diff(np.append(firsts, len(pages.thread))))
        self._parts.append((pages.time, pages.kind, thread, pages.value))
        self.waiting += len(thread)

    def until(self, horizon_ns: int) -> Batches:
        """Return the finished batches; all events before a time have been added."""
        events = self._settled(horizon_ns)
        self._assign(events)
        running = self._running(horizon_ns)
        return self._taken(running)

    def _settled(self, horizon_ns: int) -> Columns:
        """Take the events before a time, in order: a mark comes before a page of the same time."""
        time, kind, thread, value = (
            np.concatenate(parts) for parts in zip(_NO_EVENTS, *self._parts, strict=True)
        )
        # Stable sorting is fast for parts that are in order.
        order = np.argsort(2 * time + (kind == 0), kind="stable")
        count = int(np.count_nonzero(time < horizon_ns))
        now, later = order[:count], order[count:]
        self._parts = [(time[later], kind[later], thread[later], value[later])]
        self.waiting = len(later)
        time, kind, thread, value = time[now], kind[now], thread[now], value[now]
        self.late += int(np.searchsorted(time, self._settled_ns))
        np.maximum(time, self._settled_ns, out=time)
        self._settled_ns = max(self._settled_ns, horizon_ns)
        return time, kind, thread, value

    def _assign(self, events: Columns) -> None:
        made, pages = len(self._table), int(np.count_nonzero(events[1] == 0))
        table = np.empty((made + pages, 5), np.int64)
        table[:made], self._counts[self._loops.MADE] = self._table, made
        batch, limits = np.empty(len(events[0]), np.int32), np.array([DRAIN_ENTRIES])
        self._loops.assign(
            events, self._rounds, self._slots, limits, self._gaps, self._state, table, batch,
            self._counts,
        )  # fmt: skip
        placed = batch >= 0
        self._batch = np.concatenate([self._batch, batch[placed]])
        self._gfn = np.concatenate([self._gfn, events[3][placed]])
        self._table = table[: self._counts[self._loops.MADE]].copy()

    def _running(self, horizon_ns: int) -> Ints:
        """Return the batches that may still get pages; the threads forget the others."""
        loops, state = self._loops, self._state
        of = state[loops.BATCH]
        goes_on = (of >= 0) & (state[loops.RUN] >= 0) & (state[loops.RUN] < DRAIN_ENTRIES)
        goes_on &= horizon_ns - state[loops.LAST] < self._gaps
        rounds = self._table[of[goes_on], loops.ROUND]
        goes_on[goes_on] = self._rounds[rounds, 1] >= horizon_ns
        state[loops.BATCH] = np.where(goes_on, of, -1)
        return of[goes_on]

    def _taken(self, running: Ints) -> Batches:
        """Remove the finished batches that end before all unfinished ones."""
        loops, table = self._loops, self._table
        over = table[:, loops.END] < table[running, loops.END].min(initial=EVER_NS)
        over[running] = False
        done = np.flatnonzero(over)
        done = done[np.lexsort((table[done, loops.THREAD], table[done, loops.END]))]
        rows, count = table[done], table[done, loops.COUNT]
        place = np.full(len(table), -1, np.int64)
        place[done] = np.cumsum(count) - (1 if self._turn else count)
        gfn = np.empty(int(count.sum()), np.uint64)
        left = loops.gather(self._batch, self._gfn, place, -1 if self._turn else 1, gfn)
        new = np.append(np.cumsum(~over) - 1, -1)  # -1 stays -1
        self._table = table[~over]
        self._batch, self._gfn = new[self._batch[:left]].astype(np.int32), self._gfn[:left].copy()
        self._state[loops.BATCH] = new[self._state[loops.BATCH]]
        thread = rows[:, loops.THREAD]
        self.strange += int(count[~self._runs[thread]].sum())
        number, since, end = (rows[:, n].copy() for n in (loops.ROUND, loops.ENTERED, loops.END))
        return Batches(self._vcpu[thread], number, since, end, count, gfn)
