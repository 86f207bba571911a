# SPDX-License-Identifier: GPL-2.0-only
"""The costs of exits of the guest `exits`, in TSC ticks.

    python3 exits.py DOMID CONFIG STAGE...   stages: off, other (another domain is logged), logged

Prints JSON: stage -> the guest's measurements (`measured` in kit.h) of 100 empty loops, CPUIDs and
hypercalls.
"""

import contextlib
import json
import subprocess
import sys
import time

from pmlkit.xen.agent import unpause
from pmlkit.xen.job import LogOptions

KINDS = ("nothing", "cpuid", "hypercall")
LIMIT_S = 600


def measure(box, number):
    # dom0 sleeps meanwhile, because each wake-up interrupts the guest.
    box.run(number, LIMIT_S, lambda: time.sleep(0.5))
    return dict(zip(KINDS, box.measured(len(KINDS)), strict=True))


def _xl(*words):
    done = subprocess.run(["xl", *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@contextlib.contextmanager
def logging(stage, domid, config):
    """Log the domains of the stage."""
    if stage == "off":
        yield
        return
    from pmlkit.xen.pml import PmlLog

    if stage == "other":
        _xl("create", "-p", config, "name='other'")
        domid = int(_xl("domid", "other"))
    with PmlLog(domid, LogOptions(slots=64, page_tables="mark")):
        yield
    if stage == "other":
        _xl("destroy", "other")


def main(domid, config, *stages):
    from pmlkit.xen.lab import Mailbox

    unpause(int(domid))
    costs = {}
    with Mailbox(int(domid)) as box:
        box.wait_ready(LIMIT_S)
        measure(box, 1)  # so that one-time work is done
        for number, stage in enumerate(stages, start=2):
            with logging(stage, int(domid), config):
                costs[stage] = measure(box, number)
    print(json.dumps(costs), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
