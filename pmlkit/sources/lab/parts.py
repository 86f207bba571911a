# SPDX-License-Identifier: Apache-2.0
"""The parts of the lab: Debian's packages, and Xen as Debian ships it or as we patch it.

Everything is fetched and unpacked into pmlkit's cache without root.
"""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import GuestError, MissingTool, output_error
from pmlkit.files import cache_folder
from pmlkit.sources.guest import debian
from pmlkit.sources.guest.kernel import Kernel
from pmlkit.sources.guest.kernel import kernel as guest_kernel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pmlkit.types import Tell


XEN_VERSION = "4.17.5+72-g01140da4e8-1"  # Xen of the stock lab, and source of the patched one
KERNEL_PACKAGE = "linux-image-amd64"
# Versions that `stock_xen` can fetch, with their releases of Debian. The newest 4.20 is used,
# because Debian's archive keeps no older ones.
STOCK = {"4.17": "", "4.20": "trixie"}
_XEN = (
    "xen-hypervisor-{0}-amd64", "xen-utils-{0}", "libxenmisc{0}", "libxencall1",
    "libxendevicemodel1", "libxenevtchn1", "libxenforeignmemory1", "libxengnttab1", "libxenhypfs1",
    "libxenstore4", "libxentoolcore1", "libxentoollog1", "xenstore-utils",
)  # fmt: skip
# Libraries that the tools of another release need, because dom0's C library is older.
_BENEATH = ("libbz2-1.0", "libc6", "liblzma5", "libuuid1", "libyajl2", "libzstd1", "zlib1g")
_DOM0 = (
    "busybox-static", "libbz2-1.0", "libc6", "libexpat1", "libffi8", "libgcc-s1", "liblzma5",
    "liblzo2-2", "libnl-3-200", "libnl-route-3-200", "libpython3.11-minimal",
    "libpython3.11-stdlib", "libuuid1", "libyajl2", "libzstd1", "python3-cffi-backend",
    "python3.11-minimal", "zlib1g",
)  # fmt: skip
# For making the boot medium, and for the emulated machine.
_MEDIUM = ("grub-common", "grub-pc-bin", "mtools", "xorriso")
_FIRMWARE = ("bochsbios", "vgabios")


@dataclass(frozen=True)
class Xen:
    """A Xen that the lab can boot.

    Attributes
    ----------
    binary : Path
        The hypervisor, uncompressed.
    roots : tuple of Path
        Folders with the tools and libraries as in ``/``; the first one that has a file wins.
    name : {"stock", "patched", "patched-debug"}
    packaged : str
        The version in the names of the folders of Debian's tools.
    """

    binary: Path
    roots: tuple[Path, ...]
    versions: dict[str, str]
    name: str
    packaged: str = "4.17"


def stock_xen(progress: Tell | None = None, version: str = "4.17") -> Xen:
    """Fetch Debian's own Xen.

    Parameters
    ----------
    version : {"4.17", "4.20"}
        Debian 12's, or Debian 13's with the C library that its tools need.

    Raises
    ------
    MissingTool, PackageError, OutputError
    """
    names, release = [name.format(version) for name in _XEN], STOCK[version]
    if release:
        names += _BENEATH
    else:
        names = [f"{name}={XEN_VERSION}" for name in names]
    fetched = debian.fetch(names, progress, dependencies=False, release=release)
    packed = fetched.root / "boot" / f"xen-{version}-amd64.gz"
    binary = cache_folder() / "lab" / f"xen-stock-{fetched.root.parent.name}"
    if not binary.exists():
        write(binary, gzip.decompress(packed.read_bytes()))
    versions = {"xen": fetched.versions[f"xen-hypervisor-{version}-amd64"]}
    return Xen(binary, (fetched.root,), versions, "stock", version)


def userland(progress: Tell | None = None) -> debian.Packages:
    """Fetch the packages that dom0 needs in addition to Xen."""
    return debian.fetch(_DOM0, progress, dependencies=False)


def kernel(progress: Tell | None = None) -> Kernel:
    """Fetch Debian's kernel for dom0, and create a stripped ELF file from it.

    It is unpacked here, because Xen would need minutes of emulated time to unpack a bzImage.

    Raises
    ------
    MissingTool, PackageError, OutputError
    """
    unpacked = guest_kernel(progress, KERNEL_PACKAGE)
    vmlinux = cache_folder() / "lab" / unpacked.path.name
    if not vmlinux.exists():
        need("strip", "binutils")
        fresh = vmlinux.with_name(vmlinux.name + ".new")
        write(fresh, unpacked.path.read_bytes())
        subprocess.run(["strip", "-s", str(fresh)], check=True)
        fresh.replace(vmlinux)
    return replace(unpacked, path=vmlinux)


def medium_tools() -> tuple[Path, dict[str, str]]:
    """Fetch grub-mkrescue and its dependencies; returns (folder, environment for it)."""
    skip = ("libc6", "dpkg", "perl-base", "debconf")
    root = debian.fetch(_MEDIUM, skip=skip).root
    return root, unpacked_environment(root)


def firmware() -> tuple[Path, Path]:
    """Fetch the emulated machine's BIOS and VGA BIOS; returns their paths."""
    share = debian.fetch(_FIRMWARE, dependencies=False).root / "usr" / "share"
    return share / "bochs" / "BIOS-bochs-latest", share / "vgabios" / "vgabios.bin"


def unpacked_environment(root: Path) -> dict[str, str]:
    """Return the variables with which programs of an unpacked package find each other."""
    folders = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
    programs = ("usr/bin", "bin", "usr/sbin", "sbin")
    return {
        "PATH": ":".join([*(str(root / p) for p in programs), "/usr/bin:/bin"]),
        "LD_LIBRARY_PATH": ":".join(str(root / f) for f in folders),
    }


def need(tool: str, package: str) -> str:
    """Return the path of a program; raise `MissingTool` if it is not installed."""
    path = shutil.which(tool)
    if not path:
        raise MissingTool(tool, package)
    return path


def write(path: Path, data: bytes) -> None:
    """Write a file of the cache atomically."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise output_error(path, error) from error


def module_closure(modules: Path, names: Iterable[str]) -> list[Path]:
    """Find kernel modules below ``/lib/modules/RELEASE``, with those that they need.

    Each comes after the modules that it needs, as insmod requires.
    """
    files = {p.name.split(".")[0].replace("-", "_"): p for p in modules.rglob("*.ko*")}
    ordered = []

    def visit(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None:
            raise GuestError(f"Debian's kernel has no module {name}", hint="report it")
        if path not in ordered:
            for needed in _depends(path):
                visit(needed)
            ordered.append(path)

    for name in names:
        visit(name)
    return ordered


def module_bytes(module: Path) -> bytes:
    """Return a kernel module, unpacked: Linux 6.12's packages contain compressed modules."""
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data


def _depends(module: Path) -> list[str]:
    # An entry of the section .modinfo, which is a list of texts that end with a zero byte.
    entry = re.search(rb"\0depends=([^\0]*)\0", module_bytes(module))
    return [name for name in entry[1].decode().split(",") if name] if entry else []
