# SPDX-License-Identifier: Apache-2.0
"""Events of all CPUs in order: whose they are, which drain and round they belong to, what was lost.

All of it is in arrays, and in memory: 60 bytes for each logged page at the most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.interop.kvm_log import MARK, OLDEST_FIRST, PAGE, drains, turned
from pmlkit.kvm.frames import LOG
from pmlkit.sources.kvm.stream import ENTRY

if TYPE_CHECKING:
    from pmlkit.sources.kvm.stream import Pages, Round
    from pmlkit.types import Array, Gfns, Ints


__all__ = ["Collected", "Log", "Losses", "of_rounds"]

UNKNOWN_NS = -1


@dataclass(frozen=True)
class Losses:
    """Where events of the log were lost.

    Attributes
    ----------
    after, before : ndarray of int64
        Times of the last event before and the first one after, on the CPU.
    count : ndarray of int64
        How many; -1: not known.
    """

    after: Ints
    before: Ints
    count: Ints


@dataclass(frozen=True)
class Log:
    """The pages that were logged, by thread and in the guest's order.

    Attributes
    ----------
    time : ndarray of int64
        When each came out of PML's buffer, or was written first.
    vcpu : ndarray of uint16
    gfn : ndarray of uint64
    drain : ndarray of int64
        The number of the drain.
    since : ndarray of int64
        Of each drain: when its vCPU had been entered; `UNKNOWN_NS` without marks.
    turned : bool
        Whether drains were turned round.
    strange : int
        Pages by threads that run no vCPU.
    """

    time: Ints
    vcpu: Array
    gfn: Gfns
    drain: Ints
    since: Ints
    turned: bool
    strange: int


class Collected:
    """Takes the pages of a stream as they come."""

    def __init__(self) -> None:
        self._log: list[Pages] = []
        self._marks: list[Pages] = []
        self._last: dict[int, int] = {}
        self._losses: list[tuple[int, int, int]] = []
        self._waiting: dict[int, list[tuple[int, int]]] = {}

    def add(self, pages: Pages) -> None:
        """Add the events of some pages."""
        if pages.stream != LOG:
            self._marks.append(pages)
            return
        self._add_losses(pages)
        if len(pages.time):
            self._log.append(pages)
            self._last[pages.cpu] = int(pages.time[-1])

    def _add_losses(self, pages: Pages) -> None:
        waiting = self._waiting.setdefault(pages.cpu, [])
        if waiting and len(pages.time):
            first = int(pages.time[0])
            self._losses += [(after, first, count) for after, count in waiting]
            waiting.clear()
        for place, count in pages.lost.tolist():
            after = int(pages.time[place - 1]) if place else self._last.get(pages.cpu, 0)
            if place < len(pages.time):
                self._losses.append((after, int(pages.time[place]), count))
            else:  # what follows comes in a later frame
                waiting.append((after, count))

    def losses(self) -> Losses:
        """Return the losses."""
        rows = list(self._losses)
        for waiting in self._waiting.values():
            rows += [(after, 1 << 62, count) for after, count in waiting]
        table = np.array(rows, np.int64).reshape(-1, 3)
        return Losses(table[:, 0], table[:, 1], table[:, 2])

    def log(self, vcpus: dict[int, int], release: tuple[int, int], pml: bool) -> Log:
        """Return the log in order.

        Parameters
        ----------
        vcpus : dict of int to int
            The vCPUs of threads, where entries do not tell them.
        release : (int, int)
            The kernel's, which tells the order within a drain.
        pml : bool
            Whether KVM uses PML: without, pages come one by one.
        """
        if not self._log:
            none = np.empty(0, np.int64)
            return Log(none, none.astype(np.uint16), none.astype(np.uint64), none, none, False, 0)
        columns = self._columns()
        vcpu_of, runs = _vcpus(columns, vcpus)
        rows, begins = drains(columns | {"vcpu": np.zeros(1, np.uint16)}, columns["time"])
        drain = np.zeros(len(rows), np.int64)
        drain[begins[begins > 0]] = 1
        drain = np.cumsum(drain)
        turn = pml and (0, 0) < release < OLDEST_FIRST
        order = rows[turned(begins, len(rows))] if turn else rows
        return Log(
            time=columns["time"][rows],
            vcpu=vcpu_of[rows],
            gfn=columns["value"][order],
            drain=drain,
            since=_since(columns, rows[begins]),
            turned=turn,
            strange=int(np.count_nonzero(~runs[rows])),
        )

    def _columns(self) -> dict[str, Array]:
        """Return all events by time, as columns; a mark comes before a page of the same time."""
        parts = [*self._marks, *self._log]
        types = {"time": np.int64, "thread": np.int32, "kind": np.uint8, "value": np.uint64}
        columns: dict[str, Array] = {
            name: np.concatenate([np.empty(0, kind), *(getattr(p, name) for p in parts)])
            for name, kind in types.items()
        }
        order = np.argsort(columns["time"], kind="stable")
        columns = {name: column[order] for name, column in columns.items()}
        columns["entry"] = columns["kind"] == ENTRY
        columns["kind"] = np.where(columns["kind"] == 0, PAGE, MARK).astype(np.uint8)
        return columns


def _vcpus(columns: dict[str, Array], known: dict[int, int]) -> tuple[Array, Array]:
    """Return the vCPU of each event, and whether its thread runs one."""
    threads, number = np.unique(columns["thread"], return_inverse=True)
    entered = np.flatnonzero(columns["entry"])
    told = dict(zip(columns["thread"][entered].tolist(), columns["value"][entered].tolist(),
                    strict=True))  # fmt: skip
    known = {**known, **{thread: vcpu for thread, vcpu in told.items() if vcpu < 1 << 16}}
    if not known:  # nobody says which threads run vCPUs: those that log do
        known = {thread: n for n, thread in enumerate(threads.tolist())}
    vcpu = np.array([known.get(t, 0) for t in threads.tolist()], np.uint16)
    runs = np.array([t in known for t in threads.tolist()], bool)
    return vcpu[number], runs[number]


def _since(columns: dict[str, Array], rows: Ints) -> Ints:
    """Return when the threads of these rows had last entered their vCPUs."""
    thread, time = columns["thread"], columns["time"]
    entered = np.flatnonzero(columns["entry"])
    if not len(entered):
        return np.full(len(rows), UNKNOWN_NS, np.int64)
    order = np.lexsort((time[entered], thread[entered]))
    entered = entered[order]
    # One key of thread and place in time; an entry is before its page if its row is.
    count = np.int64(len(time))
    keys = thread[entered].astype(np.int64) * count + entered
    at = np.searchsorted(keys, thread[rows].astype(np.int64) * count + rows) - 1
    same = (at >= 0) & (thread[entered[np.maximum(at, 0)]] == thread[rows])
    return np.where(same, time[entered[np.maximum(at, 0)]], UNKNOWN_NS)


def of_rounds(time: Ints, rounds: list[Round]) -> Ints:
    """Return the round of each time; -1 outside of all.

    A time that ends one round and begins another is of the first.
    """
    starts = np.array([one.start_ns for one in rounds], np.int64)
    ends = np.array([one.end_ns for one in rounds], np.int64)
    number = np.searchsorted(ends, time, "left")
    inside = number < len(rounds)
    inside[inside] &= time[inside] > starts[number[inside]]
    return np.where(inside, number, -1)
