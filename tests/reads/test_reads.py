# SPDX-License-Identifier: Apache-2.0
"""Estimates of reads, against guests whose page tables and accesses are known."""

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pagetable_guest import Guest, truth, write_trace

from pmlkit import reads
from pmlkit.errors import NeedsError, UsageError
from pmlkit.reads import judge
from pmlkit.reads.calibration import Calibration

on_disk = settings(max_examples=10)


def full_guest(phases):
    """A buffer of 1024 pages, all mapped and once used; each phase is (pages, written)."""
    guest = Guest()
    root = guest.space()
    for page in range(1024):
        guest.map(root, page, 50_000 + page)
    for page in range(1024):
        guest.write(root, page)
    guest.close_round()
    for pages, written in phases:
        for page in pages:
            (guest.write if written else guest.read)(root, page)
        guest.close_round()
    return guest


def values(trace, method, column="pages", **how):
    return reads.estimate(trace, method, **how)[column].tolist()


def test_a_read_phase_is_nothing_to_pml_and_all_there_to_its_tables(tmp_path):
    guest = full_guest([(range(1024), False), (range(0, 1024, 512), False), ([], False)])
    trace = write_trace(tmp_path / "g.trace", guest, phases=[("write", 0), ("read", 1)])
    assert values(trace, "written") == [1024, 0, 0, 0]
    assert values(trace, "leaves") == [1024, 1024, 1024, 0]
    assert values(trace, "present") == values(trace, "accessed") == [1024, 1024, 1024, 0]
    assert values(trace, "harvest") == [1024, 1024, 2, 0]
    found = reads.estimate(trace, "accessed")
    assert found["phase"].tolist() == ["write", "read", "read", "read"]
    assert found["low"].tolist() == [1024, 0, 0, 0] and (found["why"] == "").all()
    assert found["bytes"].tolist() == [4096 * pages for pages in found["pages"]]
    assert found["t_ns"].tolist() == [10**7, 2 * 10**7, 3 * 10**7, 4 * 10**7]


def test_windows_hold_each_frame_once(tmp_path):
    guest = full_guest([(range(600), False), (range(500, 1024), True)])
    trace = write_trace(tmp_path / "g.trace", guest)
    assert values(trace, "harvest", window="30ms") == [1024]
    assert values(trace, "accessed", window="2r") == [1024, 1024]
    assert values(trace, "harvest", window="2r", step="sliding") == [1024, 1024, 1024]
    assert values(trace, "written", window="1r", start="10ms") == [0, 524]
    assert values(trace, "leaves", "tables", window="3r") == [2]


def test_what_has_just_been_accessed_is_certain(tmp_path):
    guest = Guest()
    root = guest.space()
    for page in range(100):
        guest.map(root, page, 900 + page)
    for pages in (range(10), range(30), range(5)):
        for page in pages:
            guest.read(root, page)
        guest.close_round()
    trace = write_trace(tmp_path / "g.trace", guest)
    found = reads.estimate(trace, "accessed")
    assert found["low"].tolist() == [0, 20, 0]  # of the first round nothing was seen before
    assert found["pages"].tolist() == [10, 30, 30]
    assert found["high"].tolist() == [100, 100, 100]


def test_an_unmapped_page_stays_below_the_upper_bound(tmp_path):
    guest = full_guest([(range(1024), False)])
    root = next(iter(guest.tables))
    guest.read(root, 7)
    guest.unmap(root, 7)
    guest.close_round()
    trace = write_trace(tmp_path / "g.trace", guest)
    row = reads.estimate(trace, "accessed").iloc[-1]
    assert row.high == 512 and row.pages == 511 and truth(guest, 2) == {50_007}


def test_what_the_kernel_reads_cannot_be_known_and_that_is_said(tmp_path):
    guest = Guest()
    root = guest.space()
    guest.map(root, 0, 77)
    guest.map(root, 1 << 20, 1 << 18, large=True, user=False, accessed=True)
    for page in (0, (1 << 20) + 5):
        guest.read(root, page)
    guest.close_round()
    row = reads.estimate(write_trace(tmp_path / "g.trace", guest), "accessed").iloc[0]
    assert (row.pages, row.high, row.unresolved) == (1, 513, 512)
    assert "kernel" in row.why


