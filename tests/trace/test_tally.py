# SPDX-License-Identifier: Apache-2.0
"""Counting runs as they pass is counting."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pmlkit.trace.entries import Tally

PIECES = st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=6)


@given(PIECES, st.integers(0, 45))
def test_the_counts_are_those_of_all_values(pieces, length):
    values = np.sort(np.array([v for piece in pieces for v in piece], np.uint32))
    cuts = np.cumsum([len(piece) for piece in pieces])
    tally, other = Tally(), Tally()
    for number, piece in enumerate(np.split(values, cuts)):
        (tally if number % 2 else other).add(piece)
    tally.extend(other)
    assert tally.last == (values[-1] if len(values) else -1)
    expected = np.bincount(values, minlength=64)[:length]
    np.testing.assert_array_equal(tally.counts(length), expected)
