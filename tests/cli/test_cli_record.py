# SPDX-License-Identifier: Apache-2.0
"""`pmlkit record`, as far as it goes without a guest."""

import json
import os
import re

import pytest
from cli_case import check_one_line, spawn

from pmlkit.trace.reader import Trace


def test_record_lists_its_workloads(run):
    code, out, _ = run("record", "--list", "--json")
    told = {workload["name"]: workload for workload in json.loads(out)}
    assert code == 0
    assert told["hotcold"]["parameters"]["hot"]["default"] > 0
    code, out, _ = run("record", "--list")
    names = [line.split()[0] for line in out.splitlines()[2:]]
    assert (code, names) == (0, sorted(told))


def test_record_lists_a_workloads_parameters(run):
    code, out, _ = run("record", "--list", "hotcold")
    assert code == 0
    assert re.search(r"^hot +\d+ +\S", out, re.MULTILINE)


def test_record_passes_its_options_on(run, monkeypatch, trace, tmp_path):
    from pmlkit.sources.recorder import record as recorder
    from pmlkit.sources.recorder import recording

    calls = []

    def pretend(workload, out, options, progress):
        progress(recording.Progress(10**9, 5000, "a phase"))
        calls.append((workload, out, options))
        return Trace.open(trace)

    monkeypatch.setattr(recorder, "record", pretend)
    words = "--memory 1G --window 5Minsn --deterministic --cmdline quiet --set hot=7 --boot"
    code, out, err = run(
        "record", "hotcold", "-o", "x.trace", *words.split(), "--time-limit", "90s", "--overwrite"
    )
    ((workload, out_path, options),) = calls
    assert (code, err, out_path) == (0, "", "x.trace")
    assert workload.parameters["hot"].default == 7
    assert options == recorder.RecordOptions(
        memory_mib=1024,
        window="5Minsn",
        clock="guest",
        cmdline="quiet",
        boot=True,
        time_limit_s=90,
        overwrite=True,
    )
    assert "known answers" in out


@pytest.mark.parametrize(
    "given, clock",
    [({}, "guest"), ({"clock": "host"}, "host"), ({"deterministic": True}, "guest"),
     ({"deterministic": False}, "host"), ({"clock": "guest", "deterministic": True}, "guest")],
)  # fmt: skip
def test_a_recording_goes_by_the_guests_clock_unless_told_otherwise(given, clock):
    from dataclasses import replace

    from pmlkit.sources.recorder.recording import RecordOptions

    options = RecordOptions(**given)
    assert (options.clock, options.icount) == (clock, clock == "guest")
    assert replace(options, boot=True).clock == clock


@pytest.mark.parametrize(
    "words, says",
    [("--clock host --deterministic", "contradict"), ("--clock sundial", "sundial")],
)
def test_clocks_that_cannot_be_are_wrong_use(run, words, says):
    code, _, err = run("record", "hotcold", "-o", "x.trace", *words.split())
    assert code == 2 and says in err


@pytest.mark.parametrize("missing", ["qemu-system-x86_64", "gcc"])
def test_record_without_a_tool_names_its_package_and_leaves_nothing(missing, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    if missing == "gcc":
        fake = tools / "qemu-system-x86_64"
        fake.write_text("#!/bin/sh\necho QEMU emulator version 7.2.22\n")
        fake.chmod(0o755)
    env = os.environ | {"PATH": str(tools), "PMLKIT_CACHE": str(tmp_path / "cache")}
    done = spawn("record", "hotcold", "-o", "x.trace", env=env, cwd=tmp_path)
    assert done.returncode == 1
    check_one_line(done.stderr, f"{missing} is not installed: apt-get install")
    assert not list(tmp_path.glob("x.trace*"))
