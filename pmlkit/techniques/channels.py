# SPDX-License-Identifier: Apache-2.0
"""The channels of a view: each a few functions that answer for the time up to now.

A channel is made by a function of the recording, the clock and the view's `charge`, and is a
`Channel`: its functions, nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import NeedsError
from pmlkit.kernels.pml import pml_log
from pmlkit.techniques.recorded import Need, known_memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from pmlkit.techniques.memory import Counters
    from pmlkit.techniques.recorded import Places, Recorded, Uses
    from pmlkit.types import Array, Bools, Ints

__all__ = [
    "Channel",
    "Clock",
    "HOW",
    "MISSING",
    "OPEN",
    "disk",
    "guest",
    "known_memory",
    "memory",
    "notable",
]


# ------------------------------------------------------------------------------
# What a channel of a view is: some functions; the clock, and the memory, of which they answer.


MOST_NOTES = 1 << 25  # pages of which something may be noted one by one: 128 GiB


class Channel:
    """Some functions, by their names."""

    __slots__ = ("__dict__",)

    drain: Callable[..., Any]
    collect: Callable[..., Any]
    mapped: Callable[..., Any]
    entries: Callable[..., Any]
    scan: Callable[..., Any]
    harvest: Callable[..., Any]
    protect: Callable[..., Any]
    caught: Callable[..., Any]
    digest: Callable[..., Any]
    ask: Callable[..., Any]
    requests: Callable[..., Any]
    resize: Callable[..., Any]
    limit: Callable[..., Any]
    counters: Callable[..., Any]
    evictions: Callable[..., Any]

    def __init__(self, **functions: Callable[..., Any]) -> None:
        self.__dict__.update(functions)


class Clock:
    """The present: a time of the recording, and the rounds that are over by then; it moves on.

    Parameters
    ----------
    t_ns : ndarray of int64, shape (n_rounds + 1,)
        The times between rounds.
    idle : ndarray of bool, shape (n_rounds,), optional
        Which rounds are known to be without uses; by default none.
    """

    wait: Callable[[int], int | None]
    rounds: Callable[[], int]

    def __init__(self, t_ns: Ints, idle: Bools | None = None) -> None:
        rounds, time, ends = [0], [0], t_ns[1:] - t_ns[0]

        def wait(due_ns: int) -> int | None:
            """Let time pass until `due_ns`, or until a round ends that is then under way.

            In a round without uses, a gap, all is known at any time. None if it all ends before.
            """
            if len(ends) == 0 or due_ns > ends[-1]:
                return None
            if due_ns > time[0]:
                under_way = int(np.searchsorted(ends, due_ns))
                if idle is not None and idle[under_way] and due_ns < ends[under_way]:
                    rounds[0], time[0] = under_way, due_ns
                else:
                    time[0] = int(ends[under_way])
                    rounds[0] = int(np.searchsorted(ends, time[0], "right"))
            return time[0]

        self.wait, self.rounds = wait, lambda: rounds[0]


def notable(name: str, pages: int) -> int:
    """Return `pages`; raise `NeedsError` if they are too many to note something of each."""
    if pages > MOST_NOTES:
        what = f"memory so small that something can be noted of {pages:,} pages"
        raise NeedsError(name, what, "leave this technique out")
    return pages


# ------------------------------------------------------------------------------
# The channels of a view that lead to the guest: its own view, its disk, and its memory's size.
#
# They are made as those of `pmlkit.techniques.channels` are; None, where the recording has nothing
# of the kind.


def guest(
    recorded: Recorded, clock: Clock, charge: Callable[..., Any], _: object
) -> Channel | None:
    """Let the guest be asked for its own view of its memory, if it was recorded."""
    table = recorded.guest
    if table is None or len(table) == 0:
        return None
    times, rows = table["t_ns"].to_numpy() - recorded.t_ns[0], table.to_dict("records")

    def ask() -> dict[str, Any] | None:
        """Return the guest's latest sample (dict of the trace's columns), None before the first."""
        now = clock.wait(0)
        index = int(np.searchsorted(times, now, "right")) - 1  # type: ignore[call-overload]
        charge(hypercalls=1)
        return dict(rows[index]) if index >= 0 else None  # type: ignore[arg-type]

    return Channel(ask=ask)


def disk(recorded: Recorded, clock: Clock, charge: Callable[..., Any], _: object) -> Channel | None:
    """Watch the guest's disk requests, if they were recorded."""
    table = recorded.disk
    if table is None:
        return None
    times = table["t_ns"].to_numpy() - recorded.t_ns[0]
    columns = {name: table[name].to_numpy() for name in ("sector", "gfn", "write")}
    done = [0]

    def requests() -> tuple[Array, ...]:
        """Return the requests since the last call: a tuple of arrays sector, gfn, write (bool)."""
        first, done[0] = done[0], int(np.searchsorted(times, clock.wait(0), "right"))  # type: ignore[call-overload]
        charge(disk_requests=done[0] - first)
        return tuple(column[first : done[0]].copy() for column in columns.values())

    return Channel(requests=requests)


