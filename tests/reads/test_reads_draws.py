# SPDX-License-Identifier: Apache-2.0
"""A sample that is redrawn in each round, against all draws, and against the patches' header."""

import itertools
import subprocess

import numpy as np
import pytest
from pagetable_guest import Guest, hypervisor_finds, in_sample, write_trace

from pmlkit import reads
from pmlkit.errors import UsageError
from pmlkit.reads import draws, redrawn, sampled
from pmlkit.recordings import PATCHES

PROGRAM = """
#include <stdint.h>
#include <stdio.h>
#include "pml.h"
int main(void)
{
    unsigned int order;
    uint32_t draw;
    uint64_t group;

    for (order = 0; order <= XEN_PML_MAX_SAMPLE; order++)
        for (draw = 0; draw < 5000; draw = draw * 3 + 1)
            for (group = 0; group < (1ULL << 36); group = group * 5 + 1)
                printf("%u %u %llu %u\\n", order, draw, (unsigned long long)group,
                       (unsigned int)XEN_PML_DRAW(group, order, draw));
}
"""


MARKED = (1 << 30, 0x11)  # a page table in the log: entries have marks


def test_a_draw_is_the_one_of_the_patches_header(tmp_path):
    (tmp_path / "x.c").write_text(PROGRAM)
    header = PATCHES / "common/xen/include/public"
    subprocess.run(["cc", "-I", header, "-o", tmp_path / "x", tmp_path / "x.c"], check=True)
    said = subprocess.run([tmp_path / "x"], check=True, capture_output=True, text=True).stdout
    rows = np.array([line.split() for line in said.splitlines()], np.uint64)
    assert len(rows) > 1000
    for order in range(10):
        _, draw, group, place = rows[rows[:, 0] == order].T
        assert (draws.places(group, 1 << order, draw.astype(np.int64)) == place).all()


@pytest.mark.parametrize("one_in", [1, 2, 16, 512])
def test_one_frame_of_each_group_is_drawn(one_in):
    gfns = np.arange(1 << 20, (1 << 20) + 4096, dtype=np.uint64)
    for draw in (0, 1, 77):
        mask = draws.chosen(gfns, one_in, draw).reshape(-1, one_in)
        assert (mask.sum(axis=1) == 1).all()


def test_a_sample_is_one_in_a_power_of_two():
    with pytest.raises(UsageError, match="power of two"):
        draws.places(np.arange(4), 12)


@pytest.fixture(scope="module")
def idle():
    """A guest of 8 regions, each idle in some rounds, and one idle in all but the last."""
    rng = np.random.default_rng(5)
    guest = Guest()
    for number in range(40):
        used = [region for region in range(8) if rng.random() < 0.5 or (region == 7) == number]
        guest.touched = {
            int(gfn)
            for region in used
            for gfn in region * 512 + rng.choice(512, rng.integers(1, 300), replace=False)
        }
        log = [(gfn, 2) for gfn in guest.touched if gfn % 5 == 0]
        guest.rounds.append(([*log, MARKED], [], guest.touched))
    return guest


@pytest.mark.parametrize("one_in", [4, 16])
def test_what_is_found_follows_from_when_regions_were_used(idle, one_in):
    rounds = np.repeat(np.arange(40), [len(touched) for _, _, touched in idle.rounds])
    gfns = np.array([gfn for _, _, touched in idle.rounds for gfn in touched], np.uint64)
    mask = draws.found_redrawn(rounds, gfns, one_in)
    truth = hypervisor_finds(idle, one_in)
    assert [set(gfns[mask & (rounds == n)].tolist()) for n in range(40)] == truth
    plain = [
        {g for g in t if in_sample(g, one_in, n + 1)} for n, (_, _, t) in enumerate(idle.rounds)
    ]
    assert plain != truth  # regions that were idle keep their draw


def test_a_trace_that_was_redrawn_gives_what_the_whole_harvest_gives(idle, tmp_path):
    whole = write_trace(tmp_path / "w.trace", idle, snapshots=False)
    trace = write_trace(tmp_path / "s.trace", idle, snapshots=False, one_in=8, redraw=True)
    for how in ({}, {"window": "3r", "step": "sliding"}):
        found = reads.estimate(trace, "sample", **how)
        again = sampled.estimate(whole, one_in=8, redraw=True, tables=False, **how)
        assert found.equals(again)
        assert ((found["low"] <= found["pages"]) & (found["pages"] <= found["high"])).all()
    assert (found["why"].iloc[1:] != "").all()
    assert reads.estimate(trace, "sample")["why"].unique().tolist() == [""]
    with pytest.raises(UsageError, match="in each round: use that one"):
        sampled.estimate(trace, redraw=False)
    truth = reads.estimate(whole, "harvest", window="3r", step="sliding")["pages"]
    assert ((found["low"] <= truth) & (truth <= found["high"])).mean() >= 0.95


def every_draw(groups, one_in):
    """Yield each way of drawing one of `one_in` from so many groups, as places."""
    yield from itertools.product(range(one_in), repeat=groups)


