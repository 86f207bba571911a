# SPDX-License-Identifier: GPL-2.0-only
"""Measure the times for which operations on a domain's log cannot be preempted.

    python3 pieces.py DOMID          needs a Xen with pieces.patch, and a guest made with the kit

Prints JSON rows: stage, operation, where its longest piece began and ended, number of pieces, the
sum of their TSC ticks, ticks of the longest.
"""

import json
import re
import subprocess
import sys
import time
from dataclasses import replace

from pmlkit.xen.agent import unpause
from pmlkit.xen.job import LogOptions
from pmlkit.xen.lab import Mailbox
from pmlkit.xen.pml import (
    ROUND_ACCESSED,
    ROUND_GUIDED,
    ROUND_PRUNED,
    ROUND_SAMPLE_SHIFT,
    PmlLog,
)

LIMIT_S = 600
MOST_SLOTS = 4096
SAMPLE = ROUND_ACCESSED | ROUND_PRUNED | 4 << ROUND_SAMPLE_SHIFT  # one frame of 16
# The rounds that are closed in each stage. The first round knows no page tables yet.
STAGES = {
    "plain": 0,
    "scan": ROUND_ACCESSED,
    "pruned": ROUND_ACCESSED | ROUND_PRUNED,
    "guided": ROUND_GUIDED,
    "guided, scan": ROUND_GUIDED | ROUND_ACCESSED,
    "sample": SAMPLE,
}
OPERATIONS = ("?", "enable", "disable", "close_round", "status", "vcpu_status", "costs", "fetch")
_LINE = re.compile(r"PML piece: (\d+) (\S+) (\S+) (\d+) (\d+) (\d+)")


def take(stage):
    """Read Xen's counts since the last call."""
    subprocess.run(["xl", "debug-keys", "Y"], check=True)
    text = subprocess.run(["xl", "dmesg", "-c"], capture_output=True, text=True, check=True).stdout
    return [
        [stage, OPERATIONS[int(cmd)], begin, end, int(number), int(total), int(longest)]
        for cmd, begin, end, number, total, longest in _LINE.findall(text)
    ]


def main(domid):
    unpause(int(domid))
    rows = []
    options = LogOptions(slots=64, page_tables="snapshot", harvest="both")
    with Mailbox(int(domid)) as box:
        box.wait_ready(LIMIT_S)
        take("")
        with PmlLog(int(domid), options) as log:
            rows += take("enable")
            for number, (stage, flags) in enumerate(STAGES.items(), start=1):
                box.run(number, LIMIT_S, lambda: time.sleep(0.05))
                log.close_round(flags)
                rows += take(stage)
            log.disable()
            rows += take("disable")
        with PmlLog(int(domid), replace(options, slots=MOST_SLOTS)) as log:
            rows += take("enable, largest rings")
            log.disable()
            rows += take("disable, largest rings")
    print(json.dumps(rows), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
