# SPDX-License-Identifier: Apache-2.0
"""Experiments in batch: which runs there are, what is done again, and what is left of each."""

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pandas as pd
import pytest
from batch_case import Pretend, write_experiment, write_notebook
from factories import make_trace as write_trace
from needs import needs_snakemake
from waiting import HANG_S, until

import pmlkit
from pmlkit import cli
from pmlkit.batch import expand, results, runner
from pmlkit.batch.job import ATTEMPT, attempt
from pmlkit.errors import OutputError, PmlkitError, UsageError
from pmlkit.trace import annotation
from pmlkit.trace.reader import Trace


@pytest.fixture
def case(tmp_path):
    """Two traces, a notebook, and an experiment of four runs."""
    for name in ("one", "two"):
        write_trace(tmp_path / f"{name}.trace", seed=len(name), rounds=2 + (name == "two"))
    write_notebook(tmp_path / "n.ipynb", "m")
    return write_experiment(
        tmp_path / "e.yaml",
        traces=[str(tmp_path / "*.trace")],
        runs=[{"notebook": str(tmp_path / "n.ipynb"), "grid": {"m": [1, 2]}}],
    )


def ids(planned):
    return [job.id for job in planned.jobs]


# Runs and their ids


def test_a_run_is_a_notebook_a_trace_and_a_point_of_the_grid(case):
    jobs = runner.plan(case).runs
    assert [job.label for job in jobs] == ["n one m=1", "n one m=2", "n two m=1", "n two m=2"]
    assert all(re.fullmatch("[0-9a-f]{12}", job.id) for job in jobs)
    assert jobs[1].given("o") == {"m": 2, "trace": str(case.parent / "one.trace"), "out": "o"}


def test_ids_are_the_same_every_time_and_in_any_place(case, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for path in case.parent.iterdir():
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, other / path.name)
    (other / "e.yaml").write_text(case.read_text().replace(str(case.parent), str(other)))
    assert ids(runner.plan(case)) == ids(runner.plan(case)) == ids(runner.plan(other / "e.yaml"))


def test_an_id_changes_with_notebook_parameters_trace_and_version(case, monkeypatch):
    before = set(ids(runner.plan(case)))

    def changed():
        return before.isdisjoint(ids(runner.plan(case)))

    write_notebook(case.parent / "n.ipynb", "m + 1")
    assert changed()
    write_notebook(case.parent / "n.ipynb", "m")
    assert not changed()
    with monkeypatch.context() as patch:
        patch.setattr(expand, "__version__", "9.9")
        assert changed()
    trace = Trace.open(case.parent / "one.trace")
    annotation.annotate(trace, {"given": (0, None)})
    assert len(before & set(ids(runner.plan(case)))) == 2
    annotation.remove(trace)
    assert not changed()
    write_trace(case.parent / "one.trace", seed=9, overwrite=True)
    assert len(before & set(ids(runner.plan(case)))) == 2
    case.write_text(case.read_text().replace("- 1", "- 3"))
    assert len(before & set(ids(runner.plan(case)))) == 1


def test_running_a_notebook_in_jupyter_changes_no_id(case):
    before = ids(runner.plan(case))
    path = case.parent / "n.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[-1].execution_count = 7
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="1")]
    nbformat.write(notebook, path)
    assert ids(runner.plan(case)) == before


def test_equal_runs_are_one(case):
    text = case.read_text()
    case.write_text(text.replace("    m:\n    - 1\n", "    m:\n    - 2\n"))
    assert len(runner.plan(case).runs) == 2


def test_together_is_one_run_over_all_traces(tmp_path, case):
    write_notebook(tmp_path / "n.ipynb", parameters="traces = []\nout = ''")
    run = {"notebook": str(tmp_path / "n.ipynb"), "together": True}
    path = write_experiment(tmp_path / "t.yaml", traces=[str(tmp_path / "*.trace")], runs=[run])
    (job,) = runner.plan(path).runs
    assert [os.path.basename(p) for p in job.given("o")["traces"]] == ["one.trace", "two.trace"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], 4),
        (["one"], 2),
        (["one", "m=2"], 1),
        (["m=?"], 4),
        (["n", "t*"], 2),
    ],
)
def test_only_narrows(case, words, expected):
    assert len(expand.only(runner.plan(case).jobs, words)) == expected


