# SPDX-License-Identifier: Apache-2.0
"""A recorded VM in memory, and the inputs that a technique can declare to need.

Techniques get a `View` of a `Recorded`, never the object itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.costs import Clock
from pmlkit.errors import NeedsError
from pmlkit.kernels.by_page import references
from pmlkit.kernels.pages import PageIndex
from pmlkit.recordings import name_of
from pmlkit.selection import check_page_size
from pmlkit.timeline import timeline
from pmlkit.trace.kinds import Kind, is_page_table

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from pmlkit.kernels.by_page import References
    from pmlkit.timeline import Timeline
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Bools, Gfns, Ints


__all__ = ["Need", "Places", "Recorded", "Uses", "known_memory"]


UNKNOWN = Clock("a machine that is not known")
MOST_TABLED = 1 << 24  # frames of 64 GiB, for which the table has 64 MiB


class Need(Enum):
    """An input of a technique; the value is the channel's name in the view."""

    PML = "pml"  # the log of writes, re-armed on demand
    REFERENCES = "references"  # a log of all references: hardware that does not exist (PRL)
    DIRTY = "dirty"  # the pages written, found by write-protecting them
    TABLES = "tables"  # the leaf page tables in PML's log
    ACCESSED = "accessed"  # the accessed flags of frames
    TRAPS = "traps"  # faults that it causes: frames are inaccessible until the next access
    CONTENT = "content"  # hashes of the content of frames
    DISK = "disk"  # the guest's disk requests
    GUEST = "guest"  # the guest's own counters
    AGING = "aging"  # the generations of the host's MGLRU
    SOFT_DIRTY = "soft_dirty"  # the soft-dirty bits of the VMM's memory
    SAMPLES = "samples"  # one access in N, as the processor samples them
    MEMORY = "memory"  # a guest of changing size, and its counters of memory pressure


def known_memory(name: str, memory_pages: int | None) -> int:
    """Return the size of a VM's memory, pages; raise `NeedsError` if it is unknown."""
    if memory_pages is None:
        gives = "`pmlkit import --memory` gives it, if the pages are a guest's"
        what = f"size of a guest's memory ({gives})"
        raise NeedsError(name, what, "import it again with `pmlkit import --memory`")
    return memory_pages


@dataclass(frozen=True)
class Uses:
    """Uses of frames, in chronological order, round by round.

    Attributes
    ----------
    gfn : ndarray of int64, shape (uses,)
    starts : ndarray of int64, shape (n_rounds + 1,)
        Round r contains the uses from ``starts[r]`` to ``starts[r + 1]``.
    """

    gfn: Ints
    starts: Ints

    @classmethod
    def of(cls, rounds: Array, gfn: Array, n_rounds: int) -> Uses:
        """Build from the round (never decreasing) and the frame of each use."""
        starts = np.searchsorted(rounds, np.arange(n_rounds + 1))
        return cls(np.asarray(gfn, np.int64), starts.astype(np.int64))

    def between(self, first: int, stop: int) -> Ints:
        """Return the frames used in the rounds from `first` to `stop` (exclusive)."""
        return self.gfn[self.starts[first] : self.starts[stop]]

    def cut(self, first: int, stop: int) -> Uses:
        """Return the uses in these rounds, which then count from 0."""
        starts = self.starts[first : stop + 1]
        return Uses(self.between(first, stop), starts - starts[0])

    def rounds_of(self, first: int, stop: int) -> Ints:
        """Return the round of each of those uses."""
        counts = np.diff(self.starts[first : stop + 1])
        return np.repeat(np.arange(first, stop), counts)


