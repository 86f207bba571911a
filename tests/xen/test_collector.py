# SPDX-License-Identifier: Apache-2.0
"""The pace of a collection by the clock, on a clock of the test's own."""

from types import SimpleNamespace

import pytest

from pmlkit.xen import collector
from pmlkit.xen.collector import Period


class Clock:
    """Seconds that pass only while something waits or works."""

    def __init__(self):
        self.now_s = 100.0

    def monotonic(self):
        return self.now_s

    def work(self, seconds):
        self.now_s += seconds


@pytest.fixture
def ends(monkeypatch):
    """A function that gives the ends of rounds of 1 s, whose closing takes so long each."""
    clock = Clock()
    monkeypatch.setattr(collector, "time", SimpleNamespace(monotonic=clock.monotonic))
    stop = SimpleNamespace(wait=clock.work)
    stop_is_never = type("Never", (SimpleNamespace,), {"__bool__": lambda self: False})
    run = SimpleNamespace(stop=stop_is_never(**vars(stop)))
    source = SimpleNamespace(drain=lambda writer: 0.0)

    def make(*closing_s):
        period, ends_s = Period(1.0), []
        for seconds in closing_s:
            period.round(run, source, None)
            ends_s.append(round(clock.now_s - 100, 6))
            clock.work(seconds)
        return ends_s

    return make


def test_the_time_that_closing_takes_does_not_add_up(ends):
    assert ends(0.25, 0.25, 0.25, 0.25) == [1, 2, 3, 4]


def test_a_round_that_begins_late_is_shorter(ends):
    assert ends(0.75, 0, 0) == [1, 2, 3]


def test_after_a_stall_of_more_than_a_period_the_calendar_begins_anew(ends):
    assert ends(2.5, 0, 0) == [1, 4.5, 5.5]
