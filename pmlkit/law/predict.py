# SPDX-License-Identifier: Apache-2.0
"""A technique's error and cost on a recording, predicted from the recording's curves alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import ndtri

from pmlkit.costs import Cost, work
from pmlkit.errors import ResolutionError, argument
from pmlkit.law.curves import Blindness
from pmlkit.law.noise import NORMAL, combined, mean_abs, sample_error, sample_quantiles
from pmlkit.law.parts import Parts, events_of, first_events_of, parts_of
from pmlkit.law.seen import Seen, averaged
from pmlkit.techniques.registry import make
from pmlkit.techniques.view import look
from pmlkit.units import format_ns, parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmlkit.law.curves import Curves
    from pmlkit.techniques.protocol import Technique
    from pmlkit.types import Bools, Floats, Ints

__all__ = ["Prediction", "predict"]

PHASES = 16  # of the looks, at most, that the law averages over
DRAWS = 20  # quantiles of the sample's error, for the interval
LEVEL = 0.95  # of the interval, and of the time that `Prediction.cover` covers
MOST_TIMES = 20_000  # at which errors are taken, at most


@dataclass(frozen=True)
class Prediction:
    """The law's prediction for a technique on a recording; errors are shares of mean W.

    Attributes
    ----------
    technique : Technique
    parts : Parts
        With the numbers of looks and frames that are actually used.
    period_ns, span_ns : int
        Time between two looks; number of looks per estimate.
    staleness, sampling : float
        Mean absolute errors, each as if alone.
    blindness : Blindness
    error : float
        The expected mean absolute error, over the times of looks and the draws of frames.
    from_start : float
        The same for looks that begin with the recording, as in a run.
    low, high : float
        A 95 % interval over these; NaN if it was not requested.
    cover : float
        The factor by which the estimate must be multiplied to be at least W for 95 % of the time;
        NaN if not requested.
    events : dict of str to float
        Of one look.
    overhead : float
        Instructions of its events, divided by those of the recording, including those before its
        first look. NaN if the recording does not contain the length of an instruction.
    """

    technique: Technique
    parts: Parts
    period_ns: int
    span_ns: int
    staleness: float
    sampling: float
    blindness: Blindness
    error: float
    from_start: float
    low: float
    high: float
    cover: float
    events: dict[str, float]
    overhead: float

    @property
    def looks(self) -> int:
        """The actual number of looks per T: rounds may be too long for the requested number."""
        return max(round(self.span_ns / self.period_ns), 1)

    @property
    def by_parts(self) -> float:
        """The combined error from the three numbers alone: `noise.combined`."""
        return float(combined(self.staleness, self.sampling, self.blindness.bias))


def predict(
    technique: Technique | str, curves: Curves, window: str | int = "1s", interval: bool = True
) -> Prediction:
    """Predict a technique's error and cost.

    Parameters
    ----------
    technique : Technique or str
        Or its name.
    curves : Curves
        Of the recording. Its curves are kept for the next prediction.
    window : str or int
        T, a duration.
    interval : bool
        Without the interval, the call is much faster.

    Raises
    ------
    UnknownName
        If the law does not cover the technique.
    ResolutionError
        If the recording is not longer than T.
    NeedsError
        If the recording lacks what the technique needs to see.

    Examples
    --------
    >>> import pmlkit
    >>> from pmlkit import law
    >>> from pmlkit.techniques import Recorded
    >>> curves = law.Curves(Recorded.of(pmlkit.open("hotcold")))
    >>> once, often = (law.predict(law_of, curves) for law_of in ("prl", "idle-pages"))
    >>> once.parts.looks, often.parts.looks, bool(once.error > often.error)
    (1, 2, True)
    """
    technique = make(technique) if isinstance(technique, str) else technique
    window_ns = parse_duration_ns(window) if isinstance(window, str) else window
    recorded = curves.recorded
    parts = parts_of(technique, recorded.memory_pages)
    period_ns, looks = look(recorded, frozenset(), window_ns).parts(parts.looks)
    asked = _Asked(curves, parts, window_ns, period_ns, looks)
    low, high, cover = asked.interval() if interval else (float("nan"),) * 3
    errors = asked.errors()
    events = events_of(technique, parts, curves, period_ns)
    return Prediction(
        technique=technique,
        parts=parts,
        period_ns=period_ns,
        span_ns=period_ns * looks,
        staleness=asked.staleness(),
        sampling=asked.sampling(),
        blindness=asked.blindness(),
        error=float(np.mean(errors)),
        from_start=errors[0],
        low=low,
        high=high,
        cover=cover,
        events=events,
        overhead=_overhead(technique, parts, curves, period_ns, events),
    )


def _overhead(
    technique: Technique, parts: Parts, curves: Curves, period_ns: int, events: dict[str, float]
) -> float:
    time, lasts = curves.recorded.time, curves.recorded.duration_ns
    if not time.ns_per_insn:
        return float("nan")
    first = work(first_events_of(technique, parts, curves, period_ns))
    each, looks = work(events), lasts // period_ns
    return time.share(Cost(first.amount + each.amount * looks), lasts)


class _Asked:
    """The sums of the law, for one technique: see `pmlkit.law`."""

    def __init__(
        self, curves: Curves, parts: Parts, window_ns: int, period_ns: int, looks: int
    ) -> None:
        self.curves, self.parts, self.window_ns = curves, parts, window_ns
        self.period_ns, self.span_ns = period_ns, period_ns * looks
        self.scored = _some(curves.scored(max(self.span_ns, window_ns)))
        if not self.scored.any():
            lasts, window = format_ns(curves.recorded.duration_ns), format_ns(window_ns)
            what = f"{curves.recorded.name} lasts {lasts}, which is too short for T of {window}"
            raise ResolutionError.of(window, lasts, what, f"give a shorter {argument('window')}")
        self.weights = curves.weights[self.scored]
        self.true = curves.pages("accesses", window_ns)
        self.mean = float(np.average(self.true[self.scored], weights=self.weights))
        self.seen, self.noise = Seen(curves, parts, period_ns, looks).parts()

    def _mean(self, pages: Floats) -> float:
        """Return the mean over the times that are scored, as a share of mean W."""
        return float(np.average(pages[self.scored], weights=self.weights) / self.mean)

    @property
    def _phases(self) -> Ints:
        unit = self.curves.recorded.resolution_ns
        units = max(self.period_ns // unit, 1)
        return np.arange(min(PHASES, units)) * units // min(PHASES, units) * unit

    def _cases(self) -> Iterator[_Case]:
        """Yield what is reported at the times that are scored, for looks at each phase.

        A look that is due within a round is made when the round ends.
        """
        t_ns = self.curves.t_ns
        for phase in self._phases:
            due = np.arange(int(phase) or self.period_ns, t_ns[-1] + 1, self.period_ns)
            looks = np.searchsorted(t_ns, due)
            looks = looks[t_ns[looks] >= self.span_ns]
            latest = np.searchsorted(looks, np.arange(len(t_ns)), "right") - 1
            some = np.flatnonzero(self.scored & (latest >= 0))
            if len(some):
                reported, sd = averaged(self.seen[looks], self.noise[looks], self.parts.averages)
                at_some = latest[some]
                weights = self.curves.weights[some]
                yield _Case(
                    self.true[some], self.seen[some], reported[at_some], sd[at_some], weights
                )

    def errors(self) -> list[float]:
        """Return the expected error for looks at each phase, the recording's start first."""
        return [
            float(np.average(mean_abs(case.off, case.sd), weights=case.weights) / self.mean)
            for case in self._cases()
        ]

    def interval(self) -> tuple[float, float, float]:
        """Return the interval of the error, and the factor for the estimate."""
        errors, ratios, times = [], [], []
        draws = self._quantiles()
        for case in self._cases():
            errors += self._draws(case, draws)
            for z in draws:
                ratios.append(case.true / np.maximum(case.reported + z * case.sd, 1e-9))
                times.append(case.weights)
        share = (1 - LEVEL) / 2
        low, high = np.quantile(errors, [share, 1 - share]) / self.mean
        cover = np.quantile(
            np.concatenate(ratios), LEVEL, weights=np.concatenate(times), method="inverted_cdf"
        )
        return float(low), float(high), float(cover)

    def _draws(self, case: _Case, draws: Floats) -> list[float]:
        """Return the errors of draws that are equally likely."""
        off, sd, weights = case.off, case.sd, case.weights
        if not self.parts.redrawn:
            return [float(np.average(np.abs(off + z * sd), weights=weights)) for z in draws]
        mean = np.average(mean_abs(off, sd), weights=weights)
        variance = max(np.average(off**2 + sd**2, weights=weights) - mean**2, 0)
        count = max(float(weights.sum()) / self.span_ns, 1)
        return list(np.maximum(mean + draws * np.sqrt(variance / count), 0))

    def _quantiles(self) -> Floats:
        """Return errors that draws are equally likely to have, in standard deviations."""
        if not self.noise.any():
            return np.zeros(1)
        shares = (np.arange(DRAWS) + 0.5) / DRAWS
        memory, watched = self.curves.recorded.memory_pages, self.parts.watched
        if self.parts.redrawn or self.parts.known or memory is None or watched is None:
            return ndtri(shares)
        seen = float(np.average(self.seen[self.scored], weights=self.weights))
        sd = float(sample_error([seen], memory, watched, self.parts.again)[0]) / NORMAL
        errors = sample_quantiles(seen, memory, watched, shares, self.parts.again)
        return errors / sd if sd else np.zeros(1)

    def staleness(self) -> float:
        total = [
            np.average(np.abs(case.reported - case.seen), weights=case.weights)
            for case in self._cases()
        ]
        return float(np.mean(total) / self.mean)

    def sampling(self) -> float:
        return self._mean(self.noise) * NORMAL

    def blindness(self) -> Blindness:
        """Return the missing and the excess share; from the sizes if there are no sets."""
        parts = self.parts
        sets = self.curves.blindness(parts.sees, self.window_ns)
        if not (parts.adds or parts.one_in or parts.samples):
            return sets
        bias = self._mean(self.seen - self.true)
        missed = sets.missed if parts.adds else max(-bias, 0.0)
        return Blindness(missed, bias + missed)


class _Case(NamedTuple):
    """W, V, what is reported and its standard deviation, and weights, at some times."""

    true: Floats
    seen: Floats
    reported: Floats
    sd: Floats
    weights: Floats

    @property
    def off(self) -> Floats:
        return self.reported - self.true


def _some(scored: Bools) -> Bools:
    """Return `scored` with at most `MOST_TIMES` times left in it, evenly."""
    at = np.flatnonzero(scored)
    kept = np.zeros(len(scored), bool)
    kept[at[:: len(at) // MOST_TIMES + 1]] = True
    return kept
