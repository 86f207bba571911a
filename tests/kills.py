# SPDX-License-Identifier: Apache-2.0
"""Ends commands in the middle of their work: ``python tests/kills.py [COMMAND...] --kills 200``.

A command is started, and once its work has begun (its partial output is there) it gets SIGKILL,
SIGTERM, SIGHUP or SIGINT at a random moment. Then nothing half-written may have a final name,
nothing that was whole may be lost, no process may be left, and the same command has to succeed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import pyarrow.parquet as pq  # noqa: E402
from batch_case import write_notebook  # noqa: E402

from pmlkit.batch.job import ATTEMPT  # noqa: E402
from pmlkit.errors import PmlkitError  # noqa: E402
from pmlkit.sources.ingest import ingest  # noqa: E402
from pmlkit.trace.reader import Trace  # noqa: E402

PMLKIT = [sys.executable, "-c", "import sys; from pmlkit.__main__ import main; sys.exit(main())"]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
LIMIT_S = 300


def check_trace(path):
    Trace.open(path).check()


def check_table(path):
    """Refuse a table that is cut off."""
    if path.suffix == ".parquet":
        pq.read_table(path)
    elif path.suffix == ".csv":
        assert path.read_bytes().endswith(b"\n"), f"{path.name} is cut off"
        with open(path, newline="") as file:
            assert len({len(row) for row in csv.reader(file)}) == 1, f"{path.name} has ragged rows"


def digest(path):
    """Return a digest of a file, or of all files of a folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    state = hashlib.blake2b()
    for file in files:
        if file.is_file():
            state.update(str(file.relative_to(path)).encode() + file.read_bytes())
    return state.hexdigest()


class Case:
    """A command that is ended. It works in `folder`, and writes `out` there.

    Parameters
    ----------
    folder : Path
        Empty, with nothing but this command's files.
    inputs : Path
        What all cases read.
    """

    out_name = "out.trace"
    again = True  # whether the same command is run to its end afterwards
    variables: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, folder, inputs):
        self.folder, self.inputs = folder, inputs
        self.out = folder / self.out_name

    @classmethod
    def prepare(cls, inputs):
        """Make what all cases of this command read."""

    def begun(self):
        """Whether the work has begun: something stands beside the output to be."""
        return any(self.folder.glob(f"{self.out.name}.*"))

    def check(self, whole):
        """Look at what is there; `whole` is the digest of the older output, or None."""
        if self.out.exists() and digest(self.out) != whole:
            self.check_output()
        assert self.out.exists() or not whole, "what was whole is lost"

    def check_output(self):
        check_trace(self.out)


class Import(Case):
    @classmethod
    def prepare(cls, inputs):
        rows = range(2_000_000)
        lines = (f"{r // 500 * 10**7},{(r // 500 + 1) * 10**7},0,{r % 7919},w\n" for r in rows)
        (inputs / "x.csv").write_text("t_start_ns,t_end_ns,vcpu,gfn,kind\n" + "".join(lines))

    def words(self):
        return "import", "csv", self.inputs / "x.csv", "-o", self.out, "--overwrite"


class Export(Case):
    out_name = "out.csv"

    def words(self):
        return "export", "redis", "csv", "-o", self.out, "--overwrite"

    def check_output(self):
        check_table(self.out)


class Compare(Case):
    out_name = "out"

    def words(self):
        return "compare", "hotcold", "--techniques", "pml,vmware", "-o", self.out

    def begun(self):
        return self.out.exists()

    def check_output(self):
        for path in self.out.rglob("*"):
            check_table(path)
            if path.suffix in (".pdf", ".svg", ".html", ".tex"):
                end = path.read_bytes().rstrip()[-20:]
                assert end.endswith((b"%%EOF", b">", b"}")), f"{path.name} is cut off: {end!r}"


class Simulate(Case):
    def words(self):
        return "simulate", "redis", "-o", self.out, "--overwrite"