class Places:
    """Indices for the state of frames: one for each frame in use, one for all others.

    State then takes memory for the frames in use only, independent of their numbers. If the numbers
    are low, as in a guest, a table maps them to indices.

    Parameters
    ----------
    frames : ndarray of int64
        Sorted, each once.
    """

    def __init__(self, frames: Ints) -> None:
        self.frames = frames
        self._and_no_other = np.append(frames, -1)
        self._table: NDArray[Any] | None = None  # int32 takes half the memory
        if len(frames) and frames[0] >= 0 and frames[-1] < MOST_TABLED:
            self._table = np.full(int(frames[-1]) + 2, len(frames), np.int32)
            self._table[frames] = np.arange(len(frames), dtype=np.int32)
        self._shared: dict[int, tuple[Ints, Ints]] = {}  # by identity of the frames: their indices

    def __len__(self) -> int:
        return len(self.frames) + 1

    def __call__(self, frames: Ints) -> Ints:
        """Return the index of each frame; unused frames share the last one."""
        if self._table is not None:
            return self._table.take(frames, mode="clip")
        at = np.searchsorted(self.frames, frames)
        used = self._and_no_other[at] == frames
        return np.where(used, at, len(self.frames))

    def of(self, uses: Uses) -> Ints:
        """Return the index of each use (int32). It is computed once for all runs on a recording."""
        if id(uses.gfn) not in self._shared:
            self._shared[id(uses.gfn)] = uses.gfn, self(uses.gfn).astype(np.int32, copy=False)
        return self._shared[id(uses.gfn)][1]


