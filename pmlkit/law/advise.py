# SPDX-License-Identifier: Apache-2.0
"""Advice for a VM: how to measure it within a budget, and how much memory it needs.

All available techniques of the law are predicted, at all looks per T and all numbers of frames
watched. Only the chosen technique is run, to check the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import progress, recordings
from pmlkit.errors import ClocksDiffer, NeedsError, PmlkitError
from pmlkit.law.curves import Curves
from pmlkit.law.parts import STATED, parts_of
from pmlkit.law.predict import Prediction, predict
from pmlkit.techniques import Recorded, make, run, scores
from pmlkit.techniques.recorded import Need
from pmlkit.timeline import timeline
from pmlkit.trace.reader import Trace
from pmlkit.trace.schema import PAGE_SIZE
from pmlkit.units import format_bytes, format_ns, parse_duration_ns, parse_share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pmlkit.techniques.protocol import Technique
    from pmlkit.types import Json, PathLike

__all__ = ["Advice", "Checked", "Size", "advise", "steady_window"]

LOOKS = (1, 2, 3, 4, 5, 6, 8, 10, 20)  # per T, that are tried
LEAST_WATCHED = 64  # frames; then 128, 256, ... up to all
LISTED = 8  # rows of the front that are shown
FEW_ROUNDS = 4  # of a T that is chosen here: what changes within a round cannot be seen
ALIKE = 0.9  # share of the rounds
GROWS = 0.1  # share by which W may grow if the recommended T doubles
BETTER, CHEAPER = 0.8, 0.5  # of the error or of the cost: worth being named as an alternative
_WRITES = frozenset({Need.PML, Need.DIRTY, Need.CONTENT, Need.SOFT_DIRTY})
_TAKES = {
    Need.PML: "a hypervisor that logs writes (PML)",
    Need.DIRTY: "write protection (log-dirty)",
    Need.TABLES: "PML that logs page tables, with this project's patches",
    Need.ACCESSED: "accessed flags in the hypervisor's page tables",
    Need.TRAPS: "access faults on chosen frames",
    Need.CONTENT: "reading the guest's memory",
    Need.AGING: "the host's MGLRU, from Linux 6.12 on",
    Need.SOFT_DIRTY: "soft-dirty bits of the VMM's memory",
}


@dataclass(frozen=True)
class Size:
    """The working set of a recording: pages; percentiles are of time.

    Attributes
    ----------
    windows : int
        The number of consecutive windows T in the recording.
    """

    mean: float
    p95: float
    p99: float
    peak: float
    windows: int


@dataclass(frozen=True)
class Checked:
    """The result of running the technique.

    Attributes
    ----------
    error, low, high : float
        The mean absolute error as a share of mean W; the smallest and the largest over the draws.
    overhead : float
    runs : int
        One for each draw.
    """

    error: float
    low: float
    high: float
    overhead: float
    runs: int


@dataclass(frozen=True)
class Advice:
    """How to measure a VM, and how much memory it needs.

    Attributes
    ----------
    name : str
        Length of the recording.
    window_ns : int
        T.
    chosen : bool
        Whether T was chosen here: `steady_window`, or longer if the budget requires it.
    round_ns : int
        The recording's resolution.
    growth : float
        Share by which mean W grows if T doubles.
    budget : float
        Share of the VM's time.
    memory_pages : int or None
    machine : str
        The clock of the times.
    reads : bool
        Whether the recording contains reads: a PML log does not.
    size : Size
        All that is used; for a PML log, all that is written.
    choice : Prediction
    front : DataFrame
        The predictions that no other one beats in both error and cost, sorted by cost:
        ``technique``, ``looks``, ``watched`` (-1: all), ``error``, ``overhead``.
    less, more : Prediction or None
        The best prediction at half the cost of the choice; the cheapest with an error lower by a
        fifth.
    checked : Checked or None
    left_out : tuple of str
        The techniques that are omitted, and the reasons.
    """

    name: str
    window_ns: int
    chosen: bool
    round_ns: int
    growth: float
    budget: float
    memory_pages: int | None
    machine: str
    reads: bool
    size: Size
    choice: Prediction
    front: pd.DataFrame
    less: Prediction | None
    more: Prediction | None
    checked: Checked | None
    left_out: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The answer in a sentence."""
        size = self.size
        does = "uses" if self.reads else "writes"
        return (
            f"This VM {does} {_pages(size.mean)} at T = {format_ns(self.window_ns)} (at most "
            f"{_bytes(size.p95)} for 95 % of the time); look with {self._how(self.choice)}: about "
            f"{_percent(self.choice.error)} error at {_percent(self.choice.overhead)} of the VM's "
            "time."
        )

    @property
    def lines(self) -> list[str]:
        """The remaining explanations, one or two sentences per line."""
        found = [self._error_line, self._check_line, *self._others, self._size_line]
        if not self.reads:
            found.append(
                "Not known: what it only reads. A PML log has none of it, so the working set is "
                "larger, and errors are against what is written. A recording of all accesses "
                "(`pmlkit record`) or `pmlkit reads` tells more."
            )
        found.append(self._about)
        return [line for line in found if line]

    @property
    def _error_line(self) -> str:
        choice = self.choice
        parts = f"staleness {_percent(choice.staleness)}, sampling {_percent(choice.sampling)}"
        missed = _percent(choice.blindness.missed) if self.reads else "not known"
        takes = " and ".join(_TAKES[n] for n in sorted(choice.technique.needs, key=_by_name))
        return (
            f"Predicted: {_percent(choice.error)} (95 % of draws and times of looking: "
            f"{_percent(choice.low)} to {_percent(choice.high)}); of that {parts}, missed {missed}."
            f" It takes {takes}."
        )

    @property
    def _check_line(self) -> str:
        checked = self.checked
        if checked is None:
            return "Not checked by running it."
        draws = ""
        if checked.runs > 1:
            span = f"{_percent(checked.low)} to {_percent(checked.high)}"
            draws = f" ({checked.runs} draws: {span})"
        return (
            f"Checked by running it: {_percent(checked.error)} error{draws} at "
            f"{_percent(checked.overhead)} of the VM's time."
        )

    @property
    def _others(self) -> Iterator[str]:
        named = (("With less", self.less), ("With more", self.more))
        for words, other in named:
            if other is not None:
                yield (
                    f"{words}, {_percent(other.overhead)}: {self._how(other)}, "
                    f"{_percent(other.error)} error."
                )

    @property
    def _size_line(self) -> str:
        size, cover = self.size, self.choice.cover
        by_estimate = "the estimate is of no use for its size"
        if np.isfinite(cover) and cover < 100:
            more = f"times {cover:.2f}" if cover > 1 else "as it is"
            by_estimate = f"the estimate {more} is enough for 95 % of the time"
        return (
            f"How big: {_pages(size.peak)} was the most, {_pages(size.p99)} enough for 99 % of the "
            f"time, in {size.windows:,} windows of T. If it goes on so, the next window needs more "
            f"than the most with a chance of 1 in {size.windows + 1:,}, or higher as neighbouring "
            f"windows are alike. By this technique, {by_estimate}. What is not touched within T "
            "comes on top, if it must not be swapped."
        )

    @property
    def _about(self) -> str:
        why = f" ({'chosen here' if self.chosen else 'as asked'})"
        outside = f" Left out: {'; '.join(self.left_out)}." if self.left_out else ""
        rounds = ""
        if self.window_ns < FEW_ROUNDS * self.round_ns:
            long = format_ns(self.round_ns)
            rounds = f" The rounds of {long} are long for it: what changes within one is not seen."
        return (
            f"T = {format_ns(self.window_ns)}{why}: if it doubles, W grows by "
            f"{_percent(self.growth)}. Times are of {self.machine}.{rounds}{outside}"
        )

    def _how(self, prediction: Prediction) -> str:
        looks, watched = prediction.looks, prediction.parts.watched
        often = "one look" if looks == 1 else f"{looks} looks"
        frames = ""
        if watched is not None and self.memory_pages:
            frames = f", {watched:,} of {self.memory_pages:,} pages"
        return f"{prediction.technique.title} ({prediction.technique.name}), {often} per T{frames}"

    def as_dict(self) -> Json:
        """Return the advice for JSON."""
        of = {"less": self.less, "more": self.more, "choice": self.choice}
        return {
            "answer": self.answer,
            "trace": self.name,
            "window_ns": self.window_ns,
            "window_chosen": self.chosen,
            "growth": self.growth,
            "budget": self.budget,
            "memory_pages": self.memory_pages,
            "reads_known": self.reads,
            "size_pages": vars(self.size),
            **{name: one and _as_dict(one) for name, one in of.items()},
            "checked": self.checked and vars(self.checked),
            "front": self.front.to_dict("records"),
            "left_out": list(self.left_out),
        }

    def _repr_html_(self) -> str:
        """Return the advice as HTML, which notebooks show."""
        lines = "".join(f"<li>{escape(line)}</li>" for line in self.lines)
        table = shown(self).to_html(index=False, border=0)
        return f"<div><p><b>{escape(self.answer)}</b></p><ul>{lines}</ul>{table}</div>"


