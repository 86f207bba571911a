# SPDX-License-Identifier: Apache-2.0
"""The yardstick: the truth, errors, steps, intervals, costs."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import synthetic_vm as vm
from factories import random_events, write_irregular
from hypothesis import given
from hypothesis import strategies as st

import pmlkit
from pmlkit import costs, techniques, workingset
from pmlkit.errors import ClocksDiffer, NeedsError
from pmlkit.techniques import Recorded, scores
from pmlkit.techniques.runs import time_scale
from pmlkit.techniques.setting import Clock
from pmlkit.trace.kinds import Kind

W = vm.WINDOW_NS


def estimates(*rows):
    return pd.DataFrame(rows, columns=["t_ns", "pages"]).astype({"pages": float})


def test_the_truth_is_the_working_set_that_pmlkit_measures():
    trace = pmlkit.open(pmlkit.bundled("hotcold"))
    recorded = Recorded.of(trace)
    truth = scores.truth(recorded, 1_000_000_000)
    expected = workingset.estimate(trace, "1s", step="sliding")
    assert np.array_equal(truth.pages, expected["pages"])
    assert np.array_equal(truth.t_ns, expected["t_ns"])
    assert [(step.up, round(step.before, -2)) for step in truth.steps] == [(False, 2200)]


LENGTHS = st.lists(st.integers(0, 30) | st.integers(100, 300), min_size=2, max_size=20)


@given(LENGTHS.filter(any), st.data())
def test_the_truth_of_irregular_rounds_is_of_time(tmp_path_factory, lengths, data):
    """Held against sets by hand: W(t, T) has the pages of the rounds that end in (t - T, t]."""
    events = random_events(len(lengths), pages=6, seed=sum(lengths))
    events = [[] if length >= 100 else row for length, row in zip(lengths, events, strict=True)]
    trace = write_irregular(tmp_path_factory.mktemp("truth") / "x.trace", events, lengths)
    ends, window_ns = np.cumsum(lengths), data.draw(st.integers(1, sum(lengths)))
    truth = scores.truth(Recorded.of(trace), window_ns)
    assert truth.t_ns.tolist() == sorted(set(ends.tolist()))
    for now, pages in zip(truth.t_ns, truth.pages, strict=True):
        inside = [
            row for row, end in zip(events, ends, strict=True) if now - window_ns < end <= now
        ]
        assert pages == len({gfn for row in inside for gfn, _ in row})


def gap(make):
    """100 ms in rounds of 10 ms, in which page 1 is used all along; nothing for 5 s; as before."""
    lengths = np.array([10] * 10 + [5000] + [10] * 10) * 1_000_000
    events = [[(1, Kind.WRITE), (2 + r, Kind.READ)] for r in range(10)]
    return make(events=[*events, [], *events], lengths_ns=lengths)


def test_techniques_look_in_a_gap_too_and_see_nothing(tmp_path):
    """All references of each 50 ms, drained every 50 ms, are W(t, 50 ms) at those times."""
    trace = gap(lambda **how: write_irregular(tmp_path / "gap.trace", **how))
    table = techniques.run("prl", Recorded.of(trace), window="50ms").estimates
    assert table["t_ns"].tolist() == [50_000_000 * i for i in range(1, 105)]
    assert table["pages"].tolist() == [6, 6] + [0] * 100 + [6, 6]


def test_a_gap_too_long_to_look_through_is_named(tmp_path):
    lengths = np.array([10, 10, 10**8, 10]) * 1_000_000
    events = [[(1, Kind.WRITE)], [(2, Kind.WRITE)], [], [(1, Kind.WRITE)]]
    trace = write_irregular(tmp_path / "long.trace", events, lengths)
    with pytest.raises(NeedsError, match="no gaps short enough for a look every 10 ms"):
        techniques.run("prl", Recorded.of(trace), window="10ms")


def test_rounds_that_end_at_one_instant_are_seen_together():
    clock = Clock(np.array([0, 10, 10, 10, 20]))
    assert (clock.wait(10), clock.rounds()) == (10, 3)
    assert (clock.wait(11), clock.rounds()) == (20, 4)
    assert (clock.wait(21), clock.rounds()) == (None, 4)


def test_a_recording_has_the_traces_first_uses(make_trace):
    trace = make_trace(rounds=8)
    recorded = Recorded.of(trace)
    table = trace.to_pandas(["round", "gfn", "kind"])
    for r in range(8):
        part = table[table["round"] == r]
        assert recorded.accesses.between(r, r + 1).tolist() == list(dict.fromkeys(part["gfn"]))
        written = part.loc[part["kind"] == 2, "gfn"].tolist()
        assert recorded.writes.between(r, r + 1).tolist() == written
        assert recorded.log.between(r, r + 1).tolist() == written


def test_a_pml_log_has_no_truth(make_trace):
    with pytest.raises(NeedsError, match="record of all accesses"):
        Recorded.of(make_trace(kind="pml"))


def test_errors_are_those_of_the_latest_estimate():
    truth = scores.truth(vm.constant(500, rounds=100), W)
    accuracy = scores.accuracy(estimates((0, 400), (500_000_000, 750)), truth)
    # 10 to 49 rounds: 20 % too little; 50 rounds and later (51 of them): 50 % too much.
    assert accuracy["bias"] == pytest.approx((-0.2 * 40 + 0.5 * 51) / 91)
    assert accuracy["mape"] == pytest.approx((0.2 * 40 + 0.5 * 51) / 91)
    assert accuracy["mae"] == pytest.approx(accuracy["mape"])  # W is the same all the time
    assert accuracy["p95"] == pytest.approx(0.5)
    assert accuracy["says"] == 1


def test_a_comparison_weighs_by_the_length_of_its_round(tmp_path):
    """A page is used in 100 ms of short rounds, two in a round of 300 ms, none in a gap of 500."""
    lengths = np.array([10] * 10 + [300, 500, 10]) * 1_000_000
    events = [[(1, Kind.WRITE)]] * 10 + [[(1, Kind.WRITE), (2, Kind.WRITE)], [], [(1, Kind.WRITE)]]
    trace = write_irregular(tmp_path / "x.trace", events, lengths)
    truth = scores.truth(Recorded.of(trace), 50_000_000)
    # W is 1 at the ends of six short rounds from 50 ms on, 2 after 300 ms, 0 after 500, then 1.
    accuracy = scores.accuracy(estimates((0, 1)), truth)
    mean = (60 + 2 * 300 + 10) / 870
    assert accuracy["mae"] == pytest.approx((300 + 500) / 870 / mean)
    assert accuracy["bias"] == pytest.approx((500 - 300) / 870 / mean)
    assert accuracy["mape"] == pytest.approx(0.5 * 300 / 370)
    assert accuracy["p95"] == 0.5
    late = scores.accuracy(estimates((0, np.nan), (600_000_000, 0)), truth)
    assert late["says"] == pytest.approx(510 / 870)


def test_where_nothing_is_said_there_is_no_error():
    truth = scores.truth(vm.constant(500, rounds=100), W)
    accuracy = scores.accuracy(estimates((750_000_000, 500)), truth)
    assert (accuracy["mape"], accuracy["says"]) == (0, pytest.approx(26 / 91))
    silent = scores.accuracy(estimates((0, np.nan)), truth)
    assert np.isnan(silent["mape"]) and silent["says"] == 0


def test_moments_at_which_nothing_is_used_count_where_the_mean_is_the_measure():
    pages = np.array([0, 0, 100, 100])
    truth = scores.Truth(np.arange(1, 5), pages, window_ns=1, steps=[])
    accuracy = scores.accuracy(estimates((0, 100)), truth)
    assert (accuracy["bias"], accuracy["mae"], accuracy["mape"], accuracy["says"]) == (1, 1, 0, 1)
    idle = scores.accuracy(estimates((0, 100)), scores.Truth(truth.t_ns, pages * 0, 1, []))
    assert np.isnan(idle["mae"]) and idle["says"] == 1


@pytest.mark.parametrize("made, up", [(vm.step, True), (vm.step_down, False)])
def test_steps_are_found_and_the_windows_until_they_are_followed(made, up):
    truth = scores.truth(made(), W)
    (step,) = truth.steps
    assert (step.up, step.t_ns, {step.before, step.after}) == (up, 2 * 10**9, {300.0, 900.0})
    late = estimates((0, step.before), (2_250_000_000, step.after * 1.09))
    assert scores.reactivity(late, truth)["windows"].tolist() == [2.5]
    never = estimates((0, step.before), (2_250_000_000, step.after * 1.2))
    assert scores.reactivity(never, truth)["windows"].isna().all()


def test_a_constant_working_set_has_no_step():
    recorded = vm.constant(500, rounds=100, phases=(("a", 0), ("b", 50)))
    assert scores.truth(recorded, W).steps == []


def test_a_median_has_the_interval_of_all_its_resamples():
    """Of few values all resamples can be counted."""
    values = [3.0, 8.0, 1.0, 6.0, 20.0]
    every = [np.median(drawn) for drawn in itertools.product(values, repeat=5)]
    low, high = np.quantile(every, [0.025, 0.975])
    assert scores.resampled([*values, np.nan]) == (6.0, low, high)


def test_a_median_of_one_has_no_interval_and_of_equals_no_width():
    assert scores.resampled([4.0])[0] == 4 and np.isnan(scores.resampled([4.0])[1:]).all()
    assert np.isnan(scores.resampled([np.nan, np.nan])).all()
    assert scores.resampled([7.0] * 3) == (7, 7, 7)


def test_intervals_are_students():
    mean, half = scores.interval([1.0, 2.0, 3.0, np.nan])
    assert (mean, half) == (2, pytest.approx(4.3027 / np.sqrt(3), rel=1e-4))
    assert scores.interval([5.0]) == (5, pytest.approx(np.nan, nan_ok=True))
    # 31 seeds have 30 degrees of freedom: 2.042 (any table), and their deviation is sqrt(31 / 30).
    assert scores.interval([-1.0, 1.0] * 15 + [0.0])[1] == pytest.approx(2.0423 / 31**0.5, rel=1e-4)
    assert all(np.isnan(scores.interval([np.nan])))


def test_intervals_hold_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = [
        abs(mean) <= half
        for mean, half in (scores.interval(rng.normal(size=5)) for _ in range(2000))
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_overhead_is_instructions_over_instructions():
    """A known answer: 10 rounds of 500 pages, in 1 s of a machine that takes 8 ns for each."""
    recorded = vm.constant(500, rounds=100)
    run = techniques.run("pml", recorded, window=W)
    assert run.events == {"log_entries": 5000, "rounds": 10}
    insn = 5000 * 39.2 + 10 * 46_889
    assert run.cost.insn == insn == 664_890
    assert run.overhead == pytest.approx(insn / 125e6, rel=1e-12)
    assert f"{run.overhead:.7%}" == "0.5319120%"


@pytest.mark.parametrize("ns_per_insn", [1 / 3, 1.0, 10.0])
def test_a_slower_machine_pays_the_same_instructions(ns_per_insn):
    """The same instructions in as many instructions: the share is the same, whatever the clock."""
    fast = vm.constant(500, rounds=100)
    slow = replace(
        fast,
        t_ns=(fast.t_ns * ns_per_insn * 3).astype(np.int64),
        resolution_ns=round(fast.resolution_ns * ns_per_insn * 3),
        time=costs.Clock("another emulator", 8 * ns_per_insn * 3),
    )
    runs = [
        techniques.run("pml", recorded, window=round(W * factor))
        for recorded, factor in ((fast, 1), (slow, ns_per_insn * 3))
    ]
    assert runs[0].cost == runs[1].cost
    assert runs[0].overhead == pytest.approx(runs[1].overhead)


def test_a_hosts_time_is_no_divisor_of_instructions():
    recorded = replace(vm.constant(500, rounds=100), time=costs.Clock("the host web1"))
    run = techniques.run("pml", recorded, window=W)
    with pytest.raises(ClocksDiffer, match="instructions .* the host web1: give `ns_per_insn`"):
        run.overhead  # noqa: B018
    told = replace(recorded, time=recorded.time.given(0.5))
    assert techniques.run("pml", told, window=W).overhead == pytest.approx(664_890 / 2e9)


def test_log_full_exits_are_those_of_a_buffer_of_512():
    run = techniques.run("pml", vm.constant(1100, rounds=20), window=W)
    assert run.events["pml_exits"] == 2 * 2  # 1100 entries: two full buffers a round


def test_the_time_scale_makes_vmwares_period_the_window():
    assert time_scale("auto", 30_000_000_000) == 1
    assert time_scale("auto", 1_000_000_000) == pytest.approx(1 / 30)
    assert time_scale(0.5, 1) == 0.5
    assert techniques.run("vmware", vm.constant(), window=W).notes == ["30s became 100 ms"]
