# SPDX-License-Identifier: Apache-2.0
"""How notebooks show tables and figures: units, digits, reasons, captions, links."""

import os
import re
from html import escape

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from readable import UNREADABLE, texts

from pmlkit import figures
from pmlkit.errors import OutputError
from pmlkit.figures.notes import LINKS_FROM, links_html
from pmlkit.notebook.shown import NO_VALUE, shown
from pmlkit.units import described

WORDS = "a text that is far longer than the fifty characters at which pandas cuts one, by default"
NUMBERS = st.floats(-1e15, 1e15) | st.just(float("nan"))


def html(table, **how):
    return shown(table, **how)._repr_html_()


def cells(page, tag="td"):
    found = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", page)
    return [text.replace("&nbsp;", " ") for text in found]


def test_the_head_has_the_units_and_no_index_is_shown():
    table = pd.DataFrame({"phase": ["load"], "start_s": [1.5], "mean": [2.0], "first_uses": [3.0]})
    described(table, {"start_s": "s", "mean": "MiB"})
    page = html(table, units={"first_uses": "%"})
    assert cells(page, "th") == ["phase", "start (s)", "mean (MiB)", "first uses (%)"]
    assert cells(page) == ["load", "1.5", "2", "3"]


def test_a_named_index_is_a_column():
    table = pd.DataFrame({"pages": [7]}, index=pd.Index(["redis"], name="guest"))
    assert cells(html(table)) == ["redis", "7"]


def test_numbers_have_three_digits_and_line_up():
    page = html(pd.DataFrame({"error": [56.932506, 613.010846, 0.5]}))
    assert cells(page) == ["56.9", "613.0", "0.5"]


def test_small_numbers_are_not_rounded_to_zero():
    page = html(pd.DataFrame({"overhead": [0.000012345, 12.0, 0.0]}))
    assert cells(page) == ["1.2e-05", "12", "0"]


@given(st.lists(NUMBERS, min_size=1, max_size=8))
def test_no_number_has_more_than_four_decimals(values):
    table = described(pd.DataFrame({"x": values}), {}, "not measured")
    for text in texts([{"data": {"text/html": html(table), "text/plain": repr(shown(table))}}]):
        assert not UNREADABLE.search(text)


def test_a_missing_value_is_a_dash_with_its_reason():
    table = pd.DataFrame({"a": [1.0, np.nan], "b": [None, "x"], "c": pd.array([3, None], "Int64")})
    page = html(described(table, {}, {"a": "no window", "b": "no window", "c": "not counted"}))
    assert cells(page) == ["1", "–", "3", "–", "x", "–"]
    assert "–: no window (a, b)" in page and "–: not counted (c)" in page


def test_a_reason_that_nobody_gave_is_noticed():
    assert NO_VALUE in html(pd.DataFrame({"a": [np.nan]}))
    assert NO_VALUE not in html(pd.DataFrame({"a": [1.0]}))


def test_no_row_and_no_text_is_cut():
    table = pd.DataFrame({"source": [WORDS] * 200, "n": range(200)})
    page = html(table)
    assert cells(page).count(WORDS) == 200 and cells(page)[-1] == "199"
    assert "..." not in repr(shown(table)) and repr(shown(table)).count("\n") == 200


def test_truths_are_words_and_empty_tables_say_so():
    assert cells(html(pd.DataFrame({"met": [True, False]}))) == ["yes", "no"]
    assert "no rows" in html(pd.DataFrame({"met": []}))


def test_nothing_sets_a_colour_of_the_page():
    page = html(pd.DataFrame({"a": [1.0]}), caption="c")
    assert not re.search(r"(?<!-)\b(color|background)[^:;\"]*:", page)


def test_markup_in_a_trace_stays_text():
    page = html(pd.DataFrame({"<b>": ["<script>alert(1)</script>\x1b[2J"]}), caption="<i>")
    assert not re.search(r"<(b|i|script)>|\x1b", page)


def test_a_table_links_what_it_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = shown(pd.DataFrame({"a": [1]}), tmp_path / "out here" / "sizes", "Sizes & more")
    assert [path.name for path in made.files] == ["sizes.tex", "sizes.csv"]
    page = made._repr_html_()
    assert "Sizes &amp; more" in page and r"Sizes \& more" in made.files[0].read_text()
    assert re.findall('href="([^"]*)"', page) == ["out%20here/sizes.tex", "out%20here/sizes.csv"]


def test_an_unwritable_place_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        shown(pd.DataFrame({"a": [1]}), tmp_path / "file" / "x")


def test_links_are_relative_to_the_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert 'href="a/x.pdf"' in links_html([tmp_path / "a" / "x.pdf"])
    monkeypatch.setenv(LINKS_FROM, str(tmp_path / "a"))
    assert 'href="x.pdf"' in links_html([tmp_path / "a" / "x.pdf"])
    assert f'href="..{os.sep}b/x.pdf"' in links_html([tmp_path / "b" / "x.pdf"])
    assert links_html([]) == ""


def test_a_figure_is_shown_with_its_caption_and_links(make_trace, tmp_path, monkeypatch):
    outputs = []
    monkeypatch.setattr("IPython.display.display", lambda data, **how: outputs.append(data))
    figure = figures.wss_over_time(make_trace(rounds=30), "50ms")
    figure._ipython_display_()
    picture, below = outputs
    assert picture.keys() == {"image/png", "text/plain"}
    assert escape(figure.caption) in below["text/html"] and "href" not in below["text/html"]
    files = figures.save(figure, tmp_path / "wss")
    figure._ipython_display_()
    assert outputs[-1]["text/html"].count("href") == len(files)
    assert (tmp_path / "wss.txt").read_text() == figure.caption + "\n"
