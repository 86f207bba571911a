# SPDX-License-Identifier: Apache-2.0
"""Run notebooks from top to bottom in one kernel: its start and its imports take seconds."""

import os
from contextlib import contextmanager

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from waiting import HANG_S

# No notebook sees what the one before it defined. Modules stay imported.
AFRESH = "get_ipython().reset(); import os; os.chdir({!r}); del os"


@contextmanager
def one_kernel():
    """Give a function that runs a notebook with parameters in a folder; it returns the outputs."""
    client = NotebookClient(
        new_notebook(), km=AsyncKernelManager(), startup_timeout=HANG_S, iopub_timeout=HANG_S
    )

    def run(path, folder, **parameters):
        notebook = client.nb = nbformat.read(path, as_version=4)
        tags = [cell.metadata.get("tags") for cell in notebook.cells]
        values = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        notebook.cells.insert(tags.index(["parameters"]) + 1, new_code_cell(values))
        notebook.cells.insert(0, new_code_cell(AFRESH.format(str(folder))))
        client.execute(env=os.environ | {"PYTHONWARNINGS": "ignore"})  # as in a run of a batch
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        return [output for cell in cells for output in cell.outputs]

    try:
        yield run
    finally:
        client._cleanup_kernel()
