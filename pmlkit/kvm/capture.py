# SPDX-License-Identifier: Apache-2.0
"""How the entries of a VM are captured.

`Ftrace` is the way that every kernel has: kprobes into ring buffers of their own. A `Capture` by
BPF would have the same methods.

`mark_page_dirty_in_slot` sees each page that KVM logs, with rings and bitmaps, by PML or write
faults. `kvm_vm_ioctl` sees what the VMM asks of KVM: re-arms and memory slots. The three streams
have buffers of their own: an entry that is lost is then an entry of the log, and nothing else, and
a full buffer loses no re-arm.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Protocol

from pmlkit.errors import PmlkitError
from pmlkit.ftrace import Layout, layout_of
from pmlkit.kvm import rounds
from pmlkit.kvm.frames import CALLS, LOG, MARKS, STREAMS
from pmlkit.kvm.tracefs import (
    Guardian,
    Instance,
    Probes,
    TracingRefused,
    clean,
    owner_name,
    read,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from pmlkit.kvm.host import Host
    from pmlkit.kvm.job import KvmOptions
    from pmlkit.types import Json


__all__ = ["Capture", "Ftrace"]

# The registers of the second and third argument of a function.
_REGISTERS = {"x86_64": ("%si", "%dx"), "aarch64": ("%x1", "%x2")}
_CALLS_KIB = 256
_MARKS = ("kvm/kvm_entry", "kvm/kvm_page_fault")


class Capture(Protocol):
    """A way to capture the log of a VM; a context manager.

    Attributes
    ----------
    cleaned : list of str
        Messages on what dead collections had left, and is removed now.
    """

    cleaned: list[str]

    def start(self, threads: list[int]) -> None:
        """Begin; record only these threads and their children."""

    def stop(self) -> None:
        """Record no more; what was recorded can be drained."""

    def drain(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield the stream, the CPU, and a page of its ring buffer."""

    def counts(self) -> dict[str, dict[str, int]]:
        """Return what the kernel counts, by stream."""

    def facts(self) -> Json:
        """Return what is needed to read the pages."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Ftrace:
    """Capture by kprobes and ftrace."""

    def __init__(self, host: Host, options: KvmOptions) -> None:
        self.host, self.marks = host, options.marks
        self._kib = options.buffer_kib
        self._instances: dict[int, Instance] = {}
        self._formats: dict[str, str] = {}
        self._exits = contextlib.ExitStack()
        self.cleaned = list(clean(host))
        self._registers()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            owner = owner_name(self.host)
            text = read(self.host, self.host.tracing / "events/header_page")
            self.header_page, layout = text, layout_of(text)
            if layout is None:
                what = "the kernel's ring buffer has an unknown layout"
                raise TracingRefused(self.host.tracing, what, "report its events/header_page")
            self._check_switch()
            stack.enter_context(Guardian(self.host, owner))
            self._set_up(stack, owner, layout)
            self._exits = stack.pop_all()
        return self

    def _check_switch(self) -> None:
        """Refuse a kernel whose kprobes are switched off: they would be silent."""
        path = self.host.debug / "kprobes/enabled"
        with contextlib.suppress(OSError):
            if path.read_text().strip() == "0":
                raise TracingRefused(path, "kprobes are switched off", f"echo 1 > {path}")

    def _set_up(self, stack: contextlib.ExitStack, owner: str, layout: Layout) -> None:
        # Entered first, so that it is left last: an event that is used cannot be removed.
        probes = stack.enter_context(Probes(self.host, owner))
        events: dict[int, list[tuple[str, str]]] = {stream: [] for stream in range(len(STREAMS))}
        second, third = self._registers()
        where = f"mark_page_dirty_in_slot gfn={third}:u64"
        events[LOG].append((probes.add("p", "dirty", where), ""))
        where = f"kvm_vm_ioctl nr={second}:u32 " + " ".join(
            f"{name}=+u{at}({third}):u{8 * size}" for name, at, size in rounds.ARGUMENTS
        )
        only = " || ".join(f"nr == {number}" for number in rounds.CALLS_OF_INTEREST)
        events[CALLS].append((probes.add("p", "call", where), only))
        events[CALLS].append((probes.add("r", "done", "kvm_vm_ioctl ret=$retval:s64"), ""))
        if self.marks:
            known = [e for e in _MARKS if (self.host.tracing / "events" / e).exists()]
            events[MARKS] += [(event, "") for event in known]
        for stream, of in events.items():
            if not of:
                continue
            kib = _CALLS_KIB if stream == CALLS else self._kib
            name = f"{owner}-{STREAMS[stream]}"
            instance = stack.enter_context(Instance(self.host, name, kib, layout))
            self._instances[stream] = instance
            for event, only in of:
                path = self.host.tracing / "events" / event / "format"
                self._formats[event.rpartition("/")[2]] = read(self.host, path)
                instance.enable(event, only)

    def _registers(self) -> tuple[str, str]:
        machine = os.uname().machine
        if machine not in _REGISTERS:
            known = " and ".join(_REGISTERS)
            raise PmlkitError(f"the log of KVM is not known on {machine}", f"it is on {known}")
        return _REGISTERS[machine]

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def start(self, threads: list[int]) -> None:
        """Begin; record only these threads and their children."""
        for instance in self._instances.values():
            instance.follow(threads)
        for instance in self._instances.values():
            instance.start()

    def stop(self) -> None:
        """Record no more; what was recorded can be drained."""
        for instance in self._instances.values():
            instance.stop()

    def drain(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield the stream, the CPU, and a page of its ring buffer."""
        for stream, instance in self._instances.items():
            for cpu, page in instance.drain():
                yield stream, cpu, page

    def counts(self) -> dict[str, dict[str, int]]:
        """Return what the kernel counts, by stream."""
        return {STREAMS[stream]: of.counts() for stream, of in self._instances.items()}

    def facts(self) -> Json:
        """Return what is needed to read the pages."""
        return {"kind": "ftrace", "clock": "mono", "header_page": self.header_page,
                "formats": self._formats, "buffer_kib": self._kib}  # fmt: skip
