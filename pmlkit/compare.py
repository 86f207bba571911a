# SPDX-License-Identifier: Apache-2.0
"""Comparison of techniques: run on the same recorded VMs, scored against W(t, T), in tables."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd

from pmlkit import progress, recordings, techniques
from pmlkit.costs import check_ns_per_insn, prices
from pmlkit.errors import ClocksDiffer, NeedsError, UsageError, argument, names_its_function
from pmlkit.selection import edges, times_ns
from pmlkit.techniques import scores
from pmlkit.techniques.runs import MOST_SCALE, time_scale, within
from pmlkit.timeline import timeline
from pmlkit.trace.annotation import is_named, part_text
from pmlkit.trace.schema import PAGE_SIZE
from pmlkit.units import (
    check_count,
    exact_ns,
    format_bytes,
    format_ns,
    format_share,
    parse_duration_ns,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.process import BaseProcess

    from pmlkit.techniques.protocol import Technique
    from pmlkit.techniques.recorded import Recorded
    from pmlkit.techniques.runs import Run
    from pmlkit.techniques.scores import Truth
    from pmlkit.types import Json, PathLike


__all__ = [
    "PARTS",
    "Best",
    "Comparison",
    "Plan",
    "as_dict",
    "compare",
    "on_each",
    "pareto",
    "paths_of",
    "plan",
]

names_its_function("pmlkit.compare", "pmlkit.compare.compare")

R = TypeVar("R")
SIMULATED = " (simulated tables)"  # ends the title of a technique with a substitute for page tables


@dataclass(frozen=True)
class Comparison:
    """The results.

    Attributes
    ----------
    scores : DataFrame
        One row for each trace and technique. ``trace``, ``technique``; ``simulated``: whether page
        tables were; ``title``, which then ends with `SIMULATED` (so real and simulated ones share
        no mean). ``bias``, ``mae``, ``mape``. ``mae_ci`` and ``mape_ci``: half of their 95 %
        intervals over seeds, NaN for a single draw of a technique that draws.
        ``p95``, ``says``. ``up``, ``down``: mean windows until a step is followed. ``lost_steps``:
        share never followed. ``overhead``: share of the time; NaN if the trace does not contain the
        length of an instruction. ``ns_per_insn`` (of the trace), ``intrusive``, ``active``,
        ``seeds``. ``missing``: what the trace lacks for it, or empty. ``notes``.
        ``losses``: a note on entries that the trace or its log lost, or empty.
    estimates : DataFrame
        ``trace``, ``technique``, ``seed``, ``t_ns``, ``pages``. For a part (the plan's ``start``
        and ``end``): includes the estimate that is current when it begins.
    truth : DataFrame
        ``trace``, ``t_ns``, ``pages``: W(t, T). For a part: windows that are within it.
    steps : DataFrame
        ``trace``, ``technique``, and `scores.reactivity` of the first seed.
    events : DataFrame
        ``trace``, ``technique``, ``event``, ``count`` (of the first seed), ``insn`` (instructions,
        by `pmlkit.costs.prices`). For a part: its estimates only, as for ``overhead``. An event has
        the time of the estimate after it.
    """

    plan: Plan
    scores: pd.DataFrame
    estimates: pd.DataFrame
    truth: pd.DataFrame
    steps: pd.DataFrame
    events: pd.DataFrame

    @property
    def traces(self) -> list[str]:
        return list(dict.fromkeys(self.scores["trace"]))

    @property
    def caption(self) -> str:
        """A caption for the tables, with the time scale."""
        window_ns = parse_duration_ns(self.plan.window)
        scale = time_scale(self.plan.scale, window_ns)
        clock = "as published" if scale == 1 else f"multiplied by {scale:.3g}"
        return (
            f"Techniques as published against W(t, T), T = {exact_ns(window_ns)} on "
            f"{self.machines}; the intervals of their sources {clock}{self.plan.part_caption}. "
            "They differ in their number of looks and in cost: `pmlkit frontier` compares them at "
            f"equal cost{self._losses}"
        )

    @property
    def best(self) -> Best | None:
        """The technique with the least mean error; None if none could be scored."""
        return _best(self)

    @property
    def _losses(self) -> str:
        lost = self.scores.loc[self.scores["losses"] != "", ["trace", "losses"]].drop_duplicates()
        return "".join(f". Note: {row.trace}: {row.losses}" for row in lost.itertuples())

    @property
    def machines(self) -> str:
        """The machines of the traces, whose time T is, as text."""
        known = self.scores["ns_per_insn"].drop_duplicates()
        fast = [f"{1e3 / ns:,.4g}" for ns in sorted(known.dropna())]
        texts = [f"machines of {' or '.join(fast)} M instructions a second"] if fast else []
        return " or ".join(texts + ["hosts"] * bool(known.isna().any()))


@dataclass(frozen=True)
class Best:
    """The technique with the least mean error, and the next best one.

    Of techniques with the same error it is the one with the least overhead. Errors are mean
    absolute errors as a share of the mean of W.

    Attributes
    ----------
    technique, title : str
    error : float
        The mean over the recordings.
    overhead : float
        Share of the VM's time, the mean over the recordings; NaN if it is not known.
    next_title : str
        The next technique, or empty.
    next_overhead : float
        As `overhead`.
    ahead, low, high : float
        By how much the next one's error is larger, and a 95 % interval of that: over the draws for
        one recording, by a bootstrap over the recordings for several. Both ends are `ahead` if
        neither technique draws.
    recordings : int
    true_bytes : float
        The mean of W over the time of full windows: the truth.
    window : str
        T in words.
    """

    technique: str
    title: str
    error: float
    overhead: float
    next_title: str
    next_overhead: float
    ahead: float
    low: float
    high: float
    recordings: int
    true_bytes: float
    window: str

    @property
    def answer(self) -> str:
        """The answer in two or three sentences."""
        costs = _at(self.overhead)
        one = self.recordings == 1
        where = "in this recording" if one else f"in the mean of {self.recordings} recordings"
        first = (
            f"{self.title} ({self.technique}) is closest {where}: its mean error is "
            f"{format_share(self.error)} of W, {costs}."
        )
        truth = f"The truth is W = {format_bytes(self.true_bytes)} on average in T = {self.window}"
        return " ".join([first, *self._error_gap, f"{truth}, of all accesses."])

    @property
    def _error_gap(self) -> Iterator[str]:
        if not self.next_title:
            return
        points = [f"{100 * share:.1f}" for share in (self.ahead, self.low, self.high)]
        how = "over the draws" if self.recordings == 1 else "over the recordings"
        sure = f" (95 % {how}: {points[1]} to {points[2]})" if self.low < self.high else ""
        if points == ["0.0"] * 3:
            yield f"The next, {self.next_title}, is as close, {_at(self.next_overhead)}."
            return
        yield f"The next, {self.next_title}, is {points[0]} points worse{sure}."
        if self.low <= 0:
            yield "So it is not certain which of the two is better."

    def as_dict(self) -> Json:
        """Return the answer for JSON: None for what is not known."""
        facts = {name: None if value != value else value for name, value in vars(self).items()}
        return {"answer": self.answer, **facts}


def _at(overhead: float) -> str:
    if overhead != overhead:
        return "at a cost that is not known"
    return f"at {format_share(overhead)} of the VM's time"


def _best(comparison: Comparison) -> Best | None:
    """Return the technique with the least mean error over all traces, the cheapest of equals."""
    if "mae" not in comparison.scores:
        return None
    wide = comparison.scores.pivot(index="title", columns="trace", values="mae").dropna()
    if wide.empty:
        return None
    rows = comparison.scores.set_index("title")
    costs = (
        pd.to_numeric(rows["overhead"]).groupby(level=0).agg(lambda each: each.mean(skipna=False))
    )
    ranked = pd.DataFrame({"error": wide.mean(axis=1), "overhead": costs}).loc[wide.index]
    equal = ranked["error"].round(9)  # smaller differences are rounding errors
    ranked = ranked.assign(equal=equal).sort_values(["equal", "overhead"], kind="stable")
    first, second = ranked.index[0], ranked.index[1] if len(ranked) > 1 else None
    ahead, low, high = _error_gap(wide, rows, first, second)
    return Best(
        technique=str(rows.loc[[first], "technique"].iloc[0]),
        title=str(first),
        error=float(ranked["error"].iloc[0]),
        overhead=float(ranked["overhead"].iloc[0]),
        next_title="" if second is None else str(second),
        next_overhead=float("nan") if second is None else float(ranked["overhead"].iloc[1]),
        ahead=ahead,
        low=low,
        high=high,
        recordings=wide.shape[1],
        true_bytes=_true_bytes(comparison.truth, parse_duration_ns(comparison.plan.window)),
        window=exact_ns(parse_duration_ns(comparison.plan.window)),
    )


def _true_bytes(truth: pd.DataFrame, window_ns: int) -> float:
    """Return the mean of W in bytes: over the time of full windows, then over the recordings."""
    means = []
    for _, rows in truth.groupby("trace"):
        full = rows["t_ns"] >= window_ns
        lengths = rows["t_ns"].diff().bfill().fillna(1)  # of the rounds
        means.append(np.average(rows["pages"][full], weights=lengths[full]))
    return float(np.mean(means) * PAGE_SIZE)


def _error_gap(
    wide: pd.DataFrame, rows: pd.DataFrame, first: str, second: str | None
) -> tuple[float, float, float]:
    """Return how much larger the second technique's error is, and its 95 % interval."""
    if second is None:
        return float("nan"), float("nan"), float("nan")
    gaps = np.asarray(wide.loc[second], float) - np.asarray(wide.loc[first], float)
    if len(gaps) > 1:
        _, low, high = scores.resampled(gaps, np.mean)
        return float(gaps.mean()), low, high
    halves = pd.to_numeric(rows.loc[[first, second], "mae_ci"]).to_numpy(float)
    half = float(np.hypot(halves[0], halves[1]))
    return float(gaps[0]), float(gaps[0]) - half, float(gaps[0]) + half


