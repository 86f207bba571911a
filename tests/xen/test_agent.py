# SPDX-License-Identifier: Apache-2.0
"""The agent as a process: real rings, a real spool, and everything that may end it."""

import ast
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import _cffi_backend
import fake_xen
import numpy as np
import pytest
from waiting import HANG_S, until

from pmlkit.errors import PmlkitError
from pmlkit.spool import FRAME, HEADER, SUM_BYTES
from pmlkit.spool_reader import read_spool
from pmlkit.xen import shipping
from pmlkit.xen.collector import Period
from pmlkit.xen.frames import RECORDS_HEAD, Frame


def finish(process):
    """Wait for an agent's end; returns its exit status and what it said."""
    status = process.wait(HANG_S)
    messages = process.stderr.read().decode()
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()
    return status, messages


def frames_of(path):
    with read_spool(path) as spool:
        contents = [(Frame(kind), payload) for kind, payload in spool]
        return spool, contents


def a_round_is_there(path):
    try:
        return any(kind is Frame.ROUND for kind, _ in frames_of(path)[1])
    except PmlkitError:  # not even the header, as yet
        return False


def ends_of_frames(data):
    """Yield (kind, end in bytes) of each frame that begins in the bytes of a spool."""
    at = HEADER.size + SUM_BYTES + HEADER.unpack_from(data)[2]
    while at + FRAME.size + SUM_BYTES <= len(data):
        _, kind, _, _, length = FRAME.unpack_from(data, at)
        at += FRAME.size + SUM_BYTES + length
        yield kind, at


def ended(contents):
    return json.loads(next(payload for kind, payload in contents if kind is Frame.END))


def records(header, contents):
    """Yield (head, words) of each record; a head is a structured scalar."""
    names, offsets, sizes = zip(*header["record"], strict=True)
    formats = [f"<u{size}" for size in sizes]
    layout = {"names": names, "offsets": offsets, "formats": formats}
    head = np.dtype({**layout, "itemsize": header["head_bytes"]})
    for kind, payload in contents:
        if kind is Frame.RECORDS:
            (count,) = RECORDS_HEAD.unpack_from(payload)
            heads = np.frombuffer(payload, head, count, RECORDS_HEAD.size)
            words = np.frombuffer(payload, "<u8", offset=RECORDS_HEAD.size + heads.nbytes)
            yield from zip(heads, np.split(words, np.cumsum(heads["count"])[:-1]), strict=True)


def check_entries(header, contents):
    """Every entry is the one that was made, none is missing unnoticed; returns (read, lost)."""
    read, lost, known = 0, 0, {}
    for head, words in records(header, contents):
        vcpu = int(head["vcpu"])
        expected = known.get(vcpu, 0) + int(head["lost_entries"])
        assert int(head["first"]) == expected
        n = np.arange(expected, expected + len(words), dtype=np.uint64)
        np.testing.assert_array_equal(words, fake_xen.entry(vcpu, n))
        known[vcpu] = expected + len(words)
        read, lost = read + len(words), lost + int(head["lost_entries"])
    return read, lost


def run_rounds(xen, path, rounds=3, environment=None, **more):
    process = xen.agent(xen.job(spool=str(path), rounds=rounds, **more), environment)
    return finish(process)


def test_rounds_are_collected_and_log_dirty_is_off(xen, tmp_path):
    status, messages = run_rounds(xen, tmp_path / "s")
    assert (status, messages) == (0, "")
    spool, contents = frames_of(tmp_path / "s")
    assert spool.missing is None
    assert sum(kind is Frame.ROUND for kind, _ in contents) == 3
    read, lost = check_entries(spool.header, contents)
    end = ended(contents)
    assert end["complete"] and end["why"] == "all rounds are complete"
    assert read + lost == sum(log["entries"] for log in end["logs"])
    assert not xen.log_dirty()
    assert not list((xen.folder / "run").iterdir())


@pytest.mark.parametrize("mode", ["pml", "stock"])
def test_a_spool_at_its_limit_ends_it_after_that_round_with_all_kept(xen, tmp_path, mode):
    more = {"mode": mode, "period_s": 0.01, "most_bytes": 30_000}
    assert run_rounds(xen, tmp_path / "s", 10_000, **more) == (0, "")
    ends = ends_of_frames((tmp_path / "s").read_bytes())
    *before, last = [end for kind, end in ends if kind == Frame.ROUND]
    assert all(end < 30_000 for end in before) and last >= 30_000
    spool, contents = frames_of(tmp_path / "s")
    end = ended(contents)
    assert spool.missing is None
    assert end["complete"] and end["rounds"] == len(before) + 1
    assert end["why"] == f"the spool has reached {last} bytes: its limit is 30000"
    if mode == "pml":
        assert sum(check_entries(spool.header, contents)) == sum(
            log["entries"] for log in end["logs"]
        )
    assert not xen.log_dirty()
    assert not list((xen.folder / "run").iterdir())


