# SPDX-License-Identifier: Apache-2.0
"""Compose long logs from recorded phases: daily, bursty and random-walk loads.

An emulated guest cannot be recorded for hours. Instead, the phases of one recorded program (or
pieces of it, if it marks none) are concatenated in an order that follows a given load. The content
of a piece is recorded; the order of the pieces, and transitions between them, are not. The name of
such a log starts with ``composed``, and its traces have the source ``composed``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.errors import PmlkitError, UsageError, argument
from pmlkit.forecast import features
from pmlkit.forecast.forecaster import WARM_UP, Sample
from pmlkit.forecast.log import window_ns
from pmlkit.recordings import bundled
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace
from pmlkit.trace.schema import PAGE_SIZE, TraceMeta
from pmlkit.trace.writer import TraceWriter
from pmlkit.units import check_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.forecast.log import Log
    from pmlkit.types import Floats, PathLike

__all__ = [
    "LOAD_TRACES",
    "PATTERNS",
    "compose",
    "composed_of",
    "load_traces",
    "long_enough",
    "pieces",
    "sample",
    "write",
]

DAY_HOURS = 24
LONGEST_HOURS = 8784  # of a year
SHORTEST_NS, LONGEST_NS = 1_000_000_000, 6_000_000_000  # of a piece


def daily(hours: int, random: np.random.Generator) -> Floats:
    """Return a load that is low at night, high by day, dips at noon and is lower at weekends."""
    hour = np.arange(hours) % DAY_HOURS
    day = np.arange(hours) // DAY_HOURS % 7
    wave = 0.5 - 0.5 * np.cos(2 * np.pi * (hour - 3) / DAY_HOURS)
    wave = wave - 0.25 * np.exp(-((hour - 13) ** 2) / 2)
    return np.clip(wave * np.where(day >= 5, 0.6, 1) + random.normal(0, 0.08, hours), 0, 1)


def bursty(hours: int, random: np.random.Generator) -> Floats:
    """Return a low load with bursts of a few hours that begin at random times."""
    load, left = np.empty(hours), 0
    for hour in range(hours):
        if left == 0 and random.random() < 0.12:
            left = 1 + int(random.exponential(2.5))
        load[hour] = random.uniform(0.75, 1) if left else random.uniform(0, 0.3)
        left = max(left - 1, 0)
    return load


def walk(hours: int, random: np.random.Generator) -> Floats:
    """Return a random walk between 0 and 1, reflected at both."""
    steps = np.cumsum(random.normal(0, 0.12, hours)) + random.random()
    return 1 - np.abs(1 - steps % 2)


# Loads per hour, 0 to 1.
PATTERNS = {"daily": daily, "bursty": bursty, "walk": walk}


def pieces(log: Log) -> list[tuple[int, int]]:
    """Divide a log into pieces: its phases, long ones divided, short ones joined to the next.

    Returns the first round of each piece, and the end of the last one (exclusive).
    """
    marks = np.flatnonzero(log.phase[1:] != log.phase[:-1]) + 1
    shortest = max(SHORTEST_NS // log.round_ns, 1)
    longest = max(LONGEST_NS // log.round_ns, shortest)
    edges = [0]
    for mark in [*marks, log.n_rounds]:
        while mark - edges[-1] > longest:
            edges.append(edges[-1] + int(longest))
        if mark - edges[-1] >= shortest:
            edges.append(int(mark))
    return list(zip(edges[:-1], edges[1:], strict=True))


def compose(
    log: Log, pattern: str, hours: int = 48, hour_ns: int = 10_000_000_000, seed: int = 0
) -> Log:
    """Compose a log by a pattern.

    For each hour, pieces are drawn until the hour is full. The rank of a piece by load (pages
    logged per round) is near the pattern's load. A piece that does not fit is cut at the hour's
    end.

    Parameters
    ----------
    log : Log
        A recorded log.
    pattern : {"daily", "bursty", "walk"}
    hours : int
    hour_ns : int
        Length of an "hour", much shorter than a real one, so that a log contains a day.
    seed : int

    Returns
    -------
    Log
        Named ``composed PATTERN of NAME``; its phases are ``hour N: NAME OF THE PHASE``.

    Raises
    ------
    UsageError
        If the pattern does not exist, or the log is itself composed.
    """
    if pattern not in PATTERNS:
        raise UsageError(f"there is no pattern {pattern!r}: choose from {', '.join(PATTERNS)}")
    check_count("hours", hours, "hours")
    if hours > LONGEST_HOURS:
        raise UsageError(f"{hours:,} hours are too many: give at most {LONGEST_HOURS:,}, a year")
    if log.composed:
        raise UsageError(f"{log.name} is already composed: compose from a recording")
    spans, phase = _spans(log, pattern, hours, hour_ns, seed)
    day_ns = DAY_HOURS * hour_ns
    composed = {
        "pattern": pattern,
        "of": log.name,
        "program": log.program,
        "hours": hours,
        "hour_ns": hour_ns,
        "day_ns": day_ns,
        "seed": seed,
        "of_digest": log.digest(),
    }
    return replace(
        _join(log, spans),
        name=f"composed {pattern} of {log.name}",
        phase=np.array(phase, object),
        day_ns=day_ns if pattern == "daily" else None,
        about={"composed": composed},
    )


def _spans(
    log: Log, pattern: str, hours: int, hour_ns: int, seed: int
) -> tuple[list[tuple[int, int]], list[str]]:
    """Draw the spans of rounds that follow a pattern; return them and each round's phase."""
    random = np.random.default_rng(seed)
    loads = PATTERNS[pattern](hours, random)
    ranked = _by_load(log)
    spans, phase = [], []
    for hour, load in enumerate(loads):
        left = hour_ns // log.round_ns
        while left > 0:
            rank = load * (len(ranked) - 1) + random.normal(0, 0.08 * len(ranked))
            first, stop = ranked[int(np.clip(round(rank), 0, len(ranked) - 1))]
            stop = min(stop, first + left)
            spans.append((first, stop))
            phase += [f"hour {hour % DAY_HOURS}: {log.phase[first]}"] * (stop - first)
            left -= stop - first
    return spans, phase


