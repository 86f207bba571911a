# SPDX-License-Identifier: Apache-2.0
"""The kernel's tracefs: our instances of its ring buffer and our kprobe events.

All names contain the process and the time of its start. The leftovers of a dead process thus differ
from the objects of a running one, and the next collection removes them (`clean`). Usually the
`Guardian` has already done so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import time
from typing import TYPE_CHECKING

from pmlkit.errors import PmlkitError
from pmlkit.ftrace import Layout, PageDamaged, trimmed
from pmlkit.kvm.find import NoRight, start_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import Self

    from pmlkit.kvm.host import Host


__all__ = ["Guardian", "Instance", "Probes", "TracingRefused", "clean", "owner_name", "refused"]

_OWNER = re.compile(r"^pmlkit[-_](\d{1,10})[-_](\d{1,20})(?:-\w+)?$")
_PROBE = re.compile(r"^[pr]\w*:(pmlkit_\d{1,10}_\d{1,20})/(\w+)\s", re.MULTILINE)
_STATS = {"overrun": "overrun", "commit overrun": "overrun", "dropped events": "dropped",
          "read events": "read", "entries": "entries"}  # fmt: skip
_HINTS = {
    errno.EINVAL: "see the file error_log in the same folder",
    errno.ENOMEM: "give smaller buffers: --buffer 1024",
    errno.ENOSPC: "give smaller buffers: --buffer 1024",
    errno.EBUSY: "stop the other tracer, and set sysctl kernel.ftrace_enabled=1",
    errno.EROFS: "run it on the host itself, not in a container",
    errno.ENOENT: "is it Linux 5.3 or later, with KVM?",
}
_BUSY_S = 5.0  # limit for the kernel to release an instance
_PIDS = 500  # process ids that are written at once


class TracingRefused(PmlkitError):
    """The kernel refuses a request for tracing. Attribute: `path`."""

    def __init__(self, path: Path, what: str, hint: str) -> None:
        self.path = str(path)
        super().__init__(what, hint)


def refused(host: Host, path: Path, error: OSError) -> PmlkitError:
    """Return the error for a file of tracefs that is not usable."""
    tracing, lockdown = host.tracing, host.lockdown()
    mounted, closed = (tracing / "instances").exists(), not os.access(tracing, os.R_OK | os.X_OK)
    if error.errno == errno.ENOENT and not mounted and not (tracing.exists() and closed):
        hint = "mount -t tracefs nodev /sys/kernel/tracing"
        return TracingRefused(path, "tracefs is not mounted", hint)
    if error.errno == errno.ENOENT and path.name == "kprobe_events":
        what = "this kernel has no kprobe events (CONFIG_KPROBE_EVENTS)"
        return TracingRefused(path, what, "use --mode soft-dirty, or another kernel")
    if error.errno in (errno.EPERM, errno.EACCES) and lockdown not in ("", "none"):
        what = f"the kernel is in lockdown ({lockdown}), and does not allow tracing"
        return TracingRefused(path, what, "boot without Secure Boot, or use --mode soft-dirty")
    if error.errno in (errno.EPERM, errno.EACCES):
        return NoRight(f"to trace ({path})", "CAP_DAC_READ_SEARCH and CAP_SYS_ADMIN")
    hint = _HINTS.get(error.errno or 0, "look for the reason in dmesg, or use --mode soft-dirty")
    return TracingRefused(path, f"the kernel refuses {path} ({error.strerror})", hint)


def owner_name(host: Host) -> str:
    """Return the prefix of the names that belong to this process."""
    pid = os.getpid()
    return f"pmlkit-{pid}-{start_of(host, pid) or 0}"


def write(host: Host, path: Path, text: str, append: bool = False) -> None:
    """Write a file of tracefs; it is not created."""
    flags = os.O_WRONLY | (os.O_APPEND if append else os.O_TRUNC)
    try:
        file = os.open(path, flags)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)
    except OSError as error:
        raise refused(host, path, error) from error


def read(host: Host, path: Path) -> str:
    """Read a file of tracefs."""
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise refused(host, path, error) from error


class Probes:
    """Kprobe events of this process. A context manager."""

    def __init__(self, host: Host, owner: str) -> None:
        self.host, self.group = host, owner.replace("-", "_")
        self._file = host.tracing / "kprobe_events"
        self._names: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, kind: str, name: str, where: str) -> str:
        """Create an event; returns its path below ``events``.

        Parameters
        ----------
        kind : {"p", "r"}
            At a function's entry, or at its return.
        where : str
            The function, and the values to fetch.

        Raises
        ------
        TracingRefused, NoRight
        """
        try:
            write(self.host, self._file, f"{kind}:{self.group}/{name} {where}\n", append=True)
        except TracingRefused as error:
            symbol = where.split()[0]
            if self._file.exists() and self.host.has_symbol(symbol) is False:
                hint = "modprobe kvm_intel (or kvm_amd); is it a kernel with KVM?"
                raise TracingRefused(self._file, f"the kernel has no {symbol}", hint) from error
            raise
        self._names.append(name)
        return f"{self.group}/{name}"

    def close(self) -> None:
        """Remove the events; idempotent."""
        while self._names:
            _remove_probe(self.host, f"{self.group}/{self._names.pop()}")


def _remove_probe(host: Host, event: str) -> None:
    """Remove a kprobe event, as soon as no instance uses it."""
    end = time.monotonic() + _BUSY_S
    while True:
        with contextlib.suppress(PmlkitError):
            write(host, host.tracing / "kprobe_events", f"-:{event}\n", append=True)
            return
        if time.monotonic() > end:
            return
        time.sleep(0.05)


def make_instance(path: Path) -> None:
    """Create an instance: the kernel fills the new folder."""
    path.mkdir()


def remove_instance(path: Path) -> None:
    """Remove an instance with all that is in it."""
    path.rmdir()


class Instance:
    """An instance of the ring buffer. A context manager.

    Parameters
    ----------
    name : str
    kib : int
        Size of each CPU's buffer.
    layout : Layout
        Of its pages.
    """

    def __init__(self, host: Host, name: str, kib: int, layout: Layout) -> None:
        self.host, self.path, self.layout = host, host.tracing / "instances" / name, layout
        self.bytes = kib << 10
        self._readers: dict[int, int] = {}
        try:
            make_instance(self.path)
        except OSError as error:
            raise refused(host, self.path, error) from error
        try:
            self.write("tracing_on", "0")
            self.write("trace_clock", "mono")
            self.write("buffer_size_kb", str(kib))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, name: str, text: str, append: bool = False) -> None:
        """Write one of the instance's files."""
        write(self.host, self.path / name, text, append)

    def follow(self, threads: Iterable[int]) -> None:
        """Record only these threads, and the threads that they create."""
        pids = [str(thread) for thread in threads]
        with contextlib.suppress(TracingRefused):  # Linux before 4.16
            self.write("options/event-fork", "1")
        for first in range(0, len(pids), _PIDS):
            self.write("set_event_pid", " ".join(pids[first : first + _PIDS]) + "\n", bool(first))

    def enable(self, event: str, only: str = "") -> None:
        """Record an event ("group/name"); `only` is a filter for its records."""
        if only:
            self.write(f"events/{event}/filter", only)
        self.write(f"events/{event}/enable", "1")

    def start(self) -> None:
        """Open the buffers, and begin to record."""
        try:
            for folder in sorted((self.path / "per_cpu").iterdir()):
                path = folder / "trace_pipe_raw"
                self._readers[int(folder.name[3:])] = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise refused(self.host, path, error) from error
        self.write("tracing_on", "1")

    def stop(self) -> None:
        """Stop recording; recorded events can still be read."""
        self.write("tracing_on", "0")

    def drain(self) -> Iterator[tuple[int, bytes]]:
        """Yield the CPU of each page that has been filled, and the page without its empty end."""
        for cpu, reader in self._readers.items():
            # A bounded pass: a CPU that logs faster than we read must not delay the others.
            for _ in range(2 * self.bytes // self.layout.page_bytes):
                page = self._page(reader)
                if not page:
                    break
                if page := self._trimmed(page):
                    yield cpu, page

    def _page(self, reader: int) -> bytes:
        try:
            return os.read(reader, self.layout.page_bytes)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise refused(self.host, self.path, error) from error

    def _trimmed(self, page: bytes) -> bytes:
        try:
            return trimmed(page, self.layout)
        except PageDamaged as error:
            hint = "does its size match events/header_page?"
            raise TracingRefused(self.path, f"a page of {self.path} {error}", hint) from error

    def counts(self) -> dict[str, int]:
        """Return the sums over all CPUs of the kernel's counts: overrun, dropped, read."""
        sums = dict.fromkeys(_STATS.values(), 0)
        for cpu in self._readers:
            text = read(self.host, self.path / f"per_cpu/cpu{cpu}/stats")
            for line in text.splitlines():
                name, _, value = line.partition(":")
                if name in _STATS and value.strip().isdigit():
                    sums[_STATS[name]] += int(value)
        return sums

    def close(self) -> None:
        """Remove the instance; idempotent."""
        while self._readers:
            os.close(self._readers.popitem()[1])
        _remove(self.host, self.path)


def _remove(host: Host, path: Path) -> None:
    end = time.monotonic() + _BUSY_S
    for name in ("tracing_on", "events/enable"):
        with contextlib.suppress(PmlkitError):
            write(host, path / name, "0")
    while path.exists():
        try:
            remove_instance(path)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                return
            time.sleep(0.05)


def _remove_all(host: Host, owner: str) -> int:
    """Remove the objects with an owner's name; return their number."""
    group, removed = owner.replace("-", "_"), 0
    with contextlib.suppress(OSError):
        for path in sorted((host.tracing / "instances").glob(f"{owner}*")):
            _remove(host, path)
            removed += 1
    with contextlib.suppress(PmlkitError):
        for of, name in _PROBE.findall(read(host, host.tracing / "kprobe_events")):
            if of == group:
                _remove_probe(host, f"{group}/{name}")
                removed += 1
    return removed


def clean(host: Host) -> Iterator[str]:
    """Remove the leftovers of dead collections in tracefs; yields a message for each of them."""
    owners = set()
    with contextlib.suppress(OSError):
        owners |= {path.name for path in (host.tracing / "instances").iterdir()}
    with contextlib.suppress(PmlkitError):
        text = read(host, host.tracing / "kprobe_events")
        owners |= {group for group, _ in _PROBE.findall(text)}
    dead = {f"pmlkit-{m[1]}-{m[2]}" for name in owners if (m := _OWNER.match(name))
            and start_of(host, int(m[1])) != int(m[2])}  # fmt: skip
    for owner in sorted(dead):
        if _remove_all(host, owner):
            pid = owner.split("-")[1]
            yield f"a collection (process {pid}) died and left tracing on: it is off now"


class Guardian:
    """A child process that waits for our end, and then removes our objects in tracefs.

    A context manager. Its only open file is a pipe, whose other end closes with our process.
    """

    def __init__(self, host: Host, owner: str) -> None:
        ours, self._pipe = os.pipe()
        self._child = os.fork()
        if not self._child:
            try:
                _guard(host, owner, ours)
            finally:
                os._exit(0)
        os.close(ours)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child process; it then removes nothing; idempotent."""
        if self._child:
            with contextlib.suppress(OSError):
                os.write(self._pipe, b"x")
            os.close(self._pipe)
            with contextlib.suppress(OSError):
                os.waitpid(self._child, 0)
            self._child = 0


def _guard(host: Host, owner: str, pipe: int) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.closerange(0, pipe)  # also standard streams, on which SSH waits
    os.closerange(pipe + 1, 1 << 16)
    if not os.read(pipe, 1):
        _remove_all(host, owner)
