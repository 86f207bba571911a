# SPDX-License-Identifier: GPL-2.0-only
"""Collectors that are killed, and collectors that interfere with each other.

    python3 callers.py killed DOMID  one is killed at each of its hypercalls: the guest runs on
    python3 callers.py two DOMID     two close rounds of the same domain at once

The guest is one of the kit's that writes more than a buffer of libxenpml holds. Prints JSON lines.
"""

import errno
import json
import os
import sys
import time

import traced

from pmlkit.xen.binding import XenError, check
from pmlkit.xen.job import LogOptions
from pmlkit.xen.lab import Mailbox
from pmlkit.xen.pml import ROUND_GUIDED, Handle, PmlLog

_DATA = 4096
_TWO_ROUNDS = 12


def say(what, **answer):
    print("CALLERS", json.dumps([what, answer]), flush=True)


def close(handle):
    """Close a guided round; return its number and the touched frames."""
    closed = handle._ffi.new("struct xenpml_round *", {"flags": ROUND_GUIDED})
    done = handle._lib.xenpml_close_round(handle._h, handle.domid, closed)
    check(done, "XEN_DOMCTL_pml_close_round", handle.domid)
    words = handle._ffi.unpack(closed.touched, closed.touched_count) if closed.touched_count else []
    return closed.round, {word >> 12 for word in words}


def kill_at(domid, stop):
    """Close a round in a process that is killed at ioctl `stop`; return whether it got there."""

    def collect():
        with Handle(domid) as handle:
            close(handle)

    pid = traced.start(collect)
    if traced.run_to(pid, stop) < stop:
        return False
    traced.kill(pid)
    return True


def runs(box, rounds=1, limit_s=20.0):
    """Return whether the guest finishes `rounds` further rounds."""
    before, end = box._word(3), time.monotonic() + limit_s
    while (box._word(3) - before) % 2**32 < rounds:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def killed(domid, box):
    options = LogOptions(slots=256, page_tables="mark", harvest="guided")
    with PmlLog(domid, options) as log:
        running, stop = runs(box), 1
        while running and kill_at(domid, stop):
            running = runs(box)
            stop += 1
        say("killed", stops=stop - 1, running=running)
        if not running:
            return
        close(log)
        runs(box, 2)
        number, frames = close(log)
        say("after", round=number, data=sum(gfn >= _DATA for gfn in frames))
    say("off", running=runs(box))


def two(domid, box):
    options = LogOptions(slots=256, page_tables="mark", harvest="guided")
    with PmlLog(domid, options) as log:
        first = log.status()["round"]

        def collect():
            closed, failed = [], {}
            with Handle(domid) as handle:
                while len(closed) < _TWO_ROUNDS:
                    try:
                        number, frames = close(handle)
                        closed.append([number, sum(gfn >= _DATA for gfn in frames)])
                    except XenError as error:
                        name = errno.errorcode.get(error.errno, "?")
                        failed[name] = failed.get(name, 0) + 1
            say("collector", closed=closed, failed=failed)

        for pid in [traced.fork(collect), traced.fork(collect)]:
            os.waitpid(pid, 0)
        say("both", first=first, rounds=log.status()["round"], running=runs(box))


def main(what, domid):
    with Mailbox(int(domid)) as box:
        box.wait_ready(60)
        box.free_run()
        (killed if what == "killed" else two)(int(domid), box)


if __name__ == "__main__":
    main(*sys.argv[1:])
