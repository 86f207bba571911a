# SPDX-License-Identifier: Apache-2.0
"""Real guests on real QEMU: what is recorded equals what the guest is known to have done."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from needs import needs_qemu
from waiting import HANG_S, until

from pmlkit.errors import GuestError, OutputError, OutputExists, UsageError
from pmlkit.sources.ingest import ingest
from pmlkit.sources.recorder.ingest import WALL_TIME
from pmlkit.sources.recorder.record import record
from pmlkit.sources.recorder.recording import RecordOptions, status_hint
from pmlkit.sources.simulator import PmlModel, simulate
from pmlkit.sources.watch import Follower, RecordingWatcher
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace

pytestmark = needs_qemu
GUESTS = Path(__file__).parent / "guests"
BUSY = GUESTS / "busy.c"  # never ends: what is done to it falls into its recording on any host
SMALL = RecordOptions(memory_mib=128)


# With every short cut of the plugin verified against QEMU.
CHECKED = RecordOptions(memory_mib=128, window="1ms", check=True)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """The recording of the known guest, and the progress that was reported."""
    out = tmp_path_factory.mktemp("known") / "known.trace"
    seen = []
    trace = record(GUESTS / "known.c", out, CHECKED, progress=seen.append)
    return trace, seen


def frames(trace, phase, kinds, region):
    """Distinct frames of a region, in order of first use, that a phase used."""
    rounds = np.flatnonzero(trace.phase_of_rounds() == phase)
    table = trace.to_pandas(kinds=kinds)
    table = table[table["round"].isin(rounds) & table["gfn"].isin(trace.frames(region))]
    return table["gfn"].drop_duplicates().to_numpy()


def data_pages(trace):
    """The frames of the data buffer, in the order in which phase quarter walks it."""
    return frames(trace, "quarter", Kind.READ | Kind.WRITE, "data")


def test_exactly_the_frames_that_the_guest_named_are_seen(known):
    trace, _ = known
    assert sorted(data_pages(trace)) == trace.frames("data").tolist()
    assert len(data_pages(trace)) == 1200


def test_writes_are_seen_in_the_order_in_which_they_were_made(known):
    trace, _ = known
    written = frames(trace, "backwards", Kind.WRITE, "data")
    np.testing.assert_array_equal(written, data_pages(trace)[::-1])


def test_reads_and_writes_are_told_apart(known):
    trace, _ = known
    data = data_pages(trace)
    np.testing.assert_array_equal(frames(trace, "quarter", Kind.WRITE, "data"), data[:300])
    np.testing.assert_array_equal(frames(trace, "quarter", Kind.READ, "data"), data[300:])


def test_an_access_over_a_page_boundary_counts_for_both_pages(known):
    trace, _ = known
    written = frames(trace, "crossing", Kind.WRITE, "data")
    assert sorted(written) == sorted(data_pages(trace)[6:8])


def test_a_changed_mapping_leads_to_the_new_frame(known):
    trace, _ = known
    assert frames(trace, "remapped", Kind.WRITE, "data").tolist() == [data_pages(trace)[20]]


def test_executed_pages_are_seen(known):
    trace, _ = known
    executed = frames(trace, "run", Kind.EXEC, "code")
    assert sorted(executed) == trace.frames("code").tolist()
    assert len(frames(trace, "run", Kind.WRITE, "code")) == 0


def test_the_plugins_short_cut_never_missed_an_access(known):
    trace, _ = known
    assert trace.meta.overheads["slow"] > 1000
    assert trace.meta.overheads["wrong"] == 0


def test_the_trace_is_whole_and_says_where_it_is_from(known):
    trace, _ = known
    trace.check()
    assert trace.meta.complete
    phases = ["start", "backwards", "quarter", "crossing", "remapped", "run", "over"]
    assert trace.phases["name"].tolist() == phases
    assert trace.meta.clock["ns_per_insn"] == 8
    assert trace.meta.domain["memory_bytes"] == 128 << 20
    ram = [part for part in trace.meta.memory_map if part["type"] == "System RAM"]
    assert 120 << 20 < sum(part["end"] - part["start"] for part in ram) <= 128 << 20


def test_the_guests_own_view_fits_its_memory(known):
    trace, _ = known
    guest = trace.guest
    assert (guest["allocated_bytes"] < trace.meta.domain["memory_bytes"]).all()
    assert (guest["allocated_bytes"] > 8 << 20).all()
    gaps = np.diff(guest["t_ns"])
    assert np.all(np.abs(gaps - 100e6) < 5e6)


def test_progress_is_told(known):
    _, seen = known
    assert seen
    assert seen[-1].entries > 1000
    assert seen[-1].guest_ns > 0


def test_more_than_a_buffer_leaves_through_full_exits(known):
    trace, _ = known
    log = trace.pml
    busiest = log.rounds.loc[log.rounds["entries"].idxmax()]
    full = log.batches[(log.batches["round"] == busiest["round"])]["reason"].eq("full").sum()
    assert busiest["exits"] == full > 0
    assert (log.batches.loc[log.batches["reason"] == "full", "entries"] == 512).all()


def test_the_simulator_gives_the_recorders_own_log(known, tmp_path):
    trace, _ = known
    simulated = simulate(trace, tmp_path / "pml.trace", PmlModel())
    ours, theirs = simulated.to_pandas(), trace.pml.to_pandas()
    for column in ("round", "batch", "gfn", "kind"):
        np.testing.assert_array_equal(ours[column], theirs[column])
    columns = ["round", "reason", "entries"]
    assert simulated.batches[columns].equals(trace.pml.batches[columns])


def _cli(*words, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "pmlkit", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Under nohup this test ignores SIGHUP, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        **more,
    )


def _wait_for_rounds(spool, bytes_=200_000):
    frames = spool / "frames.spool"
    until(lambda: frames.exists() and frames.stat().st_size > bytes_, "nothing was recorded")


def _emulators_of(process):
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


def _wait_for_end(pids):
    until(lambda: not any(Path("/proc", pid).exists() for pid in pids), "an emulator is left")


@pytest.mark.parametrize(
    "number, code", [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_leaves_a_valid_shorter_trace(tmp_path, number, code):
    out = tmp_path / "i.trace"
    process = _cli("record", BUSY, "-o", out, "--memory", "128")
    _wait_for_rounds(tmp_path / "i.trace.spool")
    emulators = _emulators_of(process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=HANG_S)
    assert process.returncode == code, errors
    ended = f"pmlkit: ended by {number.name}: the recorded part is in {out}\n"
    # Before it are the lines of progress of a busy machine.
    assert errors.endswith(ended) if code else "pmlkit: " not in errors
    _wait_for_end(emulators)
    trace = Trace.open(out)
    trace.check()
    assert not trace.meta.complete
    assert [p.name for p in tmp_path.iterdir()] == ["i.trace"]


def _threads_stand(pid):
    try:
        states = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # one has just ended
        return False
    return all(state.rpartition(")")[2].split()[0] == "T" for state in states)


def _stall(pid):
    """Stop a process for a tenth of a second; return for how long it provably stood, in ns."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: _threads_stand(pid))
    start = time.monotonic_ns()
    time.sleep(0.1)
    end = time.monotonic_ns()
    os.kill(pid, signal.SIGCONT)
    return end - start


