# SPDX-License-Identifier: Apache-2.0
"""LaTeX tables: what LaTeX would misread is escaped, and the CSV has the same rows."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlkit.errors import OutputError
from pmlkit.figures.tables import cell, column, escape, latex, table

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
