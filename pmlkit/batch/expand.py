# SPDX-License-Identifier: Apache-2.0
"""Expand an experiment to its runs: each is a `Job` for any process on any machine.

A job contains the notebook itself, so edits during the experiment do not change the content behind
its id.
"""

from __future__ import annotations

import ast
import dataclasses
import fnmatch
import glob
import hashlib
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit import __version__, recordings
from pmlkit.batch.notebook import notebooks_folder
from pmlkit.batch.schema import LIMIT_RUNS
from pmlkit.errors import FileRefused, PmlkitError, TraceNotFound, UsageError, output_error
from pmlkit.files import read_regular
from pmlkit.trace import annotation, manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nbformat import NotebookNode

    from pmlkit.batch.schema import Entry, Experiment, Place
    from pmlkit.types import Json, PathLike


__all__ = ["Job", "TraceRef", "digest_of_trace", "expand", "jobs_of", "only", "read_job"]

ID_LENGTH = 12  # hexadecimal digits: 48 bits suffice for thousands of runs
FORMAT = {"format": "pmlkit-job", "version": 1}
LIMIT_BYTES = 64 << 20  # of a notebook with its outputs
_LIMIT_MATCHES = 10_000


@dataclass(frozen=True)
class TraceRef:
    """A trace: its name, its path, and the digest that seals its ``trace.json``."""

    name: str
    path: str
    digest: str


@dataclass(frozen=True)
class Job:
    """One run: a notebook with its parameters and traces.

    Attributes
    ----------
    id : str
        Hash of the notebook's cells, parameters, the traces' names and digests, the version
        of pmlkit and, for a summary, the ids of its runs.
    experiment, notebook : str
        Their names.
    document : dict
        The notebook (nbformat 4).
    folder : str
        The notebook's folder: its kernel starts there, if it exists.
    parameters : dict
        From the experiment.
    traces : tuple of TraceRef
    together : bool
        The notebook takes the list of all traces.
    results : str
        For a summary, the table of all runs' results.
    """

    id: str
    experiment: str
    notebook: str
    document: Json
    folder: str
    parameters: Json
    traces: tuple[TraceRef, ...]
    together: bool = False
    results: str = ""

    @property
    def words(self) -> list[str]:
        """The words that distinguish this run: notebook, traces, ``name=value``."""
        values = [f"{name}={_text(value)}" for name, value in self.parameters.items()]
        return [self.notebook, *(trace.name for trace in self.traces), *values]

    @property
    def label(self) -> str:
        """The `words` as a line."""
        return " ".join(self.words)

    def given(self, out: PathLike) -> Json:
        """Return all parameters of the notebook, in papermill's form."""
        paths = [trace.path for trace in self.traces]
        traces = {"traces": paths} if self.together else dict(zip(["trace"], paths, strict=False))
        results = {"results": self.results} if self.results else {}
        return self.parameters | traces | results | {"out": str(out)}

    def write(self, path: Path) -> Path:
        """Write the job as JSON; `read_job` reads it."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(FORMAT | dataclasses.asdict(self)))
        except OSError as error:
            raise output_error(path, error) from error
        return path


def read_job(path: PathLike) -> Job:
    """Read a file of `Job.write`.

    Raises
    ------
    PmlkitError
        If the file is something else.
    """
    try:
        document = json.loads(read_regular(path, LIMIT_BYTES))
        if {name: document.pop(name, None) for name in FORMAT} != FORMAT:
            raise ValueError("of another program or version")
        traces = tuple(TraceRef(**trace) for trace in document.pop("traces"))
        return Job(traces=traces, **document)
    except (
        FileRefused,
        OSError,
        ValueError,
        AttributeError,
        KeyError,
        TypeError,
        RecursionError,
    ) as error:
        hint = "write it again with `pmlkit run ... --snakefile`"
        raise PmlkitError(f"{path} is not a job of pmlkit ({error})", hint) from error


def expand(experiment: Experiment, results: PathLike = "") -> tuple[list[Job], list[Job]]:
    """Create the jobs of an experiment.

    Parameters
    ----------
    results : path-like
        The table that the summaries read.

    Returns
    -------
    list of Job, list of Job
        The runs and the summaries, without duplicates, in the order of the file.

    Raises
    ------
    ExperimentError
        If a notebook, a trace or a notebook's parameter does not exist; names the line.
    """
    runs = _jobs(experiment, experiment.runs)
    needs = [job.id for job in runs]
    return runs, _jobs(experiment, experiment.summary, needs, str(results))


def jobs_of(experiment: Experiment, entry: Entry) -> list[Job]:
    """Create the jobs of one entry of an experiment's `runs`, as `expand` does."""
    return _jobs(experiment, [entry])


