# SPDX-License-Identifier: Apache-2.0
"""Runs on a Dask cluster: a worker runs the notebook like `local`, and returns the folder.

A worker needs pmlkit, and no files of this machine. It uses a trace from its path if the file there
has the right digest (a shared disk), otherwise from its cache. If both fail, it answers `Missing`,
and receives the trace once. Only this process writes results. If two workers did a run because one
was believed lost, it is stored once.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import tarfile
import tempfile
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from distributed import Client, as_completed

from pmlkit import __version__, files
from pmlkit.batch.expand import digest_of_trace
from pmlkit.batch.job import (
    Processes,
    Stopped,
    adopt,
    attempt,
    execute,
    failed_record,
    write_record,
)
from pmlkit.errors import PmlkitError, UsageError
from pmlkit.trace import annotation

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from typing import Self, TypeAlias

    from distributed import Future

    from pmlkit.batch.expand import Job, TraceRef
    from pmlkit.types import Json

    # A run's record, and its folder as a tar file: empty if no worker ran it.
    Answer: TypeAlias = "tuple[Json, bytes] | Missing"


__all__ = ["Cluster"]

CONNECT_S = 30
# A host, or [an IPv6 address], and its port.
_ADDRESS = re.compile(
    r"(?:(?:tcp|tls|wss?|ucx)://)?(?:\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):[0-9]{1,5}/?"
)
_AT_WORK: dict[str, Processes] = {}  # on a worker: the processes of each session


class Cluster:
    """A backend (see `pmlkit.batch.runner.Backend`), and a context manager.

    Dask repeats a run whose worker is lost on another worker. After four lost workers the run has
    failed, because it may be the cause.

    Parameters
    ----------
    address : str
        Address of the scheduler, such as ``tcp://head:8786``.

    Raises
    ------
    UsageError
        If `address` has no port.
    PmlkitError
        If there is no answer.
    """

    def __init__(self, address: str) -> None:
        if not _ADDRESS.fullmatch(address):  # Dask would take minutes, and leave a traceback
            raise UsageError(
                f"{address!r} is not the address of a scheduler: write tcp://HOST:8786"
            )
        self.session = uuid.uuid4().hex
        try:
            self.client = Client(address, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
        except (OSError, ValueError, TimeoutError) as error:
            hint = "start one with `dask scheduler` and `dask worker ADDRESS`, or check the address"
            raise PmlkitError(f"no Dask scheduler answers at {address}", hint) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()  # type: ignore[no-untyped-call]

    def run(
        self, jobs: Sequence[Job], folder: Path, started: Callable[[Job], object] = lambda job: None
    ) -> Generator[tuple[Job, Json], None, None]:
        """Perform runs, and yield each when it ends; as `pmlkit.batch.runner.Backend.run`."""
        waiting, sent = {self._submit(job): job for job in jobs}, set()
        pending = as_completed(list(waiting), loop=self.client.loop)  # type: ignore[no-untyped-call]
        try:
            for future in pending:
                job = waiting.pop(future)
                answer = self._answer(future, job)
                if isinstance(answer, Missing) and (job.id, answer.worker) in sent:
                    message = f"the worker {answer.worker} cannot store the traces that it received"
                    yield job, _keep(job, failed_record(job, message), b"", folder / job.id)
                elif isinstance(answer, Missing):
                    sent.add((job.id, answer.worker))
                    again = self._submit(job, answer)
                    waiting[again] = job
                    pending.add(again)  # type: ignore[no-untyped-call]
                else:
                    yield job, _keep(job, *answer, folder / job.id)
        finally:
            self._stop(list(waiting))

    def _submit(self, job: Job, missing: Missing | None = None) -> Future[Answer]:
        """Submit a run; if a worker lacks traces, to that worker and with them."""
        wanted = missing.digests if missing else ()
        traces = [trace for trace in job.traces if trace.digest in wanted]
        if annotated := [t.path for t in traces if annotation.seal(t.path)]:
            what = f"{annotated[0]} was given phases, which a worker without it would not have"
            raise UsageError(f"{what}: remove them, or share the folder with all workers")
        packed = {trace.digest: _pack(Path(trace.path), _file(trace)) for trace in traces}
        return self.client.submit(
            on_worker,
            job,
            packed,
            self.session,
            __version__,
            key=f"{job.label} {job.id} {uuid.uuid4().hex[:8]}",
            workers=[missing.worker] if missing else None,
            allow_other_workers=bool(missing),
            pure=False,
        )

    def _answer(self, future: Future[Answer], job: Job) -> Answer:
        try:
            return future.result()
        except Exception as error:  # whatever a worker or Dask itself raises
            if self.client.status != "running":
                raise PmlkitError(
                    f"the connection to the cluster was lost ({error})", "start it again"
                ) from error
            return failed_record(job, f"{type(error).__name__}: {error}"), b""

    def _stop(self, futures: Iterable[Future[Answer]]) -> None:
        """Stop unfinished runs on every worker."""
        if futures:
            with contextlib.suppress(Exception):  # a cluster that is gone has nothing to stop
                self.client.cancel(futures, force=True)  # type: ignore[no-untyped-call]
                self.client.run(stop_on_worker, self.session)


@dataclass(frozen=True)
class Missing:
    """The answer of a worker (its address) that lacks the traces with these digests."""

    worker: str
    digests: Sequence[str]


def _keep(job: Job, record: Json, archive: bytes, final: Path) -> Json:
    """Write a worker's answer as the run's folder; return its record."""
    with attempt(final) as folder:
        if archive:
            _unpack(archive, folder)
        else:
            write_record(record, folder)
        adopt(folder, final, job.notebook)
    return record


# On the worker


def on_worker(job: Job, packed: dict[str, bytes], session: str, version: str) -> Answer:
    """Perform a run on this worker, in a temporary folder.

    Parameters
    ----------
    job : pmlkit.batch.expand.Job
    packed : dict of str to bytes
        By digest, the traces that this worker lacked.
    session : str
        The caller's, for `stop_on_worker`.
    version : str
        The caller's pmlkit, which is part of the run's id.

    Returns
    -------
    (dict, bytes) or Missing
        The record and the folder (a tar file), or the traces to send.

    Raises
    ------
    PmlkitError
        If this worker has another version of pmlkit.
    """
    if version != __version__:
        what = f"the worker on {socket.gethostname()} has pmlkit {__version__}"
        raise PmlkitError(what, f"install pmlkit {version} there")
    processes = _AT_WORK.setdefault(session, Processes())
    if processes.stopped:
        raise Stopped
    paths = {trace: _find(trace, packed) for trace in job.traces}
    if lacking := [trace.digest for trace, path in paths.items() if path is None]:
        from distributed import get_worker

        return Missing(get_worker().address, lacking)
    job = replace(job, traces=tuple(replace(t, path=str(path)) for t, path in paths.items()))
    with files.scratch_folder("pmlkit-run-") as folder:
        record = execute(job, Path(folder), processes)
        return record, _pack(Path(folder), ".")


def stop_on_worker(session: str) -> None:
    """Stop the processes of a session on this worker."""
    _AT_WORK.setdefault(session, Processes()).stop()


def _find(trace: TraceRef, packed: dict[str, bytes]) -> Path | None:
    """Return the path of a trace: its own, or in the cache, into which a sent one is unpacked."""
    home = cache_folder() / trace.digest / _file(trace)
    if trace.digest in packed and not _is(home, trace.digest):
        _unpack_cached(packed[trace.digest], home)
    return next((path for path in (Path(trace.path), home) if _is(path, trace.digest)), None)


def _file(trace: TraceRef) -> str:
    return f"{trace.name}.trace"


def _is(path: Path, digest: str) -> bool:
    try:
        return digest_of_trace(path) == digest
    except PmlkitError:
        return False


def cache_folder() -> Path:
    """Return a worker's folder for received traces: ``$PMLKIT_CACHE/traces``."""
    return files.cache_folder() / "traces"


def _unpack_cached(archive: bytes, home: Path) -> None:
    """Unpack, then rename: another run may unpack the same trace."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as folder:
        _unpack(archive, Path(folder))
        with contextlib.suppress(OSError):  # another run was faster
            Path(folder, home.name).rename(home)


def _pack(folder: Path, name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, arcname=name)
    return buffer.getvalue()


def _unpack(archive: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        members.extractall(folder, filter="data")
