# SPDX-License-Identifier: Apache-2.0
"""The channels of a view: the observations that a technique may make, each a record of functions.

The functions answer for the time up to now, and charge the cost of each look. They are closures
over the recording: no attribute of a channel leads to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pmlkit.costs import PROCESSORS, Cost
from pmlkit.errors import NeedsError
from pmlkit.kernels.pml import pml_log
from pmlkit.techniques import host_channels
from pmlkit.techniques.memory import Guest, MemoryModel
from pmlkit.techniques.recorded import Need, Places, Uses
from pmlkit.techniques.setting import latest_use as _latest
from pmlkit.techniques.setting import notable
from pmlkit.techniques.setting import since_last as _since_last

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pmlkit.techniques.memory import Counters
    from pmlkit.techniques.setting import Charge, Clock, Setting
    from pmlkit.types import Bools, Ints, Json

BUFFER = 512  # entries of a PML buffer
TABLE_FRAMES = 512  # frames that a leaf page table maps: 2 MiB
REGION_BITS, AREA_BITS = 9, 18  # pages under an entry of the levels above: 2 MiB, 1 GiB
_SNAPSHOTS = "log it in the lab or on a Xen host, with page tables"


# ------------------------------------------------------------------------------
# The records.


class LogChannel(NamedTuple):
    """A log of first uses since the last re-arm: PML's, or one of all references."""

    drain: Callable[..., Ints]


class DirtyChannel(NamedTuple):
    """Write faults on write-protected memory."""

    collect: Callable[[], Ints]


class TablesChannel(NamedTuple):
    """The leaf page tables in PML's log."""

    mapped: Callable[[], tuple[Ints, bool]]
    entries: Callable[[], Ints]


class AccessedChannel(NamedTuple):
    """The accessed flags of frames, and those of the entries above them."""

    scan: Callable[[], Ints]
    harvest: Callable[..., Bools]
    pruned: Callable[[], Ints]
    upper: Callable[[int, Ints], Bools]


class TrapsChannel(NamedTuple):
    """Faults on frames that were made inaccessible."""

    protect: Callable[[Ints], None]
    caught: Callable[[Ints], Bools]
    unmap: Callable[[int, int], None]
    faulted: Callable[[int, int], int]


class ContentChannel(NamedTuple):
    """Hashes of the content of frames."""

    digest: Callable[[Ints], NDArray[np.int32]]


class DiskChannel(NamedTuple):
    """The guest's disk requests."""

    requests: Callable[[], tuple[Ints, Ints, Bools]]


class GuestChannel(NamedTuple):
    """The guest's own view of its memory."""

    ask: Callable[[], Json | None]


class MemoryChannel(NamedTuple):
    """A guest of changing size: a replay by `pmlkit.techniques.memory`."""

    resize: Callable[[float], None]
    limit: Callable[[], int]
    counters: Callable[[], Counters]
    stalled: Callable[[float], int]
    evictions: Callable[[], tuple[Ints, Bools]]


# ------------------------------------------------------------------------------
# The channels.


def _log(uses: Uses, clock: Clock, charge: Charge) -> LogChannel:
    since_last = _since_last(clock)

    def drain(rearm: str = "round", buffer_entries: int = BUFFER) -> Ints:
        """End a round: return the log since the last round, in order, and re-arm all pages.

        Parameters
        ----------
        rearm : {"round", "flush"}
            With ``"flush"``, a page can be logged again after its buffer was drained.
        buffer_entries : int

        Returns
        -------
        ndarray of int64
            Frames; with ``"round"``, each once.
        """
        first, stop = since_last()
        gfn, rounds = uses.between(first, stop), uses.rounds_of(first, stop) - first
        log = pml_log(rounds, gfn, np.zeros_like(gfn), buffer_entries, rearm, max(stop - first, 1))
        charge(pml_exits=log.full.sum(), log_entries=len(log.order), rounds=1)
        return gfn[log.order]

    return LogChannel(drain)


def _pml(setting: Setting) -> LogChannel:
    return _log(setting.recorded.log, setting.clock, setting.charge)


def _references(setting: Setting) -> LogChannel:
    return _log(setting.recorded.accesses, setting.clock, setting.charge)


def _dirty(setting: Setting) -> DirtyChannel:
    since_last = _since_last(setting.clock)

    def collect() -> Ints:
        """Return the pages written since the last call, and write-protect all memory again."""
        pages = np.unique(setting.recorded.writes.between(*since_last()))
        setting.charge(write_faults=len(pages), rounds=1)
        return pages

    return DirtyChannel(collect)


