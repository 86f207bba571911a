# SPDX-License-Identifier: Apache-2.0
"""A trace's uses in memory, sorted by page: the working set of any part of it in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from pmlkit.reuse import means
from pmlkit.selection import select

if TYPE_CHECKING:
    from pmlkit.trace import Trace

__all__ = ["UsesByPage", "windows"]

WORKERS = 2


class UsesByPage:
    """The uses of a trace's pages, 4 bytes each; made once, asked again and again.

    Parameters
    ----------
    trace : Trace
    start, end : str, int or None
        Read these rounds only.

    Attributes
    ----------
    frames : ndarray of uint64, shape (pages,)
        The pages, ascending.
    n_rounds, first : int
        Rounds that were read, and the number of the first one in the trace.
    t_ns : ndarray of int64, shape (n_rounds + 1,)
        The times between rounds.
    """

    def __init__(
        self, trace: Trace, start: str | int | None = None, end: str | int | None = None
    ) -> None:
        part = select(trace, start=start, end=end)
        gfn, self.n_rounds = part.occ.gfn, part.occ.n_rounds
        new = np.concatenate(([True], gfn[1:] != gfn[:-1]))[: len(gfn)]
        self._starts = np.append(np.flatnonzero(new), len(gfn))
        self._rounds = part.occ.round.astype(np.int32)
        self.frames, self.first, self.t_ns = gfn[new], part.first, part.t_ns
        cuts = [len(gfn) * i // WORKERS for i in range(WORKERS + 1)]
        cuts = np.searchsorted(self._starts[:-1], cuts).tolist()
        self._shares = list(zip(cuts[:-1], cuts[1:], strict=True))

    def __len__(self) -> int:
        return len(self._rounds)

    def chosen(self, frames: np.ndarray | None = None) -> np.ndarray:
        """Say of each page whether it is one of `frames`; of all of them without."""
        if frames is None:
            return np.ones(len(self.frames), bool)
        return np.isin(self.frames, frames)

    def sizes(
        self, k: int, min_count: int, span: tuple[int, int], chosen: np.ndarray
    ) -> np.ndarray:
        """Return W(t, k) at the end of every round.

        Parameters
        ----------
        k, min_count : int
            Window in rounds; the threshold m.
        span : (int, int)
            The first round looked at, and the one after the last; windows stay within.
        chosen : ndarray of bool, shape (pages,)
            Of `chosen`.

        Returns
        -------
        ndarray of int64, shape (span[1] - span[0],)
            Pages, as `workingset.estimate` with ``step="sliding"`` has them.
        """
        from pmlkit.kernels_explorer import slide_pages

        n = span[1] - span[0]
        window = (min(k, max(n, 1)), min_count)
        (steps,) = self._sum(slide_pages, chosen, span, window, np.zeros((1, n + 1), np.int32))
        return np.cumsum(steps, dtype=np.int64)[:n]

    def means(self, min_count: int, span: tuple[int, int], chosen: np.ndarray) -> np.ndarray:
        """Return the mean of W(t, k) over the rounds with a full window, for every k at once.

        Returns
        -------
        ndarray of float, shape (rounds + 1,)
            At index k the mean, as ``workingset.surface`` has it; NaN at 0.
        """
        from pmlkit.kernels_explorer import bend_pages

        n = span[1] - span[0]
        found = self._sum(bend_pages, chosen, span, (min_count,), np.zeros((2, n + 1), np.int32))
        bends, reached = found.astype(np.int64)
        total = np.concatenate(([0], np.cumsum(np.cumsum(bends))[:n]))
        # A window that is cut short by the start holds what was counted since the start.
        short = np.concatenate(([0], np.cumsum(np.cumsum(reached))))[:n]
        return means((total, total[1:] - short), n)[1]

    def _sum(
        self,
        kernel: Callable[..., None],
        chosen: np.ndarray,
        span: tuple[int, int],
        window: tuple[int, ...],
        zeros: np.ndarray,
    ) -> np.ndarray:
        """Let each worker go through its share of the pages, and add up what they found."""

        def part(pages: tuple[int, int]) -> np.ndarray:
            found = zeros.copy()
            kernel(self._starts, self._rounds, chosen, pages, span, *window, *found)
            return found

        with ThreadPoolExecutor(WORKERS) as pool:
            return sum(pool.map(part, self._shares), zeros)


def windows(n_rounds: int) -> list[int]:
    """Return the windows to choose from, in rounds: 1, 2, 5, 10 and so on, up to all."""
    ladder = (step * 10**power for power in range(10) for step in (1, 2, 5))
    return [1, *(k for k in ladder if 1 < k < n_rounds), *([n_rounds] if n_rounds > 1 else [])]
