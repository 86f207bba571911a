# SPDX-License-Identifier: Apache-2.0
"""The part of a trace that an analysis reads.

Analyses take the keyword arguments of `select`:

kinds : str, int or Kind
    Words (``"read,written"``), letters from ``"rwxp"`` (p: page-table pages of a PML log), or a
    mask; ``"rwx"`` if left out. A page counts once, even if it was used in several of these ways. A
    PML log has writes only.
start, end : str, int or None
    Select only the rounds between these times: ``"2s"``, nanoseconds, or names as of
    `pmlkit.trace.annotation` (``"mark:NAME"``, where a phase starts; ``"end:NAME"``, where it
    ends). Windows do not extend to before `start`.
phase : str or None
    Select only this phase, in place of `start` and `end`.
between : (str, str) or None
    Select from the start of one phase to the start of another, in place of `start` and `end`.
region : str or None
    Select only the frames of this region.
page_tables : "drop", "keep" or "expand"
    Treatment of the page tables that are known in a PML log. ``"drop"`` (the default) leaves them
    out: the written working set. ``"keep"`` counts them as written pages. ``"expand"`` replaces
    them by the frames that they map (the accessed entries of their snapshots, see
    `pmlkit.pagetables`): reads that the log does not contain. Each frame then counts once per
    round.

An invalid argument raises `UsageError`; a region or kind that the trace lacks, `NeedsError`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from pmlkit.errors import NeedsError, UsageError, argument, of_argument
from pmlkit.kernels import by_page
from pmlkit.kernels.by_page import References
from pmlkit.kernels.pages import grown, numbered
from pmlkit.timeline import Timeline, timeline
from pmlkit.trace import arrow
from pmlkit.trace.annotation import bounds, time_ns
from pmlkit.trace.kinds import Kind, parse_kinds
from pmlkit.trace.schema import PAGE_SIZE, SAMPLED
from pmlkit.units import format_bytes, format_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Unpack

    from pmlkit.kernels.pages import Numbered, PageIndex
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Gfns, Ids, Ints

__all__ = [
    "Part",
    "Selection",
    "Stream",
    "check_page_size",
    "edges",
    "rounds_of",
    "select",
    "stream",
    "time_ns",
    "times_ns",
    "usage_verb",
]


class Selection(TypedDict, total=False):
    """The keyword arguments that select a part of a trace."""

    kinds: str | int | None
    start: str | int | None
    end: str | int | None
    region: str | None
    page_tables: str
    phase: str | None
    between: tuple[str, str] | None


class Entries(TypedDict):
    """The arguments of `Trace.iter_entries` that select entries."""

    kinds: int | None
    region: str | None
    start_ns: int | None
    end_ns: int | None


@dataclass(frozen=True)
class Part:
    """The selected uses of a trace.

    Attributes
    ----------
    refs : References
        The uses, sorted by page; its round 0 is the first one selected.
    first : int
        The number of that round in the trace.
    timeline : pmlkit.timeline.Timeline
        The ends of those rounds, and the windows of each round.
    """

    refs: References
    first: int
    timeline: Timeline


def check_page_size(trace: Trace) -> None:
    """Raise `NeedsError` if an import has pages that no processor logs, or counts costs of."""
    size = trace.meta.domain["page_size"]
    if size != PAGE_SIZE:
        raise NeedsError(
            trace,
            f"pages of {format_bytes(PAGE_SIZE)} (its pages have {format_bytes(size)})",
            f"import it again, with {argument('page_size', PAGE_SIZE)}",
        )


def select(trace: Trace, **selection: Unpack[Selection]) -> Part:
    """Read the selected uses at once; `pmlkit.selection` describes the parameters."""
    source = stream(trace, **selection)
    return Part(source.references(), source.first, source.timeline)


def _joined(batches: Iterable[tuple[Array, Array]]) -> tuple[Array, Array]:
    parts = list(batches) or [(np.zeros(0, np.int64), np.zeros(0, np.uint64))]
    rounds, gfns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return rounds, gfns


def _narrow(numbers: Array) -> Array:
    """Return numbers, none of them negative, with 32 bits each if they fit."""
    return numbers.astype(np.uint32) if int(numbers.max(initial=0)) < 1 << 32 else numbers


_VERBS = {Kind.READ: "reads", Kind.WRITE: "writes", Kind.EXEC: "executes"}


def usage_verb(
    trace: Trace, kinds: str | int | None = "rwx", page_tables: str = "drop", **_others: object
) -> str:
    """Return the verb for the pages that a selection counts: how the VM uses them.

    Examples
    --------
    >>> import pmlkit
    >>> from pmlkit.selection import usage_verb
    >>> trace = pmlkit.open("hotcold")
    >>> usage_verb(trace), usage_verb(trace, kinds="read,written")
    ('uses', 'reads or writes')
    """
    if trace.meta.kind == "pml":
        with_tables = "writes, or reaches through logged page tables,"
        return with_tables if page_tables == "expand" else "writes"
    mask = parse_kinds(kinds)
    verbs = [verb for kind, verb in _VERBS.items() if mask is None or mask & kind]
    return "uses" if len(verbs) in (0, len(_VERBS)) else " or ".join(verbs)


# ------------------------------------------------------------------------------
# The selected uses of a trace as a stream: a row group at a time, so in bounded memory.


PAGE_TABLES = ("drop", "keep", "expand")
_LOGGED = Kind.WRITE | Kind.PAGE_TABLE


@dataclass(frozen=True)
class Stream:
    """The selected uses of a trace, in log order; iterates over (rounds, gfns).

    Attributes
    ----------
    trace : Trace
    which : Entries
    first, n_rounds : int
        The first selected round's number in the trace, and how many there are.
    distinct : bool
        Whether a page counts once a round, even if the log names it several times.
    expand : bool
        Whether to replace page tables by the frames that they map.
    of_frames : (int, int)
        The share of the frames, and the number of shares: selected by gfn mod parts.
    """

    trace: Trace
    which: Entries
    first: int
    n_rounds: int
    distinct: bool
    expand: bool = False
    of_frames: tuple[int, int] = (0, 1)

    @cached_property
    def timeline(self) -> Timeline:
        """The ends of the selected rounds."""
        return timeline(self.trace, self.first, self.n_rounds)

    def share(self, part: int, parts: int) -> Stream:
        """Return the uses of one of `parts` interleaved shares of the frames (gfn mod parts)."""
        return replace(self, of_frames=(part, parts))

    def __iter__(self) -> Iterator[tuple[Ints, Gfns]]:
        part, parts = self.of_frames
        for rounds, gfns in self._batches():
            if parts > 1:
                is_in_part = gfns % np.uint64(parts) == part
                rounds, gfns = rounds[is_in_part], gfns[is_in_part]
            yield rounds, gfns

    def _batches(self) -> Iterator[tuple[Ints, Gfns]]:
        entries = self._entries()
        if self.expand:  # the snapshots and the frames that they expand to are read at once
            from pmlkit.pagetables import expand

            rounds, gfns = _joined(entries)
            where = self.which["region"], self.which["start_ns"], self.which["end_ns"]
            entries = iter([expand(self.trace, rounds, gfns, *where)])
        for rounds, gfns in entries:
            rounds -= self.first
            yield rounds, gfns

    def _entries(self) -> Iterator[tuple[Ints, Gfns]]:
        for batch in self.trace.iter_entries(columns=["round", "gfn"], **self.which):
            rounds, gfns = map(arrow.values, batch.columns)
            yield rounds.astype(np.int64), gfns

    def references(self, coarse: Ids | None = None) -> References:
        """Read all uses at once, sorted by page; round 0 is the first one selected.

        Parameters
        ----------
        coarse : ndarray of int, shape (n_rounds + 1,), optional
            A number for each round, never falling, that stands for it: a page then counts once for
            each. The last element is how many there are.
        """
        rounds, gfns = _joined(self)
        if coarse is not None:
            rounds = coarse.astype(np.int64)[rounds]
            return by_page.references(rounds, gfns, int(coarse[-1]), distinct=True)
        return by_page.references(rounds, gfns, self.n_rounds, distinct=self.distinct)

    def last_uses(self) -> Ids:
        """Read all uses at once; return the index of each one's previous use (`by_page`)."""
        narrow = ((_narrow(rounds), _narrow(gfns)) for rounds, gfns in self)  # half the memory
        return by_page.last_uses(*_joined(narrow), self.distinct)

    def numbered(self, index: PageIndex | None = None) -> Iterator[Numbered]:
        """Iterate over (rounds, ids, pages) as `pages.numbered`; respects `distinct`."""
        batches = numbered(self, index)
        return _first_uses(batches) if self.distinct else batches


