# SPDX-License-Identifier: Apache-2.0
"""Miss-ratio curves against an LRU list, against the classical tree, and in known cases."""

import classical_lru
import numpy as np
import pytest
from factories import make_trace as write_trace
from hypothesis import given
from hypothesis import strategies as st

import pmlkit
from pmlkit import missratio
from pmlkit.errors import UsageError
from pmlkit.missratio import distances
from pmlkit.trace.reader import Kind, Trace

PAGES = st.sampled_from([0, 1, 2, 3, 4, 5, 63, 64, 2**40, 2**64 - 1])
references = st.lists(PAGES, max_size=120)


def lru_distances(gfns):
    """The distance of each use in a list, the most recently used page at its end."""
    lru, found = [], []
    for gfn in gfns:
        if gfn in lru:
            found.append(len(lru) - 1 - lru.index(gfn))
            lru.remove(gfn)
        else:
            found.append(-1)
        lru.append(gfn)
    return found


def lru_misses(gfns, size):
    """Count the misses of one cache, simulated."""
    cache, misses = [], 0
    for gfn in gfns:
        if gfn in cache:
            cache.remove(gfn)
        else:
            misses += 1
        cache = [*cache, gfn][-size:] if size else []
    return misses


# Stack distances


@given(references)
def test_distances_equal_those_of_a_list(gfns):
    assert missratio.stack_distances(gfns).tolist() == lru_distances(gfns)
    assert classical_lru.distances(gfns).tolist() == lru_distances(gfns)


