# SPDX-License-Identifier: Apache-2.0
"""Run a notebook to its end, as one run of an experiment does."""

from pathlib import Path

from pmlkit.batch.notebook import failure, start_notebook


def run_notebook(notebook, executed, parameters):
    """Run a notebook through papermill; raise `NotebookError` if it fails."""
    with start_notebook(Path(notebook), executed, parameters) as process:
        process.wait()
    if process.returncode:
        raise failure(executed, Path(notebook).stem, process.returncode)
    executed.with_suffix(".log").unlink(missing_ok=True)
