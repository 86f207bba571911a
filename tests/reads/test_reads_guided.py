# SPDX-License-Identifier: Apache-2.0
"""The guided harvest against the scan, and what its leftovers are put down to."""

import numpy as np
import pandas as pd
import pytest
from pagetable_guest import Guest, write_trace

from pmlkit.errors import NeedsError
from pmlkit.reads import guided


def some_guest():
    guest = Guest()
    root = guest.space()
    for page in range(40):
        guest.map(root, page, 700 + page)
    for page in range(20):
        guest.read(root, page)
    guest.write(root, 30)
    guest.close_round()
    guest.read(root, 1)
    guest.close_round()
    return guest, root


def test_equal_harvests_leave_nothing(tmp_path):
    guest, _ = some_guest()
    table = guided.equality(write_trace(tmp_path / "g.trace", guest, left={}))
    assert table["left"].tolist() == [0, 0]
    assert table["guided"].tolist() == [25, 5] and table["tables"].tolist() == [4, 4]


def test_each_leftover_has_its_cause(tmp_path):
    guest, root = some_guest()
    guest.read(root, 5)
    guest.unmap(root, 5)  # used, and its entry removed in the same round
    guest.touched |= {90_000, (1 << 26) + 1}  # dom0's doing; a page beyond the memory map
    guest.close_round()
    left = {2: {705, 90_000, (1 << 26) + 1}, 1: {root}}
    ram = [{"start": 0, "end": 16 << 30, "type": "usable"}]
    trace = write_trace(tmp_path / "g.trace", guest, left=left, memory_map=ram)
    found = guided.leftovers(trace)
    causes = dict(zip(found["gfn"], found["cause"], strict=True))
    assert causes == {
        root: "table",
        705: "changed",
        90_000: "gone",
        (1 << 26) + 1: "shared",
    }
    assert set(causes.values()) <= set(guided.CAUSES)
    table = guided.equality(trace)
    assert table["left"].tolist() == [0, 1, 3]
    assert table[["table", "changed"]].values.tolist() == [[0, 0], [1, 0], [0, 1]]


def test_a_guest_without_paging_has_no_tables(tmp_path):
    guest = Guest()
    guest.touched |= {5, 6}
    guest.log.append((5, 2))
    guest.close_round()
    table = guided.equality(write_trace(tmp_path / "g.trace", guest, left={}))
    assert table[["guided", "left", "tables"]].to_numpy().tolist() == [[2, 0, 0]]


@pytest.mark.parametrize(("walked", "cause"), [(False, "gone"), (True, "missed")])
def test_the_scan_tells_whether_a_table_that_was_not_logged_was_used(tmp_path, walked, cause):
    guest, _ = some_guest()
    (leaf,) = (frame for frame, level in guest.tables.items() if level == 1)
    guest.touched |= {707, leaf} if walked else {707}
    guest.close_round()
    trace = write_trace(tmp_path / "g.trace", guest, left={2: {707}})
    assert guided.leftovers(trace)["cause"].tolist() == [cause]


def test_a_page_under_a_table_that_was_logged_is_a_contradiction(tmp_path):
    trace = write_trace(tmp_path / "g.trace", some_guest()[0], left={1: {707}})
    assert guided.leftovers(trace)["cause"].tolist() == ["missed"]


def test_a_mapping_that_came_and_went_is_not_held_against_old_snapshots(tmp_path):
    guest, root = some_guest()
    guest.unmap(root, 7)
    guest.read(root, 8)  # logs the table: its snapshot of round 1 holds no longer
    guest.close_round()
    guest.touched.add(707)  # by a mapping that was made and removed within the round
    guest.close_round()
    trace = write_trace(tmp_path / "g.trace", guest, left={3: {707}})
    assert guided.leftovers(trace)["cause"].tolist() == ["gone"]


def test_what_is_missing_is_said(tmp_path):
    trace = write_trace(tmp_path / "g.trace", some_guest()[0])
    with pytest.raises(NeedsError, match="both harvests"):
        guided.equality(trace)
    with pytest.raises(NeedsError, match="costs"):
        guided.costs(trace)


def test_costs_are_read_and_modelled(tmp_path):
    told = [{"round": 0, "guided_tsc": 7, "scan_tsc": 9}]
    trace = write_trace(tmp_path / "g.trace", some_guest()[0], overheads={"rounds": told})
    (row,) = guided.costs(trace).to_dict("records")
    assert row == told[0] | {"logged": 5, "logged_tables": 4, "exits": 0}
    sizes = [1 << 28, 1 << 30, 1 << 31, 1 << 32]
    measured = pd.DataFrame(
        {"memory_bytes": sizes, "scan": [s // 4096 * 20 + 5000 for s in sizes]}
    ).assign(guided=[900, 1000, 1100, 1000])
    measured["pruned"] = [50, *(s >> 30 for s in sizes[1:])]  # the small one is no part of the line
    measured["sampled"] = 2 * measured["pruned"]
    model = guided.model_costs(measured, [1 << 28, 1 << 40])
    assert model["scan"].tolist() == pytest.approx([65536 * 20 + 5000, (1 << 28) * 20 + 5000])
    assert model["pruned"].tolist() == pytest.approx([np.nan, 1024], nan_ok=True)
    assert model["sampled"].tolist() == pytest.approx([np.nan, 2048], nan_ok=True)
    assert model["guided"].tolist() == [1000, 1000]
