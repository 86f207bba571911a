# SPDX-License-Identifier: Apache-2.0
"""The observations of a hypervisor, in memory, as input of the features: from a trace, or composed.

They are the PML log, a sample of accessed flags, or both (`INPUTS`). What the guest *used* is
separate: it is the target of a forecast's fit on recorded programs, and its judge, but no input.

A forecast counts in equal steps of time. A trace need not have them: phase marks divide rounds, the
host's clock stretches them, and an import has gaps. `read` therefore puts each round into the step
in which it ends; the length of a step is the trace's resolution. A step without a round has no
entries. If all rounds have the requested length, each round is a step.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import NeedsError, UsageError, argument
from pmlkit.kernels import by_page
from pmlkit.reads.sampled import ONE_IN, sampled
from pmlkit.recordings import name_of
from pmlkit.selection import edges, rounds_of, times_ns
from pmlkit.timeline import Timeline, timeline
from pmlkit.trace.kinds import is_page_table
from pmlkit.trace.schema import DRAWN, SAMPLED
from pmlkit.units import exact_ns, format_ns, parse_window

if TYPE_CHECKING:
    import pandas as pd

    from pmlkit.kernels.by_page import References
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Bools, Gfns, Ints, Json

__all__ = ["INPUTS", "Log", "best_inputs", "check_inputs", "read", "step_of", "window_ns"]

MAX_STEPS = 10_000_000
# Inputs of a forecast: PML's log; the log and a sample of accessed flags; the sample alone.
INPUTS = ("pml", "pml+sample", "sample")


@dataclass(frozen=True)
class Log:
    """The entries of a PML log and its rounds, which all last `round_ns`.

    Attributes
    ----------
    name : str
        The name in tables; that of a composed log starts with ``composed``.
    program : str
        The program that ran. Logs of one program are left out together.
    gfn : ndarray of uint64, shape (entries,)
        In log order.
    round : ndarray of int64, shape (entries,)
        From 0; never decreasing.
    table : ndarray of bool, shape (entries,)
        Whether the entry is a known page-table page.
    exits, pause_ns : ndarray of int64, shape (rounds,)
        Log-full exits, and the time for which the guest was paused.
    phase : ndarray of object, shape (rounds,)
        The phase that the workload marked, ``""`` if it marks none.
    round_ns, memory_pages : int
    day_ns : int or None
        Length of the day of a composed log, which starts at its time 0; None if unknown.
    about : dict
        Options of a composed trace: how it was composed, and the source's digest.
    ns_per_insn : float or None
        Length of an instruction in the guest; None if unknown.
    inputs : str
        One of `INPUTS`: which of the entries and of `touched` are input of the features.
    touched : References or None
        The frames of the sample whose accessed flag was found set, by round; None without a sample.
    one_in : int
        Frames of memory per frame of the sample.
    used : References or None
        All accesses, by round: the truth; None if unknown.
    lost : str
        What the trace lost (`TraceMeta.loss_note`); empty if nothing.
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
    inputs: str = "pml"
    touched: References | None = None
    one_in: int = ONE_IN
    used: References | None = None
    lost: str = ""

    @property
    def measures(self) -> str:
        """The forecast quantity: ``used``, ``used`` according to the sample, or what is written."""
        if self.used is not None:
            return "used"
        return "used (sampled)" if self.inputs != "pml" else "written"

    @property
    def n_rounds(self) -> int:
        """Number of rounds."""
        return len(self.exits)

    @property
    def composed(self) -> bool:
        """Whether `pmlkit.forecast.compose` combined it from recorded phases."""
        return "composed" in self.about

    def window_rounds(self, window: str | int) -> int:
        """Return the number of rounds of a window; ResolutionError if it is not a whole number."""
        n = self.n_rounds
        t_ns, used = np.arange(n + 1) * self.round_ns, np.ones(n, bool)
        steps = Timeline(self.name, t_ns, used, self.round_ns, regular=True)
        steps.size(window, longest=False)  # raises if there is no such T
        return steps.in_rounds(window)

    def digest(self) -> str:
        """Return a hexadecimal digest of the inputs, which identifies the data."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.gfn.astype("<u8"), self.round.astype("<u4"), self.table):
            digest.update(np.ascontiguousarray(part).tobytes())
        if self.inputs != "pml" and self.touched is not None:
            digest.update(self.inputs.encode() + self.touched.gfn.tobytes())
            digest.update(self.touched.round.tobytes())
        return digest.hexdigest()


def check_inputs(inputs: str) -> None:
    """Raise UsageError unless `inputs` is one of `INPUTS`."""
    if inputs not in INPUTS:
        raise UsageError(f"the inputs {inputs!r} are not known: use {', '.join(INPUTS)}")


def best_inputs(trace: Trace) -> str:
    """Return the richest of `INPUTS` that a trace supports."""
    return "pml" if trace.meta.kind == "pml" and trace.sample is None else "pml+sample"


def step_of(trace: Trace, window: str | int, parts: int) -> int | None:
    """Return the step, ns, that divides a window into `parts`; None if rounds do not allow it."""
    length, round_ns = parse_window(window).ns, trace.pml.resolution_ns
    if length is None or round_ns is None or length % (parts * round_ns):
        return None
    return length // parts


def read(
    trace: Trace,
    program: str | None = None,
    start: str | int | None = None,
    end: str | int | None = None,
    inputs: str = "pml",
    step_ns: int | None = None,
    phase: str | None = None,
    between: tuple[str, str] | None = None,
) -> Log:
    """Read the PML log of a trace; of an access trace, also the used frames and a sample of them.

    Parameters
    ----------
    trace : Trace
        A PML trace, or an access trace with the log of its run.
    program : str, optional
        Logs of one program are left out together. Default: the first word of the domain's name, so
        that ``redis`` and ``redis-tides`` are one program.
    start, end, phase, between
        The part of the trace: see `pmlkit.selection`.
    inputs : str
        One of `INPUTS`. The sample is Xen's draw 0: the same frames in every round.
    step_ns : int, optional
        Length of a step; default: the trace's resolution, which is also the minimum.

    Raises
    ------
    NeedsError
        If the trace has no PML log, no rounds, or rounds without times, or if `inputs` needs a
        fixed sample of accessed flags and the trace has none.
    UsageError
        If no round overlaps the range, or the trace has more than 10 million steps.
    """
    start, end = edges(start, end, phase, between)
    check_inputs(inputs)
    log = trace.pml
    round_ns = step_ns or log.resolution_ns or timeline(log).resolution_ns
    if round_ns is None:
        raise NeedsError(
            log, "rounds with a length in time", "record with `pmlkit record --window 10ms`"
        )
    start_ns, end_ns = times_ns(trace, start, end)
    first, stop = rounds_of(log, start_ns, end_ns)
    if first == stop:
        raise NeedsError(log, "rounds", "record it for longer")
    entries = log.entries(["round", "gfn", "kind"], start_ns, end_ns)
    rounds = log.rounds.iloc[first:stop]
    step, n_steps = _steps(rounds, round_ns)
    entry_step = step[entries["round"].to_numpy().astype(np.int64) - first]
    complete = entry_step < n_steps
    composed = log.meta.options.get("composed")
    touched, one_in, used = _accesses(trace, inputs, (start_ns, end_ns), round_ns)
    return Log(
        name=name_of(trace.path),
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
        inputs=inputs,
        touched=touched,
        one_in=one_in,
        used=used,
        lost=log.meta.loss_note or trace.meta.loss_note,
    )


def _accesses(
    trace: Trace, inputs: str, span: tuple[int | None, int | None], round_ns: int
) -> tuple[References | None, int, References | None]:
    """Return the sample's accessed frames, its rate (one frame in N), and the used frames."""
    if trace.meta.kind == "access":
        used = _by_step(trace, span, round_ns)
        found = used.select(sampled(used.gfn, ONE_IN)) if inputs != "pml" else None
        return found, ONE_IN, used
    if inputs == "pml":
        return None, ONE_IN, None
    if trace.sample is None or trace.sample.meta.options.get(DRAWN) == "round":
        raise NeedsError(
            trace,
            "fixed sample of accessed flags",
            f"use {argument('inputs', 'pml')}, or log with `pmlkit collect --harvest sampled "
            "--draw fixed`",
        )
    one_in: int = trace.sample.meta.options[SAMPLED]
    return _by_step(trace.sample, span, round_ns), one_in, None