class Ingest(Case):
    """The spool stays as it is."""

    @classmethod
    def prepare(cls, inputs):
        words = ["record", "hotcold", "--memory", "128", "-o", inputs / "in.trace"]
        spool = inputs / "in.trace.spool"
        process = subprocess.Popen(
            [*PMLKIT, *map(str, words)],
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PMLKIT_KILLS": str(spool)},
        )
        size = spool / "frames.spool"
        assert wait(lambda: size.exists() and size.stat().st_size > 1 << 20, LIMIT_S)
        process.kill()  # leaves its spool
        process.wait()
        cls.spool = spool
        assert wait(lambda: not living(str(spool)), LIMIT_S), "its emulator goes on"
        cls.before = digest(spool)

    def words(self):
        return "ingest", self.spool, "-o", self.out, "--overwrite"

    def check(self, whole):
        super().check(whole)
        assert digest(self.spool) == self.before, "the spool is another one"


class Files(Compare):
    """Commands that write figures and tables: each is whole, or not there."""

    def begun(self):
        """Nothing stands beside the output to be: the work begins with the process."""
        return time.monotonic() - self.began_s > 1

    def check(self, whole):
        for path in self.folder.rglob("*.*.*"):  # half of a file has a second suffix
            assert not path.name.endswith(".part"), f"{path} is left"
        if self.out.exists():
            self.check_output()


class Plot(Files):
    def words(self):
        return "plot", "redis", "heat", "-o", self.out / "heat"


class Mrc(Files):
    def words(self):
        return "mrc", "redis", "-o", self.out / "mrc"


class Frontier(Files):
    def words(self):
        how = ["--window", "1s", "--techniques", "pml,vmware"]
        return "frontier", "hotcold", "pressure", *how, "-o", self.out


class Forecast(Files):
    def words(self):
        return "forecast", "redis-tides", "gcc-jobs", "--backtest", "-o", self.out


class Run(Case):
    out_name = "results"

    def words(self):
        code = "import time\nfor _ in range(20): time.sleep(0.05)"
        write_notebook(self.folder / "n.ipynb", code)
        runs = [{"notebook": "./n.ipynb", "parameters": {"m": m}} for m in (1, 2)]
        (self.folder / "e.yaml").write_text(json.dumps({"title": "Runs", "runs": runs}))
        return "run", self.folder / "e.yaml", "-o", self.out

    def begun(self):
        return any(self.out.glob(f"*/{ATTEMPT}*"))

    def check_output(self):
        for path in self.out.rglob("run.json"):
            assert json.loads(path.read_text())["status"] in ("done", "failed")
        for path in self.out.rglob("*.ipynb"):
            if ATTEMPT not in str(path):
                json.loads(path.read_text())


class Spooled(Case):
    """What fills a spool: after SIGKILL, `pmlkit ingest` converts it to a trace."""

    def begun(self):
        return any(self.folder.glob("out.trace.spool/frames.spool"))

    def check(self, whole):
        super().check(whole)
        spool = self.folder / "out.trace.spool"
        if spool.exists():
            try:
                ingest(spool, self.folder / "saved.trace").check()
            except PmlkitError as error:
                assert str(error).isprintable()


class Record(Spooled):
    again = False

    def words(self):
        return "record", "hotcold", "--memory", "128", "-o", self.out, "--overwrite"


class Collect(Spooled):
    """Over a false SSH client, which runs what it is told here, on a false Xen."""

    @classmethod
    def prepare(cls, inputs):
        import fake_xen

        client = inputs / "ssh"
        client.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nexec sh -c "$3"\n')
        client.chmod(0o755)
        xen = fake_xen.FakeXen(fake_xen.build(inputs / "xen"), inputs / "host")
        xen.folder.mkdir()
        xen.domains((5, "guest", fake_xen.RUNNING))
        here = os.path.dirname(sys.executable) + ":" + os.environ["PATH"]
        cls.xen = xen
        cls.variables = xen.environment() | {"PMLKIT_SSH": str(client), "PATH": here}

    def words(self):
        how = [
            "--period",
            "20ms",
            "--rounds",
            "60",
            "--state",
            self.folder / "state",
            "--overwrite",
        ]
        return "collect", "guest", "--host", "dom0", "-o", self.out, *how

    def check(self, whole):
        super().check(whole)
        assert wait(lambda: not self.xen.log_dirty(), LIMIT_S), "log-dirty mode is left on"


ALL = (
    Record,
    Import,
    Export,
    Compare,
    Run,
    Collect,
    Simulate,
    Ingest,
    Plot,
    Mrc,
    Frontier,
    Forecast,
)
CASES = {c.__name__.lower(): c for c in ALL}


