# SPDX-License-Identifier: Apache-2.0
"""Run one notebook with papermill, in a separate process of the operating system.

Papermill changes the working directory of its process (papermill #473), so two runs cannot share
one. A kernel that dies must not end its caller. If the caller dies, papermill and its kernel end
too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit import recordings
from pmlkit.errors import PmlkitError, output_error
from pmlkit.figures.notes import LINKS_FROM

if TYPE_CHECKING:
    from subprocess import Popen

    from pmlkit.types import Json, PathLike


__all__ = ["NotebookError", "failure", "notebooks_folder", "start_notebook"]


class NotebookError(PmlkitError):
    """A notebook failed. Attributes: `notebook`, `cell` (from 1, or None), `message`, `executed`.

    `executed` is the notebook up to the failure or, if papermill itself failed, its log.
    """

    def __init__(
        self, notebook: PathLike, cell: int | None, message: str, executed: PathLike
    ) -> None:
        self.notebook, self.cell, self.message = notebook, cell, message
        self.executed = os.fspath(executed)
        where = f" in cell {cell}" if cell else ""
        super().__init__(f"{notebook} failed{where} ({message})", f"look at {self.executed}")


def notebooks_folder() -> Path:
    """Return the folder of the notebooks."""
    folder = recordings.ROOT / "notebooks"
    if not folder.is_dir():
        raise PmlkitError(f"there are no notebooks at {folder}", recordings.CLONE)
    return folder


def start_notebook(
    notebook: Path, executed: Path, parameters: Json, folder: PathLike | None = None
) -> Popen[bytes]:
    """Start papermill on a notebook; return the process.

    Its output goes to ``executed`` with the suffix ``.log``. It has a separate session: Ctrl-C on
    the terminal reaches only the caller, which stops it with `Popen.terminate`.

    Parameters
    ----------
    notebook, executed : Path
        The notebook, and the executed one to write.
    parameters : dict
        Values that JSON can represent.
    folder : path-like, optional
        Working directory of the kernel; default: the notebook's folder.

    Returns
    -------
    subprocess.Popen
    """
    command = [sys.executable, "-m", "pmlkit.batch.papermill_process"]
    command += map(str, (notebook, executed, folder or Path(notebook).parent))
    command.append(json.dumps(parameters))
    try:
        executed.unlink(missing_ok=True)
        with open(executed.with_suffix(".log"), "wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=_environment(executed.parent),
                start_new_session=True,
            )
    except OSError as error:
        raise output_error(executed, error) from error


def _environment(executed_in: Path) -> dict[str, str]:
    # Keep messages of the debugger and warnings of the kernel's start out of the log.
    quiet = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "PYTHONWARNINGS": "ignore"}
    return os.environ | quiet | {LINKS_FROM: os.path.abspath(executed_in)}


def failure(executed: Path, name: str, returncode: int) -> NotebookError:
    """Return the reason why a notebook failed, from the executed notebook or the log."""
    cell, message = _failed_cell(executed)
    log = executed.with_suffix(".log")
    if message is None:
        lines = log.read_text(errors="replace").split("\n") if log.exists() else []
        words = [line for line in lines if line.strip()]
        message = words[-1] if words else f"papermill ended with {returncode}"
    return NotebookError(name, cell, message, log if cell is None else executed)


def _failed_cell(executed: Path) -> tuple[int | None, str | None]:
    try:
        cells = json.loads(executed.read_text())["cells"]
    except (OSError, ValueError, KeyError):
        return None, None
    for number, cell in enumerate(cells, start=1):
        for output in cell.get("outputs", ()):
            if output["output_type"] == "error":
                return number, f"{output['ename']}: {output['evalue']}"
    return None, None
