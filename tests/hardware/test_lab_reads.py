# SPDX-License-Identifier: Apache-2.0
"""Reads through page tables under the patched Xen: the guided harvest equals the full scan."""

from types import SimpleNamespace

import pytest
from lab_case import MAILBOX, data, frames, needs_lab, rounds
from pagetable_guest import hypervisor_finds, in_sample

from pmlkit import pagetables, reads
from pmlkit.reads import guided, sampled
from pmlkit.trace.kinds import TableFlag

pytestmark = [needs_lab, pytest.mark.timeout(1800)]
PML = {"page_tables": "snapshot", "slots": 512}
BOTH = {"harvest": "both", **PML}
CLEAR = {**BOTH, "page_tables": "clear"}
BARE = {
    "reads-2": ("reads", {"levels": "2"}),
    "reads-3": ("reads", {"levels": "3"}),
    "reads-4": ("reads", {"levels": "4"}),
    "touch": ("touch", {"levels": "4"}),
    "touch-large": ("touch", {"levels": "4", "large": "1"}),
}
# Guests under Linux that make it hard: small, and with a round or two in each phase.
ADVERSARIES = {
    "sparse": {"size_mib": "16", "phase_ms": "600"},
    "largepages": {"size_mib": "16", "phase_ms": "600"},
    "moving": {"size_mib": "16", "ticks": "30"},
    "forks": {"processes": "16"},
    "remap": {"cycles": "4"},
}
COME_AND_GO = ("forks", "remap")  # when a round ends, mappings that were used in it may be gone


@pytest.mark.parametrize("name", BARE)
def test_the_guided_harvest_equals_the_scan(lab, name):
    guest, settings = BARE[name]
    trace = lab.run(guest, rounds=4, settings=settings, **BOTH)
    found = guided.equality(trace)
    assert len(found) == 4
    assert found["left"].iloc[1:].tolist() == [0, 0, 0], guided.leftovers(trace)


@pytest.mark.parametrize("name", ADVERSARIES)
def test_adversaries_leave_nothing_to_the_scan_but_what_is_explained(lab, name):
    trace = lab.run(name, memory_mib=256, period_s=0.3, settings=ADVERSARIES[name], **BOTH)
    assert len(trace.meta.phases) >= 4  # its start, and three that are hard
    found = guided.equality(trace)
    assert len(found) == trace.n_rounds >= 5
    unexplained = found["missed" if name in COME_AND_GO else "left"]
    assert not unexplained.any(), found


def test_a_guest_without_paging_is_scanned_by_both(lab):
    trace = lab.run("known", rounds=4, **BOTH)
    found = guided.equality(trace)
    assert found["left"].tolist() == found["tables"].tolist() == [0, 0, 0, 0]
    used = frames(trace, "hot") | frames(trace, "cold") | frames(trace, "read")
    for _, rows in rounds(trace):
        assert set(data(rows).gfn) == used


def test_it_finds_exactly_the_pages_that_were_touched(lab):
    trace = lab.run("touch", rounds=4, settings={"levels": "4"}, **BOTH)
    touched = {4096 + i for i in range(6000) if i % 3 == 0 or i % 7 == 0}
    for number, rows in trace.to_pandas().groupby("round"):
        assert number == 0 or set(data(rows).gfn) == touched


def test_the_pruned_scan_finds_them_and_looks_at_less(lab):
    trace = lab.run("touch", rounds=4, settings={"levels": "4"}, harvest="pruned", **PML)
    touched = {4096 + i for i in range(6000) if i % 3 == 0 or i % 7 == 0}
    for _, rows in rounds(trace):
        assert set(data(rows).gfn) == touched
    looked = [told["scan_frames"] for told in trace.meta.overheads["rounds"]]
    assert max(looked) < 16384 / 2  # the guest has 64 MiB


