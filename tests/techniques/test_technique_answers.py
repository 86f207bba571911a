# SPDX-License-Identifier: Apache-2.0
"""Known answers of every technique: a constant working set, a step, a ramp; its theory's error."""

from dataclasses import replace

import numpy as np
import pytest
import synthetic_vm as vm

from pmlkit import techniques
from pmlkit.errors import NeedsError, UsageError
from pmlkit.techniques import TECHNIQUES, scores
from pmlkit.techniques.vmware import Vmware

# Estimators that count pages rather than sample them: right to the page once they have settled.
EXACT = (
    "pml",
    "pml-threshold",
    "pml-plateau",
    "pml-page-tables",
    "pml-entries",
    "prl",
    "prl-plateau",
    "vtmm",
    "idle-pages",
    "qemu-bitmap",
    "qemu-ring",
    "pruned-scan",
    "cold-age",
    "mglru",
    "soft-dirty",
    "hint-faults",
)
FORGETS = [name for name in EXACT if "plateau" not in name]
SAMPLED = ("vmware", "flag-sample", "damon", "qemu-sampling", "intermittent")
# test_host_techniques.py
ELSEWHERE = (
    "flag-sample-pml",
    "telescope",
    "access-sampler",
    "access-sampler-unseen",
    "mglru-blind",
    "far-memory",
    "senpai",
)
SEEDS = range(8)


def run(name, recorded, seed=0, **more):
    return techniques.run(name, recorded, window=vm.WINDOW_NS, seed=seed, **more).estimates


def settled(estimates, after=0.5):
    pages = estimates["pages"].to_numpy()
    return pages[int(len(pages) * after) :]


def test_every_technique_is_held_to_a_known_answer():
    active = ("self-ballooning", "zballoond", "mpa", "exclusive-cache")
    by_disk = ("geiger", "badis")  # test_geiger.py
    assert sorted((*EXACT, *SAMPLED, *ELSEWHERE, *active, *by_disk)) == sorted(TECHNIQUES)


@pytest.mark.parametrize("name", EXACT)
def test_a_constant_working_set_is_counted_exactly(name):
    assert set(settled(run(name, vm.constant(500)))) == {500}


@pytest.mark.parametrize("name", FORGETS)
@pytest.mark.parametrize("made", [vm.step, vm.step_down])
def test_a_step_is_followed_exactly(name, made):
    recorded = made()
    estimates = run(name, recorded)
    before = estimates["pages"][estimates["t_ns"].between(10**9, 2 * 10**9 - 1)]
    assert set(before) == {scores.truth(recorded, vm.WINDOW_NS).steps[0].before}
    assert set(settled(estimates, 0.8)) == {300 if made is vm.step_down else 900}


@pytest.mark.parametrize("name", FORGETS)
def test_a_ramp_is_followed_with_the_lag_of_its_windows(name):
    recorded = vm.ramp()
    truth = scores.truth(recorded, vm.WINDOW_NS)
    estimates = run(name, recorded)
    late = estimates[estimates["t_ns"] > 10 * vm.WINDOW_NS]
    true = truth.pages[np.searchsorted(truth.t_ns, late["t_ns"])]
    # 20 pages come per window; m = 2 sees those of the last round only once, vTMM's temperature
    # and queues look one window further back or forth.
    assert np.abs(late["pages"] - true).max() <= 2 * 20 + 2


@pytest.mark.parametrize("name", ["pml-plateau", "prl-plateau"])
def test_a_plateau_waits_for_growth_to_end_and_never_shrinks(name):
    assert run(name, vm.ramp())["pages"].isna().all()
    assert set(run(name, vm.step_down())["pages"].dropna()) == {900}


@pytest.mark.parametrize("name", ["pml", "pml-threshold", "pml-plateau", "qemu-bitmap"])
def test_what_is_only_read_is_not_in_a_log_of_writes(name):
    reads, writes = vm.block(500), vm.block(120)
    recorded = vm.make([reads] * 200, [writes] * 200)
    assert set(settled(run(name, recorded))) == {120}


@pytest.mark.parametrize("name", ["prl", "idle-pages", "pml-page-tables", "pml-entries", "vtmm"])
def test_what_is_only_read_is_in_all_accesses(name):
    recorded = vm.make([vm.block(500)] * 200, [vm.block(120)] * 200)
    assert set(settled(run(name, recorded))) == {500}


