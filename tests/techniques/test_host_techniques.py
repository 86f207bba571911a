# SPDX-License-Identifier: Apache-2.0
"""Known answers of what a host's kernel has: MGLRU, hint faults, PSI, samplers, upper levels."""

import numpy as np
import pytest
import synthetic_vm as vm

from pmlkit import techniques
from pmlkit.techniques import Need
from pmlkit.techniques.access_sampler import UnseenSampler
from pmlkit.techniques.cold_age import Ages
from pmlkit.techniques.senpai import Senpai
from pmlkit.techniques.view import look

WINDOW = vm.WINDOW_NS


def run(name, recorded, seed=0, **parameters):
    return techniques.run(techniques.make(name, **parameters), recorded, WINDOW, seed=seed)


def said(name, recorded, seed=0, **parameters):
    return run(name, recorded, seed, **parameters).estimates["pages"].to_numpy()


def scattered(rounds=60, seed=0):
    """A VM that uses other frames in each round, in memory of many regions."""
    rng = np.random.default_rng(seed)
    return vm.make([rng.choice(vm.PAGES, 50, replace=False) for _ in range(rounds)])


# Upper levels


def test_a_pruned_scan_finds_what_a_scan_finds():
    views = [look(scattered(), {Need.ACCESSED}, WINDOW) for _ in range(2)]
    for _ in zip(*(view.every(3 * vm.ROUND_NS) for view in views), strict=True):
        found, scanned = views[0].accessed.pruned(), views[1].accessed.scan()
        assert found.tolist() == scanned.tolist() and len(found) > 100


def test_a_pruned_scan_costs_the_regions_in_use():
    """500 pages in the third of eight regions of 2 MiB, and one page in the last."""
    sets = [np.append(vm.block(500), vm.PAGES - 1)] * 20
    view = look(vm.make(sets), {Need.ACCESSED}, WINDOW)
    next(iter(view.every(WINDOW)))
    assert len(view.accessed.pruned()) == 501
    assert len(view.accessed.pruned()) == 0
    # The second look finds the one entry of 1 GiB unused, and reads no more.
    events = {"pruned_looks": 2, "regions_read": 8, "pruned_flags": 1024, "pruned_set": 501}
    assert view.result()[1] == events


@pytest.mark.parametrize("bits", [0, 3, 9])
def test_an_upper_flag_says_whether_anything_below_was_used(bits):
    recorded, before = scattered(), 0
    view = look(recorded, {Need.ACCESSED}, WINDOW)
    entries = np.arange(vm.PAGES >> bits)
    for now in view.every(2 * vm.ROUND_NS):
        stop = now // vm.ROUND_NS
        used = np.unique(recorded.accesses.between(before, stop) >> bits)
        assert np.flatnonzero(view.accessed.upper(bits, entries)).tolist() == used.tolist()
        before = stop


def test_telescope_sees_a_page_in_a_large_region_that_damon_mostly_misses():
    """One page of 4096, always in use: the entry above it says so at each look."""
    recorded = vm.make([[777]] * 100)
    found = [
        np.mean([(said(name, recorded, seed, fewest=1, watched=2) > 0).mean() for seed in range(5)])
        for name in ("telescope", "damon")
    ]
    assert found[0] > 0.4 > 0.1 > found[1]


def test_telescope_finds_a_hot_block_within_its_regions():
    """2 MiB, aligned: an entry of its own, so that no region needs to be larger."""
    estimates = [said("telescope", vm.constant(512), seed)[5:].mean() for seed in range(4)]
    assert 400 < np.mean(estimates) < 700


# Samples


@pytest.mark.parametrize("made", [vm.step, vm.step_down])
def test_a_sample_of_every_frame_with_pml_is_exact(made):
    recorded = made()
    exact = said("pml-page-tables", recorded)
    assert said("flag-sample-pml", recorded, watched=vm.PAGES).tolist() == exact.tolist()


def test_pml_leaves_to_the_sample_what_is_not_written():
    """500 pages read and 300 of them written: the error is that of a share of the other pages."""
    recorded = vm.make([vm.block(500)] * 12, [vm.block(300)] * 12)
    count = 256
    runs = [said("flag-sample-pml", recorded, seed, watched=count)[-1] for seed in range(100)]
    others = vm.PAGES - 300
    share, drawn = 200 / others, count * others / vm.PAGES
    theory = others * np.sqrt(share * (1 - share) / drawn * (1 - count / vm.PAGES))
    assert np.mean(runs) == pytest.approx(500, abs=4 * theory / np.sqrt(100))
    assert np.std(runs, ddof=1) == pytest.approx(theory, rel=0.28)  # four times 7 %
    alone = [said("flag-sample", recorded, seed, watched=count)[-1] for seed in range(100)]
    assert np.std(runs) < 0.75 * np.std(alone)


