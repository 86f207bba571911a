# SPDX-License-Identifier: Apache-2.0
"""The PML log of a domain, from a patched Xen (libxenpml)."""

from dataclasses import dataclass, field

from pmlkit.xen.binding import XenError, check, ffi, library

OPTION_FLAGS = {"tables": 1, "drop": 2, "snapshots": 4, "accessed": 8}
REARM = {"never": 0, "round": 1, "flush": 2}
REASONS = {1: "full", 2: "round", 3: "stop"}
ROUND_REARM, ROUND_ACCESSED, ROUND_KEEP = 1, 2, 4
TYPE_LOG, TYPE_TABLES = 1, 2


@dataclass(frozen=True)
class Options:
    """How Xen is to log.

    Attributes
    ----------
    slots : int
        Records of 512 entries that a vCPU's ring holds; a power of two, 2 to 4096.
    buffers : {1, 2}
        Hardware buffers per vCPU.
    rearm : {"never", "round", "flush"}
    rearm_every : int
        With "flush": after how many drained buffers.
    flags : tuple of {"tables", "drop", "snapshots", "accessed"}
    """

    slots: int = 64
    buffers: int = 2
    rearm: str = "round"
    rearm_every: int = 1
    flags: tuple = field(default=("tables",))


class PmlLog:
    """A domain's PML log: on from the start until it is closed. A context manager."""

    def __init__(self, domid, options):
        self.domid, self.options = domid, options
        self._lib, self._ffi, self._logs = library("xenpml"), ffi(), []
        self._h = check(self._lib.xenpml_open(self._ffi.NULL, 0), "xenpml_open")
        self._enable()
        self._record = self._ffi.new("struct xenpml_record *")
        self.vcpus = self.status()["vcpus"]
        for vcpu in range(self.vcpus):
            self._logs.append(
                check(self._lib.xenpml_log_map(self._h, domid, vcpu), "xenpml_log_map")
            )
        self._bits = {}

    def _enable(self):
        o, refusal = self.options, self._ffi.new("uint32_t *")
        flags = sum(OPTION_FLAGS[name] for name in o.flags)
        wanted = {
            "flags": flags,
            "slots": o.slots,
            "buffers": o.buffers,
            "rearm": REARM[o.rearm],
            "rearm_every": o.rearm_every if o.rearm == "flush" else 0,
        }
        asked = self._ffi.new("struct xenpml_options *", wanted)
        if self._lib.xenpml_enable(self._h, self.domid, asked, refusal) < 0:
            errno = self._ffi.errno
            text = self._lib.xenpml_refusal_text(refusal[0])
            raise XenError("PML log", errno, self._ffi.string(text).decode() if text else "")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def read(self):
        """Yield the records that are new, vCPU by vCPU: dicts with `data` as bytes."""
        for log in self._logs:
            while check(self._lib.xenpml_log_read(log, self._record), "xenpml_log_read"):
                yield self._plain(self._record)

    def _plain(self, record):
        values = {n: getattr(record, n) for n, _ in self._ffi.typeof("struct xenpml_record").fields}
        values["data"] = bytes(self._ffi.buffer(record.data, record.count * 8))
        return values

    def close_round(self, flags=0, dirty=True):
        """End a round.

        Parameters
        ----------
        flags : int
            ``ROUND_*``.
        dirty : bool
            Whether the log-dirty bitmap is wanted.

        Returns
        -------
        dict
            The fields of ``struct xenpml_round``; `dirty` and `accessed` as bytes or None.
        """
        made, pages = self._ffi, -(-(self.status()["max_gfn"] + 1) // 32768) * 32768
        size = pages // 8
        wanted = {"dirty": dirty, "accessed": bool(flags & ROUND_ACCESSED)}
        bits = {n: self._buffer(n, size) if w else made.NULL for n, w in wanted.items()}
        told = made.new("struct xenpml_round *", {"flags": flags, "pages": pages, **bits})
        done = self._lib.xenpml_close_round(self._h, self.domid, told)
        check(done, "xenpml_close_round")
        values = self._values(told, "struct xenpml_round")
        for name in wanted:
            values[name] = bytes(made.buffer(bits[name], size)) if wanted[name] else None
        return values

    def _buffer(self, name, size):
        if len(self._bits.get(name, b"")) != size:
            self._bits[name] = self._ffi.new("char[]", size)
        return self._bits[name]

    def status(self):
        """Return ``struct xenpml_status`` as a dict."""
        told = self._ffi.new("struct xenpml_status *")
        done = self._lib.xenpml_get_status(self._h, self.domid, told)
        check(done, "xenpml_get_status")
        return self._values(told, "struct xenpml_status")

    def vcpu_status(self, vcpu):
        """Return ``struct xenpml_vcpu_status`` of a vCPU as a dict."""
        told = self._ffi.new("struct xenpml_vcpu_status *")
        done = self._lib.xenpml_get_vcpu_status(self._h, self.domid, vcpu, told)
        check(done, "xenpml_get_vcpu_status")
        return self._values(told, "struct xenpml_vcpu_status")

    def log_info(self, vcpu):
        """Return ``struct xenpml_log_info`` of a vCPU as a dict."""
        told = self._ffi.new("struct xenpml_log_info *")
        check(self._lib.xenpml_log_get_info(self._logs[vcpu], told), "xenpml_log_get_info")
        return self._values(told, "struct xenpml_log_info")

    def _values(self, struct, kind):
        fields = self._ffi.typeof(kind).fields
        values = {name: getattr(struct, name) for name, _ in fields}
        return {n: v for n, v in values.items() if isinstance(v, int)}

    def disable(self):
        """Stop logging; what was drained last can still be read."""
        check(self._lib.xenpml_disable(self._h, self.domid), "xenpml_disable")

    def close(self):
        """Stop logging and let go of the rings. Closing twice does no harm."""
        if self._h is None:
            return
        handle, self._h = self._h, None
        self._lib.xenpml_disable(handle, self.domid)
        for log in self._logs:
            self._lib.xenpml_log_unmap(log)
        self._lib.xenpml_close(handle)
