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
from pmlkit.timeline import timeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any

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
    group = _windows_of(trace, first, stop, window)
    windows = np.split(np.arange(len(rounds)), np.flatnonzero(np.diff(group)) + 1)
    used = _used(trace, first, start_ns, end_ns, kinds)
    intervals = {"sample_us": max(1, length // 1000), "ops_update_us": 0}
    intervals["aggr_us"] = max(1, (window or length) // 1000)
    record = {
        "kdamond_idx": 0, "context_idx": 0, "scheme_idx": None, "scheme_filters": [],
        "intervals": intervals, "target_id": 0, "snapshots": [_HERE], "data_source": "unknown",
    }  # fmt: skip
    before, after = json.dumps([record], indent=1).split(f'\n   "{_HERE}"\n  ')
    # damo asks file(1) what it reads, and plain JSON has other names in other versions of that.
    plain = path.name.removesuffix(".partial").endswith(".json")
    packer, count = zlib.compressobj(), 0
    with open(path, "wb") as file:

        def put(text: str) -> None:
            file.write(text.encode() if plain else packer.compress(text.encode()))

        put(before)
        for rows in windows if len(rounds) else ():
            pages, counts = _counts(used, int(rows[-1]))
            regions = _regions(pages, counts, trace.memory_pages, len(rows))
            one = _snapshot(int(begin[rows[0]]), int(end[rows[-1]]), regions)
            text = json.dumps(one, indent=1).replace("\n", "\n   ")
            put(f"{',' * (count > 0)}\n   {text}")
            count += 1
        put("\n  " * (count > 0) + after)
        file.write(b"" if plain else packer.flush())
    return count


_HERE = "the snapshots"


class _Used:
    """Give the distinct pages of each round in turn, with its number from the first."""

    def __init__(self, parts: Iterator[dict[str, Any]], first: int) -> None:
        self._pieces = self._cut(parts, first)
        self._held = next(self._pieces, None)

    @staticmethod
    def _cut(parts: Iterator[dict[str, Any]], first: int) -> Iterator[tuple[int, Gfns]]:
        """Cut entries where the round changes; a round may go on in the next part."""
        for part in parts:
            number = part["round"].astype(np.int64) - first
            cuts = np.flatnonzero(np.diff(number)) + 1
            starts = np.append(0, cuts)
            for at, gfn in zip(starts.tolist(), np.split(part["gfn"], cuts), strict=True):
                yield int(number[at]), np.unique(gfn)

    def until(self, last: int) -> Iterator[Gfns]:
        """Iterate over the rounds that are left, up to number `last`."""
        while self._held is not None and self._held[0] <= last:
            number, pages = self._held
            self._held = next(self._pieces, None)
            while self._held is not None and self._held[0] == number:
                pages = np.union1d(pages, self._held[1])
                self._held = next(self._pieces, None)
            yield pages


def _windows_of(trace: Trace, first: int, stop: int, window: int | None) -> Ints:
    """Return the number of the window in which each round ends."""
    if window is None or first == stop:
        return np.arange(stop - first)
    return timeline(trace, first, stop - first).windows(window, longest=False).enter[:-1]


def _used(trace: Trace, first: int, *which: Any) -> _Used:
    names = ("start_ns", "end_ns", "kinds")
    how = dict(zip(names, which, strict=True))
    return _Used(selected(trace, ["round", "gfn"], **how), first)


_MANY = 1 << 21  # pages of rounds that are held before they are counted


def _counts(used: _Used, last: int) -> tuple[Gfns, Ints]:
    """Count in how many rounds, up to number `last`, each page was used."""
    pages, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
    held: list[Gfns] = []
    size = 0
    for more in used.until(last):
        held.append(more)
        size += len(more)
        if size > _MANY:
            pages, counts, held, size = *_merged(pages, counts, held), [], 0
    return _merged(pages, counts, held)


def _merged(pages: Gfns, counts: Ints, held: Sequence[Gfns]) -> tuple[Gfns, Ints]:
    found, place = np.unique(np.concatenate([pages, *held]), return_inverse=True)
    total = np.bincount(place, minlength=len(found))
    total[place[: len(pages)]] += counts - 1
    return found, total


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