PARTS = ("scores", "estimates", "truth", "steps", "events")
_ESTIMATES = ["technique", "seed", "t_ns", "pages"]


def compare(
    traces: Sequence[PathLike],
    plan: Plan | None = None,
    jobs: int = 1,
) -> Comparison:
    """Run every technique on every trace.

    Parameters
    ----------
    traces : sequence of str or path-like
        Access traces: paths, or names of bundled ones.
    jobs : int
        Number of processes; each works on a whole trace.

    Raises
    ------
    UsageError
        If two traces have the same name, there are no traces, or no window T of a trace is within
        the plan's ``start`` and ``end``.
    ResolutionError
        If T is shorter than a trace's rounds, no multiple of them where they are regular, or
        longer than the trace.
    PmlkitError
        If a trace cannot be read, or is a PML log (NeedsError). A missing input of a technique is
        not an error: its row names it in ``missing``.

    Examples
    --------
    >>> from pmlkit import compare
    >>> comparison = compare.compare(["hotcold"], compare.plan("1s", "pml,idle-pages", seeds=1))
    >>> comparison.scores[["trace", "technique"]].values.tolist()
    [['hotcold', 'pml'], ['hotcold', 'idle-pages']]
    """
    plan = plan or Plan()
    parts = on_each(partial(_compare_on, plan), paths_of(traces), jobs)
    tables = {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in PARTS}
    return Comparison(plan, **tables)


