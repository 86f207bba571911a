# SPDX-License-Identifier: Apache-2.0
"""Experiments as files: what they mean, and that every mistake is said with its line."""

import json
import os
import re
from itertools import pairwise

import pytest
import yaml
from batch_case import write_notebook
from tree import tracked

from pmlkit import cli
from pmlkit.batch import schema
from pmlkit.batch.plan import plan
from pmlkit.batch.schema import ExperimentError
from pmlkit.errors import PmlkitError

EXPERIMENTS = tracked("experiments/*.yaml")


def load(tmp_path, text):
    path = tmp_path / "e.yaml"
    path.write_text(text)
    return schema.load(path)


def test_an_experiment_is_what_its_file_says(tmp_path):
    found = load(
        tmp_path,
        """\
title: A title
about: What is asked.
traces: [a, {trace: b, made_by: make b}]
runs:
  - notebook: one
    parameters: {columns: 2}
    grid: {window: [1s, 2s], m: [1, 2]}
  - notebook: two
    together: true
    traces: [c]
    grid: [{a: [1]}, {b: [2, 3]}]
summary:
  - notebook: three
""",
    )
    one, two = found.runs
    assert (found.name, found.title, found.about) == ("e", "A title", "What is asked.")
    assert [trace[:2] for trace in one.traces] == [("a", ""), ("b", "make b")]
    assert one.points == [
        {"columns": 2, "window": window, "m": m} for window in ("1s", "2s") for m in (1, 2)
    ]
    assert [trace[0] for trace in two.traces] == ["c"]
    assert (two.together, two.points) == (True, [{"a": 1}, {"b": 2}, {"b": 3}])
    (three,) = found.summary
    assert (three.notebook, three.traces, three.points) == ("three", [], [{}])


HEAD = "title: a\nruns:\n  - notebook: x\n"
WRONG = {
    "an unknown key": (HEAD + "    grd: {a: [1]}", 4, "'grd'.*do you mean 'grid'"),
    "a misspelt title": ("titel: a\nruns: [{notebook: x}]", 1, "do you mean 'title'"),
    "no notebook": ("title: a\nruns:\n  - traces: [x]", 3, "no 'notebook'"),
    "no runs": ("title: a\nruns: []", 2, "runs is empty"),
    "a grid of one value": (HEAD + "    grid:\n      a: 1", 5, "grid.a has to be a list, and is 1"),
    "a value in a list of grids": (HEAD + "    grid:\n      - {a: 1}", 5, "grid.0..a.*a list"),
    "an empty axis": (HEAD + "    grid: {a: []}", 4, "grid.a is empty"),
    "a number for a trace": (HEAD + "    traces:\n      - y\n      - 3", 6, "a text, and is 3"),
    "a trace without a name": (HEAD + "    traces: [{made_by: x}]", 4, "no 'trace'"),
    "a parameter that is taken": (HEAD + "    parameters:\n      out: x", 5, "'out' is set by"),
    "a parameter Python cannot have": (HEAD + "    grid: {a-b: [1]}", 4, "'a-b' is not a name"),
    "a date": (HEAD + "    parameters: {a: 2024-01-01}", 4, "a text in quotes"),
    "a number of base 60": (HEAD + "    grid: {a: [1, 1:30]}", 4, "1:30 would be read as 90"),
    "another of base 60": (HEAD + "    grid:\n      a: [-1:30.5]", 5, "read as -90.5"),
    "a number of base 8": (HEAD + "    parameters: {a: 010}", 4, "010 would be read as 8: write 8"),
    "a text for yes": (HEAD + "    together: always", 4, "yes or no"),
    "traces of a summary": (HEAD + "summary:\n  - {notebook: y, traces: [z]}", 5, "'traces'"),
    "a key twice": ("title: a\nruns: [{notebook: x}]\ntitle: b", 3, "'title' is there twice"),
    "a list": ("- title", 1, "has to be a mapping"),
    "nothing": ("", 1, "has to be a mapping"),
    "no YAML": ("title: a\nruns: [", 2, "expected the node content"),
    "a tab": ("title: a\nruns:\n\t- notebook: x", 3, "cannot start any token"),
    "a key that is a mapping": ("title: a\n{b: c}: d", 2, ""),
    "two documents": ("title: a\n---\ntitle: b", 2, "another document"),
    "a control character": ("title: \x07", None, "special characters are not allowed"),
    "itself": ("title: a\nruns: &r\n  - *r", None, ""),
}