def test_a_limit_of_0_never_ends_it(xen, tmp_path):
    process = xen.agent(xen.job(spool=str(tmp_path / "s"), period_s=0.01, most_bytes=0))
    until(lambda: a_round_is_there(tmp_path / "s"))
    until(lambda: (tmp_path / "s").stat().st_size > 60_000)
    process.send_signal(signal.SIGINT)
    assert finish(process) == (0, "")
    assert ended(frames_of(tmp_path / "s")[1])["why"] == "interrupted (SIGINT)"


def test_a_limit_that_the_last_round_reaches_does_not_hide_that_all_are_done(xen, tmp_path):
    assert run_rounds(xen, tmp_path / "s", 1, most_bytes=1) == (0, "")
    assert ended(frames_of(tmp_path / "s")[1])["why"] == "all rounds are complete"


def test_a_producer_faster_than_the_reader_loses_what_is_said_to_the_entry(xen, tmp_path):
    fast = xen.environment(FAKE_PACE_US=0, FAKE_VCPUS=3)
    assert run_rounds(xen, tmp_path / "s", 4, fast, slots=4, period_s=0.1)[0] == 0
    spool, contents = frames_of(tmp_path / "s")
    read, lost = check_entries(spool.header, contents)
    assert lost > 0
    assert read + lost == sum(log["entries"] for log in ended(contents)["logs"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_cleanly(xen, tmp_path, number):
    process = xen.agent(xen.job(spool=str(tmp_path / "s"), period_s=3600))
    until(lambda: (tmp_path / "s").exists() and (tmp_path / "s").stat().st_size > 4000)
    process.send_signal(number)
    assert finish(process)[0] == 0
    spool, contents = frames_of(tmp_path / "s")
    assert spool.missing is None
    # The round that was running is closed, early.
    assert sum(kind is Frame.ROUND for kind, _ in contents) == 1
    assert ended(contents)["why"] == f"interrupted ({number.name})"
    assert ended(contents)["complete"]
    assert not xen.log_dirty()


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (fake_xen.SHUTDOWN, "the domain shut down (poweroff)"),
        (fake_xen.CRASHED, "the domain crashed (crash)"),
        (fake_xen.SUSPENDED, "the domain was suspended (saved or migrated)"),
        (fake_xen.DYING, "the domain was destroyed"),
        (None, "the domain is gone"),
        ("renamed", "the domain was renamed from guest to other"),
        ("away", "the domain was migrated"),
    ],
)
@pytest.mark.parametrize("mode", ["pml", "stock"])
def test_the_end_of_the_domain_is_recorded(xen, tmp_path, mode, flags, why):
    process = xen.agent(xen.job(spool=str(tmp_path / "s"), mode=mode))
    until(xen.log_dirty)
    until(lambda: a_round_is_there(tmp_path / "s"))
    if flags is None:
        xen.domains()
    elif flags == "renamed":
        xen.domains((5, "other", fake_xen.RUNNING))
    elif flags == "away":
        xen.domains((5, "guest--migratedaway", fake_xen.SUSPENDED))
    else:
        xen.domains((5, "guest", flags))
    status, messages = finish(process)
    assert (status, messages) == (0, "")
    spool, contents = frames_of(tmp_path / "s")
    assert spool.missing is None
    assert ended(contents)["why"] == why
    if mode == "pml":
        check_entries(spool.header, contents)
    if flags is not None:
        assert not xen.log_dirty()


def test_log_dirty_mode_is_left_to_a_migration(xen, tmp_path):
    domid = 6 + os.getpid() % 30_000  # agents of other tests see the helper: their domain is 5
    xen.domains((domid, "guest", fake_xen.RUNNING))
    process = xen.agent(xen.job(spool=str(tmp_path / "s"), mode="stock"))
    until(lambda: a_round_is_there(tmp_path / "s"))
    words = ["libxl-save-helper", "-c", "sleep 600; :", "--save-domain", "1", "2", str(domid)]
    with subprocess.Popen(words, executable="/bin/sh", start_new_session=True) as helper:
        try:
            assert finish(process) == (0, "")
        finally:
            os.killpg(helper.pid, signal.SIGKILL)
    assert ended(frames_of(tmp_path / "s")[1])["why"] == "the domain is being saved or migrated"
    assert xen.log_dirty(domid)


