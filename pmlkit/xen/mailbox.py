# SPDX-License-Identifier: Apache-2.0
"""The mailbox of the lab's bare-metal guests (hypervisor-patches/lab/kit/kit.h), seen from dom0."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

from pmlkit.errors import GuestError
from pmlkit.xen.binding import check, ffi, library

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


GFN = 512
MAGIC = 0x4B4C4D50
FREE_RUN = 0xFFFFFFFF
_POLL_S = 0.001
_READ_WRITE = 3


class Mailbox:
    """Starts rounds of a guest and waits for their end. A context manager."""

    def __init__(self, domid: int) -> None:
        self._lib, made = library("xenforeignmemory"), ffi()
        opened = self._lib.xenforeignmemory_open(made.NULL, 0)
        self._handle = check(opened, "xenforeignmemory_open")
        frames, errors = made.new("unsigned long[1]", [GFN]), made.new("int[1]")
        page = self._lib.xenforeignmemory_map(self._handle, domid, _READ_WRITE, 1, frames, errors)
        self._page = check(page, "xenforeignmemory_map")
        self._view = made.buffer(page, 4096)

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
            If it has not after `limit_s` seconds of dom0's time.
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

    def free_run(self) -> None:
        """Let the guest run round after round."""
        struct.pack_into("<I", self._view, 8, FREE_RUN)

    def _wait(self, done: Callable[[], bool], limit_s: float, what: str) -> None:
        end = time.monotonic() + limit_s
        while not done():
            if time.monotonic() > end:
                raise GuestError(f"it {what} within {limit_s:g} s")
            time.sleep(_POLL_S)
