# SPDX-License-Identifier: Apache-2.0
"""The frontier: points that are known by hand, choices within a budget, and the bootstrap."""

import json

import numpy as np
import pandas as pd
import pytest
import synthetic_vm as vm

from pmlkit import frontier, techniques
from pmlkit.costs import prices
from pmlkit.errors import ClocksDiffer, UsageError
from pmlkit.figures import frontier_tables
from pmlkit.frontier import sweeping
from pmlkit.techniques import scores
from pmlkit.units import format_share

T = vm.WINDOW_NS


def two_halves():
    """100 pages for 20 rounds, then 100 others for 20; T is 10 rounds."""
    return vm.make([vm.block(100)] * 20 + [vm.block(100, 3000)] * 20)


def points_of(names, recorded=None, **how):
    """Sweep a recording that is in memory."""
    recorded = recorded or two_halves()
    plan = frontier.plan("100ms", **{"watched": (64,), **how})
    truths = {T: scores.truth(recorded, T)}
    tables = [sweeping._points(techniques.make(n), recorded, truths, plan) for n in names]
    return frontier.priced(pd.concat(tables, ignore_index=True))


def point(points, **where):
    for name, value in where.items():
        points = points[points[name].isna() if value is None else points[name] == value]
    assert len(points) == 1
    return points.iloc[0]


# W is 100 from round 10 on, 200 in the windows that end with the rounds 21 to 29, 100 in the rest:
# 31 instants, together 4,000 pages. One look in T misses those nine; two see it from round 25 on.
@pytest.mark.parametrize("looks, mae", [(1, 900 / 4000), (2, 400 / 4000), (10, 0)])
@pytest.mark.parametrize("name", ["prl", "idle-pages", "pml-page-tables", "flag-sample"])
def test_the_error_of_a_point_is_as_by_hand(name, looks, mae):
    points = points_of([name])
    found = point(points, published=False, looks=looks, watched=None)
    assert found["mae"] == pytest.approx(mae, abs=1e-12)
    assert found["bias"] == pytest.approx(-mae, abs=1e-12) and found["says"] == 1


def test_the_overhead_of_a_point_is_count_times_price_over_instructions():
    found = point(points_of(["flag-sample"], seeds=1), published=False, looks=2, watched=64)
    events = {"flags_read": 64 * 9, "flag_looks": 9}  # 8 looks, and one that clears
    assert json.loads(found["events"]) == events
    insn = sum(prices()[event].insn * count for event, count in events.items())
    assert found["insn"] == pytest.approx(insn)
    instructions = 40 * vm.ROUND_NS / vm.TIME.ns_per_insn
    assert found["overhead"] == pytest.approx(insn / instructions)


def test_a_technique_with_knobs_has_every_setting_and_its_published_point():
    points = points_of(["vmware", "prl", "zballoond"], looks="1,2", watched="64,100000", seeds=2)
    counts = points.groupby(["technique", "published"]).size().to_dict()
    # Two looks, by 64 frames (two seeds), by more than there are, and by all.
    assert counts[("vmware", False)] == 2 * (2 + 1 + 1)
    assert counts[("vmware", True)] == 2
    assert counts[("prl", False)] == 2 and counts[("prl", True)] == 1
    assert ("zballoond", False) not in counts and counts[("zballoond", True)] == 1
    everything = points[(points["technique"] == "vmware") & ~points["published"]]
    beyond, whole = (
        everything[everything["watched"].isin([n])]
        if n
        else everything[everything["watched"].isna()]
        for n in (100000, None)
    )
    assert beyond["mae"].tolist() == whole["mae"].tolist()


# ------------------------------------------------------------------------------
# Choosing. Recordings a and b; each setting (looks) has an error and a cost on each.


def made(settings, technique="prl", window_ns=T, published=False):
    rows = [
        {
            "trace": trace,
            "technique": technique,
            "window_ns": window_ns,
            "looks": looks,
            "watched": None,
            "published": published,
            "seed": 0,
            "mae": error,
            "says": 1.0,
            "overhead": cost,
            "simulated": False,
            "missing": "",
            "notes": "",
        }
        for looks, traces in settings.items()
        for trace, (error, cost) in traces.items()
    ]
    return pd.DataFrame(rows).astype({"looks": "Int64", "watched": "Int64"})


