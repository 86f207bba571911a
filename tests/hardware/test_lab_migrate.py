# SPDX-License-Identifier: Apache-2.0
"""A Linux guest that is collected by stock log-dirty is migrated live: the collector gives way."""

import json
import re

import pytest
from lab_case import needs_lab

from pmlkit.sources.lab import guests as lab_guests
from pmlkit.sources.lab.session import LabOptions, collect
from pmlkit.spool_reader import read_spool
from pmlkit.xen.frames import Frame

pytestmark = [needs_lab, pytest.mark.timeout(1800)]
# Descriptor 9 is a fifo that never ends: whoever gives the orders stays there. A guest says that it
# can be suspended when its kernel has set itself up.
SCRIPT = """\
mkfifo /tmp/orders
exec 9<>/tmp/orders
echo '{"domain": "g", "period_s": 0.05, "mode": "stock"}' >&9
python3 -m pmlkit.xen.agent <&9 >/out/beside.spool &
agent=$!
for try in $(seq 300); do [ -s /run/pmlkit/$domid.json ] && break; usleep 100000; done
xl unpause g
control=/local/domain/$domid/control
for try in $(seq 120); do xenstore-ls $control | grep -q feature-suspend && break; sleep 0.5; done
timeout 300 xl migrate -s '' g 'xl migrate-receive'; echo "MIGRATE migrate $?"
kill -INT $agent 2>/dev/null; wait $agent; echo "MIGRATE agent $?"
sleep 1
echo "MIGRATE new $(xl domid g)"
echo "MIGRATE state $(xl list g | tail -n 1 | awk '{print $5}')"
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    folder = tmp_path_factory.mktemp("migrate")
    options = LabOptions(fast=True, script=SCRIPT, memory_mib=128, stock=True)
    collect(lab_guests.load("idle", {"phase_ms": "600000"}), folder, options)
    text = (folder / "console.txt").read_text(errors="replace")
    with read_spool(folder / "beside.spool") as spool:
        frames = [(kind, json.loads(payload)) for kind, payload in spool if kind == Frame.END]
    return dict(re.findall(r"MIGRATE (\w+) (\S+)", text)) | {"frames": frames, "text": text}


def test_the_migration_succeeds_and_the_domain_goes_on_in_its_new_place(said):
    assert said["migrate"] == "0", said["text"]
    assert int(said["new"]) > 1
    assert not set(said["state"]) & set("pscd")  # neither paused nor shut down, crashed or dying


def test_the_collection_ends_and_says_why(said):
    assert said["agent"] == "0"
    ((_, end),) = said["frames"]
    assert end["why"] == "the domain is being saved or migrated"
    assert end["rounds"] > 0
