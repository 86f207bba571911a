# SPDX-License-Identifier: Apache-2.0
"""Run every technique at every setting of its two knobs, on every recording.

Finished points are kept in a file for each trace, so that an interrupted sweep can continue.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit import progress, techniques
from pmlkit.compare import on_each, paths_of
from pmlkit.costs import check_ns_per_insn, work
from pmlkit.errors import ClocksDiffer, NeedsError, UsageError, argument
from pmlkit.files import write_files
from pmlkit.frontier.grids import SETTING
from pmlkit.recordings import name_of, open_trace
from pmlkit.techniques import scores
from pmlkit.timeline import timeline
from pmlkit.units import check_count, check_path, check_type, exact_ns, parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pmlkit.techniques.protocol import Technique
    from pmlkit.techniques.recorded import Recorded
    from pmlkit.techniques.scores import Truth
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json, PathLike

__all__ = ["LEAST_WINDOWS", "Plan", "of_window", "plan", "points", "priced", "read", "sweep"]

LEAST_WINDOWS = 2  # a recording with fewer windows is not swept with that T
_FILE = ".points.parquet"
_VERSION = 2  # version of the file of points


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
    ns_per_insn : float, optional
        Length of an instruction on the machine of a trace that does not contain it.
    """

    windows: tuple[str, ...] = ("100ms", "1s", "5s")
    looks: tuple[int, ...] = (1, 2, 4, 10)
    watched: tuple[int, ...] = (64, 256, 1024, 4096, 16384)
    techniques: tuple[str, ...] = ()
    seeds: int = 3
    ns_per_insn: float | None = field(default=None, repr=False)

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
        check_ns_per_insn(self.ns_per_insn)
        if not self.windows or not self.looks:
            raise UsageError("a sweep without windows or without looks: give one of each")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.techniques)) or tuple(techniques.TECHNIQUES)


def plan(
    window: str | Sequence[str] | None = None,
    looks: str | Sequence[int] | None = None,
    watched: str | Sequence[int] | None = None,
    techniques: str | Sequence[str] = "all",
    seeds: int | None = None,
    ns_per_insn: float | None = None,
) -> Plan:
    """Create a plan from user input, texts with commas; None selects the default of `Plan`."""
    given: Json = {"ns_per_insn": ns_per_insn}
    if seeds is not None:
        given["seeds"] = seeds
    if window is not None:
        given["windows"] = _listed("window", window)
    if looks is not None:
        given["looks"] = _numbers("looks", looks)
    if watched is not None:
        given["watched"] = _numbers("watched", watched)
    if techniques != "all":
        given["techniques"] = _listed("techniques", techniques)
    return Plan(**given)


def _listed(name: str, texts: str | Sequence[str]) -> tuple[str, ...]:
    what = "texts, separated by commas or in a list"
    check_type(name, texts, Sequence, what)
    texts = texts.split(",") if isinstance(texts, str) else texts
    for text in texts:
        check_type(name, text, str, what)
    return tuple(text.strip() for text in texts)


def _numbers(name: str, numbers: str | Sequence[int]) -> tuple[int, ...]:
    check_type(name, numbers, Sequence, "whole numbers, separated by commas or in a list")
    if not isinstance(numbers, str):
        return tuple(numbers)
    try:
        return tuple(int(text) for text in numbers.split(","))
    except ValueError:
        raise UsageError(
            f"{name} is {numbers!r}: give whole numbers, separated by commas"
        ) from None


# ------------------------------------------------------------------------------
# The sweep.


