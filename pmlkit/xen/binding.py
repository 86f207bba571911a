# SPDX-License-Identifier: Apache-2.0
"""Xen's libraries through cffi, without a compiler: loaded when first used."""

from __future__ import annotations

import contextlib
import io
import os
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import MissingTool, PmlkitError

if TYPE_CHECKING:
    from typing import Any

    from cffi import FFI

    from pmlkit.types import PathLike


DECLARATIONS = ("xenctrl", "xendevicemodel", "xenforeignmemory", "xenpml", "xenstore")
# The names of stable libraries hold the version of the ABI. `xenctrl` handles libxenctrl.
_LIBRARIES = {
    "xendevicemodel": ("libxendevicemodel.so.1",),
    "xenforeignmemory": ("libxenforeignmemory.so.1",),
    "xenpml": ("libxenpml.so.1",),
    "xenstore": ("libxenstore.so.4", "libxenstore.so.3.0"),
}
_MEND = {
    "xenpml": "build and boot the patched Xen of hypervisor-patches/, or use stock log-dirty",
    "xenstore": "this is no dom0 (--host names one), or it lacks it: apt-get install libxenstore4",
}


class XenError(PmlkitError):
    """Xen refused a call. Attributes: `call`, `errno`, `domain` (or None), `why`."""

    def __init__(
        self, call: str, errno: int, why: str = "", domain: int | None = None, hint: str = ""
    ) -> None:
        self.call, self.errno, self.domain = call, errno, domain
        self.why = why or os.strerror(errno)
        of = "" if domain is None else f" of domain {domain}"
        hint = hint or "see `xl dmesg`, and run it as root of dom0"
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
    made = FFI()
    for name in DECLARATIONS:
        made.cdef(Path(__file__).with_name(f"{name}.h").read_text())
    return made


def emit(path: PathLike) -> None:
    """Write the declarations as a module that needs no C parser (dom0 starts faster)."""
    made = _parsed()
    made.set_source("pmlkit.xen._declarations", None)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        made.emit_python_code(str(path))


@cache
def library(name: str, files: tuple[str, ...] = ()) -> Any:
    """Load a library of Xen's tools.

    Parameters
    ----------
    name : str
    files : tuple of str
        Names to look under, the best first; by default those of the library.

    Raises
    ------
    MissingLibrary
        If it is not on this machine.
    """
    files = files or _LIBRARIES[name]
    for file in files:
        with contextlib.suppress(OSError):
            return ffi().dlopen(file)
    raise MissingLibrary(files[0], _MEND.get(name, "run it in dom0: apt-get install xen-utils"))


def check(result: Any, call: str, domain: int | None = None) -> Any:
    """Return a C function's result, or raise `XenError` if it is -1 or NULL."""
    made = ffi()
    failed = result == made.NULL if isinstance(result, made.CData) else result < 0
    if failed:
        raise XenError(call, made.errno, domain=domain)
    return result
