# SPDX-License-Identifier: Apache-2.0
"""damo's records: ``damo record --output_type json`` (or json_compressed), read by ``damo report``.

A snapshot says of regions of memory in how many samples of an aggregation interval they were
accessed. From a trace a snapshot is a window, a sample a round, and a region a run of pages that
were used in equally many rounds: ``damo report wss`` then gives the working sets that pmlkit does.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.interop import ForeignFileError, Imported, selected
from pmlkit.kinds import Kind
from pmlkit.schema import PAGE_SIZE
from pmlkit.selection import window_rounds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from pmlkit.trace import Trace
    from pmlkit.types import Gfns, Ints, Json, PathLike


def export(
    trace: Trace,
    path: Path,
    window: int | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    kinds: str | int | None = None,
) -> int:
    """Write a snapshot per `window` ns (by default a round): the windows of `workingset`.

    A file NAME.json is plain JSON, for people; any other is compressed, which is damo's own
    default.
    """
    first, stop = trace.rounds_between(start_ns, end_ns)
    rounds = trace.rounds.iloc[first:stop]
    begin, end = rounds["t_start_ns"].to_numpy(), rounds["t_end_ns"].to_numpy()
    length = int(np.median(end - begin)) if len(rounds) else 0
    group = np.arange(len(rounds)) // (window_rounds(trace, window) if window else 1)
    snapshots = []
    used = _used(trace, first, start_ns, end_ns, kinds)
    for rows in np.split(np.arange(len(rounds)), np.flatnonzero(np.diff(group)) + 1):
        if len(rows):
            pages, counts = _counts([used.get(int(row), _NONE) for row in rows])
            regions = _regions(pages, counts, trace.memory_pages, len(rows))
            snapshots.append(_snapshot(int(begin[rows[0]]), int(end[rows[-1]]), regions))
    intervals = {"sample_us": max(1, length // 1000), "ops_update_us": 0}
    intervals["aggr_us"] = max(1, (window or length) // 1000)
    record = {
        "kdamond_idx": 0, "context_idx": 0, "scheme_idx": None, "scheme_filters": [],
        "intervals": intervals, "target_id": 0, "snapshots": snapshots, "data_source": "unknown",
    }  # fmt: skip
    text = json.dumps([record], indent=1).encode()
    # damo asks file(1) what it reads, and plain JSON has other names in other versions of that.
    plain = path.name.removesuffix(".partial").endswith(".json")
    path.write_bytes(text if plain else zlib.compress(text))
    return len(snapshots)


_NONE = np.empty(0, dtype=np.uint64)


def _used(trace: Trace, first: int, *which: Any) -> dict[int, NDArray[np.uint64]]:
    """Give the distinct pages of each round, by its number from the first."""
    found: dict[Any, Any] = {}
    names = ("start_ns", "end_ns", "kinds")
    for part in selected(trace, ["round", "gfn"], **dict(zip(names, which, strict=True))):
        for number in np.unique(part["round"]):
            pages = part["gfn"][part["round"] == number]
            before = found.get(int(number) - first, _NONE)
            found[int(number) - first] = np.union1d(before, pages)
    return found


def _counts(rounds: Sequence[NDArray[np.uint64]]) -> tuple[NDArray[np.uint64], Ints]:
    return np.unique(np.concatenate(rounds), return_counts=True)


def _regions(
    pages: Gfns, counts: Ints, memory_pages: int, samples: int
) -> list[dict[str, dict[str, int | None] | int]]:
    """Cut memory into runs of pages with the same count, those without any use included."""
    breaks = np.flatnonzero((np.diff(pages) != 1) | (np.diff(counts) != 0)) + 1
    regions, at = [], 0
    for run in np.split(np.arange(len(pages)), breaks):
        if len(run):
            start, end = int(pages[run[0]]), int(pages[run[-1]]) + 1
            regions += [_region(at, start, 0, samples)] * (at < start)
            regions.append(_region(start, end, int(counts[run[0]]), samples))
            at = end
    return regions + [_region(at, memory_pages, 0, samples)] * (at < memory_pages)


def _region(
    start: int, end: int, count: int, samples: int
) -> dict[str, dict[str, int | None] | int]:
    return {
        "start": start * PAGE_SIZE,
        "end": end * PAGE_SIZE,
        "nr_accesses": {"samples": count, "percent": 100 * count // samples},
        "age": {"usec": None, "aggr_intervals": 0},
    }


def _snapshot(start: int, end: int, regions: Sequence[Any]) -> Json:
    total = sum(region["end"] - region["start"] for region in regions)
    return {"start_time": start, "end_time": end, "regions": regions, "total_bytes": total}


def load(path: Path, name: str, **_: Any) -> Imported:
    """Read the snapshots of a record's one target: each is a round."""
    snapshots = _snapshots(path)
    try:
        rounds = [_round(snapshot) for snapshot in snapshots]
    except (KeyError, TypeError, ValueError) as error:
        raise ForeignFileError(path, "", f"is no record of damo ({error!r})") from error
    rounds = _from_zero(path, sorted(rounds, key=lambda one: one[0]))
    notes = ("every access counts as a read; order within a snapshot is not known",)
    return Imported(rounds, notes=notes, ordered=False)


def _snapshots(path: PathLike) -> list[Json]:
    data = path.read_bytes()  # type: ignore[union-attr]
    try:
        if not data.lstrip().startswith((b"[", b"{")):
            data = zlib.decompress(data)
        records = json.loads(data)
        targets = {record["target_id"] for record in records}
        found = [snapshot for record in records for snapshot in record["snapshots"]]
    except (zlib.error, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ForeignFileError(path, "", f"is no json record of damo ({error!r})") from error
    if len(targets) > 1:
        why = f"holds {len(targets)} targets, whose addresses have nothing in common"
        raise ForeignFileError(path, "", why, "record one target at a time")
    return found


def _round(snapshot: Json) -> tuple[NDArray[np.uint64] | int, ...]:
    start, end = (_number(snapshot[name]) for name in ("start_time", "end_time"))
    pages = [
        np.arange(_number(r["start"]) // PAGE_SIZE, -(-_number(r["end"]) // PAGE_SIZE), dtype="u8")
        for r in snapshot["regions"]
        if _number(r["nr_accesses"]["samples"]) > 0
    ]
    return start, end, 0, np.unique(np.concatenate([_NONE, *pages])), int(Kind.READ)


def _number(value: int | str) -> int:
    """Read a number; damo writes some as text, with commas."""
    return int(value.replace(",", "")) if isinstance(value, str) else int(value)


def _from_zero(
    path: Path, rounds: Sequence[tuple[Any, ...]]
) -> list[tuple[NDArray[np.uint64] | int, ...]]:
    for before, after in zip(rounds, rounds[1:], strict=False):
        if after[0] < before[1]:
            raise ForeignFileError(path, "", "has snapshots that overlap")
    zero = rounds[0][0] if rounds else 0
    return [(start - zero, end - zero, *rest) for start, end, *rest in rounds]
