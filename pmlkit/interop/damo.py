# SPDX-License-Identifier: Apache-2.0
"""damo's records, which ``damo record`` writes and ``damo report`` reads.

A snapshot contains, for regions of memory, the number of samples of an aggregation interval in
which each was accessed. On export, a snapshot is a window, a sample is a round, and a region is a
run of pages that were used in equally many rounds. ``damo report wss`` then gives the same working
sets as pmlkit.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.files import open_regular
from pmlkit.interop import damo_json, damo_text
from pmlkit.interop.formats import selected
from pmlkit.interop.reading import ForeignFileError
from pmlkit.interop.rounds import Imported
from pmlkit.kernels.pages import sorted_distinct
from pmlkit.timeline import timeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pmlkit.trace.reader import Trace
    from pmlkit.types import Array, Gfns, Ints, Json


def export(
    trace: Trace,
    path: Path,
    window: int | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    kinds: str | int | None = None,
) -> int:
    """Write one snapshot per `window` ns (default: a round): the windows of `workingset`.

    A file NAME.json is plain JSON, for people; any other is compressed, which is damo's own
    default.
    """
    first, stop = trace.rounds_between(start_ns, end_ns)
    rounds = trace.rounds.iloc[first:stop]
    begin, end = rounds["t_start_ns"].to_numpy(), rounds["t_end_ns"].to_numpy()
    length = int(np.median(end - begin)) if len(rounds) else 0
    group = _windows_of(trace, first, stop, window)
    lasts = np.flatnonzero(np.diff(group, append=-1)) if len(group) else group  # of the windows
    used = _Used(selected(trace, ["round", "gfn"], start_ns, end_ns, kinds), first)
    intervals = {"sample_us": max(1, length // 1000), "ops_update_us": 0}
    intervals["aggr_us"] = max(1, (window or length) // 1000)
    record = {
        "kdamond_idx": 0, "context_idx": 0, "scheme_idx": None, "scheme_filters": [],
        "intervals": intervals, "target_id": 0,
        "snapshots": [_PLACEHOLDER], "data_source": "unknown",
    }  # fmt: skip
    page = np.uint64(trace.meta.domain["page_size"])
    before, after = json.dumps([record], indent=1).split(f'\n   "{_PLACEHOLDER}"\n  ')
    # damo identifies files by file(1), whose versions name plain JSON differently.
    plain = path.name.removesuffix(".partial").endswith(".json")
    packer, opens = zlib.compressobj(), 0
    with open(path, "wb") as file:

        def put(text: str) -> None:
            file.write(text.encode() if plain else packer.compress(text.encode()))

        put(before)
        for last in lasts.tolist():
            put("," * (opens > 0) + "\n   ")
            starts, ends, counts = _regions(*_counts(used, last), trace.memory_pages)
            regions = starts * page, ends * page, counts
            for text in _texts(int(begin[opens]), int(end[last]), regions, last + 1 - opens):
                put(text)
            opens = last + 1
        put("\n  " * (opens > 0) + after)
        file.write(b"" if plain else packer.flush())
    return len(lasts)


_PLACEHOLDER = "to be replaced"


class _Used:
    """The distinct pages of each round in turn; rounds are numbered from `first`."""

    def __init__(self, parts: Iterator[dict[str, Array]], first: int) -> None:
        self._pieces = self._cut(parts, first)
        self._next = next(self._pieces, None)

    @staticmethod
    def _cut(parts: Iterator[dict[str, Array]], first: int) -> Iterator[tuple[int, Gfns]]:
        """Cut entries where the round changes; a round may continue in the next part."""
        for part in parts:
            number = part["round"].astype(np.int64) - first
            cuts = np.flatnonzero(np.diff(number)) + 1
            starts = np.append(0, cuts)
            for at, gfn in zip(starts.tolist(), np.split(part["gfn"], cuts), strict=True):
                yield int(number[at]), sorted_distinct(gfn)

    def until(self, last: int) -> Iterator[Gfns]:
        """Iterate over the remaining rounds, up to number `last`."""
        while self._next is not None and self._next[0] <= last:
            yield self._round(self._next[0])

    def _round(self, number: int) -> Gfns:
        pages, pending, size = np.empty(0, np.uint64), [], 0
        while self._next is not None and self._next[0] == number:
            pending.append(self._next[1])
            size += len(pending[-1])
            if size > max(_MANY, len(pages)):  # computed late: a large union takes long
                pages, pending, size = sorted_distinct(np.concatenate([pages, *pending])), [], 0
            self._next = next(self._pieces, None)
        if len(pending) == 1 and not len(pages):
            return pending[0]
        return sorted_distinct(np.concatenate([pages, *pending]))


def _windows_of(trace: Trace, first: int, stop: int, window: int | None) -> Ints:
    """Return the number of the window in which each round ends."""
    if window is None or first == stop:
        return np.arange(stop - first)
    whole = f"{window}ns"  # with its unit, which an integer could lack
    return timeline(trace, first, stop - first).windows(whole, longest=False).enter[:-1]


_MANY = 1 << 21  # pages of rounds that are collected before they are counted


def _counts(used: _Used, last: int) -> tuple[Gfns, Ints]:
    """Count in how many rounds, up to number `last`, each page was used."""
    pages, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
    pending: list[Gfns] = []
    size = 0
    for more in used.until(last):
        pending.append(more)
        size += len(more)
        if size > max(_MANY, len(pages)):
            pages, counts, pending, size = *_merged(pages, counts, pending), [], 0
    return _merged(pages, counts, pending)


def _merged(pages: Gfns, counts: Ints, pending: Sequence[Gfns]) -> tuple[Gfns, Ints]:
    distinct, index = np.unique(np.concatenate([pages, *pending]), return_inverse=True)
    total = np.bincount(index, minlength=len(distinct))
    total[index[: len(pages)]] += counts - 1
    return distinct, total


def _regions(pages: Gfns, counts: Ints, memory_pages: int) -> tuple[Gfns, Gfns, Ints]:
    """Cut memory into runs of pages with the same count, including unused ones.

    Returns
    -------
    starts, ends, counts : ndarrays
        The frames of each region, and in how many rounds they were used.
    """
    breaks = np.flatnonzero((np.diff(pages) != 1) | (np.diff(counts) != 0)) + 1
    opens = np.append(0, breaks)[: len(pages)]
    lasts = np.append(breaks, len(pages))[: len(opens)] - 1
    runs = len(opens)
    bounds = np.zeros(2 * runs + 2, np.uint64)  # a gap between two runs is a region, too
    bounds[1:-1:2], bounds[2:-1:2] = pages[opens], pages[lasts] + np.uint64(1)
    bounds[-1] = max(memory_pages, int(bounds[-2]))
    uses = np.zeros(2 * runs + 1, np.int64)
    uses[1::2] = counts[opens]
    nonempty = bounds[:-1] < bounds[1:]
    return bounds[:-1][nonempty], bounds[1:][nonempty], uses[nonempty]


def _texts(
    start_ns: int, end_ns: int, regions: tuple[Gfns, Gfns, Ints], samples: int
) -> Iterator[str]:
    """Yield a snapshot in parts: `json` would take seconds and a gigabyte for a large one.

    Regions are of bytes.
    """
    ends = regions[1]
    total = int(ends[-1]) if len(ends) else 0
    snapshot: Json = {"start_time": start_ns, "end_time": end_ns}
    snapshot |= {"regions": [_PLACEHOLDER] if len(ends) else [], "total_bytes": total}
    text = json.dumps(snapshot, indent=1).replace("\n", "\n   ")
    before, _, after = text.partition(f'\n     "{_PLACEHOLDER}"')
    yield before
    for first in range(0, len(ends), _PIECE):
        part = [column[first : first + _PIECE].tolist() for column in regions]
        yield "," * (first > 0) + ",".join(
            _REGION % (start, end, count, 100 * count // samples)
            for start, end, count in zip(*part, strict=True)
        )
    yield after


_PIECE = 1 << 13  # regions
_REGION = "\n" + json.dumps(
    {
        "start": "%d",
        "end": "%d",
        "nr_accesses": {"samples": "%d", "percent": "%d"},
        "age": {"usec": None, "aggr_intervals": 0},
    },
    indent=1,
)
_REGION = _REGION.replace('"%d"', "%d").replace("\n", "\n     ")


def load(path: Path) -> Imported:
    """Read the snapshots of a record with one target; each is a round."""
    with open_regular(path) as file:
        head = file.read(4096)
    if head.startswith(b"PERFILE2"):
        hint = "import the output of `perf script` or of `damo convert_record_format`"
        raise ForeignFileError(path, "", "is perf's own data", hint)
    if head.startswith(b"\x17\x08\x44tracing"):
        raise ForeignFileError(
            path, "", "is trace-cmd's own data", "import the text of `trace-cmd report`"
        )
    if head.lstrip()[:1] in (b"[", b"{") or head[:1] == b"\x78" or head.startswith(b"\x1f\x8b"):
        return damo_json.read(path).imported()
    return damo_text.imported(path)
