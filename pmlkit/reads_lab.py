# SPDX-License-Identifier: Apache-2.0
"""The experiments on reads in the lab: which guests, how they are run, the tables that come out.

`run` boots one guest after the other and keeps the traces; `tabulate` makes the tables of them
that the notebook shows; `load` reads those that come with pmlkit (``data/reads-lab``).

    python -m pmlkit.reads_lab FOLDER [NAME]...
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import pmlkit
from pmlkit import hotness, reads_density, reads_guided, reads_sources, reads_table
from pmlkit.errors import NeedsError, PmlkitError, TraceNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from pmlkit.trace import Trace
    from pmlkit.types import Json, PathLike, Tell


__all__ = ["EXPERIMENTS", "Experiment", "load", "run", "tabulate"]

TABLES = ("errors", "equality", "costs", "hotness", "sources")
EVERY = 4  # of the rounds, one may be harvested for the model (d): the runs are short
_PML = {"flags": ("tables", "snapshots", "accessed"), "slots": 1024}
FIXED_MIB = 8  # the working set of the experiments on cost
WINDOWS = ("1r", "5r")  # of the rankings of hot regions


@dataclass(frozen=True)
class Experiment:
    """A guest and how it is run.

    Attributes
    ----------
    guest : str
        Of ``pmlkit lab run --list`` or ``pmlkit record --list``.
    group : {"benchmark", "program", "adversary", "bare", "memory"}
    settings : dict of str
    memory_mib, rounds : int
    period_s : float
    """

    guest: str
    group: str
    settings: Json = field(default_factory=dict)
    memory_mib: int = 256
    rounds: int = 12
    period_s: float = 0.5


_SMALL = {"size_mib": "32", "phase_ms": "1500"}
EXPERIMENTS = {
    "rrww": Experiment("rrww", "benchmark", _SMALL, 128, 13),
    "rwrw": Experiment("rwrw", "benchmark", _SMALL, 128, 13),
    "wwrr": Experiment("wwrr", "benchmark", _SMALL, 128, 13),
    "redis": Experiment(
        "redis", "program", {"keys": "3000", "gets": "10000", "few": "300", "idle_s": "1"}
    ),
    "sqlite": Experiment("sqlite", "program", {"purchases": "2000", "lookups": "300"}),
    "python": Experiment(
        "numpy",
        "program",
        {"matrix": "128", "products": "2", "numbers": "200000", "decomposed": "60"},
        320,
        60,
    ),
    "gcc": Experiment("gcc", "program", {"level": "0"}, 320, 16),
    "sparse": Experiment("sparse", "adversary", {"size_mib": "32", "phase_ms": "1000"}),
    "largepages": Experiment("largepages", "adversary", {"size_mib": "32", "phase_ms": "1000"}),
    "forks": Experiment("forks", "adversary", {"processes": "32", "rounds": "30"}),
    "remap": Experiment("remap", "adversary", {"cycles": "12"}),
    "moving": Experiment("moving", "adversary", {"size_mib": "32", "ticks": "80"}),
    "known": Experiment("known", "bare", {}, 64, 6),
    "rewrites": Experiment("rewrites", "bare", {}, 64, 6),
    "ordered": Experiment("ordered", "bare", {}, 64, 6),
    "vcpus": Experiment("vcpus", "bare", {}, 64, 6),
    "reads-2": Experiment("reads", "bare", {"levels": "2"}, 64, 6),
    "reads-3": Experiment("reads", "bare", {"levels": "3"}, 64, 6),
    "reads-4": Experiment("reads", "bare", {"levels": "4"}, 64, 6),
    "touch": Experiment("touch", "bare", {}, 64, 6),
    "touch-large": Experiment("touch", "bare", {"large": "1"}, 64, 6),
    **{
        f"memory-{mib}": Experiment("reads", "memory", {"levels": "4"}, mib, 6)
        for mib in (64, 128, 256, 512, 1024, 2048, 4096)
    },
}


def run(
    folder: PathLike, names: Sequence[str] | None = None, progress: Callable[..., Any] = print
) -> dict[str, Trace]:
    """Run experiments in the lab, one after the other; what is there already is kept.

    Parameters
    ----------
    folder : path-like
        For the traces, ``NAME.trace``.
    names : sequence of str, optional
        Of `EXPERIMENTS`; default: all.
    progress : callable

    Returns
    -------
    dict of str to Trace
        Those that came out; a failure is told and the rest goes on.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in names or EXPERIMENTS:
        try:
            found[name] = _one(folder / f"{name}.trace", EXPERIMENTS[name])
        except PmlkitError as error:
            progress(f"{name}: {error}")
        else:
            progress(f"{name}: {found[name]}")
    return found


def _one(path: Path, experiment: Experiment) -> Trace:
    if path.exists():
        return pmlkit.open(path)
    from pmlkit.sources import lab

    options = lab.LabOptions(
        fast=True,
        memory_mib=experiment.memory_mib,
        rounds=experiment.rounds,
        period_s=experiment.period_s,
        settings=experiment.settings,
        pml=_PML,
        harvest="both",
    )
    return lab.run(experiment.guest, path, options)


