# SPDX-License-Identifier: Apache-2.0
"""`pmlkit plot --terminal`: a figure as text, as wide as the terminal."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from pmlkit.cli.options import echo
from pmlkit.cli.show import show
from pmlkit.errors import UsageError
from pmlkit.progress import can_print

if TYPE_CHECKING:
    from typing import Any

    from pmlkit.types import PathLike

__all__ = ["print_figure"]


_ON_PAPER = ("columns", "venue", "width", "height")  # options of `pmlkit plot` for paper only


def print_figure(trace: PathLike | None, figure: str, as_json: bool, **how: Any) -> None:
    """Print a figure; in a pipe it is 80 columns wide, or as COLUMNS states.

    Parameters
    ----------
    trace : path-like
    figure : str
        One of `pmlkit.figures.terminal.FIGURES`.
    as_json : bool
        Print its lines as JSON.
    **how
        As in `pmlkit.figures.terminal.draw`. Sizes on paper have no meaning here.
    """
    from pmlkit.cli import console
    from pmlkit.figures import terminal
    from pmlkit.trace.reader import Trace

    if trace is None:
        raise UsageError("name a TRACE")
    how = {name: value for name, value in how.items() if name not in _ON_PAPER}
    screen = terminal.Screen(
        shutil.get_terminal_size().columns,
        ascii_only=not can_print(sys.stdout, "".join(terminal.SHADES)),
    )
    with console.busy("drawing", quiet=as_json):
        opened = Trace.open(trace)
        text = terminal.draw(opened, figure, screen=screen, **how)
    show(as_json, text.splitlines(), _print, text)


def _print(text: str) -> None:
    for line in text.splitlines():
        echo(line)
