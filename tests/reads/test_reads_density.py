# SPDX-License-Identifier: Apache-2.0
"""Densities by a sample of accessed flags, against guests whose every access is known."""

import numpy as np
import pytest
from pagetable_guest import Guest, in_sample, truth, write_trace

from pmlkit import reads, workingset
from pmlkit.errors import NeedsError, UsageError
from pmlkit.reads import judge, sampled
from pmlkit.trace.reader import Trace


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
        for page in rng.integers(0, 2048, 120):
            guest.read(root, int((1 << 20) + page))
        guest.close_round()
    return write_trace(tmp_path_factory.mktemp("mixed") / "g.trace", guest), guest


def sizes(guest):
    return np.array([len(truth(guest, number)) for number in range(len(guest.rounds))])


def test_only_a_method_that_draws_has_draws(mixed):
    rows = judge.compare(mixed[0], ["written", "density"], one_in=8, draws=(3, 5))
    draws = rows.groupby("method")["draw"].unique().map(list)
    assert draws.to_dict() == {"written": [0], "density": [3, 5]}


@pytest.mark.parametrize("one_in", [1, 4, 16])
def test_the_samples_are_all_frames_once(one_in):
    gfns = np.arange(1 << 30, (1 << 30) + 4096, dtype=np.uint64)
    draws = np.array([sampled.sampled(gfns, one_in, draw) for draw in range(one_in)])
    assert (draws.sum(axis=0) == 1).all()
    assert (np.abs(draws.sum(axis=1) - 4096 / one_in) <= 4096 / one_in / 4).all()


def test_the_first_sample_is_the_one_that_the_patches_define():
    gfns = np.arange(10 * 16)
    found = gfns[sampled.sampled(gfns, 16)]
    assert found.tolist() == [gfn for gfn in range(160) if in_sample(gfn, 16)]
    # As in the patches' own test.
    assert (found % 16).tolist() == [0, 9, 3, 13, 6, 0, 10, 4, 13, 7]


def test_a_sample_that_was_harvested_gives_what_the_sample_of_all_gives(mixed, tmp_path):
    whole, guest = mixed
    trace = write_trace(tmp_path / "s.trace", guest, one_in=8)
    assert (trace.meta.kind, trace.sample.meta.kind) == ("pml", "access")
    found = reads.estimate(trace, "density", window="2r", step="sliding")
    same = sampled.estimate(whole, "2r", "sliding", one_in=8)
    assert found.equals(same)
    assert sampled.estimate(trace, one_in=8)["pages"].sum() > 0
    for other in ({"one_in": 16}, {"draw": 1}):
        with pytest.raises(UsageError, match="draw 0 of one frame in 8"):
            sampled.estimate(trace, **other)
    told = trace.check()
    assert 0 < told["sample"]["entries"] < whole.meta.entries / 4


@pytest.mark.parametrize("marks", [True, False])
def test_a_sample_needs_no_snapshots(mixed, tmp_path, marks):
    whole, guest = mixed
    trace = write_trace(tmp_path / "s.trace", guest, one_in=4, marks=marks, snapshots=False)
    found = reads.estimate(trace, "sample")
    tables = set(guest.tables) if marks else set()
    for number, (log, _, touched) in enumerate(guest.rounds):
        written = {gfn for gfn, _ in log} - tables
        others = {gfn for gfn in touched if in_sample(gfn, 4)} - written - tables
        row = found.iloc[number]
        assert (row["pages"], row["written"]) == (len(written) + 4 * len(others), len(written))
        assert row["low"] <= row["pages"] <= row["high"]


def test_a_sample_is_nowhere_taken_for_all_accesses(mixed, tmp_path):
    trace = write_trace(tmp_path / "s.trace", mixed[1], one_in=8)
    with pytest.raises(NeedsError, match="harvest of accessed flags"):
        reads.truth(trace)
    with pytest.raises(NeedsError, match="harvest of accessed flags"):
        reads.estimate(trace, "harvest")
    with pytest.raises(NeedsError, match="accesses of all frames"):
        workingset.estimate(trace.sample)
    with pytest.raises(NeedsError, match="open the log"):
        Trace.open(trace.sample.path)
    assert trace.pml is trace and mixed[0].sample is None


