# SPDX-License-Identifier: Apache-2.0
"""DAMON's tracepoint ``damon_aggregated`` as text: what perf script and trace-cmd report print.

A line is a region. Only the end of a snapshot has a time: it begins with the end of the one before,
and the first one lasts as long as the others on the average, which is what damo takes it for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pmlkit.interop.damo_snapshots import Snapshots
from pmlkit.interop.formats import ForeignFileError
from pmlkit.interop.kvm_text import lines, lost_of

if TYPE_CHECKING:
    from pmlkit.interop.formats import Imported
    from pmlkit.types import PathLike


__all__ = ["imported"]

_EVENT = b"aggregated: "
_REGION = re.compile(
    rb"(?<![\d.])(\d{1,11})\.(\d{1,9}): +(?:damon:)?damon_(?:region_)?aggregated: +"
    rb"target_id=(\d{1,20}) nr_regions=(\d{1,9}) (\d{1,20})-(\d{1,20}): (-?\d{1,10})\b"
)
_HINT = "give what `perf script` prints of `damo record --output_type perf_data`"


def imported(path: PathLike) -> Imported:
    """Read the snapshots of the one target of a text.

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


class _Reader:
    """Gather the lines of each snapshot."""

    def __init__(self, path: PathLike) -> None:
        self.path = path
        self._target: bytes | None = None
        self._open: list[tuple[str, int, int, int]] = []  # where, start, end, accesses
        self._end_ns, self._regions = 0, 0
        self._whole: list[tuple[int, list[tuple[str, int, int, int]]]] = []
        self._cut = self._lost = 0
        self._counts_losses, self._not_counted = False, False

    def take(self, where: str, line: bytes) -> None:
        found = _REGION.search(line)
        if found is None:
            raise ForeignFileError(self.path, where, "is no damon_aggregated", _HINT)
        if self._target not in (None, found[3]):
            why = "is of a second target, whose addresses have nothing in common with the first's"
            raise ForeignFileError(self.path, where, why, "keep the lines of one target")
        self._target = found[3]
        start, end, accesses, regions = (int(found[n]) for n in (5, 6, 7, 4))
        if self._open and (start < self._open[-1][2] or regions != self._regions):
            self._cut, self._open = self._cut + 1, []  # its last lines are not in the file
        if not self._open:
            self._end_ns = int(found[1]) * 10**9 + int(found[2].ljust(9, b"0"))
            self._regions = regions
        self._open.append((where, start, end, accesses))
        if len(self._open) == regions:
            self._whole.append((self._end_ns, self._open))
            self._open = []

    def take_loss(self, line: bytes) -> None:
        lost = lost_of(line)
        if lost is not None:
            self._counts_losses |= lost >= 0
            self._not_counted |= lost < 0
            self._lost += max(lost, 0)

    def imported(self) -> Imported:
        self._cut += bool(self._open)
        if not self._whole:
            raise ForeignFileError(
                self.path, "", "holds no whole snapshot of damon_aggregated", _HINT
            )
        ends = [end for end, _ in self._whole]
        lengths = (ends[-1] - ends[0]) // max(1, len(ends) - 1)
        notes = ["the first snapshot is taken to last as long as the others on the average"]
        if len(ends) == 1:
            notes, lengths = ["how long the one snapshot lasted is not known: it has 1 ns"], 1
        snapshots, before = Snapshots(self.path), max(0, ends[0] - lengths)
        for end, regions in self._whole:
            if end < before:
                raise ForeignFileError(self.path, regions[0][0], "goes back in time")
            if not _is_made_up(regions):
                for region in regions:
                    snapshots.add_region(*region)
                snapshots.add(regions[0][0], before, end)
            before = end
        counted = self._counts_losses and not self._not_counted
        return snapshots.imported(
            notes,
            losses="counted" if counted else "not counted",
            lost=self._lost if counted else 0,
            counts={"snapshots that are not whole were left out": self._cut},
        )


def _is_made_up(regions: list[tuple[str, int, int, int]]) -> bool:
    """Say whether damo has added this to a single snapshot, to give it a length."""
    return len(regions) == 1 and regions[0][1:] == (0, 0, -1)
