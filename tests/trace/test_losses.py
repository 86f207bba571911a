# SPDX-License-Identifier: Apache-2.0
"""What was lost, and whether a recording is whole: a number, or "not known", never a 0 for it."""

import json

import pytest
from factories import make_meta, make_trace, reseal

from pmlkit import cli
from pmlkit.errors import PmlkitError, UsageError
from pmlkit.notebook import views
from pmlkit.notebook import views as views_recordings
from pmlkit.sources.simulator import simulate
from pmlkit.trace import manifest
from pmlkit.trace.kinds import Kind
from pmlkit.trace.reader import Trace
from pmlkit.trace.writer import TraceWriter

UNKNOWN = {"losses": "not counted", "complete": None}


@pytest.fixture
def unknown(tmp_path):
    return Trace.open(make_trace(tmp_path / "u.trace", pml=False, **UNKNOWN))


def losing(path, lost, **meta):
    """Write two rounds of one page each; the second has lost some."""
    rounds = {"round": [0, 1], "t_start_ns": [0, 10], "t_end_ns": [10, 20], "lost": [0, lost]}
    with TraceWriter(path, make_meta("access", round_ns=10, **meta)) as writer:
        for number in (0, 1):
            writer.add_entries(number, number, 0, [7], Kind.WRITE)
        writer.set_rounds(rounds)
        writer.set_batches({**rounds, "batch": [0, 1], "reason": "round"})
    return Trace.open(path)


def test_what_nobody_counts_is_none_in_the_trace_and_in_json(unknown, capsys):
    assert unknown.meta.lost is None and unknown.meta.complete is None
    assert json.loads((unknown.path / manifest.NAME).read_text())["lost"] is None
    assert unknown.check()["lost"] is None
    assert cli.main(["info", str(unknown.path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["lost"], document["losses"], document["complete"]) == (
        None,
        "not counted",
        None,
    )


def test_what_nobody_counts_is_said_in_words(unknown, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # the path of the trace is in one line
    assert cli.main(["info", str(unknown.path)]) == 0
    output = capsys.readouterr().out
    assert "losses not counted" in output and "0 lost" not in output
    assert "complete  not known" in output
    facts = dict(views.facts(unknown).values.tolist())
    assert facts["complete"] == "not known" and facts["entries"].endswith("losses not counted")


def test_the_list_of_recordings_has_a_number_beside_one_that_is_not_known(unknown, tmp_path):
    table = views_recordings.overview([unknown.path, losing(tmp_path / "l.trace", 5).path])
    assert table["lost"].isna().tolist() == [True, False] and table["lost"][1] == 5


def test_a_number_is_counted_and_checked(tmp_path):
    trace = losing(tmp_path / "l.trace", 5)
    assert trace.meta.lost == trace.check()["lost"] == 5
    reseal(trace.path, lost=4)
    with pytest.raises(PmlkitError, match="states lost 4, and the rounds have 5"):
        Trace.open(trace.path).check()


def test_a_lower_bound_is_no_number(tmp_path):
    trace = losing(tmp_path / "l.trace", 5, losses="not counted")
    assert trace.meta.lost is None and trace.check()["lost"] is None
    assert trace.rounds["lost"].tolist() == [0, 5]


@pytest.mark.parametrize(("losses", "lost"), [("counted", 5), ("not counted", None)])
def test_a_simulated_log_has_lost_what_its_accesses_have(tmp_path, losses, lost):
    made = simulate(losing(tmp_path / "l.trace", 5, losses=losses), tmp_path / "p.trace")
    assert made.meta.lost == made.check()["lost"] == lost
    assert made.rounds["lost"].sum() == 5


def test_older_traces_have_counted(tmp_path):
    path = make_trace(tmp_path / "x.trace")
    document = json.loads((path / manifest.NAME).read_text())
    del document["losses"]
    assert Trace.open(path).meta.from_json(document).lost == 0


@pytest.mark.parametrize("wrong", [{"losses": "some"}, {"complete": "yes"}, {"losses": None}])
def test_other_values_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        make_meta(**wrong)
