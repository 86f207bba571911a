# SPDX-License-Identifier: Apache-2.0
"""The experiments on reads in the lab: guests, settings and result tables.

`run` boots one guest after the other and keeps the traces; `tabulate` computes the tables for the
notebook (bundled in ``data/reads-lab``).

    python -m experiments.reads_lab FOLDER [NAME]...
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import pmlkit
from pmlkit.errors import NeedsError, PmlkitError
from pmlkit.reads import calibration, guided, hotness, judge
from pmlkit.reads.sampled import ONE_IN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pmlkit.trace.reader import Trace
    from pmlkit.types import Json, PathLike, Tell


__all__ = ["EXPERIMENTS", "Experiment", "run", "tabulate"]

TABLES = ("errors", "draws", "equality", "costs", "hotness", "sources", "unsure", "rounds")
BEFORE_WORK = ("", "start")  # phases
DRAWN = ("density", "sample")  # methods with a sample
# Methods whose intervals are calibrated on other guests.
COUNTED = ("leaves", "present", "accessed")


@dataclass(frozen=True)
class Experiment:
    """A guest and its settings.

    Attributes
    ----------
    guest : str
        Of ``pmlkit lab run --list`` or ``pmlkit record --list``.
    group : {"benchmark", "program", "adversary", "bare", "memory"}
    settings : dict of str
    memory_mib, rounds : int
    period_s : float
    clear : bool
        The hypervisor clears the guest's accessed flags at the end of each round.
    harvest : {"both", "sampled"}
        Read all accessed flags, guided and then by a scan (the truth), or a sample of them.
    """

    guest: str
    group: str
    settings: Json = field(default_factory=dict)
    memory_mib: int = 256
    rounds: int = 12
    period_s: float = 0.5
    clear: bool = False
    harvest: str = "both"


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
_LINUX = ("benchmark", "program", "adversary")
EXPERIMENTS |= {
    f"{name}-clear": replace(experiment, clear=True)
    for name, experiment in EXPERIMENTS.items()
    if experiment.group in _LINUX
} | {
    f"{name}-sampled": replace(experiment, harvest="sampled")
    for name, experiment in EXPERIMENTS.items()
    if experiment.group in ("benchmark", "program", "memory")
}


def run(
    folder: PathLike, names: Sequence[str] | None = None, progress: Tell = print
) -> dict[str, Trace]:
    """Run experiments in the lab (default: all), one after the other, unless their trace exists.

    Returns the traces by name; a failure is reported, and the others still run.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    traces = {}
    for name in names or EXPERIMENTS:
        try:
            traces[name] = _trace(folder / f"{name}.trace", EXPERIMENTS[name])
        except PmlkitError as error:
            progress(f"{name}: {error}")
        else:
            progress(f"{name}: {traces[name]}")
    return traces


def _trace(path: Path, experiment: Experiment) -> Trace:
    if path.exists():
        return pmlkit.open(path)
    from pmlkit.sources import lab

    options = lab.LabOptions(
        fast=True,
        memory_mib=experiment.memory_mib,
        rounds=experiment.rounds,
        period_s=experiment.period_s,
        settings=experiment.settings,
        page_tables="clear" if experiment.clear else "snapshot",
        slots=1024,
        harvest=experiment.harvest,
    )
    return lab.run(experiment.guest, path, options)


