# SPDX-License-Identifier: Apache-2.0
"""The tables of costs, made of what was measured in the lab."""

import re
import shutil
import subprocess

import pandas as pd

from experiments import closing_costs, cost_tables, exit_off, kvm_costs, pieces
from pmlkit.period.kvm import KVM_INSN
from pmlkit.recordings import PATCHES, ROOT

PIECE = dict(zip(pieces.COLUMNS, ("disable", "disable", "call", "x", 3, 900, 500), strict=True))


def test_a_page_under_kvm_costs_what_its_cheapest_round_has_more_than_one_without():
    cases = {
        ("ring", "off"): (20_000, 0, 0),
        ("ring", "none"): (30_000, 100, 50_000),
        ("ring", "fentry"): (45_000, 100, 40_000),
    }
    rows = [
        (log, capture, n, 1000, 1000 + took + 777 * n, pages, rearm + 55 * n, 0, 0)
        for (log, capture), (took, pages, rearm) in cases.items()
        for n in range(3)
    ]
    table = pd.DataFrame(rows, columns=kvm_costs._COLUMNS)
    (row,) = kvm_costs.costs(table).to_dict("records")
    # 100 million instructions a second: 10 ns each.
    expected = {"log a page": 10, "capture it": 15, "re-arm it": 40}
    assert row == {"log": "ring", "capture": "fentry", "pages": 100, **expected}


def test_kvms_costs_of_a_period_are_those_that_were_measured():
    table = pd.read_csv(ROOT / "data" / "kvm-costs" / "costs.csv", dtype={"kernel": str})
    rings = table[table["log"] == "ring"].set_index(["kernel", "capture"])
    for case, costs in KVM_INSN.items():
        row = rings.loc[case]
        assert costs == (row["log a page"], row["capture it"], row["re-arm it"])


def test_a_table_has_separators_and_no_more_digits_than_it_needs():
    table = pd.DataFrame({"a": ["x"], "n": [12345], "m": [1.25], "none": [float("nan")]})
    assert cost_tables.markdown(table).splitlines()[2] == "| x | 12,345 | 1.2 |  |"


def test_the_cost_of_an_exit_is_without_the_guests_loop():
    told = {"off": {"nothing": 2000, "cpuid": 84000, "hypercall": 82500}}
    (row,) = exit_off.rows("with it", told)
    assert (row["cpuid"], row["hypercall"]) == (820, 805)
    assert row["logged"] == "no domain is logged"


def test_the_first_round_is_left_out_of_closings():
    rounds = pd.DataFrame({"round": [0, 1, 2, 3], "walk_tsc": [900, 1, 2, 9], "logged": [5] * 4})
    assert closing_costs.medians(rounds) == {"walk_tsc": 2, "logged": 5}


def _longest(**more):
    rows = [{"guest": "fill", "MiB": mib, **PIECE, **more} for mib in (64, 4096)]
    found = pieces.longest(pd.DataFrame(rows))
    return found["fill"].iloc[0].to_dict()


def test_a_piece_with_a_bound_of_its_own_does_not_grow_with_memory():
    assert _longest() == {64: 500, 4096: 500, 1 << 20: 500}


def test_freeing_the_bitmap_grows_to_a_whole_node_of_it():
    rows = [
        {"guest": "fill", "MiB": mib, **PIECE, "ended": pieces.FREE_BITMAP, "longest": took}
        for mib, took in ((64, 100), (4096, 400))
    ]
    # 4 GiB, half of which is written to, have 16 pages of the bitmap, 64 MiB one: 20 for each.
    found = pieces.longest(pd.DataFrame(rows))["fill"].iloc[0]
    assert found[1 << 20] == 400 + (512 - 16) * 20


def test_pages_of_1_gib_lead_to_4_times_512_new_regions():
    row = {"guest": "spread", "MiB": 4096, **PIECE, "ended": pieces.GUIDE, "longest": 1536}
    found = pieces.longest(pd.DataFrame([row, {**row, "MiB": 64, "longest": 9}]))["spread"].iloc[0]
    assert found[1 << 20] == 2048


def test_the_model_has_the_number_of_entries_that_the_series_notes_in_a_piece():
    text = (PATCHES / "common/xen/arch/x86/mm/pml/tables.c").read_text()
    bits = int(re.search(r"^#define BITS_OF_TABLE (\d+)$", text, re.M)[1])
    assert 512 // bits * 512 == pieces._REGIONS_AT_ONCE


def test_enabling_grows_by_the_list_of_page_tables():
    # Of 4,198,400 tables, 512 of which take 8 bytes: 17 pages, and at 4 GiB one.
    found = _longest(stage="enable", operation="enable", ended=pieces.FIRST)
    assert found[1 << 20] == 500 + 16 * pieces.PAGE_INSTRUCTIONS


def test_the_longest_is_of_all_places_of_an_operation():
    rows = [{"guest": "fill", "MiB": 64, **PIECE, "longest": n} for n in (3, 700, 20)]
    rows.append({"guest": "fill", "MiB": 64, **PIECE, "operation": "costs", "longest": 9999})
    assert pieces.longest(pd.DataFrame(rows))["fill"][64].tolist() == [700]


def test_the_patch_for_measuring_applies_to_the_series_files(tmp_path):
    common = PATCHES / "common"
    shutil.copytree(common / "xen", tmp_path / "xen")
    text = (PATCHES / "lab" / "pieces.patch").read_text()
    parts = re.split(r"(?m)^(?=--- (?:a|/dev)/)", text)[1:]
    ours = [p for p in parts if (common / re.search(r"^\+\+\+ b/(\S+)", p, re.M)[1]).exists()]
    assert len(parts) == 5 and len(ours) == 2
    for part in ours:
        command = ["patch", "-p1", "--fuzz=0", "--dry-run"]
        subprocess.run(command, cwd=tmp_path, input=part, text=True, check=True)
