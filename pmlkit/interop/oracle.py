# SPDX-License-Identifier: Apache-2.0
"""libCacheSim's binary formats: oracleGeneral and lcs.

A request of oracleGeneral has 24 bytes, little-endian, without padding: ``struct { uint32
clock_time; uint64 obj_id; uint32 obj_size; int64 next_access_vtime }`` (its
``traceReader/customizedReader/oracle/oracleGeneralBin.h``). The time of the next access is the
number of the request that comes next for the same object, or -1 (also written as 2^63 - 1); an
import does not use it.

lcs (``traceReader/customizedReader/lcs.h``) has a header that says which of eight kinds of request
follows; the first kind is oracleGeneral's.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import UsageError
from pmlkit.interop.formats import ForeignFileError
from pmlkit.interop.requests import open_compressed, read_exactly, records, ticked
from pmlkit.kernels.pages import PageIndex, grown
from pmlkit.selection import stream
from pmlkit.units import format_ns

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, BinaryIO

    from pmlkit.interop.rounds import Imported
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Gfns, Ints, PathLike


REQUEST = np.dtype([("time", "<u4"), ("obj", "<u8"), ("size", "<u4"), ("next", "<i8")])
SECOND_NS = 1_000_000_000
CHUNK = 1 << 20
TICKS = 1 << 32  # of the clock, before it would begin again

LCS_MAGIC = 0x123456789ABCDEF0
LCS_HEADERS = (8192, 1024)  # bytes: of today, and of the first versions
_LCS_BASE = [("time", "<u4"), ("obj", "<u8"), ("size", "<i8"), ("op", "<u4"), ("ttl", "<u4")]
_LCS = {
    1: REQUEST,
    2: np.dtype([*REQUEST.descr[:3], ("op", "<u4"), ("next", "<i8")]),
    **{
        version: np.dtype([*_LCS_BASE, ("next", "<i8"), ("features", "<u4", (features,))])
        for version, features in zip(range(3, 9), (0, 1, 2, 4, 8, 16), strict=True)
    },
}


def export(trace: Trace, path: PathLike, window: int | None = None, **which: Any) -> int:
    """Write the uses of a trace (docs: counts); the clock ticks once per `window` ns (a second).

    These are the uses that `missratio` counts, in the same order.
    """
    clock = _clock(trace, window or SECOND_NS)
    uses = _uses(trace, **which)
    index, count, page = PageIndex(), 0, trace.meta.domain["page_size"]
    with open(path, "w+b") as file:
        for rounds, ids, _ in uses.numbered(index):
            requests = np.empty(len(ids), REQUEST)
            requests["time"], requests["obj"] = clock[uses.first + rounds], index.frames[ids]
            requests["size"], requests["next"] = page, -1
            file.write(requests.tobytes())  # by the file, which says when the disk is full
            count += len(requests)
        _link(file, index, count)
    return count


def _uses(
    trace: Trace,
    start_ns: int | None = None,
    end_ns: int | None = None,
    kinds: str | int | None = None,
) -> Any:
    return stream(trace, kinds or "rwx", start_ns, end_ns)


def _clock(trace: Trace, tick_ns: int) -> Ints:
    """Return the tick of each round: of the file's own clock, if it has one that fits."""
    if tick_ns < 1:
        raise UsageError(f"a tick of {tick_ns} ns is none: give a longer --window")
    rounds = trace.rounds
    start, end = rounds["t_start_ns"].to_numpy(), rounds["t_end_ns"].to_numpy()
    # A round of no length is of the tick that it ends.
    times = np.where(start == end, np.maximum(end - 1, 0), start)
    last, base = int(times.max(initial=0)), trace.meta.clock.get("base_ns") or 0
    if (last + base) // tick_ns < TICKS:
        # Two terms, as their sum may have more than 64 bits.
        offset, rest = divmod(base, tick_ns)
        return times // tick_ns + (times % tick_ns + rest) // tick_ns + offset
    if last // tick_ns >= TICKS:
        finest = format_ns(last // TICKS + 1)
        lasts = format_ns(trace.duration_ns)
        raise UsageError(
            f"a tick of {format_ns(tick_ns)} is too short for {lasts}: at least {finest}"
        )
    return times // tick_ns


def _link(file: BinaryIO, index: PageIndex, count: int) -> None:
    """Fill in the next access of each request, from the file's end on."""
    from pmlkit.kernels.loops import next_accesses

    coming = np.full(len(index), -1, np.int64)
    for first in range((count - 1) // CHUNK * CHUNK, -1, -CHUNK):
        length = min(CHUNK, count - first)
        file.seek(first * REQUEST.itemsize)
        requests = np.frombuffer(bytearray(file.read(length * REQUEST.itemsize)), REQUEST)
        found = np.empty(length, np.int64)
        next_accesses(index.ids(requests["obj"]), first, coming, found)
        requests["next"] = found
        file.seek(first * REQUEST.itemsize)
        file.write(requests.tobytes())


def next_access(gfn: Gfns) -> Ints:
    """Give for each access the number of the next one to the same frame, or -1."""
    from pmlkit.kernels.loops import next_accesses

    index, found = PageIndex(), np.empty(len(gfn), np.int64)
    ids = index.ids(gfn)
    next_accesses(ids, 0, grown(np.empty(0, np.int64), len(index), -1), found)
    return found


def load(
    path: Path,
    name: str,
    window: int | None = None,
    page_size: int | None = None,
    unit: int | None = None,
    **_: Any,
) -> Imported:
    """Read requests; a tick of the clock has `window` ns."""
    skip, dtype = _lcs_header(path) if name == "lcs" else (0, REQUEST)
    return ticked(
        records(path, dtype, skip),
        window or SECOND_NS,
        lambda _, some: some["time"].astype(np.int64),
        lambda some: (some["obj"].astype("u8"), some["size"].astype("i8")),
        page_size=page_size,
        unit=unit,
    )


def _lcs_header(path: PathLike) -> tuple[int, np.dtype[Any]]:
    """Return the size of an lcs file's header, and the type of its requests."""
    with open_compressed(path) as file:
        head = read_exactly(path, file, max(LCS_HEADERS))
    if head[:8] != struct.pack("<Q", LCS_MAGIC):
        raise ForeignFileError(path, "byte 0", "has not the number that an lcs file begins with")
    end = struct.pack("<Q", LCS_MAGIC)
    size = next((n for n in LCS_HEADERS if head[n - 8 : n] == end and len(head) >= n), None)
    if size is None:
        raise ForeignFileError(path, "", "has no whole header of lcs")
    (version,) = struct.unpack_from("<Q", head, 8)
    if version not in _LCS:
        why = f"says that it is lcs of version {version}, and 1 to {max(_LCS)} are known"
        raise ForeignFileError(path, "byte 8", why)
    return size, _LCS[version]
