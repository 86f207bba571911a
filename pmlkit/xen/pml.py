# SPDX-License-Identifier: Apache-2.0
"""The PML log of a domain, from a patched Xen (libxenpml)."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from pmlkit import signals
from pmlkit.xen import frames
from pmlkit.xen.binding import MissingLibrary, XenError, check, ffi, library
from pmlkit.xen.frames import RECORDS_HEAD, TOUCHED_HEAD, Frame
from pmlkit.xen.job import PAGE_TABLES, REARM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

    from pmlkit.spool import SpoolWriter
    from pmlkit.types import Json
    from pmlkit.xen.binding import CData
    from pmlkit.xen.job import Job, LogOptions

    Take = Callable[[Sequence[CData], tuple[bytes, bytes]], object]


OPTION_FLAGS = {"tables": 1, "drop": 2, "snapshots": 4, "accessed": 8, "clear": 16}
_HARVEST_FLAGS = {"": (), "guided": ("tables", "accessed"), "both": ("tables", "accessed")}
REASONS = {1: "full", 2: "round", 3: "stop"}
ROUND_ACCESSED, ROUND_GUIDED, ROUND_PRUNED = 2, 8, 16
ROUND_REDRAW = 32  # a new sample in each round
ROUND_SAMPLE_SHIFT = 8  # position of the sample's power of two
TYPE_LOG, TYPE_TABLES = 1, 2
STATE_LOGGING, STATE_BROKEN = 2, 3  # the log was aborted and can only be disabled
NOT_PATCHED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY)
_BATCH = 128  # records read into one frame: 540 KB
_HINT = "the domain must be an HVM or PVH guest without assigned devices: see the series' README"
# Hints for XENPML_REFUSED_MEMORY and _POOL.
_HINTS = dict.fromkeys(
    (14, 15), "`xl info` shows Xen's free memory, `xl log-dirty-status` the memory of logs"
)
# Reasons and hints for errors of a closing that have no XENPML_REFUSED_*.
_CLOSING = {
    errno.ENOENT: ("another program has switched the log off", "record the domain again"),
    errno.ETIME: (
        "an operation on the log was broken off",
        "run `xl disable-log-dirty`, then record the domain again",
    ),
}


class Handle:
    """An open libxenpml, for one domain. A context manager.

    Raises
    ------
    MissingLibrary, XenError
        If the library is missing, or the call is not permitted.
    """

    def __init__(self, domid: int) -> None:
        self.domid = domid
        self._lib, self._ffi = library("xenpml"), ffi()
        self._h = check(self._lib.xenpml_open(self._ffi.NULL, 0), "xenpml_open")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def status(self) -> dict[str, int]:
        """Return ``struct xenpml_status`` as a dict."""
        status = self._ffi.new("struct xenpml_status *")
        done = self._lib.xenpml_get_status(self._h, self.domid, status)
        check(done, "XEN_DOMCTL_pml_status", self.domid)
        return self._values(status, "struct xenpml_status")

    def vcpu_status(self, vcpu: int) -> dict[str, int]:
        """Return ``struct xenpml_vcpu_status`` of a vCPU as a dict, whichever process logs it."""
        status = self._ffi.new("struct xenpml_vcpu_status *")
        done = self._lib.xenpml_get_vcpu_status(self._h, self.domid, vcpu, status)
        check(done, "XEN_DOMCTL_pml_vcpu_status", self.domid)
        return self._values(status, "struct xenpml_vcpu_status")

    def disable(self) -> None:
        """Stop logging; mapped rings can still be read."""
        done = self._lib.xenpml_disable(self._h, self.domid)
        check(done, "XEN_DOMCTL_pml_disable", self.domid)

    def close(self) -> None:
        """Close the handle; idempotent."""
        handle, self._h = self._h, None
        if handle is not None:
            self._lib.xenpml_close(handle)

    def _values(self, struct: CData, kind: str) -> dict[str, int]:
        fields = self._ffi.typeof(kind).fields
        values = {name: getattr(struct, name) for name, _ in fields}
        return {n: v for n, v in values.items() if isinstance(v, int)}


def available(domid: int = 0) -> bool:
    """Whether this Xen has the patched interface, determined by a call, not by its version."""
    try:
        with Handle(domid) as handle:
            handle.status()
    except MissingLibrary:
        return False
    except XenError as error:
        if error.errno in NOT_PATCHED:
            return False
        raise
    return True


class PmlLog(Handle):
    """A domain's PML log: on from the start until it is closed. A context manager.

    Attributes
    ----------
    vcpus : int
        Number of rings, one per vCPU.
    """

    def __init__(self, domid: int, options: LogOptions) -> None:
        super().__init__(domid)
        self.options, self.on = options, False
        self._logs: list[CData] = []
        self._bits: dict[str, CData] = {}
        try:
            self._enable()
            self._map()
        except BaseException:
            self.close()
            raise
        self._records = self._ffi.new("struct xenpml_record[]", _BATCH)
        self._each = [self._records + i for i in range(_BATCH)]
        self._bytes = memoryview(self._ffi.buffer(self._records)).cast("B")

    def _enable(self) -> None:
        o, refusal = self.options, self._ffi.new("uint32_t *")
        flags = {*PAGE_TABLES[o.page_tables], *_HARVEST_FLAGS.get(o.harvest, ("accessed",))}
        rearm = "flush" if o.free else o.rearm
        wanted = {
            "flags": sum(OPTION_FLAGS[name] for name in flags),
            "slots": o.slots,
            "buffers": o.buffers,
            "rearm": REARM.index(rearm),  # XEN_PML_REARM_*
            "rearm_every": o.rearm_every if rearm == "flush" else 0,
        }
        asked = self._ffi.new("struct xenpml_options *", wanted)
        # A signal during this long call must not end the process: logging would stay on.
        with signals.held():
            self.on = self._lib.xenpml_enable(self._h, self.domid, asked, refusal) >= 0
            number = self._ffi.errno
        if not self.on:
            raise self._refused("the PML log", number, refusal[0])

    def _refused(self, call: str, number: int, refusal: int) -> XenError:
        """Make the error of a call, with Xen's reason if it gives one (`refusal`, or 0)."""
        if not refusal:
            return XenError(call, number, "", self.domid)
        why = self._ffi.string(self._lib.xenpml_refusal_text(refusal)).decode()
        return XenError(call, number, why, self.domid, _HINTS.get(refusal, _HINT))

    def _map(self) -> None:
        self.vcpus = self.status()["vcpus"]
        for vcpu in range(self.vcpus):
            log = self._lib.xenpml_log_map(self._h, self.domid, vcpu)
            self._logs.append(check(log, "XENMEM_resource_pml_log", self.domid))

    def record_layout(self) -> tuple[list[list[str | int]], int]:
        """Return the fields of a record's head ([name, offset, bytes] each) and its size."""
        kind = self._ffi.typeof("struct xenpml_record")
        fields = [
            [name, f.offset, self._ffi.sizeof(f.type)] for name, f in kind.fields if name != "data"
        ]
        return fields, self._ffi.offsetof(kind, "data")

    def drain(self, vcpu: int, take: Take) -> int:
        """Read the new records of a vCPU; returns their number.

        A call reads little more than a ring's records: a vCPU that writes quickly must not delay
        the others.

        Parameters
        ----------
        take : callable
            Called with ``(records, parts)``: a list of records (cffi structs, theirs until it
            returns) and the payload of a RECORDS frame in parts.
        """
        log, read, total = self._logs[vcpu], self._lib.xenpml_log_read, 0
        while total < self.options.slots:
            count, got = 0, 1
            while count < _BATCH:
                got = read(log, self._each[count])
                if got != 1:
                    break
                count += 1
            if count:
                # Before an error is raised: the ring no longer contains these records.
                take(self._each[:count], self._payload(count))
                total += count
            if got < 0:
                check(got, "xenpml_log_read", self.domid)
            if count < _BATCH:
                break
        return total

    def _payload(self, count: int) -> tuple[bytes, bytes]:
        """Join the heads of records, and their data (one copy, in C)."""
        view, size = self._bytes, len(self._bytes) // _BATCH
        head = self._ffi.offsetof("struct xenpml_record", "data")
        # Heads and data apart: readers view all heads as one array.
        heads: list[bytes | memoryview] = [RECORDS_HEAD.pack(count)]
        data: list[memoryview] = []
        for i in range(count):
            start = i * size
            heads.append(view[start : start + head])
            data.append(view[start + head : start + head + 8 * self._each[i].count])
        return b"".join(heads), b"".join(data)

    def read(self) -> Iterator[Json]:
        """Yield the new records, vCPU by vCPU: dicts with `data` as bytes."""
        fresh: list[Json] = []

        def take(records: Sequence[CData], _: object) -> None:
            for record in records:
                values = self._values(record, "struct xenpml_record")
                data = bytes(self._ffi.buffer(record.data, 8 * record.count))
                fresh.append({**values, "data": data})

        for vcpu in range(self.vcpus):
            self.drain(vcpu, take)
            yield from fresh
            fresh.clear()

    def close_round(self, flags: int = 0, dirty: bool = True) -> Json:
        """End a round.

        Parameters
        ----------
        flags : int
            ``ROUND_*``.
        dirty : bool
            Whether to return the log-dirty bitmap.

        Returns
        -------
        dict
            The fields of ``struct xenpml_round``; `dirty`, `accessed` and `touched` (words, 8
            bytes each) as buffers, valid until the next round is closed, or None.
        """
        cffi, pages = self._ffi, self.status()["bitmap_pages"]
        size = pages // 8
        wanted = {"dirty": dirty, "accessed": bool(flags & ROUND_ACCESSED)}
        bits = {n: self._buffer(n, size) if w else cffi.NULL for n, w in wanted.items()}
        closed = cffi.new("struct xenpml_round *", {"flags": flags, "pages": pages, **bits})
        if self._lib.xenpml_close_round(self._h, self.domid, closed) < 0:
            call, number = "XEN_DOMCTL_pml_close_round", self._ffi.errno
            if number in _CLOSING:
                why, hint = _CLOSING[number]
                raise XenError(call, number, why, self.domid, hint)
            raise self._refused(call, number, closed.refusal)
        values: Json = {**self._values(closed, "struct xenpml_round")}
        for name in wanted:
            values[name] = cffi.buffer(bits[name], size) if wanted[name] else None
        values["touched"] = None
        if flags & ROUND_GUIDED:
            count = closed.touched_count
            values["touched"] = cffi.buffer(closed.touched, 8 * count) if count else b""
        return values

    def _buffer(self, name: str, size: int) -> CData:
        if len(self._bits.get(name, b"")) != size:
            self._bits[name] = self._ffi.new("char[]", size)
        return self._bits[name]

    def log_info(self, vcpu: int) -> dict[str, int]:
        """Return ``struct xenpml_log_info`` of a vCPU as a dict."""
        status = self._ffi.new("struct xenpml_log_info *")
        done = self._lib.xenpml_log_get_info(self._logs[vcpu], status)
        check(done, "xenpml_log_get_info", self.domid)
        return self._values(status, "struct xenpml_log_info")

    def disable(self) -> None:
        """Stop logging; the rings can still be read."""
        with signals.held():
            self.on = False
            super().disable()

    def close(self) -> None:
        """Stop logging and unmap the rings; idempotent."""
        if self._h is None:
            return
        with signals.held():
            if self.on:
                self.on = False
                self._lib.xenpml_disable(self._h, self.domid)
        logs, self._logs = self._logs, []
        for log in logs:
            self._lib.xenpml_log_unmap(log)
        super().close()


