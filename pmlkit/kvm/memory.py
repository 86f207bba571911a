# SPDX-License-Identifier: Apache-2.0
"""Methods without tracing: written pages by soft-dirty bits; number of touched pages by MGLRU.

- Soft-dirty (``clear_refs`` 4, bit 55 of ``pagemap``): the pages written in each round, by the
  guest or the VMM. A write between the reading and the clearing of a page's bit is missed.
- The aging of MGLRU (``lru_gen`` in debugfs) counts the pages that were touched since the previous
  aging, including reads. It gives no frames. It sees a guest's accesses from Linux 6.12 on.

Both use rounds by the clock.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
import time
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pmlkit.errors import PmlkitError
from pmlkit.kvm import find, frames
from pmlkit.kvm.collector import header, now_ns
from pmlkit.kvm.frames import SET_HEAD, Frame
from pmlkit.kvm.guest_memory import VmmGone
from pmlkit.spool import SpoolWriter

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator

    from pmlkit.kvm.find import Vm
    from pmlkit.kvm.host import Host
    from pmlkit.kvm.job import Job
    from pmlkit.kvm.stop import Stop
    from pmlkit.types import Json, Tell


__all__ = ["LruGen", "SoftDirty", "collect"]

_PAGE = 4096
_DIRTY_BIT = 55
_CHUNK_PAGES = 1 << 16
_LEAST_SHARE = 8  # a mapping at least this share of the largest belongs to the guest
_NAP_S = 0.05
_AGING_SEES = (6, 12)
_MAPPING = re.compile(r"^([0-9a-f]{1,16})-([0-9a-f]{1,16}) rw")


@dataclass(frozen=True)
class _Mapping:
    start: int  # address
    pages: int
    first: int  # frame number of its first page in the trace


class Looker(Protocol):
    """A method to examine memory."""

    def facts(self) -> Json:
        """Return fields of the spool's header."""

    def begin(self) -> None:
        """Begin the first round."""

    def end_round(self, number: int, writer: SpoolWriter) -> int:
        """Append the touched pages of the round, and begin the next; return their number."""


