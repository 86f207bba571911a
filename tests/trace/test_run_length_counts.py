# SPDX-License-Identifier: Apache-2.0
"""Counts in run-length form equal the counts of all values."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pmlkit.trace.entries import RunLengthCounts

PIECES = st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=6)


@given(PIECES, st.integers(0, 45))
def test_the_counts_are_those_of_all_values(pieces, length):
    values = np.sort(np.array([v for piece in pieces for v in piece], np.uint32))
    cuts = np.cumsum([len(piece) for piece in pieces])
    counts, other = RunLengthCounts(), RunLengthCounts()
    for number, piece in enumerate(np.split(values, cuts)):
        (counts if number % 2 else other).add(piece)
    counts.extend(other)
    assert counts.last == (values[-1] if len(values) else -1)
    expected = np.bincount(values, minlength=64)[:length]
    np.testing.assert_array_equal(counts.to_array(length), expected)
