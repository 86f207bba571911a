# SPDX-License-Identifier: Apache-2.0
"""Kinds: page-table levels are numbers, not flags, and a mask has to know that."""

import numpy as np
import pytest

from pmlkit.errors import UsageError
from pmlkit.trace.kinds import Kind, is_page_table, page_table_level, parse_kinds, select_kinds

TABLES = [0x11, 0x12, 0x13, 0x14, 0x15]


def test_page_tables_and_their_levels():
    assert [page_table_level(kind) for kind in TABLES] == [1, 2, 3, 4, 5]
    kinds = np.array([0, 1, 2, 4, *TABLES], dtype=np.uint8)
    assert is_page_table(kinds).tolist() == [False] * 4 + [True] * 5
    assert is_page_table(0x14)
    assert not is_page_table(Kind.EXEC)


@pytest.mark.parametrize(
    ("kinds", "selected"),
    [
        (None, {0, 1, 2, 4, *TABLES}),
        ("r", {1}),
        (Kind.READ, {1}),
        ("w", {0, 2}),  # what is not known is a write
        ("rx", {1, 4}),
        (Kind.READ | Kind.WRITE, {0, 1, 2}),
        ("p", set(TABLES)),
        (0x12, {0, 2, *TABLES}),
        ("wwr", {0, 1, 2}),
        ("read,executed", {1, 4}),
        ("page-tables,w", {0, 2, *TABLES}),
    ],
)
def test_which_kinds_a_mask_selects(kinds, selected):
    used = {0, 1, 2, 4, *TABLES}
    assert set(np.flatnonzero(select_kinds(kinds))) & used == selected


@pytest.mark.parametrize("kinds", ["", "q", "r w", 0, 8, -1, 0x20, 256])
def test_kinds_that_are_not_known(kinds):
    with pytest.raises(UsageError, match="not known"):
        parse_kinds(kinds)


def test_letters_and_masks_are_the_same():
    assert parse_kinds("rwxp") == Kind.READ | Kind.WRITE | Kind.EXEC | Kind.PAGE_TABLE
    assert parse_kinds(None) is None