def wait(condition, limit_s):
    end = time.monotonic() + limit_s
    while not (held := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return held


def living(mark):
    """Return the command lines of the processes that were started under a mark."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                text = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append(text.strip()[:80])
        except OSError:
            continue
    return [text for text in found if text]


def start(case, mark):
    case.began_s = time.monotonic()
    return subprocess.Popen(
        [*PMLKIT, *map(str, case.words())],
        env={**os.environ, **case.variables, "PMLKIT_KILLS": mark},
        cwd=case.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=open(case.folder / "said", "wb"),  # noqa: SIM115 (it is the process's)
        start_new_session=True,
    )


def finish(case):
    """Run a case to its end; returns how long it worked."""
    process = start(case, "whole")
    assert wait(lambda: case.begun() or process.poll() is not None, LIMIT_S)
    began = time.monotonic()
    status = process.wait(LIMIT_S)
    assert status == 0, f"status {status}: {(case.folder / 'said').read_text()[-400:]}"
    return time.monotonic() - began


def kill(case, number, work_s, rng):
    """End a case in the middle; raises AssertionError for what is wrong afterwards.

    Returns whether it was in time, and how long the work takes.
    """
    whole = digest(case.out) if case.out.exists() else None
    mark = f"kill-{uuid.uuid4().hex}"
    process = start(case, mark)
    assert wait(lambda: case.begun() or process.poll() is not None, LIMIT_S), "it never began"
    time.sleep(rng.uniform(0, work_s))
    early = process.poll() is None
    if early:
        # A terminal's Ctrl-C and its end come to all of them, a `kill` to the one.
        to_all = number in (signal.SIGINT, signal.SIGHUP)
        (os.killpg if to_all else os.kill)(process.pid, number)
    try:
        process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"it did not end within {LIMIT_S} s") from None
    # After SIGKILL nobody tells what was started: it has to find out.
    assert wait(lambda: not living(mark), LIMIT_S), f"left after {LIMIT_S} s: {living(mark)}"
    said = (case.folder / "said").read_text(errors="replace")
    assert "Traceback" not in said and "defect" not in said, f"it says: {said[-300:]}"
    case.check(whole)
    if case.again:
        work_s = min(work_s, finish(case))
        case.check_output()
    return early, work_s


def attempts(name, kills, rng, folder):
    """Kill a command so many times; returns how often, how often in time, and what was wrong."""
    make, inputs = CASES[name], folder / "inputs"
    inputs.mkdir()
    make.prepare(inputs)
    done = make(folder / "whole", inputs)
    done.folder.mkdir()
    work_s = finish(done)
    print(f"{name}: works for {work_s:.1f} s", flush=True)
    early, wrong = 0, []
    for count in range(kills):
        case, number = make(folder / str(count), inputs), SIGNALS[count % len(SIGNALS)]
        case.folder.mkdir()
        older = (count // len(SIGNALS)) % 2
        if older and name != "run":  # what is done is not done again
            if done.out.is_dir():
                shutil.copytree(done.out, case.out)
            else:
                shutil.copy(done.out, case.out)
        try:
            in_time, work_s = kill(case, number, work_s, rng)
            early += in_time
        except (AssertionError, PmlkitError, ValueError, subprocess.TimeoutExpired) as error:
            wrong.append(f"{number.name}{', over an older output' * older}: {error}")
            print(f"{name} {count}, {wrong[-1]}", flush=True)
        shutil.rmtree(case.folder, ignore_errors=True)
    print(f"{name}: {kills} kills, {early} while it worked, {len(wrong)} broken", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("commands", nargs="*", choices=[[], *CASES], metavar="COMMAND")
    parser.add_argument("--only", action="append", choices=[*CASES], default=[])
    parser.add_argument("--kills", type=int, default=200, help="of all commands together")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    told = parser.parse_args()
    names = [*told.commands, *told.only] or list(CASES)
    rng, wrong = random.Random(told.seed), 0
    for place, name in enumerate(names):
        kills = told.kills // len(names) + (place < told.kills % len(names))
        with tempfile.TemporaryDirectory() as folder:
            wrong += len(attempts(name, kills, rng, Path(folder)))
    print(f"{told.kills - wrong} passed, {wrong} failed (seed {told.seed})")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
