# SPDX-License-Identifier: Apache-2.0
"""Disturbed collections of a KVM guest: what is lost is said, and nothing is left behind."""

import json
from pathlib import Path

import pytest
from lab_case import data, frames, needs_lab, own, rounds

from pmlkit.kvm.frames import Frame
from pmlkit.sources.lab import guests
from pmlkit.sources.lab.kvm import ingest, session, steps
from pmlkit.spool_reader import read_spool

pytestmark = [needs_lab, pytest.mark.timeout(1800)]
JOB = Path(__file__).with_name("kvm_bad_input.py")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What the host wrote: one boot, in which one guest is collected again and again."""
    folder = tmp_path_factory.mktemp("bad")
    script = steps.script({JOB.name: JOB.read_text()}, JOB.name)
    session.collect(guests.load("known"), folder, session.KvmLabOptions(script=script))
    assert (folder / "status").read_text().strip() == "0", (folder / "said.txt").read_text()
    return folder


@pytest.fixture(scope="module")
def facts(out):
    lines = map(json.loads, (out / "facts.jsonl").read_text().splitlines())
    return {line["case"]: line for line in lines}


@pytest.fixture
def trace(out, tmp_path):
    def convert(name):
        folder = tmp_path / f"{name}.spool"
        folder.mkdir()
        (folder / "frames.spool").write_bytes((out / f"{name}.spool").read_bytes())
        (folder / "report.txt").touch()
        return ingest.ingest(folder, tmp_path / f"{name}.trace")

    return convert


def assert_known(trace, numbers):
    """All that the guest writes is in each of these rounds, and nothing else."""
    written = frames(trace, "hot") | frames(trace, "cold")
    logged = dict(iter(rounds(trace)))
    for number in numbers:
        assert set(data(logged[number]).gfn) == written, number
        assert own(logged[number])


def left(facts):
    return facts["after"]["instances"] + facts["after"]["probes"]


def test_what_another_traces_stays_as_it_was(facts):
    of = facts["beside"]
    assert of["status"] == [0]
    assert of["after"] == of["before"]
    assert of["after"]["enabled"] == "1" and "other" in of["after"]["instances"]


def spans(spool):
    """Return the first and the last ns of each round, by the host's clock."""
    with read_spool(spool) as frames_:
        rounds_ = [json.loads(payload) for kind, payload in frames_ if kind == Frame.ROUND]
    return [(one["start_ns"], one["end_ns"]) for one in rounds_]


def test_a_paused_vm_and_one_whose_memory_grows_are_logged_on(facts, trace, out):
    beside = trace("beside")
    assert [len(entries) for _, entries in rounds(beside)] == facts["beside"]["taken"]
    assert_known(beside, range(4))
    assert beside.meta.complete and not beside.meta.lost
    assert any("memory was added: slot 1, 16384 KiB" in note for note in beside.meta.notes)
    first, last = facts["beside"]["paused"]
    held = [start < first and last < end for start, end in spans(out / "beside.spool")]
    assert held == [False, True, False, False]


def test_two_collectors_at_once_have_the_same(facts, trace):
    first, second = (trace(name).to_pandas() for name in ("first", "second"))
    assert first["gfn"].tolist() == second["gfn"].tolist()
    assert first.groupby("round").size().tolist() == facts["two"]["taken"]
    assert facts["two"]["status"] == [0, 0] and not left(facts["two"])


def test_what_a_stopped_collector_misses_is_said(facts, trace):
    stopped = trace("stopped")
    lost = stopped.rounds["lost"].sum()
    assert lost > 0 and lost == stopped.meta.lost
    assert stopped.meta.entries + lost == sum(facts["stopped"]["taken"])
    assert_known(stopped, [0, 5])
    assert facts["stopped"]["status"] == [0] and not left(facts["stopped"])


def test_a_killed_collector_leaves_no_tracing_on(facts, trace):
    of = facts["killed"]
    assert len(of["during"]["instances"]) == 3 and len(of["during"]["probes"]) == 3
    assert not left(of)
    killed = trace("killed")
    assert_known(killed, [0])
    assert not killed.meta.complete


def test_a_vm_that_ends_in_a_round_ends_the_collection(facts, trace):
    ended = trace("ends")
    assert facts["ends"]["status"] == [0] and not left(facts["ends"])
    assert ended.n_rounds == 2 and ended.meta.complete
    assert_known(ended, [0, 1])
    assert "the last round was not closed: the VM ended in it" in ended.meta.notes
