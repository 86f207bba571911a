# SPDX-License-Identifier: Apache-2.0
"""A technique's error and cost on a recording, predicted from the recording's curves alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import ndtri

from pmlkit.costs import Cost, work
from pmlkit.errors import ResolutionError, argument
from pmlkit.law.curves import Blindness, check_used
from pmlkit.law.looks import Looks
from pmlkit.law.noise import NORMAL, combined, mean_abs, sample_error, sample_quantiles
from pmlkit.law.parts import events_of, first_events_of, parts_of
from pmlkit.law.seen import Seen, averaged
from pmlkit.techniques.registry import make
from pmlkit.techniques.runs import time_scale
from pmlkit.techniques.view import look
from pmlkit.units import exact_ns, format_ns, parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmlkit.law.curves import Curves
    from pmlkit.law.looks import Parts
    from pmlkit.techniques.protocol import Technique
    from pmlkit.types import Bools, Floats, Ints

__all__ = ["Prediction", "predict"]

DRAWS = 20  # quantiles of the sample's error, for the interval
LEVEL = 0.95  # level of the interval, and share of the time that `Prediction.cover` covers
MOST_TIMES = 20_000  # most times at which errors are computed


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
        Expected counts of events of one look.
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
        Curves of the recording. They are kept for the next prediction.
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
        If the recording lacks what the technique needs to see, or uses no pages.

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
    window_ns = parse_duration_ns(window)
    recorded = curves.recorded
    parts = parts_of(technique, recorded.memory_pages)
    view = look(recorded, frozenset(), window_ns, time_scale("auto", window_ns))
    period_ns, looks = parts.rule.pace(view) if parts.rule else view.parts(parts.looks)
    of = Looks(curves, parts, window_ns, period_ns, looks)
    asked = _Sums(of)
    low, high, cover = asked.interval() if interval else (float("nan"),) * 3
    errors = asked.errors()
    events = events_of(technique, of)
    return Prediction(
        technique=technique,
        parts=parts,
        period_ns=period_ns,
        span_ns=period_ns * looks,
        staleness=asked.staleness(),
        sampling=asked.sampling(),
        blindness=asked.blindness(),
        error=float(np.mean(list(errors.values()))) if errors else float("nan"),
        from_start=errors.get(0, float("nan")),
        low=low,
        high=high,
        cover=cover,
        events=events,
        overhead=_overhead(technique, of, events),
    )


def _overhead(technique: Technique, of: Looks, events: dict[str, float]) -> float:
    time, lasts = of.curves.recorded.time, of.curves.recorded.duration_ns
    if not time.ns_per_insn:
        return float("nan")
    first = work(first_events_of(technique, of))
    each, looks = work(events), lasts // of.period_ns
    return time.share(Cost(first.amount + each.amount * looks), lasts)


class _Sums:
    """The sums of the law, for one technique: see `pmlkit.law`."""

    def __init__(self, of: Looks) -> None:
        self.of, self.curves, self.parts, window_ns = of, of.curves, of.parts, of.window_ns
        curves, self.rule = of.curves, of.parts.rule
        from_ns = window_ns if self.rule else max(of.span_ns, window_ns)
        self.scored = _some(curves.scored(from_ns))
        if not self.scored.any():
            lasts, window = format_ns(curves.recorded.duration_ns), exact_ns(window_ns)
            what = f"{curves.recorded.name} lasts {lasts}, which is too short for T of {window}"
            raise ResolutionError.of(window, lasts, what, f"give a shorter {argument('window')}")
        self.weights = curves.weights[self.scored]
        self.true = curves.pages("accesses", window_ns)
        self.mean = float(np.average(self.true[self.scored], weights=self.weights))
        check_used(curves, window_ns)
        self.seen, self.noise = self._seen()

    def _seen(self) -> tuple[Floats, Floats]:
        if self.rule is not None:
            return self.of.seen
        return Seen(self.curves, self.parts, self.of.period_ns, self.of.looks).parts()

    def _reports(self, ends: Ints, case: int) -> tuple[Ints, Floats, Floats]:
        """Return the instants of the looks that give a report, the reports, and their scatter."""
        if self.rule is None:
            full, pages, sd = self.of.full(ends), self._counts(ends), self.noise[ends]
            return ends[full], *averaged(pages[full], sd[full], self.parts.averages)
        reported, sd = self.rule.reports(self.of, ends, case)
        known = ~np.isnan(reported)
        return ends[known], reported[known], sd[known]

    def _counts(self, ends: Ints) -> Floats:
        """Return V at each look.

        If rounds differ in length, looks come late. V is then of the time between looks, but for
        samples of uses: theirs is of the time of so many looks.
        """
        of, parts = self.of, self.parts
        if self.curves.even or parts.one_in is not None or parts.samples is not None:
            return self.seen[ends]
        if parts.adds:
            counts = self.curves.between(parts.sees, ends, 1)
            sums: Floats = np.append(np.zeros(of.looks), np.cumsum(counts))
            return sums[of.looks :] - sums[: -of.looks]
        return self.curves.between(parts.sees, ends, of.looks)

    def _mean(self, pages: Floats) -> float:
        """Return the mean over the scored times, as a share of mean W."""
        return float(np.average(pages[self.scored], weights=self.weights) / self.mean)

    @cached_property
    def cases(self) -> list[_Case]:
        """What is reported at the times that are scored, for looks at each phase."""
        return list(self._cases())

    def _cases(self) -> Iterator[_Case]:
        t_ns = self.curves.t_ns
        phases = self.of.phases(self.rule.phases) if self.rule else self.of.phases()
        for number, phase in enumerate(phases.tolist()):
            looks, reported, sd = self._reports(self.of.ends(phase), number)
            latest = np.searchsorted(looks, np.arange(len(t_ns)), "right") - 1
            some = np.flatnonzero(self.scored & (latest >= 0))
            if len(some):
                at_some = latest[some]
                true, weights = self.true[some], self.curves.weights[some]
                reports = reported[at_some], sd[at_some]
                mean = self._mean_of(true, weights)
                yield _Case(phase, true, self.seen[some], *reports, weights, mean)

    def _mean_of(self, true: Floats, weights: Floats) -> float:
        """Return mean W; at these times, if reports are rare, or late because rounds are long."""
        if self.rule or not self.curves.even:
            return float(np.average(true, weights=weights))
        return self.mean

    def _share(self, case: _Case, pages: Floats) -> float:
        """Return the mean over a case's times, as a share of mean W."""
        mean = case.mean
        return float(np.average(pages, weights=case.weights) / mean) if mean else float("nan")

    def errors(self) -> dict[int, float]:
        """Return the expected error for looks at each phase that has a report; 0: the start."""
        return {one.phase: self._share(one, mean_abs(one.off, one.sd)) for one in self.cases}

    def interval(self) -> tuple[float, float, float]:
        """Return the interval of the error, and the factor for the estimate; NaN: no report."""
        errors: list[float] = []
        ratios, times = [], []
        draws = self._quantiles()
        for case in self.cases:
            errors += self._draws(case, draws)
            for z in draws:
                ratios.append(case.true / np.maximum(case.reported + z * case.sd, 1e-9))
                times.append(case.weights)
        if not errors:
            return (float("nan"),) * 3
        share = (1 - LEVEL) / 2
        low, high = np.quantile(errors, [share, 1 - share])
        cover = np.quantile(
            np.concatenate(ratios), LEVEL, weights=np.concatenate(times), method="inverted_cdf"
        )
        return float(low), float(high), float(cover)

    def _draws(self, case: _Case, draws: Floats) -> list[float]:
        """Return the errors of equally likely draws."""
        off, sd, weights = case.off, case.sd, case.weights
        if not self.parts.redrawn:
            return [self._share(case, np.abs(off + z * sd)) for z in draws]
        mean = np.average(mean_abs(off, sd), weights=weights)
        variance = max(np.average(off**2 + sd**2, weights=weights) - mean**2, 0)
        count = max(float(weights.sum()) / self.of.span_ns, 1)
        scale = self._share(case, np.ones(len(off)))
        return list(np.maximum(mean + draws * np.sqrt(variance / count), 0) * scale)

    def _quantiles(self) -> Floats:
        """Return equally likely errors of draws, in standard deviations."""
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
        total = [self._share(case, np.abs(case.reported - case.seen)) for case in self.cases]
        return float(np.mean(total)) if total else float("nan")

    def sampling(self) -> float:
        return self._mean(self.noise) * NORMAL

    def blindness(self) -> Blindness:
        """Return the missing and the excess share; from the sizes if there are no sets."""
        parts = self.parts
        sets = self.curves.blindness(parts.sees, self.of.window_ns)
        if not (parts.adds or parts.one_in or parts.samples or parts.rule):
            return sets
        bias = self._mean(self.seen - self.true)
        missed = sets.missed if parts.adds else max(0.0, -bias)
        return Blindness(missed, bias + missed)


class _Case(NamedTuple):
    """W, V, the report and its standard deviation, and weights, at some times; of a phase.

    `mean` is mean W, of which errors are shares.
    """

    phase: int
    true: Floats
    seen: Floats
    reported: Floats
    sd: Floats
    weights: Floats
    mean: float

    @property
    def off(self) -> Floats:
        return self.reported - self.true


def _some(scored: Bools) -> Bools:
    """Return `scored` with at most `MOST_TIMES` times left in it, evenly."""
    at = np.flatnonzero(scored)
    kept = np.zeros(len(scored), bool)
    kept[at[:: len(at) // MOST_TIMES + 1]] = True
    return kept
