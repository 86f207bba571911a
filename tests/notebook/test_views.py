# SPDX-License-Identifier: Apache-2.0
"""The tables that the notebooks show, against answers worked out by hand."""

import numpy as np
import pytest
from factories import write_irregular

import pmlkit
from pmlkit import figures, recordings
from pmlkit.errors import NeedsError, TraceNotFound
from pmlkit.notebook import views
from pmlkit.trace.reader import Kind

R, W, X = Kind.READ, Kind.WRITE, Kind.EXEC
# Two rounds read four pages and write one of them, two write two others and execute one.
FIRST = [(1, R), (2, R), (3, R), (4, R), (1, W)]
SECOND = [(8, W), (9, W), (5, X)]


@pytest.fixture
def trace(make_trace):
    return make_trace(
        events=[FIRST, FIRST, SECOND, SECOND],
        phases=[("read", 0), ("write", 2)],
        regions=[("buffer", 1, 4), ("other", 8, 1), ("other", 20, 2)],
        known=[
            {"phase": "read", "region": "buffer", "kind": "read", "pages": 4},
            {"phase": "read", "region": "buffer", "kind": "written", "pages": 2},
        ],
        guest=True,
        provenance={"command": "pmlkit record x", "versions": {"qemu": "7.2"}},
    )


def test_a_name_or_a_list_of_names_is_as_good_as_an_open_trace():
    named = pmlkit.wss("hotcold", "1s")
    assert named.equals(pmlkit.wss(pmlkit.open("hotcold"), "1s"))
    assert set(pmlkit.wss(["hotcold", "rrww"], "1s")["trace"]) == {"hotcold", "rrww"}
    assert pmlkit.mrc("hotcold").uses == pmlkit.mrc(pmlkit.open("hotcold")).uses
    assert views.working_sets("hotcold").equals(views.working_sets(pmlkit.open("hotcold")))
    assert "hotcold" in figures.wss_over_time("hotcold").caption
    assert "rrww" in figures.wss_over_time(trace=["hotcold", "rrww"]).caption
    with pytest.raises(TypeError, match=r"wss_over_time\(\) got .* 'colums'"):
        figures.wss_over_time("hotcold", colums=1)
    with pytest.raises(TraceNotFound, match="do you mean the bundled 'hotcold'"):
        pmlkit.open("hotcodl")
    assert {"wss_over_time", "save"} <= set(dir(figures))


def test_an_open_trace_keeps_the_phases_that_it_was_given():
    trace = pmlkit.open("hotcold").with_phases({"mine": ("1s", "2s")})
    assert "mine" in views.working_sets(trace, "100ms")["phase"].tolist()
    assert "mine" in set(pmlkit.wss(trace, "100ms")["phase"])


