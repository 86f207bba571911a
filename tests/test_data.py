# SPDX-License-Identifier: Apache-2.0
"""The bundled recordings: whole, small, as their MANIFEST says, and right where it is known."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tree import ROOT, tracked

import pmlkit
from pmlkit import recordings
from pmlkit.trace import known
from pmlkit.trace.kinds import Kind, TableFlag, is_page_table
from pmlkit.trace.reader import Trace

DATA = ROOT / "data"
LIMIT_BYTES = 25_000_000
FOLDERS = [path.parent for path in tracked("data/*.trace/trace.json")]
TRACES = {path.stem: Trace.open(path) for path in FOLDERS}
OF_SOURCE = {
    source: [name for name, trace in TRACES.items() if trace.meta.source == source]
    for source in ("recorder", "lab")
}
REAL_PROGRAMS = {"redis", "sqlite", "xz", "numpy", "gcc"}
COMMAND = {"recorder": "pmlkit record ", "lab": "pmlkit lab run "}


def each(*sources):
    names = [name for source in sources for name in OF_SOURCE[source]]
    return pytest.mark.parametrize("trace", [TRACES[name] for name in names], ids=names)


def linux(name):
    return TRACES[name].guest is not None


def test_there_is_a_known_answer_the_published_benchmark_and_two_real_programs():
    recorded = set(OF_SOURCE["recorder"])
    assert {"hotcold", "rrww"} <= recorded
    assert len(REAL_PROGRAMS & recorded) >= 2


def test_the_lab_gave_a_known_answer_and_a_real_program_under_linux():
    of_lab = OF_SOURCE["lab"]
    assert [name for name in of_lab if not linux(name)]
    assert [name for name in of_lab if linux(name) and name.split("-")[0] in REAL_PROGRAMS]


def test_each_is_of_a_source_that_these_tests_know():
    assert sorted(sum(OF_SOURCE.values(), [])) == sorted(TRACES)


def test_the_manifest_holds():
    ours = {str(path.relative_to(DATA)) for path in tracked() if path.is_relative_to(DATA)}
    lines = [line for line in recordings.problems(DATA) if not is_of_the_user(line, ours)]
    assert lines == []


def is_of_the_user(problem, ours):
    name = problem.removesuffix(" is not in the MANIFEST")
    return name != problem and name not in ours


def test_the_manifest_says_how_each_was_made():
    commands = recordings.read(DATA).commands
    assert set(commands) >= {f"{name}.trace" for name in TRACES}
    for source, names in OF_SOURCE.items():
        for name in names:
            assert commands[f"{name}.trace"].startswith(COMMAND[source]), name
    for name, command in commands.items():
        beyond = re.sub(r"\b(data|experiments|notebooks|tests)/", "", command)
        assert not re.search(r"(^|[ =])/", beyond), f"{name}: a path of some machine"


def test_all_are_small_enough_for_a_clone():
    size = sum(path.stat().st_size for path in tracked() if path.is_relative_to(DATA))
    assert size <= LIMIT_BYTES


def test_bundled_finds_each():
    assert set(pmlkit.bundled()) >= set(TRACES)
    for name in TRACES:
        assert Path(pmlkit.bundled(name)) == DATA / f"{name}.trace"


@each("recorder", "lab")
def test_each_is_whole_and_complete(trace):
    trace.check()
    assert trace.meta.complete
    assert trace.meta.lost == 0


@each("recorder")
def test_each_came_from_a_real_guest_with_its_own_view_and_phases(trace):
    assert trace.guest is not None
    assert len(trace.phases) > 1


@each("recorder", "lab")
def test_the_known_answers_come_out_exactly(trace):
    answers = known.measure(trace)
    assert [answer for answer in answers if not answer.met] == []


@each("recorder", "lab")
def test_its_pml_saw_the_known_writes(trace):
    answers = known.measure(trace.pml)
    assert [answer for answer in answers if not answer.met] == []


@each("lab")
def test_each_of_the_lab_says_what_ran_and_on_what(trace):
    assert trace.meta.clock["kind"] == "icount"
    assert {"xen", "bochs", "linux (dom0)"} <= set(trace.meta.provenance["versions"])
    assert len(trace.phases) > (1 if trace.guest is not None else 0)


@each("lab")
def test_each_of_the_lab_holds_a_harvest_that_has_all_that_was_written(trace):
    assert trace.is_harvest
    log, touched = trace.pml.to_pandas(), trace.to_pandas(["round", "gfn"]).drop_duplicates()
    written = log[log["kind"] == int(Kind.WRITE)][["round", "gfn"]].drop_duplicates()
    assert len(written) and len(written.merge(touched)) == len(written)


@each("lab")
def test_each_of_the_lab_holds_snapshots_of_tables_that_lead_to_what_was_touched(trace):
    last = trace.n_rounds - 1
    tables = trace.tables[trace.tables["round"] == last]
    leaves = tables[(tables["flags"] & int(TableFlag.LEAF)) != 0]
    sizes = 512 ** (leaves["level"].to_numpy().astype(int) - 1)  # frames that an entry maps
    starts = leaves["target"].to_numpy().astype(int)
    mapped = set(np.concatenate([np.arange(s, s + n) for s, n in zip(starts, sizes, strict=True)]))
    log, entries = trace.pml.to_pandas(), trace.to_pandas()
    known_tables = set(log[is_page_table(log["kind"])]["gfn"])
    touched = set(entries[entries["round"] == last]["gfn"]) - known_tables
    assert touched and len(touched & mapped) >= 0.9 * len(touched)


def test_reads_and_writes_are_known_beforehand_somewhere():
    answers = [a for name in OF_SOURCE["recorder"] for a in known.measure(TRACES[name])]
    assert {answer.kind for answer in answers if answer.expected} >= {"read", "written"}


def test_the_worst_draws_of_the_docs_are_those_of_the_rows():
    from experiments import draws

    folder = DATA / "reads-draws"
    worst = draws.worst(pd.read_csv(folder / "draws.csv"))
    shown = pd.read_csv(folder / "worst.csv", dtype=str)
    assert worst.astype(str).equals(shown)
    table = shown.set_index("recording")
    fixed, anew = (table.filter(like=f"{kind}: worst").astype(float) for kind in ("fixed", "anew"))
    of_mean = "worst of the mean"
    assert (fixed[f"fixed: {of_mean}"] >= anew[f"anew: {of_mean}"]).all()


def test_the_pruned_harvest_leaves_nothing_to_a_scan():
    from experiments import harvests

    rows = pd.read_csv(DATA / "harvests" / "rounds.csv", keep_default_na=False)
    pruned = rows[rows["harvest"] == "pruned"]
    assert set(pruned["tables"]) == {"mark", "off"}
    assert {"remap", "forks", "redis"} < set(pruned["guest"]) and not pruned["left"].any()
    shown = (DATA / "harvests" / "guests.csv").read_text()
    assert harvests.summary(rows).to_csv(index=False) == shown


def test_the_guided_harvest_wins_in_no_guest_with_page_tables_as_the_texts_say():
    guests = pd.read_csv(DATA / "harvests" / "guests.csv").set_index("guest")
    rows = pd.read_csv(DATA / "harvests" / "rounds.csv")
    walks = rows[rows["harvest"] == "guided"].groupby("guest")["walk"].max()
    paged = guests.loc[walks[walks > 1000].index]  # without page tables there is nothing to walk
    assert len(paged) > 15
    assert (paged["pruned"] < paged[["guided", "scan"]].min(axis=1)).all()


def test_what_a_kvm_host_sees_is_what_its_rounds_say():
    from experiments import host_sees
    from pmlkit.sources.lab import guests

    path = DATA / "host-sees"
    rows = pd.read_csv(path / "rounds.csv", dtype={"kernel": str})
    rows = rows.astype(dict.fromkeys(rows.columns[2:], "Int64"))
    truth = host_sees.truth(host_sees.regions_of(guests.shipped()[host_sees.GUEST]))
    assert host_sees.summary(rows, truth).to_csv(index=False) == (path / "ways.csv").read_text()
    assert (truth["written"], truth["read"]) == (1792, 2560)
    steady = rows[rows["way"].isin(["log-ring", "log-bitmap", "reads", "soft-dirty"])]
    assert set(steady["written"]) == {1792} and set(steady["tables"]) == {truth["tables"]}
    assert set(rows["way"]) == set(host_sees.WAYS)
    text = (DATA.parent / "docs" / "concepts" / "visible.md").read_text()
    assert f"reads {truth['read']:,} pages in each round, and writes {truth['written']:,}" in text
