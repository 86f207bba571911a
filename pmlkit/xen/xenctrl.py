# SPDX-License-Identifier: Apache-2.0
"""libxenctrl, whose ABI changes with each Xen; no other module calls it.

The library of the running Xen is chosen by name and tested before its first use. It must be able to
call this Xen, whose domctl interface has a version. A domain's information must begin as expected,
and a hypercall buffer must have the declared layout. Differences between versions are detected by
the presence of a function, not by version numbers.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pmlkit.xen.binding import XenError, check, ffi, library

if TYPE_CHECKING:
    from typing import Self

    from pmlkit.xen.binding import CData, CLibrary


_OP_OFF, _OP_ENABLE_LOGDIRTY, _OP_CLEAN, _OP_PEEK = 0, 2, 11, 12
_INFO_BYTES = 4096  # larger than every struct xen_domctl_getdomaininfo
_DYING, _SHUTDOWN, _PAUSED, _REASON = 1 << 0, 1 << 2, 1 << 3, 16
SHUTDOWNS = {0: "poweroff", 1: "reboot", 2: "suspend", 3: "crash", 4: "watchdog", 5: "soft reset"}
_OTHER_TOOLS = "install the tools of the running Xen (their versions must agree)"


@dataclass(frozen=True)
class DomainState:
    """State of a domain.

    Attributes
    ----------
    domid : int
    dying, paused : bool
    shutdown : str or None
        Reason of a shutdown (`SHUTDOWNS`).
    """

    domid: int
    dying: bool
    paused: bool
    shutdown: str | None = None


class Control:
    """An open libxenctrl, tested. A context manager.

    Raises
    ------
    MissingLibrary, XenError
        If none fits the running Xen.
    """

    def __init__(self) -> None:
        self._lib, self._ffi = library("xenctrl"), ffi()
        opened = self._lib.xc_interface_open(self._ffi.NULL, self._ffi.NULL, 0)
        self._xch = check(opened, "xc_interface_open")
        try:
            self._test()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the handle; idempotent."""
        xch, self._xch = self._xch, None
        if xch is not None:
            self._lib.xc_interface_close(xch)

    def _test(self) -> None:
        try:
            known = self.state(0) is not None
        except XenError as error:
            if error.errno in (errno.EACCES, errno.ENOSYS):
                why = "libxenctrl is of another version than Xen"
                raise XenError("libxenctrl", error.errno, why, hint=_OTHER_TOOLS) from error
            raise
        buffer, bits = self.buffer(1)
        # Memory for hypercalls consists of whole pages. With another layout, this value would
        # differ.
        fits = int(self._ffi.cast("uintptr_t", buffer.hbuf)) % 4096 == 0 and buffer.hbuf == bits
        self.free(buffer, 1)
        if not (known and fits):
            raise XenError("libxenctrl", errno.EPROTO, "its structures differ from the known ones")

    def state(self, domid: int) -> DomainState | None:
        """Return the `DomainState` of a domain; None if the domain does not exist."""
        info = self._ffi.new("uint32_t[]", _INFO_BYTES // 4)
        count = check(
            self._lib.xc_domain_getinfolist(self._xch, domid, 1, info),
            "XEN_SYSCTL_getdomaininfolist",
            domid,
        )
        # Xen gives the first domain with this id or a higher one.
        if not count or info[0] & 0xFFFF != domid:
            return None
        flags = info[1]
        why = SHUTDOWNS.get(flags >> _REASON & 0xFF, "unknown") if flags & _SHUTDOWN else None
        return DomainState(domid, bool(flags & _DYING), bool(flags & _PAUSED), why)

    def unpause(self, domid: int) -> None:
        """Start a paused domain."""
        check(self._lib.xc_domain_unpause(self._xch, domid), "xc_domain_unpause", domid)

    def maximum_gpfn(self, domid: int) -> int:
        """Return the highest frame number of a domain."""
        last = self._ffi.new("unsigned long *")
        done = self._lib.xc_domain_maximum_gpfn(self._xch, domid, last)
        check(done, "xc_domain_maximum_gpfn", domid)
        return last[0]

    def buffer(self, pages: int) -> tuple[CData, CData]:
        """Allocate a buffer for hypercalls; returns it and the memory, `pages` of 4096 bytes."""
        buffer = self._ffi.new("xc_hypercall_buffer_t *")
        got = self._lib.xc__hypercall_buffer_alloc_pages(self._xch, buffer, pages)
        return buffer, check(got, "xc_hypercall_buffer_alloc_pages")

    def free(self, buffer: CData, pages: int) -> None:
        """Free a buffer from `buffer`."""
        self._lib.xc__hypercall_buffer_free_pages(self._xch, buffer, pages)

    def log_dirty(self, domid: int, on: bool) -> None:
        """Switch a domain's log-dirty mode on or off."""
        operation = _OP_ENABLE_LOGDIRTY if on else _OP_OFF
        check(self._shadow(domid, operation), f"log-dirty {'on' if on else 'off'}", domid)

    def clean(self, domid: int, buffer: CData, pages: int) -> tuple[int, int]:
        """Read a domain's log-dirty bitmap into a buffer and clear it.

        Returns
        -------
        (int, int)
            Write faults since the previous call, and the number of dirty pages.
        """
        stats = self._ffi.new("xc_shadow_op_stats_t *")
        done = self._log(domid, _OP_CLEAN, buffer, pages, stats)
        check(done, "XEN_DOMCTL_SHADOW_OP_CLEAN", domid)
        return stats.fault_count, stats.dirty_count

    def _shadow(self, domid: int, operation: int) -> int:
        null = self._ffi.NULL
        if _has_logdirty_control(self._lib):
            return self._lib.xc_shadow_control(self._xch, domid, operation, null, 0)
        return self._old()(self._xch, domid, operation, null, 0, null, 0, null)

    def _log(self, domid: int, operation: int, buffer: CData, pages: int, stats: CData) -> int:
        if _has_logdirty_control(self._lib):
            control = self._lib.xc_logdirty_control
            return control(self._xch, domid, operation, buffer, pages, 0, stats)
        null = self._ffi.NULL
        return self._old()(self._xch, domid, operation, buffer, pages, null, 0, stats)

    def _old(self) -> CData:
        function = self._ffi.addressof(self._lib, "xc_shadow_control")
        return self._ffi.cast("xc_shadow_control_4_15", function)


@cache
def _has_logdirty_control(lib: CLibrary) -> bool:
    return hasattr(lib, "xc_logdirty_control")


def save_helper_of(domid: int) -> int | None:
    """Return the process id of libxl's process that saves or migrates a domain, or None.

    While it runs, it owns log-dirty mode and needs every bit of the bitmap. Processes that can no
    longer become a helper are cached, because this function runs in every round.
    """
    there = [name for name in os.listdir("/proc") if name.isdigit()]
    _others.intersection_update(there)
    for name in there:
        if name in _others:
            continue
        # In this order, because a process never reverts an exec.
        flags, words = _flags(name), _words(name)
        # libxl-save-helper --save-domain STREAM BACK-CHANNEL DOMID ...; older: no back channel
        if os.path.basename(words[0]) == b"libxl-save-helper":
            at = words.index(b"--save-domain") if b"--save-domain" in words else len(words)
            if str(domid).encode() in words[at + 2 : at + 4]:
                return int(name)
        elif flags & _PF_KTHREAD or (words != [b""] and not flags & _PF_FORKNOEXEC):
            _others.add(name)
    return None


# Flags of a process, include/linux/sched.h. libxl forks a copy of itself, which becomes the helper
# by exec. A process that has not reached its exec yet is checked again until it has.
_PF_FORKNOEXEC, _PF_KTHREAD = 0x40, 0x200000
_others: set[str] = set()  # processes that can never become helpers


def _flags(pid: str) -> int:
    """Return the flags of a process (proc(5), /proc/pid/stat, field 9)."""
    stat = _read(pid, "stat")
    return int(stat[stat.rindex(b")") :].split()[7]) if stat else _PF_FORKNOEXEC


def _words(pid: str) -> list[bytes]:
    return _read(pid, "cmdline").split(b"\0")


def _read(pid: str, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:  # it has ended
        return b""
