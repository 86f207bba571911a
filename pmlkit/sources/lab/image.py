# SPDX-License-Identifier: Apache-2.0
"""dom0's root (an initramfs) and the medium that boots Xen with it."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import GuestError
from pmlkit.files import cache_folder, scratch_folder
from pmlkit.recordings import PATCHES
from pmlkit.sources.guest.cpio import Archive
from pmlkit.sources.lab.parts import medium_tools, module_closure, write

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pmlkit.sources.guest.kernel import Kernel
    from pmlkit.sources.lab.parts import Xen
    from pmlkit.types import Tell


LAB = PATCHES / "lab"
# apicv=0: Bochs 3.0 rejects the address of Xen's posted-interrupt descriptor. no-avx512f: Bochs 2.7
# computes some AVX-512 instructions wrongly, so that xenstored crashes in the C library.
XEN_CMDLINE = (
    "vga=text-80x25 loglvl=all guest_loglvl=all dom0_mem={dom0}M,max:{dom0}M dom0_max_vcpus=1 "
    "noreboot bootscrub=0 spec-ctrl=no xpti=no tsc=unstable apicv=0 dom0-cpuid=no-avx512f"
)
_MODULES = (
    "xen-privcmd", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xenfs", "crct10dif_generic",
    "crc64_rocksoft_generic", "ata_piix", "sd_mod",
)  # fmt: skip
_FOLDERS = (
    "proc", "sys", "dev", "tmp", "run/xenstored", "run/xen", "var/run/xen", "var/lib/xen",
    "var/lib/xenstored", "var/lock", "var/log/xen", "etc/xen", "usr/lib/xen-4.17/bin",
)  # fmt: skip
_PROGRAMS = (
    "xl", "xenstored", "xenconsoled", "xen-init-dom0", "xenstore-exists", "xenstore-ls",
    "xenstore-write",
)  # fmt: skip
_LIBRARY_FOLDERS = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/local/lib")
_PROGRAM_FOLDERS = (
    "usr/lib/xen/bin", "usr/lib/xen-4.17/bin", "usr/lib/xen-4.20/bin", "usr/local/lib/xen/bin",
    "usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin",
)  # fmt: skip
_PYTHON = Path("usr/lib/python3.11")
_DYNLOAD = ("mmap", "_json", "_ctypes", "_hashlib", "termios")
_NO_PYTHON = (
    "test", "distutils", "pydoc_data", "lib2to3", "ensurepip", "idlelib", "tkinter", "unittest",
    "asyncio", "xml", "email", "http", "sqlite3", "multiprocessing", "curses", "dbm", "wsgiref",
    "turtledemo", "venv", "xmlrpc", "concurrent", "zoneinfo", "tomllib",
)  # fmt: skip


def initramfs(xen: Xen, userland: Path, kernel: Kernel) -> bytes:
    """Return dom0's root, an archive (cpio) of Xen's tools, Python and kernel modules."""
    roots = (*xen.roots, userland)
    archive = Archive()
    for name in _FOLDERS:
        archive.folder(name)
    archive.file("bin/busybox", userland / "bin" / "busybox", 0o755)
    archive.link("bin/sh", "busybox")
    for name in _PROGRAMS:
        archive.file(f"bin/{name}", _find(roots, _PROGRAM_FOLDERS, name), 0o755)
    helper = _find(roots, _PROGRAM_FOLDERS, "libxl-save-helper")
    archive.file("usr/lib/xen-4.17/bin/libxl-save-helper", helper, 0o755)
    # Our build of the tools searches here: it lacks Debian's patch that renames this folder.
    archive.link("usr/lib/xen/bin/libxl-save-helper", "/usr/lib/xen-4.17/bin/libxl-save-helper")
    if xen.packaged != "4.17":
        folder = f"usr/lib/xen-{xen.packaged}/bin"
        archive.link(f"{folder}/libxl-save-helper", "/usr/lib/xen/bin/libxl-save-helper")
    add_libraries(archive, roots)
    add_python(archive, userland)
    _add_modules(archive, kernel)
    archive.file("etc/xen/xl.conf", b"")
    archive.file("init", LAB / "dom0" / "init", 0o755)
    stream = io.BytesIO()
    archive.write(stream)
    return stream.getvalue()


def _find(roots: Sequence[Path], folders: Iterable[str], name: str) -> Path:
    for root in roots:
        for folder in folders:
            if (root / folder / name).is_file():
                return root / folder / name
    raise GuestError(
        f"the lab's packages contain no {name}", hint="remove pmlkit's cache, try again"
    )


def add_libraries(archive: Archive, roots: Sequence[Path]) -> None:
    """Add the shared libraries of all roots; the first root that has a name wins."""
    names = set()
    for root in roots:
        for folder in _LIBRARY_FOLDERS:
            for path in sorted((root / folder).glob("*.so*")):
                if path.name not in names and not path.is_dir():
                    names.add(path.name)
                    archive.copy(path, f"usr/lib/x86_64-linux-gnu/{path.name}")
    loader = _find(roots, _LIBRARY_FOLDERS, "ld-linux-x86-64.so.2")
    archive.file("usr/lib64/ld-linux-x86-64.so.2", loader, 0o755)


def add_python(archive: Archive, userland: Path, compiled: Path | None = None) -> None:
    """Add Python, with the modules of its library that an agent needs.

    `compiled` is a folder with their byte code (`programs.bytecode`).
    """
    archive.file("bin/python3", userland / "usr" / "bin" / "python3.11", 0o755)
    for path in sorted((userland / _PYTHON).rglob("*")):
        inside = path.relative_to(userland / _PYTHON)
        if path.is_file() and inside.parts[0] not in _NO_PYTHON and _wanted(path):
            archive.file(str(_PYTHON / inside), path)
    for path in sorted((compiled / _PYTHON).rglob("*.pyc")) if compiled else ():
        inside = path.relative_to(compiled / _PYTHON) if compiled else path
        if inside.parts[0] not in _NO_PYTHON:
            archive.file(str(_PYTHON / inside), path)
    for path in (userland / "usr/lib/python3/dist-packages").glob("_cffi_backend*.so"):
        archive.file(str(_PYTHON / path.name), path)


def _wanted(path: Path) -> bool:
    if "lib-dynload" in path.parts:
        return path.name.split(".")[0] in _DYNLOAD
    return path.suffix == ".py" and "config-3.11" not in str(path)


def _add_modules(archive: Archive, kernel: Kernel) -> None:
    ordered = module_closure(kernel.modules, _MODULES)
    for path in ordered:
        archive.file(f"mods/{path.name}", path)
    archive.file("mods/order", "\n".join(path.stem for path in ordered).encode())


def medium(
    xen: Xen,
    userland: Path,
    kernel: Kernel,
    xen_cmdline: str,
    dom0_mib: int,
    progress: Tell | None = None,
) -> Path:
    """Return the path of the bootable medium (ISO), which is created unless it is in the cache.

    `xen_cmdline` is added to the lab's own command line of Xen.
    """
    cmdline = f"{XEN_CMDLINE.format(dom0=dom0_mib)} {xen_cmdline}".strip()
    menu = (LAB / "grub.cfg.in").read_text().replace("@XEN@", cmdline).replace("@LINUX@", "")
    root = initramfs(xen, userland, kernel)
    facts = [menu, hashlib.sha256(root).hexdigest(), kernel.path.name]
    facts += [hashlib.sha256(xen.binary.read_bytes()).hexdigest()]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    iso = cache_folder() / "lab" / f"lab-{digest}.iso"
    if not iso.exists():
        (progress or (lambda _: None))("making the boot medium")
        files: dict[str, Path | bytes] = {
            "xen": xen.binary,
            "vmlinux": kernel.path,
            "dom0.cpio": root,
        }
        write(iso, rescue(files, menu, "multiboot"))
    return iso


def rescue(files: Mapping[str, Path | bytes], menu: str, loader: str) -> bytes:
    """Return a bootable medium (ISO) with these files in ``/boot``.

    Parameters
    ----------
    menu : str
        GRUB's configuration.
    loader : str
        GRUB's module that boots the menu's entry.

    Raises
    ------
    GuestError
    """
    tools, environment = medium_tools()
    with scratch_folder() as scratch:
        boot = Path(scratch) / "iso" / "boot"
        (boot / "grub").mkdir(parents=True)
        for name, content in {**files, "grub/grub.cfg": menu.encode()}.items():
            if isinstance(content, bytes):
                (boot / name).write_bytes(content)
            else:
                shutil.copy(content, boot / name)
        iso = Path(scratch) / "lab.iso"
        command = [
            *("grub-mkrescue", f"--directory={tools}/usr/lib/grub/i386-pc"),
            *("--fonts=", "--themes=", "--locales=", f"--install-modules={loader} iso9660 normal"),
            *("-o", str(iso), str(Path(scratch) / "iso")),
        ]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        if result.returncode or not iso.exists():
            last = (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise GuestError(f"grub-mkrescue cannot make the boot medium: {last}")
        return iso.read_bytes()
