# SPDX-License-Identifier: Apache-2.0
"""The patched Xen: its log against guests whose answers are known."""

import numpy as np
import pytest
from lab_case import DIRECTORIES, LEAVES, bitmaps, data, frames, needs_lab, own, rounds

from pmlkit.xen.frames import Frame

pytestmark = [needs_lab, pytest.mark.timeout(1800)]
FLUSH = {"rearm": "flush", "slots": 256}


def test_known_set_is_exact_in_every_round(lab):
    trace = lab.run("known", rounds=4, bitmaps=True)
    for _, entries in rounds(trace):
        assert set(data(entries).gfn) == frames(trace, "hot") | frames(trace, "cold")
        assert len(data(entries)) == 1800  # once each
        assert own(entries)


def test_the_bitmap_agrees_with_the_log(lab):
    trace = lab.run("known", rounds=4, bitmaps=True)
    dirty = bitmaps(trace)
    for number, entries in rounds(trace):
        assert dirty[number] == set(entries.gfn)


def test_exits_are_what_the_entries_need(lab):
    trace = lab.run("known", rounds=4, bitmaps=True)
    per_round = trace.rounds.set_index("round")
    full = trace.batches[trace.batches.reason == "full"].groupby("round").size()
    assert (full == 3).all()  # 1802 entries: three buffers of 512, and the rest
    assert (per_round.exits == full).all()


def test_a_pages_count_is_the_number_of_its_rewrites(lab):
    trace = lab.run("rewrites", rounds=3, **FLUSH)
    for _, entries in rounds(trace):
        counts = data(entries).gfn.value_counts()
        for times, name in enumerate(("once", "twice", "thrice", "four"), start=1):
            assert (counts.loc[sorted(frames(trace, name))] == times).all(), name


def test_rearm_per_round_logs_each_page_once(lab):
    trace = lab.run("rewrites", rounds=4)
    for _, entries in rounds(trace):
        counts = data(entries).gfn.value_counts()
        assert len(counts) == 4800 and (counts == 1).all()


def test_the_order_is_the_guests(lab):
    trace = lab.run("ordered", rounds=4)
    for number, entries in rounds(trace):
        n = number + 1
        expected = 4096 + (np.arange(2003) * 769 + n) % 2003
        assert data(entries).gfn.tolist() == expected.tolist()


def test_each_vcpu_has_a_log_of_its_own(lab):
    trace = lab.run("vcpus", rounds=4)
    for _, entries in rounds(trace):
        mine = data(entries)
        assert set(mine[mine.vcpu == 0].gfn) == frames(trace, "first")
        assert set(mine[mine.vcpu == 1].gfn) == frames(trace, "second")


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_page_tables_are_marked_with_their_level(lab, levels):
    trace = lab.run("reads", rounds=4, settings={"levels": str(levels)})
    for number, entries in rounds(trace):
        assert data(entries).empty
        kinds = dict(zip(entries.gfn, entries.kind, strict=True))
        if number:  # the first walk of the tables is at the end of round 0
            assert {g for g, kind in kinds.items() if kind == 0x11} == LEAVES[levels]
            upper = {g for g, kind in kinds.items() if kind > 0x11}
            assert upper == DIRECTORIES[levels]


def test_dropped_page_tables_are_not_in_the_log(lab):
    trace = lab.run("reads", rounds=4, page_tables="drop")
    for number, entries in rounds(trace):
        if number:
            assert not set(entries.gfn) & frames(trace, "tables")


@pytest.mark.parametrize("large", ["0", "1"])
def test_accessed_pages_are_those_touched(lab, large):
    settings = {"levels": "4", "large": large}
    trace = lab.run("touch", rounds=4, harvest="accessed", bitmaps=True, settings=settings)
    touched = {4096 + i for i in range(6000) if i % 3 == 0 or i % 7 == 0}
    found = bitmaps(trace, Frame.ACCESSED)
    for number in range(1, 4):
        assert {g for g in found[number] if g >= 4096} == touched


def test_a_small_ring_says_what_it_lost_and_the_bitmap_has_it(lab):
    trace = lab.run("rewrites", slots=2, buffers=1, bitmaps=True, rounds=3)
    dirty, per_round = bitmaps(trace), trace.rounds.set_index("round")
    for number, entries in rounds(trace):
        assert len(dirty[number]) == len(entries) + per_round.lost[number]
        assert set(range(4096, 8896)) <= dirty[number]
