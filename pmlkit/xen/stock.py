# SPDX-License-Identifier: Apache-2.0
"""Stock log-dirty: what live migration uses, on any Xen."""

import time

from pmlkit.xen.binding import check, ffi, library

_OP_OFF, _OP_ENABLE_LOGDIRTY, _OP_CLEAN = 0, 2, 11


class LogDirty:
    """A domain's log-dirty mode: on from the start until it is closed. A context manager.

    Parameters
    ----------
    domid : int

    Attributes
    ----------
    pages : int
        Frames that a bitmap covers.
    """

    def __init__(self, domid):
        self.domid, self._lib, self._ffi = domid, library("xenctrl"), ffi()
        opened = self._lib.xc_interface_open(self._ffi.NULL, self._ffi.NULL, 0)
        self._xch = check(opened, "xc_interface_open")
        last = self._ffi.new("unsigned long *")
        check(self._lib.xc_domain_maximum_gpfn(self._xch, domid, last), "xc_domain_maximum_gpfn")
        self.pages = last[0] + 1
        self._buffer = self._ffi.new("xc_hypercall_buffer_t *")
        self._n = -(-self.pages // 32768)
        got = self._lib.xc__hypercall_buffer_alloc_pages(self._xch, self._buffer, self._n)
        self._bits = check(got, "xc_hypercall_buffer_alloc_pages")
        self._control(_OP_ENABLE_LOGDIRTY, "log-dirty mode")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close_round(self):
        """Read and clear the bitmap.

        Returns
        -------
        tuple
            Dirty bitmap (bytes, least significant bit first), write faults taken, and the times
            (ns) at which the call began and ended.
        """
        view = self._ffi.buffer(self._bits, self._n * 4096)
        view[:] = bytes(len(view))
        stats = self._ffi.new("xc_shadow_op_stats_t *")
        began = time.monotonic_ns()
        done = self._lib.xc_logdirty_control(
            self._xch, self.domid, _OP_CLEAN, self._buffer, self.pages, 0, stats
        )
        check(done, "XEN_DOMCTL_SHADOW_OP_CLEAN")
        return bytes(view[: -(-self.pages // 8)]), stats.fault_count, began, time.monotonic_ns()

    def _control(self, operation, call):
        done = self._lib.xc_shadow_control(self._xch, self.domid, operation, self._ffi.NULL, 0)
        check(done, call)

    def close(self):
        """Switch it off. Closing twice does no harm."""
        if self._xch is None:
            return
        xch, self._xch = self._xch, None
        self._lib.xc_shadow_control(xch, self.domid, _OP_OFF, self._ffi.NULL, 0)
        self._lib.xc__hypercall_buffer_free_pages(xch, self._buffer, self._n)
        self._lib.xc_interface_close(xch)
