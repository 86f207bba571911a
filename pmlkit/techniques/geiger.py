# SPDX-License-Identifier: Apache-2.0
"""Geiger: evictions inferred from disk requests; missing memory, from reloads."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.ghosts import GhostList
from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from collections.abc import Callable

    from pmlkit.techniques.view import View
    from pmlkit.types import Bools, Ints

SECTORS = 8  # sectors of a page


@dataclass(frozen=True)
class Geiger(Technique):
    """The VM's present memory, plus the memory that would have avoided its reloads from the disk.

    Geiger associates a frame with the place on the disk that it was read from or written to. A read
    into a frame with another associated place means that the guest has evicted that place (a
    re-use). A place that is read again after its eviction has a distance in the ghost list. The
    working set is the present memory plus the distance that covers all but `tolerated` of the
    reloads of the last interval. Without evictions there is no estimate: the VM has enough memory,
    and the excess is invisible.

    The published Geiger ran in Xen 2.0.7 below paravirtual guests. There, every page fault and
    every update of a page table reaches the hypervisor. From these it also sees frames that are
    re-used for new anonymous memory, and copies on write. The recorder's guests run with nested
    paging, where a hypervisor sees neither. This Geiger has only the disk requests. Instead, it
    assumes that a page written to the disk is evicted at that time, because a guest that swaps
    writes a page before it re-uses the frame. Without that rule, most evictions are not detected.
    Geiger's treatment of blocks that files free, and of journals, is not needed for a swap disk.

    Attributes
    ----------
    looks : int, optional
        Estimates per window T, each from the reloads in the last T. Default as published: an
        estimate after each `interval`, from its reloads.
    interval : str
    tolerated : float
    least : int
        Number of reloads below which there is no estimate.
    """

    name = "geiger"
    title = "Geiger"
    source = "Jones et al., ASPLOS'06 (disk requests only)"
    needs = frozenset({Need.DISK})
    looks: int | None = None
    interval: str = "30s"
    tolerated: float = 0.05
    least: int = 16

    def observe(self, view: View) -> None:
        if self.looks is None:
            period, looks = view.published(self.interval), 1
        else:
            period, looks = view.parts(self.looks)
        estimate = self.following(view, looks)
        for _ in view.every(period):
            view.report(estimate())

    def following(self, view: View, looks: int) -> Callable[[], float]:
        """Return a function that processes the requests since its last call, and estimates.

        Its estimate, in pages, uses the reloads in the last `looks` calls. NaN: no estimate.
        """
        inference = Inference()
        recent: deque[Ints] = deque(maxlen=looks)

        def estimate() -> float:
            recent.append(inference.follow(*view.disk.requests()))
            distances = np.sort(np.concatenate(recent))
            if len(distances) < self.least:
                return np.nan
            more = distances[int((1 - self.tolerated) * (len(distances) - 1))] + 1
            return view.memory_pages + float(more)

        return estimate


class Inference:
    """The place on the disk of each frame, and the places whose frames were evicted.

    Attributes
    ----------
    evictions, reloads : int
        Inferred so far.
    """

    def __init__(self) -> None:
        self.evictions = self.reloads = 0
        self._ghosts = GhostList()
        self._place: dict[int, int] = {}  # place on the disk of each frame
        self._frame: dict[int, int] = {}  # for each place, the frame that held it last

    def follow(self, sector: Ints, gfn: Ints, write: Bools) -> Ints:
        """Process requests: arrays of sectors, frames, and whether each is a write.

        Returns
        -------
        ndarray of int64
            The distances of the reloaded places.
        """
        pages: list[int] = []
        back: list[bool] = []
        for place, frame, written in zip(
            (sector // SECTORS).tolist(), gfn.tolist(), write.tolist(), strict=True
        ):
            held = self._place.get(frame, place)
            replaced = held != place and self._frame.get(held) == frame
            if not written:
                pages.append(place)
                back.append(True)
            if written or replaced:
                pages.append(place if written else held)
                back.append(False)
            self._place[frame], self._frame[place] = place, frame
        distances = self._ghosts.follow(pages, back)
        distances = distances[distances >= 0]
        self.evictions += back.count(False)
        self.reloads += len(distances)
        return distances
