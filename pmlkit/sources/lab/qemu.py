# SPDX-License-Identifier: Apache-2.0
"""Debian's QEMU as the device model of the lab's HVM domains: with a VGA whose memory it tracks.

It comes with the job, not with dom0, because only these runs need it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from pmlkit.sources.guest import debian

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pmlkit.types import Tell


VIDEO_MIB = 16  # libxl counts it as the guest's memory
# A part of the guest's configuration. The firmware is the guest itself, without hvmloader.
CONFIG = f"""type="hvm"
firmware_override="/job/kernel"
device_model_version="qemu-xen"
device_model_override="/job/qemu/start"
vga="stdvga"
videoram={VIDEO_MIB}
vnc=0
sdl=0
"""
_PACKAGE = "qemu-system-xen"
_SKIP = ("perl-base", "dpkg", "debconf")
_SHARED = ("seabios/vgabios-stdvga.bin", "qemu/keymaps/en-us")  # files in usr/share
_FOLDERS = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
_START = b"""#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-only
export LD_LIBRARY_PATH=/job/qemu/lib
exec /job/qemu/program -L /job/qemu/share "$@"
"""
# Libraries of the running Xen and the C library, which must be dom0's own.
_OF_DOM0 = ("ld-", "libxen", "libc.", "libm.", "libmvec", "libpthread", "libdl", "librt", "libutil")


@cache
def files(progress: Tell | None = None) -> dict[str, bytes]:
    """Return the files of ``/job/qemu``, by their path in ``/job``.

    Raises
    ------
    MissingTool, PackageError
        If Debian's package cannot be fetched.
    """
    root = debian.fetch([_PACKAGE], progress, skip=_SKIP).root
    found = {
        "start": _START,
        "program": (root / "usr/libexec/xen-qemu-system-i386").read_bytes(),
    }
    for name in _SHARED:
        found[f"share/{name.partition('/')[2]}"] = (root / "usr/share" / name).read_bytes()
    found |= {f"lib/{path.name}": path.read_bytes() for path in _libraries(root)}
    return {f"qemu/{name}": data for name, data in found.items()}


def _libraries(root: Path) -> Iterator[Path]:
    """Yield the shared libraries that dom0 lacks, each by the name that programs use."""
    for folder in _FOLDERS:
        paths = sorted((root / folder).glob("*.so.*"))
        behind_links = {path.resolve() for path in paths if path.is_symlink()}
        for path in paths:
            if path not in behind_links and not path.name.startswith(_OF_DOM0):
                yield path