def test_the_threshold_leaves_out_what_was_used_less_often():
    often, once = vm.block(100), vm.block(400, 2048)
    sets = [np.concatenate((often, once)) if r % 10 == 5 else often for r in range(200)]
    recorded = vm.make(sets)
    assert set(settled(run("pml", recorded))) == {500}
    assert set(settled(run("pml-threshold", recorded))) == {100}


def test_a_dirty_ring_that_fills_counts_pages_again():
    small = techniques.make("qemu-ring", entries=100)
    recorded = vm.constant(500)
    assert settled(run(small, recorded)).min() > 500
    assert set(settled(run(techniques.make("qemu-ring"), recorded))) == {500}


# Sampling


def relative_standard_error(share, pages):
    """Of one period's share p, for n pages drawn out of very many (Waldspurger, OSDI'02)."""
    return np.sqrt((1 - share) / (share * pages))


def test_vmware_errs_as_its_theory_says():
    """One period by itself: the share's standard error is sqrt((1 - p) / (p n)), relative."""
    recorded = vm.constant(800, rounds=20)
    single = Vmware(watched=100, slow=1, fast=1, looks=1)
    estimates = [run(single, recorded, seed)["pages"].iloc[0] for seed in range(200)]
    share = 800 / vm.PAGES
    assert np.mean(estimates) == pytest.approx(
        800, rel=4 * relative_standard_error(share, 100) / 14
    )
    # Drawn without replacement: a little better, by the share of memory that is not drawn.
    theory = relative_standard_error(share, 100) * np.sqrt(1 - 100 / vm.PAGES)
    # 200 runs know a standard deviation to 5 %; four times that.
    assert np.std(estimates, ddof=1) / 800 == pytest.approx(theory, rel=0.2)


def test_vmware_follows_growth_at_once_and_decline_slowly():
    up = scores.reactivity(run("vmware", vm.step(40, 2000)), _truth(vm.step(40, 2000)))
    down = [run("vmware", vm.step_down(2000, 40), seed) for seed in SEEDS]
    just_after = [at(estimates, 2.35e9) for estimates in down]
    assert up["windows"].iloc[0] <= 6
    assert np.mean(just_after) > 600  # its slow average remembers


def test_vmwares_finished_period_counts_once():
    """In the fast average, and in no other: nothing touched for a period, then everything."""
    period = 10
    everything = [vm.block(vm.PAGES, first=0)] * period
    recorded = vm.make([*[[5]] * period, *everything, *everything])
    every = Vmware(watched=vm.PAGES, looks=2)
    estimates = techniques.run(every, recorded, vm.WINDOW_NS).estimates
    none, every = 1, vm.PAGES  # pages touched in a period
    fast = [none, (none + every) / 2, (none + 3 * every) / 4]
    # At the end of each period the fast average; half-way, with the running period's share.
    half = [(fast[0] + every) / 2, (fast[1] + every) / 2]
    assert estimates["pages"].tolist() == [fast[0], half[0], fast[1], half[1], fast[2]]


def _truth(recorded):
    return scores.truth(recorded, vm.WINDOW_NS)


def at(estimates, t_ns):
    return scores.at(estimates, np.array([t_ns]))[0]


def test_a_flag_sample_errs_as_its_theory_says():
    """The draw is the only error: of 200 draws, mean and spread are those of sampling."""
    recorded = vm.constant(800, rounds=20)
    runs = [settled(run("flag-sample", recorded, seed)) for seed in range(200)]
    assert all(len(set(pages)) == 1 for pages in runs)  # the same frames each time
    estimates = [pages[0] for pages in runs]
    count = vm.PAGES // 64
    # Drawn without replacement: a little better, by the share of memory that is not drawn.
    theory = relative_standard_error(800 / vm.PAGES, count) * np.sqrt(1 - count / vm.PAGES)
    assert np.mean(estimates) == pytest.approx(800, rel=4 * theory / 14)
    # 200 runs know a standard deviation to 5 %; four times that.
    assert np.std(estimates, ddof=1) / 800 == pytest.approx(theory, rel=0.2)


@pytest.mark.parametrize("made, before, after", [(vm.step, 300, 900), (vm.step_down, 900, 300)])
def test_a_flag_sample_of_every_frame_follows_a_step_exactly(made, before, after):
    estimates = run(techniques.make("flag-sample", watched=vm.PAGES), made())
    late = estimates["t_ns"] >= 2 * 10**9 + vm.WINDOW_NS
    early = estimates["t_ns"] <= 2 * 10**9
    assert set(estimates["pages"][early]) == {before}
    assert set(estimates["pages"][late]) == {after}


