# SPDX-License-Identifier: Apache-2.0
"""Stock log-dirty, which live migration uses, on any Xen.

A domain has one log-dirty mode and one bitmap, shared by all users. Live migration
(libxl-save-helper) switches the mode off and on, sends all pages, and then sends those in the
bitmap. If we removed a page from the bitmap, it would never be sent again: the domain would
continue with old contents. We therefore look for the helper before we clear the bitmap or switch
the mode off, and once more afterwards. The helper starts before it changes the mode, and lives
until the last page is sent. If it has started in between, we restore the pages and the mode, and
leave both to it. One gap remains: a migration that begins and reads its last bitmap between these
two checks, which are milliseconds apart. The helpers of toolstacks other than libxl have other
names, and are not detected.
"""

from __future__ import annotations

import contextlib
import errno
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from pmlkit.errors import UsageError
from pmlkit.xen import frames
from pmlkit.xen.binding import XenError, check, ffi, library
from pmlkit.xen.frames import Frame
from pmlkit.xen.xenctrl import Control, save_helper_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from pmlkit.spool import SpoolWriter
    from pmlkit.types import Json
    from pmlkit.xen.job import Job


_WRITTEN = re.compile(rb"[^\0]+")


class Cleaned(NamedTuple):
    """A round's bitmap (a buffer that the next one overwrites; least significant bit first).

    With the write faults taken, the pages that are dirty, and when the call began and ended.
    """

    bits: memoryview
    faults: int
    dirty_pages: int
    began_ns: int
    ended_ns: int


class LogDirty:
    """A domain's log-dirty mode: on from the start until it is closed. A context manager.

    Attributes
    ----------
    pages : int
        Frames that a bitmap covers.
    taken_over : bool
        Whether a migration has begun, which then owns the bitmap.

    Raises
    ------
    MissingLibrary, XenError
    """

    def __init__(self, domid: int) -> None:
        self.domid, self._n, self.taken_over = domid, 0, False
        self._control, self._open = Control(), True
        try:
            self.pages = self._control.maximum_gpfn(domid) + 1
            # Pages of the bitmap: each holds the bits of 32768 frames.
            self._n = -(-self.pages // 32768)
            self._buffer, self._bits = self._control.buffer(self._n)
            self._control.log_dirty(domid, True)
        except BaseException:
            self._free()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close_round(self) -> Cleaned:
        """Read and clear the bitmap. Call it only while no migration uses the mode."""
        view = ffi().buffer(self._bits, self._n * 4096)
        ffi().memmove(view, bytes(len(view)), len(view))
        began = time.monotonic_ns()
        faults, dirty = self._control.clean(self.domid, self._buffer, self.pages)
        ended = time.monotonic_ns()
        bits = memoryview(view)[: -(-self.pages // 8)]
        if save_helper_of(self.domid) is not None:
            self.taken_over = True
            # Whole bytes of the bitmap: a page may be sent twice.
            spans = [(8 * piece.start(), 8 * piece.end()) for piece in _WRITTEN.finditer(bits)]
            mark_dirty(self.domid, [(a, min(b, self.pages) - a) for a, b in spans])
        return Cleaned(bits, faults, dirty, began, ended)

    def close(self) -> None:
        """Switch the mode off, unless a migration has taken it over; idempotent."""
        if not self._open:
            return
        try:
            if not self.taken_over:
                switch_off(self._control, self.domid)
        except XenError as error:
            if error.errno != errno.ESRCH:  # a domain that is gone has no log-dirty mode
                raise
        finally:
            self._free()

    def _free(self) -> None:
        if self._open:
            self._open = False
            if hasattr(self, "_buffer"):
                self._control.free(self._buffer, self._n)
            self._control.close()


def switch_off(control: Control, domid: int) -> bool:
    """Switch log-dirty mode off unless a migration uses it; returns whether it was switched off."""
    if save_helper_of(domid) is not None:
        return False
    control.log_dirty(domid, False)
    if save_helper_of(domid) is None:
        return True
    with contextlib.suppress(XenError):  # a migration may have switched it on meanwhile
        control.log_dirty(domid, True)
    mark_dirty(domid, [(0, control.maximum_gpfn(domid) + 1)])
    return False


def mark_dirty(domid: int, spans: Iterable[tuple[int, int]]) -> None:
    """Set pages in a domain's log-dirty bitmap.

    Parameters
    ----------
    spans : iterable of (int, int)
        First frame and number of frames of each range; none beyond the domain's last frame.

    Raises
    ------
    MissingLibrary, XenError
    """
    lib = library("xendevicemodel")
    handle = check(lib.xendevicemodel_open(ffi().NULL, 0), "xendevicemodel_open")
    try:
        for first, count in spans:
            done = lib.xendevicemodel_modified_memory(handle, domid, first, count)
            check(done, "XEN_DMOP_modified_memory", domid)
    finally:
        lib.xendevicemodel_close(handle)


# ------------------------------------------------------------------------------
# Rounds of log-dirty mode: the distinct pages of each, into a spool.


class Unpatched:
    """A `collector.Source` for stock log-dirty. A context manager; its end switches the mode off.

    Raises
    ------
    UsageError
        If the job needs the patched Xen.
    """

    mode = "stock"

    def __init__(self, job: Job, domid: int) -> None:
        if job.free or job.harvest:
            what = "a log without rounds" if job.free else "a harvest of accessed flags"
            raise UsageError(f"stock log-dirty does not support {what}: use the patched Xen")
        self._log = LogDirty(domid)
        self._log.close_round()  # so that the first round starts clean
        self._started = time.monotonic_ns()
        self._last = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()

    def facts(self) -> Json:
        return {"clock": "dom0", "pages": self._log.pages, "vcpus": 1}

    def mark(self) -> Json:
        return {}

    def now_ns(self) -> int:
        return time.monotonic_ns() - self._started

    def drain(self, writer: SpoolWriter) -> float:
        """Do nothing: the bitmap is read when the round is closed."""
        return 0.0

    def close_round(self, writer: SpoolWriter, number: int, **more: object) -> Json:
        log = self._log.close_round()
        end_ns = log.ended_ns - self._started
        closed = {"round": number, "t_start_ns": self._last, "t_end_ns": end_ns}
        closed |= {"pause_ns": log.ended_ns - log.began_ns}
        closed |= {"faults": log.faults, "dirty_pages": log.dirty_pages}
        for parts in frames.bitmap_pieces(number, log.bits):
            writer.append(Frame.DIRTY, *parts)
        writer.append(Frame.ROUND, frames.pack_json(**closed, **more))
        self._last = end_ns
        return closed

    def finish(self, writer: SpoolWriter) -> Json:
        self._log.close()
        return {}

    def rest(self, writer: SpoolWriter) -> Json:
        """Return nothing: a destroyed domain has no bitmap."""
        return {}

    @property
    def taken_over(self) -> bool:
        return self._log.taken_over
