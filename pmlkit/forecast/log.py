# SPDX-License-Identifier: Apache-2.0
"""A PML log in memory, as the forecast's features read it: of a trace, or composed.

A forecast counts in equal steps of time. A trace need not have them: phase marks cut rounds, the
host's clock stretches them, and an import has gaps. So its rounds are put into steps of its
resolution, each into that in which it ends, and a step without one has nothing logged. Where all
rounds are as long as they were asked for, a step is a round.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import NeedsError, UsageError
from pmlkit.timeline import Timeline, timeline
from pmlkit.trace.kinds import is_page_table
from pmlkit.trace.reader import Trace
from pmlkit.trace.writer import TraceWriter
from pmlkit.units import format_ns, parse_window

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd

    from pmlkit.trace.reader import Trace
    from pmlkit.types import Ints, Json, PathLike

__all__ = ["Log", "extract", "read"]


MOST_STEPS = 10_000_000


@dataclass(frozen=True)
class Log:
    """The entries of a PML log, and what is known of its rounds, which all last `round_ns`.

    Attributes
    ----------
    name : str
        What it is called in tables; that of a composed one starts with ``composed``.
    program : str
        The program that ran, by which logs are held out together.
    gfn : ndarray of uint64, shape (entries,)
        In log order.
    round : ndarray of int64, shape (entries,)
        From 0; never decreasing.
    table : ndarray of bool, shape (entries,)
        Whether the entry is known to be a page-table page.
    exits, pause_ns : ndarray of int64, shape (rounds,)
        Log-full exits, and the time for which the guest stood still.
    phase : ndarray of object, shape (rounds,)
        The phase that the workload marked, ``""`` if it marks none.
    round_ns : int
        Length of a round.
    memory_pages : int
    day_ns : int or None
        Length of the day of a composed log, which starts at its time 0; None: not known.
    about : dict
        What else is to be kept: the source's digest, how it was composed.
    """

    name: str
    program: str
    gfn: np.ndarray
    round: np.ndarray
    table: np.ndarray
    exits: np.ndarray
    pause_ns: np.ndarray
    phase: np.ndarray
    round_ns: int
    memory_pages: int
    day_ns: int | None = None
    about: Json = field(default_factory=dict)

    @property
    def n_rounds(self) -> int:
        """Number of rounds."""
        return len(self.exits)

    @property
    def composed(self) -> bool:
        """Whether recorded phases were put together by `pmlkit.forecast.compose`."""
        return "composed" in self.about

    def window_rounds(self, window: str | int) -> int:
        """Return how many rounds make a window (str, int or Window).

        Raises
        ------
        ResolutionError
            If that is not a whole number.
        """
        n = self.n_rounds
        t_ns, used = np.arange(n + 1) * self.round_ns, np.ones(n, bool)
        steps = Timeline(self.name, t_ns, used, self.round_ns, regular=True)
        steps.size(window, longest=False)  # refused if there is no such T
        return steps.in_rounds(window)

    def before(self, stop: int) -> Log:
        """Return the log as it was when `stop` rounds were over."""
        n = np.searchsorted(self.round, stop)
        cut = {name: getattr(self, name)[:n] for name in ("gfn", "round", "table")}
        cut |= {name: getattr(self, name)[:stop] for name in ("exits", "pause_ns", "phase")}
        return replace(self, **cut)

    def digest(self) -> str:
        """Return a digest of the entries (hexadecimal), by which data is named."""
        found = hashlib.blake2b(digest_size=16)
        for part in (self.gfn.astype("<u8"), self.round.astype("<u4"), self.table):
            found.update(np.ascontiguousarray(part).tobytes())
        return found.hexdigest()


def read(
    trace: Trace, program: str | None = None, start: int | None = None, end: int | None = None
) -> Log:
    """Read the PML log of a trace.

    Parameters
    ----------
    trace : Trace
        A PML trace, or an access trace with the log of its run.
    program : str, optional
        By which logs are held out together; default: the first word of the domain's name, so that
        ``redis`` and ``redis-tides`` are one program.
    start, end : int, optional
        Only rounds that share time with this range, ns.

    Returns
    -------
    Log

    Raises
    ------
    NeedsError
        If the trace has no PML log, or its rounds have no length in time.
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
    at = step[entries["round"].to_numpy().astype(np.int64) - first]
    whole = at < n_steps
    composed = log.meta.options.get("composed")
    return Log(
        name=trace.path.name.removesuffix(".trace"),
        program=program or _program(log, composed),
        gfn=entries["gfn"].to_numpy()[whole],
        round=at[whole],
        table=is_page_table(entries["kind"].to_numpy())[whole],
        exits=_summed(step, rounds["exits"], n_steps),
        pause_ns=_summed(step, rounds["pause_ns"], n_steps),
        phase=log.phase_of_rounds()[first:stop][_under_way(rounds, round_ns, n_steps)],
        round_ns=round_ns,
        memory_pages=int(log.memory_pages),
        day_ns=composed["day_ns"] if composed else None,
        about={"composed": composed} if composed else {},
    )


