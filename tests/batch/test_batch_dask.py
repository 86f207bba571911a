# SPDX-License-Identifier: Apache-2.0
"""Experiments on a Dask cluster: the same results, also if a worker dies, also without a disk in
common."""

import os
import signal
import threading

import pytest
from batch_case import write_experiment, write_notebook
from factories import make_trace as write_trace
from needs import REQUIRED
from waiting import until

from pmlkit import cli
from pmlkit.batch import runner
from pmlkit.errors import PmlkitError

if not REQUIRED:
    pytest.importorskip("distributed", reason="needs distributed: pip install 'pmlkit[cluster]'")

from pmlkit.batch import dask  # noqa: E402
from pmlkit.batch.dask import Cluster  # noqa: E402

# The first attempt says who does it, and never ends; the second one does.
FIRST_HANGS = """\
import os, time
from pathlib import Path
marks = Path(window)
first = not (marks / "first").exists()
(marks / "half").write_text(f"{os.getppid()}")
(marks / "half").rename(marks / ("first" if first else "second"))
time.sleep(600 * first)"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two workers, each a process with one thread, with no trace in their cache."""
    import distributed

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PMLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("DASK_DISTRIBUTED__ADMIN__LOG_LENGTH", "0")
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as made:
            yield made


def parent_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_killed_workers_run_is_done_again_elsewhere(cluster, tmp_path):
    write_notebook(tmp_path / "hangs.ipynb", FIRST_HANGS, parameters='window = ""\nout = ""')
    run = {"notebook": str(tmp_path / "hangs.ipynb"), "parameters": {"window": str(tmp_path)}}
    path = write_experiment(tmp_path / "e.yaml", runs=[run])
    killed = []

    def kill_the_first():
        papermill = int(until(lambda: read(tmp_path / "first")))
        killed.extend([parent_of(papermill), papermill])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_the_first, daemon=True)
    killer.start()
    with Cluster(cluster.scheduler_address) as backend:
        workers = backend.client.run(os.getpid).values()
        report = runner.run(path, tmp_path / "results", backend)
    killer.join()
    assert killed[0] in workers
    assert (len(report.done), report.failed) == (1, [])
    assert (tmp_path / "second").exists()
    assert until(lambda: is_gone(killed[1])), "the lost worker's notebook goes on"


def read(path):
    return path.read_text() if path.exists() else ""


def test_traces_are_sent_to_workers_that_do_not_have_them(cluster, tmp_path, monkeypatch):
    trace = write_trace(tmp_path / "small.trace")
    code = "from pathlib import Path\nPath(out, 'where').write_text(trace)"
    write_notebook(tmp_path / "n.ipynb", code)
    run = {"notebook": str(tmp_path / "n.ipynb"), "traces": [str(trace)]}
    grid = {"grid": {"m": [1, 2, 3]}}
    path = write_experiment(tmp_path / "e.yaml", runs=[run | grid])
    planned = runner.plan(path, tmp_path / "results")
    # What is packed is here, but no worker finds it at the path that it is told.
    hidden = tmp_path / "hidden.trace"
    pack = dask._pack
    monkeypatch.setattr(dask, "_pack", lambda _, name: pack(hidden, name))
    trace.rename(hidden)
    with Cluster(cluster.scheduler_address) as backend:
        report = runner.run(planned, backend=backend)
    assert (len(report.done), report.failed) == (3, [])
    (digest,) = {job.traces[0].digest for job in planned.jobs}
    for job in planned.jobs:
        where = (planned.folder / job.id / "where").read_text()
        assert where.endswith(f"/traces/{digest}/small.trace")
        record = planned.record(job)
        assert record["traces"][0]["path"] == where


def test_a_run_that_fails_on_a_worker_is_kept_like_any_other(cluster, tmp_path):
    notebook = write_notebook(tmp_path / "bad.ipynb", "1 / 0")
    path = write_experiment(tmp_path / "e.yaml", runs=[{"notebook": str(notebook)}])
    with Cluster(cluster.scheduler_address) as backend:
        report = runner.run(path, tmp_path / "results", backend)
    ((job, record),) = report.failed
    assert "ZeroDivisionError" in record["error"]["message"]
    assert "1 / 0" in (report.plan.folder / job.id / "bad.ipynb").read_text()


def test_an_interruption_ends_what_runs_on_the_workers(cluster, tmp_path):
    write_notebook(tmp_path / "hangs.ipynb", FIRST_HANGS, parameters='window = ""\nout = ""')
    run = {"notebook": str(tmp_path / "hangs.ipynb"), "parameters": {"window": str(tmp_path)}}
    path = write_experiment(tmp_path / "e.yaml", runs=[run])

    def interrupt():
        until(lambda: read(tmp_path / "first"))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with Cluster(cluster.scheduler_address) as backend:
        report = runner.run(path, tmp_path / "results", backend)
    assert report.interrupted and len(report.left) == 1
    assert until(lambda: is_gone(int(read(tmp_path / "first"))))


def test_a_worker_of_another_version_is_refused():
    with pytest.raises(PmlkitError, match="install pmlkit 9.9 there"):
        dask.on_worker(None, {}, "a session", "9.9")


def test_no_scheduler_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dask, "CONNECT_S", 0.1)
    notebook = write_notebook(tmp_path / "n.ipynb")
    path = write_experiment(tmp_path / "e.yaml", runs=[{"notebook": str(notebook)}])
    words = ["run", str(path), "-o", str(tmp_path), "--cluster", "tcp://127.0.0.1:9"]
    assert cli.main(words) == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address",
    ["nonsense", "foo://bar", "http://x:1", "tcp://x", "tcp://:8786", "tcp://a b:1", ":1"],
)
def test_what_is_no_address_is_refused_before_dask_has_it(tmp_path, capsys, address):
    """Dask left the traceback of a client that was never made behind the line."""
    notebook = write_notebook(tmp_path / "n.ipynb")
    path = write_experiment(tmp_path / "e.yaml", runs=[{"notebook": str(notebook)}])
    assert cli.main(["run", str(path), "-o", str(tmp_path), "--cluster", address]) == 2
    error = capsys.readouterr().err
    assert f"{address!r} is not the address of a scheduler" in error and error.count("\n") == 1
