# SPDX-License-Identifier: Apache-2.0
"""One run: the notebook in a separate process, and the run's folder.

A Snakefile calls ``python -m pmlkit.batch.job JOB.json RUN-FOLDER``, which is a complete run. Local
threads and the workers of a cluster call `execute`.

A run writes to a temporary folder, which is renamed to ``RUN-ID`` at its end. A folder of that name
is never half a run, even if the process or the machine dies.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit import __version__
from pmlkit.batch.expand import ID_LENGTH, read_job
from pmlkit.batch.notebook import failure, start_notebook
from pmlkit.errors import FileRefused, one_line, output_error
from pmlkit.files import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from subprocess import Popen

    from pmlkit.batch.expand import Job
    from pmlkit.types import Json, PathLike


__all__ = [
    "Processes",
    "Stopped",
    "adopt",
    "attempt",
    "execute",
    "execute_into",
    "failed_record",
    "read_record",
    "source_digest",
    "write_record",
]

RECORD = "run.json"
FORMAT = {"format": "pmlkit-run", "version": 1}
ATTEMPT = ".running-"  # begins the name of a temporary folder
_PACKAGES = ("numpy", "pandas", "pyarrow", "matplotlib", "scikit-learn", "papermill", "ipykernel")
_RECORD_BYTES = 16 << 20
_GRACE_S = 10  # for papermill to stop its kernel


class Stopped(Exception):
    """The run was stopped: no results are kept."""


def execute(job: Job, folder: Path, processes: Processes | None = None) -> Json:
    """Perform a run in an empty folder.

    Parameters
    ----------
    processes : Processes, optional
        Handle with which other threads can stop the run.

    Returns
    -------
    dict
        The record, as in the folder's ``run.json``. A failed run has ``"status": "failed"`` and its
        ``error``; its notebook is kept up to the failure.

    Raises
    ------
    Stopped
        If the run was stopped through `processes`.
    """
    source, executed = folder / "source.json", folder / f"{job.notebook}.ipynb"
    since, started = time.monotonic(), _now()
    source.write_text(json.dumps(job.document))
    home = job.folder if os.path.isdir(job.folder) else folder
    process = start_notebook(source, executed, job.given(folder), home)
    with (processes or Processes()).watched(process):
        process.wait()
    source.unlink()
    error = _error(executed, job, process.returncode)
    if error is None:
        executed.with_suffix(".log").unlink(missing_ok=True)
    record = _record(job, started, time.monotonic() - since, error)
    write_record(record, folder)
    return record


def write_record(record: Json, folder: Path) -> None:
    """Write a run's record as ``run.json``."""
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")


def failed_record(job: Job, message: str) -> Json:
    """Return the record of a run whose process could not be started, or was lost."""
    return _record(job, _now(), 0.0, {"cell": None, "message": one_line(message), "file": RECORD})


def execute_into(job: Job, final: PathLike, processes: Processes | None = None) -> Json:
    """Perform a run in a temporary folder, which becomes `final` at its end.

    Raises
    ------
    Stopped
    pmlkit.errors.OutputError
        If the folder cannot be written.
    """
    final = Path(final)
    with attempt(final) as folder:
        try:
            record = execute(job, folder, processes)
        except OSError as error:
            raise output_error(final, error) from error
        adopt(folder, final, job.notebook)
    return record


@contextlib.contextmanager
def attempt(final: Path) -> Iterator[Path]:
    """Create the temporary folder of a run, named after this process; remove it at the end."""
    unique = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    folder = final.parent / f"{ATTEMPT}{final.name}-{unique}"
    try:
        # With the rights of other folders: `mkdtemp` would hide it from colleagues.
        folder.mkdir(parents=True)
    except OSError as error:
        raise output_error(final, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def adopt(folder: Path, final: Path, notebook: str) -> None:
    """Rename the folder of an attempt to `final`, replacing an existing one."""
    executed = folder / f"{notebook}.ipynb"
    try:
        if executed.exists():  # it contains the folder's temporary name
            executed.write_text(executed.read_text().replace(str(folder), str(final)))
        shutil.rmtree(final, ignore_errors=True)
        folder.rename(final)
    except OSError as error:
        raise output_error(final, error) from error


def read_record(final: PathLike) -> Json | None:
    """Read the record of a run; None if there is none."""
    try:
        record = json.loads(read_regular(Path(final) / RECORD, _RECORD_BYTES))
    except (FileRefused, OSError, ValueError, RecursionError):
        return None
    known = isinstance(record, dict) and FORMAT.items() <= record.items()
    return record if known and record.get("id") == Path(final).name[:ID_LENGTH] else None


class Processes:
    """Running processes; `stop` ends them, and those that start later."""

    def __init__(self) -> None:
        self.active: set[Popen[bytes]] = set()
        self.stopped = False

    @contextlib.contextmanager
    def watched(self, process: Popen[bytes]) -> Iterator[None]:
        """Allow `stop` to end a process while the block waits for it."""
        self.active.add(process)
        try:
            if self.stopped:  # between the caller's start and here
                process.terminate()
            yield
        finally:
            self.active.discard(process)
            if process.stdin:
                process.stdin.close()  # the process ends now, if it has not
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
        if self.stopped:
            raise Stopped

    def stop(self) -> None:
        """Stop all processes."""
        self.stopped = True
        for process in list(self.active):
            process.terminate()


def _error(executed: Path, job: Job, returncode: int) -> Json | None:
    if not returncode:
        return None
    error = failure(executed, job.label, returncode)
    message = error.message
    if returncode < 0 and error.cell is None:
        message = f"ended by signal {-returncode}; {message}"
    return {"cell": error.cell, "message": message, "file": Path(error.executed).name}


def _record(job: Job, started: str, seconds: float, error: Json | None) -> Json:
    given = {"parameters": job.parameters, "together": job.together}
    traces = [{"name": t.name, "path": t.path, "digest": t.digest} for t in job.traces]
    return FORMAT | {
        "id": job.id,
        "experiment": job.experiment,
        "status": "failed" if error else "done",
        "error": error,
        "notebook": job.notebook,
        **given,
        "traces": traces,
        "started": started,
        "ended": _now(),
        "seconds": round(seconds, 3),
        "host": host(),
        "versions": versions(),
        "source": source_digest(),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat("T", "seconds")


def host() -> Json:
    """Describe this machine: name, system, architecture, processors."""
    return {
        "name": socket.gethostname(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }


@cache
def versions() -> dict[str, str]:
    """Return the versions of pmlkit, Python, and the packages that affect results."""
    numbers = {"pmlkit": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            numbers[name] = metadata.version(name)
    return numbers


@cache
def source_digest() -> str:
    """Return the hash of the package's source files, which distinguishes states of one version."""
    total, folder = hashlib.blake2b(digest_size=16), Path(__file__).parents[1]
    for path in sorted(folder.rglob("*.py")):
        total.update(f"{path.relative_to(folder)}\0".encode())
        total.update(hashlib.blake2b(path.read_bytes()).digest())
    return total.hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Perform the run of a job file, unless it is finished; return the exit code."""
    path, final = sys.argv[1:] if argv is None else argv
    record = read_record(final)
    if record is None or record["status"] != "done":
        record = execute_into(read_job(path), Path(final).resolve())
    if record["status"] == "done":
        return 0
    error = record["error"]
    where = f" in cell {error['cell']}" if error["cell"] else ""
    text = f"pmlkit: {record['notebook']} failed{where} ({error['message']})"
    print(one_line(text), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
