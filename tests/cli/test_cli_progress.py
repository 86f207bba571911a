# SPDX-License-Identifier: Apache-2.0
"""What each long command reports to a log, with a clock that goes ten seconds at each event."""

import numpy as np
import pytest

from pmlkit import cli, interop, progress
from pmlkit.spool import SpoolWriter


class Fast(progress.Log):
    """A log, for which ten seconds go by whenever something is reported."""

    first_s = progress.LOG_EVERY_S

    def __init__(self, stream):
        self.now = 0.0
        super().__init__(stream, lambda: self.now)

    def _start(self):
        """No thread looks: `tick` does."""

    def open(self, task):
        super().open(task)
        task.advance = lambda steps=1: (type(task).advance(task, steps), self.tick())
        self.tick()

    def tick(self):
        self.now += 10.0
        self.refresh()


@pytest.fixture
def run(monkeypatch, capsys):
    """Call a command; returns the lines of its log."""
    monkeypatch.setattr(progress, "Log", Fast)

    def call(*words):
        assert cli.main([str(word) for word in words]) == 0
        return capsys.readouterr().err.splitlines()

    return call


@pytest.fixture
def trace(make_trace):
    """A second of a guest that has allocated memory."""
    return make_trace(rounds=100, pages=50, guest=True).path


# The command, and what has to be in its log: what it does, and the steps that it counts.
LOGS = [
    ("wss {trace}", "counting pages: reading", "%"),
    ("mrc {trace}", "computing the LRU stack: reading", "%"),
    ("period {trace}", "reading", "%"),
    ("info {trace}", "checking every file: reading", "%"),
    ("plot {trace} wss -o {out}", "drawing: reading", "%"),
    ("plot {trace} heat --terminal", "drawing: reading", "%"),
    ("export {trace} csv -o {out}", "writing: reading", "%"),
    ("import csv {csv} -o {out}", "reading: rows", "0:"),
    ("simulate {trace} -o {out}", "simulating: reading", "%"),
    ("compare {trace} --window 50ms --techniques pml,vmware", "comparing: x: vmware", "1 of 1"),
    ("compare {trace} {other} --window 50ms --techniques pml", "comparing: other", "of 2"),
    ("frontier {trace} --window 50ms --techniques pml", "sweeping: x", "of 1"),
    ("advise {trace} --window 100ms --budget 100%", "predicting: vmware", "of "),
    ("doctor demo", "examining this machine: demo", "of 1"),
]


@pytest.mark.parametrize("words, what, count", LOGS, ids=[row[0].split()[0] for row in LOGS])
def test_a_long_command_says_what_it_does_and_how_much_is_left(
    run, trace, make_trace, tmp_path, words, what, count
):
    given = {"trace": trace, "out": tmp_path / "made.trace", "csv": tmp_path / "x.csv"}
    if "{other}" in words:
        given["other"] = make_trace("other.trace", rounds=100, pages=50, guest=True).path
    if "{csv}" in words:
        interop.export(trace, "csv", given["csv"])
    if " csv -o" in words:
        given["out"] = tmp_path / "out.csv" if words.startswith("export") else given["out"]
    lines = run(*(word.format(**given) for word in words.split()))
    assert any(what in line for line in lines), lines
    assert any(count in line for line in lines), lines
    assert any("left" in line for line in lines) or "of 1" in count or "0:" in count, lines


def test_json_comes_without_progress(run, trace):
    assert run("wss", trace, "--json") == []


def test_a_spool_is_read_with_the_time_left(tmp_path, monkeypatch):
    from pmlkit.spool_reader import read_spool

    shares = []
    path = tmp_path / "frames.spool"
    with SpoolWriter(path, {"memory_bytes": 4096}) as writer:
        for _ in range(50):
            writer.append(1, np.zeros(1000, "<u4").tobytes())
    with progress.shown() as reporter, read_spool(path) as spool:
        for _ in spool:
            shares.append(reporter.share())
    assert len(shares) == 50 and shares == sorted(shares) and shares[-1] > 0.99
    assert not reporter.tasks
