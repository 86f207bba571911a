# SPDX-License-Identifier: Apache-2.0
"""Xen's libraries through cffi, without a compiler: loaded when first used."""

import contextlib
import io
import os
from functools import cache
from importlib import import_module
from pathlib import Path

from pmlkit.errors import MissingTool, PmlkitError

DECLARATIONS = ("xenctrl", "xenforeignmemory", "xenpml")
_LIBRARIES = {
    "xenctrl": ("libxenctrl.so.4.17", "libxenctrl.so.4.17.0", "libxenctrl.so"),
    "xenforeignmemory": ("libxenforeignmemory.so.1",),
    "xenpml": ("libxenpml.so.1",),
}


class XenError(PmlkitError):
    """Xen refused something. Attributes: `call`, `errno`, `why`."""

    def __init__(self, call, errno, why=""):
        self.call, self.errno = call, errno
        self.why = why or os.strerror(errno)
        super().__init__(
            f"Xen refused {call} ({self.why})", "see `xl dmesg`, and run as dom0's root"
        )


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
    MissingTool
        If it is not on this machine.
    """
    for file in _LIBRARIES[name]:
        try:
            return ffi().dlopen(file)
        except OSError:
            continue
    raise MissingTool(_LIBRARIES[name][0], "xen-utils-4.17 (libxenpml: pmlkit's patched Xen)")


def check(result, call):
    """Return a C function's result, or raise `XenError` if it is -1 or NULL."""
    made = ffi()
    failed = result == made.NULL if isinstance(result, made.CData) else result < 0
    if failed:
        raise XenError(call, made.errno)
    return result