def test_numbers_are_read_as_people_mean_them(tmp_path):
    values = "0, -0, 0.5, 010.5, 0x1f, 1_000, 1e-3, -2E3, 1.0e+3, '010', '1e3', 1min:30, 1e"
    (run,) = load(tmp_path, HEAD + f"    grid: {{a: [{values}]}}").runs
    expected = [0, 0, 0.5, 10.5, 31, 1000, 0.001, -2000.0, 1000.0, "010", "1e3", "1min:30", "1e"]
    found = [point["a"] for point in run.points]
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


@pytest.mark.parametrize(("text", "line", "says"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_said_with_its_line(tmp_path, text, line, says):
    with pytest.raises(ExperimentError) as caught:
        load(tmp_path, text)
    error = caught.value
    assert re.search(says, str(error)), error
    assert error.line == line
    assert str(error).startswith(f"line {line} of " if line else error.path)
    assert "\n" not in str(error)


def test_of_several_mistakes_the_first_is_said_and_the_others_counted(tmp_path):
    with pytest.raises(ExperimentError, match=r"line 2 .*'x'.*\(and 1 more\)"):
        load(tmp_path, "title: a\nx: 1\nruns: []")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read(tmp_path, content):
    (tmp_path / "other.yaml").write_text("")
    if content:
        (tmp_path / "e.yaml").write_bytes(content)
    with pytest.raises(
        ExperimentError, match="UTF-8" if content else "the experiments there.*demo"
    ):
        schema.load(tmp_path / "e.yaml")


def test_a_name_that_is_no_folder(tmp_path):
    with pytest.raises(ExperimentError, match="becomes a folder"):
        schema.load(tmp_path / ".yaml")


# What the file names has to be there


MISSING = {
    "notebook": ("  - notebook: nowhere", 3, "no notebook 'nowhere'.*02_working_set"),
    "trace": ("  - notebook: N\n    traces:\n      - nowhere", 5, "no trace 'nowhere'.*record"),
    "how it is made": (
        "  - notebook: N\n    traces:\n      - {trace: nowhere, made_by: make it}",
        5,
        "make it with `make it`",
    ),
    "parameter": (
        "  - notebook: N\n    parameters:\n      m: 2\n      windw: 1s",
        6,
        "no parameter 'windw'.*m, out, trace, window",
    ),
    "parameter of a grid": ("  - notebook: N\n    grid:\n      - {windw: [1]}", 5, "'windw'"),
    "parameter traces": (
        "  - notebook: N\n    together: true\n    traces: [T]",
        3,
        "no parameter 'traces'",
    ),
}


@pytest.mark.parametrize(("text", "line", "says"), MISSING.values(), ids=MISSING)
def test_what_is_not_there_is_said_with_its_line(tmp_path, make_trace, text, line, says):
    notebook = write_notebook(tmp_path / "n.ipynb")
    text = text.replace("N", str(notebook)).replace("T]", f"{make_trace().path}]")
    (tmp_path / "e.yaml").write_text("title: a\nruns:\n" + text)
    with pytest.raises(ExperimentError, match=says) as caught:
        plan(tmp_path / "e.yaml")
    assert caught.value.line == line


def test_a_damaged_trace_is_said_with_the_line_that_names_it(tmp_path, make_trace):
    trace = make_trace()
    (trace.path / "trace.json").write_text("{}")
    write_notebook(tmp_path / "n.ipynb")
    run = {"notebook": str(tmp_path / "n.ipynb"), "traces": [str(trace.path)]}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({"title": "a", "runs": [run]}))
    with pytest.raises(ExperimentError, match="line 4 .*damaged"):
        plan(tmp_path / "e.yaml")


def test_the_command_says_it_in_one_line(tmp_path, capsys):
    (tmp_path / "e.yaml").write_text("titel: a")
    assert cli.main(["run", str(tmp_path / "e.yaml")]) == 1
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(r"pmlkit: line 1 of .*\n", err)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=[path.stem for path in EXPERIMENTS])
def test_the_experiments_of_the_repository_are_valid(path):
    assert schema.load(path).runs


