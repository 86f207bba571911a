# SPDX-License-Identifier: Apache-2.0
"""vscsiStats of VMware ESX: the requests of a virtual disk, in two versions of one record.

Little-endian (libCacheSim's ``traceReader/customizedReader/vscsi.h``):
``struct { u32 sn, len, nSG; u16 cmd, ver; u64 lbn, ts }``, and
``struct { u16 cmd, ver; u32 sn, len, nSG; u64 lbn, ts, rt }``, with the version in the high byte of
`ver`. `lbn` counts sectors of 512 bytes, `len` bytes, `ts` microseconds. Pages are those of the
disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.interop.reading import ForeignFileError, open_compressed, read_exactly, records
from pmlkit.interop.requests import ticked
from pmlkit.trace.kinds import Kind

if TYPE_CHECKING:
    from pathlib import Path

    from pmlkit.interop.rounds import Imported
    from pmlkit.types import Array, Ints, PathLike


SECTOR = 512
TICK_NS = 1_000_000
_HEAD = [("cmd", "<u2"), ("ver", "<u2")]
_SIZES = [("sn", "<u4"), ("len", "<u4"), ("nsg", "<u4")]
_PLACE = [("lbn", "<u8"), ("ts", "<u8")]
VERSIONS = {
    2: np.dtype([*_HEAD, *_SIZES, *_PLACE, ("rt", "<u8")]),
    1: np.dtype([*_SIZES, *_HEAD, *_PLACE]),
}
_WRITES = (0x0A, 0x2A, 0xAA, 0x8A)  # WRITE of 6, 10, 12 and 16 bytes (SCSI block commands)


def load(
    path: Path,
    window: int | None = None,
    page_size: int | None = None,
    unit: int | None = None,
) -> Imported:
    """Read requests; an interval has `window` ns, by default a millisecond."""
    version, tick_ns = _version(path), window or TICK_NS

    def ticks(first: int, batch: Array) -> Ints:
        _refuse_others(path, first, batch, version)
        return _ticks(path, first, batch["ts"], tick_ns)

    return ticked(
        records(path, VERSIONS[version], what="record"), tick_ns, ticks, _columns,
        page_size=page_size, unit=unit or SECTOR, kinds_known=True, of_blocks=True,
    )  # fmt: skip


def _columns(batch: Array) -> tuple[Array, ...]:
    kind = np.where(np.isin(batch["cmd"], _WRITES), int(Kind.WRITE), int(Kind.READ))
    return batch["lbn"].astype("u8"), batch["len"].astype("i8"), kind.astype("u1")


def _version(path: PathLike) -> int:
    """Return the version that the first two records have, as libCacheSim finds it."""
    with open_compressed(path) as file:
        head = read_exactly(path, file, 2 * VERSIONS[2].itemsize)
    for version, dtype in VERSIONS.items():
        whole = len(head) // dtype.itemsize
        first = np.frombuffer(head, dtype, min(whole, 2))
        if len(first) and (first["ver"] >> 8 == version).all():
            return version
    raise ForeignFileError(
        path, "record 0", "has an unknown version of vscsi (1 and 2 are supported)"
    )


def _refuse_others(path: PathLike, first: int, batch: Array, version: int) -> None:
    wrong = np.flatnonzero(batch["ver"] >> 8 != version)
    if len(wrong):
        where = f"record {first + int(wrong[0])}"
        raise ForeignFileError(path, where, f"does not have version {version}, as the first")


def _ticks(path: PathLike, first: int, microseconds: Array, tick_ns: int) -> Ints:
    beyond = np.flatnonzero(microseconds >= (1 << 63) // 1000)
    if len(beyond):
        where = f"record {first + int(beyond[0])}"
        raise ForeignFileError(path, where, "has a time beyond 2^63 ns")
    return (microseconds.astype(np.int64) * 1000) // tick_ns
