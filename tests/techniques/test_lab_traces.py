# SPDX-License-Identifier: Apache-2.0
"""On traces of the lab the page tables are real: techniques say what `pmlkit.reads` says."""

from __future__ import annotations

import pytest

import pmlkit
from pmlkit import reads, techniques
from pmlkit.errors import NeedsError
from pmlkit.techniques import Need, Recorded, scores
from pmlkit.techniques.view import look

NAMES = ("touch-lab", "rrww-lab", "sqlite-lab")
pytestmark = pytest.mark.skipif(
    not set(NAMES) <= set(pmlkit.bundled()), reason="data/ has no traces of the lab"
)
EVERY_ROUND = 1  # ns: each round's end is later than that


@pytest.fixture(scope="module")
def recordings():
    return {name: Recorded.of(pmlkit.open(pmlkit.bundled(name))) for name in NAMES}


@pytest.mark.parametrize("name", ["touch-lab", "rrww-lab"])
def test_what_entries_tell_is_what_reads_estimates_round_by_round(name, recordings):
    trace = pmlkit.open(pmlkit.bundled(name))
    view = look(recordings[name], {Need.TABLES}, 10**9)
    counts = [len(view.tables.entries()) for _ in view.every(EVERY_ROUND)]
    assert counts == reads.estimate(trace, "accessed")["pages"].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_flags_under_the_logged_tables_are_all_that_were_touched(name, recordings):
    """But for what a snapshot at a round's end misses: unmapped since, or a table itself."""
    recorded = recordings[name]
    view = look(recorded, {Need.TABLES, Need.ACCESSED}, 10**9)
    for r, _ in enumerate(view.every(EVERY_ROUND)):
        frames, real = view.tables.mapped()
        touched = len(recorded.accesses.between(r, r + 1))
        assert real and 0.94 * touched <= view.accessed.harvest(frames).sum() <= touched


def test_page_tables_are_right_to_a_few_percent_where_t_is_two_rounds(recordings):
    recorded = recordings["sqlite-lab"]
    run = techniques.run("pml-page-tables", recorded, window="1s")
    truth = scores.truth(recorded, 10**9)
    # Rounds last half a second or a little less: of those, three end within a window.
    assert scores.accuracy(run.estimates, truth)["mape"] < 0.06
    assert run.notes == ["2 parts of T, not 4: rounds are too long for more"]


def test_a_recorder_has_no_snapshots_and_entries_say_so():
    recorded = Recorded.of(pmlkit.open(pmlkit.bundled("hotcold")))
    with pytest.raises(NeedsError, match="no snapshots of page tables: log it in the lab"):
        techniques.run("pml-entries", recorded)