def test_rounds_after_the_last_harvest_are_left_out(mixed, tmp_path):
    guest = mixed[1]
    trace = write_trace(tmp_path / "s.trace", guest, one_in=8, harvests=set(range(20)))
    found = reads.estimate(trace, "density")
    assert len(found) == 20 < len(guest.rounds)
    assert found.equals(sampled.estimate(mixed[0], one_in=8).iloc[:20])
    assert len(reads.estimate(trace, "density", end="100ms")) == 10


@pytest.mark.parametrize("one_in", [0, 3, 12])
def test_a_sample_is_one_in_a_power_of_two(one_in):
    with pytest.raises(UsageError, match="power of two"):
        sampled.sampled(np.arange(4), one_in)


def test_a_sample_of_all_frames_is_the_truth(mixed):
    trace, guest = mixed
    found = sampled.estimate(trace, one_in=1)
    assert found["pages"].tolist() == found["low"].tolist() == sizes(guest).tolist()
    assert found["high"].tolist() == found["pages"].tolist()


def test_the_mean_of_all_draws_is_near_the_truth_and_nine_intervals_in_ten_hold(mixed):
    trace, guest = mixed
    seen, inside, errors, pages = sizes(guest), [], [], []
    for draw in range(16):
        found = sampled.estimate(trace, one_in=16, draw=draw)
        assert (found["low"] <= found["pages"]).all() and (found["pages"] <= found["high"]).all()
        inside.append((found["low"] <= seen) & (seen <= found["high"]))
        pages.append(found["pages"])
        errors.append(np.abs(found["pages"] / seen - 1)[1:])
    assert np.mean(inside) >= 0.9
    assert np.median(errors) < 0.1
    assert np.abs(np.mean(pages, axis=0) / seen - 1).max() < 0.02
    plain = np.abs(reads.estimate(trace, "accessed")["pages"] / seen - 1)[1:]
    assert plain.median() > 1  # old flags: nearly three times too many


def test_windows_of_several_rounds_count_a_sampled_frame_once(mixed):
    trace, _ = mixed
    exact = reads.estimate(trace, "harvest", window="5r")["pages"]
    found = sampled.estimate(trace, window="5r", one_in=1)
    assert found["pages"].tolist() == exact.tolist()
    found = reads.estimate(trace, "density", window="5r")
    assert np.abs(found["pages"] / exact - 1).max() < 0.25
    sliding = reads.estimate(trace, "density", window="5r", step="sliding")
    assert sliding["pages"].iloc[4] == found["pages"].iloc[0]


def test_what_was_unmapped_within_the_round_is_in_the_sample(tmp_path):
    guest = Guest()
    root = guest.space()
    for page in range(512):
        guest.map(root, page, 9000 + page)
        guest.read(root, page)
        guest.unmap(root, page)
    guest.close_round()
    trace = write_trace(tmp_path / "g.trace", guest)
    (row,) = sampled.estimate(trace).to_dict("records")
    assert reads.estimate(trace.pml, "leaves")["pages"].tolist() == [512]
    assert row["low"] <= 512 <= row["high"]


def test_without_tables_every_frame_found_stands_for_its_group(mixed):
    trace, guest = mixed
    seen, pages, inside = sizes(guest), [], []
    for draw in range(16):
        found = sampled.estimate(trace, one_in=16, draw=draw, tables=False)
        pages.append(found["pages"])
        inside.append((found["low"] <= seen) & (seen <= found["high"]))
        assert (found["written"] <= found["low"]).all()
    assert np.mean(pages, axis=0).tolist() == seen.tolist()
    assert np.mean(inside) >= 0.9