def test_every_nth_access_is_sampled_whenever_it_is_asked():
    recorded = scattered()
    view = look(recorded, {Need.SAMPLES}, WINDOW)
    taken = [view.samples.take(7, 3) for _ in view.every(3 * vm.ROUND_NS)]
    assert np.concatenate(taken).tolist() == recorded.accesses.gfn[3::7].tolist()


def test_every_access_sampled_is_the_working_set():
    assert set(said("access-sampler", vm.constant(500), one_in=1)) == {500}
    assert run("access-sampler", vm.constant(500, 20), one_in=1).events["access_samples"] == 10_000


def test_what_a_sampler_misses_is_as_likely_as_theory_says():
    """A page used k times in T is missed with (1 - 1/N)^k, if uses come in any order."""
    rng = np.random.default_rng(1)
    recorded = vm.make([rng.permutation(vm.block(500)) for _ in range(400)])
    estimates = said("access-sampler", recorded, one_in=7)
    assert estimates.mean() == pytest.approx(500 * (1 - (1 - 1 / 7) ** 10), rel=0.02)
    unseen = said("access-sampler-unseen", recorded, one_in=7)
    assert unseen.mean() == pytest.approx(500, rel=0.03)


def test_the_unseen_are_estimated_from_pages_seen_once_and_twice():
    samples = np.array([1, 2, 3, 4, 5, 5, 6, 6, 7, 7, 7])  # four once, two twice
    assert UnseenSampler()._estimate(samples) == 7 + 4 * 3 / (2 * 3)
    assert UnseenSampler()._estimate(samples[:0]) == 0


def test_a_sampler_adapts_its_period_to_the_samples_wanted():
    """5,000 accesses in T: one in 50 of them are 100 samples."""
    result = run("access-sampler", vm.constant(500, 110), watched=100, one_in=1)
    assert result.events["access_samples"] == 5000 + 10 * 100


def test_a_sampler_keeps_its_period_while_nothing_is_accessed():
    recorded = vm.make([vm.block(500)] * 20 + [[]] * 20 + [vm.block(500)] * 10)
    result = run("access-sampler", recorded, watched=100, one_in=50)
    assert result.events["access_samples"] == 3 * 100


# Linux


@pytest.mark.parametrize("looks", [1, 2])
def test_aging_with_notifiers_counts_the_pages_of_t(looks):
    recorded = vm.step()
    assert (
        said("mglru", recorded, looks=looks).tolist()
        == said("idle-pages", recorded, looks=looks).tolist()
    )


def test_four_generations_tell_two_looks_apart():
    more = run("mglru", vm.step(), looks=4)
    assert more.estimates.equals(run("mglru", vm.step(), looks=2).estimates)
    assert more.notes == ["2 looks per T, not 4: there are four generations"]


def test_aging_without_notifiers_sees_a_page_once():
    """300 pages, then 600 more, in use all the time: each counts when it comes, and never again."""
    estimates = said("mglru-blind", vm.step())
    assert estimates.nonzero()[0].tolist() == [0, 20]
    assert estimates[[0, 20]].tolist() == [300, 600]


def test_aging_costs_all_of_memory_each_time():
    recorded = vm.constant(500, 20)
    one_first = 3 * vm.PAGES  # the first aging begins, two are looks
    assert run("mglru", recorded).events == {"pages_aged": one_first, "pages_young": 1000}
    assert run("mglru-blind", recorded).events == {"pages_walked": one_first}


def test_generations_hold_each_page_once():
    sets = [vm.block(100), vm.block(200), vm.block(50), [], [], []]
    view = look(vm.make(sets), {Need.AGING}, WINDOW)
    rows = [view.aging.age(True).tolist() for _ in view.every(vm.ROUND_NS)]
    assert rows == [
        [0, 100, 0, 0],
        [0, 200, 0, 0],
        [0, 50, 150, 0],
        [0, 0, 50, 150],
        [0, 0, 0, 200],
        [0, 0, 0, 200],
    ]


