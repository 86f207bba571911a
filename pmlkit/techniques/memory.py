# SPDX-License-Identifier: Apache-2.0
"""A guest of changing size: the recorded accesses, replayed against less memory than it had.

The recorded VM had room for all. Here the pages that it touched compete for what a technique
leaves it: the least recently used go first (or CLOCK's choice), dirty ones to the swap disk, and
come back by a major fault when they are used again. It is a model, and these are its limits:

- A page is a frame of the recording. Which frames the guest freed is not recorded, how many it has
  is: beyond that, the longest unused ones are taken to be freed.
- Within a round it knows who was used, not how often: it replaces at the end of rounds.
- Which frames the kernel cannot give up is not recorded, how many they are is: so many pages less
  are there for the others. The touched ones among them compete like any page.
- A page that was never written while recorded is dropped rather than swapped.
- What the guest had allocated and never touched goes first, and never comes back.
- The VM does not run slower when it faults: the recording's times stand.

How far off it is: guests recorded with a real limit and a swap disk, against the model's replay of
the same workload recorded with room for all. Pages read from swap and written to it, real and
model (LRU): `pressure` in 112 MiB 20,486 and 16,465, 26,435 and 25,817; shorter, 6,781 and 5,847,
12,833 and 15,260; redis with 70,000 keys in 160 MiB 12,947 and 7,027, 18,280 and 13,604; xz in
128 MiB, which just fits, 538 and 0, 923 and 794; sqlite in 128 MiB, which fits, none and none. So
it misses a fifth to a half of the reads: Linux replaces worse than LRU does, and pages of files do
not all stay. CLOCK's numbers differ by a few per cent.
"""

from dataclasses import dataclass

import numpy as np

from pmlkit.errors import UsageError

__all__ = ["Counters", "Guest", "MemoryModel"]

POLICIES = ("lru", "clock")
CACHES = ("pinned", "evictable")


@dataclass(frozen=True)
class MemoryModel:
    """How the guest's memory behaves.

    Attributes
    ----------
    policy : {"lru", "clock"}
        Which page goes. Linux lies between: its two lists approximate LRU.
    cache : {"pinned", "evictable"}
        The page cache. Of the recorder's guests, whose files are all in memory, it is pinned.
    slack_pages : int
        Free pages that the guest's kernel keeps (its watermarks).
    """

    policy: str = "lru"
    cache: str = "pinned"
    slack_pages: int = 1024

    def __post_init__(self):
        if self.policy not in POLICIES:
            raise UsageError(f"the policy {self.policy!r} is none: say {' or '.join(POLICIES)}")
        if self.cache not in CACHES:
            raise UsageError(f"the cache is {self.cache!r}: say {' or '.join(CACHES)}")


