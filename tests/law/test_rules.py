# SPDX-License-Identifier: Apache-2.0
"""Techniques whose report a rule makes of the curves: known answers, and runs on made-up VMs."""

import numpy as np
import pytest
import synthetic_vm as vm
from test_law import errors, make, wandering

from pmlkit import law, techniques
from pmlkit.law.regions import _counts, _covered, _merged
from pmlkit.law.rules import Queues
from pmlkit.techniques import scores

T = vm.WINDOW_NS
MANY = 20


def growing(rounds=300):
    """A VM that uses pages anew until it has all of them, and comes back to old ones at times."""
    draw = np.random.default_rng(2)
    return vm.make([vm.block(100 + min(n, 150), 64 * int(draw.integers(8))) for n in range(rounds)])


def spread(share, rounds=200, seed=3):
    """A VM that uses each page of its memory with a probability, in each round anew."""
    draw = np.random.default_rng(seed)
    return vm.make([np.flatnonzero(draw.random(vm.PAGES) < share) for _ in range(rounds)])


# ------------------------------------------------------------------------------
# Curves that only rules need.


def test_uses_hold_the_pages_of_the_window():
    curves = law.Curves(wandering())
    enter, until = curves.stays("accesses", T)
    held = [np.count_nonzero((enter <= t) & (until > t)) for t in range(len(curves.t_ns))]
    assert held == curves.pages("accesses", T).tolist()


def test_pages_are_alive_for_the_time_of_their_channel():
    recorded = wandering(rounds=80)
    found = law.Curves(recorded).alive({"writes": 7 * vm.ROUND_NS, "accesses": 3 * vm.ROUND_NS})
    for end in range(1, recorded.n_rounds + 1):
        written = set(recorded.writes.between(max(end - 7, 0), end).tolist())
        used = set(recorded.accesses.between(max(end - 3, 0), end).tolist())
        assert found[end - 1] == len(written | used)


def test_the_mean_footprint_is_the_mean_working_set():
    curves = law.Curves(vm.constant(500, rounds=60))
    assert curves.footprint("accesses", T)[20:] == pytest.approx(500)
    curves = law.Curves(wandering())
    late = curves.scored(2 * T)
    mean = curves.pages("accesses", T)[late].mean()
    assert curves.footprint("accesses", T)[late].mean() == pytest.approx(mean, rel=0.02)


# ------------------------------------------------------------------------------
# Rules that draw nothing: with looks from the start on, they are the run.


@pytest.mark.parametrize("name, knobs", [
    ("pml-threshold", {"looks": 1}),
    ("pml-threshold", {"looks": 5, "m": 2}),
    ("pml-threshold", {"looks": 10, "m": 3}),
    ("pml-plateau", {"looks": 5}),
    ("prl-plateau", {"looks": 2, "stable": 2}),
    ("far-memory", {}),
    ("far-memory", {"promotions": 0.2, "scan": "60s", "percentile": 50}),
    ("hint-faults", {"looks": 1}),
    ("hint-faults", {"looks": 2, "watched": 300}),
    ("hint-faults", {"looks": 10, "watched": 100}),
])  # fmt: skip
@pytest.mark.parametrize("recorded", [wandering(), growing()], ids=["wandering", "growing"])
def test_with_looks_from_the_start_on_the_law_is_the_run(name, knobs, recorded):
    technique = make(name, **knobs)
    found = law.predict(technique, law.Curves(recorded), T)
    assert errors(technique, recorded)[0] == pytest.approx(found.from_start, rel=1e-9, nan_ok=True)


def test_these_runs_have_reports():
    for name in ("pml-plateau", "prl-plateau", "far-memory"):
        assert np.isfinite(errors(make(name), growing())[0])


def test_a_threshold_that_no_page_reaches_errs_by_all_of_w():
    found = law.predict(make("pml-threshold", looks=1, m=2), law.Curves(wandering()), T)
    assert (found.error, found.blindness.missed) == (pytest.approx(1), pytest.approx(1))


