# SPDX-License-Identifier: Apache-2.0
"""What the lab can run as a guest: bare-metal programs with known answers, ELF files, Linux."""

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
    "-m32",
    "-march=i686",
    "-O1",
    "-ffreestanding",
    "-fno-pic",
    "-nostdlib",
    "-fno-stack-protector",
    "-static",
    "-fno-asynchronous-unwind-tables",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
]
_READY = b"KIT ready\n"  # what the kit says: a program that has it waits for a mailbox's word
_HINT = "`pmlkit lab run --list` names the guests"


@dataclass(frozen=True)
class LabGuest:
    """A guest, ready to be started.

    Attributes
    ----------
    name, summary : str
    kernel : Path
        A PVH ELF file.
    ramdisk : bytes or None
    cmdline : str
    memory_mib, vcpus : int
    mailbox : bool
        It is made with the kit: rounds can go in lock step.
    regions : tuple of dict
        name, gfn, pages, kind of what it is known to touch.
    versions : dict
    linux : bool
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
    """Return the bare-metal guests that ship: a dict of name to description (dict)."""
    found = sorted((FOLDER / "guests").glob("*.yaml"))
    return {path.stem: yaml.safe_load(path.read_text()) for path in found}


def load(
    spec: PathLike,
    settings: Mapping[str, str] | None = None,
    progress: Tell | None = None,
) -> LabGuest:
    """Make a guest of a name or a file.

    Parameters
    ----------
    spec : str or Path
        A shipped guest, a C file for the kit, a PVH ELF file, or a recorder workload.
    settings : dict of str to str, optional
        Options of the guest or parameters of the workload.
    progress : callable, optional

    Returns
    -------
    LabGuest

    Raises
    ------
    WorkloadError, UsageError, MissingTool, OutputError
    """
    spec, settings = str(spec), settings or {}
    if spec in shipped():
        told = {"options": {}, **shipped()[spec]}
        return _bare(spec, FOLDER / "guests" / f"{spec}.c", told, settings)
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
    return _linux(spec, settings, progress)


def known_of(region: Json) -> dict[str, int]:
    """Return what is known of a region of a guest's description: pages by kind of access."""
    plain = {region.get("kind"): region["pages"]}
    known = region.get("known", plain)
    return {kind: known[kind] for kind in ("read", "written", "touched") if kind in known}


def uses_kit(path: PathLike) -> bool:
    """Whether a C file is for the bare-metal kit."""
    return '#include "kit.h"' in Path(path).read_text(errors="replace")


def _bare(name: str, source: Path, told: Json, settings: Mapping[str, str]) -> LabGuest:
    unknown = set(settings) - set(told.get("options", settings))
    if unknown:
        raise UsageError(f"the guest {name} has no option {sorted(unknown)[0]}", _HINT)
    return LabGuest(
        name,
        compile_guest(source),
        told.get("summary", ""),
        cmdline=_words(settings),
        memory_mib=told.get("memory_mib", MEMORY_MIB),
        vcpus=told.get("vcpus", 1),
        mailbox=True,
        regions=tuple(told.get("regions", ())),
    )


def _words(settings: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())


def compile_guest(source: Path) -> Path:
    """Compile a guest's C file with the kit; returns the ELF file in the cache.

    Raises
    ------
    MissingTool
        If there is no gcc.
    WorkloadError
        If it does not compile.
    """

    def failure(line: str) -> WorkloadError:
        return WorkloadError(source, line, "correct the C file")

    kit, source = FOLDER / "kit", Path(source)
    parts = [kit / "start.S", kit / "kit.c", source]
    script = kit / "pvh.ld"
    arguments = [*_FLAGS, f"-Wl,-T,{script}", f"-I{kit}", *map(str, parts)]
    elf = cache_folder() / "lab" / "guests" / f"{source.stem}.elf"
    return compile_cached(elf, arguments, [*parts, kit / "kit.h", script], failure)


def has_pvh_note(path: PathLike) -> bool:
    """Whether an ELF file has the note by which Xen starts it in PVH mode."""
    return struct.pack("<II4s", 4, 18, b"Xen\0") in _without_size(Path(path).read_bytes())


def _without_size(data: bytes) -> bytes:
    # The note's descriptor may have 4 or 8 bytes: compare name size, type and name only.
    for size in (4, 8):
        data = data.replace(struct.pack("<III4s", 4, size, 18, b"Xen\0"), _PVH)
    return data


_PVH = struct.pack("<II4s", 4, 18, b"Xen\0")


def _linux(spec: str, settings: Mapping[str, str], progress: Tell | None) -> LabGuest:
    from pmlkit.sources.guest import workload
    from pmlkit.sources.guest.image import build as build_image

    try:
        chosen = workload.load(spec)
    except WorkloadError as error:
        names = ", ".join(shipped())
        raise WorkloadError(spec, f"it is none of {names}, and no workload", _HINT) from error
    memory_mib = max(chosen.memory_mib, LINUX_MEMORY_MIB)
    image = build_image(chosen, settings, memory_mib=memory_mib, progress=progress)
    assert image.initrd is not None  # only a bare-metal guest has none
    cmdline = image.cmdline.replace("console=ttyS0", "console=hvc0")
    return LabGuest(
        chosen.name,
        image.kernel,
        chosen.summary,
        ramdisk=_packed(image.initrd.read_bytes()) + _report_on_console(),
        cmdline=cmdline,
        memory_mib=memory_mib,
        versions=image.versions,
        linux=True,
    )


def _packed(archive: bytes) -> bytes:
    """Compress a large archive: dom0 has it in memory, twice while it builds the guest."""
    if len(archive) <= LARGE_ARCHIVE:
        return archive
    smaller = gzip.compress(archive, 1, mtime=0)
    return smaller + b"\0" * (-len(smaller) % 4)  # the archive after it starts at a word


def _report_on_console() -> bytes:
    """A second archive that lies over the first: a PVH guest has no serial port, only hvc0."""
    from pmlkit.sources.guest.cpio import Archive
    from pmlkit.sources.guest.programs import GUEST_SOURCES

    archive, stream = Archive(), io.BytesIO()
    text = (GUEST_SOURCES / "init").read_text().replace("/dev/ttyS1", "/dev/hvc0")
    archive.file("init", text.encode(), 0o755)
    archive.write(stream)
    return stream.getvalue()