@pytest.mark.parametrize("harvest", ["both", "pruned"])
def test_a_page_mapped_far_away_changes_nothing(lab, harvest):
    touched = {4096 + i for i in range(6000) if i % 3 == 0 or i % 7 == 0}
    told = {**PML, "harvest": harvest}
    near, far = (lab.run("far", rounds=3, settings={"far": n}, **told) for n in ("0", "1"))
    for number in range(3):
        here, there = ({*t.to_pandas().query(f"round == {number}").gfn} for t in (near, far))
        # Xen's own page is written when its time is, wherever it is.
        assert touched <= here and there - {0xFFFFFFFE} <= here | {MAILBOX}
        assert here - there <= {MAILBOX}
    # The ring is most of it; a bitmap up to the far page would be 128 KiB and more.
    memory = [t.meta.overheads["rounds"][-1]["memory"] for t in (near, far)]
    assert 0 < memory[0] <= memory[1] <= memory[0] + 8192
    costs = [t.meta.overheads["rounds"][-1]["scan_tsc"] for t in (near, far)]
    assert costs[1] < 1.5 * costs[0] + 20_000


def test_a_sampled_scan_finds_those_of_the_sample_and_looks_at_no_others(lab):
    settings, how = {"levels": "4"}, {"harvest": "sampled", "one_in": 8, "draw": "fixed", **PML}
    trace = lab.run("touch", rounds=4, settings=settings, **how)
    touched = {4096 + i for i in range(6000) if i % 3 == 0 or i % 7 == 0}
    sample = {gfn for gfn in touched if in_sample(gfn, 8)}
    for _, rows in rounds(trace.sample):
        assert set(data(rows).gfn) == sample
    scanned = lab.run("touch", rounds=4, settings=settings, harvest="pruned", **PML)
    looked, at_all = (
        [told["scan_frames"] for told in one.meta.overheads["rounds"][1:]]
        for one in (trace, scanned)
    )
    assert looked == [frames_ / 8 for frames_ in at_all]
    found = reads.estimate(trace, "density")
    size = len(touched)
    assert (found["low"].iloc[1:] <= size).all() and (size <= found["high"].iloc[1:]).all()


def test_a_sample_drawn_anew_finds_those_of_each_rounds_draw(lab):
    settings, how = {"levels": "4"}, {"harvest": "sampled", "one_in": 8, **PML}
    trace = lab.run("touch", rounds=6, settings=settings, **how)
    assert trace.sample.meta.options["sampled_draw"] == "round"
    touched = {4096 + i for i in range(6000) if i % 3 == 0 or i % 7 == 0}
    found = {number: set(data(rows).gfn) for number, rows in rounds(trace.sample)}
    assert found == {n: {g for g in touched if in_sample(g, 8, n + 1)} for n in range(6)}
    assert len({len(sample) for sample in found.values()}) > 1
    sizes = reads.estimate(trace, "sample")
    inside = (sizes["low"] <= len(touched) + 1) & (len(touched) <= sizes["high"])
    assert inside.all(), sizes
    _, low, high = sampled.average(trace)
    assert low <= len(touched) <= high < 1.2 * len(touched)


def test_a_region_that_was_idle_keeps_the_draw_that_followed_its_last_use(lab):
    trace = lab.run("steps", rounds=9, harvest="sampled", one_in=4, page_tables="off")
    known = SimpleNamespace(rounds=[(None, None, step(number)) for number in range(9)])
    found = [set(data(rows).gfn) for _, rows in rounds(trace.sample)]
    assert found == hypervisor_finds(known, 4)


def test_snapshots_lead_to_all_pages_that_are_read(lab):
    trace = lab.run("reads", rounds=4, settings={"levels": "4"}, **BOTH)
    numbers, gfns = pagetables.covered(pagetables.entries(trace), accessed=False)
    for number in range(1, 4):
        assert frames(trace, "read") <= set(gfns[numbers == number].tolist())
    assert set(pagetables.entries(trace)["level"]) == {1, 2, 3, 4}


def used(trace):
    """Yield (round, frames that entries of tables say were used, CLEARED of all such entries)."""
    rows = pagetables.entries(trace)
    small = rows[(rows["level"] == 1) & (rows["flags"] & int(TableFlag.ACCESSED) != 0)]
    for number, part in small.groupby("round"):
        yield number, part["target"], (part["flags"] & int(TableFlag.CLEARED)) != 0