def tabulate(traces: Mapping[str, Trace], progress: Tell = print) -> dict[str, pd.DataFrame]:
    """Make the tables of the experiments.

    Parameters
    ----------
    traces : dict of str to Trace
        From `run`.

    Returns
    -------
    dict of str to DataFrame
        ``errors``: a row per guest, phase and method (`reads_table.by_phase`). ``density`` has
        a model learnt from the other guests and looks at the harvest of one round in `EVERY`;
        ``own`` has learnt from those rounds only, ``transfer`` from the other guests only.
        ``equality`` and ``costs``: a row per guest and round (`reads_guided`). ``hotness``:
        scores, a row per guest, truth, window and way of ranking. ``sources``: why (c) errs, a
        row per guest and phase.
    """
    made: Any = {name: [] for name in TABLES}
    lessons = {n: _lessons(trace) for n, trace in traces.items() if _teaches(n)}
    for name, trace in traces.items():
        others = [lesson for n, lesson in lessons.items() if n != name]
        for table, rows in _tables(name, trace, others).items():
            rows.insert(0, "guest", name)
            rows.insert(1, "group", EXPERIMENTS[name].group)
            made[table].append(rows)
        progress(f"{name}: done")
    return {name: pd.concat(parts, ignore_index=True) for name, parts in made.items() if parts}


def _lessons(trace: Trace) -> tuple[pd.DataFrame, ...]:
    """Return what a model learns of a guest: with its own earlier harvests, and without any."""
    return tuple(reads_density.lessons(trace, priors=priors) for priors in (True, False))


def _tables(name: str, trace: Trace, others: Any) -> dict[str, pd.DataFrame]:
    found = {}
    makers = {
        "equality": lambda: reads_guided.equality(trace),
        "costs": lambda: reads_guided.costs(trace).assign(memory_bytes=trace.meta.memory_bytes),
        "errors": lambda: _errors(name, trace, others),
        "hotness": lambda: _scores(trace),
        "sources": lambda: reads_sources.sources(trace),
    }
    for table, make in makers.items():
        try:
            found[table] = make()  # type: ignore[no-untyped-call]
        except NeedsError:
            continue  # bare guests without paging have no tables, and no errors to show
    return found


def _errors(name: str, trace: Trace, others: Any) -> pd.DataFrame:
    parts = [reads_table.compare(trace, ("written", "leaves", "present", "accessed"))]
    if others and _teaches(name):
        own = {"rounds": range(0, trace.n_rounds, EVERY)}
        models = [reads_density.fit_lessons([pair[i] for pair in others]) for i in (0, 1)]
        for method, how in {
            "own": own,
            "density": own | {"model": models[0]},
            "transfer": {"rounds": (), "model": models[1]},
        }.items():
            learnt = reads_table.compare(trace, ("density",), **how)  # type: ignore[arg-type]
            parts.append(learnt.assign(method=method))
    return reads_table.by_phase(pd.concat(parts, ignore_index=True))


def _teaches(name: str) -> bool:
    return EXPERIMENTS[name].group in ("benchmark", "program", "adversary")


def _scores(trace: Trace) -> pd.DataFrame:
    """Score rankings by the first logs in windows: of a round, and of several that count as one.

    The truth looks at every round. So in windows of several rounds it knows more than the ranking,
    which sees one log of a table in each, as if it had been re-armed but once.
    """
    rows = []
    for what in ("rounds", "pages"):
        truth = hotness.touches(trace, what)
        for window in WINDOWS:
            for by in ("place", "share"):
                score = hotness.score(hotness.rank(trace, window, by), truth)
                told = (what, window, by)
                rows.append((*told, score.correlation, score.precision, score.k, score.regions))
    names = ["truth", "window", "by", "correlation", "precision", "k", "regions"]
    return pd.DataFrame(rows, columns=names)


def load(name: str) -> pd.DataFrame:
    """Read a table of the lab's experiments that comes with pmlkit.

    Parameters
    ----------
    name : {"errors", "equality", "costs", "hotness", "sources"}

    Returns
    -------
    DataFrame

    Raises
    ------
    TraceNotFound
        If it is not there.
    """
    folder = Path(pmlkit.bundled("rrww-lab")).parent / "reads-lab"
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise TraceNotFound(path, "make it: python -m pmlkit.reads_lab FOLDER")
    table = pd.read_csv(path)
    return table.fillna({"phase": ""}) if "phase" in table else table


def main(arguments: Sequence[str] | None) -> int:
    """Run the experiments named, and write the tables of all that the folder holds."""
    folder, *names = arguments  # type: ignore[misc]
    run(folder, names)
    there = {n: pmlkit.open(p) for n in EXPERIMENTS if (p := Path(folder) / f"{n}.trace").exists()}
    for name, table in tabulate(there).items():
        table.to_csv(Path(folder) / f"{name}.csv", index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
