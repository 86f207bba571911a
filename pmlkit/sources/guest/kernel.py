# SPDX-License-Identifier: Apache-2.0
"""Debian's cloud kernel as the ELF image that QEMU starts directly (through PVH).

Debian ships a bzImage: a small program that unpacks the kernel proper. We unpack it once, not in
each emulated boot. QEMU also passes a new random seed to a bzImage, so that two deterministic runs
would differ. With PVH it does not.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pmlkit.errors import GuestError
from pmlkit.files import cache_folder, write_files
from pmlkit.sources.guest import debian

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pmlkit.types import Tell


PACKAGE = "linux-image-cloud-amd64"
_RELEASE = r"linux-image-\d[\w.+-]*"
VIRTIO_BLK = (
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
)
NVDIMM = (
    "drivers/nvdimm/libnvdimm",
    "drivers/acpi/nfit/nfit",
    "drivers/nvdimm/nd_btt",
    "drivers/nvdimm/nd_pmem",
)
_LZ4_BLOCK = 8 << 20  # size of an unpacked block in lz4's legacy format, except for the last
_PVH_NOTE = struct.pack("<III4s", 4, 8, 18, b"Xen\0")  # XEN_ELFNOTE_PHYS32_ENTRY, as in the ELF


@dataclass(frozen=True)
class Kernel:
    """A kernel for QEMU's ``-kernel``, and for Xen's dom0.

    Attributes
    ----------
    path : Path
        An uncompressed vmlinux; a bzImage if there is no PVH entry.
    version : str
        Of the Debian package, such as ``"6.1.147-1"``.
    release : str
        As ``uname -r`` prints it, such as ``"6.1.0-37-cloud-amd64"``.
    modules : Path
        The folder ``/lib/modules/RELEASE``.
    """

    path: Path
    version: str
    release: str
    modules: Path

    def drivers(self, names: Sequence[str]) -> list[Path]:
        """Return the paths of modules, such as `VIRTIO_BLK`, in the order of loading.

        Raises
        ------
        GuestError
            If the kernel's package has them elsewhere.
        """
        drivers = [self.modules / "kernel" / f"{name}.ko" for name in names]
        missing = [path.name for path in drivers if not path.exists()]
        if missing:
            raise GuestError(
                f"its kernel {self.release} has no module {', '.join(missing)}",
                hint="use Debian 12's linux-image-cloud-amd64, or record without a disk",
            )
        return drivers


def kernel(progress: Tell | None = None, metapackage: str = PACKAGE) -> Kernel:
    """Fetch and unpack the kernel that one of Debian's metapackages refers to.

    Parameters
    ----------
    progress : callable, optional
        Called with a line of text before each slow step.

    Raises
    ------
    MissingTool, GuestError, OutputError
    """
    packed = packed_kernel(progress, metapackage)
    fetched = packed.modules.parents[2]
    vmlinux = cache_folder() / "kernel" / f"vmlinux-{packed.release}-{fetched.parent.name}"
    if not vmlinux.exists():
        image = unpack(packed.path.read_bytes())
        if _PVH_NOTE not in image:
            return packed
        write_files(vmlinux.parent, {vmlinux.name: image})
    return replace(packed, path=vmlinux)


def packed_kernel(
    progress: Tell | None = None, metapackage: str = PACKAGE, release: str = ""
) -> Kernel:
    """Fetch a kernel as `kernel`, but its path is the bzImage that Debian ships.

    `release` is Debian's, such as "bookworm-backports"; default: the system's sources.
    """
    package = _current_package(metapackage, progress, release)
    fetched = debian.fetch((package,), progress, dependencies=False, release=release)
    name, version = package.removeprefix("linux-image-"), fetched.versions[package]
    bzimage = fetched.root / "boot" / f"vmlinuz-{name}"
    return Kernel(bzimage, version, name, fetched.root / "lib" / "modules" / name)


def _current_package(metapackage: str, progress: Tell | None, release: str) -> str:
    """Name the package of the current kernel; offline, the last one known."""
    note = cache_folder() / "kernel" / (f"{metapackage}-{release}" if release else metapackage)
    if note.exists() and time.time() - note.stat().st_mtime < debian.FRESH_S:
        return note.read_text()
    try:
        package = debian.dependency(metapackage, _RELEASE, progress, release)
    except debian.PackageError:
        if not note.exists():
            raise
        return note.read_text()
    write_files(note.parent, {note.name: package.encode()})
    return package


def unpack(bzimage: bytes) -> bytes:
    """Extract the ELF image from a bzImage.

    Raises
    ------
    GuestError
        If it is not a bzImage, or its compression is unknown.
    """
    # The x86 boot protocol: sectors of the real-mode part, then the payload's position after it.
    if bzimage[0x202:0x206] != b"HdrS":
        raise GuestError("its kernel is not a bzImage", hint="remove pmlkit's cache and try again")
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = ((bzimage[0x1F1] or 4) + 1) * 512 + offset
    payload = bzimage[start : start + length]
    for magic, method in _METHODS.items():
        if payload.startswith(magic):
            return method(payload)
    raise GuestError(
        f"its kernel is compressed with an unknown method ({payload[:4].hex()})",
        hint="use Debian 12's linux-image-cloud-amd64",
    )


def _xz(payload: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(payload)


def _gzip(payload: bytes) -> bytes:
    return gzip.decompress(payload[:-4])  # the length follows the compressed data


def _bz2(payload: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(payload)


def _lz4(payload: bytes) -> bytes:
    """Unpack lz4's legacy format: (length, block) repeated, then the kernel's own length."""
    import pyarrow

    codec = pyarrow.Codec("lz4_raw")
    (left,) = struct.unpack("<I", payload[-4:])
    at, parts = 4, []
    while left > 0:
        (length,) = struct.unpack_from("<I", payload, at)
        size = min(left, _LZ4_BLOCK)
        block = payload[at + 4 : at + 4 + length]
        parts.append(codec.decompress(block, decompressed_size=size, asbytes=True))
        at, left = at + 4 + length, left - size
    return b"".join(parts)


_METHODS = {
    b"\xfd7zXZ\0": _xz,
    b"\x02\x21\x4c\x18": _lz4,
    b"\x1f\x8b\x08": _gzip,
    b"BZh": _bz2,
}