@dataclass(frozen=True)
class Recorded:
    """A recorded VM.

    Attributes
    ----------
    name : str
    memory_pages : int or None
        Size of its memory; None if unknown. Recorded frames may lie above it (holes).
    t_ns : ndarray of int64, shape (n_rounds + 1,)
        The times between rounds.
    resolution_ns : int
    accesses, writes, log : Uses
        Per round: the first access to each frame; the first write to each; PML's log without
        page-table pages.
    mapped : Uses, optional
        The frames mapped by the page tables logged in each round. Needs snapshots of tables, as do
        the next two.
    entries : Uses, optional
        The written frames, and those of programs whose logged entries have the accessed flag set.
    leaves : Uses, optional
        The leaf tables logged.
    guest, disk : DataFrame or None
        The guest's own view, and its disk's requests.
    phases : tuple of (str, int)
        Names of the phases and their first rounds.
    idle : ndarray of bool, shape (n_rounds,), optional
        Which rounds are gaps, known to have no uses.
    time : pmlkit.costs.Clock
        The clock of its times: a cost in instructions is a share of them only if the length of an
        instruction is known.
    losses : tuple of str
        Notes on entries that the trace, or its log, lost.
    """

    name: str
    memory_pages: int | None
    t_ns: Ints
    resolution_ns: int
    accesses: Uses
    writes: Uses
    log: Uses
    mapped: Uses | None = None
    entries: Uses | None = None
    leaves: Uses | None = None
    guest: pd.DataFrame | None = None
    disk: pd.DataFrame | None = None
    phases: tuple[tuple[str, int], ...] = ()
    idle: Bools | None = None
    time: Clock = UNKNOWN
    losses: tuple[str, ...] = ()

    @property
    def n_rounds(self) -> int:
        return len(self.t_ns) - 1

    @property
    def duration_ns(self) -> int:
        return int(self.t_ns[-1] - self.t_ns[0])

    @property
    def idle_ns(self) -> int:
        """Time in gaps, ns."""
        return 0 if self.idle is None else int(np.diff(self.t_ns)[self.idle].sum())

    @property
    def size(self) -> int:
        """One more than the highest frame number. Holes count, so it is not a number of pages."""
        highest = max(int(uses.gfn.max(initial=-1)) for uses in (self.accesses, self.log))
        return max(self.memory_pages or 0, highest + 1)

    @property
    def known_memory_pages(self) -> int:
        """`memory_pages`; raises `NeedsError` if it is unknown."""
        return known_memory(self.name, self.memory_pages)

    @property
    def guest_samples(self) -> pd.DataFrame:
        """`guest`; raises `NeedsError` if there are no samples."""
        if self.guest is None or len(self.guest) == 0:
            what = "samples of the guest's own view"
            raise NeedsError(
                self.name, what, "record it with `pmlkit record`, whose guests report them"
            )
        return self.guest

    def cut(self, first: int, stop: int) -> Recorded:
        """Return the rounds from `first` to `stop` (exclusive) as a recording of their own.

        It has no samples of the guest, as these count memory from before the part, and no disk.
        """
        names = ("accesses", "writes", "log", "mapped", "entries", "leaves")
        by_name: dict[str, Any] = {name: getattr(self, name) for name in names}
        starts = [(name, begin) for name, begin in self.phases if begin < stop]
        current = [(name, first) for name, begin in starts if begin <= first][-1:]
        later = [(name, begin) for name, begin in starts if begin > first]
        return replace(
            self,
            t_ns=self.t_ns[first : stop + 1],
            guest=None,
            disk=None,
            phases=tuple((name, begin - first) for name, begin in current + later),
            idle=None if self.idle is None else self.idle[first:stop],
            **{n: uses and uses.cut(first, stop) for n, uses in by_name.items()},
        )

    @cached_property
    def places(self) -> Places:
        """Indices for the state of frames."""
        index = PageIndex()
        for uses in (self.accesses, self.writes, self.log):
            index.ids(uses.gfn.view(np.uint64))
        return Places(np.sort(index.frames.view(np.int64)))

    @cached_property
    def _uppers(self) -> dict[int, tuple[Uses, Places]]:
        return {}

    def upper(self, bits: int) -> tuple[Uses, Places]:
        """Return the uses of entries of 2^bits frames, and their places; all runs share the result.

        An entry counts once a round, at its first use.
        """
        if bits not in self._uppers:
            rounds = self.accesses.rounds_of(0, self.n_rounds).astype(np.uint32)
            gfn = (self.accesses.gfn >> bits).view(np.uint64)
            entries = _first_uses(rounds, gfn, self.n_rounds)
            self._uppers[bits] = entries, Places(np.unique(entries.gfn))
        return self._uppers[bits]

    def occurrences(self) -> References:
        """Return all accesses sorted by page, for the kernels of `pmlkit.kernels.by_page`."""
        rounds = self.accesses.rounds_of(0, self.n_rounds)
        gfn = self.accesses.gfn.view(np.uint64)
        return references(rounds, gfn, self.n_rounds, distinct=True)

    @classmethod
    def of(cls, trace: Trace) -> Recorded:
        """Read an access trace.

        Raises
        ------
        NeedsError
            If the trace is a PML log (without all accesses there is no ground truth), has no
            rounds, no times, or pages of another size than a processor's.
        """
        if trace.meta.kind != "access":
            raise NeedsError(trace, "record of all accesses", "record one with `pmlkit record`")
        check_page_size(trace)
        time, resolution_ns = _times(trace)
        rounds, gfn, kind = _round_gfn_kind(trace)
        n = trace.n_rounds
        is_write = kind == Kind.WRITE
        writes = Uses.of(rounds[is_write], gfn[is_write], n)
        return cls(
            name=name_of(trace.path),
            memory_pages=trace.meta.known_memory_pages,
            t_ns=time.t_ns,
            resolution_ns=resolution_ns,
            accesses=_first_uses(rounds, gfn, n),
            writes=writes,
            log=_log(trace, n, writes),
            mapped=_mapped(trace, n),
            **_from_tables(trace, n),
            guest=trace.guest,
            disk=trace.disk,
            phases=tuple(zip(trace.phases["name"], trace.phases["round"].tolist(), strict=True)),
            idle=~time.used,
            time=trace.meta.time,
            losses=_losses(trace),
        )

    @classmethod
    def of_log(cls, trace: Trace) -> Recorded:
        """Read a PML log of data pages as a recording: its `accesses` are the logged pages.

        Raises
        ------
        NeedsError
            If it has no rounds, or has no times.
        """
        time, resolution_ns = _times(trace)
        rounds, gfn, kind = _round_gfn_kind(trace)
        data = ~is_page_table(kind)
        log = _first_uses(rounds[data], gfn[data], trace.n_rounds)
        return cls(
            name=name_of(trace.path),
            memory_pages=trace.meta.known_memory_pages,
            t_ns=time.t_ns,
            resolution_ns=resolution_ns,
            accesses=log,
            writes=log,
            log=log,
            idle=~time.used,
            time=trace.meta.time,
            losses=_losses(trace),
        )


