# SPDX-License-Identifier: Apache-2.0
"""The working set by page against loops over sets, and against answers known beforehand."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlkit.errors import UsageError
from pmlkit.kernels import by_page
from pmlkit.timeline import Windows

HUGE = 2**40


@st.composite
def logs(draw, max_rounds=12, distinct=False):
    """(rounds, gfns, n_rounds): few pages and many repetitions, rounds without entries."""
    n_rounds = draw(st.integers(1, max_rounds))
    gfn = st.sampled_from([0, 1, 2, 3, 7, HUGE, 2**64 - 1])
    entries = draw(
        st.lists(st.tuples(st.integers(0, n_rounds - 1), gfn), max_size=40, unique=distinct)
    )
    entries.sort(key=lambda entry: entry[0])
    return [r for r, _ in entries], [g for _, g in entries], n_rounds


def window_oracle(log, t, k, m):
    rounds, gfns, _ = log
    counts = Counter(g for r, g in zip(rounds, gfns, strict=True) if t - k < r <= t)
    return sum(count >= m for count in counts.values())


def sliding_oracle(log, k, m):
    return [window_oracle(log, t, k, m) for t in range(log[2])]


windows = st.integers(1, 15)
thresholds = st.integers(1, 4)


@given(logs(), windows, thresholds)
def test_sliding_equals_the_oracle(log, k, m):
    assert by_page.sliding(by_page.references(*log), k, m).tolist() == sliding_oracle(log, k, m)


def tumbling(refs, k, m=1):
    return by_page.sliding(refs, Windows.of_rounds(refs.n_rounds, k, k), m).tolist()


@given(logs(), windows, thresholds)
def test_tumbling_windows_equal_the_oracle(log, k, m):
    n = log[2]
    expected = [window_oracle(log, min(s + k, n) - 1, min(k, n - s), m) for s in range(0, n, k)]
    assert tumbling(by_page.references(*log), k, m) == expected


@given(logs(), windows, st.integers(1, 4))
def test_intervals_without_their_pages_have_the_same_working_sets(log, k, step):
    refs = by_page.references(*log)
    of = Windows.of_rounds(refs.n_rounds, k, step)
    assert refs.intervals.count.sum() == len(refs)
    assert refs.intervals.sliding(of).tolist() == by_page.sliding(refs, of).tolist()


@given(logs(), windows)
def test_distinct_counts_a_page_once_in_a_round(log, k):
    once = sorted(set(zip(log[0], log[1], strict=True)))
    expected = sliding_oracle(([r for r, _ in once], [g for _, g in once], log[2]), k, 2)
    assert by_page.sliding(by_page.references(*log, distinct=True), k, 2).tolist() == expected


@given(logs(), st.integers(1, 6))
def test_the_plateau_equals_the_oracle(log, stable):
    rounds, gfns, n = log
    seen, dist = set(), []
    for t in range(n):
        seen |= {g for r, g in zip(rounds, gfns, strict=True) if r == t}
        dist.append(len(seen))
    expected, latest = [], np.nan
    for t in range(n):
        if t >= stable and len(set(dist[t - stable : t + 1])) == 1:
            latest = dist[t]
        expected.append(latest)
    np.testing.assert_array_equal(by_page.plateau(dist, stable), expected)


@given(logs(), st.sets(st.sampled_from([0, 1, 7, HUGE, 5])), windows)
def test_restricting_to_frames_is_dropping_the_others(log, frames, k):
    kept = [(r, g) for r, g in zip(log[0], log[1], strict=True) if g in frames]
    expected = sliding_oracle(([r for r, _ in kept], [g for _, g in kept], log[2]), k, 1)
    refs = by_page.references(*log)
    refs = refs.select(np.isin(refs.gfn, np.array(sorted(frames), np.uint64)))
    assert by_page.sliding(refs, k).tolist() == expected


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=50))
def test_the_fast_order_is_the_stable_order(keys):
    keys = np.array(keys, np.uint64)
    np.testing.assert_array_equal(by_page.stable_order(keys), np.argsort(keys, kind="stable"))


def test_the_fast_order_of_one_to_four_digits():
    for top in (2**16 - 1, 2**16, 2**32 - 1, 2**32, 2**48, 2**64 - 1):  # digits have 16 bits
        keys = np.array([top, 0, top, 0], np.uint64)
        assert by_page.stable_order(keys).tolist() == [1, 3, 0, 2]


def made(per_round):
    """References out of a list of the pages of each round."""
    rounds = [r for r, pages in enumerate(per_round) for _ in pages]
    return by_page.references(rounds, [g for pages in per_round for g in pages], len(per_round))


def test_hot_and_cold():
    """N hot pages in every round, M cold ones a round at a time: N + M once T covers all."""
    hot, cold = list(range(100)), np.arange(1000, 1400).reshape(8, 50).tolist()
    refs = made([hot + c for c in cold] * 2)
    assert by_page.sliding(refs, 8)[7:].tolist() == [500] * 9
    assert tumbling(refs, 8) == [500, 500]
    assert tumbling(refs, 1) == [150] * 16
    assert tumbling(refs, 8, 2) == [100, 100]
    assert by_page.sliding(refs, 16, min_count=2)[-1] == 500
    assert by_page.sliding(refs, 16, min_count=3)[-1] == 100


def test_alternating_pages():
    refs = made([[1, 2], [3, 4]] * 4)
    assert by_page.sliding(refs, 1).tolist() == [2] * 8
    assert by_page.sliding(refs, 2).tolist() == [2] + [4] * 7
    assert by_page.sliding(refs, 2, 2).tolist() == [0] * 8
    assert by_page.sliding(refs, 3, 2).tolist() == [0, 0] + [2] * 6


def test_constant_pages():
    refs = made([[5, 6, 7]] * 10)
    for k in (1, 3, 10):
        assert by_page.sliding(refs, k).tolist() == [3] * 10


def test_a_step_is_followed_after_one_window():
    refs = made([[1, 2, 3, 4]] * 5 + [[1]] * 5)
    assert by_page.sliding(refs, 3).tolist() == [4] * 7 + [1] * 3


def test_a_plateau_that_never_comes():
    assert np.isnan(by_page.plateau(np.arange(1, 11), 1)).all()


def test_nothing_at_all():
    for n_rounds in (0, 1, 3):
        refs = by_page.references([], [], n_rounds)
        assert by_page.sliding(refs, 2, 2).tolist() == [0] * n_rounds
        assert tumbling(refs, 2) == [0] * -(-n_rounds // 2)
        assert len(by_page.plateau(np.zeros(n_rounds), 1)) == n_rounds


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "1"])
def test_what_is_no_count_is_refused(wrong):
    refs = made([[1]])
    for call in (
        lambda: by_page.sliding(refs, 1, wrong),
        lambda: by_page.sliding(refs, wrong),
        lambda: by_page.plateau([1], wrong),
    ):
        with pytest.raises(UsageError, match="1 or more"):
            call()
