# SPDX-License-Identifier: Apache-2.0
"""A tracer's events of KVM's dirty pages, from any kind of file, and their rounds.

A page is logged once until it is re-armed, so a round ends at ``kvm_dirty_ring_reset``, which
re-arms every page of the rings. One call resets the rings of all vCPUs in turn; the last one ends
the round. Without resets, rounds are ticks of the clock.

KVM drains PML's buffer at an exit. Before Linux 6.14 it takes the newest entry first
(``vmx_flush_pml_buffer``). The order within such a drain is reversed if the kernel is known.
"""

from __future__ import annotations

import re
from array import array
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import UsageError
from pmlkit.interop.reading import ForeignFileError
from pmlkit.interop.rounds import Imported
from pmlkit.trace.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import NoReturn

    from pmlkit.interop.rounds import Chunk
    from pmlkit.types import Array, Bools, Ints, PathLike


__all__ = ["DRAIN_ENTRIES", "DRAIN_GAP_NS", "DRAIN_LIMIT_NS", "OLDEST_FIRST", "DirtyLog", "frame",
           "imported"]  # fmt: skip

HINT = "check the format's name, and the file"
SLOT_SHIFT = 32
SLOT_LIMIT = 2 << 16  # the slot's number; the bits above are the address space, 0 or 1
OFFSET_LIMIT = 1 << 31  # pages of a slot: KVM_MEM_MAX_NR_PAGES
WINDOW_NS = 10_000_000  # length of a round if no reset ends it
EPOCH_NS = 10**18  # a clock that is beyond September 2001 does not count from a boot
_TIME_LIMIT = 1 << 62
_VCPU_LIMIT = 1 << 16
_GROUP_NS = 10_000_000  # longest time between the resets of two rings in one call
DRAIN_ENTRIES = 512  # entries of PML's buffer
DRAIN_GAP_NS = 2_000  # entries of one drain are closer; an exit and an entry take longer
# Longest time between two entries of a drain, even without exits in the file.
DRAIN_LIMIT_NS = 100_000_000
OLDEST_FIRST = (6, 14)  # the Linux from which KVM takes the oldest entry first
_RELEASE = re.compile(r"v?(\d{1,3})\.(\d{1,4})(?!\d)")
PAGE, RESET, MARK = range(3)
_UNKNOWN = -1
SLOTS = (
    "a frame is (slot << 32) + offset in the slot: the file does not contain the positions of slots"
)


def frame(slot: int, offset: int) -> int | None:
    """Return the frame number for an offset in a slot; None if KVM has no such page."""
    if slot >= SLOT_LIMIT or offset >= OFFSET_LIMIT:
        return None
    return (slot << SLOT_SHIFT) + offset