def test_only_takes_an_id_and_refuses_what_no_run_has(case):
    jobs = runner.plan(case).jobs
    assert expand.only(jobs, [jobs[2].id[:8]]) == [jobs[2]]
    with pytest.raises(UsageError, match="no run has 'three'"):
        expand.only(jobs, ["three"])


def test_a_job_is_the_same_after_a_file(case, tmp_path):
    job = runner.plan(case).runs[0]
    assert expand.read_job(job.write(tmp_path / "jobs" / "j.json")) == job


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "pmlkit-job", "version": 2}'])
def test_what_is_no_job_is_refused(tmp_path, text):
    (tmp_path / "j.json").write_text(text)
    with pytest.raises(PmlkitError, match="not a job of pmlkit"):
        expand.read_job(tmp_path / "j.json")


# What is done again


def test_what_is_done_is_kept_and_what_failed_is_done_again(case, tmp_path):
    first = Pretend(fails=lambda job: job.parameters["m"] == 2)
    report = runner.run(case, tmp_path / "r", first)
    assert [len(found) for found in (report.done, report.kept, report.failed)] == [2, 0, 2]
    second = Pretend()
    report = runner.run(case, tmp_path / "r", second)
    assert [job.parameters["m"] for job in second.ran] == [2, 2]
    assert [len(found) for found in (report.done, report.kept, report.failed)] == [2, 2, 0]
    third = Pretend()
    runner.run(case, tmp_path / "r", third, again=True, only=["one"])
    assert len(third.ran) == 2


def test_an_interruption_keeps_what_is_done_and_the_next_call_goes_on(case, tmp_path):
    report = runner.run(case, tmp_path / "r", Pretend(interrupt_after=1))
    assert report.interrupted
    assert (len(report.done), len(report.left)) == (1, 3)
    assert "1 of 4 runs done" in report.page.read_text()
    report = runner.run(case, tmp_path / "r", Pretend())
    assert (len(report.done), len(report.kept), report.left) == (3, 1, [])


def test_a_shutdown_ends_it_as_ctrl_c_does(case, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    terminated = Pretend(fails=lambda job: signal.raise_signal(signal.SIGTERM))
    report = runner.run(case, tmp_path / "r", terminated)
    assert report.interrupted and len(report.left) == 4
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"id": "x"}'])
def test_a_damaged_record_is_a_run_that_is_not_done(case, tmp_path, damage):
    report = runner.run(case, tmp_path / "r", Pretend())
    (report.plan.folder / report.done[0].id / "run.json").write_text(damage)
    assert len(runner.run(case, tmp_path / "r", Pretend()).done) == 1


def test_runs_of_another_state_of_the_source_are_told(case, tmp_path, monkeypatch):
    runner.run(case, tmp_path / "r", Pretend())
    assert runner.run(case, tmp_path / "r", Pretend()).outdated == []
    monkeypatch.setattr(runner, "source_digest", lambda: "another")
    report = runner.run(case, tmp_path / "r", Pretend())
    assert report.outdated == report.kept and len(report.kept) == 4


def test_a_summary_runs_once_all_runs_are_done_and_reads_their_results(case, tmp_path):
    write_notebook(
        tmp_path / "s.ipynb",
        "from pmlkit.batch import results as kept\nrows = kept.load(results, 'sizes')",
        "rows.to_parquet(out + '/results.parquet')",
        parameters="results = ''\nout = ''",
    )
    case.write_text(case.read_text() + f"summary:\n- notebook: {tmp_path / 's.ipynb'}\n")
    before = runner.plan(case, tmp_path / "r").summaries
    report = runner.run(case, tmp_path / "r", Pretend(fails=lambda job: job.label == "n one m=1"))
    assert report.left == before
    report = runner.run(case, tmp_path / "r", Pretend())
    assert [job.notebook for job in report.done] == ["n", "s"]
    own = pd.read_parquet(report.plan.folder / before[0].id / "results.parquet")
    assert len(own) == 4
    case.write_text(case.read_text().replace("- 2", "- 3"))
    assert runner.plan(case, tmp_path / "r").summaries[0].id != before[0].id


def test_two_processes_do_not_run_the_same_experiment(case, tmp_path):
    class Inside(Pretend):
        def run(self, *args):
            with pytest.raises(OutputError, match="another pmlkit runs"):
                runner.run(case, tmp_path / "r", Pretend())
            yield from super().run(*args)

    assert len(runner.run(case, tmp_path / "r", Inside()).done) == 4


