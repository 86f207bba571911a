# SPDX-License-Identifier: Apache-2.0
"""Estimates of reads, against guests whose page tables and accesses are known."""

import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pagetable_guest import Guest, truth, write_trace

from pmlkit import reads
from pmlkit.errors import NeedsError, UsageError

on_disk = settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])


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
    with pytest.raises(NeedsError, match="harvested rounds"):
        reads.estimate(trace.pml, "density")
    bare = write_trace(tmp_path / "b.trace", guest, marks=False)
    with pytest.raises(NeedsError, match="marks"):
        reads.estimate(bare, "accessed")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A guest that uses a hot half of what it once used, beside a direct map of large pages."""
    rng = np.random.default_rng(3)
    guest = Guest()
    root = guest.space()
    for page in range(4 * 512):
        guest.map(root, page, (1 << 17) + page)
        guest.write(root, page)
    for large in range(4):
        guest.map(root, (1 << 20) + 512 * large, (1 << 18) + 512 * large, True, False, True)
    guest.close_round()
    hot = np.array([page for page in range(4 * 512) if page // 512 % 2 == 0 or page % 8 == 0])
    for _ in range(24):
        for page in rng.choice(hot, 750, replace=False):
            guest.read(root, int(page))
        for page in rng.integers(0, 1024, 40):
            guest.read(root, int((1 << 20) + page))
        guest.close_round()
    return write_trace(tmp_path_factory.mktemp("mixed") / "g.trace", guest), guest


def test_densities_learnt_from_few_harvests(mixed):
    from pmlkit import reads_density

    trace, guest = mixed
    found = reads_density.estimate(trace, rounds=range(0, 25, 4))
    seen = np.array([len(truth(guest, number)) for number in range(25)])
    errors = np.abs(found["pages"] / seen - 1)[2:]
    assert errors.median() < 0.05
    plain = np.abs(reads.estimate(trace, "accessed")["pages"] / seen - 1)[2:]
    assert plain.median() > 1  # old flags: nearly three times too many
    inside = (found["low"] <= seen) & (seen <= found["high"])
    assert inside[2:].mean() >= 0.9
    assert (found["low"] <= found["pages"]).all() and (found["pages"] <= found["high"]).all()


def test_a_model_of_another_guest_and_windows_of_several_rounds(mixed):
    from pmlkit import reads_density

    trace, guest = mixed
    model = reads_density.fit([trace])
    assert model.rounds == 24 and list(model.coefficients.index) == list(reads_density.FEATURES)
    found = reads.estimate(trace.pml, "density", model=model)
    assert len(found) == 25
    both = reads.estimate(trace, "density", window="2r", model=model)
    one = reads.estimate(trace, "density", model=model)["pages"].to_numpy()
    assert (both["pages"].to_numpy()[:12] >= 0.95 * one[:24:2]).all()


def test_too_few_harvests_for_an_interval_are_said(mixed):
    from pmlkit import reads_density

    trace, _ = mixed
    found = reads_density.estimate(trace, rounds=[1, 2])
    assert (found["why"] != "").all()
    bounds = reads.estimate(trace, "accessed")
    assert (found["low"] == bounds["low"]).all() and (found["high"] == bounds["high"]).all()
