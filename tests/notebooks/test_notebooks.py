# SPDX-License-Identifier: Apache-2.0
"""The notebooks: how they are stored, and that each runs from top to bottom by itself."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from factories import make_trace as write_trace
from pagetable_guest import Guest
from pagetable_guest import write_trace as pagetables_trace
from readable import assert_readable
from run_notebook import one_kernel
from tree import tracked

from pmlkit import recordings
from pmlkit.batch import notebook as notebooks
from pmlkit.batch.notebook import notebooks_folder
from pmlkit.errors import PmlkitError

NOTEBOOKS = tracked("notebooks/*.ipynb")
NAMES = [path.stem for path in NOTEBOOKS]
LONGEST_CELL = 6  # lines, imports not counted
IMPORTS = ("import ", "from ")
COMPUTING = (
    ast.For,
    ast.While,
    ast.If,
    ast.FunctionDef,
    ast.ClassDef,
    ast.Lambda,
    ast.ListComp,
    ast.DictComp,
    ast.SetComp,
    ast.GeneratorExp,
    ast.With,
    ast.Try,
    ast.Compare,
    ast.AugAssign,
)
WRITES = {
    "01_collect": ["heat", "live"],
    "02_working_set": ["kinds", "pml", "surface", "window", "wss"],
    "04_compare": ["pareto", "steps", "time"],
    "11_reproduce_prl": [],
    "06_reads_through_page_tables": [
        "costs",
        "errors",
        "host_sees",
        "hotness",
        "mechanism",
        "over_time",
    ],  # fmt: skip
    "07_miss_ratio": ["curves", "over_time"],
    "10_frontier": ["frontier", "frontier-narrow"],
    "05_figures": ["heat", "kinds", "pml", "reuse", "surface", "window", "wss"],
}

EXPLORES = {"02_working_set"}  # shows one more, which widgets would change


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebooks_are_there():
    assert set(WRITES) <= set(NAMES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_stored_without_outputs_counts_and_machine(path):
    notebook = read(path)
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert cell.outputs == [] and cell.execution_count is None
        assert set(cell.metadata) <= {"tags"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert not re.search(r"(?<!\w)/(home|root|work|tmp|Users)/", path.read_text())
    # Written as Jupyter does, so that saving it there changes nothing but what was edited.
    assert path.read_text() == nbformat.writes(notebook) + "\n"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_one_cell_has_the_parameters_and_nothing_but_literals(path):
    tagged = [
        cell for cell in code_cells(read(path)) if "parameters" in cell.metadata.get("tags", [])
    ]
    (cell,) = tagged
    statements = ast.parse(cell.source).body
    assert all(isinstance(statement, ast.Assign) for statement in statements)
    values = {s.targets[0].id: ast.literal_eval(s.value) for s in statements}
    assert {"trace", "out"} <= set(values)
    assert not Path(values["out"]).is_absolute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_cells_are_short_and_only_call(path):
    notebook = read(path)
    for cell in code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if not line.startswith(IMPORTS)]
        assert len(list(filter(None, lines))) <= LONGEST_CELL, cell.source
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, COMPUTING), cell.source
            assert not isinstance(node, ast.BinOp) or isinstance(node.op, ast.Div), cell.source
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} == {"pmlkit"}
            if isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] == "pmlkit"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_it_says_what_the_reader_sees(path):
    cells = read(path).cells
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    # What is shown has a text above it, or above the cell before.
    kinds = "".join("m" if cell.cell_type == "markdown" else "c" for cell in cells)
    assert "ccc" not in kinds


RUNS_ELSEWHERE = {"03_forecast"}  # needs longer recordings: tests/forecast/test_notebook.py


@pytest.fixture(scope="module")
def run_notebook():
    with one_kernel() as run:
        yield run


@pytest.mark.parametrize(
    "path", [p for p in NOTEBOOKS if p.stem not in RUNS_ELSEWHERE], ids=lambda p: p.stem
)
def test_it_runs(run_notebook, path, tmp_path):
    trace = FITTING.get(path.stem, small_trace)(tmp_path)
    given = {"trace": str(trace), "out": str(tmp_path / "out")} | FEWER.get(path.stem, {})
    shown = run_notebook(path, tmp_path, **given)
    written = sorted(png.stem for png in (tmp_path / "out").glob("*.png"))
    assert written == WRITES.get(path.stem, written)
    pictures = sum("image/png" in output.get("data", {}) for output in shown)
    assert pictures == len(written) + (path.stem in EXPLORES)
    assert "stderr" not in {output.get("name") for output in shown}, json.dumps(shown)[-2000:]
    assert_readable(shown)
    files = {f"out/{path.name}" for path in (tmp_path / "out").iterdir()} - NOT_LINKED
    assert files <= {target for output in shown for target in links(output)}


# Kept to go on from, for programs: the points of a frontier.
NOT_LINKED = {"out/small.points.parquet"}


def links(output):
    return re.findall(r'href="([^"]*)"', "".join(output.get("data", {}).get("text/html", "")))


def small_trace(tmp_path):
    return write_trace(
        tmp_path / "small.trace",
        rounds=120,  # longer than the windows that the notebooks ask for
        phases=[("first", 0), ("second", 40)],
        regions=[("buffer", 0, 16)],
        known=[{"phase": "first", "region": "buffer", "kind": "touched", "pages": 16}],
        guest=True,
    )


def trace_with_tables(tmp_path):
    """A harvest with the log of a guest whose page tables are known."""
    guest = Guest()
    root = guest.space()
    for page in range(600):
        guest.map(root, page, (1 << 16) + page)
    for number in range(9):
        for page in range(600):
            (guest.write if number > 5 else guest.read)(root, page)
        guest.close_round()
    phases = [("read1", 0), ("write1", 6)]
    return pagetables_trace(tmp_path / "small.trace", guest, phases=phases).path


def short_trace(tmp_path):
    """Every technique runs on it at every setting."""
    return write_trace(tmp_path / "small.trace", rounds=24, guest=True)


# Notebooks that need more of a trace than any recording has, or less.
# Notebook 01 draws a figure for each round.
FITTING = {
    "01_collect": short_trace,
    "06_reads_through_page_tables": trace_with_tables,
    "10_frontier": short_trace,
}


# What is swept is tested elsewhere: a notebook has to show it.
FEWER = {"04_compare": {"seeds": 2}, "10_frontier": {"window": "100ms"}}


def test_papermill_starts_without_what_no_notebook_needs():
    heavy = {"boto3", "pyarrow", "rfc3987_syntax"}
    ask = f"print({heavy} & {{name for name, module in sys.modules.items() if module}})"
    script = f"import sys, pmlkit.batch.papermill_process; {ask}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_if_papermill_itself_fails_its_last_words_count(tmp_path):
    executed = tmp_path / "executed.ipynb"
    executed.with_suffix(".log").write_text("Traceback\n  ...\nDeadKernelError: Kernel died\n\n")
    error = notebooks.failure(executed, "x on y", 1)
    assert (error.cell, error.message) == (None, "DeadKernelError: Kernel died")
    assert error.executed == str(tmp_path / "executed.log")


def test_where_there_are_no_notebooks_a_clone_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(recordings, "ROOT", tmp_path)
    with pytest.raises(PmlkitError, match="from a clone"):
        notebooks_folder()