def test_a_flag_sample_counts_what_was_used_in_any_look_of_t():
    often, once = vm.block(100), vm.block(400, 2048)
    sets = [np.concatenate((often, once)) if r % 10 == 5 else often for r in range(200)]
    every = techniques.make("flag-sample", watched=vm.PAGES, looks=5)
    assert set(settled(run(every, vm.make(sets)), 0)) == {500}


def test_a_flag_sample_is_weighted_by_what_was_drawn_and_costs_only_that():
    """40 frames of 4096, each of them for 102.4 pages, looked at 5 times per T."""
    odd = techniques.make("flag-sample", watched=40, looks=5)
    result = techniques.run(odd, vm.constant(vm.PAGES - vm.FIRST), vm.WINDOW_NS)
    drawn = result.estimates["pages"] / (vm.PAGES / 40)
    assert drawn.to_numpy() == pytest.approx(drawn.round())
    looks = 1 + 5 * 30  # once to clear them
    assert result.events == {"flags_read": 40 * looks, "flag_looks": looks}


@pytest.mark.parametrize(
    "name, knob", [(name, knob) for name in TECHNIQUES for knob in TECHNIQUES[name].knobs()]
)
def test_to_watch_nothing_or_never_is_refused(name, knob):
    with pytest.raises(UsageError, match=f"{knob} is 0: give a whole number"):
        techniques.make(name, **{knob: 0})


def test_dirty_rate_sampling_is_a_binomial_share():
    estimates = [settled(run("qemu-sampling", vm.constant(800), seed), 0).mean() for seed in SEEDS]
    one = relative_standard_error(800 / vm.PAGES, 128)
    assert np.mean(estimates) == pytest.approx(800, rel=4 * one / np.sqrt(len(SEEDS) * 29))


@pytest.mark.parametrize("made, expected", [(vm.constant, 500), (vm.step, 900)])
def test_sampled_reuse_times_are_right_within_their_sample(made, expected):
    estimates = [settled(run("intermittent", made(), seed), 0.9).mean() for seed in SEEDS]
    rate = 2000 / vm.PAGES
    one = np.sqrt((1 - rate) / (rate * expected))
    assert np.mean(estimates) == pytest.approx(expected, rel=4 * one / np.sqrt(len(SEEDS)) + 0.02)


def test_intermittent_tracking_rests_while_nothing_changes():
    busy = techniques.make("intermittent", rest=1)
    idle = techniques.make("intermittent", rest=8)
    recorded = vm.constant(500)
    faults = [techniques.run(t, recorded, vm.WINDOW_NS).events["faults"] for t in (busy, idle)]
    assert faults[1] < 0.6 * faults[0]


def test_damon_finds_a_hot_block_within_its_regions():
    estimates = [settled(run("damon", vm.constant(500), seed)).mean() for seed in SEEDS]
    # A region counts as a whole: at each of the block's two ends some pages too many.
    assert 480 <= np.mean(estimates) <= 500 * 1.35


def test_damon_keeps_to_its_number_of_regions():
    few = techniques.make("damon", watched=20)
    events = techniques.run(few, vm.constant(500), vm.WINDOW_NS).events
    assert events["flags_read"] <= 2 * 20 * 301


@pytest.mark.parametrize("pages", [1, 5, 9])
@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_vm_of_a_few_pages_can_be_watched(name, pages):
    """Fewer pages than DAMON's regions, or than a sample: no estimate exceeds the memory."""
    tiny = replace(vm.make([np.arange(pages)] * 100), memory_pages=pages, guest=None)
    try:
        estimates = run(name, tiny)["pages"].dropna()
    except NeedsError:
        return  # no samples of a guest, no disk
    assert name in ("access-sampler-unseen", "qemu-ring") or (estimates <= pages).all()
    assert name not in EXACT or estimates.iloc[-1] == pages


# The active ones: what they leave the guest covers its needs, and not much more


def need(recorded, pages):
    """What the model's guest cannot do without: its working set and what is pinned."""
    guest = recorded.guest.iloc[0]
    kernel = recorded.memory_pages - guest["total_bytes"] // 4096
    return pages + kernel + (guest["allocated_bytes"] - guest["anon_bytes"]) // 4096


def slack():
    from pmlkit.techniques.memory import MemoryModel

    return MemoryModel().slack_pages


