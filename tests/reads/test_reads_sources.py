# SPDX-License-Identifier: Apache-2.0
"""The errors of accessed entries, put down to their causes."""

import pytest
from pagetable_guest import Guest, write_trace

from pmlkit.errors import NeedsError
from pmlkit.reads import judge


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """A program that maps 20 pages (3 of them as by fault-around), and a kernel that reads 5."""
    guest = Guest()
    root = guest.space()
    for page in range(20):
        guest.map(root, page, 700 + page, accessed=page >= 17)
    for page in range(5):
        guest.map(root, (1 << 20) + page, 900 + page, user=False, accessed=True)
    for pages in (range(12), range(4)):
        for page in pages:
            guest.read(root, page)
        for page in range(5):
            guest.read(root, (1 << 20) + page)
        guest.close_round()
    return write_trace(tmp_path_factory.mktemp("sources") / "g.trace", guest)


def test_each_error_has_its_cause(trace):
    (row,) = judge.sources(trace).to_dict("records")
    assert row["rounds"] == 2
    assert row["truth"] == (12 + 5 + 4 + 5) / 2
    assert row["kernel"] == 5 and row["user"] == 0
    assert row["never"] == 3  # set by the kernel, for pages around a fault
    assert row["other_rounds"] == 8 / 2  # of the first round, sticky in the second
    rest = row["truth"] - row["kernel"] - row["user"] + row["other_rounds"] + row["never"]
    assert row["estimate"] == rest


def test_without_a_harvest_there_is_no_truth(trace):
    with pytest.raises(NeedsError, match="harvest"):
        judge.sources(trace.pml)
