# SPDX-License-Identifier: Apache-2.0
"""Shared parts of all sources: the output's spool, the command line, child processes."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import OutputExists, UsageError
from pmlkit.files import portable, refuse_inside_trace
from pmlkit.spool import folder_of
from pmlkit.spool_reader import new_folder
from pmlkit.trace.manifest import may_be_replaced

if TYPE_CHECKING:
    from pmlkit.types import PathLike


def read_text(path: PathLike) -> str:
    """Return the current text of a guest's or emulator's output file; "" if it does not exist."""
    try:
        return Path(path).read_text(errors="replace")
    except FileNotFoundError:
        return ""


def with_us(signal: str = "KILL") -> list[str]:
    """Return a command prefix that sends the program a signal when this process ends."""
    return ["setpriv", "--pdeathsig", signal, "--"] if shutil.which("setpriv") else []


def command(function: str) -> str:
    """Return pmlkit's command line without absolute paths, or a call of `function` by Python."""
    typed = Path(sys.argv[0]).name in ("pmlkit", "__main__.py")
    return shlex.join(["pmlkit", *map(portable, sys.argv[1:])]) if typed else f"{function}()"


def claim(out: PathLike, overwrite: bool) -> tuple[Path, Path]:
    """Create the spool's folder next to the output, refusing existing ones; return (out, spool)."""
    out = Path(out)
    if out.suffix != ".trace":
        raise UsageError(f"the output {out} should be called NAME.trace", f"try {out}.trace")
    refuse_inside_trace(out)
    spool = folder_of(out)
    # Refused now, and not when the guest has run: a folder that is no trace is never replaced.
    if os.path.lexists(out) and not (overwrite and may_be_replaced(out)):
        raise OutputExists(out, may_be_replaced(out))
    if spool.exists() and not overwrite:
        raise OutputExists(spool)
    new_folder(spool)
    return out, spool
