# SPDX-License-Identifier: Apache-2.0
"""The demo: which notebooks on which traces, the page, and what happens when one fails."""

import io
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from factories import make_trace as write_trace
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from rich.console import Console

from pmlkit import cli, demo, notebooks
from pmlkit.demo import Run
from pmlkit.errors import OutputError, UsageError
from pmlkit.notebooks import NotebookError

GOOD = """\
import pandas as pd
from pmlkit import figures, views
recorded = views.load(trace)
folder = views.output_folder(out)
figures.save(figures.wss_over_time(recorded, "10ms"), folder / "wss")
figures.table(pd.DataFrame({"phase": ["<b>"], "pages": [4096]}), folder / "sizes", "A & B")"""
BAD = "x = 1\n1 / 0"


def write_notebook(folder, name, *code):
    parameters = new_code_cell('trace = "x"\nout = "y"', metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell(f"# About {name}"), parameters, *map(new_code_cell, code)]
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=spec), folder / f"{name}.ipynb")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two small traces, a notebook that works and one that fails."""
    folder = tmp_path_factory.mktemp("demo")
    for name in ("hotcold", "redis"):
        write_trace(folder / f"{name}.trace", guest=True, provenance={"command": f"make {name}"})
    write_notebook(folder, "good", GOOD)
    write_notebook(folder, "bad", BAD)
    return folder


@pytest.fixture
def use(folder, monkeypatch):
    """A function that makes the demo run these notebooks, on the bundled traces."""
    return lambda **counts: patch(monkeypatch, folder, counts)


def patch(monkeypatch, folder, counts):
    monkeypatch.setattr(demo, "NOTEBOOKS", counts)
    for module in ("demo", "demo_page", "notebooks"):
        monkeypatch.setattr(f"pmlkit.{module}.notebooks_folder", lambda: folder)
    monkeypatch.setenv("PMLKIT_DATA", str(folder))


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    """A demo of one notebook on two traces: its folder, and what it said."""
    out, console = tmp_path_factory.mktemp("made") / "out", quiet()
    with pytest.MonkeyPatch.context() as monkeypatch:
        patch(monkeypatch, folder, {"good": 2})
        assert demo.run(out, console=console) == out / "index.html"
    return out, console.file.getvalue()


def quiet():
    return Console(file=io.StringIO(), force_terminal=False)


class Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.ids = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.found += [attrs[name] for name in ("href", "src") if name in attrs]
        self.ids |= {attrs["id"]} if "id" in attrs else set()


def test_plan_prefers_what_is_bundled(monkeypatch, tmp_path):
    for name in ("a", "b", "hotcold", "redis", "rrww"):
        (tmp_path / f"{name}.trace").mkdir()
    monkeypatch.setenv("PMLKIT_DATA", str(tmp_path))
    runs = demo.plan()
    assert Run("01_collect", "hotcold") in runs
    assert {run.trace for run in runs if run.notebook == "02_working_set"} == {
        "hotcold",
        "rrww",
        "redis",
        "a",
    }
    assert len(runs) == len(set(runs)) == 8


def test_plan_takes_names_and_paths(monkeypatch, tmp_path):
    (tmp_path / "redis.trace").mkdir()
    monkeypatch.setenv("PMLKIT_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (run,) = {run for run in demo.plan(["mine/x.trace"]) if run.notebook == "01_collect"}
    assert run.trace == str(tmp_path / "mine/x.trace")
    assert run.stem == "01_collect-x"
    assert {run.trace for run in demo.plan(["redis"])} == {"redis"}


def test_without_a_trace_there_is_nothing_to_show(monkeypatch, tmp_path):
    monkeypatch.setenv("PMLKIT_DATA", str(tmp_path))
    with pytest.raises(UsageError, match="no trace"):
        demo.plan()


def test_two_traces_of_one_name_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PMLKIT_DATA", str(tmp_path))
    with pytest.raises(UsageError, match="same name"):
        demo.plan(["a/x.trace", "b/x.trace"])


def test_an_earlier_demo_is_cleared_but_nothing_else(use, tmp_path, monkeypatch):
    use(good=1)
    folder = tmp_path / "figures" / "good-redis"
    folder.mkdir(parents=True)
    for name in ("old.png", "old.tex", "mine.txt"):
        (folder / name).write_text("")
    monkeypatch.setattr(demo, "start_notebook", lambda *_: pytest.fail("not reached"))
    with pytest.raises(pytest.fail.Exception):
        demo.run(tmp_path, console=quiet())
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_the_page_shows_every_figure_and_links_only_what_is_there(made):
    out, said = made
    text = (out / "index.html").read_text()
    links = Links(text)
    assert "http" not in text  # nothing from the net
    for link in links.found:
        if link.startswith("#"):
            assert link[1:] in links.ids
        else:
            assert (out / link).is_file(), link
    figures_shown = {out / link for link in links.found if link.endswith(".png")}
    assert figures_shown == set(out.glob("figures/*/*.png")) and len(figures_shown) == 2
    written = {path for path in out.rglob("*") if path.is_file()} - {out / "index.html"}
    assert written == {out / link for link in links.found if not link.startswith("#")}
    assert "2/2 good on" in said


def test_the_page_says_what_the_traces_and_figures_are(made):
    text = (made[0] / "index.html").read_text()
    assert "make redis" in text and "distinct pages used in the last T" in text
    assert "About good" in text and "A &amp; B" in text and "&lt;b&gt;" in text
    assert re.search(r'<td class="number">\s*4,096', text)


def test_executed_notebooks_are_pages_too(made):
    for html in (made[0] / "notebooks/good-redis.html", made[0] / "notebooks/good-hotcold.html"):
        text = html.read_text()
        assert "About good" in text and "../index.html" in Links(text).found
        assert not re.search(r'(src|href)="https?:', text)


def test_a_failing_notebook_ends_the_demo_and_is_named(use, tmp_path):
    use(bad=1)
    (tmp_path / "index.html").write_text("of an earlier demo")
    with pytest.raises(NotebookError, match="division by zero") as caught:
        demo.run(tmp_path, console=quiet())
    error = caught.value
    assert error.notebook == "bad on redis" and "ZeroDivisionError" in error.message
    assert Path(error.executed).is_file() and str(tmp_path) in error.executed
    cell = nbformat.read(error.executed, 4).cells[error.cell - 1]
    assert cell.source == BAD
    assert "\n" not in str(error)
    assert not (tmp_path / "index.html").exists()


def test_the_first_failure_ends_the_other_notebooks(use, tmp_path, monkeypatch):
    use(bad=1, good=1)
    started = []

    def start(notebook, executed, parameters):
        seconds = 0 if notebook.stem == "bad" else 60
        code = f"import time; time.sleep({seconds}); raise SystemExit(1)"
        started.append(subprocess.Popen([sys.executable, "-c", code]))
        return started[-1]

    monkeypatch.setattr(demo, "start_notebook", start)
    with pytest.raises(NotebookError, match="bad on redis failed"):
        demo.run(tmp_path, console=quiet())
    assert [process.poll() for process in started] == [1, -signal.SIGTERM]


def test_the_command_says_it_in_one_line(monkeypatch, tmp_path, capsys):
    def fail(*_):
        raise NotebookError("02_working_set on redis", 3, "ValueError: no", "x.ipynb")

    monkeypatch.setattr(demo, "run", fail)
    assert cli.main(["demo", "-o", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "pmlkit: 02_working_set on redis failed in cell 3 (ValueError: no): look at x.ipynb\n"
    )


def test_if_papermill_itself_fails_its_last_words_count(tmp_path):
    executed = tmp_path / "executed.ipynb"
    executed.with_suffix(".log").write_text("Traceback\n  ...\nDeadKernelError: Kernel died\n\n")
    error = notebooks.failure(executed, "x on y", 1)
    assert (error.cell, error.message) == (None, "DeadKernelError: Kernel died")
    assert error.executed == str(tmp_path / "executed.log")


def test_an_unwritable_folder(use, tmp_path):
    use(good=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        demo.run(tmp_path / "file" / "demo", console=quiet())


def test_an_installed_package_has_no_notebooks(monkeypatch, tmp_path):
    monkeypatch.setattr(notebooks, "__file__", str(tmp_path / "site-packages/pmlkit/notebooks.py"))
    with pytest.raises(notebooks.PmlkitError, match="clone the repository"):
        notebooks.notebooks_folder()