def memory(
    recorded: Recorded, clock: Clock, charge: Callable[..., Any], model: Any
) -> Channel | None:
    """Give and take the guest's memory: what it does then is a replay, of `techniques.memory`."""
    from pmlkit.techniques.memory import Guest, MemoryModel

    if recorded.guest is None or len(recorded.guest) == 0:
        return None
    vm = Guest(recorded, model or MemoryModel())

    def resize(pages: int) -> None:
        """Give the guest so many pages, by its balloon: at once, as far as they can be had."""
        vm.advance(clock.rounds())
        charge(balloon_pages=abs(vm.resize(pages)), hypercalls=1)

    def limit() -> int:
        """Return the memory that the guest has now, pages."""
        return vm.limit

    def counters() -> Counters:
        """Ask the guest for its own counters: a `pmlkit.techniques.memory.Counters`."""
        vm.advance(clock.rounds())
        told = vm.counters()
        charge(hypercalls=1, swap_ins=told.new_swap_ins, swap_outs=told.new_swap_outs)
        return told

    def evictions() -> tuple[Ints, Bools]:
        """Return the frames that it evicted and took back since the last call, in order.

        The hypervisor keeps what is evicted: each is a copy in its memory, and nobody has to wait
        for a disk.

        Returns
        -------
        frames : ndarray of int64
        back : ndarray of bool
            True for a page that came back, False for one that went.
        """
        vm.advance(clock.rounds())
        vm.counters()
        frames, back = vm.evictions()
        charge(cache_copies=len(frames))
        return frames, back

    return Channel(resize=resize, limit=limit, counters=counters, evictions=evictions)


BUFFER = 512  # entries of a PML buffer
TABLE_FRAMES = 512  # that a leaf page table maps: 2 MiB


def _log(uses: Uses, clock: Clock, charge: Callable[..., Any]) -> Channel:
    """Give the entries of a log of first uses, which is re-armed when asked to."""
    since = [0]

    def drain(rearm: str = "round", buffer_entries: int = BUFFER) -> Any:
        """End a round: return what was logged since the last one, in order, and arm all again.

        Parameters
        ----------
        rearm : {"round", "flush"}
            With ``"flush"`` a page can be logged again once its buffer was drained.
        buffer_entries : int

        Returns
        -------
        ndarray of int64
            Frames; with ``"round"`` each once.
        """
        first, since[0] = since[0], clock.rounds()
        gfn, rounds = uses.between(first, since[0]), uses.rounds_of(first, since[0]) - first
        span = max(since[0] - first, 1)
        log = pml_log(rounds, gfn, np.zeros_like(gfn), buffer_entries, rearm, span)
        charge(pml_exits=log.full.sum(), log_entries=len(log.order), rounds=1)
        return gfn[log.order]

    return Channel(drain=drain)


def _pml(recorded: Recorded, clock: Clock, charge: Callable[..., Any], _: object) -> Channel:
    return _log(recorded.log, clock, charge)


def _references(recorded: Recorded, clock: Clock, charge: Callable[..., Any], _: object) -> Channel:
    return _log(recorded.accesses, clock, charge)


def _latest(uses: Uses, clock: Clock, places: Places) -> Callable[..., Any]:
    """Return a function that says of frames in which round they were last used, or -1."""
    last, seen = np.full(len(places), -1, np.int32), [0]

    def ask(frames: Ints) -> NDArray[np.int32]:
        stop = clock.rounds()
        if stop > seen[0]:
            # Of a frame's uses the last one stays: they are assigned in order.
            last[places(uses.between(seen[0], stop))] = uses.rounds_of(seen[0], stop)
            seen[0] = stop
        return last[places(frames)]

    return ask


def _dirty(recorded: Recorded, clock: Clock, charge: Callable[..., Any], _: object) -> Channel:
    since = [0]

    def collect() -> Ints:
        """Return the pages written since the last call, and write-protect all memory again."""
        first, since[0] = since[0], clock.rounds()
        pages = np.unique(recorded.writes.between(first, since[0]))
        charge(write_faults=len(pages), rounds=1)
        return pages

    return Channel(collect=collect)


