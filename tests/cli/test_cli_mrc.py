# SPDX-License-Identifier: Apache-2.0
"""`pmlkit mrc`: its methods, its figure, and the curve over time."""

import json

import numpy as np
import pandas as pd


def test_mrc_prints_each_method_as_json(run, trace, tmp_path):
    words = ["--method", "exact", "--method", "shards", "--rate", "1", "--target", "0.8", "--json"]
    code, out, err = run("mrc", trace, *words, "-o", tmp_path / "f" / "mrc")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert sorted(found) == ["exact", "shards"]
    # 10, 20, 11, then 10 again: its distance is 2.
    for curve in found.values():
        assert curve["sizes_pages"] == [0, 1, 2, 3] and curve["pages_for"] == {"0.8": 3}
        assert curve["miss_ratio"] == [1, 1, 1, 0.75]
        assert (curve["uses"], curve["pages"], curve["cold"]) == (4, 3, 0.75)
    assert sorted(p.name for p in (tmp_path / "f").iterdir()) == [
        f"mrc.{kind}" for kind in ("csv", "parquet", "pdf", "png", "svg", "txt")
    ]


def test_the_figure_of_mrc_over_time_shows_what_the_table_has(run, tmp_path):
    words = ["--window", "1s", "--kinds", "written", "--region", "hot", "-o", tmp_path / "hot.png"]
    code, out, err = run("mrc", "hotcold", *words, "--json")
    assert (code, err) == (0, "")
    table, drawn = pd.DataFrame(json.loads(out)), pd.read_csv(tmp_path / "hot.csv")
    assert drawn["uses"].sum() > 0
    for name in ("t_ns", "pages", "uses", "miss_ratio"):
        np.testing.assert_allclose(drawn[name], table[name].astype(float))
    assert "the region hot" in (tmp_path / "hot.txt").read_text()


def test_mrc_over_time_and_as_people_read_it(run, trace):
    code, out, _ = run("mrc", trace, "--window", "10ms", "--json")
    rows = json.loads(out)
    assert code == 0 and {row["t_ns"] for row in rows} == {10_000_000, 20_000_000}
    assert {row["miss_ratio"] for row in rows if row["pages"] >= 3} == {0.0, 1.0}
    for words in (["--window", "10ms"], ["--method", "aet"], ["--method", "shards", "--rate", "1"]):
        code, out, err = run("mrc", trace, *words)
        assert (code, err) == (0, "") and "1.0000" in out


def test_mrc_looks_at_the_time_that_is_asked_for(run, trace):
    _, out, _ = run("mrc", trace, "--start", "10ms", "--kinds", "w", "--json")
    assert json.loads(out)["exact"]["uses"] == 1


def test_a_sample_of_all_pages_has_no_interval_of_no_width(run, trace):
    code, out, _ = run("mrc", trace, "--method", "shards", "--target", "0.8", "--summary")
    assert code == 0
    assert "The sample has all 3 pages, so sampling adds no error." in out