OPPOSITE = made({1: {"a": (0.0, 0.01), "b": (1.0, 0.01)}, 2: {"a": (1.0, 0.01), "b": (0.0, 0.01)}})


def test_the_bootstrap_chooses_the_setting_anew_in_each_resample():
    """Of a and a it takes the one, of b and b the other: never an error above the half."""
    row = frontier.at_cost(OPPOSITE, [0.01]).iloc[0]
    assert (row["error"], row["low"], row["high"]) == (0.5, 0.0, 0.5)


def test_what_is_held_out_is_scored_with_the_setting_chosen_on_the_others():
    assert frontier.at_cost(OPPOSITE, [0.01])["held_out"].tolist() == [1.0]


def test_a_setting_chosen_on_other_recordings_is_scored_as_it_comes():
    others = made({1: {"c": (0.3, 0.004)}, 2: {"c": (0.1, 0.006)}, 4: {"c": (0.9, 0.1)}})
    ours = made({1: {"a": (0.2, 0.02), "b": (0.4, 0.02)}, 2: {"a": (0.5, 0.01), "b": (0.7, 0.03)}})
    table = frontier.at_settings(ours, others, [0.001, 0.005, 0.01, 1]).set_index("budget")
    assert table.index.tolist() == [0.005, 0.01, 1]  # nothing is within 0.001
    assert table["looks"].tolist() == [1, 2, 2]
    assert table["error"].round(9).tolist() == [0.3, 0.6, 0.6]
    assert table["expected"].tolist() == [0.3, 0.1, 0.1]
    assert table["cost"].round(9).tolist() == [0.02, 0.02, 0.02]  # above the budget here
    assert table.loc[0.01, ["low", "high"]].tolist() == [0.5, 0.7]
    assert frontier.at_settings(ours[ours["looks"] == 1], others, [1]).empty  # not run on ours


STAIRS = made(
    {
        1: {"a": (0.4, 0.001), "b": (0.2, 0.003)},  # 0.3 at 0.002
        2: {"a": (0.1, 0.010), "b": (0.1, 0.030)},  # 0.1 at 0.02
        4: {"a": (0.2, 0.100), "b": (0.2, 0.100)},  # dearer and worse
    }
)


def test_error_at_equal_cost_is_that_of_the_best_setting_within_it():
    table = frontier.at_cost(STAIRS, [0.001, 0.002, 0.05]).set_index("budget")
    assert table["error"].round(9).tolist() == [np.inf, 0.3, 0.1]
    assert pd.isna(table["looks"][0.001]) and table["looks"][0.002] == 1
    assert table["looks"][0.05] == 2 and table["cost"][0.05] == pytest.approx(0.02)


def test_cost_at_equal_error_is_that_of_the_cheapest_setting_that_reaches_it():
    table = frontier.at_error(STAIRS, [0.05, 0.2, 0.35]).set_index("target")
    assert table["cost"].round(9).tolist() == [np.inf, 0.02, 0.002]
    # Of a alone 0.35 takes two looks (0.01); of b alone one look (0.003).
    assert table["low"][0.35] == pytest.approx(0.002)
    assert table["high"][0.35] == pytest.approx(0.01)


def test_the_headline_has_the_closest_of_each_budget_a_row_per_t():
    cheap = STAIRS.assign(window_ns=10 * T, overhead=STAIRS["overhead"] / 100)
    table = frontier_tables.headline(pd.concat([cheap, STAIRS]))
    name, none = techniques.TECHNIQUES["prl"].title, "none is cheap enough"
    assert table.values.tolist() == [
        ["100 ms", none, none, f"{name}: 30"],
        ["1 s", f"{name}: 30", f"{name}: 10", f"{name}: 10"],
    ]
    assert table.columns.tolist() == ["T", "at 0.01 %", "at 0.1 %", "at 1 %"]


