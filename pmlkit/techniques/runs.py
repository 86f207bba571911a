# SPDX-License-Identifier: Apache-2.0
"""Run a technique on a recorded VM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.costs import work
from pmlkit.techniques.page_tables import SUBSTITUTE
from pmlkit.techniques.registry import make
from pmlkit.techniques.view import look
from pmlkit.units import parse_duration_ns

if TYPE_CHECKING:
    from pmlkit.costs import Clock, Cost
    from pmlkit.techniques.memory import MemoryModel
    from pmlkit.techniques.protocol import Technique
    from pmlkit.techniques.recorded import Recorded


__all__ = ["LONGEST_NS", "MOST_SCALE", "Run", "run", "time_scale", "within"]

LONGEST_NS = 30_000_000_000  # the longest published interval: VMware's 30 s of VM time
MOST_SCALE = 1_000_000  # with which that interval is a year


@dataclass(frozen=True)
class Run:
    """The estimates of a technique for a recorded VM.

    Attributes
    ----------
    technique : Technique
    seed : int
    estimates : DataFrame
        ``t_ns``, ``pages`` (NaN: no estimate), and the events since the previous row.
    events : dict of str to int
        In all.
    duration_ns : int
        Duration of the observation.
    time : pmlkit.costs.Clock
        The clock of that duration.
    notes : list of str
        Changes and assumptions.
    """

    technique: Technique
    seed: int
    estimates: pd.DataFrame
    events: dict[str, int]
    duration_ns: int
    time: Clock
    notes: list[str]

    @property
    def simulated(self) -> bool:
        """Whether the run used a substitute for page tables, which the recording lacks."""
        return SUBSTITUTE in self.notes

    @property
    def cost(self) -> Cost:
        """The cost of the events, by the table of prices."""
        return work(self.events)

    @property
    def overhead(self) -> float:
        """The cost of the events as a share of the recording's time.

        Raises
        ------
        ClocksDiffer
            If the recording does not contain the length of an instruction.
        """
        return self.time.share(self.cost, self.duration_ns)


def time_scale(scale: str | float, window_ns: int) -> float:
    """Return the factor for published intervals.

    ``"auto"`` scales the longest of them, VMware's 30 s, to T. With T = 30 s, nothing changes; in
    recordings of seconds, techniques must look more often.
    """
    return window_ns / LONGEST_NS if scale == "auto" else float(scale)


def run(
    technique: Technique | str,
    recorded: Recorded,
    window: str | int = "1s",
    scale: str | float = "auto",
    seed: int = 0,
    memory: MemoryModel | None = None,
) -> Run:
    """Let a technique observe a recorded VM from its start to its end.

    Parameters
    ----------
    technique : Technique or str
        Or its name.
    window : str or int
        T, a duration.
    scale : "auto" or float
        See `time_scale`.
    memory : pmlkit.techniques.memory.MemoryModel, optional
        The behaviour of a guest of changing size.

    Raises
    ------
    NeedsError
        If the recording lacks an input of the technique.
    """
    if isinstance(technique, str):
        technique = make(technique)
    window_ns = parse_duration_ns(window)
    scale = time_scale(scale, window_ns)
    view = look(recorded, technique.needs, window_ns, scale, seed, memory)
    technique.observe(view)
    estimates, events, notes = view.result()
    notes = [*notes, *recorded.losses]
    return Run(technique, seed, estimates, events, recorded.duration_ns, recorded.time, notes)


def within(run: Run, start_ns: int, end_ns: int, to_the_end: bool = False) -> Run:
    """Return the part of a run between two times since the recording's start.

    Parameters
    ----------
    to_the_end : bool
        Whether the recording ends there: events after the last estimate then count.

    Returns
    -------
    Run
        Its estimates are those of the part, and the one that is current when it begins. Events have
        the time of the estimate that follows them: those of a row count if the row is in the part.
    """
    t_ns = run.estimates["t_ns"].to_numpy()
    first = int(np.searchsorted(t_ns, start_ns, "right")) if start_ns > 0 else 0
    stop = int(np.searchsorted(t_ns, end_ns, "right"))
    table = run.estimates[first:stop]
    events: dict[str, int] = {}
    for name, total in run.events.items():
        timed = name in run.estimates
        after = total - int(run.estimates[name].sum()) if timed else total
        events[name] = (int(table[name].sum()) if timed else 0) + (after if to_the_end else 0)
    estimates = run.estimates[max(first - 1, 0) : stop]
    return replace(run, estimates=estimates, events=events, duration_ns=end_ns - start_ns)