def test_load_finds_bundled_traces_and_paths(tmp_path, monkeypatch, trace):
    monkeypatch.setenv("PMLKIT_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("x", "x.trace", str(tmp_path / "x.trace")):
        assert recordings.open_trace(name).n_rounds == 4
    with pytest.raises(TraceNotFound):
        recordings.open_trace("nothing")


def test_a_relative_output_folder_does_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    before = views.output_folder("results/x")
    monkeypatch.chdir(tmp_path)
    assert views.output_folder("results/x") == before
    assert before.is_absolute() and (before.parent.parent / "pmlkit").is_dir()
    assert views.output_folder(tmp_path) == tmp_path


def test_facts(trace):
    facts = dict(views.facts(trace).itertuples(index=False))
    assert facts["command"] == "pmlkit record x" and facts["versions"] == "qemu 7.2"
    assert list(facts)[0] == "guest" and list(facts)[-1] == "versions"  # the longest comes last
    assert facts["guest"] == "synthetic, 16 MiB of RAM, 1 vCPU"
    assert facts["period"] == "10 ms" and facts["complete"] == "yes"
    assert "notes" not in facts


def test_facts_name_the_rounds_as_they_were(tmp_path):
    lengths = [int(ms * 1e6) for ms in (10, 14, 13, 14, 12)]
    events = [[(1, Kind.WRITE)]] * len(lengths)
    made = write_irregular(tmp_path / "x.trace", events, lengths, period={"ns": 10**7})
    facts = dict(views.facts(made).itertuples(index=False))
    assert facts["period"] == "10 ms asked for, rounds of 13 ms (median), 10 ms to 14 ms"


def test_phases_last_until_the_next(trace):
    assert views.phases(trace).values.tolist() == [["read", 0.0, 0.02, 2], ["write", 0.02, 0.02, 2]]


def test_regions_are_summed_by_name(trace):
    table = views.regions(trace)
    assert table.values.tolist() == [["buffer", 4, 4 / 256], ["other", 3, 3 / 256]]


def test_guest_memory_by_phase(trace):
    table = views.guest_memory(trace)
    # The factory's guest takes a page more at each of two samples a round, from 100 on.
    assert table["phase"].tolist() == ["read", "write"]
    assert table["allocated"].tolist() == [round(101.5 / 256, 3), round(105.5 / 256, 3)]


def test_guest_memory_without_samples(make_trace):
    assert views.guest_memory(make_trace("silent.trace")).empty


def test_known_answers(trace):
    table = views.known_answers(trace)
    assert table[["expected", "measured", "met"]].values.tolist() == [[4, 4, True], [2, 1, False]]


def test_no_known_answers_are_an_empty_table(make_trace):
    assert list(views.known_answers(make_trace("real.trace")).columns)[:3] == [
        "phase",
        "region",
        "kind",
    ]


def test_working_sets_by_phase(trace):
    table = views.working_sets(trace, "10ms").set_index("phase") * 256
    assert table.loc["read"].round().tolist() == [4, 4, 4, 1, 0]
    assert table.loc["write"].round().tolist() == [3, 3, 0, 2, 1]


def test_windows_that_the_start_cuts_short_count_for_no_phase():
    table = views.working_sets("hotcold", "1s").set_index("phase")
    windows = pmlkit.wss("hotcold", "1s", "sliding")
    full = windows[windows["full"]]
    assert not (full["phase"] == "start").any() and table.loc["start"].isna().all()
    for phase in table.index.drop("start"):
        mean = full.loc[full["phase"] == phase, "bytes"].mean() / 2**20
        assert table.loc[phase, "mean"] == pytest.approx(mean, abs=1e-3)
    assert np.isnan(views.seen_by_pml("hotcold", "1s")["missed"].iloc[0])


def test_what_pml_misses(trace, make_trace):
    table = views.seen_by_pml(trace, "10ms").set_index("phase")
    assert table["missed"].tolist() == [75.0, 33.333]
    with pytest.raises(NeedsError, match="PML log"):
        views.seen_by_pml(make_trace("blind.trace", pml=False))


def test_a_harvest_of_accessed_flags_is_not_said_to_know_more(tmp_path):
    from factories import make_meta

    from pmlkit.figures import wss_by_kind
    from pmlkit.trace.reader import Trace, TraceWriter

    rounds = {"round": [0, 1], "t_start_ns": [0, 10_000_000], "t_end_ns": [10_000_000, 20_000_000]}
    with TraceWriter(tmp_path / "h.trace", make_meta()) as writer:
        writer.add_entries([0, 0, 0, 1], [0, 0, 0, 1], 0, [1, 2, 3, 2], [R, R, W, W])
        writer.set_rounds(rounds)
        writer.set_batches({"batch": [0, 1], "reason": ["scan", "scan"], **rounds})
        writer.set_phases([{"name": "all", "round": 0, "t_ns": 0}])
    harvest = Trace.open(tmp_path / "h.trace")
    table = views.working_sets(harvest, "10ms")
    assert list(table.columns) == ["phase", "mean", "peak", "not written", "written"]
    assert (table.iloc[0, 1:] * 256).astype(float).round().tolist() == [2.0, 3.0, 1.0, 1.0]
    legend = str(
        [
            text.get_text()
            for text in wss_by_kind(harvest, "10ms").findobj()
            if hasattr(text, "get_text")
        ]
    )
    assert "not written" in legend and "executed" not in legend
