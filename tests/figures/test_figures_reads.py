# SPDX-License-Identifier: Apache-2.0
"""The figures of reads: sizes, data, that nothing sticks out, and what the mechanism shows."""

import numpy as np
import pandas as pd
import pytest
from overlaps import faults
from pagetable_guest import Guest, write_trace

from pmlkit import figures
from pmlkit.errors import NeedsError
from pmlkit.figures.style import styled
from pmlkit.reads import guided, hotness, judge
from pmlkit.reads import mechanism as reads_mechanism

WIDTHS = {1: 3.33, 2: 7.0}


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    guest = Guest()
    root = guest.space()
    for page in range(700):
        guest.map(root, page, (1 << 16) + page)
    for number in range(8):
        for page in range(700 - 300 * (number % 2)):
            (guest.write if number > 4 else guest.read)(root, page)
        guest.close_round()
    phases = [("read", 0), ("write", 5)]
    return write_trace(tmp_path_factory.mktemp("figures") / "g.trace", guest, phases=phases)


@pytest.fixture(scope="module")
def compared(trace):
    methods = ("written", "leaves", "present", "accessed", "density")
    return judge.compare(trace, methods)


def drawn(trace, compared, columns):
    ranking, truth = hotness.rank(trace), hotness.touches(trace)
    measured = pd.DataFrame({"memory_bytes": [1 << 30, 1 << 32], "scan": [1e6, 4e6]})
    measured = measured.assign(guided=5e5, pruned=2e5, sampled=[2e4, 3e4])
    modelled = guided.model_costs(measured, [1 << 26, 1 << 40])
    errors = judge.by_phase(compared).drop_duplicates("method").assign(guest="some")
    return {
        "over_time": figures.reads_over_time(trace, compared, columns=columns),
        "errors": figures.reads_errors(errors, columns=columns),
        "mechanism": figures.mechanism(trace, columns=columns),
        "hotness": figures.hotness(ranking, truth, hotness.score(ranking, truth), columns=columns),
        "costs": figures.harvest_costs(measured, modelled, columns=columns),
    }


@pytest.mark.parametrize("columns", [1, 2])
def test_figures_have_their_width_and_nothing_sticks_out(trace, compared, columns):
    for name, figure in drawn(trace, compared, columns).items():
        assert figure.get_size_inches()[0] == WIDTHS[columns], name
        assert figure.caption and all(len(table) for table in figure.data.values()), name
        assert not styled(faults)(figure)


def test_the_history_of_a_leaf_table(trace):
    shown = reads_mechanism.leaf_history(trace)
    assert shown.states.shape == (8, 512) and shown.logged.all()
    assert set(shown.states[0]) == {1} and set(shown.states[6]) == {2}
    assert np.bincount(shown.states[1]).tolist() == [112, 400]
    other = reads_mechanism.leaf_history(trace, shown.table + 1)
    assert other.table == shown.table + 1 and not other.states[:, 188:].any()


def test_a_log_without_snapshots_has_no_mechanism(tmp_path):
    guest = Guest()
    guest.close_round()
    with pytest.raises(NeedsError, match="snapshots"):
        figures.mechanism(write_trace(tmp_path / "g.trace", guest))


def test_tables_by_phase_and_beside_what_was_published(compared):
    table = judge.by_phase(compared).set_index(["phase", "method"])
    assert table.loc[("read", "written"), "missed"] == 100
    assert table.loc[("write", "written"), "mape"] == 0
    assert table.loc[("read", "accessed"), "inside"] == 100
    beside = judge.beside_published(compared, 700, ["read"], ["write"])
    rows = beside.set_index("technique")
    assert rows.loc["PML alone", "lab_read"] == 0 and rows.loc["PML", "real_read"] == "2"
    assert rows["lab_read"].notna().sum() == 6 and rows.loc["PML", "lab_read"] is not rows
    published = judge.published()
    assert set(published["how"]) == {"real", "simulated"} and published["source"].all()
    # A technique is measured by us, measured by others, or simulated: never two in one column.
    ours = beside["lab_read"].notna()
    assert not (ours & (beside["real_read"].notna() | beside["simulated_read"].notna())).any()