def _by_load(log: Log) -> list[tuple[int, int]]:
    """Return the pieces from the lightest to the heaviest."""
    spans = pieces(log)
    counts = np.bincount(log.round, minlength=log.n_rounds)
    loads = [counts[first:stop].mean() for first, stop in spans]
    return [spans[i] for i in np.argsort(loads, kind="stable")]


def _join(log: Log, spans: Sequence[tuple[int, int]]) -> Log:
    """Concatenate spans of rounds of a log."""
    edges = np.searchsorted(log.round, np.array(spans))
    starts = np.cumsum([0, *(stop - first for first, stop in spans)])[:-1]
    entries = np.concatenate([np.arange(a, b) for a, b in edges])
    entry_rounds = [
        log.round[a:b] - first + start
        for (a, b), (first, _), start in zip(edges, spans, starts, strict=True)
    ]
    rounds = np.concatenate([np.arange(first, stop) for first, stop in spans])
    return replace(
        log,
        gfn=log.gfn[entries],
        round=np.concatenate(entry_rounds),
        table=log.table[entries],
        exits=log.exits[rounds],
        pause_ns=log.pause_ns[rounds],
        inputs="pml",
        touched=None,
        used=None,  # only the written pages are concatenated
    )


def write(log: Log, path: PathLike, overwrite: bool = False) -> Trace:
    """Write a composed log as a PML trace, whose name must start with ``composed``.

    Raises
    ------
    UsageError
        If the log is not composed, or the name does not start so.
    OutputExists, OutputError
    """
    if not log.composed:
        raise UsageError(f"{log.name} is not composed: copy the recording's folder instead")
    if not Path(path).name.startswith("composed"):
        raise UsageError(f"the trace {path} is composed: its name must start with this word")
    ends = (np.arange(log.n_rounds) + 1) * log.round_ns
    entries = np.bincount(log.round, minlength=log.n_rounds)
    times = {
        "round": np.arange(log.n_rounds),
        "t_start_ns": ends - log.round_ns,
        "t_end_ns": ends,
    }
    rounds = pd.DataFrame(times).assign(
        asked_ns=log.round_ns, exits=log.exits, pause_ns=log.pause_ns
    )
    batch = np.cumsum(entries > 0) - 1  # rounds without an entry have no batch
    batches = pd.DataFrame({"batch": batch, **times, "reason": "round", "entries": entries})
    batches = batches[entries > 0]
    kind = np.where(log.table, int(Kind.PAGE_TABLE | 1), int(Kind.WRITE))
    with TraceWriter(path, _meta(log), overwrite=overwrite) as writer:
        writer.add_entries(log.round, batch[log.round], 0, log.gfn, kind)
        writer.set_rounds(rounds)
        writer.set_batches(batches)
    return Trace.open(path)


def _meta(log: Log) -> TraceMeta:
    starts = [0, *(np.flatnonzero(log.phase[1:] != log.phase[:-1]) + 1)]
    size = log.memory_pages * PAGE_SIZE
    return TraceMeta(
        kind="pml",
        source="composed",
        domain={"name": log.name, "memory_bytes": size, "vcpus": 1},
        memory_map=[{"start": 0, "end": size, "type": "usable"}],
        clock={"kind": "icount", "ns_per_insn": log.ns_per_insn},
        period={"ns": log.round_ns},
        phases=[
            {"name": log.phase[r], "round": int(r), "t_ns": int(r) * log.round_ns, "insn": -1}
            for r in starts
        ],
        options=log.about,
        notes=[f"{log.name}: recorded phases in an artificial order; no guest ran like this"],
    )


# ------------------------------------------------------------------------------
# The logs and samples of a study.

# The bundled recordings of programs under a changing load: long enough to be forecast.
LOAD_TRACES = ("gcc-jobs", "log-archive", "numpy-jobs", "redis-tides", "sqlite-batches")
COMPOSED_HOURS = 72
COMPOSED_HOUR_NS = 4_000_000_000


def load_traces() -> list[Path]:
    """Return the paths of the bundled recordings with a changing load."""
    return [bundled(name) for name in LOAD_TRACES if name in bundled()]


def sample(log: Log, window: str | int = "500ms") -> Sample:
    """Compute a log's table of features."""
    table = features.table(log, window)
    window_s = window_ns(log, window) / 1e9
    return Sample(log.name, log.program, table, window_s, log.composed, log.inputs, log.measures)


def composed_of(log: Log, pattern: str) -> Log:
    """Compose a log of the length used by a study."""
    hour_ns = COMPOSED_HOUR_NS // log.round_ns * log.round_ns
    return compose(log, pattern, COMPOSED_HOURS, hour_ns)


def long_enough(log: Log, window: str | int, horizon: int) -> Log:
    """Return the log, or raise `PmlkitError` if it has too few windows for a forecast."""
    windows, needed = log.n_rounds // log.window_rounds(window), 2 * (WARM_UP + horizon)
    if windows < needed:
        raise PmlkitError(
            f"{log.name} has {windows} windows of {window}; a forecast needs {needed} or more",
            f"give a shorter {argument('window')} or a longer recording",
        )
    return log
