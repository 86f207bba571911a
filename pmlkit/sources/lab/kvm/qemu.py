# SPDX-License-Identifier: Apache-2.0
"""Debian's QEMU as the VMM in the KVM lab: its files on the host, and its command line.

The program is Debian's QEMU for small machines (``qemu-system-x86_64-microvm``), which needs five
libraries, with qboot as its firmware. It is on the job's disk, not in the host's root, so that
other runs do not read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.errors import GuestError
from pmlkit.sources.guest import debian

if TYPE_CHECKING:
    from pathlib import Path

    from pmlkit.types import Tell


__all__ = ["arguments", "files"]

PROGRAM = "qemu-system-x86_64-microvm"
FOLDER, SOCKET = "/job/qemu", "/job/qmp"  # paths on the host
_PACKAGES = (
    "qemu-system-x86", "qemu-system-data", "libfdt1", "libglib2.0-0", "libpcre2-8-0",
    "libpixman-1-0",
)  # fmt: skip
_LIBRARIES = ("libfdt.so.1", "libglib-2.0.so.0", "libpcre2-8.so.0", "libpixman-1.so.0")
_LIBRARY_FOLDERS = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
_FIRMWARE = "usr/share/qemu/qboot.rom"
# Only devices that a guest of the kit needs. Its kernel is started by its PVH entry.
_MACHINE = (
    "microvm,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=off,auto-kernel-cmdline=off"
)


def files(progress: Tell | None = None) -> tuple[dict[str, bytes], str]:
    """Return QEMU's files by their names in the job's folder, and its version.

    Raises
    ------
    MissingTool, PackageError, GuestError, OutputError
    """
    fetched = debian.fetch(_PACKAGES, progress, dependencies=False)
    root = fetched.root
    found = {"qemu/qemu": _bytes(root, f"usr/bin/{PROGRAM}"), "qemu/rom": _bytes(root, _FIRMWARE)}
    for name in _LIBRARIES:
        found[f"qemu/{name}"] = _bytes(root, *(f"{folder}/{name}" for folder in _LIBRARY_FOLDERS))
    return found, fetched.versions["qemu-system-x86"]


def _bytes(root: Path, *places: str) -> bytes:
    for place in places:
        if (root / place).is_file():
            return (root / place).read_bytes()
    raise GuestError(f"Debian's QEMU has no {places[0]}", hint="report it")


def arguments(name: str, memory_mib: int, vcpus: int, cmdline: str, ring: int) -> list[str]:
    """Return QEMU's command line for a guest of the kit.

    Parameters
    ----------
    vcpus : int
        1 or 2.
    ring : int
        Number of entries in the dirty ring of each vCPU; 0: bitmaps.
    """
    # The guest first touches all of its memory, as under our monitor, and then runs freely.
    cmdline = f"vmm={memory_mib} free=1 {cmdline}".strip()
    accelerator = ["-accel", f"kvm,dirty-ring-size={ring}"] if ring else ["-accel", "kvm"]
    return [
        *("-name", f"guest={name}", "-M", _MACHINE, *accelerator, "-cpu", "host"),
        *("-m", str(memory_mib), "-smp", str(vcpus)),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-bios", f"{FOLDER}/rom", "-kernel", "/job/kernel", "-append", cmdline),
        # The kit prints to the port 0xe9, so the first register of a serial port is mapped there.
        *("-chardev", "file,id=console,path=/out/guest.txt"),
        *("-device", "isa-serial,iobase=0xe9,irq=4,chardev=console"),
        *("-qmp", f"unix:{SOCKET},server=on,wait=off"),
    ]
