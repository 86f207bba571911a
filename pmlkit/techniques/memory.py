# SPDX-License-Identifier: Apache-2.0
"""A guest of changing size: a replay of the accesses with less memory than the recording had.

The recorded VM had enough memory for all pages. Here, the pages that its kernel could give up
compete for the memory that a technique leaves. The least recently used page (or CLOCK's choice)
goes first, to the swap disk. It returns by a major fault at its next use. This is a model with
these limits:

- A page is a frame of the recording. The kernel can give up anonymous memory and files in tmpfs
  (and, if the cache is ``"evictable"``, all files). It reports their number, but not their frames.
  The model uses the written frames, except those that the guest used before its first sample: these
  belong to the kernel. The kernel's number is decisive: if there are more frames, the longest
  unused ones are assumed to be freed.
- The growth of the page cache since the recording's start is assumed to be tmpfs: the recorder's
  guests have no file system on a disk.
- Within a round, the replay knows which pages were used, but not how often. It replaces pages at
  the end of rounds.
- Memory that was allocated before the start and not touched since goes first, and never returns.
- The VM does not run slower when it faults: the recorded times stay.
- No read-ahead of swap: the recorder's guests disable it (``vm.page-cluster = 0``).

Its error: tests/techniques/test_memory_real.py compares the model with guests that had a real limit
and a swap disk, and ``data/swap-model`` has the pages that both swapped.
`MemoryModel.slack_pages` was chosen on these guests. A program that cycles through more memory than
there is, such as xz, is sensitive to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import UsageError
from pmlkit.trace.schema import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pmlkit.techniques.recorded import Recorded
    from pmlkit.types import Bools, Ints

__all__ = ["Counters", "Guest", "MemoryModel", "peak_pages", "reserve_pages", "returned_pages"]

POLICIES = ("lru", "clock")
CACHES = ("pinned", "evictable")


@dataclass(frozen=True)
class MemoryModel:
    """The behaviour of the guest's memory.

    Attributes
    ----------
    policy : {"lru", "clock"}
        The replacement policy. Linux lies between the two: its two lists approximate LRU.
    cache : {"pinned", "evictable"}
        Files outside tmpfs. For the recorder's guests, whose files are all in memory, they are
        pinned.
    slack_pages : int
        Additional memory of a guest that swaps: free pages (its watermarks), pages on their way to
        the disk, and the kernel's records about the swap disk. Calibrated, see above.
    """

    policy: str = "lru"
    cache: str = "pinned"
    slack_pages: int = 800

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise UsageError(f"the policy {self.policy!r} is unknown: use {' or '.join(POLICIES)}")
        if self.cache not in CACHES:
            raise UsageError(f"the cache is {self.cache!r}: use {' or '.join(CACHES)}")


def reserve_pages(recorded: Recorded) -> int:
    """Return the memory that the guest needs independently of programs, with its free pages."""
    first = recorded.guest_samples.iloc[0]
    return _fixed_pages(recorded) + int(first["allocated_bytes"] - first["anon_bytes"]) // PAGE_SIZE


def peak_pages(recorded: Recorded) -> int:
    """Return the least memory with which the guest would never have swapped."""
    most = int(recorded.guest_samples["allocated_bytes"].max())
    return _fixed_pages(recorded) + most // PAGE_SIZE


def _fixed_pages(recorded: Recorded) -> int:
    """Return the memory that the guest's kernel does not count, with its free pages."""
    counted = int(recorded.guest_samples["total_bytes"].iloc[0]) // PAGE_SIZE
    return recorded.known_memory_pages - counted + MemoryModel().slack_pages


@dataclass(frozen=True)
class Counters:
    """The report of the guest's kernel, in pages; the counters start with the recording.

    Attributes
    ----------
    limit, resident, anon, cached, free, committed : int
        Its memory and its contents.
    swap_ins, swap_outs, refaults : int
        Pages that returned from the swap disk, went there, and returned to the page cache.
    new_swap_ins, new_swap_outs : int
        Pages read again (swap or cache) and written since the previous request for the counters.
    """

    limit: int
    resident: int
    anon: int
    cached: int
    free: int
    committed: int
    swap_ins: int
    swap_outs: int
    refaults: int
    new_swap_ins: int
    new_swap_outs: int


