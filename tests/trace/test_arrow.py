# SPDX-License-Identifier: Apache-2.0
"""Arrow's columns as arrays of numpy: the same values as Arrow's own conversion gives."""

import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlkit.lazy import without
from pmlkit.trace import arrow
from pmlkit.trace.schema import ENTRIES

TYPES = st.sampled_from([pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.int64()])


@given(st.lists(st.lists(st.integers(0, 255), max_size=5), max_size=4), TYPES, st.integers(0, 3))
def test_values_are_those_of_to_numpy(chunks, kind, first):
    column = pa.chunked_array([pa.array(chunk, kind) for chunk in chunks], kind).slice(first)
    found = arrow.values(column)
    assert found.dtype == column.to_numpy().dtype
    assert found.tolist() == column.to_numpy().tolist()
    for chunk in column.chunks:
        assert arrow.values(chunk).tolist() == chunk.to_pylist()


@pytest.mark.filterwarnings("ignore:Exporting an unversioned")  # numpy tries that, too
@pytest.mark.parametrize("column", [pa.array(["a"]), pa.array([True]), pa.array([1, None])])
def test_texts_bits_and_nulls_are_refused(column):
    with pytest.raises(pa.ArrowException):
        arrow.values(column)


@given(st.lists(st.booleans(), max_size=20))
def test_a_mask_filters_as_arrows_own(chosen):
    numbers = pa.array(np.arange(len(chosen)))
    found = numbers.filter(arrow.mask(np.array(chosen, bool)))
    assert found.to_pylist() == np.flatnonzero(chosen).tolist()


def test_an_empty_table_has_the_columns():
    assert arrow.empty(ENTRIES).equals(ENTRIES.empty_table())


def test_a_hidden_module_is_found_again_afterwards(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with without("colorsys", "sys"), pytest.raises(ImportError):
        import colorsys
    import colorsys

    assert colorsys.__name__ == "colorsys"
    assert sys.modules["sys"] is sys
