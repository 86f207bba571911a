# SPDX-License-Identifier: Apache-2.0
"""An experiment as a Snakefile, for sites whose jobs go through Snakemake (Slurm, LSF, ...).

Every run that is missing is a job of a rule, with the same process that `pmlkit run` starts. The
last rule performs the summaries, and creates the page and the table of all results.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.files import refuse_inside_trace, whole

if TYPE_CHECKING:
    from pmlkit.batch.plan import Plan
    from pmlkit.types import PathLike


__all__ = ["write"]

_RUN = '-m pmlkit.batch.job {input:q} "$(dirname {output:q})"'
_TEXT = """\
# Written by `{command} --snakefile {file}`: write it again when the experiment has changed.
# Try it:      snakemake --snakefile {file} --dry-run
# Here:        snakemake --snakefile {file} --cores 2 --keep-going
# With Slurm:  snakemake --snakefile {file} --executor slurm --jobs 100 --keep-going
RESULTS = {folder}
RUNS = {runs}

rule all:
    input:
        RESULTS + "/index.html",

rule run:
    input:
        RESULTS + "/.jobs/{{run}}.json",
    output:
        RESULTS + "/{{run}}/run.json",
    wildcard_constraints:
        run="[0-9a-f]+",
    threads: 1
    shell:
        {run_command}

rule page:
    input:
        expand(RESULTS + "/{{run}}/run.json", run=RUNS),
    output:
        RESULTS + "/index.html",
    shell:
        {page_command}
"""


def write(plan: Plan, experiment: PathLike, path: PathLike) -> Path:
    """Write the Snakefile, and a job file for each run into the results.

    Parameters
    ----------
    plan : pmlkit.batch.runner.Plan
    experiment : path-like
        The YAML file.
    path : path-like
        The Snakefile to write.

    Returns
    -------
    Path

    Raises
    ------
    pmlkit.errors.OutputError
        If a file cannot be written.
    """
    path = Path(path)
    refuse_inside_trace(plan.folder, is_folder=True)
    for job in plan.runs:
        job.write(plan.folder / ".jobs" / f"{job.id}.json")
    python = shlex.quote(sys.executable)
    again = shlex.join(["run", os.path.abspath(experiment), "-o", str(plan.folder.parent)])
    text = _TEXT.format(
        command=plan.experiment.command,
        file=shlex.quote(str(path)),
        folder=json.dumps(str(plan.folder)),
        runs=json.dumps([job.id for job in plan.runs], indent=4),
        run_command=json.dumps(f"{python} {_RUN}"),
        page_command=json.dumps(f"{python} -m pmlkit {_braces(again)}"),
    )
    with whole(path, overwrite=True) as partial:
        partial.write_text(text)
    return path


def _braces(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