class DirtyLog:
    """Events in the order of a file, which may be arbitrary; `imported` sorts them.

    Attributes
    ----------
    absolute : bool or None
        Whether frames are the guest's own (a kprobe), or offsets in slots; None without pages.
    release : (int, int) or None
        The traced Linux, if the file contains it.
    counts_losses : bool
        Whether the file counts lost events.
    last_ns : dict of int to int
        Time of the last page by CPU, if the reader of the file keeps it.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = path
        self.absolute: bool | None = None
        self.release: tuple[int, int] | None = None
        self.counts_losses = False
        self.last_ns: dict[int, int] = {}
        self._time, self._value = array("q"), array("Q")
        self._vcpu, self._thread, self._kind = array("H"), array("L"), array("B")
        self._threads: dict[int | None, int] = {None: 0}
        self._of_vcpu: dict[int, int] = {}  # the thread that runs a vCPU
        self._named: dict[int, int] = {}  # the vCPU of a thread, by its name, and by its entries
        self._entered: dict[int, int] = {}
        self._losses = array("q")  # index of the next event, time of the event before, count

    def add_page(
        self,
        where: str,
        time_ns: int,
        thread: int | None,
        vcpu: int,
        gfn: int | None,
        absolute: bool,
    ) -> None:
        """Add a logged page; `where` names the line or event for errors.

        If the frame is `absolute`, its thread determines the vCPU at the end.

        Raises
        ------
        ForeignFileError
            If KVM has no such page or vCPU, or the file mixes incompatible events.
        """
        if gfn is None:
            self._refuse(where, f"names a page beyond the limit of a slot ({OFFSET_LIMIT} pages)")
        if self.absolute not in (None, absolute):
            why = "has kvm_dirty_ring_push and mark_page_dirty_in_slot, which report the same pages"
            self._refuse(where, why, "keep the lines of one of them")
        self.absolute = absolute
        self._add(where, PAGE, time_ns, thread, vcpu, gfn)
        code = self._thread[-1]
        if code and not absolute and self._of_vcpu.setdefault(vcpu, code) != code:
            why = f"comes from a second thread of vCPU {vcpu}: the file contains two machines"
            self._refuse(where, why, "keep the lines of one of them (by the threads' numbers)")

    def set_release(self, text: str) -> None:
        """Set the kernel's release from a text, if it is one."""
        if match := _RELEASE.match(text):
            self.release = int(match[1]), int(match[2])

    def add_reset(self, where: str, time_ns: int, thread: int | None, ring: int) -> None:
        """Add a reset of a ring, which re-arms its pages."""
        self._add(where, RESET, time_ns, thread, ring, 0)

    def add_mark(
        self, where: str, time_ns: int, thread: int | None, vcpu: int | None = None
    ) -> None:
        """Add an exit, an entry, or a page fault of a thread; an entry contains its vCPU."""
        self._add(where, MARK, time_ns, thread, 0, 0)
        if vcpu is not None and vcpu < _VCPU_LIMIT:
            self._entered[self._thread[-1]] = vcpu

    def set_name(self, where: str, thread: int | None, vcpu: int) -> None:
        """Set the vCPU that a thread runs, from the thread's name; its entries take precedence."""
        if vcpu >= _VCPU_LIMIT:
            self._refuse(where, f"names vCPU {vcpu}, and the limit is {_VCPU_LIMIT}")
        self._named[self._threads.setdefault(thread, len(self._threads))] = vcpu

    def add_loss(self, where: str, count: int | None, after_ns: int = 0) -> None:
        """Record that events were lost before the next one; None: an unknown number.

        Parameters
        ----------
        after_ns : int
            Time of the previous event, if known.
        """
        if count is not None and count >= _TIME_LIMIT:
            self._refuse(where, "counts more lost events than possible")
        self.counts_losses |= count is not None
        if count != 0:
            self._losses.extend((len(self), after_ns, _UNKNOWN if count is None else count))

    def losses(self) -> tuple[Ints, Ints, Ints]:
        """Return the times of the events before and after each loss, and the number lost.

        The time after a loss without an event is above all times; an unknown count is -1.
        """
        rows = np.array(self._losses, np.int64).reshape(-1, 3)
        time = np.append(np.frombuffer(self._time, np.int64), 2 * _TIME_LIMIT - 1)
        return rows[:, 1], time[rows[:, 0]], rows[:, 2]

    def _add(
        self, where: str, kind: int, time_ns: int, thread: int | None, vcpu: int, value: int
    ) -> None:
        if time_ns >= _TIME_LIMIT:
            self._refuse(where, "has a time that is too large")
        if vcpu >= _VCPU_LIMIT:
            self._refuse(where, f"names vCPU {vcpu}, and the limit is {_VCPU_LIMIT}")
        self._kind.append(kind)
        self._time.append(time_ns)
        self._thread.append(self._threads.setdefault(thread, len(self._threads)))
        self._vcpu.append(vcpu)
        self._value.append(value)

    def _refuse(self, where: str, why: str, hint: str = HINT) -> NoReturn:
        raise ForeignFileError(self.path, where, why, hint)

    def __len__(self) -> int:
        return len(self._kind)

    def place_threads(self) -> list[int]:
        """Assign the vCPUs of pages by their threads; return the codes of threads that run one.

        If nothing shows which threads run vCPUs, the threads that log pages are used.
        """
        if not self.absolute:
            return list(self._threads.values())
        pages = np.frombuffer(self._kind, np.uint8) == PAGE
        threads = np.frombuffer(self._thread, array("L").typecode)
        vcpus = np.frombuffer(self._vcpu, np.uint16).copy()
        known = {**self._named, **self._entered}
        logging = np.unique(threads[pages]).tolist()
        if not known:
            numbers = {code: thread or 0 for thread, code in self._threads.items()}
            known = {code: n for n, code in enumerate(sorted(logging, key=numbers.__getitem__))}
        self._refuse_twice([known[code] for code in logging if code in known])
        table = np.zeros(len(self._threads), np.uint16)
        table[list(known)] = list(known.values())
        vcpus[pages] = table[threads[pages]]
        self._vcpu = array("H", vcpus.tobytes())
        return list(known)

    def _refuse_twice(self, vcpus: list[int]) -> None:
        for vcpu in vcpus:
            if vcpu >= _VCPU_LIMIT:
                self._refuse("", f"has more than {_VCPU_LIMIT} threads that log")
            if vcpus.count(vcpu) > 1:
                why = f"has two threads of vCPU {vcpu}: it contains two machines"
                self._refuse("", why, "keep the lines of one of them (by the threads' numbers)")

    @property
    def has_marks(self) -> bool:
        """Whether the file has exits of vCPUs."""
        return MARK in self._kind

    def sorted(self) -> dict[str, Array]:
        """Return the events by time, then by order in the file, as columns by name."""
        names = {
            "kind": np.uint8,
            "time": np.int64,
            "thread": array("L").typecode,
            "vcpu": np.uint16,
        }
        columns = {n: np.frombuffer(getattr(self, f"_{n}"), t) for n, t in names.items()}
        columns["value"] = np.frombuffer(self._value, np.uint64)
        time = columns["time"]
        if (time[1:] < time[:-1]).any():
            order = np.argsort(time, kind="stable")
            columns = {name: column[order] for name, column in columns.items()}
        return columns


