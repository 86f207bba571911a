# SPDX-License-Identifier: Apache-2.0
"""Choose the period T from the cost and the resolution of rounds of that length.

The arithmetic (``N(T)`` is the number of distinct pages written in a time T):

- **Log.** An entry has 8 bytes, the address of a 4 KiB page; a buffer of 4 KiB contains 512
  entries. With one re-arm per round, a page is logged once per round: ``N(T)`` entries, ``8 N(T)``
  bytes, and ``N(T) / 512`` VM exits. (An entry thus represents 4 KiB, but is not 4 KiB long.)
- **Bitmap.** One bit per page: ``memory / 4096 / 8`` bytes, independent of the log's size; 512 MiB
  of memory have a bitmap of 16 KiB. It covers all pages; a full buffer covers 512, which is 2 MiB.
- **Fill time.** A vCPU that logs ``N(T) / T`` entries per second fills a buffer in ``512 T /
  N(T)``.
- **Guest's cost** of a round: ``N/512 * exit + round + N * rearm``; divided by T, the guest's
  overhead.
- **Host's cost**: ``N * (entry + copy) + pages * scan + T * poll``, on other processors.
- **Clock.** Costs and T use the same clock (`pmlkit.costs`). A cost in instructions is a share of
  the instructions that the trace's machine executes in T. A time is a share of that machine's time.

With a longer T, repeated uses of a page cost nothing more (``N`` grows more slowly than T), so the
cost per second falls. But W(T) grows, and its resolution in time falls. The choice is the shortest
T that satisfies the overhead limit and beyond which the answer hardly depends on T.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from pmlkit.errors import ClocksDiffer, NeedsError, UsageError, argument, of_argument
from pmlkit.kernels.by_time import Reuse
from pmlkit.kernels.pages import grown
from pmlkit.period.costs import BUFFER_ENTRIES, ENTRY_BYTES, Constants, from_trace
from pmlkit.period.kvm import is_kvms
from pmlkit.recordings import opened
from pmlkit.selection import edges, stream, times_ns
from pmlkit.trace.schema import PAGE_SIZE
from pmlkit.units import format_bytes, format_ns, format_number, format_share, parse_share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pmlkit.costs import Clock
    from pmlkit.selection import Stream
    from pmlkit.timeline import Windows
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Floats, Ints, Json, PathLike


__all__ = ["BUFFER_ENTRIES", "Advice", "advise", "bitmap_bytes", "log_bytes", "ring_slots"]

STALL_NS = (
    100_000_000  # an assumption, settable as an option: longer than a slice of dom0's scheduler
)
_SLOT_KIB, _LEAST_KIB = 16, 64  # KiB, under KVM: 512 events of ftrace; the smallest --buffer
_MOST_PERIODS = 24
_TOGETHER = 8  # periods that are counted in one pass; each needs 4 bytes of memory per page
_FINEST = 500_000  # windows of the longest period; a finer one would need as many windows


def log_bytes(entries: int) -> int:
    """Return the size of a log, bytes."""
    return ENTRY_BYTES * entries


def bitmap_bytes(memory_bytes: int) -> int:
    """Return the size of a domain's log-dirty bitmap, bytes: one bit per page.

    Examples
    --------
    >>> from pmlkit.period import bitmap_bytes
    >>> bitmap_bytes(512 << 20)  # 131,072 pages, a bit each
    16384
    """
    return -(-memory_bytes // (PAGE_SIZE * 8))


def ring_slots(entries_per_s: float, stall_ns: float = STALL_NS) -> int:
    """Return the number of slots that a vCPU's ring needs to lose nothing between two drains.

    Parameters
    ----------
    entries_per_s : float
        The entries per second of that vCPU, at its peak.
    stall_ns : float
        Longest time without a drain.

    Returns
    -------
    int
        A power of two from 2 to 4096, with room for twice the entries logged in that time.
    """
    buffers = 2 * entries_per_s * stall_ns / 1e9 / BUFFER_ENTRIES
    return int(min(max(2 ** int(np.ceil(np.log2(max(buffers, 1)))), 2), 4096))


@dataclass(frozen=True)
class Advice:
    """The recommendation, and the reasons.

    Attributes
    ----------
    slots : int
        Buffers of a vCPU's ring.
    rearm : {"round", "flush"}
    target, accuracy : float
        The limits given to `advise`.
    met : bool
        Whether some period satisfies both limits.
    time : pmlkit.costs.Clock
        The clock of the periods.
    table : DataFrame
        One row per period. ``period_ns``, ``pages`` and ``peak_pages`` (N(T)), ``bytes``,
        ``entries_per_s``, ``exits_per_s``, ``fill_ns``, ``log_bytes`` (per round).
        ``guest_overhead`` and ``host_overhead``: shares of one processor's time; the host's is NaN
        if the memory size or the costs in this machine's time are unknown. ``flush_overhead``:
        lower bound of the guest's overhead if pages are re-armed at flushes. ``sensitivity``: the
        share by which W grows if T is doubled.
    words : tuple of str
        The explanation.
    """

    period_ns: int
    slots: int
    rearm: str
    target: float
    accuracy: float
    met: bool
    table: pd.DataFrame
    constants: Constants
    words: tuple[str, ...]
    time: Clock

    @property
    def row(self) -> pd.Series[float]:
        """The row of `table` of the recommended period."""
        return self.table.loc[self.table.period_ns == self.period_ns].iloc[0]

    @property
    def answer(self) -> str:
        """The recommendation in a sentence or two."""
        row, period = self.row, format_ns(self.period_ns)
        cost = f"it costs the guest {_within(row.guest_overhead, self.target, ' of its time')}"
        grows = f"doubling T makes the written W grow by {_within(row.sensitivity, self.accuracy)}"
        if self.met:
            return f"Take T = {period}: {cost}, and {grows}."
        if row.guest_overhead > self.target:
            longest = f"The longest, half of the recording, is {period}"
            return f"No T is cheap enough. {longest}: {cost}."
        return (
            f"No affordable T gives a stable answer. The least unstable is T = {period}: {cost}, "
            f"but {grows}. Plot W against T, and always state T."
        )

    @property
    def summary(self) -> Json:
        """The recommendation for JSON."""
        row = self.row
        return {
            "answer": self.answer,
            "period_ns": self.period_ns,
            "met": self.met,
            "guest_overhead": float(row.guest_overhead),
            "overhead_limit": self.target,
            "growth_if_doubled": float(row.sensitivity),
            "growth_limit": self.accuracy,
            "slots": self.slots,
            "rearm": self.rearm,
        }

    def as_dict(self) -> Json:
        """Return the attributes for JSON: the table as rows, NaN as None."""
        fields = {name: value for name, value in asdict(self).items() if name != "table"}
        fields["constants"] = self.constants.as_dict()
        table = self.table.astype(object).where(self.table.notna(), None)
        return {**fields, "table": table.to_dict("records"), "summary": self.summary}


def _check_time(name: str, time_ns: object) -> None:
    if not isinstance(time_ns, Real) or not 0 <= float(time_ns) < float("inf"):
        raise UsageError(f"{argument(name)} is {time_ns!r}: give ns, 0 or more")


def advise(
    trace: Trace | PathLike,
    target: float = 0.01,
    accuracy: float = 0.05,
    constants: Constants | None = None,
    stall_ns: float = STALL_NS,
    start: str | int | None = None,
    end: str | int | None = None,
    ns_per_insn: float | None = None,
    phase: str | None = None,
    between: tuple[str, str] | None = None,
) -> Advice:
    """Recommend T, the ring's size and the re-arm policy for a VM like the one in a trace.

    Parameters
    ----------
    trace : Trace or path-like
        Its PML log contains the writes; periods are multiples of the length of its usual round.
    target : float
        Share of its time that the guest may lose.
    accuracy : float
        Share by which the working set may grow if T is doubled.
    constants : pmlkit.period.costs.Constants, optional
        Default: the trace's own constants, as far as it has any.
    stall_ns : float
        Longest time in which dom0 does not drain the ring: an assumption.
    start, end, phase, between
        The part of the trace: see `pmlkit.selection`.
    ns_per_insn : float, optional
        Length of an instruction on the host of the trace, or of the constants, if unknown: it
        relates times to instructions.

    Raises
    ------
    UsageError
        If a share or a time is not possible.
    ClocksDiffer
        If the guest's cost can be converted neither from instructions (with the trace's length of
        an instruction) nor from the time of the trace's machine.
    NeedsError
        If the trace has no PML log, or fewer than 4 rounds between start and end.
    """
    with of_argument("target"):
        target = parse_share(target)
    with of_argument("accuracy"):
        accuracy = parse_share(accuracy)
    _check_time("stall_ns", stall_ns)
    start, end = edges(start, end, phase, between)
    trace = opened(trace)
    log = trace.pml
    _check_length(trace, start, end)
    constants = (constants or from_trace(trace)).given(ns_per_insn)
    time = log.meta.time.given(ns_per_insn)
    guest = _guest_ns(constants, time)  # refuses unlike clocks before the log is read
    sizes = _sizes(trace, stream(log, start=start, end=end, page_tables="keep"))
    table = _costs(sizes, log, guest, _host_ns(constants, time))
    fits = table[table.guest_overhead <= target]
    row, met = _choose(table, fits, accuracy)
    advice = Advice(
        period_ns=int(row.period_ns),
        slots=ring_slots(row.peak_pages / (row.period_ns / 1e9), stall_ns),
        # KVM's log has no policy: the VMM re-arms, at the end of a round.
        rearm="flush" if row.flush_overhead <= target and not is_kvms(trace) else "round",
        target=target,
        accuracy=accuracy,
        met=met,
        table=table,
        constants=constants,
        words=(),
        time=time,
    )
    return replace(advice, words=tuple(_explain(advice, row, trace, stall_ns)))


def _check_length(trace: Trace, start: str | int | None, end: str | int | None) -> None:
    first, stop = trace.pml.rounds_between(*times_ns(trace, start, end))
    if stop - first < 4:
        what = "4 rounds or more between start and end"
        raise NeedsError(trace, what, "choose a longer part, or collect for longer")


def _choose(
    table: pd.DataFrame, fits: pd.DataFrame, accuracy: float
) -> tuple[pd.Series[float], bool]:
    """Return the recommended row, and whether it satisfies both the target and the accuracy."""
    stable = fits[fits.sensitivity <= accuracy]
    if len(stable):
        return stable.iloc[int(stable.period_ns.argmin())], True
    if len(fits):
        return fits.iloc[int(fits.sensitivity.argmin())], False
    return table.iloc[-1], False


def _sizes(trace: Trace, source: Stream) -> pd.DataFrame:
    """Return the mean and the highest N(T) at up to `_MOST_PERIODS` periods.

    The log is read four times, however many periods there are.
    """
    part = source.timeline
    unit = part.resolution_ns or 0
    longest = part.length_ns // (2 * unit) if unit else 0
    if not longest:
        raise NeedsError(trace, "time in its rounds", "choose a longer part, or one with times")
    least = max(longest // _FINEST, 1)
    k = np.unique(np.geomspace(least, longest, _MOST_PERIODS).round().astype(np.int64))
    sizes = np.unique(np.concatenate(([0], k, 2 * k)))
    # The mean is over the windows wholly in the recording; partial ones would lower it.
    means = Reuse(source.numbered(), part.axis, sizes * unit).means()[1]
    pages, double = (means[np.searchsorted(sizes, rounds)] for rounds in (k, 2 * k))
    columns = {"rounds": k, "period_ns": k * unit, "pages": pages}
    columns["peak_pages"] = _peaks(source, [part.windows(int(ns)) for ns in k * unit])
    columns["sensitivity"] = (double - pages) / np.maximum(pages, 1)
    return pd.DataFrame(columns)


def _peaks(source: Stream, windows: Sequence[Windows]) -> Floats:
    """Return the pages of the largest of the consecutive windows of each period."""
    peaks: list[float] = []
    for first in range(0, len(windows), _TOGETHER):
        group = windows[first : first + _TOGETHER]
        peaks += [float(counts.max(initial=0)) for counts in _page_counts(source, group)]
    return np.array(peaks)


def _page_counts(source: Stream, windows: Sequence[Windows]) -> list[Ints]:
    """Count the pages of consecutive windows, of several lengths in one pass."""
    from pmlkit.kernels.loops import by_round

    counts = [np.zeros((1, len(each)), np.int64) for each in windows]
    stamps, marks = [np.empty(0, np.uint32)] * len(windows), np.empty(0, np.uint64)
    for rounds, ids, pages in source.numbered():
        marks = grown(marks, pages, 0)
        stamps = [grown(stamp, pages, 0) for stamp in stamps]
        for each, stamp, count in zip(windows, stamps, counts, strict=True):
            by_round(ids, each.enter[rounds], stamp, marks, count)
    return counts


class _GuestNs(NamedTuple):
    """The guest's costs, ns of the trace's clock."""

    exit: float
    round: float
    rearm: float


class _HostNs(NamedTuple):
    """The host's costs, ns of the trace's clock; NaN where the clocks differ."""

    entry: float
    scan: float
    poll: float


def _guest_ns(c: Constants, time: Clock) -> _GuestNs:
    return _GuestNs(time.ns(c.exit.cost), time.ns(c.round.cost), time.ns(c.rearm.cost))


def _host_ns(c: Constants, time: Clock) -> _HostNs:
    try:
        entry = time.ns(c.entry.cost) + time.ns(c.copy.cost)
        return _HostNs(entry, time.ns(c.scan.cost), time.ns(c.poll.cost))
    except ClocksDiffer:
        return _HostNs(np.nan, np.nan, np.nan)


def _costs(table: pd.DataFrame, log: Trace, g: _GuestNs, h: _HostNs) -> pd.DataFrame:
    """Add the cost of each period."""
    seconds, n = table.period_ns / 1e9, table.pages
    known = log.meta.known_memory_pages
    pages = np.nan if known is None else known
    exits = n / BUFFER_ENTRIES
    guest = exits * g.exit + g.round + n * g.rearm
    host = n * h.entry + pages * h.scan + seconds * h.poll
    # At flushes pages are armed again at least as often as at the ends of the trace's own rounds.
    again = table.rounds / table.rounds.iloc[0] * table.pages.iloc[0]
    flushed = again / BUFFER_ENTRIES * (g.exit + BUFFER_ENTRIES * g.rearm) + g.round
    return table.assign(
        bytes=n * PAGE_SIZE,
        entries_per_s=n / seconds,
        exits_per_s=exits / seconds,
        fill_ns=BUFFER_ENTRIES * table.period_ns / np.maximum(n, 1e-9),
        log_bytes=ENTRY_BYTES * n,
        guest_overhead=guest / table.period_ns,
        host_overhead=host / table.period_ns,
        flush_overhead=flushed / table.period_ns,
    )


def _explain(advice: Advice, row: pd.Series[float], trace: Trace, stall_ns: float) -> Iterator[str]:
    period, of_kvm = format_ns(int(row.period_ns)), is_kvms(trace)
    take = f"Settings: T = {period}{_of_machine(advice.time, row)}"
    if of_kvm:
        kib = max(advice.slots * _SLOT_KIB, _LEAST_KIB)
        yield f"{take} and buffers of {kib:,} KiB for each CPU (--buffer {kib})."
    else:
        ring = f"a ring of {advice.slots} buffers per vCPU"
        yield f"{take}, {ring}, and re-arm at every {advice.rearm}."
    yield _log_text(row, period, trace.meta.known_memory_pages)
    yield _cost_text(advice, row, period, trace.meta.known_memory_pages)
    what, who = ("A buffer", "the collector") if of_kvm else ("The ring", "dom0")
    yield (
        f"{what} is twice the log of the busiest {format_ns(round(stall_ns))} of the trace's "
        f"time, so {who} may be delayed by that time (assumed; set with --stall)."
    )
    if advice.rearm == "flush":
        yield (
            "Re-arming at flushes also satisfies the target, and counts how often a page is used "
            "(for a threshold m > 1). With one buffer, the counts are exact."
        )
    yield from _sources_text(advice.constants, of_kvm)
    if lost := trace.pml.meta.loss_note:
        yield f"Note: {lost}."


def _log_text(row: pd.Series[float], period: str, memory_pages: int | None) -> str:
    bitmap = ""
    if memory_pages is not None:
        size = format_bytes(bitmap_bytes(memory_pages * PAGE_SIZE))
        bitmap = f" The bitmap of its {memory_pages:,} pages has {size} (one bit each)."
    return (
        f"In a round of {period}, this VM writes {row.pages:,.0f} pages on average "
        f"({format_bytes(int(row.bytes))}). The log has {row.pages:,.0f} x 8 bytes = "
        f"{format_bytes(int(row.log_bytes))}. These are {row.pages / BUFFER_ENTRIES:,.1f} buffers "
        "of 512 entries, and the same number of VM exits. A buffer is full after "
        f"{format_ns(int(row.fill_ns))}.{bitmap}"
    )


def _within(share: float, limit: float, of: str = "") -> str:
    return f"{format_share(share)}{of} (limit {format_share(limit)})"


def _of_machine(time: Clock, row: pd.Series[float]) -> str:
    """Describe T by its number of instructions, if their length is known."""
    if not time.ns_per_insn:
        return ""
    millions = format_number(row.period_ns / time.ns_per_insn / 1e6)
    return f" ({millions} M instructions, at {time.text})"


def _cost_text(advice: Advice, row: pd.Series[float], period: str, memory_pages: int | None) -> str:
    guest = _guest_ns(advice.constants, advice.time)
    each = advice.time.ns_per_insn or 1.0
    unit = "instructions" if advice.time.ns_per_insn else "ns"
    exits, pause, rearm = (ns / each for ns in guest)
    return (
        f"The guest loses ({row.pages / BUFFER_ENTRIES:,.1f} exits x {exits:,.0f} + pause "
        f"{pause:,.0f} + re-arm {row.pages:,.0f} x {rearm:,.1f} {unit}) / {period} = "
        f"{_within(row.guest_overhead, advice.target, ' of its time')}; "
        f"{_host_text(row, memory_pages)}."
    )


def _host_text(row: pd.Series[float], memory_pages: int | None) -> str:
    if memory_pages is None:
        why = "the memory's size is unknown (pmlkit import --memory)"
    elif np.isnan(row.host_overhead):
        why = "its costs have different clocks (run pmlkit calibrate on that host)"
    else:
        return f"the host spends {format_share(row.host_overhead)} of one processor"
    return f"what the host spends is not known, as {why}"


def _sources_text(constants: Constants, of_kvm: bool) -> Iterator[str]:
    """Say what was assumed, and of which kinds the constants are."""
    guesses = [
        f"{name} ({constant.source})"
        for name, constant in constants.by_name().items()
        if constant.kind in ("assumed", "published")
    ]
    if guesses:
        yield (
            f"Assumed, not measured: {'; '.join(guesses)}. "
            + ("" if of_kvm else "`pmlkit calibrate --domain` measures on a host; ")
            + "--transition changes the part of a VM exit that is not its instructions."
        )
    yield f"The constants are of these kinds: {', '.join(constants.kinds)}."
