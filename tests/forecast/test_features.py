# SPDX-License-Identifier: Apache-2.0
"""Tables of features: what they count, and that nothing of the future is in them."""

from dataclasses import replace

import numpy as np
import pytest
from forecast_logs import make_log

from pmlkit.errors import ResolutionError, UsageError
from pmlkit.forecast import baselines, features, pages
from pmlkit.forecast.forecaster import (
    WARM_UP,
    Forecaster,
    Sample,
    base_level,
    design_matrix,
    targets,
)
from pmlkit.forecast.models import LinearQuantiles
from pmlkit.forecast.peaks import default_allocation, nearness

WINDOW_ROUNDS = 5


def other_future(log, stop, how):
    """Return the log with everything from round `stop` on shuffled, or replaced by nonsense."""
    random = np.random.default_rng(5)
    later = log.round >= stop
    gfn, rounds = log.gfn.copy(), log.round.copy()
    if how == "shuffled":
        gfn[later] = random.permutation(gfn[later])
        rounds[later] = np.sort(random.permutation(rounds[later]))
    else:
        gfn[later] = random.integers(0, log.memory_pages, later.sum())
        rounds[later] = log.n_rounds - 1
    exits, phase = log.exits.copy(), log.phase.copy()
    exits[stop:], phase[stop:] = 10**6, "poison"
    pause = log.pause_ns.copy()
    pause[stop:] = 10**9
    return replace(log, gfn=gfn, round=rounds, exits=exits, phase=phase, pause_ns=pause)


@pytest.mark.parametrize("how", ["shuffled", "poisoned"])
@pytest.mark.parametrize("windows", [1, 17, 60])
def test_the_future_changes_nothing(how, windows):
    log = make_log(day_ns=24_000_000_000)
    future = other_future(log, windows * WINDOW_ROUNDS, how)
    assert log.digest() != future.digest()
    before, after = features.table(log), features.table(future)
    assert before.iloc[:windows].equals(after.iloc[:windows])
    assert not before.iloc[windows:].equals(after.iloc[windows:])
    assert design_matrix(before).iloc[:windows].equals(design_matrix(after).iloc[:windows])
    assert base_level(before)[:windows].equals(base_level(after)[:windows])
    for rule in baselines.BASELINES:
        given = [
            baselines.forecast(rule, t["pages"].to_numpy(), 4)[:windows] for t in (before, after)
        ]
        np.testing.assert_array_equal(*given, err_msg=rule)
    for rule in (default_allocation, lambda table: nearness(table, default_allocation(table))):
        np.testing.assert_array_equal(rule(before)[:windows], rule(after)[:windows])


def test_the_future_changes_no_forecast_and_no_online_calibration():
    log, windows = make_log(), 50
    future = other_future(log, windows * WINDOW_ROUNDS, "poisoned")
    samples = [Sample("x", "x", features.table(one), 0.5) for one in (log, future)]
    learnt = [Sample(str(i), str(i), features.table(make_log(seed=i)), 0.5) for i in (7, 8)]
    model = Forecaster(LinearQuantiles((0.5, 0.9), features=4), horizon=3).fit(learnt)
    before, after = (model.predict(sample)[:windows] for sample in samples)
    np.testing.assert_array_equal(before, after)


def test_a_log_that_ends_earlier_has_the_same_rows():
    log = make_log()
    stop = np.searchsorted(log.round, 200)
    entries = {name: getattr(log, name)[:stop] for name in ("gfn", "round", "table")}
    rounds = {name: getattr(log, name)[:200] for name in ("exits", "pause_ns", "phase")}
    earlier = replace(log, **entries, **rounds)
    assert features.table(earlier).equals(features.table(log).iloc[:40])


def brute_pages(log, first, stop, m=1):
    """Count pages logged in at least m of the rounds from `first` to before `stop`."""
    keep = (log.round >= first) & (log.round < stop) & ~log.table
    pairs = {(int(g), int(r)) for g, r in zip(log.gfn[keep], log.round[keep], strict=True)}
    _, counts = np.unique([g for g, _ in pairs], return_counts=True)
    return int((counts >= m).sum())


