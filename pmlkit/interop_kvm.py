# SPDX-License-Identifier: Apache-2.0
"""What KVM and QEMU say of dirty memory: dirty rings, and query-dirty-rate.

A ring's entry is ``struct kvm_dirty_gfn { u32 flags; u32 slot; u64 offset }`` (Linux,
``include/uapi/linux/kvm.h``): bit 0 of the flags is dirty, bit 1 reset; the low 16 bits of the slot
are its number, the others the address space; the offset counts pages within the slot. The
tracepoint ``kvm_dirty_ring_push`` (``include/trace/events/kvm.h``) says the same with the time.
A slot's place in the guest's memory is in neither: a trace has the pages of slot N from frame
``N << 32`` on, slot 0 from 0.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pmlkit.interop import ForeignFileError, Imported
from pmlkit.kinds import Kind
from pmlkit.schema import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from pmlkit.types import Gfns, Json, PathLike


ENTRY = np.dtype([("flags", "<u4"), ("slot", "<u4"), ("offset", "<u8")])
SLOT_SHIFT = 32
OFFSET_LIMIT = 1 << 40
_PUSH = re.compile(
    r"(?P<time>\d+\.\d+): (?:kvm:)?kvm_dirty_ring_push: ring (?P<ring>\d+):.*"
    r"slot (?P<slot>\d+) offset (?P<offset>0x[0-9a-f]+)"
)
NOTES = ("a frame is (slot << 32) + offset in the slot: where slots lie is not in the file",)
_UNITS_S = {"second": 1.0, "millisecond": 1e-3}


def load(path: Path, name: str, **_: Any) -> pd.DataFrame | Imported:
    """Read a dirty ring (`Imported`), or answers of query-dirty-rate (a DataFrame)."""
    if name == "query-dirty-rate":
        return rates(path)
    with open(path, "rb") as file:
        binary = b"\0" in file.read(4096)
    rounds = _binary(path) if binary else _text(path)
    return Imported(rounds, "pml", NOTES + (("times are not known",) if binary else ()))


def _binary(path: Path) -> list[tuple[NDArray[np.uint64] | int, ...]]:
    size = path.stat().st_size
    if size % ENTRY.itemsize:
        why = f"is cut in the middle of an entry ({ENTRY.itemsize} bytes each)"
        raise ForeignFileError(path, f"byte {size - size % ENTRY.itemsize}", why)
    entries = np.fromfile(path, ENTRY)
    wrong = (entries["flags"] > 3) | (entries["offset"] >= OFFSET_LIMIT)
    if wrong.any():
        why = "is no struct kvm_dirty_gfn (unknown flags, or an offset beyond 2^40 pages)"
        raise ForeignFileError(path, f"entry {int(wrong.argmax())}", why)
    dirty = entries[entries["flags"] != 0]  # 0: not used yet
    return [(0, 1, 0, _frames(dirty["slot"] & 0xFFFF, dirty["offset"]), int(Kind.UNKNOWN))]


def _frames(slot: NDArray[np.uint32] | int, offset: NDArray[np.uint64] | int) -> Gfns | int:
    return (np.asarray(slot, "u8") << np.uint64(SLOT_SHIFT)) + np.asarray(offset, "u8")


def _text(path: Path) -> list[tuple[NDArray[np.uint64] | int, ...]]:
    """Read what ftrace, trace-cmd or perf print of the tracepoint; each push is an instant."""
    found = []
    for line in path.read_text(errors="replace").splitlines():
        if push := _PUSH.search(line):
            place = _frames(int(push["slot"]) & 0xFFFF, int(push["offset"], 16))
            seconds, fraction = push["time"].split(".")
            time_ns = int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9])
            found.append((time_ns, int(push["ring"]), place))
    if not found:
        raise ForeignFileError(
            path, "", "holds neither struct kvm_dirty_gfn nor kvm_dirty_ring_push"
        )
    found.sort(key=lambda push: push[0])
    zero, last = found[0][0], found[-1][0]
    span = (0, last - zero + 1)
    return [(*span, ring, np.array([frame], "u8"), int(Kind.UNKNOWN)) for _, ring, frame in found]


def rates(path: PathLike) -> pd.DataFrame:
    """Read answers of QEMU's ``query-dirty-rate``, one JSON object after another.

    Returns
    -------
    pandas.DataFrame
        A row per measurement: t_ns (of its end, since the first one's start), asked_ns (the
        calc-time), bytes and pages that were dirtied at least once in it, mib_per_s, mode, and
        vcpu (-1: all). QEMU counts in whole MiB per second. A longer calc-time gives a smaller
        rate: pages that are dirtied again do not count again.
    """
    rows: list[Any] = []
    for number, answer in enumerate(_objects(path)):
        answer = answer.get("return", answer)
        if answer.get("status") != "measured":
            continue  # it was still measuring, or had not begun
        try:
            rows += _measured(answer)
        except (KeyError, TypeError, ValueError) as error:
            where = f"answer {number + 1}"
            raise ForeignFileError(
                path, where, f"is none of query-dirty-rate ({error!r})"
            ) from error
    if not rows:
        raise ForeignFileError(path, "", "holds no measured answer of query-dirty-rate")
    table = pd.DataFrame(rows)
    return table.assign(t_ns=table["t_ns"] - (table["t_ns"] - table["asked_ns"]).min())


def _measured(answer: Json) -> Iterator[dict[str, int | str]]:
    asked_s = answer["calc-time"] * _UNITS_S[answer.get("calc-time-unit", "second")]
    end_ns = round((answer["start-time"] + asked_s) * 1e9)
    each = [(-1, answer["dirty-rate"])] if "dirty-rate" in answer else []
    each += [(one["id"], one["dirty-rate"]) for one in answer.get("vcpu-dirty-rate", ())]
    for vcpu, rate in each:
        size = round(rate * (1 << 20) * asked_s)
        yield {
            "t_ns": end_ns, "asked_ns": round(asked_s * 1e9), "bytes": size,
            "pages": size // PAGE_SIZE, "mib_per_s": rate, "mode": answer.get("mode", ""),
            "vcpu": vcpu,
        }  # fmt: skip


def _objects(path: PathLike) -> Iterator[Json]:
    decoder, text = json.JSONDecoder(), path.read_text(errors="replace")  # type: ignore[union-attr]
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        try:
            found, at = decoder.raw_decode(text, at)
        except ValueError as error:
            line = text.count("\n", 0, at) + 1
            raise ForeignFileError(path, f"line {line}", "is no JSON") from error
        for one in found if isinstance(found, list) else [found]:
            if isinstance(one, dict) and isinstance(one.get("return", one), dict):
                yield one
