# SPDX-License-Identifier: Apache-2.0
"""Answers: their numbers are those of a brute-force count, and they say what they are of."""

import numpy as np
import pytest
from factories import random_events, write_irregular
from hypothesis import given
from hypothesis import strategies as st

from pmlkit import answers
from pmlkit.errors import ResolutionError
from pmlkit.trace.kinds import Kind
from pmlkit.units import format_bytes

WRITE, READ = Kind.WRITE, Kind.READ
ROUND_NS = 10_000_000


def full_windows(events, size, sliding):
    """Return (last round, bytes) of each full window, by sets."""
    used = [{gfn for gfn, _ in row} for row in events]
    ends = range(size, len(events) + 1, 1 if sliding else size)
    return [(end - 1, 4096 * len(set().union(*used[end - size : end]))) for end in ends]


@given(
    rounds=st.integers(1, 30), size=st.integers(1, 30), sliding=st.booleans(), seed=st.integers(0)
)
def test_the_numbers_are_those_of_numpy_over_the_full_windows(tmp_path_factory, **drawn):
    from factories import make_trace

    from pmlkit.trace.reader import Trace

    rounds, size = drawn["rounds"], min(drawn["size"], drawn["rounds"])
    events = random_events(rounds, 16, drawn["seed"])
    path = make_trace(
        tmp_path_factory.mktemp("a") / "x.trace", events=events, pml=False, phases=[("p", 0)]
    )
    step = "sliding" if drawn["sliding"] else None
    found = answers.working_set(Trace.open(path), size * ROUND_NS, step)
    last, sizes = zip(*full_windows(events, size, drawn["sliding"]), strict=True)
    assert found.mean == pytest.approx(np.mean(sizes))
    assert [found.p50, found.p95, found.p99] == pytest.approx(np.percentile(sizes, [50, 95, 99]))
    assert (found.peak, found.peak_phase) == (max(sizes), "p")
    assert found.peak_ns == (last[int(np.argmax(sizes))] + 1) * ROUND_NS
    assert (found.windows, found.partial) == (len(sizes), len(found.table) - len(sizes))


@pytest.mark.parametrize(
    ("windows", "lies"),
    [(1, ""), (2, "p95 and p99 lie"), (20, "p95 and p99 lie"), (21, "p99 lies"), (100, "p99 lies"),
     (101, "")],
)  # fmt: skip
def test_percentiles_that_two_windows_determine_are_stated(make_trace, windows, lies):
    events = [[(gfn, WRITE) for gfn in range(number + 1)] for number in range(windows)]
    found = answers.working_set(make_trace(events=events), ROUND_NS)
    second = 4096 * max(windows - 1, 1)
    assert (found.p95 > second, found.p99 > second) == ("p95" in lies, bool(lies))
    said = [line for line in found.lines if line.startswith("Percentiles")][0]
    assert said.endswith(f" {lies} between the two largest windows." if lies else ").")


def test_a_window_cut_short_is_left_out_of_every_number(make_trace):
    small, large = [(1, WRITE)], [(gfn, WRITE) for gfn in range(100)]
    trace = make_trace(events=[small, small, small, small, large])
    found = answers.working_set(trace, 2 * ROUND_NS)
    assert (found.mean, found.peak, found.windows, found.partial) == (4096, 4096, 2, 1)
    assert "without 1 cut short" in str(found)


def test_a_window_longer_than_the_recording_is_refused(make_trace):
    with pytest.raises(ResolutionError, match="too long: the measured part of .*: give a shorter"):
        answers.working_set(make_trace(rounds=3), "1h")


def test_the_guests_own_numbers_are_of_the_same_time(make_trace):
    trace = make_trace(rounds=6, guest=True)
    guest = trace.guest
    found = answers.working_set(trace, ROUND_NS, end=3 * ROUND_NS)
    assert found.allocated_bytes == guest["allocated_bytes"][guest["t_ns"] <= 3 * ROUND_NS].max()
    assert found.allocated_bytes < guest["allocated_bytes"].max()
    assert found.memory_bytes == 16 << 20
    assert answers.working_set(make_trace("y.trace"), ROUND_NS).allocated_bytes is None


@pytest.mark.parametrize(
    ("selection", "verb"),
    [
        ({}, "x uses"),
        ({"kinds": "rw"}, "x reads or writes"),
        ({"kinds": "written"}, "x writes"),
        ({"region": "hot"}, "of region hot on average"),
        ({"min_count": 2}, "at least 2 times on average"),
    ],
)
def test_an_answer_says_what_it_counts(make_trace, selection, verb):
    trace = make_trace(regions=[("hot", 0, 8)])
    assert verb in answers.working_set(trace, ROUND_NS, **selection).answer


def test_a_log_of_writes_is_not_the_working_set(make_trace):
    trace = make_trace(kind="pml")
    found = answers.working_set(trace, ROUND_NS)
    assert found.answer.startswith("x writes ")
    assert "reads are missing: this is not the whole working set" in str(found)


def test_without_a_full_window_there_is_no_number(make_trace):
    found = answers.working_set(make_trace(events=[]), "1s")
    assert "has no full window of T" in found.answer
    assert found.as_dict()["mean_bytes"] is None


def test_rounds_without_a_common_length(tmp_path):
    trace = write_irregular(tmp_path / "x.trace", [[(1, READ)]] * 4, [10, 20, 30, 40])
    found = answers.working_set(trace, "2r")
    assert "T = 2r" in found.answer
    assert (found.window_ns, found.windows, found.mean) == (-1, 2, 4096)


def test_a_larger_window_that_is_cut_short_is_named_with_the_peak(make_trace):
    events = [[(1, WRITE)], [(1, WRITE)], [(gfn, WRITE) for gfn in range(9)]]
    found = answers.working_set(make_trace("x.trace", events=events, pml=False), 2 * ROUND_NS)
    assert found.peak == 4096 and found.partial == 1
    assert (
        "The real peak is higher: a window cut short at 0.030 s has 36 KiB in 10 ms." in found.lines
    )
    events[2] = []
    found = answers.working_set(make_trace("y.trace", events=events, pml=False), 2 * ROUND_NS)
    assert not any("cut short at" in line for line in found.lines)


def test_sliding_windows_of_uneven_rounds_state_the_mean_over_time(tmp_path):
    """A busy second of 100 rounds with 100 pages, then nine idle rounds of a second: one page."""
    busy, idle = [[(gfn, WRITE) for gfn in range(100)]] * 100, [[(0, WRITE)]] * 9
    lengths = ([ROUND_NS] * 100 + [100 * ROUND_NS] * 9) * 5
    trace = write_irregular(tmp_path / "x.trace", (busy + idle) * 5, lengths)
    evenly = answers.working_set(trace, "1s", "10ms")
    assert np.isnan(evenly.over_time) and "Evenly over time" not in str(evenly)
    sliding = answers.working_set(trace, "1s", "sliding")
    # 100 pages until a second after the last busy round; the first second has no full window.
    busy_s = 0.99 + 4 * 1.99
    assert sliding.over_time == pytest.approx(4096 * (1 + 99 * busy_s / 49), rel=0.01)
    assert sliding.mean > 4 * sliding.over_time
    assert f"Evenly over time, the mean is {format_bytes(sliding.over_time)}. " in str(sliding)
    assert str(sliding).replace("\n", "").isprintable()


def test_sliding_windows_of_even_rounds_have_one_mean(make_trace):
    found = answers.working_set(make_trace(rounds=20), 5 * ROUND_NS, "sliding")
    assert np.isnan(found.over_time) and "Evenly over time" not in str(found)
