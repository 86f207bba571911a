# SPDX-License-Identifier: Apache-2.0
"""The notebooks, executed for the documentation: each on its own bundled recording.

A run is kept in ``results/docs-notebooks``. It is used again while the digest of the source is
the same. Runs of `make demo` and `make paper` of the same source are used, too.
"""

import json
import re
import shutil
from pathlib import Path

import nbformat
import yaml
from failures import failed

from pmlkit.batch import runner
from pmlkit.batch.job import read_record, source_digest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
NAME = "docs-notebooks"
FILES = "files"  # within the folder of the notebooks: what is copied to the site's root
# Parameters that differ here from the notebook's own, so that the build stays short.
SHORTER = {
    "10_frontier": {
        "window": "1s",
        "techniques": "pml,pml-page-tables,idle-pages,pruned-scan,flag-sample,vmware",
    }
}
_ADDED = {"injected-parameters", "papermill-error-cell-tag"}  # tags of papermill's own cells
# A link to a file that a cell saved, as `figures.save` shows it.
_SAVED = re.compile(r'href=\\?"([\w-]+\.\w+)\\?" target=')
_TRACE = re.compile(r'^trace = "([\w-]+)"', re.MULTILINE)
_INDEX = """# Notebooks

Each notebook calls the package and shows the results. They were executed on bundled recordings when
the documentation was built. To run one yourself, type `make jupyter` in a clone. To run many, use
[`pmlkit run`](../howto/batch.md).

| notebook | recording |
|---|---|
{rows}

```{{toctree}}
:hidden:

{names}
```
"""


def stored():
    """Return {name: (title, recording)} of the notebooks; the recording is a parameter's value."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):  # not a user's own
        cells = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]
        text = "\n".join(cells)
        title, trace = re.search(r"^# (.*)$", text, re.MULTILINE), _TRACE.search(text)
        found[path.stem] = title[1], trace and trace[1]
    return found


def experiment(folder):
    """Write the experiment of all notebooks with a recording, and return its path."""
    runs = [
        {"notebook": name, "traces": [trace], "parameters": SHORTER.get(name, {})}
        for name, (_, trace) in stored().items()
        if trace
    ]
    path = folder / f"{NAME}.yaml"
    path.write_text(yaml.safe_dump({"title": "The notebooks of the documentation", "runs": runs}))
    return path


def run(folder):
    """Run what is not done by this source, and return {notebook's name: its executed file}."""
    planned = runner.plan(experiment(folder), RESULTS)
    for job in planned.jobs:
        kept = planned.folder / job.id
        if not _is_current(kept):
            shutil.rmtree(kept, ignore_errors=True)
            done = (RESULTS / made / job.id for made in ("demo", "paper"))
            if current := next(filter(_is_current, done), None):
                shutil.copytree(current, kept)
    report = runner.run(planned)
    if report.failed:
        job, record = report.failed[0]
        raise _failure(job, record["error"], planned.folder / job.id)
    if report.interrupted:
        raise KeyboardInterrupt
    return {job.notebook: planned.folder / job.id / f"{job.notebook}.ipynb" for job in planned.jobs}


def _failure(job, error, folder):
    """Return the error of a run: its notebook, the cell as it is numbered there, and why."""
    where, number = f"notebooks/{job.notebook}.ipynb", error["cell"]
    if number:
        cells = nbformat.read(folder / error["file"], as_version=4).cells[:number]
        own = [cell for cell in cells if not _ADDED & set(cell.metadata.get("tags", ()))]
        where += f", cell {len(own)} (`{own[-1].source.strip().splitlines()[0]}`)"
    return failed(where, f"{error['message']}: look at {folder / error['file']}")


def _is_current(folder):
    record = read_record(folder)
    return bool(record) and record["status"] == "done" and record["source"] == source_digest()


def make(folder, execute=True):
    """Fill a folder with the notebooks, executed or as they are stored, and their index."""
    folder = Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / FILES).mkdir(parents=True)
    done = run(folder) if execute else {}
    rows = []
    for name, (title, trace) in stored().items():
        path = done.get(name, ROOT / "notebooks" / f"{name}.ipynb")
        notebook = shown(nbformat.read(path, as_version=4), SHORTER.get(name))
        text = linked(nbformat.writes(notebook), path.parent, folder / FILES / "notebooks" / name)
        (folder / f"{name}.ipynb").write_text(text)
        rows.append(f"| [{title}]({name}.ipynb) | {trace or ''} |")
    text = _INDEX.format(rows="\n".join(rows), names="\n".join(stored()))
    (folder / "index.md").write_text(text)


def linked(text, source, target):
    """Copy the files to which a notebook's outputs link, and return its text with new links."""
    for name in sorted(set(_SAVED.findall(text))):
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, target / name)
    text = text.replace(f"{ROOT}/", "")  # paths as they are in any clone
    return _SAVED.sub(lambda match: match[0].replace(match[1], f"{target.name}/{match[1]}"), text)


def shown(notebook, parameters=None):
    """Return a notebook without what only a run needs: paths of this machine, times, messages."""
    cells = []
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", ()):
            if not parameters:
                continue
            cell.source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        cell.metadata.pop("papermill", None)
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
        cells.append(cell)
    notebook.cells = cells
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    return notebook
