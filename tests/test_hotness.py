# SPDX-License-Identifier: Apache-2.0
"""Regions ranked by their first log, against guests whose rates are known."""

import numpy as np
import pandas as pd
import pytest
from pagetable_guest import Guest, write_trace

from pmlkit import hotness
from pmlkit.errors import NeedsError, UsageError


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
    assert (best.correlation, best.precision, best.k, best.regions) == (1.0, 1.0, 2, 4)
    worst = hotness.score(ranking.assign(heat=[0.1, 0.2, 0.5, 0.9]), truth, k=2)
    assert (worst.correlation, worst.precision) == (-1.0, 0.0)
    constant = hotness.score(ranking.assign(heat=1.0), truth)
    assert np.isnan(constant.correlation)


def test_the_truth_needs_a_harvest(trace):
    with pytest.raises(NeedsError, match="harvest"):
        hotness.touches(trace.pml)