def test_the_points_of_one_t_are_those_of_the_named_one():
    both = pd.concat([STAIRS.assign(window_ns=10 * T), STAIRS])
    assert set(frontier.of_window(both, "100ms")["window_ns"]) == {T}
    assert set(frontier.of_window(both, "1s")["window_ns"]) == {10 * T}
    with pytest.raises(UsageError, match="no point has T = 3 s: choose from 100 ms, 1 s"):
        frontier.of_window(both, "3s")


def test_equal_recordings_have_no_interval():
    same = made({1: {"a": (0.3, 0.01), "b": (0.3, 0.01)}})
    row = frontier.at_cost(same, [0.1]).iloc[0]
    assert row["low"] == row["error"] == row["high"] == row["held_out"] == 0.3


def test_first_is_the_share_of_resamples_in_which_nothing_is_better():
    worse = made({1: {"a": (0.6, 0.01), "b": (0.6, 0.01)}}, "pml")
    table = frontier.at_cost(pd.concat([OPPOSITE, worse]), [0.01]).set_index("technique")
    assert table["first"].to_dict() == {"prl": 1.0, "pml": 0.0}
    twice = pd.concat([OPPOSITE, OPPOSITE.assign(technique="pml")])
    assert frontier.at_cost(twice, [0.01])["first"].tolist() == [1.0, 1.0]


def test_the_closest_of_each_budget_is_the_cheapest_of_those_with_the_least_error():
    dear, cheap = (
        made({1: {"a": (0.3, cost), "b": (0.3, cost)}}, name)
        for name, cost in (("idle-pages", 0.0008), ("pml", 0.0007))
    )
    found = frontier.closest(pd.concat([STAIRS, dear, cheap]))
    assert found.rows["budget"].tolist() == [0.0001, 0.001, 0.01]
    assert found.rows["technique"].tolist()[1:] == ["pml", "pml"]  # of equals at 0.01, too
    assert found.lines == [
        "T = 100 ms: at a cost of 0.01 % of the instructions, no technique is cheap enough. At "
        "0.1 %, PML, m = 1 per round (pml) is closest: 30 % of W. At 1 %, PML, m = 1 per round "
        "(pml) is closest: 30 % of W."
    ]
    first, *_ = found.as_dict()["closest"]
    assert first["technique"] is None and first["error"] is None


def test_the_closest_states_how_often_it_is_best_if_it_is_not_certain():
    ours = made({1: {"a": (0.1, 0.01), "b": (0.5, 0.01)}}, "pml")
    other = made({1: {"a": (0.6, 0.01), "b": (0.1, 0.01)}}, "prl")  # better on b alone
    points = pd.concat([ours, other])
    share = frontier.at_cost(points, [0.01])["first"].iloc[0]
    assert 0.7 < share < 0.8  # 3 in 4
    (words,) = frontier.closest(points).lines
    assert words.endswith(
        f": 30 % of W (95 %: 10 % to 50 %; best in {format_share(share)} of the resamples)."
    )
    (alone,) = frontier.closest(made({1: {"a": (0.3, 0.01)}})).lines
    assert alone.endswith("(prl) is closest: 30 % of W.")


def test_a_curve_falls_from_the_cheapest_setting_to_the_best():
    curve = frontier.curves(STAIRS)
    assert curve["cost"].iloc[0] == pytest.approx(0.002)
    assert curve["cost"].iloc[-1] == pytest.approx(0.02)
    assert curve["error"].round(9).tolist() == [0.3] * (len(curve) - 1) + [0.1]
    assert (curve["low"] <= curve["error"]).all() and (curve["error"] <= curve["high"]).all()


def test_a_technique_that_is_silent_on_a_recording_is_left_out_and_named():
    silent = made({1: {"a": (0.1, 0.01), "b": (np.nan, np.nan)}}, "geiger")
    silent.loc[silent["trace"] == "b", "missing"] = "disk requests"
    both = pd.concat([OPPOSITE, silent], ignore_index=True)
    assert set(frontier.at_cost(both, [0.01])["technique"]) == {"prl"}
    (row,) = frontier.left_out(both).to_dict("records")
    assert row == {
        "window_ns": T,
        "technique": "geiger",
        "recordings": 1,
        "of": 2,
        "why": "no disk requests",
    }


