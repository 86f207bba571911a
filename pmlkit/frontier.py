# SPDX-License-Identifier: Apache-2.0
"""Frontiers: the error of each technique at each cost, over all settings of its two knobs.

`sweep` varies ``looks`` (per window T) and ``watched`` (frames or regions) of every technique that
has them, for several T and recordings. It returns one row for each setting, recording and seed.
Nothing is scaled in a sweep. The technique as published has its own row, with its intervals as in
`pmlkit compare`. A technique without knobs, such as a control loop, has no other row.

For one T, a technique's curve consists of means over recordings with equal weights. At a cost c it
is the least mean error of the settings whose mean cost is at most c: the lower left staircase of
the points. Each point is one setting, not a mixture of two. The error is the mean absolute error as
a share of the mean W(t, T). The cost is a share of instructions (`Run.overhead`).

The setting of a point is chosen on the same recordings that score it, which makes the error too
low. There are two remedies. The bootstrap over recordings (`RESAMPLES` with replacement, percentile
intervals) chooses the setting again in each resample, so the interval includes the choice.
``held_out`` is the error on each recording of the setting that was chosen on the others.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import techniques
from pmlkit.compare import on_each, paths_of
from pmlkit.costs import work
from pmlkit.errors import ClocksDiffer, NeedsError, UsageError
from pmlkit.files import write_files
from pmlkit.recordings import open_trace
from pmlkit.techniques import scores
from pmlkit.timeline import timeline
from pmlkit.units import check_count, format_ns, parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pmlkit.compare import Progress
    from pmlkit.techniques.protocol import Technique
    from pmlkit.techniques.recorded import Recorded
    from pmlkit.techniques.scores import Truth
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Floats, Ints, Json, PathLike

__all__ = [
    "BUDGETS",
    "TARGETS",
    "Plan",
    "at_cost",
    "at_error",
    "caption",
    "curves",
    "differences",
    "left_out",
    "plan",
    "points",
    "priced",
    "published",
    "read",
    "sweep",
]

BUDGETS = (0.0001, 0.001, 0.01)  # shares of the instructions
TARGETS = (0.05, 0.1, 0.2)  # shares of the mean W
RESAMPLES = 1000
LEAST_WINDOWS = 2  # a recording of fewer T says nothing about that T
STEPS_PER_DECADE = 20  # costs at which a curve is evaluated
_ENDS = (0.025, 0.975)
_SETTING = ["looks", "watched"]
_FILE = ".points.parquet"
_VERSION = 1  # of what is kept


# ------------------------------------------------------------------------------
# What to sweep.


@dataclass(frozen=True)
class Plan:
    """What to sweep.

    Attributes
    ----------
    windows : tuple of str
        T.
    looks : tuple of int
        Numbers of looks per window T.
    watched : tuple of int
        Numbers of watched frames or regions. A setting with all of the memory is added.
    techniques : tuple of str
        Names; empty: all.
    seeds : int
        Runs of a technique that draws random numbers.
    """

    windows: tuple[str, ...] = ("100ms", "1s", "5s")
    looks: tuple[int, ...] = (1, 2, 4, 10)
    watched: tuple[int, ...] = (64, 256, 1024, 4096, 16384)
    techniques: tuple[str, ...] = ()
    seeds: int = 3

    def __post_init__(self) -> None:
        for window in self.windows:
            parse_duration_ns(window)
        for looks in self.looks:
            check_count("looks", looks, "looks per window T")
        for watched in self.watched:
            check_count("watched", watched, "frames")
        for name in self.techniques:
            techniques.make(name)
        check_count("seeds", self.seeds, "runs")
        if not self.windows or not self.looks:
            raise UsageError("a sweep without windows or without looks: give one of each")

    @property
    def names(self) -> tuple[str, ...]:
        return self.techniques or tuple(techniques.TECHNIQUES)


def plan(
    window: str | Sequence[str] | None = None,
    looks: str | Sequence[int] | None = None,
    watched: str | Sequence[int] | None = None,
    techniques: str | Sequence[str] = "all",
    seeds: int | None = None,
) -> Plan:
    """Create a plan from user input, texts with commas; None selects the default of `Plan`."""
    given: Json = {} if seeds is None else {"seeds": seeds}
    if window is not None:
        given["windows"] = _listed(window)
    if looks is not None:
        given["looks"] = _numbers("looks", looks)
    if watched is not None:
        given["watched"] = _numbers("watched", watched)
    if techniques != "all":
        given["techniques"] = _listed(techniques)
    return Plan(**given)


def _listed(texts: str | Sequence[str]) -> tuple[str, ...]:
    texts = texts.split(",") if isinstance(texts, str) else texts
    return tuple(text.strip() for text in texts)


def _numbers(name: str, numbers: str | Sequence[int]) -> tuple[int, ...]:
    if not isinstance(numbers, str):
        return tuple(numbers)
    try:
        return tuple(int(text) for text in numbers.split(","))
    except ValueError:
        raise UsageError(f"{name} is {numbers!r}: give whole numbers, commas between") from None


# ------------------------------------------------------------------------------
# The sweep.


def sweep(
    traces: Sequence[PathLike],
    plan: Plan | None = None,
    folder: PathLike | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
    again: bool = False,
) -> pd.DataFrame:
    """Run every technique at every setting on every trace.

    Parameters
    ----------
    traces : sequence of str or path-like
        Access traces: paths, or names of bundled ones.
    folder : path-like, optional
        Store each trace's points here as ``NAME.points.parquet``, and reuse the points of earlier
        sweeps: the same technique on the same trace with the same settings. A change of a
        technique's code is not detected; use `again` after such a change. A change of prices needs
        no new run, because the files contain events.
    jobs : int
        Number of processes; each works on a whole trace.
    progress : callable, optional
        Function that is called with (trace, technique) after each is done; with several jobs, once
        per trace.
    again : bool
        Run everything again.

    Returns
    -------
    DataFrame
        One row for each trace, technique, T, setting and seed. ``trace``, ``technique``,
        ``window_ns``, ``looks`` and ``watched`` (missing if the technique has no such knob, or is
        as published; `watched` also for all of the memory), ``published``, ``seed``. ``mae``,
        ``bias``: shares of the mean W. ``says``: share of the time with an estimate. ``events``:
        JSON. ``duration_ns``, ``ns_per_insn``. ``missing``: what the trace lacks for the technique,
        or empty. ``notes``, ``insn`` (the cost, instructions), ``overhead``.

    Raises
    ------
    UsageError
        If two traces have the same name, there are no traces, or all are too short for a T.
    ResolutionError
        If T is shorter than a trace's rounds, or no multiple of them.
    ClocksDiffer
        If a trace does not contain the length of an instruction.
    """
    plan = plan or Plan()
    into = None if folder is None else Path(folder)
    tables = on_each(partial(_sweep, plan, into, again), paths_of(traces), jobs, progress)
    points = pd.concat(tables, ignore_index=True)
    if points.empty:
        raise UsageError(f"every trace is shorter than {LEAST_WINDOWS} T: give a shorter --window")
    return priced(points)


def read(folder: PathLike, windows: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the points that `sweep` stored in a folder, for all its traces.

    Parameters
    ----------
    windows : sequence of str, optional
        Only points of these T.
    """
    files = sorted(Path(folder).glob(f"*{_FILE}"))
    if not files:
        raise UsageError(f"{folder} has no points: make some with `pmlkit frontier -o {folder}`")
    points = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    if windows is not None:
        points = points[points["window_ns"].isin([parse_duration_ns(T) for T in windows])]
    if points.empty:
        raise UsageError(f"{folder} has no points of this T: give another --window")
    return priced(points.reset_index(drop=True))


