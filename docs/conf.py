# SPDX-License-Identifier: Apache-2.0
"""How the documentation is built: `make docs`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import figures
import layers
import tables

import pmlkit

project = "pmlkit"
author = copyright = "the pmlkit authors"
release = pmlkit.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}  # autosummary writes .rst
exclude_patterns = ["_build", "_figures"]
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
autosummary_generate = True
# matplotlib's own text of `set` needs its own roles.
autodoc_default_options = {"members": True, "exclude-members": "set"}
autodoc_member_order = "bysource"
napoleon_google_docstring = False
# The docstrings write `name` for a name, whatever it is; a reader sees code.
default_role = "code"

# Two classes may each have an attribute of the same name; which one is meant, the text says.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = "pmlkit"
html_copy_source = False

figures.make(Path(__file__).parent / "_figures")
layers.make(Path(__file__).parent / "_figures")
tables.make(Path(__file__).parent / "_figures")


def _keep_columns(app, what, name, obj, options, lines):
    """Show the packages' tables of contents as they are set: in columns."""
    for title, end in (("What there is", "Modules are imported"), ("protocol  ", "curves has")):
        starts = [n for n, line in enumerate(lines) if line.startswith(title)]
        if what == "module" and starts:
            first = starts[0] + 2 * (title == "What there is")
            rest = range(first, len(lines))
            last = next((n for n in rest if lines[n].startswith(end)), len(lines))
            lines[first:last] = ["", "::", "", *(f"    {line}" for line in lines[first:last]), ""]


def setup(app):
    """Let Sphinx call what is here."""
    app.connect("autodoc-process-docstring", _keep_columns, priority=100)
