# SPDX-License-Identifier: Apache-2.0
"""What a technique sees, how it looks at a recording, and the base of the rules of its reports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.law.curves import Curves
    from pmlkit.techniques.view import View
    from pmlkit.types import Floats, Ints

    Events = dict[str, float]

__all__ = ["Looks", "Parts", "Rule"]

PHASES = 16  # of the looks, at most, that the law averages over


@dataclass(frozen=True)
class Parts:
    """The properties that determine a technique's error.

    Attributes
    ----------
    sees : str
        One of `pmlkit.law.curves.CHANNELS`.
    looks : int
        Number of looks per window T.
    watched : int, optional
        Number of frames that are drawn at random; None: all frames are watched.
    again : bool
        Whether a frame can be drawn twice.
    redrawn : bool
        Whether each window has a new draw: errors of draws then average out over time.
    known : str, optional
        A channel whose pages are counted; only other pages are estimated from the draw.
    averages : tuple of float
        Weights of the newest window, if the report is the largest of moving averages over windows.
    one_in : float, optional
        One use of a page in this number is seen; for `samples`, this number of uses in T.
    unseen : bool
        Whether the number of pages that no such use hits is estimated: Chao's lower bound.
    adds : bool
        Whether the counts of the looks are added, so that a page counts once for each look that
        sees it.
    rule : Rule, optional
        What is reported, if it is no count of the last T.
    """

    sees: str
    looks: int
    watched: int | None = None
    again: bool = False
    redrawn: bool = False
    known: str | None = None
    averages: tuple[float, ...] = ()
    one_in: float | None = None
    samples: int | None = None
    unseen: bool = False
    adds: bool = False
    rule: Rule | None = None


@dataclass(frozen=True)
class Looks:
    """The looks of a technique at a recording.

    Attributes
    ----------
    curves : Curves
    parts : Parts
    window_ns : int
        T.
    period_ns : int
        Between looks.
    looks : int
        Number of looks per T.
    """

    curves: Curves
    parts: Parts
    window_ns: int
    period_ns: int
    looks: int
    _counted: dict[int, _Counted] = field(default_factory=dict, repr=False)

    def counted(self, size: int) -> _Counted:
        """Return what counts the pages of parts of memory of `size` pages each."""
        if size not in self._counted:
            self._counted[size] = _Counted(self.curves, self.parts.sees, self.span_ns, size)
        return self._counted[size]

    @cached_property
    def seen(self) -> tuple[Floats, Floats]:
        """V at each instant, and the standard deviation of its draws, by the rule."""
        assert self.parts.rule is not None
        return self.parts.rule.seen(self)

    @property
    def span_ns(self) -> int:
        """The time of the looks of one estimate, ns."""
        return self.period_ns * self.looks

    def phases(self, most: int = PHASES) -> Ints:
        """Return the times before the first look that are averaged over, ns; 0 is the first."""
        unit = self.curves.recorded.resolution_ns
        units = max(self.period_ns // unit, 1)
        return np.arange(min(most, units)) * units // min(most, units) * unit

    def ends(self, phase: int) -> Ints:
        """Return the instants of looks, each once, as `pmlkit.techniques.setting.Clock` has them.

        A look that is due within a round is made at its end. During a gap, which has no uses, each
        look is made when it is due; here all of them stand at the end of the gap.
        """
        t_ns = self.curves.t_ns
        due = np.arange(int(phase) or self.period_ns, t_ns[-1] + 1, self.period_ns)
        ends = np.searchsorted(t_ns, due)
        late = np.diff(ends, prepend=-1) == 0
        return ends[~late | self.curves.gaps[ends]]

    def full(self, ends: Ints) -> Ints:
        """Return the looks that have a whole span before them, by number."""
        whole = self.curves.t_ns[ends] >= self.span_ns
        return np.flatnonzero(whole & (np.arange(len(ends)) >= self.looks - 1))


class Rule(ABC):
    """What a technique reports, by the curves.

    Attributes
    ----------
    technique : Technique
    phases : int
        Phases of its looks that are averaged over, at most.
    """

    phases = PHASES

    def __init__(self, technique: Any) -> None:
        self.technique = technique

    def pace(self, view: View) -> tuple[int, int]:
        """Return the time between looks, ns, and their number per T."""
        return view.parts(self.technique.looks)

    @abstractmethod
    def events(self, of: Looks) -> Events:
        """Return the events of one look, as expected by the recording's curves."""

    def first_events(self, of: Looks) -> Events:
        """Return the events before the first look."""
        return {}

    @abstractmethod
    def seen(self, of: Looks) -> tuple[Floats, Floats]:
        """Return V at each instant, and the standard deviation of draws (pages, float64)."""

    def reports(self, of: Looks, ends: Ints, case: int) -> tuple[Floats, Floats]:
        """Return what is reported at each look, and its standard deviation; NaN: nothing is.

        Parameters
        ----------
        ends : ndarray of int64, shape (looks,)
            Instants of the looks.
        case : int
            The number of the phase.
        """
        seen, sd = of.seen
        early = np.arange(len(ends)) < of.looks - 1
        return np.where(early, np.nan, seen[ends]), sd[ends]

    def between(self, of: Looks) -> tuple[Floats, Floats]:
        """Return `reports` of all phases, and what lies between them (for `seen`)."""
        at, pages, sd = [], [], []
        for case, phase in enumerate(of.phases(self.phases)):
            ends = of.ends(int(phase))
            reported, scatter = self.reports(of, ends, case)
            known = ~np.isnan(reported)
            at.append(ends[known])
            pages.append(reported[known])
            sd.append(scatter[known])
        where = np.concatenate(at)
        if not len(where):
            return np.zeros(len(of.curves.t_ns)), np.zeros(len(of.curves.t_ns))
        order = np.argsort(where, kind="stable")
        every = np.arange(len(of.curves.t_ns))
        values = (np.concatenate(column)[order] for column in (pages, sd))
        first, second = (np.interp(every, where[order], column) for column in values)
        return first, second


class _Counted:
    """V(t, T) of equal parts of memory, at single times."""

    def __init__(self, curves: Curves, channel: str, window_ns: int, size: int) -> None:
        refs = curves.refs(channel)
        enter, until = curves.stays(channel, window_ns)
        self._instants = len(curves.t_ns) + 1
        place = (refs.gfn.view(np.int64) // size) * self._instants
        self._came, self._went = np.sort(place + enter), np.sort(place + until)

    def at(self, part: Ints, instant: Ints) -> Ints:
        """Return the distinct pages of each part at each of as many instants."""
        first, key = part * self._instants, part * self._instants + instant
        came = np.searchsorted(self._came, key, "right") - np.searchsorted(self._came, first)
        went = np.searchsorted(self._went, key, "right") - np.searchsorted(self._went, first)
        return came - went
