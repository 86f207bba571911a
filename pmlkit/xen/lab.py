# SPDX-License-Identifier: Apache-2.0
"""The lab: rounds in step with the guest's own, or by marks on its console; its mailbox."""

from __future__ import annotations

import contextlib
import struct
import time
from typing import TYPE_CHECKING

from pmlkit.errors import GuestError
from pmlkit.xen import frames
from pmlkit.xen.binding import check, ffi, library
from pmlkit.xen.collector import Period
from pmlkit.xen.frames import Frame

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from pmlkit.spool import SpoolWriter
    from pmlkit.types import PathLike
    from pmlkit.xen.collector import Collector, Source
    from pmlkit.xen.job import Job


_POLL_S = 0.01


class LabPeriod(Period):
    """Rounds by the clock; the guest's console is copied, and its marks may end a round."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.period_s)
        self.job, self.console = job, Console(job.console)
        self._late = False  # a mark was read while a round was being closed

    def begin(self) -> None:
        """Wait for the console line with which the work starts."""
        end = time.monotonic() + self.job.limit_s
        while start := self.job.wait_for:
            if any(line.startswith(start) for line in self.console.lines(keep=True)):
                return
            if time.monotonic() > end:
                raise GuestError(f"its console did not print {start!r}", hint="see its console")
            time.sleep(_POLL_S)

    def meanwhile(self, collector: Collector, source: Source, writer: SpoolWriter) -> bool:
        """Append new console lines to the spool; return whether one of them ends the round."""
        phase, self._late = self._late, False
        for line in self.console.lines():
            writer.append(Frame.CONSOLE, frames.pack_json(line=line, ns=source.now_ns()))
            phase |= self.job.phase_rounds and line.startswith("phase ")
            if self.job.stop_at and line.startswith(self.job.stop_at):
                self.ended = True
        return phase

    def closed(self, collector: Collector, source: Source, writer: SpoolWriter) -> None:
        """Read the console again: a mark now ends the round that has just begun."""
        self._late = self.meanwhile(collector, source, writer)
        if self.ended:
            collector.stop.end("asked", "the guest's work is done")


class Lockstep(LabPeriod):
    """One round of the guest in each round of the log."""

    def __init__(self, job: Job, box: Mailbox) -> None:
        super().__init__(job)
        self.box = box

    def round(self, collector: Collector, source: Source, writer: SpoolWriter) -> None:
        """Let the guest run one round."""

        def meanwhile() -> None:
            source.drain(writer)
            if collector.stop:
                raise _Ended

        with contextlib.suppress(_Ended):
            self.box.run(collector.closed + 1, self.job.limit_s, meanwhile)


class _Ended(Exception):
    """The guest will not finish its round."""


class Console:
    """A growing file, line by line."""

    def __init__(self, path: PathLike) -> None:
        self._path, self._at = path, 0
        self._kept: list[str] = []

    def lines(self, keep: bool = False) -> list[str]:
        """Return the new lines; with `keep` the next call returns them again."""
        fresh, self._kept = self._kept, []
        try:
            with open(self._path, "rb") as file:
                file.seek(self._at)
                data = file.read()
        except OSError:
            data = b""
        # The guest may still be writing the last line.
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        fresh = [*fresh, *(line.strip() for line in whole.decode(errors="replace").splitlines())]
        if keep:
            self._kept = fresh
        return fresh


# ------------------------------------------------------------------------------
# The mailbox of bare-metal guests (hypervisor-patches/lab/kit/kit.h), seen from dom0.


GFN = 512
MAGIC = 0x4B4C4D50
FREE_RUN = 0xFFFFFFFF
_MAILBOX_POLL_S = 0.001
_READ_WRITE = 3
_MEASURED = 3 + 16  # index of the measured numbers in kit_mailbox


class Mailbox:
    """Starts rounds of a guest and waits for their end. A context manager."""

    def __init__(self, domid: int) -> None:
        self._lib, cffi = library("xenforeignmemory"), ffi()
        opened = self._lib.xenforeignmemory_open(cffi.NULL, 0)
        self._handle = check(opened, "xenforeignmemory_open")
        frames, errors = cffi.new("unsigned long[1]", [GFN]), cffi.new("int[1]")
        page = self._lib.xenforeignmemory_map(self._handle, domid, _READ_WRITE, 1, frames, errors)
        self._page = check(page, "xenforeignmemory_map")
        self._view = cffi.buffer(page, 4096)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lib.xenforeignmemory_unmap(self._handle, self._page, 1)
        self._lib.xenforeignmemory_close(self._handle)

    def _word(self, index: int) -> int:
        return struct.unpack_from("<I", self._view, 4 * index)[0]

    def wait_ready(self, limit_s: float) -> None:
        """Wait until the guest is ready.

        Raises
        ------
        GuestError
            If it is not ready after `limit_s` seconds of dom0's time.
        """
        self._wait(lambda: self._word(0) == MAGIC, limit_s, "did not set itself up")

    def run(
        self, round_number: int, limit_s: float, meanwhile: Callable[[], object] = lambda: None
    ) -> None:
        """Let all vCPUs run one round and wait for it; `meanwhile` is called every millisecond."""
        struct.pack_into("<I", self._view, 8, round_number)
        vcpus = self._word(1)

        def done() -> bool:
            meanwhile()
            return all(self._word(3 + vcpu) == round_number for vcpu in range(vcpus))

        self._wait(done, limit_s, f"did not finish round {round_number}")

    def measured(self, count: int) -> list[int]:
        """Return the first numbers that the guest measured in its last round."""
        return [self._word(_MEASURED + i) for i in range(count)]

    def free_run(self) -> None:
        """Let the guest run round after round."""
        struct.pack_into("<I", self._view, 8, FREE_RUN)

    def _wait(self, done: Callable[[], bool], limit_s: float, what: str) -> None:
        end = time.monotonic() + limit_s
        while not done():
            if time.monotonic() > end:
                raise GuestError(f"it {what} within {limit_s:g} s")
            time.sleep(_MAILBOX_POLL_S)