def paths_of(traces: Sequence[PathLike]) -> list[Path]:
    """Find the traces; raise `UsageError` without a trace, or if two have the same name."""
    paths = [recordings.find(trace) for trace in traces]
    names = [recordings.name_of(path) for path in paths]
    if not paths or len(set(names)) < len(names):
        raise UsageError("give at least one trace, and each name only once")
    return paths


def on_each(
    function: Callable[[Path], R],
    paths: Sequence[Path],
    jobs: int = 1,
) -> list[R]:
    """Call a function with each path, and return the results in that order.

    Parameters
    ----------
    function : callable
        Function that is called with a path; with several jobs in a separate process. It must
        support pickling.
    jobs : int
        Processes.
    """
    if jobs == 1 or len(paths) == 1:
        return [function(path) for path in progress.over(paths, name=recordings.name_of)]
    other_processes = set(active_children())
    # A fresh interpreter per worker: a fork of one that has threads (pyarrow) may hang.
    with (
        ProcessPoolExecutor(min(jobs, len(paths)), get_context("spawn"), _begin_worker) as pool,
        _ending_workers(other_processes),
    ):
        pending = {pool.submit(function, path): path for path in paths}
        with progress.task("", len(pending)) as task:
            for done in as_completed(pending):
                done.result()  # raises the worker's error at once
                task.begin(f"{recordings.name_of(pending[done])} is done")
                task.advance()
        return [future.result() for future in pending]


def _begin_worker() -> None:
    # Ctrl-C at a terminal reaches the workers, too; the parent ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _ending_workers(other_processes: set[BaseProcess]) -> Iterator[None]:
    """End the workers (all children but `others`) at once if the batch ends early."""
    try:
        yield
    except BaseException:
        for worker in set(active_children()) - other_processes:
            worker.terminate()
        raise


