# SPDX-License-Identifier: Apache-2.0
"""DAMON's tracepoint ``damon_aggregated`` as text of perf script or trace-cmd report.

Each line is a region. Only the end of a snapshot has a time. It begins at the end of the previous
one. The first one is assumed to have the average length of the others, as in damo.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pmlkit.interop.damo_snapshots import Snapshots
from pmlkit.interop.reading import ForeignFileError, lines, lost_of

if TYPE_CHECKING:
    from pmlkit.interop.rounds import Imported
    from pmlkit.types import PathLike


__all__ = ["imported"]

_EVENT = b"aggregated: "
_REGION = re.compile(
    rb"(?<![\d.])(\d{1,11})\.(\d{1,9}): +(?:damon:)?damon_(?:region_)?aggregated: +"
    rb"target_id=(\d{1,20}) nr_regions=(\d{1,9}) (\d{1,20})-(\d{1,20}): (-?\d{1,10})\b"
)
_HINT = "use the output of `perf script` for `damo record --output_type perf_data`"


def imported(path: PathLike) -> Imported:
    """Read the snapshots of a text with one target.

    Raises
    ------
    ForeignFileError
    """
    reader = _Reader(path)
    for number, line in lines(path):
        if _EVENT in line and b"damon_" in line:
            reader.take(f"line {number}", line)
        else:
            reader.take_loss(line)
    return reader.imported()


class _Region(NamedTuple):
    where: str
    start: int
    end: int
    accesses: int


class _Reader:
    """Collects the lines of each snapshot."""

    def __init__(self, path: PathLike) -> None:
        self.path = path
        self._target: bytes | None = None
        self._open: list[_Region] = []
        self._end_ns, self._regions = 0, 0
        self._complete: list[tuple[int, list[_Region]]] = []  # end, and regions
        self._cut = self._lost = 0
        self._counts_losses, self._not_counted = False, False

    def take(self, where: str, line: bytes) -> None:
        match = _REGION.search(line)
        if match is None:
            raise ForeignFileError(self.path, where, "is not a damon_aggregated event", _HINT)
        if self._target not in (None, match[3]):
            why = "belongs to a second target with unrelated addresses"
            raise ForeignFileError(self.path, where, why, "keep the lines of one target")
        self._target = match[3]
        start, end, accesses, regions = (int(match[n]) for n in (5, 6, 7, 4))
        if self._open and (start < self._open[-1].end or regions != self._regions):
            self._cut, self._open = self._cut + 1, []  # its last lines are missing in the file
        if not self._open:
            self._end_ns = int(match[1]) * 10**9 + int(match[2].ljust(9, b"0"))
            self._regions = regions
        self._open.append(_Region(where, start, end, accesses))
        if len(self._open) == regions:
            self._complete.append((self._end_ns, self._open))
            self._open = []

    def take_loss(self, line: bytes) -> None:
        lost = lost_of(line)
        if lost is not None:
            self._counts_losses |= lost >= 0
            self._not_counted |= lost < 0
            self._lost += max(lost, 0)

    def imported(self) -> Imported:
        self._cut += bool(self._open)
        if not self._complete:
            raise ForeignFileError(
                self.path, "", "contains no complete snapshot of damon_aggregated", _HINT
            )
        ends = [end for end, _ in self._complete]
        length = (ends[-1] - ends[0]) // max(1, len(ends) - 1)
        notes = ["the first snapshot is assumed to have the average length of the others"]
        if len(ends) == 1:
            notes, length = ["the length of the only snapshot is not known: it is set to 1 ns"], 1
        snapshots, before = Snapshots(self.path), max(0, ends[0] - length)
        for end, regions in self._complete:
            if end < before:
                raise ForeignFileError(self.path, regions[0].where, "goes back in time")
            if not _is_padding(regions):
                for region in regions:
                    snapshots.add_region(*region)
                snapshots.add(regions[0].where, before, end)
            before = end
        counted = self._counts_losses and not self._not_counted
        return replace(
            snapshots.imported(notes),
            losses="counted" if counted else "not counted",
            lost=self._lost if counted else 0,
            counts={"incomplete snapshots were omitted": self._cut},
        )


def _is_padding(regions: list[_Region]) -> bool:
    """Return whether damo added this empty snapshot to give a single one a length."""
    return len(regions) == 1 and regions[0][1:] == (0, 0, -1)