def test_the_counts_are_those_of_sets():
    log = make_log(rounds=200)
    table = features.table(log, "500ms")
    assert len(table) == 40
    seen, earlier = set(), set()
    for i, row in enumerate(table.to_dict("records")):
        first, stop = i * WINDOW_ROUNDS, (i + 1) * WINDOW_ROUNDS
        assert row["pages"] == row["w1"] == brute_pages(log, first, stop)
        assert row["w4_m2"] == brute_pages(log, max(stop - 20, 0), stop, 2)
        assert row["w16_m4"] == brute_pages(log, max(stop - 80, 0), stop, 4)
        in_window = (log.round >= first) & (log.round < stop)
        pages = set(log.gfn[in_window & ~log.table])
        assert row["new"] == len(pages - seen)
        assert row["kept"] == len(pages & earlier)
        assert row["lost"] == len(earlier - pages)
        assert row["kept"] + row["new"] + row["soon"] + row["late"] == row["pages"]
        assert sum(row[f"region{r}"] for r in range(features.REGIONS)) == row["pages"]
        assert row["tables"] == log.table[in_window].sum()
        assert row["exits"] == log.exits[first:stop].sum()
        assert row["pause_ns"] == log.pause_ns[first:stop].sum()
        assert row["part_last"] == brute_pages(log, stop - 1, stop)
        assert row["phase"] == log.phase[stop - 1]
        seen, earlier = seen | pages, pages


def test_pages_that_come_back_are_told_by_how_long_they_were_away():
    log = make_log(rounds=5)
    windows = {7: [0, 3], 8: [0, 20], 9: [0, 1]}
    pairs = sorted((5 * w, g) for g, of in windows.items() for w in of)
    rounds, gfn = (np.array(column) for column in zip(*pairs, strict=True))
    size = 105
    made = replace(
        log, gfn=gfn.astype(np.uint64), round=rounds, table=np.zeros(len(gfn), bool),
        exits=np.zeros(size, int), pause_ns=np.zeros(size, int), phase=np.full(size, "", object),
    )  # fmt: skip
    table = features.table(made)
    assert table.loc[0, "new"] == 3
    assert (table.loc[1, "kept"], table.loc[3, "soon"], table.loc[20, "late"]) == (1, 1, 1)


def test_hours_are_a_circle_where_the_day_is_known():
    table = features.table(make_log(day_ns=4_000_000_000))
    np.testing.assert_allclose(table["hour_sin"][:4], np.sin(2 * np.pi * np.arange(1, 5) / 8))
    assert features.table(make_log())["hour_sin"].isna().all()


def test_targets_lie_ahead():
    table = features.table(make_log())
    pages = table["pages"].to_numpy()
    at, peak = targets(table, 3), targets(table, 3, "peak")
    np.testing.assert_array_equal(at[:-3], pages[3:])
    assert np.isnan(at[-3:]).all() and np.isnan(peak[-3:]).all()
    for t in range(len(pages) - 3):
        assert peak[t] == pages[t + 1 : t + 4].max()


def test_windows_that_cannot_be_had():
    with pytest.raises(ResolutionError):
        features.table(make_log(), "150ms")
    with pytest.raises(UsageError, match="shorter than a window"):
        features.table(make_log(rounds=4), "500ms")


def test_change_points_of_steps_are_found():
    series = np.repeat([1.0, 5.0, 2.0], [30, 40, 30]) + np.random.default_rng(0).normal(0, 0.1, 100)
    assert list(features.change_points(series)) == [30, 70]
    ages = features.since_change(series)
    assert (ages[29], ages[45], ages[99]) == (30, 16, 30)


def test_a_level_series_has_no_change_point():
    assert len(features.change_points(np.ones(50))) == 0
    assert len(features.change_points([1.0, 2.0])) == 0
    assert list(features.since_change(np.ones(60), look_back=10)) == [*range(1, 11), *[10] * 50]


def test_nobody_is_judged_by_windows_without_a_past():
    assert max(WINDOW_ROUNDS, 16) <= WARM_UP


@pytest.mark.filterwarnings("error")
def test_regions_and_neighbours_of_pages_next_to_the_end_of_64_bits():
    """Eighths of 2^64 pages are those of a small memory, each page as much higher."""
    log = make_log(size=64)
    spread = np.uint64((1 << 64) // log.memory_pages)
    far = replace(log, gfn=log.gfn * spread, memory_pages=1 << 64)
    columns = [f"region{i}" for i in range(features.REGIONS)]
    assert (1 << 64) % log.memory_pages == 0
    assert features.table(far)[columns].equals(features.table(log)[columns])
    top = replace(log, gfn=np.uint64((1 << 64) - 1) - log.gfn, memory_pages=1 << 64)
    near = [f"near{size}" for size in (1, 4)]
    mirrored, plain = (pages.candidates(one) for one in (top, log))
    order = ["origin", "gfn"]
    mirrored["gfn"] = np.uint64((1 << 64) - 1) - mirrored["gfn"]
    mirrored, plain = (table.sort_values(order)[near] for table in (mirrored, plain))
    assert np.array_equal(mirrored.to_numpy(), plain.to_numpy())
