# SPDX-License-Identifier: Apache-2.0
"""`pmlkit reads`, and `pmlkit wss --page-tables expand`."""

import json

import pytest
from pagetable_guest import Guest, write_trace

from pmlkit import bundled, cli


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    guest = Guest()
    root = guest.space()
    for page in range(30):
        guest.map(root, page, 500 + page)
    for count in (30, 20, 10, 30, 20, 10):
        for page in range(count):
            guest.read(root, page)
        guest.close_round()
    folder = tmp_path_factory.mktemp("cli") / "g.trace"
    return write_trace(folder, guest, phases=[("first", 0), ("second", 3)]).path


def run(capsys, *words):
    code = cli.main([str(word) for word in words])
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("method", "pages"),
    [
        ("written", [0] * 6),
        ("leaves", [512] * 6),
        ("present", [30] * 6),
        ("accessed", [30] * 6),
        ("harvest", [30, 20, 10, 30, 20, 10]),
    ],
)
def test_each_method_in_json(capsys, path, method, pages):
    code, out, err = run(capsys, "reads", path, "--method", method, "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert [row["pages"] for row in rows] == pages
    assert all(row["low"] <= row["pages"] <= row["high"] for row in rows)


def test_a_table_for_people_says_what_is_not_known(capsys, path):
    code, out, _ = run(capsys, "reads", path, "--method", "leaves", "--end", "30ms", "--bounds")
    assert code == 0 and "first" in out and "second" not in out
    assert "Unknown in 3 of 3 windows" in out


def test_densities_and_the_comparison(capsys, path):
    code, out, _ = run(capsys, "reads", path, "--method", "density", "--one-in", "2", "--json")
    assert code == 0 and len(json.loads(out)) == 6
    code, out, _ = run(capsys, "reads", path, "--compare")
    assert code == 0 and "mape" in out and "density" in out


def test_a_comparison_keeps_to_the_range_and_refuses_what_it_does_not_heed(capsys, path):
    code, out, _ = run(capsys, "reads", path, "--compare", "--end", "30ms", "--json")
    assert code == 0 and {row["phase"] for row in json.loads(out)} == {"first"}
    for words in (("--method", "leaves"), ("--window", "2r")):
        code, out, err = run(capsys, "reads", path, "--compare", *words)
        assert (code, out) == (2, "") and f"leave out {words[0]}" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "told"), [("hotcold", "pmlkit wss"), ("gcc-jobs", "--page-tables mark")]
)
@pytest.mark.parametrize("how", [(), ("--method", "leaves"), ("--method", "density")])
def test_a_trace_without_marks_says_what_to_do(capsys, name, told, how):
    code, _, err = run(capsys, "reads", bundled(name), *how)
    if (name, *how) == ("gcc-jobs", "--method", "density"):
        told = "--harvest sampled"
    assert code == 1 and told in err and err.count("\n") == 1


def test_expanded_working_set(capsys, path):
    code, out, _ = run(
        capsys, "wss", path / "pml.trace", "--window", "10ms", "--page-tables", "expand", "--json"
    )
    assert code == 0 and [row["pages"] for row in json.loads(out)] == [30] * 6


def test_what_a_trace_lacks_is_one_line(capsys, path):
    code, _, err = run(capsys, "reads", path / "pml.trace", "--method", "harvest")
    assert code == 1 and "harvest" in err and err.count("\n") == 1


@pytest.mark.parametrize("how", [(), ("--method", "density"), ("--compare",)])
def test_a_part_without_a_round_is_refused(capsys, path, how):
    code, out, err = run(capsys, "reads", path, "--end", "0", *how)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "lasts 60 ms: give a --start and --end with a round between them" in err