def step(number):
    return {4096 + (number + 1) % 4 * 512 + i for i in range(700)}


def test_cleared_flags_are_of_their_round_alone(lab):
    trace = lab.run("steps", rounds=6, **CLEAR)
    for number, frames_, cleared in used(trace):
        assert set(frames_[frames_ >= 4096]) == step(number)
        assert cleared.all()
    assert guided.equality(trace)["left"].tolist() == [0] * 6


def test_flags_that_are_not_cleared_stay(lab):
    trace = lab.run("steps", rounds=6, **BOTH)
    before = set()
    for number, frames_, cleared in used(trace):
        before |= step(number)
        tables = {gfn - gfn % 512 + i for gfn in step(number) for i in range(512)}
        assert set(frames_[frames_ >= 4096]) == before & tables
        assert not cleared.any()


def test_cleared_flags_under_linux_tell_frames_that_were_touched(lab):
    trace = lab.run("forks", memory_mib=128, rounds=10, period_s=0.3, **CLEAR)
    touched = {number: set(rows.gfn) for number, rows in trace.to_pandas().groupby("round")}
    sure = wrong = 0
    for number, frames_, cleared in used(trace):
        told = set(frames_[cleared])
        sure, wrong = sure + len(told), wrong + len(told - touched[number])
    # The kernel makes some entries with the flag set, and moves others.
    assert sure > 1000
    assert wrong < 0.05 * sure


def test_its_cost_does_not_grow_with_memory(lab):
    options = {"rounds": 4, "settings": {"levels": "4"}, **BOTH}
    traces = {64: lab.run("reads", **options), 256: lab.run("reads", memory_mib=256, **options)}
    assert all(t.meta.domain["memory_bytes"] == mib << 20 for mib, t in traces.items())
    costs = {mib: guided.costs(trace).iloc[1:] for mib, trace in traces.items()}
    # Emulated time is instructions, the same on every machine.
    small, large = (costs[m]["guided_tsc"].mean() for m in (64, 256))
    assert large < 1.2 * small
    assert costs[256]["guided_frames"].tolist() == costs[64]["guided_frames"].tolist()


def test_linux_reads_are_there_where_pml_alone_is_blind(lab):
    settings = {"size_mib": "16", "phase_ms": "900"}
    trace = lab.run("rrww", memory_mib=96, rounds=8, period_s=0.3, settings=settings, **BOTH)
    sizes = {m: reads.estimate(trace, m) for m in ("written", "accessed", "harvest")}
    reading = sizes["harvest"]["phase"].isin(["read1", "read2"])
    truth = sizes["harvest"]["pages"][reading]
    assert len(truth) >= 3
    # The median: a mark may come while a round is closed, and that round then holds two phases, or
    # a part of one.
    written = sizes["written"]["pages"][reading] / truth
    assert written.median() < 0.1, written.tolist()
    error = abs(sizes["accessed"]["pages"][reading] / truth - 1)
    assert error.median() < 0.15, error.tolist()
    left = guided.equality(trace)["left"]
    assert (left <= 0.01 * sizes["harvest"]["pages"].max()).all(), guided.leftovers(trace)


def test_linux_reads_are_there_by_a_sample_of_accessed_flags_alone(lab):
    settings = {"size_mib": "16", "phase_ms": "900"}
    how = {"harvest": "sampled", "slots": PML["slots"]}
    trace = lab.run("rrww", memory_mib=96, rounds=8, period_s=0.3, settings=settings, **how)
    found = reads.estimate(trace, "sample")
    reading = found[found["phase"].isin(["read1", "read2"])]
    assert len(reading) >= 3
    assert (reading["written"] / reading["pages"]).median() < 0.1
    # A round reads the whole buffer, once or more; libraries and the kernel have some pages, too.
    assert 4096 <= reading["pages"].median() < 1.2 * 4096
