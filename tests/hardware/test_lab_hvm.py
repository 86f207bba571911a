# SPDX-License-Identifier: Apache-2.0
"""An HVM domain that runs: its device model has no devices, and its log is exact."""

import pytest
from lab_case import LEAVES, data, frames, needs_lab, own, rounds

from pmlkit.errors import UsageError
from pmlkit.sources import lab as lab_source
from pmlkit.sources.lab.session import LabOptions

pytestmark = [needs_lab, pytest.mark.timeout(1800)]


def test_known_set_is_exact_in_every_round(lab):
    trace = lab.run("known", hvm=True)
    assert trace.n_rounds == 8
    for _, entries in rounds(trace):
        assert set(data(entries).gfn) == frames(trace, "hot") | frames(trace, "cold")
        assert len(data(entries)) == 1800
        assert own(entries)


def test_reads_are_found_under_the_logged_tables(lab):
    trace = lab.run("reads", hvm=True, rounds=4, harvest="both", page_tables="mark")
    for _, entries in list(rounds(trace.pml))[1:]:
        assert LEAVES[4] <= set(entries.gfn)
    touched = {n: set(e.gfn) for n, e in rounds(trace)}
    assert all(frames(trace, "read") <= found for found in list(touched.values())[1:])


def test_a_linux_guest_is_refused_in_words(tmp_path):
    with pytest.raises(UsageError, match="Linux guest"):
        lab_source.run("hotcold", tmp_path / "x.trace", LabOptions(hvm=True))