def test_a_plateau_never_forgets():
    recorded = vm.make([vm.block(300)] * 100 + [vm.block(100, 2000)] * 200)
    found = law.predict("prl-plateau", law.Curves(recorded), T)
    assert found.error == pytest.approx(errors(make("prl-plateau"), recorded)[0], rel=0.05)
    assert found.blindness.extra > 1


def test_a_scanner_of_all_memory_is_one_look_per_t():
    curves = law.Curves(wandering())
    scanner, once = (law.predict(make(name, looks=1), curves, T) for name in ("hint-faults", "prl"))
    assert scanner.error == pytest.approx(once.error, rel=0.01)
    assert scanner.sampling == 0


def test_a_scanner_that_has_covered_a_part_samples_it():
    half = vm.make([vm.block(vm.PAGES // 2, 0)] * 300)
    found = law.predict(make("hint-faults", looks=1, watched=32), law.Curves(half), T)
    # A stretch of 32 to 30 * 32 pages, of 4,096, lies in the used half, outside of it, or on both.
    assert found.staleness == pytest.approx(found.error)
    assert 0.8 < found.error < 1.1


def test_a_scanner_whose_first_look_comes_after_the_end_reports_nothing():
    recorded = vm.make([vm.block(64, 0)] * 12)
    found = law.predict(make("hint-faults", looks=4), law.Curves(recorded), 11 * vm.ROUND_NS)
    assert found.looks * found.period_ns == recorded.duration_ns
    short = vm.make([vm.block(64, 0)] * 11)
    found = law.predict(make("hint-faults", looks=4), law.Curves(short), 11 * vm.ROUND_NS)
    assert np.isnan([found.error, found.low, found.high]).all()


# ------------------------------------------------------------------------------
# vTMM's queues.


def test_how_long_a_page_stays_in_vtmm_s_queues():
    """By hand: from queue 3 at scan 0 of 8, a page read only is out at scan 4; 1: 8; 2: 8; 3: 8."""
    rule = Queues(make("vtmm"))
    assert rule.kept(written=False) == (4 + 7 + 6 + 5) / 4
    # Its heat of 6 is above 0.5 for one more look, in queue 0: at the next multiple of 8.
    assert rule.kept(written=True) == (8 + 15 + 14 + 13 + 12 + 11 + 10 + 9) / 8


@pytest.mark.parametrize("looks", [2, 5, 10])
@pytest.mark.parametrize("reads", [False, True])
def test_vtmm_counts_pages_that_are_used_no_more(looks, reads):
    rounds = 2000  # the queues are empty at first, and fill late
    written = [np.zeros(0, np.int64)] * rounds if reads else None
    recorded, technique = vm.step_down(rounds=rounds, written=written), make("vtmm", looks=looks)
    found = law.predict(technique, law.Curves(recorded), T)
    assert found.error == pytest.approx(errors(technique, recorded)[0], abs=0.02)


# ------------------------------------------------------------------------------
# Sampled re-use times, with rests.


def test_a_sample_that_rests_errs_by_its_draw_if_nothing_changes():
    recorded, technique = vm.constant(500), make("intermittent", watched=200)
    found = law.predict(technique, law.Curves(recorded), T)
    measured = errors(technique, recorded, range(MANY))
    assert found.staleness == pytest.approx(0, abs=1e-9)
    assert abs(measured.mean() - found.error) < 4 * measured.std() / np.sqrt(MANY)


def test_a_rest_makes_the_estimate_older():
    recorded = wandering(rounds=420)
    curves = law.Curves(recorded)
    awake, resting = (
        law.predict(make("intermittent", watched=2000, rest=rest), curves, T) for rest in (1, 8)
    )
    assert resting.staleness > awake.staleness
    assert resting.events["faults"] < awake.events["faults"]
    for found in (awake, resting):
        measured = errors(found.technique, recorded, range(MANY))
        assert found.from_start == pytest.approx(measured.mean(), rel=0.35)


# ------------------------------------------------------------------------------
# Regions.


def test_the_count_of_a_region_is_the_sum_of_unlike_draws():
    counts = _counts(np.array([[0.5, 0.0, 1.0], [0.2, 0.0, 1.0]]))
    expected = [[0.4, 1, 0], [0.5, 0, 0], [0.1, 0, 1]]
    assert np.allclose(counts, expected)


def test_edges_are_kept_where_neighbours_differ_and_where_a_region_would_be_too_large():
    edges = np.arange(0, 11) * 10
    assert _merged(edges, np.zeros(9), 1).tolist() == [0, 100]
    assert _merged(edges, np.zeros(9), 2).tolist() == [0, 50, 100]
    assert _merged(edges, np.ones(9), 1).tolist() == edges.tolist()
    apart = np.array([0, 0, 1, 0, 0, 0, 0, 0, 0])
    assert _merged(edges, apart, 1).tolist() == [0, 30, 100]


def test_entries_lie_within_their_region():
    used = np.zeros(2048, bool)
    used[600] = True  # in the second entry of 512 pages
    first, stop = np.array([0, 500, 700]), np.array([500, 1030, 2048])
    assert _covered(used, (9, 0), first, stop).tolist() == [0, 512, 0]
    assert _covered(used, (0,), first, stop).tolist() == [0, 1, 0]


@pytest.mark.parametrize("looks", [1, 2, 5])
def test_a_region_counts_if_one_of_its_looks_hits(looks):
    share = 0.02
    recorded, technique = spread(share), make("damon", looks=looks)
    found = law.predict(technique, law.Curves(recorded), T)
    hit = 1 - (1 - share) ** (vm.PER_WINDOW // looks)  # a page in use between two looks
    true = vm.PAGES * (1 - (1 - share) ** vm.PER_WINDOW)
    reported = vm.PAGES * (1 - (1 - hit) ** looks)
    assert found.blindness.bias == pytest.approx(reported / true - 1, abs=0.01)
    measured = errors(technique, recorded, range(MANY))
    assert found.error == pytest.approx(measured.mean(), rel=0.15)


@pytest.mark.parametrize("name, looks", [("damon", 2), ("damon", 10), ("telescope", 4)])
def test_regions_that_follow_the_pattern_err_about_as_predicted(name, looks):
    recorded, technique = vm.step(rounds=600), make(name, looks=looks, watched=200)
    found = law.predict(technique, law.Curves(recorded), T)
    measured = errors(technique, recorded, range(MANY))
    assert 0.6 < found.error / measured.mean() < 1.6


def test_telescope_sees_one_page_of_2_mib_as_all_of_them():
    pages = np.arange(0, vm.PAGES, 512)
    recorded = vm.make([pages] * 100)
    found = law.predict(make("telescope", looks=1, fewest=4, watched=4), law.Curves(recorded), T)
    assert found.error == pytest.approx(vm.PAGES / len(pages) - 1)
    assert found.sampling == pytest.approx(0, abs=1e-9)


# ------------------------------------------------------------------------------
# Costs, and all of them.


@pytest.mark.parametrize("name, within", [
    ("pml-threshold", 0.05), ("pml-plateau", 0.05), ("prl-plateau", 0.05), ("far-memory", 0.05),
    ("vtmm", 0.15), ("intermittent", 0.3), ("hint-faults", 0.1), ("damon", 0.4),
    ("telescope", 0.4),
])  # fmt: skip
def test_the_cost_is_about_that_of_the_run(name, within):
    recorded, technique = vm.step(rounds=420), make(name)
    found = law.predict(technique, law.Curves(recorded), T)
    seeds = range(5 if technique.random else 1)
    runs = [techniques.run(technique, recorded, T, seed=seed).overhead for seed in seeds]
    assert found.overhead == pytest.approx(np.mean(runs), rel=within)


@pytest.mark.parametrize("name", sorted(law.RULED))
def test_the_interval_contains_the_prediction(name):
    found = law.predict(name, law.Curves(growing()), T)
    assert found.low <= found.error * 1.05 and found.error <= found.high * 1.05
    assert scores.truth(growing(), T).pages.any()
