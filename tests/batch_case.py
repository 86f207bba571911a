# SPDX-License-Identifier: Apache-2.0
"""Small experiments: notebooks that need no figure, and a backend that needs no notebook."""

import json

import nbformat
import pandas as pd
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from pmlkit import figures
from pmlkit.batch.job import RECORD, failed_record, write_record

PARAMETERS = 'trace = "x"\nwindow = "1s"\nm = 1\nout = "y"'


def write_notebook(path, *code, parameters=PARAMETERS):
    """Write a notebook with these cells of code."""
    cells = [
        new_markdown_cell(f"# About {path.stem}"),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *map(new_code_cell, code),
    ]
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=spec), path)
    return path


def write_experiment(path, **content):
    """Write an experiment's file."""
    path.write_text(yaml.safe_dump({"title": "A title", **content}))
    return path


class Pretend:
    """A backend whose runs cost nothing.

    Parameters
    ----------
    fails : callable
        Says of a job whether its run fails.
    interrupt_after : int, optional
        Ctrl-C comes after so many runs.
    """

    def __init__(self, fails=lambda job: False, interrupt_after=None):
        self.fails, self.interrupt_after, self.ran = fails, interrupt_after, []

    def run(self, jobs, folder, started=lambda job: None):
        for job in jobs:
            if len(self.ran) == self.interrupt_after:
                raise KeyboardInterrupt
            started(job)
            self.ran.append(job)
            yield job, self._record(job, folder / job.id)

    def _record(self, job, final):
        final.mkdir(exist_ok=True)
        record = failed_record(job, "ValueError: no")
        if not self.fails(job):
            record |= {"status": "done", "error": None}
            sizes = {"phase": ["first"], "pages": [len(job.label)], "trace": ["own"]}
            figures.table(pd.DataFrame(sizes), final / "sizes", "Sizes")
        write_record(record, final)
        return json.loads((final / RECORD).read_text())
