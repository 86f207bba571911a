# SPDX-License-Identifier: Apache-2.0
"""The tables of the experiments on reads, of guests whose every access is known."""

import pytest
from pagetable_guest import Guest, write_trace

from experiments import reads_lab
from pmlkit.notebook import reads_tables
from pmlkit.reads import calibration


def guest_trace(path, clear, spare):
    """A guest of 600 pages, `spare` of them used once; its kernel reads two in a large one."""
    guest = Guest()
    root = guest.space()
    for page in range(600):
        guest.map(root, page, (1 << 16) + page)
        guest.read(root, page)
    for large in range(4):
        guest.map(root, (large + 1) << 20, (large + 1) << 17, large=True, user=False, accessed=True)
        guest.read(root, (large + 1) << 20)
    guest.close_round(clear)
    for number in range(12):
        for page in range(600):
            if page % 6 >= spare // 100:
                guest.read(root, page)
        for large in range(1 + number % 4):
            guest.read(root, ((large + 1) << 20) + 3)
            guest.read(root, ((large + 1) << 20) + 4)
        guest.close_round(clear)
    return write_trace(path, guest, phases=[("start", 0), ("read", 1)])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    guests = {"rrww": 100, "sqlite": 200, "redis": 300, "gcc": 100}
    names = [
        (name + end, end != "", spare) for name, spare in guests.items() for end in ("", "-clear")
    ]
    traces = {n: guest_trace(folder / f"{n}.trace", clear, spare) for n, clear, spare in names}
    return reads_lab.tabulate(traces, progress=lambda text: None)


def row(errors, **which):
    for name, value in which.items():
        errors = errors[errors[name] == value]
    assert len(errors) == 1
    return errors.iloc[0]


def test_every_guest_by_phase_and_over_its_work(made):
    errors = made["errors"]
    assert set(errors["phase"]) == {"start", "read", "work"}
    plain = row(errors, guest="rrww", cleared=False, phase="work", method="accessed")
    assert plain["rounds"] == 12 and plain["bias"] > 15  # a hundred pages are stale
    again = row(errors, guest="rrww", cleared=True, phase="work", method="accessed")
    assert again["mape"] < 1  # cleared flags, and what the others teach of the kernel
    sampled = row(errors, guest="rrww", cleared=False, phase="work", method="density")
    assert sampled["median"] < 10 and sampled["inside"] >= 90
    assert sampled["width"] < plain["width"]


def test_a_guest_is_not_among_its_own_teachers(made):
    told = calibration.calibrate(made["unsure"], made["rounds"])
    low, high = told.ratios["accessed", False]
    redis = made["rounds"].query("guest == 'redis' and method == 'accessed' and not cleared")
    assert low <= (redis["truth"] / redis["pages"]).median() <= high
    own = row(made["errors"], guest="redis", cleared=False, phase="work", method="accessed")
    assert own["inside"] == 0  # twice as stale as all the others: that it cannot be known


def test_what_was_not_cleared_is_told_once(made):
    assert not made["sources"]["cleared"].any() and made["unsure"]["cleared"].all()
    assert set(made["unsure"]["pages"]) == {4, 2, 6, 8}


def test_the_tables_that_come_with_the_package_are_shown_by_guest():
    errors = reads_tables.errors()
    assert list(errors["method"].unique()) == [
        "written", "leaves", "present", "accessed", "cleared", "density", "sample",
    ]  # fmt: skip
    assert not errors.duplicated(["guest", "method"]).any()
    density = errors[errors["method"].isin(["density", "sample"])]
    assert (density["inside"] >= 90).all() and (density["mape"] <= 10).all()
    programs = errors[(errors["method"] == "cleared") & (errors["group"] == "program")]
    assert len(programs) == 4 and (programs["median"] <= 15).all()


def test_single_draws_are_kept_and_make_the_errors(made):
    drawn = made["draws"].query("guest == 'rrww' and not cleared and method == 'sample'")
    assert sorted(set(drawn["draw"])) == list(range(16))
    work = drawn[drawn["phase"] == "read"]
    errors = (work["pages"] / work["truth"] - 1).abs() * 100
    told = row(made["errors"], guest="rrww", cleared=False, phase="work", method="sample")
    assert told["mape"] == pytest.approx(errors.mean(), abs=0.01)
    assert not drawn.duplicated(["draw", "round"]).any()