def imported(log: DirtyLog, window: int | None, kernel: str | None) -> Imported:
    """Convert a log to rounds.

    Parameters
    ----------
    window : int, optional
        Length of a round, ns, replacing the rings' resets.
    kernel : str, optional
        Release of the traced kernel, such as "6.1", replacing the file's.

    Raises
    ------
    ForeignFileError
        If it contains no page.
    UsageError
        If `kernel` is not a release.
    """
    version = _release(kernel) if kernel is not None else log.release
    running = log.place_threads()
    events = log.sorted()
    if not (events["kind"] == PAGE).any():
        raise ForeignFileError(log.path, "", "holds no dirty page")
    resets = _ends_of_rounds(events) if window is None else np.empty(0, np.int64)
    first_ns = int(events["time"][resets[0] if len(resets) > 1 else 0])
    events["time"] = time = events["time"] - first_ns
    length = window or WINDOW_NS
    turn = version is not None and version < OLDEST_FIRST
    rows, number = _in_order(events, _numbers(time, resets, length), turn)
    left_out = int(np.count_nonzero(number < 0))
    rows, number = rows[number >= 0], number[number >= 0]
    if not len(rows):
        raise ForeignFileError(log.path, "", "holds no dirty page between two resets of the rings")
    rounds = (
        _rounds_by_resets(events, time, resets, rows, number)
        if len(resets)
        else _rounds_by_ticks(events, time, length, rows)
    )
    losses, lost_outside, all_known = _losses(log, first_ns, time, resets)
    counted = log.counts_losses and all_known
    strange = int(np.count_nonzero(~np.isin(events["thread"][rows], running)))
    return Imported(
        rounds,
        "pml",
        (
            *([] if log.absolute else [SLOTS]),
            _clock_note(first_ns),
            _rounds_note(len(resets), window, (events["kind"] == RESET).any()),
            _order_note(version, log),
            *_left_out_notes(left_out, lost_outside, strange),
            *_loss_notes(losses, counted),
        ),
        round_ns=None if len(resets) else length,
        losses="counted" if counted else "not counted",
        lost=sum(count for _, count in losses),
        lost_at=losses,
        base_ns=first_ns if first_ns >= EPOCH_NS else None,
        complete=None,
    )


