# SPDX-License-Identifier: Apache-2.0
"""Programs for a guest: C files compiled statically, and a check that executables are static."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import shutil
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import MissingTool, WorkloadError, output_error
from pmlkit.files import cache_folder, open_regular, scratch_folder
from pmlkit.recordings import CLONE, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pmlkit.types import PathLike, Tell


GUEST_SOURCES = ROOT / "experiments" / "workloads" / "guest"
# Only our flags link: an assembler section could contain options for the linker's plugin.
_FLAGS = ("-O2", "-static", "-pthread", "-fno-use-linker-plugin")
# gcc trusts a precompiled header, and uses one only for the first header that it reads.
_NO_PRECOMPILED = ("-include", os.devnull)
_X86_64, _PT_INTERP = 62, 3
_PROGRAM_BYTES = 1 << 30
_STEP_S, _OUTPUT_BYTES = 120, 256 << 20  # limits of each step; a macro can expand without end


def compile_cached(
    target: Path,
    arguments: Sequence[str],
    inputs: Sequence[Path],
    failure: Callable[[str], Exception],
) -> Path:
    """Compile with gcc, once for each version of `arguments` and of the files that gcc reads.

    A digest of both is added to the name of `target`. `failure` creates the exception from gcc's
    first error.
    """
    contents = [" ".join(arguments).encode(), *(path.read_bytes() for path in inputs)]
    digest = hashlib.sha256(b"\0".join(contents)).hexdigest()[:16]
    target = target.with_name(f"{target.stem}-{digest}{target.suffix}")
    if target.exists():
        return target
    _need_gcc()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            built = Path(scratch) / target.name
            command = ["gcc", "-o", str(built), *arguments]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode:
                lines = result.stderr.splitlines()
                errors = [line for line in lines if "error" in line or "undefined" in line]
                raise failure((errors or lines or ["gcc failed"])[0])
            built.replace(target)  # atomic: two processes may build it at once
    except OSError as error:
        raise output_error(target.parent, error) from error
    return target


def _need_gcc() -> None:
    if not shutil.which("gcc"):
        raise MissingTool("gcc", "gcc libc6-dev")


def compile_static(source: Path) -> Path:
    """Compile a C file to a static program, once for each version of it and of its headers.

    The compiler runs on this machine, with the user's rights. No file name that looks like an
    option reaches it. It may read the source's folder, our headers and the system's headers. A
    source that reads any other file, as a header or from assembler, is refused.

    Parameters
    ----------
    source : Path
        It may include ``pmlkit.h`` and headers in its own folder.

    Returns
    -------
    Path
        The program, in the cache.

    Raises
    ------
    MissingTool
        If there is no gcc.
    WorkloadError
        If it cannot be compiled (with gcc's first error), or reads another file.
    """
    _need_gcc()
    source = Path(source).resolve()
    if not source.is_file():
        raise WorkloadError(source.name, f"there is no {source}", CLONE)
    if source.suffix != ".c":
        raise WorkloadError(source.name, "it is not a C file", "give it a name that ends in .c")
    if source.name.startswith(("-", "@")):
        # gcc passes its bare name on to the compiler, as the name of the output.
        why = "gcc would read its name as options, or as a file of options"
        raise WorkloadError(source.name, why, "give it another name")
    try:
        programs = cache_folder() / "programs"
        programs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=programs) as scratch:
            return _compile_static(source, programs, Path(scratch))
    except OSError as error:
        raise output_error(programs, error) from error


def _compile_static(source: Path, programs: Path, scratch: Path) -> Path:
    """Compile a source in a scratch folder, unless the cache has its program."""
    # The preprocessor's output holds all headers: its digest identifies the program.
    text = scratch / "text.i"
    listed = _gcc(source, scratch, "-E", "-H", "-o", str(text))
    _refuse_outside(source, re.findall(r"^[.!x]+ (.+)$", listed, re.MULTILINE))
    key = hashlib.sha256(" ".join(_FLAGS).encode() + _gcc_version())
    key.update(text.read_bytes())
    program = programs / f"{source.stem}-{key.hexdigest()[:16]}"
    if program.exists():
        return program
    built, read = scratch / "program", scratch / "read"
    _gcc(source, scratch, *_FLAGS, f"-Wa,--MD,{read}", "-o", str(built), after=("-lm",))
    _refuse_outside(source, _dependencies(read.read_text(errors="surrogateescape")), scratch)
    built.replace(program)
    return program


def _gcc(source: Path, scratch: Path, *arguments: str, after: Iterable[str] = ()) -> str:
    """Run gcc and return its stderr."""
    # Run in the source's folder with its bare name, so that the program contains no path.
    command = ["gcc", f"-I{GUEST_SOURCES}", *_NO_PRECOMPILED, *arguments, f"./{source.name}"]
    environment = os.environ | {"TMPDIR": str(scratch), "LC_ALL": "C"}
    try:
        result = subprocess.run(
            [*command, *after],
            cwd=source.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=_STEP_S,
            preexec_fn=_limit,
        )
    except subprocess.TimeoutExpired as error:
        why = f"gcc did not finish within {_STEP_S} s"
        raise WorkloadError(source.name, why, "check the files that the C file includes") from error
    messages = result.stderr.decode(errors="surrogateescape")
    if result.returncode:
        headers = re.findall(r"^[.!x]+ (.+)$", messages, re.MULTILINE)
        places = re.findall(r"^([^:\n]+):\d+:", messages, re.MULTILINE)
        _refuse_outside(source, [*headers, *places], scratch)
        lines = [line for line in messages.splitlines() if not re.match(r"[.!x]+ ", line)]
        first = next((n for n in lines if "rror" in n or "cannot find" in n), None)
        why = f"gcc reports: {(first or (lines or ['nothing'])[0]).removeprefix('./')}"
        raise WorkloadError(source.name, why, "fix the C file")
    return messages


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (_OUTPUT_BYTES, _OUTPUT_BYTES))


def _dependencies(rule: str) -> list[str]:
    """Return the dependencies of a make rule that the assembler wrote."""
    names = re.split(r"(?<!\\)\s+", rule.partition(":")[2].replace("\\\n", " "))
    return [name.replace("\\ ", " ") for name in names if name]


def _refuse_outside(source: Path, names: Iterable[str], *allowed: Path) -> None:
    """Refuse a source that reads a file outside its folder, our headers and the system's."""
    inside = [source.parent, GUEST_SOURCES, *allowed, *_system_headers()]
    homes = tuple(os.path.join(os.path.realpath(folder), "") for folder in inside)
    for name in names:
        path = os.path.realpath(source.parent / name)
        if path != os.devnull and name != "{standard input}" and not path.startswith(homes):
            why = f"it reads {path}, which is outside of its folder"
            raise WorkloadError(source.name, why, "remove that, or copy the file to its folder")


@cache
def _system_headers() -> tuple[Path, ...]:
    command = ["gcc", "-E", "-v", "-x", "c", os.devnull]
    result = subprocess.run(command, capture_output=True, env=os.environ | {"LC_ALL": "C"})
    listed = result.stderr.decode(errors="surrogateescape").partition("search starts here:")[2]
    return tuple(Path(line.strip()) for line in listed.splitlines() if line.startswith(" /"))


def _gcc_version() -> bytes:
    return subprocess.run(["gcc", "--version"], capture_output=True).stdout


def check_static(path: PathLike) -> None:
    """Refuse a file that a guest without libraries cannot execute.

    Raises
    ------
    WorkloadError
        If it is not an x86-64 Linux executable, or needs a dynamic loader.
    """
    with open_regular(path, _PROGRAM_BYTES) as file:
        data = file.read(_PROGRAM_BYTES)
    if data[:4] != b"\x7fELF" or len(data) < 64:
        why = "it is neither an executable nor a C file (.c) nor a folder"
        raise WorkloadError(path, why, "for a script, write a folder with a workload.yaml")
    kind, machine = struct.unpack_from("<HH", data, 16)
    if data[4] != 2 or machine != _X86_64 or kind not in (2, 3):
        raise WorkloadError(
            path, "it is not a program for 64-bit x86", "compile it with gcc -static"
        )
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


# ------------------------------------------------------------------------------
# Python's byte code for a guest that has Python.
#
# Debian's packages compile it when they are installed. In the emulated guest, ``import numpy``
# would compile for most of a minute. So the guest's own Python compiles here, once.


_SKIP = r"/(tests?|lib2to3|idlelib|turtledemo|ensurepip|f2py|distutils|pydoc_data|bad_.*\.py)/"


def bytecode(root: Path, progress: Tell | None = None) -> Path | None:
    """Compile the Python modules of the unpacked packages in `root`, which is only read.

    Returns
    -------
    Path or None
        A folder next to `root` with the compiled files where Python looks for them; None if `root`
        has no Python. The folder is empty if its Python does not run on this machine: the guest
        then compiles the modules itself.
    """
    pythons = sorted((root / "usr" / "bin").glob("python3.[0-9]*[0-9]"))
    if not pythons:
        return None
    folder = root.with_name("bytecode")
    if folder.is_dir():
        return folder
    if progress:
        progress("compiling the guest's Python modules")
    try:
        with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
            _compile_modules(root, pythons[0], Path(scratch) / "cache")
            compiled, new = Path(scratch) / "cache" / root.relative_to("/"), Path(scratch) / "new"
            _move_to_pycache(compiled, new)
            new.replace(folder)
    except OSError as error:
        raise output_error(folder, error) from error
    return folder


def _compile_modules(root: Path, python: Path, cache: Path) -> None:
    libraries = [root / "usr" / "lib" / python.name, root / "usr" / "lib" / "python3"]
    _compile_all(root, python, [*("-x", _SKIP, "-s", root, "-p", "/"), *libraries], cache)


def _compile_all(
    root: Path, python: Path, arguments: Sequence[PathLike], cache: Path | None = None
) -> None:
    """Run the guest's Python with the guest's loader and libraries, not this machine's."""
    libraries = [root / place / "x86_64-linux-gnu" for place in ("lib", "usr/lib")]
    command: list[PathLike] = [libraries[0] / "ld-linux-x86-64.so.2", "--library-path"]
    command += [":".join(map(str, libraries)), python, "-m", "compileall", "-qq"]
    # unchecked-hash: the archive's times differ from those of this machine's files.
    command += ["--invalidation-mode", "unchecked-hash", *arguments]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        "PYTHONHOME": str(root / "usr"),
        "PYTHONHASHSEED": "0",  # the same bytes each time
    }
    if cache:
        environment["PYTHONPYCACHEPREFIX"] = str(cache)
    subprocess.run(command, env=environment, capture_output=True)


def with_bytecode(files: Mapping[str, bytes], root: Path) -> dict[str, bytes]:
    """Return Python modules by path, together with their byte code from the Python in `root`.

    If its Python does not run on this machine, the result has only the modules.
    """
    python = next(iter(sorted((root / "usr" / "bin").glob("python3.[0-9]*[0-9]"))))
    with scratch_folder() as scratch:
        folder = Path(scratch)
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        _compile_all(root, python, [*("-s", folder, "-p", "/"), folder])
        compiled = {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.pyc")
        }
    return {**files, **compiled}


def _move_to_pycache(cache: Path, target: Path) -> None:
    """Move each compiled file from the parallel tree to a __pycache__ of its module's folder."""
    target.mkdir()
    for path in sorted(cache.rglob("*.pyc")):
        place = target / path.parent.relative_to(cache) / "__pycache__"
        place.mkdir(parents=True, exist_ok=True)
        shutil.move(path, place / path.name)
