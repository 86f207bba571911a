# SPDX-License-Identifier: Apache-2.0
"""Page tables in a log, against a guest whose tables are known."""

import numpy as np
import pytest
from factories import make_trace
from hypothesis import given, settings
from hypothesis import strategies as st
from pagetable_guest import Guest, truth, write_trace

from pmlkit import pagetables, workingset
from pmlkit.errors import NeedsError, PmlkitError, UsageError
from pmlkit.trace.reader import Trace

on_disk = settings(max_examples=25)


def small_guest():
    """One space: pages 0..599 at frames 5000.., read; pages 0..9 written; one large page."""
    guest = Guest()
    root = guest.space()
    for page in range(600):
        guest.map(root, page, 5000 + page)
    guest.map(root, 1024, 8192, large=True)
    for page in range(600):
        guest.read(root, page)
    for page in range(10):
        guest.write(root, page)
    guest.read(root, 1024 + 7)
    guest.close_round()
    guest.read(root, 3)
    guest.close_round()
    return guest, root


@pytest.fixture
def made(tmp_path):
    guest, root = small_guest()
    return write_trace(tmp_path / "g.trace", guest), guest, root


def test_logged_tables_with_level_and_order(made):
    trace, guest, root = made
    found = pagetables.logged(trace)
    first = found[found["round"] == 0]
    assert dict(zip(first.table, first.level, strict=True)) == guest.tables
    assert first.table.iloc[0] == root and first.level.iloc[:4].tolist() == [4, 3, 2, 1]
    assert first.place.is_monotonic_increasing and first.place.iloc[0] == 0
    assert found[found["round"] == 1].level.tolist() == [4, 3, 2, 1]


def test_a_shared_table_counts_once(tmp_path):
    guest = Guest()
    one, two = guest.space(), guest.space()
    for page in range(100):
        guest.map(one, page, 700 + page)
    guest.map(two, 1 << 20, 9000)
    guest.entries[two, 0] = list(guest.entries[one, 0])  # the second space shares the subtree
    for page in range(100):
        guest.read(one, page)
        guest.read(two, page)
    guest.close_round()
    trace = write_trace(tmp_path / "g.trace", guest)
    _, gfns = pagetables.covered(pagetables.entries(trace))
    assert set(gfns) == set(range(700, 800))


def test_expansion_is_the_truth_where_flags_are_fresh(made):
    trace, guest, _ = made
    rounds, gfns = pagetables.covered(pagetables.entries(trace))
    first = set(gfns[rounds == 0].tolist())
    assert first == {*range(5000, 5600), *range(8192, 8192 + 512)}
    assert truth(guest, 0) <= first
    _, small = pagetables.covered(pagetables.entries(trace, end_ns=1), large=False)
    assert set(small) == set(range(5000, 5600))


def test_the_kernels_entries_are_not_used_memory(tmp_path):
    guest = Guest()
    root = guest.space()
    guest.map(root, 0, 77)
    guest.map(root, 1 << 20, 1 << 18, large=True, user=False, accessed=True)
    guest.read(root, 0)
    guest.read(root, (1 << 20) + 5)
    guest.close_round()
    rows = pagetables.entries(write_trace(tmp_path / "g.trace", guest))
    assert len(pagetables.covered(rows)[1]) == 1
    assert len(pagetables.covered(rows, whose="all")[1]) == 513
    rows["flags"] &= ~np.uint8(pagetables.USER)  # a guest without programs
    assert len(pagetables.covered(rows)[1]) == 513
    with pytest.raises(UsageError, match="user or all"):
        pagetables.covered(rows, whose="some")


@pytest.mark.parametrize(("index", "pages"), [(600, 1024), (500, 512)])
def test_large_pages_without_pae_have_4_mib(index, pages):
    import pandas as pd

    row = {"round": 0, "table": 9, "level": 2, "index": index, "target": 512, "flags": 7}
    assert pagetables.spans(pd.DataFrame([row])).tolist() == [pages]


@on_disk
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 1300), st.booleans()), max_size=40),
        min_size=1,
        max_size=5,
    )
)
def test_nothing_escapes_the_logged_tables(tmp_path, accesses):
    """All that is touched in a round lies under a table that is logged in it."""
    guest = Guest()
    root = guest.space()
    for page in range(1301):
        guest.map(root, page, 40_000 + 3 * page % 1301)
    for touched in accesses:
        for page, write in touched:
            (guest.write if write else guest.read)(root, page)
        guest.close_round()
    path = tmp_path / "g.trace"
    trace = write_trace(path, guest)
    rows = pagetables.entries(trace) if trace.has_tables else None
    for number in range(len(accesses)):
        under = set()
        if rows is not None:
            rounds, gfns = pagetables.covered(rows, accessed=False)
            under = set(gfns[rounds == number].tolist())
        assert truth(guest, number) <= under
    import shutil

    shutil.rmtree(path)


def test_expand_in_a_working_set(made):
    trace, guest, _ = made
    sizes = {
        how: workingset.estimate(trace.pml, "10ms", page_tables=how)["pages"].tolist()
        for how in ("drop", "keep", "expand")
    }
    tables = [len(guest.tables), 4]
    assert sizes["drop"] == [10, 0]
    assert sizes["keep"] == [10 + tables[0], tables[1]]
    assert sizes["expand"] == [600 + 512, 512 + 512]  # the old accessed flags of a table stay
    both = workingset.estimate(trace.pml, "20ms", page_tables="expand")
    assert both["pages"].tolist() == [600 + 512]
    only = workingset.estimate(trace.pml, "10ms", page_tables="expand", kinds="w")
    assert only["pages"].tolist() == [10, 0]
    late = workingset.estimate(trace.pml, "10ms", page_tables="expand", start="10ms")
    assert late["pages"].tolist() == [512 + 512]


def test_what_is_missing_is_said(tmp_path):
    guest, _ = small_guest()
    trace = write_trace(tmp_path / "g.trace", guest, marks=False)
    with pytest.raises(NeedsError, match="marks of page tables"):
        pagetables.logged(trace)
    plain = Trace.open(make_trace(tmp_path / "p.trace", kind="pml"))
    with pytest.raises(NeedsError, match="snapshots"):
        workingset.estimate(plain, "10ms", page_tables="expand")
    with pytest.raises(NeedsError, match=r"trace\.pml"):
        workingset.estimate(trace, "10ms", page_tables="expand")
    assert not pagetables.is_marked(plain)


@pytest.mark.parametrize("rounds, gfns", [([1 << 24], [1]), ([1], [1 << 40]), ([-1], [1])])
def test_what_does_not_fit_into_a_pair_is_refused(rounds, gfns):
    """It would be another pair without a word."""
    with pytest.raises(PmlkitError, match="more than 2\\^24 rounds, or from 4 PiB on"):
        pagetables.pack(np.array(rounds), np.array(gfns, np.uint64))
    assert pagetables.unpack(pagetables.pack([(1 << 24) - 1], [(1 << 40) - 1])) == (
        (1 << 24) - 1,
        (1 << 40) - 1,
    )
