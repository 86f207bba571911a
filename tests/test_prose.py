# SPDX-License-Identifier: Apache-2.0
"""The check of the project's English finds what its rules are for, and where."""

import json

import pytest
from tree import ROOT

from docs import prose


def found(text, level="error"):
    """Return the (line, rule) of each problem of a Markdown text."""
    problems = prose.check(list(prose.blocks(text, "x.md")), known={"PML"})
    return [(one.line, one.rule) for one in problems if one.level == level]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Who wants a size can count.", "SentenceStart"),
        ("It works. Whoever quotes a size has chosen one.", "SentenceStart"),
        ("What is done is not run again.", "SentenceStart"),
        ("Of an access trace all uses are counted.", "SentenceStart"),
        ("So is a T that is too long.", "SentenceStart"),
        ("It shows the part looked at.", "SentenceEnd"),
        ("The log has the entries beside.", "SentenceEnd"),
        ("A sample cannot be had at all.", "WordOrder"),
        ("Draw it anew.", "Words"),
        ("This is how to mend it.", "Words"),
        ("It says nothing.", "Words"),
        ("The XQZ is full.", "Abbreviations"),
        ("One: two: three.", "Colons"),
        ("A " + "long " * 29 + "sentence.", "SentenceLength"),
    ],
)
def test_each_rule_finds_its_breach(text, rule):
    assert rule in [name for _, name in found(text)]


@pytest.mark.parametrize(
    "text",
    [
        "Who switches logging on?",
        "What is a use?",
        "`Who` is a name, and `anew` is code, and `pmlkit x --beside`.",
        "    pmlkit mend anew  # a block of code",
        "```\nWhoever mends anew\n```",
        "The XQZ (a table) is full. A table (XQZ) is one.",
        "PML is in the glossary.",
        "See e.g. Denning et al. The ratio is 1.5 here.",
        "<!-- table: x -->\n| anew | beside |\n<!-- end -->",
        "$W(t,T)$ is the size: 12:30 is no colon.",
        "A " + "long " * 20 + "sentence. " + "Short " * 20 + "one.",
    ],
)
def test_plain_texts_have_no_problem(text):
    assert not found(text)


def test_a_problem_has_the_line_and_the_sentence():
    text = "# Title\n\nA first sentence.\nIt is\ndrawn anew.\n\n- an item that one may mend\n"
    assert found(text) == [(5, "Words"), (7, "Words")]
    (first, _) = prose.check(list(prose.blocks(text, "x.md")))
    assert str(first).startswith("x.md:5: error: Use 'again' instead of 'anew'. [Words]")
    assert first.sentence == "It is\ndrawn anew."


def test_26_words_are_a_warning_and_31_an_error():
    of = {n: "A " + "long " * (n - 2) + "sentence." for n in (25, 26, 30, 31)}
    assert [n for n in of if found(of[n], "warning")] == [26, 30, 31]
    assert [n for n in of if found(of[n])] == [31]


def test_a_sentence_ends_before_a_capital_and_not_at_a_short_form():
    text = "One, e.g. This one. Two (of 1.5). `code` is three! Is it?"
    assert [sentence for _, sentence in prose.sentences(text)] == [
        "One, e.g. This one.",
        "Two (of 1.5).",
        "`code` is three!",
        "Is it?",
    ]


def test_cells_of_notebooks_are_read_and_code_is_not(tmp_path):
    cells = [("markdown", "Fine."), ("code", "anew"), ("markdown", "Do it\n"), ("markdown", "anew")]
    told = {"cells": [{"cell_type": kind, "source": [text]} for kind, text in cells]}
    (tmp_path / "n.ipynb").write_text(json.dumps(told))
    problems = list(prose.check(list(prose.of_notebook(tmp_path / "n.ipynb", "n.ipynb"))))
    assert [one.where for one in problems] == ["n.ipynb cell 4"]


def test_help_and_captions_are_read():
    assert len({block.where for block in prose.read("help")}) > 100
    captions = prose.read("captions")
    assert any("`code`" in block.text for block in captions)
    assert not any("SPDX" in block.text or "numpydoc" in block.text for block in captions)


def test_each_pattern_that_is_left_out_is_of_a_place():
    listed = prose.yaml.safe_load((ROOT / "docs" / "prose.yaml").read_text())["not_yet"] or ()
    places = prose.places()
    assert [one for one in listed if not any(prose.fnmatch(place, one) for place in places)] == []
