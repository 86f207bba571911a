# SPDX-License-Identifier: Apache-2.0
"""LaTeX tables: what LaTeX would misread is escaped, and the CSV has the same rows."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlkit.errors import OutputError
from pmlkit.figures.tables import cell, column, escape, heads, heads_of, latex, table
from pmlkit.units import described

FRAME = pd.DataFrame(
    {
        "phase": ["read_1", "a & b"],
        "pages": [16384, 2560],
        "MiB": [64.0, np.nan],
        "met": [True, False],
    }
)


def test_a_table_is_booktabs_with_numbers_flush_right():
    text = latex(FRAME, "50 % of it", "tab:x")
    assert r"\begin{tabular}{lrrl}" in text
    assert [text.count(rf"\{rule}") for rule in ("toprule", "midrule", "bottomrule")] == [1, 1, 1]
    assert r"\caption{50 \% of it}" in text and r"\label{tab:x}" in text
    assert r"read\_1 & 16,384 & 64 & yes \\" in text
    assert r"a \& b & 2,560 & -- & no \\" in text


def test_files_and_default_label(tmp_path):
    tex, csv = table(FRAME, tmp_path / "new" / "sizes", "caption")
    assert r"\label{tab:sizes}" in tex.read_text()
    pd.testing.assert_frame_equal(pd.read_csv(csv), FRAME, check_dtype=False)


def test_unwritable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        table(FRAME, tmp_path / "file" / "x", "caption")


@given(st.text())
def test_nothing_special_is_left_unescaped(text):
    bare = re.sub(r"\\(text[a-z]+\{\}|[&%$#_{}])", "", escape(text))
    assert not set(bare) & set("\\&%$#_{}~^")


def test_latex_heads_have_the_units_and_the_csv_the_names(tmp_path):
    frame = described(pd.DataFrame({"first_uses": [0.8], "10%": [10.1]}), {"first_uses": "%"})
    tex, csv = table(frame, tmp_path / "memory", "caption")
    assert r"    first uses (\%) & 10\% \\" in tex.read_text().splitlines()
    assert csv.read_text().splitlines()[0] == "first_uses,10%"


NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1)


@given(st.lists(NAMES, min_size=1, unique=True), st.sampled_from(["", "MiB", "%"]))
def test_heads_are_read_back_from_latex(names, unit):
    frame = described(pd.DataFrame({name: [1] for name in names}), {names[0]: unit})
    assert heads_of(latex(frame, "caption", "tab:x")) == heads(frame)


def test_a_head_may_contain_an_ampersand():
    frame = pd.DataFrame({"read & written": [1], "pages": [2]})
    assert heads_of(latex(frame, "caption", "tab:x")) == ["read & written", "pages"]


@pytest.mark.parametrize(
    "value, text",
    [(1234567, "1,234,567"), (0.12345, "0.123"), (1234.56, "1,234.6"), (None, "--"), ("x", "x")],
)
def test_cells_are_short(value, text):
    assert cell(value) == text


@pytest.mark.parametrize(
    "values, texts",
    [
        ([1.0, 12.345, -100.0], ["1.0", "12.3", "-100.0"]),
        ([0.5, 0.25, np.nan], ["0.50", "0.25", "--"]),
        ([64.0, 3.0], ["64", "3"]),
        ([0.002, 0.0031, 567.0, 38.0, 22.0], ["0.002", "0.0031", "567.0", "38", "22"]),
        ([0.0], ["0"]),
    ],
)
def test_the_same_decimals_in_a_column_unless_little_would_be_left(values, texts):
    assert column(pd.Series(values)) == texts
