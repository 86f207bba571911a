# SPDX-License-Identifier: Apache-2.0
"""The same program in the recorder and in the lab: the same sets, round by round.

In QEMU the recorder sees every access, and a software PML logs the writes; in Bochs the emulated
processor's PML logs them, and Xen hands the log out. What may differ is said here and held: the
processor's own walks of page tables (the recorder does not see them; the lab marks them), and
the kit's mailbox, stack and code, which wait for dom0 in the lab.
"""

import pytest
from lab_case import MAILBOX, STACKS, data, needs_lab

from pmlkit.sources.simulator import simulate
from pmlkit.trace.kinds import Kind, is_page_table

pytestmark = [needs_lab, pytest.mark.timeout(1800)]
ROUNDS = 4  # these guests, with these options, are those of test_lab_pml: they are booted once
OWN = {MAILBOX, *STACKS}
PROGRAMS = [
    ("known", {}, {"bitmaps": True}),
    ("ordered", {}, {}),
    ("rewrites", {}, {}),
    ("reads", {"levels": "3"}, {}),
    ("touch", {"levels": "4", "large": "0"}, {"harvest": "accessed", "bitmaps": True}),
]


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda program: program[0])
def both(request, lab, recorded):
    """The traces of a program by the recorder and by the lab."""
    name, settings, logged = request.param
    in_lab = lab.run(name, rounds=ROUNDS, settings=settings, **logged)
    return recorded(name, ROUNDS, settings), in_lab


def of_round(table, number):
    return table[table["round"] == number]


def test_the_logged_sets_are_the_same(both):
    recorded, logged = (trace.pml.to_pandas() for trace in both)
    for number in range(ROUNDS):
        ours, theirs = of_round(recorded, number + 1), of_round(logged, number)
        theirs = theirs[~is_page_table(theirs["kind"])]
        if number:  # in round 0 page tables are not yet known to be some
            assert set(ours["gfn"]) ^ set(theirs["gfn"]) <= OWN
        assert data(ours)["gfn"].tolist() == data(theirs)["gfn"].tolist()  # and in the same order


def test_the_simulator_logs_the_same_sets_too(both, tmp_path):
    recorded, logged = both
    simulated = simulate(recorded, tmp_path / "s.trace").to_pandas()
    logged = logged.pml.to_pandas()
    for number in range(ROUNDS):
        ours, theirs = of_round(simulated, number + 1), of_round(logged, number)
        assert data(ours)["gfn"].tolist() == data(theirs)["gfn"].tolist()


def test_the_touched_sets_are_the_same(both):
    recorded, logged = both
    if logged.meta.kind != "access":
        pytest.skip("this one was run without a harvest of accessed flags")
    tables = set(logged.pml.to_pandas(kinds=Kind.PAGE_TABLE)["gfn"])
    for number in range(1, ROUNDS):
        ours = set(of_round(recorded.to_pandas(), number + 1)["gfn"])
        theirs = set(of_round(logged.to_pandas(), number)["gfn"]) - tables
        assert ours ^ theirs <= OWN
