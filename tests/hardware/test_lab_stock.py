# SPDX-License-Identifier: Apache-2.0
"""Debian's own Xen, unpatched: the lab itself is right."""

import pytest
from lab_case import DIRECTORIES, LEAVES, data, frames, needs_lab, own, rounds

pytestmark = [needs_lab, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("version", ["4.17", "4.20"])
def test_known_set_is_exact_in_every_round(lab, version):
    trace = lab.run("known", stock=True, xen=version)
    assert trace.n_rounds == 8
    assert trace.meta.provenance["versions"]["xen"].startswith(version)
    for _, entries in rounds(trace):
        assert set(data(entries).gfn) == frames(trace, "hot") | frames(trace, "cold")
        assert own(entries)


def test_pml_and_not_write_faults_found_them(lab):
    assert lab.run("known", stock=True).meta.overheads["write_faults"] == 0


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_reads_show_only_in_the_page_tables(lab, levels):
    trace = lab.run("reads", stock=True, rounds=4, settings={"levels": str(levels)})
    for _, entries in rounds(trace):
        assert data(entries).empty
        tables = set(entries.gfn) & frames(trace, "tables")
        assert tables == LEAVES[levels] | DIRECTORIES[levels]


def test_two_vcpus_are_both_seen(lab):
    trace = lab.run("vcpus", stock=True, rounds=4)
    for _, entries in rounds(trace):
        assert set(data(entries).gfn) == frames(trace, "first") | frames(trace, "second")


def test_linux_guest_runs_a_recorder_workload(lab):
    trace = lab.run("hotcold", stock=True, rounds=6, period_s=0.5)
    hot = frames(trace, "hot")
    assert len(hot) == 300
    phases = trace.phase_of_rounds()
    dirty = [set(entries.gfn) for number, entries in rounds(trace) if phases[number] == "hotcold"]
    assert len(dirty) >= 3
    assert all(hot <= pages for pages in dirty)
