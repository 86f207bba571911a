# SPDX-License-Identifier: Apache-2.0
"""What moves with the guest's clock: sizes, and the ranks of techniques within a budget."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import synthetic_vm as vm

import pmlkit
from experiments import clock_sensitivity as clocks
from experiments import made
from pmlkit.costs import Clock
from pmlkit.recordings import ROOT

POINTS = pd.DataFrame(
    [
        ("dear", 4, 0.01, 0.9),
        ("dear", 1, 0.30, 0.1),
        ("cheap", 1, 0.20, 0.01),
        ("silent", 1, np.nan, 0.01),
        ("lavish", 1, 0.0, 5.0),
    ],
    columns=["technique", "looks", "error", "overhead"],
)


def test_the_size_for_as_many_instructions_does_not_know_the_clock():
    """200 pages, then 300, in turn: 500 in any T of two rounds or more; 450 are written."""
    sets = [vm.block(200), vm.block(300, vm.FIRST + 200)] * 600
    written = [vm.block(150), vm.block(300, vm.FIRST + 200)] * 600
    slow = vm.make(sets, written)
    fast = replace(slow, t_ns=slow.t_ns // 8, resolution_ns=vm.ROUND_NS // 8)
    fast = replace(fast, time=Clock("an emulator", 1.0))
    by_clock = [clocks.sizes(recorded) for recorded in (slow, fast)]
    for table in by_clock:
        of = table[table["kind"] == "instructions"]
        assert (of["w"] == 500).all() and (of["p95"] == 500).all() and (of["written"] == 450).all()
        assert of["t_insn"].tolist() == list(clocks.SIZES_INSN)
    # The fast one lasts 1.5 s: no T of a second has three windows in it.
    assert by_clock[1].loc[by_clock[1]["kind"] == "time", "t_ns"].max() == 300_000_000
    assert (by_clock[0]["t_ns"] == by_clock[0]["t_insn"] * 8).all()


def test_techniques_are_asked_at_each_setting_of_their_knobs():
    table = clocks.points(vm.constant(500, 300), vm.WINDOW_NS, ("idle-pages", "vmware", "mpa"))
    counts = table["technique"].value_counts().to_dict()
    pairs = len(clocks.LOOKS) * len(clocks.WATCHED)
    assert counts == {"idle-pages": 1 + len(clocks.LOOKS), "vmware": 1 + pairs}
    assert table.loc[table["technique"] == "idle-pages", "error"].max() == 0


def test_within_a_budget_each_technique_has_its_least_error():
    table = clocks.ranks(POINTS, 0.5)
    assert table[["technique", "error", "rank"]].values.tolist() == [
        ["cheap", 0.20, 1],
        ["dear", 0.30, 2],
    ]
    assert clocks.ranks(POINTS, 1)["technique"].tolist() == ["dear", "cheap"]


def test_ranks_agree_with_themselves_and_not_with_their_opposite():
    first = clocks.ranks(POINTS, 10)
    same = clocks.agreement(first, first)
    assert (same["correlation"], same["error_ratio"], same["techniques"]) == (1, 1, 3)
    assert same["first"] == same["other"] == "lavish"
    turned = first.assign(error=[0.4, 0.2, 0.1]).sort_values("error")
    told = clocks.agreement(first, turned)
    assert told["correlation"] == pytest.approx(-1)
    assert (told["other"], told["regret"]) == ("cheap", 4)


def test_clocks_are_held_against_the_slowest():
    scored = pd.concat(
        POINTS.assign(program="p", kind="time", ns_per_insn=ns, overhead=0.0) for ns in (1.0, 8.0)
    )
    ranked, agreed = clocks.compared(scored)
    assert len(agreed) == len(clocks.BUDGETS)
    assert set(agreed["ns_per_insn"]) == {1.0}
    assert (agreed["correlation"] == 1).all()
    assert len(ranked) == 2 * len(clocks.BUDGETS) * 3


def test_the_versions_are_those_of_all_recordings():
    traces = [pmlkit.bundled(name) for name in ("redis", "sqlite")]
    redis, sqlite = (pmlkit.open(trace).meta.provenance["versions"] for trace in traces)
    assert made.versions(traces) == redis | sqlite
    assert set(redis) - set(sqlite) and set(sqlite) - set(redis)


def test_the_data_name_the_versions_of_each_program():
    note = json.loads((ROOT / "data" / "clock-sensitivity" / "made.json").read_text())
    assert {"redis-server", "sqlite3", "gcc-12"} <= set(note["provenance"]["versions"])
