# SPDX-License-Identifier: Apache-2.0
"""libCacheSim's lcs (``traceReader/customizedReader/lcs.h``), versions 1 to 8.

A header states which of eight kinds of request follows; the first kind is oracleGeneral's.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.interop.oracle import REQUEST, of_records
from pmlkit.interop.reading import ForeignFileError, open_compressed, read_exactly, records

if TYPE_CHECKING:
    from pathlib import Path

    from pmlkit.interop.rounds import Imported
    from pmlkit.types import PathLike


MAGIC = 0x123456789ABCDEF0
HEADERS = (8192, 1024)  # bytes: of current versions, and of the first ones
_BASE = [("time", "<u4"), ("obj", "<u8"), ("size", "<i8"), ("op", "<u4"), ("ttl", "<u4")]
VERSIONS = {
    1: REQUEST,
    2: np.dtype([*REQUEST.descr[:3], ("op", "<u4"), ("next", "<i8")]),
    **{
        version: np.dtype([*_BASE, ("next", "<i8"), ("features", "<u4", (features,))])
        for version, features in zip(range(3, 9), (0, 1, 2, 4, 8, 16), strict=True)
    },
}


def load(
    path: Path,
    window: int | None = None,
    page_size: int | None = None,
    unit: int | None = None,
) -> Imported:
    """Read requests; a tick of the clock has `window` ns."""
    size, dtype = _header(path)
    return of_records(records(path, dtype, size), window, page_size, unit)


def _header(path: PathLike) -> tuple[int, np.dtype[np.void]]:
    """Return the size of the header, and the type of the requests."""
    with open_compressed(path) as file:
        head = read_exactly(path, file, max(HEADERS))
    if head[:8] != struct.pack("<Q", MAGIC):
        raise ForeignFileError(path, "byte 0", "does not begin with the magic number of lcs")
    end = struct.pack("<Q", MAGIC)
    size = next((n for n in HEADERS if head[n - 8 : n] == end and len(head) >= n), None)
    if size is None:
        raise ForeignFileError(path, "", "has no complete header of lcs")
    (version,) = struct.unpack_from("<Q", head, 8)
    if version not in VERSIONS:
        why = f"states lcs version {version}, and versions 1 to {max(VERSIONS)} are supported"
        raise ForeignFileError(path, "byte 8", why)
    return size, VERSIONS[version]