@pytest.mark.parametrize("pages", [1, 70, 3000, 100_000])
def test_distances_equal_those_of_the_tree_over_many_renumberings(pages):
    """More uses than positions, segments that end anywhere, bursts of one page."""
    rng = np.random.default_rng(pages)
    spread = rng.integers(0, pages, 300_000)
    gfns = np.where(rng.random(len(spread)) < 0.5, spread, spread // 50)
    gfns[100_000:170_000] = gfns[100_000]
    np.testing.assert_array_equal(missratio.stack_distances(gfns), classical_lru.distances(gfns))


def test_distances_among_so_many_pages_that_positions_take_several_parts():
    """More than 2**20 positions: what goes in one part is taken from the counts of all later."""
    rng = np.random.default_rng(1)
    pages = 400_000
    gfns = np.concatenate([np.arange(pages), rng.integers(0, pages, 1_400_000)])
    gfns[900_000::3] = gfns[900_000::3] % 1000
    np.testing.assert_array_equal(missratio.stack_distances(gfns), classical_lru.distances(gfns))


def test_a_loop_over_more_pages_than_a_segment_has_positions():
    gfns = np.tile(np.arange(70_001), 4)
    distances = missratio.stack_distances(gfns)
    assert set(distances[:70_001]) == {-1} and set(distances[70_001:]) == {70_000}


def test_the_stack_says_the_order_of_last_use_and_can_be_set():
    lru = distances.LruStack()
    lru.use(np.array([0, 1, 2, 1, 3, 0], np.int32), 4)
    assert lru.order().tolist() == [2, 1, 3, 0] and len(lru) == 4
    lru.reset(np.array([3, 1], np.int32))
    assert lru.use(np.array([3, 0, 1], np.int32), 4).tolist() == [1, -1, 2]


# Exact curves


@given(references)
def test_the_exact_curve_is_that_of_simulated_caches(gfns):
    curve = missratio.exact(gfns)
    pages = len(set(gfns))
    assert curve.sizes_pages.tolist() == list(range(pages + 1))
    assert (curve.uses, curve.pages, curve.method) == (len(gfns), pages, "exact")
    for size in range(pages + 1):
        expected = lru_misses(gfns, size) / max(len(gfns), 1)
        assert curve.at(size) == pytest.approx(expected)


@given(references, st.integers(1, 9))
def test_a_stream_of_arrays_is_one_array(gfns, cut):
    parts = (np.array(gfns[i : i + cut], np.uint64) for i in range(0, len(gfns), cut))
    streamed, whole = missratio.exact(parts), missratio.exact(np.array(gfns, np.uint64))
    np.testing.assert_array_equal(streamed.miss_ratio, whole.miss_ratio)


def loop(pages, times):
    return np.tile(np.arange(pages, dtype=np.uint64), times)


def test_a_loop_misses_until_all_of_it_fits():
    curve = missratio.exact(loop(100, 10))
    assert curve.at([0, 1, 99, 100, 10**9]).tolist() == [1, 1, 1, 0.1, 0.1]
    assert (curve.cold, curve.knee(), curve.pages_for(0.5)) == (0.1, 100, 100)
    assert curve.pages_for(0.05) is None and curve.pages_for(1) == 0


def test_hot_and_cold_pages_make_a_knee_between_them():
    hot = np.tile(np.arange(50), (40, 1))
    cold = 1000 + np.arange(40)[:, None] * 20 + np.arange(20)
    curve = missratio.exact(np.hstack((hot, cold)).reshape(-1))
    assert curve.knee() == 70  # the cold pages of a turn lie between two uses of a hot one
    assert curve.pages_for(0.31) == 70


def test_nothing_was_used():
    for curve in (missratio.exact([]), missratio.aet([]), missratio.shards([])):
        assert curve.at(5) in (0, 1) and curve.knee() == 0 and curve.pages == 0
        assert curve.pages_for(1) == 0 and len(curve.to_frame()) >= 1


def test_a_thinned_curve_says_the_same_at_its_sizes():
    curve = missratio.exact(np.random.default_rng(0).integers(0, 5000, 20_000))
    thin = curve.thinned(60)
    assert len(thin.sizes_pages) <= 61 and thin.sizes_pages[-1] == curve.sizes_pages[-1]
    np.testing.assert_array_equal(thin.miss_ratio, curve.at(thin.sizes_pages))


def test_errors_are_the_mean_over_the_sizes():
    truth = missratio.exact(loop(100, 10))
    early = missratio.exact(loop(50, 20))
    expected = (49 * 0 + 50 * 0.95 + 0.05) / 100  # sizes 50 to 99 differ by 0.95, 100 by 0.05
    assert early.errors(truth) == pytest.approx((expected, 0.95))
    assert truth.errors(truth) == (0, 0)


# Sampling


def skewed(uses=60_000, pages=6000, power=3):
    rng = np.random.default_rng(0)
    return (pages * rng.random(uses) ** power).astype(np.uint64)


def test_a_sample_of_everything_is_exact():
    gfns = skewed()
    truth, sampled = missratio.exact(gfns), missratio.shards(gfns, rate=1, groups=0)
    np.testing.assert_allclose(sampled.at(truth.sizes_pages), truth.miss_ratio)
    assert (sampled.uses, sampled.pages) == (truth.uses, truth.pages)


@pytest.mark.parametrize("adjust", [True, False])
def test_a_sample_of_a_tenth_is_close(adjust):
    gfns = skewed() if adjust else skewed(power=1.5)  # without, one hot page more is a share more
    truth = missratio.exact(gfns)
    sampled = missratio.shards(gfns, rate=0.1, adjust=adjust)
    assert sampled.errors(truth)[0] < 0.02
    assert sampled.sampled_pages == pytest.approx(600, abs=10)
    assert sampled.pages == pytest.approx(6000, rel=0.02)
    assert sampled.rate == pytest.approx(0.1)
    low, high = sampled.band(truth.sizes_pages)
    inside = (low <= truth.miss_ratio) & (truth.miss_ratio <= high)
    assert inside.mean() > 0.9 and (high - low).max() < 0.3


def test_a_run_of_frames_is_sampled_evenly():
    for seed in range(5):
        sampled = missratio.shards(loop(10_000, 2), rate=0.01, groups=0, seed=seed)
        assert abs(sampled.sampled_pages - 100) <= 2


def test_a_sample_of_fixed_size_stays_below_it():
    gfns = skewed()
    truth = missratio.exact(gfns)
    sampled = missratio.shards(gfns, rate=1, max_pages=1000, groups=0)
    assert 400 < sampled.sampled_pages <= 1000 and sampled.rate in (0.125, 0.25)
    assert sampled.errors(truth)[0] < 0.02
    room = missratio.shards(gfns, rate=1, max_pages=6000, groups=0)
    np.testing.assert_allclose(room.at(truth.sizes_pages), truth.miss_ratio)


def test_a_sample_of_no_fewer_pages_is_all_of_a_few_and_a_share_of_many():
    few = skewed(pages=900)
    truth, sampled = missratio.exact(few), missratio.shards(few, min_pages=1000)
    np.testing.assert_allclose(sampled.at(truth.sizes_pages), truth.miss_ratio)
    np.testing.assert_array_equal(sampled.low, sampled.high)  # nothing was left to chance
    assert sampled.rate == 1
    many = skewed()
    truth, sampled = missratio.exact(many), missratio.shards(many, rate=0.1, min_pages=1000)
    assert 0.1 < sampled.rate < 0.5 and 1000 <= sampled.sampled_pages < 2000
    assert sampled.errors(truth)[0] < 0.02
    enough = missratio.shards(many, rate=0.1, min_pages=300)
    assert enough.rate == pytest.approx(0.1)
    assert enough.errors(truth)[0] < 0.02


def test_a_sample_without_any_page_is_refused_and_nothing_used_never_misses():
    with pytest.raises(UsageError, match="none of those that are used: give a larger rate"):
        missratio.shards(np.array([7, 7, 7]), rate=0.01)
    nothing = np.zeros(0, np.uint64)
    for curve in (missratio.shards(nothing), missratio.exact(nothing), missratio.aet(nothing)):
        assert (curve.at([0, 100]).tolist(), curve.uses, curve.pages) == ([0, 0], 0, 0)


@given(references, st.integers(1, 6), st.integers(0, 6), st.integers(1, 4))
def test_any_sample_is_a_curve(gfns, most, least, groups):
    chosen = {"max_pages": most, "groups": groups + 1, "min_pages": least}
    try:
        sampled = missratio.shards(gfns, 0.9, **chosen)
    except UsageError as error:  # a few pages may all be left out
        assert "none of those" in str(error) and len(set(gfns)) < 50
        return
    assert ((sampled.miss_ratio >= 0) & (sampled.miss_ratio <= 1)).all()
    assert (np.diff(sampled.miss_ratio) <= 1e-12).all()
    assert (sampled.low <= sampled.miss_ratio).all() and (sampled.high <= 1).all()


# AET


def test_aet_of_a_random_order_is_that_of_the_stack():
    gfns = np.random.default_rng(1).integers(0, 2000, 100_000)
    truth = missratio.exact(gfns)
    assert missratio.aet(gfns).errors(truth)[0] < 0.01
    skew = skewed(200_000)
    assert missratio.aet(skew).errors(missratio.exact(skew))[0] < 0.01


def aet_oracle(gfns):
    """The integral of P, step by step, in whole uses."""
    last, times = {}, []
    for now, gfn in enumerate(gfns.tolist()):
        times.append(now - last[gfn] if gfn in last else np.inf)
        last[gfn] = now
    times, uses, pages = np.array(times), len(gfns), len(last)
    beyond = np.array([(times > t).sum() for t in range(uses)])
    depth = np.concatenate(([0], np.cumsum(beyond)))
    ratios = [beyond[np.searchsorted(depth, c * uses, "right") - 1] for c in range(pages)]
    return np.maximum([*ratios, pages], pages) / uses


def test_aet_by_its_definition():
    """Also where the integral is a whole number of pages, and rounding might take another step."""
    rng = np.random.default_rng(0)
    short = [rng.integers(0, 12, rng.integers(1, 60)) for _ in range(200)]
    for gfns in (skewed(3000, 300), *short):
        np.testing.assert_allclose(missratio.aet(gfns).miss_ratio, aet_oracle(gfns))


# Of traces


@pytest.fixture
def trace(tmp_path):
    """Loops over 6 pages; every page read and written in each of its rounds."""
    use = [(g, k) for g in range(6) for k in (Kind.READ, Kind.WRITE)]
    path = write_trace(tmp_path / "x.trace", events=[use, [(9, Kind.READ)], use, use])
    return Trace.open(path)


def test_a_page_counts_once_in_a_round_of_an_access_trace(trace):
    curve = missratio.of_trace(trace)
    assert (curve.uses, curve.pages) == (19, 7)
    assert curve.at([5, 6, 7]) == pytest.approx([1, 13 / 19, 7 / 19])
    written = missratio.of_trace(trace, kinds="w", start="20ms")
    assert (written.uses, written.pages) == (12, 6)
    everything = missratio.of_trace(trace, "shards", rate=1.0, groups=0)
    np.testing.assert_allclose(everything.at(np.arange(8)), curve.miss_ratio)
    assert everything.uses == 19
    assert missratio.of_trace(trace, "aet").pages == 7
    assert missratio.of_trace(trace.pml).uses == 18


def test_over_time_the_caches_live_on(trace):
    table = missratio.over_time(trace, "20ms", sizes=[0, 6, 7])
    assert table["t_ns"].tolist() == [20_000_000] * 3 + [40_000_000] * 3
    assert table["uses"].tolist() == [7] * 3 + [12] * 3
    assert table["miss_ratio"].tolist() == pytest.approx([1, 1, 1, 1, 6 / 12, 0])
    assert missratio.over_time(trace, "40ms")["uses"].unique().tolist() == [19]
    whole = missratio.over_time(trace, "40ms").groupby("pages")["miss_ratio"].first()
    np.testing.assert_allclose(whole, missratio.of_trace(trace).at(whole.index))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda t: missratio.of_trace(t, "lru"), "exact, shards"),
        (lambda t: missratio.of_trace(t, "exact", rate=0.1), "no option of the method exact"),
        (lambda t: missratio.of_trace(t, "shards", rate=0.0), "more than 0"),
        (lambda t: missratio.of_trace(t, "shards", max_pages=0), "1 or more"),
        (lambda t: missratio.of_trace(t, "shards", min_pages=-1), "1 or more"),
        (lambda t: missratio.of_trace(t, "shards", groups=1), "2 or more"),
        (lambda t: missratio.of_trace(t).pages_for(2), "0 to 1"),
    ],
)
def test_wrong_arguments_are_refused_by_name(trace, call, says):
    with pytest.raises(UsageError, match=says):
        call(trace)


@pytest.mark.parametrize(
    ("name", "min_pages", "off"), [("rrww", 8192, 0.0014), ("rrww-lab", 1, 0.09)]
)
def test_a_sample_of_enough_pages_is_near_the_exact_curve(name, min_pages, off):
    """The two worst of the bundled recordings, as docs/concepts/miss-ratio.md has them."""
    trace = pmlkit.open(pmlkit.bundled(name))
    exact = missratio.of_trace(trace, "exact")
    sampled = missratio.of_trace(trace, "shards", min_pages=min_pages)
    sizes = np.arange(1, exact.pages + 1)
    assert np.abs(exact.at(sizes) - sampled.at(sizes)).mean() == pytest.approx(off, rel=0.05)
