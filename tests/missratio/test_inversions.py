# SPDX-License-Identifier: Apache-2.0
"""Stack distances by numpy alone: against counting, and against the compiled stack."""

import sys
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pmlkit
from pmlkit import missratio
from pmlkit.kernels import by_page
from pmlkit.missratio import curves
from pmlkit.missratio.inversions import distances, earlier_greater
from pmlkit.selection import stream


@pytest.mark.parametrize("size", [0, 1, 2, 63, 64, 65, 1023, 1024, 1025, 3000])
def test_inversions_are_those_that_are_counted(size):
    ranks = np.random.default_rng(size).permutation(size)
    expected = [int((ranks[:place] > ranks[place]).sum()) for place in range(size)]
    assert earlier_greater(ranks).tolist() == expected
    assert earlier_greater(np.arange(size)).tolist() == [0] * size
    assert earlier_greater(np.arange(size)[::-1]).tolist() == list(range(size))


def test_inversions_of_more_blocks_than_a_block_has_places():
    size = (1 << 20) + 3000  # 1,027 blocks
    ranks = np.random.default_rng(1).permutation(size)
    found = earlier_greater(ranks)
    some = [5, 1025, size // 2, size - 2000, size - 1]
    assert found[some].tolist() == [int((ranks[:place] > ranks[place]).sum()) for place in some]
    assert earlier_greater(np.arange(size)[::-1]).tolist() == list(range(size))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=40), st.booleans())
def test_last_uses_are_those_of_a_dictionary(uses, distinct):
    uses.sort(key=lambda use: use[0])
    seen, before, expected = set(), {}, []
    for use in uses:
        if distinct and use in seen:
            continue
        seen.add(use)
        expected.append(before.get(use[1], -1))
        before[use[1]] = len(expected) - 1
    rounds, gfns = (np.array([use[i] for use in uses], t) for i, t in ((0, "i8"), (1, "u8")))
    assert by_page.last_uses(rounds, gfns, distinct).tolist() == expected


MORE_BLOCKS = (1 << 20) + 5000  # more than a block has places: their numbers take more bits


@pytest.mark.parametrize(
    ("uses", "pages"), [(1, 1), (50, 3), (5000, 40), (5000, 4000), (9, 7), (MORE_BLOCKS, 4000)]
)
def test_distances_are_those_of_the_compiled_stack(uses, pages):
    gfns = np.random.default_rng(uses).integers(0, pages, uses).astype(np.uint64)
    found = distances(by_page.last_uses(np.zeros(uses, np.int64), gfns))
    expected = missratio.stack_distances(gfns)
    assert found.tolist() == expected[expected >= 0].tolist()


@pytest.mark.parametrize("part", [{}, {"start": "1s", "end": "3s", "kinds": "w"}])
@pytest.mark.parametrize("nested", [False, True])
def test_the_curve_of_a_trace_is_the_same_either_way(part, nested):
    trace = pmlkit.open("hotcold")
    trace = trace.pml if nested else trace
    with patch.dict(sys.modules):
        sys.modules.pop("numba", None)
        assert curves._is_faster_at_once(stream(trace, **part))
        at_once = missratio.of_trace(trace, **part)
        assert "numba" not in sys.modules
    with patch.object(curves, "AT_ONCE", 0):
        streamed = missratio.of_trace(trace, **part)
    assert at_once.uses == streamed.uses and at_once.pages == streamed.pages
    assert at_once.miss_ratio.tolist() == streamed.miss_ratio.tolist()
