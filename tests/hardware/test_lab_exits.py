# SPDX-License-Identifier: Apache-2.0
"""What VM exits cost: nothing more for a domain while another one is logged."""

import json

import pytest
from lab_case import needs_lab

from experiments.exit_off import SCRIPT, STAGES, rows
from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.lab.session import LabOptions, collect

pytestmark = [needs_lab, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exits")
    options = LabOptions(fast=True, script=SCRIPT.format(" ".join(STAGES)), memory_mib=128)
    collect(lab_guests.load("exits"), folder, options)
    told = json.loads((folder / "exits.json").read_text())
    return {row["logged"]: row for row in rows("with it", told)}


@pytest.mark.parametrize("kind", ["cpuid", "hypercall"])
def test_only_the_domain_that_is_logged_pays(costs, kind):
    off, other, logged = (costs[stage][kind] for stage in STAGES.values())
    assert other == off
    assert off < logged < off + 200