def _first_uses(batches: Iterator[Numbered]) -> Iterator[Numbered]:
    """Leave out the uses of a page after its first in each round."""
    from pmlkit.kernels.loops import once_a_round

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
    phase: str | None = None,
    between: tuple[str, str] | None = None,
) -> Stream:
    """Select uses of a trace; `pmlkit.selection` describes the parameters.

    Raises
    ------
    UsageError
        If the trace has no round between `start` and `end`, as far as given.
    """
    if SAMPLED in trace.meta.options:
        hint = "estimate it with `pmlkit reads NAME.trace --method sample`"
        raise NeedsError(trace, "accesses of all frames, instead of a sample's", hint)
    mask = _mask(trace, kinds, page_tables)
    span = times_ns(trace, start, end, phase, between)
    first, stop = rounds_of(trace, *span)
    expand = page_tables == "expand" and bool((mask or 0) & (Kind.READ | Kind.EXEC))
    which = Entries(kinds=mask, region=region, start_ns=span[0], end_ns=span[1])
    # Entries of an access trace are kinds of use: several may stand for one use.
    distinct = expand or trace.meta.kind == "access"
    return Stream(trace, which, first, stop - first, distinct, expand)


def rounds_of(
    trace: Trace, start_ns: int | None = None, end_ns: int | None = None
) -> tuple[int, int]:
    """Return the first round of a part of a trace, and the one after its last.

    Raises
    ------
    UsageError
        If the trace has rounds, but none in this part: no analysis can say anything about it.
    """
    first, stop = trace.rounds_between(start_ns, end_ns)
    if first == stop and trace.n_rounds:
        lasts = format_ns(trace.duration_ns)
        raise UsageError(
            f"{trace.path} lasts {lasts}: give a {argument('start')} and {argument('end')} "
            "with a round between them"
        )
    return first, stop


