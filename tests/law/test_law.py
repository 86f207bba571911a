# SPDX-License-Identifier: Apache-2.0
"""The law of errors: known answers for each part alone, for all together, and against runs."""

from dataclasses import replace

import numpy as np
import pytest
import synthetic_vm as vm
from scipy.stats import binom, foldnorm, hypergeom

from pmlkit import law, techniques
from pmlkit.errors import NeedsError, ResolutionError, UnknownName
from pmlkit.law import noise
from pmlkit.law.curves import drift
from pmlkit.law.seen import averaged
from pmlkit.techniques import TECHNIQUES, scores

T = vm.WINDOW_NS
RUNS = 40
EXACT = (
    "pml",
    "pml-entries",
    "prl",
    "idle-pages",
    "pruned-scan",
    "soft-dirty",
    "mglru",
    "qemu-ring",
)


def make(name, **knobs):
    return techniques.make(name, **knobs)


def errors(technique, recorded, seeds=range(1)):
    truth = scores.truth(recorded, T)
    runs = [techniques.run(technique, recorded, T, seed=seed) for seed in seeds]
    return np.array([scores.accuracy(run.estimates, truth)["mae"] for run in runs])


def wandering(rounds=210, seed=0, read=0.4):
    """A VM that uses other pages from round to round, of which it only reads some."""
    draw = np.random.default_rng(seed)
    sets, written = [], []
    for number in range(rounds):
        level = 60 + 50 * (number // 70 % 2)
        used = draw.choice(1200, level, replace=False)
        sets.append(np.sort(used))
        written.append(np.sort(used[draw.random(level) > read]))
    return vm.make(sets, written)


# ------------------------------------------------------------------------------
# Noise.


@pytest.mark.parametrize("memory, watched", [(50, 1), (50, 7), (50, 50), (1000, 100), (65536, 64)])
def test_the_error_of_a_sample_is_that_of_its_distribution(memory, watched):
    counts = np.arange(watched + 1)
    for used in np.unique(np.linspace(0, memory, 9).astype(int)):
        off = np.abs(counts - watched * used / memory) * memory / watched
        for again, law_of in (
            (False, hypergeom(memory, used, watched)),
            (True, binom(watched, used / memory)),
        ):
            found = noise.sample_error([used], memory, watched, again)[0]
            assert found == pytest.approx(float(law_of.pmf(counts) @ off), rel=1e-6, abs=1e-9)


def test_a_large_sample_is_normal_with_the_published_standard_error():
    memory, watched, used = 1 << 20, 4096, 1 << 18
    error = noise.sample_error([used], memory, watched)[0] / used
    not_watched = (memory - watched) / (memory - 1)
    sd = np.sqrt(0.75 / (0.25 * watched) * not_watched)  # without replacement
    assert error == pytest.approx(np.sqrt(2 / np.pi) * sd, rel=1e-3)


@pytest.mark.parametrize("mean, sd", [(0, 1), (2, 1), (-3, 0.5), (0.1, 5)])
def test_the_mean_of_a_folded_normal(mean, sd):
    assert noise.mean_abs(mean, sd) == pytest.approx(foldnorm(abs(mean) / sd, scale=sd).mean())
    assert noise.mean_abs(mean, 0) == abs(mean)


def test_parts_combine_to_themselves_if_alone_and_in_quadrature_if_both_are_noise():
    assert noise.combined(0.3, 0, 0) == pytest.approx(0.3)
    assert noise.combined(0, 0.2, 0) == pytest.approx(0.2)
    assert noise.combined(0, 0, -0.4) == pytest.approx(0.4)
    assert noise.combined(0.3, 0.4, 0) == pytest.approx(0.5)
    assert noise.combined(0.01, 0.01, 0.8) == pytest.approx(0.8)


# ------------------------------------------------------------------------------
# Curves.


def test_the_drift_is_that_of_the_definition():
    recorded = wandering()
    truth = scores.truth(recorded, T)
    table = law.Curves(recorded).drift(T)
    for age, found in zip(table["age_ns"], table["drift"], strict=True):
        late = truth.t_ns - age >= T
        old = truth.pages[np.searchsorted(truth.t_ns, truth.t_ns[late] - age)]
        wanted = np.abs(truth.pages[late] - old).mean() / truth.pages[late].mean()
        assert found == pytest.approx(wanted)
    assert table["staleness"].iloc[4] == pytest.approx(table["drift"].iloc[:4].mean())
    assert np.isnan(drift(truth.t_ns, truth.pages * 0.0, np.ones(210), 0, T))


@pytest.mark.parametrize("channel", ["accesses", "writes"])
def test_the_mean_of_distinct_pages_is_that_of_all_windows(channel):
    recorded = wandering()
    uses = getattr(recorded, channel)
    for rounds in (1, 3, 10):
        ends = range(1, recorded.n_rounds + 1)
        each = [len(set(uses.between(max(end - rounds, 0), end).tolist())) for end in ends]
        # The curve is of continuous time: nothing is used before the end of the first round.
        total = sum(each[:-1]) * vm.ROUND_NS / ((recorded.n_rounds) * vm.ROUND_NS)
        found = law.Curves(recorded).mean(channel, rounds * vm.ROUND_NS)
        assert found == pytest.approx(total)


def test_the_sum_over_pages_is_that_of_their_uses_in_each_window():
    recorded = wandering(rounds=60)
    found = law.Curves(recorded).counted("accesses", T, lambda c: np.sqrt(c))
    ends = range(1, recorded.n_rounds + 1)
    windows = [recorded.accesses.between(max(end - vm.PER_WINDOW, 0), end) for end in ends]
    wanted = [np.sqrt(np.unique(one, return_counts=True)[1]).sum() for one in windows]
    assert found == pytest.approx(np.array(wanted))


def test_the_larger_of_two_averages_is_that_of_draws():
    pages, sd = np.full(30, 100.0), np.full(30, 10.0)
    draws = np.random.default_rng(1).normal(pages, sd, (4000, 30))
    ends = []
    for draw in draws:
        slow = fast = draw[0]
        for one in draw[1:]:
            slow, fast = slow + 0.2 * (one - slow), fast + 0.5 * (one - fast)
        ends.append(max(slow, fast))
    mean, scatter = averaged(pages, sd, (0.2, 0.5))
    assert mean[-1] == pytest.approx(np.mean(ends), abs=0.3)
    assert scatter[-1] == pytest.approx(np.std(ends), rel=0.05)
    assert np.array_equal(averaged(pages, sd, ())[0], pages)


def test_blindness_is_the_difference_of_the_sets():
    recorded = wandering()
    blind = law.Curves(recorded).blindness("writes", T)
    missed, true = [], []
    for end in range(vm.PER_WINDOW, recorded.n_rounds + 1):
        used = set(recorded.accesses.between(end - vm.PER_WINDOW, end).tolist())
        written = set(recorded.writes.between(end - vm.PER_WINDOW, end).tolist())
        missed.append(len(used - written))
        true.append(len(used))
    assert blind.missed == pytest.approx(np.mean(missed) / np.mean(true))
    assert blind.extra == 0
    assert blind.bias == -blind.missed
    assert law.Curves(recorded).blindness("accesses", T).missed == 0


# ------------------------------------------------------------------------------
# Each part alone.


@pytest.mark.parametrize("name", EXACT[:-1])
def test_a_working_set_that_does_not_change_has_no_staleness(name):
    found = law.predict(name, law.Curves(vm.constant(500)), T)
    assert (found.staleness, found.sampling, found.error) == (0, 0, 0)
    assert (found.low, found.high) == (0, 0)


@pytest.mark.parametrize("looks", [1, 2, 5, 10])
def test_the_staleness_of_a_steady_growth_is_half_its_growth_between_looks(looks):
    sets = [vm.block(200 + 3 * number) for number in range(400)]
    recorded = vm.make(sets)
    found = law.predict(make("prl", looks=looks), law.Curves(recorded), T)
    ages = np.arange(vm.PER_WINDOW // looks)  # rounds, each as likely
    mean = np.mean([len(one) for one in sets[vm.PER_WINDOW - 1 :]])
    assert found.staleness == pytest.approx(3 * ages.mean() / mean, rel=0.01)
    assert found.error == pytest.approx(found.staleness)
    assert errors(make("prl", looks=looks), recorded) == pytest.approx(found.error, rel=0.01)


def test_a_blind_technique_errs_by_what_it_does_not_see():
    half = [vm.block(200)] * 300
    found = law.predict("pml", law.Curves(vm.make([vm.block(500)] * 300, half)), T)
    assert found.blindness.missed == pytest.approx(0.6)
    assert (found.error, found.by_parts) == (pytest.approx(0.6), pytest.approx(0.6))


@pytest.mark.parametrize("watched", [32, 256, 2048])
def test_a_sample_errs_as_its_formula_says(watched):
    recorded, technique = vm.constant(500, rounds=40), make("flag-sample", watched=watched)
    found = law.predict(technique, law.Curves(recorded), T)
    measured = errors(technique, recorded, range(RUNS))
    assert (found.staleness, found.blindness.bias) == (0, 0)
    assert found.error == pytest.approx(found.sampling) == pytest.approx(found.by_parts)
    assert abs(measured.mean() - found.error) < 4 * measured.std() / np.sqrt(RUNS)
    inside = (measured >= found.low - 1e-9) & (measured <= found.high + 1e-9)
    assert inside.mean() > 0.85


# ------------------------------------------------------------------------------
# All together, and against runs.


@pytest.mark.parametrize("name, knobs", [
    ("flag-sample", {"looks": 2, "watched": 300}),
    ("qemu-sampling", {"looks": 2, "watched": 300}),
    ("qemu-sampling", {"looks": 1, "watched": 60}),
    ("flag-sample-pml", {"looks": 2, "watched": 200}),
    ("access-sampler", {"looks": 2, "one_in": 8}),
    ("access-sampler", {"looks": 1, "watched": 200}),
])  # fmt: skip
def test_staleness_sampling_and_blindness_together(name, knobs):
    recorded, technique = wandering(), make(name, **knobs)
    found = law.predict(technique, law.Curves(recorded), T)
    measured = errors(technique, recorded, range(RUNS))
    assert found.staleness > 0 and found.sampling > 0
    assert found.error == pytest.approx(measured.mean(), rel=0.1)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("looks", [1, 2, 5])
def test_counting_techniques_err_as_predicted(name, looks):
    recorded, technique = wandering(), make(name, looks=looks)
    found = law.predict(technique, law.Curves(recorded), T)
    measured = errors(technique, recorded)[0]
    assert 0.9 * found.low <= measured <= 1.1 * found.high
    assert found.error == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("name", sorted(law.STATED))
def test_the_cost_is_that_of_the_run(name):
    recorded, technique = wandering(), make(name)
    found = law.predict(technique, law.Curves(recorded), T)
    seeds = range(20 if technique.random else 1)
    runs = [techniques.run(technique, recorded, T, seed=seed).overhead for seed in seeds]
    assert found.overhead == pytest.approx(np.mean(runs), rel=0.07)


# ------------------------------------------------------------------------------
# What is covered.


def uneven(kind):
    """Return a VM whose rounds vary a little; are long at times; or are long and without uses."""
    recorded, draw = wandering(), np.random.default_rng(4)
    lengths = draw.normal(1, 0.1, recorded.n_rounds) * vm.ROUND_NS
    if kind == "jitter":
        return replace(recorded, t_ns=np.append(0, lengths.cumsum()).astype(np.int64))
    some = np.arange(20, recorded.n_rounds, 40)
    lengths[some] = [15 * vm.ROUND_NS, 4.3 * vm.ROUND_NS, *[9 * vm.ROUND_NS] * (len(some) - 2)]
    idle = np.zeros(recorded.n_rounds, bool)
    if kind == "gaps":
        idle[some] = True
        sets, written = (
            [[] if gap else uses.between(n, n + 1) for n, gap in enumerate(idle)]
            for uses in (recorded.accesses, recorded.writes)
        )
        recorded = vm.make(sets, written)
    return replace(recorded, t_ns=np.append(0, lengths.cumsum()).astype(np.int64), idle=idle)


@pytest.mark.parametrize("kind", ["jitter", "long", "gaps"])
@pytest.mark.parametrize("looks", [1, 2, 5])
@pytest.mark.parametrize("name", [*EXACT, "pml-threshold"])
def test_with_uneven_rounds_and_looks_from_the_start_on_the_law_is_the_run(name, looks, kind):
    technique, recorded = make(name, looks=looks), uneven(kind)
    found = law.predict(technique, law.Curves(recorded), T)
    assert errors(technique, recorded)[0] == pytest.approx(found.from_start, rel=1e-9, nan_ok=True)


def test_a_run_without_a_report_is_not_predicted_by_looks_at_other_times():
    """A plateau needs three looks without a new page, which only some first looks allow."""
    recorded = vm.make([vm.block(min(round_, 71)) for round_ in range(1, 106)])
    technique = make("prl-plateau", looks=1)
    found = law.predict(technique, law.Curves(recorded), T)
    assert np.isnan(errors(technique, recorded)[0]) and np.isnan(found.from_start)
    assert np.isfinite(found.error)


def test_each_technique_is_stated_or_said_to_be_outside():
    names = [*law.STATED, *law.RULED, *law.OUTSIDE]
    assert sorted(names) == sorted(TECHNIQUES)


def test_what_is_outside_is_refused():
    with pytest.raises(UnknownName, match="senpai"):
        law.predict("senpai", law.Curves(vm.constant()), T)


def test_a_recording_that_is_too_short():
    with pytest.raises(ResolutionError, match="too short"):
        law.predict("prl", law.Curves(vm.constant(rounds=8)), T)


@pytest.mark.parametrize("name", [*law.STATED, *law.RULED])
def test_a_recording_of_a_vm_that_uses_no_page_is_refused(name):
    idle = vm.make([[]] * 60)
    with pytest.raises(NeedsError, match="no page in use in any full window T of 100 ms"):
        law.predict(name, law.Curves(idle), T)
