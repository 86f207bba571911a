# SPDX-License-Identifier: Apache-2.0
"""`pmlkit wss`: its rows, its options, and its table for people."""

import json

import numpy as np
import pytest
from factories import write_irregular

from pmlkit import workingset
from pmlkit.trace.kinds import Kind
from pmlkit.units import format_ns


def rows(out):
    return [(row["t_ns"], row["pages"]) for row in json.loads(out)]


def test_wss_prints_a_json_object_per_window(run, trace):
    code, out, err = run("wss", trace, "--window", "10ms", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found[0] == {
        "t_ns": 10_000_000,
        "pages": 3,
        "bytes": 3 * 4096,
        "asked_ns": 10_000_000,
        "effective_ns": 10_000_000,
        "phase": "a",
        "region:hot": 2,
        "region:cold": 1,
        "full": True,
    }
    assert rows(out) == [(10_000_000, 3), (20_000_000, 1)]


def test_the_rows_say_the_effective_t_as_the_note_does(run, tmp_path):
    lengths = [12_000_000, 14_000_000] * 5
    trace = write_irregular(tmp_path / "x.trace", [[(1, Kind.WRITE)]] * 10, lengths)
    words = ("wss", trace.path, "--window", "20ms")
    full = [row["effective_ns"] for row in json.loads(run(*words, "--json")[1]) if row["full"]]
    far = sum(abs(ns - 20_000_000) > 2_000_000 for ns in full)
    assert far and len(full) == 6
    note = f"in {far} of 6 windows the effective T differs by more than 10 %; its median is "
    assert note + format_ns(int(np.median(full))) in run(*words)[1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--window 20ms", [(20_000_000, 3)]),
        ("--window 2r", [(20_000_000, 3)]),
        ("--window 2r --sliding", [(10_000_000, 3), (20_000_000, 3)]),
        ("--window 20ms --min-count 2", [(20_000_000, 1)]),
        ("--window 10ms --kinds w", [(10_000_000, 2), (20_000_000, 1)]),
        ("--window 10ms --kinds r", [(10_000_000, 1), (20_000_000, 0)]),
        ("--window 10ms --region cold", [(10_000_000, 1), (20_000_000, 0)]),
        ("--window 10ms --start 10ms", [(20_000_000, 1)]),
        ("--window 10ms --end 10ms", [(10_000_000, 3)]),
        ("--window 10ms --end 1us", [(10_000_000, 3)]),  # less than a round, with its unit
        ("--window 10ms --start 1ns --end 2ns", [(10_000_000, 3)]),
        ("--window 10ms --phase load=1us..20ms", [(10_000_000, 3), (20_000_000, 1)]),
    ],
)
def test_wss_options(run, trace, options, expected):
    code, out, _ = run("wss", trace, "--json", *options.split())
    assert code == 0
    assert rows(out) == expected


def test_wss_reads_the_nested_pml_log(run, trace):
    code, out, _ = run("wss", trace / "pml.trace", "--window", "10ms", "--json")
    assert (code, rows(out)) == (0, [(10_000_000, 2), (20_000_000, 1)])


def test_wss_prints_the_same_table_that_python_gives(run, make_trace):
    made = make_trace(rounds=20, seed=3)
    _, out, _ = run("wss", made.path, "--window", "30ms", "--sliding", "--json")
    table = workingset.estimate(made, "30ms", step="sliding")
    assert json.loads(out) == json.loads(table.to_json(orient="records"))


def test_wss_for_people_has_a_line_per_window_that_is_never_folded(run, make_trace):
    regions = [(f"a region with a long name [{i}]", i, 1) for i in range(12)]
    code, out, err = run("wss", make_trace(regions=regions).path, "--window", "1r")
    lines = out.partition("\n\n")[2].splitlines()
    assert (code, err) == (0, "")
    assert len(lines) == 2 + 5 + 1  # the last one says what T is
    assert all(name in lines[0] for name, _, _ in regions)


@pytest.mark.parametrize("kinds", ["p", "page-tables"])
def test_an_access_trace_has_no_page_tables_to_count(run, trace, kinds):
    code, out, err = run("wss", trace, "--kinds", kinds)
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert "has no page tables among its kinds: use the log of the run" in err
