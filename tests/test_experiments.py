# SPDX-License-Identifier: Apache-2.0
"""The commands of the published analyses run from their traces to their tables."""

from dataclasses import replace

import numpy as np
import pandas as pd

from experiments import forecast_use, wss_bench
from pmlkit.forecast import trial, verdict
from pmlkit.frontier import sweeping
from pmlkit.trace import Kind


def test_an_interrupted_sweep_of_the_corpus_continues(make_trace, tmp_path, monkeypatch):
    (tmp_path / "corpus").mkdir()
    make_trace("corpus/a.trace", rounds=40, round_ns=25_000_000, phases=[("a", 0)])
    few = replace(wss_bench.SHORT, techniques=("prl", "idle-pages", "flag-sample"))
    monkeypatch.setitem(wss_bench.SWEEPS, "--short", ({"short": few}, wss_bench.SHORT_BUDGETS))
    given = "--short", str(tmp_path / "corpus"), str(tmp_path / "points"), str(tmp_path / "out")
    wss_bench.main(*given)
    first = pd.read_csv(tmp_path / "out" / "at-cost.csv")
    assert set(first["technique"]) == set(few.techniques)
    monkeypatch.setattr(sweeping, "_points", None)  # nothing is run again
    wss_bench.main(*given)
    assert pd.read_csv(tmp_path / "out" / "at-cost.csv").equals(first)


# With one of each kind of decider, and inputs that show what was used.
PLAN = trial.Plan(
    learners=("linear",), rules=("last value",), inputs=("pml+sample",), asked=(0.05,), folds=2
)


def test_forecasts_are_judged_from_traces(make_trace, tmp_path, capsys):
    (tmp_path / "corpus").mkdir()
    for seed, name in enumerate("abcd"):
        sizes = np.random.default_rng(seed).integers(8, 200, size=60).repeat(16)  # a second each
        events = [[(gfn, Kind.WRITE) for gfn in range(size)] for size in sizes]
        domain = {"name": name, "memory_bytes": 1 << 20, "vcpus": 1}
        make_trace(f"corpus/{name}.trace", events=events, round_ns=62_500_000, domain=domain)
    traces = sorted((tmp_path / "corpus").iterdir())
    out = tmp_path / "out"
    out.mkdir()
    forecast_use.analyse(traces[:3], None, out, tmp_path / "figures", PLAN)
    training = trial.read_tables(out / trial.TABLES)
    forecast_use.analyse(traces[3:], training, out, tmp_path / "figures", PLAN)
    for programs, names in ((verdict.DEVELOPMENT, "abc"), (verdict.HELD_OUT, "d")):
        table = pd.read_csv(out / f"{programs}-judged.csv")
        assert set(table["program"]) == set(names)
        assert len(pd.read_csv(out / f"{programs}-peaks.csv"))
    assert "model" in capsys.readouterr().out
