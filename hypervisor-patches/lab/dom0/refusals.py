# SPDX-License-Identifier: GPL-2.0-only
"""Request logs that Xen must refuse, and report its answers.

    python3 refusals.py kinds            a PV domain, a domain without vCPUs, an HVM domain
    python3 refusals.py migrating DOMID  stock log-dirty mode is on; and vice versa
    python3 refusals.py dying NAME DOMID destroyed while its log is mapped

Prints a JSON line for each request: the request, and the answer in words.
"""

import ctypes
import json
import os
import subprocess
import sys
import time

from pmlkit.xen.binding import XenError
from pmlkit.xen.job import LogOptions
from pmlkit.xen.pml import PmlLog

_HVM, _HAP = 1, 2
_EMULATE_ALL = 0x3FF  # all devices that Xen emulates for an HVM domain
_PAGES = 1024


class CreateDomain(ctypes.Structure):
    """``struct xen_domctl_createdomain`` of Xen 4.17."""

    _fields_ = [
        ("ssidref", ctypes.c_uint32),
        ("handle", ctypes.c_uint8 * 16),
        *((name, ctypes.c_uint32) for name in ("flags", "iommu", "max_vcpus", "max_evtchn_port")),
        *((name, ctypes.c_int32) for name in ("max_grant_frames", "max_maptrack_frames")),
        *((name, ctypes.c_uint32) for name in ("grant_opts", "vmtrace_size", "cpupool_id")),
        *((name, ctypes.c_uint32) for name in ("emulation_flags", "misc_flags")),
    ]


class Raw:
    """libxenctrl's calls that build a domain: xl would need a kernel and a device model."""

    def __init__(self):
        self._lib = ctypes.CDLL("libxenctrl.so.4.17", use_errno=True)
        self._lib.xc_interface_open.restype = ctypes.c_void_p
        self._xch = ctypes.c_void_p(self._lib.xc_interface_open(None, None, 0))

    def call(self, name, *words):
        done = getattr(self._lib, f"xc_{name}")(self._xch, *words)
        if done:
            raise SystemExit(f"LAB agent: xc_{name}: {os.strerror(ctypes.get_errno())}")

    def create(self, flags, emulation=0):
        config = CreateDomain(
            flags=flags,
            max_vcpus=1,
            max_evtchn_port=1023,
            max_grant_frames=4,
            max_maptrack_frames=4,
            grant_opts=2,  # version 2 at most
            emulation_flags=emulation,
        )
        config.handle[0] = 1
        domid = ctypes.c_uint32(0)
        self.call("domain_create", ctypes.byref(domid), ctypes.byref(config))
        return domid.value

    def populate(self, domid):
        """Give a domain a vCPU and some memory; it does not run."""
        frames = (ctypes.c_ulong * _PAGES)(*range(_PAGES))
        self.call("domain_max_vcpus", domid, 1)
        self.call("domain_setmaxmem", domid, ctypes.c_uint64(4 * _PAGES + 1024))
        self.call("set_paging_mempool_size", domid, ctypes.c_uint64(4 << 20))
        self.call("domain_populate_physmap_exact", domid, ctypes.c_ulong(_PAGES), 0, 0, frames)

    def log_dirty(self, domid, on):
        """Switch stock log-dirty mode, as a migration does; return 0 or errno."""
        failed = self._lib.xc_shadow_control(self._xch, domid, 2 if on else 0, None, 0)
        return ctypes.get_errno() if failed else 0


def say(what, answer):
    print("REFUSALS", json.dumps([what, answer]), flush=True)


def ask(what, domid):
    """Try to log a domain, and report the result."""
    try:
        with PmlLog(domid, LogOptions(slots=4, harvest="accessed")) as log:
            closed = log.close_round()
        say(what, f"logged: {closed['dirty_pages']} pages dirty, rc 0")
    except XenError as error:
        say(what, str(error))


def kinds():
    raw = Raw()
    pv = raw.create(0)
    ask("PV", pv)
    hvm = raw.create(_HVM | _HAP, _EMULATE_ALL)
    ask("no vCPUs", hvm)
    raw.populate(hvm)
    ask("HVM", hvm)
    shadow = raw.create(_HVM, _EMULATE_ALL)
    raw.populate(shadow)
    ask("shadow", shadow)
    for domid in (pv, hvm, shadow):
        raw.call("domain_destroy", domid)


def migrating(domid):
    raw = Raw()
    say("stock on", raw.log_dirty(domid, True))
    ask("migrating", domid)
    say("stock off", raw.log_dirty(domid, False))
    with PmlLog(domid, LogOptions(slots=4)) as log:
        say("stock while logged", raw.log_dirty(domid, True))
        log.close_round()
    ask("afterwards", domid)


def dying(name, domid):
    with PmlLog(domid, LogOptions(slots=4)) as log:
        log.close_round()
        done = subprocess.run(["xl", "destroy", name], capture_output=True, text=True)
        say("destroy", done.returncode)
        time.sleep(0.2)
        ask("dying", domid)
        say("records left", sum(1 for _ in log.read()))


def main(what, *words):
    if what == "kinds":
        kinds()
    elif what == "migrating":
        migrating(int(words[0]))
    else:
        dying(words[0], int(words[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