def advise(
    trace: Trace | PathLike,
    budget: str | float = "0.5%",
    window: str | int | None = None,
    check: bool = True,
    seeds: int = 5,
    ns_per_insn: float | None = None,
) -> Advice:
    """Advise how to measure the working set of a VM within a budget, and how much memory it needs.

    Parameters
    ----------
    trace : Trace or path-like
        A recording of all accesses. For a PML log, the answer covers writes only.
    budget : str or float
        Limit for the cost of looking: ``"0.5%"`` of the VM's time; as a number, a share of it.
    window : str or int, optional
        T; default: `steady_window`, or the next longer one for which some technique is within the
        budget.
    check : bool
        Run the chosen technique and measure its error. This is not possible for a PML log.
    seeds : int
        Number of draws for that run, if the technique draws.
    ns_per_insn : float, optional
        Length of an instruction on the machine of the trace, if the trace does not contain it.

    Raises
    ------
    ClocksDiffer
        If the length of an instruction is unknown.
    PmlkitError
        If no technique is within the budget.

    Examples
    --------
    >>> from pmlkit.law.advise import advise
    >>> advice = advise("hotcold", budget="0.5%", window="1s")
    >>> bool(advice.choice.overhead <= 0.005)
    True
    """
    share = parse_share(budget)
    opened = trace if isinstance(trace, Trace) else recordings.open_trace(recordings.find(trace))
    reads = opened.meta.kind == "access"
    recorded = Recorded.of(opened) if reads else Recorded.of_log(opened)
    recorded = replace(recorded, time=recorded.time.given(ns_per_insn))
    if not recorded.time.ns_per_insn:
        raise ClocksDiffer("instructions", f"the time of {recorded.name}")
    curves = Curves(recorded)
    asked = _windows(curves) if window is None else [_asked_ns(window)]
    timeline(opened).size(asked[0])  # raises if the trace cannot resolve T
    for window_ns in asked:
        found, left_out = _all(curves, window_ns, reads)
        front = _front(found)
        if (choice := _last(front, lambda one: one.overhead <= share)) is not None:
            break
    else:
        raise _too_little(front, share, recorded.name)
    whole = predict(choice.technique, curves, window_ns)
    return Advice(
        name=recorded.name,
        window_ns=window_ns,
        chosen=window is None,
        round_ns=recorded.resolution_ns,
        growth=_growth(curves, window_ns),
        budget=share,
        memory_pages=recorded.memory_pages,
        machine=recorded.time.text,
        reads=reads,
        size=_size(curves, window_ns),
        choice=whole,
        front=_table(front),
        less=_last(front, lambda one: one.overhead <= CHEAPER * choice.overhead),
        more=_first(front, lambda one: one.error < BETTER * choice.error),
        checked=_check(whole.technique, recorded, window_ns, seeds) if check and reads else None,
        left_out=tuple(left_out),
    )


