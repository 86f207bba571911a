# SPDX-License-Identifier: Apache-2.0
"""When the rounds of a trace ended, and which of them a window T holds.

A window is the time (t - T, t]. It holds the rounds that end in it; a round without uses is time
that passes. A window in rounds (``"5r"``) holds so many rounds, however long they took. What both
have in common is an `Axis`, on which every round ends at some position: at its time or, where
rounds are counted, at its number. `Windows` says for each round in which windows it is.

A round that lies across the end of a window is in the window in which the round ends. So the uses
that a window holds may have come in a little less, or more, than T: in its `effective_ns`, from
the last instant up to which all is known at the window's start to that at its end. That is the
instant itself where a round ends or where nothing is used, else the start of the round.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import PmlkitError, ResolutionError, UsageError
from pmlkit.units import Window, format_ns, parse_window

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Bools, Ints


__all__ = ["Axis", "Timeline", "Windows", "default_window", "period_text", "timeline"]

MOST = 10_000_000  # windows of a table
GRID = 100_000  # windows T of a curve
CHOSEN = 100_000  # windows of a table whose T nobody asked for
ROUNDS_ALIKE = 0.9  # share of the rounds that makes a trace regular
KEPT_TO = 0.1  # how far, of the period, the usual round may be from it
SECOND = 1_000_000_000


@dataclass(frozen=True)
class Axis:
    """Where rounds end: in ns since the start, or by number.

    Attributes
    ----------
    at : ndarray of int64, shape (n_rounds,)
        Never falling.
    usual : int
        The length of a usual round. What is used in the last round is seen for as long.
    """

    at: np.ndarray
    usual: int = 1

    @classmethod
    def of_rounds(cls, n_rounds: int) -> Axis:
        """Count rounds: they end at 1, 2, 3, ..."""
        return cls(np.arange(1, n_rounds + 1))

    def __len__(self) -> int:
        return len(self.at)

    @property
    def length(self) -> int:
        """From the start to the end of the last round."""
        return int(self.at[-1]) if len(self) else 0

    @property
    def end(self) -> int:
        """The end of what is seen: a usual round after the end of the last one."""
        return self.length + self.usual

    @property
    def last_of_instants(self) -> Ints:
        """The last of the rounds that end at each instant (indices, int64)."""
        return np.flatnonzero(np.append(np.diff(self.at) != 0, [True] * bool(len(self))))


@dataclass(frozen=True)
class Windows:
    """Windows over the rounds of a part, in the order of their ends.

    Attributes
    ----------
    enter : ndarray of int32, shape (n_rounds + 1,)
        The first window that ends no earlier than the round: it has the round, if any has. Never
        falling; one more at the end, for rounds that never come: the number of windows.
    leave : ndarray of int32, shape (n_rounds + 1,)
        The first window after it that does not have the round any more.
    tumbling : bool
        Whether each begins where the one before ends.
    t_ns : ndarray of int64, shape (windows,)
        Their ends.
    effective_ns : ndarray of int64, shape (windows,)
        In what time the uses were made that they hold.
    full : ndarray of bool, shape (windows,)
        False where the start or the end of the part cut the window short.
    round : ndarray of int64, shape (windows,)
        The round in which, or with which, each ends.
    asked_ns, rounds : int
        T in ns, -1 if it was asked for in rounds that have no common length; and T in (usual)
        rounds.
    """

    enter: np.ndarray
    leave: np.ndarray
    tumbling: bool = False
    t_ns: np.ndarray = None  # type: ignore[assignment]
    effective_ns: np.ndarray = None  # type: ignore[assignment]
    full: np.ndarray = None  # type: ignore[assignment]
    round: np.ndarray = None  # type: ignore[assignment]
    asked_ns: int = -1
    rounds: int = -1

    @classmethod
    def on(cls, at: Ints, size: int, ends: Ints, tumbling: bool = False, **more: Any) -> Windows:
        """Make the windows of a `size` that have their ends at `ends` of an axis."""
        enter = np.searchsorted(ends, at)
        leave = enter + 1 if tumbling else np.searchsorted(ends, at + min(size, 1 << 62))
        first, beyond = (np.append(side, len(ends)).astype(np.int32) for side in (enter, leave))
        return cls(first, beyond, tumbling, **more)

    @classmethod
    def of_rounds(cls, n_rounds: int, k: int, step: int = 1) -> Windows:
        """Make windows of `k` rounds that end at every `step` rounds; they tumble if equal."""
        at, tumbling = np.arange(1, n_rounds + 1), k == step
        ends = _ends(n_rounds, step, tumbling)
        return cls.on(at, k, ends, tumbling)

    def __len__(self) -> int:
        return int(self.enter[-1])

    @property
    def until(self) -> Ints:
        """The first round that is later than each window (int64)."""
        return np.searchsorted(self.enter[:-1], np.arange(1, len(self) + 1))


def _ends(length: int, step: int, tumbling: bool) -> Ints:
    """Return where windows end: every `step` and, if they tumble, where all ends."""
    ends = np.arange(1, length // step + 1, dtype=np.int64) * step
    return np.append(ends, length) if tumbling and length % step else ends


@dataclass(frozen=True)
class Timeline:
    """The rounds of a part of a trace in time.

    Attributes
    ----------
    name : str
        Of the trace, for errors.
    t_ns : ndarray of int64, shape (n_rounds + 1,)
        The times between rounds.
    used : ndarray of bool, shape (n_rounds,)
        False for rounds that are known to be without any use.
    resolution_ns : int or None
        The shortest T: the usual length of the trace's rounds; None if it has no times.
    regular : bool
        Whether nearly all rounds have that length: T has to be a multiple of it.
    insn : int or None
        The period, if it was asked for in instructions.
    """

    name: str
    t_ns: np.ndarray
    used: np.ndarray
    resolution_ns: int | None
    regular: bool
    insn: int | None = None

    @property
    def n_rounds(self) -> int:
        """Number of rounds."""
        return len(self.used)

    @property
    def length_ns(self) -> int:
        """From the start of the first round to the end of the last one, ns."""
        return int(self.t_ns[-1] - self.t_ns[0]) if self.n_rounds else 0

    @cached_property
    def axis(self) -> Axis:
        """The axis of time; the rounds by number if the trace has no times."""
        if self.resolution_ns is None:
            return Axis.of_rounds(self.n_rounds)
        return Axis(self.t_ns[1:] - self.t_ns[:1], self.resolution_ns)

    def axis_of(self, window: str | int | Window) -> Axis:
        """Return the axis on which a window has a length."""
        return Axis.of_rounds(self.n_rounds) if _in_rounds(window) else self.axis

    def grid(self) -> tuple[Ints, Ints]:
        """Return all T of a curve: in usual rounds, from 0, and as positions of `axis`.

        They are the multiples of the resolution up to the length; if those are more than
        `GRID`, that many that grow by a constant factor.
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
        """Return how long a window is: in rounds if it was given so, else in ns.

        Raises
        ------
        ResolutionError
            If that cannot be told apart in the trace, or (with `longest`) is more than there is.
        """
        window = parse_window(window)
        size = self._rounds(window) if window.ns is None else self._ns(window)
        if longest and self.n_rounds and size > self.axis_of(window).length:
            lasts = format_ns(self.length_ns, 15) if window.ns else f"{self.n_rounds} rounds"
            what = f"a window of {window} is longer than what there is of {self.name}: {lasts}"
            raise ResolutionError.of(str(window), lasts, what, "give a shorter --window")
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
            asked, shortest = format_ns(ns, 15), format_ns(resolution, 15)
            if self.regular:
                raise ResolutionError(asked, shortest)
            what = f"a window of {asked} cannot be had: the rounds of {self.name} last {shortest}"
            raise ResolutionError.of(asked, shortest, what, f"ask for {shortest} or more")
        return ns

    def _without_times(self, window: Window) -> PmlkitError:
        period = "no stated length" if self.insn is None else f"{self.insn} instructions"
        what = (
            f"a window of {window} cannot be had: the trace has rounds of {period}, not of a time"
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
            None: each begins where the one before ends, the last may be cut short;
            ``"sliding"``: one ends at each instant at which a round ends; else every `step`. Of
            these the first ones may be cut short.
        longest : bool
            Refuse a T that is longer than the part.

        Returns
        -------
        Windows
        """
        size, axis = self.size(window, longest), self.axis_of(window)
        tumbling = step is None or (
            step != "sliding" and parse_window(step) == parse_window(window)
        )
        ends = self._window_ends(window, step, size, tumbling)
        starts = np.arange(len(ends)) * size if tumbling else np.maximum(ends - size, 0)
        by_number = _in_rounds(window) or self.resolution_ns is None
        t_ns, effective_ns, last = (self._numbers if by_number else self._times)(starts, ends)
        return Windows.on(
            axis.at,
            size,
            ends,
            tumbling,
            t_ns=t_ns,
            effective_ns=effective_ns,
            full=ends - starts == size,
            round=last,
            asked_ns=self.asked_ns(window),
            rounds=self.in_rounds(window),
        )

    def _window_ends(
        self, window: str | int | Window, step: Any, size: int, tumbling: bool
    ) -> Ints:
        """Return where windows end, on the axis of `window`."""
        axis = self.axis_of(window)
        if step == "sliding":
            return axis.at[axis.last_of_instants]
        every = size if step is None else self.size(step, longest=False)
        of_step = self.axis_of(window if step is None else step)
        if of_step.length // every > MOST:
            what = f"{of_step.length // every:,} windows are more than a table can hold"
            raise UsageError(f"{what}: give a longer --window, or a --start and --end")
        ends = _ends(of_step.length, every, tumbling)
        if step is None or _in_rounds(step) == _in_rounds(window):
            return ends
        if _in_rounds(step):
            return np.unique(axis.at[ends - 1])
        return np.searchsorted(of_step.at, ends, "right")

    def _numbers(self, starts: Ints, ends: Ints) -> tuple[Ints, Ints, Ints]:
        """Return the end, the effective length and the last round of windows of rounds."""
        return self.t_ns[ends], self.t_ns[ends] - self.t_ns[starts], np.maximum(ends - 1, 0)

    def _times(self, starts: Ints, ends: Ints) -> tuple[Ints, Ints, Ints]:
        """Return the same of windows of time."""
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
        """Return up to when all is known at some positions of the axis of time."""
        if not self.n_rounds:
            return at
        ends = self.axis.at
        around = np.minimum(np.searchsorted(ends, at), len(ends) - 1)
        begin = np.concatenate(([0], ends))[around]
        return np.where((ends[around] <= at) | ~self.used[around], np.minimum(at, ends[-1]), begin)

    def asked_ns(self, window: str | int | Window) -> int:
        """Return T in ns; -1 for rounds that have no common length."""
        window = parse_window(window)
        if window.ns is not None:
            return window.ns
        return window.length * self.resolution_ns if self.regular and self.resolution_ns else -1

    def in_rounds(self, window: str | int | Window) -> int:
        """Return T in rounds; how many usual ones have room in it if it was given in time."""
        window = parse_window(window)
        return window.length // (self.resolution_ns or 1) if window.ns else window.length


def _in_rounds(window: str | int | Window) -> bool:
    return parse_window(window).rounds is not None


def timeline(trace: Trace, first: int = 0, n_rounds: int | None = None) -> Timeline:
    """Return a part of a trace in time: `n_rounds` rounds from the round `first` on, or all."""
    rounds = trace.rounds
    stop = len(rounds) if n_rounds is None else first + n_rounds
    edges = rounds["t_start_ns"].to_numpy()[:1], rounds["t_end_ns"].to_numpy()
    used = (rounds["entries"].to_numpy() > 0) | (rounds["lost"].to_numpy() > 0)
    t_ns = np.concatenate(edges).astype(np.int64)
    resolution_ns, regular = _resolution(t_ns, used, trace.resolution_ns)
    part = t_ns[first : stop + 1], used[first:stop]
    return Timeline(str(trace.path), *part, resolution_ns, regular, trace.meta.period["insn"])


def _resolution(t_ns: Ints, used: Bools, period_ns: int | None) -> tuple[int | None, bool]:
    """Return the usual length of rounds, and whether nearly all have it.

    Several rounds that end at one instant are one stretch of time, cut where a page returned.
    """
    if not len(used):
        return period_ns, True
    if t_ns[-1] == t_ns[0]:
        return None, True
    lengths = _lengths(t_ns, used)
    usual = int(np.sort(lengths)[len(lengths) // 2])
    if usual == 0:
        return 1, False  # the uses are at instants
    if period_ns and abs(usual - period_ns) <= KEPT_TO * period_ns:
        usual = period_ns
    return usual, bool(np.mean(lengths == usual) >= ROUNDS_ALIKE)


def _lengths(t_ns: Ints, used: Bools) -> Array:
    """Return how long it took until each instant at which a round with uses ended."""
    lengths, ends = np.diff(t_ns), t_ns[1:]
    first = np.flatnonzero(np.concatenate(([True], ends[1:] != ends[:-1])))
    in_use = np.logical_or.reduceat(used, first)
    if not in_use.any():
        longest = np.maximum.reduceat(lengths, first)
        return longest[longest > 0]
    return np.maximum.reduceat(np.where(used, lengths, 0), first)[in_use]


def default_window(part: Timeline, wanted_ns: int = SECOND) -> Window:
    """Return the T that is taken where none is given.

    It is a second (`wanted_ns`) where that can be had, else the nearest 1, 2 or 5 times a power of
    ten that is up to about a tenth of what there is; all of it if it is a single round.
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
    """Say how long rounds are: the period, or what is usual where they vary."""
    part, insn = timeline(trace), trace.meta.period["insn"]
    asked = f"{insn:,} instructions" if insn else ""
    if part.resolution_ns is None:
        return asked or "rounds without times"
    if part.regular:
        return asked or format_ns(part.resolution_ns)
    lengths = np.diff(part.t_ns)
    low, high = format_ns(int(lengths.min())), format_ns(int(lengths.max()))
    usual = f"rounds of {format_ns(part.resolution_ns)} (median), {low} to {high}"
    wanted = asked or (format_ns(trace.resolution_ns) if trace.resolution_ns else "")
    return f"{wanted} asked for, {usual}" if wanted else usual
