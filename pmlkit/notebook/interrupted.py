# SPDX-License-Identifier: Apache-2.0
"""What a notebook shows when Ctrl-C (the stop button) ends a call of pmlkit: one line.

IPython asks an exception for `_render_traceback_`. pmlkit's own exceptions have it; Python's
KeyboardInterrupt does not, and may come from any place of any call. So IPython's handler of this
exception looks where it comes from: interrupts of other code keep their traceback.
"""

from __future__ import annotations

import os
import sys
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["install", "line"]

WHOLE = "files that were complete stay, and no file is half written"
AGAIN = "Run the cell again to start over."


def line(error: BaseException) -> str:
    """Return what is whole after an interrupt, and what to do next.

    Parameters
    ----------
    error : BaseException
        A KeyboardInterrupt; `pmlkit.signals.Ended` knows which results are kept.
    """
    kept = getattr(error, "kept", "")
    return f"Interrupted: {kept}." if kept else f"Interrupted: {WHOLE}. {AGAIN}"


def install() -> None:
    """Let IPython show interrupted calls as one line, unless it has another such handler."""
    ipython = sys.modules["IPython"].get_ipython()
    if ipython is not None and not ipython.custom_exceptions:
        ipython.set_custom_exc((KeyboardInterrupt,), _show)


def _show(
    shell: Any,
    kind: type[BaseException],
    error: BaseException,
    traceback: TracebackType,
    tb_offset: int | None = None,
) -> None:
    """Show an interrupt; the parameters are IPython's."""
    if is_ours(traceback) and not os.environ.get("PMLKIT_DEBUG"):
        shown: Any = error
        shown._render_traceback_ = lambda: [line(error)]
    shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)


def is_ours(traceback: TracebackType | None) -> bool:
    """Whether a traceback passes through pmlkit."""
    names = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(traceback))
    return any(name.partition(".")[0] == "pmlkit" for name in names)
