# SPDX-License-Identifier: Apache-2.0
"""The number of distinct frames in the last few looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmlkit.kernels.pages import PageIndex

if TYPE_CHECKING:
    from collections.abc import Callable

    from pmlkit.techniques.view import View
    from pmlkit.types import Ints


__all__ = ["Recent", "report_recent"]


class Recent:
    """Counts the distinct frames of the last `looks` looks, in time linear in the newest look.

    Each frame is counted at the last look that contained it, so a look changes only the counts of
    its own frames.

    Parameters
    ----------
    looks : int

    Examples
    --------
    >>> import numpy as np
    >>> recent = Recent(2)
    >>> [recent.add(np.array(frames)) for frames in ([1, 2], [2, 3], [3])]
    [2, 3, 2]
    """

    def __init__(self, looks: int) -> None:
        self.looks, self.turn = looks, 0
        self._index = PageIndex()
        self._last = np.zeros(1024, np.int64)  # last look of each frame, from 1; 0: none
        self._counts = np.zeros(looks, np.int64)  # frames by their last look, modulo `looks`

    @property
    def full(self) -> bool:
        """Whether there were `looks` looks."""
        return self.turn >= self.looks

    def add(self, frames: Ints) -> int:
        """Add a look.

        Parameters
        ----------
        frames : ndarray of int64
            Each once.

        Returns
        -------
        int
            The number of distinct frames in the last `looks` looks.
        """
        ids = self._index.ids(np.asarray(frames, np.int64).view(np.uint64))
        if len(self._index) > len(self._last):
            more = np.zeros(len(self._index), np.int64)
            self._last = np.append(self._last, more)
        self.turn += 1
        before = self._last[ids]
        before = before[before > max(self.turn - self.looks, 0)]
        self._counts[self.turn % self.looks] = 0  # count of the look that is now too old
        self._counts -= np.bincount(before % self.looks, minlength=self.looks)
        self._counts[self.turn % self.looks] = len(ids)
        self._last[ids] = self.turn
        return int(self._counts.sum())


def report_recent(view: View, looks: int, look: Callable[[], Ints]) -> None:
    """Look `looks` times per T; after each look, report the distinct frames of the last T.

    Parameters
    ----------
    look : callable
        Returns the frames that a look finds, each once.
    """
    period, looks = view.parts(looks)
    recent = Recent(looks)
    for _ in view.every(period):
        pages = recent.add(look())
        if recent.full:
            view.report(pages)