def _compare_on(plan: Plan, path: Path) -> dict[str, pd.DataFrame]:
    """Return the tables of a `Comparison` for one trace."""
    trace = recordings.open_trace(path)
    first, stop = trace.rounds_between(*times_ns(trace, plan.start, plan.end))
    recorded = techniques.Recorded.of(trace)
    recorded = replace(recorded, time=recorded.time.given(plan.ns_per_insn))
    timeline(trace).size(plan.window)  # raises if the trace cannot resolve T
    truth = scores.truth(recorded, parse_duration_ns(plan.window))
    if plan.is_part:
        truth = _part_of(truth, recorded, first, stop)
    inside = truth.scored if first else truth.t_ns <= truth.end_ns
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in PARTS}
    parts["truth"].append(pd.DataFrame({"t_ns": truth.t_ns[inside], "pages": truth.pages[inside]}))
    for name in progress.over(plan.names, name=str):
        technique = techniques.make(name)
        try:
            runs = _runs(technique, recorded, plan)
            if plan.is_part:
                span = truth.start_ns, truth.end_ns, stop == recorded.n_rounds
                runs = [within(run, *span) for run in runs]
            row = _score(runs, truth) | _tables_of(technique, runs)
            for part, table in _tables(name, runs, truth).items():
                parts[part].append(table)
        except NeedsError as error:
            row = {"missing": error.what}
        row["ns_per_insn"] = recorded.time.ns_per_insn or float("nan")
        row["losses"] = "; ".join(recorded.losses)
        parts["scores"].append(pd.DataFrame([_attributes(technique) | row]))
    return {name: _joined(recorded.name, tables) for name, tables in parts.items()}


def _part_of(truth: Truth, recorded: Recorded, first: int, stop: int) -> Truth:
    """Return the truth with the rounds from `first` to `stop` scored."""
    start, end = (int(recorded.t_ns[edge] - recorded.t_ns[0]) for edge in (first, stop))
    truth = scores.within(truth, start, end)
    if not truth.scored.any():
        lasts = f"{recorded.name} lasts {format_ns(recorded.duration_ns)}"
        window = exact_ns(truth.window_ns)
        raise UsageError(
            f"{lasts}: give a {argument('start')} and {argument('end')} with a window T of "
            f"{window} in it"
        )
    return truth


def _runs(technique: Technique, recorded: Recorded, plan: Plan) -> list[Run]:
    seeds = range(plan.seeds if technique.random else 1)
    return [techniques.run(technique, recorded, plan.window, plan.scale, s) for s in seeds]


def _attributes(technique: Technique) -> Json:
    return {
        "technique": technique.name,
        "title": technique.title,
        "simulated": False,
        "intrusive": technique.intrusive,
        "active": technique.active,
        "missing": "",
        "notes": "",
    }


def _tables_of(technique: Technique, runs: Sequence[Run]) -> Json:
    """Return whether the page tables of the runs were simulated, and the title that states it."""
    simulated = any(run.simulated for run in runs)
    return {"simulated": simulated, "title": technique.title + SIMULATED * simulated}


def _score(runs: Sequence[Run], truth: Truth) -> Json:
    """Return the means over the runs of a technique (one run per seed)."""
    accuracy = pd.DataFrame([scores.accuracy(run.estimates, truth) for run in runs])
    mape, half = scores.interval(accuracy["mape"])
    mae, mae_half = scores.interval(accuracy["mae"])
    if not runs[0].technique.random and len(runs) == 1:  # it has no other draws
        half, mae_half = 0 * mape, 0 * mae
    steps = pd.concat([scores.reactivity(run.estimates, truth) for run in runs])
    up = steps["up"].astype(bool)
    return {
        "bias": accuracy["bias"].mean(),
        "mae": mae,
        "mae_ci": mae_half,
        "mape": mape,
        "mape_ci": half,
        "p95": accuracy["p95"].mean(),
        "says": accuracy["says"].mean(),
        "up": steps["windows"][up].mean(),
        "down": steps["windows"][~up].mean(),
        "lost_steps": steps["windows"].isna().mean() if len(steps) else float("nan"),
        "seeds": len(runs),
        **_overhead(runs),
    }


def _overhead(runs: Sequence[Run]) -> Json:
    """Return the mean overhead and the notes, which explain an unknown overhead."""
    notes = runs[0].notes
    try:
        share = sum(run.overhead for run in runs) / len(runs)
    except ClocksDiffer as error:
        share, notes = float("nan"), [*notes, f"no overhead: {error}"]
    return {"overhead": share, "notes": "; ".join(notes)}