def test_an_order_and_the_end_of_the_input_end_it(xen, tmp_path):
    process = xen.agent(xen.job(spool=str(tmp_path / "a")))
    until(xen.log_dirty)
    process.stdin.write(b"stop\n")
    process.stdin.flush()
    assert finish(process)[0] == 0
    assert ended(frames_of(tmp_path / "a")[1])["complete"]
    process = xen.agent(xen.job(spool=str(tmp_path / "b")))
    until(xen.log_dirty)
    process.stdin.close()
    process.wait(HANG_S)
    end = ended(frames_of(tmp_path / "b")[1])
    assert end["why"] == "the program that started the collection has ended"
    assert not end["complete"]
    assert not xen.log_dirty()


def test_silence_ends_it(xen, tmp_path):
    process = xen.agent(xen.job(spool=str(tmp_path / "s"), silence_s=0.3))
    assert finish(process)[0] == 0
    assert "silent for 0.3 s" in ended(frames_of(tmp_path / "s")[1])["why"]
    assert not xen.log_dirty()


def test_a_reader_that_goes_away_ends_it(xen):
    process = xen.agent(xen.job(spool="-"), xen.environment(FAKE_PACE_US=0))
    assert process.stdout.read(8) == b"PMLSPOOL"
    process.stdout.close()
    status = process.wait(HANG_S)
    messages = process.stderr.read().decode()
    assert status == 1
    assert "Broken pipe" in messages and "Traceback" not in messages
    assert not xen.log_dirty()


def fill(pipe):
    """Fill a pipe, from the end that reads it, until it has no room for another byte."""
    writing_end = os.open(f"/proc/self/fd/{pipe.fileno()}", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing_end, b"\0")
    os.close(writing_end)


def test_nobody_reads_and_nobody_is_there(xen):
    """The output is stuck (a dead network), then the input ends: it does not wait for ever."""
    process = xen.agent(xen.job(spool="-"), xen.environment(FAKE_PACE_US=0))
    until(xen.log_dirty)
    assert process.stdout.read(8) == b"PMLSPOOL"
    fill(process.stdout)  # otherwise the rest of the spool may still fit
    process.stdin.close()
    assert process.wait(HANG_S) == 1
    assert not xen.log_dirty()


def test_a_full_disk_ends_it_with_whole_frames(xen, tmp_path):
    def limited():
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    job = xen.job(spool=str(tmp_path / "s"), period_s=0.02)
    process = xen.agent(job, xen.environment(FAKE_PACE_US=100), preexec_fn=limited)
    status, messages = finish(process)
    assert status == 1
    assert "cannot write" in messages and "Traceback" not in messages
    assert not xen.log_dirty()
    spool, contents = frames_of(tmp_path / "s")
    assert "stopped after frame" in spool.missing  # every frame that is there is whole
    assert check_entries(spool.header, contents)[0] > 0


# Killed


# One interpreter forks the agents, each of which is killed when its spool has grown to a size.
KILLER = """
import json, os, sys
from pmlkit.xen import agent
from pmlkit.xen.binding import library
agent.preload()
for name in ("xenpml", "xenctrl", "xenstore"):
    library(name)
for line in sys.stdin:
    size, job = json.loads(line)
    child = os.fork()
    if not child:
        orders, writing_end = os.pipe()
        os.write(writing_end, json.dumps(job).encode() + b"\\n")
        agent.serve(orders)
    while not os.path.exists(job["spool"]) or os.path.getsize(job["spool"]) < size:
        if os.waitpid(child, os.WNOHANG)[0]:
            sys.exit("the agent ended by itself")
    os.kill(child, 9)
    os.waitpid(child, 0)
    print("killed", flush=True)
"""


def whole_frames(data):
    """Count the frames that are complete in the bytes of a spool, without looking into them."""
    return sum(end <= len(data) for _, end in ends_of_frames(data))


