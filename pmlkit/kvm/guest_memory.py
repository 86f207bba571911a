# SPDX-License-Identifier: Apache-2.0
"""The guest's frames, read from the VMM's memory.

The kernel copies them (``process_vm_readv``): the VMM is not stopped, and no dirty or accessed flag
of the guest changes. Memory slots give the position of a frame in the VMM's memory.
"""

from __future__ import annotations

import ctypes
import errno
import os
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import PmlkitError
from pmlkit.kvm.find import NoRight

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pmlkit.kvm.host import Host
    from pmlkit.kvm.rounds import Slot


__all__ = ["AT_ONCE", "PAGE", "GuestMemory", "VmmGone", "memory_slots"]

PAGE = 4096
AT_ONCE = 64  # frames that one call reads; the kernel takes 1024 pieces
# Address space in a slot's number: 0 is memory, 1 the view of system management mode.
_ADDRESS_SPACE = 1 << 16


class VmmGone(PmlkitError):
    """The VMM has ended, so its memory no longer exists. Attribute: `pid`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        super().__init__(f"process {pid} has no memory any more", "has the VM ended?")


class _Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


def memory_slots(slots: dict[int, Slot]) -> list[Slot]:
    """Return the slots with the guest's memory, sorted by frame."""
    known = (slot for number, slot in slots.items() if number < _ADDRESS_SPACE)
    return sorted(known, key=lambda slot: slot.gfn)


class GuestMemory:
    """Reads frames of a guest.

    Parameters
    ----------
    pid : int
        Process id of the VMM.
    """

    def __init__(self, host: Host, pid: int) -> None:
        self.host, self.pid = host, pid
        self._buffer = ctypes.create_string_buffer(AT_ONCE * PAGE)
        self._readv = None
        if host.root == Path("/"):  # a test's host made of files has no such process
            self._readv = getattr(ctypes.CDLL(None, use_errno=True), "process_vm_readv", None)
        if self._readv is not None:
            self._readv.restype = ctypes.c_ssize_t

    def read(self, frames: Sequence[int], slots: Iterable[Slot]) -> list[bytes | None]:
        """Read frames.

        Parameters
        ----------
        slots : iterable of Slot
            Slots of the guest's memory, sorted by frame (`memory_slots`).

        Returns
        -------
        list of bytes or None
            None: the frame is in no slot, or the VMM has no memory there.

        Raises
        ------
        VmmGone, NoRight
        """
        slots = list(slots)
        firsts = [slot.gfn for slot in slots]
        found: list[bytes | None] = [None] * len(frames)
        places, addresses = [], []
        for number, frame in enumerate(frames):
            at = bisect_right(firsts, frame) - 1
            if at >= 0 and frame < slots[at].gfn + slots[at].pages:
                places.append(number)
                addresses.append(slots[at].address + (frame - slots[at].gfn) * PAGE)
        for first in range(0, len(places), AT_ONCE):
            pages = self.read_addresses(addresses[first : first + AT_ONCE])
            for place, page in zip(places[first : first + AT_ONCE], pages):  # noqa: B905 (3.9)
                found[place] = page
        return found

    def read_addresses(self, addresses: Sequence[int]) -> list[bytes | None]:
        """Read a page at each address, at most `AT_ONCE`; None if there is none."""
        if self._readv is None:
            return self._from_file(addresses)
        count = len(addresses)
        there = (_Piece * count)(*(_Piece(address, PAGE) for address in addresses))
        holes = set()
        first = 0
        while first < count:
            got = self._copy(there, first, count)
            if got < 0 and ctypes.get_errno() == errno.ENOSYS:
                self._readv = None
                return self._from_file(addresses)
            # The call stops at the first page that it cannot read.
            first += max(got, 0) // PAGE
            if first < count:
                holes.add(first)
                first += 1
        data = memoryview(self._buffer)
        return [None if n in holes else bytes(data[n * PAGE : (n + 1) * PAGE])
                for n in range(count)]  # fmt: skip

    def _copy(self, there: object, first: int, count: int) -> int:
        """Copy the pages from number `first` on; return the bytes, or -1 at a hole."""
        assert self._readv is not None
        here = _Piece(ctypes.addressof(self._buffer) + first * PAGE, (count - first) * PAGE)
        pieces = ctypes.byref(there, first * ctypes.sizeof(_Piece))  # type: ignore[arg-type]
        left, one, flags = ctypes.c_ulong(count - first), ctypes.c_ulong(1), ctypes.c_ulong(0)
        mine = ctypes.byref(here)
        got = int(self._readv(ctypes.c_int(self.pid), mine, one, pieces, left, flags))
        if got < 0 and ctypes.get_errno() == errno.ESRCH:
            raise VmmGone(self.pid)
        if got < 0 and ctypes.get_errno() in (errno.EPERM, errno.EACCES):
            raise NoRight("to read the guest's memory", "CAP_SYS_PTRACE")
        return got

    def _from_file(self, addresses: Sequence[int]) -> list[bytes | None]:
        """As `read_addresses`, through /proc, where the kernel has no such call."""
        try:
            file = os.open(self.host.proc / str(self.pid) / "mem", os.O_RDONLY)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise VmmGone(self.pid) from error
        except OSError as error:
            raise NoRight("to read the guest's memory", "CAP_SYS_PTRACE") from error
        try:
            return [_page(file, address) for address in addresses]
        finally:
            os.close(file)


def _page(file: int, address: int) -> bytes | None:
    try:
        page = os.pread(file, PAGE, address)
    except OSError:
        return None
    return page if len(page) == PAGE else None
