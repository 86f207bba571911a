# SPDX-License-Identifier: Apache-2.0
"""The log against a PML written down write by write, and against the manual's arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pml_hardware import hardware

from pmlkit.kernels.pml import REARM, pml_log


def replayed(writes, *how):
    """Give what `pml_log` says in the same form, after checking what it says twice."""
    columns = [np.array(column) for column in zip(*writes, strict=True)]
    window, gfn, vcpu = columns or [np.zeros(0, np.int64)] * 3
    log = pml_log(window, gfn, vcpu, *how)
    assert log.batch.tolist() == sorted(log.batch.tolist())
    assert np.bincount(log.batch, minlength=len(log.entries)).tolist() == log.entries.tolist()
    starts = np.cumsum(log.entries) - log.entries
    assert log.order[starts].tolist() == log.first.tolist()
    pages = [gfn[log.order[s : s + n]].tolist() for s, n in zip(starts, log.entries, strict=True)]
    full = log.full.tolist()
    return list(zip(log.round.tolist(), log.vcpu.tolist(), full, pages, strict=True))


@st.composite
def written(draw, vcpus):
    """Writes in windows: a page at most once in each, in any order."""
    pages = st.tuples(st.integers(0, 12), st.integers(0, vcpus - 1))
    windows = st.lists(pages, max_size=14, unique_by=lambda write: write[0])
    return [
        (number, page, cpu)
        for number, window in enumerate(draw(st.lists(windows, max_size=10)))
        for page, cpu in window
    ]


policies = st.tuples(st.integers(1, 7), st.sampled_from(REARM), st.integers(1, 4))


@given(written(vcpus=1), policies)
def test_one_vcpu_logs_as_hardware_does(writes, how):
    assert replayed(writes, *how) == list(hardware(writes, *how))


@given(written(vcpus=3), policies)
def test_three_vcpus_log_as_hardware_does(writes, how):
    assert replayed(writes, *how) == list(hardware(writes, *how))


@pytest.mark.parametrize("vcpus", [1, 2])
@pytest.mark.parametrize("rearm", REARM)
def test_long_rounds_of_few_pages(rearm, vcpus):
    """Far more writes than entries between two drains, which short random examples seldom have."""
    random = np.random.default_rng(1)
    writes = [
        (window, int(page), int(random.integers(vcpus)))
        for window in range(400)
        for page in random.permutation(9)[: random.integers(6)]
    ]
    for capacity in (1, 2, 5, 8, 9):
        how = (capacity, rearm, 50)
        assert replayed(writes, *how) == list(hardware(writes, *how))


@given(written(vcpus=1), st.integers(1, 7))
def test_rearming_at_each_round_logs_every_first_write(writes, capacity):
    log = replayed(writes, capacity)
    assert [page for *_, pages in log for page in pages] == [page for _, page, _ in writes]


@pytest.mark.parametrize(
    ("writes", "exits", "batches"),
    [(0, 0, 0), (1, 0, 1), (511, 0, 1), (512, 0, 1), (513, 1, 2), (1024, 1, 2), (1025, 2, 3)],
)
def test_an_exit_comes_before_entry_513(writes, exits, batches):
    log = replayed([(0, page, 0) for page in range(writes)], 512)
    assert sum(full for _, _, full, _ in log) == exits
    assert len(log) == batches


def test_a_page_is_logged_again_only_after_its_rearm():
    writes = [(window, page, 0) for window in range(4) for page in (1, 2, 3)]
    never, by_round = replayed(writes, 2, "never", 2), replayed(writes, 2, "round", 2)
    assert [pages for *_, pages in never] == [[1, 2], [3]]
    assert [pages for *_, pages in by_round] == [[1, 2], [3], [1, 2], [3]]
    # Page 3 finds the buffer full and 1 and 2 are re-armed; they are logged again in window 1.
    assert [(r, full, pages) for r, _, full, pages in replayed(writes, 2, "flush", 2)] == [
        (0, True, [1, 2]),
        (0, True, [3, 1]),
        (0, False, [2, 3]),
        (1, True, [1, 2]),
        (1, True, [3, 1]),
        (1, False, [2, 3]),
    ]
