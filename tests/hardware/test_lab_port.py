# SPDX-License-Identifier: Apache-2.0
"""The series on a tree of Xen that PMLKIT_XEN_SOURCE names: built, booted, known answers.

Each other way to configure the hypervisor is built only, 3 minutes each on two cores.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from lab_case import data, frames, needs_lab, own, rounds

from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.lab.session import LabOptions, collect
from pmlkit.sources.lab.xen import Tree

SOURCE = os.environ.get("PMLKIT_XEN_SOURCE")
pytestmark = [
    needs_lab,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not SOURCE, reason="no tree of Xen: set PMLKIT_XEN_SOURCE=DIR"),
]

BUILDS = Path(__file__).resolve().parents[2] / "hypervisor-patches" / "tests" / "builds"
CONFIGURATIONS = re.findall(r"^(\S+) +(?:pml|none) ", BUILDS.read_text(), re.M)
# In the policy that comes with Xen, domU_t can be logged and isolated_domU_t cannot.
FLASK = """\
echo "FLASK mode $(xl getenforce)"
xl list -Z
xl enable-log-dirty g; echo "FLASK domU_t $?"
xl log-dirty-status g; xl disable-log-dirty g
sed 's/name="g"/name="h"/' guest.cfg >h.cfg
echo 'seclabel="system_u:system_r:isolated_domU_t"' >>h.cfg
xl create -p h.cfg && xl list -Z
xl enable-log-dirty h; echo "FLASK isolated_domU_t $?"
xl log-dirty-status h; echo "FLASK status $?"
xl destroy h
"""


@pytest.mark.parametrize("debug", [False, True], ids=["release", "debug"])
def test_known_set_is_exact_in_every_round(lab, debug):
    trace = lab.run("known", xen_source=SOURCE, xen_debug=debug)
    for _, entries in rounds(trace):
        assert set(data(entries).gfn) == frames(trace, "hot") | frames(trace, "cold")
        assert len(data(entries)) == 1800
        assert own(entries)


def test_reads_are_found(lab):
    trace = lab.run("reads", xen_source=SOURCE, rounds=4, harvest="pruned")
    for _, entries in list(rounds(trace))[1:]:
        assert frames(trace, "read") <= set(entries.gfn)


def test_no_order_of_clearing_the_bitmap_and_enabling_loses_a_page(tmp_path):
    Tree(Path(SOURCE)).unpack(tmp_path, lambda _: None)
    done = subprocess.run([BUILDS.with_name("orders"), tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(", 0 lose a page of it\n")


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_it_builds(name):
    done = subprocess.run([BUILDS, SOURCE, name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    if "skipped" in done.stdout:
        pytest.skip(done.stdout.partition("skipped: ")[2].strip())
    assert re.fullmatch(rf"{name} +built, mm/pml: (pml|none)\n", done.stdout)


@pytest.fixture(scope="module")
def with_flask(tmp_path_factory):
    """A copy of the tree whose default configuration has Flask, with Xen's own policy."""
    if not shutil.which("checkpolicy"):
        pytest.skip("Xen's policy needs checkpolicy")
    folder = tmp_path_factory.mktemp("flask")
    Tree(Path(SOURCE)).unpack(folder, lambda _: None)
    kconfig = folder / "xen" / "common" / "Kconfig"
    off = re.compile(r"(^config XSM\n\tbool .*\n\tdefault )ARM$", re.M)
    text, changed = off.subn(r"\1y", kconfig.read_text())
    assert changed == 1
    kconfig.write_text(text)
    return str(folder)


def test_flask_lets_dom0_log_a_domain(lab, with_flask):
    trace = lab.run("known", xen_source=with_flask, xen_cmdline="flask=enforcing")
    for _, entries in rounds(trace):
        assert set(data(entries).gfn) == frames(trace, "hot") | frames(trace, "cold")


def test_flask_refuses_a_domain_whose_label_does_not_allow_it(tmp_path, with_flask):
    options = LabOptions(xen_source=with_flask, xen_cmdline="flask=enforcing", script=FLASK)
    collect(lab_guests.load("known"), tmp_path, options)
    console = (tmp_path / "console.txt").read_text(errors="replace")
    answers = dict(re.findall(r"FLASK (\w+) (\w+)", console))
    assert answers["mode"] == "Enforcing"
    assert answers["domU_t"] == "0"
    assert answers["isolated_domU_t"] != "0" and answers["status"] != "0"
    assert re.search(r"avc: +denied +{ pml_op } .*isolated_domU_t", console)
    assert "Permission denied" in console
