# SPDX-License-Identifier: Apache-2.0
"""Geiger: evictions inferred from disk requests; what is missing, from what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.techniques.curves import GhostList
from pmlkit.techniques.protocol import Technique
from pmlkit.techniques.recorded import Need

if TYPE_CHECKING:
    from pmlkit.techniques.view import View
    from pmlkit.types import Bools, Ints


__all__ = ["Geiger", "Inference"]

SECTORS = 8  # of a page


@dataclass(frozen=True)
class Geiger(Technique):
    """The memory that the VM has, and what more would have kept its reloads from the disk.

    A frame is associated with the place on the disk that it was read from or written to. A read
    into a frame that was associated with another place means that the guest has evicted that one
    (a re-use); a place that is read again after its eviction has a distance in the ghost list. The
    working set is the memory there is plus the distance that covers all but `tolerated` of the
    reloads of the last interval. Without evictions it says nothing: the VM has enough, and how
    much too much is not to be seen.

    The published Geiger sat in Xen 2.0.7 under paravirtual guests, where every page fault and every
    update of a page table passes the hypervisor: by these it also sees frames that are re-used for
    new anonymous memory, and copies on write. Under nested paging a hypervisor sees neither, and
    the recorder's guests run so: this one has the disk requests only. Instead, a page that is
    written to the disk is taken to be gone when written (a guest that swaps writes it before it
    re-uses the frame): without that most evictions went unseen; with it, in the bundled recording
    `pressure`, 98 % of what is read from swap had been seen to go. What Geiger does about blocks
    that files free, and about journals, has no use with a bare swap disk.

    Attributes
    ----------
    interval : str
        Between estimates.
    tolerated : float
    least : int
        Reloads per interval below which it says nothing.
    """

    name = "geiger"
    title = "Geiger"
    source = "Jones et al., ASPLOS'06 (disk requests only)"
    needs = frozenset({Need.DISK})
    interval: str = "30s"
    tolerated: float = 0.05
    least: int = 16

    def observe(self, view: View) -> None:
        guess = Inference()
        for _ in view.every(view.published(self.interval)):
            view.report(self.estimate(guess, view))

    def estimate(self, guess: Inference, view: View) -> float:
        """Take in the requests since the last call; return pages, NaN if nothing can be said."""
        distances = np.sort(guess.take(*view.disk.requests()))
        if len(distances) < self.least:
            return np.nan
        more = distances[int((1 - self.tolerated) * (len(distances) - 1))] + 1
        return view.memory_pages + float(more)


class Inference:
    """Which place on the disk each frame holds, and which places are gone from memory.

    Attributes
    ----------
    evictions, reloads : int
        How many were inferred.
    """

    def __init__(self) -> None:
        self.evictions = self.reloads = 0
        self._ghosts, self._place, self._frame = GhostList(), {}, {}  # type: ignore[var-annotated]

    def take(self, sector: Ints, gfn: Ints, write: Bools) -> Ints:
        """Follow requests: arrays of sectors, frames, and whether each is a write.

        Returns
        -------
        ndarray of int64
            The distances of the places that came back.
        """
        pages, back = [], []
        for place, frame, out in zip(
            (sector // SECTORS).tolist(), gfn.tolist(), write.tolist(), strict=True
        ):
            held = self._place.get(frame)
            replaced = held is not None and held != place and self._frame.get(held) == frame
            gone = [place] if out else [held] if replaced else []
            if not out:
                pages.append(place)
                back.append(True)
            pages += gone
            back += [False] * len(gone)
            self._place[frame], self._frame[place] = place, frame
        distances = self._ghosts.follow(pages, back)
        distances = distances[distances >= 0]
        self.evictions += back.count(False)
        self.reloads += len(distances)
        return distances
