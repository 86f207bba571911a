# SPDX-License-Identifier: Apache-2.0
"""Working sets from sampled re-use times, tracked intermittently (Zhao and Wang; SHARDS; AET)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View
    from pmlkit.types import Ints


@dataclass(frozen=True)
class Intermittent(Technique):
    """Trap a hashed share of the frames, record their re-use times, and rest while nothing changes.

    SHARDS: a frame is tracked if its hash is below a threshold, always or never. The hash is a
    random number for each frame. (That of `missratio.sampled` spreads neighbouring frames more
    evenly than chance does, so its sample would err less than a published one.) AET
    (`missratio.eviction`): the memory that a time T fills is the integral of P(t) up to T. P(t) is
    the share of references whose re-use takes longer than t. With time counted in rounds, this is
    Denning's identity: the sum over k < T of the misses per round at k. `missratio.eviction` itself
    does not apply. It takes a whole log, in which a page's first use is a miss. Here only the uses
    of the last T may count. The mean of W over the last two T was tried: it reacted later, and its
    error was twice as large. Zhao and Wang stop tracking when the estimate has been the same
    (within `same`) for `settled` windows. A cheap signal restarts it. Their signal is the
    processor's miss counters, which are not recorded. Ours is the number of tracked frames whose
    accessed flag is set, once per window.

    Attributes
    ----------
    looks : int
        Rounds per window T. A frame is trapped again in each round.
    watched : int, optional
        Approximate number of tracked frames. By default `rate` and `least` determine it.
    rate : float
        Share of the frames that is tracked.
    least : int
        Smallest number of frames: a small VM needs a higher rate.
    settled : int
        Windows.
    same : float
    rest : int
        Largest number of windows in which tracking rests.
    """

    name = "intermittent"
    title = "SHARDS/AET, intermittent"
    source = "Zhao et al., USENIX ATC'11; SHARDS, FAST'15; AET, ATC'16 (restart signal ours)"
    needs = frozenset({Need.TRAPS, Need.ACCESSED})
    random = True
    looks: int = 10
    watched: int | None = None
    rate: float = 0.01
    least: int = 2000
    settled: int = 2
    same: float = 0.05
    rest: int = 8

    def observe(self, view: View) -> None:
        share = max(self.rate, min(self.least / view.memory_pages, 1))
        if self.watched is not None:
            share = min(self.watched / view.memory_pages, 1)
        frames = np.arange(view.notable(view.memory_pages))
        followed = frames[view.random.random(len(frames)) < share]
        weight = view.memory_pages / max(len(followed), 1)
        period, rounds = view.parts(self.looks)
        misses = _Misses(followed, rounds)
        recent: deque[float] = deque(maxlen=self.settled)  # estimates
        misses.begin(view, 0)
        resting, touched, estimate = 0, 0, np.nan
        for turn, _ in enumerate(view.every(period), start=1):
            if not resting:
                misses.add(view, turn)
            if turn % rounds:
                continue
            before, touched = touched, int(np.count_nonzero(view.accessed.harvest(followed)))
            if resting:
                changed = abs(touched - before) > 2 * self.same * max(before, 20)
                resting = 0 if changed else resting - 1
                if not resting:
                    misses.begin(view, turn)
                    recent.clear()
            elif turn - misses.since >= 2 * rounds:  # the first window has no past
                estimate = misses.footprint() * weight
                recent.append(estimate)
                resting = self.rest if _settled(recent, self.same) else 0
            view.report(estimate)


class _Misses:
    """The re-use gaps of the followed frames, over the last T."""

    def __init__(self, frames: Ints, rounds: int) -> None:
        self.frames = frames
        self.gaps: deque[Ints] = deque(maxlen=rounds)  # for each round: uses by gap
        self.last, self.rounds, self.since = np.zeros(len(frames), np.int64), rounds, 0

    def begin(self, view: View, turn: int) -> None:
        """Start again, as if all frames had just been used."""
        self.gaps.clear()
        self.last[:] = self.since = turn
        view.traps.protect(self.frames)

    def add(self, view: View, turn: int) -> None:
        touched = view.traps.caught(self.frames)
        view.traps.protect(self.frames[touched])
        gap = np.minimum(turn - self.last[touched] - 1, self.rounds)
        self.gaps.append(np.bincount(gap, minlength=self.rounds + 1))
        self.last[touched] = turn

    def footprint(self) -> float:
        """Return w(T): the sum over k < T of the mean uses per round whose gap is k or more."""
        uses = np.mean(self.gaps, axis=0)
        misses = uses[::-1].cumsum()[::-1][: self.rounds]  # indexed by k
        return float(np.sum(misses))


def _settled(recent: deque[float], same: float) -> bool:
    spread, mean = max(recent) - min(recent), float(np.mean(recent))
    return len(recent) == recent.maxlen and spread <= same * max(mean, 1)
