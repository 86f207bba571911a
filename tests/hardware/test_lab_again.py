# SPDX-License-Identifier: Apache-2.0
"""A second log of the same domain, right after the first one."""

import json
import re

import pytest
from lab_case import needs_lab

from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.lab.session import LabOptions, collect

pytestmark = [needs_lab, pytest.mark.timeout(1800)]
WRITTEN = 1800  # by the guest `known`, in each of its rounds


# Log-dirty mode ends and begins by a type change that is carried out lazily. What is still
# log-dirty then has its dirty flag when the second log begins: it has to be armed all the same.
def test_a_second_log_has_all_that_is_written(tmp_path):
    script = "python3 again.py $domid; true\n"
    collect(lab_guests.load("known"), tmp_path, LabOptions(fast=True, script=script))
    said = (tmp_path / "console.txt").read_text(errors="replace")
    (found,) = re.findall(r"AGAIN (\[.*\])", said)
    first, second = json.loads(found)
    assert min(first) >= WRITTEN
    assert min(second) >= WRITTEN