# ------------------------------------------------------------------------------
# Rounds of the log, into a spool.


HARVEST_FLAGS = {
    "": 0,
    "accessed": ROUND_ACCESSED,
    "guided": ROUND_GUIDED,
    "both": ROUND_GUIDED | ROUND_ACCESSED,
    "pruned": ROUND_ACCESSED | ROUND_PRUNED,
    "sampled": ROUND_ACCESSED | ROUND_PRUNED,
}


class Patched:
    """A `collector.Source` for the patched interface: a context manager that ends the logging."""

    mode = "pml"
    taken_over = False  # Xen refuses to migrate a domain that is logged

    def __init__(self, job: Job, domid: int) -> None:
        self._job = job
        self._flags = HARVEST_FLAGS[job.harvest]
        if job.harvest == "sampled":
            self._flags |= (job.one_in.bit_length() - 1) << ROUND_SAMPLE_SHIFT
            self._flags |= ROUND_REDRAW if job.draw == "round" else 0
        self._log = PmlLog(domid, job)
        self._started = time.monotonic_ns()  # the epoch of the TSC stamps, within a millisecond
        self._slots = self._log.log_info(0)["slots"]
        self._counts = _Counts()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()

    def facts(self) -> Json:
        status, info = self._log.status(), self._log.log_info(0)
        facts: Json = {name: info[name] for name in ("tsc_khz", "epoch_tsc", "epoch_ns", "slots")}
        facts |= {"clock": "tsc", "pages": status["max_gfn"] + 1, "vcpus": self._log.vcpus}
        facts["record"], facts["head_bytes"] = self._log.record_layout()
        return facts

    def mark(self) -> Json:
        return {"generation": self._log.status()["generation"]}

    def now_ns(self) -> int:
        return time.monotonic_ns() - self._started

    def drain(self, writer: SpoolWriter) -> float:
        fill = 0.0

        def take(records: Sequence[CData], payload: tuple[bytes, bytes]) -> None:
            writer.append(Frame.RECORDS, *payload)
            self._counts.add(records)

        for vcpu in range(self._log.vcpus):
            fill = max(fill, self._log.drain(vcpu, take) / self._slots)
        self._counts.fill = max(self._counts.fill, fill)
        return fill

    def close_round(self, writer: SpoolWriter, number: int, **more: object) -> Json:
        """End a round; of a `free` collection: append a mark of the time."""
        if self._job.free:
            self.drain(writer)
            closed: Json = {"round": number, "tick": True, "t_ns": self.now_ns()}
        else:
            closed = self._close(writer, number)
        closed["vcpus"] = [self._log.vcpu_status(v) for v in range(self._log.vcpus)]
        closed["seen"] = self._counts.take()
        writer.append(Frame.ROUND, frames.pack_json(**closed, **more))
        return closed

    def _close(self, writer: SpoolWriter, number: int) -> Json:
        due = self._flags and number % self._job.harvest_every == self._job.harvest_every - 1
        closed = self._log.close_round(self._flags if due else 0, dirty=self._job.bitmaps)
        # The rings come first, because they fill while bitmaps are written.
        self.drain(writer)
        for kind, name in ((Frame.DIRTY, "dirty"), (Frame.ACCESSED, "accessed")):
            bits = closed.pop(name)
            for parts in () if bits is None else frames.bitmap_pieces(closed["round"], bits):
                writer.append(kind, *parts)
        touched = closed.pop("touched")
        if touched is not None:
            _write_touched(writer, closed["round"], memoryview(touched))
        closed["harvest"] = self._job.harvest if due else ""
        return closed

    def finish(self, writer: SpoolWriter) -> Json:
        self._log.disable()
        return self.rest(writer)

    def rest(self, writer: SpoolWriter) -> Json:
        """Drain the rest; the rings of a destroyed domain stay mapped."""
        while self.drain(writer):
            pass
        logs = [self._log.log_info(v) for v in range(self._log.vcpus)]
        return {"logs": logs, "seen": self._counts.take()}


def _write_touched(writer: SpoolWriter, number: int, words: memoryview) -> None:
    words = words.cast("B") if len(words) else words
    for first in range(0, max(len(words), 1), frames.PIECE_BYTES):
        piece = words[first : first + frames.PIECE_BYTES]
        writer.append(Frame.TOUCHED, TOUCHED_HEAD.pack(number), piece)


class _Counts:
    """Counts since the last round, for live views."""

    def __init__(self) -> None:
        self.take()

    def add(self, records: Sequence[CData]) -> None:
        for record in records:
            if record.type == TYPE_LOG:
                self.entries += record.count
            self.lost += record.lost_entries
        self.records += len(records)

    def take(self) -> Json:
        """Return the counts and reset them."""
        names = ("entries", "lost", "records", "fill")
        counts = {name: getattr(self, name, 0) for name in names}
        self.entries = self.lost = self.records = 0
        self.fill = 0.0
        return counts
