# SPDX-License-Identifier: Apache-2.0
"""From a domain to a trace: here, and over a real SSH connection to a server of the test's own."""

import json
import os
import re
import signal
import subprocess
import sys

import fake_xen
import numpy as np
import pytest
from pagetable_guest import in_sample
from ssh_server import server
from waiting import HANG_S, until

from pmlkit import cli
from pmlkit.errors import OutputError, OutputExists, UsageError
from pmlkit.sources.host.collection import CollectError, Collection, CollectOptions
from pmlkit.sources.ingest import ingest


def options(xen, **more):
    return CollectOptions(**{"period_s": 0.05, "state": str(xen.folder / "run"), **more})


def check_entries(trace):
    """Every entry of the trace is one that was made, in order; lost ones are counted."""
    batches = trace.batches.set_index("batch")
    for vcpu, entries in trace.to_pandas().groupby("vcpu"):
        mine = batches[batches.vcpu == vcpu]
        before = mine.lost.cumsum() + mine.entries.cumsum() - mine.entries
        first = before.loc[entries.batch].to_numpy()
        place = entries.groupby("batch").cumcount().to_numpy()
        words = fake_xen.entry(vcpu, (first + place).astype(np.uint64))
        np.testing.assert_array_equal(entries.gfn, words >> np.uint64(12))
        np.testing.assert_array_equal(entries.kind, words & np.uint64(0xFF))
    trace.check()


def test_a_domain_becomes_a_trace(here, tmp_path):
    run = Collection("guest", tmp_path / "x.trace", options(here, rounds=4))
    trace = run.run()
    assert (trace.n_rounds, trace.meta.complete, trace.meta.source) == (4, True, "xen")
    assert trace.meta.domain == {
        "name": "guest", "memory_bytes": 64 << 20, "vcpus": 2, "page_size": 4096,
    }  # fmt: skip
    assert [seen.round for seen in run.seen] == [0, 1, 2, 3]
    assert sum(seen.entries for seen in run.seen) >= len(trace.entries())
    assert trace.rounds.asked_ns.tolist() == [50_000_000] * 4
    assert (trace.rounds.exits > 0).all()
    check_entries(trace)
    assert not here.log_dirty()
    assert [path.name for path in tmp_path.iterdir() if "x.trace" in path.name] == ["x.trace"]


def test_the_distinct_pages_so_far_are_those_of_the_trace(here, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_PACE_US", "-1")  # so that nothing is lost, which is not counted
    with Collection("guest", tmp_path / "x.trace", options(here, rounds=3)) as run:
        last = list(run)[-1]
    pages = run.header["pages"]
    gfns = run.trace.to_pandas().gfn
    # Frames beyond the domain's highest are not counted while it goes on.
    logged_before_the_end = gfns[gfns < pages].nunique()
    assert 0 < last.distinct <= logged_before_the_end + 7


def test_a_free_run_has_rounds_that_nobody_closed(here, tmp_path):
    run = Collection("guest", tmp_path / "x.trace", options(here, rounds=3, free=True))
    trace = run.run()
    assert trace.n_rounds == 3
    assert set(trace.batches.reason) == {"full", "stop"}
    assert (trace.rounds.pause_ns == 0).all()
    assert any("no round was closed in Xen" in note for note in trace.meta.notes)
    check_entries(trace)


def test_stock_log_dirty_gives_distinct_pages_and_says_so(here, tmp_path):
    trace = Collection("5", tmp_path / "x.trace", options(here, rounds=3, mode="stock")).run()
    for number, entries in trace.to_pandas().groupby("round"):
        assert entries.gfn.tolist() == list(range(4096 + number, 4196 + number))
    assert set(trace.to_pandas().kind) == {0}
    assert any("gives a bitmap" in note for note in trace.meta.notes)


def test_harvests_every_second_round_make_an_access_trace(here, tmp_path):
    how = options(here, rounds=6, harvest="accessed", harvest_every=2)
    trace = Collection("guest", tmp_path / "x.trace", how).run()
    assert (trace.meta.kind, trace.n_rounds, trace.pml.n_rounds) == ("access", 3, 6)
    assert trace.rounds.t_end_ns.tolist() == trace.pml.rounds.t_end_ns.tolist()[1::2]
    assert set(trace.batches.reason) == {"scan"}
    for _, entries in trace.to_pandas().groupby("round"):
        assert entries.gfn.tolist() == list(range(100))
    trace.check()


def test_a_guided_harvest_and_the_rest_are_batches_of_their_own(here, tmp_path):
    how = options(here, rounds=2, harvest="both")
    trace = Collection("guest", tmp_path / "x.trace", how).run()
    assert trace.batches.reason.tolist() == ["guided", "scan"] * 2
    for batch, entries in trace.to_pandas().groupby("batch"):
        if batch % 2:
            assert entries.gfn.tolist() == list(range(100))
        else:
            assert entries.gfn.tolist() == list(range(1000, 1200))
            assert entries.kind.tolist() == [2, 1] * 100  # written, read
    assert [costs["round"] for costs in trace.pml.meta.overheads["rounds"]] == [0, 1]
    trace.check()


@pytest.mark.parametrize("draw", ["round", "fixed"])
def test_a_sample_of_the_flags_is_nested_in_the_log(here, tmp_path, draw):
    how = options(here, rounds=3, harvest="sampled", one_in=8, draw=draw)
    trace = Collection("guest", tmp_path / "x.trace", how).run()
    assert (trace.meta.kind, trace.sample.n_rounds) == ("pml", 3)
    assert trace.sample.meta.options["sampled_one_in"] == 8
    assert trace.sample.meta.options["sampled_draw"] == draw
    which = {"round": "a new one in each round", "fixed": "the same in all rounds"}[draw]
    assert f"one in 8 frames was examined, {which}" in trace.sample.meta.notes
    for number, entries in trace.sample.to_pandas().groupby("round"):
        drawn = number + 1 if draw == "round" else 0
        assert entries.gfn.tolist() == [gfn for gfn in range(100) if in_sample(gfn, 8, drawn)]
    assert trace.check()["sample"]["rounds"] == 3
    check_entries(trace)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"one_in": 12}, "a power of two"),
        ({"one_in": 1024}, "2 to 512"),
        ({"harvest_every": 2}, "in every round"),
    ],
)
def test_a_sample_that_cannot_be_had(here, tmp_path, how, words):
    with pytest.raises(UsageError, match=words):
        Collection("guest", tmp_path / "x.trace", options(here, harvest="sampled", **how)).run()


