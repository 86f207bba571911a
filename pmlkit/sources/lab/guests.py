# SPDX-License-Identifier: Apache-2.0
"""Guests of the lab: bare-metal programs with known answers, ELF files, Linux with a workload."""

from __future__ import annotations

import gzip
import io
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pmlkit.errors import UsageError, WorkloadError
from pmlkit.files import cache_folder
from pmlkit.recordings import PATCHES
from pmlkit.sources.guest.programs import compile_cached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pmlkit.types import Json, PathLike, Tell


FOLDER = PATCHES / "lab"
MEMORY_MIB = 64
LINUX_MEMORY_MIB = 256
LARGE_ARCHIVE = 48 << 20
_FLAGS = [
    "-m32", "-march=i686", "-O1", "-ffreestanding", "-fno-pic", "-nostdlib", "-fno-stack-protector",
    "-static", "-fno-asynchronous-unwind-tables", "-Wl,--build-id=none", "-Wl,-z,noexecstack",
]  # fmt: skip
_READY = b"KIT ready\n"  # printed by programs of the kit, which wait for a word in a mailbox
_HINT = "`pmlkit lab run --list` lists the guests"


@dataclass(frozen=True)
class LabGuest:
    """A guest that is ready to start.

    Attributes
    ----------
    kernel : Path
        A PVH ELF file.
    mailbox : bool
        Whether it is made with the kit: its rounds can run in lock step.
    regions : tuple of dict
        Known answers: ``name``, ``gfn``, ``pages``, ``kind``.
    """

    name: str
    kernel: Path
    summary: str = ""
    ramdisk: bytes | None = None
    cmdline: str = ""
    memory_mib: int = MEMORY_MIB
    vcpus: int = 1
    mailbox: bool = False
    regions: tuple[Json, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    linux: bool = False


def shipped() -> dict[str, Json]:
    """Return the descriptions of the bundled bare-metal guests, by name."""
    paths = sorted((FOLDER / "guests").glob("*.yaml"))
    return {path.stem: yaml.safe_load(path.read_text()) for path in paths}


def load(
    spec: PathLike,
    settings: Mapping[str, str] | None = None,
    progress: Tell | None = None,
    serial: bool = False,
) -> LabGuest:
    """Return the guest with a name, or from a file.

    Parameters
    ----------
    spec : str or Path
        A bundled guest, a C file for the kit, a PVH ELF file, or a recorder workload.
    settings : dict of str to str, optional
        Options of the guest or parameters of the workload.
    progress : callable, optional
    serial : bool
        Whether a Linux guest has serial ports, as in the KVM lab. Xen's PVH guests have none.

    Raises
    ------
    WorkloadError, UsageError, MissingTool, OutputError
    """
    spec, settings = str(spec), settings or {}
    if spec in shipped():
        description = {"options": {}, **shipped()[spec]}
        return _bare(spec, FOLDER / "guests" / f"{spec}.c", description, settings)
    path = Path(spec)
    if path.suffix == ".c" and path.is_file() and uses_kit(path):
        return _bare(path.stem, path, {"summary": f"the user's {path.name}"}, settings)
    if path.is_file() and path.read_bytes()[:4] == b"\x7fELF" and has_pvh_note(path):
        return LabGuest(
            path.stem,
            path,
            f"the user's {path.name}",
            cmdline=_words(settings),
            mailbox=_READY in path.read_bytes(),
        )
    return _linux(spec, settings, progress, serial)


def known_of(region: Json) -> dict[str, int]:
    """Return the known numbers of pages in a guest's region, by kind of access."""
    plain = {region.get("kind"): region["pages"]}
    known = region.get("known", plain)
    return {kind: known[kind] for kind in ("read", "written", "touched") if kind in known}


def uses_kit(path: PathLike) -> bool:
    """Whether a C file is for the bare-metal kit."""
    return '#include "kit.h"' in Path(path).read_text(errors="replace")


def _bare(name: str, source: Path, description: Json, settings: Mapping[str, str]) -> LabGuest:
    unknown = set(settings) - set(description.get("options", settings))
    if unknown:
        raise UsageError(f"the guest {name} has no option {sorted(unknown)[0]}", _HINT)
    return LabGuest(
        name,
        compile_guest(source),
        description.get("summary", ""),
        cmdline=_words(settings),
        memory_mib=description.get("memory_mib", MEMORY_MIB),
        vcpus=description.get("vcpus", 1),
        mailbox=True,
        regions=tuple(description.get("regions", ())),
    )


def _words(settings: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())


def compile_guest(source: Path) -> Path:
    """Compile a guest's C file with the kit; return the ELF file in the cache."""

    def failure(line: str) -> WorkloadError:
        return WorkloadError(source, line, "correct the C file")

    kit, source = FOLDER / "kit", Path(source)
    parts = [kit / "start.S", kit / "kit.c", source]
    script = kit / "pvh.ld"
    arguments = [*_FLAGS, f"-Wl,-T,{script}", f"-I{kit}", *map(str, parts)]
    elf = cache_folder() / "lab" / "guests" / f"{source.stem}.elf"
    return compile_cached(elf, arguments, [*parts, kit / "kit.h", script], failure)


def has_pvh_note(path: PathLike) -> bool:
    """Whether an ELF file has the note that lets Xen start it in PVH mode."""
    data = Path(path).read_bytes()
    # An entry address of 4 or 8 bytes follows: XEN_ELFNOTE_PHYS32_ENTRY is 18.
    return any(struct.pack("<III4s", 4, size, 18, b"Xen\0") in data for size in (4, 8))


def _linux(spec: str, settings: Mapping[str, str], progress: Tell | None, serial: bool) -> LabGuest:
    from pmlkit.sources.guest import workload
    from pmlkit.sources.guest.image import build as build_image

    try:
        chosen = workload.load(spec)
    except WorkloadError as error:
        names = ", ".join(shipped())
        raise WorkloadError(spec, f"it is not one of {names}, and not a workload", _HINT) from error
    if chosen.disk_mib:
        hint = "record it: `pmlkit record`"
        raise WorkloadError(spec, "it needs a disk, which the lab's guests do not have", hint)
    memory_mib = max(chosen.memory_mib, LINUX_MEMORY_MIB)
    image = build_image(chosen, settings, memory_mib=memory_mib, progress=progress)
    assert image.initrd is not None  # only a bare-metal guest has no RAM disk
    ramdisk = _packed(image.initrd.read_bytes())
    return LabGuest(
        chosen.name,
        image.kernel,
        chosen.summary,
        ramdisk=ramdisk if serial else ramdisk + _report_on_console(),
        cmdline=image.cmdline if serial else image.cmdline.replace("ttyS0", "hvc0"),
        memory_mib=memory_mib,
        versions=image.versions,
        linux=True,
    )


def _packed(archive: bytes) -> bytes:
    """Compress a large archive: while dom0 builds the guest, it has the archive in memory twice."""
    if len(archive) <= LARGE_ARCHIVE:
        return archive
    smaller = gzip.compress(archive, 1, mtime=0)
    return smaller + b"\0" * (-len(smaller) % 4)  # the next archive must start at a word


def _report_on_console() -> bytes:
    """Return an archive that replaces ``/init`` of the first one.

    It reports to hvc0, as a PVH guest has no serial port.
    """
    from pmlkit.sources.guest.cpio import Archive
    from pmlkit.sources.guest.programs import GUEST_SOURCES

    archive, stream = Archive(), io.BytesIO()
    text = (GUEST_SOURCES / "init").read_text().replace("/dev/ttyS1", "/dev/hvc0")
    archive.file("init", text.encode(), 0o755)
    archive.write(stream)
    return stream.getvalue()
