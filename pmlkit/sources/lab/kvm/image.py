# SPDX-License-Identifier: Apache-2.0
"""The KVM lab's host: Debian's unmodified kernel, and a root with Python, on a boot medium."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.files import cache_folder
from pmlkit.sources.guest.cpio import Archive
from pmlkit.sources.guest.kernel import packed_kernel
from pmlkit.sources.guest.programs import bytecode, compile_static
from pmlkit.sources.lab.bochs import fast_bochs
from pmlkit.sources.lab.boot import Lab
from pmlkit.sources.lab.image import add_libraries, add_python, rescue
from pmlkit.sources.lab.parts import module_bytes, module_closure, userland, write

if TYPE_CHECKING:
    from pmlkit.sources.guest.kernel import Kernel
    from pmlkit.types import Tell


# The host's Linux by Debian's release: 6.1 is in the system's sources.
KERNELS = {"6.1": "", "6.12": "bookworm-backports"}
HERE = Path(__file__).parent
_DISKS = ("ata_piix", "sd_mod")
_KVM = ("kvm-intel",)
_FOLDERS = ("proc", "sys", "dev", "tmp", "run", "var/log", "root")
# The emulated model states a TSC of 3.5 GHz, but it runs at 100 MHz.
CMDLINE = (
    "console=ttyS0 quiet tsc_early_khz=100000 tsc=reliable nokaslr mitigations=off no_timer_check "
    "init_on_alloc=0 audit=0 apparmor=0 nowatchdog panic=-1 nomodeset cryptomgr.notests"
)
_MENU = """\
set timeout=0
set gfxpayload=text
terminal_output console
menuentry lab {{
  linux /boot/vmlinuz {cmdline}
  initrd /boot/host.cpio
}}
"""


def assemble(linux: str, memory_mib: int, progress: Tell | None = None) -> Lab:
    """Fetch and build the parts of a KVM lab that are missing in the cache.

    Parameters
    ----------
    linux : str
        The host's Linux, one of `KERNELS`.
    memory_mib : int
        The machine's memory.

    Raises
    ------
    MissingTool, PackageError, GuestError, OutputError
    """
    kernel = packed_kernel(progress, release=KERNELS[linux])
    emulator = fast_bochs(progress)
    iso = medium(kernel, userland(progress).root, progress)
    versions = {"linux (host)": kernel.version, "bochs": emulator.version}
    return Lab(iso, emulator, memory_mib, versions)


def medium(kernel: Kernel, root: Path, progress: Tell | None = None) -> Path:
    """Return the path of the bootable medium (ISO), which is created unless it is in the cache."""
    menu = _MENU.format(cmdline=CMDLINE)
    host = initramfs(kernel, root)
    facts = [menu, hashlib.sha256(host).hexdigest(), kernel.version]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    iso = cache_folder() / "lab" / f"kvm-{digest}.iso"
    if not iso.exists():
        (progress or (lambda _: None))("making the boot medium")
        write(iso, rescue({"vmlinuz": kernel.path, "host.cpio": host}, menu, "linux"))
    return iso


def initramfs(kernel: Kernel, root: Path) -> bytes:
    """Return the host's root, an archive (cpio) of busybox, Python and kernel modules."""
    archive = Archive()
    for name in _FOLDERS:
        archive.folder(name)
    archive.file("bin/busybox", root / "bin" / "busybox", 0o755)
    archive.link("bin/sh", "busybox")
    archive.file("bin/port", compile_static(HERE / "port.c"), 0o755)
    add_libraries(archive, (root,))
    add_python(archive, root, bytecode(root))
    for file, names in (("order", _DISKS), ("kvm-order", _KVM)):
        ordered = module_closure(kernel.modules, names)
        for path in ordered:
            archive.file(f"mods/{_stem(path)}.ko", module_bytes(path))
        archive.file(f"mods/{file}", "\n".join(map(_stem, ordered)).encode())
    archive.file("init", HERE / "init", 0o755)
    stream = io.BytesIO()
    archive.write(stream)
    return stream.getvalue()


def _stem(module: Path) -> str:
    return module.name.split(".")[0]