@pytest.fixture(scope="module")
def stalled(tmp_path_factory):
    """A recording by the host's clock, and the times for which the guest stood, in ns."""
    # This guest never sleeps: a stall of a guest that sleeps is only more sleep, in empty rounds.
    out = tmp_path_factory.mktemp("stalled") / "s.trace"
    process = _cli("record", BUSY, "-o", out, "--memory", "128", "--clock", "host")
    _wait_for_rounds(out.with_name("s.trace.spool"), bytes_=50_000)
    (emulator,) = map(int, _emulators_of(process))
    watcher = Follower(out.with_name("s.trace.spool") / "frames.spool", RecordingWatcher)
    lengths, stalls = [], []

    def have_ended():
        lengths.extend(seen.length_ns for seen in watcher.poll())
        return sum(length for length in lengths if length >= min(stalls)) >= sum(stalls)

    for _ in range(8):
        stalls.append(_stall(emulator))
        until(have_ended, "the round of a stall has not ended, or is too short")
    watcher.close()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, errors
    return Trace.open(out), stalls


def test_a_host_that_stalls_the_guest_makes_rounds_longer_and_nothing_wrong(stalled):
    trace, stalls = stalled
    trace.check()
    lengths = trace.rounds["t_end_ns"] - trace.rounds["t_start_ns"]
    assert lengths[lengths >= min(stalls)].sum() >= sum(stalls)
    assert (lengths > 0).all()


