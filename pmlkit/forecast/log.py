# SPDX-License-Identifier: Apache-2.0
"""A PML log in memory, as the features read it: of a trace, or composed.

A forecast counts in equal steps of time. A trace need not have them: phase marks cut rounds, the
host's clock stretches them, and an import has gaps. `read` therefore puts each round into the step
in which it ends; the length of a step is the trace's resolution. A step without a round has nothing
logged. Where all rounds are as long as they were asked for, each round is a step.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import NeedsError, UsageError
from pmlkit.timeline import Timeline, timeline
from pmlkit.trace.kinds import is_page_table
from pmlkit.units import format_ns, parse_window

if TYPE_CHECKING:
    import pandas as pd

    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Bools, Gfns, Ints, Json

__all__ = ["Log", "read", "window_ns"]

MAX_STEPS = 10_000_000


@dataclass(frozen=True)
class Log:
    """The entries of a PML log and its rounds, which all last `round_ns`.

    Attributes
    ----------
    name : str
        The name in tables; that of a composed log starts with ``composed``.
    program : str
        The program that ran. Logs of one program are held out together.
    gfn : ndarray of uint64, shape (entries,)
        In log order.
    round : ndarray of int64, shape (entries,)
        From 0; never decreasing.
    table : ndarray of bool, shape (entries,)
        Whether the entry is known to be a page-table page.
    exits, pause_ns : ndarray of int64, shape (rounds,)
        Log-full exits, and the time for which the guest was paused.
    phase : ndarray of object, shape (rounds,)
        The phase that the workload marked, ``""`` if it marks none.
    round_ns, memory_pages : int
    day_ns : int or None
        Length of the day of a composed log, which starts at its time 0; None: not known.
    about : dict
        Options of a composed trace: how it was composed, and the source's digest.
    ns_per_insn : float or None
        How long the guest took for an instruction; None: not known.
    """

    name: str
    program: str
    gfn: Gfns
    round: Ints
    table: Bools
    exits: Ints
    pause_ns: Ints
    phase: Array
    round_ns: int
    memory_pages: int
    day_ns: int | None = None
    about: Json = field(default_factory=dict)
    ns_per_insn: float | None = None

    @property
    def n_rounds(self) -> int:
        """Number of rounds."""
        return len(self.exits)

    @property
    def composed(self) -> bool:
        """Whether recorded phases were put together by `pmlkit.forecast.compose`."""
        return "composed" in self.about

    def window_rounds(self, window: str | int) -> int:
        """Return how many rounds make a window; ResolutionError if that is no whole number."""
        n = self.n_rounds
        t_ns, used = np.arange(n + 1) * self.round_ns, np.ones(n, bool)
        steps = Timeline(self.name, t_ns, used, self.round_ns, regular=True)
        steps.size(window, longest=False)  # raises if there is no such T
        return steps.in_rounds(window)

    def digest(self) -> str:
        """Return a hexadecimal digest of the entries, which identifies the data."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.gfn.astype("<u8"), self.round.astype("<u4"), self.table):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def read(
    trace: Trace, program: str | None = None, start: int | None = None, end: int | None = None
) -> Log:
    """Read the PML log of a trace.

    Parameters
    ----------
    trace : Trace
        A PML trace, or an access trace with the log of its run.
    program : str, optional
        Logs of one program are held out together. Default: the first word of the domain's name, so
        that ``redis`` and ``redis-tides`` are one program.
    start, end : int, optional
        Read only rounds that overlap this range, ns.

    Raises
    ------
    NeedsError
        If the trace has no PML log, or its rounds have no length in time.
    UsageError
        If no round overlaps the range, or the trace has more than 10 million steps.
    """
    log = trace.pml
    round_ns = log.resolution_ns or timeline(log).resolution_ns
    if round_ns is None:
        raise NeedsError(log, "rounds of a length in time", "record with --window in ms")
    first, stop = log.rounds_between(start, end)
    if first == stop:
        raise UsageError(f"the trace {log.path} has no round between start and end: widen them")
    entries = log.entries(["round", "gfn", "kind"], start, end)
    rounds = log.rounds.iloc[first:stop]
    step, n_steps = _steps(rounds, round_ns)
    entry_step = step[entries["round"].to_numpy().astype(np.int64) - first]
    complete = entry_step < n_steps
    composed = log.meta.options.get("composed")
    return Log(
        name=trace.path.name.removesuffix(".trace"),
        program=program or _program(log, composed),
        gfn=entries["gfn"].to_numpy()[complete],
        round=entry_step[complete],
        table=is_page_table(entries["kind"].to_numpy())[complete],
        exits=_sum_by_step(rounds["exits"], step, n_steps),
        pause_ns=_sum_by_step(rounds["pause_ns"], step, n_steps),
        phase=log.phase_of_rounds()[first:stop][_rounds_at_step_ends(rounds, round_ns, n_steps)],
        round_ns=round_ns,
        memory_pages=int(log.memory_pages),
        day_ns=composed["day_ns"] if composed else None,
        about={"composed": composed} if composed else {},
        ns_per_insn=log.meta.time.ns_per_insn,
    )


def _steps(rounds: pd.DataFrame, round_ns: int) -> tuple[Ints, int]:
    """Return the step in which each round ends, and the number of complete steps.

    The end of the recording may cut a last step short: rounds that end in it are left out.
    """
    ends = rounds["t_end_ns"].to_numpy(np.int64) - int(rounds["t_start_ns"].iloc[0])
    if ends[-1] // round_ns > MAX_STEPS:
        length, step = format_ns(int(ends[-1])), format_ns(round_ns)
        raise UsageError(
            f"{length} in steps of {step} are too many to forecast: give a shorter part"
        )
    return np.maximum(-(-ends // round_ns) - 1, 0), int(ends[-1] // round_ns)


def _sum_by_step(values: pd.Series[int], step: Ints, n_steps: int) -> Ints:
    sums = np.zeros(max(n_steps, int(step[-1]) + 1), np.int64)
    np.add.at(sums, step, values.to_numpy(np.int64))
    return sums[:n_steps]


def _rounds_at_step_ends(rounds: pd.DataFrame, round_ns: int, n_steps: int) -> Ints:
    """Return the round that runs, or ends, at the end of each step."""
    starts = rounds["t_start_ns"].to_numpy(np.int64)
    ends = starts[0] + (np.arange(n_steps) + 1) * round_ns
    return np.searchsorted(starts, ends) - 1


def _program(log: Trace, composed: Json | None) -> str:
    name = composed["program"] if composed else str(log.meta.domain.get("name") or log.path.stem)
    return name.split("-")[0]


def window_ns(log: Log, window: str | int) -> int:
    """Return the length of a window (str, int or Window) of this log, ns."""
    parsed = parse_window(window)
    return parsed.ns or parsed.rounds * log.round_ns  # type: ignore[operator]