def only(jobs: Sequence[Job], words: Sequence[str]) -> list[Job]:
    """Return the jobs that have all the words (``*`` and ``?`` as in a shell).

    Raises
    ------
    UsageError
        If there is none.
    """
    chosen = [job for job in jobs if all(_has(job, word) for word in words)]
    if not chosen and jobs:
        raise UsageError(f"no run has {' and '.join(map(repr, words))}: `--dry-run` lists the runs")
    return chosen


def _has(job: Job, word: str) -> bool:
    return job.id.startswith(word) or any(fnmatch.fnmatchcase(w, word) for w in job.words)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _jobs(
    experiment: Experiment, entries: Iterable[Entry], needs: Sequence[str] = (), results: str = ""
) -> list[Job]:
    jobs: dict[str, Job] = {}
    for entry in entries:
        notebook, groups = _notebook(experiment, entry), _groups(experiment, entry)
        total = len(groups) * len(entry.points)
        if total > LIMIT_RUNS:
            why = f"it has {total:,} runs, and the limit is {LIMIT_RUNS:,}"
            hint = "name fewer traces, or remove values from the grid"
            raise experiment.error(entry.where, why, hint)
        for traces in groups:
            for parameters in entry.points:
                job = _job(experiment, notebook, entry, traces, parameters, needs, results)
                jobs.setdefault(job.id, job)
    return list(jobs.values())


def _job(
    experiment: Experiment,
    notebook: tuple[Path, Json],
    entry: Entry,
    traces: Sequence[TraceRef],
    parameters: Json,
    needs: Sequence[str],
    results: str,
) -> Job:
    path, document = notebook
    cells = [[cell["cell_type"], cell["source"]] for cell in document["cells"]]
    named = [[trace.name, trace.digest, *annotation.seal(trace.path)] for trace in traces]
    identity = [path.stem, cells, parameters, named, entry.together, needs, __version__]
    return Job(
        id=_digest(identity)[:ID_LENGTH],
        experiment=experiment.name,
        notebook=path.stem,
        document=document,
        folder=str(path.parent),
        parameters=parameters,
        traces=tuple(traces),
        together=entry.together,
        results=results,
    )


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


# Notebooks


def _notebook(experiment: Experiment, entry: Entry) -> tuple[Path, Json]:
    """Read an entry's notebook, and check that it has all the entry's parameters."""
    import nbformat  # after `pmlkit.batch.schema`, which imports jsonschema without its grammar

    where = (*entry.where, "notebook")
    path = _notebook_path(entry.notebook)
    try:
        text = read_regular(path, LIMIT_BYTES).decode()
        with warnings.catch_warnings(action="ignore"):  # of cells without an id
            document = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
            nbformat.validate(document)
    except FileRefused as error:
        hint = "give a notebook (.ipynb)"
        raise experiment.error(where, f"{path} is not a notebook ({error.why})", hint) from error
    except Exception as error:  # nbformat raises whatever its validators do
        there = ", ".join(sorted(p.stem for p in notebooks_folder().glob("*.ipynb")))
        why = f"there is no notebook {entry.notebook!r}"
        if path.exists():
            why = f"{path} is not a notebook ({type(error).__name__})"
        raise experiment.error(where, why, f"the notebooks are: {there}") from error
    known = _parameter_names(experiment, where, path, document)
    needed = {"traces" if entry.together else "trace"} if entry.traces else set()
    for name in (needed | {name for point in entry.points for name in point}) - known:
        place = _place_of(experiment, entry, name)
        hint = f"its cell tagged `parameters` has: {', '.join(sorted(known)) or 'none'}"
        why = f"the notebook {entry.notebook} has no parameter {name!r}"
        raise experiment.error(place, why, hint)
    return path, json.loads(nbformat.writes(document))  # type: ignore[no-untyped-call]