def _tables(setting: Setting) -> TablesChannel:
    recorded, clock, charge, _ = setting
    since_last, size = _since_last(clock), recorded.size

    def logged(first: int, stop: int, tables: int) -> None:
        """Charge for a log of written pages and tables, each once until the next look."""
        entries = len(np.unique(recorded.log.between(first, stop))) + tables
        charge(pml_exits=entries // BUFFER, marked_entries=entries, tables_found=tables, rounds=1)

    def mapped() -> tuple[Ints, bool]:
        """Return the frames mapped by the tables logged since the last call; re-arm all pages.

        If the trace has no snapshots of tables, a substitute answers: see
        `pmlkit.techniques.page_tables`.

        Returns
        -------
        frames : ndarray of int64
            Sorted, each once.
        real : bool
            Whether the trace has snapshots of tables.
        """
        first, stop = since_last()
        real = recorded.mapped is not None
        frames = np.unique((recorded.mapped or recorded.accesses).between(first, stop))
        tables = np.unique(frames // TABLE_FRAMES)
        if real and recorded.leaves is not None:
            tables = np.unique(recorded.leaves.between(first, stop))
        logged(first, stop, len(tables))
        if not real:
            frames = (tables[:, None] * TABLE_FRAMES + np.arange(TABLE_FRAMES)).ravel()
        return frames[frames < size], real

    def entries() -> Ints:
        """Return the written pages, and the programs' pages whose entries have the accessed flag.

        The entries are those of the tables logged since the last call; all pages are re-armed.

        Returns
        -------
        ndarray of int64
            Frames, each once.

        Raises
        ------
        NeedsError
            If the trace has no snapshots of tables.
        """
        if recorded.entries is None or recorded.leaves is None:
            raise NeedsError(recorded.name, "snapshots of page tables", _SNAPSHOTS)
        first, stop = since_last()
        frames = np.unique(recorded.entries.between(first, stop))
        tables = len(np.unique(recorded.leaves.between(first, stop)))
        logged(first, stop, tables)
        charge(entries_read=TABLE_FRAMES * tables)
        return frames

    return TablesChannel(mapped, entries)


class _Flags(NamedTuple):
    """The accessed flags of frames, at no charge."""

    take: Callable[[Ints], Bools]
    take_all: Callable[[], Ints]
    used_since: Callable[[int], Ints]


def _flags(setting: Setting) -> _Flags:
    clock, places = setting.clock, setting.recorded.places
    latest = _latest(setting.recorded.accesses, clock, places)
    cleared = np.zeros(len(places), np.int32)

    def take(frames: Ints) -> Bools:
        """Read and clear the flags of frames: whether each was set."""
        at = places(frames)
        accessed = latest(frames) >= cleared[at]
        cleared[at] = clock.rounds()
        return accessed

    def take_all() -> Ints:
        """Read and clear all flags; return the frames whose flag was set, ascending."""
        frames = places.frames[latest() >= cleared[:-1]]
        cleared[:] = clock.rounds()
        return frames

    def used_since(since: int) -> Ints:
        """Return the frames that were accessed in the round `since` or later, ascending."""
        return places.frames[latest() >= since]

    return _Flags(take, take_all, used_since)


def _accessed(setting: Setting) -> AccessedChannel:
    flags = _flags(setting)
    scan = _scan(setting, flags)
    harvest = _harvest(setting, flags, scan)
    return AccessedChannel(scan, harvest, _pruned(setting, flags), _upper(setting))


def _scan(setting: Setting, flags: _Flags) -> Callable[[], Ints]:
    def scan() -> Ints:
        """Read and clear all accessed flags of the VM's memory.

        Returns
        -------
        ndarray of int64
            The frames that were accessed since their flags were last cleared, ascending.
        """
        found = flags.take_all()
        setting.charge(pages_scanned=setting.recorded.known_memory_pages, flags_cleared=len(found))
        return found

    return scan


def _harvest(setting: Setting, flags: _Flags, scan: Callable[[], Ints]) -> Callable[..., Bools]:
    def harvest(frames: Ints | None = None, alone: bool = False) -> Bools:
        """Read and clear the accessed flags of frames.

        Parameters
        ----------
        frames : array of int, optional
            Default: all of the VM's memory. `scan` returns the same result in less memory.
        alone : bool
            Each frame is checked individually, as DAMON does; the regions in use are not searched.

        Returns
        -------
        ndarray of bool
            Whether each was accessed since its flag was last cleared.
        """
        if frames is not None:
            frames = np.asarray(frames, np.int64)
            setting.charge(flags_read=len(frames), flag_looks=0 if alone else 1)
            return flags.take(frames)
        accessed = np.zeros(notable(setting.recorded.name, setting.recorded.size), bool)
        accessed[scan()] = True
        return accessed

    return harvest


def _pruned(setting: Setting, flags: _Flags) -> Callable[[], Ints]:
    all_regions = (setting.recorded.size - 1 >> REGION_BITS) + 1
    pruned_at = 0  # the round in which the flags of upper levels were cleared

    def pruned() -> Ints:
        """Read and clear the flags of used upper entries, and all flags below them.

        The harvest examines the regions of 2 MiB in each GiB in use, and the pages in each region
        in use. It finds what `scan` finds, if no page's flag was cleared individually.

        Returns
        -------
        ndarray of int64
            Frames, ascending.
        """
        nonlocal pruned_at
        used = flags.used_since(pruned_at)
        regions, areas = (_distinct(used >> bits) for bits in (REGION_BITS, AREA_BITS))
        found, pruned_at = flags.take_all(), setting.clock.rounds()
        setting.charge(
            pruned_looks=1,
            regions_read=min(areas << (AREA_BITS - REGION_BITS), all_regions),
            pruned_flags=regions << REGION_BITS,
            pruned_set=len(found),
        )
        return found

    return pruned


def _upper(setting: Setting) -> Callable[[int, Ints], Bools]:
    levels: dict[int, Callable[[Ints], Bools]] = {}

    def upper(bits: int, entries: Ints) -> Bools:
        """Read and clear the accessed flags of entries of an upper level.

        Parameters
        ----------
        bits : int
            An entry spans 2^bits pages.
        entries : ndarray of int64
            First frame of each, shifted right by `bits`.

        Returns
        -------
        ndarray of bool
            Whether a page under each was accessed since the entry's flag was last cleared.
        """
        if bits not in levels:
            levels[bits] = _level(*setting.recorded.upper(bits), setting.clock)
        setting.charge(flags_read=len(entries))
        return levels[bits](entries)

    return upper


def _distinct(ascending: Ints) -> int:
    return int(np.count_nonzero(np.diff(ascending))) + (len(ascending) > 0)


def _level(entries: Uses, places: Places, clock: Clock) -> Callable[[Ints], Bools]:
    """Return a function that reads and clears the flags of entries of an upper level."""
    latest, cleared = _latest(entries, clock, places), np.zeros(len(places), np.int32)

    def read_and_clear(which: Ints) -> Bools:
        at = places(which)
        accessed = latest(which) >= cleared[at]
        cleared[at] = clock.rounds()
        return accessed

    return read_and_clear


def _traps(setting: Setting) -> TrapsChannel:
    recorded, clock, charge, _ = setting
    places = recorded.places
    latest, counted = _latest(recorded.accesses, clock, places), np.zeros(len(places), bool)
    # The round since which each frame is protected.
    protected = np.full(len(places), np.iinfo(np.int32).max, np.int32)

    def protect(frames: Ints) -> None:
        """Make frames inaccessible, each until its first access, which faults.

        The mappings are changed one by one, and the processor invalidates translations once.
        """
        caught(frames)  # charges the faults up to now
        at = places(frames)
        charge(pages_unmapped=len(frames), transition=1 if len(frames) else 0)
        protected[at] = clock.rounds()
        counted[at] = False

    def caught(frames: Ints) -> Bools:
        """Return whether each frame has faulted since it was protected (ndarray of bool)."""
        at = places(frames)
        faulted = latest(frames) >= protected[at]
        charge(faults=int(np.count_nonzero(faulted & ~counted[at])))
        counted[at] |= faulted
        return faulted

    def window(first: int, stop: int) -> slice:
        return slice(*np.searchsorted(places.frames, (first, stop)).tolist())

    def unmap(first: int, stop: int) -> None:
        """Make the pages from frame `first` to `stop` (exclusive) inaccessible, as a scanner does.

        Mapped pages are changed one by one, and the processor invalidates translations once.
        """
        faulted(first, stop)  # charges the faults up to now
        at = window(first, stop)
        charge(pages_unmapped=stop - first, transition=1)
        protected[at] = clock.rounds()
        counted[at] = False

    def faulted(first: int, stop: int) -> int:
        """Return the number of these pages that have faulted since they were made inaccessible."""
        at = window(first, stop)
        now = latest()[at] >= protected[at]
        charge(faults=int(np.count_nonzero(now & ~counted[at])))
        counted[at] |= now
        return int(np.count_nonzero(now))

    return TrapsChannel(protect, caught, unmap, faulted)


def _content(setting: Setting) -> ContentChannel:
    latest = _latest(setting.recorded.writes, setting.clock, setting.recorded.places)

    def digest(frames: Ints) -> NDArray[np.int32]:
        """Hash frames: equal numbers for equal content. Every write changes the content."""
        frames = np.asarray(frames, np.int64)
        setting.charge(pages_hashed=len(frames))
        return latest(frames).copy()

    return ContentChannel(digest)


def _disk(setting: Setting) -> DiskChannel:
    recorded, clock, charge, _ = setting
    if recorded.disk is None:
        raise NeedsError(recorded.name, "disk requests", "record with `pmlkit record --swap`")
    times = recorded.disk["t_ns"].to_numpy() - recorded.t_ns[0]
    sector, gfn, write = (recorded.disk[name].to_numpy() for name in ("sector", "gfn", "write"))
    stop = 0

    def requests() -> tuple[Ints, Ints, Bools]:
        """Return the requests since the last call: a tuple of arrays sector, gfn, write (bool)."""
        nonlocal stop
        first, stop = stop, int(np.searchsorted(times, clock.now(), "right"))
        charge(disk_requests=stop - first)
        return sector[first:stop].copy(), gfn[first:stop].copy(), write[first:stop].copy()

    return DiskChannel(requests)


def _guest(setting: Setting) -> GuestChannel:
    recorded, clock, charge, _ = setting
    table = recorded.guest_samples
    times, rows = table["t_ns"].to_numpy() - recorded.t_ns[0], table.to_dict("records")

    def ask() -> Json | None:
        """Return the guest's latest sample (dict of the trace's columns), None before the first."""
        index = int(np.searchsorted(times, clock.now(), "right")) - 1
        charge(hypercalls=1)
        return {str(name): value for name, value in rows[index].items()} if index >= 0 else None

    return GuestChannel(ask)


def _memory(setting: Setting) -> MemoryChannel:
    recorded, clock, charge, model = setting
    vm = Guest(recorded, model or MemoryModel())

    def resize(pages: float) -> None:
        """Set the guest's memory with its balloon, immediately and as far as possible."""
        vm.advance(clock.rounds())
        charge(balloon_pages=abs(vm.resize(pages)), hypercalls=1)

    def limit() -> int:
        """Return the memory that the guest has now, pages."""
        return vm.limit

    def counters() -> Counters:
        """Ask the guest for its own counters."""
        vm.advance(clock.rounds())
        now = vm.counters()
        charge(hypercalls=1, swap_ins=now.new_swap_ins, swap_outs=now.new_swap_outs)
        return now

    def stalled(latency_us: float) -> int:
        """Return the time that the guest waited for its swap device since the last call, ns.

        This corresponds to PSI's ``some`` for a guest with one processor: each page that is read
        again stops it for the device's latency. The unit is the recording's time. If the length of
        an instruction is unknown, as on a host, it is real time, like the latency.
        """
        vm.advance(clock.rounds())
        now = vm.counters()
        waited_us = now.new_swap_ins * latency_us
        charge(stalled_us=round(waited_us), swap_outs=now.new_swap_outs)
        time, wait = recorded.time, Cost(1e3 * waited_us, PROCESSORS["ns at 3 GHz"])
        return round(time.ns(wait) if time.ns_per_insn else wait.amount)

    def evictions() -> tuple[Ints, Bools]:
        """Return the frames that it evicted and reloaded since the last call, in order.

        The hypervisor keeps the evicted frames. Each is a copy in its memory, and no access waits
        for a disk.

        Returns
        -------
        frames : ndarray of int64
        back : ndarray of bool
            True for a reload, False for an eviction.
        """
        vm.advance(clock.rounds())
        vm.counters()
        frames, back = vm.evictions()
        charge(cache_copies=len(frames))
        return frames, back

    return MemoryChannel(resize, limit, counters, stalled, evictions)


OPEN: dict[Need, Callable[[Setting], tuple[object, ...]]] = {
    Need.PML: _pml,
    Need.REFERENCES: _references,
    Need.DIRTY: _dirty,
    Need.TABLES: _tables,
    Need.ACCESSED: _accessed,
    Need.TRAPS: _traps,
    Need.CONTENT: _content,
    Need.DISK: _disk,
    Need.GUEST: _guest,
    Need.MEMORY: _memory,
    Need.AGING: host_channels.aging,
    Need.SOFT_DIRTY: host_channels.soft_dirty,
    Need.SAMPLES: host_channels.samples,
}
