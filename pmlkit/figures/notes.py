# SPDX-License-Identifier: Apache-2.0
"""The notes below a figure or a table in a notebook: caption, and links to files.

Captions have one source, `Figure.caption` or the table's. `save` writes them to the files too.
"""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from pmlkit.errors import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pmlkit.types import PathLike

__all__ = ["LINKS_FROM", "caption_html", "links_html", "paragraph", "text_of"]

# Set where the executed notebook is not in the kernel's working directory: in runs of experiments.
LINKS_FROM = "PMLKIT_LINKS_FROM"
_SMALL = "font-size:90%; margin:.3em 0 .8em; max-width:60em"


def text_of(value: object) -> str:
    """Convert a value to HTML: escaped, and without control characters."""
    return escape(visible(value))


def paragraph(content: str) -> str:
    """Return a small paragraph of HTML. Its colours are those of the page, dark or light."""
    return f'<div style="{_SMALL}">{content}</div>'


def caption_html(caption: str) -> str:
    """Return a caption as HTML; empty if there is none."""
    text = visible(caption).strip()
    return paragraph(escape(text)) if text else ""


def links_html(files: Sequence[PathLike]) -> str:
    """Return links to files, relative to the notebook; empty if there are none.

    JupyterLab opens them if its root folder holds both the notebook and the files.
    """
    if not files:
        return ""
    start = os.environ.get(LINKS_FROM) or os.getcwd()
    folder = _relative(Path(files[0]).parent, start)
    links = " ".join(_link(Path(file), start) for file in files)
    return paragraph(f"Saved{'' if folder == '.' else f' in {text_of(folder)}'}: {links}")


def _link(file: Path, start: str) -> str:
    address = escape(quote(_relative(file, start)))
    return f'<a href="{address}" target="_blank">{text_of(file.name)}</a>'


def _relative(path: PathLike, start: str) -> str:
    try:
        return Path(os.path.relpath(path, start)).as_posix()
    except ValueError:  # another drive
        return Path(path).as_posix()
