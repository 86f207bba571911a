# SPDX-License-Identifier: Apache-2.0
"""Reads through page tables under the patched Xen: the guided harvest equals the full scan."""

import pytest
from lab_case import data, frames, needs_lab

from pmlkit import pagetables, reads, reads_guided

pytestmark = [needs_lab, pytest.mark.timeout(1800)]
PML = {"flags": ("tables", "snapshots", "accessed"), "slots": 512}
BOTH = {"harvest": "both", "pml": PML}
BARE = {
    "reads-2": ("reads", {"levels": "2"}),
    "reads-3": ("reads", {"levels": "3"}),
    "reads-4": ("reads", {"levels": "4"}),
    "touch": ("touch", {"levels": "4"}),
    "touch-large": ("touch", {"levels": "4", "large": "1"}),
}


@pytest.mark.parametrize("name", BARE)
def test_the_guided_harvest_equals_the_scan(lab, name):
    guest, settings = BARE[name]
    trace = lab.run(guest, rounds=4, settings=settings, **BOTH)
    found = reads_guided.equality(trace)
    assert len(found) == 4
    assert found["left"].iloc[1:].tolist() == [0, 0, 0], reads_guided.leftovers(trace)


def test_it_finds_exactly_the_pages_that_were_touched(lab):
    trace = lab.run("touch", rounds=4, settings={"levels": "4"}, **BOTH)
    touched = {4096 + i for i in range(6000) if i % 3 == 0 or i % 7 == 0}
    for number, rows in trace.to_pandas().groupby("round"):
        assert number == 0 or set(data(rows).gfn) == touched


def test_snapshots_lead_to_all_pages_that_are_read(lab):
    trace = lab.run("reads", rounds=4, settings={"levels": "4"}, **BOTH)
    rounds, gfns = pagetables.covered(pagetables.entries(trace), accessed=False)
    for number in range(1, 4):
        assert frames(trace, "read") <= set(gfns[rounds == number].tolist())
    levels = pagetables.tree(trace)["level"]
    assert set(levels) == {1, 2, 3, 4}


def test_its_cost_does_not_grow_with_memory(lab):
    costs = {}
    for memory_mib in (64, 256):
        options = {"settings": {"levels": "4"}, "memory_mib": memory_mib, **BOTH}
        costs[memory_mib] = reads_guided.costs(lab.run("reads", rounds=4, **options)).iloc[1:]
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
    left = reads_guided.equality(trace)["left"]
    assert (left <= 0.01 * sizes["harvest"]["pages"].max()).all(), reads_guided.leftovers(trace)