def _by_step(trace: Trace, span: tuple[int | None, int | None], round_ns: int) -> References:
    """Return the distinct frames of each step of a trace; a part at a time, to save memory."""
    first, stop = trace.rounds_between(*span)
    step, n_steps = _steps(trace.rounds.iloc[first:stop], round_ns)
    parts: list[References] = []
    for entries in trace.iter_entries(["round", "gfn"], *span):
        steps = step[entries["round"].to_numpy().astype(np.int64) - first]
        complete = steps < n_steps
        gfns = entries["gfn"].to_numpy()[complete]
        parts.append(by_page.references(steps[complete], gfns, n_steps, distinct=True))
    gfns = np.concatenate([part.gfn for part in parts] or [np.zeros(0, np.uint64)])
    steps = np.concatenate([part.round for part in parts] or [np.zeros(0, np.int64)])
    order = np.argsort(steps, kind="stable")
    return by_page.references(steps[order], gfns[order], n_steps, distinct=True)


def _steps(rounds: pd.DataFrame, round_ns: int) -> tuple[Ints, int]:
    """Return the step in which each round ends, and the number of complete steps.

    The end of the recording may cut a last step short: rounds that end in it are left out.
    """
    ends = rounds["t_end_ns"].to_numpy(np.int64) - int(rounds["t_start_ns"].iloc[0])
    if ends[-1] // round_ns > MAX_STEPS:
        length, step = format_ns(int(ends[-1])), exact_ns(round_ns)
        raise UsageError(
            f"{length} in steps of {step} are too many for a forecast: select a shorter part"
        )
    return np.maximum(-(-ends // round_ns) - 1, 0), int(ends[-1] // round_ns)


def _sum_by_step(values: pd.Series[int], step: Ints, n_steps: int) -> Ints:
    sums = np.zeros(max(n_steps, int(step[-1]) + 1), np.int64)
    np.add.at(sums, step, values.to_numpy(np.int64))
    return sums[:n_steps]


def _rounds_at_step_ends(rounds: pd.DataFrame, round_ns: int, n_steps: int) -> Ints:
    """Return the round that is under way, or ends, at the end of each step."""
    starts = rounds["t_start_ns"].to_numpy(np.int64)
    ends = starts[0] + (np.arange(n_steps) + 1) * round_ns
    return np.searchsorted(starts, ends) - 1


def _program(log: Trace, composed: Json | None) -> str:
    name = composed["program"] if composed else log.meta.domain["name"]
    return name.split("-")[0]


def window_ns(log: Log, window: str | int) -> int:
    """Return the length of a window (str, int or Window) of this log, ns."""
    parsed = parse_window(window)
    return parsed.ns or parsed.rounds * log.round_ns  # type: ignore[operator]