def test_real_and_simulated_page_tables_share_no_mean():
    tables = made({1: {"a": (0.1, 0.01), "b": (0.3, 0.01)}}, "pml-page-tables")
    mixed = tables.assign(simulated=tables["trace"] == "b")
    both = pd.concat([OPPOSITE, mixed], ignore_index=True)
    for table in (frontier.at_cost(both), frontier.at_error(both), frontier.curves(both)):
        assert set(table["technique"]) == {"prl"}
    assert frontier.published(mixed.assign(published=True)).empty
    (row,) = frontier.left_out(both).to_dict("records")
    assert (row["technique"], row["recordings"], row["of"]) == ("pml-page-tables", 1, 2)
    assert row["why"].startswith("simulated page tables, real ones on the others")
    with pytest.raises(UsageError, match="pml-page-tables has no setting that all recordings"):
        frontier.differences(both, "pml-page-tables", "prl")


@pytest.mark.parametrize("simulated", [False, True])
def test_page_tables_of_one_kind_have_a_mean_and_the_caption_states_the_kind(simulated):
    tables = made({1: {"a": (0.1, 0.01), "b": (0.3, 0.01)}}, "pml-page-tables")
    tables = tables.assign(simulated=simulated, ns_per_insn=8.0)
    assert frontier.at_cost(tables, [0.01])["error"].tolist() == [0.2]
    states = "page tables are simulated for pml-page-tables" in frontier.caption(tables)
    assert states == simulated


def test_a_sweep_tells_real_page_tables_from_simulated_ones():
    """The lab's recordings have page tables; the recorder's have a substitute for them."""
    plan = frontier.plan("1s", looks="1", techniques="pml-page-tables,idle-pages", seeds=1)
    points = frontier.sweep(["hotcold", "rrww-lab"], plan)
    kinds = points.groupby(["technique", "trace"])["simulated"].agg(set).to_dict()
    assert kinds == {
        ("idle-pages", "hotcold"): {False},
        ("idle-pages", "rrww-lab"): {False},
        ("pml-page-tables", "hotcold"): {True},
        ("pml-page-tables", "rrww-lab"): {False},
    }
    assert set(frontier.at_cost(points)["technique"]) == {"idle-pages"}


def test_points_of_an_earlier_version_are_refused(tmp_path):
    OPPOSITE.drop(columns="simulated").to_parquet(tmp_path / "a.points.parquet")
    with pytest.raises(UsageError, match="points of an earlier version: make them again"):
        frontier.read(tmp_path)


def test_one_silent_setting_leaves_the_others():
    some = pd.concat([STAIRS, made({3: {"a": (0.0, 0.001), "b": (np.nan, 0.001)}})])
    assert frontier.at_cost(some, [0.05])["error"].round(9).tolist() == [0.1]
    assert frontier.left_out(some).empty


def test_published_points_are_beside_the_sweep_and_not_in_it():
    cheap = made({1: {"a": (0.01, 0.001), "b": (0.03, 0.001)}}, published=True)
    points = pd.concat([STAIRS, cheap], ignore_index=True)
    assert frontier.at_cost(points, [0.05])["error"].round(9).tolist() == [0.1]
    (row,) = frontier.published(points).to_dict("records")
    assert row["error"] == pytest.approx(0.02) and row["swept"]
    assert (row["low"], row["high"]) == (0.01, 0.03)


def test_a_control_loop_is_one_point_in_the_tables_and_has_no_curve():
    loop = made({1: {"a": (0.01, 0.001), "b": (0.03, 0.001)}}, "zballoond", published=True)
    loop["looks"] = pd.array([pd.NA] * 2, "Int64")
    points = pd.concat([STAIRS, loop], ignore_index=True)
    table = frontier.at_cost(points, [0.05]).set_index("technique")
    assert table["error"]["zballoond"] == pytest.approx(0.02)
    assert set(frontier.curves(points)["technique"]) == {"prl"}
    assert frontier.published(points)["swept"].tolist() == [False]


# ------------------------------------------------------------------------------
# The sweep of traces on disk.


@pytest.fixture
def trace(make_trace):
    return make_trace("small.trace", rounds=30, phases=[("a", 0)])


