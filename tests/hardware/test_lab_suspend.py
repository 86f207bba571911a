# SPDX-License-Identifier: Apache-2.0
"""A Linux guest that is being logged can be paused and saved; it is not migrated live."""

import re

import pytest
from lab_case import needs_lab

from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.lab.session import LabOptions, collect

pytestmark = [needs_lab, pytest.mark.timeout(1800)]
# A guest says that it can be suspended when its kernel has set itself up.
SCRIPT = """\
xl unpause g
control=/local/domain/$domid/control
for try in $(seq 120); do xenstore-ls $control | grep -q feature-suspend && break; sleep 0.5; done
sleep 1
xl enable-log-dirty $domid && xl log-dirty-status $domid
xl pause g && echo "SUSPEND paused: $(xl log-dirty-status $domid | grep -c ': on')"
xl unpause g; sleep 1
xl migrate -s '' g 'xl migrate-receive'; echo "SUSPEND migrate $?"
echo "SUSPEND after: $(xl log-dirty-status $domid | grep -c ': on')"
xl save g /dev/null; echo "SUSPEND save $?"
xl domid g; echo "SUSPEND gone $?"
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suspend")
    options = LabOptions(fast=True, script=SCRIPT, memory_mib=128)
    collect(lab_guests.load("idle"), folder, options)
    text = (folder / "console.txt").read_text(errors="replace")
    return dict(re.findall(r"SUSPEND (\w+):? (\d+)", text)) | {"text": text}


def test_a_paused_guest_is_still_logged(said):
    assert said["paused"] == "1"


def test_it_is_not_migrated_live_and_goes_on_being_logged(said):
    assert (
        "it is being logged, and cannot be migrated live: use xl disable-log-dirty" in said["text"]
    )
    assert said["migrate"] != "0"
    assert said["after"] == "1"


def test_it_can_be_saved_which_ends_it(said):
    assert said["save"] == "0"
    assert said["gone"] != "0"
