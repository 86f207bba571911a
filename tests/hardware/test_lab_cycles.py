# SPDX-License-Identifier: Apache-2.0
"""The patched Xen gives back all that it took, whatever happens to the domain or to the reader."""

import json
import re

import pytest
from lab_case import needs_lab

from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.lab.session import LabOptions, collect

pytestmark = [needs_lab, pytest.mark.timeout(1800)]
SCRIPT = """\
xl unpause g
python3 cycles.py enable $domid 200 && python3 cycles.py killed $domid 5 &&
xl destroy g && python3 cycles.py destroy guest.cfg 50
"""
REFUSALS = """\
xl enable-log-dirty 0; xl enable-log-dirty 77; xl enable-log-dirty $domid
xl log-dirty-status $domid; xl enable-log-dirty $domid; xl disable-log-dirty $domid; true
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cycles")
    options = LabOptions(fast=True, script=SCRIPT, xen_debug=True)
    collect(lab_guests.load("known"), folder, options)
    return (folder / "console.txt").read_text(errors="replace")


@pytest.mark.parametrize(("what", "times"), [("enable", 200), ("killed", 5), ("destroy", 50)])
def test_free_memory_is_back_to_the_page(said, what, times):
    rows = [json.loads(m) for m in re.findall(r"CYCLES (\[.*\])", said)]
    (found,) = [row for row in rows if row[0] == what]
    assert found[1] == found[2]
    assert found[3] == times


def test_xl_refuses_in_words(tmp_path):
    collect(lab_guests.load("known"), tmp_path, LabOptions(fast=True, script=REFUSALS))
    told = (tmp_path / "console.txt").read_text(errors="replace")
    assert "a domain cannot log itself" in told
    assert re.search(r"77.*(unknown|no such|not exist|nvalid)", told, re.I)
