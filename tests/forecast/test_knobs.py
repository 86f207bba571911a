# SPDX-License-Identifier: Apache-2.0
"""Knobs set beforehand, runs of violations, and the trial: known answers, and causality."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from forecast_logs import make_used_sample

from pmlkit.forecast import baselines, knobs, metrics, trial, verdict
from pmlkit.forecast.analogs import Pooled
from pmlkit.forecast.backtest import Outcome, rule_outcomes
from pmlkit.forecast.forecaster import Forecaster
from pmlkit.forecast.models import LinearQuantiles
from pmlkit.trace.schema import MIB_PAGES


def outcome(y, given, horizon=1, seen=None, model="m"):
    y, given = np.asarray(y, float), np.asarray(given, float)
    given = given.reshape(len(y), -1)
    seen = y if seen is None else np.asarray(seen, float)
    return Outcome(
        model, "a-1", "a", False, 0.5, np.arange(len(y)), y, given, seen=seen, horizon=horizon
    )


# Runs and absolute costs


def test_runs_by_hand():
    found = metrics.runs([0, 1, 1, 1, 0, 0, 1, 0, 1, 1])
    assert found == {"violations": 0.6, "again": 3 / 5, "run": 2, "longest": 3}
    none = metrics.runs([0, 0])
    assert (none["violations"], none["longest"]) == (0, 0) and np.isnan(none["again"])


def test_failures_by_chance_come_again_as_often_as_ever():
    found = metrics.runs(np.random.default_rng(0).random(200_000) < 0.05)
    assert found["again"] == pytest.approx(0.05, abs=0.005)
    assert found["run"] == pytest.approx(1 / 0.95, abs=0.01)


def test_idle_and_short_by_hand():
    found = metrics.idle_and_short([10, 30], [20, 25], 0.05)
    assert found["idle"] == 10 / 40 and found["short"] == 5 / 40
    assert found["cost"] == pytest.approx(10 / 40 + 19 * 5 / 40)


def test_the_quantile_costs_least_where_it_is_known():
    y = np.random.default_rng(0).exponential(100, 20_000)
    costs = {
        level: metrics.idle_and_short(y, np.full(len(y), np.quantile(y, level)), 0.05)["cost"]
        for level in (0.85, 0.92, 0.95, 0.97, 0.99)
    }
    assert min(costs, key=costs.get) == 0.95


# Knobs


def test_the_knob_of_others_is_the_least_that_keeps_to_the_rate():
    a = outcome([2, 2, 2, 2], np.tile([1, 2, 3], (4, 1)))
    b = replace(outcome([3, 3, 2, 2], np.tile([1, 2, 3], (4, 1))), program="b")
    np.testing.assert_array_equal(knobs.rates([a, b]), [1, 0.25, 0])
    assert knobs.trained(knobs.rates([a, b]), 0.25) == 1
    assert knobs.trained(knobs.rates([a, b]), 0.05) == 2
    assert knobs.trained([0.5, 0.4], 0.05) == 1


@pytest.mark.parametrize("horizon", [1, 4])
def test_the_knob_of_the_past_is_that_of_counting(horizon):
    random = np.random.default_rng(0)
    y, given = random.uniform(0, 10, 60), np.tile(np.arange(1.0, 12), (60, 1))
    seen = np.where(random.random(60) < 0.2, np.nan, y)
    o, share = outcome(y, given, horizon, seen), np.linspace(1, 0, 11)
    found = knobs.by_past(o, share, 0.1, weight=8)
    for t in range(60):
        past = [i for i in range(60) if i + horizon <= t and np.isfinite(seen[i])]
        missed = np.array([sum(seen[i] > given[i, k] for i in past) for k in range(11)])
        keeps = (8 * share + missed) / (8 + len(past)) <= 0.1
        assert found[t] == keeps.argmax()


def test_the_knob_finds_a_quantile_that_is_known():
    y = np.random.default_rng(0).uniform(0, 100, 4000)
    o = outcome(y, np.tile(np.arange(0.0, 101), (4000, 1)))
    found = knobs.by_past(o, np.linspace(1, 0, 101) ** 4, 0.05)
    assert found[-1] == pytest.approx(95, abs=2)


def test_as_published():
    vpa = replace(outcome([1], np.ones((1, 57))), model="VPA 60")
    assert baselines.MARGINS[knobs.as_is(vpa, 0.05)] == 1
    percentile = replace(outcome([1], np.ones((1, 20))), model="percentile 96")
    assert baselines.QUANTILES[knobs.as_is(percentile, 0.05)] == 0.95
    assert knobs.as_is(outcome([1], [1]), 0.05) is None


def test_without_anything_seen_only_others_set_the_knob():
    o = outcome([1, 2, 3], np.tile([1, 2, 3], (3, 1)), seen=[np.nan] * 3)
    assert [d.knob for d in knobs.decide(o, np.array([1, 0.5, 0]), 0.1)] == ["others"]


def test_the_leader_is_who_has_cost_least_so_far():
    y = np.full(40, 10.0)
    o = outcome(y, y)
    good, bad = (
        knobs.Decision(o, "", 0.1, np.full(40, g), n) for g, n in ((10.0, "g"), (90.0, "b"))
    )
    decision, leaders = knobs.follow([bad, good], [0.0, 1.0], "leader", weight=4)
    # The others speak for b (0 against 1); here it costs 8 a window more: from the first on.
    assert leaders[0] == 0 and (leaders[2:] == 1).all()
    np.testing.assert_array_equal(decision.allocations, np.where(leaders == 0, 90, 10))


# The trial

PLAN = trial.Plan(
    horizons=(2,), inputs=("pml", "pml+sample"), asked=(0.05,), learners=(),
    rules=("last value", "max of 4", "percentile 96", "VPA 60"),
)  # fmt: skip


def samples_of(names, rounds=400, inputs=PLAN.inputs):
    return [
        make_used_sample(f"{name}-x", one, seed=i, rounds=rounds)
        for one in inputs
        for i, name in enumerate(names)
    ]


@pytest.fixture(scope="module")
def judged():
    everything = samples_of("abcd")
    return trial.judge(everything, everything, PLAN)


def test_every_decider_is_judged_on_every_log(judged):
    assert set(judged["inputs"]) == set(PLAN.inputs)
    count = judged.groupby("inputs")["decider"].nunique()
    # Two ways for each rule, a third for two of them, and the recommended; PML alone has no past.
    assert count["pml+sample"] == 4 * 2 + 2 + 1 and count["pml"] == 4 + 2 + 1
    assert (judged.groupby(["inputs", "decider"])["program"].nunique() == 4).all()


def test_pml_alone_with_the_margin_of_others_knows_how_much_is_read(judged):
    """The logs use twice what they write, and only programs that were recorded say so."""
    rows = judged[judged["inputs"] == "pml"].groupby("decider")["violations"].mean()
    assert rows["max of 4, others"] < 0.2 and rows["VPA 60, as is"] > 0.5


def test_the_summary_has_intervals_and_the_contest_its_tests(judged):
    table = verdict.summary(judged)
    assert (table["idle_low"] <= table["idle"]).all() and (table["programs"] == 4).all()
    chosen = pd.DataFrame(
        [{"inputs": i, "horizon": 2, "rule": "last value, others", "model": "max of 4, others"}
         for i in PLAN.inputs]
    )  # fmt: skip
    found = verdict.contest(judged, chosen, PLAN)
    ours = ["max of 4, others", "recommended"]
    assert list(found["ours"]) == [*ours, "last value, others", *ours]
    assert list(found["against"]) == ["pml", "pml", "pml+sample", "pml+sample", "pml+sample"]
    assert found["primary"].sum() == 1 and (found["least_p"] == 2 / 2**4).all()
    assert found["p_holm"].notna().sum() == 1


def test_the_statements_are_decided_by_hand():
    tests = pd.DataFrame(
        [("pml+sample", 1, "m", "pml+sample", True, 12, 10, 0.8, 0.9, 0.04),
         ("pml+sample", 4, "m", "pml+sample", True, 12, 6, 0.85, 0.89, 0.2),
         ("pml+sample", 4, "recommended", "pml+sample", False, 12, 5, 1.12, 1.2, np.nan),
         ("pml", 1, "r", "pml+sample", False, 12, 2, 1.3, 1.4, np.nan),
         ("sample", 1, "r", "pml+sample", False, 12, 6, 1.0, 1.3, np.nan)],
        columns=["inputs", "horizon", "ours", "against", "primary", "programs", "lower", "ratio",
                 "high", "p_holm"],
    )  # fmt: skip
    means = pd.DataFrame(
        [("pml+sample", 1, 0.05, "recommended", 0.05, 0.1, 0.6),
         ("pml+sample", 4, 0.05, "recommended", 0.05, 0.3, 0.4)],
        columns=["inputs", "horizon", "asked", "decider", "violations", "again", "idle"],
    )  # fmt: skip
    found = verdict.statements(tests, means)
    assert list(found["number"]) == [1, 1, 2, 3, 4, 5, 6, 7]
    assert list(found["holds"]) == [True, True, False, True, False, False, True, False]


def test_models_of_peaks_are_held_against_their_rule(judged, tmp_path):
    chosen = pd.DataFrame(
        [{"inputs": i, "horizon": 2, "rule": "last value, others", "model": "max of 4, others"}
         for i in PLAN.inputs]
    )  # fmt: skip
    verdict.save(verdict.of(judged, chosen, verdict.HELD_OUT, PLAN), tmp_path)
    chosen.to_csv(tmp_path / "chosen.csv", index=False)
    rows = [("sample", p, m, s) for p in "abc" for m, s in (("boosted", 0.2), ("nearness", 0.4))]
    columns = ["inputs", "program", "model", "average_precision"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "held-out-peaks.csv", index=False)
    (row,) = verdict.choices(tmp_path).to_dict("records")
    assert (row["what"], row["lower"], row["programs"]) == ("peaks", 3, 3)
    assert row["ratio"] == pytest.approx(0.5) and row["p_permutation"] == 2 / 2**3
    assert verdict.load(tmp_path).programs == "held-out"


def test_a_program_is_never_judged_by_what_it_trained():
    everything = samples_of("abcd", inputs=("pml+sample",))
    groups = trial._by_training(everything, everything, 2)
    for others, held in groups:
        assert not {s.program for s in others} & {s.program for s in held}
        assert len(others) == len(held) == 2
    assert sorted(s.program for _, held in groups for s in held) == list("abcd")
    ((others, held),) = trial._by_training(everything[:2], everything[2:], 2)
    assert (others, held) == (everything[:2], everything[2:])


def shuffled(one, cut):
    """Return a sample whose windows from `cut` on are in another order."""
    random = np.random.default_rng(1)
    order = np.concatenate([np.arange(cut), cut + random.permutation(len(one.table) - cut)])
    table = one.table.iloc[order].reset_index(drop=True)
    return replace(one, table=table.assign(t_ns=one.table["t_ns"]))


@pytest.mark.parametrize("inputs", PLAN.inputs)
def test_what_comes_later_changes_no_decision(inputs):
    """Shuffle the future of a log: no decision made before may change."""
    training = samples_of("bcd", inputs=(inputs,))
    one, cut = make_used_sample("a-x", inputs, rounds=400), 60
    found = [trial.decisions([s], training, PLAN, 2) for s in (one, shuffled(one, cut))]
    until = cut - trial_start(one)
    for here, there in zip(*found, strict=True):
        assert here.name == there.name
        np.testing.assert_array_equal(
            here.allocations[:until], there.allocations[:until], err_msg=here.name
        )
    assert any((a.allocations != b.allocations).any() for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("inputs", PLAN.inputs)
def test_what_comes_later_changes_no_forecast(inputs):
    training = samples_of("bc", inputs=(inputs,))
    model = Pooled(Forecaster(LinearQuantiles((0.5, 0.9), features=4), 2)).fit(training)
    one, cut = make_used_sample("a-x", inputs, rounds=400), 60
    here, there = model.predict(one), model.predict(shuffled(one, cut))
    np.testing.assert_array_equal(here[:cut], there[:cut])
    assert (here != there).any()


def trial_start(one):
    """Return the window of the first decision that is judged."""
    t_ns = rule_outcomes([one], ["last value"], 2, "at")[0].t_ns
    return int(np.flatnonzero(one.table["t_ns"] == t_ns[0])[0])


@pytest.mark.parametrize("inputs", PLAN.inputs)
def test_who_has_cost_least_is_recommended_and_the_past_says_why(inputs):
    training = samples_of("bcd", inputs=(inputs,))
    model = Forecaster(LinearQuantiles((0.5, 0.9), features=4), 2).fit(training)
    one = make_used_sample("a-x", inputs, rounds=400)
    found = trial.recommend(one, training, "linear", model)
    plan = trial.Plan(learners=("linear",), asked=(0.05,))
    made = trial.decisions([one], training, plan, 2, True, {"linear": model})
    leader = made.pop()
    assert len(leader.allocations) == len(one.table) - trial_start(one)
    assert found["mib"] == leader.allocations[-1] / MIB_PAGES
    (same,) = {d.name for d in made if d.name == found["decider"]}
    assert same and found["model"]["decider"].startswith("linear")
    if inputs == "pml":  # which shows nothing of what is only read
        assert (found["by"], found["windows"]) == ("recorded programs", 0)
    else:
        assert found["by"] == "the log's own past"
        assert found["windows"] == len(leader.allocations) - 2


def test_a_model_that_loses_to_a_rule_is_not_recommended():
    """A forecast of far too much, beside the largest use of a steady program."""
    training = samples_of("bcd", inputs=("sample",))
    model = Forecaster(LinearQuantiles((0.5, 0.9), features=4), 2).fit(training)
    model.shift_ = model.shift_ + 3  # 20 times too much
    one = make_used_sample("a-x", "sample", rounds=400)
    model.online = False
    found = trial.recommend(one, training, "linear", model)
    assert "linear" not in found["decider"]


def test_tables_come_back(tmp_path):
    samples = samples_of("ab")
    trial.write_tables(samples, tmp_path / "tables.parquet")
    again = trial.read_tables(tmp_path / "tables.parquet")
    for one, other in zip(samples, again, strict=True):
        assert (one.name, one.inputs, one.measures) == (other.name, other.inputs, other.measures)
        columns = [name for name in other.table if not name.startswith("hour")]
        pd.testing.assert_frame_equal(one.table[columns], other.table[columns], check_dtype=False)
    judged = [trial.judge(s, s, replace(PLAN, inputs=("pml",))) for s in (samples, again)]
    pd.testing.assert_frame_equal(*judged)
