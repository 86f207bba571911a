# SPDX-License-Identifier: Apache-2.0
"""The tables and the figure of a frontier, of points that are made up."""

import json

import numpy as np
import pandas as pd
import pytest
from full_disk import fill_at
from matplotlib.text import Text

from pmlkit import frontier
from pmlkit.errors import OutputError
from pmlkit.figures import frontier as drawn
from pmlkit.figures import frontier_tables, save
from pmlkit.techniques import TECHNIQUES

# More than there are colours.
NAMES = [name for name in TECHNIQUES if TECHNIQUES[name].knobs()][: len(drawn.STYLES) + 4]
LOOKS = (1, 2, 4)
TRACES = ("a", "b", "c")


def made(names=(*NAMES, "zballoond", "geiger"), windows=(10**8, 10**9)):
    """Three recordings: errors fall with looks, costs rise; each technique a little worse."""
    rng, rows = np.random.default_rng(1), []
    for window_ns in windows:
        for place, name in enumerate(dict.fromkeys(names)):
            for trace in TRACES:
                for looks in (None, *LOOKS * bool(TECHNIQUES[name].knobs())):
                    silent = name == "geiger" and trace == "b"
                    error = (0.5 + place / 30) / (looks or 3) * rng.uniform(0.8, 1.2)
                    rows.append(
                        {
                            "trace": trace,
                            "technique": name,
                            "window_ns": window_ns,
                            "looks": looks,
                            "watched": 64 if "watched" in TECHNIQUES[name].knobs() else None,
                            "published": looks is None,
                            "seed": 0,
                            "mae": np.nan if silent else error,
                            "says": 1.0,
                            "overhead": np.nan if silent else 2e-4 * (looks or 3) * (1 + place),
                            "simulated": False,
                            "missing": "disk requests" if silent else "",
                            "notes": "30s became 1 s" if looks is None else "",
                            "ns_per_insn": 8.0,
                        }
                    )
    return pd.DataFrame(rows).astype({"looks": "Int64", "watched": "Int64"})


@pytest.fixture(scope="module")
def points():
    return made()


@pytest.mark.parametrize("columns, inches", [(1, 3.33), (2, 7.0)])
def test_the_figure_fits_its_columns_and_names_what_it_colours(points, columns, inches):
    figure = drawn.error_against_cost(points, columns=columns)
    assert figure.get_size_inches()[0] == inches
    figure.draw_without_rendering()
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text() and text in figure.legends[0].get_texts():
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, text.get_text()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[0] == TECHNIQUES[NAMES[0]].title and "other techniques" in names
    assert 3 + 3 <= len(names) <= len(drawn.STYLES) + 3
    assert len(figure.axes) == (2 if columns == 2 else 1)
    assert "3 recordings, T = " in figure.caption


def test_the_techniques_in_colour_are_those_that_lead(points):
    leading = drawn.leading(frontier.curves(points))
    assert leading[0] == NAMES[0] and set(leading) <= set(NAMES)
    chosen = drawn.error_against_cost(points, 10**9, ["prl", "vmware"])
    assert [t.get_text() for t in chosen.legends[0].get_texts()][:2] == [
        TECHNIQUES["prl"].title,
        TECHNIQUES["vmware"].title,
    ]


def test_a_figure_of_nothing_says_so():
    silent = made(["geiger"])
    assert (
        "no technique has an estimate"
        in drawn.error_against_cost(silent).axes[0].texts[0].get_text()
    )


def test_the_tables_are_in_percent_with_never_where_a_bound_is_not_met(points):
    sheet = frontier_tables.at_cost(points)
    (first,) = sheet[(sheet["T"] == "1 s") & (sheet["technique"] == TECHNIQUES[NAMES[0]].title)][
        ["at 0.01 %", "at 0.1 %", "with", "first in"]
    ].to_dict("records")
    best = frontier.at_cost(points, [0.001])
    row = best[(best["window_ns"] == 10**9) & (best["technique"] == NAMES[0])].iloc[0]
    assert first["at 0.01 %"] == "never"
    assert (
        first["at 0.1 %"] == f"{row.error * 100:.3g} ({row.low * 100:.3g} to {row.high * 100:.3g})"
    )
    assert first["with"].startswith("4 looks")
    loop = sheet[sheet["technique"] == TECHNIQUES["zballoond"].title]
    assert loop["with"].isna().all()


def test_what_is_left_out_is_named_and_what_is_published_has_its_note(points):
    (row,) = frontier_tables.left_out(points[points["window_ns"] == 10**9]).to_dict("records")
    assert row["recordings"] == "1 of 3" and row["why"] == "no disk requests"
    table = frontier_tables.published(points)
    assert set(table["note"]) == {"30s became 1 s"}
    assert set(table[~table["can be swept"]]["technique"]) == {TECHNIQUES["zballoond"].title}


def test_json_has_none_where_a_bound_is_not_met(points):
    report = json.loads(json.dumps(frontier_tables.as_dict(points), allow_nan=False))
    assert {"summary", "about", "at_cost", "at_error", "published", "left_out"} == set(report)
    cheap = [row for row in report["at_cost"] if row["budget"] == 0.0001]
    assert cheap and all(row["error"] is None and row["looks"] is None for row in cheap)


def test_a_full_disk_leaves_no_file(points, tmp_path, monkeypatch):
    fill_at(monkeypatch, "frontier.png")
    with pytest.raises(OutputError, match=r"frontier\.png .no space left"):
        frontier_tables.save(points, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_files_are_those_of_tables_and_figure(points, tmp_path):
    written = {path.name for path in frontier_tables.save_tables(points, tmp_path)}
    assert {"at-cost.tex", "at-error.csv", "published.csv", "left-out.tex"} <= written
    figure = drawn.error_against_cost(points, 10**9, columns=1)
    assert {"f.pdf", "f-curves.csv", "f-points.csv"} <= {
        p.name for p in save(figure, tmp_path / "f")
    }
