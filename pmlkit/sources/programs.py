# SPDX-License-Identifier: Apache-2.0
"""Programs for a guest: C files compiled statically, executables checked to be static."""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import MissingTool, WorkloadError, output_error
from pmlkit.shipped import CLONE, ROOT
from pmlkit.sources.qemu import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pmlkit.types import PathLike


GUEST_SOURCES = ROOT / "experiments" / "workloads" / "guest"
_FLAGS = ("-O2", "-static", "-pthread")
_X86_64, _PT_INTERP = 62, 3


def compile_static(source: Path) -> Path:
    """Compile a C file to a static program, once for each version of it and of its headers.

    Parameters
    ----------
    source : Path
        It may include ``pmlkit.h`` and the headers that lie beside it.

    Returns
    -------
    Path
        The program, in the cache.

    Raises
    ------
    MissingTool
        If there is no gcc.
    WorkloadError
        If it cannot be compiled: with gcc's first error.
    """
    if not shutil.which("gcc"):
        raise MissingTool("gcc", "gcc libc6-dev")
    source = Path(source).resolve()
    if not source.is_file():
        raise WorkloadError(source.name, f"there is no {source}", CLONE)
    # What the preprocessor returns holds all headers: it is what decides about the program.
    text = _gcc(source, "-E", "-o", "-")
    key = hashlib.sha256(" ".join(_FLAGS).encode() + _gcc_version() + text).hexdigest()[:16]
    program = cache_folder() / "programs" / f"{source.stem}-{key}"
    if program.exists():
        return program
    try:
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
            built = Path(scratch) / "program"
            _gcc(source, *_FLAGS, "-o", str(built), after=("-lm",))
            built.replace(program)
    except OSError as error:
        raise output_error(program.parent, error) from error
    return program


def _gcc(source: Path, *arguments: str, after: Iterable[str] = ()) -> bytes:
    # Run in the source's folder with its bare name, so that no path gets into the program.
    command = ["gcc", f"-I{GUEST_SOURCES}", *arguments, source.name, *after]
    done = subprocess.run(command, cwd=source.parent, capture_output=True)
    if done.returncode:
        said = done.stderr.decode(errors="replace").splitlines()
        first = next((line for line in said if "error" in line or "cannot find" in line), None)
        why = f"gcc says: {first or (said or ['nothing'])[0]}"
        raise WorkloadError(source.name, why, "mend the C file")
    return done.stdout


def _gcc_version() -> bytes:
    return subprocess.run(["gcc", "--version"], capture_output=True).stdout


def check_static(path: PathLike) -> None:
    """Refuse a file that a guest without libraries cannot execute.

    Raises
    ------
    WorkloadError
        If it is no x86-64 Linux executable, or needs a dynamic loader.
    """
    data = Path(path).read_bytes()
    if data[:4] != b"\x7fELF" or len(data) < 64:
        why = "it is neither an executable nor a C file (.c) nor a folder"
        raise WorkloadError(path, why, "for a script, write a folder with a workload.yaml")
    kind, machine = struct.unpack_from("<HH", data, 16)
    if data[4] != 2 or machine != _X86_64 or kind not in (2, 3):
        raise WorkloadError(path, "it is no program for 64-bit x86", "compile it with gcc -static")
    if _PT_INTERP in _segments(data):
        why = "it is linked dynamically, and the guest has no libraries"
        hint = "link it with gcc -static, or give the .c file"
        raise WorkloadError(path, why, hint)


def _segments(data: bytes) -> list[int]:
    """Return the types of an ELF file's segments."""
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    inside = range(start, min(start + size * count, len(data) - 4), size) if size else ()
    return [struct.unpack_from("<I", data, at)[0] for at in inside]
