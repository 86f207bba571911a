# SPDX-License-Identifier: Apache-2.0
"""The notebook of forecasts runs on small logs of three programs, and draws its figures."""

import pandas as pd
from factories import make_trace
from forecast_logs import make_log, make_used_sample
from readable import assert_readable
from run_notebook import one_kernel

from pmlkit.batch.notebook import notebooks_folder
from pmlkit.forecast import compose, trial, verdict

NAMES = ("gcc-jobs", "log-archive", "redis-tides")


def write_trial(folder):
    """Write a small trial, of rules alone, and a trace with accesses."""
    plan = trial.Plan(learners=(), rules=("last value", "percentile 96", "VPA 60"))
    samples = [
        make_used_sample(f"{name}-x", inputs, seed=i, rounds=250)
        for i, name in enumerate("abc")
        for inputs in plan.inputs
    ]
    (folder / trial.FOLDER).mkdir()
    trial.write_tables(samples, folder / trial.FOLDER / trial.TABLES)
    names = {"rule": "last value, others", "model": "percentile 96, as is"}
    chosen = pd.DataFrame(
        [{"inputs": i, "horizon": h, **names} for i in plan.inputs for h in plan.horizons]
    )
    judged = trial.judge(samples, samples, plan)
    verdict.save(verdict.of(judged, chosen, verdict.DEVELOPMENT, plan), folder / trial.FOLDER)
    make_trace(folder / "sqlite.trace", rounds=250, round_ns=100_000_000)


def test_it_runs(tmp_path, monkeypatch):
    for i, name in enumerate(NAMES):
        made = compose.compose(make_log(name, seed=i), "walk", hours=30, hour_ns=2_000_000_000)
        written = compose.write(made, tmp_path / f"composed-{name}.trace")
        written.path.rename(tmp_path / f"{name}.trace")
    write_trial(tmp_path)
    monkeypatch.setenv("PMLKIT_DATA", str(tmp_path))
    notebook, out = notebooks_folder() / "03_forecast.ipynb", tmp_path / "out"
    with one_kernel() as run:
        shown = run(notebook, tmp_path, trace="redis-tides", out=str(out))
    written = {png.stem for png in out.glob("*.png")}
    assert written == {"forecast", "idle", "runs", "calibration", "limits"}
    tables = {tex.stem for tex in out.glob("*.tex")}
    assert tables == {
        "tests", "statements", "data", "limits", "deciders", "coverage-by-log", "losses", "peaks",
        "pages",
    }  # fmt: skip
    assert "stderr" not in {output.get("name") for output in shown}
    assert_readable(shown)
