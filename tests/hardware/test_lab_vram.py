# SPDX-License-Identifier: Apache-2.0
"""A device model tracks video memory while the guest is logged: neither disturbs the other."""

import json
import re

import pytest
from lab_case import needs_lab

from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.lab.session import LabOptions, collect

pytestmark = [needs_lab, pytest.mark.timeout(1800)]
WRITTEN = [[4096, 300], [5096, 1500]]  # what `known` writes in each round
VIDEO, OTHER = 512, 256  # frames that are tracked


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vram")
    options = LabOptions(fast=True, hvm=True, script="python3 vram.py $domid")
    collect(lab_guests.load("known"), folder, options)
    console = (folder / "console.txt").read_text(errors="replace")
    told = [json.loads(row) for row in re.findall(r"VRAM (\[.*\])", console)]
    assert told, console[-2000:]
    return told


def test_without_a_log_the_tracking_is_exact(steps):
    assert steps[0] == ["tracked before", {"tracked": [[4096, 300]]}]


def test_the_log_and_the_bitmap_are_exact_while_video_memory_is_tracked(steps):
    logged = [(what, answer) for what, answer in steps if "log" in answer]
    assert len(logged) == 6
    for what, answer in logged:
        assert (what, answer["log"], answer["bitmap"]) == (what, WRITTEN, WRITTEN)


def test_all_of_it_is_dirty_for_the_device_model_meanwhile(steps):
    tracked = {what: answer["tracked"] for what, answer in steps if "log" in answer}
    assert tracked["logged while tracked"] == tracked["asked all the time"] == VIDEO
    assert tracked["another range"] == OTHER
    assert tracked["tracking has ended"] is None


def test_what_was_written_just_before_the_log_was_switched_off_is_tracked(steps):
    ((first, frames),) = dict(map(tuple, steps))["written before the end"]["tracked"]
    assert (first, frames) == (4096, VIDEO)  # all of it is dirty once more


def test_the_tracking_is_exact_again_when_the_log_is_off(steps):
    assert ["tracked after", {"tracked": [[4096, 300]]}] in steps


def test_frames_whose_tracking_ended_after_a_log_are_tracked_no_more(steps):
    # They would fill the processor's buffer of 512 entries three times.
    assert steps[-1] == ["tracked elsewhere", {"tracked": [[4096, 300]], "exits": 0}]