AXIS = list(range(1000))
ALIASES = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise("abcdefghi"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"a: &a [x]\n{ALIASES}title: x\n", "stands for more than 100,000 values"),
        (HEAD + f"    parameters:\n      z: [{'[' * 60}]", "nested more than 50 deep"),
        (HEAD + "    grid: &g\n      a: *g\n", "line 4 contains itself"),
        (
            HEAD + f"    grid: {{a: {AXIS}, b: {AXIS}, c: {AXIS}}}\n",
            "line 4 of .*grid has 1,000,000,000 points, and the limit is 20,000",
        ),
        (HEAD + f"    grid: [{{a: {AXIS}, b: {AXIS[:21]}}}]\n", "has 21,000 points"),
        (
            "title: " + "x" * 2000 + "\nruns: [{notebook: x}]",
            "line 1 of .*title has 2,000 characters, and the limit is 1,000",
        ),
        ("title: " + "x" * (5 << 20), "it has 5,242,887 bytes, and at most 4,194,304 are read"),
        (f"title: x\nruns: [{'x, ' * 200_000}]", "it has more than 100,000 values"),
    ],
    ids=["bomb", "deep", "itself", "grid", "grids", "title", "size", "values"],
)
def test_what_would_grow_is_counted_first(tmp_path, text, says):
    with pytest.raises(ExperimentError, match=says) as caught:
        load(tmp_path, text)
    assert len(str(caught.value)) < 500


def test_an_experiment_or_a_notebook_that_is_a_fifo(tmp_path):
    os.mkfifo(tmp_path / "e.yaml")
    with pytest.raises(ExperimentError, match=r"e\.yaml: it is a FIFO"):
        schema.load(tmp_path / "e.yaml")
    (tmp_path / "e.yaml").rename(tmp_path / "n.ipynb")
    path = tmp_path / "f.yaml"
    path.write_text(f"title: x\nruns: [{{notebook: {tmp_path}/n.ipynb}}]")
    with pytest.raises(ExperimentError, match=r"n\.ipynb is not a notebook \(it is a FIFO\)"):
        plan(path, tmp_path / "results")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x=(", r"cell 1 of .*n.ipynb, tagged `parameters`, is not Python \(line 1: '\(' was"),
        ("x = 1\x00", "is not Python"),
        ("(" * 5000 + ")" * 5000, "is not Python"),
        ("x = 1 is 1", "no parameter 'y'"),
    ],
)
def test_a_parameters_cell_that_is_no_python(tmp_path, source, says, capsys):
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": source}
    cell |= {"outputs": [], "execution_count": None}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "n.ipynb").write_text(json.dumps(notebook))
    path = tmp_path / "f.yaml"
    path.write_text(f"title: x\nruns: [{{notebook: {tmp_path}/n.ipynb, parameters: {{y: 1}}}}]")
    with pytest.raises(ExperimentError, match=says):
        plan(path, tmp_path / "results")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"cells": 3}', "[" * 100_000, '{"nbformat": 1e9}']
)
def test_a_notebook_that_is_none(tmp_path, text, capsys):
    (tmp_path / "n.ipynb").write_text(text)
    path = tmp_path / "f.yaml"
    path.write_text(f"title: x\nruns: [{{notebook: {tmp_path}/n.ipynb}}]")
    with pytest.raises(ExperimentError, match=r"line 2 of .*n\.ipynb is not a notebook"):
        plan(path, tmp_path / "results")
    assert capsys.readouterr().err == ""


def test_a_pattern_with_too_many_matches(tmp_path, monkeypatch):
    monkeypatch.setattr("pmlkit.batch.expand._LIMIT_MATCHES", 5)
    for n in range(6):
        (tmp_path / f"{n}").mkdir()
    path = tmp_path / "f.yaml"
    path.write_text(
        f"title: x\nruns: [{{notebook: 02_working_set, traces: ['{tmp_path}/*/*.trace']}}]"
    )
    with pytest.raises(PmlkitError, match=r"pattern has more than 5 matches at '\*'"):
        plan(path, tmp_path / "results")
