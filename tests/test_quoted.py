# SPDX-License-Identifier: Apache-2.0
"""The numbers that texts quote: each is what the data say, or is known to be no measurement."""

import re

import numpy as np
import pandas as pd
import pytest

from experiments import equal_looks, mrc_errors, quoted
from pmlkit.recordings import ROOT

_SHARES = ("mae", "overhead")
TEXTS = {path.relative_to(ROOT).as_posix(): path for path in quoted.texts()}
MARKDOWN = {name: quoted.markdown(path) for name, path in TEXTS.items()}


@pytest.mark.parametrize("name", TEXTS)
def test_the_numbers_of_a_text_are_those_of_the_data(name):
    text = TEXTS[name].read_text()
    assert quoted.filled(text) == text, "python -m experiments.quoted"


@pytest.mark.parametrize("name", MARKDOWN)
def test_a_number_that_looks_measured_names_its_key(name):
    assert quoted.bare(MARKDOWN[name], quoted.plain(TEXTS[name])) == []


@pytest.mark.parametrize("name", MARKDOWN)
def test_no_line_begins_with_a_comment_that_would_make_it_html(name):
    assert not re.findall(r"(?m)^ *<!--n:", MARKDOWN[name])


def test_every_table_is_in_a_text():
    text = "".join(MARKDOWN.values())
    assert set(re.findall(r"<!-- table: ([\w-]+) -->", text)) == set(quoted.TABLES)


def test_no_docstring_quotes_a_result():
    excepted = quoted.excepted("docstrings")
    assert [found for path in quoted.modules() for found in quoted.quoting(path, excepted)] == []


@pytest.mark.parametrize(
    "text",
    [
        "It sees 98 % of it.",
        "which is three times faster",
        "a tenth of the cost",
        "52 instructions",
    ],
)
def test_a_result_in_a_docstring_is_found_and_where(text, tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        f'"""Title.\n\n{text}\n"""\n\n\ndef f():\n    """Of 4 KiB, 2 `at 5 %` times."""\n'
    )
    assert [found.line for found in quoted.quoting(path, [])] == [3]
    assert quoted.quoting(path, [re.escape(text)]) == []


def test_a_number_without_a_key_is_found_and_where():
    text = "Its error is 4 to 6 % here,\nand 12,345 instructions.\n"
    assert [found.line for found in quoted.bare(text)] == [1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "It costs 3.7<!--n:price.pages_scanned--> instructions.",
        "These are 15,694,632<!--n:harvests.half-4096.pruned-->, all told.",
        "Say `pmlkit record --memory 256` for 3 runs.",
        "    pmlkit wss x.trace --window 10 s, 20 %\n",
        "```\n95 % of 1,000 pages\n```\n",
        "<!-- table: exits -->\n| 15,991 | 30 pages |\n<!-- end -->\n",
        "Section 29.3.5 of 2015, and [a link](x-1,000.md).",
    ],
)
def test_what_is_keyed_or_code_or_a_name_is_no_bare_number(text):
    assert quoted.bare(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "It takes twice the time.",
        "three times as fast",
        "almost half can be saved",
        "a few instructions",
        "many times as much",
        "about ten minutes",
    ],
)
def test_a_number_in_words_looks_measured(text):
    assert len(quoted.bare(text)) == 1


@pytest.mark.parametrize("text", ["Half of the windows end here.", "used three times", "two runs"])
def test_a_count_in_words_does_not(text):
    assert quoted.bare(text) == []


@pytest.mark.parametrize(
    "text", ["off by 6 %", "of 0.86.", "by 12 percent", "takes 1.5 times", "1,234 of", "in 30 ms"]
)
def test_what_looks_measured(text):
    assert len(quoted.bare(text)) == 1


def test_an_exception_covers_its_own_numbers_only():
    text = "512 entries fill it, and 512 entries are 7 % of all."
    (left,) = quoted.bare(text, ["512 entries"])
    assert "7 %" in left.text


def test_a_text_is_filled_by_its_keys():
    key = "harvests.memory-512.pruned"
    text = f"It takes 1<!--n:{key}--> of them."
    assert quoted.filled(text) == f"It takes {quoted.number(key)}<!--n:{key}--> of them."


@pytest.mark.parametrize("key", ["harvests.nobody.pruned", "nothing", "nothing.at.all"])
def test_a_key_that_is_none_is_refused(key):
    with pytest.raises(KeyError, match="quoted --list"):
        quoted.number(key)


def test_the_headline_of_the_sample_is_that_of_its_draws():
    rows = pd.read_csv(ROOT / "data" / "reads-draws" / "draws.csv")
    rows = rows[(rows["one_in"] == 16) & (rows["drawn"] == "anew")]
    means = [np.mean(rows.loc[rows["recording"] == n, "error"]) for n in set(rows["recording"])]
    assert quoted.number("draws.all.16.anew.error.most") == f"{max(means):.1f}"
    assert quoted.number("draws.all.16.anew.worst.most") == f"{rows['error'].max():.1f}"
    keys = quoted.keys((ROOT / "docs" / "concepts" / "reads.md").read_text())
    assert "draws.all.16.anew.error.most" in keys


def test_the_errors_at_equal_looks_are_what_the_techniques_have_now():
    table = pd.read_csv(ROOT / "data" / "equal-looks" / "errors.csv")
    kept = table[table["recording"] == "hotcold"].to_dict("records")
    for now, then in zip(equal_looks.rows("hotcold"), kept, strict=True):
        for name, value in now.items():
            same = value == (pytest.approx(then[name], rel=1e-3) if name in _SHARES else then[name])
            assert same, "python -m experiments.equal_looks"
    errors = table.groupby(["recording", "looks"])["mae"]
    assert (errors.max() - errors.min()).max() < 1e-6  # as the page says: equal at equal looks


def test_the_errors_of_miss_ratios_are_what_the_methods_have_now():
    table = pd.read_csv(ROOT / "data" / "mrc-errors" / "errors.csv")
    assert list(mrc_errors.rows("touch-lab")) == table[table["recording"] == "touch-lab"].to_dict(
        "records"
    )


def test_the_errors_of_draws_are_those_of_their_single_rounds():
    folder = ROOT / "data" / "reads-draws"
    draws = pd.read_csv(folder / "draws.csv")
    draws = draws[draws["one_in"] == 16].set_index(["recording", "drawn", "draw"])
    rounds = pd.read_csv(folder / "rounds.csv")
    rounds["error"] = (rounds["pages"] / rounds["truth"] - 1).abs() * 100
    of = rounds.groupby(["recording", "drawn", "draw"])
    assert (of["error"].mean() - draws["error"]).abs().max() < 0.1  # pages are rounded
    assert of.size().eq(draws["rounds"]).all() and len(of) == len(draws)
    held = rounds["low"].le(rounds["truth"]) & rounds["truth"].le(rounds["high"])
    shares = held.groupby([rounds[name] for name in draws.index.names]).mean() * 100
    assert (shares - draws["inside"]).abs().max() < 10  # a bound that is met may round past it
