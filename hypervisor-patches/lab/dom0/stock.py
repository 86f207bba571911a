# SPDX-License-Identifier: GPL-2.0-only
"""Log a guest by stock log-dirty under a patched Xen, whose counters include log-full exits.

    python3 stock.py DOMID ROUNDS    the guest is one of the kit's, with one vCPU

Prints one JSON line: exits, and their total instructions.
"""

import json
import sys

from pmlkit.xen.agent import unpause
from pmlkit.xen.lab import Mailbox
from pmlkit.xen.pml import Handle
from pmlkit.xen.stock import LogDirty

LIMIT_S = 60


def main(domid, rounds):
    domid = int(domid)
    with LogDirty(domid) as log, Mailbox(domid) as box, Handle(domid) as counters:
        unpause(domid)
        box.wait_ready(LIMIT_S)
        log.close_round()
        before = counters.vcpu_status(0)
        for number in range(1, int(rounds) + 1):
            box.run(number, LIMIT_S)
            log.close_round()
        after = counters.vcpu_status(0)
    spent = {name: after[name] - before[name] for name in ("exits", "exit_tsc")}
    print("STOCK", json.dumps(spent), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
