# SPDX-License-Identifier: Apache-2.0
"""libCacheSim's oracleGeneral.

A request of oracleGeneral has 24 bytes, little-endian, without padding:
``struct { uint32 clock_time; uint64 obj_id; uint32 obj_size; int64 next_access_vtime }`` (its
``traceReader/customizedReader/oracle/oracleGeneralBin.h``). The time of the next access is the
number of the next request for the same object, or -1 (also written as 2^63 - 1). An import does not
use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.errors import UsageError, argument
from pmlkit.interop.reading import records
from pmlkit.interop.requests import ticked
from pmlkit.kernels.pages import PageIndex
from pmlkit.selection import stream
from pmlkit.units import exact_ns, format_ns

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from pmlkit.interop.rounds import Imported
    from pmlkit.trace.reader import Trace
    from pmlkit.types import Ints, PathLike


REQUEST = np.dtype([("time", "<u4"), ("obj", "<u8"), ("size", "<u4"), ("next", "<i8")])
SECOND_NS = 1_000_000_000
CHUNK = 1 << 20
TICKS = 1 << 32  # ticks of the clock before it wraps around


def export(
    trace: Trace,
    path: PathLike,
    window: int | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    kinds: str | int | None = None,
) -> int:
    """Write the uses of a trace; the clock ticks once per `window` ns (a second).

    These are the uses that `missratio` counts, in the same order.
    """
    clock = _clock(trace, window or SECOND_NS)
    uses = stream(trace, kinds or "rwx", start_ns, end_ns)
    index, count, page = PageIndex(), 0, trace.meta.domain["page_size"]
    with open(path, "w+b") as file:
        for rounds, ids, _ in uses.numbered(index):
            requests = np.empty(len(ids), REQUEST)
            requests["time"], requests["obj"] = clock[uses.first + rounds], index.frames[ids]
            requests["size"], requests["next"] = page, -1
            file.write(requests.tobytes())  # not by tofile, which hides a full disk
            count += len(requests)
        _link(file, index, count)
    return count


def _clock(trace: Trace, tick_ns: int) -> Ints:
    """Return the tick of each round: of the clock of the import, if it fits."""
    if tick_ns < 1:
        raise UsageError(f"a tick of {tick_ns} ns is too short: give a longer {argument('window')}")
    rounds = trace.rounds
    start, end = rounds["t_start_ns"].to_numpy(), rounds["t_end_ns"].to_numpy()
    # A round without length belongs to the tick that it ends.
    times = np.where(start == end, np.maximum(end - 1, 0), start)
    last, base = int(times.max(initial=0)), trace.meta.clock.get("base_ns") or 0
    if (last + base) // tick_ns < TICKS:
        # Two terms, as their sum may have more than 64 bits.
        offset, rest = divmod(base, tick_ns)
        return times // tick_ns + (times % tick_ns + rest) // tick_ns + offset
    if last // tick_ns >= TICKS:
        finest = exact_ns(last // TICKS + 1)
        lasts = format_ns(trace.duration_ns)
        raise UsageError(
            f"a tick of {exact_ns(tick_ns)} is too short for {lasts}: give at least {finest}"
        )
    return times // tick_ns


def _link(file: BinaryIO, index: PageIndex, count: int) -> None:
    """Fill in the next access of each request, from the end of the file backwards."""
    from pmlkit.kernels.loops import next_accesses

    coming = np.full(len(index), -1, np.int64)
    for first in range((count - 1) // CHUNK * CHUNK, -1, -CHUNK):
        length = min(CHUNK, count - first)
        file.seek(first * REQUEST.itemsize)
        requests = np.frombuffer(bytearray(file.read(length * REQUEST.itemsize)), REQUEST)
        following = np.empty(length, np.int64)
        next_accesses(index.ids(requests["obj"]), first, coming, following)
        requests["next"] = following
        file.seek(first * REQUEST.itemsize)
        file.write(requests.tobytes())


def load(
    path: Path,
    window: int | None = None,
    page_size: int | None = None,
    unit: int | None = None,
) -> Imported:
    """Read requests; a tick of the clock has `window` ns."""
    return of_records(records(path, REQUEST), window, page_size, unit)


def of_records(
    file: records, window: int | None, page_size: int | None, unit: int | None
) -> Imported:
    """Create pages from records with ``time``, ``obj`` and ``size``."""
    return ticked(
        file,
        window or SECOND_NS,
        lambda _, batch: batch["time"].astype(np.int64),
        lambda batch: (batch["obj"].astype("u8"), batch["size"].astype("i8")),
        page_size=page_size,
        unit=unit,
    )
