# SPDX-License-Identifier: Apache-2.0
"""libCacheSim's oracleGeneral: 24 bytes per request, little-endian, without padding.

``struct { uint32 clock_time; uint64 obj_id; uint32 obj_size; int64 next_access_vtime }`` (its
``traceReader/customizedReader/oracle/oracleGeneralBin.h``). An object is a frame. The time of the
next access is the number of the request that comes next for the same object, or -1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.interop import ForeignFileError, Imported, selected
from pmlkit.kinds import Kind
from pmlkit.schema import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from pmlkit.trace import Trace
    from pmlkit.types import Array, Gfns, Ints, PathLike


REQUEST = np.dtype([("time", "<u4"), ("gfn", "<u8"), ("size", "<u4"), ("next", "<i8")])
SECOND_NS = 1_000_000_000
CHUNK = 1 << 20


def export(trace: Trace, path: PathLike, window: int | None = None, **which: Any) -> int:
    """Write a trace's entries; the clock ticks once per `window` ns (by default a second)."""
    parts = list(selected(trace, ["round", "gfn"], **which))
    gfn = np.concatenate([part["gfn"] for part in parts] or [np.empty(0, "u8")])
    number = np.concatenate([part["round"] for part in parts] or [np.empty(0, "u4")])
    requests = np.empty(len(gfn), REQUEST)
    starts = trace.rounds["t_start_ns"].to_numpy()
    requests["time"] = starts[number] // (window or SECOND_NS)
    requests["gfn"], requests["size"] = gfn, PAGE_SIZE
    requests["next"] = next_access(gfn)
    requests.tofile(path)
    return len(requests)


def next_access(gfn: Gfns) -> Ints:
    """Give for each access the number of the next one to the same frame, or -1."""
    order = np.argsort(gfn, kind="stable")
    following = np.full(len(gfn), -1, dtype=np.int64)
    same = gfn[order[1:]] == gfn[order[:-1]]
    following[order[:-1][same]] = order[1:][same]
    return following


def load(path: Path, name: str, window: int | None = None, **_: None) -> Imported:
    """Read requests; each tick of the clock, `window` ns long, is a round."""
    size = path.stat().st_size
    if size % REQUEST.itemsize:
        whole = size - size % REQUEST.itemsize
        why = f"is cut in the middle of a request ({REQUEST.itemsize} bytes each)"
        raise ForeignFileError(path, f"byte {whole}", why)
    requests = np.memmap(path, REQUEST, mode="r") if size else np.empty(0, REQUEST)
    _check(path, requests)
    notes = ("kinds are not known: every access counts as a read",)
    return Imported(
        _rounds(requests, window or SECOND_NS), notes=notes, round_ns=window or SECOND_NS
    )


def _check(path: PathLike, requests: Array) -> None:
    for start in range(0, len(requests), CHUNK):
        part = requests[start : start + CHUNK]
        wrong = (part["next"] < -1) | (part["next"] >= 2**62) | (part["gfn"] >= 2**52)
        falls = np.flatnonzero(
            np.diff(requests["time"][start : start + CHUNK + 1].astype("i8")) < 0
        )
        if wrong.any():
            where = f"request {start + int(wrong.argmax())}"
            why = "is of no page (its object has more than 52 bits, or the next access is wrong)"
            raise ForeignFileError(path, where, why)
        if len(falls):
            raise ForeignFileError(
                path, f"request {start + int(falls[0]) + 1}", "goes back in time"
            )


def _rounds(requests: Array, tick_ns: int) -> Iterator[tuple[Any, ...]]:
    first = int(requests["time"][0]) if len(requests) else 0
    for start in range(0, len(requests), CHUNK):
        part = requests[start : start + CHUNK]
        cuts = np.flatnonzero(np.diff(part["time"])) + 1
        for piece in np.split(part, cuts):
            begin = (int(piece["time"][0]) - first) * tick_ns
            yield begin, begin + tick_ns, 0, piece["gfn"].astype("u8"), int(Kind.READ)
