# SPDX-License-Identifier: Apache-2.0
"""The frames logged in a round that are page tables, identified by their content.

On Xen, the hypervisor walks from each CR3 that it sees. Under KVM no other process sees CR3, but
the log contains the tables that it leads to. A walk reads all tables from the root down, and each
read counts as a write. After a re-arm nothing is cached. The roots are therefore among a round's
logged frames, and so are the tables below them. The criteria for a root are the same as in Xen
(``walk.c``: bits that must be 0, a path of used entries), plus two more because there is no CR3:

- the path must end in a leaf table, or a large page, whose used entries map the guest's memory;
- the frames that its used entries map must look like tables, and be in the guest's memory.

Below a root, a frame that an entry maps is a table if it was logged and looks like one.

A guest has one depth of tables at all times: the depth that explains the most logged frames. A
frame is explained if it is a table, or if a leaf entry maps it. At the right depth this holds for
all frames that the guest's walks lead to (`pmlkit.pagetables`). At a wrong depth it does not: data
that looks like a leaf table, such as a heap with the sizes of its blocks, makes four levels look
like five.

With PAE, the page of the four entries that CR3 loads is not a table to a walk, so directories are
roots. Tables of 32-bit entries without PAE are not found.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pmlkit.kvm.frames import CANDIDATE, EMPTY, HOLE
from pmlkit.pagetables import pack
from pmlkit.sources.kvm.stream import look_of
from pmlkit.trace.kinds import Kind, TableFlag

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from pmlkit.sources.kvm.stream import Look, Looked
    from pmlkit.trace.writer import TraceWriter
    from pmlkit.types import Array, Bools, Gfns, Ints


__all__ = ["DEPTHS", "Candidates", "PageTables", "Tables", "find_tables", "table_rows"]

DEPTHS = (5, 4, 2)  # the level of a root: five or four levels, or PAE
_PRESENT, _WRITABLE, _USER, _ACCESSED, _DIRTY, _LARGE = 1, 2, 4, 0x20, 0x40, 0x80
_FRAMES = 0x000F_FFFF_FFFF_F000
_BEYOND = 0x000F_0000_0000_0000
# One in so many used entries may lead to a frame that is not a table (freed meanwhile).
_TOLERATED = 4
_FLAGS = ((_PRESENT, TableFlag.PRESENT), (_ACCESSED, TableFlag.ACCESSED),
          (_WRITABLE, TableFlag.WRITABLE), (_USER, TableFlag.USER))  # fmt: skip


class PageTables(NamedTuple):
    """Page tables of a round: their frames, in order, and their levels (1: leaf)."""

    frames: Gfns
    levels: Array


class _Edges(NamedTuple):
    """Entries that may lead to a table: rows of candidates, places of frames, and if used."""

    row: Ints
    place: Ints
    used: Bools


class Candidates:
    """The contents of the candidates of a round.

    Parameters
    ----------
    look : Look
        The result of the examination after the round.
    slots : ndarray of uint64, shape (slots, 2)
        First frame and pages of the guest's memory slots.

    Attributes
    ----------
    frames : ndarray of uint64
        All that were looked at, in order.
    states : ndarray of uint8
    row_of : ndarray of int64
        The row of each frame in `words`; -1: it is no candidate.
    """

    def __init__(self, look: Look, slots: Array) -> None:
        self.frames, first = np.unique(look.frames, return_index=True)
        self.states = look.states[first]
        rows = np.cumsum(look.states == CANDIDATE) - 1
        self.row_of = np.where(self.states == CANDIDATE, rows[first], -1)
        self.words = words = look.words
        self.present = (words & np.uint64(_PRESENT)) != 0
        self.used = self.present & ((words & np.uint64(_ACCESSED)) != 0)
        self.large = self.present & ((words & np.uint64(_LARGE)) != 0)
        target = (words & np.uint64(_FRAMES)) >> np.uint64(12)
        self.inside = _within(target, slots)
        self.sound = ~(self.present & ((words & np.uint64(_BEYOND)) != 0)).any(axis=1)
        self.edges = self._edges(target)

    def _edges(self, target: Array) -> _Edges:
        row, column = np.nonzero(self.present & ~self.large & self.inside)
        goal = target[row, column]
        place = np.searchsorted(self.frames, goal)
        place = np.minimum(place, len(self.frames) - 1)
        known = self.frames[place] == goal if len(self.frames) else np.zeros(len(goal), bool)
        return _Edges(row[known], place[known], self.used[row, column][known])

    def plausible(self, level: int) -> Bools:
        """Return which candidates can be tables of a level."""
        if level == 1:
            return self.sound
        maps = self.large if level in (2, 3) else np.zeros_like(self.large)
        low = np.uint64((1 << (3 + 9 * level)) - (1 << 13))
        wrong = self.present & ~maps & (~self.inside | self.large)
        wrong |= maps & ((self.words & low) != 0)
        return self.sound & ~wrong.any(axis=1)

    def walk_ends(self, level: int) -> Bools:
        """Return the candidates in which a walk can end: used entries that map memory."""
        mapping = self.used if level == 1 else self.used & self.large
        count = np.count_nonzero(mapping, axis=1)
        inside = np.count_nonzero(mapping & self.inside, axis=1)
        return (inside > 0) & (2 * inside >= count)


def _within(frames: Array, slots: Array) -> Bools:
    """Return which frames are in the guest's memory; frame 0 is not: no table is there."""
    if not len(slots):
        return np.zeros(frames.shape, bool)
    at = np.searchsorted(slots[:, 0], frames, "right").astype(np.int64) - 1
    near = slots[np.maximum(at, 0)]
    return (at >= 0) & (frames - near[..., 0] < near[..., 1]) & (frames != 0)


