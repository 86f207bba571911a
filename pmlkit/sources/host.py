# SPDX-License-Identifier: Apache-2.0
"""What the recorder and the lab ask of the machine that runs them."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pmlkit.types import PathLike


def read_text(path: PathLike) -> str:
    """Return what a guest or an emulator has written to a file so far; no file: nothing."""
    try:
        return Path(path).read_text(errors="replace")
    except FileNotFoundError:
        return ""


def with_us(signal: str = "KILL") -> list[str]:
    """A prefix by which a program gets a signal when we end, whatever ends us."""
    return ["setpriv", "--pdeathsig", signal, "--"] if shutil.which("setpriv") else []


def command(function: str) -> str:
    """Return what was typed at the shell, or `function`, the name of what Python called."""
    typed = Path(sys.argv[0]).name in ("pmlkit", "__main__.py")
    return shlex.join(["pmlkit", *sys.argv[1:]]) if typed else f"{function}()"