def test_what_stock_has_not_is_refused(here, tmp_path):
    with pytest.raises(CollectError, match="stock log-dirty does not support a harvest"):
        Collection(
            "guest", tmp_path / "x.trace", options(here, mode="stock", harvest="accessed")
        ).run()
    assert not list(tmp_path.glob("x.trace*"))


def test_a_collection_that_cannot_start_leaves_nothing(here, tmp_path):
    with pytest.raises(CollectError, match="there is no domain nobody"):
        Collection("nobody", tmp_path / "x.trace", options(here)).run()
    with pytest.raises(CollectError, match="there is no domain nobody"):
        Collection("nobody", tmp_path / "new" / "folders" / "x.trace", options(here)).run()
    assert not (tmp_path / "new").exists()
    (tmp_path / "y.trace").mkdir()
    with pytest.raises(OutputExists):
        Collection("guest", tmp_path / "y.trace", options(here)).run()
    with pytest.raises(UsageError, match="period above 0"):
        Collection("guest", tmp_path / "x.trace", options(here, period_s=0)).run()
    assert not list(tmp_path.glob("x.trace*"))


def test_an_agent_that_is_killed_leaves_what_came(here, tmp_path):
    run = Collection("guest", tmp_path / "x.trace", options(here))
    with pytest.raises(CollectError, match="exit status -9.*the received part is in"), run:
        for seen in run:
            if seen.round == 2:
                run._agent.process.kill()
    assert run.trace.n_rounds >= 3
    assert not run.trace.meta.complete
    check_entries(run.trace)


def test_where_there_is_no_room_for_the_trace_the_spool_is_kept(here, tmp_path, monkeypatch):
    def full(spool, out, **how):
        raise OutputError(out, "no space left", "free some")

    with monkeypatch.context() as patch, pytest.raises(OutputError) as caught:
        patch.setattr("pmlkit.sources.ingest.ingest", full)
        Collection("guest", tmp_path / "x.trace", options(here, rounds=2)).run()
    spool = tmp_path / "x.trace.spool"
    assert f"free some (`pmlkit ingest {spool} -o " in str(caught.value)
    assert ingest(spool, tmp_path / "x.trace").n_rounds == 2
    assert not here.log_dirty()


def test_an_exception_of_the_caller_ends_it_and_writes_the_trace(here, tmp_path):
    run = Collection("guest", tmp_path / "x.trace", options(here))
    with pytest.raises(ZeroDivisionError), run:
        for seen in run:
            seen.round / 0
    assert run.trace.meta.complete
    assert not here.log_dirty()


# The command


COMMAND = [sys.executable, "-c", "import sys; from pmlkit.cli.app import main; sys.exit(main())"]


def words(xen, out, *more):
    command = ["collect", "guest", "-o", str(out), "--period", "50ms"]
    return [*command, "--state", str(xen.folder / "run"), *more]


def test_collect_prints_a_line_per_round_and_a_summary(here, tmp_path, capfd):
    call = words(here, tmp_path / "x.trace", "--rounds", "2")
    code = cli.main(call)
    out, err = capfd.readouterr()
    assert code == 0
    assert [line.split(":")[0] for line in err.splitlines()] == ["round 0", "round 1"]
    assert "entries/s" in err and "lost" in err
    assert "complete" in out
    code = cli.main([*call, "--overwrite", "--json"])
    out, err = capfd.readouterr()
    summary = json.loads(out)
    assert (code, err) == (0, "")
    assert (summary["rounds"], summary["mode"], summary["complete"]) == (2, "pml", True)
    assert len(summary["working_set"]) == 2


