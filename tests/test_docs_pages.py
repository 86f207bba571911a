# SPDX-License-Identifier: Apache-2.0
"""What the check of built pages refuses, and how formulas and notebooks get onto a page."""

import importlib
import re
import sys

import nbformat
import pytest
from batch_case import Pretend
from browser import page
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from needs import needs_browser
from tree import ROOT

from pmlkit import recordings
from pmlkit.batch import runner

pytest.importorskip("sphinx", reason="needs the extra docs")
sys.path.insert(0, str(ROOT / "docs"))  # as docs/conf.py does
answers, clicked, executed, failures, gallery, pages = map(
    importlib.import_module, ("answers", "clicked", "executed", "failures", "gallery", "pages")
)

from sphinx.errors import ConfigError  # noqa: E402


@pytest.mark.parametrize(
    "html",
    [
        "<code>pmlkit record –list</code>",
        '<script src="https://example.org/x.js"></script>',
        '<link rel="stylesheet" href="//example.org/x.css"/>',
        '<img alt="x" src="http://example.org/x.png">',
    ],
)
def test_a_page_that_cannot_be_copied_or_needs_the_network_is_refused(html):
    assert len(pages.problems(f"<p>{html}</p>")) == 1


@pytest.mark.parametrize(
    "html",
    [
        "<code>pmlkit record --list</code> 5–10, and – alone",
        '<a href="https://example.org/">x</a><script src="_static/x.js"></script>',
        '<script>f("https://example.org/–x")</script>',
    ],
)
def test_links_and_ranges_are_no_problem(html):
    assert pages.problems(html) == []


def test_smart_quotes_are_off():
    assert re.search(
        r"^smartquotes = False$", (ROOT / "docs" / "conf.py").read_text(), re.MULTILINE
    )


def test_each_figure_of_the_package_is_in_the_gallery():
    functions = {function for function, _, _ in gallery.entries().values()}
    assert functions == set(gallery.HOMES)


def test_the_code_of_an_entry_makes_its_figure():
    function, command, code = gallery.entries()["heat"]
    assert command == "    pmlkit plot hotcold heat -o heat\n"
    assert gallery.draw(code).data is not None and function == "heat_map"


def test_each_notebook_has_a_title_and_a_recording_or_none():
    found = executed.stored()
    assert set(found) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert found["02_working_set"][1] == "redis"


def test_a_shown_notebook_has_neither_injected_cells_nor_messages():
    new = nbformat.v4
    out = [
        new.new_output("stream", name="stderr", text="warning"),
        new.new_output("stream", name="stdout", text="result"),
    ]
    cells = [
        new.new_markdown_cell("text"),
        new.new_code_cell("x = 1", metadata={"tags": ["injected-parameters"]}),
        new.new_code_cell("print(x)", outputs=out, metadata={"papermill": {"duration": 1}}),
    ]
    notebook = new.new_notebook(cells=cells, metadata={"papermill": {}, "widgets": {}})
    text, code = executed.shown(notebook).cells
    assert text.source == "text"
    assert [one["text"] for one in code.outputs] == ["result"]
    assert not code.metadata and not notebook.metadata