def _mask(trace: Trace, kinds: str | int | None, page_tables: str) -> int | None:
    if page_tables not in PAGE_TABLES:
        raise UsageError(f"page_tables is {page_tables!r}: use drop, keep or expand")
    if page_tables == "expand" and trace.meta.kind != "pml":
        what = "page tables to expand"
        raise NeedsError(trace, what, "use the log of the run: trace.pml, NAME.trace/pml.trace")
    mask = parse_kinds("rwx" if kinds is None and page_tables == "expand" else kinds)
    if mask is None:
        return None
    if page_tables != "expand" and trace.meta.kind == "pml" and not mask & _LOGGED:
        raise NeedsError(trace, "reads and executions", "a PML log contains writes only: use w")
    if trace.meta.kind == "access" and mask == Kind.PAGE_TABLE:
        hint = "use the log of the run, if it has one: trace.pml, NAME.trace/pml.trace"
        raise NeedsError(trace, "page tables among its kinds", hint)
    return mask | Kind.PAGE_TABLE if page_tables == "keep" and mask & Kind.WRITE else mask


def times_ns(
    trace: Trace,
    start: str | int | None = None,
    end: str | int | None = None,
    phase: str | None = None,
    between: tuple[str, str] | None = None,
    **_others: object,
) -> tuple[int | None, int | None]:
    """Return the times between which a selection takes rounds, ns; None stays None.

    Raises
    ------
    UsageError
        If the part is given in several ways, or a time is none.
    UnknownName
        If the trace has no such phase.
    """
    start, end = edges(start, end, phase, between)
    if phase is not None:
        return bounds(trace, phase)
    with of_argument("start"):
        start_ns = time_ns(trace, start)
    with of_argument("end"):
        return start_ns, time_ns(trace, end)


def edges(
    start: str | int | None = None,
    end: str | int | None = None,
    phase: str | None = None,
    between: tuple[str, str] | None = None,
) -> tuple[str | int | None, str | int | None]:
    """Return the start and the end of a part, however it is given.

    Raises
    ------
    UsageError
        If it is given in several ways.

    Examples
    --------
    >>> from pmlkit.selection import edges
    >>> edges(phase="load"), edges(between=("load", "rest"))
    (('mark:load', 'end:load'), ('mark:load', 'mark:rest'))
    """
    ways = ((start, end) != (None, None), phase is not None, between is not None)
    if sum(ways) > 1:
        names = [argument(name) for name in ("phase", "between", "start", "end")]
        raise UsageError("{}, {}, and {} with {} choose a part: take one".format(*names))
    if phase is not None:
        return f"mark:{phase}", f"end:{phase}"
    if between is None:
        return start, end
    if not isinstance(between, list | tuple) or len(between) != 2:
        raise UsageError(f"{argument('between')} takes the names of two phases")
    first, second = between
    return f"mark:{first}", f"mark:{second}"
