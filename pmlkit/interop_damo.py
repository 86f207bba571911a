# SPDX-License-Identifier: Apache-2.0
"""damo's records: what ``damo record`` writes, and ``damo report`` reads.

A snapshot says of regions of memory in how many samples of an aggregation interval they were
accessed. From a trace a snapshot is a window, a sample a round, and a region a run of pages that
were used in equally many rounds: ``damo report wss`` then gives the working sets that pmlkit does.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

import numpy as np

from pmlkit import interop_damo_json, interop_damo_text
from pmlkit.files import open_regular
from pmlkit.interop import ForeignFileError, Imported, selected
from pmlkit.schema import PAGE_SIZE
from pmlkit.selection import window_rounds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from pmlkit.trace import Trace
    from pmlkit.types import Gfns, Ints, Json


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
    with open_regular(path) as file:
        head = file.read(4096)
    if head.startswith(b"PERFILE2"):
        hint = "import what `perf script` prints of it, or `damo convert_record_format` makes of it"
        raise ForeignFileError(path, "", "is perf's own data", hint)
    if head.startswith(b"\x17\x08\x44tracing"):
        raise ForeignFileError(
            path, "", "is trace-cmd's own data", "import `trace-cmd report`'s text"
        )
    if head.lstrip()[:1] in (b"[", b"{") or head[:1] == b"\x78" or head.startswith(b"\x1f\x8b"):
        return interop_damo_json.read(path).imported()
    return interop_damo_text.imported(path)
