# SPDX-License-Identifier: Apache-2.0
"""How the documentation is built: `make docs`."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import answers
import executed
import figures
import gallery
import layers
import pages
import tables
from failures import named

import pmlkit

project = "pmlkit"
author = copyright = "the pmlkit authors"
release = pmlkit.__version__

extensions = [
    "mathml",
    "myst_nb",  # with myst_parser
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "clicked",  # with sphinx_click
]
source_suffix = {
    ".rst": "restructuredtext",  # the first: autosummary writes it
    ".md": "myst-nb",
    ".ipynb": "myst-nb",
}
exclude_patterns = ["_build", "_figures", "notebooks/files"]
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
# `--` stays two hyphens: options are copied from these pages.
smartquotes = False
html_math_renderer = "mathml"
# `executed` has run the notebooks. What draws widgets would come from the network.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
autosummary_generate = True
# The texts that matplotlib and scikit-learn give these methods need their own roles.
autodoc_default_options = {"members": True, "exclude-members": "set, set_score_request"}
autodoc_member_order = "bysource"
napoleon_google_docstring = False
# The docstrings write `name` for a name, whatever it is; a reader sees code.
default_role = "code"

# Two classes may each have an attribute of the same name; which one is meant, the text says.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = "pmlkit"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_extra_path = ["notebooks/files"]  # what the notebooks saved

# For a quick look at a text, `make docs ARGS="-t draft"` leaves figures as they are there, and
# notebooks as they are stored.
FIGURES = Path(__file__).parent / "_figures"
DRAFT = tags.has("draft")  # noqa: F821
if not DRAFT:
    figures.refresh(FIGURES)
for module in (figures, layers, tables, gallery, answers):
    with named(f"docs/{module.__name__}.py"):
        module.make(FIGURES)
with named("docs/executed.py"):
    executed.make(Path(__file__).parent / "notebooks", execute=not DRAFT)


_COLUMNS = re.compile(r"^(?!>>>)\S.*?\S {2,}\S|^ {8}", re.MULTILINE)  # a name, and what it is
_TITLE = re.compile(r".*\n-+\n")


def _keep_columns(app, what, name, obj, options, lines):
    """Show the packages' tables of contents as they are set: in columns."""
    if what != "module":
        return
    paragraphs = "\n".join(lines).split("\n\n")
    for number, text in enumerate(paragraphs):
        title = _TITLE.match(text)
        table = text[title.end() :] if title else text
        if _COLUMNS.search(table) and not table.startswith((" ", ">>>")):
            indented = re.sub("^", "    ", table, flags=re.MULTILINE)
            paragraphs[number] = f"{title[0] if title else ''}\n::\n\n{indented}\n"
    lines[:] = "\n\n".join(paragraphs).splitlines()


def setup(app):
    """Let Sphinx call what is here."""
    app.connect("autodoc-process-docstring", _keep_columns, priority=100)
    app.connect("build-finished", pages.check, priority=900)  # after the theme has finished
