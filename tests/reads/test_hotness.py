# SPDX-License-Identifier: Apache-2.0
"""Regions ranked by their first log, against guests whose rates are known."""

import numpy as np
import pandas as pd
import pytest
from pagetable_guest import Guest, write_trace

from pmlkit.errors import NeedsError, UsageError
from pmlkit.reads import hotness
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace
from pmlkit.trace.schema import TraceMeta
from pmlkit.trace.writer import TraceWriter


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """Twelve regions, each accessed 0.7 times as often as the one before it."""
    rng = np.random.default_rng(5)
    guest = Guest()
    root = guest.space()
    shares = 0.7 ** np.arange(12)
    for region in range(12):
        for page in range(64):
            guest.map(root, region * 512 + page, (1 << 16) + region * 512 + page)
    for _ in range(30):
        regions = rng.choice(12, 400, p=shares / shares.sum())
        for region, page in zip(regions, rng.integers(0, 64, 400), strict=True):
            guest.read(root, int(region * 512 + page))
        guest.close_round()
    return write_trace(tmp_path_factory.mktemp("hot") / "g.trace", guest)


def test_the_first_log_ranks_regions_that_are_logged_in_every_round(trace):
    truth = hotness.touches(trace, "pages")
    assert len(truth) == 12 and truth.max() <= 64
    place = hotness.score(hotness.rank(trace), truth)
    assert place.correlation > 0.9 and place.precision == 1
    assert (place.k, place.regions) == (10, 12)
    share = hotness.score(hotness.rank(trace, by="share"), truth)
    assert np.isnan(share.correlation) or share.correlation < place.correlation


def test_a_window_of_rounds_has_one_first_log(trace):
    one = hotness.rank(trace, window="30r").set_index("table")
    assert (one["share"] == 1).all() and one["place"].between(0, 1).all()
    assert hotness.score(one.reset_index(), hotness.touches(trace, "pages")).correlation > 0.3


def test_few_pages_used_often_are_hotter_than_many_used_once(tmp_path):
    guest = Guest()
    root = guest.space()
    for page in range(1024):
        guest.map(root, page, (1 << 16) + page)
    for number in range(10):
        guest.read(root, 3)
        for page in range(512, 1024) if number == 4 else ():
            guest.read(root, page)
        guest.close_round()
    trace = write_trace(tmp_path / "g.trace", guest)
    often, much = (hotness.touches(trace, what) for what in ("rounds", "pages"))
    assert sorted(often) == [0.1, 1.0] and sorted(much) == [1.0, 51.2]
    ranking = hotness.rank(trace, window="5r")
    assert hotness.score(ranking, often).correlation == pytest.approx(1)
    assert hotness.score(ranking, much).correlation == pytest.approx(-1)


def test_a_truth_that_there_is_not_is_refused(trace):
    with pytest.raises(UsageError, match="rounds or pages"):
        hotness.touches(trace, "bytes")


def test_scores_of_known_rankings():
    truth = pd.Series({1: 9.0, 2: 5.0, 3: 1.0})
    ranking = pd.DataFrame({"table": [1, 2, 3, 4], "heat": [0.9, 0.5, 0.2, 0.1]})
    best = hotness.score(ranking, truth, k=2)
    assert best == hotness.Score(1.0, 1.0, 0.5, 2, 4)
    worst = hotness.score(ranking.assign(heat=[0.1, 0.2, 0.5, 0.9]), truth, k=2)
    assert (worst.correlation, worst.precision) == (-1.0, 0.0)
    constant = hotness.score(ranking.assign(heat=1.0), truth)
    assert np.isnan(constant.correlation)


def test_regions_that_are_alike_are_taken_in_any_order():
    truth = pd.Series({1: 5.0, 2: 5.0, 3: 5.0, 4: 1.0})
    ranking = pd.DataFrame({"table": [1, 2, 3, 4], "heat": [0.9, 0.5, 0.4, 0.4]})
    alike = hotness.score(ranking, truth, k=3)  # any of three is as hot as another; 3 or 4 is third
    assert (alike.precision, alike.chance) == (pytest.approx(2.5 / 3), 0.75)


def test_a_recorders_regions_are_2_mib_of_frames(tmp_path):
    times = {"round": [0, 1], "t_start_ns": [0, 10], "t_end_ns": [10, 20]}
    with TraceWriter(
        tmp_path / "r.trace", TraceMeta("access", "synthetic", domain={"memory_bytes": 1 << 22})
    ) as writer:
        for number, frames in enumerate([[700, 3, 701], [5, 6]]):
            kinds = np.full(len(frames), Kind.READ, np.uint8)
            writer.add_entries(number, number, 0, np.array(frames, np.uint64), kinds)
        writer.set_rounds(pd.DataFrame(times))
    trace = Trace.open(tmp_path / "r.trace")
    assert hotness.first_logs(trace).to_numpy().tolist() == [[0, 512, 0], [0, 0, 0.5], [1, 0, 0]]
    assert hotness.touches(trace).to_dict() == {0: 1.0, 512: 0.5}
    assert hotness.touches(trace, "pages").to_dict() == {0: 1.5, 512: 1.0}
    ranking = hotness.rank(trace).set_index("table")
    assert ranking["place"].to_dict() == {0: 0.25, 512: 0.5}


def test_the_truth_needs_a_harvest(trace):
    with pytest.raises(NeedsError, match="harvest"):
        hotness.touches(trace.pml)
