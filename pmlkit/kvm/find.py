# SPDX-License-Identifier: Apache-2.0
"""Find a VM: the process that has a VM of KVM, by its id, its QMP socket, or its name."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pmlkit.errors import PmlkitError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pmlkit.kvm.host import Host
    from pmlkit.types import Json


__all__ = ["NoRight", "NoSuchVm", "Vm", "alive", "find", "running", "threads_of", "vcpus_of"]

_VM, _VCPU = "anon_inode:kvm-vm", "anon_inode:kvm-vcpu"
# QEMU's, Firecracker's, cloud-hypervisor's and crosvm's names of the threads that run vCPUs.
_THREAD = re.compile(r"^(?:CPU (\d{1,5})/KVM|fc_vcpu (\d{1,5})|(?:crosvm_)?vcpu[ _]?(\d{1,5}))")
_PID = re.compile(r"^[0-9]{1,10}$")
_GUEST = re.compile(r"(?:^|,)guest=([^,]*)")
_FEW = 8  # most VMs that a message names
_LONGEST_NAME = 256  # characters of a name in a spool


class NoSuchVm(PmlkitError):
    """The VM does not exist. Attribute: `name`."""

    def __init__(self, name: str, hint: str) -> None:
        self.name = name
        super().__init__(f"there is no VM {name}", hint)


class NoRight(PmlkitError):
    """The kernel refuses an operation of a collection. Attribute: `capability`."""

    def __init__(self, what: str, capability: str) -> None:
        self.capability = capability
        super().__init__(f"{what} needs {capability}", "run it as root")


@dataclass(frozen=True)
class Vm:
    """A VM, and the process that runs it.

    Attributes
    ----------
    pid : int
        Process id of the VMM.
    start : int
        Start time of the process, in clock ticks since boot, because ids are reused.
    name : str
        The guest's name if QEMU's command line contains it; otherwise the process's.
    command : list of str
    vms, vcpus : int
        Number of its VMs and vCPUs of KVM.
    socket : str
        The QMP socket that named it, or "".
    """

    pid: int
    start: int
    name: str
    command: list[str] = field(default_factory=list)
    vms: int = 1
    vcpus: int = 1
    socket: str = ""

    def facts(self) -> Json:
        """Return fields of the spool's header."""
        return {"pid": self.pid, "name": self.name[:_LONGEST_NAME], "vcpus": self.vcpus}


