# SPDX-License-Identifier: Apache-2.0
"""Guests that are capped at what techniques say: the rule for a size, and what is made of runs."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import synthetic_vm as vm

from experiments import caps
from pmlkit.recordings import ROOT
from pmlkit.sources.guest.workload import load
from pmlkit.sources.recorder.ingest import read_report
from pmlkit.techniques import scores
from pmlkit.techniques.memory import MemoryModel

DATA = ROOT / "data" / "caps"
DISK_S = 0.0024  # 0.1 ms at 3 GHz are 300,000 instructions, of 8 ns each
SIZES = pd.DataFrame({"technique": ["a", "b", "c"], "cap_mib": [80, 100, 256]})
RESULTS = pd.DataFrame(
    [
        (80, 0, 1000, 26.0, 6.0),
        (80, 1, 3000, 50.0, 10.0),
        (100, 0, 0, 10.0, 5.0),
        (100, 1, 0, 10.0, 5.0),
    ],
    columns=["cap_mib", "repeat", "swap_ins", "seconds", "busy_s"],
)


# Of 39 s: idle for 1 s of which 2 % are the timer's, then 38 s of which it is idle for 9.8.
PHASES = (
    ("start", 0),
    ("spun-1000-1000000000", 100),
    ("spun-980001000-2000000000", 200),
    ("work", 210),
    ("spun-10780001000-40000000000", 4000),
)


def kernel(recorded, **pages):
    """The VM with a kernel that says the same at every sample, pages."""
    table = recorded.guest.copy()
    for name, count in {"cached": 0, "committed": 0, **pages}.items():
        table[f"{name}_bytes"] = count * 4096
    return replace(recorded, guest=table)


def test_a_programs_rows_are_replaced_and_those_of_others_stay():
    kept = pd.DataFrame({"program": ["pressure", "redis", "redis", "xz"], "cap_mib": range(4)})
    new = pd.DataFrame({"program": ["gcc", "gcc", "redis"], "cap_mib": [10, 11, 12]})
    assert caps.replaced(kept, new).to_numpy().tolist() == [
        ["pressure", 0],
        ["redis", 12],
        ["gcc", 10],
        ["gcc", 11],
        ["xz", 3],
    ]


@pytest.mark.parametrize("name", caps.PROGRAMS)
def test_each_program_is_a_workload_with_these_parameters(name):
    program = caps.PROGRAMS[name]
    assert load(program.workload).with_parameters(dict(program.settings))


def test_an_estimate_weighs_as_long_as_it_holds():
    recorded = vm.constant(500, 300)
    truth = scores.truth(recorded, caps.WINDOW_NS)
    # Scored from 1 s to 3 s: 100 pages for 1.8 s of it, then 900 pages for 0.2 s.
    t_ns = [0, 2_800_000_000]
    estimates = pd.DataFrame({"t_ns": t_ns, "pages": [100.0, 900.0]})
    assert caps.percentile(estimates, truth, 89) == 100
    assert caps.percentile(estimates, truth, 91) == 900


def test_moments_without_an_estimate_do_not_count():
    truth = scores.truth(vm.constant(500, 300), caps.WINDOW_NS)
    estimates = pd.DataFrame({"t_ns": [0, 2_900_000_000], "pages": [np.nan, 70.0]})
    assert caps.percentile(estimates, truth, 5) == 70
    assert np.isnan(caps.percentile(estimates.head(1), truth))


@pytest.mark.parametrize(
    ("pages", "cap"), [(0, 4), (768, 4), (769, 8), (10_000, 16)]
)  # with a reserve of 1 MiB, in a guest of 16 MiB
def test_a_cap_is_rounded_up_and_no_more_than_the_guest_had(pages, cap):
    assert caps.cap_mib(pages, reserve=256, memory_mib=16) == cap


def test_reserve_and_peak_are_what_the_kernel_counts():
    recorded = vm.constant(500, 300)
    pages = {"total": vm.PAGES - 600, "allocated": 900, "anon": 100}
    quiet = kernel(recorded, **pages)
    table = quiet.guest.copy()
    table.loc[table.index[5], "allocated_bytes"] = 1500 * 4096
    slack = MemoryModel().slack_pages
    assert caps.reserve_pages(quiet) == 600 + 800 + slack
    assert caps.peak_pages(replace(quiet, guest=table)) == 600 + 1500 + slack


def test_who_sees_all_is_given_the_cap_of_the_truth():
    recorded = kernel(vm.constant(500, 400), total=vm.PAGES, allocated=600, anon=100)
    table = caps.sizings(recorded, ("idle-pages", "pml", "mpa")).set_index("technique")
    assert table["p95_mib"][["truth", "idle-pages", "pml"]].tolist() == [500 / 256] * 3
    assert table["looks"].to_dict() == {"truth": 0, "idle-pages": 4, "pml": 4} | (
        {"mpa": 0} if "mpa" in table.index else {}
    )
    # 500 pages in all, and 500 + slack of the reserve.
    assert table["cap_mib"]["truth"] == 8
    peak = (600 + MemoryModel().slack_pages) / 256
    assert table["saved_mib"]["truth"] == pytest.approx(peak - 8)


def test_pages_that_cannot_be_given_up_are_counted_twice():
    """50 of 500 pages are only read: files in memory for good."""
    sets = [vm.block(500)] * 400
    written = [vm.block(450)] * 400
    recorded = vm.make(sets, written)
    table = recorded.guest.assign(t_ns=recorded.guest["t_ns"])
    table.loc[table.index[0], "t_ns"] = 0
    assert caps._twice(replace(recorded, guest=table)) == 50


def test_what_a_guest_tells_of_its_work_is_how_long_it_took_and_how_long_it_was_idle():
    report = "".join(f"phase {name}\n" for name, _ in PHASES)
    report += "sample pswpin=7 pswpout=9 pgmajfault=8\n"
    told = caps.outcome(read_report(f"{report}exit 0\nend\n"))
    assert told.pop("spun_s") == pytest.approx(9.8)
    assert told == {"seconds": 38, "swap_ins": 7, "swap_outs": 9, "major_faults": 8}


@pytest.mark.parametrize("waited_s", [0, 10, 1000])
def test_work_is_what_is_not_idle_however_long_it_waits(waited_s):
    """The timer takes 1 % of an idle guest, and to tell the time 20 ms, of one second or four."""
    periods = pd.DataFrame([(s + 0.02, 0.99 * s) for s in (1, 4)], columns=["seconds", "spun_s"])
    share = caps.idle_share(periods)
    assert share == pytest.approx(0.99)
    took = {"seconds": 5 + waited_s, "spun_s": 0.99 * waited_s}
    assert caps.busy(took, share) == pytest.approx(5)


def test_of_one_run_there_is_no_interval():
    table = caps.joined(SIZES, RESULTS[RESULTS["repeat"] == 0], 10.0, 5.0, 1e-4)
    assert table.filter(like="_pm").isna().all(axis=None)


@pytest.mark.parametrize(("end", "why"), [("", "not done"), ("exit 137\n", "status 137")])
def test_a_guest_that_did_not_end_its_work_has_died(end, why):
    told = caps.outcome(read_report(f"phase start\n{end}"))
    assert list(told) == ["died"] and why in told["died"]


@pytest.mark.parametrize("name", caps.PROGRAMS)
def test_a_program_runs_between_two_looks_at_the_idle_process(name):
    own, timed = load(caps.PROGRAMS[name].workload).command, caps.timed(name).command
    before, _, after = timed.partition(f"\n{own}\n")
    assert before.endswith("spun; sleep 1; spun") and after.startswith("status=$?; spun")


def test_guests_with_room_are_run_once():
    sizes = pd.DataFrame({"cap_mib": [120, 80, 100, 96, 80, 256]})
    assert caps.to_run(sizes, peak_mib=97) == [80, 96, 100]
    assert caps.to_run(sizes, peak_mib=1000) == [80, 96, 100, 120, 256]


def test_a_technique_has_what_guests_of_its_cap_did():
    table = caps.joined(SIZES, RESULTS, seconds=10.0, busy_s=5.0, disk_s=1e-4)
    table = table.set_index("technique")
    assert table["ran_mib"].tolist() == [80, 100, 100]  # the largest stands for larger ones
    assert table["swap_ins"].tolist() == [2000, 0, 0]
    assert table["swap_ins_per_s"].tolist() == [200, 0, 0]
    assert table["work"].tolist() == pytest.approx([(6 + 10) / 2 / 5, 1, 1])
    # 1 and 5 s more of work, 0.1 and 0.3 s of waiting for a disk of 0.1 ms.
    slowdowns = [1 + 1.1 / 10, 1 + 5.3 / 10]
    assert table["slowdown"].tolist() == pytest.approx([np.mean(slowdowns), 1, 1])
    # Student's t with one degree of freedom: 12.706 times half the difference of the two.
    half = 12.706 * np.diff(slowdowns)[0] / 2
    assert table["slowdown_pm"]["a"] == pytest.approx(half, rel=1e-3)
    # Of the emulated disk: 15 s for 1000 swap-ins, 35 s for 3000.
    assert table["wait_ms"]["a"] == pytest.approx((15 + 35 / 3) / 2)
    assert np.isnan(table["wait_ms"]["b"])


def test_a_cap_that_was_not_run_has_no_numbers():
    sizes = pd.DataFrame({"technique": ["a", "b", "c"], "cap_mib": [64, 80, 92]})
    table = caps.joined(sizes, RESULTS, 10.0, 5.0, 1e-4)
    assert table["technique"].tolist() == ["b"]


def test_the_disk_is_as_slow_against_the_guest_as_against_a_processor():
    assert caps.disk_s(vm.constant(5, 20)) == pytest.approx(DISK_S)


def test_a_longer_window_gives_a_larger_cap_and_fewer_swaps():
    """Of 3000 pages three are used in each round of 10 ms, in turn: all of them in 10 s."""
    sweep = [vm.block(3, vm.FIRST + 3 * (r % 1000)) for r in range(4000)]
    recorded = kernel(vm.make(sweep, phases=PHASES), total=vm.PAGES, allocated=3200, anon=3000)
    table = caps.windows(recorded)
    assert (table["p95_mib"] * 256).round().tolist() == [90, 300, 900, 3000]
    assert table["window_ns"].tolist() == list(caps.WINDOWS_NS)
    assert table["swap_ins"].iloc[-1] == 0 < table["swap_ins"].iloc[0]


def test_guests_that_died_are_counted_and_leave_no_numbers():
    dead = pd.DataFrame([(60, 0, np.nan, np.nan, np.nan)], columns=RESULTS.columns)
    sizes = pd.DataFrame({"technique": ["a"], "cap_mib": [60]})
    row = caps.joined(sizes, pd.concat([RESULTS, dead]), 10.0, 5.0, 1e-4).iloc[0]
    assert (row["ran_mib"], row["repeats"], row["died"]) == (60, 1, 1)
    assert np.isnan(row["slowdown"]) and np.isnan(row["swap_ins"])


def test_over_programs_those_that_hurt_nobody_and_save_most_come_first():
    rows = [
        ("p", "truth", 100, 0.1, 1.0),
        ("q", "truth", 60, 0.3, 1.0),
        ("p", "lavish", 200, -0.8, 1.0),
        ("q", "lavish", 70, 0.2, 1.0),
        ("p", "mean", 80, 0.3, 2.0),
        ("q", "mean", 60, 0.3, 1.0),
        ("p", "dead", 10, 0.9, np.nan),
        ("q", "dead", 10, 0.9, 9.0),
    ]
    columns = ["program", "technique", "cap_mib", "saved", "slowdown"]
    table = pd.DataFrame(rows, columns=columns).assign(title="", swap_ins_per_s=0.0)
    table["slowdown_pm"] = table["slowdown"] / 10
    made = caps.summary(table).set_index("technique")
    assert made.index.tolist() == ["truth", "lavish", "mean", "dead"]
    assert made["hurt"].tolist() == [0, 0, 1, 2]
    assert made["beyond_mib"].tolist() == [0, 55, -10, -70]
    assert made["saved"].round(6).tolist() == [0.2, -0.3, 0.3, 0.9]
    assert made["slowdown"].tolist()[:3] == [1, 1, 2]
    assert made["slowdown_pm"].tolist() == [0.1, 0.1, 0.2, 0.9]
    modelled = table.drop(columns="slowdown_pm").rename(columns={"slowdown": "waiting"})
    simulated = caps.summary(modelled)
    assert simulated["hurt"].tolist() == [0, 0, 1, 2]


def test_the_model_swaps_at_a_cap_below_what_is_swept_and_not_above():
    sweep = [[vm.FIRST + page % 1000] for page in range(4000)]
    recorded = kernel(
        vm.make(sweep, phases=PHASES),
        total=vm.PAGES, allocated=1000, anon=1000,
    )  # fmt: skip
    table = caps.simulated(
        recorded, pd.DataFrame({"technique": ["low", "high"], "cap_mib": [6, 16]})
    )
    low, high = table["swap_ins"]
    # LRU misses each page of a cycle that is longer than the memory.
    assert low > 2500 and high == 0
    assert table["swap_ins_per_s"][0] == pytest.approx(low / 38)


def test_real_and_simulated_swaps_have_a_column_each():
    model = pd.DataFrame({"program": "p", "cap_mib": [80, 80, 100], "swap_ins": [1800, 1800, 5]})
    table = caps.beside(RESULTS.assign(program="p"), model)
    assert table.to_dict("list") == {
        "program": ["p", "p"],
        "cap_mib": [80, 100],
        "real": [2000, 0],
        "least": [1000, 0],
        "most": [3000, 0],
        "model": [1800, 5],
    }


def test_the_bundled_table_is_what_its_runs_say():
    tables = {name: pd.read_csv(DATA / f"{name}.csv") for name in ("caps", "runs", "model")}
    share = caps.idle_share(pd.read_csv(DATA / "idle.csv"))
    took = pd.read_csv(DATA / "programs.csv").set_index("program")[["seconds", "busy_s"]]
    for program, shown in tables["caps"].groupby("program"):
        sizes = shown[caps.SIZE_COLUMNS]
        runs = tables["runs"][tables["runs"]["program"] == program]
        pd.testing.assert_series_equal(
            runs["busy_s"], caps.busy(runs, share), check_names=False, atol=1e-3
        )
        made = caps.joined(sizes, runs, disk_s=DISK_S, **took.loc[program])
        pd.testing.assert_frame_equal(
            made.reset_index(drop=True),
            shown.drop(columns="program").reset_index(drop=True),
            rtol=1e-2,
            atol=2e-3,
            check_dtype=False,
        )
        simulated = tables["model"][tables["model"]["program"] == program]
        caps_of = simulated.set_index("technique")["cap_mib"]
        assert (caps_of[shown["technique"]].to_numpy() == shown["cap_mib"].to_numpy()).all()
        left = simulated.loc[simulated["cap_mib"] < runs["cap_mib"].min(), "swap_ins"]
        assert (left > caps.MOST).all()