def find_tables(facts: Candidates, depth: int) -> PageTables:
    """Find the page tables among the frames of a round.

    Parameters
    ----------
    depth : int
        The level of a root, one of `DEPTHS`.

    Returns
    -------
    PageTables
        Empty if there is no root.
    """
    roots = _roots(facts, depth)
    place_of = np.flatnonzero(facts.row_of >= 0)
    place_of = place_of[np.argsort(facts.row_of[place_of])]  # tree of each row
    trees = {int(place_of[row]): _below(facts, int(place_of[row]), depth) for row in roots}
    levels = np.zeros(len(facts.frames), np.uint8)
    for root, tree in trees.items():
        # This candidate is a table below another root, so it is not a root.
        if any(0 < other[root] < depth for at, other in trees.items() if at != root):
            continue
        levels = np.where(levels == 0, tree, levels)
    there = levels > 0
    return PageTables(facts.frames[there], levels[there])


def _explained(facts: Candidates, tables: PageTables) -> int:
    """Return how many frames of a round are tables, or mapped by a leaf entry of one."""
    explained = np.isin(facts.frames, tables.frames)
    rows = facts.row_of[np.searchsorted(facts.frames, tables.frames)]
    for level in (1, 2, 3):
        mine = rows[(tables.levels == level) & (rows >= 0)]
        leaves = facts.present[mine] if level == 1 else facts.large[mine]
        target = (facts.words[mine][leaves] & np.uint64(_FRAMES)) >> np.uint64(12)
        pages = np.uint64(9 * (level - 1))  # of an entry, as a power of 2
        explained |= np.isin(facts.frames >> pages, target >> pages)
    return int(np.count_nonzero(explained))


def _roots(facts: Candidates, depth: int) -> Ints:
    """Return the rows of the candidates that can be roots."""
    count = len(facts.words)
    good = facts.plausible(1) & facts.walk_ends(1)
    row, place, used = facts.edges
    row, child = row[used], facts.row_of[place[used]]
    empty = facts.states[place[used]] == EMPTY
    unread = facts.states[place[used]] == HOLE
    below = facts.plausible(1)
    for level in range(2, depth + 1):
        can_be = (child >= 0) & below[child] if count else np.zeros(len(child), bool)
        leads = (child >= 0) & good[child] if count else can_be
        paths = np.bincount(row[leads], minlength=count)
        wrong = np.bincount(row[~(can_be | empty | unread)], minlength=count)
        known = np.bincount(row, minlength=count)
        walk_ends = facts.walk_ends(level) if level in (2, 3) else np.zeros(count, bool)
        below = facts.plausible(level)
        good = below & ((paths > 0) | walk_ends) & (_TOLERATED * wrong <= known)
    return np.flatnonzero(good)


def _below(facts: Candidates, root: int, depth: int) -> Array:
    """Return the level of each frame that is a table below a root, else 0."""
    levels = np.zeros(len(facts.frames), np.uint8)
    levels[root] = depth
    rows = facts.row_of[[root]]
    for level in range(depth - 1, 0, -1):
        places = np.unique(facts.edges.place[np.isin(facts.edges.row, rows)])
        row_of = facts.row_of[places]
        can_be = np.where(row_of >= 0, facts.plausible(level)[row_of], False)
        can_be |= facts.states[places] == EMPTY
        places = places[can_be & (levels[places] == 0)]
        levels[places] = level
        rows = facts.row_of[places]
        rows = rows[rows >= 0]
    return levels


def table_rows(words: Array, level: int) -> tuple[Ints, Gfns, Array]:
    """Return the present entries of a table: index, target frame and flags.

    The format is that of Xen's side (``walk_entry``).
    """
    index = np.flatnonzero(words & np.uint64(_PRESENT))
    words = words[index]
    flags = np.zeros(len(words), np.uint8)
    for bit, flag in _FLAGS:
        flags[(words & np.uint64(bit)) != 0] |= int(flag)
    leaf = np.full(len(words), level == 1)
    if level in (2, 3):
        leaf |= (words & np.uint64(_LARGE)) != 0
    flags[leaf] |= int(TableFlag.LEAF)
    flags[leaf & ((words & np.uint64(_DIRTY)) != 0)] |= int(TableFlag.DIRTY)
    address = words & np.uint64(_FRAMES)
    if level > 1:  # the low bits of a large page's address are attributes
        whole = np.uint64((1 << 64) - (1 << (3 + 9 * level)))
        address = np.where(leaf, address & whole, address)
    return index, address >> np.uint64(12), flags


