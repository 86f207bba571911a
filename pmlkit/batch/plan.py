# SPDX-License-Identifier: Apache-2.0
"""The plan of an experiment: its runs in order, and the folder of their results.

It is separate from `runner`, because the page, which `runner` calls, also needs a plan.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit import recordings
from pmlkit.batch import expand, gather, schema
from pmlkit.batch.job import read_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.batch.expand import Job
    from pmlkit.types import Json, PathLike


RESULTS = "results.parquet"  # the table of all runs


@dataclass(frozen=True)
class Plan:
    """An experiment, its runs, and the folder of their results.

    Attributes
    ----------
    experiment : pmlkit.batch.schema.Experiment
    folder : Path
        ``results/NAME``.
    runs, summaries : list of pmlkit.batch.expand.Job
    pieces : list of pmlkit.batch.gather.Piece
        The pieces to be gathered from the runs.
    """

    experiment: schema.Experiment
    folder: Path
    runs: list[Job]
    summaries: list[Job]
    pieces: list[gather.Piece] = field(default_factory=list)

    @property
    def jobs(self) -> list[Job]:
        """Runs and summaries, in the order in which they run."""
        return self.runs + self.summaries

    def record(self, job: Job) -> Json | None:
        """Read a run's ``run.json``; None before the run."""
        return read_record(self.folder / job.id)

    def is_done(self, job: Job) -> bool:
        """Return whether a run is finished."""
        record = self.record(job)
        return record is not None and record["status"] == "done"


def plan(experiment: PathLike, out: PathLike = "results", traces: Sequence[str] = ()) -> Plan:
    """Read an experiment and expand it.

    Parameters
    ----------
    experiment : path-like
        The YAML file, or the name of a bundled one.
    out : path-like
        Folder of the results of all experiments.
    traces : sequence of str
        Bundled traces, paths or globs that replace the experiment's own; empty: its own.

    Returns
    -------
    Plan

    Raises
    ------
    pmlkit.batch.schema.ExperimentError
        If the file is wrong, or names files that do not exist; names the line.
    """
    loaded = schema.load(recordings.located(experiment, "experiments"))
    if traces:
        loaded = loaded.on(traces)
    loaded = replace(loaded, command=_command(experiment, out, traces))
    folder = Path(out).resolve() / loaded.name
    jobs = expand.expand(loaded, folder / RESULTS)
    return Plan(loaded, folder, *jobs, gather.pieces(loaded))


def _command(experiment: PathLike, out: PathLike, traces: Sequence[str]) -> str:
    """Return the command that makes such a plan and runs it."""
    words = ["pmlkit", "run", os.fspath(experiment)]
    words += ["-o", os.fspath(out)] * (os.fspath(out) != "results")
    return shlex.join([*words, *(word for trace in traces for word in ("--trace", trace))])