def test_a_sweep_is_kept_and_taken_up(trace, tmp_path, monkeypatch):
    plan = frontier.plan("50ms", looks="1,5", techniques="prl,idle-pages")
    first = frontier.sweep([trace.path], plan, tmp_path)
    monkeypatch.setattr(sweeping, "_points", None)  # nothing is run again
    assert frontier.sweep([trace.path], plan, tmp_path).equals(first)
    one = frontier.sweep([trace.path], frontier.plan("50ms", "1,5", None, "prl"), tmp_path)
    assert one.equals(first[first["technique"] == "prl"].reset_index(drop=True))
    assert frontier.read(tmp_path).equals(first)
    assert frontier.read(tmp_path, ["50ms"]).equals(first)
    assert frontier.points("no such trace", [], plan, tmp_path).equals(first)
    assert frontier.points(trace.path, None, plan, tmp_path).equals(first)
    with pytest.raises(UsageError, match="no points of this T"):
        frontier.read(tmp_path, ["7s"])
    with pytest.raises(TypeError):
        frontier.sweep([trace.path], plan, tmp_path, again=True)
    with pytest.raises(TypeError):  # other settings
        frontier.sweep([trace.path], frontier.plan("50ms", "1", None, "prl"), tmp_path)


def test_a_technique_that_is_new_is_added_to_what_was_kept(trace, tmp_path):
    frontier.sweep([trace.path], frontier.plan("50ms", "1", None, "prl"), tmp_path)
    frontier.sweep([trace.path], frontier.plan("50ms", "1", None, "pml,prl"), tmp_path)
    assert list(frontier.read(tmp_path)["technique"].unique()) == ["prl", "pml"]


def test_two_processes_say_the_same_as_one(make_trace):
    paths = [make_trace(f"{name}.trace", rounds=30).path for name in "ab"]
    plan = frontier.plan("50ms", looks="1", watched="8", techniques="flag-sample", seeds=2)
    assert frontier.sweep(paths, plan, jobs=2).equals(frontier.sweep(paths, plan))


def test_a_window_that_a_recording_hardly_holds_is_not_scored(trace):
    plan = frontier.plan("50ms,200ms", looks="1", techniques="prl")
    assert frontier.sweep([trace.path], plan)["window_ns"].unique().tolist() == [50_000_000]
    with pytest.raises(UsageError, match="shorter than 2 T"):
        frontier.sweep([trace.path], frontier.plan("1s", techniques="prl"))


def test_a_clock_that_is_not_known_is_refused(make_trace):
    path = make_trace("host.trace", rounds=30, clock={"kind": "host", "ns_per_insn": None}).path
    with pytest.raises(ClocksDiffer):
        frontier.sweep([path], frontier.plan("50ms", techniques="prl"))


def test_a_given_length_of_an_instruction_is_the_clock_of_a_trace_without_one(make_trace, tmp_path):
    path = make_trace("host.trace", rounds=30, clock={"kind": "host", "ns_per_insn": None}).path
    points = {
        ns: frontier.sweep(
            [path], frontier.plan("50ms", "1", None, "prl", ns_per_insn=ns), tmp_path
        )
        for ns in (1, 4)  # what is kept of one is not taken for the other
    }
    np.testing.assert_allclose(points[4]["overhead"], 4 * points[1]["overhead"])
    assert (points[1]["overhead"] > 0).all()


@pytest.mark.parametrize(
    "wrong, what",
    [
        ({"looks": "1,x"}, "looks is '1,x': give whole numbers"),
        ({"looks": "0"}, "looks is 0"),
        ({"watched": "-1"}, "watched is -1"),
        ({"techniques": "pmll"}, "do you mean 'pml'"),
        ({"seeds": 0}, "seeds is 0"),
        ({"window": ()}, "without windows"),
        ({"ns_per_insn": 0.0}, "takes 0.0 ns"),
        ({"ns_per_insn": float("nan")}, "takes nan ns"),
    ],
)
def test_a_wrong_plan_says_what_is_wrong(wrong, what):
    with pytest.raises(UsageError, match=what):
        frontier.plan(**wrong)


def test_no_points_are_said_with_the_command_that_makes_them(tmp_path):
    with pytest.raises(UsageError, match="pmlkit frontier -o"):
        frontier.read(tmp_path)
