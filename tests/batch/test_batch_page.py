# SPDX-License-Identifier: Apache-2.0
"""The page of an experiment: what it shows and links; and the demo, which is an experiment."""

import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
from batch_case import write_experiment, write_notebook
from factories import make_trace as write_trace
from PIL import Image

from pmlkit import cli
from pmlkit.batch import runner

ROOT = Path(__file__).parent.parent.parent
CODE = """\
import pandas as pd
import pmlkit
from pmlkit import figures
from pmlkit.notebook import views
from pmlkit.units import described
recorded = pmlkit.open(trace)
folder = views.output_folder(out)
figures.save(figures.wss_over_time(recorded, "10ms"), folder / "wss")
rows = {"phase": ["<b>", "NA"], "pages": [4096, 1], "size": [16, 1], "share": [0.123456, None]}
table = described(pd.DataFrame(rows), {"size": "MiB"})
figures.table(table, folder / "sizes", "A & B")"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """An experiment of one notebook on two traces."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("hotcold", "redis"):
        write_trace(folder / f"{name}.trace", guest=True)
    notebook = str(write_notebook(folder / "good.ipynb", CODE))
    run = {"notebook": notebook, "traces": [str(folder / "*.trace")]}
    return runner.run(write_experiment(folder / "e.yaml", runs=[run]), folder / "results")


class Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.ids = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.found += [attrs[name] for name in ("href", "src") if name in attrs]
        self.ids |= {attrs["id"]} if "id" in attrs else set()


def test_the_page_shows_every_figure_and_links_only_what_is_there(report):
    out, text = report.page.parent, report.page.read_text()
    links = Links(text)
    assert "http" not in text  # nothing from the net
    for link in links.found:
        if link.startswith("#"):
            assert link[1:] in links.ids
        else:
            assert (out / link).is_file(), link
    figures_shown = {out / link for link in links.found if link.endswith(".png")}
    assert figures_shown == set(out.glob("*/*.png")) and len(figures_shown) == 2
    written = {path for path in out.glob("*/*") if path.is_file()}
    assert written <= {out / link for link in links.found if not link.startswith("#")}


def test_the_page_says_what_the_runs_and_figures_are(report):
    text = report.page.read_text()
    assert "good redis" in text and "distinct pages used in the last T" in text
    assert "About good" in text and "A &amp; B" in text and "&lt;b&gt;" in text
    assert re.search(r'<td class="number">\s*4,096', text) and "size (MiB)</th>" in text
    assert re.search(r'<td class="number">\s*0.123<', text) and re.search(r"<td>\s*NA<", text)
    assert re.search(r'<td class="number">\s*--<', text)  # a missing number


def test_parameters_have_a_column_only_if_a_run_has_some(report, tmp_path):
    assert "Parameters</th>" not in report.page.read_text()
    write_trace(tmp_path / "a.trace")
    notebook = str(write_notebook(tmp_path / "n.ipynb", "1"))
    traces = [str(tmp_path / "a.trace")]
    run = {"notebook": notebook, "traces": traces, "parameters": {"window": "20ms"}}
    made = runner.run(write_experiment(tmp_path / "e.yaml", runs=[run]), tmp_path / "out")
    assert "Parameters</th>" in made.page.read_text()


def test_executed_notebooks_are_pages_too(report):
    pages = list(report.page.parent.glob("*/good.html"))
    assert len(pages) == 2
    for page in pages:
        text = page.read_text()
        assert "About good" in text and "../index.html" in Links(text).found
        assert not re.search(r'(src|href)="https?:', text)


class Images(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found += [dict(attrs)] if tag == "img" else []


def test_every_image_has_its_size_before_it_is_loaded(report):
    for page in (report.page, *report.page.parent.glob("*/good.html")):
        for image in Images(page.read_text()).found:
            assert int(image["width"]) > 0 and int(image["height"]) > 0, page
    (shown,) = {(i["width"], i["height"]) for i in Images(report.page.read_text()).found}
    with Image.open(next(report.page.parent.glob("*/wss.png"))) as picture:
        assert shown == tuple(map(str, picture.size))


def test_a_run_is_a_recording_and_a_notebook_first_and_its_hash_last(report):
    (row, _) = re.findall(r"<tr>\n(<td>.*?)</tr>", report.page.read_text(), re.DOTALL)
    cells = re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL)
    assert ">hotcold<" in cells[0] and cells[1] == "About good"
    assert re.fullmatch(r"<code>[0-9a-f]+</code>", cells[-1])


def test_the_command_on_the_page_is_the_one_that_was_given(tmp_path, monkeypatch):
    write_trace(tmp_path / "a b.trace")
    notebook = str(write_notebook(tmp_path / "good.ipynb", "x = 1"))
    write_experiment(tmp_path / "e.yaml", runs=[{"notebook": notebook, "traces": ["redis"]}])
    monkeypatch.chdir(tmp_path)
    planned = runner.plan("e.yaml", "out", ["a b.trace"])
    assert planned.experiment.command == "pmlkit run e.yaml -o out --trace 'a b.trace'"
    assert runner.plan("demo.yaml").experiment.command == "pmlkit run demo.yaml"
    words = shlex.split(planned.experiment.command)[1:]
    assert cli.main([*words, "--dry-run"]) == 0


def test_a_missing_experiment_offers_only_files_that_are_experiments(tmp_path, capsys):
    (tmp_path / ".pre-commit-config.yaml").write_text("repos: []\n")
    (tmp_path / "other.yaml").write_text("a: 1\n")
    notebook = str(write_notebook(tmp_path / "good.ipynb", "x = 1"))
    write_experiment(tmp_path / "mine.yaml", runs=[{"notebook": notebook, "traces": ["redis"]}])
    assert cli.main(["run", str(tmp_path / "q.yaml")]) == 1
    offered = capsys.readouterr().err.partition("the experiments there are ")[2]
    names = offered.strip().split(", ")
    assert names[0] == "mine.yaml" and "demo.yaml" in names
    assert not {"other.yaml", ".pre-commit-config.yaml", "q.yaml"} & set(names)
    assert cli.main(["run", str(tmp_path / "mime.yaml")]) == 1
    assert "do you mean mine.yaml?" in capsys.readouterr().err


# The demo


def test_the_demo_runs_on_bundled_recordings():
    planned = runner.plan(ROOT / "experiments" / "demo.yaml")
    assert len(planned.runs) == 8
    assert planned.runs[0].label == "02_working_set redis"


def test_an_experiment_runs_on_other_traces_than_its_own(tmp_path, capsys):
    path = str(write_trace(tmp_path / "mine.trace"))
    planned = runner.plan(ROOT / "experiments" / "demo.yaml", tmp_path, [path])
    assert {(job.notebook, job.traces[0].path) for job in planned.runs} == {
        (name, path) for name in ("01_collect", "02_working_set", "05_figures", "07_miss_ratio")
    }
    demo = str(ROOT / "experiments" / "demo.yaml")
    assert cli.main(["run", demo, "--trace", path, "--snakefile", str(tmp_path / "S")]) == 2
    assert cli.main(["run", demo, "--trace", "nosuch", "--dry-run"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "Snakefile" in first and "there is no trace at nosuch: check" in second
