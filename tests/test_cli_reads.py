# SPDX-License-Identifier: Apache-2.0
"""`pmlkit reads`, and `pmlkit wss --page-tables expand`."""

import json

import pytest
from pagetable_guest import Guest, write_trace

from pmlkit import cli


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
    assert "not known (3 of 3 windows)" in out


def test_densities_and_the_comparison(capsys, path):
    code, out, _ = run(capsys, "reads", path, "--method", "density", "--one-in", "2", "--json")
    assert code == 0 and len(json.loads(out)) == 6
    code, out, _ = run(capsys, "reads", path, "--compare")
    assert code == 0 and "mape" in out and "density" in out


def test_expanded_working_set(capsys, path):
    code, out, _ = run(
        capsys, "wss", path / "pml.trace", "--window", "10ms", "--page-tables", "expand", "--json"
    )
    assert code == 0 and [row["pages"] for row in json.loads(out)] == [30] * 6


def test_what_a_trace_lacks_is_one_line(capsys, path):
    code, _, err = run(capsys, "reads", path / "pml.trace", "--method", "harvest")
    assert code == 1 and "harvest" in err and err.count("\n") == 1