def test_a_parameter_of_the_build_is_shown():
    cell = nbformat.v4.new_code_cell("trace = '/x'", metadata={"tags": ["injected-parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[cell])
    assert executed.shown(notebook, {"window": "1s"}).cells[0].source == "window = '1s'"


def test_each_question_has_an_answer_and_a_command():
    parts = re.split(r"^### ", answers.PAGE.read_text(), flags=re.MULTILINE)[1:]
    assert len(parts) > 15
    for part in parts:
        assert len(re.findall(r"^    pmlkit ", part, re.MULTILINE)) == 1, part
    assert {"advise", "mrc", "diff"} <= set(answers.shown())


def test_an_answer_is_what_comes_before_the_table():
    assert answers.first_lines("One.  \nTwo.\n\na  b\n1  2\n") == "One.\nTwo.\n"
    assert answers.first_lines("a\n" * 9, lines=2) == "a\na\n"


def test_a_shown_answer_is_run(tmp_path, monkeypatch):
    page = "    pmlkit info hotcold\n\n```{literalinclude} _figures/answers/info.txt\n```\n"
    monkeypatch.setattr(answers, "PAGE", tmp_path / "q.md")
    answers.PAGE.write_text(page)
    answers.make(tmp_path)
    assert "hotcold" in (tmp_path / "answers" / "info.txt").read_text()


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    links = ["b.html", "b.html#there", "#own", "b.html#gone", "c.html", "https://example.org/x"]
    site = {
        "a.html": '<p id="own">' + "".join(f'<a href="{link}">x</a>' for link in links),
        "b.html": '<p id="there"><a href="a.html?q=1">x</a>',
    }
    for name, text in site.items():
        (tmp_path / name).write_text(text)
    found = pages.broken({tmp_path / name: text for name, text in site.items()})
    assert [(page.name, link) for page, link in found] == [
        ("a.html", "b.html#gone"),
        ("a.html", "c.html"),
    ]


def test_files_that_a_notebook_saved_come_along(tmp_path):
    (tmp_path / "wss.pdf").write_text("x")
    output = nbformat.v4.new_output(
        "display_data", data={"text/html": '<a href="wss.pdf" target="_blank">wss.pdf</a>'}
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    text = executed.linked(nbformat.writes(notebook), tmp_path, tmp_path / "out" / "02_wss")
    shown = nbformat.reads(text, as_version=4).cells[0].outputs[0]["data"]["text/html"]
    assert 'href="02_wss/wss.pdf"' in shown
    assert (tmp_path / "out" / "02_wss" / "wss.pdf").exists()


def test_examples_of_a_command_are_a_block_of_code():
    lines = ["| Example:", "|   pmlkit wss x --window 1s", "|   pmlkit plot x wss", ""]
    clicked.show_examples(None, None, lines)
    block = [".. code-block:: shell", "", "   pmlkit wss x --window 1s", "   pmlkit plot x wss"]
    assert lines == ["Example:", "", *block, ""]


def test_a_text_that_begins_with_a_letter_and_a_point_is_no_list():
    lines = ["   T. [default: 1s]", "   Draw it. T. Again.", "   e.g. this"]
    clicked.keep_letters(None, None, lines)
    assert lines == ["   \\T. [default: 1s]", "   Draw it. T. Again.", "   e.g. this"]


def test_the_reference_has_all_commands():
    group = clicked.cli
    clicked.load(group)
    assert set(group.commands) == set(group.list_commands(clicked.click.Context(group)))
    assert len(group.commands) > 15


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A tree whose one notebook fails; returns its folder."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "notebooks").mkdir()
    cells = [
        new_markdown_cell("# Broken"),
        new_code_cell('trace = "hotcold"', metadata={"tags": ["parameters"]}),
        new_code_cell("import pmlkit"),
        new_code_cell("pmlkit.open(trace + '-none')\n1 + 1"),
    ]
    notebook = new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
    nbformat.write(notebook, tmp_path / "notebooks" / "02_broken.ipynb")
    for module in (recordings, executed):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(executed, "RESULTS", tmp_path / "results")
    return tmp_path


@pytest.mark.parametrize("made", ["demo", "paper"])
def test_a_run_of_the_demo_or_the_paper_is_not_made_again(broken, made):
    path = executed.experiment(broken).rename(broken / f"{made}.yaml")
    runner.run(path, broken / "results", Pretend())
    assert set(executed.run(broken)) == {"02_broken"}


def test_a_notebook_that_fails_ends_the_build_with_one_line(broken):
    with pytest.raises(ConfigError) as raised:
        executed.make(broken / "docs" / "notebooks")
    text = str(raised.value)
    place = "notebooks/02_broken.ipynb, cell 4 (`pmlkit.open(trace + '-none')`) failed: "
    assert text.startswith(f"{place}TraceNotFound: ") and "\n" not in text
    assert (broken / "results" / text.rpartition("/results/")[2]).exists()


def test_whatever_fails_in_a_build_is_named_in_one_line():
    match = r"^docs/tables.py failed: ValueError: one two$"
    with pytest.raises(ConfigError, match=match), failures.named("docs/tables.py"):
        raise ValueError("one\ntwo")


@needs_browser
def test_a_figure_is_no_wider_than_a_phone():
    drawing = "<svg xmlns='http://www.w3.org/2000/svg' width='840' height='280'/>"
    image = f'<img width="840" height="280" src="data:image/svg+xml,{drawing}">'
    css = (ROOT / "docs" / "_static" / "custom.css").read_text()
    style = f'<meta name="viewport" content="width=device-width"><style>{css}</style>'
    with page() as browser:
        browser.set_viewport_size({"width": 390, "height": 844})
        body = f'<article><p>{image}</p><div class="cell_output">{image}</div></article>'
        browser.set_content(style + body)
        assert browser.evaluate("document.documentElement.scrollWidth") == 390
        for one in browser.locator("img").all():
            box = one.bounding_box()
            assert 300 < box["width"] <= 390
            assert abs(box["width"] / box["height"] - 3) < 0.1
