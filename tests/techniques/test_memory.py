# SPDX-License-Identifier: Apache-2.0
"""The guest of changing size: against LRU and CLOCK done by hand, and against real limits."""

from collections import OrderedDict

import numpy as np
import pytest
import synthetic_vm as vm

import pmlkit
from pmlkit.errors import UsageError
from pmlkit.techniques import Recorded
from pmlkit.techniques.memory import Guest, MemoryModel

NO_SLACK = {"slack_pages": 0}


def guest(recorded, limit, **model):
    """A guest in which nothing is pinned, so that all of `limit` is for the pages."""
    table = recorded.guest.copy()
    for name in ("allocated", "slab", "cached"):
        table[f"{name}_bytes"] = 0
    table["anon_bytes"] = 1 << 40  # nothing was freed
    table["total_bytes"] = recorded.memory_pages * 4096
    made = Guest(_with(recorded, table), MemoryModel(**NO_SLACK, **model))
    made.resize(limit)
    return made


def _with(recorded, table):
    from dataclasses import replace

    return replace(recorded, guest=table)


def by_hand(recorded, limit):
    """LRU page by page, evicting at the end of each round."""
    inside, out, back, gone = OrderedDict(), set(), 0, 0
    for r in range(recorded.n_rounds):
        for page in recorded.accesses.between(r, r + 1).tolist():
            back += page in out
            out.discard(page)
            inside[page] = r
            inside.move_to_end(page)
        while len(inside) > limit:
            page, _ = inside.popitem(last=False)
            out.add(page)
            gone += 1
    return back, gone


def scattered(seed, rounds=60):
    rng = np.random.default_rng(seed)
    # One page per round has no ties: LRU's choice is then defined to the page.
    return vm.make([rng.integers(0, 40, 1) for _ in range(rounds)])


@pytest.mark.parametrize("seed", range(20))
def test_lru_evicts_what_lru_by_hand_does(seed):
    recorded = scattered(seed)
    model = guest(recorded, 12)
    model.advance(recorded.n_rounds)
    counters = model.counters()
    assert (counters.swap_ins + counters.refaults, counters.swap_outs) == by_hand(recorded, 12)


def test_a_page_that_stays_clean_is_written_once():
    """Pages 0..9 are written, then read in turn by a guest that has room for five of them."""
    turns = [[page] for _ in range(4) for page in range(10)]
    written = [turn if index < 10 else [] for index, turn in enumerate(turns)]
    recorded = vm.make(turns, written)
    model = guest(recorded, 5)
    model.advance(40)
    assert model.swap_outs == 10
    assert model.swap_ins == 30  # a cycle longer than the memory: LRU misses always


def test_clock_spares_what_was_used_since_its_hand_passed():
    """Page 0 is used before each new one. CLOCK takes it once, when all have been used since the
    hand passed, and keeps it from then on."""
    turns = [[0, page] for page in range(1, 30)]
    model = guest(vm.make(turns), 4, policy="clock")
    model.advance(len(turns))
    frames, back = model.evictions()
    assert frames[back].tolist() == [0]
    assert model.swap_ins == 1


def test_a_cyclic_sweep_defeats_clock_and_lru_alike():
    turns = [[page] for _ in range(5) for page in range(20)]
    for policy in ("lru", "clock"):
        model = guest(vm.make(turns), 10, policy=policy)
        model.advance(len(turns))
        assert model.swap_ins == 80, policy


def test_it_grows_without_a_miss_and_says_what_moved():
    recorded = vm.constant(500, rounds=50)
    model = guest(recorded, 300)
    model.advance(10)
    missing = model.swap_ins
    assert missing > 0
    assert model.resize(600) == 300
    model.advance(12)
    settled = model.swap_ins
    model.advance(50)
    assert model.swap_ins == settled
    assert model.counters().limit == 600