@dataclass(frozen=True)
class Counters:
    """What the guest's kernel would say; pages, and pages since the start for the counters.

    Attributes
    ----------
    limit, resident, anon, cached, free, committed : int
        Its memory and what is in it.
    swap_ins, swap_outs, refaults : int
        Pages that came back from the swap disk, went there, and came back to the page cache.
    new_swap_ins, new_swap_outs : int
        Pages read again (swap or cache) and written since the counters were last asked for.
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
    """The replay.

    Parameters
    ----------
    recorded : Recorded
        With samples of the guest's own view.
    model : MemoryModel
    """

    def __init__(self, recorded, model):
        self._recorded, self._model = recorded, model
        self._times = recorded.guest["t_ns"].to_numpy() - recorded.t_ns[0]
        names = ("total", "allocated", "slab", "anon", "cached", "committed")
        pages = {name: recorded.guest[f"{name}_bytes"].to_numpy() // 4096 for name in names}
        self._samples, self._round = pages, 0
        size = recorded.size
        self._last = np.full(size, -1, np.int32)
        self._in, self._out = np.zeros(size, bool), np.zeros(size, bool)
        self._dirty, self._was_written = np.zeros(size, bool), np.zeros(size, bool)
        self._referenced, self._hand = np.zeros(size, bool), 0
        self.limit = recorded.memory_pages
        self._resident = self._touched = 0
        self._cold = int(self._movable()[0])  # could go, and was not touched since the start
        self._moves, self._told, self._asked = [], (0, 0), 0
        self.swap_ins = self.swap_outs = self.refaults = 0

    def resize(self, pages):
        """Set the size of its memory; return the pages that the balloon moved."""
        least = self._pinned() + self._model.slack_pages
        pages = int(np.clip(pages, least, self._recorded.memory_pages))
        moved, self.limit = pages - self.limit, pages
        self._shrink()
        return moved

    def advance(self, stop):
        """Replay the rounds up to `stop`, which is left out."""
        for r in range(self._round, stop):
            used = self._recorded.accesses.between(r, r + 1)
            self._take_in(used)
            self._last[used], self._referenced[used] = r, True
            written = self._recorded.writes.between(r, r + 1)
            self._dirty[written] = self._was_written[written] = True
            self._round = r + 1
            if self._index() != self._asked:
                self._asked = self._index()
                self._forget_freed(self._asked)
            self._shrink()

    def counters(self):
        """Return the `Counters` of now."""
        sample = {name: int(column[self._index()]) for name, column in self._samples.items()}
        resident = self._resident + self._cold + self._pinned()
        movable = max(resident - self._pinned(), 0)
        anon = min(sample["anon"], movable)  # the cache goes before what would have to be swapped
        back = self.swap_ins + self.refaults
        news = (back - self._told[0], self.swap_outs - self._told[1])
        self._told = (back, self.swap_outs)
        return Counters(
            self.limit, resident, anon, movable - anon, max(self.limit - resident, 0),
            sample["committed"], self.swap_ins, self.swap_outs, self.refaults, *news,
        )  # fmt: skip

    def evictions(self):
        """Return what went and what came back since the last call: frames, and True if back."""
        moves, self._moves = self._moves, []
        frames = [np.zeros(0, np.int64)] + [frames for frames, _ in moves]
        back = [np.zeros(0, bool)] + [np.full(len(frames), came) for frames, came in moves]
        return np.concatenate(frames), np.concatenate(back)

    def _index(self):
        now = self._recorded.t_ns[self._round] - self._recorded.t_ns[0]
        return max(int(np.searchsorted(self._times, now, "right")) - 1, 0)

    def _pinned(self):
        """Count the pages that cannot go and that the recording never touched.

        The kernel's image, and of what is allocated all but the movable. Those of them that were
        touched are among the resident ones: whatever was touched beyond the movable.
        """
        at = self._index()
        kernel = self._recorded.memory_pages - int(self._samples["total"][at])
        return kernel + self._fixed(at) - self._fixed_touched(at)

    def _fixed(self, at):
        """Count the pages that cannot go, of those that the guest's kernel calls allocated."""
        return max(int(self._samples["allocated"][at]) - int(self._movable()[at]), 0)

    def _fixed_touched(self, at):
        beyond = self._touched - int(self._movable()[: at + 1].max())
        return min(max(beyond, 0), self._fixed(at))

    def _forget_freed(self, at):
        """Forget the longest unused pages that are more than the guest has allocated by now.

        They were freed: nobody writes them to the disk, and who uses their frame next finds a new
        page.
        """
        known = np.flatnonzero(self._in | self._out)
        surplus = len(known) - self._fixed_touched(at) - int(self._movable()[at])
        if surplus <= 0:
            return
        freed = known[np.argpartition(self._last[known], surplus - 1)[:surplus]]
        self._resident -= np.count_nonzero(self._in[freed])
        for state in (self._in, self._out, self._dirty, self._was_written):
            state[freed] = False

    def _movable(self):
        """Return the pages that could go, at each sample: anonymous ones, and the cache if so."""
        cache = self._samples["cached"] if self._model.cache == "evictable" else 0
        return self._samples["anon"] + cache

    def _take_in(self, used):
        came = used[~self._in[used]]
        back = came[self._out[came]]
        swapped = np.count_nonzero(self._was_written[back])
        self.swap_ins += swapped
        self.refaults += len(back) - swapped
        if len(back):
            self._moves.append((back, True))
        self._in[came], self._out[came] = True, False
        self._resident += len(came)
        self._touched += len(came) - len(back)
        # A page touched for the first time was among the allocated ones, or is allocated now.
        self._cold = max(self._cold - (len(came) - len(back)), 0)

    def _shrink(self):
        room = self.limit - self._pinned() - self._model.slack_pages
        excess = self._resident + self._cold - room
        if excess <= 0:
            return
        cold = min(excess, self._cold)
        self._cold -= cold
        excess = min(excess - cold, self._resident)
        if excess:
            self._evict(self._choose(excess))

    def _choose(self, count):
        inside = np.flatnonzero(self._in)
        if self._model.policy == "lru":
            if count >= len(inside):
                return inside
            order = np.argpartition(self._last[inside], count - 1)[:count]
            return inside[order]
        return self._by_clock(inside, count)

    def _by_clock(self, inside, count):
        """Turn the hand: who was referenced gets a second chance, and goes on the next turn."""
        ahead = np.roll(inside, -np.searchsorted(inside, self._hand))
        spared = self._referenced[ahead]
        victims = ahead[~spared][:count]
        if len(victims) == count:
            last = int(np.flatnonzero(~spared)[count - 1])
            self._referenced[ahead[: last + 1]] = False
        else:  # a whole turn was not enough: all have lost their chance
            self._referenced[ahead] = False
            victims = np.concatenate((victims, ahead[spared][: count - len(victims)]))
        self._hand = int(victims[-1]) + 1
        return victims

    def _evict(self, frames):
        self._in[frames], self._out[frames] = False, True
        self.swap_outs += np.count_nonzero(self._dirty[frames])
        self._dirty[frames] = False  # its copy on the disk stays good until it is written again
        self._resident -= len(frames)
        oldest = frames[np.argsort(self._last[frames], kind="stable")]
        self._moves.append((oldest, False))