def _losses(
    log: DirtyLog, first_ns: int, time: Ints, resets: Ints
) -> tuple[tuple[tuple[int, int], ...], int, bool]:
    """Return time and count of losses in rounds, the losses outside, and whether all are known."""
    after, before, count = log.losses()
    end = int(time[resets[-1]] if len(resets) > 1 else time[-1])
    known, after, before = count != _UNKNOWN, after - first_ns, before - first_ns
    inside = known if len(resets) < 2 else known & (before > 0) & (after < end)
    losses = zip(np.minimum(before[inside], end).tolist(), count[inside].tolist(), strict=True)
    return tuple(losses), int(count[known & ~inside].sum()), bool(known.all())


def _release(text: str) -> tuple[int, int]:
    match = _RELEASE.match(text)
    if match is None:
        raise UsageError(
            f"{text!r} is not the release of a kernel: give one such as 6.1 (`uname -r`)"
        )
    return int(match[1]), int(match[2])


def _ends_of_rounds(events: dict[str, Array]) -> Ints:
    """Return the indices of the resets that end a round: the last one of each call."""
    time = events["time"]
    at = np.flatnonzero(events["kind"] == RESET)
    ring, thread = events["vcpu"][at].astype(np.int64), events["thread"][at]
    same_call = (ring[1:] > ring[:-1]) & (thread[1:] == thread[:-1])
    same_call &= time[at[1:]] - time[at[:-1]] <= _GROUP_NS
    return at[~np.append(same_call, False)] if len(at) else at


def _numbers(time: Ints, resets: Ints, length: int) -> Ints:
    """Return the round of each event: between resets, or by the clock; -1 outside of rounds.

    What comes before the first of several resets is no round: where logging has just been switched
    on, a page counts that is only read. Nor is what comes after the last one.
    """
    if not len(resets):
        return time // length
    number = np.searchsorted(resets, np.arange(len(time)))
    return number if len(resets) == 1 else np.where(number < len(resets), number - 1, -1)


def _in_order(events: dict[str, Array], numbers: Ints, turn: bool) -> tuple[Ints, Ints]:
    """Return the rows of the pages sorted by round and, within it, by the end of their drain.

    Parameters
    ----------
    numbers : ndarray of int64
        The round of each event.
    turn : bool
        Whether a drain hands out the newest entry first.

    Returns
    -------
    rows, number : ndarray of int64
        The rows, and the round of each.
    """
    rows, begins = drains(events, events["time"])
    number = numbers[rows]
    begins = np.union1d(begins, np.flatnonzero(np.diff(number)) + 1)
    stops = np.append(begins[1:], len(rows))
    ends, of = events["time"][rows[stops - 1]], number[stops - 1]
    order = np.lexsort((ends, of))  # of equal ones, the order of the threads
    begins, counts = begins[order], (stops - begins)[order]
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    if turn:
        within = np.repeat(counts, counts) - 1 - within
    rows = rows[np.repeat(begins, counts) + within]
    return rows, numbers[rows]


def _rounds_by_resets(
    events: dict[str, Array], time: Ints, resets: Ints, pages: Ints, number: Ints
) -> Iterator[Chunk]:
    ends = time[resets]
    if len(resets) == 1 and number[-1] == 1:  # the last round has no end in the file
        ends = np.append(ends, time[-1] + 1)
    starts = np.append(0, ends[:-1])
    if len(resets) > 1:
        starts, ends = ends[:-1], ends[1:]
    counts = np.bincount(number, minlength=len(ends))
    before, begin = np.append(0, np.cumsum(counts)), 0
    for empty in np.append(np.flatnonzero(counts == 0), len(ends)).tolist():
        stop = int(before[empty])
        if stop > begin:
            rounds = number[begin:stop]
            yield starts[rounds], ends[rounds], *_columns(events, pages[begin:stop])
        if empty < len(ends) and ends[empty] > starts[empty]:
            yield int(starts[empty]), int(ends[empty]), 0, np.empty(0, np.uint64), 0
        begin = stop