def test_evictions_are_told_once_and_in_order():
    turns = [[page] for page in (0, 1, 2, 3, 0)]
    model = guest(vm.make(turns), 2)
    model.advance(5)
    frames, back = model.evictions()
    assert list(zip(frames.tolist(), back.tolist(), strict=True)) == [
        (0, False), (1, False), (0, True), (2, False),
    ]  # fmt: skip
    assert len(model.evictions()[0]) == 0


def test_pages_that_the_guest_freed_are_not_swapped():
    """First 400 pages, then 400 others; the guest says that it never has more than 400."""
    recorded = vm.make([vm.block(400)] * 20 + [vm.block(400, 2000)] * 20)
    table = recorded.guest.copy()
    table["allocated_bytes"] = table["anon_bytes"] = 400 * 4096
    model = Guest(_with(recorded, table), MemoryModel(**NO_SLACK))
    model.resize(1000)
    model.advance(40)
    assert model.swap_outs <= 400
    assert np.count_nonzero(model._in | model._out) == 400


def test_what_the_kernel_cannot_give_up_takes_room_from_the_others_and_stays():
    """100 pages of the kernel's: 20 were used before the first sample, none of them ever goes."""
    kernels, programs = vm.block(20), vm.block(300, 2000)
    recorded = vm.make([kernels] * 5 + [programs] * 20 + [kernels] * 5)
    table = recorded.guest.copy()
    table["t_ns"] += 5 * vm.ROUND_NS
    table["anon_bytes"] = 300 * 4096
    table["allocated_bytes"] = 400 * 4096
    model = Guest(_with(recorded, table), MemoryModel(**NO_SLACK))
    image = 96  # pages that the guest does not call its own
    model.resize(image + 100 + 250)
    model.advance(30)
    assert model.swap_outs >= 50 and np.count_nonzero(model._in) == 250
    assert model.counters().resident == image + 100 + 250
    frames, back = model.evictions()
    assert frames[~back].min() >= 2000


def test_files_in_tmpfs_swap_and_the_programs_of_the_guest_do_not():
    """400 pages that are only read (programs), and 400 written ones, by which the cache grows."""
    programs, files = vm.block(400), vm.block(400, 2000)
    sets = [np.concatenate((programs, files))] * 30
    recorded = vm.make(sets, [files] * 30)
    table = recorded.guest.copy()
    table["anon_bytes"] = 0
    table["cached_bytes"] = 800 * 4096
    table.loc[0, "cached_bytes"] = 400 * 4096
    table["allocated_bytes"] = table["cached_bytes"]
    model = Guest(_with(recorded, table), MemoryModel(**NO_SLACK))
    model.resize(96 + 400 + 300)
    model.advance(30)
    frames, _ = model.evictions()
    assert model.swap_ins > 0 and frames.min() >= 2000


def test_an_evictable_cache_is_dropped_not_written():
    files = vm.block(400, 2000)
    recorded = vm.make([files] * 30, [[]] * 30)
    table = recorded.guest.copy()
    table["anon_bytes"] = 0
    table["cached_bytes"] = table["allocated_bytes"] = 400 * 4096
    model = Guest(_with(recorded, table), MemoryModel(cache="evictable", **NO_SLACK))
    model.resize(96 + 300)
    model.advance(30)
    assert model.refaults > 0 and (model.swap_ins, model.swap_outs) == (0, 0)


def test_a_policy_or_cache_that_is_none_is_refused():
    with pytest.raises(UsageError, match="use lru or clock"):
        MemoryModel(policy="fifo")
    with pytest.raises(UsageError, match="use pinned or evictable"):
        MemoryModel(cache="gone")


def test_without_a_limit_a_real_guest_misses_nothing():
    recorded = Recorded.of(pmlkit.open(pmlkit.bundled("hotcold")))
    model = Guest(recorded, MemoryModel())
    model.advance(recorded.n_rounds)
    counters = model.counters()
    assert (counters.swap_ins, counters.refaults, counters.swap_outs) == (0, 0, 0)
    assert counters.resident <= recorded.memory_pages
