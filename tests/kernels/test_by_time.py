# SPDX-License-Identifier: Apache-2.0
"""The working set by time against loops over sets and dictionaries."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_by_page import HUGE, logs, sliding_oracle, thresholds, windows

from pmlkit.errors import UsageError
from pmlkit.kernels import by_time
from pmlkit.kernels.pages import PageIndex, ahead, in_batches, mapped, numbered
from pmlkit.timeline import Axis, Windows


def arrays(log):
    return np.array(log[0], np.int64), np.array(log[1], np.uint64), log[2]


def batches(log, cut=7):
    """Number the pages of a log that comes in small batches."""
    rounds, gfns, _ = arrays(log)
    parts = [slice(i, i + cut) for i in range(0, len(rounds), cut)]
    return numbered((rounds[part], gfns[part]) for part in parts)


def sets_of(log, k):
    rounds, gfns, n = log
    found = [set() for _ in range(-(-n // k))]
    for r, g in zip(rounds, gfns, strict=True):
        found[r // k].add(g)
    return found


@given(logs(), windows)
def test_distinct_pages_and_turnover_equal_the_oracle(log, k):
    sets = sets_of(log, k)
    rounds, gfns, n = arrays(log)
    parts = [slice(i, i + 7) for i in range(0, len(rounds), 7)]
    found = by_time.turnover(
        ((rounds[part], gfns[part]) for part in parts), Windows.of_rounds(n, k, k)
    )
    assert found.pages.tolist() == [len(s) for s in sets]
    assert found.stayed.tolist() == [
        len(s & before) for s, before in zip(sets, [set(), *sets], strict=False)
    ]
    assert found.came.tolist() == [
        len(s - before) for s, before in zip(sets, [set(), *sets], strict=False)
    ]
    assert found.left.tolist() == [
        len(before - s) for s, before in zip(sets, [set(), *sets], strict=False)
    ]


@given(logs(), windows)
def test_windows_end_where_they_should(log, k):
    from pmlkit.kernels.frames import window_ends

    rounds, _, n = arrays(log)
    ends = np.empty(-(-n // k), np.int64)
    untils = np.arange(1, len(ends) + 1) * k
    window_ends(rounds.astype(np.uint32), untils, ends)
    assert ends.tolist() == np.searchsorted(rounds, untils).tolist()


@given(logs(), st.lists(windows, max_size=4))
def test_a_sweep_equals_the_oracle_for_each_window(log, ks):
    expected = [sliding_oracle(log, k, 1) for k in ks]
    assert by_time.sweep(batches(log), np.arange(log[2]), ks).tolist() == expected


@given(logs(), windows, thresholds)
def test_sliding_equals_the_oracle_for_all_and_for_marked_pages(log, k, m):
    index = PageIndex()
    rounds, gfns, n = arrays(log)
    parts = [slice(i, i + 5) for i in range(0, len(rounds), 5)]
    source = numbered(((rounds[part], gfns[part]) for part in parts), index)
    marked = {0, 7, HUGE}

    def marks(first, pages):
        odd = [2 if int(g) % 2 else 0 for g in index.frames[first:pages]]
        chosen = [1 if int(g) in marked else 0 for g in index.frames[first:pages]]
        return np.array(odd, np.uint64) | np.array(chosen, np.uint64)

    found = by_time.sliding(source, Windows.of_rounds(n, k), m, marks, 2).tolist()
    assert found[0] == sliding_oracle(log, k, m)
    for row, test in ((1, lambda g: g in marked), (2, lambda g: g % 2 == 1)):
        pairs = [(r, g) for r, g in zip(log[0], log[1], strict=True) if test(g)]
        of_these = [r for r, _ in pairs], [g for _, g in pairs], n
        assert found[row] == sliding_oracle(of_these, k, m)
    source = list(numbered([(rounds, gfns)], again := PageIndex()))

    def low_bits(first, pages):
        return again.frames[first:pages] % np.uint64(4)

    one = by_time.sliding(source, Windows.of_rounds(n, 1), 1, low_bits, 2)
    np.testing.assert_array_equal(by_time.by_round(source, n, low_bits, 2), one)


@given(logs())
def test_the_histograms_equal_the_oracle(log):
    rounds, gfns, n = log
    axis, sizes = Axis.of_rounds(n), np.arange(n + 1)
    reuse = by_time.Reuse(batches(log), axis, sizes, [1, 3, 2])
    last, gaps, distinct = {}, Counter(), []
    for r, g in zip(rounds, gfns, strict=True):
        gaps[r - last.get(g, r - n - 1)] += 1  # a page's first use misses in windows of any size
        last[g] = r
    for t in range(n):
        distinct.append(len({g for r, g in zip(rounds, gfns, strict=True) if r <= t}))
    assert reuse.gap_counts[:-1].tolist() == [gaps[g] for g in range(n + 1)]
    assert (reuse.gap_sums[:-1] == sizes * reuse.gap_counts[:-1]).all()
    misses = [sum(count for gap, count in gaps.items() if gap > k) for k in range(n + 1)]
    assert reuse.miss_counts().tolist() == misses
    assert reuse.uses == len(gfns)
    assert sorted(reuse.uses_of_pages) == sorted(Counter(gfns).values())
    assert reuse.distinct().tolist() == distinct
    alone = by_time.Reuse(batches(log), axis, sizes)
    assert alone.gap_counts.tolist() == reuse.gap_counts.tolist() and alone.uses == reuse.uses
    np.testing.assert_array_equal(alone.totals()[1], reuse.totals()[1])


@given(logs(), thresholds)
def test_the_means_of_all_windows_equal_the_oracle(log, m):
    n = log[2]
    reuse = by_time.Reuse(batches(log), Axis.of_rounds(n), np.arange(n + 1), [m])
    everywhere, full = reuse.means(m)
    assert everywhere[0] == 0 and np.isnan(full[0])
    for k in range(1, n + 1):
        sizes = sliding_oracle(log, k, m)
        assert everywhere[k] == pytest.approx(np.mean(sizes))
        assert full[k] == pytest.approx(np.mean(sizes[k - 1 :]))


@given(logs(distinct=True))
def test_the_derivative_of_the_mean_is_the_missing_rate(log):
    """Denning and Schwartz 1972, with what the end of a finite trace takes off: a page whose last
    use is within the last k rounds is not missed by anybody any more."""
    rounds, gfns, n = log
    reuse = by_time.Reuse(batches(log), Axis.of_rounds(n), np.arange(n + 1))
    slope = np.diff(reuse.means()[0]) * n
    last = dict(zip(gfns, rounds, strict=True))
    for k in range(n):
        ended = sum(n - r <= k for r in last.values())
        assert slope[k] == pytest.approx(reuse.miss_counts()[k] - ended)


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 700), max_size=60))
def test_pages_are_numbered_in_order_of_first_use(gfns):
    index = PageIndex()
    seen = list(dict.fromkeys(gfns))
    assert index.ids(np.array(gfns, np.uint64)).tolist() == [seen.index(g) for g in gfns]
    assert index.frames.tolist() == seen


@pytest.mark.parametrize("spread", [1, 97, 4096, 1 << 30])
def test_many_frames_however_far_apart_take_memory_by_their_number(spread):
    index = PageIndex()
    gfns = np.random.default_rng(0).permutation(40_000).astype(np.uint64) * np.uint64(spread)
    np.testing.assert_array_equal(index.ids(gfns), np.arange(40_000))
    np.testing.assert_array_equal(index.ids(gfns[::-1]), np.arange(40_000)[::-1])
    np.testing.assert_array_equal(index.frames, gfns)
    tables = (*index._table.arguments[:3], index._frames)
    assert sum(table.nbytes for table in tables) < 300 * 40_000
    halves = Windows.of_rounds(40_000, 20_000, 20_000)
    found = by_time.turnover(in_batches(np.arange(40_000), gfns), halves)
    assert found.pages.tolist() == [20_000] * 2


def test_what_fails_ahead_is_raised_where_it_is_asked_for():
    def broken():
        yield 1
        raise UsageError("no more")

    got = []
    with pytest.raises(UsageError, match="no more"):
        got.extend(ahead(broken()))
    assert list(ahead(iter(()))) == []


def test_who_stops_asking_stops_the_producer():
    made = []

    def endless():
        while True:
            made.append(1)
            yield len(made)

    iterator = ahead(endless())
    assert next(iterator) == 1
    iterator.close()
    count = len(made)
    assert len(made) == count


def test_what_threads_did_comes_in_order_and_fails_where_it_is_asked_for():
    assert list(mapped(lambda i: i * i, range(100))) == [i * i for i in range(100)]
    got = []
    with pytest.raises(ZeroDivisionError):
        got.extend(mapped(lambda i: 1 // (3 - i), range(100)))
    taken = []
    iterator = mapped(str, iter(lambda: taken.append(1) or len(taken), 0))
    assert [next(iterator), next(iterator)] == ["1", "2"]
    iterator.close()
    assert len(taken) < 20


def test_batches_are_views_of_all():
    parts = list(in_batches(np.arange(10), np.arange(10)))
    assert [p.tolist() for p, _ in parts] == [list(range(10))]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "1"])
def test_what_is_no_count_is_refused(wrong):
    log = np.array([0]), np.array([1], np.uint64)
    for call in (
        lambda: by_time.sliding(numbered([log]), Windows.of_rounds(1, 1), wrong),
        lambda: by_time.sweep(numbered([log]), np.arange(1), [wrong]),
        lambda: by_time.Reuse(numbered([log]), Axis.of_rounds(1), np.zeros(1), [wrong]),
    ):
        with pytest.raises(UsageError, match="1 or more"):
            call()