def _rounds_by_ticks(
    events: dict[str, Array], time: Ints, length: int, pages: Ints
) -> Iterator[Chunk]:
    starts = time[pages] // length * length
    ends = np.minimum(starts + length, int(time[-1]) + 1)
    yield starts, ends, *_columns(events, pages)
    if time[-1] >= ends[-1]:  # only other events came after the last page
        yield int(ends[-1]), int(time[-1]) + 1, 0, np.empty(0, np.uint64), 0


def _columns(events: dict[str, Array], rows: Ints) -> tuple[Array, Array, int]:
    return events["vcpu"][rows], events["value"][rows], int(Kind.UNKNOWN)


def drains(events: dict[str, Array], time: Ints) -> tuple[Ints, Ints]:
    """Separate the drains of PML's buffer, by marks of their thread, or otherwise by gaps in time.

    Parameters
    ----------
    events : dict of str to ndarray
        kind, thread and vcpu (if the thread is 0), in order of time.
    time : ndarray of int64

    Returns
    -------
    rows : ndarray of int64
        The rows of the pages, by thread and then by time.
    begins : ndarray of int64
        Start of each drain in `rows`.
    """
    thread = events["thread"].astype(np.int64)
    thread = np.where(thread > 0, thread, -1 - events["vcpu"].astype(np.int64))
    order = np.argsort(thread, kind="stable")  # a thread's events, in time
    thread, kind = thread[order], events["kind"][order]
    marks, marked = np.cumsum(kind == MARK), np.isin(thread, thread[kind == MARK])
    rows = np.flatnonzero(kind == PAGE)
    begins = _drain_begins(thread[rows], marks[rows], marked[rows], time[order[rows]])
    return order[rows], begins


def _drain_begins(thread: Ints, marks: Ints, marked: Bools, time: Ints) -> Ints:
    """Return the indices of the pages that are the first of a drain."""
    gaps = np.diff(time) >= DRAIN_GAP_NS
    new = (np.diff(thread) != 0) | (np.diff(marks) != 0) | (gaps & ~marked[1:])
    new |= np.diff(time) >= DRAIN_LIMIT_NS
    begins = np.flatnonzero(np.append(True, new))
    number = np.repeat(begins, np.diff(np.append(begins, len(time))))
    return np.flatnonzero((np.arange(len(time)) - number) % DRAIN_ENTRIES == 0)


def _clock_note(first_ns: int) -> str:
    if first_ns >= EPOCH_NS:
        return "times are those of the host, since 1970"
    seconds = first_ns / 1e9
    return (
        f"times are those of the tracer's clock, and 0 is its {seconds:.6f} s (usually since boot)"
    )


def _rounds_note(resets: int, window: int | None, has_resets: bool) -> str:
    if resets:
        return "a round ends at kvm_dirty_ring_reset, which re-arms all pages"
    why = "the file contains no kvm_dirty_ring_reset" if not has_resets else "as requested"
    return f"rounds are ticks of {(window or WINDOW_NS) / 1e6:g} ms ({why}), not re-arms"


def _order_note(version: tuple[int, int] | None, log: DirtyLog) -> str:
    if version is None:
        return (
            "order within a drain of PML's buffer is not known: before Linux 6.14 the newest "
            "comes first (set --kernel)"
        )
    if version >= OLDEST_FIRST:
        return "the order within a drain of PML's buffer is that of the log (Linux 6.14 and later)"
    criterion = "by kvm_entry and kvm_exit" if log.has_marks else "by gaps of 2 us in time"
    return f"order within a drain is reversed (before Linux 6.14); drains are separated {criterion}"


def _left_out_notes(entries: int, lost: int, strange: int) -> Iterator[str]:
    if entries:
        yield (
            f"{entries:,} entries before the first reset, or after the last one, were omitted: "
            "rounds lie between resets"
        )
    if lost:
        yield f"{lost:,} more were lost there"
    if strange:
        yield f"{strange:,} entries come from threads that run no vCPU, and count for vCPU 0"


def _loss_notes(losses: Sequence[tuple[int, int]], counted: bool) -> Iterator[str]:
    if losses and counted:
        yield "the lost events are events of the tracer, of any kind"
    elif losses:
        least = sum(count for _, count in losses)
        yield f"at least {least:,} events were lost, and an unknown number more"
