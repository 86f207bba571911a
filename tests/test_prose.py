# SPDX-License-Identifier: Apache-2.0
"""The check of the project's English finds what its rules are for, and where."""

import json

import pytest
from tree import ROOT

from docs import prose


def found(text):
    """Return the (line, rule) of each problem of a Markdown text."""
    problems = prose.check(list(prose.blocks(text, "x.md")), known={"PML"})
    return [(one.line, one.rule) for one in problems]


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


def test_25_words_are_the_most():
    of = {n: "A " + "long " * (n - 2) + "sentence." for n in (25, 26)}
    assert [n for n in of if found(of[n])] == [26]


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


def test_messages_are_read_and_code_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    (tmp_path / "m.py").write_text(
        '"""A docstring that may say anything, and mend it."""\n'
        'raise Error(f"{path} says nothing: give NAME.trace or XQZ instead")\n'
        'SCRIPT = "for m in a b c; do\\n mend $m; done"\n'
        'PATTERN = re.compile(r"a (?P<name>b) that one may say c d e f")\n'
    )
    problems = list(prose.check(list(prose.of_messages(tmp_path))))
    assert [(one.where, one.line, one.rule) for one in problems] == [("m.py", 2, "Words")]


def test_captions_of_experiments_are_read(tmp_path):
    (tmp_path / "e.yaml").write_text(
        "title: Draw it anew\nruns:\n  - notebook: anew\n    gather: {fig-x: {caption: Mend it}}\n"
    )
    found = list(prose.check(list(prose.of_experiment(tmp_path / "e.yaml", "e.yaml"))))
    assert [one.sentence for one in found] == ["Draw it anew", "Mend it"]


def test_help_and_captions_are_read():
    assert len({block.where for block in prose.read("help")}) > 100
    captions = prose.read("captions")
    assert any("`code`" in block.text for block in captions)
    assert not any("SPDX" in block.text or "numpydoc" in block.text for block in captions)


def test_each_pattern_that_is_left_out_is_of_a_place():
    listed = prose.yaml.safe_load((ROOT / "docs" / "prose.yaml").read_text())["not_yet"] or ()
    places = prose.places()
    assert [one for one in listed if not any(prose.fnmatch(place, one) for place in places)] == []
