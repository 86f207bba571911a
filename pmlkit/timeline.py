# SPDX-License-Identifier: Apache-2.0
"""Windows T over the rounds of a trace, in time or in rounds.

A window is the time (t - T, t] and contains the rounds that end in it. A window in rounds
(``"5r"``) has that many rounds, independent of their lengths. Both are computed on an `Axis`, on
which every round ends at a position: its time, or its number. `Windows` maps each round to its
windows.

A round that extends across the end of a window belongs to the window in which it ends. The
references of a window may therefore cover a time slightly different from T, its `effective_ns`. It
extends from the last instant before the window's start up to which all references are known, to the
last such instant before its end. At the end of a round, all references are known. Within a round
without references, they are known, too. Within any other round, only those up to its start are
known.

A window is full if it lies within the part and its references cover at least `COVERED` of T. They
cover less where a phase or the end of the recording cuts short the only round that ends in it. A
larger share is no better: programs touch most pages where phases begin, so a mean without the
windows there is too small.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import PmlkitError, ResolutionError, UsageError, argument, of_argument
from pmlkit.trace import arrow
from pmlkit.units import Window, exact_ns, format_ns, is_bare, parse_window

if TYPE_CHECKING:
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Bools, Ints


__all__ = ["Axis", "Timeline", "Windows", "default_window", "period_text", "timeline"]

MOST = 10_000_000  # windows of a table, at most
GRID = 100_000  # values of T of a curve, at most
CHOSEN = 100_000  # windows of a table with the default T, at most
ROUNDS_ALIKE = 0.9  # share of rounds with the usual length in a regular trace
COVERED = 0.5  # share of T, at least, that the references of a full window cover
EVEN = 0.95  # share of the rounds, and of the time, with nearly the usual length in an even part
FAR = 0.1  # share of T by which the effective T may differ without a note
KEPT_TO = 0.1  # tolerance, in periods, within which the usual length counts as the period
SECOND = 1_000_000_000


@dataclass(frozen=True)
class Axis:
    """The positions at which rounds end: ns since the start, or numbers of rounds.

    Attributes
    ----------
    at : ndarray of int64, shape (n_rounds,)
        Positions, never decreasing.
    usual : int
        The usual length of a round. References of the last round are observed for the same time.
    """

    at: Ints
    usual: int = 1

    @classmethod
    def of_rounds(cls, n_rounds: int) -> Axis:
        """Return the axis of numbers: rounds end at 1, 2, 3, ..."""
        return cls(np.arange(1, n_rounds + 1))

    def __len__(self) -> int:
        return len(self.at)

    @property
    def length(self) -> int:
        """Position of the end of the last round."""
        return int(self.at[-1]) if len(self) else 0

    @property
    def end(self) -> int:
        """End of the observation: a usual round after the end of the last round."""
        return self.length + self.usual

    @property
    def last_of_instants(self) -> Ints:
        """For each instant at which rounds end, the index of the last of them."""
        return np.flatnonzero(np.append(np.diff(self.at) != 0, [True] * bool(len(self))))


def _unknown() -> Array:
    """Return the value of unknown times of `Windows` that count rounds."""
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Windows:
    """Windows over the rounds of a part of a trace, ordered by their ends.

    Attributes
    ----------
    enter : ndarray of int32, shape (n_rounds + 1,)
        The first window that contains the round, never decreasing. The last element, the number of
        windows, stands for rounds that never occur.
    leave : ndarray of int32, shape (n_rounds + 1,)
        The first later window that does not contain the round.
    tumbling : bool
        Whether each window begins where the previous one ends.
    t_ns : ndarray of int64, shape (windows,)
        Ends.
    effective_ns : ndarray of int64, shape (windows,)
        The time span of a window's references; see the module.
    full : ndarray of bool, shape (windows,)
        False where the window extends beyond the start or the end of the part, and where its
        references cover less than `COVERED` of T. (A window in rounds has T if it has the rounds.)
    round : ndarray of int64, shape (windows,)
        The round in which, or with which, each window ends.
    asked_ns : int
        T in ns; -1 if it was given in rounds without a common length.
    rounds : int
        T in (usual) rounds.
    """

    enter: Array
    leave: Array
    tumbling: bool = False
    t_ns: Ints = field(default_factory=_unknown)
    effective_ns: Ints = field(default_factory=_unknown)
    full: Bools = field(default_factory=_unknown)
    round: Ints = field(default_factory=_unknown)
    asked_ns: int = -1
    rounds: int = -1

    @classmethod
    def on(cls, at: Ints, size: int, ends: Ints, tumbling: bool = False) -> Windows:
        """Return the windows of a `size` with ends at positions `ends`; rounds end `at`."""
        enter = np.searchsorted(ends, at)
        leave = enter + 1 if tumbling else np.searchsorted(ends, at + min(size, 1 << 62))
        first, beyond = (np.append(side, len(ends)).astype(np.int32) for side in (enter, leave))
        return cls(first, beyond, tumbling)

    @classmethod
    def of_rounds(cls, n_rounds: int, k: int, step: int = 1) -> Windows:
        """Return windows of `k` rounds that end every `step` rounds; tumbling if equal."""
        at, tumbling = np.arange(1, n_rounds + 1), k == step
        ends = _ends(n_rounds, step, tumbling)
        return cls.on(at, k, ends, tumbling)

    def __len__(self) -> int:
        return int(self.enter[-1])

    @property
    def until(self) -> Ints:
        """The first round after each window (int64)."""
        return np.searchsorted(self.enter[:-1], np.arange(1, len(self) + 1))


def _ends(length: int, step: int, tumbling: bool) -> Ints:
    """Return the ends of windows: every `step` and, if they tumble, at `length`."""
    ends = np.arange(1, length // step + 1, dtype=np.int64) * step
    return np.append(ends, length) if tumbling and length % step else ends


@dataclass(frozen=True)
class Timeline:
    """The times of the rounds of a part of a trace.

    Attributes
    ----------
    name : str
        Name of the trace, for messages.
    t_ns : ndarray of int64, shape (n_rounds + 1,)
        Boundaries of the rounds.
    used : ndarray of bool, shape (n_rounds,)
        False for rounds without any reference.
    resolution_ns : int or None
        The shortest T: the usual length of the trace's rounds; None if it has no times.
    regular : bool
        Whether nearly all rounds have that length. If so, T must be a multiple of it.
    insn : int or None
        The period, if it was requested in instructions.
    """

    name: str
    t_ns: Ints
    used: Bools
    resolution_ns: int | None
    regular: bool
    insn: int | None = None

    @property
    def n_rounds(self) -> int:
        """Number of rounds."""
        return len(self.used)

    @property
    def length_ns(self) -> int:
        """Time from the start of the first round to the end of the last one, ns."""
        return int(self.t_ns[-1] - self.t_ns[0]) if self.n_rounds else 0

    @cached_property
    def axis(self) -> Axis:
        """The axis of time; of numbers of rounds if the trace has no times."""
        if self.resolution_ns is None:
            return Axis.of_rounds(self.n_rounds)
        return Axis(self.t_ns[1:] - self.t_ns[:1], self.resolution_ns)

    @cached_property
    def even(self) -> bool:
        """Whether a window for each round weighs time evenly: nearly all rounds are alike.

        That is so by number and by time. A recording is regular with a few long gaps, too.
        """
        if self.resolution_ns is None or not self.n_rounds:
            return True
        lengths = np.diff(np.unique(self.t_ns))
        alike = np.abs(lengths - self.resolution_ns) <= FAR * self.resolution_ns
        return bool(alike.mean() >= EVEN and lengths[alike].sum() >= EVEN * self.length_ns)

    def axis_of(self, window: str | int | Window) -> Axis:
        """Return the axis in whose unit a window is given."""
        return Axis.of_rounds(self.n_rounds) if _in_rounds(window) else self.axis

    def grid(self) -> tuple[Ints, Ints]:
        """Return all T of a curve, in usual rounds and as lengths on `axis`.

        They are the multiples of the resolution from 0 to the length. If there are more than
        `GRID`, they are spaced geometrically.
        """
        unit = 1 if self.resolution_ns is None else self.resolution_ns
        last = self.axis.length // unit
        if last < GRID:
            rounds = np.arange(last + 1)
        else:
            spaced = np.rint(np.geomspace(1, last, GRID)).astype(np.int64)
            rounds = np.concatenate(([0], np.unique(np.minimum(spaced, last))))
        return rounds, rounds * unit

    def size(self, window: str | int | Window, longest: bool = True) -> int:
        """Return the length of a window, in its own unit: rounds or ns.

        Raises
        ------
        ResolutionError
            If the trace cannot resolve it, or (with `longest`) it is longer than the part.
        """
        bare = is_bare(window)
        window = parse_window(window)
        if bare and window.length < (self.resolution_ns or 0):
            number, shortest = window.length, exact_ns(self.resolution_ns or 0)
            what = f"a window of {number} is {number} ns, and a round of {self.name} is {shortest}"
            hint = f"write it with its unit, such as '{number}ms', or '{number}r' for rounds"
            raise ResolutionError.of(number, shortest, what, hint)
        size = self._rounds(window) if window.ns is None else self._ns(window)
        if longest and self.n_rounds and size > self.axis_of(window).length:
            lasts = exact_ns(self.length_ns) if window.ns else f"{self.n_rounds} rounds"
            part = f"lasts {lasts}" if window.ns else f"has {lasts}"
            what = f"a window of {window} is too long: the measured part of {self.name} {part}"
            raise ResolutionError.of(
                str(window), lasts, what, f"give a shorter {argument('window')}"
            )
        return size

    def _rounds(self, window: Window) -> int:
        if window.length * (self.resolution_ns or 1) >= 1 << 63:
            raise UsageError(f"a window of {window} is more than 64 bits can hold: give less")
        return window.length

    def _ns(self, window: Window) -> int:
        resolution, ns = self.resolution_ns, window.length
        if resolution is None:
            raise self._without_times(window)
        if ns < resolution or (self.regular and ns % resolution):
            asked, shortest = exact_ns(ns), exact_ns(resolution)
            if self.regular:
                raise ResolutionError(asked, shortest)
            what = f"a window of {asked} is not possible: the rounds of {self.name} last {shortest}"
            raise ResolutionError.of(asked, shortest, what, f"give {shortest} or more")
        return ns

    def _without_times(self, window: Window) -> PmlkitError:
        period = "no stated length" if self.insn is None else f"{self.insn} instructions"
        what = (
            f"a window of {window} is not possible: the trace has rounds of {period}, not of a time"
        )
        hint = "give the window in rounds, such as 5r"
        return ResolutionError.of(str(window), f"rounds of {period}", what, hint)

    def windows(
        self,
        window: str | int | Window,
        step: str | int | Window | None = None,
        longest: bool = True,
    ) -> Windows:
        """Return windows over the rounds.

        Parameters
        ----------
        window : str, int or Window
            T.
        step : None, "sliding", or as `window`
            None: tumbling windows, of which the last may be shorter. ``"sliding"``: a window ends
            at each instant at which a round ends. Else: a window ends every `step`. Windows before
            the first full one are shorter.
        longest : bool
            Refuse a T that is longer than the part.
        """
        size, axis = self.size(window, longest), self.axis_of(window)
        with of_argument("step"):  # `window` was read above
            tumbling = step is None or (
                step != "sliding" and parse_window(step) == parse_window(window)
            )
        ends = self._window_ends(window, step, size, tumbling)
        starts = np.arange(len(ends)) * size if tumbling else np.maximum(ends - size, 0)
        by_number = _in_rounds(window) or self.resolution_ns is None
        t_ns, effective_ns, last = (self._numbers if by_number else self._times)(starts, ends)
        covered = by_number or effective_ns >= COVERED * size
        return replace(
            Windows.on(axis.at, size, ends, tumbling),
            t_ns=t_ns,
            effective_ns=effective_ns,
            full=(ends - starts == size) & covered,
            round=last,
            asked_ns=self.asked_ns(window),
            rounds=self.in_rounds(window),
        )

    def _window_ends(
        self, window: str | int | Window, step: str | int | Window | None, size: int, tumbling: bool
    ) -> Ints:
        """Return the ends of windows on the axis of `window`."""
        axis = self.axis_of(window)
        if step == "sliding":
            return axis.at[axis.last_of_instants]
        every = size if step is None else self.size(step, longest=False)
        of_step = self.axis_of(window if step is None else step)
        if of_step.length // every > MOST:
            what = f"{of_step.length // every:,} windows are more than a table can hold"
            raise UsageError(
                f"{what}: give a longer {argument('window')}, or a {argument('start')} and "
                f"{argument('end')}"
            )
        ends = _ends(of_step.length, every, tumbling)
        if step is None or _in_rounds(step) == _in_rounds(window):
            return ends
        if _in_rounds(step):
            return np.unique(axis.at[ends - 1])
        return np.searchsorted(of_step.at, ends, "right")

    def _numbers(self, starts: Ints, ends: Ints) -> tuple[Ints, Ints, Ints]:
        """Return `t_ns`, `effective_ns` and `round` of windows in rounds."""
        return self.t_ns[ends], self.t_ns[ends] - self.t_ns[starts], np.maximum(ends - 1, 0)

    def _times(self, starts: Ints, ends: Ints) -> tuple[Ints, Ints, Ints]:
        """Return `t_ns`, `effective_ns` and `round` of windows in time."""
        at = self.axis.at
        ended = np.searchsorted(at, ends, "right") - 1
        within = (ended < 0) | (at[ended] < ends) if len(at) else ended < 0
        last = np.minimum(ended + within, max(len(at) - 1, 0))
        return (
            self.t_ns[0] + ends if len(ends) else ends,
            self.known(ends) - self.known(starts),
            last,
        )

    def known(self, at: Ints) -> Ints:
        """Return the last instant, up to each position, to which all references are known."""
        if not self.n_rounds:
            return at
        ends = self.axis.at
        around = np.minimum(np.searchsorted(ends, at), len(ends) - 1)
        begin = np.concatenate(([0], ends))[around]
        return np.where((ends[around] <= at) | ~self.used[around], np.minimum(at, ends[-1]), begin)

    def asked_ns(self, window: str | int | Window) -> int:
        """Return T in ns; -1 for rounds without a common length."""
        window = parse_window(window)
        if window.ns is not None:
            return window.ns
        return window.length * self.resolution_ns if self.regular and self.resolution_ns else -1

    def in_rounds(self, window: str | int | Window) -> int:
        """Return T in rounds, or in complete usual rounds if it is given in time."""
        window = parse_window(window)
        return window.length // (self.resolution_ns or 1) if window.ns else window.length


def _in_rounds(window: str | int | Window) -> bool:
    return parse_window(window).rounds is not None


def timeline(trace: Trace, first: int = 0, n_rounds: int | None = None) -> Timeline:
    """Return the timeline of `n_rounds` rounds from round `first` on; default: of all rounds."""
    rounds = trace.rounds_table
    stop = len(rounds) if n_rounds is None else first + n_rounds
    edges = arrow.values(rounds["t_start_ns"])[:1], arrow.values(rounds["t_end_ns"])
    used = (arrow.values(rounds["entries"]) > 0) | (arrow.values(rounds["lost"]) > 0)
    t_ns = np.concatenate(edges).astype(np.int64)
    resolution_ns, regular = _resolution(t_ns, used, trace.resolution_ns)
    part = t_ns[first : stop + 1], used[first:stop]
    return Timeline(str(trace.path), *part, resolution_ns, regular, trace.meta.period["insn"])


def _resolution(t_ns: Ints, used: Bools, period_ns: int | None) -> tuple[int | None, bool]:
    """Return the usual length of rounds, and whether nearly all rounds have it.

    Rounds that end at the same instant count as one: imports split a round where a page recurs.
    """
    if not len(used):
        return period_ns, True
    if t_ns[-1] == t_ns[0]:
        return None, True
    lengths = _lengths(t_ns, used)
    usual = int(np.sort(lengths)[len(lengths) // 2])
    if usual == 0:
        return 1, False  # references at instants
    if period_ns and abs(usual - period_ns) <= KEPT_TO * period_ns:
        usual = period_ns
    return usual, bool(np.mean(lengths == usual) >= ROUNDS_ALIKE)


def _lengths(t_ns: Ints, used: Bools) -> Array:
    """Return the time up to each instant at which a round with references ended."""
    lengths, ends = np.diff(t_ns), t_ns[1:]
    first = np.flatnonzero(np.concatenate(([True], ends[1:] != ends[:-1])))
    in_use = np.logical_or.reduceat(used, first)
    if not in_use.any():
        longest = np.maximum.reduceat(lengths, first)
        return longest[longest > 0]
    return np.maximum.reduceat(np.where(used, lengths, 0), first)[in_use]


def default_window(part: Timeline, wanted_ns: int = SECOND) -> Window:
    """Return the default T.

    It is a second (`wanted_ns`) if the part can resolve that. Otherwise it is close to one second:
    1, 2 or 5 times a power of ten, up to about a tenth of the part. For a single round, it is the
    whole part.
    """
    if part.resolution_ns is None or not part.n_rounds:
        return Window(rounds=1) if part.resolution_ns is None else Window(ns=wanted_ns)
    resolution, length = part.resolution_ns, part.length_ns
    if (
        resolution <= wanted_ns <= length
        and length // wanted_ns <= CHOSEN
        and not (part.regular and wanted_ns % resolution)
    ):
        return Window(ns=wanted_ns)
    unit = resolution if part.regular else 1
    nice = np.array([m * 10**e for e in range(19) for m in (1, 2, 5)], object) * unit
    fitting = [int(ns) for ns in nice if resolution <= ns <= length and length // ns <= CHOSEN]
    if not fitting:
        return Window(ns=max(length, resolution))
    nearest = min(max(length // 10, fitting[0]), max(wanted_ns, length // CHOSEN + 1, fitting[0]))
    return Window(ns=max([ns for ns in fitting if ns <= nearest] or fitting[:1]))


def period_text(trace: Trace) -> str:
    """Describe the length of rounds: the period, or median and range if lengths vary."""
    part, insn = timeline(trace), trace.meta.period["insn"]
    asked = f"{insn:,} instructions" if insn else ""
    if part.resolution_ns is None:
        return asked or "rounds without times"
    if part.regular:
        return asked or exact_ns(part.resolution_ns)
    lengths = np.diff(part.t_ns)
    low, high = format_ns(int(lengths.min())), format_ns(int(lengths.max()))
    usual = f"rounds of {format_ns(part.resolution_ns)} (median), {low} to {high}"
    wanted = asked or (format_ns(trace.resolution_ns) if trace.resolution_ns else "")
    return f"{wanted} asked for, {usual}" if wanted else usual
