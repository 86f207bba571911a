# SPDX-License-Identifier: Apache-2.0
"""Xen's libraries through cffi, without a compiler: loaded when first used."""

import contextlib
import io
import os
from functools import cache
from importlib import import_module
from pathlib import Path

from pmlkit.errors import MissingTool, PmlkitError

DECLARATIONS = ("xenctrl", "xenforeignmemory", "xenpml", "xenstore")
# Of stable libraries the ABI's version is in the name. libxenctrl's is Xen's own: see `xenctrl`.
_LIBRARIES = {
    "xenforeignmemory": ("libxenforeignmemory.so.1",),
    "xenpml": ("libxenpml.so.1",),
    "xenstore": ("libxenstore.so.4", "libxenstore.so.3.0"),
}
_MEND = {
    "xenpml": "build and boot the patched Xen of hypervisor-patches/, or use stock log-dirty",
    "xenstore": "apt-get install libxenstore4",
}


class XenError(PmlkitError):
    """Xen refused something. Attributes: `call`, `errno`, `domain` (or None), `why`."""

    def __init__(self, call, errno, why="", domain=None, hint=""):
        self.call, self.errno, self.domain = call, errno, domain
        self.why = why or os.strerror(errno)
        of = "" if domain is None else f" of domain {domain}"
        hint = hint or "see `xl dmesg`, and run it as root of dom0"
        super().__init__(f"Xen refused {call}{of} ({self.why})", hint)


class MissingLibrary(MissingTool):
    """A library of Xen's is not on this machine. Attributes: `tool`, `package`."""

    def __init__(self, tool, mend):
        self.tool, self.package = tool, "xen-utils"
        PmlkitError.__init__(self, f"{tool} is not installed", mend)


@cache
def ffi():
    """Return the declarations, ready made (`emit`) or parsed now."""
    try:
        return import_module("pmlkit.xen._declarations").ffi
    except ImportError:
        return _parsed()


def _parsed():
    try:
        from cffi import FFI
    except ImportError as error:
        raise MissingTool("cffi", "python3-cffi") from error
    made = FFI()
    for name in DECLARATIONS:
        made.cdef(Path(__file__).with_name(f"{name}.h").read_text())
    return made


def emit(path):
    """Write the declarations as a module that needs cffi's C half only (dom0 starts faster)."""
    made = _parsed()
    made.set_source("pmlkit.xen._declarations", None)
    with contextlib.redirect_stdout(io.StringIO()):  # it says what it does
        made.emit_python_code(str(path))


@cache
def library(name):
    """Load a library of Xen's tools.

    Raises
    ------
    MissingLibrary
        If it is not on this machine.
    """
    if name == "xenctrl":
        from pmlkit.xen.xenctrl import names

        files = names()
    else:
        files = _LIBRARIES[name]
    for file in files:
        with contextlib.suppress(OSError):
            return ffi().dlopen(file)
    raise MissingLibrary(files[0], _MEND.get(name, "run it in dom0: apt-get install xen-utils"))


def check(result, call, domain=None):
    """Return a C function's result, or raise `XenError` if it is -1 or NULL."""
    made = ffi()
    failed = result == made.NULL if isinstance(result, made.CData) else result < 0
    if failed:
        raise XenError(call, made.errno, domain=domain)
    return result