def _tables(name: str, runs: Sequence[Run], truth: Truth) -> dict[str, pd.DataFrame]:
    """Return a technique's estimates with all seeds, and its steps and events with the first
    seed."""
    estimates = [run.estimates[["t_ns", "pages"]].assign(seed=run.seed) for run in runs]
    steps = scores.reactivity(runs[0].estimates, truth)
    steps.insert(0, "technique", name)
    rows = [(name, event, n, n * prices()[event].insn) for event, n in runs[0].events.items()]
    return {
        "estimates": pd.concat(estimates).assign(technique=name)[_ESTIMATES],
        "steps": steps,
        "events": pd.DataFrame(rows, columns=["technique", "event", "count", "insn"]),
    }


def _joined(trace: str, parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    # Empty parts have arbitrary dtypes, which pandas would carry over to the others.
    filled = [part for part in parts if len(part)] or parts[:1]
    joined = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()
    joined.insert(0, "trace", trace)
    return joined


def pareto(rows: pd.DataFrame, error: str = "mape") -> pd.DataFrame:
    """Return the Pareto-optimal rows in ``error`` and ``overhead``, sorted by ``overhead``."""
    rows = rows.dropna(subset=["overhead", error]).sort_values(["overhead", error])
    return rows[rows[error] < rows[error].cummin().shift(fill_value=float("inf"))]


def as_dict(comparison: Comparison) -> Json:
    """Return the caption and the scores for JSON: a list of rows, NaN as None."""
    rows = comparison.scores.astype(object).where(comparison.scores.notna(), None)
    best = comparison.best
    summary = None if best is None else best.as_dict()
    return {"about": comparison.caption, "summary": summary, "scores": rows.to_dict("records")}


# ------------------------------------------------------------------------------
# What to compare.


@dataclass(frozen=True)
class Plan:
    """What to compare.

    Attributes
    ----------
    window : str
        T of the working set W(t, T) to be estimated.
    techniques : tuple of str
        Names; empty: all.
    scale : "auto" or float
        `pmlkit.techniques.runs.time_scale`.
    seeds : int
        Runs of a technique that draws random numbers.
    start, end : str, int or None
        Score only the part between these times, ``"2s"`` or nanoseconds. Techniques still start at
        the recording's start.
    ns_per_insn : float, optional
        Length of an instruction on the machine of a trace that does not contain it, such as those
        of hosts and imports. Without it, these traces have no overhead.
    """

    window: str = "1s"
    techniques: tuple[str, ...] = ()
    scale: str | float = "auto"
    seeds: int = 5
    start: str | int | None = None
    end: str | int | None = None
    ns_per_insn: float | None = None

    def __post_init__(self) -> None:
        check_ns_per_insn(self.ns_per_insn)
        parse_duration_ns(self.window)
        for time in (self.start, self.end):
            if isinstance(time, str) and not is_named(time):
                parse_duration_ns(time)
        for name in self.techniques:
            techniques.make(name)
        check_count("seeds", self.seeds, "runs")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.techniques)) or tuple(techniques.TECHNIQUES)

    @property
    def is_part(self) -> bool:
        """Whether less than the whole recording may be scored."""
        return (self.start, self.end) != (None, None)

    @property
    def part_caption(self) -> str:
        """The part, for a caption, if there is one."""
        if not self.is_part:
            return ""
        part = part_text(self.start, self.end)
        return f"; windows {part}, observed from the recording's start"


def plan(
    window: str = "1s",
    techniques: str | Sequence[str] = "all",
    scale: str | float = "auto",
    seeds: int = 5,
    start: str | int | None = None,
    end: str | int | None = None,
    ns_per_insn: float | None = None,
    phase: str | None = None,
    between: tuple[str, str] | None = None,
) -> Plan:
    """Create a plan from user input: see `Plan`.

    Parameters
    ----------
    techniques : str or sequence of str
        ``"all"``, or names; a text has commas between them.
    phase, between
        The part of the trace, in place of `start` and `end`: see `pmlkit.selection`.
    """
    if not isinstance(techniques, Iterable):
        raise UsageError(f"techniques is {techniques!r}: give names, or all")
    if isinstance(techniques, str):
        techniques = [] if techniques == "all" else [n.strip() for n in techniques.split(",")]
    if scale != "auto":
        try:
            scale = float(scale)
        except (TypeError, ValueError):
            raise UsageError(f"the time scale {scale!r} is neither auto nor a number") from None
        if not 0 < scale <= MOST_SCALE:
            limits = f"a number above 0, and at most {MOST_SCALE:,}"
            raise UsageError(f"the time scale is {scale:g}: give {limits}")
    start, end = edges(start, end, phase, between)
    return Plan(window, tuple(techniques), scale, seeds, start, end, ns_per_insn)
