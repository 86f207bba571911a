# SPDX-License-Identifier: Apache-2.0
"""The page of an experiment, ``index.html``: its runs, their figures and tables, what failed.

It is made from the files alone, and shows every run of the experiment as it is now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pmlkit
from pmlkit.demo_page import gallery, notebook_page, render
from pmlkit.style_mpl import write_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pmlkit.batch import Plan
    from pmlkit.batch_plan import Job
    from pmlkit.types import Json


__all__ = ["write_page"]


def write_page(page: Path, plan: Plan, records: Mapping[str, Json | None]) -> None:
    """Write the page, and the executed notebooks as HTML where that is not done yet.

    Parameters
    ----------
    page : Path
        ``index.html`` in the experiment's folder.
    plan : pmlkit.batch.Plan
    records : dict of str to dict or None
        By id.

    Raises
    ------
    pmlkit.errors.OutputError
        If it cannot be written.
    """
    text = render(
        "batch.html.j2",
        title=plan.experiment.title,
        about=plan.experiment.about,
        name=plan.experiment.name,
        has_results=(plan.folder / "results.parquet").exists(),
        runs=[_run(plan, job, records[job.id]) for job in plan.jobs],
        version=pmlkit.__version__,
    )
    write_files(page.parent, {page.name: text})


def _run(plan: Plan, job: Job, record: Json | None) -> Json:
    folder = plan.folder / job.id
    notebook = folder / f"{job.notebook}.ipynb"
    shown = {"id": job.id, "label": job.label, "status": "not run yet", "seconds": None}
    if record is None:
        return shown
    if notebook.exists() and not notebook.with_suffix(".html").exists():
        notebook_page(notebook, job.label, plan.experiment.title)
    return shown | {
        "status": record["status"],
        "seconds": record["seconds"],
        "error": record["error"],
        "files": [
            (label, f"{job.id}/{path.name}")
            for label, path in (
                ("read", notebook.with_suffix(".html")),
                (".ipynb", notebook),
                ("log", notebook.with_suffix(".log")),
                ("run.json", folder / "run.json"),
            )
            if path.exists()
        ],
        "group": gallery(plan.folder, folder),
    }