class Guest:
    """The replay; it needs samples of the guest's own view."""

    def __init__(self, recorded: Recorded, model: MemoryModel) -> None:
        self._recorded, self._model = recorded, model
        table = recorded.guest_samples
        self._times = table["t_ns"].to_numpy() - recorded.t_ns[0]
        names = ("total", "allocated", "anon", "cached", "committed")
        pages = {name: table[f"{name}_bytes"].to_numpy() // PAGE_SIZE for name in names}
        self._samples, self._round, self._sample = pages, 0, 0
        self._movable, self._fixed = _movable(pages, model.cache), _fixed(recorded, pages, model)
        self._places = recorded.places  # indices of frames in the arrays below
        size = len(self._places)
        self._last = np.full(size, -1, np.int32)  # round of the last use
        self._in, self._out = np.zeros(size, bool), np.zeros(size, bool)
        self._dirty, self._was_written = np.zeros(size, bool), np.zeros(size, bool)
        self._referenced, self._hand = np.zeros(size, bool), 0  # CLOCK's reference bits
        self._reclaimable = np.zeros(size, bool)
        self._kernels = np.zeros(size, bool)
        ends = recorded.t_ns[1:] - recorded.t_ns[0]
        before = int(np.searchsorted(ends, self._times[0], "right"))
        self._kernels[self._places(recorded.accesses.between(0, before))] = True
        self.limit = self._memory_pages = recorded.known_memory_pages
        self._resident = 0
        self._moves: list[tuple[Ints, bool]] = []  # places, and whether each is a reload
        self._last_counts = 0, 0  # counts at the last call of `counters`
        self.swap_ins = self.swap_outs = self.refaults = 0

    def resize(self, pages: float) -> int:
        """Set the size of its memory; return the pages that the balloon moved."""
        least = int(self._fixed[self._sample]) + self._model.slack_pages
        pages = int(np.clip(pages, least, self._memory_pages))
        moved, self.limit = pages - self.limit, pages
        self._shrink()
        return moved

    def advance(self, stop: int) -> None:
        """Replay the rounds before `stop`."""
        evictable = self._model.cache == "evictable"
        for r in range(self._round, stop):
            used = self._places(self._recorded.accesses.between(r, r + 1))
            written = self._places(self._recorded.writes.between(r, r + 1))
            new = used if evictable else written
            self._reclaimable[new[~self._kernels[new]]] = True
            used, written = used[self._reclaimable[used]], written[self._reclaimable[written]]
            self._take_in(used)
            self._last[used], self._referenced[used] = r, True
            self._dirty[written] = self._was_written[written] = True
            self._round = r + 1
            if self._sample_now() != self._sample:
                self._sample = self._sample_now()
                self._forget_freed()
            self._shrink()

    def counters(self) -> Counters:
        """Return the guest's present counters."""
        at = self._sample
        touched = self._resident - self._grown()
        movable = touched + min(self._cold(), max(self._room() - touched, 0))
        resident = int(self._fixed[at]) + movable
        anon = min(int(self._samples["anon"][at]), movable)  # tmpfs is assumed to be evicted first
        before, self._last_counts = (
            self._last_counts,
            (
                self.swap_ins + self.refaults,
                self.swap_outs,
            ),
        )
        return Counters(
            limit=self.limit,
            resident=resident,
            anon=anon,
            cached=movable - anon,
            free=max(self.limit - resident, 0),
            committed=int(self._samples["committed"][at]),
            swap_ins=self.swap_ins,
            swap_outs=self.swap_outs,
            refaults=self.refaults,
            new_swap_ins=self._last_counts[0] - before[0],
            new_swap_outs=self._last_counts[1] - before[1],
        )

    def evictions(self) -> tuple[Ints, Bools]:
        """Return the frames evicted or reloaded since the last call, and True for a reload."""
        moves, self._moves = self._moves, []
        at = [np.zeros(0, np.int64)] + [places for places, _ in moves]
        back = [np.zeros(0, bool)] + [np.full(len(places), came) for places, came in moves]
        return self._places.frames[np.concatenate(at)], np.concatenate(back)

    def _sample_now(self) -> int:
        now = self._recorded.t_ns[self._round] - self._recorded.t_ns[0]
        return max(int(np.searchsorted(self._times, now, "right")) - 1, 0)

    def _grown(self) -> int:
        """Count the kernel's pages that are new since the start: no frame identifies them."""
        grown = int(self._fixed[self._sample] - self._fixed[0])
        return min(max(grown, 0), self._resident)

    def _cold(self) -> int:
        """Count the reclaimable pages that were not touched since the start: they go first."""
        known = int(np.count_nonzero(self._in | self._out))
        return max(int(self._movable[self._sample]) - known, 0)

    def _forget_freed(self) -> None:
        """Forget the longest unused pages in excess of the guest's current number.

        They were freed: they are not written to the disk, and the next use of their frame is of a
        new page.
        """
        known = np.flatnonzero(self._in | self._out)
        surplus = len(known) - self._grown() - int(self._movable[self._sample])
        if surplus <= 0:
            return
        freed = known[np.argpartition(self._last[known], surplus - 1)[:surplus]]
        self._resident -= int(np.count_nonzero(self._in[freed]))
        for state in (self._in, self._out, self._dirty, self._was_written, self._reclaimable):
            state[freed] = False

    def _take_in(self, used: Ints) -> None:
        came = used[~self._in[used]]
        back = came[self._out[came]]
        swapped = int(np.count_nonzero(self._was_written[back]))
        self.swap_ins += swapped
        self.refaults += len(back) - swapped
        if len(back):
            self._moves.append((back, True))
        self._in[came], self._out[came] = True, False
        self._resident += len(came)

    def _shrink(self) -> None:
        excess = min(self._resident - self._grown() - self._room(), self._resident)
        if excess > 0:
            self._evict(self._choose(excess))

    def _room(self) -> int:
        return max(self.limit - int(self._fixed[self._sample]) - self._model.slack_pages, 0)

    def _choose(self, count: int) -> Ints:
        inside = np.flatnonzero(self._in)
        if self._model.policy == "lru":
            if count >= len(inside):
                return inside
            order = np.argpartition(self._last[inside], count - 1)[:count]
            return inside[order]
        return self._by_clock(inside, count)

    def _by_clock(self, inside: Ints, count: int) -> Ints:
        """Turn CLOCK's hand: a referenced page gets a second chance, until the next turn."""
        ahead = np.roll(inside, -np.searchsorted(inside, self._hand))
        spared = self._referenced[ahead]
        victims = ahead[~spared][:count]
        if len(victims) == count:
            last = int(np.flatnonzero(~spared)[count - 1])
            self._referenced[ahead[: last + 1]] = False
        else:  # one turn was not enough: all pages have had their second chance
            self._referenced[ahead] = False
            victims = np.concatenate((victims, ahead[spared][: count - len(victims)]))
        self._hand = int(victims[-1]) + 1
        return victims

    def _evict(self, frames: Ints) -> None:
        self._in[frames], self._out[frames] = False, True
        self.swap_outs += int(np.count_nonzero(self._dirty[frames]))
        self._dirty[frames] = (
            False  # the copy on the disk stays valid until the page is written again
        )
        self._resident -= len(frames)
        oldest = frames[np.argsort(self._last[frames], kind="stable")]
        self._moves.append((oldest, False))


def returned_pages(recorded: Recorded, pages: int) -> int:
    """Return how many pages return from the disk if the guest has so many pages of memory."""
    guest = Guest(recorded, MemoryModel())
    guest.resize(pages)
    guest.advance(recorded.n_rounds)
    return guest.swap_ins + guest.refaults


def _movable(pages: Mapping[str, Ints], cache: str) -> Ints:
    """Return the reclaimable pages at each sample: anonymous ones, tmpfs, maybe the cache."""
    files = pages["cached"] if cache == "evictable" else pages["cached"] - pages["cached"][0]
    return pages["anon"] + np.maximum(files, 0)


def _fixed(recorded: Recorded, pages: Mapping[str, Ints], model: MemoryModel) -> Ints:
    """Return the other pages at each sample: the kernel's image, and its own allocations."""
    kernel = recorded.known_memory_pages - int(pages["total"][0])
    return kernel + np.maximum(pages["allocated"] - _movable(pages, model.cache), 0)
