# SPDX-License-Identifier: GPL-2.0-only
"""Hypercalls without libraries, for the lab's tests: they can be interrupted between continuations.

Xen reads the caller's structure again in each continuation. A process with the highest priority
changes the interface's version in it at a chosen moment. The continuation then fails, and the
operation stays unfinished until the same call is made again with the right version. If the version
was wrong from the start, the operation has not begun, and the same call does all of it.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import struct
import subprocess
import time
from pathlib import Path

from refusals import Raw

DOMCTL, PAGING_CONTINUATION = 36, 49
SHADOW_OP, PML_OP = 10, 1100
ENABLE, DISABLE, CLOSE, STATUS = 1, 2, 3, 4
TABLES, ACCESSED = 1, 8  # options of enabling
SCAN, GUIDED = 2, 8  # of closing
_VERSION, _HYPERCALL = 0x15, 0x305000
_PEEK = 12
_HEAD, _PML = struct.Struct("<IIH6x"), struct.Struct("<HHI")
PAGES = 1 << 20  # size of the bitmaps: up to 4 GiB, where Xen's own pages of a guest are
_LIBC = ctypes.CDLL(None, use_errno=True)


def memory(size):
    """Return (memory that Xen can read and write, its address)."""
    made = mmap.mmap(-1, size)
    at = ctypes.addressof(ctypes.c_char.from_buffer(made))
    made[:] = bytes(size)
    if _LIBC.mlock(ctypes.c_void_p(at), ctypes.c_size_t(size)):
        raise SystemExit("LAB agent: mlock failed")
    return made, at


def interruptible():
    """Let other processes run between continuations, which Debian's kernel does not by default."""
    subprocess.run(["mount", "-t", "debugfs", "none", "/sys/kernel/debug"], capture_output=True)
    Path("/sys/kernel/debug/sched/preempt").write_text("full")


class Breaker:
    """A process that prevents the continuation of a `Domctl`'s call, after a delay."""

    def __init__(self, page):
        orders, self._orders = os.pipe()
        self._done, done = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(orders), os.close(done)
            return
        os.close(self._orders)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
        with contextlib.suppress(OSError):
            while order := os.read(orders, 8):
                time.sleep(struct.unpack("<d", order)[0])
                struct.pack_into("<I", page, 4, 0)
                os.write(done, b"x")
        os._exit(0)

    def begin(self, delay_s):
        os.write(self._orders, struct.pack("<d", delay_s))

    def end(self):
        os.read(self._done, 1)

    def close(self):
        os.close(self._orders), os.close(self._done)
        os.waitpid(self.pid, 0)


class Domctl:
    """A caller of domctls. A context manager."""

    def __init__(self):
        self._privcmd = os.open("/dev/xen/privcmd", os.O_RDWR | os.O_CLOEXEC)
        self._page, self._at = memory(4096)
        self.dirty, self._dirty_at = memory(PAGES // 8)
        self.accessed, self._accessed_at = memory(PAGES // 8)
        self._breaker = Breaker(self._page)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._breaker.close()
        os.close(self._privcmd)

    def call(self, domid, command, payload, delay_s=None):
        """Make a call, which is interrupted after a delay; return 0 or an errno."""
        self._page[:256] = bytes(256)
        _HEAD.pack_into(self._page, 0, command, _VERSION, domid)
        self._page[16 : 16 + len(payload)] = payload
        if delay_s is None:
            return self._make(DOMCTL)
        self._breaker.begin(delay_s)
        result = self._make(DOMCTL)
        self._breaker.end()
        return result

    def go_on(self, number=DOMCTL):
        """Continue the interrupted call."""
        struct.pack_into("<I", self._page, 4, _VERSION)
        return self._make(number)

    def _make(self, number):
        try:
            fcntl.ioctl(self._privcmd, _HYPERCALL, struct.pack("<6Q", number, self._at, 0, 0, 0, 0))
        except OSError as error:
            return error.errno
        return 0

    def came(self, result):
        """Return when the version was changed: "before" the call, "between" pieces, or "after"."""
        if result == errno.EOPNOTSUPP:  # a continuation of an operation on log-dirty mode
            return "between"
        if result == errno.EACCES:
            return "between" if struct.unpack_from("<I", self._page, 20)[0] else "before"
        return "after"

    @property
    def refusal(self):
        return struct.unpack_from("<H", self._page, 18)[0]

    def peek(self, domid):
        """Flush the processor's buffer of stock log-dirty mode to its bitmap."""
        return self.call(domid, SHADOW_OP, struct.pack("<II", _PEEK, 0))

    def shadow_off(self, domid, delay_s=None):
        return self.call(domid, SHADOW_OP, struct.pack("<II", 0, 0), delay_s)

    def enable(self, domid, delay_s=None):
        options = struct.pack("<6I", TABLES | ACCESSED, 64, 2, 1, 0, 0)
        return self.call(domid, PML_OP, _PML.pack(ENABLE, 0, 0) + options, delay_s)

    def disable(self, domid, delay_s=None):
        return self.call(domid, PML_OP, _PML.pack(DISABLE, 0, 0), delay_s)

    def close(self, domid, delay_s=None):
        """Close a round with all options; fill the bitmaps."""
        self.dirty[:], self.accessed[:] = bytes(PAGES // 8), bytes(PAGES // 8)
        asked = struct.pack("<IIQQQ", SCAN | GUIDED, 0, self._dirty_at, self._accessed_at, PAGES)
        return self.call(domid, PML_OP, _PML.pack(CLOSE, 0, 0) + asked, delay_s)

    def state(self, domid):
        """Return the state of the log: 0 off, 1 starting, 2 logging, 3 aborted."""
        if self.call(domid, PML_OP, _PML.pack(STATUS, 0, 0)):
            return None
        return struct.unpack_from("<I", self._page, 24)[0]


class Control(Raw):
    """libxenctrl's calls of other callers on a domain; each returns 0 or an errno."""

    def ask(self, name, *words):
        function = getattr(self._lib, f"xc_{name}")
        return ctypes.get_errno() if function(self._xch, *words) < 0 else 0

    def pause(self, domid):
        return self.ask("domain_pause", domid)

    def unpause(self, domid):
        return self.ask("domain_unpause", domid)

    def destroy(self, domid):
        return self.ask("domain_destroy", domid)

    def altp2m(self, domid, on):
        return self.ask("altp2m_set_domain_state", domid, ctypes.c_bool(on))

    def access(self, domid, kind, first, pages):
        return self.ask("set_mem_access", domid, kind, ctypes.c_uint64(first), pages)

    def shadow(self, domid, operation):
        return self.ask("shadow_control", domid, operation, None, 0)

    def monitor(self, domid, port):
        """Begin to monitor the domain; return the ring, which must be unmapped at the end."""
        self._lib.xc_monitor_enable.restype = ctypes.c_void_p
        return self._lib.xc_monitor_enable(self._xch, domid, ctypes.byref(port))

    def take(self, domid, frames):
        """Remove pages of the domain; return 0 or an errno."""
        names = (ctypes.c_ulong * len(frames))(*frames)
        extents = ctypes.c_ulong(len(frames))
        return self.ask("domain_decrease_reservation_exact", domid, extents, 0, names)

    def give(self, domid, frames):
        names = (ctypes.c_ulong * len(frames))(*frames)
        extents = ctypes.c_ulong(len(frames))
        return self.ask("domain_populate_physmap_exact", domid, extents, 0, 0, names)
