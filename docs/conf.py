# SPDX-License-Identifier: Apache-2.0
"""How the documentation is built: `make docs`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import figures

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
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
napoleon_google_docstring = False
# The docstrings write `name` for a name, whatever it is; a reader sees code.
default_role = "code"

html_theme = "furo"
html_title = "pmlkit"
html_copy_source = False

figures.make(Path(__file__).parent / "_figures")