class SoftDirty:
    """The soft-dirty bits of the VMM's memory."""

    def __init__(self, host: Host, vm: Vm) -> None:
        self.folder, self._pid = host.proc / str(vm.pid), vm.pid
        self._mappings = list(self._find())
        if not self._mappings:
            raise PmlkitError(f"process {vm.pid} has no memory that could be the guest's",
                              "is it the VMM?")  # fmt: skip
        if host.proc == type(host)().proc and not _has_soft_dirty():
            raise PmlkitError("this kernel has no soft-dirty bits (CONFIG_MEM_SOFT_DIRTY)",
                              "use --mode log")  # fmt: skip

    def _find(self) -> Iterator[_Mapping]:
        ranges = []
        try:
            text = (self.folder / "maps").read_text(errors="replace")
        except OSError as error:
            raise find.NoRight(f"to read {self.folder / 'maps'}", "CAP_SYS_PTRACE") from error
        for line in text.splitlines():
            if match := _MAPPING.match(line):
                start, end = int(match[1], 16), int(match[2], 16)
                ranges.append((start, (end - start) // _PAGE))
        largest, first = max((pages for _, pages in ranges), default=0), 0
        for start, pages in ranges:
            if pages and pages * _LEAST_SHARE >= largest:
                yield _Mapping(start, pages, first)
                first += pages

    def facts(self) -> Json:
        """Return fields of the spool's header."""
        rows = [{"address": m.start, "pages": m.pages, "frame": m.first} for m in self._mappings]
        return {"mappings": rows, "pages": sum(m.pages for m in self._mappings)}

    def begin(self) -> None:
        """Clear the bits."""
        try:
            (self.folder / "clear_refs").write_text("4")
        except PermissionError as error:
            raise find.NoRight("to clear soft-dirty bits", "CAP_SYS_PTRACE") from error
        except OSError as error:
            raise PmlkitError(f"the kernel refuses clear_refs ({error.strerror})",
                              "has the VM ended?") from error  # fmt: skip

    def end_round(self, number: int, writer: SpoolWriter) -> int:
        """Append the pages whose bits are set, and clear the bits; return their number."""
        parts = list(self._dirty())
        self.begin()
        for part in parts:
            writer.append(Frame.PAGE_SET, SET_HEAD.pack(number, 0), memoryview(part))
        return sum(map(len, parts))

    def _pagemap(self) -> io.FileIO:
        path = self.folder / "pagemap"
        try:
            return open(path, "rb", buffering=0)
        except PermissionError as error:
            raise find.NoRight(f"to read {path}", "CAP_SYS_PTRACE") from error

    def _dirty(self) -> Iterator[array[int]]:
        with self._pagemap() as pagemap:
            for mapping in self._mappings:
                for first in range(0, mapping.pages, _CHUNK_PAGES):
                    count = min(_CHUNK_PAGES, mapping.pages - first)
                    at = (mapping.start // _PAGE + first) * 8
                    data = os.pread(pagemap.fileno(), 8 * count, at)
                    if len(data) < 8 * count:  # not an error: the memory does not exist any more
                        raise VmmGone(self._pid)
                    words = array("Q", data)
                    base = mapping.first + first
                    dirty = [base + i for i, w in enumerate(words) if w >> _DIRTY_BIT & 1]
                    if dirty:
                        yield array("Q", dirty)


def _has_soft_dirty() -> bool:
    """Whether a page of our own that was just written has its bit set."""
    import ctypes

    with mmap.mmap(-1, _PAGE) as page, contextlib.suppress(OSError):
        page[0] = 1
        view = ctypes.c_char.from_buffer(page)
        address = ctypes.addressof(view)
        del view
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            word = os.pread(pagemap.fileno(), 8, address // _PAGE * 8)
        return bool(int.from_bytes(word, "little") >> _DIRTY_BIT & 1)
    return False


class LruGen:
    """The aging of MGLRU for the VMM's control group."""

    def __init__(self, host: Host, vm: Vm) -> None:
        if host.version < _AGING_SEES:
            release = ".".join(map(str, _AGING_SEES))
            what = f"the aging of Linux {host.release} does not see the guest's accesses"
            raise PmlkitError(what, f"Linux {release} or later does; use --mode log")
        self._file = host.debug / "lru_gen"
        self._switch = host.root / "sys/kernel/mm/lru_gen/enabled"
        self._group = _group(host, vm.pid)
        self._members = _members(host, self._group)
        self._table()

    def facts(self) -> Json:
        """Return fields of the spool's header."""
        return {"cgroup": self._group, "processes": self._members}

    def _table(self) -> tuple[int, dict[int, dict[int, int]]]:
        """Return the group's number, and for each node the pages of each generation."""
        try:
            text = self._file.read_text()
        except OSError as error:
            if error.errno == errno.ENOENT and not self._switch.exists():
                what = "this kernel has no MGLRU (CONFIG_LRU_GEN)"
                raise PmlkitError(what, "use --mode log, or another kernel") from error
            if error.errno == errno.ENOENT:
                hint = "mount -t debugfs nodev /sys/kernel/debug"
                raise PmlkitError("debugfs is not mounted, or has no lru_gen", hint) from error
            raise find.NoRight(f"to read {self._file}", "CAP_DAC_READ_SEARCH") from error
        number, mine, node = -1, False, -1
        nodes: dict[int, dict[int, int]] = {}
        for line in text.splitlines():
            words = line.split()
            if words[:1] == ["memcg"]:
                mine = len(words) > 1 and (words[2] if len(words) > 2 else "/") == self._group
                number = int(words[1]) if mine else number
            elif mine and words[:1] == ["node"]:
                node = int(words[1])
                nodes[node] = {}
            elif mine and len(words) == 4 and words[0].isdigit():
                nodes[node][int(words[0])] = max(int(words[2]), 0) + max(int(words[3]), 0)
        if number < 0 or not nodes:
            hint = "echo y > /sys/kernel/mm/lru_gen/enabled; the VM needs its own control group"
            raise PmlkitError(f"MGLRU has no control group {self._group}", hint)
        return number, nodes

    def begin(self) -> None:
        """Age once, so that earlier accesses no longer count."""
        self._age()

    def _age(self) -> int:
        number, nodes = self._table()
        for node, generations in nodes.items():
            try:
                self._file.write_text(f"+ {number} {node} {max(generations)} 1 1\n")
            except OSError as error:
                what = f"the kernel refuses to age {self._group} ({error.strerror})"
                raise PmlkitError(what, "echo y > /sys/kernel/mm/lru_gen/enabled") from error
        _, after = self._table()
        # Touched pages are in the generation before the newest, which has only later pages.
        return sum(g.get(max(g) - 1, 0) for g in after.values() if g)

    def end_round(self, number: int, writer: SpoolWriter) -> int:
        """Age; return the number of pages touched since the previous aging."""
        return self._age()


def _group(host: Host, pid: int) -> str:
    with contextlib.suppress(OSError):
        for line in (host.proc / str(pid) / "cgroup").read_text().splitlines():
            hierarchy, _, rest = line.partition(":")
            if hierarchy == "0":
                return rest.partition(":")[2]
    raise PmlkitError(f"process {pid} is in no control group of version 2", "use --mode log")


def _members(host: Host, group: str) -> int:
    path = host.root / "sys/fs/cgroup" / group.lstrip("/") / "cgroup.procs"
    with contextlib.suppress(OSError):
        return len(path.read_text().split())
    return 0


def collect(
    job: Job,
    host: Host,
    vm: Vm,
    stop: Stop,
    report: Tell = lambda text: None,
    file: io.RawIOBase | None = None,
) -> Json:
    """Collect by examining memory, as `pmlkit.kvm.collector.Collector.run` does with the log."""
    looker: Looker = SoftDirty(host, vm) if job.mode == "soft-dirty" else LruGen(host, vm)
    head = header(job, host, vm, {}, find.threads_of(host, vm.pid))
    closed, enough = 0, ""
    with SpoolWriter(job.spool, {**head, **looker.facts()}, file) as writer:
        looker.begin()
        report("capture is on")
        start, spent = now_ns(), time.process_time_ns()
        while not enough and _slept(job, stop, start):
            try:
                pages = looker.end_round(closed, writer)
            except (OSError, PmlkitError):
                if find.alive(host, vm):
                    raise
                pages = None
            if pages is None or not find.alive(host, vm):  # some pages may be missing
                stop.end("vm", "the VM has ended")
                break
            end, used = now_ns(), time.process_time_ns()
            facts = {"start_ns": start, "end_ns": end, "pages": pages, "agent_cpu_ns": used - spent}
            writer.append(Frame.ROUND, frames.pack_json(round=closed, **facts))
            start, spent, closed = end, used, closed + 1
            if closed == job.rounds:
                enough = "all rounds are complete"
            elif job.most_bytes and writer.bytes >= job.most_bytes:
                enough = f"the spool has reached {writer.bytes} bytes, its limit"
        whole = bool(enough) or stop.kind == "time" or not job.rounds
        last = {"complete": whole and stop.kind != "lost", "why": enough or stop.why or ""}
        writer.append(Frame.END, frames.pack_json(**last, rounds=closed))
    return {**last, "rounds": closed}


def _slept(job: Job, stop: Stop, start_ns: int) -> bool:
    """Wait for the end of a round; return False if the collection must end first."""
    while (left := job.period_s - (now_ns() - start_ns) / 1e9) > 0:
        if stop:
            return False
        stop.wait(min(left, _NAP_S))
    return not stop