def test_the_mean_over_all_draws_is_the_truth_and_the_interval_holds():
    touched = [{0, 1, 2, 4, 9, 10, 11}, {1, 5, 6, 8, 9, 10}]  # of three groups of four
    truth, estimates, inside, means = len(touched[0]), [], [], []
    for places in every_draw(3, 4):
        hits = sum(4 * group + place in touched[0] for group, place in enumerate(places))
        pages, low, high = redrawn.union(np.ones(hits, np.int64), 1, 4, 0.95)
        estimates.append(pages)
        inside.append(low <= truth <= high)
    assert np.mean(estimates) == truth
    assert np.mean(inside) >= 0.95
    for places in itertools.product(every_draw(3, 4), repeat=2):
        hits = [
            sum(4 * group + place in one for group, place in enumerate(drawn))
            for one, drawn in zip(touched, places, strict=True)
        ]
        means.append(4 * np.mean(hits))
    assert np.mean(means) == pytest.approx(6.5)


@pytest.mark.parametrize(
    "touched",
    [
        [{0, 1, 2, 4, 5}, {1, 4, 5, 6}],
        [{0, 1, 2, 3, 4, 5, 6, 7}] * 2,  # always the same
        [{0, 1, 2, 3}, {4, 5, 6, 7}],  # never the same
    ],
)
def test_over_all_draws_two_rounds_are_bounded_by_what_is_found(touched):
    union, distinct, total, inside = len(set().union(*touched)), [], [], []
    for places in itertools.product(every_draw(2, 4), repeat=2):
        times = {}
        for one, drawn in zip(touched, places, strict=True):
            for gfn in (4 * group + place for group, place in enumerate(drawn)):
                if gfn in one:
                    times[gfn] = times.get(gfn, 0) + 1
        counts = np.array(list(times.values()), np.int64)
        distinct.append(len(counts))
        total.append(counts.sum())
        pages, low, high = redrawn.union(counts, 2, 4, 0.95)
        assert low <= pages <= high
        inside.append(low <= union <= high)
    assert np.mean(distinct) / (1 - 0.75**2) <= union + 1e-9
    assert union <= 4 * np.mean(total) + 1e-9
    assert np.mean(inside) >= 0.95


@pytest.mark.parametrize("again", [0.0, 0.5, 1.0])
def test_a_window_of_many_rounds_is_between_its_limits(again):
    """Of 4000 frames some are used in all of 20 rounds, the others in one of them."""
    rng = np.random.default_rng(11)
    inside, errors = [], []
    for _ in range(60):
        always, once = round(4000 * again), 4000 - round(4000 * again)
        times = np.concatenate([rng.binomial(20, 1 / 16, always), rng.binomial(1, 1 / 16, once)])
        pages, low, high = redrawn.union(times[times > 0], 20, 16, 0.95)
        inside.append(low <= 4000 <= high)
        errors.append(pages / 4000 - 1)
    assert np.mean(inside) >= 0.95
    assert abs(np.mean(errors)) < 0.4  # the worst is that of two kinds of frames


def steady(path, one_in=None, redraw=False, harvests=None):
    """The same 900 of 2048 frames in each of 30 rounds, as a program that does one thing."""
    guest, rng = Guest(), np.random.default_rng(2)
    used = {int(gfn) for gfn in rng.choice(2048, 900, replace=False)}
    for _ in range(30):
        log = [(gfn, 2) for gfn in used if gfn % 9 == 0]
        guest.rounds.append(([*log, MARKED], [], set(used)))
    return write_trace(path, guest, harvests, snapshots=False, one_in=one_in, redraw=redraw)


def test_time_averages_the_error_of_a_sample_that_is_redrawn(tmp_path):
    trace = steady(tmp_path / "x.trace")
    errors = {}
    for redraw in (False, True):
        rows = [sampled.average(trace, draw=draw, redraw=redraw) for draw in range(16)]
        pages, low, high = np.array(rows).T
        assert ((low <= 900) & (high >= 900)).mean() >= 0.9
        errors[redraw] = np.abs(pages / 900 - 1)
        assert (low <= pages).all() and (pages <= high).all()
    assert np.max(errors[True]) < 0.4 * np.max(errors[False])
    assert np.mean(high - low) < 200  # of 30 rounds; of one it is 500 and more


def test_a_round_without_a_sample_is_bounded_and_in_no_mean(tmp_path):
    """A host takes none in a round that is too short; it is not a round without reads."""
    trace = steady(tmp_path / "x.trace", 16, harvests=set(range(30)) - {4, 5, 20})
    rows = reads.estimate(trace, "sample")
    without = rows["why"].str.contains("too short for a sample")
    assert np.flatnonzero(without).tolist() == [4, 5, 20]
    assert (rows["low"] <= 900).all() and (rows["high"] >= 900).all()
    assert (rows["high"][without] == trace.memory_pages).all()
    wide = reads.estimate(trace, "sample", window="3r", step="1r")
    assert np.flatnonzero(wide["why"] != "").tolist() == [4, 5, 6, 7, 20, 21, 22]
    late = reads.estimate(trace, "sample", start="50ms")
    assert np.flatnonzero(late["why"] != "").tolist() == [5 - 5, 20 - 5]
    assert sampled.average(trace) == sampled.average(steady(tmp_path / "all.trace", 16))


def test_the_average_of_a_harvested_sample_is_that_of_its_trace(tmp_path):
    whole = steady(tmp_path / "w.trace")
    for redraw in (False, True):
        trace = steady(tmp_path / f"s-{redraw}.trace", 16, redraw)
        assert sampled.average(trace) == sampled.average(whole, redraw=redraw)
    assert trace.meta.kind == "pml" and "drawn again" in dict(_summary(trace))["sample"]


def _summary(trace):
    from pmlkit.trace.summary import facts

    return facts(trace)