def test_sigkill_at_200_random_moments(xen, tmp_path):
    """A real process and a fast producer: what was completed is recovered, and nothing else."""
    rng, seen, path = random.Random(4), set(), tmp_path / "s"
    killer = subprocess.Popen(
        [sys.executable, "-c", KILLER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=xen.environment(FAKE_PACE_US=20),
        cwd=fake_xen.ROOT,
        text=True,
    )
    for _ in range(200):
        path.unlink(missing_ok=True)
        job = xen.job(spool=str(path), period_s=0.005)
        killer.stdin.write(json.dumps([rng.randrange(1, 200_000), job]) + "\n")
        killer.stdin.flush()
        assert killer.stdout.readline() == "killed\n"
        data = path.read_bytes()
        if len(data) < HEADER.size or len(data) < HEADER.unpack_from(data)[2]:
            continue
        spool, contents = frames_of(path)
        assert len(contents) == whole_frames(data)
        assert spool.missing
        check_entries(spool.header, contents)
        seen.add(len(contents))
    killer.stdin.close()
    assert killer.wait(HANG_S) == 0
    killer.stdout.close()
    assert max(seen) > 0
    # The last one left log-dirty mode on; the next collection says so and switches it off.
    assert xen.log_dirty()
    assert run_rounds(xen, tmp_path / "t")[0] == 0
    assert not xen.log_dirty()


def test_the_next_start_cleans_up_with_a_word(xen, tmp_path):
    for mode in ("pml", "stock"):
        process = xen.agent(xen.job(spool=str(tmp_path / f"{mode}1"), mode=mode))
        until(lambda mode=mode: (tmp_path / f"{mode}1").exists())
        until(xen.log_dirty)
        process.kill()
        process.wait(HANG_S)
        assert xen.log_dirty()
        status, messages = run_rounds(xen, tmp_path / f"{mode}2", mode=mode)
        assert status == 0
        assert "domain guest died and left log-dirty mode on: it is off now" in messages
        _, contents = frames_of(tmp_path / f"{mode}2")
        events = [payload for kind, payload in contents if kind is Frame.EVENT]
        assert b"died and left" in events[0]
        assert not xen.log_dirty()


@pytest.mark.parametrize("torn", ["", '{"domid": 5, "na'])
@pytest.mark.parametrize("mode", ["pml", "stock"])
def test_a_death_as_soon_as_logging_is_on_is_cleaned_up(xen, tmp_path, mode, torn):
    """What is known then was written before; the line with more facts may be cut off."""
    facts = {"domid": 5, "name": "guest", "uuid": fake_xen.UUID[:-2] + "05", "mode": mode}
    (xen.folder / "run").mkdir()
    (xen.folder / "run" / "5.json").write_text(json.dumps(facts) + "\n" + torn)
    xen.set_log_dirty()
    status, messages = run_rounds(xen, tmp_path / "s", mode=mode)
    assert status == 0
    assert "domain guest died and left log-dirty mode on: it is off now" in messages
    assert not xen.log_dirty()


def test_only_one_at_a_time(xen, tmp_path):
    first = xen.agent(xen.job(spool=str(tmp_path / "a")))
    until(xen.log_dirty)
    status, messages = run_rounds(xen, tmp_path / "b")
    assert status == 1
    assert f"is being collected by process {first.pid}" in messages
    assert xen.log_dirty()  # the first one's
    first.send_signal(signal.SIGINT)
    assert finish(first)[0] == 0


def test_what_xen_refuses_is_one_line(xen, tmp_path):
    xen.set_log_dirty()
    for mode, says in (("pml", "it is being logged already"), ("stock", "Invalid argument")):
        status, messages = run_rounds(xen, tmp_path / mode, mode=mode)
        assert status == 1
        assert says in messages and "of domain 5" in messages and "Traceback" not in messages
    status, messages = run_rounds(xen, tmp_path / "c", domain="nobody")
    assert (status, messages) == (
        1,
        "agent: error: there is no domain nobody: `xl list` lists the domains\n",
    )
    other = xen.environment(FAKE_OTHER_VERSION=1)
    status, messages = run_rounds(xen, tmp_path / "d", mode="stock", environment=other)
    assert status == 1
    assert "libxenctrl is of another version than Xen" in messages


@pytest.mark.parametrize(
    ("reason", "says"), [(14, "too little free memory for the log"), (15, "set shadow_memory")]
)
def test_a_want_of_memory_is_told_with_what_to_do(xen, tmp_path, reason, says):
    short = xen.environment(FAKE_SHORT=reason)
    status, messages = run_rounds(xen, tmp_path / "a", mode="pml", environment=short)
    assert status == 1
    assert says in messages and "`xl info`" in messages and "HVM or PVH" not in messages


def test_an_unpatched_xen_is_found_out_by_asking(xen, tmp_path):
    assert run_rounds(xen, tmp_path / "s", environment=xen.environment(FAKE_UNPATCHED=1))[0] == 0
    spool, contents = frames_of(tmp_path / "s")
    assert spool.header["mode"] == "stock"
    assert sum(kind is Frame.DIRTY for kind, _ in contents) == 3


def test_a_libxenctrl_before_4_16_does_as_well(xen, xen_libraries, tmp_path):
    old = fake_xen.libraries(str(xen_libraries), old=True)
    environment = xen.environment() | {"LD_LIBRARY_PATH": str(old)}
    assert run_rounds(xen, tmp_path / "s", mode="stock", environment=environment)[0] == 0
    assert sum(kind is Frame.DIRTY for kind, _ in frames_of(tmp_path / "s")[1]) == 3


def test_a_job_that_is_none(xen):
    for line, says in ((b"no json\n", "is not a job"), (b"[1]\n", "not a JSON object"),
                       (b'{"mode": "x"}\n', "the job's mode is 'x'")):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "pmlkit.xen.agent"],
            input=line,
            capture_output=True,
            env=xen.environment(),
            cwd=fake_xen.ROOT,
        )
        assert done.returncode == 2
        assert says in done.stderr.decode() and b"Traceback" not in done.stderr


