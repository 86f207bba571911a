# SPDX-License-Identifier: Apache-2.0
"""The guest: Debian's kernel, and an initramfs of busybox and a workload."""

from __future__ import annotations

import fnmatch
import hashlib
import re
import shlex
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import GuestError, output_error
from pmlkit.files import cache_folder
from pmlkit.sources.guest import debian, programs
from pmlkit.sources.guest.cpio import Archive
from pmlkit.sources.guest.kernel import NVDIMM, VIRTIO_BLK, kernel
from pmlkit.sources.guest.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pmlkit.sources.guest.kernel import Kernel
    from pmlkit.types import Json, Tell


SAMPLE_MS = 100  # interval of the guest's reports of its memory
# console: the kernel's and the workload's output. nokaslr: the same frames each time. panic: end
# at once. rootfstype: no limit on the size of the image's files. The rest shortens the emulated
# boot: no mitigations, no self-tests, no probing for absent devices.
CMDLINE = (
    "console=ttyS0 quiet nokaslr panic=-1 rootfstype=ramfs mitigations=off tsc=reliable "
    "no_timer_check 8250.nr_uarts=2 nowatchdog audit=0 selinux=0 apparmor=0 "
    "rcupdate.rcu_expedited=1 cryptomgr.notests "
    "initcall_blacklist=load_system_certificate_list,init_kprobe_trace"
)
MOUNT_DISK = "usr/bin/mount-disk"
_KEPT_S = 24 * 3600
# The disk's frames are above 4 GiB. The kernel would reserve 64 MiB to copy the data of devices
# that cannot reach those, and the guest has none.
_DISK_CMDLINE = "swiotlb=noforce"
_DISK_RECORDS = 64  # MiB of a disk for which Linux keeps one MiB of records in the guest's memory
_KERNEL_MIB = 64  # end of its image in guest-physical memory, and memory that it sets up at boot


@dataclass(frozen=True)
class GuestImage:
    """The files that QEMU boots.

    Attributes
    ----------
    kernel : Path
    initrd : Path or None
        None for a bare-metal guest.
    cmdline : str
        The kernel's command line.
    versions : dict of str to str
        Debian's version of the kernel and of every package in the image.
    workload : Workload
        With the parameters of this run.
    """

    kernel: Path
    initrd: Path | None
    cmdline: str
    versions: Json
    workload: Workload


def build(
    workload: Workload,
    params: Mapping[str, str] | None = None,
    memory_mib: int | None = None,
    extra_cmdline: str = "",
    progress: Tell | None = None,
    swap: bool = False,
) -> GuestImage:
    """Build a guest that boots, runs a workload and switches itself off.

    Parameters
    ----------
    params : dict of str to str, optional
        Parameters of the workload.
    memory_mib : int, optional
        The guest's memory, for a check against the image's size; default: the workload's.
    extra_cmdline : str
        Added to the kernel's command line.
    progress : callable, optional
        Called with a line of text before each slow step.
    swap : bool
        Add the drivers of a virtio disk, which the guest then uses for swap.

    Returns
    -------
    GuestImage
        Its initrd is in the cache; the same workload and packages give the same bytes.

    Raises
    ------
    MissingTool, GuestError, WorkloadError, OutputError
    """
    workload = workload.with_parameters(params or {})
    linux = kernel(progress)
    busybox = debian.fetch(("busybox-static",), progress, dependencies=False)
    packages = _packages(workload, progress)
    archive = Archive()
    _add_base(archive, busybox.root / "bin" / "busybox")
    if packages:
        drop = _drop(workload.prune, workload.keep)
        _add_packages(archive, packages.root, drop, progress)
    _add_workload(archive, workload)
    if swap:
        _add_drivers(archive, "lib/modules", linux.drivers(VIRTIO_BLK))
    if workload.disk_mib:
        _add_disk(archive, linux)
    _check_memory(workload, archive, memory_mib or workload.memory_mib)
    versions = {"linux": linux.version, **busybox.versions}
    disk_cmdline = _DISK_CMDLINE if workload.disk_mib else ""
    return GuestImage(
        kernel=linux.path,
        initrd=_write(archive, workload.name),
        cmdline=" ".join(filter(None, [CMDLINE, disk_cmdline, extra_cmdline])),
        versions=versions | (packages.versions if packages else {}),
        workload=workload,
    )


def _packages(workload: Workload, progress: Tell | None) -> debian.Packages | None:
    if not workload.packages:
        return None
    skip = NOT_INSTALLED - set(workload.packages)
    return debian.fetch(workload.packages, progress, skip=skip, release=workload.release)


def _add_packages(
    archive: Archive, root: Path, drop: Callable[[str], bool], progress: Tell | None
) -> None:
    archive.tree(root, drop=drop)
    if bytecode := programs.bytecode(root, progress):
        archive.tree(bytecode, drop=lambda path: drop(path.replace("/__pycache__", "")))


def _add_base(archive: Archive, busybox: Path) -> None:
    """Add busybox with its applets, /init, and the few files that programs expect."""
    for name in ("dev", "proc", "sys", "run", "root", "var/run", "var/tmp", "var/lib", "work"):
        archive.folder(name)
    archive.folder("tmp", 0o1777)
    archive.file("usr/bin/busybox", busybox, 0o755)
    for applet in _applets(busybox):
        archive.link(f"usr/bin/{applet}", "busybox")
    archive.file("init", programs.GUEST_SOURCES / "init", 0o755)
    pmlguest = programs.compile_static(programs.GUEST_SOURCES / "pmlguest.c")
    archive.file("usr/bin/pmlguest", pmlguest, 0o755)
    archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    archive.file("etc/group", b"root:x:0:\n")
    archive.file("etc/hosts", b"127.0.0.1 localhost guest\n")
    archive.file("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files\n")


