# SPDX-License-Identifier: Apache-2.0
"""No text of a figure is clipped, overlaps another or is struck through, at any venue's width."""

import pandas as pd
import pytest
from factories import make_trace as write_trace
from overlaps import faults

from pmlkit import figures, recordings
from pmlkit.figures.style import styled
from pmlkit.notebook import reads_tables
from pmlkit.trace.reader import Trace

SIZES = {
    "acm, 1": {"columns": 1},
    "ieee, 1": {"columns": 1, "venue": "ieee"},
    "lncs": {"columns": 1, "venue": "lncs"},
    "acm, 2": {"columns": 2},
}
PHASES = [("start", 0), ("load", 3), ("get", 20), ("get-few", 38), ("idle", 52), ("done", 58)]


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("traces") / "some.trace"
    return Trace.open(write_trace(path, rounds=60, pages=500, phases=PHASES, guest=True))


@pytest.mark.parametrize("size", ["ieee, 1", "lncs"])  # test_figures.py draws the others
@pytest.mark.parametrize("name", figures.FIGURES)
def test_figures_of_a_trace(trace, name, size):
    assert not styled(faults)(figures.draw(trace, name, window="100ms", **SIZES[size]))


def read(name):
    return pd.read_csv(recordings.located(name, "data"))


OTHERS = {
    "harvest_costs": lambda **how: figures.harvest_costs(*reads_tables.costs(), **how),
    "host_sees": lambda **how: figures.host_sees(reads_tables.host_sees(), **how),
    "reads_errors": lambda **how: figures.reads_errors(reads_tables.errors(), **how),
    "capped_guests": lambda **how: figures.capped_guests(read("caps/caps.csv"), **how),
    "clock_sensitivity": lambda **how: figures.clock_sensitivity(
        read("clock-sensitivity/sizes.csv"), read("clock-sensitivity/ranks.csv"), **how
    ),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OTHERS)
def test_figures_of_tables(name, size):
    assert not styled(faults)(OTHERS[name](**SIZES[size]))
