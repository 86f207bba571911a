# SPDX-License-Identifier: Apache-2.0
"""The notebook of forecasts runs on small logs of three programs, and draws its figures."""

import nbformat
from forecast_logs import make_log
from run_notebook import run_notebook

from pmlkit.batch.notebook import notebooks_folder
from pmlkit.forecast import compose

NAMES = ("gcc-jobs", "log-archive", "redis-tides")


def test_it_runs(tmp_path, monkeypatch):
    for i, name in enumerate(NAMES):
        made = compose.compose(make_log(name, seed=i), "walk", hours=30, hour_ns=2_000_000_000)
        written = compose.write(made, tmp_path / f"composed-{name}.trace")
        written.path.rename(tmp_path / f"{name}.trace")
    monkeypatch.setenv("PMLKIT_DATA", str(tmp_path))
    executed, out = tmp_path / "executed.ipynb", tmp_path / "out"
    run_notebook(notebooks_folder() / "03_forecast.ipynb", executed,
                 {"trace": "redis-tides", "out": str(out)})  # fmt: skip
    written = {png.stem for png in out.glob("*.png")}
    assert written == {"forecast", "trade-off", "calibration", "limits"}
    tables = {tex.stem for tex in out.glob("*.tex")}
    assert tables == {
        "data", "compare", "limits", "deployed", "coverage-by-log", "losses", "peaks", "pages",
    }  # fmt: skip
    cells = [c for c in nbformat.read(executed, 4).cells if c.cell_type == "code"]
    said = {o.get("name") for cell in cells for o in cell.outputs}
    assert "stderr" not in said