def test_soft_dirty_bits_count_writes_and_cost_all_that_is_touched():
    recorded = vm.make([vm.block(500)] * 20, [vm.block(120)] * 20)
    result = run("soft-dirty", recorded)
    assert set(result.estimates["pages"]) == {120}
    assert result.events == {
        "soft_dirty_writes": 240, "soft_dirty_reads": 760, "soft_dirty_pages": 2 * vm.PAGES,
    }  # fmt: skip


def test_hint_faults_go_round_the_memory():
    """Four windows of 1024 pages, one a T; the second has all 500 pages in use."""
    result = run("hint-faults", vm.constant(500, 90), watched=1024)
    assert result.estimates["pages"].tolist() == [0, 1000, 500 * 4 / 3, *[500] * 6]
    events = {"faults": 1000, "pages_unmapped": 10 * 1024, "transition": 10}
    assert result.events == events


def test_hint_faults_are_counted_for_t_after_their_step():
    """A page that is used once in 20 rounds is found in use in every other window T."""
    recorded = vm.make([[5] if r % 20 == 5 else [] for r in range(120)])
    assert said("hint-faults", recorded).tolist() == [1, 0] * 6
    # Of two windows, one holds the page. At first it stands for the other.
    assert said("hint-faults", recorded, looks=2).tolist() == [2, *[1, 0, 0, 1] * 5, 1, 0]


def test_ages_are_those_of_kstaled():
    ages = Ages()
    assert ages.add(np.array([1, 2, 3])).tolist() == []
    assert ages.add(np.array([1])).tolist() == [0]
    assert ages.add(np.array([1, 2])).tolist() == [0, 1]
    assert ages.histogram()[:4].tolist() == [2, 0, 1, 0]
    for _ in range(300):
        ages.add(np.zeros(0, np.int64))
    assert ages.histogram()[255] == 3


@pytest.mark.parametrize("coming_back, kept", [(50, [550] * 9), (2, [502, 500, 500] * 3)])
def test_far_memory_keeps_what_would_come_back_too_often(coming_back, kept):
    """500 pages always, others in one scan of three; 2 of 500 may come back in two minutes."""
    often, seldom = vm.block(500), vm.block(coming_back, 2048)
    both, scan = np.concatenate((often, seldom)), 4 * vm.PER_WINDOW  # 120 s, scaled to 4 T
    recorded = vm.make([both if r // scan % 3 == 0 else often for r in range(12 * scan)])
    assert said("far-memory", recorded).tolist() == [500, 500, *kept]


# Pressure


def test_the_wait_for_the_device_is_of_the_recordings_clock():
    """A page read again in 100 us of a processor of 3 GHz: 300,000 instructions of 8 ns."""
    recorded = vm.make([vm.block(2000)] * 40)
    view = look(recorded, {Need.MEMORY}, WINDOW)
    ticks = view.every(WINDOW)
    next(ticks)
    assert view.memory.stalled(100) == 0
    view.memory.resize(1800)
    next(ticks)
    stalled = view.memory.stalled(100)
    view.report(0)
    back = view.result()[1]["stalled_us"] / 100
    assert back > 1000 and stalled == back * 300_000 * 8


def test_senpai_changes_its_limit_as_the_published_script():
    """Of 10 ms of stall in 6 s: none, a fifth, five times, twenty and a hundred times as much."""
    change = Senpai()._change
    target = 10e6
    assert change(0, target) == change(target / 10, target) == -0.01
    assert change(target, target) == pytest.approx(-0.0001)
    assert change(5 * target, target) == pytest.approx(1 / 16)
    assert change(20 * target, target) == change(100 * target, target) == 1


def test_senpai_ends_where_the_guest_waits_as_much_as_it_may():
    """Down by 1 % in six ticks until pages come back, then up again; never for a free device."""
    recorded = vm.step(low=300, high=900, rounds=2000)
    runs = {us: run("senpai", recorded, latency_us=us) for us in (0, 1, 100)}
    late = {us: r.estimates["pages"].to_numpy()[-300:] for us, r in runs.items()}
    needs = 96 + 200 + 800  # the kernel's, what it has allocated beside, and the model's slack
    assert late[0].min() < late[1].mean() < late[100].mean()
    assert needs + 500 < late[100].mean() < vm.PAGES
    assert runs[100].events["stalled_us"] % 100 == 0