def sweep(
    traces: Sequence[PathLike],
    plan: Plan | None = None,
    folder: PathLike | None = None,
    jobs: int = 1,
    *,
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
    again : bool
        Run everything again.

    Returns
    -------
    DataFrame
        One row for each trace, technique, T, setting and seed. ``trace``, ``technique``,
        ``window_ns``, ``looks`` and ``watched`` (missing if the technique has no such knob, or is
        as published; `watched` also for all of the memory), ``published``, ``seed``. ``mae``,
        ``bias``: shares of the mean W. ``says``: share of the time with an estimate. ``events``:
        JSON. ``duration_ns``, ``ns_per_insn``. ``simulated``: whether page tables were.
        ``missing``: what the trace lacks for the technique, or empty. ``notes``, ``insn`` (the
        cost, instructions), ``overhead``.

    Raises
    ------
    UsageError
        If two traces have the same name, there are no traces, or all are too short for a T.
    ResolutionError
        If T is shorter than a trace's rounds, or no multiple of them.
    ClocksDiffer
        If a trace does not contain the length of an instruction, nor does the plan.
    """
    plan = plan or Plan()
    if folder is not None:
        check_path("folder", folder)
    into = None if folder is None else Path(folder)
    tables = on_each(partial(_sweep, plan, into, again), paths_of(traces), jobs)
    points = pd.concat(tables, ignore_index=True)
    if points.empty:
        raise UsageError(
            f"every trace is shorter than {LEAST_WINDOWS} T: give a shorter {argument('window')}"
        )
    return priced(points)


def read(folder: PathLike, windows: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the points that `sweep` stored in a folder, for all its traces.

    Parameters
    ----------
    windows : sequence of str, optional
        Only points of these T.
    """
    check_path("folder", folder)
    files = sorted(Path(folder).glob(f"*{_FILE}"))
    if not files:
        raise UsageError(f"{folder} has no points: make them with `pmlkit frontier -o {folder}`")
    tables = [pd.read_parquet(file) for file in files]
    if not all("simulated" in table for table in tables):
        hint = f"make them again with `pmlkit frontier -o {folder}`"
        raise UsageError(f"{folder} has points of an earlier version: {hint}")
    points = pd.concat(tables, ignore_index=True)
    if windows is not None:
        points = points[points["window_ns"].isin([parse_duration_ns(T) for T in windows])]
    if points.empty:
        raise UsageError(f"{folder} has no points of this T: give another {argument('window')}")
    return priced(points.reset_index(drop=True))


def points(
    trace: PathLike, traces: Sequence[PathLike] | None, plan: Plan, folder: PathLike
) -> pd.DataFrame:
    """Return the points of one or several traces; without traces, the points stored in a folder.

    Parameters
    ----------
    traces : sequence of path-like or None
        None: sweep `trace` alone. If empty, nothing is swept.
    """
    named = [trace] if traces is None else traces
    return sweep(named, plan, folder) if named else read(folder, plan.windows)


def of_window(points: pd.DataFrame, window: str) -> pd.DataFrame:
    """Return the points of one T.

    Raises
    ------
    UsageError
        If no point has this T.
    """
    known = sorted(points["window_ns"].unique().tolist())
    window_ns = parse_duration_ns(window)
    if window_ns not in known:
        names = ", ".join(map(exact_ns, known))
        raise UsageError(f"no point has T = {exact_ns(window_ns)}: choose from {names}")
    return points[points["window_ns"] == window_ns].reset_index(drop=True)


def priced(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points with ``insn`` and ``overhead``, at the current prices of their events."""
    insn = np.array([work(json.loads(events)).insn for events in points["events"]])
    share = insn * points["ns_per_insn"] / points["duration_ns"].clip(lower=1)
    return points.assign(insn=insn, overhead=share.mask(points["missing"] != ""))


def _sweep(plan: Plan, folder: Path | None, again: bool, path: Path) -> pd.DataFrame:
    """Return the points of one trace, from its file or from new runs."""
    trace = open_trace(path)
    name = name_of(trace.path)
    digest = _digest_of(trace, plan)
    file = None if folder is None else folder / f"{name}{_FILE}"
    kept = _kept(file, digest) if file and not again else []
    known = {table["technique"].iloc[0]: table for table in kept if len(table)}
    if not set(plan.names) <= set(known):
        recorded, truths = _watched(trace, plan)
    for technique in progress.over(plan.names, name=str):
        if technique not in known:
            known[technique] = _points(techniques.make(technique), recorded, truths, plan)
            if file:  # after each technique, so that an interrupted sweep continues here
                _keep(file, pd.concat(known.values(), ignore_index=True), digest)
    return pd.concat([known[technique] for technique in plan.names], ignore_index=True)


def _digest_of(trace: Trace, plan: Plan) -> str:
    """Return a digest of everything except the techniques that affects the points of a trace."""
    description = (trace.path / "trace.json").read_bytes()
    settings = repr((_VERSION, replace(plan, techniques=()))).encode()
    if plan.ns_per_insn is not None:  # else as before it could be given: kept points stay valid
        settings += repr(plan.ns_per_insn).encode()
    return hashlib.blake2b(description + settings, digest_size=16).hexdigest()


def _kept(file: Path, digest: str) -> list[pd.DataFrame]:
    """Return the kept points, a table for each technique; none if their digest differs."""
    if not file.exists():
        return []
    points = pd.read_parquet(file)
    if points.attrs.get("about") != digest:
        return []
    return [table for _, table in points.groupby("technique", sort=False)]


def _keep(file: Path, points: pd.DataFrame, digest: str) -> None:
    points.attrs["about"] = digest
    content = BytesIO()
    points.to_parquet(content, index=False)
    write_files(file.parent, {file.name: content.getvalue()})


def _watched(trace: Trace, plan: Plan) -> tuple[Recorded, dict[int, Truth]]:
    """Return the shared inputs of all runs on a trace: the recording, and W for each T."""
    recorded = techniques.Recorded.of(trace)
    recorded = replace(recorded, time=recorded.time.given(plan.ns_per_insn))
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
        for setting, tuned, seeds in _settings(technique, recorded, plan):
            for seed in range(seeds):
                point = _point(tuned, recorded, truth, seed)
                rows.append({"window_ns": window_ns, **setting, "seed": seed, **point})
    table = pd.DataFrame(rows, columns=["window_ns", *SETTING, "published", "seed", *_EMPTY])
    table.insert(0, "trace", recorded.name)
    table.insert(1, "technique", technique.name)
    return table.astype(dict.fromkeys(SETTING, "Int64"))


def _settings(
    technique: Technique, recorded: Recorded, plan: Plan
) -> Iterator[tuple[Json, Technique, int]]:
    """Yield each setting, the technique with that setting, and the number of its seeds."""
    seeds = plan.seeds if technique.random else 1
    yield {"looks": None, "watched": None, "published": True}, technique, seeds
    knobs = technique.knobs()
    memory = recorded.memory_pages or recorded.size
    most = (*plan.watched, None) if "watched" in knobs else (None,)
    for looks in plan.looks if "looks" in knobs else (None,) * bool(knobs):
        for watched in most:
            all_of_it = watched is None or watched >= memory
            tuned = technique.turned(looks or 1, memory if all_of_it else watched or memory)
            setting = {"looks": looks, "watched": watched, "published": False}
            yield setting, tuned, 1 if all_of_it else seeds


_EMPTY: Json = {
    "mae": np.nan,
    "bias": np.nan,
    "says": np.nan,
    "events": "{}",
    "duration_ns": 0,
    "ns_per_insn": np.nan,
    "simulated": False,
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
        "simulated": run.simulated,
        "missing": "",
        "notes": "; ".join(run.notes),
    }