accesses = st.lists(
    st.lists(st.tuples(st.integers(0, 1100), st.booleans()), max_size=40), min_size=1, max_size=5
)


@on_disk
@given(accesses)
def test_the_bounds_hold(tmp_path, rounds):
    guest = Guest()
    root, other = guest.space(), guest.space()
    for page in range(1101):
        guest.map(root, page, 40_000 + page, accessed=page % 3 == 0)
        guest.map(other, page, 40_000 + page)
    for touched in rounds:
        for page, write in touched:
            (guest.write if write else guest.read)(root if page % 2 else other, page)
        guest.close_round()
    trace = write_trace(tmp_path / "g.trace", guest)
    if trace.has_tables:
        sizes = [len(truth(guest, number)) for number in range(len(rounds))]
        for method in ("leaves", "present", "accessed"):
            found = reads.estimate(trace, method)
            assert (found["low"] <= sizes).all() and (sizes <= found["high"]).all(), method
            assert (found["low"] <= found["pages"]).all()
            assert (found["pages"] <= found["high"]).all()
        assert (reads.estimate(trace, "accessed")["pages"] >= sizes).all()
        assert values(trace, "harvest") == sizes
    shutil.rmtree(trace.path)


def test_wrong_use_and_what_is_missing(tmp_path):
    guest = full_guest([])
    trace = write_trace(tmp_path / "g.trace", guest)
    with pytest.raises(UsageError, match="choose from written"):
        reads.estimate(trace, "guess")
    with pytest.raises(NeedsError, match="harvest"):
        reads.estimate(trace.pml, "harvest")
    with pytest.raises(NeedsError, match="harvest"):
        reads.estimate(trace.pml, "density")
    bare = write_trace(tmp_path / "b.trace", guest, marks=False)
    with pytest.raises(NeedsError, match="marks"):
        reads.estimate(bare, "accessed")


def test_cleared_flags_tell_what_was_used_in_the_round(tmp_path):
    guest = full_guest([(range(1024), False)])
    guest.close_round(clear=True)
    guest.map(next(iter(guest.tables)), 1 << 20, 1 << 18, large=True, user=False, accessed=True)
    root = next(iter(guest.tables))
    for page in (*range(1024), 1 << 20):
        guest.read(root, page)
    guest.close_round(clear=True)
    for page in (*range(30), (1 << 20) + 7, (1 << 20) + 8):
        guest.read(root, page)
    guest.map(root, 40, 70_000, accessed=True)  # as Linux makes it, for pages around a fault
    guest.close_round(clear=True)
    guest.read(root, 2)
    guest.close_round(clear=True)
    trace = write_trace(tmp_path / "g.trace", guest)
    found = reads.estimate(trace, "accessed")
    assert found["pages"].tolist()[-2:] == [31, 1]
    assert found["low"].tolist()[-2:] == [30, 1]
    known = reads.sets(trace)
    assert known.cleared and known.kernel.gfn.tolist()[-1:] == [1 << 18]
    calibration = Calibration(0.0, 1.0, 2.0, {("accessed", True): (0.9, 1.25)})
    found = reads.estimate(trace, "accessed", calibration=calibration)
    assert found["pages"].tolist()[-2:] == [32, 1]  # of the kernel's page two, of the new entry 0
    assert (found["low"].iloc[-2], found["high"].iloc[-2]) == (31, 33)
    assert "90 %" in found["why"].iloc[-1]
    unsure = judge.unsure(trace).iloc[-1]
    assert (unsure["fresh"], unsure["used"], unsure["entries"], unsure["pages"]) == (1, 0, 1, 2)


def test_a_table_that_was_freed_and_holds_data_counts_for_nothing(tmp_path):
    guest = full_guest([(range(1024), False), (range(8), False)])
    trace = write_trace(tmp_path / "g.trace", guest)
    log, rows, touched = guest.rounds[2]
    # To the processor they would be large pages of 1 GiB each, and beyond all memory.
    freed = [(2000, 3, index, (1 << 32) + index, 0b100111) for index in range(40)]
    guest.rounds[2] = ([*log, (2000, 0x13)], sorted([*rows, *freed]), touched)
    data = write_trace(tmp_path / "d.trace", guest)
    for method in ("present", "accessed"):
        assert values(data, method) == values(trace, method)