def steady_window(curves: Curves) -> int:
    """Return the shortest T, ns, from which on W grows by no more than a tenth if T doubles.

    The candidates are 0.1, 0.2, 0.5, 1, ... seconds, up to a tenth of the recording, that are
    multiples of its rounds. If none qualifies, it is the one with the smallest growth.
    """
    return _windows(curves)[0]


def _windows(curves: Curves) -> list[int]:
    """Return `steady_window`, and the longer ones, ns."""
    recorded = curves.recorded
    unit, lasts = recorded.resolution_ns, recorded.duration_ns
    steps = [digit * 10**power for power in range(8, 14) for digit in (1, 2, 5)]
    whole = [step for step in steps if step % unit == 0 or not _regular(recorded)]
    known = [step for step in whole if FEW_ROUNDS * unit <= step <= lasts // 10]
    candidates = known or [unit * max(min(FEW_ROUNDS, lasts // unit // 2), 1)]
    grows = [_growth(curves, step) for step in candidates]
    steady = [place for place, growth in enumerate(grows) if growth <= GROWS]
    return candidates[steady[0] if steady else int(np.argmin(grows)) :]


def _growth(curves: Curves, window_ns: int) -> float:
    sizes = [curves.mean("accesses", times * window_ns) for times in (1, 2)]
    return sizes[1] / max(sizes[0], 1e-9) - 1


def _regular(recorded: Recorded) -> bool:
    """Return whether nearly all rounds are of one length: then T has to be a multiple of it."""
    alike = np.abs(np.diff(recorded.t_ns) - recorded.resolution_ns) <= recorded.resolution_ns / 10
    return bool(alike.mean() > ALIKE)


def _asked_ns(window: str | int) -> int:
    return parse_duration_ns(window) if isinstance(window, str) else window


# ------------------------------------------------------------------------------
# The search.


def _all(curves: Curves, window_ns: int, reads: bool) -> tuple[list[Prediction], list[str]]:
    """Return all predictions, and the techniques that are left out, with the reason."""
    found: list[Prediction] = []
    left_out: dict[str, list[str]] = {}
    for name in progress.over(list(STATED), name=str):
        technique = make(name)
        if why := _not_for(technique, curves.recorded, reads):
            left_out.setdefault(why, []).append(name)
            continue
        try:
            found += [
                predict(one, curves, window_ns, interval=False)
                for one in _settings(technique, curves.recorded.memory_pages)
            ]
        except NeedsError as error:
            left_out.setdefault(f"no {error.what}", []).append(name)
    return found, [f"{', '.join(names)} ({why})" for why, names in left_out.items()]


def _not_for(technique: Technique, recorded: Recorded, reads: bool) -> str:
    """Return why a technique is no candidate, or nothing."""
    if Need.REFERENCES in technique.needs:
        return "no processor has it"
    if Need.SAMPLES in technique.needs:
        return "a recording has rounds, not the accesses to sample"
    if Need.TABLES in technique.needs and recorded.mapped is None:
        return "no snapshots of page tables"
    if parts_of(technique, recorded.memory_pages or 1).adds:
        return "it counts a page once for each look: where it is right, it is by luck"
    if not reads and not technique.needs <= _WRITES:
        return "a log of writes cannot judge it"
    return ""


def _settings(technique: Technique, memory: int | None) -> Iterator[Technique]:
    """Yield a technique with all values of its knobs."""
    knobs = technique.knobs()
    looks: Sequence[int] = LOOKS if "looks" in knobs else (1,)
    watched: list[int] = [LEAST_WATCHED]
    while memory and "watched" in knobs and watched[-1] * 4 <= memory:
        watched.append(watched[-1] * 2)
    for often in looks:
        for frames in watched if "watched" in knobs else watched[:1]:
            yield technique.turned(often, frames)


def _front(found: Sequence[Prediction]) -> list[Prediction]:
    """Return the predictions that no other beats in error and cost, by cost."""
    front: list[Prediction] = []
    for one in sorted(found, key=lambda one: (one.overhead, one.error)):
        if not front or one.error < front[-1].error * (1 - 1e-9):
            front.append(one)
    return front


def _too_little(front: Sequence[Prediction], share: float, name: str) -> PmlkitError:
    """Return the error for a budget that nothing is within."""
    if not front:
        return PmlkitError(f"nothing can be predicted of {name}", "record all accesses")
    least = front[0]
    what = f"nothing costs {_percent(share)} of the time of {name} or less: {least.technique.name}"
    hint = "give a larger --budget or a longer --window"
    return PmlkitError(f"{what} costs {_percent(least.overhead)}", hint)


def _last(front: Sequence[Prediction], fits: Callable[[Prediction], bool]) -> Prediction | None:
    return next((one for one in reversed(front) if fits(one)), None)


def _first(front: Sequence[Prediction], fits: Callable[[Prediction], bool]) -> Prediction | None:
    return next((one for one in front if fits(one)), None)


def _size(curves: Curves, window_ns: int) -> Size:
    scored = curves.scored(window_ns)
    pages, weights = curves.pages("accesses", window_ns)[scored], curves.weights[scored]
    p95, p99 = np.quantile(pages, [0.95, 0.99], weights=weights, method="inverted_cdf")
    windows = max(int(curves.recorded.duration_ns // window_ns), 1)
    mean = float(np.average(pages, weights=weights))
    return Size(mean, float(p95), float(p99), float(pages.max()), windows)


def _check(technique: Technique, recorded: Recorded, window_ns: int, seeds: int) -> Checked:
    """Run a technique, and measure what was predicted."""
    truth = scores.truth(recorded, window_ns)
    draws = range(seeds if technique.random else 1)
    runs = [run(technique, recorded, window_ns, seed=seed) for seed in draws]
    errors = [scores.accuracy(one.estimates, truth)["mae"] for one in runs]
    overhead = float(np.mean([one.overhead for one in runs]))
    return Checked(float(np.mean(errors)), min(errors), max(errors), overhead, len(runs))


# ------------------------------------------------------------------------------
# Tables and words.


def _table(front: Sequence[Prediction]) -> pd.DataFrame:
    rows = [
        (one.technique.name, one.looks, one.parts.watched or -1, one.error, one.overhead)
        for one in front
    ]
    return pd.DataFrame(rows, columns=["technique", "looks", "watched", "error", "overhead"])


def shown(advice: Advice) -> pd.DataFrame:
    """Return the front for display: at most `LISTED` rows, including the choice."""
    table = advice.front
    some = np.linspace(0, len(table) - 1, min(LISTED, len(table))).astype(int)
    at = int((table["overhead"] <= advice.budget).sum()) - 1
    table = table.iloc[sorted({*some.tolist(), at})]
    rows = {
        "": ["*" if place == at else "" for place in table.index],
        "technique": table["technique"],
        "looks per T": table["looks"],
        "pages watched": ["all" if n < 0 else f"{n:,}" for n in table["watched"]],
        "predicted error": table["error"].map(_percent),
        "of the VM's time": table["overhead"].map(_percent),
    }
    return pd.DataFrame(rows)


def _as_dict(one: Prediction) -> Json:
    numbers = {"error": one.error, "low": one.low, "high": one.high, "cover": one.cover}
    numbers |= {"staleness": one.staleness, "sampling": one.sampling, "overhead": one.overhead}
    blind = {"missed": one.blindness.missed, "extra": one.blindness.extra}
    knobs = {"looks": one.looks, "watched": one.parts.watched, "period_ns": one.period_ns}
    found = {"technique": one.technique.name, **knobs, **numbers, **blind}
    return {name: None if value != value else value for name, value in found.items()}


def _by_name(need: Need) -> str:
    return need.value


def _pages(pages: float) -> str:
    return f"{pages:,.0f} pages ({_bytes(pages)})"


def _bytes(pages: float) -> str:
    return format_bytes(round(pages) * PAGE_SIZE)


def _percent(share: float) -> str:
    percent = 100 * share
    if percent >= 9.95:
        return f"{percent:.0f} %"
    return f"{percent:.1f} %" if percent >= 0.995 else f"{percent:.2g} %"
