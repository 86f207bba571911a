# SPDX-License-Identifier: Apache-2.0
"""The kernels against loops over sets and dictionaries, and against answers known beforehand."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlkit.errors import UsageError
from pmlkit.kernels import by_page

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
    assert by_page.sliding(by_page.occurrences(*log), k, m).tolist() == sliding_oracle(log, k, m)


@given(logs(), windows, thresholds)
def test_tumbling_equals_the_oracle(log, k, m):
    n = log[2]
    expected = [window_oracle(log, min(s + k, n) - 1, min(k, n - s), m) for s in range(0, n, k)]
    assert by_page.tumbling(by_page.occurrences(*log), k, m).tolist() == expected


@given(logs(), windows)
def test_distinct_counts_a_page_once_in_a_round(log, k):
    once = sorted(set(zip(log[0], log[1], strict=True)))
    expected = sliding_oracle(([r for r, _ in once], [g for _, g in once], log[2]), k, 2)
    assert by_page.sliding(by_page.occurrences(*log, distinct=True), k, 2).tolist() == expected


@given(logs(), thresholds)
def test_the_means_over_all_windows_equal_the_oracle(log, m):
    n = log[2]
    everywhere, full = by_page.mean_sizes(by_page.occurrences(*log), m)
    assert everywhere[0] == 0 and np.isnan(full[0])
    for k in range(1, n + 1):
        sizes = sliding_oracle(log, k, m)
        assert everywhere[k] == pytest.approx(np.mean(sizes))
        assert full[k] == pytest.approx(np.mean(sizes[k - 1 :]))


@given(logs())
def test_misses_equal_the_oracle(log):
    rounds, gfns, n = log
    misses = by_page.miss_counts(by_page.occurrences(*log))
    for k in range(n + 1):
        last, expected = {}, 0
        for r, g in zip(rounds, gfns, strict=True):
            expected += g not in last or r - last[g] > k
            last[g] = r
        assert misses[k] == expected


@given(logs(distinct=True))
def test_the_derivative_of_the_mean_is_the_missing_rate(log):
    """Denning and Schwartz 1972, with what the end of a finite trace takes off: a page whose last
    use is within the last k rounds is not missed by anybody any more."""
    rounds, gfns, n = log
    occ = by_page.occurrences(*log)
    slope = np.diff(by_page.mean_sizes(occ)[0]) * n
    last = dict(zip(gfns, rounds, strict=True))
    for k in range(n):
        ended = sum(n - r <= k for r in last.values())
        assert slope[k] == pytest.approx(by_page.miss_counts(occ)[k] - ended)


@given(logs())
def test_histograms_equal_the_oracle(log):
    rounds, gfns, n = log
    uses, gaps = defaultdict(list), Counter()
    for r, g in zip(rounds, gfns, strict=True):
        uses[g].append(r)
    for of_page in uses.values():
        gaps.update(b - a for a, b in zip(of_page, of_page[1:], strict=False))
    occ = by_page.occurrences(*log)
    assert by_page.gap_counts(occ).tolist() == [gaps[g] for g in range(n + 1)]


@given(logs(), st.integers(1, 6))
def test_the_plateau_equals_the_oracle(log, stable):
    rounds, gfns, n = log
    occ = by_page.occurrences(*log)
    seen, dist = set(), []
    for t in range(n):
        seen |= {g for r, g in zip(rounds, gfns, strict=True) if r == t}
        dist.append(len(seen))
    assert by_page.cumulative_distinct(occ).tolist() == dist
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
    occ = by_page.occurrences(*log)
    occ = occ.select(np.isin(occ.gfn, np.array(sorted(frames), np.uint64)))
    assert by_page.sliding(occ, k).tolist() == expected


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=50))
def test_the_fast_order_is_the_stable_order(keys):
    keys = np.array(keys, np.uint64)
    np.testing.assert_array_equal(by_page.stable_order(keys), np.argsort(keys, kind="stable"))


def test_the_fast_order_at_its_limit():
    for top in (2**62, 2**63, 2**64 - 1):  # four keys take two bits: 62 fit, 63 do not
        keys = np.array([top, 0, top, 0], np.uint64)
        assert by_page.stable_order(keys).tolist() == [1, 3, 0, 2]


def made(per_round):
    """Occurrences out of a list of the pages of each round."""
    rounds = [r for r, pages in enumerate(per_round) for _ in pages]
    return by_page.occurrences(rounds, [g for pages in per_round for g in pages], len(per_round))


def test_hot_and_cold():
    """N hot pages in every round, M cold ones a round at a time: N + M once T covers all."""
    hot, cold = list(range(100)), np.arange(1000, 1400).reshape(8, 50).tolist()
    occ = made([hot + c for c in cold] * 2)
    assert by_page.sliding(occ, 8)[7:].tolist() == [500] * 9
    assert by_page.tumbling(occ, 8).tolist() == [500, 500]
    assert by_page.tumbling(occ, 1).tolist() == [150] * 16
    assert by_page.tumbling(occ, 8, min_count=2).tolist() == [100, 100]
    assert by_page.sliding(occ, 16, min_count=2)[-1] == 500
    assert by_page.sliding(occ, 16, min_count=3)[-1] == 100


def test_alternating_pages():
    occ = made([[1, 2], [3, 4]] * 4)
    assert by_page.sliding(occ, 1).tolist() == [2] * 8
    assert by_page.sliding(occ, 2).tolist() == [2] + [4] * 7
    assert by_page.sliding(occ, 2, 2).tolist() == [0] * 8
    assert by_page.sliding(occ, 3, 2).tolist() == [0, 0] + [2] * 6
    assert by_page.gap_counts(occ).tolist() == [0, 0, 12, 0, 0, 0, 0, 0, 0]
    assert by_page.miss_counts(occ).tolist() == [16, 16, 4, 4, 4, 4, 4, 4, 4]


def test_constant_pages():
    occ = made([[5, 6, 7]] * 10)
    for k in (1, 3, 10):
        assert by_page.sliding(occ, k).tolist() == [3] * 10
    everywhere, full = by_page.mean_sizes(occ)
    assert everywhere[1:].tolist() == full[1:].tolist() == [3] * 10
    assert (
        by_page.plateau(by_page.cumulative_distinct(occ), 4).tolist()[3:]
        == [pytest.approx(np.nan, nan_ok=True)] + [3] * 6
    )


def test_a_step_is_followed_after_one_window():
    occ = made([[1, 2, 3, 4]] * 5 + [[1]] * 5)
    assert by_page.sliding(occ, 3).tolist() == [4] * 7 + [1] * 3


def test_a_plateau_that_never_comes():
    occ = made([[r] for r in range(10)])
    assert np.isnan(by_page.plateau(by_page.cumulative_distinct(occ), 1)).all()


def test_nothing_at_all():
    for n_rounds in (0, 1, 3):
        occ = by_page.occurrences([], [], n_rounds)
        assert by_page.sliding(occ, 2, 2).tolist() == [0] * n_rounds
        assert by_page.tumbling(occ, 2).tolist() == [0] * -(-n_rounds // 2)
        assert by_page.cumulative_distinct(occ).tolist() == [0] * n_rounds
        assert by_page.gap_counts(occ).tolist() == [0] * (n_rounds + 1)
        assert by_page.mean_sizes(occ)[0].tolist() == [0] * (n_rounds + 1)
        assert len(by_page.plateau(by_page.cumulative_distinct(occ), 1)) == n_rounds


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "1"])
def test_what_is_no_count_is_refused(wrong):
    occ = made([[1]])
    for call in (
        lambda: by_page.sliding(occ, 1, wrong),
        lambda: by_page.sliding(occ, wrong),
        lambda: by_page.tumbling(occ, wrong),
        lambda: by_page.plateau([1], wrong),
        lambda: by_page.mean_sizes(occ, wrong),
    ):
        with pytest.raises(UsageError, match="1 or more"):
            call()


@given(logs(), st.data())
def test_a_part_has_the_uses_of_its_rounds_alone(log, data):
    rounds, gfns, n_rounds = log
    first = data.draw(st.integers(0, n_rounds))
    stop = data.draw(st.integers(first, n_rounds))
    part = by_page.occurrences(rounds, gfns, n_rounds).between(first, stop)
    inside = [(g, r - first) for r, g in zip(rounds, gfns, strict=True) if r in range(first, stop)]
    assert list(zip(part.gfn.tolist(), part.round.tolist(), strict=True)) == sorted(inside)
    assert part.n_rounds == stop - first