# What is shipped


def test_the_zipapp_runs_with_nothing_but_cffis_c_half(xen, tmp_path):
    app = tmp_path / "agent.pyz"
    app.write_bytes(shipping.zipapp())
    assert shipping.zipapp() == app.read_bytes()
    alone = tmp_path / "site"
    alone.mkdir()
    os.symlink(_cffi_backend.__file__, alone / Path(_cffi_backend.__file__).name)
    job = xen.job(spool=str(tmp_path / "s"), rounds=2)
    code = f"import sys; sys.path[:] = [{str(app)!r}, {str(alone)!r}, *sys.path];"
    code += "from pmlkit.xen.agent import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-S", "-E", "-s", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=xen.environment(),
        cwd=tmp_path,
    )
    process.stdin.write(json.dumps(job).encode() + b"\n")
    process.stdin.flush()
    assert finish(process) == (0, "")
    assert frames_of(tmp_path / "s")[0].missing is None


def test_what_is_shipped_is_python_3_9():
    for name, data in shipping.files().items():
        if not name.endswith(".py"):
            continue
        tree = ast.parse(data, name, feature_version=(3, 9))
        for node in ast.walk(tree):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Name) and called.id == "zip":
                assert not node.keywords, f"{name}: zip(strict=) is of 3.10"
            if isinstance(called, ast.Name) and called.id == "isinstance":
                assert not isinstance(node.args[1], ast.BinOp), f"{name}: X | Y is of 3.10"
            if isinstance(called, ast.Name) and called.id == "dataclass":
                assert {k.arg for k in node.keywords} <= {"frozen", "order"}, name
            if isinstance(node, ast.ImportFrom) and node.module == "datetime":
                assert "UTC" not in {alias.name for alias in node.names}, name
            if isinstance(node, ast.FunctionDef) and node.returns is not None:
                assert b"\nfrom __future__ import annotations\n" in data, f"{name}: X | None"


class _RunTime(ast.NodeTransformer):
    """Leaves out what only a checker of types imports."""

    def visit_If(self, node):
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def test_what_is_shipped_imports_nothing_else():
    allowed = set(sys.stdlib_module_names) | {"pmlkit", "cffi", "_cffi_backend"}
    shipped = {n.removesuffix(".py").replace("/", ".") for n in shipping.files()}
    shipped |= {"pmlkit", "pmlkit.xen", "pmlkit.spool_reader", "pmlkit.sources.host.collection"}
    for name, data in shipping.files().items():
        for node in ast.walk(_RunTime().visit(ast.parse(data))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module]
            for imported in names:
                assert imported.split(".")[0] in allowed, (name, imported)
                if imported.startswith("pmlkit."):
                    assert imported in shipped, (name, imported)


# The pace of rounds


class Clock:
    """Stands in for the time, the stop and the source of a collector."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("pmlkit.xen.collector.time.monotonic", lambda: self.now)
        self.stop = self

    def __bool__(self):
        return False

    def wait(self, seconds):
        self.now += seconds

    def drain(self, writer):
        return 0.0


def test_a_round_that_is_late_is_caught_up(monkeypatch):
    """Rounds end by the calendar: what closing takes does not add up."""
    clock = Clock(monkeypatch)
    pace, ends = Period(1.0), []
    for late in (0.3, 0.9, 0.0, 0.2):
        pace.round(clock, clock, None)
        ends.append(round(clock.now - 100, 6))
        clock.now += late
    assert ends == [1, 2, 3, 4]
    clock.now += 5  # more than a period: it begins anew
    began = clock.now
    pace.round(clock, clock, None)
    assert clock.now == pytest.approx(began + 1)
