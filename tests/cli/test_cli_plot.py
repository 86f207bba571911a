# SPDX-License-Identifier: Apache-2.0
"""`pmlkit plot`, `simulate` and `doctor`: their files, and their options."""

import json
import os

import numpy as np
import pytest
from cli_case import check_one_line

from pmlkit.trace.reader import Trace


def test_simulate_makes_the_log_of_the_emulated_pml(run, trace, tmp_path):
    out = tmp_path / "pml.trace"
    code, said, err = run("simulate", trace, "-o", out, "--json")
    assert (code, err) == (0, "")
    assert json.loads(said)["kind"] == "pml"
    for column in ("round", "gfn"):
        np.testing.assert_array_equal(
            Trace.open(out).to_pandas()[column], Trace.open(trace).pml.to_pandas()[column]
        )


def test_simulate_passes_its_options_on(run, trace, tmp_path):
    out = tmp_path / "pml.trace"
    options = ["--buffer", "2", "--buffers", "2", "--rearm", "never", "--rounds", "2"]
    assert run("simulate", trace, "-o", out, *options)[0] == 0
    made = Trace.open(out)
    asked = {"buffer_entries": 2, "buffers": 2, "rearm": "never", "rounds_per_round": 2}
    assert asked.items() <= made.meta.options.items()
    assert made.to_pandas()["gfn"].tolist() == [10, 11]


def test_plot_writes_the_figure_and_the_data_behind_it(run, make_trace, tmp_path):
    path = make_trace(rounds=20, guest=True).path
    stem = tmp_path / "figures" / "heat"
    code, out, _ = run("plot", path, "heat", "-o", stem, "--columns", "2", "--json")
    assert code == 0
    written = json.loads(out)
    assert all(os.path.getsize(name) for name in written)
    assert {os.path.splitext(name)[1] for name in written} >= {".pdf", ".svg", ".png", ".csv"}


@pytest.mark.parametrize("kind", ["pdf", "svg", "png", "PDF"])
def test_a_suffix_chooses_the_file(run, make_trace, tmp_path, kind):
    trace = make_trace(rounds=20).path
    for words in (("plot", trace, "wss"), ("mrc", trace)):
        assert run(*words, "-o", tmp_path / f"{words[0]}.v2.{kind}")[0] == 0
        pictures = {path.suffix for path in tmp_path.glob(f"{words[0]}*")} - {
            ".csv",
            ".parquet",
            ".txt",
        }
        assert pictures == {f".{kind.lower()}"}
        assert list(tmp_path.glob(f"{words[0]}.v2*.csv"))
    code, _, err = run("plot", trace, "wss", "-o", tmp_path / "x.eps")
    assert code == 2
    check_one_line(err, "cannot be written as .eps: use .pdf, .svg or .png")


@pytest.mark.parametrize("stem", ["./", "folder/", "..", ".", "folder/../"])
def test_a_folder_is_no_stem(run, make_trace, tmp_path, monkeypatch, stem):
    """Files named .pdf, .svg and .png were written into it, which `ls` does not show."""
    trace = make_trace(rounds=20).path
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "empty")
    for words in (("plot", trace, "wss"), ("mrc", trace)):
        code, _, err = run(*words, "-o", stem)
        assert code == 2
        check_one_line(err, "is a folder: give the stem of its files")
    assert [path.name for path in (tmp_path / "empty").rglob("*")] == ["folder"]


def test_plot_lists_the_figures(run):
    code, out, _ = run("plot", "--list", "--json")
    assert code == 0
    assert {"wss", "heat", "surface"} <= json.loads(out).keys()


def test_doctor_fails_only_for_what_was_asked_for_by_name(run):
    assert run("doctor")[0] == 0
    code, out, err = run("doctor", "xen", "--json")
    assert (code, err) == (1, "")
    assert json.loads(out)[0]["ready"] is False
