# SPDX-License-Identifier: Apache-2.0
"""Ghost lists, and what Geiger and Badis make of disk requests."""

import numpy as np
import pandas as pd
import pytest
import synthetic_vm as vm
from hypothesis import given
from hypothesis import strategies as st

from pmlkit import techniques
from pmlkit.techniques import ghosts
from pmlkit.techniques.geiger import Inference
from pmlkit.techniques.ghosts import GhostList

MOVES = st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=200)


def by_hand(moves):
    gone, distances = [], []
    for page, back in moves:
        distance = -1
        if page in gone:
            if back:
                distance = len(gone) - 1 - gone.index(page)
            gone.remove(page)
        if not back:
            gone.append(page)
        distances.append(distance)
    return distances


@given(MOVES, st.integers(1, 60))
def test_a_ghost_list_knows_how_far_back_a_page_was(moves, at_once):
    ghosts, distances = GhostList(2), []
    ghosts._tree = np.zeros(8, np.int64)  # so small that it has to be made anew now and then
    for start in range(0, len(moves), at_once):
        part = moves[start : start + at_once]
        pages, back = zip(*part, strict=True)
        distances += ghosts.follow(pages, back).tolist()
    assert distances == by_hand(moves)


def test_the_compiled_loop_is_the_plain_one():
    rng = np.random.default_rng(2)
    pages, back = rng.integers(0, 50, 3000), rng.integers(0, 2, 3000).astype(bool)
    plain = GhostList()
    plain._make_room(len(pages), 50)
    assert len(np.unique(pages)) == 50
    expected = np.full(len(pages), -1)
    ghosts._follow(pages, back, plain._at, plain._tree, 0, expected)
    assert np.array_equal(GhostList().follow(pages, back), expected)


def test_places_on_the_disk_may_be_far_apart():
    pages, back = [5, 1 << 60, 5, 1 << 60], [False, False, True, True]
    assert GhostList().follow(pages, back).tolist() == [-1, -1, 1, 0]


def requests(*rows):
    """Each (place, frame, "r" or "w")."""
    place, frame, how = zip(*rows, strict=True)
    return np.array(place) * 8, np.array(frame), np.array([h == "w" for h in how])


def test_a_frame_read_from_another_place_means_that_the_first_is_gone():
    inference = Inference()
    assert len(inference.follow(*requests((1, 7, "r"), (2, 7, "r")))) == 0
    assert inference.evictions == 1
    assert inference.follow(*requests((1, 9, "r"))).tolist() == [0]
    assert inference.reloads == 1


def test_reading_a_place_again_into_its_frame_evicts_nothing():
    inference = Inference()
    inference.follow(*requests((1, 7, "r"), (1, 7, "r")))
    assert inference.evictions == 0


def test_a_place_that_moved_to_another_frame_is_not_gone():
    inference = Inference()
    inference.follow(*requests((1, 7, "r"), (1, 8, "r"), (2, 7, "r")))
    assert inference.evictions == 0


def test_swapped_out_pages_come_back_from_as_far_as_they_went():
    inference = Inference()
    inference.follow(*requests(*[(place, place, "w") for place in range(10)]))
    assert inference.follow(*requests((9, 20, "r"), (0, 21, "r"))).tolist() == [0, 8]


def with_disk(rows, rounds=200):
    """A VM with requests (round, place, frame, write)."""
    recorded = vm.constant(300, rounds=rounds, disk=True)
    table = pd.DataFrame(rows, columns=["round", "place", "gfn", "write"])
    table["t_ns"] = table["round"] * vm.ROUND_NS
    table["sector"] = table["place"] * 8
    from dataclasses import replace

    return replace(recorded, disk=table)


def cyclic(pages, start, rounds):
    """From round `start`, a guest that lacks `pages`: each comes back after all others went."""
    rows = [(start, place, place, True) for place in range(pages)]
    for r in range(start + 1, rounds):
        for k in range(10):
            place = ((r - start - 1) * 10 + k) % pages
            rows += [(r, place, 1000 + place, False), (r, place, 1000 + place, True)]
    return rows


def test_geiger_says_nothing_until_the_guest_evicts_and_then_what_is_missing():
    recorded = with_disk(cyclic(150, 100, 200))
    estimates = techniques.run("geiger", recorded, window=vm.WINDOW_NS).estimates
    early = estimates[estimates["t_ns"] <= 100 * vm.ROUND_NS]
    assert early["pages"].isna().all() and len(early) == 10
    assert set(estimates["pages"].iloc[12:]) == {vm.PAGES + 150}


def test_badis_takes_geigers_word_when_it_has_one_and_vmwares_otherwise():
    recorded = with_disk(cyclic(150, 100, 200))
    estimates = techniques.run("badis", recorded, window=vm.WINDOW_NS, seed=1).estimates
    alone = techniques.run("vmware", recorded, window=vm.WINDOW_NS, seed=1).estimates
    early = estimates["t_ns"] <= 100 * vm.ROUND_NS
    assert estimates["pages"][early].equals(alone["pages"][early])
    assert estimates["pages"].iloc[-8:].max() == pytest.approx(vm.PAGES + 150, abs=12)
    assert estimates["pages"][early].max() < vm.PAGES