def test_zballoond_ends_a_little_above_what_the_guest_needs():
    recorded = vm.constant(500, rounds=1500)
    estimates = settled(run("zballoond", recorded), 0.8)
    least = need(recorded, 500) + slack()
    assert 0.9 * least <= estimates.mean() <= 1.25 * least


def test_zballoond_grows_again_when_the_guest_needs_more():
    recorded = vm.step(300, 1500, rounds=1500)
    estimates = run("zballoond", recorded)
    assert at(estimates, 14e9) - at(estimates, 7e9) == pytest.approx(1200, rel=0.35)


def test_self_ballooning_goes_to_committed_memory_an_eighth_at_a_time():
    recorded = vm.constant(500, rounds=1500)
    estimates = run("self-ballooning", recorded, scale=1 / 50)["pages"].to_numpy()
    goal = 550 + 96 + 0.1 * vm.PAGES
    expected = goal + (vm.PAGES - goal) * (7 / 8) ** np.arange(1, len(estimates) + 1)
    assert estimates == pytest.approx(expected)


def test_mpa_gives_what_is_used_and_a_cushion_up_to_what_the_host_has():
    recorded = vm.constant(500, rounds=600)
    roomy = techniques.make("mpa", host=1.0)
    tight = techniques.make("mpa", host=0.5)
    assert settled(run(roomy, recorded)).mean() < vm.PAGES
    assert settled(run(tight, vm.constant(3000, rounds=600))).max() <= vm.PAGES / 2 + 1


def test_the_exclusive_cache_sees_what_a_squeezed_guest_misses():
    recorded = vm.constant(1200, rounds=1500)
    estimates = settled(run("exclusive-cache", recorded), 0.8)
    least = need(recorded, 1200) + slack()
    assert 0.85 * least <= np.median(estimates) <= 1.2 * least


def test_with_snapshots_of_tables_only_what_they_map_is_looked_at():
    recorded, window_ns = vm.constant(500, rounds=100), 8 * vm.ROUND_NS  # four looks at it
    tables = vm.make([vm.block(800)] * 100).accesses  # what the logged tables map
    real = techniques.run("pml-page-tables", replace(recorded, mapped=tables), window_ns)
    assert set(settled(real.estimates)) == {500}
    assert (real.events["pages_scanned"], real.events["flags_read"]) == (vm.PAGES, 800 * 50)
    assert real.notes == []
    assert real.events["marked_entries"] == (500 + 500) * 50  # the data pages, and the "leaves"
    stand_in = techniques.run("pml-page-tables", recorded, window_ns)
    assert stand_in.events["flags_read"] == 512 * 50
    assert stand_in.notes == [
        "a substitute: tables are assumed to map 2 MiB of neighbouring frames each"
    ]


@pytest.mark.parametrize("name", ["pml-page-tables", "pml-entries"])
def test_page_tables_are_logged_beside_the_pages_that_are_written(name):
    """PML logs both, each once a look: 1,500 pages, 300 of them written, below 3 tables."""
    frames, tables = vm.block(1500), np.arange(3)
    recorded = vm.make([frames] * 100, written=[frames[:300]] * 100)
    leaves = vm.make([tables] * 100).accesses
    recorded = replace(recorded, leaves=leaves, mapped=recorded.accesses)
    events = techniques.run(name, recorded, 8 * vm.ROUND_NS).events  # 50 looks of 2 rounds
    assert events["marked_entries"] == 50 * (300 + 3)
    assert events["tables_found"] == 50 * 3
    assert "pml_exits" not in events  # 303 entries fill no buffer
    busy = replace(recorded, log=recorded.accesses)
    events = techniques.run(name, busy, 8 * vm.ROUND_NS).events
    assert events["pml_exits"] == 50 * 2  # 1,503 entries: two buffers and a part of one


def test_a_footprint_is_dennings_mean_working_set():
    """All frames followed, and the sum over gaps equals the mean of W that the kernels count."""
    from pmlkit.kernels.by_page import sliding

    rng = np.random.default_rng(4)
    recorded = vm.make([np.unique(rng.integers(0, 900, 120)) for _ in range(400)])
    every = techniques.make("intermittent", rate=1.0, same=0.0)
    estimate = settled(run(every, recorded)).mean()
    sizes = sliding(recorded.occurrences(), vm.PER_WINDOW)[vm.PER_WINDOW - 1 :]
    assert estimate == pytest.approx(sizes.mean(), rel=0.03)
