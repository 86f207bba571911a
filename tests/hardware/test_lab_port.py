# SPDX-License-Identifier: Apache-2.0
"""The series on a tree of Xen that PMLKIT_XEN_SOURCE names: built, booted, known answers.

Each other way to configure the hypervisor is built only, 3 minutes each on two cores.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
from lab_case import data, frames, needs_lab, own, rounds

SOURCE = os.environ.get("PMLKIT_XEN_SOURCE")
pytestmark = [
    needs_lab,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not SOURCE, reason="no tree of Xen: set PMLKIT_XEN_SOURCE=DIR"),
]

BUILDS = Path(__file__).resolve().parents[2] / "hypervisor-patches" / "tests" / "builds"
CONFIGURATIONS = re.findall(r"^(\S+) +(?:pml|none) ", BUILDS.read_text(), re.M)


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


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_it_builds(name):
    done = subprocess.run([BUILDS, SOURCE, name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    if "skipped" in done.stdout:
        pytest.skip(done.stdout.partition("skipped: ")[2].strip())
    assert re.fullmatch(rf"{name} +built, mm/pml: (pml|none)\n", done.stdout)
