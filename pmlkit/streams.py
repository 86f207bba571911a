# SPDX-License-Identifier: Apache-2.0
"""The selected uses of a trace as a stream: a row group at a time, so in bounded memory.

`pmlkit.selection.select` gives the same uses at once, sorted by page.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import NeedsError, UsageError
from pmlkit.kinds import Kind, parse_kinds
from pmlkit.pageindex import grown, numbered
from pmlkit.schema import SAMPLED
from pmlkit.timeline import Timeline, timeline
from pmlkit.units import format_ns, parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray

    from pmlkit.pageindex import PageIndex
    from pmlkit.trace import Trace
    from pmlkit.types import Ints, Json


__all__ = ["Stream", "stream", "time_ns"]

PAGE_TABLES = ("drop", "keep", "expand")
_LOGGED = Kind.WRITE | Kind.PAGE_TABLE


@dataclass(frozen=True)
class Stream:
    """The uses that were selected of a trace, in log order; iterates over (rounds, gfns).

    Attributes
    ----------
    trace : Trace
    which : dict
        The arguments of `Trace.iter_entries`.
    first, n_rounds : int
        The first selected round's number in the trace, and how many there are.
    t_ns : ndarray of int64, shape (n_rounds + 1,)
        The times between rounds.
    once : bool
        Whether a page counts once a round, however often it is named.
    expand : bool
        Whether frames that logged page tables lead to stand for the page tables.
    of_frames : (int, int)
        Which of how many shares of the frames.
    """

    trace: Trace
    which: Json
    first: int
    n_rounds: int
    t_ns: np.ndarray
    once: bool
    expand: bool = False
    of_frames: tuple[Any, ...] = (0, 1)

    @cached_property
    def timeline(self) -> Timeline:
        """When the selected rounds ended."""
        return timeline(self.trace, self.first, self.n_rounds)

    def share(self, part: int, parts: int) -> Stream:
        """Return the uses of one of `parts` shares of the frames, which take turns."""
        return replace(self, of_frames=(part, parts))

    def __iter__(self) -> Iterator[tuple[Ints, NDArray[np.uint64]]]:
        part, parts = self.of_frames
        for rounds, gfns in self._batches():
            if parts > 1:
                mine = gfns % np.uint64(parts) == part
                rounds, gfns = rounds[mine], gfns[mine]
            yield rounds, gfns

    def _batches(self) -> Iterator[tuple[Ints, NDArray[np.uint64]]]:
        if self.expand:
            yield self._expanded()
            return
        for batch in self.trace.iter_entries(columns=["round", "gfn"], **self.which):
            rounds, gfns = (column.to_numpy() for column in batch.columns)
            yield rounds.astype(np.int64) - self.first, gfns

    def _expanded(self) -> tuple[Ints, NDArray[np.uint64]]:
        """Expand page tables of the whole selection: their snapshots are read at once."""
        from pmlkit.pagetables import expand

        batches = self.trace.iter_entries(columns=["round", "gfn"], **self.which)
        parts = [[np.zeros(0, np.int64), np.zeros(0, np.uint64)]]
        parts += ([column.to_numpy() for column in batch.columns] for batch in batches)
        rounds, gfns = (np.concatenate(column) for column in zip(*parts, strict=True))
        where = {name: self.which[name] for name in ("region", "start_ns", "end_ns")}
        rounds, gfns = expand(self.trace, rounds, gfns, **where)
        return rounds - self.first, gfns

    def numbered(self, index: PageIndex | None = None) -> Iterator[Any]:
        """Iterate over (rounds, ids, pages), as `pageindex.numbered`, each use once if it must."""
        batches = numbered(self, index)
        return _once(batches) if self.once else batches


def _once(batches: Iterator[Any]) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32], int]]:
    from pmlkit.kernels import once_a_round

    last = np.empty(0, np.int32)
    for rounds, ids, pages in batches:
        last = grown(last, pages, -1)
        kept = np.empty_like(ids), np.empty_like(rounds)
        count = once_a_round(ids, rounds, last, *kept)
        yield kept[1][:count], kept[0][:count], pages


def stream(
    trace: Trace,
    kinds: str | int | None = "rwx",
    start: str | int | None = None,
    end: str | int | None = None,
    region: str | None = None,
    page_tables: str = "drop",
) -> Stream:
    """Select uses of a trace; the parameters are described in `pmlkit.selection`.

    Returns
    -------
    Stream

    Raises
    ------
    UsageError
        If the trace has no round between `start` and `end`, as far as they are given.
    """
    if SAMPLED in trace.meta.options:
        hint = "pmlkit reads NAME.trace --method sample makes an estimate of it"
        raise NeedsError(trace, "accesses of all frames, but a sample's", hint)
    mask = _mask(trace, kinds, page_tables)
    span = {"start_ns": time_ns(start), "end_ns": time_ns(end)}
    first, stop = trace.rounds_between(**span)
    if first == stop and trace.n_rounds:
        lasts = format_ns(trace.duration_ns)
        raise UsageError(
            f"{trace.path} lasts {lasts}: give a --start and --end with a round between them"
        )
    expand = page_tables == "expand" and bool(mask & (Kind.READ | Kind.EXEC))
    which = {"kinds": mask, "region": region, **span}
    once = expand or trace.meta.kind == "access"  # its entries are kinds of use, not uses
    return Stream(trace, which, first, stop - first, _bounds(trace)[first : stop + 1], once, expand)


def _mask(trace: Trace, kinds: str | int | None, page_tables: str) -> Any:
    if page_tables not in PAGE_TABLES:
        raise UsageError(f"page_tables is {page_tables!r}: say drop, keep or expand")
    if page_tables == "expand" and trace.meta.kind != "pml":
        what = "page tables to expand"
        raise NeedsError(trace, what, "take the log of the run: trace.pml, NAME.trace/pml.trace")
    mask = parse_kinds("rwx" if kinds is None and page_tables == "expand" else kinds)
    if mask is None:
        return None
    if page_tables != "expand" and trace.meta.kind == "pml" and not mask & _LOGGED:
        raise NeedsError(trace, "reads and executions", "a PML log has writes only: ask for w")
    return mask | Kind.PAGE_TABLE if page_tables == "keep" and mask & Kind.WRITE else mask


def _bounds(trace: Trace) -> Ints:
    """Return the times between rounds, int64, shape (n_rounds + 1,)."""
    rounds = trace.rounds
    edges = rounds["t_start_ns"].to_numpy()[:1], rounds["t_end_ns"].to_numpy()
    return np.concatenate(edges).astype(np.int64)


def time_ns(time: str | int | None) -> int | None:
    """Return a time as nanoseconds: text is read, None stays None."""
    return parse_duration_ns(time) if isinstance(time, str) else time
