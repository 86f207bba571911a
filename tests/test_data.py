# SPDX-License-Identifier: Apache-2.0
"""The bundled recordings: whole, small, as their MANIFEST says, and right where it is known."""

from pathlib import Path

import pytest

import pmlkit
from pmlkit import bundle, known
from pmlkit.trace import Trace

DATA = Path(__file__).resolve().parent.parent / "data"
LIMIT_BYTES = 15_000_000
NAMES = sorted(path.name.removesuffix(".trace") for path in DATA.glob("*.trace"))
REAL_PROGRAMS = {"redis", "sqlite", "xz", "numpy", "gcc"}


@pytest.fixture(params=NAMES)
def trace(request):
    return Trace.open(DATA / f"{request.param}.trace")


def test_there_is_a_known_answer_the_published_benchmark_and_two_real_programs():
    assert {"hotcold", "rrww"} <= set(NAMES)
    assert len(REAL_PROGRAMS & set(NAMES)) >= 2


def test_the_manifest_holds():
    assert bundle.problems(DATA) == []


def test_the_manifest_says_how_each_was_made():
    commands = bundle.read(DATA).commands
    assert set(commands) == {f"{name}.trace" for name in NAMES}
    for name, command in commands.items():
        assert command.startswith("pmlkit record "), name
        assert "/" not in command.replace(f"data/{name}", ""), "a path of some machine"


def test_all_are_small_enough_for_a_clone():
    size = sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file())
    assert size <= LIMIT_BYTES


def test_bundled_finds_each():
    assert sorted(pmlkit.bundled()) == NAMES
    for name in NAMES:
        assert Path(pmlkit.bundled(name)) == DATA / f"{name}.trace"


def test_each_is_whole_and_complete(trace):
    trace.check()
    assert trace.meta.complete
    assert trace.meta.lost == 0


def test_each_came_from_a_real_guest_with_its_own_view_and_phases(trace):
    assert trace.meta.source == "recorder"
    assert trace.guest is not None
    assert len(trace.phases) > 1


def test_the_known_answers_come_out_exactly(trace):
    answers = known.measure(trace)
    assert [answer for answer in answers if not answer.met] == []


def test_the_emulated_pml_saw_the_known_writes(trace):
    answers = known.measure(trace.pml)
    assert [answer for answer in answers if not answer.met] == []


def test_reads_and_writes_are_known_beforehand_somewhere():
    answers = [a for name in NAMES for a in known.measure(Trace.open(DATA / f"{name}.trace"))]
    assert {answer.kind for answer in answers if answer.expected} >= {"read", "written"}
