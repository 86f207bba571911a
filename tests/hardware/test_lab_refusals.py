# SPDX-License-Identifier: Apache-2.0
"""Domains that cannot be logged are refused in words, and a logged one is not migrated."""

import errno
import json
import re

import pytest
from lab_case import needs_lab

from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.lab.session import LabOptions, collect

pytestmark = [needs_lab, pytest.mark.timeout(1800)]
SCRIPT = """\
python3 refusals.py kinds
python3 refusals.py migrating $domid
xl unpause g
xl enable-log-dirty $domid && xl log-dirty-status $domid
xl migrate -s '' g 'xl migrate-receive'; echo "REFUSALS migrate $?"
xl pause g && xl log-dirty-status $domid && xl unpause g
xl disable-log-dirty $domid && echo "REFUSALS switched off"
xl enable-log-dirty --ring=100 $domid; xl enable-log-dirty --buffers=9 $domid
xl enable-log-dirty --rearm=flush:65 $domid; xl enable-log-dirty -c --rearm=never $domid
python3 refusals.py dying g $domid
xl enable-log-dirty $domid; true
"""


def boot(folder, script, cmdline="", guest="known"):
    options = LabOptions(fast=True, script=script, xen_cmdline=cmdline)
    collect(lab_guests.load(guest), folder, options)
    return (folder / "console.txt").read_text(errors="replace")


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    return boot(tmp_path_factory.mktemp("refusals"), SCRIPT)


@pytest.fixture(scope="module")
def answers(said):
    return dict(json.loads(row) for row in re.findall(r"REFUSALS (\[.*\])", said))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("PV", "it is a PV guest"),
        ("no vCPUs", "not all of its vCPUs exist yet"),
        ("shadow", "shadow paging"),
        ("migrating", "log-dirty mode is in use"),
        ("dying", "being destroyed"),
    ],
)
def test_refusal_says_why(answers, what, words):
    assert words in answers[what]


def test_hvm_domain_can_be_logged(answers):
    assert answers["HVM"] == "logged: 0 pages dirty, rc 0"


def test_stock_log_dirty_and_the_log_exclude_each_other(answers):
    assert answers["stock on"] == answers["stock off"] == 0
    assert answers["stock while logged"] == errno.EBUSY
    assert answers["afterwards"].startswith("logged")


def test_destroyed_domain_leaves_its_records(answers):
    assert answers["destroy"] == 0
    assert answers["records left"] >= 1


def test_live_migration_is_refused_in_words(said):
    assert "it is being logged, and cannot be migrated live: use xl disable-log-dirty" in said
    (status,) = re.findall(r"REFUSALS migrate (\d+)", said)
    assert status != "0"
    assert "REFUSALS switched off" in said


@pytest.mark.parametrize(
    "words",
    [
        "the size of a ring is a power of two from 2 to 4096, not 100",
        "a vcpu has from 1 to 8 buffers, not 9",
        "pages can be re-armed after every 1 to 64 buffers, not 65",
        "accessed flags can only be cleared if pages are re-armed",
    ],
)
def test_xl_says_which_option_is_wrong(said, words):
    assert words in said


def test_xen_without_pml_is_told_from_a_cpu_without(tmp_path):
    said = boot(tmp_path, "xl enable-log-dirty $domid; true", "ept=no-pml")
    assert "Xen was booted with ept=no-pml" in said