def _tables(recorded: Recorded, clock: Clock, charge: Callable[..., Any], _: object) -> Channel:
    since, size = [0], recorded.size

    def mapped() -> tuple[Ints, bool]:
        """Return the frames that the page tables logged since the last call map, and arm all again.

        Where the trace has no snapshots of tables a stand-in answers: see
        `pmlkit.techniques.page_tables`.

        Returns
        -------
        frames : ndarray of int64
            Sorted, each once.
        real : bool
            Whether the trace has snapshots of tables.
        """
        first, since[0] = since[0], clock.rounds()
        real = recorded.mapped is not None
        frames = recorded.mapped if real else recorded.accesses
        frames = np.unique(frames.between(first, since[0]))  # type: ignore[assignment, union-attr]
        tables = np.unique(frames // TABLE_FRAMES)  # type: ignore[operator]
        if real and recorded.leaves is not None:
            tables = np.unique(recorded.leaves.between(first, since[0]))
        charge(pml_exits=len(tables) // BUFFER, log_entries=len(tables), rounds=1)
        if not real:
            frames = (tables[:, None] * TABLE_FRAMES + np.arange(TABLE_FRAMES)).ravel()  # type: ignore[assignment]
        return frames[frames < size], real  # type: ignore[index, operator]

    def entries() -> Any:
        """Return the pages written, and the programs' ones whose entries have the accessed flag.

        Of the tables that were logged since the last call; all is armed again.

        Returns
        -------
        ndarray of int64
            Frames, each once.

        Raises
        ------
        NeedsError
            If the trace has no snapshots of tables.
        """
        if recorded.entries is None:
            raise NeedsError(recorded.name, "snapshots of page tables", _SNAPSHOTS)
        first, since[0] = since[0], clock.rounds()
        frames = np.unique(recorded.entries.between(first, since[0]))
        logged = recorded.log.between(first, since[0])
        tables = np.unique(recorded.leaves.between(first, since[0]))  # type: ignore[union-attr]
        charge(pml_exits=(len(logged) + len(tables)) // BUFFER, rounds=1)
        charge(log_entries=len(logged) + len(tables), entries_read=TABLE_FRAMES * len(tables))
        return frames

    return Channel(mapped=mapped, entries=entries)


def _accessed(recorded: Recorded, clock: Clock, charge: Callable[..., Any], _: object) -> Channel:
    places = recorded.places
    latest, cleared = _latest(recorded.accesses, clock, places), np.zeros(len(places), np.int32)

    def look(frames: Ints) -> Bools:
        at = places(frames)
        touched = latest(frames) >= cleared[at]
        cleared[at] = clock.rounds()
        return touched

    def scan() -> Ints:
        """Read all accessed flags of the VM's memory, and clear them.

        Returns
        -------
        ndarray of int64
            The frames that were accessed since their flags were last cleared, ascending.
        """
        charge(pages_scanned=known_memory(recorded.name, recorded.memory_pages))
        return places.frames[look(places.frames)]

    def harvest(frames: Ints | None = None) -> Bools:
        """Read the accessed flags of frames, and clear them.

        Parameters
        ----------
        frames : array of int, optional
            All of the VM's memory if left out: `scan` says the same in less room.

        Returns
        -------
        ndarray of bool
            Whether each was accessed since its flag was last cleared.
        """
        if frames is not None:
            frames = np.asarray(frames, np.int64)
            charge(flags_read=len(frames))
            return look(frames)
        touched = np.zeros(notable(recorded.name, recorded.size), bool)
        touched[scan()] = True
        return touched

    return Channel(scan=scan, harvest=harvest)


def _traps(recorded: Recorded, clock: Clock, charge: Callable[..., Any], _: object) -> Channel:
    places = recorded.places
    latest, counted = _latest(recorded.accesses, clock, places), np.zeros(len(places), bool)
    since = np.full(len(places), np.iinfo(np.int32).max, np.int32)

    def protect(frames: Ints) -> None:
        """Make frames inaccessible; the first access to each faults, and frees it again."""
        caught(frames)  # what they did until now costs what it costs
        at = places(frames)
        since[at] = clock.rounds()
        counted[at] = False

    def caught(frames: Ints) -> Bools:
        """Say of frames whether they faulted since they were protected (ndarray of bool)."""
        at = places(frames)
        hit = latest(frames) >= since[at]
        charge(faults=np.count_nonzero(hit & ~counted[at]))
        counted[at] |= hit
        return hit

    return Channel(protect=protect, caught=caught)


def _content(recorded: Recorded, clock: Clock, charge: Callable[..., Any], _: object) -> Channel:
    latest = _latest(recorded.writes, clock, recorded.places)

    def digest(frames: Ints) -> NDArray[np.int32]:
        """Hash frames: equal numbers for equal content. A write is taken to change it."""
        frames = np.asarray(frames, np.int64)
        charge(pages_hashed=len(frames))
        return latest(frames).copy()

    return Channel(digest=digest)


OPEN = {
    Need.PML: _pml,
    Need.REFERENCES: _references,
    Need.DIRTY: _dirty,
    Need.TABLES: _tables,
    Need.ACCESSED: _accessed,
    Need.TRAPS: _traps,
    Need.CONTENT: _content,
    Need.DISK: disk,
    Need.GUEST: guest,
    Need.MEMORY: memory,
}
_SNAPSHOTS = "log it in the lab or on a Xen host, with page tables"
_SAMPLES = "samples of the guest's own view"
MISSING = {Need.DISK: "disk requests", Need.GUEST: _SAMPLES, Need.MEMORY: _SAMPLES}
_RECORD = "record it with `pmlkit record`, whose guests report them"
HOW = {Need.DISK: "record with --swap", Need.GUEST: _RECORD, Need.MEMORY: _RECORD}
