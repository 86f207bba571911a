# SPDX-License-Identifier: Apache-2.0
"""From recordings to what a study is made of: which there are, how long, composed how."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pmlkit
from pmlkit.errors import PmlkitError
from pmlkit.forecast import features
from pmlkit.forecast.compose import compose
from pmlkit.forecast.forecaster import WARM_UP, Sample
from pmlkit.forecast.log import window_ns

if TYPE_CHECKING:
    from pathlib import Path

    from pmlkit.forecast.log import Log

__all__ = ["LOAD_TRACES", "composed_of", "load_traces", "long_enough", "sample"]

# The bundled recordings of programs under a changing load: long enough to be forecast.
LOAD_TRACES = ("gcc-jobs", "log-archive", "numpy-jobs", "redis-tides", "sqlite-batches")
COMPOSED_HOURS = 72
COMPOSED_HOUR_NS = 4_000_000_000


def load_traces() -> list[Path]:
    """Return the paths of the bundled recordings under a changing load."""
    return [pmlkit.bundled(name) for name in LOAD_TRACES if name in pmlkit.bundled()]


def sample(log: Log, window: str | int = "500ms") -> Sample:
    """Make a log's table of features.

    Parameters
    ----------
    log : Log
    window : str, int or Window

    Returns
    -------
    Sample
    """
    table = features.table(log, window)
    return Sample(log.name, log.program, table, window_ns(log, window) / 1e9, log.composed)


def composed_of(log: Log, pattern: str) -> Log:
    """Compose a log of a recording, as long as a study takes it."""
    hour_ns = COMPOSED_HOUR_NS // log.round_ns * log.round_ns
    return compose(log, pattern, COMPOSED_HOURS, hour_ns)


def long_enough(log: Log, window: str | int, horizon: int) -> Log:
    """Return the log, or raise `PmlkitError` if it has too few windows for a forecast."""
    there, needed = log.n_rounds // log.window_rounds(window), 2 * (WARM_UP + horizon)
    if there < needed:
        raise PmlkitError(
            f"{log.name} has {there} windows of {window}, a forecast takes {needed} or more",
            "give a shorter --window or a longer recording",
        )
    return log