def _steps(rounds: pd.DataFrame, round_ns: int) -> tuple[Ints, int]:
    """Return the step in which each round ends, and how many steps are over by the last one's end.

    A step that the end of the recording cuts short is none: what ends in it is left out.
    """
    ends = rounds["t_end_ns"].to_numpy(np.int64) - int(rounds["t_start_ns"].iloc[0])
    if ends[-1] // round_ns > MOST_STEPS:
        lasts, step = format_ns(int(ends[-1])), format_ns(round_ns)
        raise UsageError(
            f"{lasts} in steps of {step} are too many to forecast: give a shorter part"
        )
    return np.maximum(-(-ends // round_ns) - 1, 0), int(ends[-1] // round_ns)


def _summed(step: Ints, of_rounds: pd.Series[Any], n_steps: int) -> Ints:
    found = np.zeros(max(n_steps, int(step[-1]) + 1), np.int64)
    np.add.at(found, step, of_rounds.to_numpy(np.int64))
    return found[:n_steps]


def _under_way(rounds: pd.DataFrame, round_ns: int, n_steps: int) -> Ints:
    """Return which round is under way, or ends, at the end of each step."""
    starts = rounds["t_start_ns"].to_numpy(np.int64)
    ends = starts[0] + (np.arange(n_steps) + 1) * round_ns
    return np.searchsorted(starts, ends) - 1


def _program(log: Trace, composed: Any) -> str:
    name = composed["program"] if composed else str(log.meta.domain.get("name") or log.path.stem)
    return name.split("-")[0]


def window_ns(log: Log, window: str | int) -> int:
    """Return the length of a window (str, int or Window) of this log, ns."""
    asked = parse_window(window)
    return asked.ns or asked.rounds * log.round_ns  # type: ignore[operator]


# ------------------------------------------------------------------------------
# Keep a recording's PML log, and leave the accesses out: a fraction of the bytes.
#
# ``python -m pmlkit.forecast.log X.trace`` replaces the access trace X.trace by the log in it.


NOTE = "the PML log of a recording; its accesses, the ground truth, were left out"


def extract(trace: Trace, out: PathLike, overwrite: bool = False) -> Trace:
    """Write the PML log that is nested in an access trace as a trace of its own.

    Parameters
    ----------
    trace : Trace
    out : path-like
        ``NAME.trace``.
    overwrite : bool

    Returns
    -------
    Trace
        With the guest's own view, and the command of the recording with this step added.

    Raises
    ------
    NeedsError
        If there is no nested log.
    OutputExists, OutputError
    """
    if not trace.pml_is_nested:
        raise NeedsError(trace, "nested PML log", "give an access trace, as `pmlkit record` writes")
    log = trace.pml
    name = f"data/{Path(out).name}"
    made = f"{trace.meta.provenance.get('command', '')} && python -m {__spec__.name} {name}"
    provenance = {**log.meta.provenance, "command": made}
    meta = replace(log.meta, provenance=provenance, notes=[*log.meta.notes, NOTE])
    with TraceWriter(out, meta, overwrite=overwrite) as writer:
        for batch in log.iter_entries():
            columns = [batch[name].to_numpy() for name in ("round", "batch", "vcpu", "gfn", "kind")]
            writer.add_entries(*columns)
        writer.set_rounds(log.rounds)
        writer.set_batches(log.batches)
        writer.set_regions(log.regions)
        if trace.guest is not None:
            writer.set_guest(trace.guest)
    return Trace.open(out)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(extract(Trace.open(path), path, overwrite=True))
