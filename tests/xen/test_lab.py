# SPDX-License-Identifier: Apache-2.0
"""Rounds in step with what a guest of the lab says."""

from types import SimpleNamespace

from pmlkit.xen.frames import Frame
from pmlkit.xen.lab import LabPeriod


class Writer:
    """Keeps what it is given."""

    def __init__(self):
        self.kept = []

    def append(self, frame, *payload):
        self.kept.append(frame)


def test_a_mark_that_comes_while_a_round_is_closed_ends_the_next_one(tmp_path):
    console, writer = tmp_path / "console", Writer()
    job = SimpleNamespace(period_s=60.0, console=console, phase_rounds=True, stop_at="")
    pace, source = LabPeriod(job), SimpleNamespace(now_ns=lambda: 0)
    collector = SimpleNamespace(stop=None)
    console.write_text("phase read\n")
    assert pace.meanwhile(collector, source, writer)
    assert not pace.meanwhile(collector, source, writer)
    console.write_text("phase read\nphase write\n")
    pace.closed(collector, source, writer)
    assert pace.meanwhile(collector, source, writer), "the round goes on into the next phase"
    assert not pace.meanwhile(collector, source, writer)
    assert writer.kept == [Frame.CONSOLE, Frame.CONSOLE]
