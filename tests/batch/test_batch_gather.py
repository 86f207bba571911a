# SPDX-License-Identifier: Apache-2.0
"""What an experiment gathers for an article: names, captions, widths, and every mistake by line."""

import json

import pandas as pd
import pytest
import yaml
from batch_case import write_experiment, write_notebook
from factories import make_trace

from pmlkit import figures
from pmlkit.batch import runner
from pmlkit.batch.job import RECORD, failed_record, write_record
from pmlkit.batch.notebook import notebooks_folder
from pmlkit.batch.schema import ExperimentError
from pmlkit.figures.style import new_figure
from pmlkit.figures.tables import latex, table

PAPER = notebooks_folder().parent / "experiments" / "paper.yaml"
SAYS_WHAT_IS_REAL = ("recorded", "lab", "simulated", "real", "measured")
ROWS = pd.DataFrame({"phase": ["a_1", "b"], "pages": [1, 2], "share": [-0.5, 12.25]})


class Draws:
    """A backend whose runs save a figure of each width, and a table."""

    def run(self, jobs, folder, started=lambda job: None):
        for job in jobs:
            final = folder / job.id
            for columns in (1, 2):
                figure = new_figure(columns, 1, {"it": ROWS})
                figure.subplots()
                figures.save(figure, final / f"f{columns}")
            table(ROWS, final / "sizes", "of the notebook")
            write_record(failed_record(job, "") | {"status": "done", "error": None}, final)
            yield job, json.loads((final / RECORD).read_text())


@pytest.fixture
def experiment(tmp_path):
    """Give a function that writes an experiment whose one run gathers what it is given."""
    trace = make_trace(tmp_path / "t.trace", rounds=2)
    notebook = write_notebook(tmp_path / "nb.ipynb")

    def write(gather, grid=None, **more):
        run = {"notebook": str(notebook), "traces": [str(trace)], "gather": gather}
        run |= {"grid": grid} if grid else {}
        return write_experiment(tmp_path / "e.yaml", runs=[run], **more)

    return write


def gathered(path, tmp_path):
    return runner.run(path, tmp_path / "out", Draws())


def test_figures_and_tables_get_the_names_and_captions_of_the_article(experiment, tmp_path):
    (tmp_path / "doc.tex").write_text("hello")
    path = experiment(
        {
            "fig-narrow": {"file": "f1", "caption": "50 % of\n it"},
            "fig-broad": {"file": "f2", "caption": "all"},
            "tab-sizes": {"file": "sizes", "caption": "Sizes", "columns": {"share": "part"}},
        },
        document="doc.tex",
    )
    report = gathered(path, tmp_path)
    out = report.plan.folder
    assert (out / "fig-narrow.pdf").read_bytes().startswith(b"%PDF")
    narrow = (out / "fig-narrow.tex").read_text()
    assert r"\caption{50 \% of it}" in narrow and r"\label{fig:narrow}" in narrow
    assert r"\begin{figure}" in narrow and r"\includegraphics{fig-narrow}" in narrow
    assert r"\begin{figure*}" in (out / "fig-broad.tex").read_text()
    sizes = (out / "tab-sizes.tex").read_text()
    assert "part" in sizes and "phase" not in sizes and r"\caption{Sizes}" in sizes
    assert r"$-$0.50 \\" in sizes and r"12.25 \\" in sizes
    assert pd.read_csv(out / "tab-sizes.csv").columns.tolist() == ["part"]
    assert (out / "doc.tex").read_text() == "hello"
    readme = (out / "README.md").read_text()
    assert readme.index("fig-broad.pdf") < readme.index("fig-narrow.pdf")  # of the file
    (run,) = report.plan.runs
    assert f"[f1.csv]({run.id}/f1.csv)" in readme and "50 % of it" in readme


def test_a_caption_changes_no_run_and_what_is_no_longer_named_goes(experiment, tmp_path):
    first = gathered(experiment({"fig-x": {"file": "f1", "caption": "a"}}), tmp_path)
    again = gathered(experiment({"fig-y": {"file": "f1", "caption": "b"}}), tmp_path)
    assert [job.id for job in again.kept] == [job.id for job in first.done]
    assert {p.name for p in again.plan.folder.glob("fig-*")} == {"fig-y.pdf", "fig-y.tex"}


def test_rows_are_chosen_by_what_a_column_says(experiment, tmp_path):
    piece = {"file": "sizes", "caption": "c", "rows": {"phase": ["b"]}, "wide": True}
    out = gathered(experiment({"tab-x": piece}), tmp_path).plan.folder
    text = (out / "tab-x.tex").read_text()
    assert "a\\_1" not in text and r"b & 2 & 12.2 \\" in text and r"\begin{table*}" in text


WRONG = {
    "a name that is neither": ({"x": {"file": "f1", "caption": "c"}}, "fig-NAME or tab-NAME"),
    "no caption": ({"fig-x": {"file": "f1"}}, "has no 'caption'"),
    "no such file": ({"fig-x": {"file": "f9", "caption": "c"}}, "has made: f1, f2"),
    "no such column": (
        {"tab-x": {"file": "sizes", "caption": "c", "columns": {"y": "Y"}}},
        "no column 'y'.*phase, pages, share",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_said_with_its_line(experiment, tmp_path, case):
    gather, why = WRONG[case]
    path = experiment(gather)
    with pytest.raises(ExperimentError, match=why) as caught:
        gathered(path, tmp_path)
    name = next(iter(gather))
    line = path.read_text().split("\n")[caught.value.line - 1]
    assert name in line or "file:" in line or "caption" in line


def test_an_entry_of_several_runs_cannot_be_gathered_from(experiment):
    path = experiment({"fig-x": {"file": "f1", "caption": "c"}}, grid={"window": ["1s", "2s"]})
    with pytest.raises(ExperimentError, match="this entry has 2 runs"):
        runner.plan(path)


def test_a_name_can_be_gathered_once(experiment):
    path = experiment({"fig-x": {"file": "f1", "caption": "c"}})
    content = yaml.safe_load(path.read_text())
    write_experiment(path, runs=content["runs"] * 2)
    with pytest.raises(ExperimentError, match="gathered twice"):
        runner.plan(path)


def test_a_document_that_is_not_there(experiment, tmp_path):
    path = experiment({"fig-x": {"file": "f1", "caption": "c"}}, document="no.tex")
    with pytest.raises(ExperimentError, match="no.tex"):
        gathered(path, tmp_path)


def test_long_texts_are_folded_into_the_room_that_is_left():
    rows = pd.DataFrame({"what": ["word " * 30], "n": [1.0]})
    text = latex(rows, "c", "l")
    assert r"\parbox[t]{" in text and r"\begin{tabular}{lr}" in text
    assert "parbox" not in latex(ROWS, "c", "l")


def test_the_paper_includes_all_that_is_gathered_and_nothing_else():
    pieces = runner.plan(PAPER).pieces
    document = (PAPER.parent / "paper.tex").read_text()
    names = [piece.name for piece in pieces]
    assert len(names) >= 25
    assert sorted(names) == sorted(
        line.removeprefix(r"\input{").rstrip("}")
        for line in document.split("\n")
        if line.startswith(r"\input{")
    )


def test_every_caption_of_the_paper_says_what_is_real():
    for piece in runner.plan(PAPER).pieces:
        assert any(word in piece.caption.lower() for word in SAYS_WHAT_IS_REAL), piece.caption