def _add_drivers(archive: Archive, folder: str, modules: Iterable[Path]) -> None:
    """Add modules of the kernel, numbered in the order in which they have to be loaded."""
    for number, module in enumerate(modules):
        archive.file(f"{folder}/{number}-{module.name}", module.read_bytes())


def _add_disk(archive: Archive, linux: Kernel) -> None:
    """Add the disk's mount point and drivers, and the script that sets it up.

    The script is not part of /init: guests without a disk keep their images, to the bit.
    """
    archive.folder("disk")
    _add_drivers(archive, "lib/disk", linux.drivers(NVDIMM))
    archive.file(MOUNT_DISK, programs.GUEST_SOURCES / "mount-disk", 0o755)


def _applets(busybox: Path) -> list[str]:
    try:
        result = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = f"Debian's busybox does not run on this machine: {error}"
        raise GuestError(why, hint="use a 64-bit x86 Linux machine") from error
    return [name for name in result.stdout.split() if name != "busybox"]


def _add_workload(archive: Archive, workload: Workload) -> None:
    for source in workload.sources:
        archive.file(f"work/{source.stem}", programs.compile_static(source), 0o755)
    for path in workload.files:
        archive.copy(path, f"work/{path.name}")
        if path.is_dir():
            archive.tree(path, f"work/{path.name}")
    archive.file("etc/pmlkit.parameters", _shell_variables(workload).encode())


def _shell_variables(workload: Workload) -> str:
    values: Json = {"PMLKIT_COMMAND": workload.command, "PMLKIT_SAMPLE_MS": SAMPLE_MS}
    if prepare := _preparations(workload):
        values["PMLKIT_PREPARE"] = prepare
    values |= {name: parameter.default for name, parameter in workload.parameters.items()}
    return "".join(f"export {name}={shlex.quote(str(v))}\n" for name, v in values.items())


def _preparations(workload: Workload) -> str:
    """Return the shell commands that run before the recording begins."""
    if not workload.disk_mib:
        return workload.prepare
    return f"/{MOUNT_DISK} || exit\n{workload.prepare}".strip()


def _check_memory(workload: Workload, archive: Archive, memory_mib: int) -> None:
    """Refuse memory that is too small for both the archive and its unpacked files."""
    least = _KERNEL_MIB + 2 * (archive.size() >> 20) + 24 + workload.disk_mib // _DISK_RECORDS
    if memory_mib < least:
        raise GuestError(
            f"{workload.name} cannot boot in {memory_mib} MiB",
            hint=f"give it --memory {-(-least // 32) * 32} or more",
        )


def _write(archive: Archive, name: str) -> Path:
    """Write the archive to the cache, under a name with its digest."""
    folder = cache_folder() / "images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_old(folder)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            partial = Path(scratch) / "initrd"
            with open(partial, "w+b") as stream:
                archive.write(stream)
                stream.seek(0)
                digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
            name = re.sub(r"[^\w.-]", "_", name)
            return partial.replace(folder / f"{name}-{digest}.cpio")
    except OSError as error:
        raise output_error(folder, error) from error


def _remove_old(folder: Path) -> None:
    """Remove images older than a day: they are large, and quickly rebuilt."""
    for path in folder.glob("*.cpio"):
        if time.time() - path.stat().st_mtime > _KEPT_S:
            path.unlink(missing_ok=True)


# ------------------------------------------------------------------------------
# Files that a guest does not need. They would cost memory, and time to unpack under emulation.


# Dependencies that only a package's installation uses: nothing is installed in the guest.
NOT_INSTALLED = frozenset([
    "adduser", "apt", "base-files", "debconf", "debianutils", "dpkg", "gpgv", "init-system-helpers",
    "install-info", "libaudit-common", "libaudit1", "libcap-ng0", "libdb5.3",
    "libfile-find-rule-perl", "libgdbm-compat4", "libgdbm6", "libnumber-compare-perl",
    "libpam-modules", "libpam-modules-bin", "libpam-runtime", "libpam0g", "libperl5.36",
    "libsemanage-common", "libsemanage2", "libsepol2", "libtext-glob-perl", "lsb-base", "mailcap",
    "media-types", "netbase", "passwd", "perl", "perl-base", "perl-modules-5.36", "readline-common",
    "sysvinit-utils", "tar", "tzdata", "usrmerge",
])  # fmt: skip
_SHARED = (
    "applications", "bash-completion", "bug", "debhelper", "doc", "doc-base", "gdb", "info",
    "lintian", "locale", "man", "menu", "pixmaps", "zsh",
)  # fmt: skip
_PATTERNS = (
    *(f"usr/share/{name}" for name in _SHARED),
    *(f"usr/lib/{name}" for name in ("init", "systemd", "sysusers.d", "tmpfiles.d")),
    *(f"usr/lib/x86_64-linux-gnu/{name}" for name in ("audit", "gconv")),
    *(f"etc/{name}" for name in ("alternatives", "apt", "cron.*", "init.d", "logrotate.d")),
    *("*/__pycache__", "usr/bin/perl*", "usr/sbin/iconvconfig", "var/*"),
)


def _drop(patterns: Iterable[str], keep: Iterable[str] = ()) -> Callable[[str], bool]:
    """Return whether the guest can do without a path; ``*`` in `patterns` matches slashes, too.

    A path that `keep` matches stays.
    """
    everything, kept = (*_PATTERNS, *patterns), tuple(keep)

    def matches(path: str, among: tuple[str, ...]) -> bool:
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in among)

    return lambda path: matches(path, everything) and not matches(path, kept)
