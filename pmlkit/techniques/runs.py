# SPDX-License-Identifier: Apache-2.0
"""Running a technique on a recorded VM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from pmlkit.techniques.costs import overhead_ns
from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.view import look
from pmlkit.units import parse_duration_ns

if TYPE_CHECKING:
    from pmlkit.techniques.recorded import Recorded


__all__ = ["LONGEST_NS", "Run", "run", "time_scale"]

LONGEST_NS = 30_000_000_000  # the longest interval that a source uses: VMware's 30 s of VM time


@dataclass(frozen=True)
class Run:
    """What a technique said of a VM.

    Attributes
    ----------
    technique : Technique
    seed : int
    estimates : DataFrame
        ``t_ns``, ``pages`` (NaN: nothing could be said), and the events since the row before.
    events : dict of str to int
        In all.
    overhead : float
        Share of the recording's time that the events cost, by `pmlkit.techniques.costs`.
    notes : list of str
        What was changed or assumed.
    """

    technique: Technique
    seed: int
    estimates: pd.DataFrame
    events: dict
    overhead: float
    notes: list


def time_scale(scale: str, window_ns: int) -> float:
    """Return by what published intervals are multiplied.

    Parameters
    ----------
    scale : "auto" or float
        ``"auto"``: so that the longest of them, VMware's 30 s, becomes T. A T of 30 s leaves all as
        published; recordings of seconds have to be looked at faster.
    window_ns : int

    Returns
    -------
    float
    """
    return window_ns / LONGEST_NS if scale == "auto" else float(scale)


def run(
    technique: str,
    recorded: Recorded,
    window: int | str = "1s",
    scale: str = "auto",
    seed: int = 0,
    memory=None,
) -> Run:
    """Let a technique watch a recorded VM from its start to its end.

    Parameters
    ----------
    technique : Technique or str
    recorded : Recorded
    window : str or int
        T, a duration.
    scale : "auto" or float
        See `time_scale`.
    seed : int
    memory : pmlkit.techniques.memory.MemoryModel, optional

    Returns
    -------
    Run

    Raises
    ------
    NeedsError
        If the recording lacks what the technique looks at.
    """
    if isinstance(technique, str):
        from pmlkit.techniques import make

        technique = make(technique)
    window_ns = parse_duration_ns(window) if isinstance(window, str) else window
    scale = time_scale(scale, window_ns)
    view = look(recorded, technique.needs, window_ns, scale, seed, memory)
    technique.observe(view)
    estimates, events, notes = view.result()
    overhead = overhead_ns(events) / max(recorded.duration_ns, 1)
    return Run(technique, seed, estimates, events, overhead, notes)
