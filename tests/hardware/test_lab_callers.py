# SPDX-License-Identifier: Apache-2.0
"""Collectors that are killed, or two at once: the guest runs on, and rounds are not mixed."""

import json
import re

import pytest
from lab_case import needs_lab

from pmlkit.recordings import PATCHES
from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.lab.session import LabOptions, collect

pytestmark = [needs_lab, pytest.mark.timeout(1800)]
GUEST = PATCHES / "tests" / "wide.c"
PAGES = 20000
SCRIPT = "xl unpause g\npython3 callers.py {} $domid; true\n"


def answers(folder, what):
    options = LabOptions(fast=True, script=SCRIPT.format(what), memory_mib=128)
    collect(lab_guests.load(GUEST), folder, options)
    said = (folder / "console.txt").read_text(errors="replace")
    return [json.loads(row) for row in re.findall(r"CALLERS (\[.*\])", said)]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    return dict(answers(tmp_path_factory.mktemp("killed"), "killed"))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return answers(tmp_path_factory.mktemp("two"), "two")


def test_guest_runs_on_wherever_its_collector_is_killed(killed):
    assert killed["killed"]["running"]
    assert killed["killed"]["stops"] > 6  # closing, its costs, and three calls that fetch


def test_next_collector_gets_a_whole_round(killed):
    assert killed["after"]["data"] == PAGES
    assert killed["off"]["running"]


def test_two_collectors_never_share_a_round(two):
    closed = [row for what, told in two if what == "collector" for row in told["closed"]]
    numbers = [number for number, _ in closed]
    assert len(numbers) == len(set(numbers)) == 24


def test_what_two_collectors_are_told_adds_up(two):
    told = dict(two)["both"]
    failed = [told["failed"] for what, told in two if what == "collector"]
    assert all(set(names) <= {"EBUSY", "ENODATA"} for names in failed)
    lost = sum(names.get("ENODATA", 0) for names in failed)
    assert told["rounds"] - told["first"] == 24 + lost
    assert told["running"]
