# SPDX-License-Identifier: Apache-2.0
"""libxendevicemodel: mark a domain's pages as written, as a device model does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmlkit.xen.binding import check, ffi, library

if TYPE_CHECKING:
    from collections.abc import Iterable


def mark_dirty(domid: int, spans: Iterable[tuple[int, int]]) -> None:
    """Put pages into a domain's log-dirty bitmap.

    Parameters
    ----------
    spans : iterable of (int, int)
        First frame and number of frames of each; none beyond the domain's last frame.

    Raises
    ------
    MissingLibrary, XenError
    """
    lib = library("xendevicemodel")
    handle = check(lib.xendevicemodel_open(ffi().NULL, 0), "xendevicemodel_open")
    try:
        for first, count in spans:
            done = lib.xendevicemodel_modified_memory(handle, domid, first, count)
            check(done, "XEN_DMOP_modified_memory", domid)
    finally:
        lib.xendevicemodel_close(handle)