def points(
    trace: PathLike, traces: Sequence[PathLike] | None, plan: Plan, folder: PathLike
) -> pd.DataFrame:
    """Return the points of one or several traces; without traces, the points stored in a folder.

    Parameters
    ----------
    traces : sequence of path-like or None
        None: do not store the points. If empty, nothing is swept.
    """
    named = [trace] if traces is None else traces
    return sweep(named, plan, folder) if named else read(folder, plan.windows)


def priced(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points with ``insn`` and ``overhead``, at the current prices of their events."""
    insn = np.array([work(json.loads(events)).insn for events in points["events"]])
    share = insn * points["ns_per_insn"] / points["duration_ns"].clip(lower=1)
    return points.assign(insn=insn, overhead=share.mask(points["missing"] != ""))


def _sweep(
    plan: Plan, folder: Path | None, again: bool, path: Path, progress: Progress | None
) -> pd.DataFrame:
    """Return the points of one trace, from its file or from new runs."""
    trace = open_trace(path)
    name = trace.path.name.removesuffix(".trace")
    about = _about(trace, plan)
    file = None if folder is None else folder / f"{name}{_FILE}"
    kept = _kept(file, about) if file and not again else []
    known = {table["technique"].iloc[0]: table for table in kept if len(table)}
    if not set(plan.names) <= set(known):
        recorded, truths = _watched(trace, plan)
    for technique in plan.names:
        if technique not in known:
            known[technique] = _points(techniques.make(technique), recorded, truths, plan)
            if file:  # after each, so that what ends early is taken up there
                _keep(file, pd.concat(known.values(), ignore_index=True), about)
        if progress:
            progress(name, technique)
    return pd.concat([known[technique] for technique in plan.names], ignore_index=True)


def _about(trace: Trace, plan: Plan) -> str:
    """Return a digest of everything except the techniques that affects the points of a trace."""
    description = (trace.path / "trace.json").read_bytes()
    settings = repr((_VERSION, replace(plan, techniques=()))).encode()
    return hashlib.blake2b(description + settings, digest_size=16).hexdigest()


def _kept(file: Path, about: str) -> list[pd.DataFrame]:
    """Return the kept points, a table for each technique; none if they are of something else."""
    if not file.exists():
        return []
    points = pd.read_parquet(file)
    if points.attrs.get("about") != about:
        return []
    return [table for _, table in points.groupby("technique", sort=False)]


def _keep(file: Path, points: pd.DataFrame, about: str) -> None:
    points.attrs["about"] = about
    content = BytesIO()
    points.to_parquet(content, index=False)
    write_files(file.parent, {file.name: content.getvalue()})


def _watched(trace: Trace, plan: Plan) -> tuple[Recorded, dict[int, Truth]]:
    """Return what all runs on a trace share: the recording, and W for each T."""
    recorded = techniques.Recorded.of(trace)
    if recorded.time.ns_per_insn is None:
        raise ClocksDiffer("instructions", f"the time of {trace.path}")
    truths = {}
    for window_ns in (parse_duration_ns(window) for window in plan.windows):
        if recorded.duration_ns >= LEAST_WINDOWS * window_ns:
            timeline(trace).size(window_ns)  # raises if the trace cannot resolve T
            truths[window_ns] = scores.truth(recorded, window_ns)
    return recorded, truths


def _points(
    technique: Technique, recorded: Recorded, truths: Mapping[int, Truth], plan: Plan
) -> pd.DataFrame:
    """Return the points of a technique on a recording."""
    rows: list[Json] = []
    for window_ns, truth in truths.items():
        for setting, turned, seeds in _settings(technique, recorded, plan):
            for seed in range(seeds):
                point = _point(turned, recorded, truth, seed)
                rows.append({"window_ns": window_ns, **setting, "seed": seed, **point})
    table = pd.DataFrame(rows, columns=["window_ns", *_SETTING, "published", "seed", *_EMPTY])
    table.insert(0, "trace", recorded.name)
    table.insert(1, "technique", technique.name)
    return table.astype(dict.fromkeys(_SETTING, "Int64"))


def _settings(
    technique: Technique, recorded: Recorded, plan: Plan
) -> Iterator[tuple[Json, Technique, int]]:
    """Yield each setting, the technique so turned, and the number of its seeds."""
    seeds = plan.seeds if technique.random else 1
    yield {"looks": None, "watched": None, "published": True}, technique, seeds
    knobs = technique.knobs()
    memory = recorded.memory_pages or recorded.size
    most = (*plan.watched, None) if "watched" in knobs else (None,)
    for looks in plan.looks if "looks" in knobs else (None,) * bool(knobs):
        for watched in most:
            all_of_it = watched is None or watched >= memory
            turned = technique.turned(looks or 1, memory if all_of_it else watched or memory)
            setting = {"looks": looks, "watched": watched, "published": False}
            yield setting, turned, 1 if all_of_it else seeds


_EMPTY: Json = {
    "mae": np.nan,
    "bias": np.nan,
    "says": np.nan,
    "events": "{}",
    "duration_ns": 0,
    "ns_per_insn": np.nan,
    "missing": "",
    "notes": "",
}


def _point(technique: Technique, recorded: Recorded, truth: Truth, seed: int) -> Json:
    """Run a technique once, and score it."""
    try:
        run = techniques.run(technique, recorded, truth.window_ns, seed=seed)
    except NeedsError as error:
        return {**_EMPTY, "missing": error.what}
    score = scores.accuracy(run.estimates, truth)
    return {
        **{name: score[name] for name in ("mae", "bias", "says")},
        "events": json.dumps(run.events, sort_keys=True),
        "duration_ns": run.duration_ns,
        "ns_per_insn": run.time.ns_per_insn,
        "missing": "",
        "notes": "; ".join(run.notes),
    }


# ------------------------------------------------------------------------------
# The curves.


@dataclass(frozen=True)
class _Grid:
    """A technique's settings at one T on the same recordings.

    Attributes
    ----------
    settings : DataFrame
        ``looks``, ``watched``, ``says``.
    error, cost : ndarray of float64, shape (settings, recordings)
        Means over seeds.
    """

    technique: str
    window_ns: int
    settings: pd.DataFrame
    error: Floats
    cost: Floats

    @property
    def recordings(self) -> int:
        return self.error.shape[1]

    def mean(self, name: str, weights: Floats) -> Floats:
        """Return the mean ``error`` or ``cost``, shape (settings, samples).

        Parameters
        ----------
        weights : ndarray of float64, shape (recordings, samples)
        """
        return getattr(self, name) @ weights


def _grids(points: pd.DataFrame, published: bool = False) -> list[_Grid]:
    """Return the grids of the techniques, by T: the settings with an estimate of every recording.

    A technique that cannot be swept has its one point in place of a sweep.
    """
    grids = []
    for window_ns, technique, part in _parts(points):
        chosen = part[part["published"]] if published else _swept(part)
        means = chosen.groupby([*_SETTING, "trace"], dropna=False, sort=False)
        wide = means[["mae", "overhead", "says"]].mean().unstack("trace").dropna()
        if len(wide):
            settings = wide.index.to_frame(index=False)
            settings["says"] = wide["says"].to_numpy(float).mean(axis=1)
            error, cost = (wide[name].to_numpy(float) for name in ("mae", "overhead"))
            grids.append(_Grid(technique, window_ns, settings, error, cost))
    return grids


def _parts(points: pd.DataFrame) -> Iterator[tuple[int, str, pd.DataFrame]]:
    """Yield the points of each T and technique."""
    for window_ns in points["window_ns"].unique().tolist():
        of_window = points[points["window_ns"] == window_ns]
        for technique in of_window["technique"].unique().tolist():
            yield window_ns, technique, of_window[of_window["technique"] == technique]


def _swept(part: pd.DataFrame) -> pd.DataFrame:
    return part[~part["published"]] if (~part["published"]).any() else part


def _weights(recordings: int) -> Floats:
    """Return how often each recording is in each resample, shares: (recordings, resamples).

    Resamples are the same for all techniques, so that these can be compared within each.
    """
    drawn = np.random.default_rng(0).integers(0, recordings, (RESAMPLES, recordings))
    counts = [np.bincount(sample, minlength=recordings) for sample in drawn]
    return np.transpose(counts) / recordings


def _all(recordings: int) -> Floats:
    """Return the weights of the sample that is all recordings."""
    return np.full((recordings, 1), 1 / recordings)


def _but_one(recordings: int) -> Floats:
    """Return the weights of the samples that leave out a recording each."""
    return (1 - np.eye(recordings)) / max(recordings - 1, 1)


def _least(value: Floats, bounded: Floats, bound: float) -> tuple[Floats, Ints]:
    """Return the least value of the settings within a bound, and which setting has it.

    Parameters
    ----------
    value, bounded : ndarray of float64, shape (settings, samples)

    Returns
    -------
    least : ndarray of float64, shape (samples,)
        Infinite where no setting is within the bound.
    setting : ndarray of int64, shape (samples,)
    """
    allowed = np.where(bounded <= bound, value, np.inf)
    setting = allowed.argmin(axis=0)
    return allowed[setting, np.arange(allowed.shape[1])], setting


def _interval(values: Floats) -> tuple[float, float]:
    """Return the ends of the 95 % interval over resamples; infinite where it is not reached."""
    low, high = np.quantile(values, _ENDS, method="inverted_cdf")
    return float(low), float(high)


def at_cost(points: pd.DataFrame, budgets: Sequence[float] = BUDGETS) -> pd.DataFrame:
    """Return each technique's error at equal cost.

    Returns
    -------
    DataFrame
        ``window_ns``, ``budget``, ``technique``, ``error``, ``low``, ``high`` (95 %; infinite: no
        setting is cheap enough), ``held_out``. ``first``: share of the resamples in which no
        technique is better. ``looks``, ``watched``, ``says``, ``cost``, ``recordings``. Sorted by
        error.
    """
    return _table(points, "budget", budgets, least="error")


def at_error(points: pd.DataFrame, targets: Sequence[float] = TARGETS) -> pd.DataFrame:
    """Return the cost of each technique at equal error.

    Returns
    -------
    DataFrame
        As for `at_cost`, with ``target`` instead of ``budget``; ``cost``, ``low``, ``high`` and
        ``held_out`` refer to the cost, and ``error`` to the setting.
    """
    return _table(points, "target", targets, least="cost")


def _table(points: pd.DataFrame, bound: str, bounds: Sequence[float], least: str) -> pd.DataFrame:
    """Return the rows of `at_cost` or `at_error`; `least` is "error" or "cost"."""
    rows, samples = [], []
    bounded = "cost" if least == "error" else "error"
    for grid in _grids(points):
        weights = [make(grid.recordings) for make in (_all, _weights, _but_one)]
        whole, resamples, others = (
            (grid.mean(least, each), grid.mean(bounded, each)) for each in weights
        )
        for limit in bounds:
            (best,), (setting,) = _least(*whole, limit)
            resampled, _ = _least(*resamples, limit)
            low, high = _interval(resampled)
            row: Json = {"window_ns": grid.window_ns, bound: limit, "technique": grid.technique}
            row |= {least: best, "low": low, "high": high}
            row["held_out"] = _held_out(getattr(grid, least), *_least(*others, limit))
            if np.isfinite(best):
                row |= grid.settings.iloc[setting].to_dict() | {bounded: whole[1][setting, 0]}
            rows.append(row | {"recordings": grid.recordings})
            samples.append(resampled)
    columns = ["window_ns", bound, "technique", least, "low", "high", "held_out", "first"]
    columns += [*_SETTING, "says", bounded, "recordings"]
    table = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(_SETTING, "Int64"))
    table["first"] = _first(table, bound, samples)
    return table.sort_values(["window_ns", bound, least], kind="stable", ignore_index=True)


def _held_out(values: Floats, least: Floats, setting: Ints) -> float:
    """Return the mean over recordings of what the setting chosen on the others has there.

    NaN where the others have no setting within the bound, or where there are no others.
    """
    recordings = np.arange(values.shape[1])
    if len(recordings) == 1 or np.isinf(least).any():
        return float("nan")
    return float(values[setting, recordings].mean())


def _first(table: pd.DataFrame, bound: str, samples: Sequence[Floats]) -> Floats:
    """Return the share of the resamples in which no other row of the same T and bound is less."""
    first = np.zeros(len(table))
    for rows in table.groupby(["window_ns", bound]).indices.values():
        values = np.array([samples[row] for row in rows])
        least = values.min(axis=0)
        first[rows] = ((values <= least + 1e-12) & np.isfinite(values)).mean(axis=1)
    return first


def differences(
    points: pd.DataFrame, ours: str, theirs: str, budgets: Sequence[float] = BUDGETS
) -> pd.DataFrame:
    """Return the difference between two techniques' errors at equal cost, on the same resamples.

    Each technique uses its own best setting within the budget, chosen again in each resample.

    Returns
    -------
    DataFrame
        ``window_ns``, ``budget``, ``difference`` (shares of W), ``low``, ``high`` (95 %). Infinite
        if only the other one is cheap enough; NaN if neither is.
    """
    grids = {(grid.window_ns, grid.technique): grid for grid in _grids(points)}
    rows = []
    for window_ns in points["window_ns"].unique().tolist():
        pair = [grids[window_ns, name] for name in (ours, theirs)]
        for budget in budgets:
            (whole, resampled) = (
                np.subtract(
                    *(_least(g.mean("error", w), g.mean("cost", w), budget)[0] for g in pair)
                )
                for w in (_all(pair[0].recordings), _weights(pair[0].recordings))
            )
            rows.append((window_ns, budget, whole[0], *_interval(resampled)))
    return pd.DataFrame(rows, columns=["window_ns", "budget", "difference", "low", "high"])


def curves(points: pd.DataFrame) -> pd.DataFrame:
    """Return the curve of each technique that can be swept, with its interval.

    Returns
    -------
    DataFrame
        ``window_ns``, ``technique``, ``cost``, ``error``, ``low``, ``high`` (95 %). Costs run from
        the technique's cheapest setting to the most expensive one on the curve, `STEPS_PER_DECADE`
        per decade.
    """
    rows = []
    for grid in _grids(points[points["technique"].isin(_with_knobs())]):
        whole, resamples = _all(grid.recordings), _weights(grid.recordings)
        error, cost = grid.mean("error", whole), grid.mean("cost", whole)
        sampled = grid.mean("error", resamples), grid.mean("cost", resamples)
        for limit in _between(float(cost.min()), float(cost[error[:, 0].argmin(), 0])):
            (best,), _ = _least(error, cost, limit)
            low, high = _interval(_least(*sampled, limit)[0])
            rows.append((grid.window_ns, grid.technique, limit, best, low, high))
    return pd.DataFrame(rows, columns=["window_ns", "technique", "cost", "error", "low", "high"])


def _between(low: float, high: float) -> Floats:
    """Return costs between two, at equal distances of their logarithm, and both of them."""
    if low <= 0 or high <= low:
        return np.unique([low, max(high, low)])
    count = int(np.ceil(np.log10(high / low) * STEPS_PER_DECADE)) + 1
    costs = np.geomspace(low, high, max(count, 2))
    costs[[0, -1]] = low, high  # not a rounding error beside the settings themselves
    return costs


def _with_knobs() -> list[str]:
    return [name for name, one in techniques.TECHNIQUES.items() if one.knobs()]


def published(points: pd.DataFrame) -> pd.DataFrame:
    """Return the techniques as published: means over recordings.

    Returns
    -------
    DataFrame
        ``window_ns``, ``technique``, ``cost``, ``error``, ``low``, ``high`` (95 % of the error),
        ``says``. ``swept``: whether it also has a curve. ``notes``: what was scaled or rounded, on
        the first recording.
    """
    rows = []
    for grid in _grids(points, published=True):
        whole, resamples = _all(grid.recordings), _weights(grid.recordings)
        low, high = _interval(grid.mean("error", resamples)[0])
        mine = (points["technique"] == grid.technique) & (points["window_ns"] == grid.window_ns)
        rows.append(
            {
                "window_ns": grid.window_ns,
                "technique": grid.technique,
                "cost": grid.mean("cost", whole)[0, 0],
                "error": grid.mean("error", whole)[0, 0],
                "low": low,
                "high": high,
                "says": grid.settings["says"].iloc[0],
                "swept": grid.technique in _with_knobs(),
                "notes": points.loc[mine & points["published"], "notes"].iloc[0],
            }
        )
    columns = ["window_ns", "technique", "cost", "error", "low", "high", "says", "swept", "notes"]
    return pd.DataFrame(rows, columns=columns)


def left_out(points: pd.DataFrame) -> pd.DataFrame:
    """Return the techniques without a setting that estimates every recording, and the reasons.

    Returns
    -------
    DataFrame
        ``window_ns``, ``technique``, ``recordings`` (without any estimate), ``of``, ``why``.
    """
    present = {(grid.window_ns, grid.technique) for grid in _grids(points)}
    rows = []
    for window_ns, technique, part in _parts(points):
        if (window_ns, technique) not in present:
            silent = part.groupby("trace")["mae"].apply(lambda errors: errors.isna().all())
            lacks = sorted({what for what in part["missing"] if what})
            why = f"no {', '.join(lacks)}" if lacks else "no estimate"
            rows.append((window_ns, technique, int(silent.sum()), len(silent), why))
    return pd.DataFrame(rows, columns=["window_ns", "technique", "recordings", "of", "why"])


def caption(points: pd.DataFrame) -> str:
    """Return a description of the points behind a table or a figure."""
    names = points["trace"].unique()
    fast = sorted({f"{1e3 / ns:,.4g}" for ns in points["ns_per_insn"].dropna()})
    windows = ", ".join(format_ns(int(ns)) for ns in points["window_ns"].unique())
    many = f"{len(names)} recording{'s' * (len(names) != 1)}"
    return (
        f"{many}, T = {windows} of machines of {' or '.join(fast)} M instructions "
        f"a second; nothing scaled; 95 % by {RESAMPLES:,} bootstrap samples of the recordings, the "
        "setting chosen anew in each"
    )
