# SPDX-License-Identifier: Apache-2.0
"""Guests boot, say what they do on the report port, and switch themselves off."""

import subprocess

import pytest
from boots import boot, build
from needs import needs_qemu, slow

from pmlkit.errors import GuestError
from pmlkit.sources.guest.programs import compile_static
from pmlkit.sources.guest.workload import load
from pmlkit.sources.recorder.record import DETERMINISTIC_CMDLINE

pytestmark = needs_qemu
SHORT = {"hot": "30", "cold": "150", "sweep_ms": "100", "phase_ms": "600"}
KEYS = [
    *("total", "free", "available", "cached", "committed", "anon", "slab"),
    *("pswpin", "pswpout", "pgmajfault", "pgfault", "mono_ns"),
]


@pytest.fixture(scope="module")
def image():
    return build(load("hotcold"), SHORT, extra_cmdline=DETERMINISTIC_CMDLINE)


@pytest.fixture(scope="module")
def booted(image, tmp_path_factory):
    return boot(image, tmp_path_factory.mktemp("boot"), deterministic=True)


def test_the_same_inputs_give_the_same_image(image):
    before = image.initrd.read_bytes()
    again = build(load("hotcold"), SHORT, extra_cmdline=DETERMINISTIC_CMDLINE)
    assert again == image
    assert again.initrd.read_bytes() == before


def test_other_parameters_give_another_image(image):
    other = build(load("hotcold"), {**SHORT, "hot": "31"})
    assert other.initrd != image.initrd
    assert other.workload.parameters["hot"].default == 31


def test_versions_are_told(image):
    assert image.versions["linux"]
    assert image.versions["busybox-static"]


def test_it_reports_in_order_and_ends_well(booted):
    words = [word for i, word in enumerate(booted.words) if word not in booted.words[:i]]
    assert words == ["memory", "arm", "phase", "sample", "region", "expect", "exit", "end"]
    assert booted.of("phase") == ["start", "hotcold", "hot", "done"]
    assert booted.of("exit") == ["0"]
    assert "hotcold: done" in booted.console
    assert "panic" not in booted.console


def test_its_samples_have_every_value_at_every_tenth_of_a_second(booted):
    samples = [dict(pair.split("=") for pair in line.split()) for line in booted.of("sample")]
    assert all(list(sample) == KEYS for sample in samples)
    times = [int(sample["mono_ns"]) for sample in samples]
    assert len(samples) >= 9  # 0.6 s and 0.3 s
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    assert all(abs(gap - 100_000_000) < 10_000_000 for gap in gaps)
    total = int(samples[0]["total"])
    assert 150 << 20 < total < 256 << 20
    assert all(0 < int(sample["free"]) < total for sample in samples)


def test_its_regions_are_whole_and_lie_in_its_memory(booted):
    ram = [line.split() for line in booted.of("memory") if line.endswith("System RAM")]
    ends = [tuple(int(x, 16) >> 12 for x in words[0].split("-")) for words in ram]
    pages = {"hot": 0, "cold": 0}
    for line in booted.of("region"):
        name, first, count = line.split()
        pages[name] += int(count)
        assert any(a <= int(first) and int(first) + int(count) <= b + 1 for a, b in ends)
    assert pages == {"hot": 30, "cold": 150}


def test_expectations_are_told(booted):
    assert "hotcold hot written 30" in booted.of("expect")
    assert "hot cold touched 0" in booted.of("expect")


def test_a_users_program_runs_and_its_status_is_told(tmp_path):
    source = tmp_path / "three.c"
    source.write_text('#include <stdio.h>\nint main(void) { puts("hello"); return 3; }')
    program = tmp_path / "three, really"
    program.write_bytes(compile_static(source).read_bytes())
    program.chmod(0o755)
    booted = boot(build(load(program)), tmp_path)
    assert "hello" in booted.console
    assert booted.of("exit") == ["3"]


def test_a_users_folder_has_its_files_parameters_and_phases(tmp_path):
    folder = tmp_path / "mine"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "x.txt").write_text("it's here")
    (folder / "run.sh").write_text('pmlguest phase look\ncat data/x.txt\necho "<$word>"\nid -un\n')
    (folder / "workload.yaml").write_text(
        "command: sh run.sh\nfiles: [run.sh, data]\nparameters: {word: {default: x}}\n"
    )
    booted = boot(build(load(folder), {"word": "a 'b' $c"}), tmp_path)
    assert "it's here" in booted.console
    assert "<a 'b' $c>" in booted.console
    assert "root" in booted.console
    assert booted.of("phase") == ["start", "look"]
    assert booted.of("exit") == ["0"]


@slow
def test_a_crashing_workload_is_told_by_its_status(tmp_path):
    source = tmp_path / "crash.c"
    source.write_text("int main(void) { *(volatile int *)0 = 1; }")
    booted = boot(build(load(source)), tmp_path)
    assert booted.of("exit") == ["139"]
    assert "end" in booted.words


def test_too_little_memory_is_refused_before_the_boot():
    with pytest.raises(GuestError, match="hotcold cannot boot in 64 MiB.*--memory 96"):
        build(load("hotcold"), memory_mib=64)


def test_outside_a_guest_nothing_is_reported(tmp_path):
    source = tmp_path / "quiet.c"
    source.write_text('#include "pmlkit.h"\nint main(void) { pml_buffer("b", 8192); return 0; }')
    done = subprocess.run([compile_static(source)], capture_output=True, env={})
    assert (done.returncode, done.stdout) == (0, b"")
