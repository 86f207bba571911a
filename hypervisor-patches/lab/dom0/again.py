# SPDX-License-Identifier: GPL-2.0-only
"""Log a guest of the kit a second time at once, to check that everything is re-armed.

    python3 again.py DOMID

The guest runs a round after the last closed one. Then logging ends, and begins again while the
guest is paused. Prints one JSON line: entries and dirty pages of the first round of each log.
"""

import json
import sys

from harvests import Pause

from pmlkit.xen.agent import unpause
from pmlkit.xen.job import LogOptions
from pmlkit.xen.lab import Mailbox
from pmlkit.xen.pml import PmlLog

OPTIONS = LogOptions(page_tables="off")


def main(domid):
    domid, found = int(domid), []
    pause = Pause(domid)
    unpause(domid)
    with Mailbox(domid) as box:
        box.wait_ready(120)
        log = PmlLog(domid, OPTIONS)
        box.run(1, 120)
        found.append(log.close_round())
        box.run(2, 120)
        with pause:
            log.close()
            log = PmlLog(domid, OPTIONS)
        box.run(3, 120)
        found.append(log.close_round())
        log.close()
    told = [[closed["entries"], closed["dirty_pages"]] for closed in found]
    print("AGAIN", json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
