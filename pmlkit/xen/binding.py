# SPDX-License-Identifier: Apache-2.0
"""Xen's libraries through cffi, without a compiler: loaded when first used."""

from __future__ import annotations

import contextlib
import io
import os
from functools import cache
from glob import glob
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pmlkit.errors import MissingTool, PmlkitError

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from cffi import FFI

    from pmlkit.types import PathLike

    # cffi's stubs lack the functions of a library and the fields of a struct.
    CData: TypeAlias = Any
    CLibrary: TypeAlias = Any


T = TypeVar("T")

DECLARATIONS = ("xenctrl", "xendevicemodel", "xenforeignmemory", "xenpml", "xenstore")
# The names of stable libraries hold the version of the ABI. `xenctrl` handles libxenctrl.
_LIBRARIES = {
    "xendevicemodel": ("libxendevicemodel.so.1",),
    "xenforeignmemory": ("libxenforeignmemory.so.1",),
    "xenpml": ("libxenpml.so.1",),
    "xenstore": ("libxenstore.so.4", "libxenstore.so.3.0"),
}
_VERSION = "/sys/hypervisor/version"
_FOLDERS = ("/usr/lib/xen-{v}/lib", "/usr/lib/xen-{v}/lib/*", "/usr/local/lib", "/usr/lib64")
_MEND = {
    "xenpml": "build and boot the patched Xen of hypervisor-patches/, or use stock log-dirty",
    "xenstore": (
        "this is not dom0 (--host names it), or it lacks a package: apt-get install libxenstore4"
    ),
}


class XenError(PmlkitError):
    """Xen refused a call. Attributes: `call`, `errno`, `domain` (or None), `why`."""

    def __init__(
        self, call: str, errno: int, why: str = "", domain: int | None = None, hint: str = ""
    ) -> None:
        self.call, self.errno, self.domain = call, errno, domain
        self.why = why or os.strerror(errno)
        of = "" if domain is None else f" of domain {domain}"
        hint = hint or "see `xl dmesg`, and run it as root in dom0"
        super().__init__(f"Xen refused {call}{of} ({self.why})", hint)


class MissingLibrary(MissingTool):
    """One of Xen's libraries is not on this machine. Attributes: `tool`, `package`."""

    def __init__(self, tool: str, mend: str) -> None:
        self.tool, self.package = tool, "xen-utils"
        PmlkitError.__init__(self, f"{tool} is not installed", mend)


@cache
def ffi() -> Any:
    """Return the declarations: as a module (`emit`), or parsed now."""
    try:
        return import_module("pmlkit.xen._declarations").ffi
    except ImportError:
        return _parsed()


def _parsed() -> FFI:
    try:
        from cffi import FFI
    except ImportError as error:
        raise MissingTool("cffi", "python3-cffi") from error
    declarations = FFI()
    for name in DECLARATIONS:
        declarations.cdef(Path(__file__).with_name(f"{name}.h").read_text())
    return declarations


def emit(path: PathLike) -> None:
    """Write the declarations as a module that needs no C parser (dom0 starts faster)."""
    declarations = _parsed()
    declarations.set_source("pmlkit.xen._declarations", None)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        declarations.emit_python_code(str(path))


def running_version() -> str:
    """Return the version of the running Xen, such as ``"4.17"``; "" if unknown."""
    try:
        parts = [Path(f"{_VERSION}/{name}").read_text().strip() for name in ("major", "minor")]
    except OSError:
        return ""
    return ".".join(parts)


def _xenctrl_files() -> tuple[str, ...]:
    """Return possible file names of libxenctrl, the best first."""
    version = running_version()
    files = [f"libxenctrl.so.{version}"] if version else []
    for folder in _FOLDERS:
        files += sorted(glob(f"{folder.format(v=version or '*')}/libxenctrl.so.*"), reverse=True)
    return (*files, "libxenctrl.so.4.17", "libxenctrl.so")


@cache
def library(name: str) -> CLibrary:
    """Load a library of Xen's tools.

    Raises
    ------
    MissingLibrary
        If it is not on this machine.
    """
    files = _xenctrl_files() if name == "xenctrl" else _LIBRARIES[name]
    for file in files:
        with contextlib.suppress(OSError):
            return ffi().dlopen(file)
    raise MissingLibrary(files[0], _MEND.get(name, "run it in dom0: apt-get install xen-utils"))


def check(result: T, call: str, domain: int | None = None) -> T:
    """Return a C function's result, or raise `XenError` if it is -1 or NULL."""
    failed = result < 0 if isinstance(result, int) else result == ffi().NULL
    if failed:
        raise XenError(call, ffi().errno, domain=domain)
    return result