class Tables:
    """The page tables of all rounds of a spool.

    Attributes
    ----------
    depth : int
        The level of roots; 0 if there are none. Available after `decide`.
    """

    def __init__(self) -> None:
        self.depth = 0
        self._looks: list[tuple[Look, int, int]] = []
        self._tables_at_depth: dict[int, dict[int, PageTables]] = {depth: {} for depth in DEPTHS}
        self._explained = dict.fromkeys(DEPTHS, 0)  # frames of all rounds
        self._looked: dict[int, Looked] = {}
        self._delays_ns: list[int] = []
        self._places: dict[int, array[int]] = {}  # of a round's looks in the file: offset, bytes
        self._keys: Gfns = np.empty(0, np.uint64)
        self._levels: Array = np.empty(0, np.uint8)
        self._whole: Ints = np.empty(0, np.int64)

    def add(self, look: Look, at: int, size: int) -> None:
        """Add frames that were examined; `at` and `size` are their frame's position in the file."""
        self._looks.append((look, at, size))

    def close(self, looked: Looked, end_ns: int) -> None:
        """Find the tables of a round, which ended at `end_ns`, after the examination."""
        looks, self._looks = self._looks, []
        self._looked[looked.round] = looked
        self._delays_ns.append(looked.ns - end_ns)
        if not looks:
            return
        facts = Candidates(_joined([look for look, _, _ in looks]), looked.slots)
        for depth in DEPTHS:
            found = find_tables(facts, depth)
            if len(found.frames):
                self._tables_at_depth[depth][looked.round] = found
                self._explained[depth] += _explained(facts, found)
        self._places[looked.round] = array("q", [n for _, *place in looks for n in place])

    def decide(self) -> None:
        """Choose the depth, after all rounds: the deeper one of two that explain as much."""
        if not any(self._explained.values()):
            return
        self.depth = max(DEPTHS, key=self._explained.__getitem__)
        rounds = self._tables_at_depth[self.depth]
        parts = [pack(np.full(len(f.frames), n), f.frames) for n, f in sorted(rounds.items())]
        self._keys = np.concatenate(parts)
        self._levels = np.concatenate([f.levels for _, f in sorted(rounds.items())])
        whole = [n for n, looked in self._looked.items()
                 if n in rounds and not looked.left and not looked.holes]  # fmt: skip
        self._whole = np.array(sorted(whole), np.int64)

    def kinds(self, rounds: Ints, gfns: Gfns) -> Array:
        """Return the kind of each entry: that of a table, WRITE, or UNKNOWN if not examined."""
        whole = np.isin(rounds, self._whole)
        kinds = np.where(whole, int(Kind.WRITE), int(Kind.UNKNOWN)).astype(np.uint8)
        if not len(self._keys):
            return kinds
        low = np.flatnonzero(gfns >> np.uint64(40) == 0)
        keys = pack(rounds[low], gfns[low])
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        mine = self._keys[at] == keys
        kinds[low[mine]] = int(Kind.PAGE_TABLE) | self._levels[at[mine]]
        return kinds

    def unseen(self, rounds: int) -> list[int]:
        """Return the rounds, up to that number, in which a table may have been missed."""
        return np.setdiff1d(np.arange(rounds), self._whole).tolist() if self.depth else []

    def write(self, file: BinaryIO, writer: TraceWriter) -> None:
        """Write the snapshots from the spool's file."""
        for number, found in sorted(self._tables_at_depth[self.depth].items()):
            places = self._places[number].tolist()
            looks = []
            for at, size in zip(places[::2], places[1::2], strict=True):
                file.seek(at)
                looks.append(look_of(file.read(size)))
            look = _joined(looks)
            candidates = look.frames[look.states == CANDIDATE]
            order = np.argsort(candidates, kind="stable")
            rows = order[np.searchsorted(candidates[order], found.frames).clip(0, len(order) - 1)]
            for gfn, level, row in zip(found.frames, found.levels, rows, strict=True):
                index, target, flags = table_rows(look.words[row], int(level))
                if candidates[row] == gfn and len(index):
                    writer.add_tables(number, gfn, level, index, target, flags)

    def notes(self) -> Iterator[str]:
        """Yield the notes about the tables."""
        if not self._looked:
            return
        if not self.depth:
            yield "no page tables were found: without paging, or with 32-bit entries without PAE"
            return
        latest = max(self._delays_ns) / 1e6
        yield ("page tables are identified by the content of the logged frames, read up to "
               f"{latest:.0f} ms after their round's end")  # fmt: skip
        left = sum(looked.left for looked in self._looked.values())
        if left:
            rounds = sum(looked.left > 0 for looked in self._looked.values())
            yield f"{left:,} logged frames of {rounds} rounds were not examined"
        holes = sum(looked.holes for looked in self._looked.values())
        if holes:
            yield f"{holes:,} logged frames could not be read from the VMM's memory"


def _joined(looks: list[Look]) -> Look:
    if len(looks) == 1:
        return looks[0]
    columns = ([getattr(look, name) for look in looks] for name in ("frames", "states", "words"))
    return type(looks[0])(looks[0].round, *map(np.concatenate, columns))