def test_the_hosts_clock_says_that_its_time_is_wall_time(stalled):
    trace, _ = stalled
    assert trace.meta.clock["kind"] == "host"
    assert trace.meta.options["clock"] == "host" and not trace.meta.options["deterministic"]
    for log in (trace, trace.pml):
        assert WALL_TIME in log.meta.notes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_boot_leaves_nothing(tmp_path, number):
    process = _cli("record", "hotcold", "-o", tmp_path / "b.trace", "--memory", "128")
    emulators = until(lambda: _emulators_of(process))
    process.send_signal(number)
    _, errors = process.communicate(timeout=HANG_S)
    assert process.returncode == 128 + number, errors
    assert errors.splitlines()[-1].startswith("pmlkit: ") and errors.count("pmlkit: ") == 1
    _wait_for_end(emulators)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_recording_leaves_a_spool_that_becomes_a_trace(tmp_path):
    out, spool = tmp_path / "k.trace", tmp_path / "k.trace.spool"
    process = _cli("record", BUSY, "-o", out, "--memory", "128")
    _wait_for_rounds(spool)
    emulators = _emulators_of(process)
    process.kill()
    process.wait()
    _wait_for_end(emulators)
    assert not out.exists()
    trace = ingest(spool, out)
    trace.check()
    assert not trace.meta.complete
    assert len(trace.to_pandas()) > 1000


def test_a_guest_that_panics_is_reported_in_a_line(tmp_path):
    options = RecordOptions(memory_mib=128, cmdline="rdinit=/nothing root=/dev/none")
    with pytest.raises(GuestError, match=r"Kernel panic.*console is in .*/p\.console\.txt$"):
        record("idle", tmp_path / "p.trace", options)
    assert [path.name for path in tmp_path.iterdir()] == ["p.console.txt"]
    assert "Kernel panic" in (tmp_path / "p.console.txt").read_text()


def test_a_workload_that_fails_is_reported_with_its_status(tmp_path):
    source = tmp_path / "fails.c"
    source.write_text('#include <stdio.h>\nint main(void) { puts("no such luck"); return 127; }\n')
    with pytest.raises(
        GuestError, match=r"status 127.*no such luck.*a program is missing"
    ) as failed:
        record(source, tmp_path / "f.trace", RecordOptions(memory_mib=128))
    assert not (tmp_path / "f.trace").exists()
    assert "memory" not in str(failed.value)
    console = re.search(r"its console is in (\S+/console\.txt)", str(failed.value))[1]
    assert "no such luck" in Path(console).read_text()


@pytest.mark.parametrize(
    ("status", "says"), [(127, "missing"), (137, "--memory"), (139, "crashed"), (3, "its own")]
)
def test_advice_goes_by_the_cause(status, says):
    assert says in status_hint(status)


def test_a_guest_that_hangs_meets_the_time_limit(tmp_path):
    source = tmp_path / "hangs.c"
    source.write_text("int main(void) { for (;;) ; }\n")
    options = RecordOptions(memory_mib=128)

    def is_over(_):  # with the first round, whenever the host gets there
        object.__setattr__(options, "time_limit_s", 0)

    with pytest.raises(GuestError, match="did not finish within 0 s.*--time-limit.*pmlkit ingest"):
        record(source, tmp_path / "h.trace", options, progress=is_over)
    assert not (tmp_path / "h.trace").exists()


def test_a_full_disk_ends_the_recording_and_keeps_what_fitted(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", small]).returncode:
        pytest.skip("this machine does not let root mount")
    try:
        with pytest.raises(OutputError, match="no space left.*pmlkit ingest"):
            record("hotcold", small / "d.trace", SMALL)
        assert not (small / "d.trace").exists()
        trace = ingest(small / "d.trace.spool", tmp_path / "d.trace")
        trace.check()
        assert len(trace.to_pandas()) > 1000
    finally:
        subprocess.run(["umount", small], check=True)


def test_names_that_are_taken_are_refused_before_the_guest_boots(tmp_path):
    (tmp_path / "t.trace").mkdir()
    with pytest.raises(OutputExists):
        record("idle", tmp_path / "t.trace")
    with pytest.raises(UsageError, match=r"NAME\.trace"):
        record("idle", tmp_path / "t")


@contextlib.contextmanager
def busy_processor():
    """Run here, and what is started here, on one processor, beside a loop that never rests."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as loop:
            try:
                yield
            finally:
                loop.kill()
    finally:
        os.sched_setaffinity(0, before)


def test_a_busy_host_records_the_same_to_the_bit_as_an_idle_one(known, tmp_path):
    idle, _ = known
    with busy_processor():
        busy = record(GUESTS / "known.c", tmp_path / "known.trace", CHECKED)
    assert idle.meta.clock["kind"] == busy.meta.clock["kind"] == "icount"
    assert WALL_TIME not in idle.meta.notes
    files = sorted(p.relative_to(idle.path) for p in idle.path.rglob("*.parquet"))
    assert len(files) > 5
    for name in files:
        assert (idle.path / name).read_bytes() == (busy.path / name).read_bytes(), name
