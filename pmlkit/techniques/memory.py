# SPDX-License-Identifier: Apache-2.0
"""A guest of changing size: a replay of the accesses against less memory than it had.

The recorded VM had room for all. Here the pages that its kernel could give up compete for what a
technique leaves it: the least recently used go first (or CLOCK's choice), to the swap disk, and
come back by a major fault when they are used again. It is a model, and these are its limits:

- A page is a frame of the recording. The kernel can give up anonymous memory and files in tmpfs
  (and, if the cache is ``"evictable"``, all files); how many those are it says itself, which they
  are it does not. Taken for them is what was written, except frames that the guest used before its
  first sample: those are the kernel's. What counts is the kernel's number: of more frames, the
  longest unused ones are taken to be freed.
- Of the page cache, what it has grown by since the recording's start is taken to be tmpfs: the
  recorder's guests have no file system on a disk.
- Within a round it knows who was used, not how often: it replaces at the end of rounds.
- What was allocated and not touched since the start goes first, and never comes back.
- The VM does not run slower when it faults: the recording's times stand.
- No read-ahead of swap: the recorder's guests have it off (``vm.page-cluster = 0``).

How far off it is: `pmlkit.techniques.memory` holds it against guests that had a real limit and a
swap disk. Swap-ins and swap-outs of the model (LRU), in percent of what those guests did: pressure
in 112 MiB -7 and -7, in phases four times as long -7 and -4, in 96 MiB -6 and -2, in 128 MiB +13
and +1; redis with 70,000 keys in 160 MiB -8 and -4, in 192 MiB none, rightly; xz in 112 MiB +10
and +14, in 104 MiB 0 and -7. `MemoryModel.slack_pages` was chosen on these. xz, which goes round
in more memory than there is, is sensitive to it: with 1024 pages +48 % in 112 MiB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import UsageError
from pmlkit.techniques.recorded import Recorded, known_memory
from pmlkit.trace.schema import PAGE_SIZE

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.techniques.recorded import Recorded
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Bools, Floats, Ints, Json

__all__ = ["Counters", "Guest", "MemoryModel", "against"]


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
        Files beside those in tmpfs. Of the recorder's guests, whose files are all in memory, they
        are pinned.
    slack_pages : int
        What a guest that swaps keeps or needs beside: free pages (its watermarks), pages on their
        way to the disk, and what the kernel knows of the swap disk. Calibrated, see above.
    """

    policy: str = "lru"
    cache: str = "pinned"
    slack_pages: int = 800

    def __post_init__(self) -> None:
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

    def __init__(self, recorded: Recorded, model: MemoryModel) -> None:
        self._recorded, self._model = recorded, model
        self._times = recorded.guest["t_ns"].to_numpy() - recorded.t_ns[0]  # type: ignore[index]
        names = ("total", "allocated", "anon", "cached", "committed")
        pages = {name: recorded.guest[f"{name}_bytes"].to_numpy() // PAGE_SIZE for name in names}  # type: ignore[index]
        self._samples, self._round, self._asked = pages, 0, 0
        self._movable, self._fixed = _movable(pages, model.cache), _fixed(recorded, pages, model)
        self._places = recorded.places  # of frames: what is noted of them stands there
        size = len(self._places)
        self._last = np.full(size, -1, np.int32)
        self._in, self._out = np.zeros(size, bool), np.zeros(size, bool)
        self._dirty, self._was_written = np.zeros(size, bool), np.zeros(size, bool)
        self._referenced, self._hand = np.zeros(size, bool), 0
        self._ours = np.zeros(size, bool)  # frames that the kernel could give up
        self._kernels = np.zeros(size, bool)
        ends = recorded.t_ns[1:] - recorded.t_ns[0]
        before = int(np.searchsorted(ends, self._times[0], "right"))
        self._kernels[self._places(recorded.accesses.between(0, before))] = True
        self.limit = self._whole = known_memory(recorded.name, recorded.memory_pages)
        self._resident = 0
        self._moves, self._told = [], (0, 0)  # type: ignore[var-annotated]
        self.swap_ins = self.swap_outs = self.refaults = 0

    def resize(self, pages: int) -> int:
        """Set the size of its memory; return the pages that the balloon moved."""
        least = int(self._fixed[self._asked]) + self._model.slack_pages
        pages = int(np.clip(pages, least, self._whole))
        moved, self.limit = pages - self.limit, pages
        self._shrink()
        return moved

    def advance(self, stop: int) -> None:
        """Replay the rounds up to `stop`, which is left out."""
        evictable = self._model.cache == "evictable"
        for r in range(self._round, stop):
            used = self._places(self._recorded.accesses.between(r, r + 1))
            written = self._places(self._recorded.writes.between(r, r + 1))
            new = used if evictable else written
            self._ours[new[~self._kernels[new]]] = True
            used, written = used[self._ours[used]], written[self._ours[written]]
            self._take_in(used)
            self._last[used], self._referenced[used] = r, True
            self._dirty[written] = self._was_written[written] = True
            self._round = r + 1
            if self._index() != self._asked:
                self._asked = self._index()
                self._forget_freed()
            self._shrink()

    def counters(self) -> Counters:
        """Return the `Counters` of now."""
        at = self._asked
        touched = self._resident - self._grown()
        movable = touched + min(self._cold(), max(self._room() - touched, 0))
        resident = int(self._fixed[at]) + movable
        anon = min(int(self._samples["anon"][at]), movable)  # tmpfs is taken to go first
        back = self.swap_ins + self.refaults
        news = (back - self._told[0], self.swap_outs - self._told[1])
        self._told = (back, self.swap_outs)
        return Counters(
            self.limit, resident, anon, movable - anon, max(self.limit - resident, 0),
            int(self._samples["committed"][at]), self.swap_ins, self.swap_outs, self.refaults,
            *news,
        )  # fmt: skip

    def evictions(self) -> tuple[Ints, Bools]:
        """Return what went and what came back since the last call: frames, and True if back."""
        moves, self._moves = self._moves, []
        at = [np.zeros(0, np.int64)] + [places for places, _ in moves]
        back = [np.zeros(0, bool)] + [np.full(len(places), came) for places, came in moves]
        return self._places.frames[np.concatenate(at)], np.concatenate(back)

    def _index(self) -> int:
        now = self._recorded.t_ns[self._round] - self._recorded.t_ns[0]
        return max(int(np.searchsorted(self._times, now, "right")) - 1, 0)

    def _grown(self) -> int:
        """Count the kernel's pages that are new since the start: they look like any other's."""
        grown = int(self._fixed[self._asked] - self._fixed[0])
        return min(max(grown, 0), self._resident)

    def _cold(self) -> int:
        """Count the pages that could go and were not touched since the start: they go first."""
        known = np.count_nonzero(self._in | self._out)
        return max(int(self._movable[self._asked]) - known, 0)  # type: ignore[return-value]

    def _forget_freed(self) -> None:
        """Forget the longest unused pages that are more than the guest has by now.

        They were freed: nobody writes them to the disk, and who uses their frame next finds a new
        page.
        """
        known = np.flatnonzero(self._in | self._out)
        surplus = len(known) - self._grown() - int(self._movable[self._asked])
        if surplus <= 0:
            return
        freed = known[np.argpartition(self._last[known], surplus - 1)[:surplus]]
        self._resident -= np.count_nonzero(self._in[freed])  # type: ignore[assignment]
        for state in (self._in, self._out, self._dirty, self._was_written, self._ours):
            state[freed] = False

    def _take_in(self, used: Ints) -> None:
        came = used[~self._in[used]]
        back = came[self._out[came]]
        swapped = np.count_nonzero(self._was_written[back])
        self.swap_ins += swapped  # type: ignore[assignment]
        self.refaults += len(back) - swapped  # type: ignore[assignment]
        if len(back):
            self._moves.append((back, True))
        self._in[came], self._out[came] = True, False
        self._resident += len(came)

    def _shrink(self) -> None:
        excess = min(self._resident - self._grown() - self._room(), self._resident)
        if excess > 0:
            self._evict(self._choose(excess))

    def _room(self) -> int:
        return max(self.limit - int(self._fixed[self._asked]) - self._model.slack_pages, 0)

    def _choose(self, count: int) -> Ints:
        inside = np.flatnonzero(self._in)
        if self._model.policy == "lru":
            if count >= len(inside):
                return inside
            order = np.argpartition(self._last[inside], count - 1)[:count]
            return inside[order]
        return self._by_clock(inside, count)

    def _by_clock(self, inside: Ints, count: int) -> Ints:
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

    def _evict(self, frames: Ints) -> None:
        self._in[frames], self._out[frames] = False, True
        self.swap_outs += np.count_nonzero(self._dirty[frames])  # type: ignore[assignment]
        self._dirty[frames] = False  # its copy on the disk stays good until it is written again
        self._resident -= len(frames)
        oldest = frames[np.argsort(self._last[frames], kind="stable")]
        self._moves.append((oldest, False))


def _movable(pages: Any, cache: Any) -> Any:
    """Return the pages that could go, at each sample: anonymous ones, tmpfs, maybe the cache."""
    files = pages["cached"] if cache == "evictable" else pages["cached"] - pages["cached"][0]
    return pages["anon"] + np.maximum(files, 0)


def _fixed(recorded: Recorded, pages: Any, model: MemoryModel) -> Floats:
    """Return the pages that could not, at each sample: the kernel's image, and all else."""
    kernel = known_memory(recorded.name, recorded.memory_pages) - int(pages["total"][0])
    return kernel + np.maximum(pages["allocated"] - _movable(pages, model.cache), 0)


# ------------------------------------------------------------------------------
# How far the memory model is off, against guests that really had too little memory.


def against(limited: Trace, roomy: Trace | Recorded, model: MemoryModel | None = None) -> Json:
    """Replay a recording made with room for all in as much memory as another guest had.

    Parameters
    ----------
    limited : Trace
        Recorded with too little memory and a swap disk (``pmlkit record --memory --swap``).
    roomy : Trace or Recorded
        Of the same workload, with room for all of it.
    model : MemoryModel, optional

    Returns
    -------
    dict
        ``ins``, ``outs``: pages read from swap and written there, as the guest counted them;
        ``model_ins``, ``model_outs``: the model's.
    """
    recorded = roomy if isinstance(roomy, Recorded) else Recorded.of(roomy)
    if limited.guest is None or recorded.guest is None:
        raise UsageError("samples of both guests are needed: record them with `pmlkit record`")
    real = limited.guest.iloc[-1]
    # Both guests have the same room for pages: the kernel's image is larger in the larger one.
    memory_pages = known_memory(recorded.name, recorded.memory_pages)
    image = memory_pages - int(recorded.guest["total_bytes"].iloc[-1]) // PAGE_SIZE
    guest = Guest(recorded, model or MemoryModel())
    guest.resize(int(real["total_bytes"]) // PAGE_SIZE + image)
    guest.advance(recorded.n_rounds)
    return {
        "ins": int(real["pswpin"]),
        "model_ins": guest.swap_ins + guest.refaults,
        "outs": int(real["pswpout"]),
        "model_outs": guest.swap_outs,
    }
