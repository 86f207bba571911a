# SPDX-License-Identifier: Apache-2.0
"""The synthetic workloads say what their recording will hold. Here they run on this machine:
what a real guest's recording shows is held against it in tests/sources/test_recorder.py."""

import subprocess

import pytest
from needs import needs_gcc

from pmlkit.sources.guest.programs import compile_static
from pmlkit.sources.guest.workload import load

pytestmark = needs_gcc
SHORT = {
    "hotcold": {"hot": "30", "cold": "150", "sweep_ms": "20", "phase_ms": "40"},
    "rrww": {"size_mib": "2", "phase_ms": "5"},
    "rwrw": {"size_mib": "2", "phase_ms": "5"},
    "wwrr": {"size_mib": "2", "phase_ms": "5"},
    "zipf": {"pages": "600", "phase_ms": "30"},
    "sawtooth": {"low": "10", "high": "90", "period_ms": "10"},
    "burst": {"base": "20", "peak": "100", "scale": "2"},
    "semispace": {"live": "30", "tick_ms": "0", "ticks": "2"},
    "idle": {"pages": "64", "phase_ms": "10"},
    "sparse": {"size_mib": "4", "phase_ms": "5"},
    "forks": {"processes": "5", "slice": "4", "rounds": "2"},
    "remap": {"size_mib": "2", "cycles": "3", "pause_ms": "0"},
    "moving": {"size_mib": "2", "set": "60", "step": "7", "tick_ms": "0", "ticks": "45"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function that runs a workload here; returns its report's lines, split."""

    def make(name):
        workload = load(name).with_parameters(SHORT[name])
        folder = tmp_path_factory.mktemp(name)
        (folder / workload.sources[0].stem).symlink_to(compile_static(workload.sources[0]))
        (folder / "report").touch()
        values = {n: str(p.default) for n, p in workload.parameters.items()}
        environment = {**values, "PMLKIT_REPORT": str(folder / "report"), "PATH": "/usr/bin:/bin"}
        subprocess.run(workload.command, shell=True, cwd=folder, env=environment, check=True)
        return [line.split() for line in (folder / "report").read_text().splitlines()]

    return make


def pages_of_regions(report):
    pages = {}
    for word, name, *rest in report:
        if word == "region":
            pages[name] = pages.get(name, 0) + int(rest[1])
    return pages


def expected(report):
    return {(w[1], w[2], w[3]): int(w[4]) for w in report if w[0] == "expect"}


@pytest.mark.parametrize("name", SHORT)
def test_phases_are_those_of_its_description_and_expectations_come_before(run, name):
    report = run(name)
    phases = [words[1] for words in report if words[0] == "phase"]
    assert tuple(phases) == load(name).phases
    pages = pages_of_regions(report)
    for at, words in enumerate(report):
        if words[0] == "expect":
            assert ["phase", words[1]] in report[at:]
            assert 0 <= int(words[4]) <= pages[words[2]]


@pytest.mark.parametrize("name", ["rrww", "rwrw", "wwrr"])
def test_reading_phases_read_all_and_write_none(run, name):
    report = run(name)
    assert pages_of_regions(report) == {"buffer": 512}
    for (phase, _, kind), pages in expected(report).items():
        assert pages == (512 if kind[0] == phase[0] else 0)


def test_hotcold_expects_all_its_pages_and_then_the_hot_ones(run):
    report = run("hotcold")
    assert pages_of_regions(report) == {"hot": 30, "cold": 150}
    assert expected(report)["hotcold", "cold", "written"] == 150
    assert expected(report)["hot", "cold", "touched"] == 0


def test_zipfs_ranks_are_regions_and_popular_ones_are_all_read(run):
    report = run("zipf")
    assert pages_of_regions(report) == {"top": 16, "middle": 240, "tail": 344}
    answers = expected(report)
    assert answers["zipf", "top", "read"] == 16
    assert 0 < answers["zipf", "tail", "read"] < 344


def test_bursts_differ_in_height(run):
    answers = expected(run("burst"))
    heights = [answers[f"peak{i}", "peak", "written"] for i in range(1, 7)]
    assert heights == [40, 100, 60, 85, 25, 70]
    assert all(answers[f"base{i}", "peak", "written"] == 0 for i in range(1, 7))


def test_sparse_reads_one_page_in_two_mib(run):
    report = run("sparse")
    assert pages_of_regions(report) == {"buffer": 1024, "picked": 2}
    read = {phase: n for (phase, region, kind), n in expected(report).items() if kind == "read"}
    assert read == {"all": 1024, "sparse": 2, "idle": 0, "all2": 1024}


@pytest.mark.parametrize(("name", "pages"), [("forks", 20), ("remap", 512)])
def test_every_phase_reads_all_of_the_shared_buffer_and_writes_none(run, name, pages):
    report = run(name)
    assert pages_of_regions(report) == {"buffer": pages}
    for (_, _, kind), n in expected(report).items():
        assert n == (pages if kind == "read" else 0)


def test_a_moving_set_is_known_page_by_page(run):
    read = {phase: n for (phase, _, kind), n in expected(run("moving")).items() if kind == "read"}
    jumped = {(j * 60 + i) * 2654435761 % 512 for j in range(3) for i in range(60)}
    assert read == {"rest": 60, "slide": 60 + 44 * 7, "jump": len(jumped)}


def test_large_pages_are_asked_for_and_their_lack_is_an_error():
    """Whether this machine has large pages to give is its own affair."""
    (source,) = load("largepages").sources
    done = subprocess.run([compile_static(source), "4", "1"], capture_output=True, text=True)
    assert done.returncode in (0, 1)
    assert done.returncode == 0 or "as large pages" in done.stderr


@pytest.mark.parametrize("name", [*SHORT, "largepages"])
def test_a_wrong_argument_is_refused(name):
    (source,) = load(name).sources
    done = subprocess.run([compile_static(source), "x", "y"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "should be" in done.stderr


@pytest.mark.parametrize("marker", range(1, 5))
def test_markers_are_the_agreed_instruction(marker):
    from pmlkit.sources.guest.programs import GUEST_SOURCES

    program = compile_static(GUEST_SOURCES / "pmlguest.c").read_bytes()
    assert bytes([0x0F, 0x1F, 0x80, 0, marker, 0x50, 0x4D]) in program
