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

from pmlkit.files import open_regular
from pmlkit.interop import damo_json as interop_damo_json
from pmlkit.interop import damo_text as interop_damo_text
from pmlkit.interop.formats import ForeignFileError, Imported, selected
from pmlkit.kernels.pages import sorted_distinct
from pmlkit.timeline import timeline
from pmlkit.trace.schema import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from pmlkit.trace.reader import Trace
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
    lasts = np.flatnonzero(np.diff(group, append=-1)) if len(group) else group  # of the windows
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
    packer, opens = zlib.compressobj(), 0
    with open(path, "wb") as file:

        def put(text: str) -> None:
            file.write(text.encode() if plain else packer.compress(text.encode()))

        put(before)
        for last in lasts.tolist():
            put("," * (opens > 0) + "\n   ")
            regions = _regions(*_counts(used, last), trace.memory_pages)
            for text in _texts(int(begin[opens]), int(end[last]), regions, last + 1 - opens):
                put(text)
            opens = last + 1
        put("\n  " * (opens > 0) + after)
        file.write(b"" if plain else packer.flush())
    return len(lasts)


_HERE = "what is put here"


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
                yield int(number[at]), sorted_distinct(gfn)

    def until(self, last: int) -> Iterator[Gfns]:
        """Iterate over the rounds that are left, up to number `last`."""
        while self._held is not None and self._held[0] <= last:
            yield self._round(self._held[0])

    def _round(self, number: int) -> Gfns:
        pages, held, size = np.empty(0, np.uint64), [], 0
        while self._held is not None and self._held[0] == number:
            held.append(self._held[1])
            size += len(held[-1])
            if size > max(_MANY, len(pages)):  # no sooner: a large union takes long
                pages, held, size = sorted_distinct(np.concatenate([pages, *held])), [], 0
            self._held = next(self._pieces, None)
        if len(held) == 1 and not len(pages):
            return held[0]
        return sorted_distinct(np.concatenate([pages, *held]))


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
        if size > max(_MANY, len(pages)):
            pages, counts, held, size = *_merged(pages, counts, held), [], 0
    return _merged(pages, counts, held)


def _merged(pages: Gfns, counts: Ints, held: Sequence[Gfns]) -> tuple[Gfns, Ints]:
    found, place = np.unique(np.concatenate([pages, *held]), return_inverse=True)
    total = np.bincount(place, minlength=len(found))
    total[place[: len(pages)]] += counts - 1
    return found, total


def _regions(pages: Gfns, counts: Ints, memory_pages: int) -> tuple[Gfns, Gfns, Ints]:
    """Cut memory into runs of pages with the same count, those without any use included.

    Returns
    -------
    starts, ends, counts : ndarrays
        The frames of each region, and in how many rounds they were used.
    """
    breaks = np.flatnonzero((np.diff(pages) != 1) | (np.diff(counts) != 0)) + 1
    opens = np.append(0, breaks)[: len(pages)]
    lasts = np.append(breaks, len(pages))[: len(opens)] - 1
    runs = len(opens)
    bounds = np.zeros(2 * runs + 2, np.uint64)  # what lies between two runs is a region, too
    bounds[1:-1:2], bounds[2:-1:2] = pages[opens], pages[lasts] + np.uint64(1)
    bounds[-1] = max(memory_pages, int(bounds[-2]))
    uses = np.zeros(2 * runs + 1, np.int64)
    uses[1::2] = counts[opens]
    some = bounds[:-1] < bounds[1:]
    return bounds[:-1][some], bounds[1:][some], uses[some]


def _texts(start_ns: int, end_ns: int, regions: Any, samples: int) -> Iterator[str]:
    """Write a snapshot in parts: `json` would take seconds and a gigabyte for a large one."""
    starts, ends, counts = regions
    total = int(ends[-1]) * PAGE_SIZE if len(ends) else 0
    snapshot: Json = {"start_time": start_ns, "end_time": end_ns}
    snapshot |= {"regions": [_HERE] if len(ends) else [], "total_bytes": total}
    text = json.dumps(snapshot, indent=1).replace("\n", "\n   ")
    before, _, after = text.partition(f'\n     "{_HERE}"')
    yield before
    for first in range(0, len(ends), _PIECE):
        part = [column[first : first + _PIECE].tolist() for column in regions]
        yield "," * (first > 0) + ",".join(
            _REGION % (start * PAGE_SIZE, end * PAGE_SIZE, count, 100 * count // samples)
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
