# SPDX-License-Identifier: Apache-2.0
"""Advice for a VM: how to measure it within a budget, and how much memory it needs.

All available techniques of the law are predicted, at all looks per T and all numbers of frames
watched. Only the chosen technique is run, to check the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import progress, recordings
from pmlkit.errors import NeedsError, of_argument
from pmlkit.law.advice import FEW_ROUNDS, GROWS, Advice, Checked, rough
from pmlkit.law.curves import Curves, check_used
from pmlkit.law.parts import STATED, parts_of
from pmlkit.law.predict import Prediction, predict
from pmlkit.law.size import is_regular, size_of
from pmlkit.selection import edges, rounds_of, times_ns
from pmlkit.techniques import Recorded, make, run, scores
from pmlkit.techniques.recorded import Need
from pmlkit.timeline import timeline
from pmlkit.trace.annotation import part_text
from pmlkit.trace.summary import source_text
from pmlkit.units import check_count, parse_duration_ns, parse_share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pmlkit.techniques.protocol import Technique
    from pmlkit.trace.reader import Trace
    from pmlkit.types import PathLike

__all__ = ["advise", "steady_window"]

USUAL_NS = 100_000_000  # the shortest T that is recommended, if the recording is long enough
LOOKS = (1, 2, 3, 4, 5, 6, 8, 10, 20)  # looks per T that are tried
LEAST_WATCHED = 64  # frames; then 128, 256, ... up to all
BETTER, CHEAPER = 0.8, 0.5  # share of the error or of the cost below which an alternative is named
_NO_CLOCK = (
    "the recording does not state how long an instruction takes (`ns_per_insn`), so no cost can be "
    "predicted."
)
_WRITES = frozenset({Need.PML, Need.DIRTY, Need.CONTENT, Need.SOFT_DIRTY})


def advise(
    trace: Trace | PathLike,
    budget: str | float = "0.5%",
    window: str | int | None = None,
    check: bool = True,
    seeds: int = 5,
    ns_per_insn: float | None = None,
    cover: str | float = "99%",
    *,
    start: str | int | None = None,
    end: str | int | None = None,
    phase: str | None = None,
    between: tuple[str, str] | None = None,
) -> Advice:
    """Advise how big a VM must be, and how to measure its working set within a budget.

    Parameters
    ----------
    trace : Trace or path-like
        A recording of all accesses. For a PML log, the answer covers writes only.
    budget : str or float
        Limit for the cost of looking: ``"0.5%"`` of the VM's time; as a number, a share of it.
    window : str or int, optional
        T; default: `steady_window`, or the next longer one for which some technique is within the
        budget, if there is one.
    check : bool
        Run the chosen technique and measure its error. This is not possible for a PML log.
    seeds : int
        Number of draws for that run, if the technique draws.
    ns_per_insn : float, optional
        Length of an instruction on the machine of the trace, if the trace does not contain it.
        Without it no cost can be predicted: the advice has the size alone. The same holds if no
        technique is within the budget.
    cover : str or float
        Share of the time in which W has to fit: ``"99%"``; as a number, a share.
    start, end, phase, between
        The part of the trace: see `pmlkit.selection`. Measurements begin with it, too. The size
        lacks what the guest's kernel keeps, as its counts include memory from before the part.

    Raises
    ------
    NeedsError
        If no page is in use.
    ResolutionError
        If the trace cannot resolve T, or the part is shorter than T.
    UsageError
        If the part has no rounds.

    Examples
    --------
    >>> from pmlkit.law.advise import advise
    >>> advice = advise("hotcold", budget="0.5%", window="1s")
    >>> bool(advice.choice.overhead <= 0.005)
    True
    >>> print(advice.answer)  # doctest: +ELLIPSIS
    hotcold needs a VM of ... to hold what it uses in T = 1 s for 99 % of the time, ...
    """
    with of_argument("budget"):
        share = parse_share(budget)
    with of_argument("cover"):
        covered = parse_share(cover)
    check_count("seeds", seeds, "runs")
    opened = recordings.opened(trace)
    reads = opened.meta.kind == "access"
    part = edges(start, end, phase, between)
    first, stop = rounds_of(opened, *times_ns(opened, *part))
    recorded = _recorded(opened, first, stop, part == (None, None), ns_per_insn)
    curves = Curves(recorded)
    asked = _windows(curves) if window is None else [parse_duration_ns(window)]
    timeline(opened, first, stop - first).size(asked[0])  # raises if the part cannot resolve T
    check_used(curves, asked[0])
    result = _search(curves, asked, share, reads)
    choice, checked = result.choice, None
    if choice is not None and check and reads:
        checked = _check(choice.technique, recorded, result.window_ns, seeds)
    return Advice(
        name=recorded.name,
        part=part_text(*part),
        source=source_text(opened),
        window_ns=result.window_ns,
        chosen=window is None,
        round_ns=recorded.resolution_ns,
        growth=_growth(curves, result.window_ns),
        budget=share,
        memory_pages=recorded.memory_pages,
        machine=recorded.time.text,
        reads=reads,
        size=size_of(curves, result.window_ns, covered),
        choice=choice,
        obstacle=result.obstacle,
        front=_table(result.front),
        less=choice and _last(result.front, lambda one: one.overhead <= CHEAPER * choice.overhead),
        more=choice and _first(result.front, lambda one: one.error < BETTER * choice.error),
        checked=checked,
        left_out=result.left_out,
    )


def _recorded(
    trace: Trace, first: int, stop: int, is_whole: bool, ns_per_insn: float | None
) -> Recorded:
    """Read some rounds of a trace."""
    whole = Recorded.of(trace) if trace.meta.kind == "access" else Recorded.of_log(trace)
    whole = replace(whole, time=whole.time.given(ns_per_insn))
    return whole if is_whole else whole.cut(first, stop)


def steady_window(curves: Curves) -> int:
    """Return the shortest T, ns, beyond which W grows by at most a tenth if T doubles.

    The candidates are 0.1, 0.2, 0.5, 1, ... seconds, up to a tenth of the recording, that are
    multiples of its rounds; shorter ones if the recording is too short for these. If none
    qualifies, it is the one with the smallest growth.
    """
    return _windows(curves)[0]


def _windows(curves: Curves) -> list[int]:
    """Return `steady_window`, and the longer ones, ns."""
    recorded = curves.recorded
    unit, lasts = recorded.resolution_ns, recorded.duration_ns
    steps = [digit * 10**power for power in range(14) for digit in (1, 2, 5)]
    whole = [step for step in steps if step % unit == 0 or not is_regular(recorded)]
    short = [step for step in whole if FEW_ROUNDS * unit <= step <= lasts // 10]
    known = [step for step in short if step >= USUAL_NS] or short
    candidates = known or [unit * max(min(FEW_ROUNDS, lasts // unit // 2), 1)]
    grows = [_growth(curves, step) for step in candidates]
    steady = [place for place, growth in enumerate(grows) if growth <= GROWS]
    return candidates[steady[0] if steady else int(np.argmin(grows)) :]


def _growth(curves: Curves, window_ns: int) -> float:
    sizes = [curves.mean("accesses", times * window_ns) for times in (1, 2)]
    return sizes[1] / max(sizes[0], 1e-9) - 1


# ------------------------------------------------------------------------------
# The search.


@dataclass(frozen=True)
class _SearchResult:
    """The result of a search for a technique; without a choice, `obstacle` is the reason."""

    window_ns: int
    front: list[Prediction] = field(default_factory=list)
    choice: Prediction | None = None
    left_out: tuple[str, ...] = ()
    obstacle: str = ""


def _search(curves: Curves, asked: Sequence[int], share: float, reads: bool) -> _SearchResult:
    """Return the best technique within a budget, at the first T that has one."""
    if not curves.recorded.time.ns_per_insn:
        return _SearchResult(asked[0], obstacle=_NO_CLOCK)
    cheapest: list[Prediction] = []  # at each T
    for window_ns in asked:
        predictions, left_out = _all(curves, window_ns, reads)
        front = _front(predictions)
        if (choice := _last(front, lambda one: one.overhead <= share)) is not None:
            whole = predict(choice.technique, curves, window_ns)
            return _SearchResult(window_ns, front, whole, tuple(left_out))
        cheapest += front[:1]
    least = min(cheapest, key=lambda one: one.overhead, default=None)
    return _SearchResult(asked[0], obstacle=_too_dear(least, share))


def _all(curves: Curves, window_ns: int, reads: bool) -> tuple[list[Prediction], list[str]]:
    """Return all predictions, and the techniques that are left out, with the reason."""
    result: list[Prediction] = []
    left_out: dict[str, list[str]] = {}
    for name in progress.over(list(STATED), name=str):
        technique = make(name)
        if why := _not_for(technique, curves.recorded, reads):
            left_out.setdefault(why, []).append(name)
            continue
        try:
            result += [
                predict(one, curves, window_ns, interval=False)
                for one in _settings(technique, curves.recorded.memory_pages)
            ]
        except NeedsError as error:
            left_out.setdefault(f"no {error.what}", []).append(name)
    return result, [f"{', '.join(names)} ({why})" for why, names in left_out.items()]


def _not_for(technique: Technique, recorded: Recorded, reads: bool) -> str:
    """Return why a technique is not a candidate, or nothing."""
    if Need.REFERENCES in technique.needs:
        return "no processor has it"
    if Need.SAMPLES in technique.needs:
        return "a recording has rounds, not the accesses to sample"
    if Need.TABLES in technique.needs and recorded.mapped is None:
        return "no snapshots of page tables"
    if parts_of(technique, recorded.memory_pages or 1).adds:
        return "it counts a page once for each look: it is right only by chance"
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


def _front(result: Sequence[Prediction]) -> list[Prediction]:
    """Return the Pareto-optimal predictions in error and cost, sorted by cost."""
    front: list[Prediction] = []
    for one in sorted(result, key=lambda one: (one.overhead, one.error)):
        if not front or one.error < front[-1].error * (1 - 1e-9):
            front.append(one)
    return front


def _too_dear(cheapest: Prediction | None, share: float) -> str:
    """Return why no technique is within a budget."""
    if cheapest is None:
        return "no technique can be predicted on this recording. Record all accesses."
    return (
        f"no technique costs {rough(share)} of the VM's time or less. The cheapest, "
        f"{cheapest.technique.name}, costs {rough(cheapest.overhead)}. Allow a larger budget, or a "
        "longer T."
    )


def _last(front: Sequence[Prediction], fits: Callable[[Prediction], bool]) -> Prediction | None:
    return next((one for one in reversed(front) if fits(one)), None)


def _first(front: Sequence[Prediction], fits: Callable[[Prediction], bool]) -> Prediction | None:
    return next((one for one in front if fits(one)), None)


def _check(technique: Technique, recorded: Recorded, window_ns: int, seeds: int) -> Checked:
    """Run a technique, and measure the predicted errors."""
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