def test_a_limit_of_the_spool_ends_the_command_with_a_whole_trace(here, tmp_path, capfd):
    more = ("--rounds", "10000", "--most", "1K", "--json")
    code = cli.main(words(here, tmp_path / "x.trace", *more))
    summary = json.loads(capfd.readouterr().out)
    assert (code, summary["rounds"], summary["complete"]) == (0, 1, True)
    assert any("its limit is 1024" in note for note in summary["notes"])
    assert not any("shorter than requested" in note for note in summary["notes"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_the_command_with_a_whole_trace(here, tmp_path, number):
    process = subprocess.Popen(
        [*COMMAND, *words(here, tmp_path / "x.trace", "--json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until(here.log_dirty)
    process.send_signal(number)
    out, err = process.communicate(timeout=HANG_S)
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out)["complete"]
    assert not here.log_dirty()


# Over SSH


@pytest.fixture
def dom0(xen, tmp_path, monkeypatch):
    """A host that is reached by SSH; this process itself sees no Xen."""
    variables = {"LD_LIBRARY_PATH": str(xen.libraries), "FAKE_XEN": str(xen.folder)}
    variables["PATH"] = os.path.dirname(sys.executable) + ":" + os.environ["PATH"]
    with server(tmp_path / "ssh", variables) as client:
        monkeypatch.setenv("PMLKIT_SSH", client)
        yield xen


def test_over_ssh_comes_the_same_trace(dom0, tmp_path):
    run = Collection("guest", tmp_path / "x.trace", options(dom0, rounds=4), "dom0")
    trace = run.run()
    assert (trace.n_rounds, trace.meta.complete) == (4, True)
    assert trace.meta.options["collected_over"] == "ssh"
    assert len(run.seen) == 4
    check_entries(trace)
    assert not dom0.log_dirty()


def test_over_ssh_an_order_ends_it(dom0, tmp_path):
    with Collection("guest", tmp_path / "x.trace", options(dom0), "dom0") as run:
        for seen in run:
            if seen.round == 1:
                break
    assert run.trace.meta.complete
    assert run.trace.n_rounds >= 2
    assert not dom0.log_dirty()


def test_a_cut_connection_keeps_what_came_and_says_so(dom0, tmp_path):
    run = Collection("guest", tmp_path / "x.trace", options(dom0), "dom0")
    with pytest.raises(CollectError, match="the received part is in .*x.trace"), run:
        for seen in run:
            if seen.round == 2:
                run._agent.process.kill()
    assert run.trace.n_rounds >= 3
    assert not run.trace.meta.complete
    check_entries(run.trace)
    until(lambda: not dom0.log_dirty())  # the agent over there notices, and switches it off


def test_a_host_that_cannot_be_reached(dom0, tmp_path):
    with pytest.raises(CollectError, match="no connection to nowhere.invalid: .*: try `ssh"):
        Collection("guest", tmp_path / "x.trace", options(dom0), "nowhere.invalid").run()
    assert not list(tmp_path.glob("x.trace*"))


@pytest.fixture
def fails(xen, tmp_path, monkeypatch, capfd):
    """A function that collects over SSH, from a host with these variables, and returns the error.

    `spoil` is given the folder of the client's configuration.
    """

    def run(spoil=lambda folder: None, **variables):
        host = {"LD_LIBRARY_PATH": str(xen.libraries), "FAKE_XEN": str(xen.folder)} | variables
        with server(tmp_path / "ssh", host) as client:
            spoil(tmp_path / "ssh")
            monkeypatch.setenv("PMLKIT_SSH", client)
            call = words(xen, tmp_path / "x.trace", "--host", "dom0", "--rounds", "1")
            assert cli.main(call) == 1
        assert not list(tmp_path.glob("x.trace*"))
        (line,) = capfd.readouterr().err.splitlines()
        return line

    return run


def test_a_host_without_python(fails, tmp_path):
    # The folder is empty: a shell's own files could put Python's back on the path.
    message = fails(HOME=str(tmp_path), PATH=str(tmp_path))
    assert "python3: not found: try `ssh dom0 python3 -V`" in message


def test_a_host_without_cffi(fails, tmp_path):
    for name in ("cffi", "_cffi_backend"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('no cffi')\n")
    message = fails(PYTHONPATH=str(tmp_path))
    assert ": cffi is not installed: apt-get install python3-cffi" in message


def test_a_host_with_another_key_than_before(fails):
    def spoil(folder):
        port = re.search(r"Port (\d+)", (folder / "ssh_config").read_text())[1]
        other = (folder / "user_key.pub").read_text()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {other}")

    assert ": no connection to dom0: Host key verification failed.: try `ssh" in fails(spoil)


def test_a_host_that_lets_us_in_by_password_only(fails):
    message = fails(lambda folder: (folder / "user_key.pub").write_text(""))
    assert "no connection to dom0: " in message and "Permission denied" in message


def test_a_spool_that_is_kept_can_be_ingested_again(here, tmp_path):
    kept = Collection("guest", tmp_path / "x.trace", options(here, rounds=2), keep=True).run()
    again = ingest(tmp_path / "x.trace.spool", tmp_path / "y.trace")
    assert again.to_pandas().equals(kept.to_pandas())