def tabulate(traces: Mapping[str, Trace], progress: Tell = print) -> dict[str, pd.DataFrame]:
    """Compute the tables of the experiments from the traces of `run`.

    Returns
    -------
    dict of str to DataFrame
        ``errors``: a row per guest, whether its flags were cleared, phase and method
        (`judge.by_phase`), and over the phases of its work ("work", without the start of a program,
        when little is stale); ``density`` and ``sample`` over all draws. ``draws``: of these two, a
        row for each draw and round. The intervals of
        ``leaves``, ``present`` and ``accessed`` are learned from the other guests only. So are the
        uncertain pages of ``accessed`` where flags were cleared.
        ``equality`` and ``costs``: a row per guest and round (`guided`; ``sampled``: its scan was
        of a sample). ``hotness``: scores, a row per guest, truth, window and ranking. ``sources``:
        why (c) errs, a row per guest and phase. ``unsure`` and ``rounds``: input of
        `calibration.calibrate`.
    """
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    linux = {
        n: trace
        for n, trace in traces.items()
        if EXPERIMENTS[n].group in _LINUX and EXPERIMENTS[n].harvest == "both"
    }
    # No calibration on adversarial guests: their unmapped pages are not reads of the kernel.
    teachers = {n: trace for n, trace in linux.items() if EXPERIMENTS[n].group != "adversary"}
    tables["unsure"] = [_labelled(n, judge.unsure(trace)) for n, trace in teachers.items()]
    tables["rounds"] = [_rounds(n, trace, tables["unsure"]) for n, trace in linux.items()]
    for name, trace in traces.items():
        others = (
            [_others(name, tables[table]) for table in ("unsure", "rounds")]
            if name in linux
            else []
        )
        results = _tables(trace, others, EXPERIMENTS[name].clear)
        for table, rows in results.items():
            tables[table].append(_labelled(name, rows))
        progress(f"{name}: done")
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items() if parts}


def _labelled(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    experiment = EXPERIMENTS[name]
    guest = name.removesuffix("-clear").removesuffix("-sampled")
    labels: Json = {"guest": guest, "group": experiment.group, "cleared": experiment.clear}
    return rows.assign(**labels)[[*labels, *rows.columns]]


def _tables(trace: Trace, others: Sequence[pd.DataFrame], cleared: bool) -> dict[str, pd.DataFrame]:
    """Return the tables of one trace, calibrated on `others`, which is empty for bare guests."""
    makers: dict[str, Callable[[Trace], pd.DataFrame]] = {"costs": _costs}
    if not cleared:  # the run of the same guest without clearing has these tables
        makers |= {"equality": guided.equality, "sources": judge.sources}
        if others:  # a bare guest has too few regions to rank
            makers["hotness"] = hotness.scores
    tables = {}
    # Bare guests without paging have no tables, so no errors; a sample has no truth.
    with suppress(NeedsError):
        compared = _compared(trace, others)
        tables |= {"errors": _errors(compared), "draws": _draws(compared)}
    for name, make in makers.items():
        with suppress(NeedsError):
            tables[name] = make(trace)
    return tables


def _costs(trace: Trace) -> pd.DataFrame:
    costs = guided.costs(trace).assign(memory_bytes=trace.meta.memory_bytes)
    costs["sampled"] = trace.sample is not None
    return costs.rename(columns={"cleared": "flags_cleared"})


def _others(name: str, parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of all guests but one."""
    rows = pd.concat(parts, ignore_index=True)
    return rows[rows["guest"] != name.removesuffix("-clear")]


def _rounds(name: str, trace: Trace, unsure: Sequence[pd.DataFrame]) -> pd.DataFrame:
    calibrated = calibration.calibrate(_others(name, unsure))
    compared = judge.compare(trace, COUNTED, calibrated)
    return _labelled(name, compared[["round", "phase", "method", "pages", "low", "truth"]])


def _compared(trace: Trace, others: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Judge all methods in each round; a bare guest has no others for calibration."""
    calibrated = calibration.calibrate(*others) if others else None
    methods = ("written", *COUNTED, *DRAWN)
    return judge.compare(trace, methods, calibrated, draws=range(ONE_IN))


def _draws(compared: pd.DataFrame) -> pd.DataFrame:
    """Return single rounds of each draw: pages estimated, their interval, and the truth."""
    rows = compared[compared["method"].isin(DRAWN)]
    return rows[["round", "phase", "method", "draw", "pages", "low", "high", "truth"]]


def _errors(compared: pd.DataFrame) -> pd.DataFrame:
    """Sum errors up by phase, and over the work."""
    work = compared[~compared["phase"].isin(BEFORE_WORK)].assign(phase="work")
    return pd.concat([judge.by_phase(part) for part in (compared, work)])


def main(folder: str, *names: str) -> None:
    """Run the named experiments, and write the tables of all traces in the folder."""
    run(folder, names)
    paths = {name: Path(folder) / f"{name}.trace" for name in EXPERIMENTS}
    traces = {name: pmlkit.open(path) for name, path in paths.items() if path.exists()}
    for name, table in tabulate(traces).items():
        table.to_csv(Path(folder) / f"{name}.csv", index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
