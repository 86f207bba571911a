# SPDX-License-Identifier: Apache-2.0
"""The one-pass kernels against loops over sets and dictionaries, and against the sorted kernels."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_occurrences import HUGE, logs, sliding_oracle, thresholds, window_oracle, windows

from pmlkit.errors import UsageError
from pmlkit.kernels import by_page, by_time
from pmlkit.kernels.pages import PageIndex, ahead, in_batches, mapped, numbered
from pmlkit.timeline import Axis


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
    found = by_time.windows(*arrays(log), k)
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
    rounds, gfns, n = arrays(log)
    parts = [slice(i, i + 7) for i in range(0, len(rounds), 7)]
    streamed = by_time.turnover(((rounds[part], gfns[part]) for part in parts), n, k)
    assert streamed.pages.tolist() == found.pages.tolist()
    assert streamed.stayed.tolist() == found.stayed.tolist()


@given(logs(), windows, st.integers(1, 5))
def test_all_thresholds_at_once_equal_the_oracle(log, k, most):
    rounds, gfns, n = log
    expected = []
    for start in range(0, n, k):
        inside = Counter(g for r, g in zip(rounds, gfns, strict=True) if start <= r < start + k)
        expected.append([sum(c >= m for c in inside.values()) for m in range(1, most + 1)])
    assert by_time.thresholds(*arrays(log), k, most).tolist() == expected


def test_thresholds_of_more_windows_than_fit_beside_the_counts(monkeypatch):
    rng = np.random.default_rng(3)
    rounds, gfns = np.sort(rng.integers(0, 500, 5000)), rng.integers(0, 9, 5000)
    expected = by_time.thresholds(rounds, gfns, 500, 1, 3)
    monkeypatch.setattr(by_time, "CELL_BITS", 6)  # 15 windows at once beside counts up to 3
    np.testing.assert_array_equal(by_time.thresholds(rounds, gfns, 500, 1, 3), expected)


@given(logs(), windows)
def test_windows_end_where_they_should(log, k):
    from pmlkit.kernels.loops import window_ends

    rounds, _, n = arrays(log)
    ends = np.empty(-(-n // k), np.int64)
    untils = np.arange(1, len(ends) + 1) * k
    window_ends(rounds.astype(np.uint32), untils, ends)
    assert ends.tolist() == np.searchsorted(rounds, untils).tolist()


def test_two_workers_see_what_one_sees(monkeypatch):
    rng = np.random.default_rng(0)
    rounds, gfns = np.sort(rng.integers(0, 90, 5000)), rng.integers(0, 300, 5000)
    one = by_time.windows(rounds, gfns, 97, 4), by_time.thresholds(rounds, gfns, 97, 4)
    monkeypatch.setattr(by_time, "SMALL", 10)
    for workers in (2, 3, 50):
        monkeypatch.setattr(by_time, "WORKERS", workers)
        many = by_time.windows(rounds, gfns, 97, 4), by_time.thresholds(rounds, gfns, 97, 4)
        np.testing.assert_array_equal(many[0].pages, one[0].pages)
        np.testing.assert_array_equal(many[0].stayed, one[0].stayed)
        np.testing.assert_array_equal(many[1], one[1])


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

    found = by_time.sliding(source, n, k, m, marks, 2).tolist()
    assert found[0] == sliding_oracle(log, k, m)
    for row, test in ((1, lambda g: g in marked), (2, lambda g: g % 2 == 1)):
        pairs = [(r, g) for r, g in zip(log[0], log[1], strict=True) if test(g)]
        of_these = [r for r, _ in pairs], [g for _, g in pairs], n
        assert found[row] == sliding_oracle(of_these, k, m)
    source = list(numbered([(rounds, gfns)], again := PageIndex()))

    def low_bits(first, pages):
        return again.frames[first:pages] % np.uint64(4)

    one = by_time.sliding(source, n, 1, 1, low_bits, 2)
    np.testing.assert_array_equal(by_time.by_round(source, n, low_bits, 2), one)


@given(logs())
def test_the_histograms_equal_those_of_the_sorted_kernels(log):
    occ = by_page.occurrences(*log)
    axis, sizes = Axis.of_rounds(log[2]), np.arange(log[2] + 1)
    found = by_time.Reuse(batches(log), axis, sizes, [1, 3, 2])
    assert found.gap_counts[:-1].tolist() == by_page.gap_counts(occ).tolist()
    assert (found.gap_sums[:-1] == sizes * found.gap_counts[:-1]).all()
    assert found.miss_counts().tolist() == by_page.miss_counts(occ).tolist()
    assert found.uses == len(occ)
    assert sorted(found.uses_of_pages) == sorted(np.unique(occ.gfn, return_counts=True)[1])
    assert found.distinct().tolist() == by_page.cumulative_distinct(occ).tolist()
    alone = by_time.Reuse(batches(log), axis, sizes)
    assert alone.gap_counts.tolist() == found.gap_counts.tolist() and alone.uses == found.uses
    np.testing.assert_array_equal(alone.totals()[1], found.totals()[1])
    for m in (1, 2, 3):
        total, full = found.totals(m)
        of_rounds = by_time.means((total, full[1:]), log[2])
        expected = by_page.mean_sizes(occ, m)
        for ours, also, theirs in zip(found.means(m), of_rounds, expected, strict=True):
            np.testing.assert_allclose(ours, theirs)
            np.testing.assert_allclose(also, theirs)


@given(logs(), thresholds)
def test_the_mean_over_full_windows_equals_the_oracle(log, m):
    n = log[2]
    _, full = by_time.Reuse(batches(log), Axis.of_rounds(n), np.arange(n + 1), [m]).means(m)
    for k in range(1, n + 1):
        sizes = [window_oracle(log, t, k, m) for t in range(k - 1, n)]
        assert full[k] == pytest.approx(np.mean(sizes))


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
    assert by_time.distinct(np.arange(40_000), gfns, 40_000, 20_000).tolist() == [20_000] * 2


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
    log = np.array([0]), np.array([1], np.uint64), 1
    for call in (
        lambda: by_time.windows(*log, wrong),
        lambda: by_time.thresholds(*log, 1, wrong),
        lambda: by_time.sliding(numbered([log[:2]]), 1, 1, wrong),
        lambda: by_time.sliding(numbered([log[:2]]), 1, wrong),
        lambda: by_time.sweep(numbered([log[:2]]), np.arange(1), [wrong]),
        lambda: by_time.Reuse(numbered([log[:2]]), Axis.of_rounds(1), np.zeros(1), [wrong]),
    ):
        with pytest.raises(UsageError, match="1 or more"):
            call()