def test_results_are_written_to_a_file_system_without_locks(case, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert len(runner.run(case, tmp_path / "r", Pretend()).done) == 4


def test_what_a_killed_process_left_is_removed_and_what_is_at_work_is_not(case, tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    folder, host = tmp_path / "r" / "e", socket.gethostname()
    ends = [f"{host}-{dead.pid}-a", f"{host}-{os.getpid()}-b", f"elsewhere-{dead.pid}-c"]
    temporary = [folder / f"{ATTEMPT}x-{end}" for end in ends]
    for each in temporary:
        each.mkdir(parents=True)
    runner.run(case, tmp_path / "r", Pretend())
    assert [each.exists() for each in temporary] == [False, True, True]


def test_attempts_that_begin_and_end_side_by_side_do_not_disturb_each_other(tmp_path):
    def attempts(number):
        for repeat in range(100):
            with attempt(tmp_path / "r" / "e" / f"{number}-{repeat}") as folder:
                (folder / "figure").write_text("")

    with ThreadPoolExecutor(8) as pool:
        for ended in pool.map(attempts, range(8)):
            assert ended is None
    assert not list((tmp_path / "r" / "e").iterdir())


def test_an_unwritable_folder_is_said(case, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        runner.run(case, tmp_path / "file", Pretend())


# What is left of the runs


def test_the_results_of_all_runs_are_one_tidy_table(case, tmp_path):
    report = runner.run(case, tmp_path / "r", Pretend(fails=lambda job: job.label == "n two m=2"))
    folder = report.plan.folder
    own = pd.DataFrame({"gfn": [7], "phase": ["NA"]})
    own.to_parquet(folder / report.done[0].id / "results.parquet")
    runner.run(case, tmp_path / "r", Pretend(fails=lambda job: True))
    table = results.load(report.results)
    assert list(table) == [
        *(
            "run",
            "notebook",
            "trace",
            "table",
            "parameter:m",
            "phase",
            "pages",
            "table:trace",
            "gfn",
        )
    ]
    assert len(table) == 4
    assert table["run"].tolist() == [job.id for job in (report.done[0], *report.done)]
    sizes = results.load(report.results, "sizes")
    assert "gfn" not in sizes and sizes["pages"].tolist() == [len("n one m=1")] * 3
    assert results.load(report.results, "results")["phase"].tolist() == ["NA"]
    with pytest.raises(PmlkitError, match="no run has a table 'x'.*results, sizes"):
        results.load(report.results, "x")


def test_parameters_of_several_types_fit_into_one_column(tmp_path):
    write_notebook(tmp_path / "n.ipynb")
    run = {"notebook": str(tmp_path / "n.ipynb"), "grid": {"m": [1, "a", [1, 2], True]}}
    path = write_experiment(tmp_path / "e.yaml", runs=[run])
    table = results.load(runner.run(path, tmp_path / "r", Pretend()).results)
    assert table["parameter:m"].tolist() == ["1", "a", "[1, 2]", "True"]


def test_without_results_the_table_is_empty_but_there(case, tmp_path):
    report = runner.run(case, tmp_path / "r", Pretend(fails=lambda job: True))
    assert results.load(report.results).empty
    with pytest.raises(PmlkitError, match="cannot be read"):
        results.load(tmp_path / "none.parquet")


def test_runs_on_this_machine(tmp_path):
    """One that is good and one that fails, for real."""
    code = (
        "import pandas as pd\nfrom pmlkit.figures.tables import table\n"
        "assert type(m) is float and window == 'it''s \"1\"'\n"
        "table(pd.DataFrame({'phase': ['<b>'], 'pages': [m]}), out + '/sizes', 'A & B')\n"
        "print(out)"
    )
    write_notebook(tmp_path / "good.ipynb", code, parameters="m = 1\nwindow = ''\nout = ''")
    write_notebook(tmp_path / "bad.ipynb", "x = 1", "1 / 0")
    values = {"m": 1e-5, "window": 'its "1"'}
    path = write_experiment(
        tmp_path / "e.yaml",
        runs=[
            {"notebook": str(tmp_path / "good.ipynb"), "parameters": values},
            {"notebook": str(tmp_path / "bad.ipynb")},
        ],
    )
    report = runner.run(path, tmp_path / "r")
    (good,), ((bad, record),) = report.done, report.failed
    folder = report.plan.folder
    assert not list(folder.glob(f"{ATTEMPT}*"))
    executed = (folder / good.id / "good.ipynb").read_text()
    assert str(folder / good.id) in executed and ATTEMPT not in executed
    told = json.loads((folder / good.id / "run.json").read_text())
    assert told["parameters"] == values
    assert told["versions"]["pmlkit"] == pmlkit.__version__
    assert {"host", "started", "ended", "seconds", "source"} <= told.keys()
    assert record["error"]["message"] == "ZeroDivisionError: division by zero"
    cells = nbformat.read(folder / bad.id / "bad.ipynb", 4).cells
    assert cells[record["error"]["cell"] - 1].source == "1 / 0"
    page = report.page.read_text()
    assert "A &amp; B" in page and "&lt;b&gt;" in page and "division by zero" in page
    for link in re.findall(r'(?:href|src)="([^"#][^"]*)"', page):
        assert (folder / link).is_file(), link
    assert "A title" in (folder / good.id / "good.html").read_text()
    assert results.load(report.results, "sizes")["pages"].tolist() == [1e-5]


@pytest.mark.parametrize(("deaths", "status"), [(2, "done"), (3, "failed")])
def test_a_kernel_that_dies_before_its_first_cell_is_started_again(
    tmp_path, monkeypatch, deaths, status
):
    """As a kernel does whose port another program has taken meanwhile."""
    start = f"""
import os, pathlib, sys
died = pathlib.Path({str(tmp_path / "died")!r})
times = len(died.read_text()) if died.exists() else 0
if times < {deaths}:
    died.write_text("x" * (times + 1))
    sys.exit("Address already in use")
os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *sys.argv[1:]])
"""
    spec = {"argv": [sys.executable, "-c", start, "-f", "{connection_file}"], "language": "python"}
    home = tmp_path / "jupyter" / "kernels" / "python3"
    home.mkdir(parents=True)
    (home / "kernel.json").write_text(json.dumps(spec | {"display_name": "Python 3"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    run = {"notebook": str(write_notebook(tmp_path / "n.ipynb", "m"))}
    path = write_experiment(tmp_path / "e.yaml", runs=[run])
    report = runner.run(path, tmp_path / "r")
    assert report.plan.record(report.plan.runs[0])["status"] == status
    assert len((tmp_path / "died").read_text()) == deaths
    for _, record in report.failed:
        assert "Kernel died before replying" in record["error"]["message"]


# Between the two reports of a cell's end, the kernel has no processor for a while.
LATE = """
import time
session = get_ipython().kernel.session
send = session.send
def late(stream, kind, *args, **more):
    if kind == "status" and args[0] == {"execution_state": "idle"}:
        session.send = send
        time.sleep(5)
    return send(stream, kind, *args, **more)
session.send = late
"""


def test_what_a_busy_kernel_reports_late_is_waited_for(tmp_path):
    """nbclient gave up after 4 s, and the notebook failed."""
    run = {"notebook": str(write_notebook(tmp_path / "n.ipynb", LATE))}
    path = write_experiment(tmp_path / "e.yaml", runs=[run])
    assert not runner.run(path, tmp_path / "r").failed


def test_a_notebook_without_metadata_is_python(tmp_path):
    path = write_notebook(tmp_path / "n.ipynb", "assert m == 2")
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"metadata": {}}))
    run = {"notebook": str(path), "parameters": {"m": 2}}
    report = runner.run(write_experiment(tmp_path / "e.yaml", runs=[run]), tmp_path / "r")
    assert not report.failed


SLEEPS = "import os, time, pathlib\npathlib.Path(window).write_text('x')\ntime.sleep(600)"


def sleeping(tmp_path):
    mark = tmp_path / "at work"
    write_notebook(tmp_path / "n.ipynb", SLEEPS)
    run = {"notebook": str(tmp_path / "n.ipynb"), "parameters": {"window": str(mark)}}
    return write_experiment(tmp_path / "e.yaml", runs=[run]), mark


def test_an_interrupted_run_leaves_nothing_half_done(tmp_path):
    path, mark = sleeping(tmp_path)
    command = [sys.executable, "-m", "pmlkit", "run", str(path), "-o", str(tmp_path / "r")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(mark.exists)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 130
    # Above it are the lines of progress of a busy machine.
    assert (
        "1 not run; the same command continues" in out
        and err.splitlines()[-1] == "pmlkit: interrupted"
    )
    left = {p.name for p in (tmp_path / "r" / "e").iterdir()}
    assert left == {".lock", "index.html", "results.parquet"}


def test_a_notebook_whose_process_is_killed_is_a_failed_run(tmp_path, monkeypatch):
    def start(*_):
        code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)

    monkeypatch.setattr("pmlkit.batch.job.start_notebook", start)
    write_notebook(tmp_path / "n.ipynb")
    path = write_experiment(tmp_path / "e.yaml", runs=[{"notebook": str(tmp_path / "n.ipynb")}])
    report = runner.run(path, tmp_path / "r")
    ((_, record),) = report.failed
    assert "ended by signal 9" in record["error"]["message"]


# The command


def test_dry_run_lists_what_is_to_do_and_touches_nothing(case, tmp_path, capsys):
    words = ["run", str(case), "-o", str(tmp_path / "r"), "--dry-run", "--only", "one"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 runs, 2 to do")
    assert not (tmp_path / "r").exists()
    assert cli.main([*words, "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["status"] for run in runs] == ["not run yet"] * 2


def test_the_command_says_what_failed_and_is_quiet_otherwise(case, tmp_path, capsys, monkeypatch):
    pretend = Pretend(fails=lambda job: job.label == "n one m=2")
    monkeypatch.setattr("pmlkit.batch.runner.Local", lambda jobs: pretend)
    assert cli.main(["run", str(case), "-o", str(tmp_path / "r")]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "3 done, 0 done before, 1 failed"
    assert err.splitlines()[:2] == ["failed: n one m=2", "  papermill: ValueError: no"]
    pretend.fails = lambda job: False
    assert cli.main(["run", str(case), "-o", str(tmp_path / "r"), "-v"]) == 0
    out, err = capsys.readouterr()
    assert err == "1/1 n one m=2: done after 0 ns\n"
    assert cli.main(["run", str(case), "-o", str(tmp_path / "r"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert (len(json.loads(out)["kept"]), err) == (4, "")


def test_a_cluster_decides_itself_how_many(case, capsys):
    assert cli.main(["run", str(case), "--cluster", "x", "--jobs", "3"]) == 2


# Snakemake


def test_the_snakefile_names_every_run(case, tmp_path, capsys):
    words = ["run", str(case), "-o", str(tmp_path / "r"), "--snakefile", str(tmp_path / "S")]
    assert cli.main(words) == 0
    text = (tmp_path / "S").read_text()
    for job in runner.plan(case, tmp_path / "r").runs:
        assert f'"{job.id}"' in text
        assert (tmp_path / "r" / "e" / ".jobs" / f"{job.id}.json").is_file()
    assert cli.main([*words[:-1], str(tmp_path / "none" / "S")]) == 1


def test_a_job_of_the_snakefile_runs_in_a_folder_with_a_blank(case, tmp_path):
    words = ["run", str(case), "-o", str(tmp_path / "r"), "--snakefile", str(tmp_path / "S")]
    assert cli.main(words) == 0
    line = next(one for one in (tmp_path / "S").read_text().splitlines() if "batch.job" in one)
    command = json.loads(line).replace("{input:q}", "'a b/1.json'")  # as Snakemake quotes
    command = command.replace("{output:q}", "'a b/1/run.json'")
    given = subprocess.check_output(["sh", "-c", f"printf '%s,' {command}"], text=True)
    assert given.endswith(",-m,pmlkit.batch.job,a b/1.json,a b/1,")


@needs_snakemake
def test_snakemake_runs_it(tmp_path):
    write_notebook(tmp_path / "n.ipynb", "m")
    run = {"notebook": str(tmp_path / "n.ipynb"), "grid": {"m": [1, 2]}}
    path = write_experiment(tmp_path / "e.yaml", runs=[run])
    file = tmp_path / "S"
    words = ["run", str(path), "-o", str(tmp_path / "r"), "--snakefile", str(file)]
    assert cli.main(words) == 0
    command = [shutil.which("snakemake"), "--snakefile", str(file), "--cores", "2"]
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": HANG_S}
    dry = subprocess.run([*command, "-n"], **options)
    assert dry.returncode == 0 and re.search(r"run +2\b", dry.stdout + dry.stderr), dry
    assert not (tmp_path / "r" / "e" / "index.html").exists()
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stderr
    planned = runner.plan(path, tmp_path / "r")
    assert all(map(planned.is_done, planned.jobs))
    assert "2 of 2 runs done" in (planned.folder / "index.html").read_text()
