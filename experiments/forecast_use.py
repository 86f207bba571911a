# SPDX-License-Identifier: Apache-2.0
"""Forecasts of used memory: the analysis that protocol.md fixes, on a folder of traces.

    python -m experiments.forecast_use --develop DIR -o data/forecast-use
    python -m experiments.forecast_use DIR -o data/forecast-use

The first takes access traces of the programs for development. It keeps their tables of features
(``tables.parquet``), judges every program by models and knobs of the others, and names the best
rule and the best model. The second judges access traces of other programs. All models and knobs
come from those tables, and the named model is compared with the named rule. No data of DIR is used
for training.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from experiments import made
from pmlkit import figures, progress
from pmlkit.figures import forecast as drawn
from pmlkit.forecast import features, log, pages, peaks, trial, verdict
from pmlkit.recordings import open_trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.forecast.forecaster import Sample

PEAKS_AHEAD = 4  # windows


def peaks_of(
    samples: Sequence[Sample], training: Sequence[Sample], plan: trial.Plan
) -> pd.DataFrame:
    """Judge alarms of peaks of used memory, for inputs that show the outcome."""
    tables = []
    for inputs in plan.inputs:
        held, others = ([s for s in part if s.inputs == inputs] for part in (samples, training))
        if all(one.feedback for one in held):
            found = peaks.backtest(held, PEAKS_AHEAD, training=others)
            found.insert(0, "inputs", inputs)
            tables.append(found.drop(columns="composed"))
    return pd.concat(tables, ignore_index=True)


def pages_of(traces: Sequence[Path], plan: trial.Plan) -> pd.DataFrame:
    """Judge the choice of pages from PML's log among all used pages, leaving one program out."""
    tables, programs, names = [], [], []
    for path in progress.over(traces, "pages", str):
        trace = open_trace(path)
        one = log.read(trace, step_ns=log.step_of(trace, plan.window, features.PARTS))
        tables.append(pages.candidates(one, plan.window, PEAKS_AHEAD, truth=one.used))
        programs.append(one.program)
        names.append(one.name)
    return pages.backtest(tables, programs, names)


def analyse(
    traces: Sequence[Path],
    training: Sequence[Sample] | None,
    out: Path,
    drawings: Path,
    plan: trial.Plan,
) -> None:
    """Judge all on the traces; without training samples, train on the other programs."""
    programs = verdict.DEVELOPMENT if training is None else verdict.HELD_OUT
    samples = trial.samples_of(traces, plan)
    others = samples if training is None else training
    judged = trial.judge(samples, others, plan)
    if training is None:
        trial.write_tables(samples, out / trial.TABLES)
        chosen = verdict.choose(judged, plan)
    else:
        chosen = pd.read_csv(out / "chosen.csv")
    found = verdict.of(judged, chosen, programs, plan)
    verdict.save(found, out)
    figures.save(drawn.use(found.means, chosen), drawings / f"{programs}-idle")
    figures.save(drawn.runs(found.judged, chosen), drawings / f"{programs}-runs")
    print(found.tests.to_string(index=False), found.statements.to_string(index=False), sep="\n\n")
    more = {"peaks": peaks_of(samples, others, plan)}
    if len({one.program for one in samples}) > 1:
        more["pages"] = pages_of(traces, plan)
    for name, table in more.items():
        path = out / f"{programs}-{name}.csv"
        table.to_csv(path, index=False, float_format=verdict.DIGITS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the analysis that the module describes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder of access traces")
    parser.add_argument("-o", "--out", type=Path, default=Path("data/forecast-use"))
    parser.add_argument("--figures", type=Path, default=Path("results/forecast-use"))
    parser.add_argument("--develop", action="store_true", help="choose and keep, do not hold out")
    options = parser.parse_args(arguments)
    traces = sorted(options.folder.glob("*.trace"))
    if not traces:
        parser.error(f"there is no trace in {options.folder}: give a folder of *.trace")
    options.out.mkdir(parents=True, exist_ok=True)
    training = None if options.develop else trial.read_tables(options.out / trial.TABLES)
    analyse(traces, training, options.out, options.figures, trial.Plan())
    command = f"python -m experiments.forecast_use {'--develop ' * options.develop}DIR"
    made.note(options.out / "made.json", command, {"python": platform.python_version()})


if __name__ == "__main__":
    main()