def start_of(host: Host, pid: int) -> int | None:
    """Return the start time of a process, clock ticks; None if it has ended.

    A process that ends gives its memory up first. Its descriptors are visible for longer, because
    the kernel needs time to free the memory.
    """
    try:
        text = (host.proc / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    after = text.rpartition(")")[2].split()  # the name before it may contain any character
    if len(after) < 21 or after[0] in ("Z", "X"):
        return None
    start, memory_bytes = int(after[19]), int(after[20])
    return start if memory_bytes else None


def _links(host: Host, pid: int) -> Iterator[str]:
    """Yield the target of each descriptor of a process."""
    with os.scandir(host.proc / str(pid) / "fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # the descriptor was closed meanwhile
                yield os.readlink(entry.path)


def alive(host: Host, vm: Vm) -> bool:
    """Whether the VM still exists."""
    try:
        return start_of(host, vm.pid) == vm.start and _VM in _links(host, vm.pid)
    except OSError:
        return False


def threads_of(host: Host, pid: int) -> dict[int, str]:
    """Return the names of a process's threads by their ids."""
    names = {}
    with contextlib.suppress(OSError):
        for task in (host.proc / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):
                names[int(task.name)] = (task / "comm").read_text(errors="replace").strip()
    return names


def vcpus_of(threads: dict[int, str]) -> dict[int, int]:
    """Return the vCPU of each thread, as far as thread names show it."""
    matches = ((thread, _THREAD.match(name)) for thread, name in threads.items())
    return {t: int(next(g for g in m.groups() if g is not None)) for t, m in matches if m}


def running(host: Host) -> list[Vm]:
    """Return the running VMs, as far as our rights show them."""
    pids = sorted(int(path.name) for path in host.proc.iterdir() if path.name.isdigit())
    vms = []
    for pid in pids:
        with contextlib.suppress(OSError, NoSuchVm):
            vms.append(_of_process(host, pid))
    return vms


def find(host: Host, asked: str) -> Vm:
    """Find a VM.

    Parameters
    ----------
    asked : str
        The VMM's process id, the path of a QMP socket, or the name of a guest.

    Raises
    ------
    NoSuchVm
        The message names the running VMs.
    NoRight
        If the process's descriptors are not visible.
    """
    if not asked or not asked.isprintable():
        hint = "give a guest's name, the path of a QMP socket, or a process id"
        raise UsageError(f"{asked!r:.80} is not a VM", hint)
    if _PID.match(asked):
        try:
            return _of_process(host, int(asked))
        except PermissionError as error:
            raise NoRight(f"to examine process {asked}", "CAP_SYS_PTRACE") from error
        except OSError as error:
            raise NoSuchVm(asked, _running_text(host)) from error
    vms = running(host)
    if "/" in asked:
        return _of_socket(host, asked, vms)
    named = [vm for vm in vms if vm.name == asked]
    if len(named) > 1:
        pids = ", ".join(str(vm.pid) for vm in named)
        raise PmlkitError(f"{len(named)} VMs are called {asked}", f"give a process id: {pids}")
    if not named:
        raise NoSuchVm(asked, _running_text(host))
    return named[0]


def _running_text(host: Host) -> str:
    vms = running(host)
    if not vms:
        missing = host.missing_capabilities()
        if "CAP_SYS_PTRACE" in missing:
            return "none are visible without CAP_SYS_PTRACE; run it as root"
        if not (host.root / "dev/kvm").exists():
            return "this machine has no /dev/kvm; name the VM's host: --host root@kvmhost"
        return "none is running here (no process has a VM of /dev/kvm)"
    some = ", ".join(f"{vm.name} ({vm.pid})" for vm in vms[:_FEW])
    return f"the running ones are {some}" + (", ..." if len(vms) > _FEW else "")


def _of_process(host: Host, pid: int) -> Vm:
    links = list(_links(host, pid))
    vms = links.count(_VM)
    if not vms:
        raise NoSuchVm(str(pid), f"process {pid} has no VM of KVM; {_others(host, pid)}")
    start = start_of(host, pid)
    if start is None:
        raise NoSuchVm(str(pid), "it has ended")
    command = (host.proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    command = command[:-1] if command[-1] == "" else command
    vcpus = sum(link.startswith(_VCPU) for link in links)
    comm = (host.proc / str(pid) / "comm").read_text(errors="replace").strip()
    return Vm(pid, start, _guest(command) or comm, command, vms, max(vcpus, 1))


def _others(host: Host, pid: int) -> str:
    near = threads_of(host, pid)
    if pid not in near and near:
        return f"{pid} is a thread: give its process"
    return "give the VMM's process"


def _guest(command: list[str]) -> str:
    """Return the guest's name in QEMU's command line, or ""."""
    for number, option in enumerate(command[:-1]):
        value = command[number + 1]
        if option in ("-name", "--name"):
            match = _GUEST.search(value)
            return match[1] if match else value.partition(",")[0]
        if option == "--id":  # the option of Firecracker
            return value
    return ""


def _of_socket(host: Host, path: str, vms: list[Vm]) -> Vm:
    inode = _inode(host.proc / "net/unix", path)
    if inode is None and os.path.exists(path) and not _is_socket(path):
        raise NoSuchVm(
            path, "it is not a socket; give the socket of QEMU's -qmp unix:PATH,server=on,wait=off"
        )
    if inode is None:
        raise NoSuchVm(path, "no program listens at this socket; QEMU does with -qmp "
                             "unix:PATH,server=on,wait=off")  # fmt: skip
    for vm in vms:
        with contextlib.suppress(OSError):
            if f"socket:[{inode}]" in _links(host, vm.pid):
                return Vm(vm.pid, vm.start, vm.name, vm.command, vm.vms, vm.vcpus, path)
    raise NoSuchVm(path, f"the program at this socket runs no VM; {_running_text(host)}")


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _inode(table: Path, path: str) -> str | None:
    """Return the number of the socket that listens at a path."""
    real = os.path.realpath(path)
    with contextlib.suppress(OSError):
        for line in table.read_text(errors="replace").splitlines()[1:]:
            words = line.split(None, 7)
            if len(words) == 8 and words[7] in (path, real) and int(words[3], 16) & 0x10000:
                return words[6]
    return None
