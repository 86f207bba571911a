# SPDX-License-Identifier: GPL-2.0-only
"""Switch a domain's PML log on and off repeatedly, and report Xen's free memory.

    python3 cycles.py enable DOMID TIMES     on, a round, off: the domain lives on
    python3 cycles.py destroy CONFIG TIMES   create, log, destroy while its rings are mapped
    python3 cycles.py killed DOMID TIMES     the process that has the rings mapped is killed

Prints one JSON line: free bytes of Xen's heap after the first cycle and after the last.
"""

import json
import os
import signal
import subprocess
import sys
import time

from pmlkit.xen.agent import unpause
from pmlkit.xen.binding import check, ffi, library
from pmlkit.xen.job import LogOptions
from pmlkit.xen.pml import PmlLog

OPTIONS = LogOptions(harvest="accessed")
SETTLE_S = 0.5  # Xen frees a domain's memory, and scrubs it, in the background


def free_bytes():
    """Return the free bytes of Xen's heap."""
    lib, made = library("xenctrl"), ffi()
    handle = check(lib.xc_interface_open(made.NULL, made.NULL, 0), "xc_interface_open")
    told = made.new("uint64_t *")
    check(lib.xc_availheap(handle, 0, 0, -1, told), "xc_availheap")
    lib.xc_interface_close(handle)
    return told[0]


def enable(domid):
    with PmlLog(int(domid), OPTIONS) as log:
        log.close_round()
        for _ in log.read():
            pass


def killed(domid):
    child = os.fork()
    if not child:
        log = PmlLog(int(domid), OPTIONS)
        log.close_round()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    library("xenpml").xenpml_disable(_handle(), int(domid))


def _handle():
    return check(library("xenpml").xenpml_open(ffi().NULL, 0), "xenpml_open")


def destroy(config):
    _xl("create", "-p", config, "name='cycle'")
    domid = int(_xl("domid", "cycle"))
    log = PmlLog(domid, OPTIONS)
    unpause(domid)
    time.sleep(0.05)
    log.close_round()
    _xl("destroy", "cycle")
    for _ in log.read():  # the rings outlive the domain as long as they are mapped
        pass
    log.close()


def _xl(*words):
    done = subprocess.run(["xl", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"LAB agent: xl {words[0]}: {done.stderr.strip()[-200:]}")
    return done.stdout.strip()


def main(what, target, times):
    free = []
    for _ in range(int(times)):
        {"enable": enable, "destroy": destroy, "killed": killed}[what](target)
        time.sleep(SETTLE_S if what == "destroy" else 0)
        free.append(free_bytes())
    time.sleep(SETTLE_S)
    print("CYCLES", json.dumps([what, free[0], free_bytes(), len(free)]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
