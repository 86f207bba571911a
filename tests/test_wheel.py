# SPDX-License-Identifier: Apache-2.0
"""An installed wheel, in a folder of the user's own: what it brings along, and what it lacks."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from said import said
from waiting import HANG_S

from pmlkit import recordings

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Call the console script of a fresh environment; its dependencies are this environment's."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    assert wheel.stat().st_size < 40 << 20
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*pip, "--no-index", str(wheel)], check=True, capture_output=True)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", where], capture_output=True, text=True).stdout.strip()
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(site, "dependencies.pth").write_text("\n".join(paths) + "\n")
    home = folder / "home"
    home.mkdir()
    gone = ("PYTHONPATH", "PMLKIT_DATA", "PMLKIT_CACHE")
    kept = {name: value for name, value in os.environ.items() if name not in gone}

    def call(*words):
        command = [python.with_name("pmlkit"), *words]
        templates = str(Path(sys.prefix, "share", "jupyter"))  # of nbconvert
        env = kept | {"HOME": str(home), "JUPYTER_PATH": templates}
        done = subprocess.run(
            command, cwd=home, env=env, umask=0o077, capture_output=True, text=True, timeout=HANG_S
        )
        return done.returncode, done.stdout, said(done.stderr)

    return call


def test_recordings_come_along_by_name(installed):
    code, out, err = installed("info", "hotcold", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["all_known_met"] and "/share/data/" in told["path"]
    assert installed("wss", "hotcold")[0] == 0


def test_workloads_come_along(installed):
    code, out, err = installed("record", "--list", "--json")
    assert (code, err) == (0, "")
    names = {path.parent.name for path in (ROOT / "experiments/workloads").glob("*/workload.yaml")}
    assert {workload["name"] for workload in json.loads(out)} == names


@pytest.mark.parametrize("experiment", ["demo.yaml", "experiments/demo.yaml"])
def test_experiments_and_notebooks_come_along(installed, experiment):
    code, out, err = installed("run", experiment, "--dry-run", "--json")
    assert (code, err) == (0, "")
    assert len(json.loads(out)["runs"]) == 8


def test_results_go_into_the_users_folder(installed, make_trace):
    trace = str(make_trace(guest=True).path)
    code, out, err = installed("run", "demo.yaml", "--trace", trace, "--only", "01_collect")
    assert code == 0, err
    assert "/share/" not in out and "results/demo" in out


@pytest.mark.parametrize(
    "words",
    [
        "lab run --list",
        "lab build --fast",
        "lab build --stock",
        "lab run known -o x.trace",
        "lab run hotcold -o x.trace",
        "lab shell known",
        "record known -o x.trace",
    ],
)
def test_what_needs_a_clone_says_so_in_a_line(installed, words):
    code, out, err = installed(*words.split())
    assert (code, out) == (1, "")
    assert re.fullmatch(r"pmlkit: [^\n]*run pmlkit from a clone of its repository\n", err), err


def test_the_doctor_finds_what_there_is(installed):
    _, out, err = installed("doctor", "--json")
    assert err == ""
    found = {one["name"]: {c["name"]: c for c in one["checks"]} for one in json.loads(out)}
    assert found["demo"]["recordings"]["state"] == found["demo"]["notebooks"]["state"] == "ok"
    assert found["recorder"]["workloads"]["state"] == "ok"
    assert "clone" in found["lab"]["patch series"]["mend"]


def test_a_clone_is_found_beside_the_package():
    assert recordings.IS_CLONE and recordings.ROOT == ROOT
    assert recordings.located("demo.yaml", "experiments") == ROOT / "experiments" / "demo.yaml"
    assert recordings.located("nowhere.yaml", "experiments") == Path("nowhere.yaml")
