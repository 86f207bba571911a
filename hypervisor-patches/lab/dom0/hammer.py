# SPDX-License-Identifier: GPL-2.0-only
"""Switch a domain's log on and off, with rounds, until the domain is gone or SIGTERM arrives.

    python3 hammer.py DOMID

Prints a JSON line at the end: the number of each result of each call, an errno's name or "0".
"""

import contextlib
import errno
import json
import random
import signal
import sys
import time
from collections import Counter

from pmlkit.xen.binding import XenError
from pmlkit.xen.job import LogOptions
from pmlkit.xen.pml import ROUND_ACCESSED, ROUND_GUIDED, PmlLog

OPTIONS = LogOptions(slots=64, page_tables="mark", harvest="both")


class Told(Exception):
    """SIGTERM arrived."""


def told_to(*_):
    raise Told


def hammer(domid, counts):
    rng = random.Random(17)
    while True:
        what = "enable"
        try:
            with PmlLog(domid, OPTIONS) as log:
                counts["enable 0"] += 1
                what = "close"
                for _ in range(rng.randrange(4)):
                    time.sleep(rng.uniform(0, 0.02))
                    log.close_round(ROUND_GUIDED | ROUND_ACCESSED)
                    counts["close 0"] += 1
                what = "disable"
                log.disable()
                counts["disable 0"] += 1
        except XenError as error:
            counts[f"{what} {errno.errorcode.get(error.errno, error.errno)}"] += 1
            if error.errno == errno.ESRCH:
                return
        time.sleep(rng.uniform(0, 0.02))


def main(domid):
    counts = Counter()
    signal.signal(signal.SIGTERM, told_to)
    with contextlib.suppress(Told):
        hammer(int(domid), counts)
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