def _losses(trace: Trace) -> tuple[str, ...]:
    own, log = trace.meta.loss_note, trace.pml.meta.loss_note if trace.pml_is_nested else ""
    return (*([own] if own else []), *([f"its log: {log}"] if log else []))


def _times(trace: Trace) -> tuple[Timeline, int]:
    """Return the timeline of a trace and its resolution, ns; raise `NeedsError` if it has none."""
    if trace.n_rounds == 0:
        raise NeedsError(trace, "rounds", "record it for longer")
    time = timeline(trace)
    if time.resolution_ns is None:
        raise NeedsError(
            trace, "rounds of a stated time", "record with `pmlkit record --window 10ms`"
        )
    return time, time.resolution_ns


def _round_gfn_kind(
    trace: Trace,
) -> tuple[NDArray[np.uint32], NDArray[np.uint64], NDArray[np.uint8]]:
    parts = [[np.zeros(0, np.uint32), np.zeros(0, np.uint64), np.zeros(0, np.uint8)]]
    for batch in trace.iter_entries(columns=["round", "gfn", "kind"]):
        parts.append([column.to_numpy() for column in batch.columns])
    rounds, gfn, kind = (np.concatenate(column) for column in zip(*parts, strict=True))
    return rounds, gfn, kind


def _first_uses(rounds: NDArray[np.uint32], gfn: Gfns, n_rounds: int) -> Uses:
    """Return the first use of each frame in each round, whatever its kind."""
    from pmlkit.kernels.loops import once_a_round

    index = PageIndex()
    ids = index.ids(gfn)
    last = np.full(len(index), -1, np.int32)
    kept = np.empty_like(ids), np.empty(len(ids), np.int32)
    count = once_a_round(ids, rounds.astype(np.int32), last, *kept)
    return Uses.of(kept[1][:count], index.frames[kept[0][:count]], n_rounds)


def _log(trace: Trace, n_rounds: int, writes: Uses) -> Uses:
    if not trace.pml_is_nested or trace.pml.n_rounds != n_rounds:
        return writes  # the log of an ideal PML
    rounds, gfn, kind = _round_gfn_kind(trace.pml)
    data = ~is_page_table(kind)
    return Uses.of(rounds[data], gfn[data], n_rounds)


def _mapped(trace: Trace, n_rounds: int) -> Uses | None:
    if not trace.has_tables:
        return None
    from pmlkit import pagetables

    rows = pagetables.entries(trace)
    rounds, gfn = pagetables.covered(rows, accessed=False, whose="all")
    return Uses.of(rounds, gfn, n_rounds)


def _from_tables(trace: Trace, n_rounds: int) -> dict[str, Uses]:
    """Return `Recorded.entries` and `leaves`, if the trace has snapshots of tables."""
    if not trace.has_tables or not trace.pml_is_nested or trace.pml.n_rounds != n_rounds:
        return {}
    from pmlkit import pagetables

    rounds, gfn, kind = _round_gfn_kind(trace.pml)
    data = ~is_page_table(kind)
    entries = pagetables.expand(trace, rounds[data], gfn[data])
    tables = pagetables.logged(trace)
    leaves = tables[tables["level"] == 1].sort_values("round", kind="stable")
    return {
        "entries": Uses.of(*entries, n_rounds),
        "leaves": Uses.of(leaves["round"].to_numpy(), leaves["table"].to_numpy(), n_rounds),
    }