def _notebook_path(name: str) -> Path:
    return _located(name) if name.endswith(".ipynb") else notebooks_folder() / f"{name}.ipynb"


def _located(name: str) -> Path:
    """Resolve a path relative to the working directory or, if not there, to the repository."""
    return recordings.located(name).resolve()


def _parameter_names(
    experiment: Experiment, where: Place, path: Path, document: NotebookNode
) -> set[str]:
    names = set()
    for number, cell in enumerate(document.cells, start=1):
        if cell.cell_type != "code" or "parameters" not in cell.metadata.get("tags", []):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):
                nodes = list(ast.walk(ast.parse(cell.source)))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None)
            reason = getattr(error, "msg", None) or str(error) or type(error).__name__
            place = f"cell {number} of {path}, tagged `parameters`"
            why = f"{place}, is not Python ({f'line {line}: ' if line else ''}{reason})"
            raise experiment.error(where, why, "fix the notebook") from error
        assigned = [n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        names |= {node.id for node in assigned}
    return names


def _place_of(experiment: Experiment, entry: Entry, name: str) -> Place:
    """Return the place in the file that sets a parameter."""
    for part in ("parameters", "grid"):
        for where in experiment.lines:
            if where[: len(entry.where) + 1] == (*entry.where, part) and where[-1] == name:
                return where
    return (*entry.where, "notebook")


# Traces


def _groups(experiment: Experiment, entry: Entry) -> list[list[TraceRef]]:
    """Return the traces of each run."""
    traces = [ref for named in entry.traces for ref in _refs(experiment, *named)]
    traces = list(dict.fromkeys(traces))
    return [traces] if entry.together or not traces else [[trace] for trace in traces]


def _refs(experiment: Experiment, name: str, made_by: str, where: Place) -> list[TraceRef]:
    hint = f"make it with `{made_by}`" if made_by else "`pmlkit record` makes one"
    paths = _trace_paths(name)
    if not paths and not where:
        raise TraceNotFound(name)
    if not paths:
        there = ", ".join(recordings.bundled()) or "none"
        why = f"there is no trace {name!r} (the bundled ones are {there})"
        raise experiment.error(where, why, hint)
    try:
        return [TraceRef(path.stem, str(path), digest_of_trace(path)) for path in paths]
    except PmlkitError as error:
        if not where:
            raise
        raise experiment.error(where, error.problem, error.hint) from error


def _trace_paths(name: str) -> list[Path]:
    if name in recordings.bundled():
        return [Path(recordings.bundled(name)).resolve()]
    if glob.has_magic(name):
        return sorted(path.resolve() for path in _matches(name) or _matches(recordings.ROOT / name))
    path = _located(name)
    return [path] if path.exists() else []


def _matches(pattern: PathLike) -> list[Path]:
    """Return the paths that match, level by level: `_level` limits a pattern of the file system."""
    first, *parts = Path(pattern).parts
    paths = [Path(first)] if Path(pattern).is_absolute() else _level([Path()], first)
    for part in parts:
        paths = _level(paths, part)
    return paths


def _level(folders: Sequence[Path], part: str) -> list[Path]:
    if not glob.has_magic(part):
        return [path for folder in folders if os.path.lexists(path := folder / part)]
    paths: list[Path] = []
    for folder in folders:
        paths += [folder / name for name in glob.iglob(part, root_dir=folder)]
        if len(paths) > _LIMIT_MATCHES:
            why = f"the traces' pattern has more than {_LIMIT_MATCHES:,} matches at {part!r}"
            raise PmlkitError(why, "name the folder, and use fewer wildcards")
    return paths


def digest_of_trace(path: PathLike) -> str:
    """Return the digest of a trace's description, which contains those of its files."""
    return manifest.digest(manifest.load(Path(path)))
